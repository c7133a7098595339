/* The trial balance: what each account had, what moved, what it has. */
#ifndef CLOUD_BILL_BALANCE_H
#define CLOUD_BILL_BALANCE_H

#include "base/json.h"
#include "cloud/bill/bill.h"

struct account_line {
    int64_t id;
    char *name, currency[4];
    amount opening, debits, credits;
};
struct balance {
    struct account_line *line;
    size_t n;
};

/* Every account that there is, by its id, with nothing in it. */
int balance_accounts(struct store *s, struct balance *b, struct error *e);
void balance_free(struct balance *b);
/* While the lines are sorted by their ids: add the month from the roll-ups (settlements are in usage_day, the other transfers are few); or the transfers
 * `from` to `to` of the journal itself, to the openings when they lie before. ERR_CONFLICT: they speak of an account that is not there. */
int balance_period(struct store *s, const struct period *p, struct balance *b, struct error *e);
int balance_journal(struct store *s, int64_t from, int64_t to, bool before, struct balance *b,
                    struct error *e);
/* The openings from the statement of the month before (NULL: there is none); the lines are sorted by name then. */
int balance_openings(struct balance *b, const struct json *before, struct error *e);
int balance_by_name(const void *a, const void *b); /* for qsort */

#endif
