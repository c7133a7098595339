/* The model of a step's cost against a chip that is made up: it finds costs it was never shown as such, follows a machine that changes, keeps what it has not
 * seen for long, and shrugs off a step that the system interrupted. */
#include "engine/cost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static uint64_t seed = 1;

static uint32_t draw(uint32_t n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % n;
}

/* Nanoseconds on a chip that is `slow` times slower than one with round numbers; up to 12 rows hide behind the weights' reading. */
static double truth(const struct cost_step *s, double slow) {
    double arithmetic = 700e3 * s->rows;
    return slow * (fmax(8e6, arithmetic) + 300e3 * s->rows + 50e3 * s->logits +
                   100 * (double)s->decode_context + 40 * (double)s->prefill_context);
}

static struct cost_step decode(uint32_t rows) {
    return (struct cost_step){
        .rows = rows, .logits = rows, .decode_context = (uint64_t)rows * (100 + draw(1000))};
}

static struct cost_step with_prompt(uint32_t rows, uint32_t prompt) {
    struct cost_step s = decode(rows);
    s.rows += prompt;
    s.prefill_context = (uint64_t)prompt * draw(2000);
    return s;
}

static void see(struct cost *c, struct cost_step s, double slow) {
    cost_learn(c, &s, truth(&s, slow) * (0.95 + draw(100) * 1e-3)); /* within 5% */
}

static void teach(struct cost *c, int steps, double slow) {
    for (int i = 0; i < steps; i++)
        see(c, i % 2 ? with_prompt(draw(32), 16 + draw(200)) : decode(1 + draw(32)), slow);
}

static void assert_knows(const struct cost *c, struct cost_step s, double slow, double within) {
    double share = cost_predict(c, &s) / truth(&s, slow);
    if (!(share > 1 - within && share < 1 + within))
        fail_msg("%u rows: %.2f of the true cost", s.rows, share);
}

static void test_learns(void **state) {
    struct cost c = {0};
    (void)state;
    struct cost_step one = decode(1);
    assert_true(cost_predict(&c, &one) == 0);
    see(&c, one, 1);
    assert_knows(&c, one, 1, 0.3);
    teach(&c, 200, 1);
    for (uint32_t rows = 1; rows <= 32; rows++)
        assert_knows(&c, decode(rows), 1, 0.25);
    for (uint32_t rows = 32; rows <= 256; rows += 32)
        assert_knows(&c, with_prompt(rows % 33, rows), 1, 0.15);
}

/* Every term stays at least 0, so that more work never looks cheaper. */
static void test_more_costs_more(void **state) {
    struct cost c = {0};
    (void)state;
    for (int i = 0; i < 300; i++) {
        struct cost_step s = with_prompt(draw(32), 1 + draw(200));
        cost_learn(&c, &s, 1 + draw(1000000)); /* noise alone */
        double before = 0;
        for (uint32_t rows = 1; rows < 300; rows += 7) {
            double now = cost_predict(&c, &(struct cost_step){.rows = rows});
            assert_true(now >= before && isfinite(now));
            before = now;
        }
    }
}

static void test_machine_changes(void **state) {
    struct cost c = {0};
    (void)state;
    teach(&c, 300, 1);
    teach(&c, 1500, 2.5);
    assert_knows(&c, decode(16), 2.5, 0.25);
    assert_knows(&c, with_prompt(8, 128), 2.5, 0.15);
}

/* A day of streams without a prompt. */
static void test_keeps_what_is_rare(void **state) {
    struct cost c = {0};
    (void)state;
    teach(&c, 300, 1);
    for (int i = 0; i < 100000; i++)
        see(&c, decode(16), 1);
    assert_knows(&c, decode(16), 1, 0.1);
    assert_knows(&c, with_prompt(16, 128), 1, 0.25);
}

static void test_interrupted_step(void **state) {
    struct cost c = {0};
    (void)state;
    teach(&c, 300, 1);
    struct cost_step s = decode(8);
    cost_learn(&c, &s, 100 * truth(&s, 1));
    assert_knows(&c, s, 1, 0.3);
}

/* Whatever a step is cut into, its parts are what it costs. */
static void test_parts(void **state) {
    struct cost c = {0};
    (void)state;
    for (int i = 0; i < 300; i++) {
        struct cost_step all = with_prompt(1 + draw(32), 1 + draw(200)), rest = all;
        double sum = 0, whole = c.steps != 0 ? cost_predict(&c, &all) : all.rows;
        while (rest.rows > 0) {
            uint32_t rows = 1 + draw(rest.rows), logits = draw(rest.logits + 1);
            uint64_t decoded = rest.decode_context / 2, read = rest.prefill_context / 3;
            struct cost_step part = rest;
            if (rows < rest.rows)
                part = (struct cost_step){rows, logits, decoded, read};
            sum += cost_part(&c, &all, &part);
            rest.rows -= part.rows;
            rest.logits -= part.logits;
            rest.decode_context -= part.decode_context;
            rest.prefill_context -= part.prefill_context;
        }
        assert_true(fabs(sum - whole) <= 1e-9 * whole);
        see(&c, all, 1);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learns),           cmocka_unit_test(test_more_costs_more),
        cmocka_unit_test(test_machine_changes),  cmocka_unit_test(test_keeps_what_is_rare),
        cmocka_unit_test(test_interrupted_step), cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
