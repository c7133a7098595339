/* Sums that verification makes again: three wide numbers under a number, and what requests come to by tenant, key, model, price and rate. Memory grows with the accounts, not
 * with the journal. */
#ifndef CLOUD_SUMS_H
#define CLOUD_SUMS_H

#include "cloud/inner.h"

struct sum {
    int64_t id;
    bool known, there; /* the books were asked for it, and have it */
    money_wide part[4];
};

struct sums {
    struct sum *slot; /* open addressing; id 0: free */
    size_t slots, used;
};
/* The one of this id, made when absent; NULL: no memory. Holds until the next call. */
struct sum *sums_get(struct sums *s, int64_t id);
void sums_free(struct sums *s);

struct usage_entry {
    int64_t tenant;
    bool seen;
    struct usage_sum sum;
    struct usage_entry *next;
};
struct usage_sums {
    struct usage_entry *bucket[1024];
};
struct usage_entry *usage_sums_find(struct usage_sums *s, int64_t tenant, const struct usage_record *u);
int usage_sums_add(struct usage_sums *s, const struct usage_record *u, struct error *e);
void usage_sums_clear(struct usage_sums *s);

#endif
