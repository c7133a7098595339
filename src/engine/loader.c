/* Weights on their way; see loader.h. On the request's journey: the wait of those who ask for a model that is not in memory. */
#include "engine/loader.h"

#include <pthread.h>
#include <stdlib.h>

enum { PIECE = 8 << 20 }; /* read between two looks at whether to stop */

struct loader {
    struct loader_disk disk;
    void (*wake)(void *context);
    void *context;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t work;
    const struct extent *extent; /* NULL: nothing to do */
    size_t extents;
    bool drops, stopping;
};

static bool stopped(struct loader *l) {
    pthread_mutex_lock(&l->lock);
    bool stopping = l->stopping;
    pthread_mutex_unlock(&l->lock);
    return stopping;
}

static void read_extent(struct loader *l, const struct extent *x) {
    for (size_t from = 0; from < x->bytes && !stopped(l); from += PIECE)
        l->disk.read(x, from, x->bytes - from < PIECE ? x->bytes - from : PIECE);
}

static void *loader_main(void *context) {
    struct loader *l = context;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (l->extent == NULL && !l->stopping)
            pthread_cond_wait(&l->work, &l->lock);
        if (l->stopping)
            break;
        const struct extent *x = l->extent;
        size_t n = l->extents;
        bool drops = l->drops;
        pthread_mutex_unlock(&l->lock);
        for (size_t i = 0; i < n; i++)
            if (drops)
                l->disk.drop(&x[i]);
            else
                read_extent(l, &x[i]);
        pthread_mutex_lock(&l->lock);
        l->extent = NULL;
        pthread_mutex_unlock(&l->lock);
        l->wake(l->context);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

int loader_open(struct loader **out, const struct loader_disk *disk, void (*wake)(void *context),
                void *context, struct error *e) {
    static const struct loader_disk real = {extent_read, extent_drop};
    struct loader *l = calloc(1, sizeof *l);
    *out = NULL;
    if (l == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the loader of weights");
    l->disk = disk != NULL ? *disk : real;
    l->wake = wake;
    l->context = context;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    if (pthread_create(&l->thread, NULL, loader_main, l) != 0) {
        pthread_mutex_destroy(&l->lock);
        pthread_cond_destroy(&l->work);
        free(l);
        return error_set(e, ERR_NO_MEMORY, "cannot start the thread that loads weights");
    }
    *out = l;
    return 0;
}

void loader_close(struct loader *l) {
    if (l == NULL)
        return;
    pthread_mutex_lock(&l->lock);
    l->stopping = true;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->work);
    free(l);
}

static void begin(struct loader *l, const struct extent *x, size_t n, bool drops) {
    pthread_mutex_lock(&l->lock);
    l->extent = x;
    l->extents = n;
    l->drops = drops;
    pthread_cond_signal(&l->work);
    pthread_mutex_unlock(&l->lock);
}

void loader_read(struct loader *l, const struct extent *x, size_t n) {
    begin(l, x, n, false);
}

void loader_drop(struct loader *l, const struct extent *x, size_t n) {
    begin(l, x, n, true);
}

bool loader_busy(struct loader *l) {
    pthread_mutex_lock(&l->lock);
    bool busy = l->extent != NULL;
    pthread_mutex_unlock(&l->lock);
    return busy;
}
