/* What the rooms of the CPU chip share: the chip itself, the packed forms of weights, and the table of kernels an instruction set fills.
 * A product's journey: rows are normed and quantised (fast tables) into the chip's scratch, then every thread takes columns of the
 * matrices and runs tiles of rows x columns over the whole inner dimension. */
#ifndef CHIP_CPU_KERNELS_H
#define CHIP_CPU_KERNELS_H

#include "base/hash.h"
#include "chip/chip.h"
#include "chip/cpu/pool.h"

#include <math.h>
#include <stdatomic.h>
#include <string.h>

enum { PANEL = 16, BLOCK = 32 };
enum { COLUMNS = 2 * PANEL }; /* what a thread computes at a time */
enum { AHEAD_BYTES = 4096 };  /* how far ahead one stream of bytes is asked for */
enum { MEASURE_INT8, MEASURE_BF16, MEASURE_FP32 };

/* Packed forms. A panel is PANEL outputs over all inputs; inside, blocks of BLOCK inputs follow each other. Codes are unsigned; byte c * 4 + i of each
 * 64-byte vector belongs to output c, until a table orders them otherwise. Every form holds exactly the values of the formats packed into it (but for what x86_joined.inc.h makes of f16 scales in FORM_4 and FORM_4M). */
enum form {
    FORM_NONE, /* rows stay as the file has them */
    FORM_4, /* f16 scale[16], 256 bytes of 4-bit codes: (code - 8) * scale            Q4_0; x86: x86_joined.inc.h */
    FORM_4M, /* f16 scale[16], f16 min[16], 256: code * scale + min                    Q4_1 */
    FORM_4K, /* every 8 blocks f16 d[16], f16 dmin[16]; u8 s[16], u8 m[16], 256: code * d * s - dmin * m   Q4_K */
    FORM_4E,  /* bf16 scale[16], powers of two, 256: fp4_codes[code] * scale                  MXFP4 */
    FORM_8,   /* f16 scale[16], 512 bytes of codes: (code - 128) * scale                Q8_0, Q5_0, IQ4_NL */
    FORM_8M,  /* f32 scale[16], f32 min[16], 512: (code - 128) * scale + min            Q5_1, Q5_K */
    FORM_8S,  /* twice f32 scale[16], 256: (code - 128) * scale, 16 inputs each          Q3_K, Q6_K, IQ4_XS */
    FORM_8SM, /* twice f32 scale[16], f32 min[16], 256: the same + min                   Q2_K */
    FORM_F32, /* f32 [32][16]: inputs by outputs             F32, and decoded: any format not named */
    FORM_F16,
    FORM_BF16 /* bf16 [16 pairs of inputs][16 outputs][2]: as the processors' products of pairs take them */
};

/* Twice the values of FP4 (OCP Microscaling 1.0), of which FORM_4E has half the scale. */
static const int8_t fp4_codes[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* Bytes of a panel's block; FORM_4K has SUPER_BYTES more in front of every eight. */
enum { SUPER_BYTES = 64 };
static inline size_t form_block_bytes(enum form f) {
    switch (f) {
    case FORM_4:
    case FORM_4K:
    case FORM_4E:
        return 288;
    case FORM_4M:
        return 320;
    case FORM_8:
        return 544;
    case FORM_8M:
    case FORM_8S:
        return 640;
    case FORM_8SM:
        return 768;
    case FORM_F32:
        return 2048;
    case FORM_F16:
    case FORM_BF16:
        return 1024;
    case FORM_NONE:
        break;
    }
    return 0;
}

/* Forms whose blocks the x86 tables join by twos (x86_joined.inc.h). */
static inline bool form_joined(enum form f) {
    return f == FORM_4 || f == FORM_4M;
}

/* Of so many inputs; always even, since some tables take blocks by twos. The last may be beyond the inputs: zeros. */
static inline uint32_t blocks_of(uint32_t inputs) {
    return (inputs + 2 * BLOCK - 1) / (2 * BLOCK) * 2;
}

struct chip_matrix {
    const struct format *format;
    const uint8_t *rows; /* in the file */
    size_t row_bytes;
    uint32_t inputs, outputs;
    enum form form;
    const uint8_t *packed;
    size_t panel_bytes;
};

/* The matrices of one model. */
struct chip_weights {
    struct chip_matrix *matrix;
    size_t n, bytes; /* bytes: read by one step */
    uint8_t *packed; /* memory of our own, or inside map */
    size_t packed_bytes;
    void *map; /* the packed file, or NULL */
    size_t map_bytes;
    int file; /* of map; -1: none */
    atomic_bool damaged;
};

/* cache.c: the packed file of a model, named by cache_name (`layout` describes the matrices wanted; false: no such file can be). cache_open maps it
 * and sets w->packed if it is there and good; cache_write puts w->packed there. */
struct cache {
    char path[4096];
    struct hash file, layout;
};
bool cache_name(struct cache *k, const struct chip *c, const struct gguf *g, struct hash layout);
bool cache_open(const struct cache *k, struct chip_weights *w);
bool cache_write(const struct cache *k, const struct chip_weights *w);
void cache_close(struct chip_weights *w);

/* Rows, normed and quantised to 8 bits for each 32 inputs. The rows that one tile multiplies stand together, block after block, so that it reads one stream
 * of bytes. For `n` rows a block is
 *     int8 codes[n][32]
 *     int32 start_4[n], start_8[n], start_half[n]   where an integer sum starts that the offset of the weights' codes shall not count: minus 8 and
 *                                                    minus 128 times the sum of a row's codes, and of its first 16 alone minus 128 times
 *     float scale[n], scaled_sum[n]                  of the codes, and scale times their sum, for the minimums
 *     int16 joined[n][2]                             where they are wanted, in every second block: its scale and that of the block before, in units of the row's `unit`; its
 *                                                    start_4 has 0x8000 too many; in every first block: scaled_sum of the second and of itself, likewise (x86_joined.inc.h)
 * Whatever n, a row takes ROW_BYTES of it. This is the x86 tables' block; the ARM tables, whose weights are signed, have their own (neon.inc.h). */
enum { ROW_BYTES = BLOCK + 6 * 4 };

/* Where one input is far larger than most, its block's step is too coarse for the 31 beside it, and the models' perplexity shows it. A block whose largest value is
 * OUTLIER times the mean of all blocks' largest is therefore quantised twice: what the first codes leave is a further block, kept by row (with joined
 * scales it is in the tile, and the first codes are the further block: the largest scale would coarsen the others). Fewer than one
 * in OUTLIER can be so. With 3, of SmolLM2's and Gemma 3's rows 1 to 6% are, and the divergence (KL) from unquantised rows falls to a third. */
enum { OUTLIER = 3 };
struct further {
    uint8_t block[ROW_BYTES]; /* as that of one row */
    uint32_t number;          /* which block of the weights it meets */
};

struct quantised {
    uint32_t rows, tiles;
    uint8_t *codes;          /* the tiles' rows one after the other, or NULL: no form here wants them */
    struct further *further; /* [rows][most_further] */
    uint32_t *further_n;     /* [rows] */
    float *unit;             /* [rows]: of the joined scales; or NULL: there are none */
    float *x; /* [rows][padded]: the normed rows themselves, zero-padded, for the float forms; or NULL */
    uint16_t *
        halves; /* rounded to bf16, laid out like the codes: of a tile of n rows, blocks of [n][32]; or NULL */
    uint32_t padded, blocks, most_further;
};
/* All tiles have nearly the same height: 8 rows are 4 and 4, not 6 and 2. Tile j begins with this row. */
static inline uint32_t tile_begin(const struct quantised *a, uint32_t j) {
    return (uint32_t)((uint64_t)a->rows * j / a->tiles);
}

/* Rows times panels of a matrix over all inputs: what one call of a kernel computes. */
struct tile {
    const struct quantised *a;
    const struct chip_matrix *w;
    uint32_t row, rows, panel, panels; /* rows: those of one tile of a */
    float *out;                        /* [rows][16 panels] */
    size_t stride;
    bool add;     /* to what out holds */
    size_t ahead; /* bytes: how far beyond the weights in use others are asked for */
    uint32_t asks,
        ask; /* every asks-th block asks, from block `ask` on: tiles that meet the same weights share it */
};

/* What a KV page holds for a layer and KV head; layouts are the tables' (x86_attention.inc.h, neon_attention.c). KV_BF16 is what "f16" means where the processor
 * multiplies pairs of bf16 and the table has it. */
enum kv_form { KV_F16, KV_BF16, KV_Q8, KV_FORMS };

/* Queries of rows of one sequence that share a KV head, in order of position, and some of that sequence's pages: what one call of a kernel computes. Query i's
 * weights are 2^(score - most[i]); out[i] is the sum of the values by weight and total[i] that of the weights, so that runs of pages can be merged. */
struct attend_block {
    const char *base; /* page[k]'s part for this layer and head is at base + page[k] * page_bytes */
    size_t page_bytes;
    const uint32_t *page;
    uint32_t pages, at; /* `at`: the position of page[0]'s first token */
    uint32_t queries, dim;
    const uint32_t *start, *end; /* [queries]: the positions that each looks at */
    const float *
        q; /* [queries][attend_wide(dim)], zeros beyond dim; scaled by log2 e times the scale, or with a softcap by 2 log2 e * scale / cap */
    float softcap;             /* log2 e times the cap; 0: none */
    float *out, *most, *total; /* [queries][attend_wide(dim)], [queries], [queries] */
    void *work;                /* attend_work_bytes, aligned for vectors */
};
#define ATTEND_NOTHING (-1e30f) /* `most` of a query that has met no token */

/* A head's dims rounded up to what tiles of outputs take. */
static inline uint32_t attend_wide(uint32_t dim) {
    return (dim + 31) / 32 * 32;
}

static inline size_t attend_work_bytes(uint32_t queries, uint32_t dim) {
    return attend_wide(dim) * 2 * KV_PAGE_TOKENS * sizeof(float) +
           queries * (attend_wide(dim) * sizeof(int16_t) + 17 * sizeof(float));
}

/* KV_Q8: the scale of n values, rounded up to bf16 (its bits are returned) so that no code leaves 127, and what a value is multiplied by for its code. */
static inline uint16_t q8_scale(const float *x, uint32_t n, float *inverse) {
    float most = 0;
    for (uint32_t i = 0; i < n; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    most = most < 1e-30f ? 0 : most > 1e30f ? 1e30f : most;
    uint32_t bits;
    float scale = most / 127;
    memcpy(&bits, &scale, sizeof bits);
    bits = (bits + 0xFFFF) & 0xFFFF0000u;
    memcpy(&scale, &bits, sizeof bits);
    *inverse = scale > 0 ? 1 / scale : 0;
    return (uint16_t)(bits >> 16);
}

struct kv_kernels {
    size_t (*bytes)(uint32_t dim); /* of a page's part for one layer and head; a multiple of 64 */
    void (*write)(void *part, uint32_t slot, const float *k, const float *v, uint32_t dim);
    void (*attend)(const struct attend_block *b);
};

struct kernels {
    const char *name;
    uint32_t tile_rows, tile_panels, stream_rows;
    bool (*pairs)(
        void); /* can FORM_BF16 multiply rows rounded to bf16 on this processor? Else it takes them as they are */
    /* Row r of the tile that begins with row `first` and has `rows`: norm it (if norm), write what a has room for: x, the blocks. */
    void (*quantise)(const struct quantised *a, uint32_t first, uint32_t rows, uint32_t r, const float *in,
                     uint32_t n, const float *norm, float eps);
    void (*tile)(const struct tile *t); /* at most tile_rows by tile_panels, or stream_rows by one */
    /* out[r] = f(gate[r]) * up[r], rows of COLUMNS */
    void (*gate)(enum arch_activation f, const float *gate, const float *up, uint32_t rows, float *out,
                 size_t stride);
    struct kv_kernels kv[KV_FORMS];
    void (*measure)(int what, uint64_t rounds,
                    double *operations); /* a loop of independent int8, bf16 or fp32 operations */
    /* Put the codes of a packed panel into an order of the table's own, in place; NULL: they stay as pack.c puts them. */
    void (*order)(const struct chip_matrix *m, uint8_t *panel);
};

extern const struct kernels kernels_avx2, kernels_avx512, kernels_neon, kernels_i8mm;
const struct kernels *kernels_best(void); /* of this machine; NULL: there is only the reference */

struct scratch { /* grows, never shrinks */
    char *p;
    size_t bytes;
};

struct chip {
    struct pool *pool;
    uint32_t threads;
    const struct kernels *fast;  /* NULL: the reference */
    const struct kv_kernels *kv; /* of fast; NULL: the reference's floats */
    char *pack_folder;
    struct scratch shared, parts, *own; /* parts: of attention; own: one a thread */
};

void *scratch_need(struct scratch *s,
                   size_t bytes); /* aborts when there is no memory: a step cannot be half done */

void reference_linear(struct chip *c, const struct chip_linear *l);
void reference_gated(struct chip *c, const struct chip_gated *g);
void reference_attend(struct chip *c, const struct chip_attend *a);
void fast_linear(struct chip *c, const struct chip_linear *l);
void fast_gated(struct chip *c, const struct chip_gated *g);
void fast_attend(struct chip *c, const struct chip_attend *a);

/* The norm of a row as every path computes it: 1 / sqrt(mean of squares + eps), in sixteen sums of double, which every instruction set adds up alike. */
static inline float norm_factor(const float *x, uint32_t n, float eps) {
    typedef float floats __attribute__((vector_size(32), aligned(4)));
    typedef double doubles __attribute__((vector_size(64)));
    doubles s[2] = {{0}};
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (uint32_t j = 0; j < 2; j++) {
            doubles v = __builtin_convertvector(*(const floats *)(const void *)(x + i + 8 * j), doubles);
            s[j] += v * v;
        }
    for (; i < n; i++)
        s[0][0] += (double)x[i] * x[i];
    s[0] += s[1];
    double sum = 0;
    for (int j = 0; j < 8; j++)
        sum += s[0][j];
    return (float)(1 / sqrt(sum / n + (double)eps));
}
/* Norm (if any) and rotate one head. */
void head_rotate(float *x, const struct chip_attend *a, const float *norm, const float *rope);

enum form form_of(const struct format *f);
size_t form_panel_bytes(enum form f, uint32_t inputs);
int pack_panel(const struct chip_matrix *m, uint32_t panel, uint8_t *out);

#endif
