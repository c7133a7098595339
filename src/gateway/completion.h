/* One completion request while it lives, as the lifecycle (completion.c) and the dialects (openai_response.c) see it. */
#ifndef GATEWAY_COMPLETION_H
#define GATEWAY_COMPLETION_H

#include "gateway/inner.h"

/* What a dialect's logprobs look like so far, as JSON without the brackets around it. */
struct probs {
    struct buf tokens, values, tops, offsets; /* chat uses tokens alone */
    uint64_t offset;                          /* code points of text before the next token */
};

/* A run of a whole answer's text, and the tokens it brought. */
struct piece {
    size_t end;
    uint32_t tokens;
};

/* One answer: one sequence of the engine. */
struct choice {
    struct completion *completion;
    struct sequence *sequence;
    uint32_t index, prompt;       /* which of the prompts */
    bool started, seen, finished; /* it left the engine's queue; its first token; the engine's last event */
    bool begun;                   /* its first chunk was written */
    enum finish_reason reason;
    struct buf text; /* whole answers: all of it; streams: what is not in a chunk yet */
    struct piece *piece;
    size_t pieces, pieces_capacity;
    struct probs probs;
    uint32_t tokens;  /* the engine gave */
    uint32_t emitted; /* are in bytes of the response */
    uint32_t taken;   /* were taken by the socket */
    uint32_t acked;   /* the engine was told */
    uint32_t prompt_tokens, cached_tokens;
    int64_t chip_ns, prefill_ns, first_token_ns, last_token_ns, total_ns;
};

/* The response's bytes up to `end` bring the choice to `tokens`, and all choices to `total`. */
struct emission {
    uint64_t end, total;
    uint32_t choice, tokens;
    bool inside; /* an event or a body goes on behind `end` */
};

struct dialect;

struct completion {
    const struct answerer *answerer; /* first */
    struct gateway *gateway;
    struct exchange *x; /* NULL when it has closed */
    const struct dialect *dialect;
    struct identity who;
    struct address from;
    struct rates rates; /* once it was admitted or refused */
    struct buf body;
    struct ask ask;
    struct error error; /* of the preparation */
    int prepared;       /* its result */
    const struct model *model;
    struct model_metrics *metrics;
    char id[48];
    int64_t created;
    struct tokens *prompt; /* [ask.prompts] */
    uint64_t prompt_tokens;
    uint32_t max_tokens; /* of an answer; 0: only the prompt was asked about */
    struct choice *choice;
    uint32_t choices, running; /* running: submitted and not finished */
    struct hold *hold;
    struct buf head; /* how every chunk of a stream begins, which the dialect writes once */
    struct buf out;  /* of the response, from byte out_base on */
    uint64_t out_base, written;
    uint64_t total, written_total; /* tokens in bytes; of them in bytes written */
    bool written_inside;           /* see emission */
    struct emission *emission;
    size_t emissions, capacity, emissions_written, emissions_taken;
    uint64_t emission_base;
    bool preparing, asking /* the books, for the hold */, ended /* all is in out */, finished, failed, closed,
        complete;
    uint64_t taken; /* completion tokens that the socket took, all choices */
    struct completion *next, **link;
    struct completion *next_held, **held_link; /* held_link: NULL, or it waits for the books */
    struct completion *next_asking;

    /* Under an Idempotency-Key (idempotency.c). */
    bool keyed;
    struct hash key, fingerprint;                    /* of what was sent; of route and body */
    struct once *once;                               /* NULL: none, or it is past */
    struct completion *next_waiting, **waiting_link; /* of once; NULL: it is the one that runs */
    size_t replayed;                                 /* bytes of the kept answer given to the socket */
};

/* An API's way to ask and to answer. Writers append to c->out; completion_emit then says how many tokens the new bytes bring. */
struct dialect {
    const char *id_prefix;
    int (*parse)(struct ask *ask, struct str body, struct error *e);
    void (*write_text)(
        struct choice *ch); /* a chunk of a stream: the text and logprobs that wait, which it clears */
    void (*write_finish)(struct choice *ch);                          /* the choice's last chunk */
    void (*write_end)(struct completion *c);                          /* the stream's end */
    void (*write_error)(struct completion *c, const struct error *e); /* in the middle of a stream */
    void (*write_body)(struct completion *c);                         /* a whole answer; emits */
    void (*see_logprobs)(struct choice *ch, const struct token_logprob *p, uint32_t n, bool prompt);
};

extern const struct dialect openai_chat, openai_completion;

/* ---- between completion.c and delivery.c ---- */

/* Of the answerer. */
void completion_taken(void *completion, uint64_t mark);
void completion_broken(void *completion);
void completion_closed(void *completion, bool complete);

/* The request ends with an error: as a status while that is possible, else as the stream's last event. Once. */
void completion_fail(struct completion *c, const struct error *e);
/* The lines that every answer has: its id, and OpenAI's of what is left of limits. */
void completion_headers(const struct completion *c, struct buf *out);
/* Forget what the socket was not given yet. */
void completion_drop_unsent(struct completion *c);
/* Nothing runs for it and nobody waits for it: settle, and free. */
void completion_end(struct completion *c);
/* The text so far, from the last piece on, brought `tokens` tokens. */
void choice_add_piece(struct choice *ch, uint32_t tokens);

/* Admit and submit; or fail. */
void completion_start(struct completion *c);

/* ---- idempotency.c: what belongs to one key ---- */

/* It is prepared: find what stands under its key; then it starts, or waits for an answer, or has it. */
void once_join(struct completion *c);
/* What the books write with its hold and settlement; NULL: it has no key. */
struct answer *once_answer(const struct completion *c);
/* These bytes of its answer are the next. */
void once_keep(struct completion *c, struct str bytes);
/* Whether it goes on to its end when its client has gone: all of the answer is there for the client that asks again. */
bool once_goes_on(const struct completion *c);
void once_failed(struct completion *c, const struct error *e);
/* The socket has taken some of a kept answer. */
void once_replay(struct completion *c);
/* It ends, before it is settled. True: its whole answer is kept, and so is charged whoever took it. */
bool once_leave(struct completion *c);

/* ---- for dialects ---- */

/* The bytes appended since the last call bring `tokens` tokens of the choice more. */
void completion_emit(struct completion *c, struct choice *ch, uint32_t tokens);
uint64_t completion_cached(const struct completion *c); /* prompt tokens found in the cache */
/* The prompt as text, for echo. */
void completion_prompt_text(const struct choice *ch, struct buf *out);

#endif
