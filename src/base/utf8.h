/* UTF-8: decoding, validation, repair. */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include "base/buf.h"

/* Decode the code point at s.p (s.n > 0). *length gets the bytes it takes (1 for a broken byte).
 * Returns the code point, or -1 for a byte that begins no valid sequence (overlong, surrogate, cut short). */
int32_t utf8_decode(struct str s, size_t *length);

/* Write code point c (< 0x110000) to out[4]; returns the number of bytes. */
size_t utf8_encode(uint32_t c, char out[4]);

bool utf8_valid(struct str s);

/* How many bytes at the end of s are the beginning of a sequence that is not complete yet (0..3). */
size_t utf8_incomplete_tail(struct str s);

/* Append s with what is broken replaced by U+FFFD: one for as many bytes as could have begun a character (Unicode 15, section 3.9, "maximal subparts"; Python and
 * browsers do the same). */
void utf8_append_repaired(struct buf *b, struct str s);

#endif
