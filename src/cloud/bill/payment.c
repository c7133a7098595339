/* Payments of invoices; see payment.h. On the yen's journey: where a bill becomes money. */
#include "cloud/bill/payment.h"
#include "cloud/bill/document.h"
#include "cloud/bill/invoice.h"
#include "cloud/operation.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

enum { ABOUT_BYTES = INVOICE_NUMBER_BYTES + 16, ID_BYTES = TRANSFER_ID_BYTES };

/* ---- what is left ---- */

void dues_of(struct str kind, const struct json *document, amount charges, amount tax, struct dues *out) {
    bool invoice = str_is(kind, "invoice");
    amount due = document_amount(document, "due"), paid = charges + tax,
           owed = due - document_amount(document, "tax") - charges;
    *out = (struct dues){.status = str_is(kind, "cancelled") ? "cancelled" : ""};
    memory_copy_text(out->due_on, sizeof out->due_on, json_as_str(json_get(document, "due_on")));
    if (!invoice)
        return;
    out->due = due;
    out->paid = paid;
    out->left = due > paid ? due - paid : 0;
    out->charges_left = owed < 0 ? 0 : owed < out->left ? owed : out->left;
    out->status = out->left == 0 ? "paid" : paid > 0 ? "part_paid" : "open";
}

void dues_write(struct buf *out, const struct dues *d) {
    answer_text(out, "status", str_from(d->status));
    answer_money(out, "due", d->due, AMOUNT_DIGITS);
    answer_money(out, "paid", d->paid, AMOUNT_DIGITS);
    answer_money(out, "left", d->left, AMOUNT_DIGITS);
    answer_text(out, "due_on", str_from(d->due_on));
}

/* ---- a payment ---- */

struct payment {
    struct str number;         /* of the invoice */
    char charges_id[ID_BYTES]; /* of its two transfers */
    char tax_id[ID_BYTES], about[ABOUT_BYTES];
    struct tenant *tenant;
    char receivable[TENANT_NAME_BYTES + 16];
    struct dues dues;
    amount value;           /* 0: all that is left */
    int64_t at;             /* when it was paid */
    char day[CALENDAR_DAY]; /* the same */
    bool dated;             /* by the caller */
};

static int read_day(struct cloud *c, const struct json *args, struct payment *p, struct error *e) {
    struct str date = args_text(args, "date");
    char today[CALENDAR_DAY];
    p->at = clock_wall_ns();
    calendar_day(today, p->at, c->zone);
    memcpy(p->day, today, sizeof today);
    p->dated = date.n > 0;
    if (date.n == 0 || str_is(date, today))
        return 0;
    int rc = calendar_parse(&p->at, date, c->zone, e);
    if (rc != 0 || date.n != CALENDAR_DAY - 1)
        return error_param(e, ERR_INVALID, "date", "a day is written like 2026-11-25");
    memory_copy_text(p->day, sizeof p->day, date);
    return strcmp(p->day, today) < 0
               ? 0
               : error_param(e, ERR_INVALID, "date", "%s is not over: say when it was paid", p->day);
}

/* What the arguments say, and whose invoice it is. */
static int read_payment(struct cloud *c, const struct json *args, struct payment *p, struct error *e) {
    const struct json *id = json_get(args, "payment");
    struct invoice_document d;
    struct str amount_text = args_text(args, "amount");
    *p = (struct payment){.number = args_text(args, "number")};
    int rc = amount_text.n > 0 ? money_parse(&p->value, amount_text, AMOUNT_DIGITS, e) : 0;
    if (rc == 0 && amount_text.n > 0 && p->value == 0)
        rc = error_param(e, ERR_INVALID, "amount", "a payment is above zero");
    if (rc != 0 || (rc = read_day(c, args, p, e)) != 0 ||
        (rc = invoice_read(c->store, p->number, &d, e)) != 0)
        return rc;
    snprintf(p->about, sizeof p->about, "invoice:%s", d.number);
    snprintf(p->receivable, sizeof p->receivable, "receivable:%.*s",
             (int)json_as_str(json_get(d.json, "tenant")).n, json_as_str(json_get(d.json, "tenant")).p);
    p->tenant = memory_tenant_of(c, d.tenant);
    if (strcmp(d.kind, "credit_note") == 0)
        rc = error_param(e, ERR_CONFLICT, "number", "%s is no invoice", d.number);
    else if (p->tenant == NULL)
        rc = error_set(e, ERR_CONFLICT, "the invoice's tenant is not there");
    else if ((rc = args_payment(p->charges_id, ID_BYTES, "payment", d.tenant, id, e)) == 0)
        snprintf(p->tax_id, ID_BYTES, "payment_tax%s", p->charges_id + strlen("payment"));
    invoice_document_free(&d);
    return rc;
}

/* 1: a payment of that id is there, and is this one. */
static int find_same(struct cloud *c, struct payment *p, struct error *e) {
    struct query *q;
    amount sum = 0;
    bool same = true;
    int found = 0,
        rc = store_query(c->store, &q, "SELECT amount, at, about FROM transfer WHERE id IN ($1, $2)", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(p->charges_id));
    query_text(q, 2, str_from(p->tax_id));
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        char day[CALENDAR_DAY];
        calendar_day(day, query_column_int(q, 1), c->zone);
        found = 1;
        same = same && str_is(query_column_text(q, 2), p->about) && (!p->dated || strcmp(day, p->day) == 0);
        memcpy(p->day, day, sizeof day);
        rc = bill_add(&sum, query_column_int(q, 0), e);
    }
    if (rc != 0 || !found)
        return rc;
    if (!same || (p->value != 0 && p->value != sum))
        return error_param(e, ERR_CONFLICT, "payment", "there is a payment of that id with other content");
    p->value = sum;
    return found;
}

static int check_amount(struct payment *p, const char *currency, struct error *e) {
    struct buf left = {0};
    int rc = 0;
    if (strcmp(p->dues.status, "cancelled") == 0)
        return error_param(e, ERR_CONFLICT, "number", "the invoice is cancelled");
    p->value = p->value == 0 ? p->dues.left : p->value;
    money_write(&left, p->dues.left, AMOUNT_DIGITS);
    if (p->dues.left == 0)
        rc = error_param(e, ERR_CONFLICT, "number", "nothing is left to be paid of the invoice");
    else if (p->value > p->dues.left)
        rc = error_param(e, ERR_CONFLICT, "amount", "only %.*s %s is left to be paid", (int)left.n, left.p,
                         currency);
    buf_free(&left);
    return rc;
}

/* Tax last in what is paid, first in what is posted: the tenant's account is also in memory, so nothing may fail behind it. */
static int post(struct cloud *c, const struct payment *p, struct error *e) {
    amount charges = p->value < p->dues.charges_left ? p->value : p->dues.charges_left;
    struct transfer t = {.kind = STR("payment_tax"),
                         .id = str_from(p->tax_id),
                         .value = p->value - charges,
                         .about = str_from(p->about),
                         .at = p->at};
    char funding[32];
    bool again;
    int rc;
    if (t.value > 0) {
        snprintf(funding, sizeof funding, "funding:%s", p->tenant->currency);
        if ((rc = ledger_account(&c->ledger, funding, p->tenant->currency, &t.debit, e)) != 0 ||
            (rc = ledger_account(&c->ledger, p->receivable, p->tenant->currency, &t.credit, e)) != 0 ||
            (rc = ledger_transfer(&c->ledger, &t, &again, e)) != 0)
            return rc;
    }
    if (charges == 0)
        return 0;
    t.kind = STR("payment");
    t.id = str_from(p->charges_id);
    t.value = charges;
    return tenant_fund(c, p->tenant, &t, e);
}

static int invoice_pay(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct payment p;
    int rc = read_payment(c, args, &p, e);
    if (rc != 0 || (rc = find_same(c, &p, e)) < 0)
        return rc;
    if (rc == 0 && ((rc = invoice_dues(c->store, p.tenant->id, p.number, &p.dues, e)) != 0 ||
                    (rc = check_amount(&p, p.tenant->currency, e)) != 0 || (rc = post(c, &p, e)) != 0))
        return rc;
    if ((rc = invoice_dues(c->store, p.tenant->id, p.number, &p.dues, e)) != 0)
        return rc;
    struct str id = str_from(p.charges_id);
    for (int colons = 0; colons < 2; id.p++, id.n--)
        colons += *id.p == ':';
    buf_text(out, "{\"payment\":");
    json_write_str(out, id);
    answer_text(out, "number", p.number);
    answer_text(out, "tenant", str_from(p.tenant->name));
    answer_text(out, "currency", str_from(p.tenant->currency));
    answer_money(out, "amount", p.value, AMOUNT_DIGITS);
    answer_text(out, "date", str_from(p.day));
    dues_write(out, &p.dues);
    buf_byte(out, '}');
    return 0;
}

const struct operation_row payment_operations[] = {{"invoice.pay", invoice_pay}, {NULL}};
