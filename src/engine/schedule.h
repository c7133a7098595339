/* Which rows the next step computes. Service is counted in chip time, per account and weighted, as virtual counters (Sheng et al., "Fairness in Serving Large
 * Language Models", arXiv 2401.00588): the least served account's requests start first and prefill first; an account that comes back is lifted to
 * a little below the least served of the active ones, so that nobody saves up more by being idle, and nothing by not reading. Used by the engine's thread only. */
#ifndef ENGINE_SCHEDULE_H
#define ENGINE_SCHEDULE_H

#include "engine/residency.h"
#include "engine/sequence.h"
#include "engine/speculate.h"
#include "engine/turn.h"

enum { BATCH_PREFILL = 256, BATCH_SEQUENCES = ENGINE_MOST_RUNNING };

struct account {
    uint64_t number;
    uint32_t weight, live, slots; /* sequences alive; sequences started */
    double service;               /* chip nanoseconds over weight */
    uint64_t ready;               /* the last step at which it had a sequence that could go on */
    struct account *next;
};

struct pool_model { /* a model of the pool */
    char *name;
    struct model *model;
    struct forward *forward;
    struct kv *kv;
    struct residence residence;
    struct sequence *first; /* alive, in order of submission */
    uint32_t live;
    uint64_t preempted;
    struct engine_model_stats stats; /* published, under the engine's lock */
    struct cost cost;
    double row_ns;    /* by it, what a prompt's row costs among many; 0: not known */
    struct turn turn; /* as schedule_next last saw it */
    struct speculation speculation;
    uint64_t drafted, accepted; /* guesses that steps took along, and those that came true */
    atomic_bool failed;
    struct error why; /* written before failed */
};

struct schedule {
    struct kv_budget budget;
    struct credit credit;
    struct pool_model *model;
    size_t models;
    uint32_t max_running;
    bool speculates;  /* guesses are taken along */
    uint32_t started; /* sequences with a slot */
    uint64_t weights; /* of the accounts with a live sequence */
    uint64_t steps;
    int64_t now;  /* the clock's, when this step was chosen */
    double level; /* the most that the least served of the accounts that could go on has ever had */
    struct sequence
        *hungry; /* memory keeps it out: nothing that comes after it, of whatever model, starts meanwhile */
    struct account *account[1024]; /* by number, chained */
    atomic_uint waiting;           /* submitted and never started */
};

struct batch {
    struct pool_model *model;
    struct sequence *sequence[BATCH_SEQUENCES];
    struct forward_row row[BATCH_PREFILL + BATCH_SEQUENCES];
    uint32_t sequences, rows, prefill_rows, drafted, logits;
    struct cost_step cost;
};

/* A sequence comes in or goes. */
int schedule_add(struct schedule *s, struct sequence *q);
void schedule_remove(struct schedule *s, struct sequence *q); /* gives its pages back; not its memory */

/* The order of prompts: is a read before b? */
bool schedule_before(const struct schedule *s, const struct sequence *a, const struct sequence *b);

/* Fill b with the next step, at `now` of the clock that sequences were submitted by; false: there is nothing to compute now. */
bool schedule_next(struct schedule *s, struct batch *b, int64_t now);
/* The step took ns and ended at `now`: charge the accounts and learn the cost. */
void schedule_charge(struct schedule *s, struct batch *b, int64_t now, int64_t ns);

void schedule_free(struct schedule *s); /* the accounts */

#endif
