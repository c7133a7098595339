/* What guesses are worth; see speculate.h. */
#include "engine/speculate.h"

#include <math.h>

enum { STEPS_BETWEEN = 64 }; /* with guesses, until one without is measured again */

static const double WORTHWHILE = 0.05; /* gain in the logarithm of the speed, a sequence */

/* The sequence that gains most from one guess more, n if none is left; *gain in the logarithm of its speed. */
static uint32_t best_guess(const struct draft *d, uint32_t n, const double *reach, const double *expected,
                           double *gain) {
    uint32_t best = n;
    *gain = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (d[i].tokens == d[i].most)
            continue;
        double here = log1p(reach[i] * lookup_chance(d[i].lookup, d[i].tokens) / expected[i]);
        if (here > *gain) {
            *gain = here;
            best = i;
        }
    }
    return best;
}

/* The gain in the logarithm of n sequences' speeds that pays for `rows` rows more. */
static double price(const struct cost *c, const struct cost_step *without, uint32_t n, uint32_t rows) {
    struct cost_step with = *without;
    with.rows += rows;
    with.logits += rows;
    with.decode_context += rows * without->decode_context / n;
    return n * log(cost_predict(c, &with) / cost_predict(c, without));
}

void speculation_share(struct speculation *s, const struct cost *c, const struct cost_step *without,
                       struct draft *d, uint32_t n) {
    double reach[SPECULATE_ROWS], expected[SPECULATE_ROWS]; /* chance that all guesses come true; tokens */
    double all = 0, most = s->always ? 0 : n * WORTHWHILE, gain;
    uint32_t order[SPECULATE_ROWS], rows = 0, worthwhile = 0, i;
    for (i = 0; i < n; i++)
        d[i].tokens = 0;
    if (!s->always && (c->steps == 0 || s->drafting >= STEPS_BETWEEN))
        n = 0;
    if (n == 0 || n >= SPECULATE_ROWS) {
        s->drafting = 0;
        return;
    }
    for (i = 0; i < n; i++)
        reach[i] = expected[i] = 1;
    while (n + rows < SPECULATE_ROWS && (i = best_guess(d, n, reach, expected, &gain)) < n) {
        reach[i] *= lookup_chance(d[i].lookup, d[i].tokens++);
        expected[i] += reach[i];
        order[rows++] = i;
        all += gain;
        double net = all - (s->always ? 0 : price(c, without, n, rows));
        if (net > most) {
            most = net;
            worthwhile = rows;
        }
    }
    while (rows > worthwhile)
        d[order[--rows]].tokens--;
    s->drafting = worthwhile > 0 ? s->drafting + 1 : 0;
}
