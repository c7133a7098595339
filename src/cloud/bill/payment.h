/* What was paid of an invoice, and what is left. A payment is one transfer or two about the invoice: into the tenant's account for the charges that it owes, and into its
 * receivable for the tax. */
#ifndef CLOUD_BILL_PAYMENT_H
#define CLOUD_BILL_PAYMENT_H

#include "cloud/bill/bill.h"

struct dues {
    amount due, paid, left;    /* left is never below 0: what was paid beyond stays the tenant's */
    amount charges_left;       /* the part of `left` that goes into the tenant's account; the rest is tax */
    const char *status;        /* "open", "part_paid", "paid", "cancelled"; "" of a credit note */
    char due_on[CALENDAR_DAY]; /* "": the profiles have no terms */
};
/* kind: of the invoice's row. charges, tax: what was paid of each for the tenant's month. */
void dues_of(struct str kind, const struct json *document, amount charges, amount tax, struct dues *out);

/* ,"status":…,"due":…,"paid":…,"left":…,"due_on":… */
void dues_write(struct buf *out, const struct dues *d);

#endif
