/* What the owner has bought and what he pays beside it, in the tables asset and expense: a name and a profile in JSON, which these functions write and read. */
#ifndef OWNER_ASSET_H
#define OWNER_ASSET_H

#include "base/json.h"
#include "cloud/inner.h"
#include "owner/cost.h"

struct expense {
    char name[64], currency[4];
    double yearly;
    int64_t from, until; /* nanoseconds since 1970; until 0: it goes on */
};

/* All that there ever were, oldest first; freed with free(). */
int asset_load(struct cloud *c, struct asset **out, size_t *n, struct error *e);
int expense_load(struct cloud *c, struct expense **out, size_t *n, struct error *e);

/* Operations of the table in owner.c: what they take and give is in docs/owner.md. */
int asset_add(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int asset_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int asset_retire(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int expense_add(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int expense_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
int expense_end(struct cloud *c, const struct json *args, struct buf *out, struct error *e);

/* Where a day begins, in nanoseconds since 1970; ERR_INVALID names it. */
int asset_day(int64_t *out, struct str text, int64_t zone, const char *name, struct error *e);
/* A member that is a number, or a decimal one in text, which may end in % (a hundredth). `otherwise` when there is none; NAN: there must be one. ERR_INVALID names it. */
int number_of(const struct json *args, const char *name, double otherwise, double most, double *out,
              struct error *e);

#endif
