/* The seam between the engine and whatever does arithmetic. A chip loads the matrices of a model in an order of its own and
 * offers a few fused operations over rows (a row is one token of one sequence in a step). The engine calls them one after the other from one
 * thread; the chip spreads each over its threads or cores and returns when it is done.
 *
 * Two promises every chip keeps:
 *  - a row's result does not depend, to the last bit, on which other rows are in the call or how a prompt was cut into calls;
 *  - the reference chip ("reference": scalar C, weights decoded exactly, double accumulation, f32 KV) is the judge of the others.
 *
 * All activations are float, row-major, in memory from chip_alloc; strides are in floats. */
#ifndef CHIP_CHIP_H
#define CHIP_CHIP_H

#include "base/error.h"
#include "base/extent.h"
#include "model/arch.h"
#include "model/gguf.h"

#include <stdbool.h>
#include <stdint.h>

struct chip;

struct chip_options {
    const char *
        kernels; /* NULL or "auto": the best this machine has; else "reference", "avx2", "avx512", "neon", "i8mm" */
    const char *
        kv; /* keys and values in memory: NULL or "f16"; "q8": 8 bits, half the memory (the reference keeps floats whatever is asked) */
    uint32_t threads;        /* 0: one a core, pinned */
    const char *pack_folder; /* where packed weights are kept between starts; NULL: pack in memory only */
};

int chip_open(struct chip **out, const struct chip_options *o, struct error *e);
void chip_close(struct chip *c);
const char *chip_kernels(const struct chip *c); /* name of the table in use */
uint32_t chip_threads(const struct chip *c);
/* The calling thread is the one that will call the operations: it takes its core. Without this the system may put it on a worker's core, where each waits for the
 * other (measured: four times slower). Threads that it starts afterwards inherit the core. */
void chip_take_core(const struct chip *c);

/* 64-byte aligned, zeroed, huge pages where they help; NULL when there is no memory. */
void *chip_alloc(struct chip *c, size_t bytes);
void chip_release(struct chip *c, void *p, size_t bytes);

/* ---- weights ------------------------------------------------------------------------------------------------ */

struct chip_matrix;  /* outputs x inputs */
struct chip_weights; /* the matrices of one model */

/* Pack `n` two-dimensional tensors (dim[0] = inputs, dim[1] = outputs; any format) of g into the chip's order, or map them from pack_folder, where a
 * file named after the model file's SHA-256, this packing's version and the kernel table lies from an earlier start (written to a temporary name,
 * synced, renamed; a damaged or foreign one is ignored and rewritten). *out is freed with chip_unload. g must stay open meanwhile. */
int chip_load(struct chip_weights **out, struct chip *c, const struct gguf *g,
              const struct gguf_tensor *const *tensor, size_t n, struct error *e);
void chip_unload(struct chip *c, struct chip_weights *w);
const struct chip_matrix *chip_weights_matrix(const struct chip_weights *w, size_t i);
bool chip_weights_damaged(const struct chip_weights *w); /* a mapped page of the packed file has gone */
size_t chip_weights_bytes(const struct chip_weights *w); /* read by one step that uses every matrix once */
/* The memory of the packed matrices, in the packed file or (no file) the chip's own; without bytes where they are read from the model's file as it is. */
struct extent chip_weights_extent(const struct chip_weights *w);

/* ---- operations --------------------------------------------------------------------------------------------- */

/* out[r] = scale * (row id[r] of the embedding matrix, decoded from the file). Ids are in range (the caller checked). */
void chip_embed(struct chip *c, const struct gguf_tensor *table, const int32_t *id, uint32_t rows,
                float scale, float *out, size_t out_stride);

/* out_i[r] (+)= W_i . f(in[r]) + bias_i, where f is RMS norm with `norm` as its weight when norm is not NULL. */
struct chip_linear {
    uint32_t rows;
    const float *in;
    size_t in_stride;
    const float *norm; /* [inputs] or NULL */
    float norm_eps;
    uint32_t outputs; /* how many matrices share this input */
    struct {
        const struct chip_matrix *w;
        const float *bias; /* [outputs of w] or NULL */
        float *out;
        size_t out_stride;
        bool add; /* add to what out holds */
    } out[3];
};
void chip_linear(struct chip *c, const struct chip_linear *l);

/* out[r] = act(G . f(in[r])) * (U . f(in[r])) */
struct chip_gated {
    uint32_t rows;
    const float *in;
    size_t in_stride;
    const float *norm;
    float norm_eps;
    const struct chip_matrix *gate, *up;
    enum arch_activation activation;
    float *out;
    size_t out_stride;
};
void chip_gated(struct chip *c, const struct chip_gated *g);

/* out[r] += rms_norm(in[r]) * weight   (Gemma's norms after a sublayer) */
void chip_norm_add(struct chip *c, uint32_t rows, uint32_t width, const float *in, size_t in_stride,
                   const float *weight, float eps, float *out, size_t out_stride);

/* table[r][2 i], table[r][2 i + 1] = cos, sin of position[r] * frequency[i], i < dims / 2; computed in double. */
void chip_rope_table(struct chip *c, uint32_t rows, const uint32_t *position, uint32_t dims,
                     const float *frequency, float *table);

/* KV memory is pages of KV_PAGE_TOKENS tokens, each holding keys and values of every layer; what lies where inside a page is the chip's business. */
enum { KV_PAGE_TOKENS = 32 };
struct chip_kv {
    char *base; /* page p at base + p * page_bytes, in memory from chip_alloc or mmap; 64-byte aligned */
    size_t page_bytes;
    uint32_t layers, kv_heads, head_dim;
};
size_t chip_kv_page_bytes(const struct chip *c, uint32_t layers, uint32_t kv_heads, uint32_t head_dim);

/* Attention of one layer: norm (if any) and rotate q and k, write k and v of every row to its page, then
 * out[r] = softmax(scale * q . K) V over the tokens 0..position (or the last `window` of them, this one included), grouped heads.
 * Rows of one sequence stand together in order of position and share the same `page` pointer; all rows' k and v are written before any is read. */
struct chip_attend_row {
    const uint32_t *page; /* the sequence's page numbers: token t lies in page[t / KV_PAGE_TOKENS] */
    uint32_t position;
};
struct chip_attend {
    uint32_t rows;
    const struct chip_attend_row *row;
    const struct chip_kv *kv;
    uint32_t layer, heads;
    float *q; /* [rows][heads * head_dim], overwritten */
    float *k; /* [rows][kv_heads * head_dim], overwritten */
    const float *v;
    size_t q_stride, k_stride, v_stride;
    const float *q_norm, *k_norm; /* [head_dim] or NULL */
    float norm_eps;
    const float *rope; /* from chip_rope_table, [rows][rope_dims] */
    uint32_t rope_dims;
    bool rope_neox;
    float scale, softcap; /* softcap 0: none */
    uint32_t window;      /* 0: no window */
    float *out;
    size_t out_stride;
};
void chip_attend(struct chip *c, const struct chip_attend *a);

/* ---- what the machine can do ---------------------------------------------------------------------------------- */

struct chip_limits {
    double read_gbs, int8_gops, bf16_gflops,
        fp32_gflops; /* all threads together; a multiply-add counts two operations */
};
void chip_measure(struct chip *c, struct chip_limits *out);

#endif
