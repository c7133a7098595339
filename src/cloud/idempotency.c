/* What the books know of idempotency keys: a row with the hold, the answer with the settlement, so that neither is there without the other; and a look into them
 * that nobody waits for. On a request's journey: before it is admitted, and when it is settled. */
#include "cloud/inner.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { CLEAN_AT_ONCE = 2 }; /* more than one row for each that comes: the old ones become fewer */

static int64_t oldest(int64_t now) {
    return now - ANSWER_DAYS * INT64_C(86400000000000);
}

static struct str bytes_of(const struct hash *h) {
    return (struct str){(const char *)h->byte, sizeof h->byte};
}

void answer_free(struct answer *a) {
    if (a == NULL)
        return;
    buf_free(&a->bytes);
    free(a);
}

/* ---- with holds and settlements ---- */

static int forget_old(struct store *s, int64_t before, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q,
                         "DELETE FROM idempotency WHERE (tenant, key) IN (SELECT tenant, key FROM idempotency"
                         " WHERE at < $1 AND status <> 0 ORDER BY at LIMIT $2)",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, before);
    query_int(q, 2, CLEAN_AT_ONCE);
    return query_run(q, e);
}

int answer_write_running(struct store *s, const struct hold *h, struct error *e) {
    struct query *q;
    int rc = forget_old(s, oldest(h->at), e);
    if (rc == 0)
        rc = store_query(s, &q,
                         "INSERT INTO idempotency (tenant, key, body, request, at, status, type, answer)"
                         " VALUES ($1, $2, $3, $4, $5, 0, '', $6) ON CONFLICT (tenant, key) DO UPDATE SET"
                         " body = excluded.body, request = excluded.request, at = excluded.at, status = 0,"
                         " type = '', answer = excluded.answer WHERE idempotency.at < $7",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, h->answer->tenant);
    query_blob(q, 2, bytes_of(&h->answer->key));
    query_blob(q, 3, bytes_of(&h->answer->body));
    query_text(q, 4, str_from(h->id));
    query_int(q, 5, h->at);
    query_blob(q, 6, STR(""));
    query_int(q, 7, oldest(h->at));
    return query_run(q, e);
}

int answer_try_running(struct store *s, const struct hold *h, bool *taken, struct error *e) {
    struct query *q;
    int rc = answer_write_running(s, h, e);
    if (rc == 0)
        rc = store_query(s, &q, "SELECT request FROM idempotency WHERE tenant = $1 AND key = $2", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, h->answer->tenant);
    query_blob(q, 2, bytes_of(&h->answer->key));
    if ((rc = query_step(q, e)) < 0)
        return rc;
    *taken = rc == 0 || !str_is(query_column_text(q, 0), h->id);
    return query_run(q, e);
}

static int forget(struct store *s, struct str request, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "DELETE FROM idempotency WHERE request = $1 AND status = 0", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, request);
    return query_run(q, e);
}

static int write_end(struct store *s, struct str request, int status, struct str type, struct str bytes,
                     struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q, "UPDATE idempotency SET status = $2, type = $3, answer = $4 WHERE request = $1 AND status = 0",
        e);
    if (rc != 0)
        return rc;
    query_text(q, 1, request);
    query_int(q, 2, status);
    query_text(q, 3, type);
    query_blob(q, 4, bytes);
    return query_run(q, e);
}

int answer_write_end(struct store *s, const struct hold *h, struct error *e) {
    const struct answer *a = h->answer;
    if (a->status == ANSWER_NONE)
        return forget(s, str_from(h->id), e);
    bool kept = a->status != ANSWER_SPENT && a->bytes.n > 0;
    return write_end(s, str_from(h->id), a->status, str_from(a->type), kept ? buf_view(&a->bytes) : STR(""),
                     e);
}

int answer_recover(struct store *s, struct str request, bool charged, struct error *e) {
    return charged ? write_end(s, request, ANSWER_SPENT, STR(""), STR(""), e) : forget(s, request, e);
}

/* ---- looking ---- */

struct find {
    struct entry entry; /* first: the writer knows nothing else */
    struct answer *answer;
};

static struct find *find_of(struct entry *entry) {
    return (struct find *)(void *)entry;
}

int cloud_find_answer(struct cloud *c, struct answer *a, struct error *e) {
    struct find *f = calloc(1, sizeof *f);
    if (f == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the request");
    f->entry.kind = ENTRY_FIND;
    f->answer = a;
    pthread_mutex_lock(&c->lock);
    journal_put(c, &f->entry);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

int find_run(struct store *s, struct entry *entry, struct error *e) {
    struct answer *a = find_of(entry)->answer;
    struct query *q;
    int rc = store_query(
        s, &q,
        "SELECT body, status, type, answer FROM idempotency WHERE tenant = $1 AND key = $2 AND at >= $3", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, a->tenant);
    query_blob(q, 2, bytes_of(&a->key));
    query_int(q, 3, oldest(clock_wall_ns()));
    a->status = ANSWER_NONE;
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    struct str body = query_column_text(q, 0), type = query_column_text(q, 2);
    if (body.n != sizeof a->body)
        return error_set(e, ERR_CORRUPT, "an idempotency key of the books is damaged");
    memcpy(&a->body, body.p, sizeof a->body);
    a->status = (int)query_column_int(q, 1);
    if (type.n >= sizeof a->type)
        type.n = sizeof a->type - 1;
    memcpy(a->type, type.p, type.n);
    a->type[type.n] = 0;
    buf_clear(&a->bytes);
    buf_str(&a->bytes, query_column_text(q, 3));
    return query_run(q, e);
}

void answer_give_back(struct cloud *c, struct answer *a, bool durable) {
    a->rc = durable && !a->bytes.failed ? 0 : ERR_UNAVAILABLE;
    pthread_mutex_lock(&c->lock);
    a->next = c->answers;
    c->answers = a;
    pthread_mutex_unlock(&c->lock);
}

void find_done(struct cloud *c, struct entry *entry, bool durable) {
    answer_give_back(c, find_of(entry)->answer, durable);
    free(find_of(entry));
}

struct answer *cloud_take_answer(struct cloud *c) {
    pthread_mutex_lock(&c->lock);
    struct answer *a = c->answers;
    if (a != NULL)
        c->answers = a->next;
    pthread_mutex_unlock(&c->lock);
    return a;
}
