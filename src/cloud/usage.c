/* The roll-up: what finished requests come to by period, day, tenant, key, model, price and rate, kept in the transaction that settles them, so that usage and bills need not
 * read the requests. */
#include "cloud/inner.h"

bool usage_due(const struct usage_record *u) {
    return u->sent > 0 || str_is(u->state, "done");
}

bool usage_same(const struct usage_sum *sum, const struct usage_record *u) {
    return sum->key == u->key && sum->price == u->price && sum->rate == u->rate &&
           str_is(u->model, sum->model);
}

int usage_add(struct usage_sum *sum, const struct usage_record *u, struct error *e) {
    bool due = usage_due(u);
    const struct {
        int64_t *sum, value;
    } part[] = {{&sum->requests, 1},
                {&sum->cancelled, str_is(u->state, "cancelled")},
                {&sum->failed, str_is(u->state, "failed")},
                {&sum->prompt, due ? u->prompt : 0},
                {&sum->cached, due ? u->cached : 0},
                {&sum->completion, u->sent},
                {&sum->charge, u->charge},
                {&sum->chip_ns, u->chip_ns},
                {&sum->prefill_ns, u->prefill_ns}};
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        if (__builtin_add_overflow(*part[i].sum, part[i].value, part[i].sum))
            return error_set(e, ERR_INVALID, "the day's usage would be too large");
    return 0;
}

int usage_write(struct ledger *l, int64_t tenant, const struct usage_sum *sum, int64_t at, struct error *e) {
    const int64_t number[] = {l->period,       tenant,         sum->key,     sum->price,     sum->rate,
                              sum->requests,   sum->cancelled, sum->failed,  sum->prompt,    sum->cached,
                              sum->completion, sum->charge,    sum->chip_ns, sum->prefill_ns};
    char day[CALENDAR_DAY];
    struct query *q;
    int rc = store_query(
        l->store, &q,
        "INSERT INTO usage_day (day, model, period, tenant, key, price, rate, requests, cancelled, failed,"
        " prompt, cached, completion, charge, chip_ns, prefill_ns)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
        " ON CONFLICT (tenant, period, day, key, model, price, rate) DO UPDATE SET"
        " requests = usage_day.requests + excluded.requests,"
        " cancelled = usage_day.cancelled + excluded.cancelled,"
        " failed = usage_day.failed + excluded.failed, prompt = usage_day.prompt + excluded.prompt,"
        " cached = usage_day.cached + excluded.cached,"
        " completion = usage_day.completion + excluded.completion,"
        " charge = usage_day.charge + excluded.charge, chip_ns = usage_day.chip_ns + excluded.chip_ns,"
        " prefill_ns = usage_day.prefill_ns + excluded.prefill_ns",
        e);
    if (rc != 0)
        return rc;
    calendar_day(day, at, l->zone);
    query_text(q, 1, str_from(day));
    query_text(q, 2, str_from(sum->model));
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        query_int(q, (int)i + 3, number[i]);
    return query_run(q, e);
}
