/* The engine: requests come in through an inbox, one thread makes steps, events go out; see engine.h. The order inside a step is: schedule, forward
 * pass, sample and send, row by row. On the request's journey: everything between the gateway and the chip. */
#include "engine/engine.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"
#include "engine/schedule.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_STOPS = 64, DEFAULT_RUNNING = 64, DEFAULT_WAITING = 256 };
static const int64_t SECOND = 1000000000, TRIM_EVERY = 300 * SECOND;

struct engine {
    struct engine_options options;
    struct chip *chip;
    struct pool_model model[ENGINE_MOST_MODELS];
    struct schedule schedule;
    struct residency residency;
    struct batch batch;
    struct take_space space;
    size_t largest_vocab;
    uint64_t numbers;
    uint64_t prompt_tokens, cached_tokens, completion_tokens, finished, cancelled;
    int64_t chip_ns;
    double finish_ns; /* between two finished requests, smoothed */
    int64_t last_finish;
    int64_t trim_at, copy_at; /* when unused KV memory is looked for next; when more of it is copied */
    int64_t turn_at;          /* when a model in memory has to make room */

    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    struct sequence *inbox, **inbox_end;
    bool poked, stopping;
    struct engine_stats stats;
    double waits_ns; /* finish_ns, for other threads */
};

/* ---- making and loading ---- */

static size_t default_memory_bytes(void) {
    size_t bytes = memory_allowed("");
    return bytes - bytes / 8;
}

static size_t default_kv_bytes(size_t memory) {
    return memory / 4 > (size_t)4 << 30 ? (size_t)4 << 30 : memory / 4;
}

int engine_create(struct engine **out, const struct engine_options *o, struct error *e) {
    struct engine *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the engine");
    g->options = *o;
    if (g->options.max_running == 0)
        g->options.max_running = DEFAULT_RUNNING;
    if (g->options.max_running > BATCH_SEQUENCES)
        g->options.max_running = BATCH_SEQUENCES;
    if (g->options.max_waiting == 0)
        g->options.max_waiting = DEFAULT_WAITING;
    int rc = chip_open(&g->chip, &o->chip, e);
    if (rc != 0) {
        free(g);
        return rc;
    }
    g->schedule.model = g->model;
    g->schedule.max_running = g->options.max_running;
    g->schedule.speculates = o->speculation != SPECULATE_NEVER;
    size_t memory = o->memory_bytes ? o->memory_bytes : default_memory_bytes();
    kv_budget_start(&g->schedule.budget, o->kv_bytes ? o->kv_bytes : default_kv_bytes(memory));
    g->residency = (struct residency){.limit = memory, .kv = &g->schedule.budget, .model = g->model};
    g->turn_at = INT64_MAX;
    g->inbox_end = &g->inbox;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    *out = g;
    return 0;
}

static void close_model(struct pool_model *m) {
    kv_free(m->kv);
    forward_close(m->forward);
    model_close(m->model);
    free(m->name);
    *m = (struct pool_model){0};
}

static bool grow_space(struct engine *g, size_t vocab) {
    if (vocab <= g->largest_vocab)
        return true;
    float *logits = realloc(g->space.logits, vocab * sizeof *logits);
    if (logits != NULL)
        g->space.logits = logits;
    struct candidate *candidate = realloc(g->space.candidate, vocab * sizeof *candidate);
    if (candidate != NULL)
        g->space.candidate = candidate;
    if (logits == NULL || candidate == NULL)
        return false;
    g->largest_vocab = vocab;
    return true;
}

/* Rows of a step that may want logits: one a sequence, or guesses. */
static uint32_t most_logits(const struct engine *g) {
    uint32_t n = g->options.max_running;
    return n > SPECULATE_ROWS ? n : SPECULATE_ROWS;
}

int engine_add_model(struct engine *g, const char *name, const char *path, struct error *e) {
    struct pool_model *m = &g->model[g->schedule.models];
    if (g->running)
        return error_set(e, ERR_UNAVAILABLE, "models are added before the engine starts");
    if (g->schedule.models == ENGINE_MOST_MODELS)
        return error_set(e, ERR_TOO_LARGE, "one engine holds at most %d models", ENGINE_MOST_MODELS);
    if (engine_model(g, str_from(name)) != NULL)
        return error_set(e, ERR_CONFLICT, "two models have the name %s", name);
    int rc = model_open(&m->model, path, e);
    if (rc == 0)
        rc = forward_open(&m->forward, g->chip, m->model, BATCH_PREFILL + most_logits(g), most_logits(g), e);
    if (rc == 0)
        rc = kv_create(&m->kv, &g->schedule.budget, forward_kv(m->forward), e);
    if (rc == 0) {
        m->name = strdup(name);
        if (m->name == NULL || !grow_space(g, m->model->traits.vocab))
            rc = error_set(e, ERR_NO_MEMORY, "no memory for the model %s", name);
    }
    if (rc != 0) {
        close_model(m);
        return rc;
    }
    m->speculation.always = g->options.speculation == SPECULATE_ALWAYS;
    residency_add(&g->residency, m);
    g->schedule.models++;
    return 0;
}

size_t engine_model_count(const struct engine *g) {
    return g->schedule.models;
}

const char *engine_model_name(const struct engine *g, size_t i) {
    return i < g->schedule.models ? g->model[i].name : NULL;
}

static struct pool_model *find_model(const struct engine *g, struct str name) {
    for (size_t i = 0; i < g->schedule.models; i++)
        if (str_is(name, g->model[i].name))
            return (struct pool_model *)&g->model[i];
    return NULL;
}

const struct model *engine_model(const struct engine *g, struct str name) {
    const struct pool_model *m = find_model(g, name);
    return m != NULL ? m->model : NULL;
}

static uint32_t context_of(const struct engine *g, const struct pool_model *m) {
    uint64_t most = m->model->traits.context, pages = (uint64_t)kv_pages(m->kv) * KV_PAGE_TOKENS;
    if (g->options.max_context != 0 && g->options.max_context < most)
        most = g->options.max_context;
    return (uint32_t)(pages < most ? pages : most);
}

uint32_t engine_model_context(const struct engine *g, struct str name) {
    const struct pool_model *m = find_model(g, name);
    return m != NULL ? context_of(g, m) : 0;
}

bool engine_model_failed(const struct engine *g, struct str name, struct error *why) {
    const struct pool_model *m = find_model(g, name);
    if (m == NULL || !atomic_load(&m->failed))
        return false;
    if (why != NULL)
        *why = m->why;
    return true;
}

/* ---- the caller's side ---- */

static int check_request(const struct engine *g, const struct pool_model *m, const struct engine_request *r,
                         struct error *e) {
    uint32_t context = context_of(g, m), vocab = m->model->traits.vocab;
    if (atomic_load(&m->failed))
        return error_set(e, ERR_UNAVAILABLE, "%s", m->why.text);
    if (r->prompt_tokens == 0)
        return error_param(e, ERR_INVALID, "prompt", "the prompt is empty");
    if (r->prompt_tokens >= context)
        return error_param(e, ERR_INVALID, "messages",
                           "the prompt has %zu tokens; with room for an answer this model takes at most %u",
                           r->prompt_tokens, context - 1);
    for (size_t i = 0; i < r->prompt_tokens; i++)
        if (r->prompt[i] < 0 || (uint32_t)r->prompt[i] >= vocab)
            return error_param(e, ERR_INVALID, "prompt", "token %d is not in the vocabulary (0 to %u)",
                               r->prompt[i], vocab - 1);
    if (r->stops > MOST_STOPS || r->top_logprobs > 20)
        return error_param(e, ERR_INVALID, "stop", "more than %d stop strings or 20 logprobs", MOST_STOPS);
    return 0;
}

int engine_submit(struct engine *g, const struct engine_request *r, struct sequence **out, struct error *e) {
    struct pool_model *m = find_model(g, r->model);
    struct sequence *s;
    *out = NULL;
    if (m == NULL)
        return error_param(e, ERR_NOT_FOUND, "model", "there is no model '%.*s' here",
                           (int)(r->model.n < 100 ? r->model.n : 100), r->model.p);
    int rc = check_request(g, m, r, e);
    if (rc != 0)
        return rc;
    uint32_t room = context_of(g, m) - (uint32_t)r->prompt_tokens;
    rc = sequence_create(&s, r, r->max_tokens == 0 || r->max_tokens > room ? room : r->max_tokens,
                         m->model->traits.vocab, e);
    if (rc != 0)
        return rc;
    s->model = m;
    pthread_mutex_lock(&g->lock);
    bool stopping = g->stopping;
    if (stopping || atomic_load(&g->schedule.waiting) >= g->options.max_waiting) {
        pthread_mutex_unlock(&g->lock);
        atomic_store(&s->references, 1);
        sequence_unref(s);
        if (stopping)
            return error_set(e, ERR_UNAVAILABLE, "the engine is stopping");
        return error_set(e, ERR_BUSY, "%u requests are waiting already; try again in a moment",
                         g->options.max_waiting);
    }
    s->number = g->numbers++;
    *out = s;
    atomic_fetch_add(&g->schedule.waiting, 1);
    *g->inbox_end = s;
    g->inbox_end = &s->next;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    return 0;
}

static void poke(struct engine *g) {
    pthread_mutex_lock(&g->lock);
    g->poked = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
}

static void on_pages(void *context) {
    poke(context);
}

int engine_spill(struct engine *g, const char *folder, uint64_t bytes, struct error *e) {
    return kv_file_open(&g->schedule.budget.file, folder, bytes, on_pages, g, e);
}

void engine_cancel(struct engine *g, struct sequence *s) {
    if (!atomic_exchange(&s->cancelled, true))
        poke(g);
}

void engine_ack(struct engine *g, struct sequence *s, uint32_t tokens) {
    atomic_store_explicit(&s->acked, tokens, memory_order_relaxed);
    if (s->window != 0)
        poke(g);
}

void engine_release(struct engine *g, struct sequence *s) {
    (void)g;
    sequence_unref(s);
}

/* ---- the engine's thread ---- */

static void count_end(struct engine *g, const struct sequence *s, bool cancelled) {
    int64_t now = clock_mono_ns();
    g->finished++;
    g->cancelled += cancelled;
    if (g->last_finish != 0)
        g->finish_ns += ((double)(now - g->last_finish) - g->finish_ns) * 0.1;
    g->last_finish = now;
    g->prompt_tokens += s->prompt;
    g->cached_tokens += s->cached;
}

/* The sequence leaves; its last event has been sent. */
static void retire(struct engine *g, struct sequence *s, bool cancelled) {
    count_end(g, s, cancelled);
    schedule_remove(&g->schedule, s);
    sequence_unref(s);
}

static void take_inbox(struct engine *g, struct sequence *s) {
    static const struct error no_memory = {ERR_NO_MEMORY, "", "no memory for another account"};
    for (struct sequence *next; s != NULL; s = next) {
        next = s->next;
        bool failed = atomic_load(&s->model->failed); /* since it was submitted */
        if (failed || schedule_add(&g->schedule, s) != 0) {
            atomic_fetch_sub(&g->schedule.waiting, 1);
            sequence_end(s, FINISH_FAILED, failed ? &s->model->why : &no_memory);
            sequence_unref(s);
        }
    }
}

/* End what was cancelled, or everything (reason and why then say how). */
static void end_sequences(struct engine *g, struct pool_model *m, bool all, enum finish_reason reason,
                          const struct error *why) {
    for (struct sequence *s = m->first, *next; s != NULL; s = next) {
        next = s->next;
        bool cancelled = atomic_load(&s->cancelled);
        if (!all && !cancelled)
            continue;
        sequence_end(s, cancelled ? FINISH_CANCELLED : reason, cancelled ? NULL : why);
        retire(g, s, cancelled || reason == FINISH_CANCELLED);
    }
}

static void fail_model(struct engine *g, struct pool_model *m) {
    error_write(
        &m->why, ERR_UNAVAILABLE, "model",
        "the file of model %s was truncated or changed while it was in use; restore it and start again",
        m->name);
    log_error("%s", m->why.text);
    atomic_store(&m->failed, true);
    end_sequences(g, m, true, FINISH_FAILED, &m->why);
}

/* What the step brought s; logits[] are those that its rows asked for. Each guess is judged by the token that is chosen in its place, just as it would be
 * without it: the first that is wrong ends the step for s, and what was computed behind it is written over later. True when the sequence has ended. */
static bool take_rows(struct engine *g, struct sequence *s, const struct forward_row *row, float *logits) {
    struct pool_model *m = s->model;
    uint32_t r = 0, before = s->completion;
    bool ended = false;
    while (r < s->rows && !ended && row[r].token == s->token[row[r].position] &&
           !atomic_load(&s->cancelled)) {
        sequence_advance(s, m->kv, 1);
        if (row[r].want_logits) {
            if (s->prompt_logprobs)
                sequence_prompt_logits(s, m->model, row[r].position, logits);
            if (s->computed == s->tokens)
                ended = sequence_take(s, m->model, logits, &g->space);
            logits += m->model->traits.vocab;
        }
        r++;
    }
    if (s->drafted > 0 && r > 1)
        m->accepted += r - 1;
    g->completion_tokens += s->completion - before;
    s->rows = s->drafted = 0;
    return ended;
}

static void make_step(struct engine *g) {
    struct batch *b = &g->batch;
    struct pool_model *m = b->model;
    int64_t start = clock_mono_ns();
    float *logits = forward_step(m->forward, b->row, b->rows);
    int64_t end = clock_mono_ns();
    g->chip_ns += end - start;
    schedule_charge(&g->schedule, b, end, end - start);
    if (forward_damaged(m->forward)) {
        fail_model(g, m);
        return;
    }
    const struct forward_row *row = b->row;
    for (uint32_t i = 0; i < b->sequences; i++) {
        struct sequence *s = b->sequence[i];
        const struct forward_row *end = row + s->rows;
        bool ended = take_rows(g, s, row, logits);
        for (; row < end; row++)
            logits += row->want_logits ? m->model->traits.vocab : 0;
        if (ended)
            retire(g, s, false);
    }
}

static void publish_residence(struct engine_model_stats *t, const struct residence *p) {
    t->residence = p->state == RESIDENT ? MODEL_LOADED : p->state == LOADING ? MODEL_LOADING : MODEL_UNLOADED;
    t->resident_bytes = p->state == COLD ? 0 : p->bytes;
    t->loads = p->loads;
    t->load_ns = p->load_ns;
}

static void publish_stats(struct engine *g) {
    struct engine_stats *t = &g->stats;
    g->waits_ns = g->finish_ns;
    *t = (struct engine_stats){.steps = g->schedule.steps,
                               .waiting = atomic_load(&g->schedule.waiting),
                               .prompt_tokens = g->prompt_tokens,
                               .cached_tokens = g->cached_tokens,
                               .completion_tokens = g->completion_tokens,
                               .finished = g->finished,
                               .cancelled = g->cancelled,
                               .kv_resident_bytes = g->schedule.budget.resident,
                               .chip_ns = g->chip_ns,
                               .memory_limit_bytes = g->residency.limit,
                               .weights_resident_bytes = g->residency.used,
                               .evictions = g->residency.evictions};
    if (g->schedule.budget.file != NULL)
        kv_file_count(g->schedule.budget.file, &t->kv_file);
    for (size_t i = 0; i < g->schedule.models; i++) {
        struct pool_model *m = &g->model[i];
        m->stats = (struct engine_model_stats){.kv_pages = kv_pages(m->kv),
                                               .preempted = m->preempted,
                                               .drafted = m->drafted,
                                               .accepted = m->accepted};
        kv_count(m->kv, &m->stats.kv_pages_used, &m->stats.kv_pages_cached);
        publish_residence(&m->stats, &m->residence);
        for (const struct sequence *s = m->first; s != NULL; s = s->next) {
            bool paused = sequence_blocked(s) || (!s->started && s->resumed);
            t->paused += paused;
            t->running += !paused && s->started;
        }
        t->kv_pages += m->stats.kv_pages;
        t->kv_pages_used += m->stats.kv_pages_used;
        t->kv_pages_cached += m->stats.kv_pages_cached;
        t->preempted += m->preempted;
    }
}

/* Nothing to compute: sleep until somebody comes, or until there is memory to give back, a model to close, or no more reason to wait for the file. */
static void sleep_until_woken(struct engine *g) {
    const struct kv_budget *b = &g->schedule.budget;
    int64_t until = g->copy_at < g->trim_at ? g->copy_at : g->trim_at;
    until = g->turn_at < until ? g->turn_at : until;
    if (b->file != NULL && kv_file_reading(b->file) && until > clock_mono_ns() + SECOND)
        until = clock_mono_ns() + SECOND;
    struct timespec t = {.tv_sec = until / SECOND, .tv_nsec = until % SECOND};
    int rc = 0;
    while (rc == 0 && g->inbox == NULL && !g->poked && !g->stopping)
        rc = b->resident != 0 || g->turn_at != INT64_MAX ? pthread_cond_timedwait(&g->wake, &g->lock, &t)
                                                         : pthread_cond_wait(&g->wake, &g->lock);
}

/* Pages that came from the file, memory that goes back to the system. */
static void tend_memory(struct engine *g) {
    int64_t now = clock_mono_ns();
    kv_collect(&g->schedule.budget);
    g->turn_at = residency_tend(&g->residency, now);
    g->copy_at = kv_copy_ahead(&g->schedule.budget) ? now + SECOND / 200 : INT64_MAX;
    if (now >= g->trim_at) /* sooner again while the file is not quick enough */
        g->trim_at = now + (kv_trim(&g->schedule.budget) ? TRIM_EVERY : SECOND / 10);
}

static void *engine_main(void *context) {
    struct engine *g = context;
    bool work = false;
    chip_take_core(g->chip);
    for (;;) {
        pthread_mutex_lock(&g->lock);
        publish_stats(g);
        if (!work)
            sleep_until_woken(g);
        struct sequence *inbox = g->inbox;
        bool stopping = g->stopping;
        g->inbox = NULL;
        g->inbox_end = &g->inbox;
        g->poked = false;
        pthread_mutex_unlock(&g->lock);
        take_inbox(g, inbox);
        for (size_t i = 0; i < g->schedule.models; i++)
            end_sequences(g, &g->model[i], stopping, FINISH_CANCELLED, NULL);
        if (stopping)
            return NULL;
        tend_memory(g);
        work = schedule_next(&g->schedule, &g->batch, clock_mono_ns());
        if (work)
            make_step(g);
    }
}

static void on_weights(void *context) {
    poke(context);
}

int engine_start(struct engine *g, struct error *e) {
    int rc = residency_start(&g->residency, g->options.memory_bytes != 0, e);
    if (rc == 0)
        rc = loader_open(&g->residency.loader, NULL, on_weights, g, e);
    if (rc != 0)
        return rc;
    g->poked = true; /* models come in before anybody asks */
    if (pthread_create(&g->thread, NULL, engine_main, g) != 0)
        return error_set(e, ERR_NO_MEMORY, "cannot start the engine's thread");
    g->running = true;
    return 0;
}

void engine_stop(struct engine *g) {
    pthread_mutex_lock(&g->lock);
    g->stopping = true;
    pthread_cond_signal(&g->wake);
    pthread_mutex_unlock(&g->lock);
    if (g->running)
        pthread_join(g->thread, NULL);
    g->running = false;
    loader_close(g->residency.loader);
    g->residency.loader = NULL;
    for (struct sequence *s = g->inbox, *next; s != NULL; s = next) { /* it never ran */
        next = s->next;
        sequence_end(s, FINISH_CANCELLED, NULL);
        sequence_unref(s);
    }
    g->inbox = NULL;
}

void engine_free(struct engine *g) {
    if (g == NULL)
        return;
    engine_stop(g);
    for (size_t i = 0; i < g->schedule.models; i++)
        close_model(&g->model[i]);
    kv_file_close(g->schedule.budget.file);
    schedule_free(&g->schedule);
    chip_close(g->chip);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->wake);
    free(g->space.logits);
    free(g->space.candidate);
    free(g);
}

void engine_stats(struct engine *g, struct engine_stats *out) {
    pthread_mutex_lock(&g->lock);
    *out = g->stats;
    pthread_mutex_unlock(&g->lock);
}

void engine_model_stats(struct engine *g, size_t i, struct engine_model_stats *out) {
    pthread_mutex_lock(&g->lock);
    *out = g->model[i].stats;
    pthread_mutex_unlock(&g->lock);
}

uint32_t engine_retry_after(struct engine *g) {
    pthread_mutex_lock(&g->lock);
    double seconds = g->waits_ns * atomic_load(&g->schedule.waiting) / 1e9;
    pthread_mutex_unlock(&g->lock);
    return seconds < 1 ? 1 : seconds > 60 ? 60 : (uint32_t)seconds;
}
