/* Parts of mapped files, and the memory that they take: brought in ahead of whoever reads them, and given back to the system when nobody will. */
#ifndef BASE_EXTENT_H
#define BASE_EXTENT_H

#include <stddef.h>
#include <sys/types.h>

struct extent {
    char *at; /* in this process */
    size_t bytes;
    int file; /* what is mapped there, open for reading; -1: memory of our own, whose content nobody needs again */
    off_t offset; /* of `at` in the file */
};

/* Wait until these bytes of x are in memory. A page that is gone is the guard's (model/guard.h); memory of our own comes when it is first used. */
void extent_read(const struct extent *x, size_t from, size_t bytes);
/* Give the memory back: the next who looks at a file's page waits for the disk. Pages that another process has mapped stay its own. */
void extent_drop(const struct extent *x);

#endif
