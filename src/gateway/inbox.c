/* The engine's thread writes letters, the loop's thread reads them: two buffers that change places, so that in a steady state nothing is allocated
 * and the engine never waits longer than one copy. A token's way from the engine to its socket. */
#include "gateway/inner.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 16 };

void inbox_create(struct inbox *b) {
    pthread_mutex_init(&b->lock, NULL);
}

void inbox_free(struct inbox *b) {
    pthread_mutex_destroy(&b->lock);
    buf_free(&b->filling);
    buf_free(&b->reading);
}

static size_t aligned(size_t n) {
    return (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* One logprob a token: of the prompt, or of the event's own. */
static size_t probs_size(const struct engine_event *event) {
    size_t n = event->kind == EVENT_PROMPT ? event->prompt_tokens : event->tokens;
    return event->logprob != NULL ? n * sizeof *event->logprob : 0;
}

static size_t error_size(const struct engine_event *event) {
    return event->error != NULL ? sizeof *event->error : 0;
}

static char *put(char *to, const void *from, size_t n) {
    if (n > 0)
        memcpy(to, from, n);
    return to + aligned(n);
}

bool inbox_put(struct inbox *b, struct choice *to, const struct engine_event *event) {
    size_t probs = probs_size(event), error = error_size(event);
    struct letter l = {.to = to, .event = *event};
    l.size = aligned(sizeof l) + aligned(probs) + aligned(error) + aligned(event->text.n);
    pthread_mutex_lock(&b->lock);
    bool was_empty = b->filling.n == 0;
    char *at = buf_reserve(&b->filling, l.size);
    if (at == NULL) /* a lost letter would leave a request open for ever */
        abort();
    at = put(at, &l, sizeof l);
    at = put(at, event->logprob, probs);
    at = put(at, event->error, error);
    put(at, event->text.p, event->text.n);
    b->filling.n += l.size;
    pthread_mutex_unlock(&b->lock);
    return was_empty;
}

bool inbox_take(struct inbox *b) {
    buf_clear(&b->reading);
    pthread_mutex_lock(&b->lock);
    struct buf full = b->filling;
    b->filling = b->reading;
    b->reading = full;
    pthread_mutex_unlock(&b->lock);
    return b->reading.n > 0;
}

struct letter *inbox_next(struct inbox *b, struct letter *last) {
    char *at = last == NULL ? b->reading.p : (char *)last + last->size;
    if (at == NULL || at == b->reading.p + b->reading.n)
        return NULL;
    struct letter *l = (struct letter *)(void *)at;
    struct engine_event *event = &l->event;
    size_t probs = probs_size(event), error = error_size(event);
    at += aligned(sizeof *l);
    if (probs > 0)
        event->logprob = (const struct token_logprob *)(const void *)at;
    at += aligned(probs);
    if (error > 0)
        event->error = (const struct error *)(const void *)at;
    event->text.p = at + aligned(error);
    return l;
}
