/* The owner's report: a period of the books beside what the machines cost in it. */
#ifndef OWNER_REPORT_H
#define OWNER_REPORT_H

#include "cloud/inner.h"
#include "owner/cost.h"

/* A period, and all that is known of it as a whole. Money in the report's currency. */
struct report {
    char currency[4];
    int64_t zone;
    int64_t from, to,
        now; /* nanoseconds since 1970; the period ends at `now`, the end of this second, when it is running */
    int64_t began; /* from, or when the first of the assets in use was bought, if that was later */
    bool annuity;  /* capital is charged as an annuity, not as it is written off */
    double watts;  /* that machines measured, on average; 0: none did */

    size_t assets;                     /* in use at the end */
    double price, value, chips;        /* of these */
    double straight, levelled;         /* their capital a year, and as an annuity */
    double power, operation, expenses; /* a year, as of the end */
    struct {
        double capital, power, operation, expenses;
    } cost;                 /* in the period */
    double owned;           /* chip-hours */
    double available, busy; /* chip-hours that a service ran, and worked */
    double prefill, decode; /* chip-hours of requests */
    double revenue;
    double paid, sold, earned,
        spent; /* since ever: for machines, when they were retired, from tenants, for running them */
};

/* args: month, or from and to (days, to included), or neither: the month that runs; currency (of the first asset); basis: book or annuity. */
int report_gather(struct cloud *c, const struct json *args, struct report *r, struct error *e);
double report_cost(const struct report *r);      /* of the period */
double report_chip_hour(const struct report *r); /* of the period; NAN: nothing is owned */

/* Of one unit of `from` in `to`, by the last rate before `at`, in either direction. ERR_NOT_FOUND: there is none. */
int report_exchange(struct cloud *c, const char *from, const char *to, int64_t at, double *out,
                    struct error *e);

/* What was done in the period with one model, or for one tenant. */
struct use {
    char name[MODEL_NAME_BYTES];
    double requests, prompt, cached, completion; /* prompt: tokens, cached ones among them */
    double prefill, decode;                      /* chip-hours */
    double revenue;
};
/* Calls `see` once a model, or once a tenant, in their order. */
int report_models(struct cloud *c, struct report *r, void (*see)(void *context, const struct use *u),
                  void *context, struct error *e);
int report_tenants(struct cloud *c, struct report *r, void (*see)(void *context, const struct use *u),
                   void *context, struct error *e);

/* The operation owner.report. */
int report_owner(struct cloud *c, const struct json *args, struct buf *out, struct error *e);

#endif
