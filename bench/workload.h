/* What is sent, and when: a table of workloads, each a trace with tenants, prefixes and a service level, made into requests. */
#ifndef BENCH_WORKLOAD_H
#define BENCH_WORKLOAD_H

#include "base/error.h"
#include "bench/trace.h"

struct workload {
    const char *name, *about;
    const char *trace; /* path below the folder of traces */
    uint32_t divide;   /* the trace's lengths are divided by this */
    uint32_t tenants;  /* requests are dealt to them at random; 0: the trace's own clients */
    uint32_t system;   /* tokens that each prompt of a tenant begins with */
    double shared;  /* and this share of the prompt's own length: the beginning of one text of the tenant */
    uint32_t flood; /* tenant 0 sends this many times its requests; 1: it does not */
    double
        cv; /* 0: the trace's clock, else Gamma arrivals of this coefficient of variation, each model on its own */
    uint32_t hot;          /* the first models, alike popular; 0: all are alike */
    double cold;           /* the share of the requests that all others get together */
    double first_s, gap_s; /* the service level: time to the first token and between two tokens, seconds */
};

extern const struct workload workloads[]; /* ends with a row whose name is NULL */

const struct workload *workload_find(const char *name); /* or NULL */

struct request {
    double at; /* seconds from the start */
    uint32_t tenant, model;
    uint32_t shared, own; /* tokens of the prompt: the tenant's text, and what is this request's alone */
    uint32_t output;      /* tokens */
};

struct load {
    struct request *request; /* by time; freed with load_free */
    size_t n;
    uint32_t tenants;
};

/* `rate` requests a second for `seconds` (a flood comes on top), for models 0..models-1. The clock is that of as many
 * consecutive rows of the trace, from a row that the seed draws, stretched to fill the time, so that bursts stay bursts; the lengths are those of rows evenly
 * spread over the whole trace, since a few minutes of it are not like all of it. Errors as trace_read. */
int load_make(struct load *l, const struct workload *w, const char *traces, double rate, double seconds,
              uint32_t models, uint64_t seed, struct error *e);
void load_free(struct load *l);

#endif
