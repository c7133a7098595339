/* Transfers in two phases: what is pending moves nothing yet but is set aside on both accounts; later all or part of it is posted and the rest given back, or it is voided, or
 * its time is over. Once, whichever it is: each of the three is a transfer of its own, whose id follows from that of the pending one. */
#include "cloud/ledger.h"

#include <stdio.h>

int pending_make(struct ledger *l, const struct transfer *t, int64_t expires, bool *again, struct error *e) {
    struct query *q;
    int rc = ledger_record(l, t, again, e);
    if (rc != 0 || *again || (rc = ledger_check(l, t, e)) != 0 ||
        (rc = store_query(l->store, &q, "INSERT INTO pending (transfer, expires) VALUES ($1, $2)", e)) != 0)
        return rc;
    query_int(q, 1, l->seq);
    query_int(q, 2, expires);
    if ((rc = query_run(q, e)) != 0 ||
        (rc = ledger_move(l, t->debit, &(struct movement){.pending_debit = t->value}, e)) != 0)
        return rc;
    return ledger_move(l, t->credit, &(struct movement){.pending_credit = t->value}, e);
}

int pending_find(struct ledger *l, struct str id, struct pending *out, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q,
                         "SELECT t.seq, t.debit, t.credit, t.amount, t.phase, coalesce(p.expires, -1)"
                         " FROM transfer t LEFT JOIN pending p ON p.transfer = t.seq WHERE t.id = $1",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool found = rc > 0 && query_column_int(q, 4) == PHASE_PENDING;
    *out = (struct pending){.seq = query_column_int(q, 0),
                            .debit = query_column_int(q, 1),
                            .credit = query_column_int(q, 2),
                            .value = query_column_int(q, 3),
                            .expires = query_column_int(q, 5),
                            .open = query_column_int(q, 5) >= 0};
    rc = query_run(q, e);
    return rc != 0 || found ? rc
                            : error_set(e, ERR_NOT_FOUND, "there is no pending transfer %.*s",
                                        (int)(id.n < 100 ? id.n : 100), id.p);
}

static int forget(struct ledger *l, int64_t seq, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q, "DELETE FROM pending WHERE transfer = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, seq);
    return query_run(q, e);
}

int pending_end(struct ledger *l, const struct pending *p, const struct transfer *t, bool *again,
                struct error *e) {
    amount posted = t->phase == PHASE_POST ? t->value : 0;
    if (t->value > p->value)
        return error_set(e, ERR_INVALID, "more would be posted than is pending");
    if (p->open && p->expires > 0 && p->expires <= t->at && t->phase != PHASE_EXPIRED)
        return error_set(e, ERR_CONFLICT, "the pending transfer's time is over");
    int rc = ledger_record(l, t, again, e);
    if (rc != 0 || *again)
        return rc;
    if (!p->open)
        return error_set(e, ERR_CONFLICT,
                         "the transfer is pending no longer: it was posted, voided or has expired");
    if ((rc = forget(l, p->seq, e)) != 0 ||
        (rc = ledger_move(l, p->debit, &(struct movement){.balance = -posted, .pending_debit = -p->value},
                          e)) != 0)
        return rc;
    return ledger_move(l, p->credit, &(struct movement){.balance = posted, .pending_credit = -p->value}, e);
}

int pending_next(struct ledger *l, int64_t *expires, char *id, size_t size, struct error *e) {
    struct query *q;
    *expires = INT64_MAX;
    int rc = store_query(l->store, &q,
                         "SELECT p.expires, t.id FROM pending p JOIN transfer t ON t.seq = p.transfer"
                         " WHERE p.expires > 0 ORDER BY p.expires, p.transfer LIMIT 1",
                         e);
    if (rc != 0 || (rc = query_step(q, e)) <= 0)
        return rc;
    *expires = query_column_int(q, 0);
    snprintf(id, size, "%.*s", (int)query_column_text(q, 1).n, query_column_text(q, 1).p);
    return query_run(q, e);
}
