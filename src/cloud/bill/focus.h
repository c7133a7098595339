/* Usage and cost in the columns of the FinOps Open Cost and Usage Specification (focus.finops.org). A version of it is a table of columns. */
#ifndef CLOUD_BILL_FOCUS_H
#define CLOUD_BILL_FOCUS_H

#include "cloud/bill/bill.h"

/* What a row can say. */
enum focus_field {
    FOCUS_BILLED_COST,
    FOCUS_LIST_COST,
    FOCUS_LIST_UNIT_PRICE,
    FOCUS_ACCOUNT,
    FOCUS_ACCOUNT_NAME,
    FOCUS_ACCOUNT_TYPE,
    FOCUS_CURRENCY,
    FOCUS_MONTH_START,
    FOCUS_MONTH_END,
    FOCUS_CATEGORY,
    FOCUS_CLASS,
    FOCUS_DESCRIPTION,
    FOCUS_FREQUENCY,
    FOCUS_START,
    FOCUS_END,
    FOCUS_TOKENS,
    FOCUS_TOKENS_UNIT,
    FOCUS_INVOICE,
    FOCUS_ISSUER,
    FOCUS_PRICING,
    FOCUS_PRICE_CURRENCY,
    FOCUS_PRICE_UNIT_PRICE,
    FOCUS_PRICE_COST,
    FOCUS_QUANTITY,
    FOCUS_QUANTITY_UNIT,
    FOCUS_MODEL,
    FOCUS_MODEL_TYPE,
    FOCUS_SERVICE_CATEGORY,
    FOCUS_SERVICE,
    FOCUS_SERVICE_SUBCATEGORY,
    FOCUS_SKU,
    FOCUS_SKU_METER,
    FOCUS_SKU_PRICE,
    FOCUS_SKU_DETAILS,
    FOCUS_KEY,
    FOCUS_KEY_NAME,
    FOCUS_KEY_TYPE,
    FOCUS_TOKEN_KIND,
    FOCUS_EXCHANGE_RATE,
    FOCUS_TRANSFER,
    FOCUS_NOTHING, /* null in every row */
    FOCUS_FIELDS
};

struct focus_column {
    const char *name;
    enum focus_field field;
};
struct focus_version {
    const char *name; /* "1.2" */
    const struct focus_column *columns;
    size_t n;
};
/* NULL: there is no such version; "" is the newest. */
const struct focus_version *focus_version(struct str name);

/* One row being made: a field is empty (null) unless it was set. */
struct focus_row {
    struct buf value[FOCUS_FIELDS];
};
void focus_clear(struct focus_row *r);
void focus_free(struct focus_row *r);
void focus_text(struct focus_row *r, enum focus_field field, struct str value);
void focus_header(const struct focus_version *v, struct buf *out);
void focus_write(const struct focus_version *v, const struct focus_row *r,
                 struct buf *out); /* as CSV (RFC 4180) */

#endif
