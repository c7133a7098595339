/* Architectures as data. Nearly all decoder models are one forward pass with choices; arch.c maps a GGUF file's metadata to
 * those choices (one row an architecture), engine/forward.c is written once against them. */
#ifndef MODEL_ARCH_H
#define MODEL_ARCH_H

#include "model/gguf.h"

enum arch_activation { ARCH_SILU, ARCH_GELU_TANH };

struct traits {
    const char *arch; /* "llama", "gemma3", ... */
    uint32_t layers, width, heads, kv_heads, head_dim, ffn_width, vocab, context;
    float norm_eps;
    float embed_scale; /* token embeddings are multiplied by this (gemma: sqrt(width)), else 1 */
    float attn_scale;  /* applied to q.k: 1/sqrt(head_dim) unless the file says otherwise */
    float attn_softcap, logit_softcap; /* 0: none */
    enum arch_activation activation;
    bool qk_norm;       /* RMS norm over each head of q and k before rotary */
    bool qkv_bias;      /* must be there; biases of the attention that a file has are always added */
    bool post_norms;    /* norms after attention and after the feed-forward, before the residual add */
    bool tied_output;   /* output.weight absent: token_embd serves */
    bool rope_neox;     /* rotate halves (neox) rather than neighbouring pairs (llama) */
    uint32_t rope_dims; /* rotated dimensions of a head, <= head_dim */
    float rope_base, rope_scale; /* theta and position scale (1 = none; linear scaling divides positions) */
    float rope_base_local, rope_scale_local; /* for sliding-window layers */
    uint32_t window;                         /* sliding window in tokens; 0: full attention everywhere */
    uint32_t window_pattern; /* layer i slides unless (i + 1) % window_pattern == 0; 0: none slides */
};

/* Fill *t from the metadata and check every figure against caps and against each other (sizes multiply without overflow, heads divide
 * by kv_heads, ...). ERR_UNSUPPORTED names an architecture there is no row for, and lists those there are. */
int traits_read(struct traits *t, const struct gguf *g, struct error *e);

bool traits_layer_slides(const struct traits *t, uint32_t layer);

/* The tensors of one layer, found by name, shapes checked against the traits; NULL where the architecture has none. Nothing but such pointers. */
struct layer_tensors {
    const struct gguf_tensor *attn_norm, *q, *k, *v, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *attn_out,
        *attn_out_bias, *attn_post_norm;
    const struct gguf_tensor *ffn_norm, *gate, *up, *down, *ffn_post_norm;
};
struct model_tensors {
    const struct gguf_tensor *embed, *output_norm, *output; /* output == embed when tied */
    const struct gguf_tensor *rope_freqs; /* [rope_dims / 2] divisors of the frequencies (llama 3), or NULL */
    struct layer_tensors *layer;          /* [layers], freed by the caller with free() */
};
/* ERR_UNSUPPORTED also when the file holds a tensor that nothing reads. */
int traits_tensors(struct model_tensors *out, const struct traits *t, const struct gguf *g, struct error *e);

#endif
