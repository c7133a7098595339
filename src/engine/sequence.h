/* One running request: its tokens, its KV pages, its sampler and its text. The engine's thread owns it; the caller holds a handle through which it may
 * cancel and acknowledge. */
#ifndef ENGINE_SEQUENCE_H
#define ENGINE_SEQUENCE_H

#include "engine/engine.h"
#include "engine/kv.h"
#include "engine/lookup.h"
#include "engine/textstream.h"

#include <stdatomic.h>

struct pool_model;

struct sequence {
    struct pool_model *model;
    struct account *account;
    struct sequence *next; /* in the inbox, then in its model's list, oldest first */
    uint64_t number;       /* in order of submission */

    /* Shared with the caller's threads. */
    atomic_bool cancelled;
    atomic_uint acked;
    atomic_int references; /* the engine's and the caller's */

    /* The request, copied. */
    uint64_t account_number;
    uint32_t weight, prompt, max_tokens, window, top_logprobs;
    bool ignore_eos, want_logprobs, prompt_logprobs;
    struct str *stop;
    void (*on_event)(void *context, const struct engine_event *event);
    void *context;

    struct sampler *sampler;
    struct lookup lookup;
    struct textstream text;
    struct buf out; /* text of the event being made */

    token_id *token; /* [prompt + max_tokens] prompt, then completion; in a step, guesses behind it */
    uint32_t tokens, completion;

    uint32_t *page;     /* [pages of prompt + max_tokens] */
    uint32_t pages;     /* held */
    uint32_t computed;  /* tokens whose KV lies in the pages */
    uint32_t published; /* tokens in pages that have a name */
    struct hash name;   /* of the last of those pages */
    bool named;         /* next_name is the name of the page after it */
    struct hash next_name;
    uint32_t ahead;         /* tokens whose pages are there, or on their way from the file */
    struct hash ahead_name; /* of the last of those pages */
    bool started;           /* holds a slot and pages */
    bool resumed;           /* has held and lost them before */
    uint32_t rows;          /* in the step being made */
    uint32_t drafted;       /* of them, guesses */

    struct token_logprob *logprob; /* [prompt], only with prompt_logprobs; the last one is scratch */
    uint32_t cached;
    bool first_sent;
    uint64_t stuck; /* until so many steps have been made its next page was not there; 0: it was */
    int64_t submitted, started_at, first_token;
    int64_t chip_ns, prefill_ns; /* its part of the steps' time, all and before its first token */
    int64_t waits_since;         /* its last token, or when it came or its client caught up */
};

/* Copies r. ERR_NO_MEMORY. */
int sequence_create(struct sequence **out, const struct engine_request *r, uint32_t max_tokens, size_t vocab,
                    struct error *e);
void sequence_unref(struct sequence *s);

/* Give all pages back: the sequence computes (or finds) them anew when it goes on. */
void sequence_drop_pages(struct sequence *s, struct kv *kv);

/* The KV of `rows` more tokens is there: name the pages they filled. */
void sequence_advance(struct sequence *s, struct kv *kv, uint32_t rows);

/* May the page that begins at `computed` come from the cache, and under which name? NULL: no. */
const struct hash *sequence_next_name(struct sequence *s, const struct kv *kv);

/* Take the pages that are known already, from `computed` on; at least one token is left to compute. Pages that lie in the file are sent for when that takes less
 * time than computing them, at page_ns each. True: the next page is on its way, so wait. */
bool sequence_find_pages(struct sequence *s, struct kv *kv, double page_ns);

/* Too far ahead of its client: it pauses. */
bool sequence_blocked(const struct sequence *s);

/* Guesses that the next step of a decoding sequence has room for: up to the answer's end and the window, in the pages held or, with `more_pages`, in new ones. */
uint32_t sequence_draft_room(const struct sequence *s, bool more_pages);

/* Logprobs of the prompt's tokens after row `position`, whose logits these are. */
void sequence_prompt_logits(struct sequence *s, const struct model *m, uint32_t position,
                            const float *logits);

/* What taking a token works on, as large as the largest vocabulary; one for all sequences. */
struct take_space {
    float *logits; /* as they were before the sampler changed them */
    struct candidate *candidate;
};

/* Choose the next token from logits[vocab] (which are changed) and tell the caller. True when the sequence has ended; the last event has been sent then. */
bool sequence_take(struct sequence *s, const struct model *m, float *logits, const struct take_space *space);

/* End it now: the last event. */
/* It has left the queue. */
void sequence_start(struct sequence *s);

void sequence_end(struct sequence *s, enum finish_reason reason, const struct error *why);

#endif
