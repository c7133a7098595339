/* Prices from measured cost, and the market's; see price.h. On a yen's journey: where the price book comes from. */
#include "owner/price.h"

#include "base/clock.h"
#include "owner/asset.h"
#include "owner/report.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

extern const unsigned char prices_public[]; /* data/prices-public.json */
extern const size_t prices_public_bytes;

static void number(struct buf *out, const char *name, double x) {
    buf_printf(out, ",\"%s\":", name);
    json_write_number(out, x);
}

static void money(struct buf *out, const char *name, price x) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, x, PRICE_DIGITS - 6);
    buf_byte(out, '"');
}

/* ---- suggest ---- */

enum { LEAST_REQUESTS = 100 };
static const double LEAST_HOURS = 1.0 / 3600; /* of prefill, and of decode */

struct suggested {
    char model[MODEL_NAME_BYTES];
    double input_cost, output_cost; /* of a token, with what idle time costs */
    struct tariff t;
};

struct suggestion {
    const struct report *report;
    struct str model; /* "": all */
    double margin, use, cached;
    struct buf prices; /* of struct suggested */
    struct buf little; /* models of which too little was measured, as JSON */
    size_t found;
    struct error error;
};

static bool measured(const struct use *u) {
    return u->requests >= LEAST_REQUESTS && u->prefill >= LEAST_HOURS && u->decode >= LEAST_HOURS &&
           u->prompt > u->cached && u->completion > 0;
}

/* Of a token, in 10^-12, rounded up. */
static bool price_of(double cost, price *out) {
    double x = ceil(cost * 1e12);
    *out = x >= 0 && x < 9e18 ? (price)x : 0;
    return x >= 0 && x < 9e18;
}

static void suggest(void *context, const struct use *u) {
    struct suggestion *s = context;
    struct suggested p = {.t = {0}};
    if (s->error.code != 0 || (s->model.n > 0 && !str_is(s->model, u->name)))
        return;
    s->found++;
    if (!measured(u)) {
        buf_text(&s->little, s->little.n > 0 ? "," : "");
        json_write_text(&s->little, u->name);
        return;
    }
    double token = report_chip_hour(s->report) / s->use; /* of a chip-hour that is sold */
    double factor = 1 / (1 - s->margin);
    memcpy(p.model, u->name, sizeof p.model);
    p.input_cost = token * u->prefill / (u->prompt - u->cached);
    p.output_cost = token * u->decode / u->completion;
    if (!price_of(p.input_cost * factor, &p.t.input) ||
        !price_of(p.input_cost * factor * s->cached, &p.t.cached) ||
        !price_of(p.output_cost * factor, &p.t.output))
        error_set(&s->error, ERR_TOO_LARGE, "a price of %s would be too large", u->name);
    buf_append(&s->prices, &p, sizeof p);
}

static void write_suggested(struct buf *out, const struct suggested *p, const struct suggestion *s) {
    buf_text(out, "{\"model\":");
    json_write_text(out, p->model);
    buf_printf(out, ",\"currency\":\"%s\",\"note\":\"measured: margin %.4g%%, use %.4g%%\"",
               s->report->currency, 100 * s->margin, 100 * s->use);
    number(out, "input_cost", p->input_cost * 1e6);
    number(out, "output_cost", p->output_cost * 1e6);
    money(out, "input", p->t.input);
    money(out, "cached", p->t.cached);
    money(out, "output", p->t.output);
    buf_byte(out, '}');
}

/* Into the price book, by the operation that `unkai price set` is. */
static int set_price(struct cloud *c, struct str request, struct error *e) {
    struct buf answer = {0};
    struct json *args = NULL;
    int rc = json_parse(&args, request, e);
    if (rc == 0)
        rc = admin_find(STR("price.set"))->run(c, args, &answer, e);
    json_free(args);
    buf_free(&answer);
    return rc;
}

static int read_suggestion(struct suggestion *s, const struct json *args, struct error *e) {
    const struct report *r = s->report;
    s->model = json_as_str(json_get(args, "model"));
    s->use = r->owned > 0 ? (r->prefill + r->decode) / r->owned : NAN;
    int rc = number_of(args, "margin", NAN, 1, &s->margin, e);
    if (rc != 0 || (rc = number_of(args, "cached", 0.1, 1, &s->cached, e)) != 0 ||
        (json_get(args, "use") != NULL && (rc = number_of(args, "use", NAN, 1, &s->use, e)) != 0))
        return rc;
    if (s->margin >= 1)
        return error_param(e, ERR_INVALID, "margin", "a margin is below 100%% of the price");
    if (!(r->owned > 0) || !(report_cost(r) > 0))
        return error_set(
            e, ERR_INVALID,
            "nothing is known of what the machines cost in that time: unkai owner asset add tells");
    if (!(s->use > 0))
        return error_param(e, ERR_INVALID, "use",
                           "nothing was used in that time, and no price pays for that");
    return 0;
}

static int too_little(const struct suggestion *s, struct error *e) {
    if (s->found == 0 && s->model.n > 0)
        return error_param(e, ERR_NOT_FOUND, "model", "nobody has used a model %.*s in that time",
                           (int)(s->model.n < 100 ? s->model.n : 100), s->model.p);
    return error_set(
        e, ERR_INVALID,
        "too little was measured: a price wants %d requests of a model, and a second of chip time "
        "each for prompts and for answers",
        LEAST_REQUESTS);
}

/* All prices first: none is set when one cannot be. */
static int finish_suggestion(struct cloud *c, struct suggestion *s, bool set, struct buf *out,
                             struct error *e) {
    const struct report *r = s->report;
    size_t n = s->prices.n / sizeof(struct suggested);
    struct buf one = {0};
    int rc = 0;
    if (s->error.code != 0) {
        *e = s->error;
        return e->code;
    }
    if (s->prices.failed || s->little.failed)
        return error_set(e, ERR_NO_MEMORY, "no memory for the prices");
    if (n == 0)
        return too_little(s, e);
    buf_printf(out, "{\"currency\":\"%s\",\"set\":%s", r->currency, set ? "true" : "false");
    number(out, "chip_hour", report_chip_hour(r));
    number(out, "margin", s->margin);
    number(out, "use", s->use);
    buf_text(out, ",\"rounding\":\"up to 10^-12 a token\",\"prices\":[");
    for (size_t i = 0; i < n && rc == 0; i++) {
        struct suggested p;
        memcpy(&p, s->prices.p + i * sizeof p, sizeof p);
        buf_clear(&one);
        write_suggested(&one, &p, s);
        buf_text(out, i > 0 ? "," : "");
        buf_str(out, buf_view(&one));
        if (set)
            rc = set_price(c, buf_view(&one), e);
    }
    buf_text(out, "],\"too_little_measured\":[");
    buf_str(out, buf_view(&s->little));
    buf_text(out, "]}");
    buf_free(&one);
    return rc;
}

int price_suggest(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct report r;
    struct suggestion s = {.report = &r};
    bool set = json_as_bool(json_get(args, "set")) || str_is(json_as_str(json_get(args, "set")), "yes");
    int rc = report_gather(c, args, &r, e);
    if (rc != 0 || (rc = read_suggestion(&s, args, e)) != 0)
        return rc;
    rc = report_models(c, &r, suggest, &s, e);
    if (rc == 0)
        rc = finish_suggestion(c, &s, set, out, e);
    buf_free(&s.prices);
    buf_free(&s.little);
    return rc;
}

/* ---- compare ---- */

/* A row of the list; prices in 10^-12 of its currency a token. */
struct offer {
    struct str provider, model, class;
    struct tariff t;
};

static int read_offer(struct offer *o, const struct json *row, struct error *e) {
    struct str cached = json_as_str(json_get(row, "cached")), input = json_as_str(json_get(row, "input"));
    o->provider = json_as_str(json_get(row, "provider"));
    o->model = json_as_str(json_get(row, "model"));
    o->class = json_as_str(json_get(row, "class"));
    int rc = money_parse(&o->t.input, input, PRICE_DIGITS - 6, e);
    if (rc == 0)
        rc = money_parse(&o->t.cached, cached.n > 0 ? cached : input, PRICE_DIGITS - 6, e);
    if (rc == 0)
        rc = money_parse(&o->t.output, json_as_str(json_get(row, "output")), PRICE_DIGITS - 6, e);
    return rc != 0
               ? error_prefix(e, "the list's %.*s: ", (int)(o->model.n < 100 ? o->model.n : 100), o->model.p)
               : 0;
}

static bool holds(struct str text, struct str part) {
    for (size_t i = 0; i + part.n <= text.n; i++)
        if (strncasecmp(text.p + i, part.p, part.n) == 0)
            return true;
    return false;
}

static bool meant(const struct offer *o, struct str against) {
    bool class = o->class.n == against.n && strncasecmp(o->class.p, against.p, against.n) == 0;
    return against.n == 0 || class || holds(o->provider, against) || holds(o->model, against);
}

/* How many tokens of each kind to compare a price for: what was used in the period, else three of input for one of output. */
struct mix {
    struct str model;
    double input, cached, output;
};

static void see_mix(void *context, const struct use *u) {
    struct mix *m = context;
    if (str_is(m->model, u->name) && u->prompt > 0 && u->completion > 0)
        *m = (struct mix){m->model, u->prompt - u->cached, u->cached, u->completion};
}

static double mixed(const struct mix *m, const struct tariff *t) {
    return m->input * (double)t->input + m->cached * (double)t->cached + m->output * (double)t->output;
}

struct comparison {
    struct cloud *cloud;
    struct report report;
    const struct json *list;
    struct str against;
    int64_t now;
    struct buf out;
};

/* Ours over theirs, less one: below zero we are cheaper. */
static double dearer(double ours, double theirs) {
    return theirs > 0 ? ours / theirs - 1 : NAN;
}

static void write_offer(struct buf *out, const struct offer *o, const struct tariff *ours,
                        const struct mix *m, double rate) {
    buf_text(out, ",{\"provider\":");
    json_write_str(out, o->provider);
    buf_text(out, ",\"model\":");
    json_write_str(out, o->model);
    buf_text(out, ",\"class\":");
    json_write_str(out, o->class);
    money(out, "input", o->t.input);
    money(out, "cached", o->t.cached);
    money(out, "output", o->t.output);
    number(out, "input_dearer", dearer((double)ours->input, (double)o->t.input * rate));
    number(out, "cached_dearer", dearer((double)ours->cached, (double)o->t.cached * rate));
    number(out, "output_dearer", dearer((double)ours->output, (double)o->t.output * rate));
    number(out, "mix_dearer", dearer(mixed(m, ours), mixed(m, &o->t) * rate));
    buf_byte(out, '}');
}

/* One of our prices beside all that are meant. */
static int compare_one(struct comparison *x, struct str model, const char *currency,
                       const struct tariff *ours, struct error *e) {
    struct str theirs = json_as_str(json_get(x->list, "currency"));
    const struct json *rows = json_get(x->list, "prices");
    struct mix mix = {.model = model, .input = 3, .output = 1};
    char money_of_list[4];
    struct buf offers = {0};
    double rate;
    if (!money_currency(theirs))
        return error_set(e, ERR_INVALID, "the list of prices has no currency");
    snprintf(money_of_list, sizeof money_of_list, "%.*s", (int)theirs.n, theirs.p);
    int rc = report_exchange(x->cloud, money_of_list, currency, x->now, &rate, e);
    if (rc == 0)
        rc = report_models(x->cloud, &x->report, see_mix, &mix, e);
    for (size_t i = 0; rc == 0 && i < json_count(rows); i++) {
        struct offer o;
        if ((rc = read_offer(&o, json_at(rows, i), e)) == 0 && meant(&o, x->against))
            write_offer(&offers, &o, ours, &mix, rate);
    }
    if (rc == 0 && offers.n == 0)
        rc = error_param(e, ERR_NOT_FOUND, "against", "the list has no provider, model or class like that");
    if (rc == 0) {
        buf_text(&x->out, x->out.n > 0 ? ",{\"model\":" : "{\"model\":");
        json_write_str(&x->out, model);
        buf_printf(&x->out, ",\"currency\":\"%s\"", currency);
        money(&x->out, "input", ours->input);
        money(&x->out, "cached", ours->cached);
        money(&x->out, "output", ours->output);
        number(&x->out, "output_share", mix.output / (mix.input + mix.cached + mix.output));
        number(&x->out, "cached_share", mix.cached / (mix.input + mix.cached + mix.output));
        buf_text(&x->out, ",\"offers\":[");
        buf_str(&x->out, (struct str){offers.p + 1, offers.n - 1});
        buf_text(&x->out, "]}");
    }
    buf_free(&offers);
    return rc;
}

/* Each of our prices of now. */
static int compare_all(struct comparison *x, struct str model, struct error *e) {
    struct query *q;
    int rc = store_query(x->cloud->store, &q,
                         "SELECT p.model, p.currency, p.input, p.cached, p.output FROM price p WHERE p.id ="
                         " (SELECT n.id FROM price n WHERE n.model = p.model AND n.currency = p.currency AND"
                         " (n.since <= n.created OR n.since <= $1) ORDER BY n.since DESC, n.id DESC LIMIT 1) "
                         "ORDER BY p.model, p.currency",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, x->now);
    while ((rc = query_step(q, e)) > 0) {
        char name[MODEL_NAME_BYTES], currency[4];
        struct tariff t = {query_column_int(q, 2), query_column_int(q, 3), query_column_int(q, 4)};
        snprintf(name, sizeof name, "%.*s", (int)query_column_text(q, 0).n, query_column_text(q, 0).p);
        snprintf(currency, sizeof currency, "%.*s", (int)query_column_text(q, 1).n,
                 query_column_text(q, 1).p);
        if ((model.n == 0 || str_is(model, name)) &&
            (rc = compare_one(x, str_from(name), currency, &t, e)) != 0)
            return rc;
    }
    if (rc == 0 && x->out.n == 0)
        rc = error_param(e, ERR_NOT_FOUND, "model",
                         "the price book has no price to compare; see unkai price list");
    return rc;
}

int price_compare(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str own = json_as_str(json_get(args, "list")),
               known = {(const char *)prices_public, prices_public_bytes};
    struct comparison x = {
        .cloud = c, .against = json_as_str(json_get(args, "against")), .now = clock_wall_ns()};
    struct json *list = NULL;
    int rc = json_parse(&list, own.n > 0 ? own : known, e);
    if (rc != 0)
        return error_prefix(e, "the list of prices: ");
    x.list = list;
    rc = report_gather(c, args, &x.report, e);
    if (rc == 0)
        rc = compare_all(&x, json_as_str(json_get(args, "model")), e);
    if (rc == 0) {
        buf_text(out, "{\"date\":");
        json_write_str(out, json_as_str(json_get(list, "date")));
        buf_text(out, ",\"source\":");
        json_write_str(out, json_as_str(json_get(list, "source")));
        buf_text(out, ",\"currency\":");
        json_write_str(out, json_as_str(json_get(list, "currency")));
        buf_text(out, ",\"prices\":[");
        buf_str(out, buf_view(&x.out));
        buf_text(out, "]}");
    }
    buf_free(&x.out);
    json_free(list);
    return rc;
}
