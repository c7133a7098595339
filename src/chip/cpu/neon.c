/* The NEON table: sdot for the integer products, a row and four outputs in a vector of sums. Only chip.c's choice at run time leads here, because
 * this file is compiled for processors that have FEAT_DotProd. */
#define SUM_ROWS 1
#include "chip/cpu/neon.inc.h"

/* What pack.c makes is what sdot takes. */
INLINE uint8x16_t order_4(uint8x16_t w) {
    return w;
}

INLINE uint8x16x2_t order_8(uint8x16x2_t w) {
    return w;
}

INLINE void sums_add(int32x4_t sum[SLOTS], const int8_t *codes, const int rows, const int j,
                     const int8x16_t w[4]) {
    int8x16_t q = vld1q_s8(codes + j / 2 * 16);
    UNROLL
    for (int c = 0; c < 2; c++)
        sum[c] = dot_lane(dot_lane(sum[c], w[2 * c], q, j % 2 * 2), w[2 * c + 1], q, j % 2 * 2 + 1);
}

INLINE float32x4_t line_spread(const float *x, const int rows) {
    return vld1q_dup_f32(x);
}

INLINE float32x4_t slot_spread(const float32x4_t x[2], const int slot) {
    return x[slot];
}

INLINE float32x4_t line_row(const float32x4_t sum[SLOTS], const int row, const int c) {
    return sum[c];
}

INLINE int32x4_t int8_peak(int32x4_t sum, int8x16_t x) {
    return vdotq_s32(sum, x, x);
}

KERNELS(kernels_neon, "neon");
