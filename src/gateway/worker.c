/* One thread that does what takes long, so that nobody's stream waits for it: somebody's megabytes to parse and encode, or an operation on the books. */
#include "gateway/inner.h"

#include <stdlib.h>

struct job {
    void *item;
    struct job *next;
};

struct queue {
    struct job *first, **end;
};

struct worker {
    struct http *http;
    const struct worker_kind *kind;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct queue todo, done;
    bool stop;
};

static void queue_put(struct queue *q, struct job *j) {
    j->next = NULL;
    *q->end = j;
    q->end = &j->next;
}

static struct job *queue_take(struct queue *q) {
    struct job *j = q->first;
    if (j != NULL && (q->first = j->next) == NULL)
        q->end = &q->first;
    return j;
}

static void *work(void *arg) {
    struct worker *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct job *j = queue_take(&w->todo);
        if (j == NULL && w->stop)
            break;
        if (j == NULL) {
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        w->kind->run(j->item);
        pthread_mutex_lock(&w->lock);
        queue_put(&w->done, j);
        http_wake(w->http);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

int worker_create(struct worker **out, struct http *http, const struct worker_kind *kind, struct error *e) {
    struct worker *w = calloc(1, sizeof *w);
    *out = NULL;
    if (w == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the gateway");
    w->http = http;
    w->kind = kind;
    w->todo.end = &w->todo.first;
    w->done.end = &w->done.first;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    if (pthread_create(&w->thread, NULL, work, w) != 0) {
        free(w);
        return error_set(e, ERR_IO, "cannot start a thread of the gateway");
    }
    *out = w;
    return 0;
}

void worker_put(struct worker *w, void *item) {
    struct job *j = malloc(sizeof *j);
    if (j == NULL) { /* then everybody waits */
        w->kind->run(item);
        w->kind->done(item);
        return;
    }
    j->item = item;
    pthread_mutex_lock(&w->lock);
    queue_put(&w->todo, j);
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
}

void worker_done(struct worker *w) {
    for (;;) {
        pthread_mutex_lock(&w->lock);
        struct job *j = queue_take(&w->done);
        pthread_mutex_unlock(&w->lock);
        if (j == NULL)
            return;
        w->kind->done(j->item);
        free(j);
    }
}

void worker_stop(struct worker *w) {
    if (w == NULL)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->more);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
}

void worker_free(struct worker *w) {
    if (w == NULL)
        return;
    worker_done(w);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
    free(w);
}
