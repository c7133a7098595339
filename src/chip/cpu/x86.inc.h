/* The kernels of the x86 tables, written once over vectors of VW floats. avx2.c and avx512.c define the vector's words (VF, VI, v_...) and include
 * this. A panel is VPP vectors wide. Each output is summed block by block: exact int32 inside a block, then one multiply-add with the product of
 * the scales (and one for the minimum), in that order in every tile, so that a row's bits never depend on its neighbours. Blocks of some forms are
 * joined by twos (x86_joined.inc.h), in every tile alike too. */
#include "chip/cpu/unroll.h"

/* Tiles are of up to TILE_ROWS by MOST_TILE_PANELS, or of up to STREAM_ROWS by one. */
enum { VPP = PANEL / VW, NV_MOST = VPP * MOST_TILE_PANELS };

INLINE int32_t load_i32(const void *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE float load_f32(const void *p) {
    float v;
    memcpy(&v, p, sizeof v);
    return v;
}

/* What stands in a block of n rows (kernels.h). */
enum {
    AT_START_4 = BLOCK,
    AT_START_8 = BLOCK + 4,
    AT_START_HALF = BLOCK + 8,
    AT_SCALE = BLOCK + 12,
    AT_SCALED_SUM = BLOCK + 16,
    AT_JOINED = BLOCK + 20
};
INLINE int32_t row_int(const uint8_t *block, const int what, const int n, const int i) {
    return load_i32(block + n * what + i * 4);
}
INLINE float row_float(const uint8_t *block, const int what, const int n, const int i) {
    return load_f32(block + n * what + i * 4);
}
INLINE int32_t row_start_half(const uint8_t *block, const int n, const int i, const int half) {
    int32_t first = row_int(block, AT_START_HALF, n, i);
    return half ? row_int(block, AT_START_8, n, i) - first : first;
}

/* ---- rows ---- */

/* BLOCK inputs from i on, normed; beyond the end of the row zeros. */
INLINE void norm_block(float *x, const float *in, uint32_t i, uint32_t n, const float *norm, float f) {
    if (i + BLOCK <= n) {
        for (uint32_t j = 0; j < BLOCK; j += VW) {
            VF v = v_loadu(in + i + j);
            v_storeu(x + j, norm ? v_mul(v_mul(v, v_set(f)), v_loadu(norm + i + j)) : v);
        }
        return;
    }
    for (uint32_t j = 0; j < BLOCK; j++)
        x[j] = i + j >= n ? 0 : norm ? in[i + j] * f * norm[i + j] : in[i + j];
}

/* Quantise BLOCK values into row i of a block of n rows; the scale is returned. */
INLINE float block_codes(uint8_t *block, uint32_t n, uint32_t i, const float *x) {
    int32_t half[2];
    float scale = quantise_block(x, (int8_t *)block + i * BLOCK, half),
          scaled_sum = scale * (float)(half[0] + half[1]);
    int32_t start_4 = -8 * (half[0] + half[1]), start_8 = -128 * (half[0] + half[1]),
            start_half = -128 * half[0];
    memcpy(block + n * AT_START_4 + i * 4, &start_4, 4);
    memcpy(block + n * AT_START_8 + i * 4, &start_8, 4);
    memcpy(block + n * AT_START_HALF + i * 4, &start_half, 4);
    memcpy(block + n * AT_SCALE + i * 4, &scale, 4);
    memcpy(block + n * AT_SCALED_SUM + i * 4, &scaled_sum, 4);
    return scale;
}

INLINE float block_scale(const uint8_t *block, uint32_t n, uint32_t i) {
    return load_f32(block + n * AT_SCALE + i * 4);
}

/* What the codes of row i leave of x. */
INLINE void block_rest(const uint8_t *block, uint32_t n, uint32_t i, float *x) {
    const int8_t *q = (const int8_t *)block + i * BLOCK;
    float scale = block_scale(block, n, i);
    for (int j = 0; j < BLOCK; j++)
        x[j] -= scale * (float)q[j];
}

/* The nearest bf16, ties to even. */
INLINE uint16_t to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

INLINE void block_halves(uint16_t *to, const float *x) {
    for (int i = 0; i < BLOCK; i++)
        to[i] = to_bf16(x[i]);
}

#include "chip/cpu/quantise.inc.h"

/* ---- products ---- */

INLINE void tile_clear(const int nr, const int nv, VF acc[STREAM_ROWS][NV_MOST]) {
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[i][v] = v_zero();
}

INLINE void tile_store(const struct tile *t, const int nr, const int nv, VF acc[STREAM_ROWS][NV_MOST]) {
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        float *out = t->out + i * t->stride + v * VW;
        v_storeu(out, t->add ? v_add(v_loadu(out), acc[i][v]) : acc[i][v]);
    }
}

/* The weights at p are about to be used, `bytes` of each panel: ask for those `ahead` of them. A single panel is streamed and wanted in the nearest
 * cache; two are asked for long before they are needed. */
INLINE void tile_prefetch(const struct tile *t, const uint8_t *p, const int np, const int bytes) {
    UNROLL
    for (int i = 0; i < np; i++)
        UNROLL
    for (int j = 0; j < bytes; j += 64) {
        const char *at = (const char *)p + t->ahead + i * t->w->panel_bytes + j;
        if (np == 1)
            _mm_prefetch(at, _MM_HINT_T0);
        else
            _mm_prefetch(at, _MM_HINT_T1);
    }
}

/* Is it this block's turn to ask? Every t->asks-th block's is. */
INLINE bool tile_turn(const struct tile *t, uint32_t *left) {
    bool now = *left == 0;
    *left = now ? t->asks - 1 : *left - 1;
    return now;
}

/* The outputs are written when the tile is done; their lines may come from afar meanwhile. */
INLINE void tile_expect(const struct tile *t, const int nr, const int np) {
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int j = 0; j < np * PANEL; j += 16)
        __builtin_prefetch(t->out + i * t->stride + j, 1);
}

/* Where block b of a panel begins: at its scales, for FORM_4K behind the superblock's. */
INLINE const uint8_t *block_at(const struct tile *t, uint32_t panel, uint32_t b, const enum form form) {
    size_t at = b * form_block_bytes(form) + (form == FORM_4K ? (b / 8 + 1) * SUPER_BYTES : 0);
    return t->w->packed + panel * t->w->panel_bytes + at;
}

/* sum += rows' codes times 4-bit codes of np panels. */
INLINE void dots_4(const uint8_t *rows, const uint8_t *codes, const size_t next, const int nr, const int np,
                   const enum form form, VI sum[STREAM_ROWS][NV_MOST]) {
    const int nv = np * VPP;
    const VI fp4 = vi_add8(vi_table(fp4_codes), vi_set8(FP4_OFFSET));
    UNROLL
    for (int j = 0; j < 4; j++) {
        VI low[NV_MOST], high[NV_MOST];
        UNROLL
        for (int v = 0; v < nv; v++) {
            VI w = vi_loadu(codes + v / VPP * next + j * 64 + v % VPP * VW * 4);
            low[v] = vi_and(w, vi_set8(15));
            high[v] = vi_and(vi_shr4(w), vi_set8(15));
            if (form == FORM_4E) {
                low[v] = vi_look(fp4, low[v]);
                high[v] = vi_look(fp4, high[v]);
            }
        }
        UNROLL
        for (int i = 0; i < nr; i++) {
            const uint8_t *q = rows + i * BLOCK + j * 8;
            VI q0 = vi_set32(load_i32(q)), q1 = vi_set32(load_i32(q + 4));
            UNROLL
            for (int v = 0; v < nv; v++)
                sum[i][v] = form == FORM_4E ? DOT_FP4(sum[i][v], low[v], q0, high[v], q1)
                                            : DOT_4(sum[i][v], low[v], q0, high[v], q1);
        }
    }
}

/* FORM_4K: acc += one block of rows times the block of weights at p, of np panels, whose superblock has the scales d and dmin. */
INLINE void block_4k(const uint8_t *rows, const uint8_t *p, const size_t next, const int nr, const int np,
                     const VF *d, const VF *dmin, VF acc[STREAM_ROWS][NV_MOST]) {
    const int nv = np * VPP;
    VI sum[STREAM_ROWS][NV_MOST];
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        sum[i][v] = vi_zero();
    dots_4(rows, p + 2 * PANEL, next, nr, np, FORM_4K, sum);
    VF scale[NV_MOST], min[NV_MOST];
    UNROLL
    for (int v = 0; v < nv; v++) {
        const uint8_t *s = p + v / VPP * next;
        scale[v] = v_mul(d[v], v_u8(s + v % VPP * VW));
        min[v] = v_sub(v_zero(), v_mul(dmin[v], v_u8(s + PANEL + v % VPP * VW)));
    }
    UNROLL
    for (int i = 0; i < nr; i++) {
        VF as = v_set(row_float(rows, AT_SCALE, nr, i)), am = v_set(row_float(rows, AT_SCALED_SUM, nr, i));
        UNROLL
        for (int v = 0; v < nv; v++) {
            acc[i][v] = v_fma(v_int(END_4(sum[i][v], 0)), v_mul(scale[v], as), acc[i][v]);
            acc[i][v] = v_fma(min[v], am, acc[i][v]);
        }
    }
}

/* FORM_4K: the scales of the superblock whose first block is at p. */
INLINE void super_4(const uint8_t *p, const size_t next, const int np, VF *d, VF *dmin) {
    UNROLL
    for (int v = 0; v < np * VPP; v++) {
        const uint8_t *s = p - SUPER_BYTES + v / VPP * next + v % VPP * VW * 2;
        d[v] = v_f16(s);
        dmin[v] = v_f16(s + 32);
    }
}

/* FORM_4E: acc += one block of rows times the block of weights at p, of np panels. Powers of two multiply without a multiplication where the table can. */
INLINE void block_4e(const uint8_t *rows, const uint8_t *p, const size_t next, const int nr, const int np,
                     VF acc[STREAM_ROWS][NV_MOST]) {
    const int nv = np * VPP;
    VI sum[STREAM_ROWS][NV_MOST];
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        sum[i][v] = START_FP4(row_int(rows, AT_START_8, nr, i));
    dots_4(rows, p + 2 * PANEL, next, nr, np, FORM_4E, sum);
    VF power[NV_MOST];
    UNROLL
    for (int v = 0; v < nv; v++)
        power[v] = V_POWER(v_bf16(p + v / VPP * next + v % VPP * VW * 2));
    UNROLL
    for (int i = 0; i < nr; i++) {
        VF as = v_set(row_float(rows, AT_SCALE, nr, i));
        UNROLL
        for (int v = 0; v < nv; v++)
            acc[i][v] = v_fma(V_TIMES(v_int(sum[i][v]), power[v]), as, acc[i][v]);
    }
}

/* 8-bit forms: one scale (and minimum) for 32 inputs, or in halves for 16; f16 in FORM_8, else f32. */
INLINE void block_8(const uint8_t *rows, const uint8_t *p, const size_t next, const int nr, const int np,
                    const enum form form, VF acc[STREAM_ROWS][NV_MOST]) {
    const bool has_min = form == FORM_8M || form == FORM_8SM;
    const int nv = np * VPP, halves = form == FORM_8S || form == FORM_8SM ? 2 : 1, groups = 8 / halves,
              head = form == FORM_8 ? 32
                     : has_min      ? 128
                                    : 64;
    for (int h = 0; h < halves; h++, p += head + groups * 64) {
        VI sum[STREAM_ROWS][NV_MOST];
        UNROLL
        for (int i = 0; i < nr; i++)
            UNROLL
        for (int v = 0; v < nv; v++)
            sum[i][v] =
                START_8(halves == 2 ? row_start_half(rows, nr, i, h) : row_int(rows, AT_START_8, nr, i));
        UNROLL
        for (int j = 0; j < groups; j++) {
            VI w[NV_MOST];
            UNROLL
            for (int v = 0; v < nv; v++)
                w[v] = vi_loadu(p + v / VPP * next + head + j * 64 + v % VPP * VW * 4);
            UNROLL
            for (int i = 0; i < nr; i++) {
                VI q = vi_set32(load_i32(rows + i * BLOCK + h * 16 + j * 4));
                UNROLL
                for (int v = 0; v < nv; v++)
                    sum[i][v] = DOT_8(sum[i][v], w[v], q);
            }
        }
        VF scale[NV_MOST], min[NV_MOST];
        UNROLL
        for (int v = 0; v < nv; v++) {
            const uint8_t *s = p + v / VPP * next;
            const float *f = (const float *)(const void *)s + v % VPP * VW;
            scale[v] = form == FORM_8 ? v_f16(s + v % VPP * VW * 2) : v_loadu(f);
            min[v] = has_min ? v_loadu(f + PANEL) : v_zero();
        }
        UNROLL
        for (int i = 0; i < nr; i++) {
            VF as = v_set(row_float(rows, AT_SCALE, nr, i));
            VF am = v_set(halves == 1 ? row_float(rows, AT_SCALED_SUM, nr, i)
                                      : row_float(rows, AT_SCALE, nr, i) / -128 *
                                            (float)row_start_half(rows, nr, i, h));
            UNROLL
            for (int v = 0; v < nv; v++) {
                acc[i][v] = v_fma(v_int(sum[i][v]), v_mul(scale[v], as), acc[i][v]);
                if (has_min)
                    acc[i][v] = v_fma(min[v], am, acc[i][v]);
            }
        }
    }
}

INLINE void block_multiply(const uint8_t *rows, const uint8_t *p, const size_t next, const int nr,
                           const int np, const enum form form, const VF *d, const VF *dmin,
                           VF acc[STREAM_ROWS][NV_MOST]) {
    if (form == FORM_4K)
        block_4k(rows, p, next, nr, np, d, dmin, acc);
    else if (form == FORM_4E)
        block_4e(rows, p, next, nr, np, acc);
    else
        block_8(rows, p, next, nr, np, form, acc);
}

INLINE void tile_codes(const struct tile *t, const int nr, const int np, const enum form form) {
    const size_t next = t->w->panel_bytes;
    const uint32_t blocks = t->a->blocks;
    const int step = (int)form_block_bytes(form);
    const uint8_t *p = block_at(t, t->panel, 0, form);
    const uint8_t *rows = t->a->codes + (size_t)t->row * blocks * ROW_BYTES;
    VF acc[STREAM_ROWS][NV_MOST], d[NV_MOST], dmin[NV_MOST];
    uint32_t left = t->ask;
    tile_expect(t, nr, np);
    tile_clear(nr, np * VPP, acc);
    UNROLL
    for (int v = 0; v < np * VPP; v++)
        d[v] = dmin[v] = v_zero();
    for (uint32_t b = 0; b < blocks; b++) {
        if (form == FORM_4K && b % 8 == 0) {
            p += b ? SUPER_BYTES : 0;
            super_4(p, next, np, d, dmin);
        }
        if (tile_turn(t, &left))
            tile_prefetch(t, p, np, step);
        block_multiply(rows, p, next, nr, np, form, d, dmin, acc);
        p += step;
        rows += nr * ROW_BYTES;
    }
    tile_store(t, nr, np * VPP, acc);
}

#include "chip/cpu/x86_joined.inc.h"

/* Add to row i of a tile its blocks that were quantised twice. */
INLINE void further_codes(const struct tile *t, uint32_t i, const int np, const enum form form) {
    const size_t next = t->w->panel_bytes, r = t->row + i;
    const struct further *at = t->a->further + r * t->a->most_further;
    float *out = t->out + i * t->stride;
    VF acc[STREAM_ROWS][NV_MOST], d[NV_MOST], dmin[NV_MOST];
    UNROLL
    for (int v = 0; v < np * VPP; v++) {
        d[v] = dmin[v] = v_zero();
        acc[0][v] = v_loadu(out + v * VW);
    }
    for (uint32_t k = 0; k < t->a->further_n[r]; k++, at++) {
        const uint8_t *p = block_at(t, t->panel, at->number, form);
        if (form_joined(form)) {
            block_joined(at->block, t->w->packed + t->panel * next, next, at->number, np, form, acc);
            continue;
        }
        if (form == FORM_4K)
            super_4(p - at->number % 8 * form_block_bytes(form), next, np, d, dmin);
        block_multiply(at->block, p, next, 1, np, form, d, dmin, acc);
    }
    UNROLL
    for (int v = 0; v < np * VPP; v++)
        v_storeu(out + v * VW, acc[0][v]);
}

INLINE void tile_float(const struct tile *t, const int nr, const int np, const enum form form) {
    const int nv = np * VPP, wide = form == FORM_F32 ? 4 : 2;
    const uint8_t *p = t->w->packed + t->panel * t->w->panel_bytes;
    const size_t next = t->w->panel_bytes;
    const struct quantised *a = t->a;
    VF acc[STREAM_ROWS][NV_MOST];
    tile_clear(nr, nv, acc);
    for (uint32_t k = 0; k < a->padded; k++, p += PANEL * wide) {
        VF w[NV_MOST];
        UNROLL
        for (int v = 0; v < nv; v++) {
            const uint8_t *at = p + v / VPP * next + v % VPP * VW * wide;
            w[v] = form == FORM_F32 ? v_loadu((const float *)(const void *)at) : v_f16(at);
        }
        UNROLL
        for (int i = 0; i < nr; i++) {
            VF x = v_set(a->x[(t->row + i) * (size_t)a->padded + k]);
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[i][v] = v_fma(w[v], x, acc[i][v]);
        }
    }
    tile_store(t, nr, nv, acc);
}

/* Rows in bf16: two products a lane at once. */
INLINE void tile_halves(const struct tile *t, const int nr, const int np) {
    const int nv = np * VPP;
    const uint8_t *p = t->w->packed + t->panel * t->w->panel_bytes;
    const size_t next = t->w->panel_bytes;
    const uint16_t *rows = t->a->halves + (size_t)t->row * t->a->padded;
    VF acc[STREAM_ROWS][NV_MOST];
    uint32_t left = t->ask;
    tile_clear(nr, nv, acc);
    for (uint32_t b = 0; b < t->a->blocks; b++, rows += nr * BLOCK) {
        bool turn = tile_turn(t, &left);
        for (int k = 0; k < BLOCK; k += 2, p += PANEL * 4) {
            VI w[NV_MOST];
            if (turn &&
                k % 4 == 0) /* a little at a time: a whole block at once is 12% slower for 4 to 12 rows */
                tile_prefetch(t, p, np, 2 * PANEL * 4);
            UNROLL
            for (int v = 0; v < nv; v++)
                w[v] = vi_loadu(p + v / VPP * next + v % VPP * VW * 4);
            UNROLL
            for (int i = 0; i < nr; i++) {
                VI x = vi_set32(load_i32(rows + i * BLOCK + k));
                UNROLL
                for (int v = 0; v < nv; v++)
                    acc[i][v] = DOT_BF16(acc[i][v], w[v], x);
            }
        }
    }
    tile_store(t, nr, nv, acc);
}

/* Rows in float. */
INLINE void tile_pairs(const struct tile *t, const int nr, const int np) {
    const int nv = np * VPP;
    const uint8_t *p = t->w->packed + t->panel * t->w->panel_bytes;
    const size_t next = t->w->panel_bytes;
    const struct quantised *a = t->a;
    VF acc[STREAM_ROWS][NV_MOST];
    tile_clear(nr, nv, acc);
    for (uint32_t k = 0; k < a->padded; k += 2, p += PANEL * 4) {
        VF even[NV_MOST], odd[NV_MOST];
        UNROLL
        for (int v = 0; v < nv; v++) {
            VI w = vi_loadu(p + v / VPP * next + v % VPP * VW * 4);
            even[v] = v_bits(vi_shl16(w));
            odd[v] = v_bits(vi_and(w, vi_set32((int32_t)0xffff0000)));
        }
        UNROLL
        for (int i = 0; i < nr; i++) {
            const float *x = a->x + (t->row + i) * (size_t)a->padded + k;
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[i][v] = v_fma(odd[v], v_set(x[1]), v_fma(even[v], v_set(x[0]), acc[i][v]));
        }
    }
    tile_store(t, nr, nv, acc);
}

INLINE void tile_bf16(const struct tile *t, const int nr, const int np, const enum form form) {
    (void)form;
    if (t->a->halves)
        tile_halves(t, nr, np);
    else
        tile_pairs(t, nr, np);
}

/* One function for each form, number of rows and of panels, so that every tile lives in registers. */
#define TILE(BODY, FORM, NR, NP)                                    \
    static void BODY##_##FORM##_##NR##_##NP(const struct tile *t) { \
        BODY(t, NR, NP, FORM);                                      \
    }
#define TILE_NAME(BODY, FORM, NR, NP) BODY##_##FORM##_##NR##_##NP
#define TILES_OF(BODY, FORM) FOR_ROWS(TILE, BODY, FORM)
TILES_OF(tile_joined, FORM_4)
TILES_OF(tile_joined, FORM_4M)
TILES_OF(tile_codes, FORM_4K)
TILES_OF(tile_codes, FORM_4E)
TILES_OF(tile_codes, FORM_8)
TILES_OF(tile_codes, FORM_8M)
TILES_OF(tile_codes, FORM_8S)
TILES_OF(tile_codes, FORM_8SM)
TILES_OF(tile_float, FORM_F32)
TILES_OF(tile_float, FORM_F16)
TILES_OF(tile_bf16, FORM_BF16)

static void (*const tile_table[][STREAM_ROWS + (MOST_TILE_PANELS - 1) * TILE_ROWS])(const struct tile *) = {
    [FORM_4] = TILE_ROW(tile_joined, FORM_4),     [FORM_4M] = TILE_ROW(tile_joined, FORM_4M),
    [FORM_4K] = TILE_ROW(tile_codes, FORM_4K),    [FORM_4E] = TILE_ROW(tile_codes, FORM_4E),
    [FORM_8] = TILE_ROW(tile_codes, FORM_8),      [FORM_8M] = TILE_ROW(tile_codes, FORM_8M),
    [FORM_8S] = TILE_ROW(tile_codes, FORM_8S),    [FORM_8SM] = TILE_ROW(tile_codes, FORM_8SM),
    [FORM_F32] = TILE_ROW(tile_float, FORM_F32),  [FORM_F16] = TILE_ROW(tile_float, FORM_F16),
    [FORM_BF16] = TILE_ROW(tile_bf16, FORM_BF16),
};

#define FURTHER(FORM)                                              \
    static void further_##FORM(const struct tile *t, uint32_t i) { \
        if (t->panels == 1)                                        \
            further_codes(t, i, 1, FORM);                          \
        else                                                       \
            further_codes(t, i, MOST_TILE_PANELS, FORM);           \
    }
FURTHER(FORM_4)
FURTHER(FORM_4M)
FURTHER(FORM_4K)
FURTHER(FORM_4E)
FURTHER(FORM_8)
FURTHER(FORM_8M)
FURTHER(FORM_8S)
FURTHER(FORM_8SM)

static void (*const further_table[])(const struct tile *, uint32_t) = {
    [FORM_4] = further_FORM_4,   [FORM_4M] = further_FORM_4M,   [FORM_4K] = further_FORM_4K,
    [FORM_4E] = further_FORM_4E, [FORM_8] = further_FORM_8,     [FORM_8M] = further_FORM_8M,
    [FORM_8S] = further_FORM_8S, [FORM_8SM] = further_FORM_8SM, [FORM_BF16] = NULL,
};

static void tile(const struct tile *t) {
    tile_table[t->w->form][(t->panels - 1) * STREAM_ROWS + t->rows - 1](t);
    if (!further_table[t->w->form])
        return;
    for (uint32_t i = 0; i < t->rows; i++)
        if (t->a->further_n[t->row + i])
            further_table[t->w->form](t, i);
}

/* ---- elementwise ---- */

/* e^x within about 1 ulp of float: 2^n times a polynomial of degree 6 on [-ln2 / 2, ln2 / 2] (Taylor's, whose error there is 1e-8). */
INLINE VF v_exp(VF x) {
    x = v_min(v_max(x, v_set(-87.0f)), v_set(88.0f));
    VF n = v_round(v_mul(x, v_set(1.44269504f)));
    VF r = v_fma(n, v_set(-0.693145752f), x);
    r = v_fma(n, v_set(-1.42860677e-6f), r);
    VF p = v_set(1.0f / 5040);
    p = v_fma(p, r, v_set(1.0f / 720));
    p = v_fma(p, r, v_set(1.0f / 120));
    p = v_fma(p, r, v_set(1.0f / 24));
    p = v_fma(p, r, v_set(1.0f / 6));
    p = v_fma(p, r, v_set(0.5f));
    p = v_fma(p, r, v_set(1.0f));
    p = v_fma(p, r, v_set(1.0f));
    return v_scale2(p, n);
}

/* x / (1 + e^-z) */
INLINE VF v_swish(VF x, VF z) {
    return v_div(x, v_add(v_set(1), v_exp(v_sub(v_zero(), z))));
}

static void gate(enum arch_activation f, const float *g, const float *up, uint32_t rows, float *out,
                 size_t stride) {
    for (uint32_t r = 0; r < rows; r++, out += stride)
        for (uint32_t i = 0; i < COLUMNS; i += VW, g += VW, up += VW) {
            VF x = v_loadu(g), z = x;
            if (f == ARCH_GELU_TANH) /* (1 + tanh(u)) / 2 = 1 / (1 + e^-2u) */
                z = v_mul(v_mul(v_set(1.59576912f), x), v_fma(v_mul(x, x), v_set(0.044715f), v_set(1)));
            v_storeu(out + i, v_mul(v_swish(x, z), v_loadu(up)));
        }
}

/* ---- peaks ---- */

/* Twelve independent chains of one operation; the empty asm keeps the compiler from doing them in its head. */
#define PEAK_LOOP(T, START, STEP)                                   \
    do {                                                            \
        T s[12];                                                    \
        UNROLL                                                      \
        for (int i = 0; i < 12; i++)                                \
            s[i] = START;                                           \
        for (uint64_t n = 0; n < rounds; n++) {                     \
            UNROLL                                                  \
            for (int i = 0; i < 12; i++) {                          \
                s[i] = STEP;                                        \
                __asm__ volatile("" : "+" VREG(s[i]), "+" VREG(y)); \
            }                                                       \
        }                                                           \
    } while (0)

/* *operations says how many were done (a multiply-add is two). */
static void measure(int what, uint64_t rounds, double *operations) {
    VF x = v_set(1.0f);
    VI y = vi_set8(1);
    __asm__ volatile("" : "+" VREG(x), "+" VREG(y));
    if (what == MEASURE_INT8)
        PEAK_LOOP(VI, vi_zero(), DOT_8_PEAK(s[i], y));
    else if (what == MEASURE_BF16)
        PEAK_LOOP(VF, v_zero(), V_BF16_PEAK(s[i], y, x));
    else
        PEAK_LOOP(VF, v_zero(), v_fma(x, x, s[i]));
    *operations = (double)rounds * 12 * VW * 2 *
                  (what == MEASURE_INT8              ? 4
                   : what == MEASURE_BF16 && pairs() ? 2
                                                     : 1);
}

#define KERNELS(NAME, TEXT)                                                                              \
    const struct kernels NAME = {TEXT, TILE_ROWS, MOST_TILE_PANELS, STREAM_ROWS, pairs, quantise_joined, \
                                 tile, gate,      KV_KERNELS,       measure,     order}
