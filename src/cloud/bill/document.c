/* The documents; see document.h. An amount is exact, in 10^-9; what is asked for is in whole coins: the invoices up to a month ask, without tax, for all charges up to its end,
 * rounded down, and what is left below a coin is carried to the next. So the invoices together are the ledger's charges, whichever are made, and in whatever order. */
#include "cloud/bill/document.h"

#include "cloud/bill/usage.h"

#include <stdlib.h>
#include <string.h>

struct building {
    struct store *store;
    const struct draft *draft;
    struct buf *out;
    struct tax_line *line;
    size_t lines, room;
    amount carried_in, carried_out;
};

static void write_amount(struct buf *out, const char *name, amount value) {
    buf_printf(out, "\"%s\":\"", name);
    money_write(out, value, AMOUNT_DIGITS);
    buf_byte(out, '"');
}

static void write_text(struct buf *out, const char *name, struct str value) {
    buf_printf(out, "\"%s\":", name);
    json_write_str(out, value);
}

/* ---- lines ---- */

/* Begins a line: what is taxed, and the members that every one has. */
static int begin_line(struct building *b, const char *kind, struct str rate, amount value, struct error *e) {
    if (b->lines == b->room) {
        size_t room = b->room == 0 ? 16 : b->room * 2;
        void *more = realloc(b->line, room * sizeof *b->line);
        if (more == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory for an invoice");
        b->line = more;
        b->room = room;
    }
    buf_printf(b->out, "%s{\"kind\":\"%s\",", b->lines == 0 ? "" : ",", kind);
    b->line[b->lines++] = (struct tax_line){rate, value};
    write_amount(b->out, "amount", value);
    buf_byte(b->out, ',');
    write_text(b->out, "rate", rate);
    return 0;
}

/* As the issuer's profile says for the model, where the rule has such a rate. */
static struct str rate_of(const struct building *b, const char *model) {
    struct str own = json_as_str(json_get(json_get(b->draft->from, "rates"), model));
    const struct json *rates = json_get(b->draft->rule, "rates");
    for (size_t i = 0; i < json_count(rates); i++)
        if (str_equal(json_as_str(json_get(json_at(rates, i), "id")), own))
            return own;
    return STR("standard");
}

static int usage_line(struct building *b, const struct usage *u, struct error *e) {
    int rc = begin_line(b, "usage", rate_of(b, u->model), u->charge, e);
    if (rc != 0)
        return rc;
    buf_byte(b->out, ',');
    write_text(b->out, "model", str_from(u->model));
    buf_printf(b->out, ",\"requests\":%lld,\"price\":%lld,\"priced_in\":\"%s\"", (long long)u->requests,
               (long long)u->price, u->currency);
    if (u->rate != 1000000000) {
        buf_text(b->out, ",\"exchange_rate\":\"");
        money_write(b->out, u->rate, 9);
        buf_byte(b->out, '"');
    }
    buf_text(b->out, ",\"parts\":[");
    for (int i = 0; i < TOKEN_KINDS; i++) {
        buf_printf(b->out, "%s{\"kind\":\"%s\",\"tokens\":%lld,\"unit_price\":\"", i == 0 ? "" : ",",
                   token_kind_name[i], (long long)u->tokens[i]);
        money_write_wide(b->out, usage_unit_price(u, (enum token_kind)i), 15);
        buf_text(b->out, "\",");
        write_amount(b->out, "amount", u->part[i]);
        buf_byte(b->out, '}');
    }
    buf_text(b->out, "]}");
    return 0;
}

static int usage_lines(struct building *b, struct error *e) {
    struct usage *list;
    size_t n;
    int rc = usage_read(b->store, b->draft->tenant, b->draft->period.id, &list, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        if (list[i].charge != 0 || list[i].requests != 0)
            rc = usage_line(b, &list[i], e);
    free(list);
    return rc;
}

/* What was charged or given back by hand, and reversals: every transfer between the tenant and revenue that is no settlement. */
static int other_lines(struct building *b, struct error *e) {
    const struct draft *d = b->draft;
    struct query *q;
    int rc = store_query(b->store, &q,
                         "SELECT x.seq, x.id, x.about, x.note, x.at,"
                         " CASE WHEN x.debit = $1 THEN x.amount ELSE -x.amount END FROM transfer x"
                         " JOIN account o ON o.id = CASE WHEN x.debit = $1 THEN x.credit ELSE x.debit END"
                         " WHERE x.kind <> 'settle' AND x.phase IN (0, 2) AND (x.debit = $1 OR x.credit = $1)"
                         " AND x.seq BETWEEN $2 AND $3 AND substr(o.name, 1, 8) = 'revenue:' ORDER BY x.seq",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, d->account);
    query_int(q, 2, d->period.first_seq);
    query_int(q, 3, d->period.last_seq);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        amount value = query_column_int(q, 5);
        const char *kind = value > 0 ? "charge" : query_column_text(q, 2).n > 0 ? "reversal" : "credit";
        if ((rc = begin_line(b, kind, STR("standard"), value, e)) != 0)
            return rc;
        buf_printf(b->out, ",\"seq\":%lld,\"at\":\"", (long long)query_column_int(q, 0));
        time_write(b->out, query_column_int(q, 4));
        buf_text(b->out, "\",");
        write_text(b->out, "id", query_column_text(q, 1));
        buf_byte(b->out, ',');
        write_text(b->out, "about", query_column_text(q, 2));
        buf_byte(b->out, ',');
        write_text(b->out, "note", query_column_text(q, 3));
        buf_byte(b->out, '}');
    }
    return rc;
}

static int carried_line(struct building *b, const char *kind, amount value, struct error *e) {
    int rc = value == 0 ? 0 : begin_line(b, kind, STR("standard"), value, e);
    if (rc == 0 && value != 0)
        buf_byte(b->out, '}');
    return rc;
}

/* ---- sums ---- */

static int tax_rows(struct building *b, int decimals, struct sums *sums, struct error *e) {
    struct tax_row row[TAX_RATES];
    size_t rows;
    int rc = tax_apply(b->draft->rule, b->line, b->lines, decimals, row, &rows, e);
    if (rc != 0)
        return rc;
    buf_text(b->out, "],\"taxes\":[");
    for (size_t i = 0; rc == 0 && i < rows; i++) {
        buf_printf(b->out, "%s{", i == 0 ? "" : ",");
        write_text(b->out, "rate", row[i].rate);
        buf_byte(b->out, ',');
        write_text(b->out, "percent", row[i].percent);
        buf_byte(b->out, ',');
        write_amount(b->out, "base", row[i].base);
        buf_byte(b->out, ',');
        write_amount(b->out, "tax", row[i].tax);
        buf_byte(b->out, '}');
        rc = bill_add(&sums->tax, row[i].tax, e);
    }
    buf_byte(b->out, ']');
    return rc;
}

/* Balances, and what is still due: what credit covered is paid; where the account is below zero, as far as it is, the month's charges are owed; tax always is. */
static int account_sums(struct building *b, const struct movements *m, int decimals, const struct sums *sums,
                        struct error *e) {
    amount closing = m->opening, due = 0;
    int rc = bill_add(&closing, m->paid, e);
    if (rc != 0 || (rc = bill_add(&closing, -m->charged, e)) != 0)
        return rc;
    if (closing < 0 && sums->net > 0) {
        due = money_round(-closing, decimals, DIRECTION_DOWN);
        due = due < sums->net ? due : sums->net;
    }
    buf_text(b->out, ",\"account\":{");
    write_amount(b->out, "opening", m->opening);
    buf_byte(b->out, ',');
    write_amount(b->out, "paid_in", m->paid);
    buf_byte(b->out, ',');
    write_amount(b->out, "charged", m->charged);
    buf_byte(b->out, ',');
    write_amount(b->out, "closing", closing);
    buf_text(b->out, "},");
    if (sums->net < 0)
        due = sums->net;
    write_amount(b->out, "covered", sums->net - due);
    if ((rc = bill_add(&due, sums->tax, e)) != 0)
        return rc;
    buf_byte(b->out, ',');
    write_amount(b->out, "due", due);
    return 0;
}

static void write_head(struct building *b) {
    const struct draft *d = b->draft;
    const struct json *terms = json_get(d->to, "terms_days");
    char day[CALENDAR_DAY];
    terms = terms != NULL ? terms : json_get(d->from, "terms_days");
    buf_text(b->out, "{\"format\":\"unkai-invoice-1\",\"kind\":\"invoice\",");
    write_text(b->out, "number", d->number);
    buf_text(b->out, ",\"issued\":\"");
    time_write(b->out, d->issued);
    calendar_day(day, d->issued, d->period.zone);
    buf_printf(b->out, "\",\"issued_on\":\"%s\"", day);
    if (terms != NULL) {
        calendar_day(day, d->issued + json_as_int(terms) * 86400 * INT64_C(1000000000), d->period.zone);
        buf_printf(b->out, ",\"due_on\":\"%s\"", day);
    }
    buf_printf(b->out, ",\"currency\":\"%s\",\"tenant\":", d->currency);
    json_write_text(b->out, d->name);
    buf_text(b->out, ",\"from\":");
    json_write(b->out, d->from);
    buf_text(b->out, ",\"to\":");
    json_write(b->out, d->to);
    buf_text(b->out, ",\"rule\":");
    json_write(b->out, d->rule);
}

static int write_period(struct building *b, struct error *e) {
    const struct period *p = &b->draft->period;
    char first[CALENDAR_DAY], last[CALENDAR_DAY];
    struct query *q;
    calendar_day(first, p->from, p->zone);
    calendar_day(last, p->to - 1, p->zone);
    buf_printf(b->out,
               ",\"period\":{\"month\":\"%s\",\"first_day\":\"%s\",\"last_day\":\"%s\",\"zone\":%lld,"
               "\"first_seq\":%lld,\"last_seq\":%lld,\"root\":\"",
               p->month, first, last, (long long)p->zone, (long long)p->first_seq, (long long)p->last_seq);
    int rc = store_query(b->store, &q, "SELECT root FROM period WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, p->id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    if (rc > 0)
        bill_hex(b->out, query_column_text(q, 0));
    buf_text(b->out, "\"}");
    return query_run(q, e);
}

static int write_lines(struct building *b, const struct movements *m, int decimals, struct sums *sums,
                       struct error *e) {
    amount until = m->before;
    int rc = bill_add(&until, m->charged, e);
    if (rc != 0)
        return rc;
    b->carried_in = m->before - money_round(m->before, decimals, DIRECTION_DOWN);
    b->carried_out = until - money_round(until, decimals, DIRECTION_DOWN);
    sums->net = m->charged + b->carried_in - b->carried_out;
    buf_text(b->out, ",\"lines\":[");
    if ((rc = usage_lines(b, e)) != 0 || (rc = other_lines(b, e)) != 0)
        return rc;
    sums->lines = b->lines;
    if ((rc = carried_line(b, "carried_in", b->carried_in, e)) != 0)
        return rc;
    return carried_line(b, "carried_out", -b->carried_out, e);
}

int document_invoice(struct store *s, const struct draft *d, struct buf *out, struct sums *sums,
                     struct error *e) {
    struct buf text = {0};
    struct building b = {.store = s, .draft = d, .out = &text};
    struct movements m;
    int decimals = currency_decimals(d->currency);
    *sums = (struct sums){0};
    int rc = usage_movements(s, d->tenant, d->account, &d->period, &m, e);
    if (rc != 0)
        return rc;
    write_head(&b);
    if ((rc = write_period(&b, e)) != 0 || (rc = write_lines(&b, &m, decimals, sums, e)) != 0 ||
        (rc = tax_rows(&b, decimals, sums, e)) != 0)
        goto out;
    sums->total = sums->net;
    if ((rc = bill_add(&sums->total, sums->tax, e)) != 0)
        goto out;
    buf_byte(&text, ',');
    write_amount(&text, "net", sums->net);
    buf_byte(&text, ',');
    write_amount(&text, "tax", sums->tax);
    buf_byte(&text, ',');
    write_amount(&text, "total", sums->total);
    rc = account_sums(&b, &m, decimals, sums, e);
    buf_byte(&text, '}');
    if (rc == 0)
        rc = text.failed ? error_set(e, ERR_NO_MEMORY, "no memory for an invoice")
                         : canonical(out, buf_view(&text), e);
out:
    free(b.line);
    buf_free(&text);
    return rc;
}

/* ---- the credit note ---- */

static void negated(struct buf *out, const struct json *v);

static void negated_text(struct buf *out, struct str value) {
    buf_byte(out, '"');
    if (value.n > 0 && value.p[0] == '-')
        buf_append(out, value.p + 1, value.n - 1);
    else {
        if (!str_is(value, "0"))
            buf_byte(out, '-');
        buf_str(out, value);
    }
    buf_byte(out, '"');
}

static void negated_member(struct buf *out, void *it) {
    static const char *const amounts[] = {"amount", "base", "tax", "net", "total"};
    struct str name = json_key(it);
    const struct json *v = json_value(it);
    json_write_str(out, name);
    buf_byte(out, ':');
    for (size_t i = 0; i < sizeof amounts / sizeof *amounts; i++)
        if (str_is(name, amounts[i]) && json_kind(v) == JSON_KIND_STRING) {
            negated_text(out, json_as_str(v));
            return;
        }
    negated(out, v);
}

static void negated(struct buf *out, const struct json *v) {
    const char *between = "";
    if (json_kind(v) == JSON_KIND_OBJECT) {
        buf_byte(out, '{');
        for (void *it = json_first(v); it != NULL; it = json_next(v, it), between = ",") {
            buf_text(out, between);
            negated_member(out, it);
        }
        buf_byte(out, '}');
    } else if (json_kind(v) == JSON_KIND_ARRAY) {
        buf_byte(out, '[');
        for (size_t i = 0; i < json_count(v); i++, between = ",") {
            buf_text(out, between);
            negated(out, json_at(v, i));
        }
        buf_byte(out, ']');
    } else {
        json_write(out, v);
    }
}

int document_credit_note(const struct json *invoice, struct str number, int64_t issued, struct str reason,
                         struct buf *out, struct error *e) {
    static const char *const copied[] = {"format", "currency", "tenant", "from", "to", "rule", "period"},
                             *const turned[] = {"lines", "taxes"}, *const sums[] = {"net", "tax", "total"};
    struct buf text = {0};
    char day[CALENDAR_DAY];
    calendar_day(day, issued, json_as_int(json_get(json_get(invoice, "period"), "zone")));
    buf_text(&text, "{\"kind\":\"credit_note\",");
    write_text(&text, "number", number);
    buf_byte(&text, ',');
    write_text(&text, "about", json_as_str(json_get(invoice, "number")));
    buf_byte(&text, ',');
    write_text(&text, "reason", reason);
    buf_text(&text, ",\"issued\":\"");
    time_write(&text, issued);
    buf_printf(&text, "\",\"issued_on\":\"%s\"", day);
    for (size_t i = 0; i < sizeof copied / sizeof *copied; i++) {
        buf_printf(&text, ",\"%s\":", copied[i]);
        json_write(&text, json_get(invoice, copied[i]));
    }
    for (size_t i = 0; i < 2; i++) {
        buf_printf(&text, ",\"%s\":", turned[i]);
        negated(&text, json_get(invoice, turned[i]));
    }
    for (size_t i = 0; i < 3; i++) {
        buf_printf(&text, ",\"%s\":", sums[i]);
        negated_text(&text, json_as_str(json_get(invoice, sums[i])));
    }
    buf_byte(&text, '}');
    int rc = canonical(out, buf_view(&text), e);
    buf_free(&text);
    return rc;
}

amount document_amount(const struct json *object, const char *member) {
    struct str text = json_as_str(json_get(object, member));
    bool negative = text.n > 0 && text.p[0] == '-';
    amount value;
    if (negative)
        text = (struct str){text.p + 1, text.n - 1};
    if (money_parse(&value, text, AMOUNT_DIGITS, NULL) != 0)
        return 0;
    return negative ? -value : value;
}
