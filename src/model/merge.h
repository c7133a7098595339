/* Merging: from the smallest pieces of a text to tokens, pair by pair, the best pair first; a heap makes it n log n. */
#ifndef MODEL_MERGE_H
#define MODEL_MERGE_H

#include "model/vocab.h"

struct symbol {
    uint32_t start, bytes;  /* in the piece; 0 bytes: merged away */
    int32_t previous, next; /* -1: none */
    token_id id;            /* -1: no token */
};

struct candidate {
    uint64_t order; /* rank, then place */
    uint32_t bytes; /* of both symbols when it was found: another sum says that one of them has changed */
    token_id id;
};

/* Memory for merging, kept from piece to piece; zero-initialise, free with merger_free. */
struct merger {
    struct symbol *symbol;
    struct candidate *heap;
    size_t symbols, candidates, room;
};

/* Append the tokens of one piece (< 2^31 bytes). ERR_NO_MEMORY (no struct error filled) or 0. */
int merge_piece(struct merger *m, const struct vocab *v, struct str piece, struct tokens *out);
void merger_free(struct merger *m);

#endif
