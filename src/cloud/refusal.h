/* Requests that were refused for want of money, on their way to webhooks: spend.limit_reached and credit.exhausted. */
#ifndef CLOUD_REFUSAL_H
#define CLOUD_REFUSAL_H

#include "cloud/cloud.h"

/* Why a request was refused with ERR_CREDIT. */
enum refused_by { REFUSED_NOT, REFUSED_BY_CREDIT, REFUSED_BY_DAY, REFUSED_BY_MONTH, REFUSED_BYS };
struct refusal {
    enum refused_by by;
    int64_t tenant, key;       /* key: whose limit it is; 0: the tenant's */
    int64_t period, wall;      /* the day or month, as limits count them, and when in it */
    amount limit, spent, left; /* of credit: the line, the balance, what is available */
    amount asked;              /* the request's worst case */
};

struct tenant;
struct key;
struct limit_ask;
struct refused; /* those that are new, in memory */

/* Under the lock, of a request that was refused with ERR_CREDIT: by what. k may be NULL. */
void refusal_find(const struct tenant *t, const struct key *k, const struct limit_ask *ask,
                  struct refusal *out);

/* Under the lock: the request stays refused. True: it is the first of its period and limit, and the courier is to be rung for it. */
bool refusal_note(struct cloud *c, const struct refusal *r);

/* For the courier's thread: what is new, which is the caller's until it is put back or freed; and the writer's call that puts it into the books. */
struct refused *refusals_take(struct cloud *c);
int refusals_write(struct cloud *c, void *list, struct error *e);
void refusals_put_back(struct cloud *c, struct refused *list);
void refusals_free(struct refused *list);

#endif
