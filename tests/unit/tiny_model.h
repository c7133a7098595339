/* A whole model of some hundred kilobytes with random weights, written to a file: so that the engine's tests need no download and a step takes
 * microseconds. Llama architecture, 2 layers of width 64, a token for each byte and one that ends the turn. The same seed gives the same file. */
#ifndef TESTS_TINY_MODEL_H
#define TESTS_TINY_MODEL_H

#include "small_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
    TINY_WIDTH = 64,
    TINY_FFN = 128,
    TINY_KV = 32,
    TINY_LAYERS = 2,
    TINY_VOCAB = 257,
    TINY_CONTEXT = 2048
};

struct tiny_writer {
    struct buf info, data;
    uint64_t tensors, random;
};

/* Uniform in [-scale, scale]; scale 0: ones, for norms. */
static inline void tiny_tensor(struct tiny_writer *w, const char *name, uint64_t inputs, uint64_t outputs,
                               float scale) {
    small_put_str(&w->info, str_from(name));
    small_put(&w->info, outputs ? 2 : 1, 4);
    small_put(&w->info, inputs, 8);
    if (outputs)
        small_put(&w->info, outputs, 8);
    small_put(&w->info, 0, 4); /* F32 */
    small_put(&w->info, w->data.n, 8);
    for (uint64_t i = 0; i < inputs * (outputs ? outputs : 1); i++) {
        w->random = w->random * 6364136223846793005u + 1442695040888963407u;
        float x = scale > 0 ? scale * ((float)(w->random >> 40) * 0x1p-23f - 1) : 1;
        buf_append(&w->data, &x, sizeof x);
    }
    while (w->data.n % 32 != 0)
        small_put(&w->data, 0, 1);
    w->tensors++;
}

static inline void tiny_layer(struct tiny_writer *w, int layer) {
    static const struct {
        const char *name;
        uint64_t inputs, outputs;
    } tensor[] = {
        {"attn_norm", TINY_WIDTH, 0},
        {"attn_q", TINY_WIDTH, TINY_WIDTH},
        {"attn_k", TINY_WIDTH, TINY_KV},
        {"attn_v", TINY_WIDTH, TINY_KV},
        {"attn_output", TINY_WIDTH, TINY_WIDTH},
        {"ffn_norm", TINY_WIDTH, 0},
        {"ffn_gate", TINY_WIDTH, TINY_FFN},
        {"ffn_up", TINY_WIDTH, TINY_FFN},
        {"ffn_down", TINY_FFN, TINY_WIDTH},
    };
    for (size_t i = 0; i < sizeof tensor / sizeof *tensor; i++) {
        char name[64];
        snprintf(name, sizeof name, "blk.%d.%s.weight", layer, tensor[i].name);
        tiny_tensor(w, name, tensor[i].inputs, tensor[i].outputs, tensor[i].outputs ? 0.25f : 0);
    }
}

static inline void tiny_model_start(struct small_vocab *v, struct tiny_writer *w) {
    small_text(v, "general.architecture", STR("llama"));
    small_number(v, "llama.context_length", TINY_CONTEXT);
    small_number(v, "llama.embedding_length", TINY_WIDTH);
    small_number(v, "llama.block_count", TINY_LAYERS);
    small_number(v, "llama.feed_forward_length", TINY_FFN);
    small_number(v, "llama.attention.head_count", 2);
    small_number(v, "llama.attention.head_count_kv", 1);
    small_text(v, "tokenizer.ggml.model", STR("gpt2"));
    small_text(v, "tokenizer.ggml.pre", STR("gpt-2"));
    small_bytes(v, false);
    small_number(v, "tokenizer.ggml.eos_token_id", (uint32_t)small_token(v, STR("<|end|>"), 3, 0));
    tiny_tensor(w, "token_embd.weight", TINY_WIDTH, TINY_VOCAB, 1);
    tiny_tensor(w, "output_norm.weight", TINY_WIDTH, 0, 0);
    tiny_tensor(w, "output.weight", TINY_WIDTH, TINY_VOCAB, 0.25f);
    for (int layer = 0; layer < TINY_LAYERS; layer++)
        tiny_layer(w, layer);
}

/* Write it, with what was added meanwhile, to `path` and free both; false: the disk said no. */
static inline bool tiny_model_end(struct small_vocab *v, struct tiny_writer *w, const char *path) {
    small_list(v, "tokenizer.ggml.tokens", GGUF_STRING, v->token_count, &v->tokens);
    small_list(v, "tokenizer.ggml.token_type", GGUF_I32, v->token_count, &v->kinds);
    small_list(v, "tokenizer.ggml.merges", GGUF_STRING, v->merge_count, &v->merges);
    buf_text(&v->file, "GGUF");
    small_put(&v->file, 3, 4);
    small_put(&v->file, w->tensors, 8);
    small_put(&v->file, v->key_count, 8);
    buf_append(&v->file, v->keys.p, v->keys.n);
    buf_append(&v->file, w->info.p, w->info.n);
    while (v->file.n % 32 != 0)
        small_put(&v->file, 0, 1);
    buf_append(&v->file, w->data.p, w->data.n);

    FILE *file = fopen(path, "wb");
    bool ok = file != NULL && fwrite(v->file.p, 1, v->file.n, file) == v->file.n;
    if (file != NULL)
        ok = fclose(file) == 0 && ok;
    small_vocab_free(v);
    buf_free(&w->info);
    buf_free(&w->data);
    return ok;
}

/* The model as it is. */
static inline bool tiny_model_write(const char *path, uint64_t seed) {
    struct small_vocab v = {0};
    struct tiny_writer w = {.random = seed};
    tiny_model_start(&v, &w);
    return tiny_model_end(&v, &w, path);
}

#endif
