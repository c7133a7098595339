/* What a tenant and each of its keys may use: requests and tokens a minute, requests at once, money a day and a month, which models, from where. A request is
 * decided by limits_check for both together and taken by limits_take, so that a refusal takes nothing from anything; limits_settle gives back what was not used.
 *
 * Everything here is memory, integers, and under the cloud's lock; nothing is allocated for a request. Who shares the books with others reads `struct used` from rows
 * before, and writes it back after: there are no pointers in it. */
#ifndef CLOUD_LIMIT_H
#define CLOUD_LIMIT_H

#include "base/address.h"
#include "base/json.h"
#include "cloud/money.h"

enum { LIMIT_WARNINGS = 8 };
#define LIMIT_MOST 1000000000 /* a minute, or at once */

/* As somebody set them. 0 or NULL: there is no such limit. */
struct limits {
    int64_t requests_minute, tokens_minute, concurrent;
    amount spend_day, spend_month, credit_low;
    struct json *models; /* an array of names, or of beginnings that end with '*' */
    struct network *network;
    size_t networks;
    uint8_t warn[LIMIT_WARNINGS]; /* percents of what may be spent, rising, 0 behind the last */
};
void limits_free(struct limits *l); /* what it points to */

/* A token bucket, kept as the moment at which it will be full again: what is taken from it is time (the generic cell rate algorithm of ITU-T I.371). So it needs no
 * timer, no fraction is lost, and no clock can overfill it. It holds a minute's worth and fills continuously. */
struct bucket {
    int64_t full; /* ns of the clock that the callers use */
};
/* As a row that any node and any clock can read: `level` is how far from full it is, in ns, at the wall clock's `at`. */
void bucket_write(const struct bucket *b, int64_t now, int64_t *level);
struct bucket bucket_read(int64_t level, int64_t at, int64_t wall, int64_t now);
/* Take n of `limit` a minute; false: not so much is in it, and nothing was taken. */
bool bucket_take(struct bucket *b, int64_t limit, int64_t n, int64_t now);
/* How long until n can be taken: 0 now, negative never. */
int64_t bucket_wait(struct bucket *b, int64_t limit, int64_t n, int64_t now);

/* What was charged in a day or a month of the book's zone: this one, and the one before it, to which a clock that is set may lead back. */
struct spent {
    int64_t period; /* days since 1970, or months since the year 0 */
    amount value;
};

struct used {
    struct bucket requests, tokens;
    int64_t open; /* requests that run */
    amount held;  /* what they may still cost: it counts as spent until they are settled */
    struct spent day[2], month[2];
};

struct limited {
    struct limits limits;
    struct used used;
};

/* As OpenAI writes them: "0s", "120ms", "59.7s", "6m0s"; rounded up to a ms. */
enum { DURATION_BYTES = 32 };
void duration_write(char text[DURATION_BYTES], int64_t ns);

/* What a request asks for at most. */
struct limit_ask {
    struct str model;
    struct address from;
    int64_t tokens; /* the prompt and the longest answer */
    amount worst;
    const char *currency;
    int64_t now;        /* monotonic: of the buckets */
    int64_t wall, zone; /* of days and months; zone: minutes east of UTC */
};
/* key may be NULL. ERR_DENIED: not this model, not from there; ERR_BUSY: later (param "requests" or "tokens", wait_ns); ERR_CREDIT: no more money may be spent. The
 * text says which limit and when it lets something through again. */
int limits_check(struct limited *tenant, struct limited *key, const struct limit_ask *ask, struct error *e);
void limits_take(struct limited *tenant, struct limited *key, const struct limit_ask *ask);
/* Where from, alone: for routes that are no completions. ERR_DENIED. */
int limits_check_address(const struct limited *tenant, const struct limited *key, const struct address *from,
                         struct error *e);

/* The request has ended: of the `tokens` and `worst` that were taken, `used` and `charge` were due. */
struct limit_settle {
    int64_t tokens, used;
    amount worst, charge;
    int64_t now, wall, zone;
};
/* The highest percent to warn at that spend has passed; 0: none. */
struct crossing {
    int percent;
    amount spent;
    int64_t wall; /* in the day or month that is meant */
};
struct crossings {
    struct crossing day, month;
};
/* tenant_crossed and key_crossed: what the charge has taken over a percent. */
void limits_settle(struct limited *tenant, struct limited *key, const struct limit_settle *s,
                   struct crossings *tenant_crossed, struct crossings *key_crossed);
/* The charge alone (with wall and zone): of a request that an earlier run took, so that nothing is to be given back. */
void limits_charge(struct limited *tenant, struct limited *key, const struct limit_settle *s,
                   struct crossings *tenant_crossed, struct crossings *key_crossed);
/* What spend has passed by now. */
void limits_reached(const struct limited *who, int64_t wall, struct crossings *out);

/* What may still be spent in the day or month that used_roll was told of; more than any amount where there is no limit. */
money_wide limits_left(const struct limited *who, bool of_month);

/* What is spent in the present day and month. */
void used_roll(struct used *u, int64_t wall, int64_t zone);

/* What OpenAI's headers say: of tenant and key the one of which less is left. */
void limits_rates(struct limited *tenant, struct limited *key, int64_t now, struct rates *out);

#endif
