/* Turns of models and the credit of prompts; see turn.h. On a request's journey: what decides when its next token is made. */
#include "engine/turn.h"

#include "engine/schedule.h"

#include <math.h>

enum { FEW_ROWS = 8 }; /* a smaller piece of a prompt waits for more credit */

/* Between two tokens: four fifths of the service level of 200 ms, since costs are guesses. */
static const double planned_ns = 160e6;
/* Prompts' time for each of streams: a step with both takes 2.6 times as long as one without. */
static const double even = 1.6;
/* Few streams' steps read all weights for little, and many short ones would read prompts at a high price: so prompts take the time of so many steps of one row, less
 * what streams take anyway, if that is more. */
static const double worth_a_step = 25;
/* Of streams' time, what prompts earn when streams alone take nearly all that is planned. */
static const double least_share = 1.0 / 3;
/* Of what prompts earn in a cycle, what counts as all: a step is seldom just as long as expected. */
static const double nearly = 0.9;
/* Cycles of streams, however late they are, between two readings of prompts. */
static const double patience = 2;

/* The order of prompts; one whose next page was not there in the last step lets others go first. */
static bool reads_before(const struct schedule *s, const struct sequence *a, const struct sequence *b) {
    bool late = a->stuck != 0 && a->stuck == s->steps, other = b->stuck != 0 && b->stuck == s->steps;
    return late != other ? other : schedule_before(s, a, b);
}

static void survey_model(struct schedule *s, struct pool_model *m) {
    struct turn *t = &m->turn;
    double claim = 0;
    *t = (struct turn){0};
    for (struct sequence *q = m->first; q != NULL && m->residence.state == RESIDENT; q = q->next) {
        if (sequence_blocked(q)) {
            q->waits_since = s->now;
        } else if (q->started && q->tokens - q->computed == 1) {
            double age = (double)(s->now - q->waits_since);
            t->streams.rows++;
            t->streams.logits++;
            t->streams.decode_context += q->computed;
            t->age = fmax(t->age, age);
            claim += (age * age + 1) * q->account->weight / q->account->live;
        } else if (q->started && q->tokens - q->computed > 1 &&
                   (t->prompt == NULL || reads_before(s, q, t->prompt))) {
            t->prompt = q;
        }
    }
    if (t->streams.rows != 0)
        t->streams_ns = cost_predict(&m->cost, &t->streams);
    t->claim = claim / fmax(t->streams_ns, 1);
}

/* The model of the prompt that comes first, of those models that were not tried. */
static struct pool_model *first_prompt(const struct schedule *s, const bool *tried) {
    struct pool_model *first = NULL;
    for (size_t i = 0; i < s->models; i++) {
        struct pool_model *m = &s->model[i];
        if (m->turn.prompt != NULL && (tried == NULL || !tried[i]) &&
            (first == NULL || reads_before(s, m->turn.prompt, first->turn.prompt)))
            first = m;
    }
    return first;
}

void turn_survey(struct schedule *s) {
    static const struct cost_step one = {.rows = 1, .logits = 1};
    struct credit *c = &s->credit;
    double oldest = 0;
    c->cycle = 0;
    c->limited = false;
    for (size_t i = 0; i < s->models; i++) {
        struct pool_model *m = &s->model[i];
        survey_model(s, m);
        c->limited |= m->turn.streams.rows != 0;
        c->cycle += m->turn.streams_ns;
        oldest = fmax(oldest, m->turn.age);
    }
    const struct pool_model *m = first_prompt(s, NULL);
    double full = m != NULL ? worth_a_step * cost_predict(&m->cost, &one) - 2 * c->cycle : 0;
    double all = fmax(even * c->cycle, full);
    /* Streams that miss their level whatever prompts do keep no prompt waiting. */
    c->all = c->cycle > planned_ns ? even * c->cycle
                                   : fmin(all, fmax(planned_ns - c->cycle, least_share * c->cycle));
    bool crowded = (1 + least_share) * c->cycle > planned_ns || c->unread > patience * c->cycle;
    c->slack = crowded ? c->all : planned_ns - oldest - c->cycle;
    if (!c->limited)
        c->ns = 0;
    if (m == NULL)
        c->unread = 0;
}

struct pool_model *turn_next(struct schedule *s, const bool *tried) {
    const struct credit *c = &s->credit;
    struct pool_model *streams = NULL, *prompts = first_prompt(s, tried);
    for (size_t i = 0; i < s->models; i++) {
        struct pool_model *m = &s->model[i];
        if (!tried[i] && m->turn.streams.rows != 0 &&
            (streams == NULL || m->turn.claim > streams->turn.claim))
            streams = m;
    }
    s->credit.reads = prompts;
    if (streams == NULL || prompts == NULL)
        return streams != NULL ? streams : prompts;
    return c->ns >= nearly * c->all && c->slack > 0 ? prompts : streams;
}

/* What `rows` tokens of q more add to b. */
static double rows_ns(const struct batch *b, const struct sequence *q, uint32_t rows) {
    struct cost_step with = b->cost;
    with.rows += rows;
    with.prefill_context += (uint64_t)rows * q->computed + (uint64_t)rows * (rows - 1) / 2;
    return cost_predict(&b->model->cost, &with) -
           (b->rows != 0 ? cost_predict(&b->model->cost, &b->cost) : 0);
}

/* What prompts may still take in b. */
static double left_ns(const struct credit *c, const struct batch *b) {
    /* Without streams too, so that whoever comes meanwhile does not wait for long. */
    double left = c->limited ? fmin(c->ns, c->slack) : planned_ns;
    if (b->prefill_rows != 0)
        left -= cost_predict(&b->model->cost, &b->cost) - b->model->turn.streams_ns;
    return left;
}

uint32_t turn_rows(const struct schedule *s, const struct batch *b, const struct sequence *q, uint32_t rows) {
    const struct credit *c = &s->credit;
    uint32_t most = BATCH_PREFILL - b->prefill_rows, few = b->rows != 0 ? FEW_ROWS : KV_PAGE_TOKENS, fit = 0;
    most = rows < most ? rows : most;
    few = few < most ? few : most;
    if (c->limited && b->model != c->reads)
        return 0; /* the credit is another's */
    if (b->model->cost.steps == 0)
        return most < KV_PAGE_TOKENS ? most : KV_PAGE_TOKENS; /* nothing is known of this model's cost */
    double left = left_ns(c, b);
    for (uint32_t stride = BATCH_PREFILL; stride != 0; stride /= 2)
        if (fit + stride <= most && rows_ns(b, q, fit + stride) <= left)
            fit += stride;
    if (fit >= few)
        return fit;
    /* All credit may be too small for few rows. */
    return b->prefill_rows == 0 && (!c->limited || c->ns >= nearly * c->all) ? few : 0;
}

void turn_charge(struct schedule *s, const struct batch *b, double ns) {
    struct credit *c = &s->credit;
    if (!c->limited)
        return;
    double expected = cost_predict(&b->model->cost, &b->cost), streams = 0;
    if (b->rows != b->prefill_rows)
        streams = expected > 0 ? ns * fmin(b->model->turn.streams_ns / expected, 1) : ns;
    double gain = c->cycle > 0 ? c->all * streams / c->cycle : 0;
    c->ns = fmax(fmin(c->ns - (ns - streams) + gain, c->all), -4 * c->all);
    c->unread = b->prefill_rows != 0 ? 0 : c->unread + ns;
}
