/* Sums under a key; see sums.h. */
#include "cloud/sums.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct sum *place_of(struct sum *slot, size_t slots, int64_t id) {
    size_t i = (size_t)((uint64_t)id * UINT64_C(0x9E3779B97F4A7C15) >> 32) & (slots - 1);
    while (slot[i].id != 0 && slot[i].id != id)
        i = (i + 1) & (slots - 1);
    return &slot[i];
}

static bool grow(struct sums *s) {
    size_t slots = s->slots > 0 ? 2 * s->slots : 64;
    struct sum *bigger = calloc(slots, sizeof *bigger);
    if (bigger == NULL)
        return false;
    for (size_t i = 0; i < s->slots; i++)
        if (s->slot[i].id != 0)
            *place_of(bigger, slots, s->slot[i].id) = s->slot[i];
    free(s->slot);
    s->slot = bigger;
    s->slots = slots;
    return true;
}

struct sum *sums_get(struct sums *s, int64_t id) {
    if (2 * s->used >= s->slots && !grow(s))
        return NULL;
    id = id != 0 ? id : INT64_MIN; /* no row of ours has that one; of somebody else's it is no matter */
    struct sum *found = place_of(s->slot, s->slots, id);
    s->used += found->id == 0;
    found->id = id;
    return found;
}

void sums_free(struct sums *s) {
    free(s->slot);
    *s = (struct sums){0};
}

static struct usage_entry **bucket_of(struct usage_sums *s, int64_t tenant, const struct usage_record *u) {
    uint64_t h = ((uint64_t)tenant * 31 + (uint64_t)u->key) * 31 + (uint64_t)u->price;
    return &s->bucket[(h * UINT64_C(0x9E3779B97F4A7C15) >> 32) % (sizeof s->bucket / sizeof *s->bucket)];
}

struct usage_entry *usage_sums_find(struct usage_sums *s, int64_t tenant, const struct usage_record *u) {
    struct usage_entry *y = *bucket_of(s, tenant, u);
    while (y != NULL && (y->tenant != tenant || !usage_same(&y->sum, u)))
        y = y->next;
    return y;
}

int usage_sums_add(struct usage_sums *s, const struct usage_record *u, struct error *e) {
    struct usage_entry *y = usage_sums_find(s, u->tenant, u), **bucket = bucket_of(s, u->tenant, u);
    if (y == NULL) {
        if ((y = calloc(1, sizeof *y)) == NULL)
            return error_set(e, ERR_NO_MEMORY, "no memory for the usage");
        y->tenant = u->tenant;
        y->sum.key = u->key;
        y->sum.price = u->price;
        y->sum.rate = u->rate;
        snprintf(y->sum.model, sizeof y->sum.model, "%.*s", (int)u->model.n, u->model.p);
        y->next = *bucket;
        *bucket = y;
    }
    return usage_add(&y->sum, u, e);
}

void usage_sums_clear(struct usage_sums *s) {
    for (size_t i = 0; i < sizeof s->bucket / sizeof *s->bucket; i++)
        for (struct usage_entry *y = s->bucket[i], *next; y != NULL; y = next) {
            next = y->next;
            free(y);
        }
    memset(s, 0, sizeof *s);
}
