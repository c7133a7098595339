/* Guessed tokens: the lookup, what guesses are worth, and an engine that guesses always beside one that never does: the same tokens, logprobs, texts and ends, to the
 * last bit, however it draws, in company, in little memory and with slow clients. */
#include "engine/engine.h"
#include "engine/schedule.h"

#include "tiny_model.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>

#include <cmocka.h>

enum { MOST = 400, BIASES = 4, PAGE_BYTES = KV_PAGE_TOKENS * TINY_LAYERS * TINY_KV * 2 * 2 };

static char tiny[] = "/tmp/unkai-tiny-XXXXXX";

static uint32_t draw(uint64_t *random, uint32_t below) {
    *random = *random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*random >> 33) % below;
}

/* ---- the lookup ---- */

static void push_text(struct lookup *l, token_id *token, const char *text) {
    for (; *text != 0; text++) {
        token[l->tokens] = *text;
        lookup_push(l, token, l->tokens + 1);
    }
}

static void assert_guess(const struct lookup *l, token_id *token, const char *text) {
    uint32_t n = (uint32_t)strlen(text);
    assert_true(lookup_chance(l, 0) > 0);
    lookup_draft(l, token, n);
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(token[l->tokens + i], text[i]);
}

static void test_lookup(void **state) {
    struct lookup l;
    token_id token[MOST];
    assert_int_equal(lookup_create(&l, MOST), 0);
    push_text(&l, token, "the quick brown fox");
    assert_true(lookup_chance(&l, 0) == 0); /* nothing has come twice */
    push_text(&l, token, " jumps. the qu");
    assert_guess(&l, token, "ick brown fox jumps. the qu"); /* and over its own end */
    push_text(&l, token, "ick bl");
    assert_int_equal(l.length, 0);
    assert_guess(&l, token, "own fox"); /* behind the letter that was changed */
    double doubtful = lookup_chance(&l, 0);
    push_text(&l, token, "own fox jumps");
    assert_guess(&l, token, ". the quick");
    assert_true(lookup_chance(&l, 0) > doubtful);
    lookup_free(&l);

    assert_int_equal(lookup_create(&l, MOST), 0);
    push_text(&l, token, "aaaa");
    assert_guess(&l, token, "aaaaaaaaaaaaaaaa");
    lookup_free(&l);
}

/* Chances are what comes true: near 1 in a text that repeats itself, near 0 in one of few and random letters. */
static void test_chances(void **state) {
    struct lookup l;
    static token_id token[4000];
    uint64_t random = 1;
    for (int periodic = 0; periodic < 2; periodic++) {
        assert_int_equal(lookup_create(&l, 4000), 0);
        for (uint32_t i = 0; i < 4000; i++) {
            token[i] = (token_id)(periodic ? i * i % 50 : draw(&random, 20));
            lookup_push(&l, token, i + 1);
        }
        for (uint32_t i = 0; i < 20; i++)
            assert_true(periodic ? lookup_chance(&l, i) > 0.95 : lookup_chance(&l, i % 2) < 0.5);
        lookup_free(&l);
    }
}

/* ---- what guesses are worth ---- */

/* Lookups whose next guesses come true for certain, or hardly ever. */
static void lookups(struct lookup *sure, struct lookup *unsure) {
    static token_id token[2][MOST];
    uint64_t random = 1;
    assert_int_equal(lookup_create(sure, MOST), 0);
    assert_int_equal(lookup_create(unsure, MOST), 0);
    for (uint32_t i = 0; i < MOST; i++) {
        token[0][i] = (token_id)(i % 7);
        token[1][i] = (token_id)draw(&random, 20);
        lookup_push(sure, token[0], i + 1);
        lookup_push(unsure, token[1], i + 1);
    }
}

static struct cost_step rows(uint32_t n) {
    return (struct cost_step){.rows = n, .logits = n};
}

static double cost_of(const struct cost *c, uint32_t n) {
    struct cost_step s = rows(n);
    return cost_predict(c, &s);
}

static void see(struct cost *c, uint32_t n, double ns) {
    struct cost_step s = rows(n);
    cost_learn(c, &s, ns);
}

/* A step of n rows costs 1 and `slope` for each row after the first. */
static struct cost costs(double slope) {
    struct cost c = {0};
    for (int i = 0; i < 400; i++)
        for (uint32_t n = 1; n <= SPECULATE_ROWS; n++)
            see(&c, n, 1000 * (1 + slope * (n - 1)));
    return c;
}

static uint32_t share(double slope, struct draft *d, uint32_t n) {
    struct cost c = costs(slope);
    struct cost_step without = rows(n);
    struct speculation s = {0};
    uint32_t all = 0;
    speculation_share(&s, &c, &without, d, n);
    for (uint32_t i = 0; i < n; i++)
        all += d[i].tokens;
    return all;
}

static void test_share(void **state) {
    struct lookup sure, unsure;
    struct draft d[SPECULATE_ROWS + 4];
    lookups(&sure, &unsure);
    for (int i = 0; i < SPECULATE_ROWS + 4; i++)
        d[i] = (struct draft){.lookup = &sure, .most = 100};
    struct speculation s = {0};
    struct cost unknown = {0};
    struct cost_step one = rows(1);
    speculation_share(&s, &unknown, &one, d, 1);
    assert_int_equal(d[0].tokens, 0); /* nothing has been measured */
    assert_int_equal(share(0.1, d, 1), SPECULATE_ROWS - 1);
    assert_int_equal(share(1, d, 1), 0); /* rows cost what they compute */
    assert_int_equal(share(0.1, d, 4), SPECULATE_ROWS - 4);
    for (int i = 0; i < 4; i++)
        assert_int_equal(d[i].tokens, 3); /* alike */
    assert_int_equal(share(0, d, SPECULATE_ROWS), 0);
    assert_int_equal(share(0, d, SPECULATE_ROWS + 4), 0);
    d[0].most = 2;
    assert_int_equal(share(0.1, d, 1), 2);
    d[0] = (struct draft){.lookup = &unsure, .most = 100};
    assert_int_equal(share(0.1, d, 1), 0);
    /* One of eight gains little of what the others would lose. */
    for (int i = 0; i < 8; i++)
        d[i] = (struct draft){.lookup = i == 3 ? &sure : &unsure, .most = 100};
    assert_in_range(share(0.05, d, 8), 1, 4);
    assert_true(d[3].tokens > 0);
    lookup_free(&sure);
    lookup_free(&unsure);
}

/* Costs follow the machine, one slow step does not count for much, and now and then a step goes without guesses. */
static void test_costs(void **state) {
    struct lookup sure, unsure;
    struct speculation s = {0};
    struct cost c = costs(0.2);
    lookups(&sure, &unsure);
    assert_true(cost_of(&c, 1) > 900 && cost_of(&c, 1) < 1100);
    assert_true(cost_of(&c, 8) > 2200 && cost_of(&c, 8) < 2600);
    see(&c, 8, 1e9);
    assert_true(cost_of(&c, 8) < 2800);
    for (int i = 0; i < 200; i++)
        for (uint32_t n = 1; n <= SPECULATE_ROWS; n++)
            see(&c, n, 5000.0 * n);
    assert_true(cost_of(&c, 8) > 30000 && cost_of(&c, 8) < 50000);
    c = costs(0.2);
    struct draft d = {.lookup = &sure, .most = 100};
    struct cost_step one = rows(1);
    uint32_t with = 0;
    for (int i = 0; i < 1000; i++) {
        speculation_share(&s, &c, &one, &d, 1);
        with += d.tokens > 0;
        see(&c, 1 + d.tokens, 1000 * (1 + 0.2 * d.tokens));
    }
    assert_in_range(with, 970, 990);
    lookup_free(&sure);
    lookup_free(&unsure);
}

/* ---- with and without ---- */

struct answer {
    struct engine *engine;
    struct sequence *sequence;
    struct token_logprob logprob[MOST];
    float prompt[MOST];
    struct buf text, pieces; /* the second one with a mark after each event */
    uint32_t tokens, window, cancel_at, completion, cached;
    enum finish_reason reason;
    bool finished;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void on_event(void *context, const struct engine_event *event) {
    struct answer *a = context;
    pthread_mutex_lock(&lock);
    for (uint32_t i = 0; event->kind == EVENT_PROMPT && i < event->prompt_tokens && i < MOST; i++)
        a->prompt[i] = event->logprob[i].logprob;
    for (uint32_t i = 0; event->kind != EVENT_PROMPT && i < event->tokens; i++)
        if (event->logprob != NULL && a->tokens + i < MOST)
            a->logprob[a->tokens + i] = event->logprob[i];
    a->tokens += event->kind == EVENT_PROMPT ? 0 : event->tokens;
    buf_str(&a->text, event->text);
    buf_str(&a->pieces, event->text);
    buf_byte(&a->pieces, 1);
    assert_true(a->window == 0 || a->tokens <= a->window * (1 + (a->tokens - 1) / a->window));
    if (a->window != 0 && a->tokens % a->window == 0)
        engine_ack(a->engine, a->sequence, a->tokens);
    if (a->cancel_at != 0 && a->tokens == a->cancel_at)
        engine_cancel(a->engine, a->sequence);
    if (event->kind == EVENT_FINISH) {
        a->reason = event->reason;
        a->completion = event->completion_tokens;
        a->cached = event->cached_tokens;
        a->finished = true;
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
}

static struct engine *start(bool guesses, size_t pages, uint32_t running) {
    struct engine *g;
    struct error e = {0};
    struct engine_options o = {.chip = {.threads = 1},
                               .kv_bytes = pages * PAGE_BYTES,
                               .max_running = running,
                               .speculation = guesses ? SPECULATE_ALWAYS : SPECULATE_NEVER};
    assert_int_equal(engine_create(&g, &o, &e), 0);
    assert_int_equal(engine_add_model(g, "m", tiny, &e), 0);
    assert_int_equal(engine_start(g, &e), 0);
    return g;
}

static void ask(struct engine *g, struct engine_request *r, struct answer *a, uint32_t cancel_at) {
    struct error e = {0};
    *a = (struct answer){.engine = g, .window = r->window, .cancel_at = cancel_at};
    r->model = STR("m");
    r->on_event = on_event;
    r->context = a;
    pthread_mutex_lock(&lock); /* until the handle is written */
    int rc = engine_submit(g, r, &a->sequence, &e);
    pthread_mutex_unlock(&lock);
    if (rc != 0)
        fail_msg("%s", e.text);
}

static void await(struct answer *a) {
    pthread_mutex_lock(&lock);
    while (!a->finished)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
    engine_release(a->engine, a->sequence);
}

static void forget(struct answer *a) {
    buf_free(&a->text);
    buf_free(&a->pieces);
}

static void assert_same(const struct answer *a, const struct answer *b) {
    assert_int_equal(a->tokens, b->tokens);
    assert_int_equal(a->completion, b->completion);
    assert_int_equal(a->reason, b->reason);
    assert_memory_equal(a->logprob, b->logprob, sizeof a->logprob);
    assert_memory_equal(a->prompt, b->prompt, sizeof a->prompt);
    assert_true(str_equal(buf_view(&a->text), buf_view(&b->text)));
    assert_true(str_equal(buf_view(&a->pieces), buf_view(&b->pieces))); /* also cut alike */
}

static void count_guesses(struct engine *g, uint64_t *drafted, uint64_t *accepted) {
    struct engine_model_stats stats;
    engine_stop(g);
    engine_model_stats(g, 0, &stats);
    *drafted += stats.drafted;
    *accepted += stats.accepted;
    assert_true(stats.accepted <= stats.drafted);
    assert_int_equal(stats.kv_pages_used, 0);
    engine_free(g);
}

/* A prompt that repeats itself, with errors. */
static uint32_t make_prompt(token_id *token, uint64_t *random) {
    uint32_t n = 1 + draw(random, 200), period = 1 + draw(random, 40), errors = draw(random, 3);
    for (uint32_t i = 0; i < n; i++)
        token[i] = i < period || draw(random, 20) < errors ? (token_id)draw(random, 256) : token[i - period];
    return n;
}

static struct engine_request make_request(token_id *token, struct logit_bias *bias, uint64_t *random) {
    struct engine_request r = {.account = draw(random, 3),
                               .prompt = token,
                               .prompt_tokens = make_prompt(token, random),
                               .max_tokens = 1 + draw(random, draw(random, 4) ? 120 : 6),
                               .want_logprobs = draw(random, 4) != 0,
                               .top_logprobs = draw(random, 4),
                               .prompt_logprobs = draw(random, 6) == 0,
                               .ignore_eos = draw(random, 2) == 0,
                               .window = draw(random, 3) == 0 ? 1 + draw(random, 9) : 0};
    /* The end of the turn comes now and then; few tokens come often, so that guesses come true although they are drawn. */
    float often = draw(random, 3) ? 8 : 0;
    for (int i = 0; i < BIASES; i++)
        bias[i] = (struct logit_bias){.id = i, .bias = often};
    bias[0] = (struct logit_bias){.id = TINY_VOCAB - 1, .bias = often + (float)draw(random, 5) - 2};
    r.sampling = (struct sampling){.temperature = (float)draw(random, 4) * 0.3f,
                                   .top_p = draw(random, 2) ? 1 : 0.9f,
                                   .top_k = draw(random, 2) ? 0 : 40,
                                   .min_p = draw(random, 3) ? 0 : 0.02f,
                                   .repetition_penalty = draw(random, 3) ? 1 : 1.1f,
                                   .presence_penalty = draw(random, 3) ? 0 : 0.2f,
                                   .frequency_penalty = draw(random, 3) ? 0 : 0.1f,
                                   .seed = draw(random, 1u << 30),
                                   .bias = bias,
                                   .biases = BIASES};
    return r;
}

static void test_same_with_and_without(void **state) {
    enum { ROUNDS = 30, AT_ONCE = 6 };
    static struct answer a[2][AT_ONCE];
    static const struct {
        size_t pages;
        uint32_t running;
    } size[] = {{400, 1}, {400, 8}, {14, 4}, {400, 20}};
    uint64_t drafted = 0, accepted = 0;
    for (uint64_t round = 0; round < ROUNDS; round++) {
        for (int guesses = 0; guesses < 2; guesses++) {
            struct engine *g = start(guesses, size[round % 4].pages, size[round % 4].running);
            uint64_t random = round + 1;
            for (int i = 0; i < AT_ONCE; i++) {
                static const struct str stop[] = {{"a", 1}, {"\xC3", 1}, {"q7", 2}};
                token_id token[MOST];
                struct logit_bias bias[BIASES];
                struct engine_request r = make_request(token, bias, &random);
                r.stop = stop;
                r.stops = draw(&random, 3) == 0 ? 3 : 0;
                ask(g, &r, &a[guesses][i], draw(&random, 8) == 0 ? 1 + draw(&random, 20) : 0);
            }
            for (int i = 0; i < AT_ONCE; i++)
                await(&a[guesses][i]);
            count_guesses(g, &drafted, &accepted);
        }
        for (int i = 0; i < AT_ONCE; i++) {
            assert_same(&a[0][i], &a[1][i]);
            forget(&a[0][i]);
            forget(&a[1][i]);
        }
    }
    print_message("%lu guesses, %lu came true\n", (unsigned long)drafted, (unsigned long)accepted);
    assert_true(drafted > 1000 && accepted > 100);
}

/* Pages are named by what was accepted: a second turn finds the first one's answer and goes on as without. */
static void test_prefix_of_answer(void **state) {
    static struct answer first[2], second[2];
    uint64_t drafted = 0, accepted = 0;
    for (int guesses = 0; guesses < 2; guesses++) {
        struct engine *g = start(guesses, 400, 4);
        token_id token[600];
        for (uint32_t i = 0; i < 90; i++)
            token[i] = (token_id)(i % 9 + 65);
        struct engine_request r = {.prompt = token,
                                   .prompt_tokens = 90,
                                   .max_tokens = 150,
                                   .ignore_eos = true,
                                   .want_logprobs = true,
                                   .sampling = {.temperature = 0.4f, .top_p = 1, .repetition_penalty = 1}};
        ask(g, &r, &first[guesses], 0);
        await(&first[guesses]);
        for (uint32_t i = 0; i < 150; i++)
            token[90 + i] = first[guesses].logprob[i].id;
        token[240] = 70;
        r.prompt_tokens = 241;
        r.max_tokens = 60;
        ask(g, &r, &second[guesses], 0);
        await(&second[guesses]);
        count_guesses(g, &drafted, &accepted);
    }
    assert_true(accepted > 0 && drafted > accepted);
    assert_same(&first[0], &first[1]);
    assert_same(&second[0], &second[1]);
    assert_int_equal(second[0].cached, 224);
    assert_int_equal(second[1].cached, 224);
    for (int i = 0; i < 2; i++) {
        forget(&first[i]);
        forget(&second[i]);
    }
}

/* The context's last token, and an answer of one. */
static void test_ends(void **state) {
    uint64_t drafted = 0, accepted = 0;
    struct engine *g = start(true, 10, 1);
    for (uint32_t n = 300; n < 320; n++) {
        static struct answer a;
        token_id token[320];
        for (uint32_t i = 0; i < n; i++)
            token[i] = (token_id)(i % 3);
        struct engine_request r = {.prompt = token,
                                   .prompt_tokens = n,
                                   .ignore_eos = true,
                                   .sampling = {.top_p = 1, .repetition_penalty = 1}};
        ask(g, &r, &a, 0);
        await(&a);
        assert_int_equal(a.tokens, 320 - n);
        assert_int_equal(a.reason, FINISH_LENGTH);
        forget(&a);
    }
    count_guesses(g, &drafted, &accepted);
    assert_true(drafted > 0);
}

/* Two samples of answers, one with guesses and one without, of different seeds: the pairs of tokens at each place come from one distribution (Pearson's chi-square of
 * two samples, 15 degrees of freedom: 44.3 is exceeded once in 10,000 times). Only four tokens are likely, so that guesses come true. */
enum { ANSWERS = 1500, LIKELY = 4, BINS = LIKELY * LIKELY, TOKENS = 8, AT_ONCE = 4 };

static void draw_answers(bool guesses, uint32_t seen[TOKENS][BINS]) {
    static struct answer a[AT_ONCE];
    struct logit_bias likely[LIKELY];
    token_id token[40];
    uint64_t drafted = 0, accepted = 0;
    struct engine *g = start(guesses, 400, AT_ONCE);
    for (int i = 0; i < LIKELY; i++)
        likely[i] = (struct logit_bias){.id = i, .bias = 12};
    for (uint32_t i = 0; i < 40; i++)
        token[i] = (token_id)(i * i % 11 % LIKELY);
    for (uint32_t n = 0; n < ANSWERS; n += AT_ONCE) {
        struct engine_request r = {.prompt = token,
                                   .prompt_tokens = 40,
                                   .max_tokens = TOKENS,
                                   .ignore_eos = true,
                                   .want_logprobs = true};
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            r.sampling = (struct sampling){.temperature = 2,
                                           .top_p = 1,
                                           .repetition_penalty = 1,
                                           .seed = 2 * (n + i) + guesses,
                                           .bias = likely,
                                           .biases = LIKELY};
            ask(g, &r, &a[i], 0);
        }
        for (uint32_t i = 0; i < AT_ONCE; i++) {
            await(&a[i]);
            for (int t = 0; t + 1 < TOKENS; t++) {
                token_id x = a[i].logprob[t].id, y = a[i].logprob[t + 1].id;
                if (x < LIKELY && y < LIKELY)
                    seen[t][x * LIKELY + y]++;
            }
            forget(&a[i]);
        }
    }
    count_guesses(g, &drafted, &accepted);
    assert_true(guesses ? accepted > ANSWERS / 2 && drafted > accepted : drafted == 0);
}

static void test_distribution(void **state) {
    static uint32_t seen[2][TOKENS][BINS];
    memset(seen, 0, sizeof seen);
    draw_answers(false, seen[0]);
    draw_answers(true, seen[1]);
    for (int t = 0; t + 1 < TOKENS; t++) {
        double chi = 0, all = 0;
        for (int b = 0; b < BINS; b++) {
            double x = seen[0][t][b], y = seen[1][t][b];
            chi += x + y > 0 ? (x - y) * (x - y) / (x + y) : 0;
            all += x + y;
        }
        print_message("place %d: chi-square %.1f of %.0f pairs\n", t, chi, all);
        assert_true(chi < 44.3 && all > ANSWERS);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lookup),
        cmocka_unit_test(test_chances),
        cmocka_unit_test(test_share),
        cmocka_unit_test(test_costs),
        cmocka_unit_test(test_same_with_and_without),
        cmocka_unit_test(test_prefix_of_answer),
        cmocka_unit_test(test_ends),
        cmocka_unit_test(test_distribution),
    };
    int fd = mkstemp(tiny);
    if (fd < 0 || !tiny_model_write(tiny, 7)) {
        printf("cannot write %s\n", tiny);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    close(fd);
    unlink(tiny);
    return failed;
}
