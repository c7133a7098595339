/* See workload.h. */
#include "bench/workload.h"

#include "bench/random.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const struct workload workloads[] = {
    {.name = "chat",
     .about = "conversations of 16 tenants, a system prompt of 256 tokens each",
     .trace = "azure/conv.csv",
     .divide = 4,
     .tenants = 16,
     .system = 256,
     .flood = 1,
     .first_s = 2,
     .gap_s = 0.2},
    {.name = "flood",
     .about = "chat, and one tenant sends 20 times as much",
     .trace = "azure/conv.csv",
     .divide = 4,
     .tenants = 16,
     .system = 256,
     .flood = 20,
     .first_s = 2,
     .gap_s = 0.2},
    {.name = "code",
     .about = "completion of code in bursts, 37% of a prompt as before",
     .trace = "azure/code.csv",
     .divide = 4,
     .tenants = 16,
     .shared = 0.37,
     .flood = 1,
     .first_s = 3,
     .gap_s = 0.2},
    {.name = "market",
     .about = "many models, two of them hot, bursts",
     .trace = "azure/conv.csv",
     .divide = 4,
     .tenants = 16,
     .system = 64,
     .flood = 1,
     .cv = 3.5,
     .hot = 2,
     .cold = 0.0135,
     .first_s = 3,
     .gap_s = 0.2},
    {.name = "clients",
     .about = "the clients of a ServeGen sample, each a tenant",
     .trace = "servegen-m-small",
     .divide = 1,
     .tenants = 0,
     .flood = 1,
     .first_s = 2,
     .gap_s = 0.2},
    {.name = NULL},
};

enum { STREAM_ROWS, STREAM_TENANT, STREAM_MODEL, STREAM_FLOOD, STREAM_CLOCK };

const struct workload *workload_find(const char *name) {
    for (const struct workload *w = workloads; w->name != NULL; w++)
        if (strcmp(w->name, name) == 0)
            return w;
    return NULL;
}

/* The time, the tenant and the lengths of a request. */
static struct request request_of(const struct workload *w, double at, const struct trace_row *row) {
    double input = fmax(1, round((double)row->input / w->divide)), again = round(input * w->shared);
    double output = fmax(1, round((double)row->output / w->divide));
    return (struct request){.at = at,
                            .tenant = row->client,
                            .shared = w->system + (uint32_t)again,
                            .own = (uint32_t)(input - again),
                            .output = (uint32_t)output};
}

/* Models 0..hot-1 are alike, and so are the others. */
static uint32_t draw_model(const struct workload *w, uint32_t models, struct random *r) {
    if (w->hot == 0 || w->hot >= models)
        return random_below(r, models);
    if (random_unit(r) < w->cold)
        return w->hot + random_below(r, models - w->hot);
    return random_below(r, w->hot);
}

/* Each model's requests come by a renewal process of its own, which began before we look. What falls behind the end wraps to the beginning, so that
 * the number of requests stays. */
static void draw_clock(struct load *l, double cv, double seconds, uint32_t models, uint64_t seed) {
    double shape = 1 / (cv * cv);
    for (uint32_t m = 0; m < models; m++) {
        struct random r = random_start(seed, (uint64_t)STREAM_CLOCK << 32 | m);
        size_t n = 0;
        for (size_t i = 0; i < l->n; i++)
            n += l->request[i].model == m;
        double at = seconds * random_unit(&r);
        for (size_t i = 0; i < l->n && n > 0; i++)
            if (l->request[i].model == m) {
                l->request[i].at = fmod(at, seconds);
                at += random_gamma(&r, shape) / shape * seconds / (double)n;
            }
    }
}

/* Behind every request of tenant 0 come more, evenly spread over the time to its next, of lengths from all over the trace. */
static int add_flood(struct load *l, uint32_t flood, double seconds, uint64_t seed, struct error *e) {
    struct random r = random_start(seed, STREAM_FLOOD);
    size_t n = l->n, own = 0;
    for (size_t i = 0; i < n; i++)
        own += l->request[i].tenant == 0;
    struct request *grown = realloc(l->request, (n + own * (flood - 1) + 1) * sizeof *grown);
    if (grown == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a flood");
    l->request = grown;
    for (size_t i = 0; i < own * (flood - 1); i++) {
        struct request more = grown[random_below(&r, (uint32_t)n)];
        more.tenant = 0;
        more.at = seconds * ((double)i + random_unit(&r)) / (double)(own * (flood - 1));
        grown[l->n++] = more;
    }
    return 0;
}

static int by_time(const void *a, const void *b) {
    double x = ((const struct request *)a)->at, y = ((const struct request *)b)->at;
    return (x > y) - (x < y);
}

/* n requests of the trace's t->n. */
static void take_rows(struct load *l, const struct workload *w, const struct trace *t, size_t n,
                      double seconds, uint32_t models, uint64_t seed) {
    struct random rows = random_start(seed, STREAM_ROWS);
    struct random tenant = random_start(seed, STREAM_TENANT), model = random_start(seed, STREAM_MODEL);
    const struct trace_row *from = t->row + random_below(&rows, (uint32_t)(t->n - n + 1));
    double offset = random_unit(&rows), every = (double)t->n / (double)n;
    double span = from[n - 1].at - from[0].at,
           stretch = span > 0 ? seconds * (1 - 1.0 / (double)n) / span : 0;
    for (; l->n < n; l->n++) {
        struct request *q = &l->request[l->n];
        *q = request_of(w, (from[l->n].at - from[0].at) * stretch,
                        &t->row[(size_t)(((double)l->n + offset) * every)]);
        if (w->tenants > 0)
            q->tenant = random_below(&tenant, w->tenants);
        q->model = draw_model(w, models, &model);
    }
}

int load_make(struct load *l, const struct workload *w, const char *traces, double rate, double seconds,
              uint32_t models, uint64_t seed, struct error *e) {
    char path[4096];
    struct trace t;
    size_t n = (size_t)fmax(1, round(rate * seconds));
    snprintf(path, sizeof path, "%s/%s", traces, w->trace);
    *l = (struct load){0};
    int rc = trace_read(&t, path, n, seed, e);
    if (rc != 0)
        return rc;
    l->tenants = w->tenants > 0 ? w->tenants : t.clients;
    l->request = calloc(n, sizeof *l->request);
    if (l->request == NULL)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for %zu requests", n);
    else
        take_rows(l, w, &t, n, seconds, models, seed);
    if (rc == 0 && w->cv > 0)
        draw_clock(l, w->cv, seconds, models, seed);
    if (rc == 0 && w->flood > 1)
        rc = add_flood(l, w->flood, seconds, seed, e);
    if (rc == 0)
        qsort(l->request, l->n, sizeof *l->request, by_time);
    trace_free(&t);
    if (rc != 0)
        load_free(l);
    return rc;
}

void load_free(struct load *l) {
    free(l->request);
    *l = (struct load){0};
}
