/* The fork and join of the CPU chip (see pool.h). It lies on a request's journey between the engine's step and the kernels: some hundred forks
 * a step, so that waking must cost less than a microsecond while a step runs, and nothing when the engine is idle. */
#include "chip/cpu/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_THREADS = 256, SPINS = 4000 }; /* about 40 microseconds of pauses */

struct pool {
    uint32_t threads, started;
    _Atomic uint32_t turn;     /* counts the forks; workers wait for it to change */
    _Atomic uint32_t sleepers; /* workers asleep on turn */
    _Atomic uint32_t running;  /* workers that have not finished this turn */
    _Atomic uint32_t joining;  /* the caller sleeps on running */
    bool stop;
    void (*work)(void *context, uint32_t thread);
    void *context;
    struct worker {
        struct pool *pool;
        uint32_t index;
        pthread_t thread;
        _Alignas(64) _Atomic uint32_t next; /* what is left of the part of the work that is this thread's */
        uint32_t end;
    } worker[MOST_THREADS];
};

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void futex_wait(_Atomic uint32_t *at, uint32_t value) {
    syscall(SYS_futex, at, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *at) {
    syscall(SYS_futex, at, FUTEX_WAKE_PRIVATE, MOST_THREADS, NULL, NULL, 0);
}

static void *worker_main(void *argument) {
    struct worker *w = argument;
    struct pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        for (int i = 0; i < SPINS && atomic_load_explicit(&p->turn, memory_order_acquire) == seen; i++)
            pause_briefly();
        while (atomic_load(&p->turn) == seen) {
            atomic_fetch_add(&p->sleepers, 1);
            futex_wait(&p->turn, seen);
            atomic_fetch_sub(&p->sleepers, 1);
        }
        seen++;
        if (p->stop)
            return NULL;
        p->work(p->context, w->index);
        if (atomic_fetch_sub(&p->running, 1) == 1 && atomic_load(&p->joining))
            futex_wake(&p->running);
    }
}

static void fork_all(struct pool *p) {
    atomic_fetch_add(&p->turn, 1);
    if (atomic_load(&p->sleepers))
        futex_wake(&p->turn);
}

void pool_run(struct pool *p, void (*work)(void *context, uint32_t thread), void *context) {
    if (p->threads == 1) {
        work(context, 0);
        return;
    }
    p->work = work;
    p->context = context;
    atomic_store(&p->running, p->threads - 1);
    fork_all(p);
    work(context, 0);
    for (int i = 0; i < SPINS && atomic_load_explicit(&p->running, memory_order_acquire); i++)
        pause_briefly();
    uint32_t left;
    while ((left = atomic_load(&p->running)) != 0) {
        atomic_store(&p->joining, 1);
        if (atomic_load(&p->running) == left)
            futex_wait(&p->running, left);
    }
    atomic_store_explicit(&p->joining, 0, memory_order_relaxed);
}

void pool_share(struct pool *p, uint32_t units) {
    for (uint32_t i = 0; i < p->threads; i++) {
        atomic_store_explicit(&p->worker[i].next, (uint32_t)((uint64_t)units * i / p->threads),
                              memory_order_relaxed);
        p->worker[i].end = (uint32_t)((uint64_t)units * (i + 1) / p->threads);
    }
}

bool pool_take(struct pool *p, uint32_t thread, uint32_t most, uint32_t *from, uint32_t *to) {
    for (uint32_t i = 0; i < p->threads; i++) {
        struct worker *w = &p->worker[(thread + i) % p->threads];
        if (atomic_load_explicit(&w->next, memory_order_relaxed) >= w->end)
            continue;
        uint32_t at = atomic_fetch_add_explicit(&w->next, most, memory_order_relaxed);
        if (at >= w->end)
            continue;
        *from = at;
        *to = w->end - at < most ? w->end : at + most;
        return true;
    }
    return false;
}

/* Worker i runs on the i-th core that this process may use; a failure to pin costs speed, not correctness. */
static void pin(pthread_t thread, uint32_t index) {
    cpu_set_t allowed, one;
    if (sched_getaffinity(0, sizeof allowed, &allowed))
        return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && index-- == 0) {
            CPU_ZERO(&one);
            CPU_SET(cpu, &one);
            pthread_setaffinity_np(thread, sizeof one, &one);
            return;
        }
    }
}

int pool_create(struct pool **out, uint32_t threads, struct error *e) {
    *out = NULL;
    if (!threads) {
        cpu_set_t allowed;
        threads = sched_getaffinity(0, sizeof allowed, &allowed) ? 1 : (uint32_t)CPU_COUNT(&allowed);
    }
    if (threads > MOST_THREADS)
        threads = MOST_THREADS;
    struct pool *p = aligned_alloc(_Alignof(struct pool), sizeof *p);
    if (p)
        memset(p, 0, sizeof *p);
    else
        return error_set(e, ERR_NO_MEMORY, "no memory for the chip's threads");
    p->threads = threads;
    p->started = 1;
    for (uint32_t i = 1; i < threads; i++) {
        p->worker[i].pool = p;
        p->worker[i].index = i;
        int failed = pthread_create(&p->worker[i].thread, NULL, worker_main, &p->worker[i]);
        if (failed) {
            pool_free(p);
            return error_set(e, ERR_IO, "cannot start thread %u of the chip (error %d)", i, failed);
        }
        p->started++;
        pin(p->worker[i].thread, i);
    }
    *out = p;
    return 0;
}

void pool_free(struct pool *p) {
    if (!p)
        return;
    p->stop = true;
    fork_all(p);
    for (uint32_t i = 1; i < p->started; i++)
        pthread_join(p->worker[i].thread, NULL);
    free(p);
}

void pool_pin_caller(const struct pool *p) {
    if (p->threads > 1)
        pin(pthread_self(), 0);
}

uint32_t pool_threads(const struct pool *p) {
    return p->threads;
}
