/* One HTTP/1.1 connection behind http.h: the packaged parser takes requests apart, this file keeps the order of things, writes responses and knows what the
 * socket has taken. Everything read here comes from strangers: sizes, rates and ends are limited. */
#include "gateway/http_inner.h"

#include "base/clock.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READS_AT_ONCE = 4, /* then the others have their turn */
    BODY_RATE = 4096,  /* bytes a second that keep a body's clock from running out */
    LINGER_NS =
        1000000000, /* how long what is still coming is read past, so that the client can read our answer */
    IDEMPOTENCY_BYTES = 512, /* of such a key, blanks behind it included; as many are too many */
    KEEP_OUT = 16 << 10      /* an idle connection keeps no buffers; a busy one keeps one up to this size */
};

/* ---- the parser's events --------------------------------------------------------------------------------------- */

static struct exchange *of(http_parser *p) {
    return p->data;
}

static void mark_dirty(struct exchange *c) {
    if (c->dirty || c->dead)
        return;
    c->dirty = true;
    c->next_dirty = c->http->dirty;
    c->http->dirty = c;
}

static int on_message_begin(http_parser *p) {
    struct exchange *c = of(p);
    c->began = true;
    c->since = c->progress = c->http->now;
    return 0;
}

static int on_url(http_parser *p, const char *at, size_t n) {
    struct exchange *c = of(p);
    buf_append(&c->head, at, n);
    c->target = c->head.n;
    return 0;
}

static void word_append(struct word *w, const char *at, size_t n) {
    for (size_t i = 0; i < n; i++, w->n++)
        if (w->n < sizeof w->text)
            w->text[w->n] = (char)tolower((unsigned char)at[i]);
}

static bool word_is(const struct word *w, const char *text) {
    size_t n = strlen(text);
    return w->n == n && memcmp(w->text, text, n) == 0;
}

/* Names and values may come in several pieces; this is where one is complete. */
static void end_header(struct exchange *c) {
    if (word_is(&c->name, "expect"))
        c->expects = c->expects || word_is(&c->value, "100-continue");
    else if (word_is(&c->name, "content-encoding"))
        c->coded = c->coded || !word_is(&c->value, "identity");
    c->name.n = c->value.n = 0;
    c->in_value = false;
}

static int refuse(struct exchange *c, const char *why) {
    c->fault = why;
    return -1;
}

static int on_header_field(http_parser *p, const char *at, size_t n) {
    struct exchange *c = of(p);
    if (memchr(at, ' ', n) != NULL) /* the parser would see "Content-Length :"; a proxy before us might not */
        return refuse(c, "a header's name holds a space");
    if (c->in_value)
        end_header(c);
    word_append(&c->name, at, n);
    return 0;
}

static int on_header_value(http_parser *p, const char *at, size_t n) {
    struct exchange *c = of(p);
    bool first = !c->in_value;
    c->in_value = true;
    word_append(&c->value, at, n);
    if (word_is(&c->name, "authorization")) {
        if (first && c->authorization_seen)
            return refuse(c, "there are two Authorization headers"); /* which one would be meant? */
        c->authorization_seen = true;
        buf_append(&c->head, at, n);
    } else if (word_is(&c->name, "x-forwarded-for")) {
        if (first && c->forwarded.n > 0)
            buf_byte(&c->forwarded, ',');
        buf_append(&c->forwarded, at, n);
    } else if (word_is(&c->name, "idempotency-key")) {
        if (first && c->idempotency_seen)
            return refuse(c, "there are two Idempotency-Key headers");
        c->idempotency_seen = true;
        size_t room = IDEMPOTENCY_BYTES - c->idempotency.n;
        buf_append(&c->idempotency, at, n < room ? n : room);
    }
    return 0;
}

/* The target's parts; a proxy may send a whole URI (RFC 9112, 3.2.2). */
static void split_target(const struct exchange *c, struct http_head *head) {
    struct http_parser_url url;
    http_parser_url_init(&url);
    if (http_parser_parse_url(c->head.p, c->target, c->parser.method == HTTP_CONNECT, &url) != 0)
        return;
    if (url.field_set & 1 << UF_PATH)
        head->path = (struct str){c->head.p + url.field_data[UF_PATH].off, url.field_data[UF_PATH].len};
    if (url.field_set & 1 << UF_QUERY)
        head->query = (struct str){c->head.p + url.field_data[UF_QUERY].off, url.field_data[UF_QUERY].len};
}

static int on_headers_complete(http_parser *p) {
    struct exchange *c = of(p);
    struct http *h = c->http;
    p->upgrade = 0; /* no protocol is offered: the request is answered as it stands */
    end_header(c);
    while (c->head.n > c->target && (c->head.p[c->head.n - 1] == ' ' || c->head.p[c->head.n - 1] == '\t'))
        c->head.n--; /* the parser leaves the blanks behind a value */
    struct buf *key = &c->idempotency;
    while (key->n > 0 && key->n < IDEMPOTENCY_BYTES &&
           (key->p[key->n - 1] == ' ' || key->p[key->n - 1] == '\t'))
        key->n--;
    struct http_head head = {
        .method = str_from(http_method_str(p->method)),
        .door = c->door,
        .coded = c->coded,
        .authorization = {c->head.p + c->target, c->head.n - c->target},
        .forwarded = buf_view(&c->forwarded),
        .peer = c->peer,
        .idempotency =
            c->idempotency_seen ? (struct str){key->n > 0 ? key->p : "", key->n} : (struct str){NULL, 0},
        .length = p->flags & F_CHUNKED         ? -1
                  : p->flags & F_CONTENTLENGTH ? (int64_t)p->content_length
                                               : 0,
    };
    split_target(c, &head);
    if (c->head.failed || c->forwarded.failed || key->failed || head.length < -1)
        return -1;
    c->headless = p->method == HTTP_HEAD;
    c->closing = c->closing || !http_should_keep_alive(p) || h->draining;
    c->active = true;
    c->since = c->progress = h->now;
    h->stats.requests++;
    /* A refused body is read past when it is short and on its way; otherwise the connection will close behind the answer. */
    bool short_body = head.length >= 0 && head.length <= HTTP_SKIP && !c->expects;
    bool closing = c->closing;
    c->closing = closing || !short_body;
    h->handler->on_head(h->context, c, &head);
    if (!c->responded) {
        c->closing = closing;
        if (c->expects && head.length != 0) {
            buf_text(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
            mark_dirty(c);
        }
    }
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t n) {
    struct exchange *c = of(p);
    c->body_read += n;
    c->progress = c->http->now;
    if (c->active && !c->responded)
        c->http->handler->on_body(c->http->context, c, (struct str){at, n});
    return 0;
}

static int on_message_complete(http_parser *p) {
    struct exchange *c = of(p);
    c->read_all = true;
    c->closing = c->closing || !http_should_keep_alive(p);
    c->since = c->progress = c->http->now;
    if (c->active && !c->responded)
        c->http->handler->on_end(c->http->context, c);
    if (c->finished)
        mark_dirty(c);       /* answered before the body was read past */
    http_parser_pause(p, 1); /* the next request waits for this one's response */
    return 0;
}

static const http_parser_settings events = {
    .on_message_begin = on_message_begin,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* ---- life of a connection ---------------------------------------------------------------------------------------- */

static void set_interest(struct exchange *c) {
    uint32_t wanted = 0;
    if (!c->eof) {
        wanted |= EPOLLRDHUP;
        if (c->lingering || !c->read_all || c->ahead.n < HTTP_AHEAD)
            wanted |= EPOLLIN;
    }
    if (c->out.n > c->out_from)
        wanted |= EPOLLOUT;
    if (wanted == c->interest || c->dead)
        return;
    struct epoll_event event = {.events = wanted, .data.ptr = c};
    if (epoll_ctl(c->http->epoll, EPOLL_CTL_MOD, c->fd, &event) == 0)
        c->interest = wanted;
}

struct exchange *connection_open(struct http *h, int fd, uint32_t door, const struct address *peer) {
    struct exchange *c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->http = h;
    c->fd = fd;
    c->peer = *peer;
    c->door = door;
    c->since = c->progress = h->now;
    c->interest = EPOLLIN | EPOLLRDHUP;
    c->head.limit = h->options.max_header;
    struct epoll_event event = {.events = c->interest, .data.ptr = c};
    if (epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
        free(c);
        return NULL;
    }
    http_parser_init(&c->parser, HTTP_REQUEST);
    c->parser.data = c;
    c->place = h->connections;
    h->connection[h->connections++] = c;
    return c;
}

bool connection_idle(const struct exchange *c) {
    return !c->active && !c->began && c->out.n == c->out_from;
}

void connection_close(struct exchange *c) {
    struct http *h = c->http;
    if (c->dead)
        return;
    c->dead = true;
    close(c->fd);
    struct exchange *last = h->connection[--h->connections];
    h->connection[c->place] = last;
    last->place = c->place;
    c->next_dead = h->dead;
    h->dead = c;
    if (c->active)
        h->handler->on_closed(h->context, c, false);
    buf_free(&c->head);
    buf_free(&c->forwarded);
    buf_free(&c->idempotency);
    buf_free(&c->ahead);
    buf_free(&c->out);
    free(c->mark);
}

static void shut_and_linger(struct exchange *c) {
    if (c->eof || c->lingering || shutdown(c->fd, SHUT_WR) != 0) {
        connection_close(c);
        return;
    }
    c->lingering = true;
    c->since = c->http->now;
    set_interest(c);
}

static void feed(struct exchange *c, const char *p, size_t n);
static void at_eof(struct exchange *c);

/* The response is complete and taken, the request read: the connection is as new. */
static void next_request(struct exchange *c) {
    c->head.n = c->target = 0;
    buf_free(&c->forwarded);
    c->name.n = c->value.n = 0;
    c->body_read = 0;
    c->marks = c->marks_from = 0;
    buf_free(&c->idempotency);
    c->in_value = c->authorization_seen = c->idempotency_seen = c->expects = c->coded = c->began =
        c->read_all = false;
    c->responded = c->finished = c->chunked = c->headless = false;
    c->since = c->progress = c->http->now;
    http_parser_pause(&c->parser, 0);
    if (c->ahead.n > 0) {
        struct buf ahead = c->ahead;
        c->ahead = (struct buf){0};
        feed(c, ahead.p, ahead.n);
        buf_free(&ahead);
    } else {
        buf_free(&c->head);
    }
    if (c->eof && !c->dead)
        at_eof(c);
}

static void after_response(struct exchange *c) {
    if (c->active) {
        c->active = false;
        c->http->handler->on_closed(c->http->context, c, true);
        c->user = NULL;
    }
    if (c->closing || c->http->draining) {
        if (c->read_all && c->ahead.n == 0 && c->eof)
            connection_close(c);
        else
            shut_and_linger(c);
    } else if (c->read_all) {
        if (c->out.capacity > KEEP_OUT)
            buf_free(&c->out);
        next_request(c);
    }
}

static void broken(struct exchange *c, int status, const char *why) {
    struct http *h = c->http;
    if (c->dead || c->lingering)
        return;
    h->stats.broken++;
    if (c->responded) { /* nothing can be said any more */
        connection_close(c);
        return;
    }
    c->closing = c->read_all = c->active = true;
    h->handler->on_broken(h->context, c, status, why);
    if (!c->finished)
        connection_close(c);
}

static void feed(struct exchange *c, const char *p, size_t n) {
    while (n > 0 && !c->dead && !c->lingering) {
        if (c->read_all) {
            buf_append(&c->ahead, p, n);
            return;
        }
        size_t used = http_parser_execute(&c->parser, &events, p, n);
        enum http_errno why = HTTP_PARSER_ERRNO(&c->parser);
        if (c->dead)
            return;
        if (why == HPE_HEADER_OVERFLOW || c->head.failed) {
            broken(c, 431, "the request's headers are too large");
            return;
        }
        if (why != HPE_OK && why != HPE_PAUSED) {
            broken(c, 400, c->fault != NULL ? c->fault : http_errno_description(why));
            return;
        }
        p += used;
        n -= used;
    }
}

/* The client will send no more. While an answer is being made that is a departure: a client that has gone looks just the same, and its generation
 * shall not go on for nobody. An answer that is complete is still sent. */
static void at_eof(struct exchange *c) {
    c->eof = true;
    bool waiting = c->active && c->read_all && !c->finished;
    bool settled = !c->active && (!c->began || c->finished);
    if (c->lingering || waiting || settled) {
        connection_close(c);
        return;
    }
    if (!c->read_all && !c->responded)
        broken(c, 400, "the request ended before it was complete");
    if (!c->dead) {
        c->closing = c->closing || c->ahead.n == 0;
        set_interest(c);
    }
}

static void read_some(struct exchange *c) {
    struct http *h = c->http;
    for (int i = 0; i < READS_AT_ONCE && !c->dead && !c->eof; i++) {
        if (!c->lingering && c->read_all && c->ahead.n >= HTTP_AHEAD)
            break;
        ssize_t n = recv(c->fd, h->scratch, sizeof h->scratch, 0);
        if (n == 0)
            at_eof(c);
        else if (n > 0)
            feed(c, h->scratch, (size_t)n);
        else if (errno == EAGAIN || errno == EINTR)
            break;
        else
            connection_close(c);
        if (n > 0 && (size_t)n < sizeof h->scratch)
            break;
    }
}

void connection_event(struct exchange *c, uint32_t ready) {
    if (ready & EPOLLIN)
        read_some(c);
    if (!c->dead && ready & (EPOLLERR | EPOLLHUP))
        connection_close(c);
    /* Its end may lie behind bytes that are still to be read; only a client that is waiting for nothing but an answer is gone already. */
    if (!c->dead && ready & EPOLLRDHUP && !c->eof && c->read_all)
        at_eof(c);
    if (!c->dead && ready & EPOLLOUT)
        mark_dirty(c);
    if (!c->dead && !c->dirty) /* else the flush at the end of the turn does it */
        set_interest(c);
}

static void tell_taken(struct exchange *c) {
    uint64_t mark = 0;
    if (c->marks == 0)
        return;
    while (c->marks_from < c->marks && c->mark[c->marks_from].end <= c->out_taken)
        mark = c->mark[c->marks_from++].mark;
    if (c->marks_from == c->marks || c->marks_from >= 256) {
        c->marks -= c->marks_from;
        memmove(c->mark, c->mark + c->marks_from, c->marks * sizeof *c->mark);
        c->marks_from = 0;
    }
    if (mark != 0)
        c->http->handler->on_taken(c->http->context, c, mark);
}

void connection_flush(struct exchange *c) {
    bool moved = false;
    if (c->out.failed) { /* no memory, or exchange_abort */
        connection_close(c);
        return;
    }
    while (!c->dead && c->out.n > c->out_from) {
        ssize_t n = send(c->fd, c->out.p + c->out_from, c->out.n - c->out_from, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            connection_close(c);
            return;
        }
        if (n < 0)
            break;
        c->out_from += (size_t)n;
        c->out_taken += (uint64_t)n;
        c->progress = c->http->now;
        moved = true;
    }
    if (c->out_from == c->out.n) {
        c->out_from = 0;
        buf_clear(&c->out);
    } else if (c->out_from > KEEP_OUT) {
        memmove(c->out.p, c->out.p + c->out_from, c->out.n - c->out_from);
        c->out.n -= c->out_from;
        c->out_from = 0;
    }
    if (moved && c->active)
        tell_taken(c); /* may write more, which comes back here */
    if (c->finished && c->out.n == 0 && !c->lingering)
        after_response(c);
    if (!c->dead)
        set_interest(c);
}

void connection_timer(struct exchange *c) {
    struct http *h = c->http;
    int64_t limit = h->options.client_timeout_ns, now = h->now;
    if (c->lingering) {
        if (now - c->since > LINGER_NS)
            connection_close(c);
    } else if (c->out.n > c->out_from) {
        if (now - c->progress > limit) {
            h->stats.timeouts++;
            connection_close(c);
        }
    } else if (!c->began) {
        if (now - c->since > limit)
            connection_close(c);
    } else if (!c->read_all) {
        int64_t earned = (int64_t)(c->body_read / BODY_RATE) * 1000000000;
        if (now - c->since > limit + earned || now - c->progress > limit) {
            h->stats.timeouts++;
            broken(c, 408, "the request came too slowly");
        }
    }
}

/* ---- the response ------------------------------------------------------------------------------------------------- */

void exchange_set_user(struct exchange *x, void *user) {
    x->user = user;
}

void *exchange_user(const struct exchange *x) {
    return x->user;
}

bool exchange_responded(const struct exchange *x) {
    return x->responded;
}

size_t exchange_pending(const struct exchange *x) {
    return x->out.n - x->out_from;
}

void exchange_respond(struct exchange *x, int status, const char *type, struct str extra, int64_t length) {
    const char *reason = http_status_str((enum http_status)status);
    bool old = x->parser.http_major < 1 || (x->parser.http_major == 1 && x->parser.http_minor == 0);
    x->responded = true;
    x->length_left = length;
    /* An answer in the middle of a body that is too long: the rest is not worth reading. */
    x->closing = x->closing || x->http->draining || (!x->read_all && x->body_read > 0);
    buf_printf(&x->out, "HTTP/1.1 %d %s\r\nDate: %s\r\nContent-Type: %s\r\n", status, reason, x->http->date,
               type);
    if (length >= 0)
        buf_printf(&x->out, "Content-Length: %lld\r\n", (long long)length);
    else if (old)
        x->closing = true; /* the body ends with the connection */
    else
        x->chunked = true;
    if (x->chunked)
        buf_text(&x->out, "Transfer-Encoding: chunked\r\n");
    if (x->closing)
        buf_text(&x->out, "Connection: close\r\n");
    else if (old) /* it asked for that, and waits for the connection's end unless it is told */
        buf_text(&x->out, "Connection: keep-alive\r\n");
    buf_str(&x->out, extra);
    buf_text(&x->out, "\r\n");
    mark_dirty(x);
}

static void add_mark(struct exchange *x, uint64_t mark) {
    if (x->marks == x->marks_capacity) {
        uint32_t more = x->marks_capacity ? 2 * x->marks_capacity : 8;
        struct out_mark *grown = realloc(x->mark, more * sizeof *grown);
        if (grown == NULL) {
            x->out.failed = true;
            return;
        }
        x->mark = grown;
        x->marks_capacity = more;
    }
    x->mark[x->marks++] = (struct out_mark){x->out_taken + (x->out.n - x->out_from), mark};
}

/* A chunk's: in hexadecimal. */
static void write_size(struct buf *out, size_t n) {
    char text[2 * sizeof n + 2], *p = text + sizeof text;
    *--p = '\n';
    *--p = '\r';
    do
        *--p = "0123456789abcdef"[n & 15];
    while ((n >>= 4) > 0);
    buf_append(out, p, (size_t)(text + sizeof text - p));
}

void exchange_write(struct exchange *x, struct str bytes, uint64_t mark) {
    if (x->length_left >= 0)
        x->length_left -= (int64_t)bytes.n;
    if (bytes.n > 0 && !x->headless) {
        if (x->chunked)
            write_size(&x->out, bytes.n);
        buf_str(&x->out, bytes);
        if (x->chunked)
            buf_text(&x->out, "\r\n");
    }
    if (mark != 0)
        add_mark(x, mark);
    mark_dirty(x);
}

void exchange_finish(struct exchange *x) {
    if (x->chunked && !x->headless)
        buf_text(&x->out, "0\r\n\r\n");
    if (x->length_left > 0 && !x->headless)
        x->closing = true;
    x->finished = true;
    mark_dirty(x);
}

void exchange_abort(struct exchange *x) {
    x->out.failed = true; /* the next flush closes it */
    mark_dirty(x);
}
