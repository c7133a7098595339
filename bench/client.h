/* Asks an OpenAI-compatible server and times the answer: streamed completions over HTTP/1.1, one connection a request, all on one thread. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "base/buf.h"
#include "base/error.h"

enum answer_end {
    ANSWER_PENDING,   /* still under way */
    ANSWER_COMPLETE,  /* a stream that came to its [DONE] */
    ANSWER_REFUSED,   /* an HTTP status other than 200 */
    ANSWER_BROKEN,    /* no connection, a connection that broke, an error within the stream */
    ANSWER_UNFINISHED /* given up by client_abandon */
};

struct answer {
    enum answer_end end;
    int status;       /* HTTP, 0 before there is one */
    char error[200];  /* why it was refused or broke */
    int64_t first_ns; /* first text, monotonic clock; the end where there was no text; 0 before */
    int64_t last_ns;  /* last text */
    int64_t end_ns;
    uint32_t events; /* with text */
    struct buf gaps; /* uint32_t microseconds between two events with text; freed by the caller */
    uint32_t input, cached, output; /* as the server's usage says */
};

struct client;

/* The server at a URL: http://HOST[:PORT][/PATH], "/v1" when it has no path. Names are looked up once, here. */
int client_create(struct client **out, const char *url, struct error *e);
void client_free(struct client *c);

/* Send a chat completion. The answer is zeroed here, filled while client_run runs, and must live until it is no longer pending. key (may be NULL)
 * and body are copied. */
void client_ask(struct client *c, struct answer *a, const char *key, struct str body);

/* Read and write until the monotonic clock shows `until_ns`; or, with `idle`, until nothing is pending, if that comes first. */
void client_run(struct client *c, int64_t until_ns, bool idle);

void client_abandon(struct client *c); /* what is pending becomes ANSWER_UNFINISHED */
size_t client_pending(const struct client *c);

#endif
