/* Threads of the CPU chip: pinned, one a core, waiting for the next operation. An operation is forked to all of them and joined; the caller
 * is thread 0. A waiting thread spins for some microseconds, because the next operation of a step follows at once, then sleeps. */
#ifndef CHIP_CPU_POOL_H
#define CHIP_CPU_POOL_H

#include "base/error.h"

#include <stdbool.h>
#include <stdint.h>

struct pool;

int pool_create(struct pool **out, uint32_t threads, struct error *e); /* threads 0: one a core */
void pool_free(struct pool *p);
/* Pin the calling thread beside the workers, on the core that they left for it. */
void pool_pin_caller(const struct pool *p);
uint32_t pool_threads(const struct pool *p);
/* Run work(context, thread) on every thread and return when all are done. One caller at a time. */
void pool_run(struct pool *p, void (*work)(void *context, uint32_t thread), void *context);
/* Before a run: every thread has a contiguous part of `units`, since memory is read fastest in order. */
void pool_share(struct pool *p, uint32_t units);
/* During it: [*from, *to), at most `most` units of the thread's own part, or of another's when its own is done; false: nothing is left. */
bool pool_take(struct pool *p, uint32_t thread, uint32_t most, uint32_t *from, uint32_t *to);

#endif
