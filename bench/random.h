/* Random numbers that a seed decides alone, on every machine: what a load is made of can be made again. */
#ifndef BENCH_RANDOM_H
#define BENCH_RANDOM_H

#include <stdint.h>

struct random {
    uint64_t state;
};

/* Streams of different (seed, stream) are independent. */
struct random random_start(uint64_t seed, uint64_t stream);
uint64_t random_next(struct random *r);
double random_unit(struct random *r);                  /* above 0, below 1 */
uint32_t random_below(struct random *r, uint32_t n);   /* 0..n-1 */
double random_gamma(struct random *r, double shape);   /* scale 1, mean `shape` */
double random_weibull(struct random *r, double shape); /* mean 1 */

#endif
