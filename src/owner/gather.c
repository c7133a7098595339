/* The report's numbers, from the books; see report.h. */
#include "owner/report.h"

#include "base/clock.h"
#include "cloud/calendar.h"
#include "owner/asset.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const int64_t SECOND = 1000000000, DAY = 86400 * SECOND;

/* A sum that may go beyond 64 bits is asked for in two: billions, and the rest. */
#define SUM(what) "CAST(coalesce(sum(" what "), 0) AS BIGINT)"
#define WIDE(column) SUM(column " / 1000000000") ", " SUM(column " % 1000000000")

static double wide(struct query *q, int column) {
    return (double)query_column_int(q, column) * 1e9 + (double)query_column_int(q, column + 1);
}

/* ---- money ---- */

int report_exchange(struct cloud *c, const char *from, const char *to, int64_t at, double *out,
                    struct error *e) {
    struct query *q;
    *out = 1;
    if (strcmp(from, to) == 0)
        return 0;
    for (int back = 0; back < 2; back++) {
        int rc = store_query(c->store, &q,
                             "SELECT value FROM rate WHERE base = $1 AND quote = $2 AND since <= $3"
                             " ORDER BY since DESC, id DESC LIMIT 1",
                             e);
        if (rc != 0)
            return rc;
        query_text(q, 1, str_from(back ? to : from));
        query_text(q, 2, str_from(back ? from : to));
        query_int(q, 3, at);
        if ((rc = query_step(q, e)) < 0)
            return rc;
        double value = rc > 0 ? (double)query_column_int(q, 0) / 1e9 : 0;
        if ((rc = query_run(q, e)) != 0)
            return rc;
        if (value > 0) {
            *out = back ? 1 / value : value;
            return 0;
        }
    }
    return error_param(e, ERR_NOT_FOUND, "currency",
                       "the books have no rate between %s and %s of that time; unkai price rate sets one",
                       from, to);
}

/* ---- the period ---- */

static int read_month(struct report *r, struct str month, struct error *e) {
    char next[CALENDAR_MONTH];
    if (month.n != CALENDAR_MONTH - 1)
        return error_param(e, ERR_INVALID, "month", "a month is written like 2026-11");
    int rc = calendar_parse(&r->from, month, r->zone, e);
    if (rc != 0)
        return rc;
    calendar_month(next, r->from, r->zone);
    calendar_next_month(next);
    return calendar_parse(&r->to, str_from(next), r->zone, e);
}

static int read_period(const struct json *args, struct report *r, struct error *e) {
    struct str month = json_as_str(json_get(args, "month")), from = json_as_str(json_get(args, "from")),
               to = json_as_str(json_get(args, "to"));
    char today[CALENDAR_DAY];
    int rc = 0;
    calendar_day(today, r->now - 1, r->zone);
    if (month.n == 0 && from.n == 0 && to.n == 0)
        month = (struct str){today, CALENDAR_MONTH - 1};
    if (month.n > 0 && (from.n > 0 || to.n > 0))
        return error_param(e, ERR_INVALID, "month", "a month, or from and to, but not both");
    if (month.n > 0)
        rc = read_month(r, month, e);
    else if ((rc = asset_day(&r->from, from, r->zone, "from", e)) == 0 &&
             (rc = asset_day(&r->to, to.n > 0 ? to : str_from(today), r->zone, "to", e)) == 0)
        r->to += DAY;
    if (rc != 0)
        return rc;
    if (r->from >= r->to || r->from >= r->now)
        return error_param(e, ERR_INVALID, "from", "the period ends before it begins, or has not begun");
    r->to = r->to < r->now ? r->to : r->now;
    return 0;
}

static void bind_days(struct query *q, const struct report *r) {
    char from[CALENDAR_DAY], to[CALENDAR_DAY];
    calendar_day(from, r->from, r->zone);
    calendar_day(to, r->to - 1, r->zone);
    query_text(q, 1, str_from(from));
    query_text(q, 2, str_from(to));
}

/* ---- what chips did ---- */

static int gather_chip_time(struct cloud *c, struct report *r, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "SELECT " WIDE("available_ns") ", " WIDE("busy_ns") ", " WIDE("energy_uj") ", " WIDE(
                             "measured_ns") " FROM chip_time WHERE at >= $1 AND at < $2",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, r->from);
    query_int(q, 2, r->to);
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    r->available = wide(q, 0) / HOUR_NS;
    r->busy = wide(q, 2) / HOUR_NS;
    double joules = wide(q, 4) / 1e6, seconds = wide(q, 6) / 1e9;
    r->watts = seconds > 0 ? joules / seconds : 0;
    return query_run(q, e);
}

static int gather_use(struct cloud *c, struct report *r, struct error *e) {
    struct query *q;
    double rate;
    int rc = store_query(c->store, &q,
                         "SELECT t.currency, " WIDE("u.charge") ", " WIDE("u.prefill_ns") ", " WIDE(
                             "u.chip_ns") " FROM usage_day u JOIN tenant t ON t.id = u.tenant"
                                          " WHERE u.day >= $1 AND u.day <= $2 GROUP BY t.currency",
                         e);
    if (rc != 0)
        return rc;
    bind_days(q, r);
    while ((rc = query_step(q, e)) > 0) {
        char currency[4];
        snprintf(currency, sizeof currency, "%.*s", (int)query_column_text(q, 0).n,
                 query_column_text(q, 0).p);
        double charged = wide(q, 1) / 1e9, prefill = wide(q, 3) / HOUR_NS, chip = wide(q, 5) / HOUR_NS;
        if ((rc = report_exchange(c, currency, r->currency, r->to, &rate, e)) != 0)
            return rc;
        r->revenue += charged * rate;
        r->prefill += prefill;
        r->decode += chip - prefill;
    }
    return rc;
}

static int gather_earned(struct cloud *c, struct report *r, struct error *e) {
    struct query *q;
    double rate;
    char to[CALENDAR_DAY];
    int rc = store_query(
        c->store, &q,
        "SELECT t.currency, " WIDE("u.charge") " FROM usage_day u JOIN tenant t ON"
                                               " t.id = u.tenant WHERE u.day <= $1 GROUP BY t.currency",
        e);
    if (rc != 0)
        return rc;
    calendar_day(to, r->to - 1, r->zone);
    query_text(q, 1, str_from(to));
    while ((rc = query_step(q, e)) > 0) {
        char currency[4];
        snprintf(currency, sizeof currency, "%.*s", (int)query_column_text(q, 0).n,
                 query_column_text(q, 0).p);
        double charged = wide(q, 1) / 1e9;
        if ((rc = report_exchange(c, currency, r->currency, r->to, &rate, e)) != 0)
            return rc;
        r->earned += charged * rate;
    }
    return rc;
}

/* ---- what machines cost ---- */

static double years(int64_t from, int64_t to) {
    return to > from ? (double)(to - from) / (YEAR_HOURS * HOUR_NS) : 0;
}

static void add_asset(struct report *r, const struct asset *a, double rate) {
    bool retired = a->retired != 0 && a->retired <= r->to;
    int64_t end = retired ? a->retired : r->to, begin = a->bought > r->from ? a->bought : r->from;
    if (a->bought >= r->to)
        return;
    r->paid += a->price * rate;
    r->sold += retired ? a->sold * rate : 0;
    r->spent += (asset_power(a, r->watts) + asset_operation(a)) * years(a->bought, end) * rate;
    if (!retired) {
        if (r->assets++ == 0 || a->bought < r->began)
            r->began = a->bought;
        r->price += a->price * rate;
        r->value += asset_value(a, years(a->bought, r->to)) * rate;
        r->chips += a->chips;
        r->straight += asset_straight(a) * rate;
        r->levelled += asset_annuity(a) * rate;
        r->power += asset_power(a, r->watts) * rate;
        r->operation += asset_operation(a) * rate;
    }
    if (end <= begin)
        return;
    double before = years(a->bought, begin), after = years(a->bought, end);
    double paid = asset_annuity(a) * fmax(fmin(after, a->life) - before, 0);
    r->cost.capital += (r->annuity ? paid : asset_depreciation(a, before, after)) * rate;
    r->cost.power += asset_power(a, r->watts) * years(begin, end) * rate;
    r->cost.operation += asset_operation(a) * years(begin, end) * rate;
    r->owned += a->chips * years(begin, end) * YEAR_HOURS;
}

static void add_expense(struct report *r, const struct expense *x, double rate) {
    int64_t end = x->until != 0 && x->until < r->to ? x->until : r->to;
    int64_t begin = x->from > r->from ? x->from : r->from;
    r->spent += x->yearly * years(x->from, end) * rate;
    r->cost.expenses += x->yearly * years(begin, end) * rate;
    if (x->from < r->to && (x->until == 0 || x->until > r->to))
        r->expenses += x->yearly * rate;
}

static int gather_cost(struct cloud *c, struct report *r, struct error *e) {
    struct asset *a = NULL;
    struct expense *x = NULL;
    size_t assets, expenses;
    double rate;
    int rc = asset_load(c, &a, &assets, e);
    if (rc == 0)
        rc = expense_load(c, &x, &expenses, e);
    for (size_t i = 0; rc == 0 && i < assets; i++)
        if ((rc = report_exchange(c, a[i].currency, r->currency, r->to, &rate, e)) == 0)
            add_asset(r, &a[i], rate);
    for (size_t i = 0; rc == 0 && i < expenses; i++)
        if ((rc = report_exchange(c, x[i].currency, r->currency, r->to, &rate, e)) == 0)
            add_expense(r, &x[i], rate);
    r->began = r->assets > 0 && r->began > r->from ? r->began : r->from;
    free(a);
    free(x);
    return rc;
}

/* What was asked for, else that of the first asset, else of the first tenant. */
static int read_currency(struct cloud *c, const struct json *args, struct report *r, struct error *e) {
    struct str asked = json_as_str(json_get(args, "currency"));
    struct asset *a;
    size_t n;
    int rc = asset_load(c, &a, &n, e);
    if (rc != 0)
        return rc;
    if (asked.n > 0 && !money_currency(asked))
        rc = error_param(e, ERR_INVALID, "currency", "a currency is three capital letters, like JPY");
    else
        snprintf(r->currency, sizeof r->currency, "%.*s", asked.n > 0 ? (int)asked.n : 3,
                 asked.n > 0          ? asked.p
                 : n > 0              ? a[0].currency
                 : c->tenants != NULL ? c->tenants->currency
                                      : "USD");
    free(a);
    return rc;
}

int report_gather(struct cloud *c, const struct json *args, struct report *r, struct error *e) {
    struct str basis = json_as_str(json_get(args, "basis"));
    *r = (struct report){.now = (clock_wall_ns() / SECOND + 1) * SECOND, .annuity = str_is(basis, "annuity")};
    if (basis.n > 0 && !r->annuity && !str_is(basis, "book"))
        return error_param(e, ERR_INVALID, "basis", "basis wants book or annuity");
    r->zone = c->zone;
    int rc = read_period(args, r, e);
    if (rc == 0)
        rc = read_currency(c, args, r, e);
    if (rc == 0)
        rc = gather_chip_time(c, r, e);
    if (rc == 0)
        rc = gather_cost(c, r, e);
    if (rc == 0)
        rc = gather_use(c, r, e);
    return rc == 0 ? gather_earned(c, r, e) : rc;
}

double report_cost(const struct report *r) {
    return r->cost.capital + r->cost.power + r->cost.operation + r->cost.expenses;
}

double report_chip_hour(const struct report *r) {
    return r->owned > 0 ? report_cost(r) / r->owned : NAN;
}

/* ---- whose ---- */

/* Rows of the query: a name, a currency, requests, prompt, cached, completion, charge, prefill, chip time. Rows of one name follow each other. */
static int see_uses(struct cloud *c, struct report *r, const char *sql,
                    void (*see)(void *context, const struct use *u), void *context, struct error *e) {
    struct query *q;
    struct use u = {.name = ""};
    bool some = false;
    double rate;
    int rc = store_query(c->store, &q, sql, e);
    if (rc != 0)
        return rc;
    bind_days(q, r);
    while ((rc = query_step(q, e)) > 0) {
        char currency[4];
        struct str name = query_column_text(q, 0);
        snprintf(currency, sizeof currency, "%.*s", (int)query_column_text(q, 1).n,
                 query_column_text(q, 1).p);
        if (some && !str_is(name, u.name))
            see(context, &u);
        if (!some || !str_is(name, u.name)) {
            u = (struct use){.name = ""};
            snprintf(u.name, sizeof u.name, "%.*s", (int)name.n, name.p);
        }
        some = true;
        double charged = wide(q, 6) / 1e9, prefill = wide(q, 8) / HOUR_NS, chip = wide(q, 10) / HOUR_NS;
        u.requests += (double)query_column_int(q, 2);
        u.prompt += (double)query_column_int(q, 3);
        u.cached += (double)query_column_int(q, 4);
        u.completion += (double)query_column_int(q, 5);
        u.prefill += prefill;
        u.decode += chip - prefill;
        if ((rc = report_exchange(c, currency, r->currency, r->to, &rate, e)) != 0)
            return rc;
        u.revenue += charged * rate;
    }
    if (rc == 0 && some)
        see(context, &u);
    return rc;
}

#define USES(name)                                                                                           \
    "SELECT " name ", t.currency, " SUM("u.requests") ", " SUM("u.prompt") ", " SUM("u.cached") ", " SUM(    \
        "u.completion") ", " WIDE("u.charge") ", " WIDE("u.prefill_ns") ", " WIDE("u.chip_ns") " FROM "      \
                                                                                               "usage_day "  \
                                                                                               "u JOIN "     \
                                                                                               "tenant t "   \
                                                                                               "ON t.id = "  \
                                                                                               "u.tenant "   \
                                                                                               "WHERE "      \
                                                                                               "u.day >= "   \
                                                                                               "$1 AND "     \
                                                                                               "u.day <= $2" \
                                                                                               " GROUP "     \
                                                                                               "BY " name    \
                                                                                               ", "          \
                                                                                               "t.currency " \
                                                                                               "ORDER "      \
                                                                                               "BY " name    \
                                                                                               ", "          \
                                                                                               "t.currency"

int report_models(struct cloud *c, struct report *r, void (*see)(void *context, const struct use *u),
                  void *context, struct error *e) {
    return see_uses(c, r, USES("u.model"), see, context, e);
}

int report_tenants(struct cloud *c, struct report *r, void (*see)(void *context, const struct use *u),
                   void *context, struct error *e) {
    return see_uses(c, r, USES("t.name"), see, context, e);
}
