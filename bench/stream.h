/* The body of a streamed answer: server-sent events taken apart into times and counts. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include "bench/client.h"

struct stream {
    struct answer *answer;
    struct buf line; /* what has come of a line; of a refusal the whole body */
    bool done;       /* [DONE] was seen */
};

void stream_start(struct stream *s, struct answer *a);

/* Take bytes of the body, which came at now_ns. With events false they are the words of a refusal and are kept for stream_refusal. */
void stream_feed(struct stream *s, struct str bytes, bool events, int64_t now_ns);

/* Write what the server said with an HTTP status other than 200 to the answer's error. */
void stream_refusal(struct stream *s, int status);

void stream_free(struct stream *s);

#endif
