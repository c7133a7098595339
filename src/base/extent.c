/* Reading ahead and giving back; see extent.h. Pages are touched, one after the other, and not asked for with MADV_WILLNEED: the kernel's read-ahead behind
 * faults brings large folios where the file system has them, at a twentieth of the processor's time, which then are mapped as huge pages. */
#include "base/extent.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

void extent_read(const struct extent *x, size_t from, size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (x->file < 0 || bytes == 0)
        return;
    for (size_t i = 0; i < bytes; i += page)
        (void)*(const volatile char *)(x->at + from + i);
    (void)*(const volatile char *)(x->at + from + bytes - 1);
}

/* Whole pages only: what shares one with others is left alone. */
void extent_drop(const struct extent *x) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), at = (uintptr_t)x->at;
    uintptr_t first = (at + page - 1) / page * page, end = (at + x->bytes) / page * page;
    if (end <= first)
        return;
    /* First out of this process: the system's cache keeps what is mapped. */
    madvise((void *)first, end - first, MADV_DONTNEED);
    if (x->file >= 0)
        posix_fadvise(x->file, x->offset + (off_t)(first - at), (off_t)(end - first), POSIX_FADV_DONTNEED);
}
