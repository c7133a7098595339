/* UTF-8 after RFC 3629; see utf8.h. */
#include "base/utf8.h"

static size_t utf8_length(unsigned char c) {
    return c < 0x80 ? 1 : c < 0xC2 ? 0 : c < 0xE0 ? 2 : c < 0xF0 ? 3 : c < 0xF5 ? 4 : 0;
}

int32_t utf8_decode(struct str s, size_t *length) {
    static const int32_t smallest[5] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = utf8_length(p[0]);
    *length = 1;
    if (n <= 1)
        return n == 1 ? p[0] : -1;
    if (n > s.n)
        return -1;
    int32_t c = p[0] & (0xFF >> (n + 1));
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return -1;
        c = c << 6 | (p[i] & 0x3F);
    }
    if (c < smallest[n] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000))
        return -1;
    *length = n;
    return c;
}

size_t utf8_encode(uint32_t c, char out[4]) {
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3F));
    out[0] = (char)((0xF00 >> n) | c);
    return n;
}

bool utf8_valid(struct str s) {
    for (size_t i = 0, n; i < s.n; i += n)
        if (utf8_decode((struct str){s.p + i, s.n - i}, &n) < 0)
            return false;
    return true;
}

size_t utf8_incomplete_tail(struct str s) {
    for (size_t back = 1; back <= 3 && back <= s.n; back++) {
        unsigned char c = (unsigned char)s.p[s.n - back];
        if ((c & 0xC0) == 0x80)
            continue;
        return utf8_length(c) > back ? back : 0;
    }
    return 0;
}

/* How many bytes at the beginning of s, where no character stands, could have begun one; at least 1. */
static size_t broken_length(struct str s) {
    const unsigned char *p = (const unsigned char *)s.p;
    size_t n = utf8_length(p[0]), i = 1;
    unsigned char low = p[0] == 0xE0   ? 0xA0
                        : p[0] == 0xF0 ? 0x90
                                       : 0x80,
                  high = p[0] == 0xED   ? 0x9F
                         : p[0] == 0xF4 ? 0x8F
                                        : 0xBF;
    for (; i < n && i < s.n && p[i] >= low && p[i] <= high; i++) {
        low = 0x80;
        high = 0xBF;
    }
    return i;
}

void utf8_append_repaired(struct buf *b, struct str s) {
    for (size_t i = 0, n; i < s.n; i += n) {
        struct str rest = {s.p + i, s.n - i};
        if (utf8_decode(rest, &n) >= 0) {
            buf_append(b, rest.p, n);
        } else {
            buf_append(b, "\xEF\xBF\xBD", 3);
            n = broken_length(rest);
        }
    }
}
