/* A vocabulary from anybody's file and a text from anybody: the input's first bytes say which tokenizer and pre-tokenizer, then come tokens (kind, length,
 * bytes; length 255 ends them), the rest is text, one part of it the template's, one the caller's. The caller's part brings no control token. */
#include "../unit/small_vocab.h"

#include "model/pretokenize.h"
#include "model/tokenizer.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *at;
    size_t left;
};

static uint8_t take(struct input *in) {
    if (in->left == 0)
        return 255;
    in->left--;
    return *in->at++;
}

/* small_bytes makes its names slowly; here they are wanted a thousand times a second. */
static void add_bytes(struct small_vocab *v, bool spm) {
    static struct small_vocab made[2];
    struct small_vocab *m = &made[spm];
    if (m->token_count == 0)
        small_bytes(m, spm);
    buf_append(&v->tokens, m->tokens.p, m->tokens.n);
    buf_append(&v->kinds, m->kinds.p, m->kinds.n);
    buf_append(&v->scores, m->scores.p, m->scores.n);
    v->token_count += m->token_count;
}

static void add_tokens(struct small_vocab *v, struct input *in, bool spm, bool bytes) {
    if (bytes)
        add_bytes(v, spm);
    for (int i = 0; i < 64; i++) {
        uint8_t kind = take(in), length = take(in);
        if (length == 255 || length > in->left)
            return;
        struct str token = {(const char *)in->at, length};
        small_token(v, token, kind % 7, (float)kind);
        if (length > 1 && !spm) {
            struct buf merge = {0};
            buf_append(&merge, token.p, length / 2);
            buf_byte(&merge, ' ');
            buf_append(&merge, token.p + length / 2, length - length / 2);
            small_merge(v, buf_view(&merge));
            buf_free(&merge);
        }
        in->at += length;
        in->left -= length;
    }
}

static void check(const struct tokenizer *t, struct input *in, size_t control) {
    struct str text = {(const char *)in->at, in->left};
    control = control < text.n ? control : text.n;
    struct segment part[2] = {{{text.p, control}, true}, {{text.p + control, text.n - control}, false}};
    struct tokens all = {0}, caller = {0};
    struct buf out = {.limit = 1 << 22};
    if (tokenizer_encode(t, part, 2, TOKENIZER_ADD_SPECIAL, &all, NULL) == 0)
        tokenizer_decode(t, all.id, all.n, true, &out);
    if (tokenizer_encode(t, part + 1, 1, 0, &caller, NULL) == 0)
        for (size_t i = 0; i < caller.n; i++)
            if (tokenizer_is_control(t, caller.id[i]))
                abort();
    for (int64_t id = -2; id < (int64_t)tokenizer_vocab(t) + 2; id++)
        tokenizer_piece(t, (token_id)id, id % 2 == 0);
    buf_free(&out);
    tokens_free(&all);
    tokens_free(&caller);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct input in = {data, size};
    struct small_vocab v = {0};
    struct gguf *g;
    struct tokenizer *t;
    size_t rows = 0;
    while (pretokenizer_at(rows) != NULL)
        rows++;
    uint8_t flags = take(&in), row = take(&in), control = take(&in), special = take(&in);
    bool spm = (flags & 1) != 0;
    small_text(&v, "tokenizer.ggml.model", spm ? STR("llama") : STR("gpt2"));
    small_text(&v, "tokenizer.ggml.pre", str_from(pretokenizer_at(row % rows)->name));
    if (flags & 2)
        small_text(&v, "general.name", STR("phi-3"));
    small_bool(&v, "tokenizer.ggml.add_space_prefix", (flags & 4) != 0);
    small_bool(&v, "tokenizer.ggml.add_bos_token", (flags & 8) != 0);
    small_number(&v, "tokenizer.ggml.bos_token_id", special);
    small_number(&v, "tokenizer.ggml.unknown_token_id", special / 2u);
    add_tokens(&v, &in, spm, (flags & 16) != 0);
    struct str file = small_vocab_file(&v);
    if (gguf_open_memory(&g, file, NULL) == 0) {
        if (tokenizer_create(&t, g, NULL) == 0) {
            check(t, &in, control);
            tokenizer_free(t);
        }
        gguf_close(g);
    }
    small_vocab_free(&v);
    return 0;
}
