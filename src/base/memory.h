/* How much memory this process may count on. */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include <stddef.h>

/* Bytes that the machine has available now, or its control group (v1 or v2, and those above it) allows, whichever is less. root: "" but in tests, a folder with proc/ and
 * sys/fs/cgroup/. SIZE_MAX: nothing says. */
size_t memory_allowed(const char *root);

#endif
