/* The thread that carries weights between disk and memory, so that no step waits for it. It does one thing at a time: two models that are read at once come later than
 * one after the other. */
#ifndef ENGINE_LOADER_H
#define ENGINE_LOADER_H

#include "base/error.h"
#include "base/extent.h"

#include <stdbool.h>
#include <stdint.h>

struct loader; /* used by one thread, but for its own */

/* What the disk does; a test brings its own. */
struct loader_disk {
    void (*read)(const struct extent *x, size_t from, size_t bytes);
    void (*drop)(const struct extent *x);
};

/* disk: NULL for the real one. `wake` is called from the loader's thread when it is done with something; it must not block. ERR_NO_MEMORY. */
int loader_open(struct loader **out, const struct loader_disk *disk, void (*wake)(void *context),
                void *context, struct error *e);
void loader_close(struct loader *l); /* leaves what it is at after the piece it reads; NULL is allowed */

/* Read x[n] one after the other, or give their memory back; not while it is busy. They stay the caller's, and must stay until it is not. */
void loader_read(struct loader *l, const struct extent *x, size_t n);
void loader_drop(struct loader *l, const struct extent *x, size_t n);
bool loader_busy(struct loader *l);

#endif
