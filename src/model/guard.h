/* The SIGBUS guard: a mapped file that is truncated takes pages away under whoever reads them. A registered mapping
 * that loses a page gets zeros there instead, and its flag is set, so that one model fails and the program goes on. */
#ifndef MODEL_GUARD_H
#define MODEL_GUARD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Watch [address, address + bytes); damaged is set from a signal handler. Returns 0 or ERR_NO_MEMORY when too many are watched. */
int guard_add(const void *address, size_t bytes, atomic_bool *damaged);
/* Before munmap. */
void guard_remove(const void *address);

#endif
