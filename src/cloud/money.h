/* Exact money: decimal text to scaled integers and back. Never floating point. */
#ifndef CLOUD_MONEY_H
#define CLOUD_MONEY_H

#include "cloud/cloud.h"

enum { AMOUNT_DIGITS = 9, PRICE_DIGITS = 12 };
enum { RATE_DIGITS = 9, RATE_ONE = 1000000000 }; /* a currency in itself */

/* "12.5" with `digits` decimals to 12.5 * 10^digits. ERR_INVALID when it is no plain non-negative decimal number, has more decimals than fit, or is too large. */
int money_parse(int64_t *out, struct str text, int digits, struct error *e);
/* The same from a number as JSON writes them, "1.5e-07" as well. For lists that went through doubles: what is a number of so many digits but for a double's rounding,
 * like 2.9999999999999997e-07, is that number. */
int money_parse_number(int64_t *out, struct str text, int digits, struct error *e);
/* The shortest decimal text: "999.9", "-0.25", "7". */
void money_write(struct buf *out, int64_t value, int digits);
__extension__ typedef __int128 money_wide; /* where prices meet rates */
void money_write_wide(struct buf *out, money_wide value, int digits);
/* Three capital letters. */
bool money_currency(struct str text);

/* What a token costs: prices, and how much of the tenant's currency (10^-9) one of the price's is. */
struct tariff {
    price input, cached, output;
    int64_t rate;
};
/* What a request costs, in 10^-21. Counts up to INT32_MAX; false when it does not fit into 2^126. */
bool tariff_cost(const struct tariff *t, uint64_t input, uint64_t cached, uint64_t output, money_wide *cost);
#define AMOUNT_PARTS INT64_C(1000000000000) /* of 10^-21 in an amount's 10^-9 */

#endif
