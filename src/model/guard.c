/* The SIGBUS guard; see guard.h. The table is fixed and its entries are atomics, since a signal handler reads it. */
#include "model/guard.h"

#include "base/error.h"

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { GUARDS = 1024 };

static struct guard {
    _Atomic uintptr_t start; /* 0: free */
    _Atomic uintptr_t end;
    _Atomic(atomic_bool *) damaged;
} guards[GUARDS];
static pthread_mutex_t guard_lock = PTHREAD_MUTEX_INITIALIZER;
static uintptr_t page_size;
static struct sigaction before;

/* Only async-signal-safe calls. A fault elsewhere gets back what was installed before us. */
static void on_sigbus(int signal_number, siginfo_t *info, void *context) {
    uintptr_t at = (uintptr_t)info->si_addr;
    (void)signal_number;
    (void)context;
    for (int i = 0; i < GUARDS; i++) {
        uintptr_t start = atomic_load(&guards[i].start);
        if (start == 0 || at < start || at >= atomic_load(&guards[i].end))
            continue;
        void *page = (void *)(at & ~(page_size - 1));
        /* The bare system call: safe in a handler, and no write in the eyes of the thread sanitizer. */
        if (syscall(SYS_mmap, page, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
            -1)
            break;
        atomic_store(atomic_load(&guards[i].damaged), true);
        return;
    }
    sigaction(SIGBUS, &before, NULL); /* the instruction faults again, and now for good */
}

/* Whenever a mapping is added, since others may have put their handler in place of ours meanwhile. */
static void install(void) {
    struct sigaction now;
    struct sigaction ours = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    sigaction(SIGBUS, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == on_sigbus)
        return;
    before = now;
    page_size = (uintptr_t)sysconf(_SC_PAGESIZE);
    sigemptyset(&ours.sa_mask);
    sigaction(SIGBUS, &ours, NULL);
}

int guard_add(const void *address, size_t bytes, atomic_bool *damaged) {
    int rc = ERR_NO_MEMORY;
    pthread_mutex_lock(&guard_lock);
    install();
    for (int i = 0; i < GUARDS && rc != 0; i++)
        if (atomic_load(&guards[i].start) == 0) {
            atomic_store(&guards[i].damaged, damaged);
            atomic_store(&guards[i].end, (uintptr_t)address + bytes);
            atomic_store(&guards[i].start, (uintptr_t)address);
            rc = 0;
        }
    pthread_mutex_unlock(&guard_lock);
    return rc;
}

void guard_remove(const void *address) {
    pthread_mutex_lock(&guard_lock);
    for (int i = 0; i < GUARDS; i++)
        if (atomic_load(&guards[i].start) == (uintptr_t)address)
            atomic_store(&guards[i].start, 0);
    pthread_mutex_unlock(&guard_lock);
}
