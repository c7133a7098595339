/* The ledger: accounts, transfers, postings. Every transfer is two postings that sum to zero; an account's balance is the sum of its postings. On the
 * yen's journey: the charge itself. After TigerBeetle's model of accounts and transfers with ids chosen by the caller. */
#include "cloud/inner.h"

#include <string.h>

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

/* Is there a transfer of this id? 1: the same one; 0: none. */
static int find_transfer(struct store *s, const struct transfer *t, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT kind, debit, credit, amount FROM transfer WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, t->id);
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    bool same = str_equal(query_column_text(q, 0), t->kind) && query_column_int(q, 1) == t->debit &&
                query_column_int(q, 2) == t->credit && query_column_int(q, 3) == t->value;
    rc = query_run(q, e);
    if (rc == 0 && !same)
        return error_set(e, ERR_CONFLICT, "there is a transfer %.*s with other content",
                         (int)(t->id.n < 100 ? t->id.n : 100), t->id.p);
    return rc != 0 ? rc : 1;
}

static int post(struct store *s, int64_t transfer, int64_t account, amount value, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "INSERT INTO posting (transfer, account, amount) VALUES ($1, $2, $3)", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, transfer);
    query_int(q, 2, account);
    query_int(q, 3, value);
    if ((rc = query_run(q, e)) != 0 ||
        (rc = store_query(s, &q, "SELECT balance FROM account WHERE id = $1", e)) != 0)
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

int ledger_transfer(struct store *s, const struct transfer *t, bool *again, struct error *e) {
    struct query *q;
    int rc = find_transfer(s, t, e);
    if (again != NULL)
        *again = rc == 1;
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = store_query(
        s, &q,
        "INSERT INTO transfer (id, at, kind, debit, credit, amount) VALUES ($1, $2, $3, $4, $5, $6)"
        " RETURNING seq",
        e);
    if (rc != 0)
        return rc;
    query_text(q, 1, t->id);
    query_int(q, 2, t->at);
    query_text(q, 3, t->kind);
    query_int(q, 4, t->debit);
    query_int(q, 5, t->credit);
    query_int(q, 6, t->value);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "a transfer got no number");
    int64_t seq = query_column_int(q, 0);
    if ((rc = query_run(q, e)) != 0 || (rc = post(s, seq, t->debit, -t->value, e)) != 0)
        return rc;
    return post(s, seq, t->credit, t->value, e);
}

/* One check: a query whose rows are what is wrong. */
static int find_wrong(struct store *s, const char *what, const char *sql, struct buf *wrong,
                      struct error *e) {
    struct query *q;
    struct buf line = {0};
    int rc = store_query(s, &q, sql, e), found = 0;
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct str id = query_column_text(q, 0);
        rc = 0;
        if (found++ >= 100)
            continue;
        buf_clear(&line);
        buf_printf(&line, "%s: %.*s", what, (int)(id.n < 100 ? id.n : 100), id.p);
        if (wrong->n > 0)
            buf_byte(wrong, ',');
        json_write_str(wrong, buf_view(&line));
    }
    buf_free(&line);
    return rc;
}

int ledger_verify(struct store *s, bool live, struct buf *wrong, int64_t *checked, struct error *e) {
    static const struct {
        const char *what, *sql;
        bool not_live;
    } check[] = {
        {"a transfer's postings do not balance",
         "SELECT transfer FROM posting GROUP BY transfer HAVING sum(amount) <> 0 OR count(*) <> 2", false},
        {"a transfer without postings",
         "SELECT id FROM transfer WHERE seq NOT IN (SELECT transfer FROM posting)", false},
        {"a transfer's postings are not its amount",
         "SELECT id FROM transfer t WHERE NOT EXISTS (SELECT 1 FROM posting p WHERE p.transfer = t.seq AND"
         " p.account = t.debit AND p.amount = -t.amount) OR NOT EXISTS (SELECT 1 FROM posting p WHERE"
         " p.transfer = t.seq AND p.account = t.credit AND p.amount = t.amount)",
         false},
        {"an account is not the sum of its postings",
         "SELECT name FROM account a LEFT JOIN (SELECT account, sum(amount) AS total FROM posting GROUP BY "
         "account) p"
         " ON p.account = a.id WHERE a.balance <> coalesce(p.total, 0)",
         false},
        {"a tenant's account is below zero",
         "SELECT t.name FROM tenant t JOIN account a ON a.id = t.account WHERE a.balance < 0", false},
        {"a finished request without its settlement",
         "SELECT id FROM request r WHERE state <> 'open' AND NOT EXISTS (SELECT 1 FROM transfer t WHERE"
         " t.id = 'settle:' || r.id AND t.amount = r.charge)",
         false},
        {"a settlement without its request",
         "SELECT id FROM transfer t WHERE kind = 'settle' AND NOT EXISTS (SELECT 1 FROM request r WHERE"
         " 'settle:' || r.id = t.id AND r.state <> 'open')",
         false},
        {"a charge above its hold", "SELECT id FROM request WHERE charge > hold", false},
        {"a hold is open and no request runs", "SELECT id FROM request WHERE state = 'open'", true},
    };
    struct query *q;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof check / sizeof *check; i++)
        if (!live || !check[i].not_live)
            rc = find_wrong(s, check[i].what, check[i].sql, wrong, e);
    if (rc != 0 || (rc = store_query(s, &q, "SELECT count(*) FROM transfer", e)) != 0 ||
        (rc = query_step(q, e)) < 0)
        return rc;
    *checked = query_column_int(q, 0);
    return query_run(q, e);
}
