/* Reading and writing a file at a place, all of it. */
#ifndef BASE_FILE_H
#define BASE_FILE_H

#include <stddef.h>
#include <stdint.h>

/* n bytes at `at`. 0, or the number of the error: ENOSPC where nothing more was written, EIO where the file ends before. */
int file_write(int fd, const void *from, size_t n, uint64_t at);
int file_read(int fd, void *to, size_t n, uint64_t at);

#endif
