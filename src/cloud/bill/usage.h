/* A month's charges, line by line, from the roll-ups: what invoices and exports are made of. */
#ifndef CLOUD_BILL_USAGE_H
#define CLOUD_BILL_USAGE_H

#include "cloud/bill/bill.h"

enum token_kind { TOKEN_INPUT, TOKEN_CACHED, TOKEN_OUTPUT, TOKEN_KINDS };
extern const char *const token_kind_name[TOKEN_KINDS];

/* Requests of one model at one price and exchange rate. */
struct usage {
    char model[MODEL_NAME_BYTES], currency[4]; /* of the price */
    int64_t price, rate;                       /* the version; 10^-9 */
    int64_t requests, tokens[TOKEN_KINDS];     /* the prompt's without the cached ones */
    int64_t unit[TOKEN_KINDS];                 /* 10^-12 of the price's currency a token */
    amount charge, part[TOKEN_KINDS];          /* part: of the charge, which they sum to */
};
/* 10^-21 of the tenant's currency a token; so 10^-15 a million tokens, as prices are said. */
money_wide usage_unit_price(const struct usage *u, enum token_kind kind);
/* Fill in the parts: each is what its tokens cost, down to 10^-9, and the dearest one takes what is missing or too much: a charge differs from the cost by what was carried from
 * request to request. */
void usage_split(struct usage *u);

/* A tenant's month, sorted by model, price and rate; freed with free. */
int usage_read(struct store *s, int64_t tenant, int64_t period, struct usage **out, size_t *n,
               struct error *e);

/* What moved on a tenant's account. */
struct movements {
    amount before, charged; /* charges before the month and in it, reversals taken off */
    amount opening, paid;   /* the balance before, and what else came or went */
};
int usage_movements(struct store *s, int64_t tenant, int64_t account, const struct period *p,
                    struct movements *out, struct error *e);

#endif
