/* Memory that is freed all at once: one arena per request and per load. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include <stddef.h>

struct arena {
    struct arena_block *block; /* newest block, linked to older ones */
    size_t used;               /* bytes handed out in all, for limits and tests */
    size_t limit;              /* 0: none; else arena_alloc returns NULL past it */
};

/* Zeroed memory aligned to 16 bytes, owned by the arena; NULL when memory or the limit is exhausted. */
void *arena_alloc(struct arena *a, size_t bytes);

/* count * size, overflow-checked. */
void *arena_array(struct arena *a, size_t count, size_t size);

/* Free everything; the arena may be used again. */
void arena_free(struct arena *a);

#endif
