/* The FOCUS export: tenant by tenant a month's usage (a row a day, key, model, price version and kind of token), credits and charges by hand, and what its invoice adds: tax and
 * rounding. Usage and credits are the revenue accounts to the last unit; all rows of an invoice are its total. A call writes a page and says where the next one begins, so that
 * an export of any size takes little memory and the writer waits for one page at most. */
#include "cloud/bill/focus.h"
#include "cloud/bill/document.h"
#include "cloud/bill/party.h"
#include "cloud/bill/usage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGE_TENANTS = 500 };

/* Where a page ends: within a tenant's usage, or its transfers. */
enum phase { PHASE_USAGE, PHASE_TRANSFERS, PHASE_INVOICE };
struct cursor {
    int64_t tenant; /* the one that is being written; 0: begin */
    enum phase phase;
    int64_t key, price, rate, seq; /* the last row's */
    char day[CALENDAR_DAY], model[MODEL_NAME_BYTES];
};

struct export {
    struct cloud *cloud;
    const struct focus_version *version;
    struct buf *out;
    struct period period;
    struct cursor at;
    struct focus_row row;
    char issuer[300];
    int64_t only, rows, most; /* most: rows of a page, more or less */
    /* The tenant's. */
    int64_t account;
    char name[TENANT_NAME_BYTES], currency[4], invoice[80];
    struct buf account_name;
    struct json *document; /* of its invoice, or NULL */
};

static void copy(char *to, size_t size, struct str text) {
    size_t n = text.n < size ? text.n : size - 1;
    memcpy(to, text.p, n);
    to[n] = 0;
}

/* ---- a row ---- */

static void set(struct export *x, enum focus_field field, const char *text) {
    focus_text(&x->row, field, str_from(text));
}

/* With a point, always: readers guess a column's type from what they see. */
static void set_wide(struct export *x, enum focus_field field, money_wide value, int digits) {
    struct buf *b = &x->row.value[field];
    buf_clear(b);
    money_write_wide(b, value, digits);
    if (b->p != NULL && strchr(b->p, '.') == NULL)
        buf_text(b, ".0");
}

static void set_amount(struct export *x, enum focus_field field, amount value) {
    set_wide(x, field, value, AMOUNT_DIGITS);
}

static void set_time(struct export *x, enum focus_field field, int64_t at) {
    buf_clear(&x->row.value[field]);
    time_write(&x->row.value[field], at);
}

static void set_day(struct export *x, const char *day) {
    int64_t from = x->period.from;
    calendar_parse(&from, str_from(day), x->period.zone, NULL);
    set_time(x, FOCUS_START, from);
    set_time(x, FOCUS_END, from + 86400 * INT64_C(1000000000));
}

/* What every row of the tenant says. value: what is asked for; a cost that follows no unit price is the same under every name. */
static void begin_row(struct export *x, const char *category, amount value) {
    focus_clear(&x->row);
    set(x, FOCUS_CATEGORY, category);
    set_amount(x, FOCUS_BILLED_COST, value);
    set_amount(x, FOCUS_LIST_COST, value);
    set_amount(x, FOCUS_PRICE_COST, value);
    set(x, FOCUS_CURRENCY, x->currency);
    set(x, FOCUS_PRICE_CURRENCY, x->currency);
    buf_printf(&x->row.value[FOCUS_ACCOUNT], "tenant/%s", x->name);
    focus_text(&x->row, FOCUS_ACCOUNT_NAME, buf_view(&x->account_name));
    set(x, FOCUS_ACCOUNT_TYPE, "Tenant");
    set_time(x, FOCUS_MONTH_START, x->period.from);
    set_time(x, FOCUS_MONTH_END, x->period.to);
    set_time(x, FOCUS_START, x->period.from);
    set_time(x, FOCUS_END, x->period.to);
    set(x, FOCUS_FREQUENCY, "One-Time");
    set(x, FOCUS_INVOICE, x->invoice);
    set(x, FOCUS_ISSUER, x->issuer);
    set(x, FOCUS_SERVICE_CATEGORY, "AI and Machine Learning");
    set(x, FOCUS_SERVICE_SUBCATEGORY, "Generative AI");
    set(x, FOCUS_SERVICE, "Model inference");
}

static void end_row(struct export *x) {
    focus_write(x->version, &x->row, x->out);
    x->rows++;
}

/* ---- usage ---- */

static void sku(struct export *x, const struct usage *u, enum token_kind kind) {
    static const char *const meter[] = {"Input Tokens", "Cached Input Tokens", "Output Tokens"};
    struct buf *id = &x->row.value[FOCUS_SKU], *price = &x->row.value[FOCUS_SKU_PRICE];
    buf_printf(id, "%s/%s", u->model, token_kind_name[kind]);
    buf_printf(price, "%s/%s/%lld", u->model, token_kind_name[kind], (long long)u->price);
    set(x, FOCUS_SKU_METER, meter[kind]);
    buf_printf(&x->row.value[FOCUS_SKU_DETAILS], "{\"x_TokenKind\":\"%s\"}", token_kind_name[kind]);
}

static void usage_row(struct export *x, const struct usage *u, enum token_kind kind, const char *day,
                      int64_t key, struct str key_name) {
    money_wide unit = usage_unit_price(u, kind);
    begin_row(x, "Usage", u->part[kind]);
    set(x, FOCUS_FREQUENCY, "Usage-Based");
    set_day(x, day);
    set_wide(x, FOCUS_LIST_COST, unit * u->tokens[kind], 21);
    set_wide(x, FOCUS_LIST_UNIT_PRICE, unit, 15);
    if (u->rate != 1000000000)
        set_wide(x, FOCUS_PRICE_COST, (money_wide)u->unit[kind] * u->tokens[kind], 12);
    set_wide(x, FOCUS_PRICE_UNIT_PRICE, u->unit[kind], 6);
    if (u->currency[0] != 0)
        set(x, FOCUS_PRICE_CURRENCY, u->currency);
    set_wide(x, FOCUS_QUANTITY, u->tokens[kind], 6);
    set(x, FOCUS_QUANTITY_UNIT, "1000000 Tokens");
    set_wide(x, FOCUS_TOKENS, u->tokens[kind], 0);
    set(x, FOCUS_TOKENS_UNIT, "Tokens");
    set(x, FOCUS_PRICING, "Standard");
    set(x, FOCUS_MODEL, u->model);
    set(x, FOCUS_MODEL_TYPE, "Model");
    sku(x, u, kind);
    buf_printf(&x->row.value[FOCUS_KEY], "key/%lld", (long long)key);
    focus_text(&x->row, FOCUS_KEY_NAME, key_name);
    if (key_name.n == 0)
        buf_printf(&x->row.value[FOCUS_KEY_NAME], "key %lld", (long long)key);
    set(x, FOCUS_KEY_TYPE, "Key");
    set(x, FOCUS_TOKEN_KIND, token_kind_name[kind]);
    set_wide(x, FOCUS_EXCHANGE_RATE, u->rate, 9);
    buf_printf(&x->row.value[FOCUS_DESCRIPTION], "%s, %s", u->model, x->row.value[FOCUS_SKU_METER].p);
    end_row(x);
}

static void usage_rows(struct export *x, struct query *q) {
    struct cursor *c = &x->at;
    copy(c->day, sizeof c->day, query_column_text(q, 0));
    c->key = query_column_int(q, 1);
    copy(c->model, sizeof c->model, query_column_text(q, 2));
    c->price = query_column_int(q, 3);
    c->rate = query_column_int(q, 4);
    struct usage u = {.price = c->price, .rate = c->rate, .charge = query_column_int(q, 8)};
    memcpy(u.model, c->model, sizeof u.model);
    u.tokens[TOKEN_CACHED] = query_column_int(q, 6);
    u.tokens[TOKEN_INPUT] = query_column_int(q, 5) - u.tokens[TOKEN_CACHED];
    u.tokens[TOKEN_OUTPUT] = query_column_int(q, 7);
    copy(u.currency, sizeof u.currency, query_column_text(q, 9));
    for (int i = 0; i < TOKEN_KINDS; i++)
        u.unit[i] = query_column_int(q, 10 + i);
    usage_split(&u);
    for (int i = 0; i < TOKEN_KINDS; i++)
        if (u.tokens[i] != 0 || u.part[i] != 0)
            usage_row(x, &u, (enum token_kind)i, c->day, c->key, query_column_text(q, 13));
}

/* 1: there may be more. */
static int write_usage(struct export *x, struct error *e) {
    const struct cursor *c = &x->at;
    struct query *q;
    int64_t asked = (x->most - x->rows) / TOKEN_KINDS + 1, got = 0;
    int rc = store_query(
        x->cloud->store, &q,
        "SELECT u.day, u.key, u.model, u.price, u.rate, u.prompt, u.cached, u.completion, u.charge,"
        " coalesce(p.currency, ''), coalesce(p.input, 0), coalesce(p.cached, 0), coalesce(p.output, 0),"
        " coalesce(k.name, '') FROM usage_day u LEFT JOIN price p ON p.id = u.price"
        " LEFT JOIN key k ON k.id = u.key WHERE u.tenant = $1 AND u.period = $2"
        " AND (u.day, u.key, u.model, u.price, u.rate) > ($3, $4, $5, $6, $7)"
        " ORDER BY u.day, u.key, u.model, u.price, u.rate LIMIT $8",
        e);
    if (rc != 0)
        return rc;
    query_int(q, 1, c->tenant);
    query_int(q, 2, x->period.id);
    query_text(q, 3, str_from(c->day));
    query_int(q, 4, c->key);
    query_text(q, 5, str_from(c->model));
    query_int(q, 6, c->price);
    query_int(q, 7, c->rate);
    query_int(q, 8, asked);
    for (; (rc = query_step(q, e)) > 0; got++)
        usage_rows(x, q);
    return rc < 0 ? rc : got == asked;
}

/* ---- credits and charges by hand ---- */

static void transfer_row(struct export *x, struct query *q) {
    char day[CALENDAR_DAY];
    amount value = query_column_int(q, 5);
    struct str note = query_column_text(q, 3);
    bool earlier = query_column_int(q, 6) != 0;
    x->at.seq = query_column_int(q, 0);
    begin_row(x, value < 0 ? "Credit" : "Adjustment", value);
    calendar_day(day, query_column_int(q, 4), x->period.zone);
    set_day(x, day);
    if (earlier)
        set(x, FOCUS_CLASS, "Correction");
    focus_text(&x->row, FOCUS_DESCRIPTION, note.n > 0 ? note : query_column_text(q, 1));
    focus_text(&x->row, FOCUS_TRANSFER, query_column_text(q, 1));
    end_row(x);
}

static int write_transfers(struct export *x, struct error *e) {
    struct query *q;
    int64_t asked = x->most - x->rows + 1, got = 0;
    int rc = store_query(
        x->cloud->store, &q,
        "SELECT x.seq, x.id, x.about, x.note, x.at, CASE WHEN x.debit = $1 THEN x.amount ELSE -x.amount END,"
        " CASE WHEN coalesce(a.seq, $2) < $2 THEN 1 ELSE 0 END FROM transfer x"
        " JOIN account o ON o.id = CASE WHEN x.debit = $1 THEN x.credit ELSE x.debit END"
        " LEFT JOIN transfer a ON a.id = x.about AND x.about <> ''"
        " WHERE x.kind <> 'settle' AND x.phase IN (0, 2) AND (x.debit = $1 OR x.credit = $1)"
        " AND x.seq BETWEEN $2 AND $3 AND x.seq > $4 AND substr(o.name, 1, 8) = 'revenue:'"
        " ORDER BY x.seq LIMIT $5",
        e);
    if (rc != 0)
        return rc;
    query_int(q, 1, x->account);
    query_int(q, 2, x->period.first_seq);
    query_int(q, 3, x->period.last_seq);
    query_int(q, 4, x->at.seq);
    query_int(q, 5, asked);
    for (; (rc = query_step(q, e)) > 0; got++)
        transfer_row(x, q);
    return rc < 0 ? rc : got == asked;
}

/* ---- what an invoice adds ---- */

static void write_invoice(struct export *x) {
    const struct json *lines = json_get(x->document, "lines"), *taxes = json_get(x->document, "taxes");
    for (size_t i = 0; i < json_count(lines); i++) {
        struct str kind = json_as_str(json_get(json_at(lines, i), "kind"));
        if (!str_is(kind, "carried_in") && !str_is(kind, "carried_out"))
            continue;
        begin_row(x, "Adjustment", document_amount(json_at(lines, i), "amount"));
        set(x, FOCUS_DESCRIPTION,
            str_is(kind, "carried_in") ? "Rounding: carried from the month before"
                                       : "Rounding: carried to the next month");
        end_row(x);
    }
    for (size_t i = 0; i < json_count(taxes); i++) {
        const struct json *label = json_get(json_get(x->document, "rule"), "label");
        struct str name = json_as_str(json_get(label, "en")),
                   percent = json_as_str(json_get(json_at(taxes, i), "percent"));
        begin_row(x, "Tax", document_amount(json_at(taxes, i), "tax"));
        buf_printf(&x->row.value[FOCUS_DESCRIPTION], "%.*s %.*s%%", (int)name.n, name.p, (int)percent.n,
                   percent.p);
        end_row(x);
    }
}

/* ---- tenants ---- */

static int read_invoice(struct export *x, struct error *e) {
    struct query *q;
    json_free(x->document);
    x->document = NULL;
    x->invoice[0] = 0;
    int rc = store_query(
        x->cloud->store, &q,
        "SELECT number, document FROM invoice WHERE tenant = $1 AND period = $2 AND kind = 'invoice'", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, x->at.tenant);
    query_int(q, 2, x->period.id);
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    copy(x->invoice, sizeof x->invoice, query_column_text(q, 0));
    if ((rc = json_parse(&x->document, query_column_text(q, 1), e)) != 0)
        return rc;
    return query_run(q, e);
}

/* The tenant from this number on. 1: there is one. */
static int read_tenant(struct export *x, int64_t from, struct error *e) {
    struct query *q;
    struct json *profile = NULL;
    int rc =
        store_query(x->cloud->store, &q,
                    "SELECT id, name, currency, account FROM tenant WHERE id >= $1 ORDER BY id LIMIT 1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, from);
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    x->at.tenant = query_column_int(q, 0);
    copy(x->name, sizeof x->name, query_column_text(q, 1));
    copy(x->currency, sizeof x->currency, query_column_text(q, 2));
    x->account = query_column_int(q, 3);
    if ((rc = query_run(q, e)) != 0 || (rc = party_read(x->cloud->store, x->at.tenant, &profile, e)) != 0)
        return rc;
    struct str own = json_as_str(json_get(profile, "name"));
    buf_clear(&x->account_name);
    buf_str(&x->account_name, own.n > 0 ? own : str_from(x->name));
    json_free(profile);
    rc = read_invoice(x, e);
    return rc < 0 ? rc : 1;
}

/* 1: the page is full. */
static int write_tenant(struct export *x, struct error *e) {
    int rc = 0;
    if (x->at.phase == PHASE_USAGE) {
        if ((rc = write_usage(x, e)) != 0)
            return rc;
        x->at.phase = PHASE_TRANSFERS;
    }
    if (x->at.phase == PHASE_TRANSFERS) {
        if (x->rows >= x->most)
            return 1;
        if ((rc = write_transfers(x, e)) != 0)
            return rc;
        x->at.phase = PHASE_INVOICE;
    }
    write_invoice(x);
    return 0;
}

/* 1: there is more; the cursor says where. */
static int write_page(struct export *x, struct error *e) {
    int rc;
    for (int n = 0; n < PAGE_TENANTS; n++) {
        int64_t before = x->at.tenant;
        if ((rc = read_tenant(x, before > x->only ? before : x->only, e)) <= 0 ||
            (x->only != 0 && x->at.tenant != x->only))
            return rc < 0 ? rc : 0;
        if (x->at.tenant != before)
            x->at = (struct cursor){.tenant = x->at.tenant};
        if ((rc = write_tenant(x, e)) != 0)
            return rc;
        x->at = (struct cursor){.tenant = x->at.tenant + 1};
        if (x->rows >= x->most)
            return 1;
    }
    return 1;
}

/* ---- the operation ---- */

static void write_cursor(struct buf *out, const struct cursor *c) {
    buf_printf(out,
               "{\"tenant\":%lld,\"phase\":%d,\"key\":%lld,\"price\":%lld,\"rate\":%lld,\"seq\":%lld,\"day\":"
               "\"%s\",\"model\":",
               (long long)c->tenant, (int)c->phase, (long long)c->key, (long long)c->price,
               (long long)c->rate, (long long)c->seq, c->day);
    json_write_text(out, c->model);
    buf_byte(out, '}');
}

/* What write_cursor wrote, as a text. */
static int read_cursor(const struct json *after, struct cursor *c, struct error *e) {
    struct json *v = NULL;
    *c = (struct cursor){0};
    if (after == NULL)
        return 0;
    if (json_parse(&v, json_as_str(after), NULL) != 0 || json_kind(v) != JSON_KIND_OBJECT) {
        json_free(v);
        return error_param(e, ERR_INVALID, "after", "that is no page of this export");
    }
    *c = (struct cursor){.tenant = json_as_int(json_get(v, "tenant")),
                         .key = json_as_int(json_get(v, "key")),
                         .price = json_as_int(json_get(v, "price")),
                         .rate = json_as_int(json_get(v, "rate")),
                         .seq = json_as_int(json_get(v, "seq"))};
    int64_t phase = json_as_int(json_get(v, "phase"));
    c->phase = phase == 1 ? PHASE_TRANSFERS : phase == 2 ? PHASE_INVOICE : PHASE_USAGE;
    copy(c->day, sizeof c->day, json_as_str(json_get(v, "day")));
    copy(c->model, sizeof c->model, json_as_str(json_get(v, "model")));
    json_free(v);
    return 0;
}

static int read_issuer(struct export *x, struct error *e) {
    struct json *issuer = NULL;
    int rc = party_read(x->cloud->store, PARTY_ISSUER, &issuer, e);
    struct str name = json_as_str(json_get(issuer, "name"));
    copy(x->issuer, sizeof x->issuer, name.n > 0 ? name : STR("unkai"));
    json_free(issuer);
    return rc;
}

/* {"month", "tenant", "version", "after", "rows"}: {"text": lines, "rows", "after": a text that the next call is given, or null}. */
static int export_focus(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str tenant = json_as_str(json_get(args, "tenant"));
    const struct json *after = json_get(args, "after");
    struct tenant *only = NULL;
    struct buf text = {0};
    struct export x = {
        .cloud = c, .out = &text, .version = focus_version(json_as_str(json_get(args, "version")))};
    if (x.version == NULL)
        return error_param(e, ERR_UNSUPPORTED, "version", "there are no columns for this version of FOCUS");
    if (tenant.n > 0 && memory_need_tenant(c, tenant, "tenant", &only, e) != 0)
        return ERR_NOT_FOUND;
    x.only = only != NULL ? only->id : 0;
    x.most = bill_page(args);
    int rc = read_cursor(after, &x.at, e);
    if (rc == 0)
        rc = period_find(c->store, json_as_str(json_get(args, "month")), &x.period, e);
    if (rc == 0 && (rc = read_issuer(&x, e)) == 0) {
        if (after == NULL)
            focus_header(x.version, &text);
        rc = write_page(&x, e);
    }
    if (rc >= 0) {
        buf_printf(out, "{\"month\":\"%s\",\"version\":\"%s\",\"rows\":%lld,\"text\":", x.period.month,
                   x.version->name, (long long)x.rows);
        json_write_str(out, buf_view(&text));
        buf_text(out, ",\"after\":");
        struct buf cursor = {0};
        if (rc > 0) {
            write_cursor(&cursor, &x.at);
            json_write_str(out, buf_view(&cursor));
            buf_free(&cursor);
        } else {
            buf_text(out, "null");
        }
        buf_byte(out, '}');
        rc = text.failed ? error_set(e, ERR_NO_MEMORY, "no memory for an export") : 0;
    }
    json_free(x.document);
    buf_free(&x.account_name);
    buf_free(&text);
    focus_free(&x.row);
    return rc;
}

const struct operation_row focus_operations[] = {{"export.focus", export_focus, OPERATION_READS}, {NULL}};
