/* See client.h. */
#include "bench/gateway/client.h"

#include "base/clock.h"

#include <errno.h>
#include <fcntl.h>
#include <http_parser.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SCRATCH = 256 << 10, EVENTS = 512, PATIENCE_S = 60, AT_ONCE = 64 };

struct connection {
    struct client *client;
    int fd;
    struct str request;
    size_t sent;
    http_parser parser;
    struct buf line; /* of a body, the part that has not ended */
    int64_t asked, first;
    uint64_t tokens;
    bool busy, stream;
};

struct client {
    const struct load *load;
    struct load_result *result;
    int epoll;
    struct connection *connection;
    uint32_t busy, asked; /* waiting for an answer; connections that have asked at all */
    bool measuring, ending;
    int64_t now;
    char scratch[SCRATCH];
};

/* ---- times ---- */

static void spread_add(struct spread *s, int64_t ns) {
    uint64_t us = ns > 0 ? (uint64_t)ns / 1000 : 0;
    unsigned shift = us < 64 ? 0 : 63 - (unsigned)__builtin_clzll(us) - 5; /* us >> shift has six bits */
    size_t i = us < 64 ? us : 32 * (shift + 1) + (us >> shift) % 32;
    s->count[i < SPREAD_STEPS ? i : SPREAD_STEPS - 1]++;
    s->n++;
}

double spread_at(const struct spread *s, double share) {
    uint64_t seen = 0;
    for (size_t i = 0; i < SPREAD_STEPS; i++) {
        seen += s->count[i];
        if (seen > 0 && (double)seen >= share * (double)s->n)
            return i < 64 ? (double)i : (double)((32 + i % 32) << (i / 32 - 1));
    }
    return 0;
}

/* ---- answers ---- */

static uint32_t read_stamp(const char *p) {
    uint32_t x = 0;
    for (int i = 0; i < 8; i++)
        x = x << 4 | (uint32_t)(p[i] <= '9' ? p[i] - '0' : p[i] - 'a' + 10);
    return x;
}

/* A line of an event stream: a token when its text is one of the stub's. */
static void on_line(struct connection *k, struct str line) {
    static const char mark[] = "\"content\":\" ";
    struct client *c = k->client;
    const char *text = memmem(line.p, line.n, mark, sizeof mark - 1);
    if (text == NULL || (size_t)(line.p + line.n - text) < sizeof mark + 8)
        return;
    uint32_t late = (uint32_t)(c->now / 1000) - read_stamp(text + sizeof mark - 1);
    k->tokens++;
    c->result->tokens += c->measuring;
    if (k->first == 0)
        k->first = c->now;
    else if (c->measuring)
        spread_add(&c->result->token, (int64_t)late * 1000);
}

static uint64_t count_after(struct str body, const char *name) {
    size_t at = str_find(body, str_from(name), 0);
    return at == SIZE_MAX ? 0 : strtoull(body.p + at + strlen(name), NULL, 10);
}

static int on_headers(http_parser *p) {
    struct connection *k = p->data;
    k->stream = p->flags & F_CHUNKED;
    return 0;
}

static int on_body(http_parser *p, const char *at, size_t n) {
    struct connection *k = p->data;
    while (k->stream && n > 0) {
        const char *end = memchr(at, '\n', n);
        size_t part = end != NULL ? (size_t)(end - at) : n;
        if (end == NULL || k->line.n > 0)
            buf_append(&k->line, at, part);
        if (end != NULL) {
            on_line(k, k->line.n > 0 ? buf_view(&k->line) : (struct str){at, part});
            buf_clear(&k->line);
            part++;
        }
        at += part;
        n -= part;
    }
    if (n > 0)
        buf_append(&k->line, at, n);
    return 0;
}

static int on_complete(http_parser *p) {
    struct connection *k = p->data;
    struct client *c = k->client;
    if (!k->stream) {
        k->tokens = count_after(buf_view(&k->line), "\"completion_tokens\":");
        c->result->tokens += c->measuring ? k->tokens : 0;
    }
    if (p->status_code != 200 || k->tokens == 0)
        c->result->failed++;
    c->result->all_answers++;
    c->result->all_tokens += k->tokens;
    if (c->measuring) {
        c->result->answers++;
        spread_add(&c->result->answer, c->now - k->asked);
        if (k->stream)
            spread_add(&c->result->first, k->first - k->asked);
    }
    k->busy = false;
    c->busy--;
    return 0;
}

static const http_parser_settings events = {
    .on_headers_complete = on_headers, .on_body = on_body, .on_message_complete = on_complete};

/* ---- the loop ---- */

static void set_interest(struct connection *k, uint32_t wanted) {
    struct epoll_event event = {.events = wanted, .data.ptr = k};
    epoll_ctl(k->client->epoll, EPOLL_CTL_MOD, k->fd, &event);
}

static void send_more(struct connection *k) {
    ssize_t n = send(k->fd, k->request.p + k->sent, k->request.n - k->sent, MSG_NOSIGNAL);
    bool waited = k->sent > 0;
    k->sent += n > 0 ? (size_t)n : 0;
    if (k->sent < k->request.n)
        set_interest(k, EPOLLIN | EPOLLOUT);
    else if (waited)
        set_interest(k, EPOLLIN);
}

static void ask(struct connection *k) {
    buf_clear(&k->line);
    k->sent = 0;
    k->first = 0;
    k->tokens = 0;
    k->asked = clock_mono_ns();
    k->busy = true;
    k->client->busy++;
    send_more(k);
}

static void lose(struct connection *k) {
    struct client *c = k->client;
    c->result->failed++;
    c->busy -= k->busy;
    k->busy = false;
    close(k->fd);
    k->fd = -1;
}

static void on_event(struct connection *k, uint32_t ready) {
    struct client *c = k->client;
    if (ready & EPOLLOUT && k->sent < k->request.n)
        send_more(k);
    if (!(ready & ~(uint32_t)EPOLLOUT))
        return;
    ssize_t n = recv(k->fd, c->scratch, sizeof c->scratch, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || http_parser_execute(&k->parser, &events, c->scratch, (size_t)n) != (size_t)n) {
        lose(k);
        return;
    }
    if (!k->busy && !c->ending && !c->load->once)
        ask(k);
    if (c->load->once && c->busy < AT_ONCE && c->asked < c->load->connections)
        ask(&c->connection[c->asked++]);
}

static int connect_all(struct client *c, struct error *e) {
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(c->load->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int one = 1;
    for (uint32_t i = 0; i < c->load->connections; i++) {
        struct connection *k = &c->connection[i];
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = k};
        k->client = c;
        k->request = c->load->request[i % c->load->requests];
        k->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (k->fd < 0 || connect(k->fd, (const struct sockaddr *)&to, sizeof to) != 0 ||
            epoll_ctl(c->epoll, EPOLL_CTL_ADD, k->fd, &event) != 0)
            return error_set(e, ERR_IO, "connection %u: %s", i, strerror(errno));
        fcntl(k->fd, F_SETFL, O_NONBLOCK);
        setsockopt(k->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        http_parser_init(&k->parser, HTTP_RESPONSE);
        k->parser.data = k;
    }
    return 0;
}

/* The clients never sleep: what it takes to wake a sleeping core would be paid by whoever sends to it, which is the server, and no client on the other side of a
 * network costs it that. */
static void turn(struct client *c) {
    struct epoll_event event[EVENTS];
    int n = epoll_wait(c->epoll, event, EVENTS, 0);
    for (int i = 0; i < n; i++) {
        c->now = clock_mono_ns();
        on_event(event[i].data.ptr, event[i].events);
    }
}

/* The connections begin one after another during `spread`, so that they do not keep step for ever. */
static void begin_all(struct client *c, int64_t spread) {
    uint32_t n = c->load->once && c->load->connections > AT_ONCE ? AT_ONCE : c->load->connections;
    int64_t begin = clock_mono_ns();
    while (c->asked < n) {
        uint32_t due = (uint32_t)((double)n * (double)(clock_mono_ns() - begin) / (double)spread);
        while (c->asked < n && c->asked <= due)
            ask(&c->connection[c->asked++]);
        turn(c);
    }
}

static void run(struct client *c, void (*measuring)(bool begins, void *context), void *context) {
    const struct load *l = c->load;
    int64_t length = (int64_t)(l->seconds * 1e9), begin;
    begin_all(c, (int64_t)(l->warm_up * 1e9));
    measuring(true, context);
    c->measuring = true;
    begin = clock_mono_ns();
    for (int64_t now = begin; c->busy > 0 && now < begin + length; now = clock_mono_ns())
        turn(c);
    c->result->seconds = (double)(clock_mono_ns() - begin) * 1e-9;
    c->measuring = false;
    measuring(false, context);
    c->ending = true;
    for (int64_t end = clock_mono_ns() + PATIENCE_S * 1000000000LL; c->busy > 0 && clock_mono_ns() < end;)
        turn(c);
    c->result->failed += c->busy;
}

int client_run(struct client **out, const struct load *load, struct load_result *result,
               void (*measuring)(bool begins, void *context), void *context, struct error *e) {
    struct client *c = *out = calloc(1, sizeof *c);
    if (c == NULL || (c->connection = calloc(load->connections, sizeof *c->connection)) == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the clients");
    c->load = load;
    c->result = result;
    c->epoll = epoll_create1(EPOLL_CLOEXEC);
    int rc = connect_all(c, e);
    if (rc == 0)
        run(c, measuring, context);
    return rc;
}

void client_close(struct client *c) {
    if (c == NULL)
        return;
    for (uint32_t i = 0; c->connection != NULL && i < c->load->connections; i++) {
        if (c->connection[i].client != NULL && c->connection[i].fd >= 0)
            close(c->connection[i].fd);
        buf_free(&c->connection[i].line);
    }
    close(c->epoll);
    free(c->connection);
    free(c);
}
