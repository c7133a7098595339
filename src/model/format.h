/* Number formats of weights, one row each: how many values a block holds, how many bytes it takes, how it decodes.
 * Block layouts are those of GGUF files (the ggml project's ggml-common.h is the published source).
 * A format without kernels of its own runs through decode. */
#ifndef MODEL_FORMAT_H
#define MODEL_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The ids are those a GGUF file stores. */
enum format_id {
    FORMAT_F32 = 0,
    FORMAT_F16 = 1,
    FORMAT_Q4_0 = 2,
    FORMAT_Q4_1 = 3,
    FORMAT_Q5_0 = 6,
    FORMAT_Q5_1 = 7,
    FORMAT_Q8_0 = 8,
    FORMAT_Q2_K = 10,
    FORMAT_Q3_K = 11,
    FORMAT_Q4_K = 12,
    FORMAT_Q5_K = 13,
    FORMAT_Q6_K = 14,
    FORMAT_IQ4_NL = 20,
    FORMAT_IQ4_XS = 23,
    FORMAT_BF16 = 30,
    FORMAT_MXFP4 = 39
};

/* One block of a format of integers: value i is code[i] * scale[i / 16] (+ min[i / 16] where has_min), rounded as decode rounds. */
struct format_split {
    int8_t code[256];
    float scale[16], min[16];
    bool has_min;
};

struct format {
    const char *name; /* "Q4_K", as people write it */
    uint32_t id;      /* enum format_id */
    uint32_t values;  /* values in a block */
    uint32_t bytes;   /* bytes of a block */
    /* Decode `blocks` blocks from src (any alignment) to out[blocks * values], exactly as the format defines (fp32). */
    void (*decode)(const void *src, float *out, size_t blocks);
    /* The inverse, for tools and tests: plain rounding, no search for better scales. NULL where nobody needs it. */
    void (*encode)(const float *src, void *out, size_t blocks);
    /* One block as integers, for kernels that compute with them; NULL for floats. */
    void (*split)(const void *src, struct format_split *out);
};

const struct format *format_by_id(uint32_t id);        /* NULL when unknown */
const struct format *format_by_name(const char *name); /* NULL when unknown; case-insensitive */

float format_f16_to_f32(uint16_t h);
uint16_t format_f32_to_f16(float x); /* round to nearest even */
float format_bf16_to_f32(uint16_t h);
uint16_t format_f32_to_bf16(float x);

#endif
