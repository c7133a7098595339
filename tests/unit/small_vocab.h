/* Small vocabularies made in memory, as GGUF files: for the rules that no real vocabulary shows, and for hostile ones. Used by the tests and the
 * fuzz target of the tokenizer. Zero-initialise a struct small_vocab, add to it, take the file with small_vocab_file, free with small_vocab_free. */
#ifndef TESTS_SMALL_VOCAB_H
#define TESTS_SMALL_VOCAB_H

#include "base/buf.h"
#include "base/utf8.h"
#include "model/gguf.h"

#include <string.h>

struct small_vocab {
    struct buf keys, tokens, kinds, scores, merges, file;
    uint64_t key_count, token_count, merge_count;
    bool without_kinds, without_scores;
};

static inline void small_put(struct buf *b, uint64_t x, size_t bytes) {
    buf_append(b, &x, bytes); /* little-endian, as is every machine that unkai runs on */
}

static inline void small_put_str(struct buf *b, struct str s) {
    small_put(b, s.n, 8);
    buf_str(b, s);
}

static inline void small_key(struct small_vocab *v, const char *key, uint32_t type) {
    small_put_str(&v->keys, str_from(key));
    small_put(&v->keys, type, 4);
    v->key_count++;
}

static inline void small_text(struct small_vocab *v, const char *key, struct str value) {
    small_key(v, key, GGUF_STRING);
    small_put_str(&v->keys, value);
}

static inline void small_number(struct small_vocab *v, const char *key, uint32_t value) {
    small_key(v, key, GGUF_U32);
    small_put(&v->keys, value, 4);
}

static inline void small_bool(struct small_vocab *v, const char *key, bool value) {
    small_key(v, key, GGUF_BOOL);
    small_put(&v->keys, value, 1);
}

/* Kinds as tokenizer.ggml.token_type has them: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. Returns the id. */
static inline int32_t small_token(struct small_vocab *v, struct str token, uint32_t kind, float score) {
    small_put_str(&v->tokens, token);
    small_put(&v->kinds, kind, 4);
    buf_append(&v->scores, &score, 4);
    return (int32_t)v->token_count++;
}

static inline void small_merge(struct small_vocab *v, struct str merge) {
    small_put_str(&v->merges, merge);
    v->merge_count++;
}

/* A byte in GPT-2's printable alphabet, written the way its authors define it: printable bytes stand for themselves, the others, in order, for
 * the code points from 256 on. */
static inline size_t small_byte_name(unsigned byte, char out[4]) {
    uint32_t next = 256;
    for (unsigned b = 0; b < 256; b++) {
        bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
        uint32_t code = printable ? b : next++;
        if (b == byte)
            return utf8_encode(code, out);
    }
    return 0;
}

/* The same for a text. */
static inline void small_alphabet(struct buf *out, struct str s) {
    char c[4];
    for (size_t i = 0; i < s.n; i++)
        buf_append(out, c, small_byte_name((unsigned char)s.p[i], c));
}

/* A token of each byte: for BPE in the alphabet above, for SentencePiece as <0x0A>. */
static inline void small_bytes(struct small_vocab *v, bool spm) {
    for (unsigned byte = 0; byte < 256; byte++) {
        static const char digit[] = "0123456789ABCDEF";
        char name[8] = {'<', '0', 'x', digit[byte >> 4], digit[byte & 15], '>'};
        size_t n = 6;
        if (!spm)
            n = small_byte_name(byte, name);
        small_token(v, (struct str){name, n}, spm ? 6 : 1, 0);
    }
}

static inline void small_list(struct small_vocab *v, const char *key, uint32_t type, uint64_t count,
                              const struct buf *items) {
    small_key(v, key, GGUF_ARRAY);
    small_put(&v->keys, type, 4);
    small_put(&v->keys, count, 8);
    buf_append(&v->keys, items->p, items->n);
}

/* Call once, last. The file lives in v. */
static inline struct str small_vocab_file(struct small_vocab *v) {
    small_list(v, "tokenizer.ggml.tokens", GGUF_STRING, v->token_count, &v->tokens);
    if (!v->without_kinds)
        small_list(v, "tokenizer.ggml.token_type", GGUF_I32, v->token_count, &v->kinds);
    if (!v->without_scores)
        small_list(v, "tokenizer.ggml.scores", GGUF_F32, v->token_count, &v->scores);
    small_list(v, "tokenizer.ggml.merges", GGUF_STRING, v->merge_count, &v->merges);
    buf_text(&v->file, "GGUF");
    small_put(&v->file, 3, 4);
    small_put(&v->file, 0, 8);
    small_put(&v->file, v->key_count, 8);
    buf_append(&v->file, v->keys.p, v->keys.n);
    return buf_view(&v->file);
}

static inline void small_vocab_free(struct small_vocab *v) {
    struct buf *b[] = {&v->keys, &v->tokens, &v->kinds, &v->scores, &v->merges, &v->file};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++)
        buf_free(b[i]);
}

#endif
