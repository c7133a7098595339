/* What a point of a sweep came to: answers summed up into rates, percentiles and goodput, for people and for programs. */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench/client.h"
#include "bench/workload.h"

struct spread {
    size_t n;
    double p50, p90, p99, most; /* seconds */
};

/* The nearest rank: the smallest value that at least this share of all is not above. sorted[n] ascends; 0 when n is 0. */
double spread_at(const double *sorted, size_t n, double share);

/* Sorts value[n]. */
struct spread spread_of(double *value, size_t n);

struct group {
    char name[80];
    size_t sent, complete, refused, broken, unfinished;
    size_t good;   /* complete, first token and 99% of the request's gaps within the service level */
    size_t steady; /* the same with the mean of its gaps: what bursts of the stream do not spoil */
    uint64_t input, cached, output; /* tokens by the server's count, cached among the input */
    uint64_t events;                /* with text */
    struct spread
        first; /* from when the trace wanted the request sent; unfinished ones by what they had waited; refused, broken ones not */
    struct spread gap; /* all gaps of all requests */
};

struct point {
    double rate;    /* offered, requests a second, a flood not counted */
    double seconds; /* that requests were sent for */
    double wall;    /* to the last answer */
    double late;    /* seconds that the latest request was sent after its time */
    double cpu;     /* cores that the generator itself took */
    struct group all;
    struct group *part; /* by tenant or model; freed with point_free */
    size_t parts;
    struct trouble {
        char text[200];
        size_t count;
    } trouble[8]; /* the first kinds of error */
};

enum split { SPLIT_NONE, SPLIT_TENANT, SPLIT_MODEL, SPLIT_FLOOD };

/* Sum up the answers to a load's requests, answer[i] to request[i]; started_ns is second 0. Rates and clocks in *p are the caller's. */
int point_sum(struct point *p, const struct workload *w, const struct load *l, const struct answer *answer,
              int64_t started_ns, enum split split, const char *const *models, struct error *e);
void point_free(struct point *p);

void report_head(void);
void report_point(const struct point *p);
void report_json(struct buf *out, const struct point *p);

#endif
