/* The trial balance; see balance.h. */
#include "cloud/bill/balance.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void balance_free(struct balance *b) {
    for (size_t i = 0; i < b->n; i++)
        free(b->line[i].name);
    free(b->line);
    *b = (struct balance){0};
}

static int add_account(struct balance *b, struct query *q, struct error *e) {
    struct str name = query_column_text(q, 1), currency = query_column_text(q, 2);
    if ((b->n & (b->n - 1)) == 0) { /* full */
        void *more = realloc(b->line, (b->n == 0 ? 1 : b->n * 2) * sizeof *b->line);
        if (more == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory for the trial balance");
        b->line = more;
    }
    struct account_line *a = &b->line[b->n];
    *a = (struct account_line){.id = query_column_int(q, 0), .name = malloc(name.n + 1)};
    if (a->name == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the trial balance");
    memcpy(a->name, name.p, name.n);
    a->name[name.n] = 0;
    snprintf(a->currency, sizeof a->currency, "%.*s", (int)(currency.n < 3 ? currency.n : 3), currency.p);
    b->n++;
    return 0;
}

int balance_accounts(struct store *s, struct balance *b, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT id, name, currency FROM account ORDER BY id", e);
    while (rc == 0 && (rc = query_step(q, e)) > 0)
        rc = add_account(b, q, e);
    return rc;
}

static struct account_line *account_of(const struct balance *b, int64_t id) {
    size_t low = 0, high = b->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (b->line[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low < b->n && b->line[low].id == id ? &b->line[low] : NULL;
}

/* Before the month: into the openings; in it: debits and credits. */
static int move(const struct balance *b, int64_t debit, int64_t credit, amount value, bool before,
                struct error *e) {
    struct account_line *from = account_of(b, debit), *to = account_of(b, credit);
    int rc;
    if (from == NULL || to == NULL)
        return error_set(e, ERR_CONFLICT,
                         "a transfer is of an account that is not there; see unkai ledger verify");
    if (before)
        return (rc = bill_add(&from->opening, -value, e)) != 0 ? rc : bill_add(&to->opening, value, e);
    return (rc = bill_add(&from->debits, value, e)) != 0 ? rc : bill_add(&to->credits, value, e);
}

/* What a query says: debit, credit, amount. */
static int move_all(struct query *q, const struct balance *b, bool before, struct error *e) {
    int rc = 0;
    while (rc == 0 && (rc = query_step(q, e)) > 0)
        rc = move(b, query_column_int(q, 0), query_column_int(q, 1), query_column_int(q, 2), before, e);
    return rc;
}

/* From the roll-ups: settlements are in usage_day, the others are few. A tenant at a time, in whose rows the month is found without the others. */
int balance_period(struct store *s, const struct period *p, struct balance *b, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q,
                         "SELECT t.account, a.id, CAST(sum(u.charge) AS BIGINT)"
                         " FROM tenant t CROSS JOIN usage_day u"
                         " JOIN account a ON a.name = 'revenue:' || t.currency"
                         " WHERE u.tenant = t.id AND u.period = $1 GROUP BY t.account, a.id",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, p->id);
    if ((rc = move_all(q, b, false, e)) != 0 ||
        (rc = store_query(s, &q,
                          "SELECT debit, credit, CAST(sum(amount) AS BIGINT) FROM transfer"
                          " WHERE kind <> 'settle' AND phase IN (0, 2) AND seq BETWEEN $1 AND $2"
                          " GROUP BY debit, credit",
                          e)) != 0)
        return rc;
    query_int(q, 1, p->first_seq);
    query_int(q, 2, p->last_seq);
    return move_all(q, b, false, e);
}

/* From the journal itself, transfers from `from` to `to`. */
int balance_journal(struct store *s, int64_t from, int64_t to, bool before, struct balance *b,
                    struct error *e) {
    struct query *q;
    int rc = store_query(s, &q,
                         "SELECT debit, credit, CAST(sum(amount) AS BIGINT) FROM transfer"
                         " WHERE phase IN (0, 2) AND seq BETWEEN $1 AND $2 GROUP BY debit, credit",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, from);
    query_int(q, 2, to);
    return move_all(q, b, before, e);
}

int balance_by_name(const void *a, const void *b) {
    return strcmp(((const struct account_line *)a)->name, ((const struct account_line *)b)->name);
}

/* The balances of the period before, as its statement says. */
int balance_openings(struct balance *b, const struct json *before, struct error *e) {
    const struct json *accounts = json_get(before, "accounts");
    int rc = 0;
    qsort(b->line, b->n, sizeof *b->line, balance_by_name); /* as the statement is */
    for (size_t i = 0, k = 0; rc == 0 && i < json_count(accounts); i++) {
        struct str name = json_as_str(json_get(json_at(accounts, i), "name")),
                   value = json_as_str(json_get(json_at(accounts, i), "balance"));
        bool negative = value.n > 0 && value.p[0] == '-';
        while (k < b->n && !str_is(name, b->line[k].name))
            k++;
        if (k == b->n)
            return error_set(e, ERR_CONFLICT, "the statement before has an account that is not there");
        value = negative ? (struct str){value.p + 1, value.n - 1} : value;
        rc = money_parse(&b->line[k].opening, value, AMOUNT_DIGITS, e);
        b->line[k].opening = negative ? -b->line[k].opening : b->line[k].opening;
    }
    return rc;
}
