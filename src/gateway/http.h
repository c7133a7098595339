/* HTTP as the gateway sees it: a stream of exchanges (one request, one response), whatever carries them. First and last station of a
 * request's journey. Behind this seam are an epoll loop and the packaged HTTP/1.1 parser (http_server.c, http_connection.c; docs/dependencies.md says why);
 * HTTP/2 would be a second kind of connection behind the same calls, with one exchange a stream.
 *
 * One thread runs http_loop; all callbacks come from it, and all calls but http_wake belong to it. No exchange_ call ever runs a callback, so a handler may
 * respond from wherever it is. */
#ifndef GATEWAY_HTTP_H
#define GATEWAY_HTTP_H

#include "base/address.h"
#include "base/buf.h"
#include "base/error.h"

struct http;
struct exchange;

/* Borrowed, valid during on_head. */
struct http_head {
    struct str method;        /* "GET" */
    struct str path;          /* as sent: percent-encoded, without the query; empty when there is none */
    struct str query;         /* what follows the path's ?, as sent */
    struct str authorization; /* the header's value, or empty */
    struct str forwarded;     /* all values of X-Forwarded-For, or empty */
    struct address peer;      /* of the other end of the connection */
    struct str idempotency;   /* the value of Idempotency-Key, cut off at 512 bytes; p is NULL without */
    int64_t length;           /* Content-Length; 0 without a body; -1: chunked */
    bool coded;               /* the body is compressed, or otherwise not itself (Content-Encoding) */
    uint32_t door;            /* through which it came */
};

struct http_handler {
    /* A request's head is complete. The handler may respond at once (the body is then read past or refused), or wait for the rest. */
    void (*on_head)(void *context, struct exchange *x, const struct http_head *head);
    void (*on_body)(void *context, struct exchange *x, struct str piece);
    void (*on_end)(void *context, struct exchange *x); /* the request is complete */
    /* The request cannot be understood or came too slowly: respond with `status` and a sentence. The connection closes afterwards. */
    void (*on_broken)(void *context, struct exchange *x, int status, const char *why);
    /* The socket has taken every byte up to the exchange_write that carried this mark. */
    void (*on_taken)(void *context, struct exchange *x, uint64_t mark);
    /* The last call for an exchange: the whole response was taken (complete), or the client went away or was cut off. */
    void (*on_closed)(void *context, struct exchange *x, bool complete);
    void (*on_wake)(void *context); /* after http_wake, some time later, once for any number of calls */
    void (*on_tick)(void *context); /* about ten times a second */
};

enum { HTTP_DOORS = 2 };
struct http_door {
    const char *host; /* an IPv4 or IPv6 address or a name; NULL: there is no such door */
    uint16_t port;    /* 0: any free one; http_port tells */
};
struct http_options {
    struct http_door door[HTTP_DOORS]; /* where to listen */
    uint32_t max_connections;
    size_t max_header;         /* bytes of request line and headers */
    int64_t client_timeout_ns; /* without progress: in a head, in a body, in taking a response, or idle */
};

/* Bind and listen. */
int http_create(struct http **out, const struct http_options *o, const struct http_handler *handler,
                void *context, struct error *e);
uint16_t http_port(const struct http *h, uint32_t door);
bool http_loopback(const struct http *h, uint32_t door); /* listening on nothing but loopback */
/* Serve until http_quit. */
int http_loop(struct http *h, struct error *e);
void http_quit(struct http *h);
/* Take no more connections, and end each one after its present exchange. */
void http_drain(struct http *h);
/* From any thread, and from a signal handler. */
void http_wake(struct http *h);
/* Closes every connection (on_closed is called for open exchanges). */
void http_free(struct http *h);

/* Whether an exchange is now open on any connection. */
struct http_stats {
    uint32_t connections;
    uint64_t accepted, refused, requests, timeouts, broken;
};
void http_stats(const struct http *h, struct http_stats *out);

void exchange_set_user(struct exchange *x, void *user);
void *exchange_user(const struct exchange *x);

/* Begin the response. extra: whole header lines ("Retry-After: 1\r\n") or empty. length: of the body, or -1 when it is not known. */
void exchange_respond(struct exchange *x, int status, const char *type, struct str extra, int64_t length);
bool exchange_responded(const struct exchange *x);
/* Append to the body. mark: 0, or a number larger than the last, told by on_taken. */
void exchange_write(struct exchange *x, struct str bytes, uint64_t mark);
/* The body is complete. Unless the body is as long as was said, the connection is cut. */
void exchange_finish(struct exchange *x);
/* Cut the connection without finishing: the client sees that something is missing. */
void exchange_abort(struct exchange *x);
/* Bytes written that the socket has not taken yet. */
size_t exchange_pending(const struct exchange *x);

#endif
