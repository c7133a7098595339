/* What the parts of unkai bench share: the machine's limits, sampled between the speeds since what neighbours leave of a machine changes from second to second. */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "chip/chip.h"
#include "model/model.h"

enum { MOST_DEPTHS = 4, LIMIT_SAMPLES = 4 * MOST_DEPTHS };

struct limit_samples {
    double read[LIMIT_SAMPLES], int8[LIMIT_SAMPLES], bf16[LIMIT_SAMPLES], fp32[LIMIT_SAMPLES];
    int n;
};

void bench_sample_limits(struct limit_samples *s, struct chip *c);
struct chip_limits bench_limits(struct limit_samples *s); /* the medians; sorts the samples */
double bench_median(double *value, int n);                /* sorts them */

/* Measure and print attention alone, of m's shape, after so many tokens ("4096,16384"), with every form of KV memory. o->kv is ignored. */
int bench_attention(const struct model *m, const struct chip_options *o, const char *contexts, bool as_json,
                    struct error *e);

#endif
