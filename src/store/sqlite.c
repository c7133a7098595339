/* The books in SQLite: one connection, which writes and checkpoints itself (the SQLite of Debian 12 can corrupt a write-ahead log that two connections
 * reset) and lets no other one in (somebody's sqlite3 in a transaction would otherwise stop the money path), every commit synced. On the yen's journey: where a
 * charge becomes durable. */
#include "store/driver.h"
#include "store/schema.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sqlite_query {
    struct query base;
    sqlite3_stmt *statement;
    int place[STORE_PARAMETERS + 1]; /* of parameter $n */
};

struct sqlite {
    struct store base;
    sqlite3 *db;
    bool failed; /* to read or write: the file is not touched again */
};

static struct sqlite *sqlite_of(struct store *s) {
    return (struct sqlite *)(void *)s;
}

static struct sqlite_query *query_of(struct query *q) {
    return (struct sqlite_query *)(void *)q;
}

static int fail(struct sqlite *s, struct error *e) {
    int code = sqlite3_errcode(s->db);
    enum err err = code == SQLITE_CONSTRAINT                         ? ERR_CONFLICT
                   : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERR_CORRUPT
                                                                     : ERR_IO;
    s->failed = s->failed || err != ERR_CONFLICT;
    if (code == SQLITE_BUSY)
        return error_set(e, err, "another program has the books' database open");
    return error_set(e, err, "the books' database: %s", sqlite3_errmsg(s->db));
}

static int run(struct sqlite *s, const char *sql, struct error *e) {
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(s, e);
}

static int begin(struct store *s, struct error *e) {
    return run(sqlite_of(s), "BEGIN IMMEDIATE", e);
}

static int begin_reading(struct store *s, struct error *e) {
    return run(sqlite_of(s), "BEGIN", e);
}

static int commit(struct store *s, struct error *e) {
    return run(sqlite_of(s), "COMMIT", e);
}

static void rollback(struct store *s) {
    if (!sqlite3_get_autocommit(sqlite_of(s)->db))
        sqlite3_exec(sqlite_of(s)->db, "ROLLBACK", NULL, NULL, NULL);
}

static int migrate(struct sqlite *s, struct error *e) {
    struct query *q;
    char version[64];
    int rc = store_query(&s->base, &q, "PRAGMA user_version", e), known = store_version();
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    int64_t at = query_column_int(q, 0);
    sqlite3_reset(query_of(q)->statement);
    if ((rc = schema_check(at, e)) != 0)
        return rc;
    for (; at < known; at++) {
        snprintf(version, sizeof version, "PRAGMA user_version = %d", (int)at + 1);
        if ((rc = store_begin(&s->base, e)) != 0)
            return rc;
        if ((rc = run(s, schema_migrations[at], e)) != 0 || (rc = run(s, version, e)) != 0 ||
            (rc = store_commit(&s->base, e)) != 0) {
            store_rollback(&s->base);
            return rc;
        }
    }
    return 0;
}

static void sqlite_close(struct store *base) {
    struct sqlite *s = sqlite_of(base);
    if (s->failed) /* no checkpoint: what the file holds is for the next start to find out */
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(s->db);
    free(s);
}

static int prepare(struct store *s, struct query **out, const char *sql, struct error *e) {
    struct sqlite_query *q = calloc(1, sizeof *q);
    char name[16];
    if (q == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a query");
    if (sqlite3_prepare_v3(sqlite_of(s)->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q->statement, NULL) !=
        SQLITE_OK) {
        free(q);
        return fail(sqlite_of(s), e);
    }
    for (int i = 1; i <= STORE_PARAMETERS; i++) {
        snprintf(name, sizeof name, "$%d", i);
        q->place[i] = sqlite3_bind_parameter_index(q->statement, name);
    }
    *out = &q->base;
    return 0;
}

static void forget(struct query *q) {
    sqlite3_finalize(query_of(q)->statement);
    free(q);
}

static void reset(struct query *q) {
    sqlite3_reset(query_of(q)->statement);
    sqlite3_clear_bindings(query_of(q)->statement);
}

static void bind_int(struct query *q, int parameter, int64_t value) {
    sqlite3_bind_int64(query_of(q)->statement, query_of(q)->place[parameter], value);
}

static void bind_text(struct query *q, int parameter, struct str value) {
    sqlite3_bind_text64(query_of(q)->statement, query_of(q)->place[parameter], value.n ? value.p : "",
                        value.n, SQLITE_TRANSIENT, SQLITE_UTF8);
}

static void bind_blob(struct query *q, int parameter, struct str value) {
    sqlite3_bind_blob64(query_of(q)->statement, query_of(q)->place[parameter], value.n ? value.p : "",
                        value.n, SQLITE_TRANSIENT);
}

static int step(struct query *q, struct error *e) {
    int code = sqlite3_step(query_of(q)->statement);
    if (code == SQLITE_ROW)
        return 1;
    int rc = code == SQLITE_DONE ? 0 : fail(sqlite_of(q->store), e);
    sqlite3_reset(query_of(q)->statement);
    return rc;
}

static int run_query(struct query *q, struct error *e) {
    int rc;
    while ((rc = step(q, e)) > 0) {}
    return rc;
}

static int64_t changed(struct query *q) {
    return sqlite3_changes64(sqlite_of(q->store)->db);
}

static int64_t column_int(struct query *q, int column) {
    return sqlite3_column_int64(query_of(q)->statement, column);
}

static struct str column_text(struct query *q, int column) {
    const void *p = sqlite3_column_blob(query_of(q)->statement, column);
    size_t n = (size_t)sqlite3_column_bytes(query_of(q)->statement, column);
    return p != NULL ? (struct str){p, n} : (struct str){"", 0};
}

static int reconnect(struct store *s, struct error *e) {
    return error_set(e, ERR_INTERNAL, "a file does not go away");
}

static int renumber(struct store *s, struct error *e) {
    return 0; /* SQLite counts on from the highest */
}

static const struct driver driver = {
    .close = sqlite_close,
    .begin = begin,
    .begin_reading = begin_reading,
    .commit = commit,
    .rollback = rollback,
    .reconnect = reconnect,
    .prepare = prepare,
    .forget = forget,
    .reset = reset,
    .bind_int = bind_int,
    .bind_text = bind_text,
    .bind_blob = bind_blob,
    .step = step,
    .run = run_query,
    .changed = changed,
    .column_int = column_int,
    .column_text = column_text,
    .renumber = renumber,
};

static int open_path(struct store **out, const char *path, struct error *e) {
    struct sqlite *s = calloc(1, sizeof *s);
    int rc;
    if (s == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the books");
    s->base.driver = &driver;
    /* Nobody asks how much memory SQLite uses, and counting it takes a lock for each piece. Refused, and no matter, once SQLite runs. */
    sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    if (sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK) {
        rc = s->db != NULL ? fail(s, e) : error_set(e, ERR_NO_MEMORY, "no memory for the books");
    } else if (
        (rc = run(s, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL", e)) == 0 &&
        (rc = run(s, "PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON", e)) == 0 &&
        /* In KiB, and in pages: what is written again and again stays in memory, and goes from the log to its place now and then. */
        (rc = run(s, "PRAGMA cache_size = -16384; PRAGMA wal_autocheckpoint = 4000", e)) == 0) {
        rc = migrate(s, e);
    }
    if (rc != 0) {
        store_close(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}

/* Made before SQLite makes it readable for others. */
static int make_file(const char *path, int flags) {
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | flags, 0600);
    return fd < 0 ? -1 : close(fd);
}

int sqlite_open(struct store **out, const char *folder, struct error *e) {
    char path[4200];
    snprintf(path, sizeof path, "%s/books.db", folder);
    make_file(path, 0);
    return open_path(out, path, e);
}

int store_open_file(struct store **out, const char *file, bool make, struct error *e) {
    *out = NULL;
    if (make ? make_file(file, O_EXCL) != 0 : strcmp(file, ":memory:") != 0 && access(file, F_OK) != 0)
        return error_set(e,
                         errno == EEXIST   ? ERR_CONFLICT
                         : errno == ENOENT ? ERR_NOT_FOUND
                                           : ERR_IO,
                         "%.300s: %s", file, strerror(errno));
    int rc = open_path(out, file, e);
    return rc != 0 ? error_prefix(e, "%.200s: ", file) : 0;
}

/* ---- backups ---- */

enum { BACKUP_PAGES = 256 };

struct store_backup {
    sqlite3 *db;
    sqlite3_backup *copy;
};

int store_backup_start(struct store *s, const char *file, struct store_backup **out, struct error *e) {
    struct store_backup *b = *out = calloc(1, sizeof *b);
    if (b == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a backup");
    if (make_file(file, O_EXCL) != 0)
        return error_set(e, errno == EEXIST ? ERR_CONFLICT : ERR_IO, "%.300s: %s", file, strerror(errno));
    if (sqlite3_open_v2(file, &b->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
        (b->copy = sqlite3_backup_init(b->db, "main", sqlite_of(s)->db, "main")) == NULL)
        return error_set(e, ERR_IO, "%.200s: %s", file,
                         b->db != NULL ? sqlite3_errmsg(b->db) : "no memory for a backup");
    return 0;
}

int store_backup_step(struct store_backup *b, int64_t *done, int64_t *total, struct error *e) {
    int code = sqlite3_backup_step(b->copy, BACKUP_PAGES);
    *total = sqlite3_backup_pagecount(b->copy);
    *done = *total - sqlite3_backup_remaining(b->copy);
    if (code == SQLITE_OK)
        return 1;
    return code == SQLITE_DONE ? 0 : error_set(e, ERR_IO, "the backup: %s", sqlite3_errstr(code));
}

void store_backup_end(struct store_backup *b) {
    if (b == NULL)
        return;
    sqlite3_backup_finish(b->copy);
    sqlite3_close(b->db);
    free(b);
}
