/* The scheduler without a chip: steps are made up, each of them costs the same, so that what is fair can be counted. */
#include "engine/schedule.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

enum { VOCAB = 8, PAGE_BYTES = 4096, MODELS = 2, STEP_NS = 1000 };

static struct world {
    struct schedule schedule;
    struct pool_model model[MODELS];
    struct batch batch;
    uint64_t numbers;
    int64_t now;
} w;

static void on_event(void *context, const struct engine_event *event) {
    (void)context;
    (void)event;
}

static void start(size_t pages) {
    struct error e;
    w = (struct world){.schedule = {.model = w.model, .models = MODELS, .max_running = 8}};
    kv_budget_start(&w.schedule.budget, pages * PAGE_BYTES);
    for (int i = 0; i < MODELS; i++) {
        struct chip_kv layout = {.page_bytes = PAGE_BYTES};
        assert_int_equal(kv_create(&w.model[i].kv, &w.schedule.budget, &layout, &e), 0);
    }
}

static struct sequence *add(int model, uint64_t account, uint32_t prompt, uint32_t most, uint32_t window) {
    token_id *token = calloc(prompt, sizeof *token);
    struct sequence *q;
    struct error e;
    for (uint32_t i = 0; i < prompt; i++)
        token[i] = (token_id)((w.numbers * 31 + i * i) % VOCAB);
    struct engine_request r = {.account = account,
                               .prompt = token,
                               .prompt_tokens = prompt,
                               .window = window,
                               .sampling = {.repetition_penalty = 1, .top_p = 1},
                               .on_event = on_event};
    assert_int_equal(sequence_create(&q, &r, most, VOCAB, &e), 0);
    q->model = &w.model[model];
    q->number = w.numbers++;
    q->submitted = q->waits_since = w.now;
    atomic_fetch_add(&w.schedule.waiting, 1);
    assert_int_equal(schedule_add(&w.schedule, q), 0);
    free(token);
    return q;
}

static void drop(struct sequence *q) {
    schedule_remove(&w.schedule, q);
    sequence_unref(q);
    sequence_unref(q);
}

static int64_t chip_ns(void) {
    int64_t ns = 0;
    for (int i = 0; i < MODELS; i++)
        for (const struct sequence *q = w.model[i].first; q != NULL; q = q->next)
            ns += q->chip_ns;
    return ns;
}

static void charge_step(int64_t ns) {
    int64_t before = chip_ns();
    w.now += ns;
    schedule_charge(&w.schedule, &w.batch, w.now, ns);
    assert_int_equal(chip_ns() - before, ns); /* nobody's time is lost, and nobody's counted twice */
}

static void charge(void) {
    charge_step(STEP_NS);
}

/* One step; which model's, or -1. Sequences grow by a token and stay when they are full. */
static int step(void) {
    struct batch *b = &w.batch;
    if (!schedule_next(&w.schedule, b, w.now))
        return -1;
    charge();
    for (uint32_t i = 0; i < b->sequences; i++) {
        struct sequence *q = b->sequence[i];
        sequence_advance(q, q->model->kv, q->rows);
        if (q->computed == q->tokens && q->completion < q->max_tokens) {
            q->token[q->tokens++] = 1;
            q->completion++;
        }
        q->rows = 0;
    }
    return (int)(b->model - w.model);
}

static void end(void) {
    for (int i = 0; i < MODELS; i++) {
        while (w.model[i].first != NULL)
            drop(w.model[i].first);
        kv_free(w.model[i].kv);
    }
    assert_int_equal(atomic_load(&w.schedule.waiting), 0);
    schedule_free(&w.schedule);
}

/* A client that did not read for a thousand steps has no thousand steps to its credit. */
static void test_blocked_model(void **state) {
    int by[MODELS] = {0};
    (void)state;
    start(400);
    struct sequence *slow = add(0, 1, 10, 1000, 1);
    add(1, 2, 10, 2000, 0);
    for (int i = 0; i < 1000; i++)
        step();
    assert_int_equal(slow->completion, 1);
    atomic_store(&slow->acked, 1000);
    for (int i = 0; i < 100; i++)
        by[step()]++;
    assert_in_range(by[0], 40, 60);
    assert_in_range(by[1], 40, 60);
    end();
}

/* The same for prompts of two accounts on one model: counted in the rows of each. */
static void test_blocked_account(void **state) {
    uint32_t rows[3] = {0};
    (void)state;
    start(2000);
    struct sequence *slow = add(0, 1, 10, 1000, 1);
    for (int i = 0; i < 40; i++) {
        struct sequence *busy = add(0, 2, 1000, 1, 0);
        while (busy->completion == 0)
            assert_int_equal(step(), 0);
        drop(busy);
    }
    assert_int_equal(slow->completion, 1);
    for (int i = 0; i < 3; i++)
        for (uint64_t account = 1; account <= 2; account++)
            add(0, account, 5000, 1, 0);
    for (int i = 0; i < 40; i++) {
        assert_true(schedule_next(&w.schedule, &w.batch, w.now));
        for (uint32_t k = 0; k < w.batch.sequences; k++)
            rows[w.batch.sequence[k]->account_number] += w.batch.sequence[k]->rows;
        charge();
        for (uint32_t k = 0; k < w.batch.sequences; k++) {
            sequence_advance(w.batch.sequence[k], w.model[0].kv, w.batch.sequence[k]->rows);
            w.batch.sequence[k]->rows = 0;
        }
    }
    assert_true(rows[1] < 2 * rows[2] && rows[2] < 2 * rows[1]);
    end();
}

/* Memory is short: a long request of one model starts although short ones of the other come without an end. */
static void test_memory_between_models(void **state) {
    struct sequence *shorter[3];
    (void)state;
    start(20);
    for (int i = 0; i < 3; i++)
        shorter[i] = add(1, 2, 100, 30 + 10 * (uint32_t)i, 0);
    step();
    struct sequence *longer = add(0, 1, 500, 10, 0);
    for (int i = 0; i < 1000 && longer->completion < 10; i++) {
        step();
        for (int k = 0; k < 3; k++)
            if (shorter[k]->completion == shorter[k]->max_tokens) {
                drop(shorter[k]);
                shorter[k] = add(1, 2, 100, 40, 0);
            }
    }
    assert_int_equal(longer->completion, 10);
    end();
}

/* A model that is not in memory makes no steps and keeps nobody out; one that is to leave goes on with what runs, and starts nothing. */
static void test_not_in_memory(void **state) {
    (void)state;
    start(20);
    struct sequence *runs = add(0, 1, 40, 100, 0);
    assert_int_equal(step(), 0);
    struct sequence *hungry = add(0, 1, 600, 10, 0);
    step();
    assert_ptr_equal(w.schedule.hungry, hungry);
    w.model[0].residence.closing = true;
    struct sequence *late = add(0, 1, 10, 10, 0), *other = add(1, 2, 40, 10, 0);
    for (int i = 0; i < 30; i++)
        step();
    assert_true(runs->completion >= 10);
    assert_true(!late->started && !hungry->started);
    assert_int_equal(other->completion, 10);
    drop(other);
    w.model[0].residence.state = COLD;
    uint32_t before = runs->completion;
    other = add(1, 2, 40, 10, 0);
    for (int i = 0; i < 10; i++)
        assert_int_equal(step(), 1);
    assert_int_equal(runs->completion, before);
    drop(other);
    assert_int_equal(step(), -1);
    w.model[0].residence = (struct residence){.state = RESIDENT};
    for (int i = 0; i < 300 && hungry->completion < 10; i++) {
        step();
        for (struct sequence *q = w.model[0].first, *next; q != NULL; q = next) {
            next = q->next;
            if (q != hungry && q->completion == q->max_tokens)
                drop(q);
        }
    }
    assert_int_equal(hungry->completion, 10);
    end();
}

/* A short prompt does not wait behind a long one of its account, and the long one is read although short ones that take all of a step come without an end. */
static void test_short_and_long(void **state) {
    struct sequence *longer, *shorter;
    int steps = 0;
    (void)state;
    start(2000);
    longer = add(0, 1, 4000, 1, 0);
    step();
    shorter = add(0, 1, 40, 1, 0);
    for (; shorter->completion == 0; steps++)
        step();
    assert_true(steps <= 2 && longer->completion == 0);
    for (steps = 0; longer->completion == 0; steps++) {
        assert_true(steps < 300);
        add(0, 1, 250, 1, 0);
        step();
        for (struct sequence *q = w.model[0].first, *next; q != NULL; q = next) {
            next = q->next;
            if (q != longer && q->completion == 1)
                drop(q);
        }
    }
    end();
}

/* Who asks now and then is read before who asks without end, not in turn with him; and any number of newcomers do not stop him for good. */
static void test_credit(void **state) {
    (void)state;
    start(4000);
    for (int i = 0; i < 3; i++)
        add(0, 2, 5000, 1, 0);
    for (int i = 0; i < 10; i++)
        step();
    struct sequence *rare = add(0, 1, 2048, 1, 0);
    for (int i = 0; i < 8; i++)
        step();
    assert_int_equal(rare->completion, 1);
    double level = w.schedule.level;
    assert_true(level > 0);
    for (uint64_t account = 3; account < 6; account++) {
        struct sequence *q = add(0, account, 100, 1, 0);
        assert_true(q->account->service >= level - 1e9);
    }
    end();
}

/* The chip's time of a step beside a prompt: each takes it in the relation of what it would cost alone; before the first token it is prefill. */
static void test_time_of_phases(void **state) {
    struct sequence *stream[4];
    int mixed = 0;
    (void)state;
    start(2000);
    for (int i = 0; i < 4; i++)
        stream[i] = add(0, 1, 10, 2000, 0);
    for (int i = 0; i < 1500; i++) {
        if (i % 50 == 49)
            add(0, 2, 200, 1, 0);
        assert_true(schedule_next(&w.schedule, &w.batch, w.now));
        const struct batch *b = &w.batch;
        int64_t before = stream[0]->chip_ns;
        bool decodes = stream[0]->completion > 0, both = b->prefill_rows > 0 && b->rows > b->prefill_rows;
        /* A row of anything costs a tenth of reading the weights, so four streams alone 14000. */
        int64_t whole = 10000 + 1000 * (int64_t)b->rows;
        charge_step(whole);
        if (both && i > 1000) {
            int64_t due = whole * 14000 / (14000 + 10000 + 1000 * b->prefill_rows) / 4;
            mixed++;
            assert_in_range(stream[0]->chip_ns - before, due * 9 / 10, due * 11 / 10);
        }
        for (uint32_t k = 0; k < b->sequences; k++) {
            struct sequence *q = b->sequence[k];
            sequence_advance(q, q->model->kv, q->rows);
            if (q->computed == q->tokens && q->completion < q->max_tokens) {
                q->token[q->tokens++] = 1;
                q->completion++;
            }
            q->rows = 0;
        }
        if (decodes)
            assert_true(stream[0]->prefill_ns < stream[0]->chip_ns);
        for (struct sequence *q = w.model[0].first, *next; q != NULL; q = next) {
            next = q->next;
            if (q->completion < q->max_tokens)
                continue;
            assert_int_equal(q->prefill_ns, q->chip_ns);
            drop(q);
        }
    }
    assert_true(mixed > 0);
    end();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocked_model),         cmocka_unit_test(test_blocked_account),
        cmocka_unit_test(test_memory_between_models), cmocka_unit_test(test_not_in_memory),
        cmocka_unit_test(test_short_and_long),        cmocka_unit_test(test_credit),
        cmocka_unit_test(test_time_of_phases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
