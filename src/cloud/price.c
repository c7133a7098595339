/* The price book: versions of prices and exchange rates, each from a moment on, and which of them hold for a request that comes now. What holds is pinned in the request's record, so
 * that no later version changes it. On the yen's journey: its beginning. */
#include "cloud/operation.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- in memory ---- */

static struct price_row **bucket_of(struct cloud *c, struct str model) {
    uint32_t h = 2166136261U; /* FNV-1a */
    for (size_t i = 0; i < model.n; i++)
        h = (h ^ (unsigned char)model.p[i]) * 16777619U;
    return &c->prices[h % (sizeof c->prices / sizeof *c->prices)];
}

/* A version that was entered for at once holds whatever the clock says since. */
static bool holds(const struct version *v, int64_t now) {
    return v->since <= v->created || v->since <= now;
}

static bool before(const struct version *a, const struct version *b) {
    return a->since != b->since ? a->since > b->since : a->id > b->id;
}

static int add_price(struct cloud *c, const struct price_row *p, struct error *e) {
    struct price_row *copy = malloc(sizeof *copy), **link = bucket_of(c, str_from(p->model));
    if (copy == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a price");
    *copy = *p;
    while (*link != NULL && before(&(*link)->version, &p->version))
        link = &(*link)->next;
    copy->next = *link;
    *link = copy;
    return 0;
}

static int add_rate(struct cloud *c, const struct rate_row *r, struct error *e) {
    struct rate_row *copy = malloc(sizeof *copy), **link = &c->rates;
    if (copy == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a rate");
    *copy = *r;
    while (*link != NULL && before(&(*link)->version, &r->version))
        link = &(*link)->next;
    copy->next = *link;
    *link = copy;
    return 0;
}

static int64_t find_rate(struct cloud *c, const char *base, const char *quote, int64_t now) {
    if (strcmp(base, quote) == 0)
        return RATE_ONE;
    for (const struct rate_row *r = c->rates; r != NULL; r = r->next)
        if (strcmp(r->base, base) == 0 && strcmp(r->quote, quote) == 0 && holds(&r->version, now))
            return r->value;
    return 0;
}

bool price_known(struct cloud *c, struct str model) {
    const struct price_row *p = *bucket_of(c, model);
    while (p != NULL && (!str_is(model, p->model) || p->version.id == 0))
        p = p->next;
    return p != NULL;
}

/* The model's newest version that holds: in the tenant's currency, or else in one that there is a rate from. Rows of number 0 say only that it was logged. */
static const struct price_row *find(struct cloud *c, struct str model, const char *currency, int64_t now,
                                    int64_t *rate) {
    const struct price_row *converted = NULL;
    for (const struct price_row *p = *bucket_of(c, model); p != NULL; p = p->next) {
        if (!str_is(model, p->model) || p->version.id == 0 || !holds(&p->version, now))
            continue;
        int64_t r = find_rate(c, p->currency, currency, now);
        if (strcmp(p->currency, currency) == 0 || (converted == NULL && r > 0)) {
            *rate = r;
            converted = p;
            if (strcmp(p->currency, currency) == 0)
                return p;
        }
    }
    return converted;
}

static void log_once(struct cloud *c, struct str model, const char *currency) {
    struct price_row nothing = {0};
    for (const struct price_row *p = *bucket_of(c, model); p != NULL; p = p->next)
        if (str_is(model, p->model) && p->version.id == 0 && strcmp(p->currency, currency) == 0)
            return;
    snprintf(nothing.model, sizeof nothing.model, "%.*s", (int)model.n, model.p);
    snprintf(nothing.currency, sizeof nothing.currency, "%s", currency);
    add_price(c, &nothing, NULL);
    log_warn("model %s has no price in %s and is served for nothing", nothing.model, currency);
}

int64_t price_find(struct cloud *c, struct str model, const char *currency, int64_t now, struct tariff *out) {
    int64_t rate = RATE_ONE;
    const struct price_row *p = find(c, model, currency, now, &rate);
    if (p == NULL) {
        log_once(c, model, currency);
        *out = (struct tariff){.rate = RATE_ONE};
        return 0;
    }
    *out = p->tariff;
    out->rate = rate;
    return p->version.id;
}

int price_load(struct cloud *c, struct error *e) {
    struct query *q;
    pthread_mutex_lock(&c->lock);
    price_free(c);
    pthread_mutex_unlock(&c->lock);
    int rc = store_query(c->store, &q,
                         "SELECT id, since, created, model, currency, input, cached, output FROM price", e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct price_row p = {
            .version = {query_column_int(q, 0), query_column_int(q, 1), query_column_int(q, 2)},
            .tariff = {query_column_int(q, 5), query_column_int(q, 6), query_column_int(q, 7), RATE_ONE}};
        memory_copy_text(p.model, sizeof p.model, query_column_text(q, 3));
        memory_copy_text(p.currency, sizeof p.currency, query_column_text(q, 4));
        pthread_mutex_lock(&c->lock);
        rc = add_price(c, &p, e);
        pthread_mutex_unlock(&c->lock);
    }
    if (rc == 0)
        rc = store_query(c->store, &q, "SELECT id, since, created, base, quote, value FROM rate", e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct rate_row r = {
            .version = {query_column_int(q, 0), query_column_int(q, 1), query_column_int(q, 2)},
            .value = query_column_int(q, 5)};
        memory_copy_text(r.base, sizeof r.base, query_column_text(q, 3));
        memory_copy_text(r.quote, sizeof r.quote, query_column_text(q, 4));
        pthread_mutex_lock(&c->lock);
        rc = add_rate(c, &r, e);
        pthread_mutex_unlock(&c->lock);
    }
    return rc;
}

void price_free(struct cloud *c) {
    for (size_t i = 0; i < sizeof c->prices / sizeof *c->prices; i++)
        for (struct price_row *p = c->prices[i], *next; p != NULL; p = next) {
            next = p->next;
            free(p);
        }
    memset(c->prices, 0, sizeof c->prices);
    for (struct rate_row *r = c->rates, *next; r != NULL; r = next) {
        next = r->next;
        free(r);
    }
    c->rates = NULL;
}

/* ---- the operations ---- */

static int read_currency(char out[4], const struct json *args, const char *name, struct error *e) {
    struct str text = args_text(args, name);
    if (!money_currency(text))
        return error_param(e, ERR_INVALID, name, "a currency is three capital letters, like JPY");
    memcpy(out, text.p, 3);
    out[3] = 0;
    return 0;
}

/* From now on, or from the beginning of a later day. */
static int read_since(struct cloud *c, const struct json *args, struct version *v, struct error *e) {
    struct str text = args_text(args, "since");
    char today[CALENDAR_DAY];
    v->created = v->since = clock_wall_ns();
    if (text.n == 0)
        return 0;
    calendar_day(today, v->created, c->zone);
    int rc = calendar_parse(&v->since, text, c->zone, e);
    if (rc != 0)
        return rc;
    if (str_is(text, today))
        v->since = v->created;
    return v->since >= v->created
               ? 0
               : error_param(e, ERR_INVALID, "since",
                             "what was sold before today keeps its price: say a later day");
}

/* The number that the row got. */
static int inserted(struct query *q, int64_t *id, struct error *e) {
    int rc = query_step(q, e);
    if (rc <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the row got no number");
    *id = query_column_int(q, 0);
    return query_run(q, e);
}

static int insert_price(struct cloud *c, struct price_row *p, struct str note, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "INSERT INTO price (model, currency, input, cached, output, since, created, note)"
                         " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(p->model));
    query_text(q, 2, str_from(p->currency));
    query_int(q, 3, p->tariff.input);
    query_int(q, 4, p->tariff.cached);
    query_int(q, 5, p->tariff.output);
    query_int(q, 6, p->version.since);
    query_int(q, 7, p->version.created);
    query_text(q, 8, note);
    if ((rc = inserted(q, &p->version.id, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    rc = add_price(c, p, e);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

static int read_model(struct price_row *p, const struct json *args, struct error *e) {
    struct str model = args_text(args, "model");
    if (model.n == 0 || model.n >= MODEL_NAME_BYTES || memchr(model.p, 0, model.n) != NULL)
        return error_param(e, ERR_INVALID, "model", "a model's name is 1 to %d bytes", MODEL_NAME_BYTES - 1);
    memcpy(p->model, model.p, model.n);
    return 0;
}

/* Prices are said per million tokens: six decimals there are 10^-12 a token. */
static void write_tariff(struct buf *out, const char *name, price value) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, PRICE_DIGITS - 6);
    buf_byte(out, '"');
}

static void write_price(struct buf *out, const struct price_row *p) {
    buf_printf(out, "{\"id\":%lld,\"model\":", (long long)p->version.id);
    json_write_text(out, p->model);
    buf_printf(out, ",\"currency\":\"%s\"", p->currency);
    write_tariff(out, "input", p->tariff.input);
    write_tariff(out, "cached", p->tariff.cached);
    write_tariff(out, "output", p->tariff.output);
    buf_printf(out, ",\"since\":%lld}", (long long)(p->version.since / 1000000000));
}

static int price_set(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str cached = args_text(args, "cached");
    struct price_row p = {0};
    int rc = read_model(&p, args, e);
    if (rc != 0 || (rc = read_currency(p.currency, args, "currency", e)) != 0 ||
        (rc = read_since(c, args, &p.version, e)) != 0 ||
        (rc = money_parse(&p.tariff.input, args_text(args, "input"), PRICE_DIGITS - 6, e)) != 0 ||
        (rc = money_parse(&p.tariff.output, args_text(args, "output"), PRICE_DIGITS - 6, e)) != 0 ||
        (rc = money_parse(&p.tariff.cached, cached.n ? cached : args_text(args, "input"), PRICE_DIGITS - 6,
                          e)) != 0 ||
        (rc = insert_price(c, &p, args_text(args, "note"), e)) != 0)
        return rc;
    write_price(out, &p);
    return shared_changed_prices(c, e);
}

static int price_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct args_page page = args_page(args);
    struct query *q;
    bool first = true;
    int rc = store_query(c->store, &q,
                         "SELECT id, since, created, model, currency, input, cached, output FROM price"
                         " ORDER BY model, currency, since, id",
                         e);
    buf_byte(out, '[');
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct price_row p = {
            .version = {query_column_int(q, 0), query_column_int(q, 1), query_column_int(q, 2)},
            .tariff = {query_column_int(q, 5), query_column_int(q, 6), query_column_int(q, 7), RATE_ONE}};
        memory_copy_text(p.model, sizeof p.model, query_column_text(q, 3));
        memory_copy_text(p.currency, sizeof p.currency, query_column_text(q, 4));
        rc = 0;
        if (page.after != 0) { /* in this order, not by number */
            page.after = p.version.id == page.after ? 0 : page.after;
            continue;
        }
        if (page.limit-- <= 0)
            continue;
        if (!first)
            buf_byte(out, ',');
        write_price(out, &p);
        first = false;
    }
    buf_byte(out, ']');
    return rc;
}

enum { IMPORT_MOST = 1000, IMPORT_LARGEST = 1000 };

/* A price of a token: a number, or the text of one. Up to IMPORT_LARGEST a double keeps all of its 12 decimals. */
static int read_price(price *out, const struct json *v, struct error *e) {
    struct buf text = {0};
    if (json_numeric(v) && json_as_number(v) > IMPORT_LARGEST)
        return error_set(e, ERR_INVALID, "a price above %d wants to be a text", IMPORT_LARGEST);
    if (json_numeric(v))
        json_write(&text, v);
    else
        buf_str(&text, json_as_str(v));
    int rc = money_parse_number(out, buf_view(&text), PRICE_DIGITS, e);
    buf_free(&text);
    return rc;
}

static int check_members(const struct json *item, struct error *e) {
    static const char *const known[] = {"model", "input_cost_per_token", "output_cost_per_token",
                                        "cache_read_input_token_cost"};
    for (void *it = json_first(item); it != NULL; it = json_next(item, it)) {
        size_t i = 0;
        while (i < sizeof known / sizeof *known && !str_is(json_key(it), known[i]))
            i++;
        if (i == sizeof known / sizeof *known)
            return error_param(e, ERR_INVALID, "prices", "a model's prices have no '%.*s'",
                               (int)(json_key(it).n < 60 ? json_key(it).n : 60), json_key(it).p);
    }
    return 0;
}

static int read_item(struct price_row *p, const struct json *item, struct error *e) {
    const struct json *input = json_get(item, "input_cost_per_token"),
                      *cached = json_get(item, "cache_read_input_token_cost");
    int rc = check_members(item, e);
    if (rc != 0 || (rc = read_model(p, item, e)) != 0)
        return rc;
    if (read_price(&p->tariff.input, input, e) != 0 ||
        read_price(&p->tariff.output, json_get(item, "output_cost_per_token"), e) != 0 ||
        read_price(&p->tariff.cached, cached != NULL ? cached : input, e) != 0)
        return error_prefix(e, "%.100s: ", p->model);
    return 0;
}

/* Many at once, in one currency: of a token, with LiteLLM's names. All are read before the first is kept, since what is kept is in memory at once: one that cannot be kept exactly is the end of
 * all. */
static int price_import(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    const struct json *list = json_get(args, "prices");
    struct price_row like = {0}, p;
    int rc = read_currency(like.currency, args, "currency", e);
    if (rc == 0)
        rc = read_since(c, args, &like.version, e);
    if (rc == 0 &&
        (json_kind(list) != JSON_KIND_ARRAY || json_count(list) == 0 || json_count(list) > IMPORT_MOST))
        rc = error_param(e, ERR_INVALID, "prices", "prices of 1 to %d models at once", IMPORT_MOST);
    for (size_t i = 0; rc == 0 && i < json_count(list); i++)
        rc = read_item(&(struct price_row){0}, json_at(list, i), e);
    for (size_t i = 0; rc == 0 && i < json_count(list); i++) {
        p = like;
        if ((rc = read_item(&p, json_at(list, i), e)) == 0)
            rc = insert_price(c, &p, args_text(args, "note"), e);
    }
    buf_printf(out, "{\"imported\":%zu}", json_count(list));
    return rc != 0 ? rc : shared_changed_prices(c, e);
}

/* ---- exchange rates ---- */

static void write_rate(struct buf *out, const struct rate_row *r) {
    buf_printf(out, "{\"id\":%lld,\"base\":\"%s\",\"quote\":\"%s\",\"rate\":\"", (long long)r->version.id,
               r->base, r->quote);
    money_write(out, r->value, RATE_DIGITS);
    buf_printf(out, "\",\"since\":%lld}", (long long)(r->version.since / 1000000000));
}

static int price_rate(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct rate_row r = {0};
    struct query *q;
    int rc = read_currency(r.base, args, "base", e);
    if (rc != 0 || (rc = read_currency(r.quote, args, "quote", e)) != 0 ||
        (rc = read_since(c, args, &r.version, e)) != 0 ||
        (rc = money_parse(&r.value, args_text(args, "rate"), RATE_DIGITS, e)) != 0)
        return rc;
    if (r.value == 0 || strcmp(r.base, r.quote) == 0)
        return error_param(e, ERR_INVALID, "rate", "a rate is above zero, between two currencies");
    if ((rc = store_query(c->store, &q,
                          "INSERT INTO rate (base, quote, value, since, created) VALUES ($1, $2, $3, $4, $5)"
                          " RETURNING id",
                          e)) != 0)
        return rc;
    query_text(q, 1, str_from(r.base));
    query_text(q, 2, str_from(r.quote));
    query_int(q, 3, r.value);
    query_int(q, 4, r.version.since);
    query_int(q, 5, r.version.created);
    if ((rc = inserted(q, &r.version.id, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    rc = add_rate(c, &r, e);
    pthread_mutex_unlock(&c->lock);
    write_rate(out, &r);
    return rc != 0 ? rc : shared_changed_prices(c, e);
}

static int price_rates(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    buf_byte(out, '[');
    for (const struct rate_row *r = c->rates; r != NULL; r = r->next) {
        if (r != c->rates)
            buf_byte(out, ',');
        write_rate(out, r);
    }
    buf_byte(out, ']');
    return 0;
}

const struct operation_row price_operations[] = {
    {"price.set", price_set},   {"price.list", price_list, OPERATION_READS},   {"price.import", price_import},
    {"price.rate", price_rate}, {"price.rates", price_rates, OPERATION_READS}, {NULL},
};
