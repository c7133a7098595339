/* The first half of a completion's life: receive, prepare, admit, submit. delivery.c is the other. All of it is the loop's thread, but for
 * prepare_aside. */
#include "gateway/completion.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "cloud/limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PROBS_WINDOW = 16, /* logprobs are long: fewer tokens ahead */
    LEAST_ANSWER = 16  /* tokens; for less, too little credit is too little */
};

/* ---- receive ------------------------------------------------------------------------------------------------------ */

static void link_live(struct completion *c) {
    struct gateway *g = c->gateway;
    c->next = g->live;
    c->link = &g->live;
    if (g->live != NULL)
        g->live->link = &c->next;
    g->live = c;
}

/* The time, never the same twice, and chance: later requests have greater ids, so that their records lie side by side in the books and a commit touches few
 * pages of the database. */
static void make_id(struct completion *c) {
    struct gateway *g = c->gateway;
    uint64_t now = (uint64_t)clock_wall_ns();
    uint32_t chance;
    random_bytes(&chance, sizeof chance);
    g->last_id = now > g->last_id ? now : g->last_id + 1;
    c->created = (int64_t)(now / 1000000000);
    snprintf(c->id, sizeof c->id, "%s%016llx%08x", c->dialect->id_prefix, (unsigned long long)g->last_id,
             chance);
}

static bool key_ok(struct str key) {
    bool ok = key.n >= 1 && key.n <= 255;
    for (size_t i = 0; i < key.n && ok; i++)
        ok = key.p[i] >= ' ' && key.p[i] <= '~';
    return ok;
}

static const struct answerer answerer;

void completion_receive(struct gateway *g, struct exchange *x, const struct http_head *head,
                        const struct identity *who, const struct address *from, bool chat) {
    struct error e = {0};
    struct completion *c = NULL;
    if (head->coded) {
        respond_status(g, x, 415, "unsupported_media_type",
                       "send the body as it is, without a Content-Encoding",
                       STR("Accept-Encoding: identity\r\n"));
        return;
    }
    if (g->drain_until != 0)
        error_set(&e, ERR_UNAVAILABLE, "the server is shutting down");
    else if (head->idempotency.p != NULL && !key_ok(head->idempotency))
        error_param(&e, ERR_INVALID, "Idempotency-Key", "an Idempotency-Key has 1 to 255 visible characters");
    else if (head->length > GATEWAY_MAX_BODY)
        error_set(&e, ERR_TOO_LARGE, "the body may have %d bytes at most", GATEWAY_MAX_BODY);
    else if ((c = calloc(1, sizeof *c)) == NULL)
        error_set(&e, ERR_NO_MEMORY, "no memory for the request");
    if (c == NULL) {
        respond_error(g, x, &e, STR(""));
        return;
    }
    c->answerer = &answerer;
    c->gateway = g;
    c->x = x;
    c->dialect = chat ? &openai_chat : &openai_completion;
    c->who = *who;
    c->from = *from;
    c->keyed = head->idempotency.p != NULL;
    if (c->keyed)
        c->key = hash_sha256(head->idempotency);
    c->body.limit = GATEWAY_MAX_BODY;
    make_id(c);
    link_live(c);
    exchange_set_user(x, c);
}

static void write_rate(struct buf *out, const struct rate *r, const char *what) {
    char full[DURATION_BYTES];
    if (r->limit == 0)
        return;
    duration_write(full, r->full_ns);
    buf_printf(out,
               "x-ratelimit-limit-%s: %lld\r\nx-ratelimit-remaining-%s: %lld\r\nx-ratelimit-reset-%s: %s\r\n",
               what, (long long)r->limit, what, (long long)r->remaining, what, full);
}

void completion_headers(const struct completion *c, struct buf *out) {
    buf_printf(out, "x-request-id: %s\r\n", c->id);
    write_rate(out, &c->rates.requests, "requests");
    write_rate(out, &c->rates.tokens, "tokens");
}

/* The request ends with an error: as a status while that is possible, else as the stream's last event. */
void completion_fail(struct completion *c, const struct error *e) {
    struct gateway *g = c->gateway;
    if (c->failed || c->ended)
        return;
    c->failed = true;
    once_failed(c, e);
    for (uint32_t i = 0; i < c->choices; i++)
        if (c->choice[i].sequence != NULL && !c->choice[i].finished)
            engine_cancel(g->engine, c->choice[i].sequence);
    if (c->x == NULL)
        return;
    if (!exchange_responded(c->x)) {
        struct buf headers = {0};
        completion_headers(c, &headers);
        respond_error(g, c->x, e, buf_view(&headers));
        buf_free(&headers);
        return;
    }
    c->dialect->write_error(c, e);
    completion_emit(c, &c->choice[0], 0);
    c->ended = true;
    completion_pump(c);
}

void completion_give_up(struct completion *c, const struct error *e) {
    if (c->hold == NULL || c->asking || c->finished || (c->failed && !c->ended))
        return; /* all is said */
    completion_drop_unsent(c);
    c->failed = c->ended = false;
    completion_fail(c, e);
    if (c->written_inside) /* half an event and an error behind it are neither */
        completion_abort(c);
}

static void take_body(void *completion, struct str piece) {
    struct completion *c = completion;
    struct error e;
    buf_str(&c->body, piece);
    if (c->body.failed && !c->failed) {
        error_set(&e, ERR_TOO_LARGE, "the body may have %d bytes at most", GATEWAY_MAX_BODY);
        completion_fail(c, &e);
    }
}

static void end_body(void *completion) {
    struct completion *c = completion;
    if (c->failed)
        return;
    c->preparing = true;
    if (c->body.n > GATEWAY_INLINE_BODY) {
        worker_put(c->gateway->worker, c);
        return;
    }
    completion_worker.run(c);
    completion_worker.done(c);
}

static const struct answerer answerer = {take_body, end_body, completion_broken, completion_taken,
                                         completion_closed};

/* ---- prepare ------------------------------------------------------------------------------------------------------ */

static int check_ids(const struct completion *c, struct error *e) {
    size_t vocab = tokenizer_vocab(c->model->tokenizer);
    const struct sampling *s = &c->ask.sampling;
    for (size_t i = 0; i < s->biases; i++)
        if ((size_t)s->bias[i].id >= vocab)
            return error_param(e, ERR_INVALID, "logit_bias", "the model has no token %d", s->bias[i].id);
    for (size_t i = 0; i < c->ask.prompts && !c->ask.chat; i++)
        for (size_t k = 0; k < json_count(c->ask.prompt[i].ids); k++)
            if ((size_t)json_as_int(json_at(c->ask.prompt[i].ids, k)) >= vocab)
                return error_param(e, ERR_INVALID, "prompt", "the model has no token %lld",
                                   (long long)json_as_int(json_at(c->ask.prompt[i].ids, k)));
    return 0;
}

static int encode_prompt(struct completion *c, size_t i, struct error *e) {
    struct tokens *to = &c->prompt[i];
    if (c->ask.chat) {
        int rc = model_encode_chat(c->model, c->ask.messages, NULL, to, e);
        if (rc == ERR_INVALID && e->param[0] == 0)
            snprintf(e->param, sizeof e->param, "messages");
        return rc;
    }
    const struct ask_prompt *p = &c->ask.prompt[i];
    struct segment text = {p->text, false};
    if (p->ids == NULL)
        return tokenizer_encode(c->model->tokenizer, &text, 1, TOKENIZER_ADD_SPECIAL, to, e);
    for (size_t k = 0; k < json_count(p->ids); k++)
        if (tokens_push(to, (token_id)json_as_int(json_at(p->ids, k))) != 0)
            return error_set(e, ERR_NO_MEMORY, "no memory for the prompt");
    return 0;
}

/* The longest prompt and its answer must fit the model's context. */
static int fit_context(struct completion *c, size_t longest, struct error *e) {
    const char *param = c->ask.chat ? "messages" : "prompt";
    uint32_t context = engine_model_context(c->gateway->engine, c->ask.model);
    if (longest >= context)
        return error_param(e, ERR_INVALID, param,
                           "the prompt has %zu tokens, and the model's context holds %u with the answer",
                           longest, context);
    if (c->ask.max_tokens > context - longest)
        return error_param(
            e, ERR_INVALID, c->ask.max_tokens_name,
            "the prompt's %zu tokens and the %u asked for are more than the model's context of %u", longest,
            c->ask.max_tokens, context);
    bool open = c->ask.chat && c->ask.max_tokens == 0;
    c->max_tokens = open ? context - (uint32_t)longest : c->ask.max_tokens;
    return 0;
}

static int prepare(struct completion *c, struct error *e) {
    struct engine *engine = c->gateway->engine;
    size_t longest = 0;
    if (c->keyed)
        c->fingerprint = hash_hmac(str_from(c->dialect->id_prefix), buf_view(&c->body));
    int rc = c->dialect->parse(&c->ask, buf_view(&c->body), e);
    buf_free(&c->body);
    if (rc != 0)
        return rc;
    struct str name = c->ask.model;
    c->model = engine_model(engine, name);
    if (c->model == NULL)
        return error_param(e, ERR_NOT_FOUND, "model", "the model '%.*s' does not exist",
                           (int)(name.n < 200 ? name.n : 200), name.p);
    if (engine_model_failed(engine, name, e))
        return e->code = ERR_UNAVAILABLE;
    c->prompt = calloc(c->ask.prompts, sizeof *c->prompt);
    if (c->prompt == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the request");
    rc = check_ids(c, e);
    for (size_t i = 0; i < c->ask.prompts && rc == 0; i++) {
        rc = encode_prompt(c, i, e);
        if (rc == 0 && c->prompt[i].n == 0)
            rc = error_param(e, ERR_INVALID, "prompt", "a prompt is empty");
        c->prompt_tokens += c->prompt[i].n;
        longest = c->prompt[i].n > longest ? c->prompt[i].n : longest;
    }
    return rc != 0 ? rc : fit_context(c, longest, e);
}

/* On the worker's thread or the loop's: parse, find the model, encode. Touches nothing but c. */
static void prepare_aside(void *completion) {
    struct completion *c = completion;
    c->prepared = prepare(c, &c->error);
}

/* ---- admit and submit --------------------------------------------------------------------------------------------- */

static void on_engine_event(void *context, const struct engine_event *event) {
    struct choice *ch = context;
    struct gateway *g = ch->completion->gateway;
    if (inbox_put(&g->inbox, ch, event))
        http_wake(g->http);
}

/* Ask for a hold for the worst case. A caller who set no limit gets the longest answer that its credit covers, and a minute's tokens. */
static int admit(struct completion *c, struct error *e) {
    struct admission a = {.who = &c->who,
                          .model = c->ask.model,
                          .prompt_tokens = c->prompt_tokens,
                          .max_completion_tokens = (uint64_t)c->max_tokens * c->choices,
                          .least_completion_tokens =
                              c->ask.max_tokens == 0 ? (uint64_t)LEAST_ANSWER * c->choices : 0,
                          .route = c->ask.chat ? STR("chat.completions") : STR("completions"),
                          .address = c->from,
                          .rates = &c->rates,
                          .answer = once_answer(c)};
    snprintf(a.request_id, sizeof a.request_id, "%s", c->id);
    return cloud_admit(c->gateway->cloud, &a, &c->hold, e);
}

static int submit(struct completion *c, struct choice *ch, struct error *e) {
    const struct tokens *prompt = &c->prompt[ch->prompt];
    struct sampling sampling = c->ask.sampling;
    if (!c->ask.seeded)
        random_bytes(&sampling.seed, sizeof sampling.seed);
    else
        sampling.seed += ch->index;
    struct engine_request r = {
        .model = c->ask.model,
        .account = c->who.account,
        .weight = c->who.weight,
        .prompt = prompt->id,
        .prompt_tokens = prompt->n,
        .max_tokens = c->max_tokens != 0 ? c->max_tokens : 1, /* the least that the engine makes */
        .sampling = sampling,
        .stop = c->ask.stop,
        .stops = c->ask.stops,
        .ignore_eos = c->ask.ignore_eos,
        .want_logprobs = c->ask.logprobs,
        .top_logprobs = c->ask.top_logprobs,
        .prompt_logprobs = c->ask.echo && c->ask.logprobs,
        .window = !c->ask.stream    ? 0
                  : c->ask.logprobs ? PROBS_WINDOW
                                    : GATEWAY_WINDOW,
        .on_event = on_engine_event,
        .context = ch,
    };
    int rc = engine_submit(c->gateway->engine, &r, &ch->sequence, e);
    if (rc != 0) {
        ch->sequence = NULL;
        return rc;
    }
    c->running++;
    c->metrics->waiting++;
    return 0;
}

void choice_add_piece(struct choice *ch, uint32_t tokens) {
    if (ch->pieces == ch->pieces_capacity) {
        size_t more = ch->pieces_capacity ? 2 * ch->pieces_capacity : 64;
        struct piece *grown = realloc(ch->piece, more * sizeof *grown);
        if (grown == NULL) {
            ch->completion->out.failed = true; /* an answer with a hole is none */
            return;
        }
        ch->piece = grown;
        ch->pieces_capacity = more;
    }
    ch->piece[ch->pieces++] = (struct piece){ch->text.n, tokens};
}

static int start(struct completion *c, struct error *e) {
    c->choices = (uint32_t)c->ask.prompts * c->ask.n;
    c->metrics = metrics_model(&c->gateway->metrics, c->ask.model);
    c->choice = calloc(c->choices, sizeof *c->choice);
    if (c->choice == NULL || c->metrics == NULL) {
        c->choices = 0;
        return error_set(e, ERR_NO_MEMORY, "no memory for the request");
    }
    return admit(c, e);
}

static int submit_all(struct completion *c, struct error *e) {
    int rc = 0;
    for (uint32_t i = 0; i < c->choices && rc == 0; i++) {
        struct choice *ch = &c->choice[i];
        ch->completion = c;
        ch->index = i;
        ch->prompt = i / c->ask.n;
        if (c->ask.echo && !c->ask.stream) {
            completion_prompt_text(ch, &ch->text);
            choice_add_piece(ch, 0);
        }
        rc = submit(c, ch, e);
    }
    return rc;
}

/* Submit when the books have granted the hold; while they have not decided, wait to be told. */
static void go_on(struct completion *c) {
    uint64_t most = 0;
    int rc = cloud_granted(&c->hold, &c->rates, &most, &c->error);
    c->asking = rc == 1;
    if (c->asking) {
        c->next_asking = c->gateway->asking;
        c->gateway->asking = c;
        return;
    }
    if (rc == 0) {
        c->max_tokens = (uint32_t)(most / c->choices);
        rc = c->closed || c->failed ? 0 : submit_all(c, &c->error);
    }
    if (rc != 0)
        completion_fail(c, &c->error);
    if (c->x == NULL && c->running == 0)
        completion_end(c);
}

void completion_hear_books(struct gateway *g) {
    struct completion *c = g->asking;
    g->asking = NULL;
    for (struct completion *next; c != NULL; c = next) {
        next = c->next_asking;
        go_on(c);
    }
}

void completion_start(struct completion *c) {
    int rc = c->prepared != 0 ? c->prepared : start(c, &c->error);
    if (rc != 0)
        completion_fail(c, &c->error);
    else
        go_on(c);
}

static void prepared(void *completion) {
    struct completion *c = completion;
    c->preparing = false;
    if (c->closed) {
        completion_end(c);
        return;
    }
    if (c->keyed)
        once_join(c);
    else
        completion_start(c);
}

const struct worker_kind completion_worker = {prepare_aside, prepared};

void completion_prompt_text(const struct choice *ch, struct buf *out) {
    const struct completion *c = ch->completion;
    const struct ask_prompt *p = &c->ask.prompt[ch->prompt];
    if (p->ids == NULL)
        buf_str(out, p->text);
    else
        tokenizer_decode(c->model->tokenizer, c->prompt[ch->prompt].id, c->prompt[ch->prompt].n, false, out);
}
