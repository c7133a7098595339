/* The kernels of the ARM tables over vectors of 128 bits, written once. neon.c and i8mm.c say how many rows a vector of sums holds (SUM_ROWS), include
 * this, and define how codes and rows meet. A tile takes its outputs in octets: the int32 sums of up to TILE_ROWS rows by 8 outputs fill half of the
 * registers for one block, then join float sums in memory, which the nearest cache holds. Each output is summed block by block: exact int32
 * inside a block, then one multiply-add with the product of the scales (and one for the minimum), in that order in every tile, so that a row's
 * bits never depend on its neighbours. */
#include "chip/cpu/neon.h"

#include <string.h>
#include <sys/auxv.h>

enum { TILE_ROWS = 8, TILE_PANELS = 2, OCTET = 8, OCTETS = PANEL / OCTET };
/* A vector of sums holds SUM_ROWS rows by 4 / SUM_ROWS outputs. A line is the rows of one such vector, a slot its outputs within the octet. */
enum { LINES = TILE_ROWS / SUM_ROWS, SLOTS = OCTET * SUM_ROWS / 4 };
#define LINES_OF(NR) (((NR) + SUM_ROWS - 1) / SUM_ROWS)

/* ---- what a table defines ---- */

/* 16 bytes of 4-bit codes as packed, four outputs by (inputs 0-3 in low halves, 4-7 in high ones), into the table's order. */
INLINE uint8x16_t order_4(uint8x16_t w);
/* The same of 8-bit codes: in, inputs 0-3 and 4-7 of four outputs; out, what sums_add takes as its first and second. */
INLINE uint8x16x2_t order_8(uint8x16x2_t w);
/* sum += inputs 8 j to 8 j + 7 of a line's rows times those of the octet: w[0], w[1] of outputs 0 to 3, w[2], w[3] of 4 to 7. */
INLINE void sums_add(int32x4_t sum[SLOTS], const int8_t *codes, const int rows, const int j,
                     const int8x16_t w[4]);
/* The value of each row of a line, or of each output of a slot (x: of the octet), where a vector of sums has that row or output. */
INLINE float32x4_t line_spread(const float *x, const int rows);
INLINE float32x4_t slot_spread(const float32x4_t x[2], const int slot);
/* Outputs 4 c to 4 c + 3 of a row of a line. */
INLINE float32x4_t line_row(const float32x4_t sum[SLOTS], const int row, const int c);
/* sum += this table's dot products of x and x. */
INLINE int32x4_t int8_peak(int32x4_t sum, int8x16_t x);

/* ---- forms ---- */

INLINE bool has_nibbles(const enum form form) {
    return form == FORM_4 || form == FORM_4M || form == FORM_4K || form == FORM_4E;
}

INLINE bool has_min(const enum form form) {
    return form == FORM_4M || form == FORM_4K || form == FORM_8M || form == FORM_8SM;
}

/* A block is one or two parts: `head` bytes of scales and minimums, then codes. */
INLINE int parts_of(const enum form form) {
    return form == FORM_8S || form == FORM_8SM ? 2 : 1;
}

INLINE int code_bytes(const enum form form) {
    return BLOCK * PANEL / (has_nibbles(form) ? 2 : parts_of(form));
}

INLINE int head_bytes(const enum form form) {
    return (int)form_block_bytes(form) / parts_of(form) - code_bytes(form);
}

/* Where block b of a panel begins: at its scales, for FORM_4K behind the superblock's. */
INLINE size_t block_offset(uint32_t b, const enum form form) {
    return b * form_block_bytes(form) + (form == FORM_4K ? (b / 8 + 1) * SUPER_BYTES : 0);
}

/* Into the table's own order; codes become signed, as these products want them, so that no offset is left but minimums. */
static void order(const struct chip_matrix *m, uint8_t *panel) {
    const enum form form = m->form;
    if (form >= FORM_F32)
        return;
    uint8x16_t flip = vdupq_n_u8(form == FORM_4 ? 0x88 : has_nibbles(form) ? 0 : 0x80);
    for (uint32_t b = 0; b < (m->inputs + BLOCK - 1) / BLOCK; b++) {
        uint8_t *p = panel + block_offset(b, form);
        for (int part = 0; part < parts_of(form); part++, p += code_bytes(form)) {
            p += head_bytes(form);
            if (has_nibbles(form)) {
                for (int i = 0; i < code_bytes(form); i += 16)
                    vst1q_u8(p + i, veorq_u8(order_4(vld1q_u8(p + i)), flip));
                continue;
            }
            for (int i = 0; i < code_bytes(form); i += 128)
                for (int c = 0; c < 64; c += 16) {
                    uint8_t *q = p + i + c;
                    uint8x16x2_t w = order_8((uint8x16x2_t){{vld1q_u8(q), vld1q_u8(q + 64)}});
                    vst1q_u8(q, veorq_u8(w.val[0], flip));
                    vst1q_u8(q + 64, veorq_u8(w.val[1], flip));
                }
        }
    }
}

static bool pairs(void) {
    return getauxval(AT_HWCAP2) & HWCAP2_BF16;
}

/* ---- rows ---- */

/* A block of n rows (kernels.h says what it is for): the codes of line after line, where two rows of a line change every 8 inputs; then these floats,
 * each for n rows. The weights' codes are signed here, so no sum needs a start. */
enum { AT_SCALE, AT_SCALED_SUM, AT_SCALED_HALF }; /* two of the last */
INLINE float *block_floats(const uint8_t *block, int n, int what) {
    return (float *)(void *)(uintptr_t)(block + n * (BLOCK + 4 * what));
}

/* BLOCK inputs from i on, normed; beyond the end of the row zeros. */
INLINE void norm_block(float *x, const float *in, uint32_t i, uint32_t n, const float *norm, float f) {
    if (i + BLOCK <= n) {
        for (uint32_t j = 0; j < BLOCK; j += 4) {
            float32x4_t v = vld1q_f32(in + i + j);
            vst1q_f32(x + j, norm ? vmulq_f32(vmulq_n_f32(v, f), vld1q_f32(norm + i + j)) : v);
        }
        return;
    }
    for (uint32_t j = 0; j < BLOCK; j++)
        x[j] = i + j >= n ? 0 : norm ? in[i + j] * f * norm[i + j] : in[i + j];
}

/* Where inputs 8 j to 8 j + 7 of row i of n stand. */
INLINE int8_t *block_piece(uint8_t *block, uint32_t n, uint32_t i, uint32_t j) {
    uint32_t first = i / SUM_ROWS * SUM_ROWS, rows = n - first < SUM_ROWS ? n - first : SUM_ROWS;
    return (int8_t *)block + first * BLOCK + (j * rows + i - first) * 8;
}

/* Quantise BLOCK values into row i of a block of n rows; the scale is returned. */
INLINE float block_codes(uint8_t *block, uint32_t n, uint32_t i, const float *x) {
    float32x4_t most = vdupq_n_f32(0);
    UNROLL
    for (int k = 0; k < BLOCK; k += 4)
        most = vmaxq_f32(most, vabsq_f32(vld1q_f32(x + k)));
    float top = vmaxvq_f32(most), inverse = top > 0 ? 127 / top : 0, scale = top / 127;
    int16_t sum[BLOCK / 8];
    UNROLL
    for (uint32_t j = 0; j < BLOCK / 8; j++) {
        int32x4_t a = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8 * j), inverse)),
                  b = vcvtnq_s32_f32(vmulq_n_f32(vld1q_f32(x + 8 * j + 4), inverse));
        int16x8_t q = vcombine_s16(vqmovn_s32(a), vqmovn_s32(b));
        vst1_s8(block_piece(block, n, i, j), vqmovn_s16(q));
        sum[j] = vaddvq_s16(q);
    }
    int first = sum[0] + sum[1], second = sum[2] + sum[3];
    block_floats(block, (int)n, AT_SCALE)[i] = scale;
    block_floats(block, (int)n, AT_SCALED_SUM)[i] = scale * (float)(first + second);
    block_floats(block, (int)n, AT_SCALED_HALF)[i] = scale * (float)first;
    block_floats(block, (int)n, AT_SCALED_HALF + 1)[i] = scale * (float)second;
    return scale;
}

/* What the codes of row i leave of x. */
INLINE void block_rest(uint8_t *block, uint32_t n, uint32_t i, float *x) {
    float scale = block_floats(block, (int)n, AT_SCALE)[i];
    for (uint32_t j = 0; j < BLOCK; j++)
        x[j] -= scale * (float)block_piece(block, n, i, j / 8)[j % 8];
}

INLINE float block_scale(const uint8_t *block, uint32_t n, uint32_t i) {
    return block_floats(block, (int)n, AT_SCALE)[i];
}

/* Round BLOCK values to the nearest bf16, ties to even. */
INLINE void block_halves(uint16_t *to, const float *x) {
    UNROLL
    for (int i = 0; i < BLOCK; i += 4) {
        uint32x4_t bits = vreinterpretq_u32_f32(vld1q_f32(x + i)),
                   odd = vandq_u32(vshrq_n_u32(bits, 16), vdupq_n_u32(1));
        vst1_u16(to + i, vshrn_n_u32(vaddq_u32(vaddq_u32(bits, vdupq_n_u32(0x7fff)), odd), 16));
    }
}

#include "chip/cpu/quantise.inc.h"

/* ---- products of codes ---- */

/* The scales of the octet's outputs in a part that begins at p, and its minimums; d, dmin: FORM_4K's superblock. */
INLINE void octet_scales(const uint8_t *p, const int octet, const enum form form, const float32x4_t *d,
                         const float32x4_t *dmin, float32x4_t scale[2], float32x4_t min[2]) {
    if (form == FORM_4K) {
        uint16x8_t s = vmovl_u8(vld1_u8(p + octet * OCTET)), m = vmovl_u8(vld1_u8(p + PANEL + octet * OCTET));
        scale[0] = vmulq_f32(d[0], vcvtq_f32_u32(vmovl_u16(vget_low_u16(s))));
        scale[1] = vmulq_f32(d[1], vcvtq_f32_u32(vmovl_high_u16(s)));
        min[0] = vnegq_f32(vmulq_f32(dmin[0], vcvtq_f32_u32(vmovl_u16(vget_low_u16(m)))));
        min[1] = vnegq_f32(vmulq_f32(dmin[1], vcvtq_f32_u32(vmovl_high_u16(m))));
        return;
    }
    const int wide = has_nibbles(form) || form == FORM_8 ? 2 : 4;
    UNROLL
    for (int c = 0; c < 2; c++) {
        const uint8_t *at = p + (octet * OCTET + c * 4) * wide;
        scale[c] = form == FORM_4E ? bf16x4(at)
                   : wide == 2     ? f16x4(at)
                                   : vld1q_f32((const float *)(const void *)at);
        if (form == FORM_4)
            scale[c] = vmulq_n_f32(scale[c], 1.0f / 16); /* octet_codes */
        if (has_min(form))
            min[c] = wide == 2 ? f16x4(at + PANEL * wide)
                               : vld1q_f32((const float *)(const void *)(at + PANEL * wide));
    }
}

/* Inputs 8 j to 8 j + 7 of an octet whose codes begin at p. FORM_4's come out sixteen times too large, which saves a shift. */
INLINE void octet_codes(const uint8_t *p, const int j, const enum form form, int8x16_t w[4]) {
    UNROLL
    for (int c = 0; c < 2; c++) {
        const uint8_t *at = p + (has_nibbles(form) ? j : 2 * j) * 64 + c * 16;
        uint8x16_t x = vld1q_u8(at);
        if (form == FORM_4) {
            w[2 * c] = vreinterpretq_s8_u8(vshlq_n_u8(x, 4));
            w[2 * c + 1] = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(0xf0)));
        } else if (form == FORM_4E) {
            const int8x16_t codes = vld1q_s8(fp4_codes);
            w[2 * c] = vqtbl1q_s8(codes, vandq_u8(x, vdupq_n_u8(15)));
            w[2 * c + 1] = vqtbl1q_s8(codes, vshrq_n_u8(x, 4));
        } else if (has_nibbles(form)) {
            w[2 * c] = vreinterpretq_s8_u8(vandq_u8(x, vdupq_n_u8(15)));
            w[2 * c + 1] = vreinterpretq_s8_u8(vshrq_n_u8(x, 4));
        } else {
            w[2 * c] = vreinterpretq_s8_u8(x);
            w[2 * c + 1] = vreinterpretq_s8_u8(vld1q_u8(at + 64));
        }
    }
}

INLINE int line_rows(const int nr, const int line) {
    return nr - line * SUM_ROWS < SUM_ROWS ? nr - line * SUM_ROWS : SUM_ROWS;
}

/* Sums start at the bits of the float 1.5 * 2^23: one as small as a block's then is its own number beyond that, in the last bits of a float, and a subtraction makes a float of it
 * where a conversion would take one pipeline of two twice. */
#define SUM_START vreinterpretq_s32_f32(vdupq_n_f32(12582912))
INLINE float32x4_t sum_float(int32x4_t sum) {
    return vsubq_f32(vreinterpretq_f32_s32(sum), vdupq_n_f32(12582912));
}

/* acc += a block of nr rows times the octet of the block of weights at p. */
INLINE void octet_multiply(const uint8_t *rows, const int nr, const uint8_t *p, const int octet,
                           const enum form form, const float32x4_t *d, const float32x4_t *dmin,
                           float32x4_t acc[LINES][SLOTS]) {
    const int parts = parts_of(form), groups = BLOCK / 8 / parts, lines = LINES_OF(nr);
    UNROLL
    for (int part = 0; part < parts; part++, p += head_bytes(form) + code_bytes(form)) {
        int32x4_t sum[LINES][SLOTS];
        UNROLL
        for (int i = 0; i < lines; i++)
            UNROLL
        for (int s = 0; s < SLOTS; s++)
            sum[i][s] = SUM_START;
        UNROLL
        for (int j = 0; j < groups; j++) {
            int8x16_t w[4];
            octet_codes(p + head_bytes(form) + octet * OCTET * 4, j, form, w);
            UNROLL
            for (int i = 0; i < lines; i++)
                sums_add(sum[i], (const int8_t *)rows + i * SUM_ROWS * BLOCK, line_rows(nr, i),
                         part * groups + j, w);
        }
        float32x4_t scale[2], min[2] = {vdupq_n_f32(0), vdupq_n_f32(0)};
        octet_scales(p, octet, form, d, dmin, scale, min);
        UNROLL
        for (int i = 0; i < lines; i++) {
            const int at = i * SUM_ROWS, n = line_rows(nr, i),
                      offset = parts == 2 ? AT_SCALED_HALF + part : AT_SCALED_SUM;
            float32x4_t as = line_spread(block_floats(rows, nr, AT_SCALE) + at, n),
                        am = line_spread(block_floats(rows, nr, offset) + at, n);
            UNROLL
            for (int s = 0; s < SLOTS; s++) {
                acc[i][s] = vfmaq_f32(acc[i][s], sum_float(sum[i][s]), vmulq_f32(slot_spread(scale, s), as));
                if (has_min(form))
                    acc[i][s] = vfmaq_f32(acc[i][s], slot_spread(min, s), am);
            }
        }
    }
}

/* FORM_4K: the scales of the superblock at p. */
INLINE void super_scales(const uint8_t *p, const int octet, float32x4_t d[2], float32x4_t dmin[2]) {
    UNROLL
    for (int c = 0; c < 2; c++) {
        d[c] = f16x4(p + (octet * OCTET + c * 4) * 2);
        dmin[c] = f16x4(p + (PANEL + octet * OCTET + c * 4) * 2);
    }
}

/* The weights at p are about to be used: ask for those `ahead` of them. A single panel is streamed and wanted in the nearest cache; two are
 * asked for long before they are needed. */
INLINE void block_prefetch(const struct tile *t, const uint8_t *p, const int bytes) {
    UNROLL
    for (int j = 0; j < bytes; j += 64) {
        if (t->panels == 1)
            __builtin_prefetch(p + t->ahead + j, 0, 3);
        else
            __builtin_prefetch(p + t->ahead + j, 0, 2);
    }
}

INLINE void octet_store(float *out, size_t stride, const int nr, float32x4_t acc[LINES][SLOTS], bool add) {
    UNROLL
    for (int r = 0; r < nr; r++)
        UNROLL
    for (int c = 0; c < 2; c++) {
        float *at = out + r * stride + 4 * c;
        float32x4_t y = line_row(acc[r / SUM_ROWS], r % SUM_ROWS, c);
        vst1q_f32(at, add ? vaddq_f32(vld1q_f32(at), y) : y);
    }
}

INLINE void tile_codes(const struct tile *t, const int nr, const enum form form) {
    const int step = (int)form_block_bytes(form);
    const uint8_t *p = t->w->packed + t->panel * t->w->panel_bytes + block_offset(0, form),
                  *rows = t->a->codes + (size_t)t->row * t->a->blocks * ROW_BYTES;
    float32x4_t acc[TILE_PANELS * OCTETS][LINES][SLOTS], d[TILE_PANELS * OCTETS][2],
        dmin[TILE_PANELS * OCTETS][2];
    uint32_t left = t->ask;
    for (uint32_t o = 0; o < t->panels * OCTETS; o++)
        for (int i = 0; i < LINES_OF(nr); i++)
            for (int s = 0; s < SLOTS; s++)
                acc[o][i][s] = vdupq_n_f32(0);
    for (uint32_t b = 0; b < t->a->blocks; b++, p += step, rows += nr * ROW_BYTES) {
        bool super = form == FORM_4K && b % 8 == 0;
        bool turn = left-- == 0;
        left = turn ? t->asks - 1 : left;
        p += super && b ? SUPER_BYTES : 0;
        for (uint32_t k = 0; k < t->panels; k++) {
            const uint8_t *at = p + k * t->w->panel_bytes;
            if (turn)
                block_prefetch(t, at, step);
            for (int o = 0; o < OCTETS; o++) {
                const uint32_t i = k * OCTETS + (uint32_t)o;
                if (super)
                    super_scales(at - SUPER_BYTES, o, d[i], dmin[i]);
                octet_multiply(rows, nr, at, o, form, d[i], dmin[i], acc[i]);
            }
        }
    }
    for (uint32_t o = 0; o < t->panels * OCTETS; o++)
        octet_store(t->out + o * OCTET, t->stride, nr, acc[o], t->add);
}

/* Add to a tile's row the blocks that were quantised twice; one panel. */
INLINE void further_codes(const struct tile *t, uint32_t r, uint32_t panel, float *out,
                          const enum form form) {
    const struct further *at = t->a->further + r * (size_t)t->a->most_further;
    for (uint32_t k = 0; k < t->a->further_n[r]; k++, at++) {
        const uint8_t *p = t->w->packed + panel * t->w->panel_bytes + block_offset(at->number, form);
        for (int o = 0; o < OCTETS; o++) {
            float32x4_t d[2], dmin[2], acc[LINES][SLOTS],
                x[2] = {vld1q_f32(out + o * OCTET), vld1q_f32(out + o * OCTET + 4)};
            if (form == FORM_4K)
                super_scales(p - at->number % 8 * form_block_bytes(form) - SUPER_BYTES, o, d, dmin);
            UNROLL
            for (int s = 0; s < SLOTS; s++)
                acc[0][s] = slot_spread(x, s);
            octet_multiply(at->block, 1, p, o, form, d, dmin, acc);
            octet_store(out + o * OCTET, 0, 1, acc, false);
        }
    }
}

/* ---- products of floats ---- */

INLINE void span_clear(const int nr, const int nv, float32x4_t acc[TILE_ROWS][PANEL / 4]) {
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[i][v] = vdupq_n_f32(0);
}

INLINE void span_store(const struct tile *t, float *out, const int nr, const int nv,
                       float32x4_t acc[TILE_ROWS][PANEL / 4]) {
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++) {
        float *at = out + i * t->stride + v * 4;
        vst1q_f32(at, t->add ? vaddq_f32(vld1q_f32(at), acc[i][v]) : acc[i][v]);
    }
}

/* Four outputs of the first (j = 0) or second of two inputs that begin at p; FORM_BF16 keeps both of an output side by side. */
INLINE float32x4_t weights_4(const uint8_t *p, const int j, const enum form form) {
    if (form == FORM_F32)
        return vld1q_f32((const float *)(const void *)p + j * PANEL);
    if (form == FORM_F16)
        return f16x4(p + j * PANEL * 2);
    uint32x4_t both = vld1q_u32((const uint32_t *)(const void *)p);
    return vreinterpretq_f32_u32(j ? vandq_u32(both, vdupq_n_u32(0xffff0000)) : vshlq_n_u32(both, 16));
}

/* nr rows by nv vectors of a panel's outputs from `column` on. */
INLINE void span_float(const struct tile *t, uint32_t panel, const int column, const int nr, const int nv,
                       const enum form form) {
    const int wide = form == FORM_F16 ? 2 : 4, step = PANEL * (form == FORM_F32 ? 8 : 4);
    const struct quantised *a = t->a;
    const uint8_t *p = t->w->packed + (t->panel + panel) * t->w->panel_bytes + column * wide;
    const float *x = a->x + t->row * (size_t)a->padded;
    float32x4_t acc[TILE_ROWS][PANEL / 4];
    span_clear(nr, nv, acc);
    for (uint32_t k = 0; k < a->padded; k += 2, p += step)
        UNROLL
    for (int j = 0; j < 2; j++) {
        float32x4_t w[PANEL / 4];
        UNROLL
        for (int v = 0; v < nv; v++)
            w[v] = weights_4(p + v * 4 * wide, j, form);
        UNROLL
        for (int i = 0; i < nr; i++)
            UNROLL
        for (int v = 0; v < nv; v++)
            acc[i][v] = vfmaq_n_f32(acc[i][v], w[v], x[i * (size_t)a->padded + k + j]);
    }
    span_store(t, t->out + panel * PANEL + column, nr, nv, acc);
}

/* sum += two products of bf16 in each lane. The compiler is not told that the processor has them: pairs() asks it. */
#define DOT_PAIRS(LANE) \
    __asm__(".arch_extension bf16\n\tbfdot %0.4s, %1.8h, %2.2h[" #LANE "]" : "+w"(sum) : "w"(w), "w"(x))
INLINE float32x4_t dot_pairs(float32x4_t sum, uint16x8_t w, uint16x8_t x, const int lane) {
    if (lane == 0)
        DOT_PAIRS(0);
    else if (lane == 1)
        DOT_PAIRS(1);
    else if (lane == 2)
        DOT_PAIRS(2);
    else
        DOT_PAIRS(3);
    return sum;
}

/* The same with rows and weights in bf16. */
INLINE void span_halves(const struct tile *t, uint32_t panel, const int column, const int nr, const int nv) {
    const uint8_t *p = t->w->packed + (t->panel + panel) * t->w->panel_bytes + column * 4;
    const uint16_t *rows = t->a->halves + (size_t)t->row * t->a->padded;
    float32x4_t acc[TILE_ROWS][PANEL / 4];
    span_clear(nr, nv, acc);
    for (uint32_t b = 0; b < t->a->blocks; b++, rows += nr * BLOCK)
        for (int k = 0; k < BLOCK; k += 8) {
            uint16x8_t x[TILE_ROWS];
            UNROLL
            for (int i = 0; i < nr; i++)
                x[i] = vld1q_u16(rows + i * BLOCK + k);
            UNROLL
            for (int lane = 0; lane < 4; lane++, p += PANEL * 4)
                UNROLL
            for (int v = 0; v < nv; v++) {
                uint16x8_t w = vld1q_u16((const uint16_t *)(const void *)p + v * 8);
                UNROLL
                for (int i = 0; i < nr; i++)
                    acc[i][v] = dot_pairs(acc[i][v], w, x[i], lane);
            }
        }
    span_store(t, t->out + panel * PANEL + column, nr, nv, acc);
}

INLINE void tile_float(const struct tile *t, const int nr, const enum form form) {
    const int columns = nr <= TILE_ROWS / 2 ? PANEL : OCTET; /* either way at most half of the registers */
    for (uint32_t k = 0; k < t->panels; k++)
        for (int column = 0; column < PANEL; column += columns)
            if (form == FORM_BF16 && t->a->halves)
                span_halves(t, k, column, nr, columns / 4);
            else
                span_float(t, k, column, nr, columns / 4, form);
}

/* ---- the tables of tiles ---- */

/* One function for each form and number of rows, so that the sums live in registers. */
#define TILE(BODY, FORM, NR)                                 \
    static void BODY##_##FORM##_##NR(const struct tile *t) { \
        BODY(t, NR, FORM);                                   \
    }
#define TILES(BODY, FORM) \
    TILE(BODY, FORM, 1)   \
    TILE(BODY, FORM, 2)   \
    TILE(BODY, FORM, 3)   \
    TILE(BODY, FORM, 4) TILE(BODY, FORM, 5) TILE(BODY, FORM, 6) TILE(BODY, FORM, 7) TILE(BODY, FORM, 8)
#define NAMES(BODY, FORM)                                                                          \
    BODY##_##FORM##_1, BODY##_##FORM##_2, BODY##_##FORM##_3, BODY##_##FORM##_4, BODY##_##FORM##_5, \
        BODY##_##FORM##_6, BODY##_##FORM##_7, BODY##_##FORM##_8
#define CODES(FORM)                                                                            \
    TILES(tile_codes, FORM)                                                                    \
    static void further_##FORM(const struct tile *t, uint32_t r, uint32_t panel, float *out) { \
        further_codes(t, r, panel, out, FORM);                                                 \
    }
#define CODES_ROW(FORM) [FORM] = {{NAMES(tile_codes, FORM)}, further_##FORM}
#define FLOATS_ROW(FORM) [FORM] = {{NAMES(tile_float, FORM)}, NULL}
CODES(FORM_4)
CODES(FORM_4M)
CODES(FORM_4K)
CODES(FORM_4E)
CODES(FORM_8)
CODES(FORM_8M)
CODES(FORM_8S)
CODES(FORM_8SM)
TILES(tile_float, FORM_F32)
TILES(tile_float, FORM_F16)
TILES(tile_float, FORM_BF16)

static const struct {
    void (*tile[TILE_ROWS])(const struct tile *t); /* by rows less one */
    void (*further)(const struct tile *t, uint32_t r, uint32_t panel, float *out);
} tile_table[] = {
    CODES_ROW(FORM_4),    CODES_ROW(FORM_4M),   CODES_ROW(FORM_4K),    CODES_ROW(FORM_4E),
    CODES_ROW(FORM_8),    CODES_ROW(FORM_8M),   CODES_ROW(FORM_8S),    CODES_ROW(FORM_8SM),
    FLOATS_ROW(FORM_F32), FLOATS_ROW(FORM_F16), FLOATS_ROW(FORM_BF16),
};

static void tile(const struct tile *t) {
    enum form form = t->w->form;
    tile_table[form].tile[t->rows - 1](t);
    for (uint32_t i = 0; tile_table[form].further && i < t->rows; i++)
        for (uint32_t k = 0; t->a->further_n[t->row + i] && k < t->panels; k++)
            tile_table[form].further(t, t->row + i, t->panel + k, t->out + i * t->stride + k * PANEL);
}

/* ---- elementwise ---- */

/* e^x within about 1 ulp of float: 2^n times a polynomial of degree 7 on [-ln2 / 2, ln2 / 2] (Taylor's, whose error there is 1e-8). */
INLINE float32x4_t v_exp(float32x4_t x) {
    static const float term[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1, 1};
    x = vminq_f32(vmaxq_f32(x, vdupq_n_f32(-87)), vdupq_n_f32(88));
    float32x4_t n = vrndnq_f32(vmulq_n_f32(x, 1.44269504f)), p = vdupq_n_f32(1.0f / 5040);
    float32x4_t r = vfmaq_n_f32(vfmaq_n_f32(x, n, -0.693145752f), n, -1.42860677e-6f);
    UNROLL
    for (size_t i = 0; i < sizeof term / sizeof *term; i++)
        p = vfmaq_f32(vdupq_n_f32(term[i]), p, r);
    return v_scale2(p, n);
}

static void gate(enum arch_activation f, const float *g, const float *up, uint32_t rows, float *out,
                 size_t stride) {
    const float32x4_t one = vdupq_n_f32(1);
    for (uint32_t r = 0; r < rows; r++, out += stride)
        for (uint32_t i = 0; i < COLUMNS; i += 4, g += 4, up += 4) {
            float32x4_t x = vld1q_f32(g), z = x;
            if (f == ARCH_GELU_TANH) /* (1 + tanh(u)) / 2 = 1 / (1 + e^-2u) */
                z = vmulq_f32(vmulq_n_f32(x, 1.59576912f), vfmaq_n_f32(one, vmulq_f32(x, x), 0.044715f));
            z = vdivq_f32(x, vaddq_f32(one, v_exp(vnegq_f32(z))));
            vst1q_f32(out + i, vmulq_f32(z, vld1q_f32(up)));
        }
}

/* ---- peaks ---- */

/* Four by four bf16 products where the processor has them; else bf16 is computed as fp32. */
INLINE float32x4_t bf16_peak(float32x4_t sum, float32x4_t x) {
    __asm__(".arch_extension bf16\n\tbfmmla %0.4s, %1.8h, %1.8h" : "+w"(sum) : "w"(x));
    return sum;
}

/* Twelve independent chains of one operation; the empty asm keeps the compiler from doing them in its head. */
#define PEAK_LOOP(T, X, START, STEP)                        \
    do {                                                    \
        T s[12];                                            \
        UNROLL                                              \
        for (int i = 0; i < 12; i++)                        \
            s[i] = START;                                   \
        for (uint64_t n = 0; n < rounds; n++) {             \
            UNROLL                                          \
            for (int i = 0; i < 12; i++) {                  \
                s[i] = STEP;                                \
                __asm__ volatile("" : "+w"(s[i]), "+w"(X)); \
            }                                               \
        }                                                   \
    } while (0)

/* *operations says how many were done (a multiply-add is two). */
static void measure(int what, uint64_t rounds, double *operations) {
    float32x4_t x = vdupq_n_f32(1);
    int8x16_t y = vdupq_n_s8(1);
    bool bf16 = what == MEASURE_BF16 && pairs();
    if (what == MEASURE_INT8)
        PEAK_LOOP(int32x4_t, y, vdupq_n_s32(0), int8_peak(s[i], y));
    else if (bf16)
        PEAK_LOOP(float32x4_t, x, vdupq_n_f32(0), bf16_peak(s[i], x));
    else
        PEAK_LOOP(float32x4_t, x, vdupq_n_f32(0), vfmaq_f32(s[i], x, x));
    *operations = (double)rounds * 12 * 4 * 2 * (what == MEASURE_INT8 ? 4 * SUM_ROWS : bf16 ? 4 : 1);
}

#define KERNELS(NAME, TEXT)                                                  \
    const struct kernels NAME = {                                            \
        .name = TEXT,                                                        \
        .tile_rows = TILE_ROWS,                                              \
        .tile_panels = TILE_PANELS,                                          \
        .stream_rows = TILE_ROWS,                                            \
        .pairs = pairs,                                                      \
        .quantise = quantise,                                                \
        .tile = tile,                                                        \
        .gate = gate,                                                        \
        .kv = {[KV_F16] = {neon_f16_bytes, neon_f16_write, neon_f16_attend}, \
               [KV_Q8] = {neon_q8_bytes, neon_q8_write, neon_q8_attend}},    \
        .measure = measure,                                                  \
        .order = order,                                                      \
    }
