/* The loop behind http.h: one epoll instance holds the listener, the wake-up and every connection. epoll reports a client's
 * departure (EPOLLRDHUP) whether or not anything is being sent or read, which is why it stands here: a generation stops as soon as nobody waits for it. */
#include "gateway/http_inner.h"

#include "base/clock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    TICK_MS = 100,
    TIMER_TICKS = 4, /* the connections' clocks are read every so many ticks */
    ACCEPT_AT_ONCE = 256,
    EVENTS_AT_ONCE = 256,
    SEND_BUFFER =
        16 << 10 /* the kernel doubles it: what a client that stops reading can hold, and be charged for */
};

union socket_address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static void note_address(struct http *h, uint32_t door, const union socket_address *a) {
    if (a->any.sa_family == AF_INET) {
        h->port[door] = ntohs(a->v4.sin_port);
        h->loopback[door] = (ntohl(a->v4.sin_addr.s_addr) >> 24) == 127;
    } else {
        h->port[door] = ntohs(a->v6.sin6_port);
        h->loopback[door] = IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr);
    }
}

static int try_listen(struct http *h, uint32_t door, const struct addrinfo *a) {
    int one = 1, small = SEND_BUFFER;
    union socket_address bound = {0};
    socklen_t n = sizeof bound;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    /* Inherited by accepted sockets. */
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bind(fd, a->ai_addr, a->ai_addrlen) != 0 || listen(fd, 4096) != 0 ||
        getsockname(fd, &bound.any, &n) != 0) {
        int why = errno;
        close(fd);
        errno = why;
        return -1;
    }
    note_address(h, door, &bound);
    return fd;
}

static int watch(struct http *h, int fd, void *tag) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = tag};
    return epoll_ctl(h->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int open_listener(struct http *h, uint32_t door, struct error *e) {
    const struct http_door *d = &h->options.door[door];
    char port[8];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *list;
    snprintf(port, sizeof port, "%u", d->port);
    int rc = getaddrinfo(d->host, port, &hints, &list);
    if (rc != 0)
        return error_set(e, ERR_INVALID, "cannot listen on '%.100s': %s", d->host, gai_strerror(rc));
    for (const struct addrinfo *a = list; a != NULL && h->listener[door] < 0; a = a->ai_next)
        h->listener[door] = try_listen(h, door, a);
    int why = errno;
    freeaddrinfo(list);
    if (h->listener[door] < 0)
        return error_set(e, ERR_IO, "cannot listen on %.100s:%s: %s", d->host, port, strerror(why));
    if (watch(h, h->listener[door], &h->listener[door]) != 0)
        return error_set(e, ERR_IO, "cannot watch the listening socket: %s", strerror(errno));
    return 0;
}

int http_create(struct http **out, const struct http_options *o, const struct http_handler *handler,
                void *context, struct error *e) {
    int rc = 0;
    struct http *h = calloc(1, sizeof *h);
    *out = NULL;
    if (h == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the HTTP server");
    h->options = *o;
    h->handler = handler;
    h->context = context;
    for (uint32_t i = 0; i < HTTP_DOORS; i++)
        h->listener[i] = -1;
    h->now = clock_mono_ns();
    h->connection = calloc(o->max_connections, sizeof *h->connection);
    h->epoll = epoll_create1(EPOLL_CLOEXEC);
    h->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    h->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    http_parser_set_max_header_size((uint32_t)o->max_header);
    if (h->connection == NULL || h->epoll < 0 || h->wake < 0) {
        rc = error_set(e, ERR_IO, "cannot set up the event loop: %s", strerror(errno));
        goto out;
    }
    if (watch(h, h->wake, &h->wake) != 0)
        rc = error_set(e, ERR_IO, "cannot watch the loop's own wake-up: %s", strerror(errno));
    for (uint32_t i = 0; i < HTTP_DOORS && rc == 0; i++)
        if (o->door[i].host != NULL)
            rc = open_listener(h, i, e);
out:
    if (rc != 0)
        http_free(h);
    else
        *out = h;
    return rc;
}

uint16_t http_port(const struct http *h, uint32_t door) {
    return h->port[door];
}

bool http_loopback(const struct http *h, uint32_t door) {
    return h->loopback[door];
}

void http_stats(const struct http *h, struct http_stats *out) {
    *out = h->stats;
    out->connections = h->connections;
}

void http_wake(struct http *h) {
    int why = errno; /* a signal handler may not change it */
    uint64_t one = 1;
    if (write(h->wake, &one, sizeof one) < 0) { /* EAGAIN: it is awake already */
    }
    errno = why;
}

void http_quit(struct http *h) {
    atomic_store(&h->quit, true);
}

void http_drain(struct http *h) {
    if (h->draining)
        return;
    h->draining = true;
    for (uint32_t i = 0; i < HTTP_DOORS; i++) {
        if (h->listener[i] >= 0)
            close(h->listener[i]); /* epoll forgets it */
        h->listener[i] = -1;
    }
    for (uint32_t i = h->connections; i-- > 0;)
        if (connection_idle(h->connection[i]))
            connection_close(h->connection[i]);
}

static struct address peer_of(const union socket_address *a) {
    struct address peer = {0};
    if (a->any.sa_family == AF_INET) {
        peer.byte[10] = peer.byte[11] = 0xff;
        memcpy(peer.byte + 12, &a->v4.sin_addr, 4);
    } else if (a->any.sa_family == AF_INET6) {
        memcpy(peer.byte, &a->v6.sin6_addr, sizeof peer.byte);
    }
    return peer;
}

/* With no descriptor left, accept would fail for ever while the listener stays readable: use the spare one to take the connection and drop it. */
static void refuse_one(struct http *h, uint32_t door) {
    close(h->spare);
    int fd = accept4(h->listener[door], NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        close(fd);
    h->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    h->stats.refused++;
}

static void accept_some(struct http *h, uint32_t door) {
    for (int i = 0; i < ACCEPT_AT_ONCE; i++) {
        union socket_address from = {0};
        socklen_t n = sizeof from;
        int fd = accept4(h->listener[door], &from.any, &n, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
            refuse_one(h, door);
            return;
        }
        if (fd < 0)
            return;
        struct address peer = peer_of(&from);
        struct exchange *c =
            h->connections < h->options.max_connections ? connection_open(h, fd, door, &peer) : NULL;
        if (c == NULL) {
            close(fd);
            h->stats.refused++;
            continue;
        }
        h->stats.accepted++;
    }
}

static void flush_dirty(struct http *h) {
    while (h->dirty != NULL) {
        struct exchange *c = h->dirty;
        h->dirty = c->next_dirty;
        c->dirty = false;
        if (!c->dead)
            connection_flush(c);
    }
}

static void bury_dead(struct http *h) {
    while (h->dead != NULL) {
        struct exchange *c = h->dead;
        h->dead = c->next_dead;
        free(c);
    }
}

static void run_timers(struct http *h) {
    time_t now = (time_t)(clock_wall_ns() / 1000000000);
    struct tm t;
    gmtime_r(&now, &t);
    strftime(h->date, sizeof h->date, "%a, %d %b %Y %H:%M:%S GMT", &t);
    for (uint32_t i = h->connections; i-- > 0;)
        connection_timer(h->connection[i]);
}

static void on_event(struct http *h, const struct epoll_event *event) {
    uint64_t count;
    for (uint32_t i = 0; i < HTTP_DOORS; i++)
        if (event->data.ptr == &h->listener[i]) {
            if (h->listener[i] >= 0)
                accept_some(h, i);
            return;
        }
    if (event->data.ptr == &h->wake) {
        if (read(h->wake, &count, sizeof count) > 0)
            h->handler->on_wake(h->context);
    } else {
        struct exchange *c = event->data.ptr;
        if (!c->dead)
            connection_event(c, event->events);
    }
}

int http_loop(struct http *h, struct error *e) {
    struct epoll_event event[EVENTS_AT_ONCE];
    int64_t next_tick = 0;
    for (uint64_t ticks = 0; !atomic_load(&h->quit);) {
        int64_t wait = (next_tick - clock_mono_ns()) / 1000000 + 1;
        int n = epoll_wait(h->epoll, event, EVENTS_AT_ONCE,
                           wait < 0         ? 0
                           : wait > TICK_MS ? TICK_MS
                                            : (int)wait);
        if (n < 0 && errno != EINTR)
            return error_set(e, ERR_IO, "the event loop failed: %s", strerror(errno));
        h->now = clock_mono_ns();
        for (int i = 0; i < n; i++)
            on_event(h, &event[i]);
        flush_dirty(h);
        if (h->now >= next_tick) {
            next_tick = h->now + TICK_MS * 1000000LL;
            if (ticks++ % TIMER_TICKS == 0)
                run_timers(h);
            h->handler->on_tick(h->context);
            flush_dirty(h);
        }
        bury_dead(h);
    }
    return 0;
}

void http_free(struct http *h) {
    if (h == NULL)
        return;
    if (h->connection != NULL)
        for (uint32_t i = h->connections; i-- > 0;)
            connection_close(h->connection[i]);
    bury_dead(h);
    int fd[] = {h->epoll, h->listener[0], h->listener[1], h->wake, h->spare};
    for (size_t i = 0; i < sizeof fd / sizeof *fd; i++)
        if (fd[i] >= 0)
            close(fd[i]);
    free(h->connection);
    free(h);
}
