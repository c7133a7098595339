/* Prices from what tokens cost here, and beside what others ask for theirs. */
#ifndef OWNER_PRICE_H
#define OWNER_PRICE_H

#include "cloud/inner.h"

/* Operations of the table in owner.c: what they take and give is in docs/owner.md. */
int price_suggest(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int price_compare(struct cloud *c, const struct json *args, struct buf *out, struct error *e);

#endif
