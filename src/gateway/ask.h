/* What a caller asks for, whatever dialect it was said in: the one internal request, checked. A dialect's parser makes it
 * (openai_request.c), completion.c carries it out. */
#ifndef GATEWAY_ASK_H
#define GATEWAY_ASK_H

#include "base/arena.h"
#include "base/json.h"
#include "engine/sampler.h"

enum {
    ASK_MAX_CHOICES = 16,
    ASK_MAX_PROMPTS = 64,
    ASK_MAX_STOPS = 16,
    ASK_MAX_STOP_BYTES = 1024,
    ASK_MAX_BIASES = 1024,
    ASK_MAX_MESSAGES = 4096,
    ASK_MAX_LOGPROBS = 20
};

struct ask_prompt {
    struct str text;        /* when ids is NULL */
    const struct json *ids; /* an array of integers >= 0, not empty */
};

struct ask {
    struct json *root; /* owns what the others borrow */
    struct arena arena;
    bool chat;
    struct str model;
    const struct json *messages; /* chat */
    struct ask_prompt *prompt;   /* completions, [prompts] */
    size_t prompts;              /* 1 for chat */
    uint32_t max_tokens; /* 0: not given (chat), or no answer (echo: only the prompt's logprobs are wanted) */
    const char *max_tokens_name; /* the parameter that said so */
    struct sampling sampling;    /* without a seed of the caller's: seed 0 and seeded false */
    bool seeded;
    struct str stop[ASK_MAX_STOPS];
    size_t stops;
    uint32_t n;
    bool stream, include_usage, echo, ignore_eos;
    bool logprobs;
    uint32_t top_logprobs;
};

/* Parse and check a body of /v1/chat/completions (chat) or /v1/completions. Types and ranges are closed; fields it does not know are ignored, as OpenAI does.
 * ERR_INVALID and ERR_UNSUPPORTED name the parameter. *r is freed with ask_free, also after an error. */
int openai_parse(struct ask *r, bool chat, struct str body, struct error *e);
void ask_free(struct ask *r);
/* What the two bodies are, as schemas for the description; paths and answers stand in data/openai-api.json. */
void openai_write_schemas(struct buf *out);

#endif
