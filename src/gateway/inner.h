/* What the files of the gateway share. */
#ifndef GATEWAY_INNER_H
#define GATEWAY_INNER_H

#include "gateway/ask.h"
#include "gateway/gateway.h"
#include "gateway/http.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    GATEWAY_MAX_BODY = 8 << 20,
    GATEWAY_MAX_HEADER = 32 << 10,
    GATEWAY_INLINE_BODY =
        32 << 10,        /* a longer one is parsed and encoded aside, so that streams do not wait for it */
    GATEWAY_WINDOW = 128 /* tokens generated ahead of a stream's socket at most */
};

/* ---- metrics.c ---- */

enum { HISTOGRAM_BUCKETS = 20, OUTCOMES = 4 };

struct histogram {
    uint64_t count[HISTOGRAM_BUCKETS + 1];
    double sum;
};

enum model_histogram {
    SEEN_FIRST_TOKEN,
    SEEN_INTER_TOKEN,
    SEEN_PER_TOKEN,
    SEEN_LATENCY,
    SEEN_QUEUE,
    SEEN_INFERENCE,
    SEEN_PREFILL,
    SEEN_DECODE,
    SEEN_PROMPT_TOKENS,
    SEEN_GENERATION_TOKENS,
    HISTOGRAMS
};

struct model_metrics {
    const char *name; /* borrowed from the engine */
    uint32_t running, waiting;
    uint64_t prompt_tokens, cached_tokens, generation_tokens, finished[OUTCOMES]; /* by enum finish_reason */
    struct histogram histogram[HISTOGRAMS];
};

struct metrics {
    struct model_metrics *model;
    size_t models;
    uint64_t status[6]; /* responses, by hundreds */
};

int metrics_create(struct metrics *m, const struct engine *engine);
void metrics_free(struct metrics *m);
struct model_metrics *metrics_model(struct metrics *m, struct str name);
void metrics_see(struct model_metrics *m, enum model_histogram which, double x);
void metrics_see_ns(struct model_metrics *m, enum model_histogram which, int64_t ns);
void metrics_write(struct buf *out, struct gateway *g);

/* ---- inbox.c: from the engine's thread to the loop's ---- */

struct choice;
/* An event of the engine, with what it points to copied behind it. */
struct letter {
    struct choice *to;
    struct engine_event event;
    size_t size; /* of the whole */
};

struct inbox {
    pthread_mutex_t lock;
    struct buf filling, reading; /* letters one behind the other */
};
void inbox_create(struct inbox *b);
void inbox_free(struct inbox *b);
/* True when the reader must be woken. */
bool inbox_put(struct inbox *b, struct choice *to, const struct engine_event *event);
/* All letters that are there, oldest first; they stay valid until the next call. The event's pointers are set. */
bool inbox_take(struct inbox *b);
struct letter *inbox_next(struct inbox *b, struct letter *last);

/* ---- errors.c ---- */

int error_status(enum err code);
void error_write_json(struct buf *out, const struct error *e);
/* A whole response with OpenAI's error object. headers: whole lines; others go with 401 and 429. */
void respond_error(struct gateway *g, struct exchange *x, const struct error *e, struct str headers);
void respond_status(struct gateway *g, struct exchange *x, int status, const char *code, const char *text,
                    struct str headers);
void respond_json(struct gateway *g, struct exchange *x, int status, struct str body);

/* ---- who answers ---- */

/* What an exchange's user begins with when its answer is not given at once: who is told how it goes on. http.h says when. */
struct answerer {
    void (*body)(void *user, struct str piece);
    void (*body_end)(void *user);
    void (*broken)(void *user); /* the request broke off: an error is answered in its place */
    void (*taken)(void *user, uint64_t mark);
    void (*closed)(void *user, bool complete);
};

/* ---- routes.c ---- */

/* Where a request came from: the peer, or who a trusted proxy says it was. */
struct address route_source(const struct gateway *g, const struct http_head *head);
/* The key that it brings; p is NULL without. */
struct str route_bearer(const struct http_head *head);
void route_request(struct gateway *g, struct exchange *x, const struct http_head *head);

/* ---- admin.c: the APIs over the books ---- */

void admin_receive(struct gateway *g, struct exchange *x, const struct http_head *head);
/* What a tenant asks about itself. */
void own_receive(struct gateway *g, struct exchange *x, const struct http_head *head,
                 const struct identity *who);
extern const struct worker_kind admin_worker;

/* ---- completion.c, delivery.c ---- */

struct completion;
void completion_receive(struct gateway *g, struct exchange *x, const struct http_head *head,
                        const struct identity *who, const struct address *from, bool chat);
extern const struct worker_kind completion_worker; /* long bodies are parsed and encoded aside */
void completion_event(struct choice *to, const struct engine_event *event);
void completion_pump(struct completion *c);
void completion_hear_books(struct gateway *g);                  /* those that asked for a hold go on */
void completion_books_committed(struct gateway *g);             /* those that waited for it go on */
struct completion *completion_next(const struct completion *c); /* of the gateway's live ones */
void completion_abort(struct completion *c);                    /* cut the client off */
/* What it waits for will not come: unsent bytes are dropped, and it fails. */
void completion_give_up(struct completion *c, const struct error *e);

/* ---- idempotency.c ---- */

enum { ONCES = 256 };
struct once;
void once_answers(struct gateway *g); /* the books have found or written some */
void once_free_all(struct gateway *g);

/* ---- worker.c: what takes long is done aside ---- */

struct worker;
struct worker_kind {
    void (*run)(void *item);  /* on the worker's thread */
    void (*done)(void *item); /* on the loop's thread, afterwards */
};
int worker_create(struct worker **out, struct http *http, const struct worker_kind *kind, struct error *e);
void worker_stop(struct worker *w); /* when all that is queued has run */
void worker_free(struct worker *w); /* what is not done yet is, first */
void worker_put(struct worker *w, void *item);
void worker_done(struct worker *w); /* for all that have run */

/* ---- gateway.c ---- */

struct gateway {
    struct http *http;
    struct engine *engine;
    struct cloud *cloud;
    struct gateway_options options;
    struct inbox inbox;
    struct worker *worker, *clerk; /* of long bodies; who waits for the books */
    struct errand *errand;         /* requests about the books, linked */
    uint32_t errands;
    struct metrics metrics;
    struct completion *live;   /* all completions, linked */
    struct completion *asking; /* those whose holds the books have not decided */
    struct completion *held;   /* those whose bytes wait for the books */
    struct once *once[ONCES];  /* keys in use, by their first byte */
    uint64_t replays;
    int64_t created;  /* seconds since 1970 */
    uint64_t last_id; /* the time in the latest request's id */
    atomic_bool durable;
    atomic_int drains;
    int64_t drain_until; /* 0: not draining */
};

#endif
