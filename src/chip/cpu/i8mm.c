/* The I8MM table: smmla for the integer products, which multiplies two rows by two outputs over eight inputs. Only chip.c's choice at run time leads
 * here, because this file is compiled for processors that have FEAT_I8MM. */
#define SUM_ROWS 2
#include "chip/cpu/neon.inc.h"

/* Each vector holds two outputs of eight inputs: 4-bit codes the outputs 0 and 1 in low halves, 2 and 3 in high ones. */
INLINE uint8x16x2_t order_8(uint8x16x2_t w) {
    uint32x4_t a = vreinterpretq_u32_u8(w.val[0]), b = vreinterpretq_u32_u8(w.val[1]);
    return (uint8x16x2_t){{vreinterpretq_u8_u32(vzip1q_u32(a, b)), vreinterpretq_u8_u32(vzip2q_u32(a, b))}};
}

INLINE uint8x16_t order_4(uint8x16_t w) {
    uint8x16x2_t x = order_8((uint8x16x2_t){{vandq_u8(w, vdupq_n_u8(15)), vshrq_n_u8(w, 4)}});
    return vorrq_u8(x.val[0], vshlq_n_u8(x.val[1], 4));
}

/* A row that has no second is its own. */
INLINE int8x16_t twice(int8x8_t x) {
    return vcombine_s8(x, x);
}

/* sum += two rows times two outputs; by hand for the same reason as dot_lane. */
INLINE int32x4_t multiply_2x2(int32x4_t sum, int8x16_t q, int8x16_t w) {
    __asm__("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(q), "w"(w));
    return sum;
}

INLINE void sums_add(int32x4_t sum[SLOTS], const int8_t *codes, const int rows, const int j,
                     const int8x16_t w[4]) {
    int8x16_t q = rows == 2 ? vld1q_s8(codes + j * 16) : twice(vld1_s8(codes + j * 8));
    UNROLL
    for (int s = 0; s < SLOTS; s++)
        sum[s] = multiply_2x2(sum[s], q, w[s]);
}

INLINE float32x4_t line_spread(const float *x, const int rows) {
    if (rows == 1)
        return vld1q_dup_f32(x);
    float32x2_t y = vld1_f32(x);
    return vcombine_f32(vdup_lane_f32(y, 0), vdup_lane_f32(y, 1));
}

INLINE float32x4_t slot_spread(const float32x4_t x[2], const int slot) {
    float64x2_t y = vreinterpretq_f64_f32(x[slot / 2]);
    return vreinterpretq_f32_f64(slot % 2 ? vdupq_laneq_f64(y, 1) : vdupq_laneq_f64(y, 0));
}

INLINE float32x4_t line_row(const float32x4_t sum[SLOTS], const int row, const int c) {
    float32x4_t a = sum[2 * c], b = sum[2 * c + 1];
    return row ? vcombine_f32(vget_high_f32(a), vget_high_f32(b))
               : vcombine_f32(vget_low_f32(a), vget_low_f32(b));
}

INLINE int32x4_t int8_peak(int32x4_t sum, int8x16_t x) {
    return multiply_2x2(sum, x, x);
}

KERNELS(kernels_i8mm, "i8mm");
