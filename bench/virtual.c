/* See virtual.h. */
#include "bench/virtual.h"

#include <math.h>
#include <stdlib.h>

enum { VOCAB = 4096, PAGE_BYTES = 4096 };
enum { STREAM_NOISE, STREAM_OWN = 1 << 20 };

const struct virtual_cost virtual_large = {"1.1b", 10e6, 22e6, 37e6, 1.45e6, 0.1e6, 540, 410},
                          virtual_small = {"135m", 2e6, 4.2e6, 7.8e6, 0.33e6, 0.05e6, 480, 170};

static void on_event(void *context, const struct engine_event *event) {
    (void)context;
    (void)event;
}

int virtual_start(struct virtual *v, const struct virtual_cost *const *cost, size_t models,
                  uint32_t max_running, size_t pages, struct error *e) {
    *v = (struct virtual){.random = random_start(1, STREAM_NOISE), .noise = 0.05};
    v->schedule.model = v->model;
    v->schedule.max_running = max_running;
    kv_budget_start(&v->schedule.budget, pages * PAGE_BYTES);
    for (size_t i = 0; i < models; i++) {
        struct chip_kv layout = {.page_bytes = PAGE_BYTES};
        int rc = kv_create(&v->model[i].kv, &v->schedule.budget, &layout, e);
        if (rc != 0) {
            virtual_end(v);
            return rc;
        }
        v->cost[i] = cost[i];
        v->schedule.models++;
    }
    return 0;
}

static void draw_tokens(token_id *to, uint32_t n, uint64_t stream) {
    struct random r = random_start(2, stream);
    for (uint32_t i = 0; i < n; i++)
        to[i] = (token_id)random_below(&r, VOCAB);
}

static struct sequence *create(struct virtual *v, uint64_t account, uint32_t shared, uint32_t own,
                               uint32_t tokens) {
    token_id *token = malloc((shared + own) * sizeof *token);
    struct sequence *q = NULL;
    struct error e;
    if (token == NULL)
        return NULL;
    draw_tokens(token, shared, account);
    draw_tokens(token + shared, own, STREAM_OWN + v->numbers);
    struct engine_request ask = {.account = account,
                                 .prompt = token,
                                 .prompt_tokens = shared + own,
                                 .sampling = {.repetition_penalty = 1, .top_p = 1},
                                 .on_event = on_event};
    int rc = sequence_create(&q, &ask, tokens, VOCAB, &e);
    free(token);
    return rc == 0 ? q : NULL;
}

struct virtual_request *virtual_ask(struct virtual *v, uint32_t model, uint64_t account, int64_t asked,
                                    uint32_t shared, uint32_t own, uint32_t tokens) {
    struct virtual_request *r = calloc(1, sizeof *r);
    struct sequence *q = r != NULL ? create(v, account, shared, own, tokens) : NULL;
    if (q == NULL || (r->at = calloc(tokens, sizeof *r->at)) == NULL)
        goto out;
    q->model = &v->model[model];
    q->number = v->numbers++;
    q->context = r;
    q->submitted = q->waits_since = asked;
    if (schedule_add(&v->schedule, q) != 0)
        goto out;
    atomic_fetch_add(&v->schedule.waiting, 1);
    *r = (struct virtual_request){
        .next = v->request, .sequence = q, .engine = v, .model = model, .asked = asked, .at = r->at};
    v->request = r;
    return r;
out:
    if (q != NULL) {
        sequence_unref(q);
        sequence_unref(q);
    }
    if (r != NULL)
        free(r->at);
    free(r);
    return NULL;
}

void virtual_drop(struct virtual *v, struct virtual_request *r) {
    schedule_remove(&v->schedule, r->sequence);
    r->cached = r->sequence->cached;
    sequence_unref(r->sequence);
    sequence_unref(r->sequence);
    r->sequence = NULL;
}

static double step_ns(const struct virtual_cost *c, const struct batch *b, double decode_context,
                      double prompt_context) {
    double rows = b->rows, few = fmin(rows, 16);
    double ns = few <= 8 ? c->one + (c->eight - c->one) * (few - 1) / 7
                         : c->eight + (c->sixteen - c->eight) * (few - 8) / 8;
    return ns - few * c->logits + (rows - few) * c->row + b->logits * c->logits +
           decode_context * c->decode_token + prompt_context * c->prompt_token;
}

static void take_token(struct virtual *v, struct sequence *q) {
    struct virtual_request *r = q->context;
    r->at[r->tokens++] = v->now;
    q->token[q->tokens++] = (token_id)random_below(&v->random, VOCAB);
    if (++q->completion == q->max_tokens)
        virtual_drop(v, r);
}

int virtual_step(struct virtual *v) {
    struct batch *b = &v->batch;
    if (!schedule_next(&v->schedule, b, v->now))
        return -1;
    int model = (int)(b->model - v->model);
    double decode_context = 0, prompt_context = 0;
    uint32_t streams = 0;
    for (uint32_t i = 0; i < b->sequences; i++) {
        const struct sequence *q = b->sequence[i];
        double context = q->rows * (q->computed + (q->rows - 1) * 0.5);
        bool decodes = q->tokens - q->computed == 1;
        streams += decodes;
        *(decodes ? &decode_context : &prompt_context) += context;
    }
    double ns = step_ns(v->cost[model], b, decode_context, prompt_context);
    ns *= 1 + v->noise * (2 * random_unit(&v->random) - 1);
    v->now += (int64_t)ns;
    v->steps[model] += streams != 0;
    v->decoded[model] += streams;
    schedule_charge(&v->schedule, b, v->now, (int64_t)ns);
    for (uint32_t i = 0; i < b->sequences; i++) {
        struct sequence *q = b->sequence[i];
        sequence_advance(q, q->model->kv, q->rows);
        q->rows = 0;
        if (q->computed == q->tokens)
            take_token(v, q);
    }
    return model;
}

void virtual_forget(struct virtual *v) {
    for (struct virtual_request *r = v->request, *next; r != NULL; r = next) {
        next = r->next;
        if (r->sequence != NULL)
            virtual_drop(v, r);
        free(r->at);
        free(r);
    }
    v->request = NULL;
}

void virtual_end(struct virtual *v) {
    virtual_forget(v);
    for (size_t i = 0; i < v->schedule.models; i++)
        kv_free(v->model[i].kv);
    schedule_free(&v->schedule);
}
