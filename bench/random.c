/* See random.h. The generator is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014); Gamma numbers after Marsaglia and Tsang (ACM TOMS 26, 2000). */
#include "bench/random.h"

#include <math.h>

uint64_t random_next(struct random *r) {
    uint64_t x = r->state += 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return x ^ x >> 31;
}

struct random random_start(uint64_t seed, uint64_t stream) {
    struct random r = {seed};
    r.state = random_next(&r) + stream * 0xD1342543DE82EF95u;
    r.state = random_next(&r);
    return r;
}

double random_unit(struct random *r) {
    return ((double)(random_next(r) >> 12) + 0.5) * 0x1p-52;
}

uint32_t random_below(struct random *r, uint32_t n) {
    return (uint32_t)((random_next(r) >> 32) * n >> 32);
}

static double random_normal(struct random *r) {
    double length = sqrt(-2 * log(random_unit(r)));
    return length * cos(2 * M_PI * random_unit(r));
}

double random_gamma(struct random *r, double shape) {
    /* Below 1 the method does not hold; one shape higher, times a power of a uniform number, is the same. */
    double raise = shape < 1 ? pow(random_unit(r), 1 / shape) : 1,
           d = (shape < 1 ? shape + 1 : shape) - 1.0 / 3;
    for (;;) {
        double x = random_normal(r), v = 1 + x / sqrt(9 * d);
        v = v * v * v;
        if (v > 0 && log(random_unit(r)) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v * raise;
    }
}

double random_weibull(struct random *r, double shape) {
    return pow(-log(random_unit(r)), 1 / shape) / tgamma(1 + 1 / shape);
}
