/* Put before the C library (LD_PRELOAD): the wall clock goes wrong by as many nanoseconds as the file that UNKAI_CLOCK_FILE names holds at this moment, 8 bytes. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static const volatile int64_t *offset;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("UNKAI_CLOCK_FILE");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *p = fd >= 0 ? mmap(NULL, sizeof *offset, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    offset = p != MAP_FAILED ? p : NULL;
    *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t id, struct timespec *out) {
    int rc = real(id, out);
    if (rc == 0 && id == CLOCK_REALTIME && offset != NULL) {
        int64_t ns = (int64_t)out->tv_sec * 1000000000 + out->tv_nsec + *offset;
        *out = (struct timespec){ns / 1000000000, ns % 1000000000};
    }
    return rc;
}
