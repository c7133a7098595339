/* The AVX-512 table: 16 floats a vector, vpdpbusd for the integer products, tiles of 6 rows by 32 outputs. Only chip.c's choice at run time leads
 * here, because this file is compiled for processors that have these instructions. */
#include "chip/cpu/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define VW 16
#define VF __m512
#define VI __m512i
#define REGISTERS 32
#define VREG(x) "v"(x)
#define TILE_ROWS 6
#define MOST_TILE_PANELS 2
#define STREAM_ROWS 8
// clang-format off
#define FOR_ROWS(F, B, X)                                                                                   \
    F(B, X, 1, 1) F(B, X, 2, 1) F(B, X, 3, 1) F(B, X, 4, 1) F(B, X, 5, 1) F(B, X, 6, 1) F(B, X, 7, 1) F(B, X, 8, 1) \
    F(B, X, 1, 2) F(B, X, 2, 2) F(B, X, 3, 2) F(B, X, 4, 2) F(B, X, 5, 2) F(B, X, 6, 2)
// clang-format on
#define TILE_ROW(B, X)                                                                                  \
    {                                                                                                   \
        TILE_NAME(B, X, 1, 1), TILE_NAME(B, X, 2, 1), TILE_NAME(B, X, 3, 1), TILE_NAME(B, X, 4, 1),     \
            TILE_NAME(B, X, 5, 1), TILE_NAME(B, X, 6, 1), TILE_NAME(B, X, 7, 1), TILE_NAME(B, X, 8, 1), \
            TILE_NAME(B, X, 1, 2), TILE_NAME(B, X, 2, 2), TILE_NAME(B, X, 3, 2), TILE_NAME(B, X, 4, 2), \
            TILE_NAME(B, X, 5, 2), TILE_NAME(B, X, 6, 2)                                                \
    }

#define ATTEND_ROWS 8
#define FOR_ATTEND_ROWS(F, A, B) \
    F(A, B, 1) F(A, B, 2) F(A, B, 3) F(A, B, 4) F(A, B, 5) F(A, B, 6) F(A, B, 7) F(A, B, 8)

#define v_zero() _mm512_setzero_ps()
#define v_set(x) _mm512_set1_ps(x)
#define v_loadu(p) _mm512_loadu_ps(p)
#define v_storeu(p, x) _mm512_storeu_ps(p, x)
#define v_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define v_bf16(p)                          \
    _mm512_castsi512_ps(_mm512_slli_epi32( \
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(p))), 16))
#define v_u8(p) _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))))
#define v_add(a, b) _mm512_add_ps(a, b)
#define v_sub(a, b) _mm512_sub_ps(a, b)
#define v_mul(a, b) _mm512_mul_ps(a, b)
#define v_div(a, b) _mm512_div_ps(a, b)
#define v_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define v_min(a, b) _mm512_min_ps(a, b)
#define v_max(a, b) _mm512_max_ps(a, b)
#define v_top(a) _mm512_reduce_max_ps(a)
#define v_store16(p, x) \
    _mm256_storeu_si256((__m256i *)(void *)(p), _mm512_cvtsepi32_epi16(_mm512_cvtps_epi32(x)))
#define v_round(a) _mm512_roundscale_ps(a, 8)
#define v_scale2(p, n) _mm512_scalef_ps(p, n)
#define v_int(x) _mm512_cvtepi32_ps(x)
#define V_POWER(x) _mm512_getexp_ps(x)
#define V_TIMES(x, power) _mm512_scalef_ps(x, power)
#define vi_zero() _mm512_setzero_si512()
#define vi_set8(x) _mm512_set1_epi8(x)
#define vi_set32(x) _mm512_set1_epi32(x)
#define vi_loadu(p) _mm512_loadu_si512(p)
#define vi_storeu(p, x) _mm512_storeu_si512(p, x)
#define vi_wide8(p) _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)(p)))
#define vi_dot16(sum, a, b) dot_16(sum, a, b)
#define vi_and(a, b) _mm512_and_si512(a, b)
#define v_bits(x) _mm512_castsi512_ps(x)
#define vi_shl16(a) _mm512_slli_epi32(a, 16)
#define vi_shr4(a) _mm512_srli_epi16(a, 4)
#define vi_shl(a, n) _mm512_slli_epi32(a, n)
#define vi_sar(a, n) _mm512_srai_epi32(a, n)
#define vi_sar16(a, n) _mm512_srai_epi16(a, n)
#define vi_add(a, b) _mm512_add_epi32(a, b)
#define vi_add8(a, b) _mm512_add_epi8(a, b)
#define vi_table(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vi_look(table, i) _mm512_shuffle_epi8(table, i)
#define vi_add16(a, b) _mm512_add_epi16(a, b)
#define vi_mul15(a, b) _mm512_mulhrs_epi16(a, b)

#define START_4(start) _mm512_set1_epi32(start)
#define START_8(start) _mm512_set1_epi32(start)
#define END_4(sum, start) (sum)
#define DOT_4(sum, low, q0, high, q1) _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, low, q0), high, q1)
/* The second block's sum begins on top of the first's (x86_joined.inc.h); where it does, it has 0x8000 too many, so that it is not negative. */
#define JOIN(held, sum, start, second) \
    ((held) = vi_zero(), _mm512_add_epi32(_mm512_slli_epi32(sum, 16), _mm512_set1_epi32(second)))
#define JOINED(held, sum, second) ((void)(held), _mm512_xor_si512(sum, _mm512_set1_epi32(0x8000)))
#define DOT_8(sum, w, q) _mm512_dpbusd_epi32(sum, w, q)
#define FP4_OFFSET (-128)
#define START_FP4(start_8) START_8(start_8)
#define DOT_FP4(sum, low, q0, high, q1) DOT_8(DOT_8(sum, low, q0), high, q1)
#define DOT_8_PEAK(sum, y) _mm512_dpbusd_epi32(sum, y, y)
#define V_BF16_PEAK(f, y, x) (pairs() ? DOT_BF16(f, y, y) : v_fma(v_bits(y), v_bits(y), f))
#define DOT_BF16(sum, w, x) dot_bf16(sum, w, x)
#define KV_BF16_KERNELS \
    { bf16_bytes, bf16_write, bf16_attend }

/* Two bf16 products a lane, which Cooper Lake and Zen 4 brought. The compiler is not told, or it would use the rest of that set too. */
static bool pairs(void) {
    return __builtin_cpu_supports("avx512bf16");
}

static inline __attribute__((always_inline)) __m512 dot_bf16(__m512 sum, __m512i w, __m512i x) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(w), "v"(x));
    return sum;
}

/* 16 floats rounded to bf16, which came with the products. */
static inline __attribute__((always_inline)) void v_store_bf16(uint16_t *p, __m512 x) {
    __m256i halves;
    __asm__("vcvtneps2bf16 %1, %0" : "=v"(halves) : "v"(x));
    _mm256_storeu_si256((__m256i *)(void *)p, halves);
}

/* vpdpwssd; gcc 12 moves the sums of its own to other registers and back in every round of a loop. */
static inline __m512i dot_16(__m512i sum, __m512i a, __m512i b) {
    __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
}

static inline __m512 v_within(__m512 x, uint32_t at, uint32_t first, uint32_t end, float other) {
    __m512i i = _mm512_add_epi32(_mm512_set1_epi32((int)at),
                                 _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __mmask16 in = _mm512_cmpge_epu32_mask(i, _mm512_set1_epi32((int)first)) &
                   _mm512_cmplt_epu32_mask(i, _mm512_set1_epi32((int)end));
    return _mm512_mask_blend_ps(in, _mm512_set1_ps(other), x);
}

static inline float quantise_block(const float *x, int8_t *q, int32_t half[2]) {
    __m512 a = _mm512_loadu_ps(x), b = _mm512_loadu_ps(x + 16),
           m = _mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b));
    __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(m), _mm512_extractf32x8_ps(m, 1));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    m4 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    float most = _mm_cvtss_f32(_mm_max_ss(m4, _mm_movehdup_ps(m4)));
    __m512 inverse = _mm512_set1_ps(most > 0 ? 127 / most : 0);
    __m128i low = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, inverse))),
            high = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, inverse)));
    _mm_storeu_si128((__m128i *)(void *)q, low);
    _mm_storeu_si128((__m128i *)(void *)(q + 16), high);
    __m128i ones = _mm_set1_epi8(1), sums = _mm_hadd_epi32(_mm_dpbusd_epi32(_mm_setzero_si128(), ones, low),
                                                           _mm_dpbusd_epi32(_mm_setzero_si128(), ones, high));
    _mm_storel_epi64((__m128i *)(void *)half, _mm_hadd_epi32(sums, sums));
    return most / 127;
}

#include "chip/cpu/x86.inc.h"
#include "chip/cpu/x86_attention.inc.h"
#include "chip/cpu/x86_attention_bf16.inc.h"

KERNELS(kernels_avx512, "avx512");
