/* What the files of the ARM tables share. Products are in neon.inc.h, once for each table; attention, which both have in common, in neon_attention.c. */
#ifndef CHIP_CPU_NEON_H
#define CHIP_CPU_NEON_H

#include "chip/cpu/kernels.h"
#include "chip/cpu/unroll.h"

#include <arm_neon.h>

INLINE float32x4_t f16x4(const void *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

INLINE float32x4_t bf16x4(const void *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

/* sum += four codes of each of four outputs (or tokens, or dims) times four of q, which `lane` says. By hand, because gcc 12 moves the sums of its intrinsics to
 * other registers and back, of which there are none to spare. */
#define DOT_LANE(LANE) __asm__("sdot %0.4s, %1.16b, %2.4b[" #LANE "]" : "+w"(sum) : "w"(w), "w"(q))
INLINE int32x4_t dot_lane(int32x4_t sum, int8x16_t w, int8x16_t q, const int lane) {
    if (lane == 0)
        DOT_LANE(0);
    else if (lane == 1)
        DOT_LANE(1);
    else if (lane == 2)
        DOT_LANE(2);
    else
        DOT_LANE(3);
    return sum;
}

/* p is near 1 and n small and whole: adding to the exponent's bits multiplies by 2^n. */
INLINE float32x4_t v_scale2(float32x4_t p, float32x4_t n) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vcvtq_s32_f32(n), 23)));
}

size_t neon_f16_bytes(uint32_t dim);
void neon_f16_write(void *part, uint32_t slot, const float *k, const float *v, uint32_t dim);
void neon_f16_attend(const struct attend_block *b);
size_t neon_q8_bytes(uint32_t dim);
void neon_q8_write(void *part, uint32_t slot, const float *k, const float *v, uint32_t dim);
void neon_q8_attend(const struct attend_block *b);

#endif
