/* See client.h. An epoll loop around the packaged HTTP parser. */
#include "bench/client.h"

#include "base/clock.h"
#include "bench/stream.h"

#include <errno.h>
#include <http_parser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { EVENTS = 256, READ_BYTES = 64 << 10 };

struct ask {
    struct ask *next, **link; /* of the pending ones */
    struct client *client;
    struct answer *answer;
    int fd;
    struct buf out;
    size_t written;
    http_parser parser;
    struct stream stream;
    bool whole; /* the response's end has been read */
};

struct client {
    int epoll, timer;
    struct sockaddr_storage address;
    socklen_t address_bytes;
    char host[256], path[512];
    struct ask *pending;
    size_t count;
    int64_t now;
    char buffer[READ_BYTES];
};

/* ---- one answer ---- */

static int on_body(http_parser *p, const char *at, size_t n) {
    struct ask *q = p->data;
    stream_feed(&q->stream, (struct str){at, n}, p->status_code == 200, q->client->now);
    return 0;
}

static int on_complete(http_parser *p) {
    ((struct ask *)p->data)->whole = true;
    return 0;
}

static const http_parser_settings parser_settings = {.on_body = on_body, .on_message_complete = on_complete};

static void finish(struct ask *q, enum answer_end end, const char *why) {
    struct answer *a = q->answer;
    struct client *c = q->client;
    a->end = end;
    a->end_ns = clock_mono_ns();
    if (a->first_ns == 0)
        a->first_ns = a->end_ns;
    if (why != NULL && a->error[0] == 0)
        snprintf(a->error, sizeof a->error, "%s", why);
    if (q->fd >= 0)
        close(q->fd);
    *q->link = q->next;
    if (q->next != NULL)
        q->next->link = q->link;
    c->count--;
    buf_free(&q->out);
    stream_free(&q->stream);
    free(q);
}

static void finish_whole(struct ask *q) {
    struct answer *a = q->answer;
    a->status = (int)q->parser.status_code;
    if (a->status != 200) {
        stream_refusal(&q->stream, a->status);
        finish(q, ANSWER_REFUSED, NULL);
    } else if (!q->stream.done || a->error[0] != 0) {
        finish(q, ANSWER_BROKEN, "the stream ended without [DONE]");
    } else {
        finish(q, ANSWER_COMPLETE, NULL);
    }
}

/* Returns false when the ask is finished. */
static bool send_rest(struct ask *q) {
    while (q->written < q->out.n) {
        ssize_t n = send(q->fd, q->out.p + q->written, q->out.n - q->written, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOTCONN))
            return true;
        if (n < 0) {
            finish(q, ANSWER_BROKEN, strerror(errno));
            return false;
        }
        q->written += (size_t)n;
    }
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = q};
    epoll_ctl(q->client->epoll, EPOLL_CTL_MOD, q->fd, &event);
    return true;
}

static void receive(struct ask *q) {
    struct client *c = q->client;
    ssize_t n = recv(q->fd, c->buffer, sizeof c->buffer, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n < 0) {
        finish(q, ANSWER_BROKEN, strerror(errno));
        return;
    }
    size_t read = http_parser_execute(&q->parser, &parser_settings, c->buffer, (size_t)n);
    if (q->whole)
        finish_whole(q);
    else if (n == 0)
        finish(q, ANSWER_BROKEN, "the connection was closed before the answer's end");
    else if (read != (size_t)n || HTTP_PARSER_ERRNO(&q->parser) != HPE_OK)
        finish(q, ANSWER_BROKEN, http_errno_description(HTTP_PARSER_ERRNO(&q->parser)));
}

static void on_ready(struct ask *q, uint32_t events) {
    int why = 0;
    socklen_t n = sizeof why;
    if (q->written < q->out.n && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) {
        if (getsockopt(q->fd, SOL_SOCKET, SO_ERROR, &why, &n) == 0 && why != 0) {
            finish(q, ANSWER_BROKEN, strerror(why));
            return;
        }
        if (!send_rest(q))
            return;
    }
    if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0)
        receive(q);
}

/* ---- the public face ---- */

void client_ask(struct client *c, struct answer *a, const char *key, struct str body) {
    struct ask *q = calloc(1, sizeof *q);
    int one = 1;
    *a = (struct answer){.end = ANSWER_BROKEN};
    if (q == NULL) {
        snprintf(a->error, sizeof a->error, "no memory");
        return;
    }
    q->client = c;
    q->answer = a;
    a->end = ANSWER_PENDING;
    stream_start(&q->stream, a);
    http_parser_init(&q->parser, HTTP_RESPONSE);
    q->parser.data = q;
    q->next = c->pending;
    q->link = &c->pending;
    if (q->next != NULL)
        q->next->link = &q->next;
    c->pending = q;
    c->count++;
    buf_printf(&q->out,
               "POST %s/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
               "Connection: close\r\nContent-Length: %zu\r\n",
               c->path, c->host, body.n);
    if (key != NULL)
        buf_printf(&q->out, "Authorization: Bearer %s\r\n", key);
    buf_text(&q->out, "\r\n");
    buf_str(&q->out, body);
    q->fd = socket(c->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (q->fd < 0 || q->out.failed) {
        finish(q, ANSWER_BROKEN, q->out.failed ? "no memory" : strerror(errno));
        return;
    }
    setsockopt(q->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT, .data.ptr = q};
    if ((connect(q->fd, (struct sockaddr *)&c->address, c->address_bytes) != 0 && errno != EINPROGRESS) ||
        epoll_ctl(c->epoll, EPOLL_CTL_ADD, q->fd, &event) != 0)
        finish(q, ANSWER_BROKEN, strerror(errno));
}

void client_run(struct client *c, int64_t until_ns, bool idle) {
    struct epoll_event event[EVENTS];
    struct itimerspec at = {.it_value = {.tv_sec = until_ns / 1000000000, .tv_nsec = until_ns % 1000000000}};
    timerfd_settime(c->timer, TFD_TIMER_ABSTIME, &at, NULL);
    /* At least one look, so that answers are read also while the requests are late. */
    do {
        int n = idle && c->count == 0 ? 0 : epoll_wait(c->epoll, event, EVENTS, -1);
        c->now = clock_mono_ns();
        for (int i = 0; i < n; i++)
            if (event[i].data.ptr != NULL)
                on_ready(event[i].data.ptr, event[i].events);
    } while (!(idle && c->count == 0) && c->now < until_ns);
}

void client_abandon(struct client *c) {
    for (struct ask *q = c->pending, *next; q != NULL; q = next) {
        next = q->next;
        finish(q, ANSWER_UNFINISHED, "no answer in time");
    }
}

size_t client_pending(const struct client *c) {
    return c->count;
}

static int resolve(struct client *c, const char *host, const char *port, struct error *e) {
    struct addrinfo wish = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    int why = getaddrinfo(host, port, &wish, &found);
    if (why != 0)
        return error_set(e, ERR_NOT_FOUND, "cannot find %.100s: %s", host, gai_strerror(why));
    memcpy(&c->address, found->ai_addr, found->ai_addrlen);
    c->address_bytes = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

static int read_url(struct client *c, const char *url, struct error *e) {
    struct http_parser_url u;
    char host[200], port[8];
    http_parser_url_init(&u);
    if (strncmp(url, "http://", 7) != 0 || http_parser_parse_url(url, strlen(url), 0, &u) != 0 ||
        u.field_data[UF_HOST].len >= sizeof host)
        return error_set(e, ERR_INVALID, "'%.200s' is not http://HOST:PORT/v1", url);
    snprintf(host, sizeof host, "%.*s", u.field_data[UF_HOST].len, url + u.field_data[UF_HOST].off);
    snprintf(port, sizeof port, "%d", u.port != 0 ? u.port : 80);
    snprintf(c->host, sizeof c->host, "%s:%s", host, port);
    snprintf(c->path, sizeof c->path, "%.*s", u.field_data[UF_PATH].len, url + u.field_data[UF_PATH].off);
    size_t n = strlen(c->path);
    while (n > 0 && c->path[n - 1] == '/')
        c->path[--n] = 0;
    if (n == 0)
        snprintf(c->path, sizeof c->path, "/v1");
    return resolve(c, host, port, e);
}

int client_create(struct client **out, const char *url, struct error *e) {
    struct client *c = *out = calloc(1, sizeof *c);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (c == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory");
    c->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = read_url(c, url, e);
    if (rc == 0 && epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->timer, &event) != 0)
        rc = error_set(e, ERR_IO, "epoll: %s", strerror(errno));
    if (rc != 0) {
        client_free(c);
        *out = NULL;
    }
    return rc;
}

void client_free(struct client *c) {
    if (c == NULL)
        return;
    client_abandon(c);
    close(c->epoll);
    close(c->timer);
    free(c);
}
