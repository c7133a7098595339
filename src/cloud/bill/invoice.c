/* Invoices: one a tenant and closed month, numbered without gaps, and their credit notes; each is a document (document.h) that is kept as it was issued, and can be made
 * again from the journal. Tax is posted when a document is issued; the charges were, with every request. On the yen's journey: where charges become a bill. */
#include "cloud/bill/invoice.h"
#include "cloud/bill/party.h"
#include "cloud/operation.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERIES_BYTES = 40, REASON_BYTES = 400 };

/* ---- numbers ---- */

/* The next of a series, in the transaction that keeps the document: where that fails, the number is free again. */
static int next_number(struct store *s, struct str series, char number[INVOICE_NUMBER_BYTES],
                       struct error *e) {
    struct query *q;
    if (series.n > SERIES_BYTES)
        return error_set(e, ERR_INVALID, "a series' name has at most %d bytes", SERIES_BYTES);
    int rc = store_query(s, &q,
                         "INSERT INTO series (name, last) VALUES ($1, 1)"
                         " ON CONFLICT (name) DO UPDATE SET last = series.last + 1 RETURNING last",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, series);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the series gave no number");
    snprintf(number, INVOICE_NUMBER_BYTES, "%.*s%06lld", (int)series.n, series.p,
             (long long)query_column_int(q, 0));
    return query_run(q, e);
}

static struct str series_of(const struct json *issuer, const char *kind, struct str usual) {
    struct str own = json_as_str(json_get(json_get(issuer, "series"), kind));
    return own.n > 0 ? own : usual;
}

/* ---- tax in the ledger ---- */

/* receivable:TENANT to tax:RULE:CURRENCY; the other way for less than nothing. */
static int post_tax(struct cloud *c, const char *number, const char *tenant, struct str rule,
                    const char *currency, amount tax, int64_t at, struct error *e) {
    char receivable[TENANT_NAME_BYTES + 16], account[80], id[INVOICE_NUMBER_BYTES + 16];
    struct transfer t = {.kind = STR("tax"), .value = tax < 0 ? -tax : tax, .at = at};
    int64_t from, to;
    bool again;
    if (tax == 0)
        return 0;
    snprintf(receivable, sizeof receivable, "receivable:%s", tenant);
    snprintf(account, sizeof account, "tax:%.*s:%s", (int)(rule.n < 40 ? rule.n : 40), rule.p, currency);
    snprintf(id, sizeof id, "invoice:%s", number);
    t.id = str_from(id);
    int rc = ledger_account(&c->ledger, receivable, currency, &from, e);
    if (rc != 0 || (rc = ledger_account(&c->ledger, account, currency, &to, e)) != 0)
        return rc;
    t.debit = tax > 0 ? from : to;
    t.credit = tax > 0 ? to : from;
    if ((rc = ledger_transfer(&c->ledger, &t, &again, e)) != 0)
        return rc;
    return again ? error_set(e, ERR_CONFLICT, "the ledger has a transfer %s already", id) : 0;
}

/* ---- one document ---- */

void invoice_document_free(struct invoice_document *d) {
    json_free(d->json);
    buf_free(&d->text);
}

static int keep_document(struct store *s, struct invoice_document *d, struct error *e) {
    struct query *q;
    d->hash = hash_sha256(buf_view(&d->text));
    int rc =
        store_query(s, &q,
                    "INSERT INTO invoice (number, tenant, period, kind, about, issued, currency, net, tax,"
                    " total, document, hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                    e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(d->number));
    query_int(q, 2, d->tenant);
    query_int(q, 3, d->period);
    query_text(q, 4, str_from(d->kind));
    query_text(q, 5, str_from(d->about));
    query_int(q, 6, d->issued);
    query_text(q, 7, str_from(d->currency));
    query_int(q, 8, d->sums.net);
    query_int(q, 9, d->sums.tax);
    query_int(q, 10, d->sums.total);
    query_text(q, 11, buf_view(&d->text));
    query_blob(q, 12, (struct str){(const char *)d->hash.byte, sizeof d->hash.byte});
    return query_run(q, e);
}

int invoice_read(struct store *s, struct str number, struct invoice_document *d, struct error *e) {
    struct query *q;
    *d = (struct invoice_document){0};
    int rc =
        store_query(s, &q,
                    "SELECT id, tenant, period, number, kind, about, currency, issued, net, tax, total, hash,"
                    " document FROM invoice WHERE number = $1",
                    e);
    if (rc != 0)
        return rc;
    query_text(q, 1, number);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc
                      : error_param(e, ERR_NOT_FOUND, "number",
                                    "there is no invoice '%.*s'; see unkai invoice list",
                                    (int)(number.n < 60 ? number.n : 60), number.p);
    d->id = query_column_int(q, 0);
    d->tenant = query_column_int(q, 1);
    d->period = query_column_int(q, 2);
    memory_copy_text(d->number, sizeof d->number, query_column_text(q, 3));
    memory_copy_text(d->kind, sizeof d->kind, query_column_text(q, 4));
    memory_copy_text(d->about, sizeof d->about, query_column_text(q, 5));
    memory_copy_text(d->currency, sizeof d->currency, query_column_text(q, 6));
    d->issued = query_column_int(q, 7);
    d->sums.net = query_column_int(q, 8);
    d->sums.tax = query_column_int(q, 9);
    d->sums.total = query_column_int(q, 10);
    struct str hash = query_column_text(q, 11);
    memcpy(&d->hash, hash.p, hash.n < sizeof d->hash ? hash.n : sizeof d->hash);
    buf_str(&d->text, query_column_text(q, 12));
    if ((rc = query_run(q, e)) != 0 || (rc = json_parse(&d->json, buf_view(&d->text), e)) != 0)
        invoice_document_free(d);
    return rc;
}

/* ---- rows of lists ---- */

/* Of the tenant $1 (0: of all) and the number $2 ("": of every one), each with what was paid for the tenant's month: so a payment of an invoice that was taken back counts for the one in its
 * place. Payments that were reversed are none. */
#define ROWS                                                                                      \
    "SELECT i.number, i.kind, t.name, p.month, i.about, i.currency, i.issued, i.net, i.tax,"      \
    " i.total, i.document, coalesce(paid.charges, 0), coalesce(paid.tax, 0) FROM invoice i"       \
    " JOIN tenant t ON t.id = i.tenant JOIN period p ON p.id = i.period"                          \
    " LEFT JOIN (SELECT o.tenant AS tenant, o.period AS period,"                                  \
    " CAST(sum(CASE WHEN x.kind = 'payment' THEN x.amount ELSE 0 END) AS BIGINT) AS charges,"     \
    " CAST(sum(CASE WHEN x.kind = 'payment' THEN 0 ELSE x.amount END) AS BIGINT) AS tax"          \
    " FROM invoice o JOIN transfer x ON x.about = 'invoice:' || o.number"                         \
    " WHERE x.about <> '' AND x.kind IN ('payment', 'payment_tax') AND ($1 = 0 OR o.tenant = $1)" \
    " AND NOT EXISTS (SELECT 1 FROM transfer r WHERE r.about = x.id AND r.about <> ''"            \
    " AND r.kind = 'reverse') GROUP BY o.tenant, o.period) paid"                                  \
    " ON paid.tenant = i.tenant AND paid.period = i.period"                                       \
    " WHERE ($1 = 0 OR i.tenant = $1) AND ($2 = '' OR i.number = $2) ORDER BY i.id"

static int find_rows(struct store *s, int64_t tenant, struct str number, struct query **q, struct error *e) {
    int rc = store_query(s, q, ROWS, e);
    if (rc != 0)
        return rc;
    query_int(*q, 1, tenant);
    query_text(*q, 2, number);
    return 0;
}

static int row_dues(struct query *q, struct dues *out, struct error *e) {
    struct json *document = NULL;
    int rc = json_parse(&document, query_column_text(q, 10), e);
    if (rc == 0)
        dues_of(query_column_text(q, 1), document, query_column_int(q, 11), query_column_int(q, 12), out);
    json_free(document);
    return rc;
}

static int write_row(struct query *q, struct buf *out, struct error *e) {
    static const char *const text[] = {"number", "kind", "tenant", "month", "about", "currency"},
                             *const sum[] = {"net", "tax", "total"};
    struct dues dues;
    int rc = row_dues(q, &dues, e);
    if (rc != 0)
        return rc;
    buf_printf(out, "{\"issued\":%lld", (long long)(query_column_int(q, 6) / 1000000000));
    for (int i = 0; i < 6; i++)
        answer_text(out, text[i], query_column_text(q, i));
    for (int i = 0; i < 3; i++)
        answer_money(out, sum[i], query_column_int(q, 7 + i), AMOUNT_DIGITS);
    dues_write(out, &dues);
    buf_byte(out, '}');
    return 0;
}

static int write_rows(struct store *s, int64_t tenant, struct str number, struct buf *out, struct error *e) {
    struct query *q;
    const char *between = "";
    int rc = find_rows(s, tenant, number, &q, e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        buf_text(out, between);
        between = ",";
        rc = write_row(q, out, e);
    }
    return rc;
}

int invoice_dues(struct store *s, int64_t tenant, struct str number, struct dues *out, struct error *e) {
    struct query *q;
    int rc = find_rows(s, tenant, number, &q, e);
    if (rc != 0 || (rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_NOT_FOUND, "there is no such invoice");
    rc = row_dues(q, out, e);
    return rc != 0 ? rc : query_run(q, e);
}

/* ---- making ---- */

/* What all invoices of one call share. */
struct making {
    struct period period;
    struct json *issuer, *rules;
    int64_t now;
};

static void making_free(struct making *m) {
    json_free(m->issuer);
    json_free(m->rules);
}

static int begin_making(struct cloud *c, struct making *m, struct error *e) {
    m->now = clock_wall_ns() / 1000000000 * 1000000000; /* as it is written in the document */
    int rc = party_read(c->store, PARTY_ISSUER, &m->issuer, e);
    if (rc == 0 && m->issuer == NULL)
        rc = error_set(e, ERR_NOT_FOUND,
                       "nobody sends the invoices yet; unkai invoice issuer --file says who does");
    return rc == 0 ? party_read(c->store, PARTY_RULES, &m->rules, e) : rc;
}

/* A tenant that has told nothing of itself has its name. */
static int read_customer(struct cloud *c, const struct tenant *t, struct json **out, struct error *e) {
    struct buf text = {0};
    int rc = party_read(c->store, t->id, out, e);
    if (rc != 0 || *out != NULL)
        return rc;
    buf_text(&text, "{\"name\":");
    json_write_text(&text, t->name);
    buf_byte(&text, '}');
    rc = json_parse(out, buf_view(&text), e);
    buf_free(&text);
    return rc;
}

static int build(struct cloud *c, const struct making *m, const struct tenant *t, const char *number,
                 struct invoice_document *d, struct error *e) {
    struct json *customer = NULL, *rule = NULL;
    struct buf text = {0};
    char day[CALENDAR_DAY];
    struct draft draft = {.number = str_from(number),
                          .period = m->period,
                          .tenant = t->id,
                          .account = t->account,
                          .issued = m->now,
                          .from = m->issuer};
    memory_copy_text(draft.name, sizeof draft.name, str_from(t->name));
    memory_copy_text(draft.currency, sizeof draft.currency, str_from(t->currency));
    calendar_day(day, m->period.to - 1, m->period.zone);
    int rc = read_customer(c, t, &customer, e);
    if (rc == 0 && (rc = tax_resolve(m->rules, m->issuer, customer, day, &text, e)) == 0 &&
        (rc = json_parse(&rule, buf_view(&text), e)) == 0) {
        draft.to = customer;
        draft.rule = rule;
        rc = document_invoice(c->store, &draft, &d->text, &d->sums, e);
    }
    json_free(customer);
    json_free(rule);
    buf_free(&text);
    return rc == 0 ? json_parse(&d->json, buf_view(&d->text), e) : rc;
}

static int issue(struct cloud *c, const struct making *m, const struct tenant *t, struct buf *out,
                 struct error *e) {
    struct invoice_document d = {
        .tenant = t->id, .period = m->period.id, .kind = "invoice", .issued = m->now};
    int rc = next_number(c->store, series_of(m->issuer, "invoice", STR("INV-")), d.number, e);
    memory_copy_text(d.currency, sizeof d.currency, str_from(t->currency));
    if (rc == 0 && (rc = build(c, m, t, d.number, &d, e)) == 0 &&
        (rc = keep_document(c->store, &d, e)) == 0 &&
        (rc = post_tax(c, d.number, t->name, json_as_str(json_get(json_get(d.json, "rule"), "id")),
                       d.currency, d.sums.tax, m->now, e)) == 0)
        rc = write_rows(c->store, t->id, str_from(d.number), out, e);
    invoice_document_free(&d);
    return rc;
}

/* 1: there is one that was not cancelled. */
static int has_invoice(struct store *s, int64_t tenant, int64_t period, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q,
                         "SELECT id FROM invoice WHERE tenant = $1 AND period = $2 AND kind = 'invoice'", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, tenant);
    query_int(q, 2, period);
    int found = query_step(q, e);
    return found <= 0 || (rc = query_run(q, e)) == 0 ? found : rc;
}

/* 1: there is something to be billed. */
static int has_lines(struct cloud *c, const struct making *m, const struct tenant *t, struct error *e) {
    struct invoice_document d = {0};
    int rc = build(c, m, t, "", &d, e);
    invoice_document_free(&d);
    return rc < 0 ? rc : d.sums.lines > 0 || d.sums.total != 0;
}

/* The month that was asked for, or the newest one that is closed. */
static int closed_period(struct cloud *c, struct str month, struct period *p, struct error *e) {
    struct query *q;
    char newest[CALENDAR_MONTH] = "";
    int rc;
    if (month.n == 0) {
        if ((rc = store_query(c->store, &q,
                              "SELECT month FROM period WHERE closed > 0 ORDER BY id DESC LIMIT 1", e)) !=
                0 ||
            (rc = query_step(q, e)) < 0)
            return rc;
        if (rc == 0)
            return error_param(e, ERR_NOT_FOUND, "month", "no month is closed yet; see unkai close");
        memory_copy_text(newest, sizeof newest, query_column_text(q, 0));
        if ((rc = query_run(q, e)) != 0)
            return rc;
        month = str_from(newest);
    }
    if ((rc = period_find(c->store, month, p, e)) != 0)
        return rc;
    return p->closed != 0 ? 0
                          : error_param(e, ERR_CONFLICT, "month",
                                        "%s is open: unkai close it first, or see a draft of it", p->month);
}

/* 1: it is to be made. asked: by name; then it must not have one yet. */
static int wanted(struct cloud *c, const struct making *m, const struct tenant *t, bool asked,
                  struct error *e) {
    int rc = has_invoice(c->store, t->id, m->period.id, e);
    if (rc > 0 && asked)
        return error_param(e, ERR_CONFLICT, "tenant",
                           "%s has an invoice of %s already; see unkai invoice list", t->name,
                           m->period.month);
    return rc < 0 ? rc : rc > 0 ? 0 : asked ? 1 : has_lines(c, m, t, e);
}

static int compare_tenants(const void *a, const void *b) {
    const struct tenant *x = *(const struct tenant *const *)a, *y = *(const struct tenant *const *)b;
    return (x->id > y->id) - (x->id < y->id);
}

/* That one, or all of them by their ids; freed with free. */
static int list_tenants(struct cloud *c, const struct tenant *only, const struct tenant ***out, size_t *n,
                        struct error *e) {
    *n = only != NULL;
    for (const struct tenant *t = c->tenants; only == NULL && t != NULL; t = t->next)
        ++*n;
    const struct tenant **list = *out = calloc(*n + 1, sizeof *list);
    if (list == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the invoices");
    list[0] = only;
    for (const struct tenant *t = c->tenants; only == NULL && t != NULL; t = t->next)
        *list++ = t;
    qsort(*out, *n, sizeof *list, compare_tenants);
    return 0;
}

/* One tenant's, or everybody's who has none and something to pay. */
static int invoice_create(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = args_text(args, "tenant");
    struct making m = {0};
    const struct tenant **list = NULL;
    struct tenant *only = NULL;
    const char *between = "[";
    size_t n = 0;
    int rc = name.n > 0 ? memory_need_tenant(c, name, "tenant", &only, e) : 0;
    if (rc != 0 || (rc = closed_period(c, args_text(args, "month"), &m.period, e)) != 0)
        return rc;
    if ((rc = begin_making(c, &m, e)) == 0)
        rc = list_tenants(c, only, &list, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        if ((rc = wanted(c, &m, list[i], only != NULL, e)) <= 0)
            continue;
        buf_text(out, between);
        between = ",";
        rc = issue(c, &m, list[i], out, e);
    }
    buf_text(out, between[0] == '[' ? "[]" : "]");
    free(list);
    making_free(&m);
    return rc;
}

/* What the invoice of a month would be now: of the running one, too. */
static int invoice_draft(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct making m = {0};
    struct invoice_document d = {0};
    struct tenant *t;
    char month[CALENDAR_MONTH];
    struct str asked = args_text(args, "month");
    int rc = memory_need_tenant(c, args_text(args, "tenant"), "tenant", &t, e);
    if (rc == 0)
        rc = begin_making(c, &m, e);
    if (rc == 0 && asked.n == 0) { /* the running month */
        struct query *q;
        if ((rc = store_query(c->store, &q, "SELECT month FROM period ORDER BY id DESC LIMIT 1", e)) == 0 &&
            (rc = query_step(q, e)) > 0) {
            memory_copy_text(month, sizeof month, query_column_text(q, 0));
            asked = str_from(month);
            rc = query_run(q, e);
        }
    }
    if (rc == 0 && (rc = period_find(c->store, asked, &m.period, e)) == 0 &&
        (rc = build(c, &m, t, "", &d, e)) == 0) {
        bool html = str_is(args_text(args, "as"), "html");
        if (html) {
            struct buf page = {0};
            document_html(d.json, NULL, &page);
            json_write_str(out, buf_view(&page));
            buf_free(&page);
        } else {
            buf_str(out, buf_view(&d.text));
        }
    }
    invoice_document_free(&d);
    making_free(&m);
    return rc;
}

/* ---- taking back ---- */

static int mark_cancelled(struct store *s, int64_t id, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "UPDATE invoice SET kind = 'cancelled' WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, id);
    return query_run(q, e);
}

/* By a credit note, which takes its tax back too. The charges stand: they are reversed in the ledger where they were wrong. The month can be invoiced again. */
static int invoice_cancel(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str reason = args_text(args, "reason");
    struct invoice_document old, note = {.kind = "credit_note"};
    int64_t now = clock_wall_ns() / 1000000000 * 1000000000;
    if (reason.n == 0 || reason.n > REASON_BYTES)
        return error_param(e, ERR_INVALID, "reason", "say why, in 1 to %d bytes", REASON_BYTES);
    int rc = invoice_read(c->store, args_text(args, "number"), &old, e);
    if (rc != 0)
        return rc;
    if (strcmp(old.kind, "invoice") != 0) {
        rc = error_param(e, ERR_CONFLICT, "number", "%s is %s", old.number,
                         strcmp(old.kind, "cancelled") == 0 ? "cancelled already" : "no invoice");
        goto out;
    }
    note.tenant = old.tenant;
    note.period = old.period;
    note.issued = now;
    note.sums = (struct sums){.net = -old.sums.net, .tax = -old.sums.tax, .total = -old.sums.total};
    memory_copy_text(note.about, sizeof note.about, str_from(old.number));
    memory_copy_text(note.currency, sizeof note.currency, str_from(old.currency));
    if ((rc = next_number(c->store, series_of(json_get(old.json, "from"), "credit_note", STR("CN-")),
                          note.number, e)) == 0 &&
        (rc = document_credit_note(old.json, str_from(note.number), now, reason, &note.text, e)) == 0 &&
        (rc = json_parse(&note.json, buf_view(&note.text), e)) == 0 &&
        (rc = keep_document(c->store, &note, e)) == 0 && (rc = mark_cancelled(c->store, old.id, e)) == 0) {
        char tenant[TENANT_NAME_BYTES];
        memory_copy_text(tenant, sizeof tenant, json_as_str(json_get(old.json, "tenant")));
        rc = post_tax(c, note.number, tenant, json_as_str(json_get(json_get(old.json, "rule"), "id")),
                      note.currency, note.sums.tax, now, e);
    }
    if (rc == 0)
        rc = write_rows(c->store, note.tenant, str_from(note.number), out, e);
out:
    invoice_document_free(&old);
    invoice_document_free(&note);
    return rc;
}

/* ---- reading ---- */

static int invoice_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = args_text(args, "tenant");
    struct tenant *t = NULL;
    int rc = name.n > 0 ? memory_need_tenant(c, name, "tenant", &t, e) : 0;
    if (rc != 0)
        return rc;
    buf_byte(out, '[');
    rc = write_rows(c->store, t != NULL ? t->id : 0, STR(""), out, e);
    buf_byte(out, ']');
    return rc;
}

/* The list's row of one. */
static int invoice_status(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct invoice_document d;
    int rc = invoice_read(c->store, args_text(args, "number"), &d, e);
    if (rc != 0)
        return rc;
    rc = write_rows(c->store, d.tenant, str_from(d.number), out, e);
    invoice_document_free(&d);
    return rc;
}

/* The document as it was issued; as "html": that page, as a JSON string, and what was paid. */
static int invoice_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct invoice_document d;
    struct dues dues;
    struct buf page = {0};
    int rc = invoice_read(c->store, args_text(args, "number"), &d, e);
    if (rc != 0)
        return rc;
    if (!str_is(args_text(args, "as"), "html")) {
        buf_str(out, buf_view(&d.text));
    } else if ((rc = invoice_dues(c->store, d.tenant, str_from(d.number), &dues, e)) == 0) {
        document_html(d.json, &dues, &page);
        json_write_str(out, buf_view(&page));
    }
    buf_free(&page);
    invoice_document_free(&d);
    return rc;
}

/* The document again, of what it says of its parties and their rule, and of the journal. */
static int rebuild(struct cloud *c, const struct invoice_document *d, struct buf *out, struct error *e) {
    struct str about = json_as_str(json_get(d->json, "about"));
    struct draft draft = {.number = json_as_str(json_get(d->json, "number")),
                          .tenant = d->tenant,
                          .issued = time_read(json_as_str(json_get(d->json, "issued"))),
                          .from = json_get(d->json, "from"),
                          .to = json_get(d->json, "to"),
                          .rule = json_get(d->json, "rule")};
    struct invoice_document invoice;
    struct sums sums;
    const struct tenant *t = c->tenants;
    int rc;
    if (strcmp(d->kind, "credit_note") == 0) {
        if ((rc = invoice_read(c->store, about, &invoice, e)) != 0)
            return rc;
        rc = document_credit_note(invoice.json, draft.number, draft.issued,
                                  json_as_str(json_get(d->json, "reason")), out, e);
        invoice_document_free(&invoice);
        return rc;
    }
    while (t != NULL && t->id != d->tenant)
        t = t->next;
    if (t == NULL)
        return error_set(e, ERR_CONFLICT, "the invoice's tenant is not there");
    draft.account = t->account;
    memory_copy_text(draft.name, sizeof draft.name, str_from(t->name));
    memory_copy_text(draft.currency, sizeof draft.currency, str_from(t->currency));
    rc = period_find(c->store, json_as_str(json_get(json_get(d->json, "period"), "month")), &draft.period, e);
    return rc == 0 ? document_invoice(c->store, &draft, out, &sums, e) : rc;
}

static void add_wrong(struct buf *wrong, const char *what) {
    if (wrong->n > 0)
        buf_byte(wrong, ',');
    json_write_text(wrong, what);
}

static int invoice_verify(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct invoice_document d;
    struct buf again = {0}, wrong = {0};
    int rc = invoice_read(c->store, args_text(args, "number"), &d, e);
    if (rc != 0)
        return rc;
    struct hash hash = hash_sha256(buf_view(&d.text));
    if (!hash_equal(&hash, &d.hash))
        add_wrong(&wrong, "the document was changed: its hash is another");
    if ((rc = rebuild(c, &d, &again, e)) == 0) {
        if (!str_equal(buf_view(&again), buf_view(&d.text)))
            add_wrong(&wrong, "the journal makes another document");
        if (document_amount(d.json, "net") != d.sums.net || document_amount(d.json, "tax") != d.sums.tax ||
            document_amount(d.json, "total") != d.sums.total)
            add_wrong(&wrong, "the list says other sums than the document");
        buf_text(out, "{\"number\":");
        json_write_text(out, d.number);
        buf_printf(out, ",\"ok\":%s,\"hash\":\"", wrong.n ? "false" : "true");
        bill_hex(out, (struct str){(const char *)hash.byte, sizeof hash.byte});
        buf_text(out, "\",\"wrong\":[");
        buf_str(out, buf_view(&wrong));
        buf_text(out, "]}");
    }
    buf_free(&again);
    buf_free(&wrong);
    invoice_document_free(&d);
    return rc;
}

const struct operation_row invoice_operations[] = {
    {"invoice.create", invoice_create},
    {"invoice.draft", invoice_draft, OPERATION_READS},
    {"invoice.cancel", invoice_cancel},
    {"invoice.list", invoice_list, OPERATION_READS},
    {"invoice.status", invoice_status, OPERATION_READS},
    {"invoice.show", invoice_show, OPERATION_READS},
    {"invoice.verify", invoice_verify, OPERATION_READS},
    {NULL},
};
