/* make_model: writes a GGUF file of any shape with random weights, for measuring speed and memory at sizes that cannot be fetched. The weights
 * are of the size that a trained model's are, so that activations stay finite; the tokenizer is one token a byte and filler. */
#include "model/format.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 32, POOL_BLOCKS = 1 << 14 };

struct shape {
    const char *arch;
    uint64_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context, seed;
    const struct format *format;
};

/* A file in two passes: the first counts tensors and their places, the second writes them. */
struct writer {
    FILE *file;
    uint64_t at; /* bytes written */
    uint64_t random;
    unsigned char *pool; /* encoded blocks to draw from */
};

static uint64_t next_random(struct writer *w) { /* xorshift64* (Vigna, arXiv 1402.6246) */
    w->random ^= w->random >> 12;
    w->random ^= w->random << 25;
    w->random ^= w->random >> 27;
    return w->random * 0x2545F4914F6CDD1Du;
}

static void put(struct writer *w, const void *p, size_t n) {
    if (fwrite(p, 1, n, w->file) != n) {
        perror("make_model: cannot write");
        exit(1);
    }
    w->at += n;
}

static void put_u32(struct writer *w, uint32_t x) {
    put(w, &x, sizeof x);
}

static void put_u64(struct writer *w, uint64_t x) {
    put(w, &x, sizeof x);
}

static void put_text(struct writer *w, const char *text) {
    put_u64(w, strlen(text));
    put(w, text, strlen(text));
}

/* ---- metadata ---- */

enum { TYPE_U32 = 4, TYPE_I32 = 5, TYPE_F32 = 6, TYPE_BOOL = 7, TYPE_STRING = 8, TYPE_ARRAY = 9 };

static void put_key(struct writer *w, const char *key, uint32_t type) {
    put_text(w, key);
    put_u32(w, type);
}

static int put_traits(struct writer *w, const struct shape *s, bool count) {
    char key[100];
    const struct {
        const char *key;
        uint64_t value;
    } number[] = {{"block_count", s->layers},
                  {"embedding_length", s->width},
                  {"attention.head_count", s->heads},
                  {"attention.head_count_kv", s->kv_heads},
                  {"attention.key_length", s->head_dim},
                  {"attention.value_length", s->head_dim},
                  {"feed_forward_length", s->ffn},
                  {"context_length", s->context},
                  {"vocab_size", s->vocab}};
    int n = sizeof number / sizeof *number;
    bool gemma = strcmp(s->arch, "gemma3") == 0;
    for (int i = 0; !count && i < n; i++) {
        snprintf(key, sizeof key, "%s.%s", s->arch, number[i].key);
        put_key(w, key, TYPE_U32);
        put_u32(w, (uint32_t)number[i].value);
    }
    if (!count) {
        float eps = 1e-5f;
        snprintf(key, sizeof key, "%s.attention.layer_norm_rms_epsilon", s->arch);
        put_key(w, key, TYPE_F32);
        put(w, &eps, sizeof eps);
        if (gemma) {
            snprintf(key, sizeof key, "%s.attention.sliding_window", s->arch);
            put_key(w, key, TYPE_U32);
            put_u32(w, 512);
        }
    }
    return n + 1 + gemma;
}

/* GPT-2's printable alphabet for bytes, in UTF-8. */
static void byte_token(int byte, char out[4]) {
    bool own = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    int code = own ? byte : byte <= 32 ? 256 + byte : byte <= 160 ? 256 + 33 + byte - 127 : 256 + 67;
    memset(out, 0, 4);
    if (code < 0x80) {
        out[0] = (char)code;
    } else {
        out[0] = (char)(0xC0 | code >> 6);
        out[1] = (char)(0x80 | (code & 63));
    }
}

static int put_tokenizer(struct writer *w, const struct shape *s, bool count) {
    char text[40];
    if (count)
        return 7;
    put_key(w, "tokenizer.ggml.model", TYPE_STRING);
    put_text(w, "gpt2");
    put_key(w, "tokenizer.ggml.pre", TYPE_STRING);
    put_text(w, "default");
    put_key(w, "tokenizer.ggml.tokens", TYPE_ARRAY);
    put_u32(w, TYPE_STRING);
    put_u64(w, s->vocab);
    for (uint64_t i = 0; i < s->vocab; i++) {
        snprintf(text, sizeof text, "\u0120w%llu", (unsigned long long)i); /* a space and a word */
        if (i < 256)
            byte_token((int)i, text);
        else if (i == 256)
            snprintf(text, sizeof text, "th");
        else if (i == s->vocab - 1)
            snprintf(text, sizeof text, "<|endoftext|>");
        put_text(w, text);
    }
    put_key(w, "tokenizer.ggml.token_type", TYPE_ARRAY);
    put_u32(w, TYPE_I32);
    put_u64(w, s->vocab);
    for (uint64_t i = 0; i < s->vocab; i++)
        put_u32(w, i == s->vocab - 1 ? 3 : 1);
    put_key(w, "tokenizer.ggml.merges", TYPE_ARRAY);
    put_u32(w, TYPE_STRING);
    put_u64(w, 1);
    put_text(w, "t h");
    put_key(w, "tokenizer.ggml.eos_token_id", TYPE_U32);
    put_u32(w, (uint32_t)s->vocab - 1);
    put_key(w, "tokenizer.chat_template", TYPE_STRING);
    put_text(w, "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant: ");
    return 7;
}

/* ---- tensors ---- */

struct tensor {
    char name[64];
    uint64_t inputs, outputs; /* outputs 0: a vector */
    const struct format *format;
};

static size_t list_tensors(const struct shape *s, struct tensor *out) {
    const struct format *f32 = format_by_id(FORMAT_F32);
    bool gemma = strcmp(s->arch, "gemma3") == 0, norms = gemma || strcmp(s->arch, "qwen3") == 0,
         bias = strcmp(s->arch, "qwen2") == 0;
    uint64_t q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
    const struct {
        const char *name;
        uint64_t inputs, outputs;
        bool wanted;
    } layer[] = {{"attn_norm", s->width, 0, true},       {"attn_q", s->width, q, true},
                 {"attn_k", s->width, kv, true},         {"attn_v", s->width, kv, true},
                 {"attn_output", q, s->width, true},     {"attn_q_norm", s->head_dim, 0, norms},
                 {"attn_k_norm", s->head_dim, 0, norms}, {"post_attention_norm", s->width, 0, gemma},
                 {"ffn_norm", s->width, 0, true},        {"ffn_gate", s->width, s->ffn, true},
                 {"ffn_up", s->width, s->ffn, true},     {"ffn_down", s->ffn, s->width, true},
                 {"post_ffw_norm", s->width, 0, gemma}};
    size_t n = 0;
    out[n++] = (struct tensor){"token_embd.weight", s->width, s->vocab, s->format};
    out[n++] = (struct tensor){"output_norm.weight", s->width, 0, f32};
    if (!gemma)
        out[n++] = (struct tensor){"output.weight", s->width, s->vocab, s->format};
    for (uint64_t l = 0; l < s->layers; l++) {
        for (size_t i = 0; i < sizeof layer / sizeof *layer; i++) {
            if (!layer[i].wanted)
                continue;
            struct tensor *t = &out[n++];
            *t = (struct tensor){"", layer[i].inputs, layer[i].outputs, layer[i].outputs ? s->format : f32};
            snprintf(t->name, sizeof t->name, "blk.%u.%s.weight", (unsigned)l, layer[i].name);
        }
        for (int i = 0; bias && i < 3; i++) {
            struct tensor *t = &out[n++];
            *t = (struct tensor){"", i ? kv : q, 0, f32};
            snprintf(t->name, sizeof t->name, "blk.%u.attn_%c.bias", (unsigned)l, "qkv"[i]);
        }
    }
    return n;
}

static uint64_t tensor_bytes(const struct tensor *t) {
    return t->inputs / t->format->values * t->format->bytes * (t->outputs ? t->outputs : 1);
}

/* Blocks of uniform random weights of variance 1 / width. */
static void fill_pool(struct writer *w, const struct shape *s) {
    const struct format *f = s->format;
    double scale = sqrt(12.0 / (double)s->width);
    float value[256];
    w->pool = malloc((size_t)POOL_BLOCKS * f->bytes);
    if (w->pool == NULL || f->encode == NULL || f->values > 256) {
        fprintf(stderr, "make_model: cannot encode %s\n", f->name);
        exit(1);
    }
    for (size_t b = 0; b < POOL_BLOCKS; b++) {
        for (uint32_t i = 0; i < f->values; i++)
            value[i] = (float)(((double)(next_random(w) >> 11) / 9007199254740992.0 - 0.5) * scale);
        f->encode(value, w->pool + b * f->bytes, 1);
    }
}

static void put_tensor(struct writer *w, const struct shape *s, const struct tensor *t) {
    static const char zero[ALIGNMENT];
    const float one = strstr(t->name, ".bias") ? 0.0f : 1.0f;
    if (t->outputs == 0) {
        for (uint64_t i = 0; i < t->inputs; i++)
            put(w, &one, sizeof one);
    } else {
        uint64_t left = t->inputs / t->format->values * t->outputs;
        while (left > 0) { /* runs from random places: no two rows are alike */
            uint64_t from = next_random(w) % (POOL_BLOCKS / 2), run = POOL_BLOCKS / 2 - next_random(w) % 1000;
            run = run < left ? run : left;
            put(w, w->pool + from * s->format->bytes, run * s->format->bytes);
            left -= run;
        }
    }
    put(w, zero, (ALIGNMENT - w->at % ALIGNMENT) % ALIGNMENT);
}

static void write_model(struct writer *w, const struct shape *s) {
    static const char zero[ALIGNMENT];
    struct tensor *tensor = calloc(s->layers * 16 + 8, sizeof *tensor);
    if (tensor == NULL)
        exit(1);
    size_t n = list_tensors(s, tensor);
    uint64_t offset = 0;
    put(w, "GGUF", 4);
    put_u32(w, 3);
    put_u64(w, n);
    put_u64(w, 2 + (uint64_t)put_traits(w, s, true) + (uint64_t)put_tokenizer(w, s, true));
    put_key(w, "general.architecture", TYPE_STRING);
    put_text(w, s->arch);
    put_key(w, "general.name", TYPE_STRING);
    put_text(w, "random weights");
    put_traits(w, s, false);
    put_tokenizer(w, s, false);
    for (size_t i = 0; i < n; i++) {
        put_text(w, tensor[i].name);
        put_u32(w, tensor[i].outputs ? 2 : 1);
        put_u64(w, tensor[i].inputs);
        if (tensor[i].outputs)
            put_u64(w, tensor[i].outputs);
        put_u32(w, tensor[i].format->id);
        put_u64(w, offset);
        offset += (tensor_bytes(&tensor[i]) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    }
    put(w, zero, (ALIGNMENT - w->at % ALIGNMENT) % ALIGNMENT);
    for (size_t i = 0; i < n; i++)
        put_tensor(w, s, &tensor[i]);
    free(tensor);
}

/* ---- the command line ---- */

static int usage(void) {
    fprintf(
        stderr,
        "usage: make_model FILE [--preset 1.1b] [--format Q4_0] [--arch llama|qwen2|qwen3|gemma3] [--layers "
        "N] [--width N]\n"
        "       [--heads N] [--kv-heads N] [--head-dim N] [--ffn N] [--vocab N] [--context N] [--seed N]\n"
        "Writes a GGUF file of this shape with random weights.\n");
    return 2;
}

int main(int argc, char **argv) {
    struct shape s = {.arch = "llama",
                      .layers = 2,
                      .width = 256,
                      .heads = 4,
                      .kv_heads = 2,
                      .ffn = 512,
                      .vocab = 512,
                      .context = 2048,
                      .seed = 1,
                      .format = format_by_name("Q4_0")};
    const struct {
        const char *name;
        uint64_t *to;
    } number[] = {{"--layers", &s.layers},     {"--width", &s.width},       {"--heads", &s.heads},
                  {"--kv-heads", &s.kv_heads}, {"--head-dim", &s.head_dim}, {"--ffn", &s.ffn},
                  {"--vocab", &s.vocab},       {"--context", &s.context},   {"--seed", &s.seed}};
    if (argc < 2 || argv[1][0] == '-')
        return usage();
    for (int i = 2; i + 1 < argc; i += 2) {
        bool known = strcmp(argv[i], "--arch") == 0 || strcmp(argv[i], "--format") == 0;
        if (strcmp(argv[i], "--preset") == 0 && strcmp(argv[i + 1], "1.1b") == 0) {
            struct shape preset = {.arch = s.arch,
                                   .layers = 22,
                                   .width = 2048,
                                   .heads = 32,
                                   .kv_heads = 4,
                                   .ffn = 5632,
                                   .vocab = 32000,
                                   .context = 4096,
                                   .seed = s.seed,
                                   .format = s.format};
            s = preset;
            known = true;
        }
        if (strcmp(argv[i], "--arch") == 0)
            s.arch = argv[i + 1];
        if (strcmp(argv[i], "--format") == 0)
            s.format = format_by_name(argv[i + 1]);
        for (size_t k = 0; k < sizeof number / sizeof *number; k++)
            if (strcmp(argv[i], number[k].name) == 0) {
                *number[k].to = strtoull(argv[i + 1], NULL, 10);
                known = true;
            }
        if (!known)
            return usage();
    }
    if (argc % 2 != 0 || s.format == NULL || s.heads == 0 || s.vocab < 300 || s.layers == 0)
        return usage();
    if (s.head_dim == 0)
        s.head_dim = s.width / s.heads;
    if (s.width % s.format->values != 0 || s.ffn % s.format->values != 0 ||
        s.heads * s.head_dim % s.format->values != 0) {
        fprintf(stderr, "make_model: width, feed-forward and heads must be multiples of %u, a block of %s\n",
                s.format->values, s.format->name);
        return 2;
    }
    struct writer w = {.random = s.seed * 0x9E3779B97F4A7C15u + 1, .file = fopen(argv[1], "wb")};
    if (w.file == NULL) {
        perror(argv[1]);
        return 1;
    }
    fill_pool(&w, &s);
    write_model(&w, &s);
    free(w.pool);
    return fclose(w.file) == 0 ? 0 : 1;
}
