/* What the pre-tokenizers ask about a character, in the terms of the regular expressions they come from: \p{L}, \p{N}, \s ... */
#ifndef MODEL_UNICODE_H
#define MODEL_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

enum unicode_class {
    UNICODE_LETTER = 1,      /* \p{L} */
    UNICODE_NUMBER = 2,      /* \p{N} */
    UNICODE_MARK = 4,        /* \p{M} */
    UNICODE_PUNCTUATION = 8, /* \p{P} */
    UNICODE_SYMBOL = 16,     /* \p{S} */
    UNICODE_SPACE = 32,      /* \s: the White_Space property */
    UNICODE_UPPER = 64,      /* \p{Lu} or \p{Lt} */
    UNICODE_LOWER = 128      /* \p{Ll} */
};

/* Classes of code point c, or'ed; 0 for unassigned ones and for -1 (a broken byte). */
unsigned unicode_classes(int32_t c);
extern const uint8_t unicode_ascii[128]; /* those below 128, for who must be quick */

#endif
