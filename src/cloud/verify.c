/* Verification: everything that can be computed twice is. One walk through the journal computes the chain again, what each request cost, every account's sum, what is pending
 * and every month's usage, and at its end they are compared with what the books say. It goes in pieces, so that the writer writes in between; the last piece compares at rest. The chain finds
 * what was edited also where somebody kept the sums right; the other checks say what does not add up, in words. */
#include "cloud/sums.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 5000, MOST_WRONG = 100 };

/* One walk. Of an account: balance, pending debit, pending credit. Of a tenant: its account, what its requests cost less what they were charged. Of a price: input, cached, output. */
struct verify_walk {
    struct buf *wrong;
    int found;
    bool requests_done, broken;
    char after[TRANSFER_ID_BYTES]; /* the last request that was looked at */
    int64_t seq, period, settled;
    struct hash hash;
    struct sums accounts, tenants, prices;
    struct usage_sums usage;
};

static void add_wrong(struct verify_walk *w, const char *what, struct str id) {
    char line[250];
    if (w->found++ >= MOST_WRONG)
        return;
    snprintf(line, sizeof line, "%s: %.*s", what, (int)(id.n < 150 ? id.n : 150), id.p);
    if (w->wrong->n > 0)
        buf_byte(w->wrong, ',');
    json_write_text(w->wrong, line);
}

static void add_number(struct verify_walk *w, const char *what, int64_t number) {
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, number);
    add_wrong(w, what, str_from(text));
}

/* ---- every finished request has its settlement ---- */

/* 1: there may be more. */
static int walk_requests(struct store *s, struct verify_walk *w, struct error *e) {
    struct query *q;
    int n = 0;
    int rc = store_query(s, &q,
                         "SELECT r.id, CASE WHEN r.state = 'open' OR EXISTS (SELECT 1 FROM transfer x WHERE"
                         " x.id = 'settle:' || r.id) THEN 1 ELSE 0 END FROM request r WHERE r.id > $1"
                         " ORDER BY r.id LIMIT $2",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(w->after));
    query_int(q, 2, PIECE);
    while ((rc = query_step(q, e)) > 0) {
        struct str id = query_column_text(q, 0);
        n++;
        if (query_column_int(q, 1) == 0)
            add_wrong(w, "a finished request without its settlement", id);
        snprintf(w->after, sizeof w->after, "%.*s", (int)id.n, id.p);
    }
    return rc != 0 ? rc : n == PIECE;
}

/* ---- the walk ---- */

/* What the books say of an id, asked once. */
static int look_up(struct store *s, struct sums *sums, int64_t id, const char *sql, int columns, int first,
                   struct sum **out, struct error *e) {
    struct query *q;
    struct sum *sum = *out = sums_get(sums, id);
    if (sum == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to verify");
    if (sum->known)
        return 0;
    int rc = store_query(s, &q, sql, e);
    if (rc != 0)
        return rc;
    query_int(q, 1, id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    sum->known = true;
    sum->there = rc > 0;
    for (int i = 0; i < columns && rc > 0; i++)
        sum->part[first + i] = query_column_int(q, i);
    return query_run(q, e);
}

static int find_account(struct store *s, struct verify_walk *w, int64_t id, struct sum **out,
                        struct error *e) {
    return look_up(s, &w->accounts, id, "SELECT id FROM account WHERE id = $1", 0, 0, out, e);
}

/* What a finished request came to, in 10^-21, from its own record; false when no request could have those counts. */
static bool request_cost(const struct usage_record *u, const struct sum *price, money_wide *cost) {
    struct tariff t = {(amount)price->part[0], (amount)price->part[1], (amount)price->part[2], u->rate};
    if (u->prompt < 0 || u->cached < 0 || u->cached > u->prompt || u->prompt > INT32_MAX || u->sent < 0 ||
        u->sent > u->most || u->most > INT32_MAX || u->rate < 0)
        return false;
    *cost = 0;
    return !usage_due(u) ||
           tariff_cost(&t, (uint64_t)(u->prompt - u->cached), (uint64_t)u->cached, (uint64_t)u->sent, cost);
}

/* The charge is what the request's record and its price say, give or take the fraction that is carried. */
static int walk_settlement(struct store *s, struct verify_walk *w, const struct transfer *t,
                           struct error *e) {
    const struct usage_record *u = t->usage;
    struct str id = {t->id.p + 7, t->id.n > 7 ? t->id.n - 7 : 0}; /* behind "settle:" */
    struct sum *tenant, *price, free_of_charge = {0};
    money_wide cost, charged = (money_wide)t->value * AMOUNT_PARTS;
    int rc = 0;
    if (u == NULL || str_is(u->state, "open")) {
        add_wrong(w, "a settlement without its request", t->id);
        return 0;
    }
    if ((rc = look_up(s, &w->tenants, u->tenant, "SELECT account FROM tenant WHERE id = $1", 1, 0, &tenant,
                      e)) != 0)
        return rc;
    if (!tenant->there)
        add_wrong(w, "a request belongs to no tenant", id);
    if ((tenant->there && tenant->part[0] != t->debit) || u->charge != t->value)
        add_wrong(w, "a finished request without its settlement", id);
    if (u->charge > u->hold)
        add_wrong(w, "a charge above its hold", id);
    price = &free_of_charge;
    if (u->price != 0 &&
        (rc = look_up(s, &w->prices, u->price, "SELECT input, cached, output FROM price WHERE id = $1", 3, 0,
                      &price, e)) != 0)
        return rc;
    if (!request_cost(u, price, &cost) || cost - charged >= AMOUNT_PARTS || charged - cost >= AMOUNT_PARTS)
        add_wrong(w, "a charge is not what its request cost", id);
    else
        tenant->part[1] += cost - charged;
    w->settled++;
    return usage_sums_add(&w->usage, u, NULL) == ERR_NO_MEMORY
               ? error_set(e, ERR_NO_MEMORY, "no memory to verify")
               : 0;
}

/* The transfer that this one posts, voids or ends: pending, between the same accounts, and at least as much. */
static int walk_ending(struct store *s, struct verify_walk *w, const struct transfer *t, amount *was,
                       struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT amount, phase, debit, credit FROM transfer WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, t->about);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool right = rc > 0 && query_column_int(q, 1) == PHASE_PENDING && query_column_int(q, 2) == t->debit &&
                 query_column_int(q, 3) == t->credit && query_column_int(q, 0) >= t->value;
    *was = right ? query_column_int(q, 0) : 0;
    if (!right)
        add_wrong(w, "what was posted or given back was not pending", t->id);
    return query_run(q, e);
}

static int walk_accounts(struct store *s, struct verify_walk *w, const struct transfer *t, struct error *e) {
    struct sum *debit, *credit;
    amount was = 0;
    bool moves = t->phase == PHASE_SINGLE || t->phase == PHASE_POST;
    int rc = t->phase > PHASE_PENDING ? walk_ending(s, w, t, &was, e) : 0;
    was = t->phase == PHASE_PENDING ? -t->value : was;
    if (rc != 0 || (rc = find_account(s, w, t->debit, &debit, e)) != 0)
        return rc;
    bool there = debit->there;
    debit->part[0] -= moves ? t->value : 0;
    debit->part[1] -= was;
    if ((rc = find_account(s, w, t->credit, &credit, e)) != 0)
        return rc;
    if (!there || !credit->there)
        add_wrong(w, "a transfer belongs to no account", t->id);
    credit->part[0] += moves ? t->value : 0;
    credit->part[2] -= was;
    return 0;
}

static void name_row(struct verify_walk *w, const struct chain_row *row) {
    char name[150];
    snprintf(name, sizeof name, "%" PRId64 ", %.*s", row->seq,
             (int)(row->transfer.id.n < 100 ? row->transfer.id.n : 100), row->transfer.id.p);
    add_wrong(w, "the chain breaks at transfer", str_from(name));
}

/* Behind the first break nothing is sure any more, so that one is named alone. */
static void walk_chain(struct ledger *l, struct verify_walk *w, struct verification *v,
                       const struct chain_row *row) {
    while (++w->seq < row->seq && w->found < MOST_WRONG)
        add_number(w, "a transfer is missing", w->seq);
    w->seq = row->seq;
    v->transfers++;
    w->hash = chain_hash(&l->row, &w->hash, row->seq, row->period, &row->transfer);
    if (!w->broken && !hash_equal(&w->hash, &row->hash)) {
        name_row(w, row);
        w->broken = true;
    }
    if (!w->broken && v->known != NULL && hash_equal(&w->hash, v->known))
        v->known_at = row->seq;
}

/* ---- what the walk came to, and what the books say ---- */

/* A month's days together: the zone, which says where a day begins, may have been another one. */
static int compare_usage(struct store *s, struct verify_walk *w, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q,
        "SELECT tenant, key, price, rate, CAST(sum(requests) AS BIGINT), CAST(sum(cancelled) AS BIGINT),"
        " CAST(sum(failed) AS BIGINT), CAST(sum(prompt) AS BIGINT), CAST(sum(cached) AS BIGINT),"
        " CAST(sum(completion) AS BIGINT), CAST(sum(charge) AS BIGINT), CAST(sum(chip_ns) AS BIGINT),"
        " CAST(sum(prefill_ns) AS BIGINT), model FROM usage_day WHERE period = $1"
        " GROUP BY tenant, key, price, rate, model",
        e);
    if (rc != 0)
        return rc;
    query_int(q, 1, w->period);
    while ((rc = query_step(q, e)) > 0) {
        struct usage_record u = {.key = query_column_int(q, 1),
                                 .price = query_column_int(q, 2),
                                 .rate = query_column_int(q, 3),
                                 .model = query_column_text(q, 13)};
        struct usage_entry *y = usage_sums_find(&w->usage, query_column_int(q, 0), &u);
        bool same = y != NULL;
        if (same) {
            const struct usage_sum *sum = &y->sum;
            const int64_t made[] = {sum->requests, sum->cancelled, sum->failed,
                                    sum->prompt,   sum->cached,    sum->completion,
                                    sum->charge,   sum->chip_ns,   sum->prefill_ns};
            y->seen = true;
            for (int i = 0; i < (int)(sizeof made / sizeof *made); i++)
                same &= made[i] == query_column_int(q, 4 + i);
        }
        if (!same)
            add_number(w, "a month's usage is not what its requests come to: tenant", query_column_int(q, 0));
    }
    for (size_t i = 0; i < sizeof w->usage.bucket / sizeof *w->usage.bucket; i++)
        for (const struct usage_entry *y = w->usage.bucket[i]; y != NULL; y = y->next)
            if (!y->seen)
                add_number(w, "a month's usage is not what its requests come to: tenant", y->tenant);
    usage_sums_clear(&w->usage);
    return rc;
}

/* What open holds set aside is pending on their tenants' accounts. */
static int add_holds(struct store *s, struct verify_walk *w, struct error *e) {
    struct query *q;
    struct sum *account;
    int rc = store_query(s, &q,
                         "SELECT t.account, r.hold FROM request r JOIN tenant t ON t.id = r.tenant"
                         " WHERE r.state = 'open'",
                         e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        if ((account = sums_get(&w->accounts, query_column_int(q, 0))) == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory to verify");
        account->part[1] += query_column_int(q, 1);
        rc = 0;
    }
    return rc;
}

static int compare_accounts(struct store *s, struct verify_walk *w, struct error *e) {
    struct query *q;
    struct sum *sum, *tenant;
    int rc =
        store_query(s, &q,
                    "SELECT a.id, a.name, a.balance, a.pending_debit, a.pending_credit, a.remainder, a.line,"
                    " coalesce(t.id, 0), coalesce(t.name, '') FROM account a"
                    " LEFT JOIN tenant t ON t.account = a.id",
                    e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        rc = 0;
        if ((sum = sums_get(&w->accounts, query_column_int(q, 0))) == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory to verify");
        if (sum->part[0] != query_column_int(q, 2))
            add_wrong(w, "an account is not the sum of its postings", query_column_text(q, 1));
        if (sum->part[1] != query_column_int(q, 3) || sum->part[2] != query_column_int(q, 4))
            add_wrong(w, "what is pending on an account is not the sum of it", query_column_text(q, 1));
        if (query_column_int(q, 7) == 0)
            continue;
        if ((tenant = sums_get(&w->tenants, query_column_int(q, 7))) == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory to verify");
        if (tenant->part[1] != query_column_int(q, 5))
            add_wrong(w, "a tenant's charges are not what its requests cost", query_column_text(q, 8));
        if (query_column_int(q, 2) < -query_column_int(q, 6))
            add_wrong(w, "a tenant's account is below its line", query_column_text(q, 8));
    }
    return rc;
}

/* One check: a query whose rows are what is wrong. */
static int find_wrong(struct store *s, struct verify_walk *w, const char *what, const char *sql,
                      struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, sql, e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        add_wrong(w, what, query_column_text(q, 0));
        rc = 0;
    }
    return rc;
}

static int compare_all(struct ledger *l, struct verify_walk *w, struct verification *v, struct error *e) {
    static const struct {
        const char *what, *sql;
        bool not_live;
    } check[] = {
        {"a tenant has no account",
         "SELECT name FROM tenant t WHERE NOT EXISTS (SELECT 1 FROM account WHERE id = t.account)", false},
        {"an open row of pending transfers is of none",
         "SELECT CAST(p.transfer AS TEXT) FROM pending p WHERE NOT EXISTS (SELECT 1 FROM transfer x WHERE"
         " x.seq = p.transfer AND x.phase = 1) OR EXISTS (SELECT 1 FROM transfer x JOIN transfer y ON"
         " y.about = x.id WHERE x.seq = p.transfer AND y.about <> '' AND y.phase > 1)",
         false},
        {"a hold is open and no request runs", /* here or on another node */
         "SELECT id FROM request WHERE state = 'open' AND node NOT IN (SELECT name FROM node)", true},
    };
    if (!w->broken && (w->seq != l->seq || !hash_equal(&w->hash, &l->hash)))
        add_number(w, "the journal does not end where its head says", l->seq);
    v->root = l->hash;
    int rc = compare_usage(l->store, w, e);
    if (rc == 0)
        rc = add_holds(l->store, w, e);
    if (rc == 0)
        rc = compare_accounts(l->store, w, e);
    for (size_t i = 0; rc == 0 && i < sizeof check / sizeof *check; i++)
        if (!v->live || !check[i].not_live)
            rc = find_wrong(l->store, w, check[i].what, check[i].sql, e);
    return rc;
}

/* ---- pieces ---- */

/* A piece of the journal. 1: there may be more. */
static int walk_journal(struct ledger *l, struct verify_walk *w, struct verification *v, struct error *e) {
    struct query *q;
    struct chain_row row;
    int rc = chain_read(l->store, &q, w->seq, PIECE, e), n = 0;
    while (rc == 0 && (rc = chain_next(q, &row, e)) > 0) {
        n++;
        rc = row.period != w->period ? compare_usage(l->store, w, e) : 0;
        w->period = row.period;
        walk_chain(l, w, v, &row);
        if (rc == 0)
            rc = walk_accounts(l->store, w, &row.transfer, e);
        if (rc == 0 && str_is(row.transfer.kind, "settle"))
            rc = walk_settlement(l->store, w, &row.transfer, e);
    }
    if (rc == 0 && l->row.failed)
        rc = error_set(e, ERR_NO_MEMORY, "no memory to verify");
    return rc != 0 ? rc : n == PIECE;
}

struct verify_walk *ledger_verify_begin(struct buf *wrong) {
    struct verify_walk *w = calloc(1, sizeof *w);
    if (w != NULL)
        w->wrong = wrong;
    return w;
}

int ledger_verify_piece(struct ledger *l, struct verify_walk *w, struct verification *v, struct error *e) {
    if (!w->requests_done) {
        int rc = walk_requests(l->store, w, e);
        w->requests_done = rc == 0;
        return rc < 0 ? rc : 1;
    }
    int rc = ledger_lock(l, e);
    if (rc != 0 || (rc = walk_journal(l, w, v, e)) != 0)
        return rc;
    return compare_all(l, w, v, e);
}

void ledger_verify_end(struct verify_walk *w) {
    if (w == NULL)
        return;
    sums_free(&w->accounts);
    sums_free(&w->tenants);
    sums_free(&w->prices);
    usage_sums_clear(&w->usage);
    free(w);
}

int ledger_verify(struct ledger *l, struct verification *v, struct buf *wrong, struct error *e) {
    struct verify_walk *w = ledger_verify_begin(wrong);
    int rc = w == NULL ? error_set(e, ERR_NO_MEMORY, "no memory to verify") : 1;
    while (rc > 0)
        rc = ledger_verify_piece(l, w, v, e);
    ledger_verify_end(w);
    return rc;
}
