#include "base/url.h"

static int hex(char c) {
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)(c | 32);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

void percent_decode(struct buf *out, struct str s, bool plus) {
    buf_clear(out);
    for (size_t i = 0; i < s.n; i++) {
        bool escape = s.p[i] == '%' && i + 2 < s.n;
        int high = escape ? hex(s.p[i + 1]) : -1, low = escape ? hex(s.p[i + 2]) : -1;
        if (high >= 0 && low >= 0) {
            buf_byte(out, (char)(16 * high + low));
            i += 2;
        } else {
            buf_byte(out, plus && s.p[i] == '+' ? ' ' : s.p[i]);
        }
    }
}
