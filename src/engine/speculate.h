/* How many guessed tokens (lookup.h) the sequences of a step take along. A step of few rows waits for memory, so rows more cost little, and each guess that
 * comes true saves a whole step; with many rows a step costs what it computes, and guessing is off. What rows cost is learned from every step, for each
 * model (cost.h). On the request's journey: between the scheduler and the batch. */
#ifndef ENGINE_SPECULATE_H
#define ENGINE_SPECULATE_H

#include "engine/cost.h"
#include "engine/lookup.h"

enum { SPECULATE_ROWS = 16 }; /* of a step with guesses, at most */

struct speculation {   /* one a model */
    uint32_t drafting; /* steps with guesses since the last one without */
    bool always;       /* whatever it costs */
};

struct draft {
    const struct lookup *lookup;
    uint32_t most;   /* guesses there is room for */
    uint32_t tokens; /* guesses to take along: the answer */
};

/* Share rows out among the n sequences that decode in the next step: as makes the product of their expected speeds largest, so that all of them
 * gain and none pays for another's guesses with much of its own speed. `without` is the step that they would make without guesses. */
void speculation_share(struct speculation *s, const struct cost *c, const struct cost_step *without,
                       struct draft *d, uint32_t n);

#endif
