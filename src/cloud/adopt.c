/* The first start of books: their head, and what the first version wrote gets what the second one keeps beside it: a place in the chain, a period, the usage of its
 * day. */
#include "cloud/inner.h"

#include <stdio.h>

static int adopt_usage(struct ledger *l, const struct chain_row *row, struct error *e) {
    const struct usage_record *u = row->transfer.usage;
    struct usage_sum sum = {.key = u->key, .price = u->price, .rate = u->rate};
    snprintf(sum.model, sizeof sum.model, "%.*s", (int)u->model.n, u->model.p);
    int rc = usage_add(&sum, u, e);
    return rc != 0 ? rc : usage_write(l, u->tenant, &sum, row->transfer.at, e);
}

/* The first row behind the last one gets its place in the chain. 1: there was one. */
static int adopt_one(struct ledger *l, struct error *e) {
    struct query *q;
    struct chain_row row;
    int rc = chain_read(l->store, &q, l->seq, 1, e);
    if (rc != 0 || (rc = chain_next(q, &row, e)) <= 0 ||
        (rc = ledger_need_period(l, row.transfer.at, e)) != 0)
        return rc;
    l->hash = chain_hash(&l->row, &l->hash, row.seq, l->period, &row.transfer);
    l->seq = row.seq;
    l->moved = true;
    if (l->row.failed)
        return error_set(e, ERR_NO_MEMORY, "no memory for a transfer");
    if (row.transfer.usage != NULL && (rc = adopt_usage(l, &row, e)) != 0)
        return rc;
    if ((rc = store_query(l->store, &q, "UPDATE transfer SET period = $2, hash = $3 WHERE seq = $1", e)) != 0)
        return rc;
    query_int(q, 1, l->seq);
    query_int(q, 2, l->period);
    query_blob(q, 3, (struct str){(const char *)l->hash.byte, sizeof l->hash.byte});
    rc = query_run(q, e);
    return rc != 0 ? rc : 1;
}

static int make_head(struct ledger *l, struct error *e) {
    struct query *q;
    struct hash none = {0};
    int rc = store_query(l->store, &q,
                         "INSERT INTO book (id, seq, hash, period, zone) VALUES (1, 0, $1, 0, 0)"
                         " ON CONFLICT (id) DO NOTHING",
                         e);
    if (rc != 0)
        return rc;
    query_blob(q, 1, (struct str){(const char *)none.byte, sizeof none.byte});
    if ((rc = query_run(q, e)) != 0 || query_changed(q) == 0 || (rc = ledger_lock(l, e)) != 0)
        return rc;
    while ((rc = adopt_one(l, e)) > 0) {}
    return rc;
}

int ledger_start(struct ledger *l, struct error *e) {
    int rc = ledger_begin(l, e);
    if (rc == 0 && (rc = make_head(l, e)) == 0)
        rc = ledger_commit(l, e);
    if (rc != 0)
        ledger_rollback(l);
    return rc;
}
