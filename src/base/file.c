/* See file.h. */
#include "base/file.h"

#include <errno.h>
#include <unistd.h>

int file_write(int fd, const void *from, size_t n, uint64_t at) {
    for (const char *p = from; n > 0;) {
        ssize_t done = pwrite(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : ENOSPC;
        p += done;
        n -= (size_t)done;
        at += (uint64_t)done;
    }
    return 0;
}

int file_read(int fd, void *to, size_t n, uint64_t at) {
    for (char *p = to; n > 0;) {
        ssize_t done = pread(fd, p, n, (off_t)at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return done < 0 ? errno : EIO;
        p += done;
        n -= (size_t)done;
        at += (uint64_t)done;
    }
    return 0;
}
