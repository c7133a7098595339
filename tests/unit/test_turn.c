/* Turns and the credit of prompts on a made-up chip with a clock of its own (bench/virtual.h): streams keep their pace while prompts arrive, rows of a rarely used model are
 * gathered, nobody starves, and a market of 24 models keeps its service level. */
#include "bench/report.h"
#include "bench/virtual.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

enum { STREAMS = 32, PROMPT = 2000, PAGES = 5800, MOST_TOKENS = 60000, MOST_GAPS = 1 << 20 };

static struct virtual v;
static double gap[MOST_GAPS];
static const struct virtual_cost *const mixed[] = {&virtual_large, &virtual_small, &virtual_small,
                                                   &virtual_small, &virtual_large};

static void start(const struct virtual_cost *const *cost, size_t models) {
    struct error e;
    assert_int_equal(virtual_start(&v, cost, models, 64, PAGES, &e), 0);
}

static struct virtual_request *ask(uint32_t model, uint64_t account, uint32_t prompt, uint32_t tokens) {
    struct virtual_request *r = virtual_ask(&v, model, account, v.now, 0, prompt, tokens);
    assert_non_null(r);
    return r;
}

static void run(double seconds) {
    for (int64_t until = v.now + (int64_t)(seconds * 1e9); v.now < until;)
        assert_true(virtual_step(&v) >= 0);
}

/* Gaps between tokens that came after `since`, of all requests with more than a few tokens. */
static struct spread gaps(int64_t since) {
    size_t n = 0;
    for (const struct virtual_request *r = v.request; r != NULL; r = r->next)
        for (uint32_t i = 1; i < r->tokens && n < MOST_GAPS; i++)
            if (r->at[i - 1] >= since)
                gap[n++] = (double)(r->at[i] - r->at[i - 1]);
    return spread_of(gap, n);
}

static double worst_gap(const struct virtual_request *r) {
    double worst = 0;
    for (uint32_t i = 1; i < r->tokens; i++)
        if ((double)(r->at[i] - r->at[i - 1]) > worst)
            worst = (double)(r->at[i] - r->at[i - 1]);
    return worst;
}

/* 32 streams of mixed age, of five accounts; all have begun, and the costs of prompts are known. */
static void start_streams(uint32_t model) {
    struct virtual_request *last = NULL;
    for (uint32_t i = 0; i < STREAMS; i++)
        last = ask(model, i % 5, 20 + i * 25, MOST_TOKENS);
    while (last->tokens < 50)
        assert_true(virtual_step(&v) >= 0);
}

static double alone(uint32_t model) {
    return PROMPT * v.cost[model]->row + 0.5 * PROMPT * PROMPT * v.cost[model]->prompt_token;
}

/* Prompts of 2,000 tokens, `together` at a time, with pauses of so many times what they need alone. 99% of the streams' gaps are below three times the median, and
 * a prompt is read in little more than three times what it needs alone, of another model 4.5 times. */
static void keep_pace(uint32_t streams, uint32_t prompts, uint32_t together, double pause) {
    double longest = 0;
    start(mixed, sizeof mixed / sizeof *mixed);
    start_streams(streams);
    int64_t since = v.now;
    for (uint32_t i = 0; i * together < 8; i++) {
        struct virtual_request *r[4];
        for (uint32_t k = 0; k < together; k++)
            r[k] = ask(prompts, 9 + k, PROMPT, 1);
        for (uint32_t k = 0; k < together; k++)
            while (r[k]->sequence != NULL)
                assert_true(virtual_step(&v) >= 0);
        double took = (double)(v.now - r[0]->asked) / together;
        longest = took > longest ? took : longest;
        run(pause * alone(prompts) * 1e-9);
    }
    struct spread s = gaps(since);
    if (s.n < 1000 || s.p99 >= 3 * s.p50 || longest >= (streams == prompts ? 3.3 : 4.5) * alone(prompts))
        fail_msg("streams of %u, prompts of %u, %u together, pause %.1f: gaps p50 %.1f p99 %.1f ms, a prompt "
                 "took %.2f times as long",
                 streams, prompts, together, pause, s.p50 * 1e-6, s.p99 * 1e-6, longest / alone(prompts));
    virtual_end(&v);
}

static void test_streams_keep_pace(void **state) {
    static const struct {
        uint32_t streams, prompts;
    } pair[] = {
        {0, 0}, {1, 1}, {0, 4}, {0, 1}, {1, 2}}; /* the same model, another one as large, a smaller one */
    (void)state;
    for (size_t i = 0; i < sizeof pair / sizeof *pair; i++)
        for (uint32_t together = 1; together <= 4; together += 3) {
            keep_pace(pair[i].streams, pair[i].prompts, together, 0);
            keep_pace(pair[i].streams, pair[i].prompts, together, 0.3);
            keep_pace(pair[i].streams, pair[i].prompts, together, 4);
        }
}

/* Streams of a small model beside prompts of a large one: a page of it takes longer than three of their steps, but not as long as the service level. */
static void test_large_prompts_beside_small_streams(void **state) {
    (void)state;
    start(mixed, 2);
    start_streams(1);
    int64_t since = v.now;
    struct virtual_request *r = ask(0, 9, PROMPT, 1);
    while (r->sequence != NULL)
        assert_true(virtual_step(&v) >= 0);
    assert_true(gaps(since).most < 200e6);
    assert_true((double)(r->at[0] - r->asked) < 3 * alone(0));
    virtual_end(&v);
}

/* Prompts without a pause leave the streams a quarter of the chip at least, and get two fifths of it themselves. */
static void test_flood_of_prompts(void **state) {
    struct virtual_request *r = NULL;
    uint32_t read = 0;
    (void)state;
    start(mixed, 1);
    start_streams(0);
    run(1);
    uint64_t before = v.decoded[0];
    int64_t begin = v.now;
    for (; v.now < begin + (int64_t)60e9; virtual_step(&v))
        if (r == NULL || r->sequence == NULL) {
            r = ask(0, 9, PROMPT, 1);
            read++;
        }
    assert_true((double)(v.decoded[0] - before) / STREAMS * 85e6 > 15e9);
    assert_true(read * alone(0) > 24e9);
    virtual_end(&v);
}

/* One stream of a rarely used model beside 32 of another: it steps less often than they do, within its service level. What comes beside it shares its steps. */
static void test_rare_rows_are_gathered(void **state) {
    (void)state;
    start(mixed, 5);
    start_streams(0);
    for (int i = 0; i < 8; i++)
        ask(1, (uint64_t)i % 4, 50, MOST_TOKENS);
    struct virtual_request *rare = ask(4, 7, 50, 3000);
    while (rare->tokens == 0)
        virtual_step(&v);
    uint64_t hot = v.steps[1], cold = v.steps[4];
    run(30);
    assert_true(v.steps[4] - cold < v.steps[1] - hot);
    assert_true(worst_gap(rare) < 200e6);
    for (int i = 0; i < 3; i++)
        ask(4, 7, 50, 3000);
    run(5);
    uint64_t steps = v.steps[4], rows = v.decoded[4];
    run(30);
    assert_true((double)(v.decoded[4] - rows) > 3.9 * (double)(v.steps[4] - steps));
    virtual_end(&v);
}

static void test_alone_it_never_waits(void **state) {
    (void)state;
    start(mixed, 5);
    struct virtual_request *r = ask(4, 7, 50, 100);
    while (r->sequence != NULL)
        assert_int_equal(virtual_step(&v), 4);
    assert_true((double)v.now < 100 * 12e6 + 50 * 2.5e6);
    virtual_end(&v);
}

/* Streams alone take longer than the service level: prompts are read all the same, of a model with streams and of one without. */
static void test_nobody_starves(void **state) {
    const struct virtual_cost *cost[24];
    (void)state;
    for (int i = 0; i < 24; i++)
        cost[i] = &virtual_large;
    start(cost, 24);
    for (uint32_t i = 0; i < 40; i++)
        ask(i % 20, i, 50, 2000);
    run(20);
    struct virtual_request *with = ask(0, 100, 500, 1), *without = ask(23, 101, 500, 1);
    run(20);
    assert_true(with->sequence == NULL && without->sequence == NULL);
    for (const struct virtual_request *r = v.request; r != NULL; r = r->next)
        assert_true(r->tokens > 0);
    virtual_end(&v);
}

/* ---- the market ---- */

struct tally {
    size_t sent, late;
};

/* 24 models, six of them large, the two hot ones small; a request every two seconds in bursts. Of every model. */
static void test_market(void **state) {
    const struct virtual_cost *cost[24];
    struct tally of[24] = {{0}};
    struct load l;
    struct error e;
    char traces[4096];
    const char *shared = getenv("UNKAI_SHARED");
    const struct workload *w = workload_find("market");
    (void)state;
    if (shared == NULL)
        skip();
    snprintf(traces, sizeof traces, "%s/traces", shared);
    assert_int_equal(load_make(&l, w, traces, 0.5, 1000, 24, 3, &e), 0);
    for (int i = 0; i < 24; i++)
        cost[i] = i >= 2 && i < 8 ? &virtual_large : &virtual_small;
    start(cost, 24);
    struct virtual_request **r = calloc(l.n, sizeof *r);
    for (size_t i = 0; i < l.n || v.schedule.weights != 0;) {
        for (; i < l.n && l.request[i].at * 1e9 <= (double)v.now; i++) {
            const struct request *q = &l.request[i];
            r[i] = virtual_ask(&v, q->model, q->tenant, (int64_t)(q->at * 1e9), q->shared, q->own, q->output);
            assert_non_null(r[i]);
        }
        if (virtual_step(&v) < 0 && i < l.n)
            v.now = (int64_t)(l.request[i].at * 1e9) + 1;
    }
    for (size_t i = 0; i < l.n; i++) {
        struct tally *t = &of[l.request[i].model];
        t->sent++;
        t->late += (double)(r[i]->at[0] - r[i]->asked) > w->first_s * 1e9 || worst_gap(r[i]) > w->gap_s * 1e9;
    }
    for (int i = 0; i < 24; i++) /* a rarely used one has a request or two */
        if (of[i].late > of[i].sent / 50)
            fail_msg("model %d: %zu of %zu late", i, of[i].late, of[i].sent);
    free(r);
    load_free(&l);
    virtual_end(&v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams_keep_pace),
        cmocka_unit_test(test_large_prompts_beside_small_streams),
        cmocka_unit_test(test_flood_of_prompts),
        cmocka_unit_test(test_rare_rows_are_gathered),
        cmocka_unit_test(test_alone_it_never_waits),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_market),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
