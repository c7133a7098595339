/* Costs of steps, and what guesses are worth; see speculate.h. */
#include "engine/speculate.h"

#include <math.h>
#include <stdlib.h>

enum { STEPS_BETWEEN = 64 }; /* with guesses, until one without is measured again */

static const double SLOPE = 1.0 / 6; /* of a step's cost, a row, until it is measured */
/* What a step teaches about its number of rows; half of that about the next number, and so on. */
static const double LEARNING = 1.0 / 4;
static const double OUTLIER =
    1.0 / 4; /* the largest change that a step is believed: machines have other work */
/* Every number of rows is drawn towards what the last step and SLOPE say, so that it is tried again some day. */
static const double FORGETTING = 1.0 / 8192;
static const double WORTHWHILE = 0.05; /* gain in the logarithm of the speed, a sequence */

static double clamp(double x, double most) {
    return x > most ? most : x < -most ? -most : x;
}

/* What a step of so many rows costs beside one of one row, before it was measured. */
static double guessed_cost(uint32_t rows) {
    return 1 + SLOPE * (rows - 1);
}

void speculation_see(struct speculation *s, uint32_t rows, uint32_t drafted, double ns) {
    if (drafted == 0)
        s->drafting = 0;
    if (rows == 0 || rows > SPECULATE_ROWS || !(ns > 0))
        return;
    if (s->ns[rows] == 0)
        for (uint32_t n = 1; n <= SPECULATE_ROWS; n++)
            s->ns[n] = ns / guessed_cost(rows) * guessed_cost(n);
    double news = clamp(ns / s->ns[rows] - 1, OUTLIER), one = s->ns[rows] / guessed_cost(rows);
    for (uint32_t n = 1; n <= SPECULATE_ROWS; n++) {
        s->ns[n] *= 1 + ldexp(news * LEARNING, -abs((int)n - (int)rows));
        s->ns[n] += (one * guessed_cost(n) - s->ns[n]) * FORGETTING;
    }
}

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
static double price(const struct speculation *s, uint32_t n, uint32_t rows) {
    return s->always ? 0 : n * log(s->ns[n + rows] / s->ns[n]);
}

void speculation_share(struct speculation *s, struct draft *d, uint32_t n) {
    double reach[SPECULATE_ROWS], expected[SPECULATE_ROWS]; /* chance that all guesses come true; tokens */
    double all = 0, most = s->always ? 0 : n * WORTHWHILE, gain;
    uint32_t order[SPECULATE_ROWS], rows = 0, worthwhile = 0, i;
    for (i = 0; i < n; i++)
        d[i].tokens = 0;
    if (n >= SPECULATE_ROWS || (!s->always && (s->ns[n] == 0 || s->drafting >= STEPS_BETWEEN)))
        return;
    for (i = 0; i < n; i++)
        reach[i] = expected[i] = 1;
    while (n + rows < SPECULATE_ROWS && (i = best_guess(d, n, reach, expected, &gain)) < n) {
        reach[i] *= lookup_chance(d[i].lookup, d[i].tokens++);
        expected[i] += reach[i];
        order[rows++] = i;
        all += gain;
        if (all - price(s, n, rows) > most) {
            most = all - price(s, n, rows);
            worthwhile = rows;
        }
    }
    while (rows > worthwhile)
        d[order[--rows]].tokens--;
    s->drafting += worthwhile > 0;
}
