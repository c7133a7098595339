/* Pre-tokenizers: how byte-level BPE cuts a text into pieces before it merges. Each is known by the name that a file gives in
 * tokenizer.ggml.pre, and was published as regular expressions; here they are matchers by hand, linear in the text whatever it holds.
 * tests/unit/test_pretokenize.c compares each row with its expressions in PCRE2. */
#ifndef MODEL_PRETOKENIZE_H
#define MODEL_PRETOKENIZE_H

#include "base/buf.h"

struct pretokenizer {
    const char *name;
    /* Passes, in order: each cuts every piece of the one before into its matches and the gaps between them. A matcher returns the bytes of the match
     * at s.p + at (0: none) and sees nothing past s.n. Ends with NULL. */
    size_t (*pass[7])(struct str s, size_t at);
    bool whole_pieces; /* a piece that is a token is that token, whatever the merges say */
    bool add_bos;      /* unless the file says otherwise */
};

/* NULL: there is none of this name. */
const struct pretokenizer *pretokenizer_find(struct str name);
/* Rows in order, NULL past the end: for messages and tests. */
const struct pretokenizer *pretokenizer_at(size_t i);

/* Calls piece for each piece of text in order; together they are the text. Stops early when piece returns non-zero, and returns that. */
int pretokenize(const struct pretokenizer *p, struct str text, int (*piece)(void *context, struct str piece),
                void *context);

#endif
