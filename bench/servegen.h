/* The folder format of trace.h. */
#ifndef BENCH_SERVEGEN_H
#define BENCH_SERVEGEN_H

#include "bench/trace.h"

/* Draw n rows; t->clients becomes the number of clients. */
int servegen_read(struct trace *t, const char *folder, size_t n, uint64_t seed, struct error *e);

#endif
