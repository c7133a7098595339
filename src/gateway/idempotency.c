/* Requests under an Idempotency-Key: one runs, the others wait for its answer or have the one that the books keep. A request that was admitted under a key runs to
 * its end whether its client stays or not, so that whoever asks again finds a whole answer; docs/books.md says what is charged. All of it is the loop's thread. On a
 * request's journey: between its preparation and its admission, and beside its delivery. */
#include "gateway/completion.h"

#include <stdio.h>
#include <stdlib.h>

enum {
    MOST_KEPT = 4 << 20, /* bytes of an answer; a longer one is delivered and not kept */
    PIECE = 64 << 10     /* of a kept answer, given to a socket at once */
};

struct once {
    enum { ONCE_LOOKING, ONCE_RUNNING, ONCE_ENDING, ONCE_KNOWN } state;
    struct answer *answer;    /* the books' while they look and while it ends */
    struct completion *runs;  /* ONCE_RUNNING */
    struct completion *waits; /* those that want its answer, and those that are having it */
    struct error why;         /* there is none */
    bool too_long;
    struct once *next, **link;
};

/* ---- the table ---------------------------------------------------------------------------------------------------- */

static struct once *once_find(struct gateway *g, const struct completion *c) {
    struct once *o = g->once[c->key.byte[0]];
    while (o != NULL && (o->answer->tenant != c->who.tenant || !hash_equal(&o->answer->key, &c->key)))
        o = o->next;
    return o;
}

static struct once *once_create(struct gateway *g, const struct completion *c) {
    struct once *o = calloc(1, sizeof *o), **head = &g->once[c->key.byte[0]];
    struct answer *a = calloc(1, sizeof *a);
    if (o == NULL || a == NULL) {
        free(o);
        free(a);
        return NULL;
    }
    a->tenant = c->who.tenant;
    a->key = c->key;
    a->user = o;
    o->answer = a;
    o->next = *head;
    o->link = head;
    if (o->next != NULL)
        o->next->link = &o->next;
    *head = o;
    return o;
}

static bool with_books(const struct once *o) {
    return o->state == ONCE_LOOKING || o->state == ONCE_ENDING;
}

static void once_free(struct once *o) {
    if (!with_books(o))
        answer_free(o->answer);
    *o->link = o->next;
    if (o->next != NULL)
        o->next->link = o->link;
    free(o);
}

void once_free_all(struct gateway *g) {
    for (size_t i = 0; i < ONCES; i++)
        for (struct once *o = g->once[i], *next; o != NULL; o = next) {
            next = o->next;
            once_free(o);
        }
}

static void wait_for(struct once *o, struct completion *c) {
    c->once = o;
    c->next_waiting = o->waits;
    c->waiting_link = &o->waits;
    if (o->waits != NULL)
        o->waits->waiting_link = &c->next_waiting;
    o->waits = c;
}

static void wait_no_more(struct completion *c) {
    *c->waiting_link = c->next_waiting;
    if (c->next_waiting != NULL)
        c->next_waiting->waiting_link = c->waiting_link;
    c->waiting_link = NULL;
}

static void turn_away(struct completion *c, const struct error *e) {
    wait_no_more(c);
    c->once = NULL;
    completion_fail(c, e);
}

static void turn_all_away(struct once *o, const struct error *e) {
    while (o->waits != NULL)
        turn_away(o->waits, e);
    once_free(o);
}

/* ---- those that wait ---------------------------------------------------------------------------------------------- */

void once_replay(struct completion *c) {
    const struct answer *a = c->once->answer;
    while (c->replayed < a->bytes.n && exchange_pending(c->x) < PIECE) {
        size_t left = a->bytes.n - c->replayed, n = left < PIECE ? left : PIECE;
        exchange_write(c->x, (struct str){a->bytes.p + c->replayed, n}, c->replayed + n);
        c->replayed += n;
    }
    if (c->replayed < a->bytes.n || c->finished)
        return;
    c->ended = c->finished = true;
    exchange_finish(c->x);
}

static void begin_replay(struct completion *c) {
    struct gateway *g = c->gateway;
    const struct answer *a = c->once->answer;
    g->metrics.status[a->status / 100]++;
    g->replays++;
    exchange_respond(c->x, a->status, a->type,
                     STR("Idempotent-Replayed: true\r\nCache-Control: no-cache\r\n"), (int64_t)a->bytes.n);
    once_replay(c);
}

/* What this one gets, as far as that is known already. */
static void attend(struct once *o, struct completion *c) {
    struct error e;
    if (o->state == ONCE_LOOKING)
        return;
    if (!hash_equal(&o->answer->body, &c->fingerprint)) {
        error_param(&e, ERR_KEY_REUSED, "Idempotency-Key",
                    "this Idempotency-Key was used for another request before; take a new key for this one");
        turn_away(c, &e);
    } else if (o->state != ONCE_KNOWN) {
        return;
    } else if (o->answer->status == ANSWER_RUNNING) {
        error_param(
            &e, ERR_CONFLICT, "Idempotency-Key",
            "the request under this Idempotency-Key is still running elsewhere; ask again in a moment");
        turn_away(c, &e);
    } else if (o->answer->status == ANSWER_SPENT) {
        error_param(
            &e, ERR_KEY_SPENT, "Idempotency-Key",
            "the request under this Idempotency-Key broke off, or its answer was too long to be kept; it is "
            "charged for what was sent, and for nothing more; take a new key to ask again");
        turn_away(c, &e);
    } else {
        begin_replay(c);
    }
}

static void attend_all(struct once *o) {
    for (struct completion *c = o->waits, *next; c != NULL; c = next) {
        next = c->next_waiting;
        attend(o, c);
    }
}

void once_join(struct completion *c) {
    struct gateway *g = c->gateway;
    struct once *o = once_find(g, c);
    struct error e;
    if (o == NULL) {
        o = once_create(g, c);
        if (o == NULL) {
            error_set(&e, ERR_NO_MEMORY, "no memory for the request");
            completion_fail(c, &e);
            return;
        }
        wait_for(o, c);
        if (cloud_find_answer(g->cloud, o->answer, &e) != 0) {
            o->state = ONCE_KNOWN; /* the books have not got it */
            turn_all_away(o, &e);
        }
        return;
    }
    wait_for(o, c);
    attend(o, c);
}

/* ---- the one that runs -------------------------------------------------------------------------------------------- */

static bool runs(const struct completion *c) {
    return c->once != NULL && c->once->runs == c;
}

struct answer *once_answer(const struct completion *c) {
    return runs(c) ? c->once->answer : NULL;
}

void once_keep(struct completion *c, struct str bytes) {
    if (!runs(c) || c->once->too_long)
        return;
    struct buf *kept = &c->once->answer->bytes;
    kept->limit = MOST_KEPT;
    buf_str(kept, bytes);
    if (kept->failed) {
        c->once->too_long = true;
        buf_free(kept);
    }
}

bool once_goes_on(const struct completion *c) {
    return runs(c) && c->hold != NULL && !c->failed && !c->once->too_long;
}

void once_failed(struct completion *c, const struct error *e) {
    if (runs(c))
        c->once->why = *e;
}

/* The key is new: one of those that wait begins. */
static void begin(struct once *o) {
    struct completion *c = o->waits;
    if (c == NULL) { /* they have all gone meanwhile */
        o->state = ONCE_KNOWN;
        once_free(o);
        return;
    }
    wait_no_more(c);
    o->state = ONCE_RUNNING;
    o->runs = c;
    o->answer->body = c->fingerprint;
    error_set(&o->why, ERR_UNAVAILABLE,
              "the request under this Idempotency-Key ended without an answer; ask again");
    attend_all(o);
    completion_start(c);
}

bool once_leave(struct completion *c) {
    struct once *o = c->once;
    if (o == NULL)
        return false;
    c->once = NULL;
    if (o->runs != c) {
        wait_no_more(c);
        if (o->state == ONCE_KNOWN && o->waits == NULL)
            once_free(o);
        return false;
    }
    o->runs = NULL;
    if (c->hold == NULL) { /* it was refused: the key is as new */
        o->state = ONCE_KNOWN;
        turn_all_away(o, &o->why);
        return false;
    }
    bool whole = c->ended && !c->failed && !c->out.failed, kept = whole && !o->too_long;
    o->answer->status = kept ? 200 : c->taken > 0 || (whole && c->complete) ? ANSWER_SPENT : ANSWER_NONE;
    snprintf(o->answer->type, sizeof o->answer->type, "%s",
             c->ask.stream ? "text/event-stream; charset=utf-8" : "application/json");
    o->state = ONCE_ENDING;
    return kept;
}

/* ---- the books' word ---------------------------------------------------------------------------------------------- */

static void hear(struct gateway *g, struct once *o) {
    bool looked = o->state == ONCE_LOOKING;
    if (looked && o->answer->rc == 0 && o->answer->status == ANSWER_NONE) {
        begin(o);
        return;
    }
    o->state = ONCE_KNOWN;
    if (o->answer->rc != 0 && !cloud_stopped(g->cloud, &o->why))
        error_set(&o->why, ERR_UNAVAILABLE, "the books could not be asked about the Idempotency-Key");
    if (o->answer->rc != 0 || o->answer->status == ANSWER_NONE) {
        turn_all_away(o, &o->why);
        return;
    }
    attend_all(o);
    if (o->waits == NULL)
        once_free(o);
}

void once_answers(struct gateway *g) {
    for (struct answer *a; (a = cloud_take_answer(g->cloud)) != NULL;)
        hear(g, a->user);
}
