/* The chain over the journal; see ledger.h. What is hashed is the row with every number as 8 bytes (the highest first) and every text behind its length, so that no
 * two rows give the same bytes. */
#include "cloud/ledger.h"

#include <string.h>

static void add_int(struct buf *b, int64_t value) {
    unsigned char byte[8];
    for (int i = 0; i < 8; i++)
        byte[i] = (unsigned char)((uint64_t)value >> (56 - 8 * i));
    buf_append(b, byte, sizeof byte);
}

static void add_str(struct buf *b, struct str s) {
    add_int(b, (int64_t)s.n);
    buf_str(b, s);
}

static void add_usage(struct buf *b, const struct usage_record *u) {
    const int64_t number[] = {u->tenant, u->key,     u->price,      u->rate,           u->at,
                              u->prompt, u->most,    u->hold,       u->sent,           u->cached,
                              u->charge, u->chip_ns, u->prefill_ns, u->first_token_ns, u->total_ns};
    add_str(b, u->model);
    add_str(b, u->state);
    add_str(b, u->node);
    add_str(b, u->route);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        add_int(b, number[i]);
}

struct hash chain_hash(struct buf *row, const struct hash *before, int64_t seq, int64_t period,
                       const struct transfer *t) {
    const int64_t number[] = {seq, period, t->at, t->debit, t->credit, t->value, t->phase};
    buf_clear(row);
    buf_append(row, before->byte, sizeof before->byte);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        add_int(row, number[i]);
    add_str(row, t->id);
    add_str(row, t->kind);
    add_str(row, t->about);
    add_str(row, t->note);
    if (t->usage != NULL)
        add_usage(row, t->usage);
    return hash_sha256(buf_view(row));
}

int chain_read(struct store *s, struct query **q, int64_t after, int64_t most, struct error *e) {
    int rc = store_query(
        s, q,
        "SELECT t.seq, t.period, t.at, t.debit, t.credit, t.amount, t.phase, t.id, t.kind, t.about, t.note,"
        " t.hash, CASE WHEN r.id IS NULL THEN 0 ELSE 1 END, r.model, r.state, r.node, r.route, r.tenant,"
        " r.key, r.price, r.rate, r.at, r.prompt, r.most, r.hold, r.sent, r.cached, r.charge, r.chip_ns,"
        " r.prefill_ns, r.first_token_ns, r.total_ns FROM transfer t"
        " LEFT JOIN request r ON t.kind = 'settle' AND r.id = substr(t.id, 8)" /* behind "settle:" */
        " WHERE t.seq > $1 ORDER BY t.seq LIMIT $2",
        e);
    if (rc != 0)
        return rc;
    query_int(*q, 1, after);
    query_int(*q, 2, most);
    return 0;
}

int chain_next(struct query *q, struct chain_row *out, struct error *e) {
    int rc = query_step(q, e), column = 13;
    if (rc <= 0)
        return rc;
    struct usage_record *u = &out->usage;
    struct str *const text[] = {&u->model, &u->state, &u->node, &u->route};
    int64_t *const number[] = {&u->tenant, &u->key,     &u->price,      &u->rate,           &u->at,
                               &u->prompt, &u->most,    &u->hold,       &u->sent,           &u->cached,
                               &u->charge, &u->chip_ns, &u->prefill_ns, &u->first_token_ns, &u->total_ns};
    for (size_t i = 0; i < sizeof text / sizeof *text; i++)
        *text[i] = query_column_text(q, column++);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        *number[i] = query_column_int(q, column++);
    struct str hash = query_column_text(q, 11);
    out->seq = query_column_int(q, 0);
    out->period = query_column_int(q, 1);
    out->hash = (struct hash){0};
    if (hash.n == sizeof out->hash)
        memcpy(&out->hash, hash.p, hash.n);
    out->transfer = (struct transfer){.at = query_column_int(q, 2),
                                      .debit = query_column_int(q, 3),
                                      .credit = query_column_int(q, 4),
                                      .value = query_column_int(q, 5),
                                      .phase = (enum transfer_phase)query_column_int(q, 6),
                                      .id = query_column_text(q, 7),
                                      .kind = query_column_text(q, 8),
                                      .about = query_column_text(q, 9),
                                      .note = query_column_text(q, 10),
                                      .usage = query_column_int(q, 12) != 0 ? u : NULL};
    return 1;
}
