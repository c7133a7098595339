/* What the writer writes of requests: their record with the hold, what was sent, the settlement; and once a group what many of them come to: the accounts they
 * change, the day's usage. On the yen's journey: where a charge becomes a transfer. */
#include "cloud/inner.h"
#include "cloud/webhook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- a request's row ---- */

static struct str state_of(enum outcome outcome) {
    static const char *const state[] = {"done", "cancelled", "failed"};
    return str_from(state[outcome]);
}

static struct usage_record open_record(const struct hold *h) {
    return (struct usage_record){.model = str_from(h->model),
                                 .state = STR("open"),
                                 .node = str_from(h->node),
                                 .route = str_from(h->route),
                                 .tenant = h->tenant->id,
                                 .key = h->key,
                                 .price = h->price,
                                 .rate = h->tariff.rate,
                                 .at = h->at,
                                 .prompt = (int64_t)h->prompt,
                                 .most = (int64_t)h->most,
                                 .hold = h->held};
}

static struct usage_record settled_record(const struct hold *h) {
    const struct settlement *s = &h->settlement;
    struct usage_record u = open_record(h);
    u.state = state_of(s->outcome);
    u.sent = (int64_t)s->completion_tokens;
    u.cached = (int64_t)s->cached_tokens;
    u.charge = h->charge;
    u.chip_ns = s->chip_ns;
    u.prefill_ns = s->prefill_ns;
    u.first_token_ns = s->first_token_ns;
    u.total_ns = s->total_ns;
    return u;
}

static int insert_request(struct store *s, const char *id, const struct usage_record *u, struct error *e) {
    const int64_t number[] = {u->tenant, u->key,     u->price,      u->rate,           u->at,
                              u->prompt, u->most,    u->hold,       u->sent,           u->cached,
                              u->charge, u->chip_ns, u->prefill_ns, u->first_token_ns, u->total_ns};
    struct query *q;
    int rc = store_query(s, &q,
                         "INSERT INTO request (id, model, state, node, route, tenant, key, price, rate, at,"
                         " prompt, most, hold, sent, cached, charge, chip_ns, prefill_ns, first_token_ns,"
                         " total_ns) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,"
                         " $15, $16, $17, $18, $19, $20)",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(id));
    query_text(q, 2, u->model);
    query_text(q, 3, u->state);
    query_text(q, 4, u->node);
    query_text(q, 5, u->route);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        query_int(q, (int)i + 6, number[i]);
    return query_run(q, e);
}

static int finish_request(struct store *s, const char *id, const struct usage_record *u, struct error *e) {
    const int64_t number[] = {u->sent,       u->cached,         u->charge,  u->chip_ns,
                              u->prefill_ns, u->first_token_ns, u->total_ns};
    struct query *q;
    int rc = store_query(s, &q,
                         "UPDATE request SET state = $2, sent = $3, cached = $4, charge = $5, chip_ns = $6,"
                         " prefill_ns = $7, first_token_ns = $8, total_ns = $9 WHERE id = $1",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(id));
    query_text(q, 2, u->state);
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        query_int(q, (int)i + 3, number[i]);
    return query_run(q, e);
}

/* ---- what a group comes to: many charges change few accounts, so each is written once ---- */

/* Before anything of theirs changes, where nodes share the books: the transaction may not be to be. */
static void touch(struct cloud *c, struct tenant *t, struct key *k) {
    if (c->shared != NULL && k != NULL && !k->touched) {
        k->touched = true;
        k->before = k->limited.used;
        k->next_touched = c->touched_keys;
        c->touched_keys = k;
    }
    if (t->touched)
        return;
    t->touched = true;
    t->moves = (struct movement){0};
    if (c->shared != NULL)
        t->before = (struct before){t->balance, t->held, t->remainder, t->limited.used};
    t->next_touched = c->touched;
    c->touched = t;
}

static int need_revenue(struct cloud *c, const char *currency, struct revenue **out, struct error *e) {
    char name[32];
    struct revenue *r = c->revenues;
    while (r != NULL && strcmp(r->currency, currency) != 0)
        r = r->next;
    *out = r;
    if (r != NULL)
        return 0;
    if ((r = calloc(1, sizeof *r)) == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for an account");
    snprintf(r->currency, sizeof r->currency, "%s", currency);
    snprintf(name, sizeof name, "revenue:%s", currency);
    int rc = ledger_account(&c->ledger, name, currency, &r->account, e);
    if (rc != 0) {
        free(r);
        return rc;
    }
    r->next = c->revenues;
    *out = c->revenues = r;
    return 0;
}

static int count_usage(struct cloud *c, struct tenant *t, const struct usage_record *u, struct error *e) {
    struct tally *y = t->tallies;
    while (y != NULL && !usage_same(&y->sum, u))
        y = y->next;
    if (y == NULL) {
        if ((y = c->spare_tallies) != NULL)
            c->spare_tallies = y->next;
        else if ((y = malloc(sizeof *y)) == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory for the usage");
        *y = (struct tally){.sum = {.key = u->key, .price = u->price, .rate = u->rate}, .next = t->tallies};
        snprintf(y->sum.model, sizeof y->sum.model, "%.*s", (int)u->model.n, u->model.p);
        t->tallies = y;
    }
    return usage_add(&y->sum, u, e);
}

static int write_remainder(struct ledger *l, const struct tenant *t, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q, "UPDATE account SET remainder = $2, turn = $3 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, t->account);
    query_int(q, 2, t->written_remainder);
    query_int(q, 3, l->turn);
    return query_run(q, e);
}

/* ---- the entries of a group ---- */

static int write_hold(struct cloud *c, struct hold *h, struct error *e) {
    touch(c, h->tenant, h->limited_key);
    if (__builtin_add_overflow(h->tenant->moves.pending_debit, h->held, &h->tenant->moves.pending_debit))
        return error_set(e, ERR_INVALID, "the holds would be too large");
    struct usage_record u = open_record(h);
    return h->whole ? 0 : insert_request(c->store, h->id, &u, e);
}

static void note_refusal(struct hold *h, const struct error *why) {
    h->refused = true;
    h->refusal = malloc(sizeof *h->refusal);
    if (h->refusal != NULL)
        *h->refusal = *why;
}

/* Where nodes share the books, this is where it is decided whether the hold is to be. */
static int decide(struct cloud *c, struct hold *h, struct error *e) {
    struct error why = {0};
    bool taken = false;
    int rc = h->answer != NULL ? answer_try_running(c->store, h, &taken, e) : 0;
    if (rc != 0)
        return rc;
    if (taken) {
        error_param(&why, ERR_CONFLICT, "Idempotency-Key",
                    "the request under this Idempotency-Key is running elsewhere; ask again in a moment");
        note_refusal(h, &why);
        return 0;
    }
    touch(c, h->tenant, h->limited_key);
    pthread_mutex_lock(&c->lock);
    int refused = hold_decide(c, h, &why);
    pthread_mutex_unlock(&c->lock);
    if (refused == 0)
        return write_hold(c, h, e);
    if (h->told)
        courier_ring(c);
    note_refusal(h, &why);
    return h->answer != NULL ? answer_recover(c->store, str_from(h->id), false, e) : 0;
}

int settle_hold(struct cloud *c, struct hold *h, struct error *e) {
    if (c->shared != NULL)
        return decide(c, h, e);
    int rc = write_hold(c, h, e);
    return rc != 0 || h->answer == NULL ? rc : answer_write_running(c->store, h, e);
}

int settle_sent(struct cloud *c, const struct hold *h, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "UPDATE request SET sent = $2, cached = $3 WHERE id = $1 AND state = 'open'", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(h->id));
    query_int(q, 2, (int64_t)h->writing_sent);
    query_int(q, 3, (int64_t)h->writing_cached);
    return query_run(q, e);
}

static int write_charge(struct cloud *c, struct hold *h, struct error *e) {
    struct tenant *t = h->tenant;
    struct revenue *r;
    struct usage_record u = settled_record(h);
    char id[REQUEST_ID_BYTES + 16];
    int rc = need_revenue(c, t->currency, &r, e);
    if (rc != 0)
        return rc;
    snprintf(id, sizeof id, "settle:%s", h->id);
    struct transfer transfer = {.id = str_from(id),
                                .kind = STR("settle"),
                                .debit = t->account,
                                .credit = r->account,
                                .value = h->charge,
                                .at = c->now,
                                .usage = &u};
    if ((rc = ledger_append(&c->ledger, &transfer, e)) != 0 ||
        (rc = h->whole ? insert_request(c->store, h->id, &u, e) : finish_request(c->store, h->id, &u, e)) !=
            0 ||
        (h->answer != NULL && (rc = answer_write_end(c->store, h, e)) != 0) ||
        (h->warning.any && (rc = warn_settled(c, h, e)) != 0))
        return rc;
    t->written_remainder = h->remainder;
    t->moves.pending_debit -= h->held;
    if (__builtin_sub_overflow(t->moves.balance, h->charge, &t->moves.balance) ||
        __builtin_add_overflow(r->moves.balance, h->charge, &r->moves.balance))
        return error_set(e, ERR_INVALID, "the charges would be too large");
    return count_usage(c, t, &u, e);
}

int settle_charge(struct cloud *c, struct hold *h, struct error *e) {
    struct tenant *t = h->tenant;
    touch(c, t, h->limited_key);
    if (c->shared != NULL) {
        if (h->fence != shared_fence(c)) /* another node has settled it */
            return 0;
        pthread_mutex_lock(&c->lock);
        hold_settle(c, h);
        pthread_mutex_unlock(&c->lock);
    }
    return write_charge(c, h, e);
}

int settle_left_open(struct cloud *c, struct hold *h, struct error *e) {
    touch(c, h->tenant, h->limited_key);
    pthread_mutex_lock(&c->lock);
    hold_recover(c, h);
    pthread_mutex_unlock(&c->lock);
    return write_charge(c, h, e);
}
int settle_group(struct cloud *c, struct error *e) {
    int rc = 0;
    for (struct tenant *t = c->touched; rc == 0 && t != NULL; t = t->next_touched) {
        if (t->moves.balance != 0 || t->moves.pending_debit != 0)
            rc = ledger_move(&c->ledger, t->account, &t->moves, e);
        if (rc == 0 && t->tallies != NULL)
            rc = write_remainder(&c->ledger, t, e);
        if (rc == 0 && c->shared != NULL)
            rc = limit_write_used(c, t->id, 0, &t->limited.used, e);
        for (struct tally *y; rc == 0 && (y = t->tallies) != NULL;) {
            rc = usage_write(&c->ledger, t->id, &y->sum, c->now, e);
            t->tallies = y->next;
            y->next = c->spare_tallies;
            c->spare_tallies = y;
        }
    }
    for (struct key *k = c->touched_keys; rc == 0 && c->shared != NULL && k != NULL; k = k->next_touched)
        rc = limit_write_used(c, k->tenant->id, k->id, &k->limited.used, e);
    for (struct revenue *r = c->revenues; rc == 0 && r != NULL; r = r->next) {
        if (r->moves.balance != 0)
            rc = ledger_move(&c->ledger, r->account, &r->moves, e);
        r->moves = (struct movement){0};
    }
    return rc;
}

void settle_done(struct cloud *c) {
    for (; c->touched != NULL; c->touched = c->touched->next_touched) {
        struct tenant *t = c->touched;
        t->touched = false;
        for (struct tally *y; (y = t->tallies) != NULL;) {
            t->tallies = y->next;
            y->next = c->spare_tallies;
            c->spare_tallies = y;
        }
    }
    for (; c->touched_keys != NULL; c->touched_keys = c->touched_keys->next_touched)
        c->touched_keys->touched = false;
}

/* Where nodes share the books, memory changes with them; else it was ahead of them, and nothing is right any more. */
static void put_back(struct cloud *c) {
    pthread_mutex_lock(&c->lock);
    for (struct tenant *t = c->touched; t != NULL; t = t->next_touched) {
        t->balance = t->before.balance;
        t->held = t->before.held;
        t->remainder = t->before.remainder;
        t->limited.used = t->before.used;
    }
    for (struct key *k = c->touched_keys; k != NULL; k = k->next_touched)
        k->limited.used = k->before;
    pthread_mutex_unlock(&c->lock);
}

void settle_undo(struct cloud *c) {
    if (c->shared != NULL)
        put_back(c);
    settle_done(c);
    /* The accounts of revenue may be new, and gone with the rest. */
    for (struct revenue *r; (r = c->revenues) != NULL; free(r))
        c->revenues = r->next;
}

void settle_free(struct cloud *c) {
    settle_undo(c);
    for (struct tally *y = c->spare_tallies, *next; y != NULL; y = next) {
        next = y->next;
        free(y);
    }
}
