/* The second half of a completion's life: what the engine gives becomes bytes, bytes are sent as far as the books allow, what the socket has taken is what
 * the books are told, and the end is settled. Here the two journeys meet.
 *
 * A token's bytes leave only when the books allow (cloud_may_send), so that a crash loses at most 32 tokens of billing; each event of a stream is
 * an emission: bytes, and the tokens that count as delivered when the socket has taken all of them. The engine runs ahead of a slow socket by a window and no more. */
#include "gateway/completion.h"

#include "base/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    PENDING = 16 << 10, /* bytes given to a socket ahead of its taking them */
    /* Tokens that count together, when the socket has taken the last byte of their event: part of an event is of no use to a client. Less than the
     * books let go unjournalled by as much as they let wait before they journal, so that such an event always goes at last. */
    TOGETHER = 24,
};

/* ---- bytes -------------------------------------------------------------------------------------------------------- */

static bool grow_emissions(struct completion *c, uint32_t by) {
    if (c->emissions + by <= c->capacity)
        return true;
    size_t more = 2 * c->capacity + by + 16;
    struct emission *grown = realloc(c->emission, more * sizeof *grown);
    if (grown == NULL)
        return false;
    c->emission = grown;
    c->capacity = more;
    return true;
}

void completion_emit(struct completion *c, struct choice *ch, uint32_t tokens) {
    uint64_t end = c->out_base + c->out.n;
    uint64_t begin = c->emissions > 0 ? c->emission[c->emissions - 1].end : c->written;
    uint32_t slices = tokens > 0 ? (tokens + TOGETHER - 1) / TOGETHER : 1, before = 0;
    if (c->out.failed || !grow_emissions(c, slices)) {
        c->out.failed = true;
        return;
    }
    once_keep(c, (struct str){c->out.p + (begin - c->out_base), end - begin});
    for (uint32_t i = 1; i <= slices; i++) {
        uint32_t upto = (uint32_t)((uint64_t)tokens * i / slices);
        ch->emitted += upto - before;
        c->total += upto - before;
        before = upto;
        c->emission[c->emissions++] = (struct emission){.end = begin + (end - begin) * i / slices,
                                                        .total = c->total,
                                                        .choice = ch->index,
                                                        .tokens = ch->emitted,
                                                        .inside = i < slices || !c->ask.stream};
    }
}

/* Forget what lies behind, now and then: a stream may last for hours with a slow client. */
static void drop_written(struct completion *c) {
    size_t gone = (size_t)(c->written - c->out_base);
    if (gone == c->out.n) {
        c->out_base = c->written;
        buf_clear(&c->out);
    } else if (gone > PENDING) {
        memmove(c->out.p, c->out.p + gone, c->out.n - gone);
        c->out.n -= gone;
        c->out_base = c->written;
    }
    if (c->emissions_taken == 0 || (c->emissions_taken < c->emissions && c->emissions_taken < 1024))
        return;
    c->emissions -= c->emissions_taken;
    memmove(c->emission, c->emission + c->emissions_taken, c->emissions * sizeof *c->emission);
    c->emission_base += c->emissions_taken;
    c->emissions_written -= c->emissions_taken;
    c->emissions_taken = 0;
}

void completion_drop_unsent(struct completion *c) {
    c->emissions = c->emissions_written;
    c->total = c->written_total;
    c->out.n = (size_t)(c->written - c->out_base);
}

/* The next commit pumps it again. */
static void wait_for_books(struct completion *c) {
    struct gateway *g = c->gateway;
    if (c->held_link != NULL)
        return;
    c->next_held = g->held;
    c->held_link = &g->held;
    if (g->held != NULL)
        g->held->held_link = &c->next_held;
    g->held = c;
}

static void wait_no_more(struct completion *c) {
    if (c->held_link == NULL)
        return;
    *c->held_link = c->next_held;
    if (c->next_held != NULL)
        c->next_held->held_link = c->held_link;
    c->held_link = NULL;
}

void completion_books_committed(struct gateway *g) {
    struct completion *c = g->held;
    g->held = NULL;
    for (struct completion *next; c != NULL; c = next) {
        next = c->next_held;
        c->held_link = NULL;
        completion_pump(c);
    }
}

/* The engine may go on by what the socket took, and by what is not in any bytes yet (half a character, the beginning of a stop string): else it
 * would wait for us while we wait for it. */
static void acknowledge(struct choice *ch) {
    uint32_t n = ch->taken + (ch->tokens - ch->emitted);
    if (n <= ch->acked || ch->finished)
        return;
    ch->acked = n;
    engine_ack(ch->completion->gateway->engine, ch->sequence, n);
}

static void leave(struct completion *c) {
    c->closed = true;
    for (uint32_t i = 0; i < c->choices; i++)
        if (c->choice[i].sequence != NULL && !c->choice[i].finished)
            engine_cancel(c->gateway->engine, c->choice[i].sequence);
}

/* Its client has gone, and the answer is made all the same for when it asks again: the engine goes on as if it was read, but nothing counts as sent. */
static void read_by_nobody(struct completion *c) {
    if (!once_goes_on(c) || c->out.failed) {
        leave(c);
        return;
    }
    for (; c->emissions_taken < c->emissions; c->emissions_taken++) {
        const struct emission *m = &c->emission[c->emissions_taken];
        c->choice[m->choice].taken = m->tokens;
        c->written = m->end;
        acknowledge(&c->choice[m->choice]);
    }
    c->emissions_written = c->emissions;
    drop_written(c);
}

void completion_pump(struct completion *c) {
    if (c->asking)
        return;
    if (c->x == NULL && c->hold != NULL && !c->closed)
        read_by_nobody(c);
    if (c->x == NULL || c->finished || c->hold == NULL)
        return;
    if (c->out.failed) { /* no memory for the answer */
        completion_abort(c);
        return;
    }
    uint64_t may = cloud_may_send(c->hold);
    while (c->emissions_written < c->emissions && exchange_pending(c->x) < PENDING) {
        const struct emission *m = &c->emission[c->emissions_written];
        if (m->total > may) {
            wait_for_books(c);
            return;
        }
        struct str bytes = {c->out.p + (c->written - c->out_base), m->end - c->written};
        exchange_write(c->x, bytes, c->emission_base + ++c->emissions_written);
        c->written = m->end;
        c->written_total = m->total;
        c->written_inside = m->inside;
    }
    if (c->ended && c->emissions_written == c->emissions) {
        c->finished = true;
        exchange_finish(c->x);
    }
}

uint64_t completion_cached(const struct completion *c) {
    uint64_t n = 0;
    for (uint32_t i = 0; i < c->choices; i += c->ask.n) /* a prompt counts once, whatever n is */
        n += c->choice[i].cached_tokens;
    return n < c->prompt_tokens ? n : c->prompt_tokens;
}

void completion_taken(void *completion, uint64_t mark) {
    struct completion *c = completion;
    if (c->hold == NULL) {
        once_replay(c);
        return;
    }
    size_t upto = (size_t)(mark - c->emission_base);
    for (; c->emissions_taken < upto; c->emissions_taken++) {
        const struct emission *m = &c->emission[c->emissions_taken];
        struct choice *ch = &c->choice[m->choice];
        ch->taken = m->tokens;
        c->taken = m->total;
        acknowledge(ch);
    }
    if (c->taken > 0)
        cloud_sent(c->hold, c->taken, completion_cached(c));
    drop_written(c);
    completion_pump(c);
}

/* ---- the engine's events ------------------------------------------------------------------------------------------ */

static void count_finish(struct choice *ch, const struct engine_event *event) {
    struct model_metrics *m = ch->completion->metrics;
    *(ch->started ? &m->running : &m->waiting) -= 1;
    m->finished[event->reason]++;
    if (event->reason == FINISH_FAILED || event->first_token_ns == 0)
        return;
    metrics_see_ns(m, SEEN_LATENCY, event->total_ns);
    metrics_see_ns(m, SEEN_QUEUE, event->queued_ns);
    metrics_see_ns(m, SEEN_INFERENCE, event->total_ns - event->queued_ns);
    metrics_see_ns(m, SEEN_PREFILL, event->first_token_ns - event->queued_ns);
    metrics_see_ns(m, SEEN_DECODE, event->total_ns - event->first_token_ns);
    metrics_see(m, SEEN_PROMPT_TOKENS, event->prompt_tokens);
    metrics_see(m, SEEN_GENERATION_TOKENS, ch->tokens);
    if (ch->tokens > 1)
        metrics_see_ns(m, SEEN_PER_TOKEN, (event->total_ns - event->first_token_ns) / (ch->tokens - 1));
}

/* The prompt counts when its first token is there, each token when it comes: not all at the end of an answer that may take an hour. */
static void count_tokens(struct choice *ch, const struct engine_event *event) {
    struct model_metrics *m = ch->completion->metrics;
    m->generation_tokens += event->tokens;
    if (!ch->seen && event->first_token_ns > 0) {
        ch->seen = true;
        m->prompt_tokens += event->prompt_tokens;
        m->cached_tokens += event->cached_tokens;
        metrics_see_ns(m, SEEN_FIRST_TOKEN, event->first_token_ns);
    } else if (event->tokens > 0) {
        metrics_see_ns(m, SEEN_INTER_TOKEN, event->total_ns - ch->last_token_ns);
    }
    ch->last_token_ns = event->total_ns;
}

static void see_event(struct choice *ch, const struct engine_event *event) {
    struct completion *c = ch->completion;
    ch->tokens += event->tokens;
    if (event->cached_tokens > 0)
        ch->cached_tokens = event->cached_tokens;
    count_tokens(ch, event);
    if (event->kind != EVENT_FINISH)
        return;
    ch->finished = true;
    ch->reason = event->reason;
    ch->prompt_tokens = event->prompt_tokens;
    ch->chip_ns = event->chip_ns;
    ch->prefill_ns = event->prefill_ns;
    ch->first_token_ns = event->first_token_ns;
    ch->total_ns = event->total_ns;
    c->running--;
    count_finish(ch, event);
}

static void respond(struct completion *c, const char *type, const char *more, int64_t length) {
    struct buf headers = {0};
    buf_text(&headers, more);
    completion_headers(c, &headers);
    c->gateway->metrics.status[2]++;
    exchange_respond(c->x, 200, type, buf_view(&headers), length);
    buf_free(&headers);
}

static void stream_event(struct choice *ch, bool last) {
    struct completion *c = ch->completion;
    bool first = c->x != NULL && !exchange_responded(c->x);
    if (first)
        respond(c, "text/event-stream; charset=utf-8", "Cache-Control: no-cache\r\n", -1);
    if (ch->text.n > 0 || first) {
        /* Tokens whose text is still held back are not in these bytes; their logprobs would be. */
        uint32_t tokens = ch->text.n > 0 || c->ask.logprobs ? ch->tokens - ch->emitted : 0;
        c->dialect->write_text(ch);
        completion_emit(c, ch, tokens);
    }
    if (last) {
        c->dialect->write_finish(ch);
        completion_emit(c, ch, ch->tokens - ch->emitted);
    }
    acknowledge(ch);
    if (c->running > 0)
        return;
    c->dialect->write_end(c);
    completion_emit(c, ch, 0);
    c->ended = true;
}

static void whole_event(struct choice *ch, const struct engine_event *event) {
    struct completion *c = ch->completion;
    /* The last one may bring text alone: what might have become a stop string. */
    if (event->tokens > 0 || event->text.n > 0)
        choice_add_piece(ch, event->tokens);
    if (c->running > 0)
        return;
    c->dialect->write_body(c);
    if (c->out.failed)
        return;
    c->ended = true;
    if (c->x == NULL)
        return;
    respond(c, "application/json", "", (int64_t)c->out.n);
}

/* Sequences that ended without an answer: why. */
static void fail_by(struct completion *c, const struct engine_event *event) {
    struct error e = {0};
    if (event->reason == FINISH_CANCELLED)
        error_set(&e, ERR_UNAVAILABLE, "the server is shutting down");
    else if (event->error != NULL)
        e = *event->error;
    else
        error_set(&e, ERR_INTERNAL, "the model failed");
    completion_fail(c, &e);
}

/* Only the prompt was asked about: the one token that the engine made behind it is nobody's. */
static struct engine_event without_answer(struct engine_event event) {
    event.tokens = 0;
    event.text = (struct str){"", 0};
    event.logprob = NULL;
    if (event.reason == FINISH_STOP)
        event.reason = FINISH_LENGTH;
    return event;
}

static void see_answer(struct choice *ch, const struct engine_event *event) {
    struct completion *c = ch->completion;
    bool last = event->kind == EVENT_FINISH;
    if (last && (event->reason == FINISH_FAILED || event->reason == FINISH_CANCELLED)) {
        fail_by(c, event);
        return;
    }
    buf_str(&ch->text, event->text);
    if (event->tokens > 0 && event->logprob != NULL)
        c->dialect->see_logprobs(ch, event->logprob, event->tokens, false);
    if (c->ask.stream)
        stream_event(ch, last);
    else
        whole_event(ch, event);
    completion_pump(c);
}

void completion_event(struct choice *ch, const struct engine_event *event) {
    struct completion *c = ch->completion;
    struct engine_event bare;
    if (event->kind == EVENT_START) {
        ch->started = true;
        c->metrics->waiting--;
        c->metrics->running++;
        return;
    }
    if (event->kind == EVENT_PROMPT) {
        if (!c->closed && !c->failed && event->logprob != NULL)
            c->dialect->see_logprobs(ch, event->logprob, event->prompt_tokens, true);
        return;
    }
    if (c->max_tokens == 0) {
        bare = without_answer(*event);
        event = &bare;
    }
    see_event(ch, event);
    if (!c->closed && !c->failed)
        see_answer(ch, event);
    if (c->x == NULL && c->running == 0)
        completion_end(c);
}

/* ---- the end ------------------------------------------------------------------------------------------------------ */

struct completion *completion_next(const struct completion *c) {
    return c->next;
}

void completion_abort(struct completion *c) {
    if (c->x != NULL)
        exchange_abort(c->x);
}

void completion_broken(void *completion) {
    ((struct completion *)completion)->failed = true;
}

void completion_closed(void *completion, bool complete) {
    struct completion *c = completion;
    c->x = NULL;
    c->complete = complete;
    if (!complete && once_goes_on(c))
        read_by_nobody(c);
    else
        leave(c);
    if (!c->preparing && !c->asking && c->running == 0)
        completion_end(c);
}

/* kept: the answer is whole, and whoever has the key may read it. */
static void settle(struct completion *c, bool kept) {
    struct settlement s = {.completion_tokens = kept ? c->total : c->taken,
                           .cached_tokens = completion_cached(c)};
    s.outcome = c->failed ? OUTCOME_FAILED : c->complete || kept ? OUTCOME_DONE : OUTCOME_CANCELLED;
    for (uint32_t i = 0; i < c->choices; i++) {
        const struct choice *ch = &c->choice[i];
        s.chip_ns += ch->chip_ns;
        s.prefill_ns += ch->prefill_ns;
        if (ch->first_token_ns > 0 && (s.first_token_ns == 0 || ch->first_token_ns < s.first_token_ns))
            s.first_token_ns = ch->first_token_ns;
        if (ch->total_ns > s.total_ns)
            s.total_ns = ch->total_ns;
    }
    cloud_settle(c->hold, &s);
}

static void free_choice(struct choice *ch) {
    if (ch->sequence != NULL)
        engine_release(ch->completion->gateway->engine, ch->sequence);
    buf_free(&ch->text);
    buf_free(&ch->probs.tokens);
    buf_free(&ch->probs.values);
    buf_free(&ch->probs.tops);
    buf_free(&ch->probs.offsets);
    free(ch->piece);
}

void completion_end(struct completion *c) {
    bool kept = once_leave(c);
    if (c->hold != NULL)
        settle(c, kept);
    for (uint32_t i = 0; i < c->choices; i++)
        free_choice(&c->choice[i]);
    for (size_t i = 0; i < c->ask.prompts && c->prompt != NULL; i++)
        tokens_free(&c->prompt[i]);
    free(c->prompt);
    free(c->choice);
    free(c->emission);
    buf_free(&c->body);
    buf_free(&c->head);
    buf_free(&c->out);
    ask_free(&c->ask);
    wait_no_more(c);
    *c->link = c->next;
    if (c->next != NULL)
        c->next->link = c->link;
    free(c);
}
