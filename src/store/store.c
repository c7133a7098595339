/* The database seam: which driver a store has, and the statements it keeps. See store.h. */
#include "store/driver.h"

#include <stddef.h>
#include <string.h>

bool store_is_url(const char *where) {
    return strncmp(where, "postgresql://", 13) == 0 || strncmp(where, "postgres://", 11) == 0;
}

int store_open(struct store **out, const char *where, struct error *e) {
    *out = NULL;
    return store_is_url(where) ? postgres_open(out, where, POSTGRES_ALONE, e) : sqlite_open(out, where, e);
}

int store_open_shared(struct store **out, const char *where, struct error *e) {
    *out = NULL;
    return store_is_url(where) ? postgres_open(out, where, POSTGRES_SHARED, e) : sqlite_open(out, where, e);
}

int store_open_beside(struct store **out, const char *where, struct error *e) {
    *out = NULL;
    return store_is_url(where) ? postgres_open(out, where, POSTGRES_BESIDE, e)
                               : error_set(e, ERR_UNSUPPORTED, "a file has one hand alone");
}

void store_forget(struct store *s) {
    for (size_t i = 0; i < STORE_BUCKETS; i++)
        for (struct query *q; (q = s->queries[i]) != NULL;) {
            s->queries[i] = q->next;
            s->driver->forget(q);
        }
}

void store_close(struct store *s) {
    if (s == NULL)
        return;
    store_forget(s);
    s->driver->close(s);
}

int store_begin(struct store *s, struct error *e) {
    return s->driver->begin(s, e);
}

int store_begin_reading(struct store *s, struct error *e) {
    return s->driver->begin_reading(s, e);
}

int store_commit(struct store *s, struct error *e) {
    return s->driver->commit(s, e);
}

void store_rollback(struct store *s) {
    s->driver->rollback(s);
}

bool store_wrote(const struct store *s) {
    return !s->read;
}

int store_reconnect(struct store *s, struct error *e) {
    return s->driver->reconnect(s, e);
}

int store_query(struct store *s, struct query **out, const char *sql, struct error *e) {
    struct query **bucket = &s->queries[((uintptr_t)sql >> 3) % STORE_BUCKETS], *q = *bucket;
    while (q != NULL && q->sql != sql)
        q = q->next;
    if (q == NULL) {
        int rc = s->driver->prepare(s, &q, sql, e);
        if (rc != 0)
            return rc;
        q->store = s;
        q->sql = sql;
        q->next = *bucket;
        *bucket = q;
    }
    s->driver->reset(q);
    *out = q;
    return 0;
}

void query_int(struct query *q, int parameter, int64_t value) {
    q->store->driver->bind_int(q, parameter, value);
}

void query_text(struct query *q, int parameter, struct str value) {
    q->store->driver->bind_text(q, parameter, value);
}

void query_blob(struct query *q, int parameter, struct str value) {
    q->store->driver->bind_blob(q, parameter, value);
}

int query_step(struct query *q, struct error *e) {
    return q->store->driver->step(q, e);
}

int query_run(struct query *q, struct error *e) {
    return q->store->driver->run(q, e);
}

int64_t query_changed(struct query *q) {
    return q->store->driver->changed(q);
}

int64_t query_column_int(struct query *q, int column) {
    return q->store->driver->column_int(q, column);
}

struct str query_column_text(struct query *q, int column) {
    return q->store->driver->column_text(q, column);
}
