/* Number formats, one row each; see format.h. On the request's journey: under every weight that is read.
 * Block layouts follow the ggml project's published ones; all fields are little-endian and may lie at any address. */
#include "model/format.h"

#include <math.h>
#include <string.h>
#include <strings.h>

float format_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, mantissa = h & 0x3FF, bits;
    float x;
    if (exponent == 0) { /* zero or subnormal: mantissa * 2^-24 */
        x = (float)mantissa * 0x1p-24f;
        return sign ? -x : x;
    }
    bits =
        exponent == 31 ? sign | 0x7F800000 | mantissa << 13 : sign | (exponent + 112) << 23 | mantissa << 13;
    memcpy(&x, &bits, 4);
    return x;
}

uint16_t format_f32_to_f16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude > 0x7F800000)
        return (uint16_t)(sign | 0x7E00);
    if (magnitude >= 0x477FF000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7C00);
    if (magnitude < 0x38800000) { /* below 2^-14: subnormal, rounded by the addition of a large number */
        float small;
        memcpy(&small, &magnitude, 4);
        small += 0.5f; /* ulp of 0.5 is 2^-24 */
        memcpy(&magnitude, &small, 4);
        return (uint16_t)(sign | (magnitude - 0x3F000000));
    }
    magnitude += 0xFFF + (magnitude >> 13 & 1);
    return (uint16_t)(sign | ((magnitude - 0x38000000) >> 13));
}

float format_bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

uint16_t format_f32_to_bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if ((bits & 0x7FFFFFFF) > 0x7F800000)
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static uint16_t load16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static float load_half(const uint8_t *p) {
    return format_f16_to_f32(load16(p));
}

static void save_half(uint8_t *p, float x) {
    uint16_t h = format_f32_to_f16(x);
    p[0] = (uint8_t)h;
    p[1] = (uint8_t)(h >> 8);
}

static int clamp(int x, int low, int high) {
    return x < low ? low : x > high ? high : x;
}

/* Decode by way of integers. */
static void decode_by(void (*split)(const void *src, struct format_split *out), const uint8_t *p, float *out,
                      size_t blocks, size_t bytes, size_t values) {
    struct format_split s;
    for (size_t b = 0; b < blocks; b++, p += bytes, out += values) {
        split(p, &s);
        for (size_t i = 0; i < values; i++) {
            float x = (float)s.code[i] * s.scale[i / 16];
            out[i] = s.has_min ? x + s.min[i / 16] : x;
        }
    }
}

#define DECODE_BY_SPLIT(name, bytes, values)                                \
    static void decode_##name(const void *src, float *out, size_t blocks) { \
        decode_by(split_##name, src, out, blocks, bytes, values);           \
    }

/* ---- plain floats ---- */

static void decode_f32(const void *src, float *out, size_t blocks) {
    memcpy(out, src, blocks * 4);
}

static void encode_f32(const float *src, void *out, size_t blocks) {
    memcpy(out, src, blocks * 4);
}

static void decode_f16(const void *src, float *out, size_t blocks) {
    const uint8_t *p = src;
    for (size_t i = 0; i < blocks; i++)
        out[i] = load_half(p + 2 * i);
}

static void encode_f16(const float *src, void *out, size_t blocks) {
    uint8_t *p = out;
    for (size_t i = 0; i < blocks; i++)
        save_half(p + 2 * i, src[i]);
}

static void decode_bf16(const void *src, float *out, size_t blocks) {
    const uint8_t *p = src;
    for (size_t i = 0; i < blocks; i++)
        out[i] = format_bf16_to_f32(load16(p + 2 * i));
}

static void encode_bf16(const float *src, void *out, size_t blocks) {
    uint8_t *p = out;
    for (size_t i = 0; i < blocks; i++) {
        uint16_t h = format_f32_to_bf16(src[i]);
        p[2 * i] = (uint8_t)h;
        p[2 * i + 1] = (uint8_t)(h >> 8);
    }
}

/* ---- blocks of 32 ---- */

/* Q4_0: f16 scale; low nibbles are values 0..15, high nibbles 16..31; value = d (q - 8). Q4_1: scale, minimum; value = d q + m.
 * Q5_0, Q5_1: 32 fifth bits after the scale (and minimum). One splitter serves the four. */
static void split_q45(const uint8_t *p, struct format_split *out, bool five, bool has_min) {
    const uint8_t *rest = p + (has_min ? 4 : 2);
    uint32_t high = five ? (uint32_t)load16(rest) | (uint32_t)load16(rest + 2) << 16 : 0;
    const uint8_t *q = rest + (five ? 4 : 0);
    int offset = has_min ? 0 : five ? 16 : 8;
    out->has_min = true; /* where there is none, 0 is added all the same */
    for (int g = 0; g < 2; g++) {
        out->scale[g] = load_half(p);
        out->min[g] = has_min ? load_half(p + 2) : 0;
    }
    for (int i = 0; i < 32; i++) {
        int v = i < 16 ? q[i] & 15 : q[i - 16] >> 4;
        out->code[i] = (int8_t)((v | (int)(high >> i & 1) << 4) - offset);
    }
}

static void encode_q45(const float *src, uint8_t *p, size_t blocks, size_t bytes, bool five, bool has_min) {
    int levels = five ? 32 : 16;
    for (size_t b = 0; b < blocks; b++, p += bytes, src += 32) {
        float low = src[0], high = src[0], largest = src[0];
        for (int i = 1; i < 32; i++) {
            low = fminf(low, src[i]);
            high = fmaxf(high, src[i]);
            largest = fabsf(src[i]) > fabsf(largest) ? src[i] : largest;
        }
        float d = has_min ? (high - low) / (float)(levels - 1) : largest / (-0.5f * (float)levels);
        float inverse = d != 0 ? 1 / d : 0;
        memset(p, 0, bytes);
        save_half(p, d);
        if (has_min)
            save_half(p + 2, low);
        uint8_t *rest = p + (has_min ? 4 : 2), *q = rest + (five ? 4 : 0);
        for (int i = 0; i < 32; i++) {
            float x = has_min ? (src[i] - low) * inverse : src[i] * inverse + 0.5f * (float)levels;
            int v = clamp((int)(x + 0.5f), 0, levels - 1);
            q[i & 15] |= (uint8_t)((v & 15) << (i < 16 ? 0 : 4));
            if (five)
                rest[i / 8] |= (uint8_t)((v >> 4) << (i % 8));
        }
    }
}

#define Q45(name, bytes, five, has_min)                                     \
    static void split_##name(const void *src, struct format_split *out) {   \
        split_q45(src, out, five, has_min);                                 \
    }                                                                       \
    DECODE_BY_SPLIT(name, bytes, 32)                                        \
    static void encode_##name(const float *src, void *out, size_t blocks) { \
        encode_q45(src, out, blocks, bytes, five, has_min);                 \
    }
Q45(q4_0, 18, false, false)
Q45(q4_1, 20, false, true)
Q45(q5_0, 22, true, false)
Q45(q5_1, 24, true, true)

static void split_q8_0(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    out->has_min = false;
    out->scale[0] = out->scale[1] = load_half(p);
    memcpy(out->code, p + 2, 32);
}
DECODE_BY_SPLIT(q8_0, 34, 32)

static void encode_q8_0(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 34, src += 32) {
        float most = 0;
        for (int i = 0; i < 32; i++)
            most = fmaxf(most, fabsf(src[i]));
        float d = most / 127, inverse = d != 0 ? 1 / d : 0;
        save_half(p, d);
        for (int i = 0; i < 32; i++)
            p[2 + i] = (uint8_t)(int8_t)roundf(src[i] * inverse);
    }
}

static const int8_t iq4_values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};
/* FP4 E2M1, doubled so that they are integers. */
static const int8_t fp4_values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static int nearest(const int8_t table[16], float x) {
    int best = 0;
    for (int i = 1; i < 16; i++)
        if (fabsf(x - (float)table[i]) < fabsf(x - (float)table[best]))
            best = i;
    return best;
}

/* 32 nibbles that index a table, low nibbles first. */
static void split_table(const uint8_t *q, const int8_t table[16], float d, int8_t *code, float *scale) {
    scale[0] = scale[1] = d;
    for (int i = 0; i < 16; i++) {
        code[i] = table[q[i] & 15];
        code[i + 16] = table[q[i] >> 4];
    }
}

static void encode_table(const float *src, const int8_t table[16], float d, uint8_t *q) {
    float inverse = d != 0 ? 1 / d : 0;
    for (int i = 0; i < 16; i++)
        q[i] = (uint8_t)(nearest(table, src[i] * inverse) | nearest(table, src[i + 16] * inverse) << 4);
}

static float largest_of(const float *x, int n) {
    float best = 0;
    for (int i = 0; i < n; i++)
        best = fabsf(x[i]) > fabsf(best) ? x[i] : best;
    return best;
}

static void split_iq4_nl(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    out->has_min = false;
    split_table(p + 2, iq4_values, load_half(p), out->code, out->scale);
}
DECODE_BY_SPLIT(iq4_nl, 18, 32)

static void encode_iq4_nl(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 18, src += 32) {
        float d = largest_of(src, 32) / -127;
        save_half(p, d);
        encode_table(src, iq4_values, load_half(p), p + 2);
    }
}

/* MXFP4 (OCP Microscaling 1.0): one power-of-two scale (E8M0) and 32 FP4 values. Half the scale, since the table holds doubles. */
static float mxfp4_scale(uint8_t e) {
    return ldexpf(1, (int)e - 128);
}

static void split_mxfp4(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    out->has_min = false;
    split_table(p + 1, fp4_values, mxfp4_scale(p[0]), out->code, out->scale);
}
DECODE_BY_SPLIT(mxfp4, 17, 32)

static void encode_mxfp4(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 17, src += 32) {
        float most = fabsf(largest_of(src, 32));
        int e = 0;
        if (most > 0)
            frexpf(most / 6, &e); /* most / 6 <= 2^e */
        p[0] = (uint8_t)clamp(e + 127, 0, 254);
        encode_table(src, fp4_values, mxfp4_scale(p[0]), p + 1);
    }
}

/* ---- super-blocks of 256 ---- */

enum { SUPER = 256 };

/* Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minimums in 12 bytes. */
static void unpack_scale_min(const uint8_t *p, int i, int *scale, int *min) {
    if (i < 4) {
        *scale = p[i] & 63;
        *min = p[i + 4] & 63;
    } else {
        *scale = (p[i + 4] & 15) | (p[i - 4] >> 6) << 4;
        *min = p[i + 4] >> 4 | (p[i] >> 6) << 4;
    }
}

static void pack_scale_min(uint8_t *p, int i, int scale, int min) {
    if (i < 4) {
        p[i] = (uint8_t)((p[i] & 0xC0) | scale);
        p[i + 4] = (uint8_t)((p[i + 4] & 0xC0) | min);
    } else {
        p[i + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        p[i - 4] |= (uint8_t)((scale >> 4) << 6);
        p[i] |= (uint8_t)((min >> 4) << 6);
    }
}

/* d, dmin, scales[12], (Q5_K: fifth bits[32]), nibbles[128]: 64 values share 32 bytes, low nibbles first. */
static void split_q45_k(const uint8_t *p, struct format_split *out, bool five) {
    float d = load_half(p), dmin = load_half(p + 2);
    const uint8_t *high = p + 16, *q = p + (five ? 48 : 16);
    out->has_min = true;
    for (int g = 0; g < 8; g++) {
        int scale, min;
        unpack_scale_min(p + 4, g, &scale, &min);
        for (int k = 2 * g; k < 2 * g + 2; k++) {
            out->scale[k] = d * (float)scale;
            out->min[k] = -(dmin * (float)min);
        }
        for (int i = 0; i < 32; i++) {
            int v = q[g / 2 * 32 + i] >> (g % 2 * 4) & 15;
            out->code[g * 32 + i] = (int8_t)(five ? v | (high[i] >> g & 1) << 4 : v);
        }
    }
}

static void encode_q45_k(const float *src, uint8_t *p, size_t blocks, bool five) {
    int levels = five ? 31 : 15;
    for (size_t b = 0; b < blocks; b++, p += five ? 176 : 144, src += SUPER) {
        float scale[8], min[8], most_scale = 0, most_min = 0;
        for (int g = 0; g < 8; g++) {
            float low = 0, high = 0;
            for (int i = 0; i < 32; i++) {
                low = fminf(low, src[g * 32 + i]);
                high = fmaxf(high, src[g * 32 + i]);
            }
            scale[g] = (high - low) / (float)levels;
            min[g] = -low;
            most_scale = fmaxf(most_scale, scale[g]);
            most_min = fmaxf(most_min, min[g]);
        }
        memset(p, 0, five ? 176 : 144);
        save_half(p, most_scale / 63);
        save_half(p + 2, most_min / 63);
        float d = load_half(p), dmin = load_half(p + 2);
        uint8_t *fifth = p + 16, *q = p + (five ? 48 : 16);
        for (int g = 0; g < 8; g++) {
            int s = d != 0 ? clamp((int)(scale[g] / d + 0.5f), 0, 63) : 0;
            int m = dmin != 0 ? clamp((int)(min[g] / dmin + 0.5f), 0, 63) : 0;
            pack_scale_min(p + 4, g, s, m);
            float inverse = s != 0 ? 1 / (d * (float)s) : 0;
            for (int i = 0; i < 32; i++) {
                int v = clamp((int)((src[g * 32 + i] + dmin * (float)m) * inverse + 0.5f), 0, levels);
                q[g / 2 * 32 + i] |= (uint8_t)((v & 15) << (g % 2 * 4));
                if (five)
                    fifth[i] |= (uint8_t)((v >> 4) << g);
            }
        }
    }
}

#define Q45_K(name, bytes, five)                                            \
    static void split_##name(const void *src, struct format_split *out) {   \
        split_q45_k(src, out, five);                                        \
    }                                                                       \
    DECODE_BY_SPLIT(name, bytes, SUPER)                                     \
    static void encode_##name(const float *src, void *out, size_t blocks) { \
        encode_q45_k(src, out, blocks, five);                               \
    }
Q45_K(q4_k, 144, false)
Q45_K(q5_k, 176, true)

/* Q6_K: low nibbles[128], two high bits[64], int8 scales[16] (one for 16 values), d. Each half of 128 values keeps four runs of 32. */
static void split_q6_k(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    float d = load_half(p + 208);
    out->has_min = false;
    for (int g = 0; g < 16; g++)
        out->scale[g] = d * (float)(int8_t)p[192 + g];
    for (int i = 0; i < SUPER; i++) {
        int half = i / 128, run = i % 128 / 32, at = i % 32;
        int low = p[half * 64 + run % 2 * 32 + at] >> (run / 2 * 4) & 15;
        int high = p[128 + half * 32 + at] >> (run * 2) & 3;
        out->code[i] = (int8_t)((low | high << 4) - 32);
    }
}
DECODE_BY_SPLIT(q6_k, 210, SUPER)

static void encode_q6_k(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 210, src += SUPER) {
        float scale[16];
        for (int g = 0; g < 16; g++)
            scale[g] = largest_of(src + 16 * g, 16) / -32;
        memset(p, 0, 210);
        save_half(p + 208, largest_of(scale, 16) / -128);
        float d = load_half(p + 208);
        for (int i = 0; i < SUPER; i++) {
            int half = i / 128, run = i % 128 / 32, at = i % 32;
            int s = d != 0 ? clamp((int)roundf(scale[i / 16] / d), -128, 127) : 0;
            float step = d * (float)s;
            int v = step != 0 ? clamp((int)roundf(src[i] / step) + 32, 0, 63) : 32;
            p[192 + i / 16] = (uint8_t)(int8_t)s;
            p[half * 64 + run % 2 * 32 + at] |= (uint8_t)((v & 15) << (run / 2 * 4));
            p[128 + half * 32 + at] |= (uint8_t)((v >> 4) << (run * 2));
        }
    }
}

/* Q2_K: 4-bit scale and minimum in a byte for each 16 values[16], two-bit values[64], d, dmin. */
static void split_q2_k(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    float d = load_half(p + 80), dmin = load_half(p + 82);
    out->has_min = true;
    for (int g = 0; g < 16; g++) {
        out->scale[g] = d * (float)(p[g] & 15);
        out->min[g] = -(dmin * (float)(p[g] >> 4));
    }
    for (int i = 0; i < SUPER; i++)
        out->code[i] = (int8_t)(p[16 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3);
}
DECODE_BY_SPLIT(q2_k, 84, SUPER)

static void encode_q2_k(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 84, src += SUPER) {
        float scale[16], min[16], most_scale = 0, most_min = 0;
        for (int g = 0; g < 16; g++) {
            float low = 0, high = 0;
            for (int i = 0; i < 16; i++) {
                low = fminf(low, src[g * 16 + i]);
                high = fmaxf(high, src[g * 16 + i]);
            }
            scale[g] = (high - low) / 3;
            min[g] = -low;
            most_scale = fmaxf(most_scale, scale[g]);
            most_min = fmaxf(most_min, min[g]);
        }
        memset(p, 0, 84);
        save_half(p + 80, most_scale / 15);
        save_half(p + 82, most_min / 15);
        float d = load_half(p + 80), dmin = load_half(p + 82);
        for (int i = 0; i < SUPER; i++) {
            int s = d != 0 ? clamp((int)(scale[i / 16] / d + 0.5f), 0, 15) : 0;
            int m = dmin != 0 ? clamp((int)(min[i / 16] / dmin + 0.5f), 0, 15) : 0;
            float step = d * (float)s;
            int v = step != 0 ? clamp((int)((src[i] + dmin * (float)m) / step + 0.5f), 0, 3) : 0;
            p[i / 16] = (uint8_t)(s | m << 4);
            p[16 + i / 128 * 32 + i % 32] |= (uint8_t)(v << (i % 128 / 32 * 2));
        }
    }
}

/* Q3_K: third bits[32] (set: no subtraction of 4), two low bits[64], sixteen 6-bit scales in 12 bytes, d. */
static int q3_k_scale(const uint8_t *p, int g) {
    int low = g < 8 ? p[g] & 15 : p[g - 8] >> 4;
    return (low | (p[8 + g % 4] >> (g / 4 * 2) & 3) << 4) - 32;
}

static void split_q3_k(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    float d = load_half(p + 108);
    out->has_min = false;
    for (int g = 0; g < 16; g++)
        out->scale[g] = d * (float)q3_k_scale(p + 96, g);
    for (int i = 0; i < SUPER; i++) {
        int v = p[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
        out->code[i] = (int8_t)(v - (p[i % 32] >> (i / 32) & 1 ? 0 : 4));
    }
}
DECODE_BY_SPLIT(q3_k, 110, SUPER)

static void encode_q3_k(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 110, src += SUPER) {
        float scale[16];
        for (int g = 0; g < 16; g++)
            scale[g] = largest_of(src + 16 * g, 16) / -4;
        memset(p, 0, 110);
        save_half(p + 108, largest_of(scale, 16) / -32);
        float d = load_half(p + 108);
        for (int g = 0; g < 16; g++) {
            int s = (d != 0 ? clamp((int)roundf(scale[g] / d), -32, 31) : 0) + 32;
            p[96 + g % 8] |= (uint8_t)((s & 15) << (g < 8 ? 0 : 4));
            p[96 + 8 + g % 4] |= (uint8_t)((s >> 4) << (g / 4 * 2));
        }
        for (int i = 0; i < SUPER; i++) {
            float step = d * (float)q3_k_scale(p + 96, i / 16);
            int v = step != 0 ? clamp((int)roundf(src[i] / step) + 4, 0, 7) : 4;
            p[32 + i / 128 * 32 + i % 32] |= (uint8_t)((v & 3) << (i % 128 / 32 * 2));
            p[i % 32] |= (uint8_t)((v >> 2) << (i / 32));
        }
    }
}

/* IQ4_XS: d, two high bits of eight scales (16 bits), low nibbles of them[4], nibbles[128] that index IQ4_NL's table. */
static void split_iq4_xs(const void *src, struct format_split *out) {
    const uint8_t *p = src;
    float d = load_half(p);
    uint32_t high = load16(p + 2);
    out->has_min = false;
    for (int g = 0; g < 8; g++) {
        int s = (p[4 + g / 2] >> (g % 2 * 4) & 15) | (int)(high >> (2 * g) & 3) << 4;
        split_table(p + 8 + 16 * g, iq4_values, d * (float)(s - 32), out->code + 32 * g, out->scale + 2 * g);
    }
}
DECODE_BY_SPLIT(iq4_xs, 136, SUPER)

static void encode_iq4_xs(const float *src, void *to, size_t blocks) {
    uint8_t *p = to;
    for (size_t b = 0; b < blocks; b++, p += 136, src += SUPER) {
        float scale[8];
        for (int g = 0; g < 8; g++)
            scale[g] = largest_of(src + 32 * g, 32) / -127;
        memset(p, 0, 136);
        save_half(p, largest_of(scale, 8) / -32);
        float d = load_half(p);
        for (int g = 0; g < 8; g++) {
            int s = d != 0 ? clamp((int)roundf(scale[g] / d), -32, 31) : 0;
            p[2 + g / 4] |= (uint8_t)(((s + 32) >> 4) << (g % 4 * 2));
            p[4 + g / 2] |= (uint8_t)(((s + 32) & 15) << (g % 2 * 4));
            encode_table(src + 32 * g, iq4_values, d * (float)s, p + 8 + 16 * g);
        }
    }
}

static const struct format formats[] = {
    {"F32", FORMAT_F32, 1, 4, decode_f32, encode_f32},
    {"F16", FORMAT_F16, 1, 2, decode_f16, encode_f16},
    {"BF16", FORMAT_BF16, 1, 2, decode_bf16, encode_bf16},
    {"Q4_0", FORMAT_Q4_0, 32, 18, decode_q4_0, encode_q4_0, split_q4_0},
    {"Q4_1", FORMAT_Q4_1, 32, 20, decode_q4_1, encode_q4_1, split_q4_1},
    {"Q5_0", FORMAT_Q5_0, 32, 22, decode_q5_0, encode_q5_0, split_q5_0},
    {"Q5_1", FORMAT_Q5_1, 32, 24, decode_q5_1, encode_q5_1, split_q5_1},
    {"Q8_0", FORMAT_Q8_0, 32, 34, decode_q8_0, encode_q8_0, split_q8_0},
    {"Q2_K", FORMAT_Q2_K, SUPER, 84, decode_q2_k, encode_q2_k, split_q2_k},
    {"Q3_K", FORMAT_Q3_K, SUPER, 110, decode_q3_k, encode_q3_k, split_q3_k},
    {"Q4_K", FORMAT_Q4_K, SUPER, 144, decode_q4_k, encode_q4_k, split_q4_k},
    {"Q5_K", FORMAT_Q5_K, SUPER, 176, decode_q5_k, encode_q5_k, split_q5_k},
    {"Q6_K", FORMAT_Q6_K, SUPER, 210, decode_q6_k, encode_q6_k, split_q6_k},
    {"IQ4_NL", FORMAT_IQ4_NL, 32, 18, decode_iq4_nl, encode_iq4_nl, split_iq4_nl},
    {"IQ4_XS", FORMAT_IQ4_XS, SUPER, 136, decode_iq4_xs, encode_iq4_xs, split_iq4_xs},
    {"MXFP4", FORMAT_MXFP4, 32, 17, decode_mxfp4, encode_mxfp4, split_mxfp4},
};

const struct format *format_by_id(uint32_t id) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (formats[i].id == id)
            return &formats[i];
    return NULL;
}

const struct format *format_by_name(const char *name) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcasecmp(formats[i].name, name) == 0)
            return &formats[i];
    return NULL;
}
