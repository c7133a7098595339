/* simulate WORKLOAD RATE[,RATE...] [MODEL...]: replays a workload of bench/serve against the scheduler alone, on a chip that is made up (virtual.h), so that policies are compared in
 * seconds and without noise. A model is 1.1b or 135m, the most popular first. $TRACES, $SECONDS, $SEED as serve's options. */
#include "bench/report.h"
#include "bench/virtual.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES = 5800, RUNNING = 64, WAITING = 256, GRACE = 15 };

static struct virtual engine;

static const char *setting(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value != NULL ? value : otherwise;
}

/* As the server is after its first minute: costs are known, and every tenant's beginning. */
static void introduce(const struct workload *w, uint32_t tenants, size_t models) {
    size_t hot = w->hot != 0 && w->hot < models ? w->hot : models;
    for (uint32_t m = 0; m < models; m++) {
        virtual_ask(&engine, m, 1 << 16, 0, 0, 200, 8);
        while (virtual_step(&engine) >= 0)
            ;
    }
    for (uint32_t t = 0; t < tenants && w->system > 0; t++) {
        virtual_ask(&engine, (uint32_t)(t % hot), t, 0, w->system, 1, 1);
        while (virtual_step(&engine) >= 0)
            ;
    }
    virtual_forget(&engine);
}

static void fill_answer(struct answer *a, const struct virtual_request *r) {
    if (r == NULL) {
        a->end = ANSWER_REFUSED;
        return;
    }
    a->end = r->sequence == NULL ? ANSWER_COMPLETE : ANSWER_UNFINISHED;
    a->cached = r->sequence != NULL ? r->sequence->cached : r->cached;
    a->output = a->events = r->tokens;
    a->first_ns = r->tokens > 0 ? r->at[0] : engine.now;
    a->last_ns = r->tokens > 0 ? r->at[r->tokens - 1] : engine.now;
    for (uint32_t i = 1; i < r->tokens; i++) {
        uint32_t us = (uint32_t)((r->at[i] - r->at[i - 1]) / 1000);
        buf_append(&a->gaps, &us, sizeof us);
    }
}

/* Play a load to its end; what came of it. */
static int play(struct point *p, const struct workload *w, const struct load *l, double seconds,
                struct error *e) {
    struct virtual_request **asked = calloc(l->n + 1, sizeof *asked);
    struct answer *answer = calloc(l->n + 1, sizeof *answer);
    int64_t start = engine.now, end = start + (int64_t)((seconds + GRACE) * 1e9);
    int rc = asked != NULL && answer != NULL ? 0 : error_set(e, ERR_NO_MEMORY, "no memory for answers");
    for (size_t i = 0; rc == 0 && engine.now < end;) {
        for (; i < l->n && start + (int64_t)(l->request[i].at * 1e9) <= engine.now; i++) {
            const struct request *q = &l->request[i];
            if (atomic_load(&engine.schedule.waiting) < WAITING)
                asked[i] = virtual_ask(&engine, q->model, q->tenant, start + (int64_t)(q->at * 1e9),
                                       q->shared, q->own, q->output);
        }
        if (virtual_step(&engine) >= 0)
            continue;
        if (i == l->n)
            break;
        engine.now = start + (int64_t)(l->request[i].at * 1e9) + 1;
    }
    for (size_t i = 0; rc == 0 && i < l->n; i++)
        fill_answer(&answer[i], asked[i]);
    if (rc == 0)
        rc = point_sum(p, w, l, answer, start, w->flood > 1 ? SPLIT_FLOOD : SPLIT_NONE, NULL, e);
    for (size_t i = 0; i < l->n && answer != NULL; i++)
        buf_free(&answer[i].gaps);
    virtual_forget(&engine);
    free(asked);
    free(answer);
    return rc;
}

static int simulate(const struct workload *w, double rate, const struct virtual_cost *const *cost,
                    size_t models, struct error *e) {
    double seconds = atof(setting("SECONDS", "600"));
    uint64_t seed = strtoull(setting("SEED", "1"), NULL, 10);
    struct load l;
    int rc =
        load_make(&l, w, setting("TRACES", "../shared/traces"), rate, seconds, (uint32_t)models, seed, e);
    if (rc != 0)
        return rc;
    struct point p = {.rate = rate, .seconds = seconds, .wall = seconds};
    if ((rc = virtual_start(&engine, cost, models, RUNNING, PAGES, e)) == 0) {
        introduce(w, l.tenants, models);
        if ((rc = play(&p, w, &l, seconds, e)) == 0)
            report_point(&p);
        point_free(&p);
        virtual_end(&engine);
    }
    load_free(&l);
    return rc;
}

int main(int argc, char **argv) {
    const struct virtual_cost *cost[VIRTUAL_MODELS] = {&virtual_small};
    size_t models = 0;
    struct error e = {0};
    const struct workload *w = argc > 2 ? workload_find(argv[1]) : NULL;
    if (w == NULL) {
        fprintf(stderr, "usage: simulate WORKLOAD RATE[,RATE...] [1.1b|135m ...]\n");
        return 2;
    }
    for (; 3 + models < (size_t)argc && models < VIRTUAL_MODELS; models++)
        cost[models] = strcmp(argv[3 + models], virtual_large.name) == 0 ? &virtual_large : &virtual_small;
    report_head();
    for (char *at = argv[2], *end; *at != 0; at = *end == ',' ? end + 1 : end) {
        double rate = strtod(at, &end);
        if (end == at || !(rate > 0) || simulate(w, rate, cost, models > 0 ? models : 1, &e) != 0) {
            fprintf(stderr, "simulate: %s\n", e.text);
            return 1;
        }
    }
    return 0;
}
