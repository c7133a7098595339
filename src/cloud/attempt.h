/* Authentications that failed, by the address they came from, so that nobody guesses for long: a table of fixed size with a token bucket an address. Memory only,
 * under the cloud's lock. */
#ifndef CLOUD_ATTEMPT_H
#define CLOUD_ATTEMPT_H

#include "cloud/limit.h"

enum {
    ATTEMPTS_MINUTE = 20, /* failures that an address may have */
    ATTEMPT_SETS = 1024,
    ATTEMPT_WAYS = 4
};

/* The last sources that a key was used from. */
struct seen {
    struct address from[4];
    uint8_t next;
};

struct attempts {
    uint64_t secret[2]; /* drawn at the start, so that nobody knows which addresses share a set */
    struct attempt {
        struct address from;
        struct bucket bucket;
    } slot[ATTEMPT_SETS][ATTEMPT_WAYS];
};

/* An IPv6 address stands for its /64: whoever has one has all of them. */
struct address attempt_source(const struct address *from);
/* How long until an address may fail again, in ns of the monotonic clock; 0: now. */
int64_t attempts_wait(struct attempts *a, const struct address *from, int64_t now);
void attempts_failed(struct attempts *a, const struct address *from, int64_t now);

#endif
