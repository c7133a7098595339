/* An engine that costs nothing: it takes engine.h's requests and gives tokens without computing any, so that what is left is the price of everything around the
 * model. As the real engine it has one thread that steps over all running sequences, one token each, and waits for clients that are behind.
 *
 * A request's seed is its speed in tokens a second, 0 for as fast as can be; sequences of one speed have their tokens at the same moments, as the rows of a
 * batch do, in BATCHES batches that take turns; the first token is there at once. A token's text is a blank and the time when it was made, in microseconds and 8 hexadecimal digits: what reads it on the same machine knows how long
 * it took to come. */
#include "base/clock.h"
#include "engine/engine.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { MODELS = 4, CONTEXT = 8192, CHIP_NS = 1000, BATCHES = 4 };

struct sequence {
    struct engine *engine;
    void (*on_event)(void *context, const struct engine_event *event);
    void *context;
    uint32_t prompt_tokens, max_tokens, window, made;
    atomic_uint acked;
    atomic_bool cancelled;
    bool started;
    int64_t period, due, second, submitted,
        first;             /* second: when the second token is due; the first is at once */
    struct sequence *next; /* in the inbox */
};

struct engine {
    struct model *model[MODELS];
    const char *name[MODELS];
    size_t models;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    struct sequence *inbox, **inbox_end;
    bool running, woken;
    atomic_bool stop, sleeping; /* sleeping: those who acknowledge must wake */
    struct sequence **sequence;
    size_t sequences, capacity;
    uint64_t submitted;
    atomic_uint_fast64_t finished, tokens;
};

/* ---- the pool ---- */

int engine_create(struct engine **out, const struct engine_options *o, struct error *e) {
    struct engine *g = calloc(1, sizeof *g);
    pthread_condattr_t attributes;
    *out = g;
    if (g == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the engine");
    g->inbox_end = &g->inbox;
    pthread_mutex_init(&g->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&g->wake, &attributes);
    pthread_condattr_destroy(&attributes);
    return 0;
}

int engine_add_model(struct engine *g, const char *name, const char *path, struct error *e) {
    if (g->models == MODELS)
        return error_set(e, ERR_INVALID, "the bench serves %d models at most", MODELS);
    g->name[g->models] = name;
    return model_open(&g->model[g->models++], path, e);
}

size_t engine_model_count(const struct engine *g) {
    return g->models;
}

const char *engine_model_name(const struct engine *g, size_t i) {
    return g->name[i];
}

const struct model *engine_model(const struct engine *g, struct str name) {
    for (size_t i = 0; i < g->models; i++)
        if (str_is(name, g->name[i]))
            return g->model[i];
    return NULL;
}

uint32_t engine_model_context(const struct engine *g, struct str name) {
    return CONTEXT;
}

bool engine_model_failed(const struct engine *g, struct str name, struct error *why) {
    return false;
}

/* ---- steps ---- */

static void write_stamp(char text[9], int64_t now) {
    uint32_t us = (uint32_t)(now / 1000);
    text[0] = ' ';
    for (int i = 8; i > 0; i--, us >>= 4)
        text[i] = "0123456789abcdef"[us & 15];
}

/* True when the sequence has ended. */
static bool step(struct engine *g, struct sequence *s, int64_t now) {
    char text[9];
    bool stopped = atomic_load(&g->stop) || atomic_load_explicit(&s->cancelled, memory_order_relaxed);
    struct engine_event event = {
        .kind = EVENT_TOKENS, .prompt_tokens = s->prompt_tokens, .reason = FINISH_CANCELLED};
    if (!stopped) {
        write_stamp(text, now);
        event.tokens = 1;
        event.text = (struct str){text, sizeof text};
        s->made++;
        s->first = s->first != 0 ? s->first : now;
        s->due = s->made == 1 ? s->second : s->due + s->period;
        event.reason = FINISH_LENGTH;
    }
    bool last = stopped || s->made == s->max_tokens;
    if (last) {
        event.kind = EVENT_FINISH;
        atomic_fetch_add(&g->finished, 1);
        atomic_fetch_add(&g->tokens, s->made);
    }
    event.completion_tokens = s->made;
    event.chip_ns = s->made * CHIP_NS;
    event.prefill_ns = CHIP_NS;
    event.queued_ns = 1;
    event.first_token_ns = s->first != 0 ? s->first - s->submitted + 1 : 0;
    event.total_ns = now - s->submitted + 1;
    s->on_event(s->context, &event);
    return last;
}

static bool may_step(const struct engine *g, struct sequence *s, int64_t now) {
    return atomic_load(&g->stop) || atomic_load_explicit(&s->cancelled, memory_order_relaxed) ||
           (s->due <= now && (s->window == 0 || s->made - atomic_load(&s->acked) < s->window));
}

/* One step over all. Gives the time of the next one: now, when one made a token and can make another. */
static int64_t step_all(struct engine *g) {
    int64_t now = clock_mono_ns(), next = INT64_MAX;
    for (size_t i = 0; i < g->sequences;) {
        struct sequence *s = g->sequence[i];
        if (!s->started) {
            s->started = true;
            s->on_event(s->context, &(struct engine_event){.kind = EVENT_START});
        }
        bool may = may_step(g, s, now);
        if (may && step(g, s, now)) {
            g->sequence[i] = g->sequence[--g->sequences];
            continue; /* the caller may have freed it */
        }
        if (may || s->due > now)
            next = s->due < next ? s->due : next;
        i++;
    }
    return next;
}

static void take_inbox(struct engine *g) {
    for (struct sequence *s; (s = g->inbox) != NULL; g->sequences++) {
        if (g->sequences == g->capacity) {
            g->capacity = g->capacity ? 2 * g->capacity : 1024;
            g->sequence = realloc(g->sequence, g->capacity * sizeof(struct sequence *));
            if (g->sequence == NULL)
                abort();
        }
        g->sequence[g->sequences] = s;
        g->inbox = s->next;
    }
    g->inbox_end = &g->inbox;
}

static void *engine_main(void *context) {
    struct engine *g = context;
    int64_t next = INT64_MAX;
    /* On a core that it shares it does not interrupt the gateway, which interrupts it: a real engine has cores of its own. */
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &(struct sched_param){0});
    for (;;) {
        pthread_mutex_lock(&g->lock);
        if (!g->woken && next > clock_mono_ns()) {
            struct timespec until = {.tv_sec = next / 1000000000, .tv_nsec = next % 1000000000};
            if (next == INT64_MAX)
                pthread_cond_wait(&g->wake, &g->lock);
            else
                pthread_cond_timedwait(&g->wake, &g->lock, &until);
        }
        atomic_store(&g->sleeping, false);
        g->woken = false;
        take_inbox(g);
        bool end = atomic_load(&g->stop) && g->sequences == 0;
        pthread_mutex_unlock(&g->lock);
        if (end)
            return NULL;
        next = step_all(g);
        if (next >
            clock_mono_ns()) { /* whoever acknowledges from here on wakes us; who did before is seen now */
            atomic_store(&g->sleeping, true);
            for (size_t i = 0; i < g->sequences && next != 0; i++)
                if (may_step(g, g->sequence[i], clock_mono_ns()))
                    next = 0;
        }
    }
}

int engine_start(struct engine *g, struct error *e) {
    g->running = pthread_create(&g->thread, NULL, engine_main, g) == 0;
    return g->running ? 0 : error_set(e, ERR_NO_MEMORY, "cannot start the engine's thread");
}

static void wake(struct engine *g) {
    pthread_mutex_lock(&g->lock);
    g->woken = true;
    pthread_mutex_unlock(&g->lock);
    pthread_cond_signal(&g->wake);
}

void engine_stop(struct engine *g) {
    if (!g->running)
        return;
    atomic_store(&g->stop, true);
    wake(g);
    pthread_join(g->thread, NULL);
    g->running = false;
}

void engine_free(struct engine *g) {
    engine_stop(g);
    for (size_t i = 0; i < g->models; i++)
        model_close(g->model[i]);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    free(g->sequence);
    free(g);
}

/* ---- requests ---- */

int engine_submit(struct engine *g, const struct engine_request *r, struct sequence **out, struct error *e) {
    struct sequence *s = calloc(1, sizeof *s);
    int64_t now = clock_mono_ns();
    *out = s;
    if (s == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a sequence");
    s->engine = g;
    s->on_event = r->on_event;
    s->context = r->context;
    s->prompt_tokens = (uint32_t)r->prompt_tokens;
    s->max_tokens = r->max_tokens;
    s->window = r->window;
    s->submitted = now;
    if (r->sampling.seed > 0 && r->sampling.seed <= 1000000) {
        s->period = 1000000000 / (int64_t)r->sampling.seed;
        s->second = (now / s->period + 2) * s->period;
    }
    pthread_mutex_lock(&g->lock);
    s->second += (int64_t)(g->submitted++ % BATCHES) * s->period / BATCHES;
    bool first = !g->woken;
    *g->inbox_end = s;
    g->inbox_end = &s->next;
    g->woken = true;
    pthread_mutex_unlock(&g->lock);
    if (first)
        pthread_cond_signal(&g->wake);
    return 0;
}

void engine_cancel(struct engine *g, struct sequence *s) {
    atomic_store(&s->cancelled, true);
    wake(g);
}

void engine_ack(struct engine *g, struct sequence *s, uint32_t tokens) {
    atomic_store(&s->acked, tokens);
    if (atomic_load(&g->sleeping) && s->window != 0) {
        atomic_store(&g->sleeping, false);
        wake(g);
    }
}

void engine_release(struct engine *g, struct sequence *s) {
    free(s);
}

void engine_stats(struct engine *g, struct engine_stats *out) {
    *out = (struct engine_stats){.finished = atomic_load(&g->finished),
                                 .completion_tokens = atomic_load(&g->tokens)};
}

void engine_model_stats(struct engine *g, size_t i, struct engine_model_stats *out) {
    *out = (struct engine_model_stats){0};
}

uint32_t engine_retry_after(struct engine *g) {
    return 1;
}
