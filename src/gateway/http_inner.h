/* What the two files behind http.h share: the loop (http_server.c) and one connection (http_connection.c). Nobody else includes this. */
#ifndef GATEWAY_HTTP_INNER_H
#define GATEWAY_HTTP_INNER_H

#include "gateway/http.h"

#include <http_parser.h>
#include <stdatomic.h>

enum {
    HTTP_SCRATCH = 64 << 10, /* one read */
    HTTP_AHEAD = 16 << 10,   /* bytes of pipelined requests kept while a response is under way */
    HTTP_SKIP = 64 << 10 /* a refused body so long is read past; behind a longer one the connection closes */
};

struct out_mark {
    uint64_t end, mark; /* once `end` bytes were taken, `mark` was */
};

/* A header's name or value as far as it is compared with anything: its beginning in lower case, and its whole length. */
struct word {
    char text[20];
    size_t n;
};

/* A connection, and the one exchange that HTTP/1.1 has on it at a time. */
struct exchange {
    struct http *http;
    int fd;
    uint32_t door;
    uint32_t place;    /* in http->connection */
    uint32_t interest; /* epoll's events now */
    struct exchange *next_dirty, *next_dead;
    http_parser parser;

    /* The request. */
    struct address peer;
    struct buf head;         /* target, then the value of Authorization */
    struct buf forwarded;    /* the values of X-Forwarded-For */
    size_t target;           /* bytes of the target */
    struct word name, value; /* of the header that is being read */
    struct buf idempotency;  /* the value of Idempotency-Key */
    const char *fault;       /* what is wrong with the request, when it is not the parser that says so */
    struct buf ahead;        /* what came after this request */
    uint64_t body_read;      /* bytes of the body so far */

    /* The response. */
    struct buf out;
    size_t out_from;    /* bytes of out that were taken */
    uint64_t out_taken; /* bytes taken in all since the connection began */
    struct out_mark *mark;
    uint32_t marks, marks_from, marks_capacity;
    int64_t length_left; /* of the body that was announced; -1: unknown */

    int64_t since, progress; /* when this phase began; when a byte last moved */
    void *user;
    bool dead, dirty, in_value, authorization_seen, idempotency_seen, expects, coded;
    bool began;    /* a first byte of a request is here */
    bool active;   /* on_head or on_broken was called, on_closed not yet */
    bool read_all; /* the request is complete */
    bool responded, finished, chunked, headless /* response to HEAD */;
    bool closing;   /* no further request on this connection */
    bool eof;       /* the client has closed its side */
    bool lingering; /* our side is shut; what still comes is read past */
};

struct http {
    const struct http_handler *handler;
    void *context;
    struct http_options options;
    int epoll, listener[HTTP_DOORS], wake,
        spare; /* spare: given up to refuse a connection when descriptors have run out */
    uint16_t port[HTTP_DOORS];
    bool loopback[HTTP_DOORS], draining;
    atomic_bool quit;
    struct exchange **connection;
    uint32_t connections;
    struct exchange *dirty, *dead;
    int64_t now;
    char date[40];
    struct http_stats stats;
    char scratch[HTTP_SCRATCH];
};

struct exchange *connection_open(struct http *h, int fd, uint32_t door, const struct address *peer);
void connection_event(struct exchange *c, uint32_t events);
void connection_flush(struct exchange *c);
void connection_timer(struct exchange *c);
void connection_close(struct exchange *c); /* tells the handler; freed at the end of the turn */
bool connection_idle(const struct exchange *c);

#endif
