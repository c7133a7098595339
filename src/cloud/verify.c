/* Verification: everything that can be computed twice is. The chain finds what was edited in the journal and in the requests it settles, also where somebody
 * kept the sums right; the other checks say what does not add up, in words. */
#include "cloud/inner.h"

#include <stdio.h>
#include <string.h>

static void add_wrong(struct buf *wrong, int *found, const char *what, struct str id) {
    char line[250];
    if ((*found)++ >= 100)
        return;
    snprintf(line, sizeof line, "%s: %.*s", what, (int)(id.n < 150 ? id.n : 150), id.p);
    if (wrong->n > 0)
        buf_byte(wrong, ',');
    json_write_text(wrong, line);
}

/* One check: a query whose rows are what is wrong. */
static int find_wrong(struct store *s, const char *what, const char *sql, struct buf *wrong,
                      struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, sql, e), found = 0;
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        add_wrong(wrong, &found, what, query_column_text(q, 0));
        rc = 0;
    }
    return rc;
}

/* What a finished request came to, in 10^-21, from its own record; false when no request could have those counts. */
static bool request_cost(struct query *q, money_wide *cost) {
    int64_t prompt = query_column_int(q, 3), cached = query_column_int(q, 4), sent = query_column_int(q, 5);
    struct tariff t = {query_column_int(q, 7), query_column_int(q, 8), query_column_int(q, 9),
                       query_column_int(q, 12)};
    bool due = query_column_int(q, 10) != 0;
    int64_t most = query_column_int(q, 11);
    if (cached < 0 || cached > prompt || prompt > INT32_MAX || sent < 0 || sent > most || most > INT32_MAX)
        return false;
    *cost = 0;
    return !due || tariff_cost(&t, (uint64_t)(prompt - cached), (uint64_t)cached, (uint64_t)sent, cost);
}

/* Every charge is what the request's record and its price say, give or take the fraction that is carried; and what a tenant was charged for all of its requests
 * and its remainder are, to the last 10^-21, what they cost together. */
static int check_charges(struct store *s, struct buf *wrong, struct error *e) {
    struct query *q;
    char tenant[TENANT_NAME_BYTES] = "";
    money_wide left = 0, cost;
    int requests = 0, tenants = 0;
    int rc = store_query(
        s, &q,
        "SELECT t.name, a.remainder, r.id, r.prompt, r.cached, r.sent, r.charge,"
        " coalesce(p.input, 0), coalesce(p.cached, 0), coalesce(p.output, 0),"
        " CASE WHEN r.sent > 0 OR r.state = 'done' THEN 1 ELSE 0 END, r.most, r.rate FROM tenant t"
        " JOIN account a ON a.id = t.account"
        " LEFT JOIN request r ON r.tenant = t.id AND r.state <> 'open'"
        " LEFT JOIN price p ON p.id = r.price ORDER BY t.name",
        e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        rc = 0;
        struct str name = query_column_text(q, 0);
        if (!str_is(name, tenant)) {
            if (left != 0)
                add_wrong(wrong, &tenants, "a tenant's charges are not what its requests cost",
                          str_from(tenant));
            snprintf(tenant, sizeof tenant, "%.*s", (int)name.n, name.p);
            left = -(money_wide)query_column_int(q, 1);
        }
        money_wide charged = (money_wide)query_column_int(q, 6) * AMOUNT_PARTS;
        if (!request_cost(q, &cost) || cost - charged >= AMOUNT_PARTS || charged - cost >= AMOUNT_PARTS)
            add_wrong(wrong, &requests, "a charge is not what its request cost", query_column_text(q, 2));
        else
            left += cost - charged;
    }
    if (rc == 0 && left != 0)
        add_wrong(wrong, &tenants, "a tenant's charges are not what its requests cost", str_from(tenant));
    return rc;
}

static void name_row(struct buf *wrong, int *found, const char *what, const struct chain_row *row) {
    char name[150];
    snprintf(name, sizeof name, "%lld, %.*s", (long long)row->seq,
             (int)(row->transfer.id.n < 100 ? row->transfer.id.n : 100), row->transfer.id.p);
    add_wrong(wrong, found, what, str_from(name));
}

/* Follow the chain from the first transfer to the head, and look for the root that somebody kept. Behind the first break nothing is sure any more, so that one is named alone. */
static int check_chain(struct ledger *l, struct verification *v, struct buf *wrong, struct error *e) {
    struct query *q;
    struct chain_row row;
    struct hash hash = {0};
    int64_t seq = 0;
    int missing = 0, broken = 0;
    char number[32];
    int rc = chain_read(l->store, &q, 0, e);
    while (rc == 0 && (rc = chain_next(q, &row, e)) > 0) {
        rc = 0;
        while (++seq < row.seq && missing < 100) {
            snprintf(number, sizeof number, "%lld", (long long)seq);
            add_wrong(wrong, &missing, "a transfer is missing", str_from(number));
        }
        seq = row.seq;
        v->transfers++;
        hash = chain_hash(&l->row, &hash, row.seq, row.period, &row.transfer);
        if (!broken && !hash_equal(&hash, &row.hash))
            name_row(wrong, &broken, "the chain breaks at transfer", &row);
        if (!broken && v->known != NULL && hash_equal(&hash, v->known))
            v->known_at = row.seq;
    }
    if (rc == 0 && l->row.failed)
        rc = error_set(e, ERR_NO_MEMORY, "no memory to verify");
    if (rc == 0 && !broken && (seq != l->seq || !hash_equal(&hash, &l->hash))) {
        snprintf(number, sizeof number, "%lld", (long long)l->seq);
        add_wrong(wrong, &broken, "the journal does not end where its head says", str_from(number));
    }
    v->root = l->hash;
    return rc;
}

int ledger_verify(struct ledger *l, struct verification *v, struct buf *wrong, struct error *e) {
    static const struct {
        const char *what, *sql;
        bool not_live;
    } check[] = {
        {"a row belongs to nothing",
         "SELECT 'transfer ' || id FROM transfer t WHERE NOT EXISTS (SELECT 1 FROM account WHERE id = "
         "t.debit)"
         " OR NOT EXISTS (SELECT 1 FROM account WHERE id = t.credit)"
         " UNION ALL SELECT 'tenant ' || name FROM tenant t WHERE NOT EXISTS (SELECT 1 FROM account WHERE"
         " id = t.account)"
         " UNION ALL SELECT 'request ' || id FROM request r WHERE NOT EXISTS (SELECT 1 FROM tenant WHERE"
         " id = r.tenant)",
         false},
        /* In halves of 32 bits: a sum beyond 64 bits would be an error of the database, and that would stop the money path. */
        {"an account is not the sum of its postings",
         "SELECT name FROM account a LEFT JOIN (SELECT account, CAST(sum(amount >> 32) AS BIGINT) AS high,"
         " CAST(sum(amount & 4294967295) AS BIGINT) AS low FROM posting GROUP BY account) p"
         " ON p.account = a.id WHERE a.balance >> 32 <> coalesce(p.high + (p.low >> 32), 0)"
         " OR a.balance & 4294967295 <> coalesce(p.low & 4294967295, 0)",
         false},
        {"a tenant's account is below its line",
         "SELECT t.name FROM tenant t JOIN account a ON a.id = t.account WHERE a.balance < -a.line", false},
        {"a finished request without its settlement",
         "SELECT id FROM request r WHERE state <> 'open' AND NOT EXISTS (SELECT 1 FROM transfer x"
         " JOIN tenant t ON t.account = x.debit WHERE x.id = 'settle:' || r.id AND x.kind = 'settle'"
         " AND x.amount = r.charge AND t.id = r.tenant)",
         false},
        {"a settlement without its request",
         "SELECT id FROM transfer t WHERE kind = 'settle' AND NOT EXISTS (SELECT 1 FROM request r WHERE"
         " r.id = substr(t.id, 8) AND r.state <> 'open')", /* 8: behind "settle:"; the request's index finds it */
         false},
        {"a charge above its hold", "SELECT id FROM request WHERE charge > hold", false},
        {"what an account's pending transfers and holds may take is not their sum",
         "SELECT name FROM account a WHERE pending_debit <> coalesce((SELECT CAST(sum(r.hold) AS BIGINT) FROM"
         " request r JOIN tenant t ON t.id = r.tenant WHERE t.account = a.id AND r.state = 'open'), 0)"
         " + coalesce((SELECT CAST(sum(x.amount) AS BIGINT) FROM pending p JOIN transfer x ON"
         " x.seq = p.transfer WHERE x.debit = a.id), 0)",
         false},
        {"a hold is open and no request runs", "SELECT id FROM request WHERE state = 'open'", true},
    };
    int rc = ledger_lock(l, e);
    if (rc == 0)
        rc = check_chain(l, v, wrong, e);
    for (size_t i = 0; rc == 0 && i < sizeof check / sizeof *check; i++)
        if (!v->live || !check[i].not_live)
            rc = find_wrong(l->store, check[i].what, check[i].sql, wrong, e);
    return rc != 0 ? rc : check_charges(l->store, wrong, e);
}
