/* The documents: an invoice and a credit note as canonical JSON, which is stored, hashed, shown, and made again from the journal. */
#ifndef CLOUD_BILL_DOCUMENT_H
#define CLOUD_BILL_DOCUMENT_H

#include "cloud/bill/bill.h"

/* All that an invoice is made of beside the books. The JSON values stay the caller's. */
struct draft {
    struct str number; /* "": a draft */
    struct period period;
    int64_t tenant, account, issued; /* issued: in whole seconds */
    char name[TENANT_NAME_BYTES], currency[4];
    const struct json *from, *to, *rule; /* profiles; rule: tax_resolve's */
};
struct sums {
    amount net, tax, total;
    size_t lines; /* of the month, without what is carried */
};
int document_invoice(struct store *s, const struct draft *d, struct buf *out, struct sums *sums,
                     struct error *e);

/* The credit note that takes an invoice back: every amount with the other sign. */
int document_credit_note(const struct json *invoice, struct str number, int64_t issued, struct str reason,
                         struct buf *out, struct error *e);

/* An amount of a document, as document_invoice wrote it; 0 when it is none. */
amount document_amount(const struct json *object, const char *member);

struct dues;
/* A whole page of HTML, to be read or printed on A4, in the language of the party that gets it. dues: what was paid of it, or NULL. */
void document_html(const struct json *document, const struct dues *dues, struct buf *out);

#endif
