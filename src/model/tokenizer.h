/* Text to token ids and back: byte-level BPE with the pre-tokenizer the file names (rows in pretokenize.c), and SentencePiece-style
 * unigram-scored BPE with byte fallback (llama, gemma). Built from a GGUF file's metadata, vocabulary-only files too. Immutable after creation:
 * any number of threads may use one. All costs are linear or n log n in the text. */
#ifndef MODEL_TOKENIZER_H
#define MODEL_TOKENIZER_H

#include "base/buf.h"
#include "base/error.h"
#include "model/gguf.h"

typedef int32_t token_id;

struct tokenizer;

struct tokens { /* a growing list; zero-initialise; the owner frees with tokens_free */
    token_id *id;
    size_t n, capacity;
};
int tokens_push(struct tokens *t, token_id id); /* 0 or ERR_NO_MEMORY */
void tokens_free(struct tokens *t);

/* Copies what it needs to outlive g? No: it borrows strings from g, which must outlive it. */
int tokenizer_create(struct tokenizer **out, const struct gguf *g, struct error *e);
void tokenizer_free(struct tokenizer *t);

/* A piece of text; control marks text written by the template (or a trusted operator), in which the names of control tokens
 * ("<|im_start|>") become those tokens. In text from a caller they stay text. */
struct segment {
    struct str text;
    bool control;
};

enum tokenizer_flags {
    TOKENIZER_ADD_SPECIAL = 1 /* BOS (and EOS) as the file's add_bos_token, add_eos_token say */
};

/* Append the ids of the segments, read as one text (merges may cross a boundary between segments only where neither side
 * is a control token). At most 2^31 - 1 bytes of text. Broken UTF-8 is accepted byte by byte. */
int tokenizer_encode(const struct tokenizer *t, const struct segment *segments, size_t count, unsigned flags,
                     struct tokens *out, struct error *e);

/* Bytes of one token, as they appear in text (" Hello", "\xE3"). Control tokens give an empty str unless `control`.
 * Out-of-range ids give an empty str. SentencePiece's leading space of a text is not removed here. */
struct str tokenizer_piece(const struct tokenizer *t, token_id id, bool control);
/* Whole text of a list of ids (leading space of SentencePiece removed as the file says). */
void tokenizer_decode(const struct tokenizer *t, const token_id *id, size_t n, bool control, struct buf *out);

size_t tokenizer_vocab(const struct tokenizer *t);
token_id tokenizer_bos(const struct tokenizer *t); /* -1: none */
token_id tokenizer_eos(const struct tokenizer *t);
bool tokenizer_add_bos(const struct tokenizer *t);
/* True for every token that ends a turn (eos, eot, <|im_end|>, <end_of_turn>, <|eot_id|> ...). */
bool tokenizer_ends(const struct tokenizer *t, token_id id);
bool tokenizer_is_control(const struct tokenizer *t, token_id id);
const char *tokenizer_kind(const struct tokenizer *t); /* "bpe" or "spm" */
const char *tokenizer_pre(const struct tokenizer *t);  /* pre-tokenizer's row, "" for spm */

#endif
