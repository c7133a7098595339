/* A vocabulary as read from a GGUF file: tokens with their bytes and kinds, and the tables that find them. Used by the tokenizer only; immutable
 * after vocab_read. */
#ifndef MODEL_VOCAB_H
#define MODEL_VOCAB_H

#include "model/gguf.h"
#include "model/tokenizer.h"

/* As tokenizer.ggml.token_type has them. */
enum token_kind {
    TOKEN_NORMAL = 1,
    TOKEN_UNKNOWN = 2,
    TOKEN_CONTROL = 3,
    TOKEN_USER = 4, /* a word that is cut out of any text before all else */
    TOKEN_UNUSED = 5,
    TOKEN_BYTE = 6
};

/* Bytes of a special token that are looked for in a text. */
enum { MOST_SPECIAL = 512 };

struct merge { /* of a pair of tokens; the lowest rank goes first */
    uint64_t pair;
    uint32_t rank;
    token_id id;
};

struct edge { /* of the trie of special tokens: from node by byte to node */
    uint64_t key;
    uint32_t to;
};

struct vocab {
    bool spm; /* SentencePiece-style, otherwise byte-level BPE */
    size_t n;
    char *bytes;        /* of all tokens, one after the other */
    size_t *start;      /* [n + 1] into bytes */
    uint8_t *kind;      /* [n] enum token_kind */
    float *score;       /* [n], spm only */
    token_id byte[256]; /* the token of each byte, or -1 */
    token_id unknown;
    size_t longest; /* bytes of the longest token that text can become */

    uint64_t seed;
    token_id *word;      /* hash table of the tokens that text can become; -1: empty */
    size_t words;        /* its size, a power of two */
    struct merge *merge; /* hash table of pairs, BPE only; id -1: empty */
    size_t merges;
    struct edge *edge; /* hash table; to 0: empty */
    size_t edges;
    uint32_t nodes;
    token_id *end;   /* [nodes] the special token that ends in a node, or -1 */
    bool first[256]; /* bytes that special tokens begin with */
};

/* Frees what it made when it fails. */
int vocab_read(struct vocab *v, const struct gguf *g, struct error *e);
void vocab_free(struct vocab *v);

/* Is this the name of a token that begins or ends a turn in some model family? Such a token is never written by a caller. */
bool vocab_is_turn(struct str name);
/* Does it end one? */
bool vocab_ends_turn(struct str name);

struct str vocab_piece(const struct vocab *v, token_id id);  /* its bytes as they stand in a text */
token_id vocab_word(const struct vocab *v, struct str text); /* -1: no such token */
/* Do tokens a and b merge? */
bool vocab_merge(const struct vocab *v, token_id a, token_id b, uint32_t *rank, token_id *id);
/* The longest special token that text begins with: user-defined ones, and control tokens that end within `control` bytes. -1: none. */
token_id vocab_special(const struct vocab *v, struct str text, size_t control, size_t *bytes);

#endif
