/* The books in SQLite: one connection, which writes and checkpoints itself (the SQLite of Debian 12 can corrupt a write-ahead log that two connections
 * reset) and lets no other one in (somebody's sqlite3 in a transaction would otherwise stop the money path), every commit synced. On the yen's journey: where a
 * charge becomes durable. */
#include "store/schema.h"
#include "store/store.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PARAMETERS = 20 };

struct query {
    sqlite3_stmt *statement;
    int place[PARAMETERS + 1]; /* of parameter $n */
    const char *sql;
    struct store *store;
    struct query *next;
};

struct store {
    sqlite3 *db;
    struct query *queries;
    bool failed; /* to read or write: the file is not touched again */
};

static int fail(struct store *s, struct error *e) {
    int code = sqlite3_errcode(s->db);
    enum err err = code == SQLITE_CONSTRAINT                         ? ERR_CONFLICT
                   : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? ERR_CORRUPT
                                                                     : ERR_IO;
    s->failed = s->failed || err != ERR_CONFLICT;
    if (code == SQLITE_BUSY)
        return error_set(e, err, "another program has the books' database open");
    return error_set(e, err, "the books' database: %s", sqlite3_errmsg(s->db));
}

static int run(struct store *s, const char *sql, struct error *e) {
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(s, e);
}

static int migrate(struct store *s, struct error *e) {
    struct query *q;
    char version[64];
    int rc = store_query(s, &q, "PRAGMA user_version", e), known = 0;
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    int64_t at = query_column_int(q, 0);
    sqlite3_reset(q->statement);
    while (schema_migrations[known] != NULL)
        known++;
    if (at < 0)
        return error_set(e, ERR_CORRUPT, "the books have no version");
    if (at > known)
        return error_set(e, ERR_UNSUPPORTED,
                         "the books are of version %d, this program knows %d: use a newer unkai", (int)at,
                         known);
    for (; at < known; at++) {
        snprintf(version, sizeof version, "PRAGMA user_version = %d", (int)at + 1);
        if ((rc = store_begin(s, e)) != 0)
            return rc;
        if ((rc = run(s, schema_migrations[at], e)) != 0 || (rc = run(s, version, e)) != 0 ||
            (rc = store_commit(s, e)) != 0) {
            store_rollback(s);
            return rc;
        }
    }
    return 0;
}

int store_open(struct store **out, const char *folder, struct error *e) {
    struct store *s = calloc(1, sizeof *s);
    char path[4200];
    int rc;
    *out = NULL;
    if (s == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the books");
    snprintf(path, sizeof path, "%s/books.db", folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600); /* before SQLite makes it readable for others */
    if (fd >= 0)
        close(fd);
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
        store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s) {
    if (s == NULL)
        return;
    for (struct query *q = s->queries, *next; q != NULL; q = next) {
        next = q->next;
        sqlite3_finalize(q->statement);
        free(q);
    }
    if (s->failed) /* no checkpoint: what the file holds is for the next start to find out */
        sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    sqlite3_close(s->db);
    free(s);
}

int store_begin(struct store *s, struct error *e) {
    return run(s, "BEGIN IMMEDIATE", e);
}

int store_commit(struct store *s, struct error *e) {
    return run(s, "COMMIT", e);
}

void store_rollback(struct store *s) {
    if (!sqlite3_get_autocommit(s->db))
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
}

static void find_places(struct query *q) {
    char name[16];
    for (int i = 1; i <= PARAMETERS; i++) {
        snprintf(name, sizeof name, "$%d", i);
        q->place[i] = sqlite3_bind_parameter_index(q->statement, name);
    }
}

int store_query(struct store *s, struct query **out, const char *sql, struct error *e) {
    struct query *q = s->queries;
    while (q != NULL && q->sql != sql)
        q = q->next;
    if (q == NULL) {
        q = calloc(1, sizeof *q);
        if (q == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory for a query");
        if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &q->statement, NULL) != SQLITE_OK) {
            free(q);
            return fail(s, e);
        }
        find_places(q);
        q->sql = sql;
        q->store = s;
        q->next = s->queries;
        s->queries = q;
    }
    sqlite3_reset(q->statement);
    sqlite3_clear_bindings(q->statement);
    *out = q;
    return 0;
}

void query_int(struct query *q, int parameter, int64_t value) {
    sqlite3_bind_int64(q->statement, q->place[parameter], value);
}

void query_text(struct query *q, int parameter, struct str value) {
    sqlite3_bind_text64(q->statement, q->place[parameter], value.n ? value.p : "", value.n, SQLITE_TRANSIENT,
                        SQLITE_UTF8);
}

void query_blob(struct query *q, int parameter, struct str value) {
    sqlite3_bind_blob64(q->statement, q->place[parameter], value.p, value.n, SQLITE_TRANSIENT);
}

int query_step(struct query *q, struct error *e) {
    int code = sqlite3_step(q->statement);
    if (code == SQLITE_ROW)
        return 1;
    if (code == SQLITE_DONE) {
        sqlite3_reset(q->statement);
        return 0;
    }
    int rc = fail(q->store, e);
    sqlite3_reset(q->statement);
    return rc;
}

int query_run(struct query *q, struct error *e) {
    int rc;
    while ((rc = query_step(q, e)) > 0) {}
    return rc;
}

int64_t query_inserted(struct query *q) {
    return sqlite3_changes(q->store->db) > 0 ? sqlite3_last_insert_rowid(q->store->db) : 0;
}

int64_t query_column_int(struct query *q, int column) {
    return sqlite3_column_int64(q->statement, column);
}

struct str query_column_text(struct query *q, int column) {
    const void *p = sqlite3_column_blob(q->statement, column);
    size_t n = (size_t)sqlite3_column_bytes(q->statement, column);
    return p != NULL ? (struct str){p, n} : (struct str){"", 0};
}
