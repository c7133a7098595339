/* The sampler's distribution, its penalties, log-probabilities; stop strings and characters that straddle tokens. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/sampler.h"
#include "engine/textstream.h"
#include "base/utf8.h"

static const struct sampling PLAIN = {.temperature = 1, .top_p = 1, .repetition_penalty = 1, .seed = 7};

/* Draw n times from fixed logits; histogram in count. */
static void draw(struct sampling s, const float *logits, size_t vocab, int n, int *count) {
    struct sampler *sampler = sampler_create(&s, vocab);
    float *copy = malloc(vocab * sizeof *copy);
    struct candidate *space = malloc(vocab * sizeof *space);
    memset(count, 0, vocab * sizeof *count);
    for (int i = 0; i < n; i++) {
        memcpy(copy, logits, vocab * sizeof *copy);
        count[sampler_choose(sampler, copy, space)]++;
    }
    free(copy);
    free(space);
    sampler_free(sampler);
}

static void test_distribution(void **state) {
    enum { N = 50 };
    float logits[N];
    int count[N];
    double total = 0, chi2 = 0;
    (void)state;
    for (int i = 0; i < N; i++) {
        logits[i] = (float)sin(i) * 2;
        total += exp(logits[i]);
    }
    draw(PLAIN, logits, N, 100000, count);
    for (int i = 0; i < N; i++) {
        double expected = 100000 * exp(logits[i]) / total;
        chi2 += (count[i] - expected) * (count[i] - expected) / expected;
    }
    assert_true(chi2 < 94); /* 49 degrees of freedom, p = 10^-4; the seed is fixed */
}

static void test_filters(void **state) {
    static const float logits[] = {1, 3, 2, 3, -50, 0};
    int count[6];
    struct sampling s = PLAIN;
    (void)state;
    s.top_k = 2;
    draw(s, logits, 6, 1000, count);
    assert_int_equal(count[1] + count[3], 1000);
    assert_true(count[1] > 400 && count[3] > 400);
    s = PLAIN;
    s.top_p = 0.5f; /* the two best hold 0.36 each */
    draw(s, logits, 6, 1000, count);
    assert_int_equal(count[1] + count[3], 1000);
    s = PLAIN;
    s.min_p = 0.3f; /* e^-1 = 0.37 stays, e^-2 goes */
    draw(s, logits, 6, 1000, count);
    assert_int_equal(count[0] + count[5] + count[4], 0);
    assert_true(count[2] > 100);
    s = PLAIN;
    s.temperature = 0;
    draw(s, logits, 6, 10, count);
    assert_int_equal(count[1], 10); /* the lower id among equals */
}

static void test_penalties(void **state) {
    struct sampling s = PLAIN;
    float logits[3] = {1, 0.5f, 0};
    struct candidate space[3];
    struct logit_bias bias = {2, 100};
    (void)state;
    s.temperature = 0;
    s.presence_penalty = 2;
    struct sampler *p = sampler_create(&s, 3);
    sampler_see(p, 0, true); /* the prompt does not count here */
    assert_int_equal(sampler_choose(p, logits, space), 0);
    sampler_see(p, 0, false);
    assert_int_equal(sampler_choose(p, logits, space), 1);
    sampler_free(p);
    s = PLAIN;
    s.temperature = 0;
    s.bias = &bias;
    s.biases = 1;
    p = sampler_create(&s, 3);
    assert_int_equal(sampler_choose(p, logits, space), 2);
    sampler_free(p);
    float two[2] = {1, 0.9f};
    s = PLAIN;
    s.temperature = 0;
    s.repetition_penalty = 1.5f;
    p = sampler_create(&s, 2);
    sampler_see(p, 0, true);
    assert_int_equal(sampler_choose(p, two, space), 1);
    sampler_free(p);
}

static void test_large_vocabulary(void **state) {
    enum { N = 100000 };
    float *logits = malloc(N * sizeof *logits);
    int *count = malloc(N * sizeof *count);
    struct sampling s = PLAIN;
    (void)state;
    for (int i = 0; i < N; i++)
        logits[i] = (float)((i * 7919) % N) * 1e-5f;
    s.top_k = 5;
    draw(s, logits, N, 200, count);
    int total = 0;
    for (int i = 0; i < N; i++)
        if (count[i] > 0) {
            assert_true((i * 7919LL) % N >= 0);
            total += count[i];
        }
    assert_int_equal(total, 200);
    free(logits);
    free(count);
}

static void test_logprobs(void **state) {
    static const float logits[] = {1, 3, 2, 3, -50, 0};
    int32_t id[3];
    float lp[3];
    (void)state;
    double norm = log(exp(1) + 2 * exp(3) + exp(2) + exp(-50) + 1);
    float own = sampler_logprobs(logits, 6, 2, 3, id, lp);
    assert_true(fabs(own - (2 - norm)) < 1e-5);
    assert_int_equal(id[0], 1);
    assert_int_equal(id[1], 3);
    assert_int_equal(id[2], 2);
    assert_true(fabs(lp[0] - (3 - norm)) < 1e-5);
}

static void feed(const char *const *pieces, const struct str *stops, size_t n, const char *expected,
                 bool expect_stop) {
    struct textstream t = {.stop = stops, .stops = n};
    struct buf out = {0};
    bool stopped = false;
    for (; *pieces != NULL && !stopped; pieces++) {
        stopped = textstream_push(&t, str_from(*pieces));
        textstream_take(&t, &out);
        assert_int_equal(utf8_incomplete_tail(buf_view(&out)), 0);
    }
    if (!stopped) {
        textstream_end(&t);
        textstream_take(&t, &out);
    }
    assert_int_equal(stopped, expect_stop);
    assert_string_equal(out.p ? out.p : "", expected);
    buf_free(&out);
    textstream_free(&t);
}

static void test_stop_strings(void **state) {
    const struct str stops[] = {STR("END"), STR("\n\n")};
    (void)state;
    feed((const char *[]){"abc", "E", "N", "D", "x", NULL}, stops, 2, "abc", true);
    feed((const char *[]){"abc", "EN", "ENd", NULL}, stops, 2, "abcENENd", false);
    feed((const char *[]){"EEND", NULL}, stops, 2, "E", true);
    feed((const char *[]){"a\n", "\nb", NULL}, stops, 2, "a", true);
    feed((const char *[]){"a\n", "b\n", NULL}, stops, 2, "a\nb\n", false);
    feed((const char *[]){"\xE3", "\x81", "\x82", "\xE3", NULL}, stops, 2, "\xE3\x81\x82\xEF\xBF\xBD", false);
    feed((const char *[]){"xENDy\n\n", NULL}, stops, 2, "x", true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_distribution), cmocka_unit_test(test_filters),
        cmocka_unit_test(test_penalties),    cmocka_unit_test(test_large_vocabulary),
        cmocka_unit_test(test_logprobs),     cmocka_unit_test(test_stop_strings),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
