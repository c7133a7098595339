/* The scheduler without a chip: the real queue, accounts and pages, steps that take what a table says on a clock of its own, tokens drawn by a seed. Minutes of load pass in
 * a second and come out the same each time, so that policies can be compared and promises tested. Used by `simulate` and by the tests. */
#ifndef BENCH_VIRTUAL_H
#define BENCH_VIRTUAL_H

#include "bench/random.h"
#include "engine/schedule.h"

enum { VIRTUAL_MODELS = 64 };

/* What a model's steps take, nanoseconds, as measured. */
struct virtual_cost {
    const char *name;
    double one, eight, sixteen;        /* decoding rows */
    double row;                        /* each further one, of a prompt */
    double logits;                     /* of that, for one that wants logits */
    double decode_token, prompt_token; /* a token that a decoding row, a prompt's row looks back on */
};
extern const struct virtual_cost virtual_large,
    virtual_small; /* 1.1 billion parameters in Q4_0, 135 million in Q4_1; two cores */

struct virtual_request {
    struct virtual_request *next;
    struct sequence *sequence; /* NULL: it has ended */
    struct virtual *engine;
    uint32_t model, cached, tokens;
    int64_t asked; /* on the engine's clock, nanoseconds */
    int64_t *at;   /* [tokens] when each came */
};

struct virtual {
    struct schedule schedule;
    struct pool_model model[VIRTUAL_MODELS];
    const struct virtual_cost *cost[VIRTUAL_MODELS];
    struct batch batch;
    struct virtual_request *request; /* all, the latest first */
    struct random random;
    uint64_t numbers;
    int64_t now;
    uint64_t steps[VIRTUAL_MODELS], decoded[VIRTUAL_MODELS]; /* steps with streams, and their rows */
    double noise;                                            /* a step takes up to this share more or less */
};

/* cost[models]; `pages` of KV memory for all. ERR_NO_MEMORY. */
int virtual_start(struct virtual *v, const struct virtual_cost *const *cost, size_t models,
                  uint32_t max_running, size_t pages, struct error *e);
/* A request that came at `asked` (not after now), of `shared` tokens that all of this account begin with and `own` more, for exactly `tokens` tokens. NULL: no memory. */
struct virtual_request *virtual_ask(struct virtual *v, uint32_t model, uint64_t account, int64_t asked,
                                    uint32_t shared, uint32_t own, uint32_t tokens);
/* It leaves before its end. */
void virtual_drop(struct virtual *v, struct virtual_request *r);
/* One step; which model's, or -1: there is nothing to compute. */
int virtual_step(struct virtual *v);
/* All requests go. */
void virtual_forget(struct virtual *v);
void virtual_end(struct virtual *v);

#endif
