/* The report as JSON; see report.h. On a yen's journey: where what came in is held against what went out. */
#include "owner/report.h"

#include "cloud/calendar.h"
#include "owner/asset.h"

#include <math.h>
#include <string.h>

static const double MOST_YEARS = 150; /* a day further away than this is never */

static void number(struct buf *out, const char *name, double x) {
    if (out->n > 0 && out->p[out->n - 1] != '{')
        buf_byte(out, ',');
    buf_printf(out, "\"%s\":", name);
    json_write_number(out, x);
}

static void text(struct buf *out, const char *name, const char *value) {
    if (out->n > 0 && out->p[out->n - 1] != '{')
        buf_byte(out, ',');
    buf_printf(out, "\"%s\":", name);
    json_write_text(out, value);
}

static void open_object(struct buf *out, const char *name) {
    buf_printf(out, ",\"%s\":{", name);
}

/* 0 / 0 is unknown, and so is anything over nothing. */
static double over(double a, double b) {
    return b > 0 ? a / b : NAN;
}

/* ---- whose ---- */

struct uses {
    const struct report *report;
    struct buf out;
    const char *noun;
    double cost; /* of all */
};

/* At the price of a chip-hour, and what a million tokens come to: as they ran, and with the idle time that had to be paid for as well. */
static void write_use(void *context, const struct use *u) {
    struct uses *all = context;
    const struct report *r = all->report;
    struct buf *out = &all->out;
    double hour = report_chip_hour(r), used = r->prefill + r->decode, cost = (u->prefill + u->decode) * hour;
    double input = over(u->prefill * hour, (u->prompt - u->cached) / 1e6);
    double output = over(u->decode * hour, u->completion / 1e6), full = over(r->owned, used);
    buf_text(out, out->n > 0 ? ",{" : "{");
    text(out, all->noun, u->name);
    number(out, "requests", u->requests);
    number(out, "input_tokens", u->prompt);
    number(out, "cached_tokens", u->cached);
    number(out, "output_tokens", u->completion);
    number(out, "prefill_seconds", u->prefill * 3600);
    number(out, "decode_seconds", u->decode * 3600);
    number(out, "cost", cost);
    number(out, "revenue", u->revenue);
    number(out, "margin", over(u->revenue - cost, u->revenue));
    number(out, "input_million", input);
    number(out, "output_million", output);
    number(out, "input_million_with_idle", input * full);
    number(out, "output_million_with_idle", output * full);
    buf_byte(out, '}');
    all->cost += cost;
}

/* ---- when it is paid back ---- */

static void write_payback(struct buf *out, const struct report *r, const struct payback *p, double months) {
    double left = payback_left(p), price = payback_price(p, months);
    char day[CALENDAR_DAY];
    number(out, "revenue_year", p->revenue);
    number(out, "operating_year", p->operating);
    number(out, "years", payback_years(p));
    number(out, "remaining", p->remaining);
    number(out, "years_left", left);
    if (left < MOST_YEARS) {
        calendar_day(day, r->to + (int64_t)(left * YEAR_HOURS * HOUR_NS), r->zone);
        text(out, "paid_back_on", day);
    } else {
        number(out, "paid_back_on", NAN);
    }
    number(out, "months", months);
    number(out, "price_chip_hour", price);
    number(out, "price_factor", over(price * p->chip_hours, p->revenue));
}

/* A number that the owner supposes, or what was measured. */
static int supposed(const struct json *args, const char *name, double measured, double most, double *out,
                    struct error *e) {
    *out = measured;
    return json_get(args, name) != NULL ? number_of(args, name, NAN, most, out, e) : 0;
}

/* At the rate of the period, and at another that the owner supposes: so much for a chip-hour, so much of the time. */
static int write_paybacks(struct buf *out, const struct report *r, const struct json *args, struct error *e) {
    double used = r->prefill + r->decode, hours = (double)(r->to - r->began) / HOUR_NS, months, sold, use;
    double a_year = over(YEAR_HOURS, hours), yearly = r->power + r->operation + r->expenses;
    struct payback p = {.price = r->price,
                        .remaining = r->paid - r->sold - (r->earned - r->spent),
                        .revenue = r->revenue * a_year,
                        .operating = yearly,
                        .chip_hours = used * a_year};
    int rc = supposed(args, "months", 36, 1200, &months, e);
    if (rc != 0 || (rc = supposed(args, "sold", over(r->revenue, used), 1e15, &sold, e)) != 0 ||
        (rc = supposed(args, "use", over(used, r->owned), 1, &use, e)) != 0)
        return rc;
    if (months < 1)
        return error_param(e, ERR_INVALID, "months", "months wants 1 to 1200");
    open_object(out, "payback");
    write_payback(out, r, &p, months);
    buf_byte(out, '}');
    if (json_get(args, "sold") == NULL && json_get(args, "use") == NULL)
        return 0;
    p.chip_hours = use * r->chips * YEAR_HOURS;
    p.revenue = sold * p.chip_hours;
    open_object(out, "supposed");
    number(out, "sold", sold);
    number(out, "use", use);
    number(out, "break_even_straight", over(over(r->straight + yearly, r->chips * YEAR_HOURS), sold));
    number(out, "break_even_annuity", over(over(r->levelled + yearly, r->chips * YEAR_HOURS), sold));
    write_payback(out, r, &p, months);
    buf_byte(out, '}');
    return 0;
}

/* ---- the whole ---- */

static void write_period(struct buf *out, const struct report *r) {
    char day[CALENDAR_DAY];
    buf_byte(out, '{');
    calendar_day(day, r->from, r->zone);
    text(out, "from", day);
    calendar_day(day, r->to - 1, r->zone);
    text(out, "to", day);
    buf_printf(out, ",\"from_second\":%lld,\"to_second\":%lld", (long long)(r->from / 1000000000),
               (long long)(r->to / 1000000000));
    text(out, "currency", r->currency);
    text(out, "basis", r->annuity ? "annuity" : "book");
}

static void write_cost(struct buf *out, const struct report *r) {
    double yearly = r->power + r->operation + r->expenses, hours = r->chips * YEAR_HOURS;
    open_object(out, "assets");
    number(out, "count", (double)r->assets);
    number(out, "chips", r->chips);
    number(out, "price", r->price);
    number(out, "value", r->value);
    number(out, "measured_watts", r->watts);
    buf_byte(out, '}');
    open_object(out, "cost");
    number(out, "capital", r->cost.capital);
    number(out, "power", r->cost.power);
    number(out, "operation", r->cost.operation);
    number(out, "expenses", r->cost.expenses);
    number(out, "total", report_cost(r));
    buf_byte(out, '}');
    open_object(out, "chip_hour");
    number(out, "period", report_chip_hour(r));
    number(out, "straight", over(r->straight + yearly, hours));
    number(out, "annuity", over(r->levelled + yearly, hours));
    buf_byte(out, '}');
}

static void write_use_of_chips(struct buf *out, const struct report *r, double cost) {
    double used = r->prefill + r->decode, hour = report_chip_hour(r);
    open_object(out, "chip_hours");
    number(out, "owned", r->owned);
    number(out, "available", r->available);
    number(out, "busy", r->busy);
    number(out, "used", used);
    number(out, "prefill", r->prefill);
    number(out, "decode", r->decode);
    buf_byte(out, '}');
    open_object(out, "utilisation");
    number(out, "owned", over(used, r->owned));
    number(out, "available", over(used, r->available));
    number(out, "break_even", over(over(used, r->owned) * report_cost(r), r->revenue));
    buf_byte(out, '}');
    open_object(out, "idle");
    number(out, "chip_hours", r->owned - used);
    number(out, "cost", report_cost(r) - cost);
    number(out, "off", (r->owned - r->available) * hour);
    number(out, "waiting", (r->available - r->busy) * hour);
    number(out, "unclaimed", (r->busy - used) * hour);
    buf_byte(out, '}');
    number(out, "revenue", r->revenue);
    number(out, "profit", r->revenue - report_cost(r));
    number(out, "margin", over(r->revenue - report_cost(r), r->revenue));
}

int report_owner(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct report r;
    struct uses models = {.report = &r, .noun = "model"}, tenants = {.report = &r, .noun = "tenant"};
    int rc = report_gather(c, args, &r, e);
    if (rc == 0)
        rc = report_models(c, &r, write_use, &models, e);
    if (rc == 0)
        rc = report_tenants(c, &r, write_use, &tenants, e);
    if (rc == 0) {
        write_period(out, &r);
        write_cost(out, &r);
        write_use_of_chips(out, &r, r.owned > 0 ? models.cost : 0);
        buf_text(out, ",\"models\":[");
        buf_str(out, buf_view(&models.out));
        buf_text(out, "],\"tenants\":[");
        buf_str(out, buf_view(&tenants.out));
        buf_byte(out, ']');
        rc = write_paybacks(out, &r, args, e);
        buf_byte(out, '}');
    }
    if (models.out.failed || tenants.out.failed)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for the report");
    buf_free(&models.out);
    buf_free(&tenants.out);
    return rc;
}
