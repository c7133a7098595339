/* What a step of one model costs, learned from the steps that were made. The scheduler asks it before it fills a batch: how many rows of a prompt fit beside
 * these streams, what a guess adds, which model's rows are cheap now. Used by the engine's thread only; one or two microseconds a step, nothing is
 * allocated.
 *
 * The time is a sum of terms, each at least 0: one row, which reads the weights; further rows in stretches, since a few wait for memory and many for arithmetic; rows
 * that want logits; tokens that decoding rows and rows of prompts look back on. They are fitted by least squares of the relative error over what was seen,
 * the recent more than the old; steps of different sizes are forgotten apart, so that an hour without prompts does not forget what prompts cost. */
#ifndef ENGINE_COST_H
#define ENGINE_COST_H

#include <stdint.h>

enum { COST_TERMS = 9, COST_SIZES = 10 };

/* What a step does. */
struct cost_step {
    uint32_t rows, logits; /* all rows; those that want logits */
    uint64_t decode_context,
        prefill_context; /* tokens before each single row, before each row of a prompt; summed */
};

struct cost {                /* zeroed: nothing is known */
    double term[COST_TERMS]; /* nanoseconds for one of each */
    struct {
        double product[COST_TERMS][COST_TERMS], value[COST_TERMS]; /* of the normal equations */
    } size[COST_SIZES];                                            /* by the logarithm of the rows */
    double total[COST_TERMS][COST_TERMS], total_value[COST_TERMS]; /* of all sizes */
    uint64_t steps;
};

/* The step took ns (> 0). A step that took far longer than expected (the system had other things to do) counts as half as much again as the expected one. */
void cost_learn(struct cost *c, const struct cost_step *s, double ns);
/* Nanoseconds that it will take; 0: no step has been seen yet. */
double cost_predict(const struct cost *c, const struct cost_step *s);
/* What `part` of a step stands for in the cost of all of it: reading the weights and computing rows by its share of the rows, logits and context by its own. The parts of a
 * step sum to what it costs. Rows, while no step has been seen. */
double cost_part(const struct cost *c, const struct cost_step *all, const struct cost_step *part);

#endif
