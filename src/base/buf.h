/* Text: `struct str` is a borrowed run of bytes (any bytes, not NUL-terminated), `struct buf` grows.
 * A buf that could not grow remembers it (`failed`) and ignores further appends, so that callers check once. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct str {
    const char *p;
    size_t n;
};

#define STR(literal) ((struct str){"" literal, sizeof(literal) - 1})

struct str str_from(const char *c_string); /* NULL gives an empty str */
bool str_equal(struct str a, struct str b);
bool str_is(struct str a, const char *c_string);
bool str_starts(struct str a, struct str prefix);
/* Index of needle in hay at or after `from`, or SIZE_MAX. */
size_t str_find(struct str hay, struct str needle, size_t from);

struct buf {
    char *p; /* NUL-terminated whenever not NULL */
    size_t n, capacity;
    size_t limit; /* 0: none; growing past it sets failed */
    bool failed;
};

void buf_append(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
void buf_text(struct buf *b, const char *c_string);
void buf_byte(struct buf *b, char c);
void buf_number(struct buf *b, uint64_t n);   /* in decimal */
void buf_base64(struct buf *b, struct str s); /* RFC 4648, 4 */
void buf_printf(struct buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Make room for n more bytes and return where to write them (NULL on failure); the caller adds to b->n. */
char *buf_reserve(struct buf *b, size_t n);
void buf_clear(struct buf *b); /* keeps the memory */
void buf_free(struct buf *b);
struct str buf_view(const struct buf *b);

#endif
