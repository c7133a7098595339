/* From logits to a token; see sampler.h. On the request's journey: after the forward pass, once a row that asked for logits. */
#include "engine/sampler.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct sampler {
    struct sampling s;
    uint64_t random[4]; /* xoshiro256** (Blackman and Vigna, public domain), seeded by splitmix64 */
    size_t vocab;
    struct logit_bias *bias;
    uint32_t *count;     /* [vocab] occurrences in the completion; NULL while no penalty wants them */
    unsigned char *seen; /* [vocab] occurs in prompt or completion; NULL likewise */
};

static uint64_t splitmix(uint64_t *x) {
    uint64_t z = *x += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static uint64_t rotate(uint64_t x, int k) {
    return x << k | x >> (64 - k);
}

/* Uniform in [0, 1). */
static double sampler_random(struct sampler *s) {
    uint64_t *r = s->random, result = rotate(r[1] * 5, 7) * 9, t = r[1] << 17;
    r[2] ^= r[0];
    r[3] ^= r[1];
    r[1] ^= r[2];
    r[0] ^= r[3];
    r[2] ^= t;
    r[3] = rotate(r[3], 45);
    return (double)(result >> 11) * 0x1p-53;
}

struct sampler *sampler_create(const struct sampling *from, size_t vocab) {
    struct sampler *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->s = *from;
    s->s.bias = NULL;
    s->vocab = vocab;
    uint64_t x = from->seed;
    for (int i = 0; i < 4; i++)
        s->random[i] = splitmix(&x);
    bool ok = true;
    if (from->biases > 0) {
        s->bias = calloc(from->biases, sizeof *s->bias);
        ok = s->bias != NULL;
        if (ok)
            memcpy(s->bias, from->bias, from->biases * sizeof *s->bias);
    }
    if (from->presence_penalty != 0 || from->frequency_penalty != 0)
        ok = (s->count = calloc(vocab, sizeof *s->count)) != NULL && ok;
    if (from->repetition_penalty != 1)
        ok = (s->seen = calloc(vocab, 1)) != NULL && ok;
    if (!ok) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(struct sampler *s) {
    if (s == NULL)
        return;
    free(s->bias);
    free(s->count);
    free(s->seen);
    free(s);
}

void sampler_see(struct sampler *s, int32_t id, bool prompt) {
    if (id < 0 || (size_t)id >= s->vocab)
        return;
    if (s->seen != NULL)
        s->seen[id] = 1;
    if (s->count != NULL && !prompt)
        s->count[id]++;
}

static void adjust_logits(struct sampler *s, float *logits) {
    for (size_t i = 0; i < s->s.biases; i++)
        logits[s->bias[i].id] += s->bias[i].bias;
    if (s->seen != NULL)
        for (size_t i = 0; i < s->vocab; i++)
            if (s->seen[i])
                logits[i] =
                    logits[i] > 0 ? logits[i] / s->s.repetition_penalty : logits[i] * s->s.repetition_penalty;
    if (s->count != NULL)
        for (size_t i = 0; i < s->vocab; i++)
            if (s->count[i] > 0)
                logits[i] -= s->s.presence_penalty + s->s.frequency_penalty * (float)s->count[i];
}

/* The first of the largest; what is no number never wins. In two passes over lanes, since this runs over the whole vocabulary for each token. */
static size_t largest(const float *logits, size_t n) {
    enum { LANES = 16 };
    float lane[LANES], best = -INFINITY;
    size_t i = 0;
    for (int l = 0; l < LANES; l++)
        lane[l] = -INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] = logits[i + l] > lane[l] ? logits[i + l] : lane[l];
    for (; i < n; i++)
        best = logits[i] > best ? logits[i] : best;
    for (int l = 0; l < LANES; l++)
        best = lane[l] > best ? lane[l] : best;
    for (i = 0; i < n; i++)
        if (logits[i] == best)
            return i;
    return 0;
}

/* Best first; among equals the lower id, so that the order is the same on every machine. */
static int by_logit(const void *a, const void *b) {
    const struct candidate *x = a, *y = b;
    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static bool better(struct candidate x, struct candidate y) {
    return x.logit > y.logit || (x.logit == y.logit && x.id < y.id);
}

/* Restore the heap (worst on top) below c[i]. */
static void sift_down(struct candidate *c, size_t n, size_t i) {
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && better(c[child], c[child + 1]))
            child++;
        if (better(c[child], c[i]))
            return;
        struct candidate t = c[i];
        c[i] = c[child];
        c[child] = t;
    }
}

/* Move the k best of c[n] to its front, in no order: the worst of those kept lies on top of a heap. k > 0. */
static void select_best(struct candidate *c, size_t n, size_t k) {
    for (size_t i = k / 2; i-- > 0;)
        sift_down(c, k, i);
    for (size_t i = k; i < n; i++)
        if (better(c[i], c[0])) {
            c[0] = c[i];
            sift_down(c, k, 0);
        }
}

/* The candidates that can be drawn: those whose weight is at least e^-20 (2e-9) of the best one's, limited to top-k.
 * Returns how many stand in front. They are sorted, best first, where top-p needs it or there are few. */
static size_t take_candidates(const struct sampler *s, const float *logits, struct candidate *c) {
    float best = logits[largest(logits, s->vocab)];
    float floor = best - 20 * s->s.temperature;
    size_t n = 0;
    for (size_t i = 0; i < s->vocab; i++)
        if (logits[i] >= floor)
            c[n++] = (struct candidate){logits[i], (int32_t)i};
    if (n == 0)
        return 0;
    if (s->s.top_k > 0 && (size_t)s->s.top_k < n) {
        select_best(c, n, (size_t)s->s.top_k);
        n = (size_t)s->s.top_k;
    }
    if (s->s.top_p < 1 || n < 4096)
        qsort(c, n, sizeof *c, by_logit);
    for (size_t i = 0; i < n; i++)
        c[i].logit = expf((c[i].logit - best) / s->s.temperature);
    return n;
}

int32_t sampler_choose(struct sampler *s, float *logits, struct candidate *c) {
    adjust_logits(s, logits);
    if (s->s.temperature <= 0)
        return (int32_t)largest(logits, s->vocab);
    size_t n = take_candidates(s, logits, c);
    if (n == 0) /* every logit is NaN or minus infinity: nothing to draw from */
        return (int32_t)largest(logits, s->vocab);
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += c[i].logit;
    if (s->s.top_p < 1) {
        double sum = 0;
        size_t kept = 0;
        while (kept < n && (kept == 0 || sum < s->s.top_p * total))
            sum += c[kept++].logit;
        n = kept;
        total = sum;
    }
    if (s->s.min_p > 0) {
        double sum = 0;
        size_t kept = 0;
        for (size_t i = 0; i < n; i++) /* the best has weight 1 before normalising */
            if (c[i].logit >= s->s.min_p) {
                c[kept++] = c[i];
                sum += c[kept - 1].logit;
            }
        n = kept;
        total = sum;
    }
    double draw = sampler_random(s) * total;
    for (size_t i = 0; i < n; i++)
        if ((draw -= c[i].logit) < 0)
            return c[i].id;
    return c[n - 1].id;
}

float sampler_logprobs(const float *logits, size_t vocab, int32_t id, uint32_t tops, int32_t *top_id,
                       float *top_logprob) {
    float best = logits[largest(logits, vocab)];
    double sum = 0;
    uint32_t have = 0;
    for (size_t i = 0; i < vocab; i++) {
        sum += (double)expf(logits[i] - best);
        if (tops == 0 || (have == tops && !(logits[i] > top_logprob[have - 1])))
            continue;
        uint32_t at = have < tops ? have++ : tops - 1;
        for (; at > 0 && logits[i] > top_logprob[at - 1]; at--) {
            top_logprob[at] = top_logprob[at - 1];
            top_id[at] = top_id[at - 1];
        }
        top_logprob[at] = logits[i];
        top_id[at] = (int32_t)i;
    }
    float norm = best + (float)log(sum);
    for (uint32_t i = 0; i < have; i++)
        top_logprob[i] -= norm;
    return logits[id] - norm;
}
