/* A closed loop of clients on one thread: each connection sends a request, reads the whole answer, and sends the next. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "base/buf.h"
#include "base/error.h"

#include <stdint.h>

enum { SPREAD_STEPS = 1024 };

/* Times in microseconds, 32 steps to each doubling. */
struct spread {
    uint64_t count[SPREAD_STEPS], n;
};
double spread_at(const struct spread *s,
                 double share); /* microseconds that `share` of the samples do not exceed */

struct load {
    uint16_t port;
    uint32_t connections;
    double warm_up, seconds;   /* while the connections begin, one after another; measured then */
    const struct str *request; /* [requests]: whole ones; connection i sends request[i % requests] */
    size_t requests;
    bool once; /* each connection asks once, then stays open and idle until client_close */
};

struct load_result {
    double seconds;
    uint64_t answers, tokens;         /* in the measured time */
    uint64_t all_answers, all_tokens; /* with those before and behind it */
    uint64_t failed;
    struct spread answer, first,
        token; /* a request to its last byte; to its first token; a later token from the engine to us (streams) */
};

struct client;
/* Connect, run, and let what runs end. */
int client_run(struct client **out, const struct load *load, struct load_result *result,
               void (*measuring)(bool begins, void *context), void *context, struct error *e);
void client_close(struct client *c);

#endif
