/* From the bytes of tokens to text that may be sent: holds back an incomplete UTF-8 character and whatever may become a stop string.
 * One a sequence; no allocation after creation as long as tokens are short. */
#ifndef ENGINE_TEXTSTREAM_H
#define ENGINE_TEXTSTREAM_H

#include "base/buf.h"

struct textstream {
    struct buf held;        /* bytes not released yet */
    size_t clean;           /* how many bytes of held may go out now */
    const struct str *stop; /* borrowed */
    size_t stops;
    bool stopped; /* a stop string was found; what came before it is in front of held */
};

/* Take the bytes of one more token. Returns true when a stop string is complete: the text ends before it. */
bool textstream_push(struct textstream *t, struct str piece);

/* No more tokens will come: all that is held may go out, with broken bytes repaired. */
void textstream_end(struct textstream *t);

/* Append what may be sent now to out (always valid UTF-8) and forget it here. */
void textstream_take(struct textstream *t, struct buf *out);

void textstream_free(struct textstream *t);

#endif
