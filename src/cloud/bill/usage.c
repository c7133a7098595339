/* A month's charges; see usage.h. */
#include "cloud/bill/usage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const token_kind_name[TOKEN_KINDS] = {"input", "cached_input", "output"};

money_wide usage_unit_price(const struct usage *u, enum token_kind kind) {
    return (money_wide)u->unit[kind] * u->rate;
}

void usage_split(struct usage *u) {
    static const money_wide NANO = 1000000000000; /* 10^-21 in 10^-9 */
    int dearest = TOKEN_INPUT;
    amount left = u->charge;
    for (int i = 0; i < TOKEN_KINDS; i++) {
        /* A unit price below 2^103 and counts that fit a charge: a cost beyond what was charged is not a cost. */
        money_wide cost = usage_unit_price(u, (enum token_kind)i) / NANO * u->tokens[i] +
                          usage_unit_price(u, (enum token_kind)i) % NANO * u->tokens[i] / NANO;
        u->part[i] = cost > INT64_MAX ? INT64_MAX : (amount)cost;
        if (u->part[i] > u->part[dearest] ||
            (u->part[i] == u->part[dearest] && u->tokens[dearest] == 0 && u->tokens[i] > 0))
            dearest = i;
    }
    for (int i = 0; i < TOKEN_KINDS; i++)
        if (i != dearest)
            left -= u->part[i];
    u->part[dearest] = left;
}

static void copy(char *to, size_t size, struct str text) {
    size_t n = text.n < size ? text.n : size - 1;
    memcpy(to, text.p, n);
    to[n] = 0;
}

static int add_usage(struct query *q, struct usage **list, size_t *n, struct error *e) {
    if ((*n & (*n - 1)) == 0) { /* full */
        void *more = realloc(*list, (*n == 0 ? 1 : *n * 2) * sizeof **list);
        if (more == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory for a month's usage");
        *list = more;
    }
    struct usage *u = &(*list)[(*n)++];
    *u = (struct usage){.price = query_column_int(q, 1), .rate = query_column_int(q, 2)};
    copy(u->model, sizeof u->model, query_column_text(q, 0));
    copy(u->currency, sizeof u->currency, query_column_text(q, 3));
    for (int i = 0; i < TOKEN_KINDS; i++)
        u->unit[i] = query_column_int(q, 4 + i);
    u->requests = query_column_int(q, 7);
    u->tokens[TOKEN_CACHED] = query_column_int(q, 9);
    u->tokens[TOKEN_INPUT] = query_column_int(q, 8) - u->tokens[TOKEN_CACHED];
    u->tokens[TOKEN_OUTPUT] = query_column_int(q, 10);
    u->charge = query_column_int(q, 11);
    usage_split(u);
    return 0;
}

static int compare_usage(const void *a, const void *b) {
    const struct usage *x = a, *y = b;
    int order = strcmp(x->model, y->model);
    return order != 0             ? order
           : x->price != y->price ? (x->price > y->price) - (x->price < y->price)
                                  : (x->rate > y->rate) - (x->rate < y->rate);
}

int usage_read(struct store *s, int64_t tenant, int64_t period, struct usage **out, size_t *n,
               struct error *e) {
    struct query *q;
    *out = NULL;
    *n = 0;
    int rc = store_query(
        s, &q,
        "SELECT u.model, u.price, u.rate, coalesce(max(p.currency), ''), coalesce(max(p.input), 0),"
        " coalesce(max(p.cached), 0), coalesce(max(p.output), 0), CAST(sum(u.requests) AS BIGINT),"
        " CAST(sum(u.prompt) AS BIGINT), CAST(sum(u.cached) AS BIGINT), CAST(sum(u.completion) AS BIGINT),"
        " CAST(sum(u.charge) AS BIGINT) FROM usage_day u LEFT JOIN price p ON p.id = u.price"
        " WHERE u.tenant = $1 AND u.period = $2 GROUP BY u.model, u.price, u.rate",
        e);
    if (rc != 0)
        return rc;
    query_int(q, 1, tenant);
    query_int(q, 2, period);
    while (rc == 0 && (rc = query_step(q, e)) > 0)
        rc = add_usage(q, out, n, e);
    if (rc == 0 && *n > 0) /* in C: the two databases sort text differently */
        qsort(*out, *n, sizeof **out, compare_usage);
    if (rc != 0) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

/* The charges of all months before, and of this one. */
static int read_charges(struct store *s, int64_t tenant, int64_t period, struct movements *m,
                        struct error *e) {
    struct query *q;
    int rc =
        store_query(s, &q,
                    "SELECT coalesce(CAST(sum(CASE WHEN period < $2 THEN charge ELSE 0 END) AS BIGINT), 0),"
                    " coalesce(CAST(sum(CASE WHEN period = $2 THEN charge ELSE 0 END) AS BIGINT), 0)"
                    " FROM usage_day WHERE tenant = $1",
                    e);
    if (rc != 0)
        return rc;
    query_int(q, 1, tenant);
    query_int(q, 2, period);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    m->before = query_column_int(q, 0);
    m->charged = query_column_int(q, 1);
    return query_run(q, e);
}

/* All that is no settlement: on the other side lies revenue (a reversal, a goodwill credit, a charge by hand) or not (payments). */
int usage_movements(struct store *s, int64_t tenant, int64_t account, const struct period *p,
                    struct movements *m, struct error *e) {
    struct query *q;
    *m = (struct movements){0};
    int rc = read_charges(s, tenant, p->id, m, e);
    if (rc != 0 ||
        (rc = store_query(
             s, &q,
             "SELECT CASE WHEN substr(o.name, 1, 8) = 'revenue:' THEN 1 ELSE 0 END,"
             " CASE WHEN x.seq < $2 THEN 1 ELSE 0 END,"
             " CAST(sum(CASE WHEN x.debit = $1 THEN -x.amount ELSE x.amount END) AS BIGINT) FROM transfer x"
             " JOIN account o ON o.id = CASE WHEN x.debit = $1 THEN x.credit ELSE x.debit END"
             " WHERE x.kind <> 'settle' AND x.phase IN (0, 2) AND (x.debit = $1 OR x.credit = $1)"
             " AND x.seq <= $3 GROUP BY 1, 2",
             e)) != 0)
        return rc;
    query_int(q, 1, account);
    query_int(q, 2, p->first_seq);
    query_int(q, 3, p->last_seq);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        bool revenue = query_column_int(q, 0) != 0, before = query_column_int(q, 1) != 0;
        amount value = query_column_int(q, 2);
        rc = revenue ? bill_add(before ? &m->before : &m->charged, -value, e)
                     : bill_add(before ? &m->opening : &m->paid, value, e);
    }
    return rc == 0 ? bill_add(&m->opening, -m->before, e) : rc;
}
