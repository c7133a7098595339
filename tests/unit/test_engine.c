/* The engine on a real model (skipped where there is none): greedy output does not depend on company, memory or chunks; prefixes are shared inside an
 * account only; windows, cancellation, the queue's bound, stop strings, a file truncated under it. */
#include "engine/engine.h"

#include "base/clock.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char model_path[4000];

/* What one request has brought so far. */
struct answer {
    struct sequence *sequence;
    struct buf text;
    uint32_t tokens, cached, acked;
    bool ended;
    enum finish_reason reason;
    char error[400];
    pthread_mutex_t lock;
    pthread_cond_t changed;
};

static void on_event(void *context, const struct engine_event *event) {
    struct answer *a = context;
    pthread_mutex_lock(&a->lock);
    buf_str(&a->text, event->text);
    a->tokens += event->tokens;
    if (event->kind == EVENT_FINISH) {
        a->reason = event->reason;
        a->cached = event->cached_tokens;
        assert_int_equal(a->tokens, event->completion_tokens);
        if (event->error != NULL)
            snprintf(a->error, sizeof a->error, "%s", event->error->text);
        a->ended = true;
    }
    pthread_cond_broadcast(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

static struct engine *start(size_t kv_bytes, uint32_t running, uint32_t waiting, const char *path) {
    struct engine *g;
    struct error e = {0};
    struct engine_options o = {.kv_bytes = kv_bytes, .max_running = running, .max_waiting = waiting};
    assert_int_equal(engine_create(&g, &o, &e), 0);
    if (engine_add_model(g, "m", path, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(engine_start(g, &e), 0);
    return g;
}

static void ask(struct engine *g, struct answer *a, const char *prompt, uint64_t account, uint32_t most,
                uint32_t window, const char *stop) {
    struct error e = {0};
    struct tokens t = {0};
    struct segment s = {.text = str_from(prompt)};
    struct str stops = str_from(stop);
    *a = (struct answer){0};
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->changed, NULL);
    assert_int_equal(
        tokenizer_encode(engine_model(g, STR("m"))->tokenizer, &s, 1, TOKENIZER_ADD_SPECIAL, &t, &e), 0);
    struct engine_request r = {.model = STR("m"),
                               .account = account,
                               .prompt = t.id,
                               .prompt_tokens = t.n,
                               .max_tokens = most,
                               .sampling = {.top_p = 1, .repetition_penalty = 1},
                               .stop = &stops,
                               .stops = stop != NULL,
                               .ignore_eos = true,
                               .window = window,
                               .on_event = on_event,
                               .context = a};
    if (engine_submit(g, &r, &a->sequence, &e) != 0)
        snprintf(a->error, sizeof a->error, "%d", e.code);
    tokens_free(&t);
}

static void await(struct answer *a, uint32_t tokens) {
    pthread_mutex_lock(&a->lock);
    while (!a->ended && a->tokens < tokens)
        pthread_cond_wait(&a->changed, &a->lock);
    pthread_mutex_unlock(&a->lock);
}

static void finish(struct engine *g, struct answer *a) {
    await(a, UINT32_MAX);
    engine_release(g, a->sequence);
}

static void forget(struct answer *a) {
    buf_free(&a->text);
}

static const char *const prompts[] = {
    "The capital of France is",
    "Once upon a time there was a small dog who lived in a large house with many rooms and a garden. One day",
    "def fibonacci(n):\n    ",
    "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26,",
    "Water is made of",
    "The quick brown fox",
    "In the year 1969, people went to the moon. In the year",
    "My favourite colour is",
};
enum { PROMPTS = sizeof prompts / sizeof *prompts, LENGTH = 40 };

static void test_same_in_any_company(void **state) {
    struct answer alone[PROMPTS], together[PROMPTS];
    struct engine *g = start(256 << 20, 0, 0, model_path);
    for (int i = 0; i < PROMPTS; i++) {
        ask(g, &alone[i], prompts[i], 1, LENGTH, 0, NULL);
        finish(g, &alone[i]);
        assert_int_equal(alone[i].reason, FINISH_LENGTH);
        assert_int_equal(alone[i].tokens, LENGTH);
    }
    engine_free(g);
    /* The second round has memory for a few sequences only: some are paused and go on later. */
    const size_t bytes[] = {256 << 20, 7 << 20};
    for (int round = 0; round < 2; round++) {
        struct engine_stats stats;
        g = start(bytes[round], 0, 0, model_path);
        for (int i = 0; i < PROMPTS; i++)
            ask(g, &together[i], prompts[i], (uint64_t)i % 3, LENGTH, 0, NULL);
        for (int i = 0; i < PROMPTS; i++) {
            finish(g, &together[i]);
            assert_string_equal(together[i].text.p, alone[i].text.p);
            forget(&together[i]);
        }
        engine_stats(g, &stats);
        print_message("%zu MiB: %lu steps, %lu preempted\n", bytes[round] >> 20, (unsigned long)stats.steps,
                      (unsigned long)stats.preempted);
        engine_free(g);
    }
    for (int i = 0; i < PROMPTS; i++)
        forget(&alone[i]);
}

static void test_prefixes(void **state) {
    struct buf prompt = {0};
    struct answer a[4];
    struct engine *g = start(256 << 20, 0, 0, model_path);
    for (int i = 0; i < 40; i++)
        buf_printf(&prompt, "Line %d of a prompt that is shared. ", i);
    ask(g, &a[0], prompt.p, 7, 4, 0, NULL);
    finish(g, &a[0]);
    ask(g, &a[1], prompt.p, 7, 4, 0, NULL);
    finish(g, &a[1]);
    ask(g, &a[2], prompt.p, 8, 4, 0, NULL);
    finish(g, &a[2]);
    assert_int_equal(a[0].cached, 0);
    assert_true(a[1].cached > 200 && a[1].cached % KV_PAGE_TOKENS == 0);
    assert_int_equal(a[2].cached, 0);
    assert_string_equal(a[0].text.p, a[1].text.p);
    /* Two at once: the second waits for the first one's pages instead of computing them again. */
    buf_text(&prompt, "And more.");
    ask(g, &a[3], prompt.p, 9, 4, 0, NULL);
    forget(&a[1]);
    ask(g, &a[1], prompt.p, 9, 4, 0, NULL);
    finish(g, &a[3]);
    finish(g, &a[1]);
    assert_true(a[3].cached + a[1].cached > 200);
    assert_string_equal(a[3].text.p, a[1].text.p);
    for (int i = 0; i < 4; i++)
        forget(&a[i]);
    buf_free(&prompt);
    engine_free(g);
}

static void test_window_cancel_stop(void **state) {
    struct answer a, b;
    struct engine *g = start(256 << 20, 0, 0, model_path);
    ask(g, &a, prompts[0], 1, 64, 8, NULL);
    await(&a, 8);
    usleep(50000);
    assert_int_equal(a.tokens, 8); /* it waits for its client */
    engine_ack(g, a.sequence, 8);
    await(&a, 16);
    engine_cancel(g, a.sequence);
    finish(g, &a);
    assert_int_equal(a.reason, FINISH_CANCELLED);
    assert_true(a.tokens <= 16);
    ask(g, &a, prompts[3], 1, 64, 0, NULL);
    finish(g, &a);
    ask(g, &b, prompts[3], 1, 64, 0, " 31, 3"); /* straddles tokens */
    finish(g, &b);
    assert_int_equal(b.reason, FINISH_STOP);
    assert_null(strstr(b.text.p, "31, 3"));
    assert_memory_equal(a.text.p, b.text.p, b.text.n);
    forget(&a);
    forget(&b);
    engine_free(g);
}

static void test_queue_is_bounded(void **state) {
    struct answer a[8];
    int busy = 0;
    struct engine *g = start(256 << 20, 1, 2, model_path);
    for (int i = 0; i < 8; i++) {
        ask(g, &a[i], prompts[i], 1, 30, 0, NULL);
        busy += a[i].sequence == NULL && atoi(a[i].error) == ERR_BUSY;
    }
    assert_true(busy >= 4);
    assert_true(engine_retry_after(g) >= 1);
    for (int i = 0; i < 8; i++) {
        if (a[i].sequence != NULL)
            finish(g, &a[i]);
        forget(&a[i]);
    }
    engine_free(g);
}

/* One account floods; the other's request is not behind all of that. */
static void test_fair(void **state) {
    struct answer flood[24], other;
    int ended = 0;
    struct engine *g = start(256 << 20, 4, 64, model_path);
    for (int i = 0; i < 24; i++)
        ask(g, &flood[i], prompts[i % PROMPTS], 1, 60, 0, NULL);
    await(&flood[0], 5);
    ask(g, &other, prompts[1], 2, 10, 0, NULL);
    finish(g, &other);
    for (int i = 0; i < 24; i++)
        ended += flood[i].ended;
    assert_true(ended < 8);
    engine_stop(g);
    for (int i = 0; i < 24; i++) {
        finish(g, &flood[i]);
        forget(&flood[i]);
    }
    forget(&other);
    engine_free(g);
}

static void test_file_truncated(void **state) {
    char path[] = "/tmp/unkai-test-XXXXXX", command[5000];
    struct answer a, b;
    int fd = mkstemp(path);
    snprintf(command, sizeof command, "cp '%s' %s", model_path, path);
    assert_int_equal(system(command), 0);
    struct engine *g = start(256 << 20, 0, 0, path);
    struct error e = {0};
    assert_int_equal(engine_add_model(g, "other", model_path, &e), ERR_UNAVAILABLE); /* too late: it runs */
    ask(g, &a, prompts[0], 1, 20, 0, NULL);
    finish(g, &a);
    assert_int_equal(a.reason, FINISH_LENGTH);
    assert_int_equal(ftruncate(fd, 4096), 0);
    ask(g, &b, prompts[1], 1, 20, 0, NULL);
    finish(g, &b);
    assert_int_equal(b.reason, FINISH_FAILED);
    assert_non_null(strstr(b.error, "truncated"));
    assert_true(engine_model_failed(g, STR("m"), &e));
    forget(&b);
    ask(g, &b, prompts[1], 1, 20, 0, NULL);
    assert_null(b.sequence);
    assert_int_equal(atoi(b.error), ERR_UNAVAILABLE);
    forget(&a);
    forget(&b);
    engine_free(g);
    close(fd);
    unlink(path);
}

int main(void) {
    const char *folder = getenv("UNKAI_MODELS");
    snprintf(model_path, sizeof model_path, "%s/smollm2-135m-q4_1.gguf", folder ? folder : ".");
    if (access(model_path, R_OK) != 0) {
        printf("skipped: there is no %s; ./run test fetches it\n", model_path);
        return 77;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_in_any_company),
        cmocka_unit_test(test_prefixes),
        cmocka_unit_test(test_window_cancel_stop),
        cmocka_unit_test(test_queue_is_bounded),
        cmocka_unit_test(test_fair),
        cmocka_unit_test(test_file_truncated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
