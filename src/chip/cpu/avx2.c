/* The AVX2 table: 8 floats a vector, vpmaddubsw for the integer products, tiles of 2 rows by 16 outputs. Only chip.c's choice at run time leads here,
 * because this file is compiled for processors that have these instructions. */
#include "chip/cpu/kernels.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#define VW 8
#define VF __m256
#define VI __m256i
#define REGISTERS 16
#define VREG(x) "x"(x)
#define TILE_ROWS 2
#define MOST_TILE_PANELS 1
#define STREAM_ROWS 2
#define FOR_ROWS(F, B, X) F(B, X, 1, 1) F(B, X, 2, 1)
#define TILE_ROW(B, X) \
    { TILE_NAME(B, X, 1, 1), TILE_NAME(B, X, 2, 1) }

#define ATTEND_ROWS 3
#define FOR_ATTEND_ROWS(F, A, B) F(A, B, 1) F(A, B, 2) F(A, B, 3)

#define v_zero() _mm256_setzero_ps()
#define v_set(x) _mm256_set1_ps(x)
#define v_loadu(p) _mm256_loadu_ps(p)
#define v_storeu(p, x) _mm256_storeu_ps(p, x)
#define v_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define v_bf16(p)        \
    _mm256_castsi256_ps( \
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)(p))), 16))
#define v_u8(p) _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(p))))
#define v_add(a, b) _mm256_add_ps(a, b)
#define v_sub(a, b) _mm256_sub_ps(a, b)
#define v_mul(a, b) _mm256_mul_ps(a, b)
#define v_div(a, b) _mm256_div_ps(a, b)
#define v_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define v_min(a, b) _mm256_min_ps(a, b)
#define v_max(a, b) _mm256_max_ps(a, b)
#define v_store16(p, x) store_16(p, _mm256_cvtps_epi32(x))
#define v_round(a) _mm256_round_ps(a, 8)
/* p is near 1 and n small: adding to the exponent's bits multiplies by 2^n. */
#define v_scale2(p, n)   \
    _mm256_castsi256_ps( \
        _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23)))
#define v_int(x) _mm256_cvtepi32_ps(x)
#define V_POWER(x) (x)
#define V_TIMES(x, power) _mm256_mul_ps(x, power)
#define vi_zero() _mm256_setzero_si256()
#define vi_set8(x) _mm256_set1_epi8(x)
#define vi_set32(x) _mm256_set1_epi32(x)
#define vi_loadu(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define vi_storeu(p, x) _mm256_storeu_si256((__m256i *)(void *)(p), x)
#define vi_wide8(p) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vi_dot16(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#define vi_and(a, b) _mm256_and_si256(a, b)
#define v_bits(x) _mm256_castsi256_ps(x)
#define vi_shl16(a) _mm256_slli_epi32(a, 16)
#define vi_shr4(a) _mm256_srli_epi16(a, 4)
#define vi_shl(a, n) _mm256_slli_epi32(a, n)
#define vi_sar(a, n) _mm256_srai_epi32(a, n)
#define vi_sar16(a, n) _mm256_srai_epi16(a, n)
#define vi_add(a, b) _mm256_add_epi32(a, b)
#define vi_add8(a, b) _mm256_add_epi8(a, b)
#define vi_table(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vi_look(table, i) _mm256_shuffle_epi8(table, i)
#define vi_add16(a, b) _mm256_add_epi16(a, b)
#define vi_mul15(a, b) _mm256_mulhrs_epi16(a, b)

/* 4-bit codes: 8 products a block and lane of at most 2 * 15 * 127 fit 16 bits; they widen once, where the offset 8 comes in too. */
#define START_4(start) vi_zero()
#define END_4(sum, start) \
    _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), _mm256_set1_epi32(start))
#define DOT_4(sum, low, q0, high, q1) \
    _mm256_add_epi16(_mm256_add_epi16(sum, _mm256_maddubs_epi16(low, q0)), _mm256_maddubs_epi16(high, q1))
/* Two blocks' sums, as x86_joined.inc.h wants them; the second's start has 0x8000 for tables that need it. */
#define JOIN(held, sum, start, second) ((held) = _mm256_slli_epi32(END_4(sum, start), 16), vi_zero())
#define JOINED(held, sum, second) _mm256_blend_epi16(END_4(sum, (second)-0x8000), held, 0xAA)
/* 8-bit codes become signed; |w| times q with w's sign stays below 2 * 128 * 127, which 16 bits hold. */
#define START_8(start) vi_zero()
#define DOT_8(sum, w, q) dot_8(sum, w, q)
/* Codes of FP4 and their offset of 12 are as short as 4-bit ones. */
#define FP4_OFFSET 12
#define START_FP4(start_8) _mm256_set1_epi32((start_8) / 32 * 3)
#define DOT_FP4(sum, low, q0, high, q1) \
    _mm256_add_epi32(                   \
        sum, _mm256_madd_epi16(DOT_4(_mm256_setzero_si256(), low, q0, high, q1), _mm256_set1_epi16(1)))
#define DOT_8_PEAK(sum, y) _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(y, y), y))
#define V_BF16_PEAK(f, y, x) v_fma(x, x, f)
#define DOT_BF16(sum, w, x) ((void)(w), (void)(x), (sum)) /* never: pairs() says no */
#define KV_BF16_KERNELS \
    { NULL, NULL, NULL } /* likewise */

static bool pairs(void) {
    return false;
}

static inline __m256i dot_8(__m256i sum, __m256i code, __m256i q) {
    __m256i w = _mm256_xor_si256(code, _mm256_set1_epi8(-128));
    __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(q, w));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

static inline float v_top(__m256 x) {
    __m128 y = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    y = _mm_max_ps(y, _mm_movehl_ps(y, y));
    return _mm_cvtss_f32(_mm_max_ss(y, _mm_movehdup_ps(y)));
}

static inline void store_16(int16_t *p, __m256i x) {
    _mm_storeu_si128((__m128i *)(void *)p,
                     _mm_packs_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}

static inline __m256 v_within(__m256 x, uint32_t at, uint32_t first, uint32_t end, float other) {
    __m256i i = _mm256_add_epi32(_mm256_set1_epi32((int)at), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    __m256i in = _mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32((int)first), i),
                                     _mm256_cmpgt_epi32(_mm256_set1_epi32((int)end), i));
    return _mm256_blendv_ps(_mm256_set1_ps(other), x, _mm256_castsi256_ps(in));
}

static inline float quantise_block(const float *x, int8_t *q, int32_t half[2]) {
    __m256 most = _mm256_setzero_ps(), sign = _mm256_set1_ps(-0.0f);
    for (int i = 0; i < 4; i++)
        most = _mm256_max_ps(most, _mm256_andnot_ps(sign, _mm256_loadu_ps(x + 8 * i)));
    float lane[8], top = 0;
    _mm256_storeu_ps(lane, most);
    for (int i = 0; i < 8; i++)
        top = lane[i] > top ? lane[i] : top;
    __m256 inverse = _mm256_set1_ps(top > 0 ? 127 / top : 0);
    half[0] = half[1] = 0;
    for (int i = 0; i < 4; i++) {
        int32_t v[8];
        _mm256_storeu_si256((__m256i *)(void *)v,
                            _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), inverse)));
        for (int j = 0; j < 8; j++) {
            q[8 * i + j] = (int8_t)v[j];
            half[i / 2] += v[j];
        }
    }
    return top / 127;
}

#include "chip/cpu/x86.inc.h"
#include "chip/cpu/x86_attention.inc.h"

KERNELS(kernels_avx2, "avx2");
