/* Strings and growing buffers; see buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct str str_from(const char *c_string) {
    return (struct str){c_string ? c_string : "", c_string ? strlen(c_string) : 0};
}

bool str_equal(struct str a, struct str b) {
    return a.n == b.n && (a.n == 0 || memcmp(a.p, b.p, a.n) == 0);
}

bool str_is(struct str a, const char *c_string) {
    return str_equal(a, str_from(c_string));
}

bool str_starts(struct str a, struct str prefix) {
    return a.n >= prefix.n && (prefix.n == 0 || memcmp(a.p, prefix.p, prefix.n) == 0);
}

size_t str_find(struct str hay, struct str needle, size_t from) {
    if (from > hay.n)
        return SIZE_MAX;
    if (needle.n == 0)
        return from;
    const char *hit = memmem(hay.p + from, hay.n - from, needle.p, needle.n);
    return hit ? (size_t)(hit - hay.p) : SIZE_MAX;
}

char *buf_reserve(struct buf *b, size_t n) {
    if (b->failed || n >= SIZE_MAX / 2 - b->n || (b->limit != 0 && n > b->limit - b->n)) {
        b->failed = true;
        return NULL;
    }
    if (b->n + n + 1 > b->capacity) {
        size_t capacity = b->capacity < 64 ? 64 : b->capacity;
        while (capacity < b->n + n + 1)
            capacity *= 2;
        char *p = realloc(b->p, capacity);
        if (p == NULL) {
            b->failed = true;
            return NULL;
        }
        b->p = p;
        b->capacity = capacity;
    }
    return b->p + b->n;
}

void buf_append(struct buf *b, const void *p, size_t n) {
    char *to = buf_reserve(b, n);
    if (to == NULL)
        return;
    if (n > 0)
        memcpy(to, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

void buf_str(struct buf *b, struct str s) {
    buf_append(b, s.p, s.n);
}

void buf_text(struct buf *b, const char *c_string) {
    buf_append(b, c_string, strlen(c_string));
}

void buf_byte(struct buf *b, char c) {
    buf_append(b, &c, 1);
}

void buf_number(struct buf *b, uint64_t n) {
    char text[20], *p = text + sizeof text;
    do {
        *--p = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    buf_append(b, p, (size_t)(text + sizeof text - p));
}

void buf_base64(struct buf *b, struct str s) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < s.n; i += 3) {
        unsigned three = (unsigned)(unsigned char)s.p[i] << 16;
        three |= i + 1 < s.n ? (unsigned)(unsigned char)s.p[i + 1] << 8 : 0;
        three |= i + 2 < s.n ? (unsigned)(unsigned char)s.p[i + 2] : 0;
        for (unsigned k = 0; k < 4; k++)
            buf_byte(b, i + k <= s.n ? digit[three >> (18 - 6 * k) & 63] : '=');
    }
}

void buf_printf(struct buf *b, const char *format, ...) {
    enum { USUAL = 64 };
    va_list args;
    size_t room = b->limit == 0 && buf_reserve(b, USUAL) != NULL ? b->capacity - b->n : 0;
    va_start(args, format);
    int n = vsnprintf(room > 0 ? b->p + b->n : NULL, room, format, args);
    va_end(args);
    if (n < 0 || b->failed) {
        b->failed = true;
        return;
    }
    if ((size_t)n >= room) { /* what was written of it is written again */
        char *to = buf_reserve(b, (size_t)n);
        if (to == NULL)
            return;
        va_start(args, format);
        vsnprintf(to, (size_t)n + 1, format, args);
        va_end(args);
    }
    b->n += (size_t)n;
}

void buf_clear(struct buf *b) {
    b->n = 0;
    b->failed = false;
    if (b->p != NULL)
        b->p[0] = 0;
}

void buf_free(struct buf *b) {
    free(b->p);
    *b = (struct buf){.limit = b->limit};
}

struct str buf_view(const struct buf *b) {
    return (struct str){b->p ? b->p : "", b->n};
}
