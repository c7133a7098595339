/* Recorded requests. Two formats are read: a CSV file as Azure publishes it (TIMESTAMP,ContextTokens,GeneratedTokens), and a folder of ServeGen
 * clients (chunk-ID-trace.csv: start, rate, CV, distribution, shape, scale for every ten minutes; chunk-ID-dataset.json: how often a prompt and an
 * answer have which length), of which the busiest ten minutes are drawn. */
#ifndef BENCH_TRACE_H
#define BENCH_TRACE_H

#include "base/buf.h"
#include "base/error.h"

struct trace_row {
    double at;              /* seconds since the first */
    uint32_t input, output; /* tokens, at least 1 */
    uint32_t client;        /* 0 where the format knows none */
};

struct trace {
    struct trace_row *row; /* by time; freed with trace_free */
    size_t n;
    uint32_t clients; /* 1 where the format knows none */
};

/* Read all rows of a file, or draw `least` from a folder by the seed. ERR_NOT_FOUND when there is no such file, ERR_INVALID with the line when it is
 * not of the format, or has fewer rows than `least`. */
int trace_read(struct trace *t, const char *path, size_t least, uint64_t seed, struct error *e);
void trace_free(struct trace *t);

/* The bytes of a file, at most `most`. */
int trace_file(struct buf *out, const char *path, size_t most, struct error *e);

#endif
