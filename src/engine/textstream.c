/* Text that may be sent; see textstream.h. On the request's journey: between the sampler and the stream to the client. */
#include "engine/textstream.h"

#include "base/utf8.h"

#include <string.h>

/* The longest tail of text that is the beginning of a stop string. */
static size_t stop_tail(struct str text, struct str stop) {
    size_t n = text.n < stop.n - 1 ? text.n : stop.n - 1;
    for (; n > 0; n--)
        if (memcmp(text.p + text.n - n, stop.p, n) == 0)
            return n;
    return 0;
}

bool textstream_push(struct textstream *t, struct str piece) {
    if (t->stopped)
        return true;
    size_t old = t->held.n;
    buf_str(&t->held, piece);
    struct str text = buf_view(&t->held);
    size_t first = SIZE_MAX, keep = utf8_incomplete_tail(text);
    for (size_t i = 0; i < t->stops; i++) {
        struct str stop = t->stop[i];
        if (stop.n == 0)
            continue;
        size_t from = old >= stop.n ? old - stop.n + 1 : 0;
        size_t at = str_find(text, stop, from);
        if (at < first)
            first = at;
        size_t tail = stop_tail(text, stop);
        if (tail > keep)
            keep = tail;
    }
    if (first != SIZE_MAX) {
        t->held.n = t->clean = first;
        t->stopped = true;
        return true;
    }
    t->clean = text.n - keep;
    /* A stop string that begins inside a character would be odd, but what goes out stays whole characters. */
    t->clean -= utf8_incomplete_tail((struct str){text.p, t->clean});
    return false;
}

void textstream_end(struct textstream *t) {
    t->clean = t->held.n;
}

void textstream_take(struct textstream *t, struct buf *out) {
    if (t->clean == 0)
        return;
    utf8_append_repaired(out, (struct str){t->held.p, t->clean});
    memmove(t->held.p, t->held.p + t->clean, t->held.n - t->clean);
    t->held.n -= t->clean;
    t->clean = 0;
}

void textstream_free(struct textstream *t) {
    buf_free(&t->held);
}
