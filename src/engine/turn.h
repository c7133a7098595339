/* Whose turn it is: which model makes the next step, and how long the prompts in it may keep everybody's streams waiting. On a request's journey: what decides when its next
 * token is made.
 *
 * Streams: a model's claim is the sum over its streams of (time since the last token)^2, over what its step would cost; the largest claim goes first. Steps taken by that rule come
 * as often as the square root of streams over cost, which makes the mean time between tokens the least (the index of Whittle, "Restless bandits", 1988, for ages that cost
 * their square). So a model with few streams, whose step reads all its weights for one row, goes less often, and company may come meanwhile. It goes before
 * its streams have waited too long, if that is possible at all.
 *
 * Prompts earn their time: every step of streams earns them a share of what it took, in whatever model they are read. So steps with prompts are alike. With no stream anywhere
 * prompts take what they want. Whose prompt is read, of whatever model, is the scheduler's order. */
#ifndef ENGINE_TURN_H
#define ENGINE_TURN_H

#include "engine/cost.h"

#include <stdbool.h>
#include <stdint.h>

struct schedule;
struct pool_model;
struct batch;
struct sequence;

struct turn { /* of a model: what it could do now */
    struct cost_step streams;
    double streams_ns;       /* that step's cost; 0: not known */
    double claim;            /* of its streams, over that step's cost */
    double age;              /* of the stream that has waited longest, nanoseconds */
    struct sequence *prompt; /* the first in order of those that can be read */
};

struct credit {    /* of prompts, all models' together; nanoseconds */
    bool limited;  /* there are streams somewhere */
    double cycle;  /* one step of every model that has streams */
    double slack;  /* what may be read before the stream that has waited longest must have its turn */
    double all;    /* what prompts earn in a cycle */
    double ns;     /* what they may take now; as much at most */
    double unread; /* of streams' steps since prompts were last read */
    const struct pool_model *reads; /* whose prompts are read next */
};

/* Look at all requests: what every model could do now. */
void turn_survey(struct schedule *s);
/* Which of the models that were not tried steps next; NULL: none is left. */
struct pool_model *turn_next(struct schedule *s, const bool *tried);
/* How many of the `rows` tokens that q has to read may join b now. */
uint32_t turn_rows(const struct schedule *s, const struct batch *b, const struct sequence *q, uint32_t rows);
/* The step b took ns: prompts have spent and streams have earned. */
void turn_charge(struct schedule *s, const struct batch *b, double ns);

#endif
