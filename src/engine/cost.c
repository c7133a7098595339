/* The model of a step's cost; see cost.h. On a request's journey it stands beside the scheduler: every step teaches it, every choice asks it. */
#include "engine/cost.h"

#include <math.h>
#include <stdbool.h>
#include <stddef.h>

enum { STRETCHES = 5, LOGITS = 1 + STRETCHES, DECODE_CONTEXT, PREFILL_CONTEXT };
static const double stretch[STRETCHES + 1] = {1, 2, 4, 8, 16, INFINITY}; /* in rows, where each begins */

enum { SWEEPS = 8 };                        /* of the fit, which starts from the last one */
enum { FADING_SIZES = 5, FADE_EVERY = 64 }; /* sizes up to 16 rows fade, so many steps at once */
static const double forget = 1.0 / 48;      /* of a size's past, at each step of this size */
static const double fade =
    1.0 / 8192; /* of the few rows' past, at each step: guesses are tried again some day */
static const double row_share =
    1.0 / 6;                      /* of one row's cost, what each further one adds before it was measured; */
static const double doubt = 0.02; /* what that counts, in steps seen */
static const double interrupted = 1.5; /* the largest step that is believed, in expected ones */

static void features(const struct cost_step *s, double x[COST_TERMS]) {
    double rows = s->rows;
    x[0] = 1;
    for (int i = 0; i < STRETCHES; i++)
        x[1 + i] = fmax(fmin(rows, stretch[i + 1]) - stretch[i], 0);
    x[LOGITS] = s->logits;
    x[DECODE_CONTEXT] = (double)s->decode_context;
    x[PREFILL_CONTEXT] = (double)s->prefill_context;
}

static int size_of(uint32_t rows) {
    int n = 0;
    for (uint32_t r = rows > 0 ? rows - 1 : 0; r != 0 && n < COST_SIZES - 1; r /= 2)
        n++;
    return n;
}

static void begin(struct cost *c, const struct cost_step *s, double ns) {
    double rows = s->rows > 1 ? s->rows - 1 : 0;
    c->term[0] = ns / (1 + row_share * rows);
    for (int i = 0; i < STRETCHES; i++)
        c->term[1 + i] = row_share * c->term[0];
}

/* Coordinate descent on the normal equations; a term below 0 becomes 0. */
static void fit(struct cost *c) {
    double prior = doubt * c->total[0][0];
    for (int sweep = 0; sweep < SWEEPS; sweep++)
        for (int i = 0; i < COST_TERMS; i++) {
            bool rows = i >= 1 && i <= STRETCHES;
            double weight = c->total[i][i] + (rows ? prior : 0);
            double rest =
                c->total_value[i] + (rows ? prior * row_share * c->term[0] : 0) - weight * c->term[i];
            for (int j = 0; j < COST_TERMS; j++)
                rest -= j == i ? 0 : c->total[i][j] * c->term[j];
            if (weight > 0)
                c->term[i] = fmax(0, c->term[i] + rest / weight);
        }
}

/* Of one size's past this share goes, and this step (x == NULL: none) comes. */
static void update(struct cost *c, int n, double share, const double *x, double ns) {
    for (int i = 0; i < COST_TERMS; i++) {
        for (int j = 0; j < COST_TERMS; j++) {
            double change = (x != NULL ? x[i] * x[j] / (ns * ns) : 0) - share * c->size[n].product[i][j];
            c->size[n].product[i][j] += change;
            c->total[i][j] += change;
        }
        double change = (x != NULL ? x[i] / ns : 0) - share * c->size[n].value[i];
        c->size[n].value[i] += change;
        c->total_value[i] += change;
    }
}

void cost_learn(struct cost *c, const struct cost_step *s, double ns) {
    double x[COST_TERMS], expected = cost_predict(c, s);
    if (expected == 0)
        begin(c, s, ns);
    else
        ns = fmin(ns, interrupted * expected);
    features(s, x);
    update(c, size_of(s->rows), forget, x, ns);
    c->steps++;
    if (c->steps % FADE_EVERY == 0)
        for (int n = 0; n < FADING_SIZES; n++)
            update(c, n, fade * FADE_EVERY, NULL, 0);
    fit(c);
}

double cost_predict(const struct cost *c, const struct cost_step *s) {
    double x[COST_TERMS], ns = 0;
    features(s, x);
    for (int i = 0; i < COST_TERMS; i++)
        ns += c->term[i] * x[i];
    return ns;
}

double cost_part(const struct cost *c, const struct cost_step *all, const struct cost_step *part) {
    struct cost_step rows = {.rows = all->rows};
    if (c->steps == 0)
        return part->rows;
    return cost_predict(c, &rows) * part->rows / all->rows + c->term[LOGITS] * part->logits +
           c->term[DECODE_CONTEXT] * (double)part->decode_context +
           c->term[PREFILL_CONTEXT] * (double)part->prefill_context;
}
