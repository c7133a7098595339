/* Invoices and credit notes as they are kept: rows with their documents. */
#ifndef CLOUD_BILL_INVOICE_H
#define CLOUD_BILL_INVOICE_H

#include "cloud/bill/document.h"
#include "cloud/bill/payment.h"

enum { INVOICE_NUMBER_BYTES = 64 };

struct invoice_document {
    int64_t id, tenant, period;
    char number[INVOICE_NUMBER_BYTES], kind[16]; /* "invoice", "cancelled", "credit_note" */
    char about[INVOICE_NUMBER_BYTES], currency[4];
    struct hash hash;
    struct sums sums;
    int64_t issued;
    struct buf text;
    struct json *json; /* of the text */
};
/* ERR_NOT_FOUND; freed with invoice_document_free when it returns 0. */
int invoice_read(struct store *s, struct str number, struct invoice_document *d, struct error *e);
void invoice_document_free(struct invoice_document *d);

/* What is left of that tenant's invoice. */
int invoice_dues(struct store *s, int64_t tenant, struct str number, struct dues *out, struct error *e);

#endif
