/* stragglers MODEL [PACK_FOLDER [SECONDS]]: how long 32 streams of mixed age wait between two tokens while prompts of 2,000 tokens arrive (none, now and then, without a pause), and how fast those get
 * through. Drives the engine by itself, without a network. */
#include "base/clock.h"
#include "bench/random.h"
#include "bench/report.h"
#include "engine/engine.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { STREAMS = 32, PROMPT = 2000, MOST_SAMPLES = 1 << 18, ACCOUNTS = 16 };

struct stream {
    struct scene *load;
    struct sequence *sequence;
    int64_t asked, last;
    bool prompt, finished;
};

struct scene {
    struct engine *engine;
    uint32_t vocab, context;
    struct random random;
    pthread_mutex_t lock; /* of what follows, and of the streams */
    pthread_cond_t changed;
    double gap[MOST_SAMPLES], first[MOST_SAMPLES]; /* seconds */
    size_t gaps, firsts, begun, failed;
};

static void on_event(void *context, const struct engine_event *event) {
    struct stream *q = context;
    struct scene *l = q->load;
    int64_t now = clock_mono_ns();
    pthread_mutex_lock(&l->lock);
    if (event->tokens != 0) {
        if (q->last == 0 && q->prompt && l->firsts < MOST_SAMPLES)
            l->first[l->firsts++] = (double)(now - q->asked) * 1e-9;
        if (q->last != 0 && !q->prompt && l->gaps < MOST_SAMPLES)
            l->gap[l->gaps++] = (double)(now - q->last) * 1e-9;
        l->begun += q->last == 0;
        q->last = now;
    }
    if (event->kind == EVENT_FINISH) {
        q->finished = true;
        l->failed += event->reason == FINISH_FAILED;
    }
    pthread_cond_signal(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

static int ask(struct scene *l, struct stream *q, uint32_t prompt, uint32_t most, struct error *e) {
    token_id *token = malloc(prompt * sizeof *token);
    if (token == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a prompt");
    for (uint32_t i = 0; i < prompt; i++)
        token[i] = (token_id)random_below(&l->random, l->vocab);
    *q = (struct stream){.load = l, .prompt = most == 1, .asked = clock_mono_ns()};
    struct engine_request r = {.model = STR("m"),
                               .account = random_below(&l->random, ACCOUNTS),
                               .prompt = token,
                               .prompt_tokens = prompt,
                               .max_tokens = most,
                               .sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                               .ignore_eos = true,
                               .on_event = on_event,
                               .context = q};
    int rc = engine_submit(l->engine, &r, &q->sequence, e);
    free(token);
    return rc;
}

static int finish(struct scene *l, struct stream *q, struct error *e) {
    pthread_mutex_lock(&l->lock);
    while (!q->finished)
        pthread_cond_wait(&l->changed, &l->lock);
    size_t failed = l->failed;
    pthread_mutex_unlock(&l->lock);
    engine_release(l->engine, q->sequence);
    return failed == 0 ? 0 : error_set(e, ERR_INTERNAL, "a request failed");
}

/* For `seconds`: a prompt after the last one was answered and `pause` times as long again; below 0: none. */
static int phase(struct scene *l, const char *name, double seconds, double pause, struct error *e) {
    int64_t start = clock_mono_ns();
    int rc = 0;
    pthread_mutex_lock(&l->lock);
    l->gaps = l->firsts = 0;
    pthread_mutex_unlock(&l->lock);
    while (rc == 0 && clock_mono_ns() < start + (int64_t)(seconds * 1e9)) {
        struct stream q;
        if (pause < 0) {
            usleep(10000);
            continue;
        }
        rc = ask(l, &q, PROMPT < l->context ? PROMPT : l->context - 1, 1, e);
        rc = rc == 0 ? finish(l, &q, e) : rc;
        usleep((useconds_t)(pause * (double)(clock_mono_ns() - q.asked) * 1e-3));
    }
    double took = (double)(clock_mono_ns() - start) * 1e-9;
    pthread_mutex_lock(&l->lock);
    struct spread gap = spread_of(l->gap, l->gaps), first = spread_of(l->first, l->firsts);
    printf("%-16s %8.1f %8.1f %8.1f %6.2f %10.0f %8zu %10.0f\n", name, gap.p50 * 1e3, gap.p99 * 1e3,
           gap.most * 1e3, gap.p50 > 0 ? gap.p99 / gap.p50 : 0, (double)gap.n / took, first.n,
           first.p50 * 1e3);
    pthread_mutex_unlock(&l->lock);
    fflush(stdout);
    return rc;
}

static int measure(struct scene *l, double seconds, struct error *e) {
    static struct stream stream[STREAMS], alone;
    uint32_t asked = 0;
    int rc = ask(l, &alone, PROMPT < l->context ? PROMPT : l->context - 1, 1, e);
    rc = rc == 0 ? finish(l, &alone, e) : rc;
    if (rc == 0)
        printf("a prompt alone: %.0f ms\n", l->first[0] * 1e3);
    for (; asked < STREAMS && rc == 0; asked += rc == 0)
        rc = ask(l, &stream[asked],
                 20 + random_below(&l->random, l->context / 4 < 700 ? l->context / 4 : 700), 0, e);
    pthread_mutex_lock(&l->lock);
    while (rc == 0 && l->begun < STREAMS + 1)
        pthread_cond_wait(&l->changed, &l->lock);
    pthread_mutex_unlock(&l->lock);
    printf("%-16s %8s %8s %8s %6s %10s %8s %10s\n", "prompts arrive", "p50 ms", "p99 ms", "max ms", "ratio",
           "tokens/s", "prompts", "first ms");
    rc = rc == 0 ? phase(l, "never", seconds / 3, -1, e) : rc;
    rc = rc == 0 ? phase(l, "now and then", seconds, 1.5, e) : rc;
    rc = rc == 0 ? phase(l, "without a pause", seconds, 0, e) : rc;
    for (uint32_t i = 0; i < asked; i++) {
        struct error ignored;
        engine_cancel(l->engine, stream[i].sequence);
        finish(l, &stream[i], &ignored);
    }
    return rc;
}

int main(int argc, char **argv) {
    static struct scene l = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct error e = {0};
    if (argc < 2) {
        fprintf(stderr, "usage: stragglers MODEL [PACK_FOLDER [SECONDS]]\n");
        return 2;
    }
    struct engine_options o = {.chip = {.pack_folder = argc > 2 ? argv[2] : NULL},
                               .kv_bytes = (size_t)4 << 30};
    l.random = random_start(1, 0);
    int rc = engine_create(&l.engine, &o, &e);
    if (rc == 0 && (rc = engine_add_model(l.engine, "m", argv[1], &e)) == 0 &&
        (rc = engine_start(l.engine, &e)) == 0) {
        l.vocab = (uint32_t)engine_model(l.engine, STR("m"))->traits.vocab;
        l.context = engine_model_context(l.engine, STR("m"));
        rc = measure(&l, argc > 3 ? atof(argv[3]) : 20, &e);
    }
    engine_free(l.engine);
    if (rc != 0)
        fprintf(stderr, "stragglers: %s\n", e.text);
    return rc != 0;
}
