/* Attention of the ARM tables: what a KV page holds, and a pass over pages that never sees more than one at a time (online softmax: Milakov and Gimelshein,
 * arXiv 1805.02867; tiles: Dao et al., FlashAttention, arXiv 2205.14135). On a request's journey this is what attention.c cuts into blocks.
 *
 * A tile is up to ATTEND_ROWS queries by the 32 tokens of a page. A query's arithmetic is the same in every tile, so that its bits never depend on its neighbours. */
#include "chip/cpu/neon.h"

#include <math.h>
#include <string.h>

enum { VW = 4, ATTEND_ROWS = 4, NV = 4, SPAN = NV * VW }; /* tokens or dims that a tile sums at a time */
enum { STRIP = 32 };                                      /* dims that share a scale */
#define FOR_ATTEND_ROWS(F, FORM) F(FORM, 1) F(FORM, 2) F(FORM, 3) F(FORM, 4)

/* One page of a KV head, as the tiles take it. */
struct kv_page {
    const char *keys, *values; /* in the page, or widened in b->work */
    const uint16_t *scales;    /* KV_Q8 */
    uint32_t at, tokens;       /* position of the first token; how many any query looks at */
    bool partial;              /* some query does not look at all of them */
};

/* What a page changes for the queries of a tile: by what their sums so far shrink, and the largest weight in the page (1: the largest of all so far). */
struct change {
    float factor[VW], share[VW];
};

/* Scores of a page's tokens, then their weights. */
typedef float scores[ATTEND_ROWS][KV_PAGE_TOKENS];

/* 2^x from -126 on: 2^n times a polynomial on [-1/2, 1/2] whose relative error is below 1e-7. */
INLINE float32x4_t v_exp2(float32x4_t x) {
    static const float term[] = {0.00967151392f, 0.0555073358f, 0.240222424f, 0.693147004f, 1};
    x = vmaxq_f32(x, vdupq_n_f32(-126));
    float32x4_t n = vrndnq_f32(x), r = vsubq_f32(x, n), p = vdupq_n_f32(0.00132647285f);
    UNROLL
    for (size_t i = 0; i < sizeof term / sizeof *term; i++)
        p = vfmaq_f32(vdupq_n_f32(term[i]), p, r);
    return v_scale2(p, n);
}

/* cap * tanh; the queries are scaled so that 2^x is e^2y. */
INLINE float32x4_t v_softcap(float32x4_t x, float cap) {
    const float32x4_t one = vdupq_n_f32(1);
    float32x4_t e = v_exp2(vminq_f32(x, vdupq_n_f32(126)));
    return vmulq_n_f32(vsubq_f32(one, vdivq_f32(vdupq_n_f32(2), vaddq_f32(e, one))), cap);
}

/* x where query i looks at the token, which the page's token t and the three after it are; else `other`. */
INLINE float32x4_t v_within(const struct attend_block *b, const struct kv_page *p, uint32_t i, uint32_t t,
                            float32x4_t x, float other) {
    static const uint32_t lane[VW] = {0, 1, 2, 3};
    uint32x4_t at = vaddq_u32(vdupq_n_u32(p->at + t), vld1q_u32(lane));
    uint32x4_t in = vandq_u32(vcgeq_u32(at, vdupq_n_u32(b->start[i])), vcltq_u32(at, vdupq_n_u32(b->end[i])));
    return vbslq_f32(in, x, vdupq_n_f32(other));
}

/* Room in b->work: each query's total in lanes, then a page's floats, or for KV_Q8 the queries as integers. */
INLINE float *attend_lanes(const struct attend_block *b) {
    return b->work;
}

/* ---- f16: keys [dims][32], values [32][dims], dims rounded up to whole spans ---- */

static size_t f16_dims(uint32_t dim) {
    return (dim + SPAN - 1) / SPAN * SPAN;
}

size_t neon_f16_bytes(uint32_t dim) {
    return 2 * KV_PAGE_TOKENS * f16_dims(dim) * sizeof(uint16_t);
}

/* What is too large for f16 becomes its largest value, so that no weight of 0 ever meets an infinity. */
static uint16_t to_f16(float x) {
    __fp16 h = (__fp16)(x > 65504 ? 65504 : x < -65504 ? -65504 : x);
    uint16_t bits;
    memcpy(&bits, &h, sizeof bits);
    return bits;
}

void neon_f16_write(void *part, uint32_t slot, const float *k, const float *v, uint32_t dim) {
    const size_t dims = f16_dims(dim);
    uint16_t *keys = part, *values = keys + KV_PAGE_TOKENS * dims;
    for (size_t i = 0; i < dims; i++) {
        keys[i * KV_PAGE_TOKENS + slot] = to_f16(i < dim ? k[i] : 0);
        values[slot * dims + i] = to_f16(i < dim ? v[i] : 0);
    }
}

/* To floats, which takes each vector two cycles of a pipeline: once for all tiles that meet the page. */
static void f16_widen(const struct attend_block *b, struct kv_page *p) {
    const size_t half = KV_PAGE_TOKENS * f16_dims(b->dim);
    const uint16_t *page = (const uint16_t *)(const void *)p->keys; /* the values follow */
    float *wide = attend_lanes(b) + (size_t)b->queries * VW;
    for (size_t i = 0; i < half + p->tokens * f16_dims(b->dim); i += VW)
        vst1q_f32(wide + i, f16x4(page + i));
    p->keys = (const char *)wide;
    p->values = (const char *)(wide + half);
}

/* Number i to i + 3 of keys or values. */
INLINE float32x4_t page_load(const char *p, size_t i, const bool widened) {
    return widened ? vld1q_f32((const float *)(const void *)p + i)
                   : f16x4((const uint16_t *)(const void *)p + i);
}

/* s = queries . keys */
INLINE void page_score(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                       const bool widened, scores s) {
    const size_t wide = attend_wide(b->dim), dims = f16_dims(b->dim);
    const float *q = b->q + (size_t)i * wide;
    for (size_t t = 0; t < KV_PAGE_TOKENS; t += SPAN) {
        float32x4_t acc[ATTEND_ROWS][NV];
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[r][v] = vdupq_n_f32(0);
        for (size_t d = 0; d < dims; d++) {
            float32x4_t k[NV];
            UNROLL
            for (int v = 0; v < NV; v++)
                k[v] = page_load(p->keys, d * KV_PAGE_TOKENS + t + (size_t)v * VW, widened);
            UNROLL
            for (int r = 0; r < n; r++)
                UNROLL
            for (int v = 0; v < NV; v++)
                acc[r][v] = vfmaq_n_f32(acc[r][v], k[v], q[r * wide + d]);
        }
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            vst1q_f32(s[r] + t + v * VW, acc[r][v]);
    }
}

/* out = out * factor + weights . values */
INLINE void page_mix(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                     const bool widened, scores s, const struct change *c) {
    const size_t wide = attend_wide(b->dim), dims = f16_dims(b->dim);
    float *out = b->out + i * wide;
    for (size_t d = 0; d < dims; d += SPAN, out += SPAN) {
        float32x4_t acc[ATTEND_ROWS][NV];
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[r][v] = vmulq_n_f32(vld1q_f32(out + r * wide + v * VW), c->factor[r]);
        for (size_t t = 0; t < p->tokens; t++) {
            float32x4_t y[NV];
            UNROLL
            for (int v = 0; v < NV; v++)
                y[v] = page_load(p->values, t * dims + d + (size_t)v * VW, widened);
            UNROLL
            for (int r = 0; r < n; r++)
                UNROLL
            for (int v = 0; v < NV; v++)
                acc[r][v] = vfmaq_n_f32(acc[r][v], y[v], s[r][t]);
        }
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            vst1q_f32(out + r * wide + v * VW, acc[r][v]);
    }
}

#define f16_score(b, p, i, n, s) page_score(b, p, i, n, false, s)
#define f16_mix(b, p, i, n, s, c) page_mix(b, p, i, n, false, s, c)
#define f32_score(b, p, i, n, s) page_score(b, p, i, n, true, s)
#define f32_mix(b, p, i, n, s, c) page_mix(b, p, i, n, true, s, c)

/* ---- 8 bits: codes of keys [wide / 4][32][4] and values [8][wide][4], in fours for sdot; then bf16 scales of the keys and of the values, [wide / 32][32]
 * each: one for 32 dims of a token. Queries and weights are integers of 16 bits here, of which sdot takes the upper and the lower half in turn; sums are exact
 * within 32 dims or tokens. ---- */

enum { Q8_MOST = 127 * 256 + 127 }; /* both halves are signed */

size_t neon_q8_bytes(uint32_t dim) {
    return attend_wide(dim) * (size_t)(2 * KV_PAGE_TOKENS + 2 * sizeof(uint16_t));
}

/* The scale of 32 values (those beyond n are 0), rounded up to bf16 so that no code leaves 127; of fours of codes, `four_step` apart, the codes lie `step` apart. */
static uint16_t q8_encode(const float *x, uint32_t n, int8_t *code, size_t four_step, size_t step) {
    float inverse;
    uint16_t scale = q8_scale(x, n, &inverse);
    for (uint32_t i = 0; i < STRIP; i++) {
        float c = i < n ? x[i] * inverse : 0;
        code[i / 4 * four_step + i % 4 * step] = (int8_t)lrintf(c > 127 ? 127 : c < -127 ? -127 : c);
    }
    return scale;
}

void neon_q8_write(void *part, uint32_t slot, const float *k, const float *v, uint32_t dim) {
    const uint32_t wide = attend_wide(dim);
    int8_t *keys = part, *values = keys + KV_PAGE_TOKENS * wide;
    uint16_t *key_scale = (uint16_t *)(void *)(values + KV_PAGE_TOKENS * wide),
             *value_scale = key_scale + wide;
    for (uint32_t d = 0; d < dim; d += STRIP) {
        uint32_t n = dim - d < STRIP ? dim - d : STRIP;
        key_scale[d + slot] =
            q8_encode(k + d, n, keys + d * KV_PAGE_TOKENS + 4 * slot, 4 * KV_PAGE_TOKENS, 1);
        value_scale[d + slot] =
            q8_encode(v + d, n, values + (slot / 4 * (size_t)wide + d) * 4 + slot % 4, 16, 4);
    }
}

/* A query's or a page's integers of 16 bits: their upper and lower halves. */
struct halves {
    int8_t *part[2];
};

/* The queries' integers and their units. */
INLINE struct halves q8_query(const struct attend_block *b, float **unit) {
    const size_t bytes = (size_t)b->queries * attend_wide(b->dim);
    int8_t *q = (int8_t *)(attend_lanes(b) + (size_t)b->queries * VW);
    *unit = (float *)(void *)(q + 2 * bytes);
    return (struct halves){{q, q + bytes}};
}

/* Eight numbers to integers, those to halves. */
INLINE void to_halves(const struct halves *to, size_t at, float32x4_t a, float32x4_t b) {
    int16x8_t x = vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a)), vqmovn_s32(vcvtnq_s32_f32(b)));
    int8x8_t low = vmovn_s16(x);
    vst1_s8(to->part[0] + at, vshrn_n_s16(vsubq_s16(x, vmovl_s8(low)), 8));
    vst1_s8(to->part[1] + at, low);
}

static void q8_start(const struct attend_block *b) {
    const size_t wide = attend_wide(b->dim);
    float *unit;
    struct halves to = q8_query(b, &unit);
    for (uint32_t i = 0; i < b->queries; i++) {
        const float *q = b->q + (size_t)i * wide;
        float32x4_t most = vdupq_n_f32(0);
        for (size_t d = 0; d < wide; d += VW)
            most = vmaxq_f32(most, vabsq_f32(vld1q_f32(q + d)));
        float top = vmaxvq_f32(most), f = top > 0 ? Q8_MOST / top : 0;
        unit[i] = top / Q8_MOST;
        for (size_t d = 0; d < wide; d += 2 * VW)
            to_halves(&to, i * wide + d, vmulq_n_f32(vld1q_f32(q + d), f),
                      vmulq_n_f32(vld1q_f32(q + d + VW), f));
    }
}

/* Exact sums over 32: of rows of integers, `row` apart, times codes: SPAN sums side by side, their fours of codes `next` bytes after one another. */
INLINE void q8_sums(const struct halves *x, size_t row, const char *codes, size_t next, const int n,
                    int32x4_t sum[ATTEND_ROWS][NV]) {
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        sum[r][v] = vdupq_n_s32(0);
    for (int half = 0; half < 2; half++) {
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            sum[r][v] = vshlq_n_s32(sum[r][v], 8);
        const char *y = codes;
        __asm__("" : "+r"(y)); /* or gcc keeps all codes of the first half on the stack for the second */
        for (int j = 0; j < STRIP; j += 16) {
            int8x16_t q[ATTEND_ROWS];
            UNROLL
            for (int r = 0; r < n; r++)
                q[r] = vld1q_s8(x->part[half] + r * row + j);
            UNROLL
            for (int lane = 0; lane < 4; lane++, y += next)
                UNROLL
            for (int v = 0; v < NV; v++) {
                int8x16_t w = vld1q_s8((const int8_t *)y + v * 16);
                UNROLL
                for (int r = 0; r < n; r++)
                    sum[r][v] = dot_lane(sum[r][v], w, q[r], lane);
            }
        }
    }
}

INLINE void q8_score(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                     scores s) {
    const size_t wide = attend_wide(b->dim);
    float *unit;
    struct halves q = q8_query(b, &unit);
    for (int t = 0; t < KV_PAGE_TOKENS; t += SPAN) {
        float32x4_t acc[ATTEND_ROWS][NV];
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[r][v] = vdupq_n_f32(0);
        for (size_t d = 0; d < wide; d += STRIP) {
            int32x4_t sum[ATTEND_ROWS][NV];
            struct halves x = {{q.part[0] + i * wide + d, q.part[1] + i * wide + d}};
            q8_sums(&x, wide, p->keys + d * KV_PAGE_TOKENS + (size_t)t * 4, (size_t)4 * KV_PAGE_TOKENS, n,
                    sum);
            UNROLL
            for (int v = 0; v < NV; v++) {
                float32x4_t scale = bf16x4(p->scales + d + t + v * VW);
                UNROLL
                for (int r = 0; r < n; r++)
                    acc[r][v] = vfmaq_f32(acc[r][v], vcvtq_f32_s32(sum[r][v]), scale);
            }
        }
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            vst1q_f32(s[r] + t + v * VW, vmulq_n_f32(acc[r][v], unit[i + (uint32_t)r]));
    }
}

/* Weights times the values' scales of 32 dims as integers, by the largest scale that query i meets: Q8_MOST where both are their page's largest. Returns the
 * unit. Scales of tokens that are not there yet are anything. */
INLINE float q8_weights(const struct attend_block *b, const struct kv_page *p, uint32_t i, size_t d,
                        const float *weight, float inverse, const struct halves *to, size_t at) {
    float32x4_t scale[KV_PAGE_TOKENS / VW], most = vdupq_n_f32(0);
    UNROLL
    for (uint32_t v = 0; v < KV_PAGE_TOKENS / VW; v++) {
        scale[v] = bf16x4(p->scales + attend_wide(b->dim) + d + v * VW);
        if (p->partial)
            scale[v] = v_within(b, p, i, v * VW, scale[v], 0);
        most = vmaxq_f32(most, scale[v]);
    }
    float top = vmaxvq_f32(most), f = top > 0 ? Q8_MOST / top : 0;
    UNROLL
    for (uint32_t v = 0; v < KV_PAGE_TOKENS / VW; v++)
        scale[v] = vmulq_f32(vmulq_n_f32(vld1q_f32(weight + v * VW), inverse), vmulq_n_f32(scale[v], f));
    UNROLL
    for (uint32_t v = 0; v < KV_PAGE_TOKENS / VW; v += 2)
        to_halves(to, at + v * VW, scale[v], scale[v + 1]);
    return top / Q8_MOST;
}

INLINE void q8_mix(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n, scores s,
                   const struct change *c) {
    const size_t wide = attend_wide(b->dim);
    int8_t upper[ATTEND_ROWS * KV_PAGE_TOKENS], lower[ATTEND_ROWS * KV_PAGE_TOKENS];
    const struct halves x = {{upper, lower}};
    for (size_t d = 0; d < wide; d += STRIP) {
        float unit[ATTEND_ROWS];
        for (int r = 0; r < n; r++)
            unit[r] = c->share[r] * q8_weights(b, p, i + (uint32_t)r, d, s[r], 1 / c->share[r], &x,
                                               (size_t)r * KV_PAGE_TOKENS);
        for (size_t k = d; k < d + STRIP; k += SPAN) {
            int32x4_t sum[ATTEND_ROWS][NV];
            q8_sums(&x, KV_PAGE_TOKENS, p->values + k * 4, 4 * wide, n, sum);
            UNROLL
            for (int r = 0; r < n; r++)
                UNROLL
            for (int v = 0; v < NV; v++) {
                float *to = b->out + (i + (uint32_t)r) * wide + k + v * VW;
                float32x4_t before = vmulq_n_f32(vld1q_f32(to), c->factor[r]);
                vst1q_f32(to, vfmaq_n_f32(before, vcvtq_f32_s32(sum[r][v]), unit[r]));
            }
        }
    }
}

/* ---- a tile, whatever the page holds ---- */

/* Scores to weights 2^(s - most), `most` the largest score so far. */
INLINE void weigh(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n, scores s,
                  struct change *c) {
    float now[VW] = {0}, before[VW] = {0}, top[VW] = {0};
    for (int r = 0; r < n; r++) {
        float32x4_t most = vdupq_n_f32(-INFINITY);
        for (uint32_t t = 0; t < KV_PAGE_TOKENS; t += VW) {
            float32x4_t x = vld1q_f32(s[r] + t);
            if (b->softcap > 0)
                x = v_softcap(x, b->softcap);
            if (p->partial)
                x = v_within(b, p, i + (uint32_t)r, t, x, -INFINITY);
            most = vmaxq_f32(most, x);
            vst1q_f32(s[r] + t, x);
        }
        top[r] = vmaxvq_f32(most);
        before[r] = b->most[i + (uint32_t)r];
        b->most[i + (uint32_t)r] = now[r] = top[r] > before[r] ? top[r] : before[r];
    }
    vst1q_f32(c->factor, v_exp2(vsubq_f32(vld1q_f32(before), vld1q_f32(now))));
    vst1q_f32(c->share, v_exp2(vsubq_f32(vld1q_f32(top), vld1q_f32(now))));
    for (int r = 0; r < n; r++) {
        float *lanes = attend_lanes(b) + (i + (size_t)r) * VW;
        float32x4_t sum = vmulq_n_f32(vld1q_f32(lanes), c->factor[r]);
        for (uint32_t t = 0; t < KV_PAGE_TOKENS; t += VW) {
            float32x4_t x = v_exp2(vsubq_f32(vld1q_f32(s[r] + t), vdupq_n_f32(now[r])));
            if (p->partial)
                x = v_within(b, p, i + (uint32_t)r, t, x, 0);
            sum = vaddq_f32(sum, x);
            vst1q_f32(s[r] + t, x);
        }
        vst1q_f32(lanes, sum);
    }
}

typedef void attend_tile(const struct attend_block *b, const struct kv_page *p, uint32_t i);
#define ATTEND_TILE(FORM, NR)                                                                         \
    static void FORM##_tile_##NR(const struct attend_block *b, const struct kv_page *p, uint32_t i) { \
        scores s;                                                                                     \
        struct change c;                                                                              \
        FORM##_score(b, p, i, NR, s);                                                                 \
        weigh(b, p, i, NR, s, &c);                                                                    \
        FORM##_mix(b, p, i, NR, s, &c);                                                               \
    }
#define ATTEND_TILE_NAME(FORM, NR) FORM##_tile_##NR,
FOR_ATTEND_ROWS(ATTEND_TILE, f16)
FOR_ATTEND_ROWS(ATTEND_TILE, f32)
FOR_ATTEND_ROWS(ATTEND_TILE, q8)
static attend_tile *const f16_tiles[ATTEND_ROWS] = {FOR_ATTEND_ROWS(ATTEND_TILE_NAME, f16)};
static attend_tile *const f32_tiles[ATTEND_ROWS] = {FOR_ATTEND_ROWS(ATTEND_TILE_NAME, f32)};
static attend_tile *const q8_tiles[ATTEND_ROWS] = {FOR_ATTEND_ROWS(ATTEND_TILE_NAME, q8)};

static uint32_t rounds_of(const struct attend_block *b) {
    return (b->queries + ATTEND_ROWS - 1) / ATTEND_ROWS;
}

/* All tiles of queries meet one page after the other, whose values begin behind `half` bytes of keys. widen: or NULL. */
static void attend_pages(const struct attend_block *b, attend_tile *const *tiles, size_t half,
                         void (*widen)(const struct attend_block *b, struct kv_page *p)) {
    uint32_t rounds = rounds_of(b), end = b->end[b->queries - 1];
    for (uint32_t k = 0; k < b->pages; k++) {
        const char *page = b->base + b->page[k] * b->page_bytes;
        struct kv_page p = {.keys = page,
                            .values = page + half,
                            .scales = (const uint16_t *)(const void *)(page + 2 * half),
                            .at = b->at + k * KV_PAGE_TOKENS};
        p.tokens = end - p.at < KV_PAGE_TOKENS ? end - p.at : KV_PAGE_TOKENS;
        p.partial = b->end[0] < p.at + KV_PAGE_TOKENS || b->start[b->queries - 1] > p.at;
        if (widen)
            widen(b, &p);
        for (uint32_t j = 0; j < rounds; j++) {
            uint32_t i = b->queries * j / rounds, n = b->queries * (j + 1) / rounds - i;
            if (b->end[i + n - 1] > p.at && b->start[i] < p.at + KV_PAGE_TOKENS)
                tiles[n - 1](b, &p, i);
        }
    }
}

/* Before: nothing seen. After: the lanes of the total weights added up. */
static void attend_start(const struct attend_block *b) {
    memset(b->out, 0, (size_t)b->queries * attend_wide(b->dim) * sizeof *b->out);
    memset(attend_lanes(b), 0, (size_t)b->queries * VW * sizeof(float));
    for (uint32_t i = 0; i < b->queries; i++)
        b->most[i] = ATTEND_NOTHING;
}

static void attend_end(const struct attend_block *b) {
    for (uint32_t i = 0; i < b->queries; i++)
        b->total[i] = vaddvq_f32(vld1q_f32(attend_lanes(b) + (size_t)i * VW));
}

void neon_f16_attend(const struct attend_block *b) {
    attend_start(b);
    if (rounds_of(b) > 1)
        attend_pages(b, f32_tiles, neon_f16_bytes(b->dim) / 2, f16_widen);
    else
        attend_pages(b, f16_tiles, neon_f16_bytes(b->dim) / 2, NULL);
    attend_end(b);
}

void neon_q8_attend(const struct attend_block *b) {
    attend_start(b);
    q8_start(b);
    attend_pages(b, q8_tiles, (size_t)KV_PAGE_TOKENS * attend_wide(b->dim), NULL);
    attend_end(b);
}
