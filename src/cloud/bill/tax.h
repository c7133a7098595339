/* Taxes as data: which rule holds between two parties, and what it comes to. The rules are data/tax-rules.json, embedded in the program, and what the operator
 * puts over them (docs/billing.md). */
#ifndef CLOUD_BILL_TAX_H
#define CLOUD_BILL_TAX_H

#include "base/json.h"
#include "cloud/cloud.h"

enum { TAX_RATES = 8, TAX_LINES = 4096 };

/* How many decimals the currency's smallest coin has (ISO 4217): 0 for JPY, 2 for EUR. */
int currency_decimals(const char *currency);
/* value * 10^-9 to a whole number of the smallest coins, still in 10^-9. */
enum direction { DIRECTION_DOWN, DIRECTION_UP, DIRECTION_NEAREST }; /* towards less, more; half away from 0 */
int64_t money_round(int64_t value, int decimals, enum direction direction);

/* Check a file of rules. ERR_INVALID names what is wrong. */
int tax_check_rules(const struct json *rules, struct error *e);
/* The rule between an issuer and a customer (profiles, see party.h) on a day: appends a JSON object that says all that an invoice needs of it, so that an invoice can
 * be made again when the rules have changed: {"id", "label", "scope", "direction", "rates": [{"id", "percent"}], and "note", "issuer_number",
 * "customer_number" where there are any}. own: the operator's rules, may be NULL. ERR_INVALID: a number that the rule needs is missing. */
int tax_resolve(const struct json *own, const struct json *issuer, const struct json *customer,
                const char *day, struct buf *out, struct error *e);

struct tax_line {
    struct str rate;
    amount value; /* without tax */
};
struct tax_row {
    struct str rate, percent;
    amount base, tax;
};
/* Tax of an invoice's lines, one row a rate that occurs; the rows' taxes are whole coins together, and each of them unless the rule rounds once an invoice. rule: what
 * tax_resolve made. */
int tax_apply(const struct json *rule, const struct tax_line *line, size_t lines, int decimals,
              struct tax_row row[TAX_RATES], size_t *rows, struct error *e);

/* The rules of the program. */
extern const unsigned char tax_rules[];
extern const size_t tax_rules_bytes;

#endif
