/* The two parties of an invoice: profiles that the operator keeps as JSON, of each tenant and of who sends the invoices; and the operator's own tax rules. */
#ifndef CLOUD_BILL_PARTY_H
#define CLOUD_BILL_PARTY_H

#include "cloud/bill/bill.h"

enum { PARTY_ISSUER = 0, PARTY_RULES = -1 }; /* beside the tenants' numbers */

/* *out is NULL where nothing is kept; freed with json_free. */
int party_read(struct store *s, int64_t party, struct json **out, struct error *e);

extern const struct operation_row party_operations[];

#endif
