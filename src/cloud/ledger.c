/* The ledger: accounts, transfers, postings. Every transfer is two postings that sum to zero; an account's balance is the sum of its postings. On the
 * yen's journey: the charge itself. After TigerBeetle's model of accounts and transfers with ids chosen by the caller. */
#include "cloud/inner.h"

#include <stdio.h>

int ledger_account(struct store *s, const char *name, const char *currency, int64_t *id, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q,
                         "INSERT INTO account (name, currency, balance, remainder) VALUES ($1, $2, 0, 0) ON "
                         "CONFLICT DO NOTHING",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(name));
    query_text(q, 2, str_from(currency));
    if ((rc = query_run(q, e)) != 0 ||
        (rc = store_query(s, &q, "SELECT id FROM account WHERE name = $1", e)) != 0)
        return rc;
    query_text(q, 1, str_from(name));
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the account %s is missing", name);
    *id = query_column_int(q, 0);
    return query_run(q, e);
}

/* The transfer that has this id: ERR_CONFLICT unless it is the same one. */
static int check_same(struct store *s, const struct transfer *t, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT kind, debit, credit, amount FROM transfer WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, t->id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool same = rc > 0 && str_equal(query_column_text(q, 0), t->kind) && query_column_int(q, 1) == t->debit &&
                query_column_int(q, 2) == t->credit && query_column_int(q, 3) == t->value;
    rc = query_run(q, e);
    if (rc == 0 && !same)
        return error_set(e, ERR_CONFLICT, "there is a transfer %.*s with other content",
                         (int)(t->id.n < 100 ? t->id.n : 100), t->id.p);
    return rc;
}

int ledger_add(struct store *s, int64_t account, amount value, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT balance FROM account WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, account);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "there is no account %lld", (long long)account);
    amount balance = query_column_int(q, 0);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    if (__builtin_add_overflow(balance, value, &balance))
        return error_set(e, ERR_INVALID, "the account's balance would be too large");
    if ((rc = store_query(s, &q, "UPDATE account SET balance = $2 WHERE id = $1", e)) != 0)
        return rc;
    query_int(q, 1, account);
    query_int(q, 2, balance);
    return query_run(q, e);
}

static int post(struct store *s, int64_t transfer, const struct transfer *t, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q, "INSERT INTO posting (transfer, account, amount) VALUES ($1, $2, $3), ($1, $4, $5)", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, transfer);
    query_int(q, 2, t->debit);
    query_int(q, 3, -t->value);
    query_int(q, 4, t->credit);
    query_int(q, 5, t->value);
    return query_run(q, e);
}

int ledger_record(struct store *s, const struct transfer *t, bool *again, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q,
        "INSERT INTO transfer (id, at, kind, debit, credit, amount) VALUES ($1, $2, $3, $4, $5, $6)"
        " ON CONFLICT (id) DO NOTHING",
        e);
    if (rc != 0)
        return rc;
    query_text(q, 1, t->id);
    query_int(q, 2, t->at);
    query_text(q, 3, t->kind);
    query_int(q, 4, t->debit);
    query_int(q, 5, t->credit);
    query_int(q, 6, t->value);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    int64_t seq = query_inserted(q);
    *again = seq == 0;
    return *again ? check_same(s, t, e) : post(s, seq, t, e);
}

int ledger_transfer(struct store *s, const struct transfer *t, bool *again, struct error *e) {
    int rc = ledger_record(s, t, again, e);
    if (rc != 0 || *again || (rc = ledger_add(s, t->debit, -t->value, e)) != 0)
        return rc;
    return ledger_add(s, t->credit, t->value, e);
}

/* ---- verification ---- */

static void add_wrong(struct buf *wrong, int *found, const char *what, struct str id) {
    char line[200];
    if ((*found)++ >= 100)
        return;
    snprintf(line, sizeof line, "%s: %.*s", what, (int)(id.n < 100 ? id.n : 100), id.p);
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

/* What a finished request came to, in 10^-12, from its own record; false when no request could have those counts. */
static bool request_cost(struct query *q, money_wide *cost) {
    int64_t prompt = query_column_int(q, 3), cached = query_column_int(q, 4), sent = query_column_int(q, 5);
    struct tariff t = {query_column_int(q, 7), query_column_int(q, 8), query_column_int(q, 9)};
    bool due = query_column_int(q, 10) != 0;
    if (cached < 0 || cached > prompt || prompt > INT32_MAX || sent < 0 || sent > query_column_int(q, 11))
        return false;
    *cost = due ? tariff_cost(&t, (uint64_t)(prompt - cached), (uint64_t)cached, (uint64_t)sent) : 0;
    return true;
}

/* Every charge is what the request's record and its price say, give or take the fraction that is carried; and what a tenant was charged for all of its requests
 * and its remainder are, to the last 10^-12, what they cost together. */
static int check_charges(struct store *s, struct buf *wrong, struct error *e) {
    struct query *q;
    char tenant[TENANT_NAME_BYTES] = "";
    money_wide left = 0, cost;
    int requests = 0, tenants = 0;
    int rc = store_query(s, &q,
                         "SELECT t.name, a.remainder, r.id, r.prompt, r.cached, r.sent, r.charge,"
                         " coalesce(p.input, 0), coalesce(p.cached, 0), coalesce(p.output, 0),"
                         " r.sent > 0 OR r.state = 'done', min(r.most, 2147483647) FROM tenant t"
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
        money_wide charged = (money_wide)query_column_int(q, 6) * 1000;
        if (!request_cost(q, &cost) || cost - charged > 999 || charged - cost > 999)
            add_wrong(wrong, &requests, "a charge is not what its request cost", query_column_text(q, 2));
        else
            left += cost - charged;
    }
    if (rc == 0 && left != 0)
        add_wrong(wrong, &tenants, "a tenant's charges are not what its requests cost", str_from(tenant));
    return rc;
}

int ledger_verify(struct store *s, bool live, struct buf *wrong, int64_t *checked, struct error *e) {
    static const struct {
        const char *what, *sql;
        bool not_live;
    } check[] = {
        {"a transfer's postings do not balance",
         "SELECT transfer FROM posting GROUP BY transfer HAVING max(amount) <> -min(amount) OR count(*) <> 2",
         false},
        {"a transfer without postings",
         "SELECT id FROM transfer WHERE seq NOT IN (SELECT transfer FROM posting)", false},
        {"a transfer is missing",
         "SELECT seq - 1 FROM transfer WHERE seq > 1 AND seq - 1 NOT IN (SELECT seq FROM transfer)", false},
        {"a row belongs to nothing", "SELECT \"table\" FROM pragma_foreign_key_check", false},
        {"a transfer's postings are not its amount",
         "SELECT id FROM transfer t WHERE NOT EXISTS (SELECT 1 FROM posting p WHERE p.transfer = t.seq AND"
         " p.account = t.debit AND p.amount = -t.amount) OR NOT EXISTS (SELECT 1 FROM posting p WHERE"
         " p.transfer = t.seq AND p.account = t.credit AND p.amount = t.amount)",
         false},
        /* In halves of 32 bits: a sum beyond 64 bits would be an error of the database, and that would stop the money path. */
        {"an account is not the sum of its postings",
         "SELECT name FROM account a LEFT JOIN (SELECT account, sum(amount >> 32) AS high,"
         " sum(amount & 4294967295) AS low FROM posting GROUP BY account) p ON p.account = a.id"
         " WHERE a.balance >> 32 <> coalesce(p.high + (p.low >> 32), 0)"
         " OR a.balance & 4294967295 <> coalesce(p.low & 4294967295, 0)",
         false},
        {"a tenant's account is below zero",
         "SELECT t.name FROM tenant t JOIN account a ON a.id = t.account WHERE a.balance < 0", false},
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
        {"a hold is open and no request runs", "SELECT id FROM request WHERE state = 'open'", true},
    };
    struct query *q;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof check / sizeof *check; i++)
        if (!live || !check[i].not_live)
            rc = find_wrong(s, check[i].what, check[i].sql, wrong, e);
    if (rc == 0)
        rc = check_charges(s, wrong, e);
    if (rc != 0 || (rc = store_query(s, &q, "SELECT count(*) FROM transfer", e)) != 0 ||
        (rc = query_step(q, e)) < 0)
        return rc;
    *checked = query_column_int(q, 0);
    return query_run(q, e);
}
