/* The engine: models in a pool, requests in, tokens out. One thread runs steps; submit, cancel and ack may be called from any thread and never block for long.
 * The engine knows no tenants: a request carries an opaque account number and a weight. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "base/buf.h"
#include "base/error.h"
#include "chip/chip.h"
#include "engine/kv_file.h"
#include "engine/sampler.h"
#include "model/model.h"

struct engine;
struct sequence; /* a running request; owned by the engine until its finish event was delivered */

enum { ENGINE_MOST_RUNNING = 256, ENGINE_MOST_MODELS = 64 };

struct engine_options {
    struct chip_options chip;
    size_t
        memory_bytes; /* of weights and KV pages together; 0: seven eighths of what the machine has available or its control group allows */
    size_t kv_bytes;  /* KV memory of all models together; 0: a quarter of memory_bytes, at most 4 GiB */
    uint32_t max_running; /* sequences that step together, ENGINE_MOST_RUNNING at most; 0: 64 */
    uint32_t max_waiting; /* queue; full: ERR_BUSY (429); 0: 256 */
    uint32_t max_context; /* tokens a sequence may hold; 0: the model's own */
    enum {
        SPECULATE_WHERE_IT_PAYS,
        SPECULATE_NEVER,
        SPECULATE_ALWAYS
    } speculation; /* guessed tokens (speculate.h); output is the same to the last bit, so never and always are for measurements and tests */
};

int engine_create(struct engine **out, const struct engine_options *o, struct error *e);
/* Open a model under a name that requests use; its weights come into memory from engine_start on. Before engine_start. */
int engine_add_model(struct engine *g, const char *name, const char *path, struct error *e);
/* Keep pages that KV memory has no room for in a file of at most `bytes` in this folder (kv_file.h; 0: as large as the disk suggests). Before engine_start, once. */
int engine_spill(struct engine *g, const char *folder, uint64_t bytes, struct error *e);
int engine_start(struct engine *g, struct error *e);
void engine_stop(struct engine *g); /* cancels what runs, joins the thread */
void engine_free(struct engine *g);

size_t engine_model_count(const struct engine *g);
const char *engine_model_name(const struct engine *g, size_t i);
/* Borrowed until engine_free; NULL when there is no such model. */
const struct model *engine_model(const struct engine *g, struct str name);
uint32_t engine_model_context(const struct engine *g,
                              struct str name); /* tokens of prompt and answer together */
bool engine_model_failed(const struct engine *g, struct str name,
                         struct error *why); /* e.g. its file was truncated */

struct token_logprob {
    token_id id;
    float logprob;
    uint32_t tops; /* of the alternatives below, best first */
    struct {
        token_id id;
        float logprob;
    } top[20];
};

enum finish_reason { FINISH_STOP, FINISH_LENGTH, FINISH_CANCELLED, FINISH_FAILED };

struct engine_event {
    enum { EVENT_START, EVENT_PROMPT, EVENT_TOKENS, EVENT_FINISH } kind;
    /* EVENT_START: the request has left the queue, once. EVENT_TOKENS: `tokens` completion tokens more, which add `text` (valid UTF-8, may be empty while a character or a possible stop string is
     * incomplete; the stop string itself is never sent). EVENT_PROMPT (only when prompt_logprobs was asked): one logprob a prompt token,
     * the first of them 0 with no tops. Logprobs only when asked. */
    uint32_t tokens;
    struct str text;
    const struct token_logprob *logprob; /* [tokens] */
    /* EVENT_FINISH: the last event; may bring tokens and text as well. */
    enum finish_reason reason;
    const struct error *error; /* FINISH_FAILED */
    uint32_t prompt_tokens, cached_tokens, completion_tokens;
    int64_t chip_ns;                             /* this sequence's part of the chip's time, */
    int64_t prefill_ns;                          /* and of that, before its first token */
    int64_t queued_ns, first_token_ns, total_ns; /* since submit */
};

struct engine_request {
    struct str model;
    uint64_t account;       /* fair share and prefix sharing are per account */
    uint32_t weight;        /* share of the account, 1 is normal */
    const token_id *prompt; /* copied; >= 1 token */
    size_t prompt_tokens;
    uint32_t max_tokens;      /* 0: to the end of the context */
    struct sampling sampling; /* copied, with what it points to */
    const struct str *stop;   /* copied */
    size_t stops;
    bool ignore_eos;
    bool want_logprobs;
    uint32_t top_logprobs; /* 0..20 */
    bool prompt_logprobs;
    uint32_t
        window; /* tokens generated but not acknowledged at most; the sequence pauses there. 0: no limit */
    /* Called from the engine's thread; must not block, must not call engine_* except engine_cancel and engine_ack. After EVENT_FINISH never again. */
    void (*on_event)(void *context, const struct engine_event *event);
    void *context;
};

/* ERR_NOT_FOUND (model), ERR_INVALID (prompt too long, parameters), ERR_BUSY (queue full), ERR_UNAVAILABLE (that model has failed). */
int engine_submit(struct engine *g, const struct engine_request *r, struct sequence **out, struct error *e);
/* Stop generating; EVENT_FINISH with FINISH_CANCELLED follows unless it has finished already. The handle stays valid until engine_release. */
void engine_cancel(struct engine *g, struct sequence *s);
/* The client has taken `tokens` completion tokens in all. */
void engine_ack(struct engine *g, struct sequence *s, uint32_t tokens);
/* The caller is done with the handle (after EVENT_FINISH). */
void engine_release(struct engine *g, struct sequence *s);

/* Counters for /metrics; a consistent copy. */
struct engine_stats {
    uint32_t running, waiting, paused;
    uint64_t steps, prompt_tokens, cached_tokens, completion_tokens, finished, cancelled, preempted;
    uint64_t kv_pages, kv_pages_used, kv_pages_cached;
    uint64_t kv_resident_bytes;   /* KV memory taken from the system */
    struct kv_file_stats kv_file; /* all 0 without a file */
    int64_t chip_ns;
    uint64_t memory_limit_bytes, weights_resident_bytes, evictions; /* residency.h */
};
void engine_stats(struct engine *g, struct engine_stats *out);
/* Of model i alone. */
struct engine_model_stats {
    uint64_t kv_pages, kv_pages_used, kv_pages_cached, preempted;
    uint64_t drafted, accepted; /* guessed tokens computed, and those that came true */
    enum { MODEL_UNLOADED, MODEL_LOADING, MODEL_LOADED } residence; /* are its weights in memory? */
    uint64_t resident_bytes, loads; /* loads: times it was brought into memory */
    int64_t load_ns;                /* that took */
};
void engine_model_stats(struct engine *g, size_t i, struct engine_model_stats *out);
/* Seconds after which a refused caller may try again, from the present rate; at least 1. */
uint32_t engine_retry_after(struct engine *g);

#endif
