/* Copies of the books; see backup.h. */
#include "cloud/backup.h"

#include "cloud/inner.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 4200 };

/* ---- verifying ---- */

/* Requests that run may be open in the copy: they are settled for what their record says when it is opened as books. */
static int verify(struct store *s, struct copied *out, struct error *e) {
    struct ledger l = {.store = s};
    struct verification v = {.live = true};
    struct buf wrong = {0};
    int rc = ledger_start(&l, e);
    if (rc == 0 && (rc = ledger_begin(&l, e)) == 0)
        rc = ledger_verify(&l, &v, &wrong, e);
    if (rc == 0 && wrong.n > 0)
        rc = error_set(e, ERR_CORRUPT, "the copy does not verify: %.300s", wrong.p);
    ledger_rollback(&l);
    ledger_end(&l);
    buf_free(&wrong);
    out->transfers = v.transfers;
    out->root = v.root;
    return rc;
}

static int verify_file(const char *file, struct copied *out, struct error *e) {
    struct store *s;
    int rc = store_open_file(&s, file, false, e);
    if (rc == 0)
        rc = verify(s, out, e);
    store_close(s);
    return rc;
}

static int need_empty(struct store *s, const char *what, struct error *e) {
    bool empty = false;
    int rc = store_is_empty(s, &empty, e);
    return rc != 0 || empty ? rc : error_set(e, ERR_CONFLICT, "there are books %s already", what);
}

static void tell(const struct progress *p, int64_t done, int64_t total) {
    if (p->tell != NULL)
        p->tell(p->context, done, total);
}

/* ---- to a file ---- */

struct piece {
    struct store_backup *backup;
    const char *file;
    int64_t done, total;
    int more; /* what the last step said: an error of the copy is none of the books */
    struct error error;
};

static int start_pages(struct cloud *c, void *context, struct error *e) {
    struct piece *p = context;
    p->more = store_backup_start(c->store, p->file, &p->backup, &p->error);
    return 0;
}

static int copy_pages(struct cloud *c, void *context, struct error *e) {
    struct piece *p = context;
    p->more = store_backup_step(p->backup, &p->done, &p->total, &p->error);
    return 0;
}

static int end_pages(struct cloud *c, void *context, struct error *e) {
    store_backup_end(((struct piece *)context)->backup);
    return 0;
}

/* A SQLite file, in pieces between the writer's transactions. */
static int copy_file(struct cloud *c, const char *file, const struct progress *progress, struct error *e) {
    struct piece p = {.file = file};
    int rc = journal_call_between(c, start_pages, &p, e);
    if (rc == 0 && p.more == 0)
        do {
            rc = journal_call_between(c, copy_pages, &p, e);
            tell(progress, p.done, p.total);
        } while (rc == 0 && p.more > 0);
    if (rc == 0 && p.more < 0) {
        *e = p.error;
        rc = p.more;
    }
    journal_call_between(c, end_pages, &p, NULL);
    return rc;
}

/* Any other database, row by row, over a connection of its own that sees one moment. */
static int copy_rows(const char *where, const char *file, const struct progress *progress, struct copied *out,
                     struct error *e) {
    struct store *from, *to = NULL;
    int rc = store_open_beside(&from, where, e);
    if (rc == 0 && (rc = store_open_file(&to, file, true, e)) == 0)
        rc = store_copy(from, to, progress, &out->rows, e);
    store_close(to);
    store_close(from);
    return rc;
}

static int backup(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str file = json_as_str(json_get(args, "file"));
    struct progress progress = {control_tell, NULL};
    struct copied copied = {0};
    struct stat st = {0};
    char path[PATH_BYTES], part[PATH_BYTES + 8], root[HASH_HEX + 1];
    if (file.n == 0 || file.n >= sizeof path || file.p[0] != '/' || memchr(file.p, 0, file.n) != NULL)
        return error_param(e, ERR_INVALID, "file", "a backup wants the absolute path of a file");
    snprintf(path, sizeof path, "%.*s", (int)file.n, file.p);
    snprintf(part, sizeof part, "%s.part", path);
    if (access(path, F_OK) == 0)
        return error_param(e, ERR_CONFLICT, "file", "%.300s is there already", path);
    unlink(part); /* of a backup that was cut off */
    const char *where = cloud_where(c->folder);
    int rc = store_is_url(where) ? copy_rows(where, part, &progress, &copied, e)
                                 : copy_file(c, part, &progress, e);
    if (rc == 0)
        rc = verify_file(part, &copied, e);
    if (rc == 0 && (stat(part, &st) != 0 || rename(part, path) != 0))
        rc = error_set(e, ERR_IO, "%.300s: %s", path, strerror(errno));
    if (rc != 0) {
        unlink(part);
        return rc;
    }
    hash_hex(&copied.root, root);
    buf_text(out, "{\"file\":");
    json_write_text(out, path);
    buf_printf(out, ",\"bytes\":%lld,\"transfers\":%lld,\"root\":\"%s\"}", (long long)st.st_size,
               (long long)copied.transfers, root);
    return 0;
}

/* Whoever has the books open has brought them up to date. */
static int migrate(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    buf_printf(out, "{\"version\":%d,\"database\":\"%s\"}", store_version(),
               store_is_url(cloud_where(c->folder)) ? "PostgreSQL" : "SQLite");
    return 0;
}

const struct operation_row backup_operations[] = {
    {"db.backup", backup, OPERATION_TAKES_LONG},
    {"db.migrate", migrate, OPERATION_READS},
    {NULL},
};

/* ---- from a file ---- */

static int copy_bytes(const char *from, const char *to, const struct progress *progress, struct error *e) {
    static char piece[1 << 20];
    struct stat st;
    int64_t done = 0;
    ssize_t n = 0;
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    if (in < 0 || fstat(in, &st) != 0 ||
        (out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)) < 0) {
        int why = errno;
        if (in >= 0)
            close(in);
        return error_set(e, why == ENOENT ? ERR_NOT_FOUND : ERR_IO, "%.300s: %s", in < 0 ? from : to,
                         strerror(why));
    }
    while ((n = read(in, piece, sizeof piece)) > 0 && write(out, piece, (size_t)n) == n)
        tell(progress, done += n, st.st_size);
    int rc =
        n != 0 || fsync(out) != 0 ? error_set(e, ERR_IO, "cannot copy %.200s: %s", from, strerror(errno)) : 0;
    close(in);
    close(out);
    return rc;
}

/* A copy has no nodes yet: what runs in it is settled by the first that opens it, with whatever secret that one has. */
static int disown(struct store *s, struct error *e) {
    struct query *q;
    int rc = store_begin(s, e);
    if (rc == 0 && (rc = store_query(s, &q, "UPDATE request SET node = '' WHERE state = 'open'", e)) == 0 &&
        (rc = query_run(q, e)) == 0 && (rc = store_query(s, &q, "DELETE FROM node", e)) == 0 &&
        (rc = query_run(q, e)) == 0 &&
        (rc = store_query(s, &q, "UPDATE book SET seal = $1 WHERE id = 1", e)) == 0) {
        query_blob(q, 1, STR(""));
        rc = query_run(q, e);
    }
    if (rc == 0)
        rc = store_commit(s, e);
    if (rc != 0)
        store_rollback(s);
    return rc;
}

static int restore_to(const char *where, const char *copy, const struct progress *progress,
                      struct copied *out, struct error *e) {
    struct store *from, *to = NULL;
    int rc = store_open_file(&from, copy, false, e); /* brings it up to date */
    if (rc == 0 && (rc = store_open(&to, where, e)) == 0 && (rc = need_empty(to, "there", e)) == 0 &&
        (rc = store_copy(from, to, progress, &out->rows, e)) == 0 && (rc = disown(to, e)) == 0)
        rc = verify(to, out, e);
    store_close(from);
    store_close(to);
    return rc;
}

int backup_restore(const char *folder, const char *file, const struct progress *progress, struct copied *out,
                   struct error *e) {
    char books[PATH_BYTES], copy[PATH_BYTES], log[PATH_BYTES];
    int lock = -1;
    const char *where = cloud_where(folder);
    *out = (struct copied){0};
    snprintf(books, sizeof books, "%s/books.db", folder);
    snprintf(copy, sizeof copy, "%s/books.restored", folder);
    snprintf(log, sizeof log, "%s-wal", file);
    if (access(log, F_OK) == 0)
        return error_set(e, ERR_CONFLICT, "%.300s is no backup but a database in use", file);
    int rc = cloud_lock(folder, &lock, e);
    if (rc == 0 && !store_is_url(where) && access(books, F_OK) == 0)
        rc = error_set(e, ERR_CONFLICT, "there are books in %.300s already", folder);
    if (rc == 0 && (rc = copy_bytes(file, copy, progress, e)) == 0 && (rc = verify_file(copy, out, e)) == 0) {
        if (store_is_url(where))
            rc = restore_to(where, copy, progress, out, e);
        else if (rename(copy, books) != 0)
            rc = error_set(e, ERR_IO, "%.300s: %s", books, strerror(errno));
    }
    unlink(copy);
    if (lock >= 0)
        close(lock);
    return rc;
}

/* ---- from one database to another ---- */

static int compare(struct store *from, const struct copied *out, struct error *e) {
    struct query *q;
    int rc = store_query(from, &q, "SELECT hash FROM book WHERE id = 1", e);
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    struct str hash = query_column_text(q, 0);
    bool same = rc > 0 && hash.n == sizeof out->root && memcmp(hash.p, &out->root, hash.n) == 0;
    rc = query_run(q, e);
    return rc != 0 || same ? rc
                           : error_set(e, ERR_CONFLICT,
                                       "the books were written while they were copied: stop what uses "
                                       "them, empty the copy and move them again");
}

int backup_move(const char *folder, const char *to, const struct progress *progress, struct copied *out,
                struct error *e) {
    struct store *from = NULL, *target = NULL;
    int lock = -1, rc = cloud_lock(folder, &lock, e);
    *out = (struct copied){0};
    if (rc == 0 && (rc = store_open(&from, cloud_where(folder), e)) == 0 &&
        (rc = store_open(&target, to, e)) == 0 && (rc = need_empty(target, "there", e)) == 0 &&
        (rc = store_copy(from, target, progress, &out->rows, e)) == 0 && (rc = disown(target, e)) == 0 &&
        (rc = verify(target, out, e)) == 0)
        rc = compare(from, out, e);
    store_close(target);
    store_close(from);
    if (lock >= 0)
        close(lock);
    return rc;
}
