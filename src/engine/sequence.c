/* A sequence's life between steps: from logits to a token, to text, to an event; see sequence.h. */
#include "engine/sequence.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

enum { AHEAD = 32 }; /* pages that one sequence may have on their way */

static int copy_stops(struct sequence *s, const struct engine_request *r) {
    s->stop = calloc(r->stops + 1, sizeof *s->stop);
    if (s->stop == NULL)
        return ERR_NO_MEMORY;
    for (size_t i = 0; i < r->stops; i++) {
        char *copy = malloc(r->stop[i].n + 1);
        if (copy == NULL)
            return ERR_NO_MEMORY;
        memcpy(copy, r->stop[i].p, r->stop[i].n);
        s->stop[i] = (struct str){copy, r->stop[i].n};
        s->text.stops = i + 1;
    }
    s->text.stop = s->stop;
    return 0;
}

int sequence_create(struct sequence **out, const struct engine_request *r, uint32_t max_tokens, size_t vocab,
                    struct error *e) {
    struct sequence *s = calloc(1, sizeof *s);
    *out = NULL;
    if (s == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a request");
    size_t total = r->prompt_tokens + max_tokens;
    atomic_init(&s->references, 2);
    s->account_number = r->account;
    s->weight = r->weight ? r->weight : 1;
    s->prompt = s->tokens = (uint32_t)r->prompt_tokens;
    s->max_tokens = max_tokens;
    s->window = r->window;
    s->top_logprobs = r->top_logprobs;
    s->ignore_eos = r->ignore_eos;
    s->want_logprobs = r->want_logprobs;
    s->prompt_logprobs = r->prompt_logprobs;
    s->on_event = r->on_event;
    s->context = r->context;
    s->submitted = s->waits_since = clock_mono_ns();
    s->token = malloc(total * sizeof *s->token);
    s->page = malloc((total / KV_PAGE_TOKENS + 1) * sizeof *s->page);
    s->logprob = calloc(r->prompt_logprobs ? r->prompt_tokens : 1, sizeof *s->logprob);
    s->sampler = sampler_create(&r->sampling, vocab);
    if (s->token == NULL || s->page == NULL || s->logprob == NULL || s->sampler == NULL ||
        copy_stops(s, r) != 0 || lookup_create(&s->lookup, total) != 0) {
        atomic_store(&s->references, 1);
        sequence_unref(s);
        return error_set(e, ERR_NO_MEMORY, "no memory for a request of %zu tokens", total);
    }
    memcpy(s->token, r->prompt, r->prompt_tokens * sizeof *s->token);
    for (uint32_t i = 0; i < s->prompt; i++) {
        sampler_see(s->sampler, s->token[i], true);
        lookup_push(&s->lookup, s->token, i + 1);
    }
    *out = s;
    return 0;
}

void sequence_unref(struct sequence *s) {
    if (atomic_fetch_sub(&s->references, 1) != 1)
        return;
    for (size_t i = 0; s->stop != NULL && i < s->text.stops; i++)
        free((char *)s->stop[i].p);
    free(s->stop);
    textstream_free(&s->text);
    buf_free(&s->out);
    sampler_free(s->sampler);
    lookup_free(&s->lookup);
    free(s->token);
    free(s->page);
    free(s->logprob);
    free(s);
}

/* ---- pages ---- */

void sequence_drop_pages(struct sequence *s, struct kv *kv) {
    for (uint32_t i = s->pages; i-- > 0;) /* the end first: a prefix is worth more than what follows it */
        kv_release(kv, s->page[i]);
    s->pages = s->computed = s->published = s->ahead = 0;
    s->named = false;
    s->started = false;
    s->resumed = true;
}

bool sequence_blocked(const struct sequence *s) {
    return s->window != 0 &&
           s->completion >= (uint64_t)atomic_load_explicit(&s->acked, memory_order_relaxed) + s->window;
}

uint32_t sequence_draft_room(const struct sequence *s, bool more_pages) {
    uint64_t rows = s->max_tokens - s->completion, held = (uint64_t)s->pages * KV_PAGE_TOKENS - s->computed;
    if (s->window != 0) {
        uint64_t acked = atomic_load_explicit(&s->acked, memory_order_relaxed);
        uint64_t ahead = acked + s->window > s->completion ? acked + s->window - s->completion : 0;
        rows = ahead < rows ? ahead : rows;
    }
    if (!more_pages && held < rows)
        rows = held;
    return rows > 0 ? (uint32_t)rows - 1 : 0; /* one is the token that there is already */
}

const struct hash *sequence_next_name(struct sequence *s, const struct kv *kv) {
    if (s->published != s->computed || s->tokens - s->computed <= KV_PAGE_TOKENS)
        return NULL;
    if (!s->named) {
        s->next_name =
            kv_name(kv, s->account_number, s->published ? &s->name : NULL, s->token + s->published);
        s->named = true;
    }
    return &s->next_name;
}

void sequence_advance(struct sequence *s, struct kv *kv, uint32_t rows) {
    s->computed += rows;
    while (s->computed - s->published >= KV_PAGE_TOKENS) {
        if (!s->named)
            s->next_name =
                kv_name(kv, s->account_number, s->published ? &s->name : NULL, s->token + s->published);
        s->name = s->next_name;
        s->named = false;
        kv_publish(kv, s->page[s->published / KV_PAGE_TOKENS], &s->name, s->token + s->published);
        s->published += KV_PAGE_TOKENS;
    }
}

/* Send for the pages that follow those it has, as far as they are known. Each is sent for once: one that was lost meanwhile is computed, and nobody waits for ever. */
static void fetch_ahead(struct sequence *s, struct kv *kv, double page_ns) {
    if (s->ahead <= s->computed)
        s->ahead = s->computed;
    for (uint32_t pages = (s->ahead - s->computed) / KV_PAGE_TOKENS + 1;
         pages <= AHEAD && s->tokens - s->ahead > KV_PAGE_TOKENS; pages++) {
        const token_id *token = s->token + s->ahead;
        struct hash name = pages == 1 ? s->next_name : kv_name(kv, s->account_number, &s->ahead_name, token);
        if (!kv_fetch(kv, &name, token, page_ns * pages))
            return;
        s->ahead += KV_PAGE_TOKENS;
        s->ahead_name = name;
    }
}

bool sequence_find_pages(struct sequence *s, struct kv *kv, double page_ns) {
    const struct hash *name;
    uint32_t page;
    /* Every position of the prompt must be computed when its logits are wanted. */
    while (!s->prompt_logprobs && (name = sequence_next_name(s, kv)) != NULL) {
        page = kv_find(kv, name, s->token + s->computed);
        if (page == KV_NO_PAGE) {
            fetch_ahead(s, kv, page_ns);
            return kv_coming(kv, name);
        }
        s->page[s->pages++] = page;
        s->computed += KV_PAGE_TOKENS;
        s->published = s->computed;
        s->name = s->next_name;
        s->named = false;
        if (!s->resumed)
            s->cached += KV_PAGE_TOKENS;
    }
    return false;
}

/* ---- events ---- */

static void fill_logprob(struct token_logprob *to, uint32_t tops, const float *logits, size_t vocab,
                         token_id id) {
    int32_t top[20];
    float logprob[20];
    to->id = id;
    to->tops = tops < vocab ? tops : (uint32_t)vocab;
    to->logprob = sampler_logprobs(logits, vocab, id, to->tops, top, logprob);
    for (uint32_t i = 0; i < to->tops; i++) {
        to->top[i].id = top[i];
        to->top[i].logprob = logprob[i];
    }
}

void sequence_prompt_logits(struct sequence *s, const struct model *m, uint32_t position,
                            const float *logits) {
    if (position + 1 >= s->prompt)
        return;
    s->logprob[0].id = s->token[0];
    fill_logprob(&s->logprob[position + 1], s->top_logprobs, logits, m->traits.vocab, s->token[position + 1]);
}

static void send_prompt(struct sequence *s) {
    struct engine_event event = {
        .kind = EVENT_PROMPT, .logprob = s->logprob, .prompt_tokens = s->prompt, .text = {"", 0}};
    s->on_event(s->context, &event);
    s->prompt_logprobs = false;
}

static void send(struct sequence *s, struct engine_event *event) {
    buf_clear(&s->out);
    textstream_take(&s->text, &s->out);
    event->text = s->out.n ? buf_view(&s->out) : (struct str){"", 0};
    event->prompt_tokens = s->prompt;
    event->cached_tokens = s->cached;
    event->completion_tokens = s->completion;
    event->chip_ns = s->chip_ns;
    event->prefill_ns = s->prefill_ns;
    int64_t now = clock_mono_ns();
    event->queued_ns = (s->started_at ? s->started_at : now) - s->submitted;
    event->first_token_ns = s->first_token ? s->first_token - s->submitted : 0;
    event->total_ns = now - s->submitted;
    s->on_event(s->context, event);
}

void sequence_start(struct sequence *s) {
    struct engine_event event = {.kind = EVENT_START, .text = {"", 0}};
    s->started_at = clock_mono_ns();
    s->on_event(s->context, &event);
}

void sequence_end(struct sequence *s, enum finish_reason reason, const struct error *why) {
    struct engine_event event = {.kind = EVENT_FINISH, .reason = reason, .error = why};
    send(s, &event);
}

bool sequence_take(struct sequence *s, const struct model *m, float *logits, const struct take_space *space) {
    size_t vocab = m->traits.vocab;
    struct engine_event event = {.kind = EVENT_TOKENS, .tokens = 1};
    if (s->prompt_logprobs)
        send_prompt(s);
    if (s->want_logprobs)
        memcpy(space->logits, logits, vocab * sizeof *logits);
    token_id id = sampler_choose(s->sampler, logits, space->candidate);
    if (s->first_token == 0)
        s->first_token = clock_mono_ns();
    if (tokenizer_ends(m->tokenizer, id) && !s->ignore_eos) {
        textstream_end(&s->text);
        sequence_end(s, FINISH_STOP, NULL);
        return true;
    }
    s->token[s->tokens++] = id;
    s->completion++;
    sampler_see(s->sampler, id, false);
    lookup_push(&s->lookup, s->token, s->tokens);
    if (s->want_logprobs) {
        struct token_logprob *last = s->logprob; /* the prompt's have been sent */
        fill_logprob(last, s->top_logprobs, space->logits, vocab, id);
        event.logprob = last;
    }
    bool stopped = textstream_push(&s->text, tokenizer_piece(m->tokenizer, id, false));
    bool full = s->completion >= s->max_tokens;
    if (full && !stopped)
        textstream_end(&s->text);
    if (stopped || full) {
        event.kind = EVENT_FINISH;
        event.reason = stopped ? FINISH_STOP : FINISH_LENGTH;
    }
    send(s, &event);
    return stopped || full;
}
