/* Every table this machine can run against the reference: products of every number format on odd shapes, the gated product, attention; then the
 * promise that a row's bits do not depend on the rows beside it. Prints how much faster each table is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "chip/chip.h"
#include "chip/cpu/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const tables[] = {"avx2", "avx512", "neon", "i8mm"};
static const uint32_t formats[] = {FORMAT_F32,  FORMAT_F16,    FORMAT_BF16,   FORMAT_Q4_0,
                                   FORMAT_Q4_1, FORMAT_Q5_0,   FORMAT_Q5_1,   FORMAT_Q8_0,
                                   FORMAT_Q2_K, FORMAT_Q3_K,   FORMAT_Q4_K,   FORMAT_Q5_K,
                                   FORMAT_Q6_K, FORMAT_IQ4_NL, FORMAT_IQ4_XS, FORMAT_MXFP4};

/* By qemu-user, a hundred times slower than a processor: less is enough there, and times say nothing. */
static bool emulated(void) {
    return getenv("QEMU_CPU");
}

static uint64_t seed = 88172645463325252u;

static float uniform(void) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (float)(seed >> 40) / (1 << 23) - 1;
}

static float *fill(size_t n, float scale) {
    float *p = malloc(n * sizeof *p);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++)
        p[i] = uniform() * scale;
    return p;
}

static struct chip *open_chip(const char *name, const char *kv) {
    struct chip *c = NULL;
    struct error e = {0};
    if (chip_open(&c, &(struct chip_options){.kernels = name, .kv = kv, .threads = 2}, &e))
        print_message("no %s here: %s\n", name ? name : "chip", e.text);
    return c;
}

static struct chip *open_table(const char *name) {
    return open_chip(name, NULL);
}

/* Where the caller knows which table is the best here, it is chosen: or its tests would be passed over in silence. */
static void best(void **state) {
    const char *want = getenv("UNKAI_TEST_BEST_KERNELS");
    if (!want)
        skip();
    struct chip *c = open_table(NULL);
    assert_non_null(c);
    assert_string_equal(chip_kernels(c), want);
    chip_close(c);
}

static struct gguf_tensor make_tensor(const struct format *f, uint32_t inputs, uint32_t outputs) {
    struct gguf_tensor t = {.name = STR("w"), .format = f, .dims = 2, .dim = {inputs, outputs, 1, 1}};
    size_t blocks = (size_t)inputs / f->values * outputs;
    t.bytes = blocks * f->bytes;
    void *data = malloc(t.bytes);
    float *x = fill(blocks * f->values, 0.1f);
    assert_non_null(data);
    f->encode(x, data, blocks);
    free(x);
    t.data = data;
    return t;
}

/* What 8-bit activations by blocks of 32 stand for. */
static void round_blocks(float *x, uint32_t rows, uint32_t n) {
    for (uint32_t r = 0; r < rows; r++, x += n)
        for (uint32_t b = 0; b < n; b += 32) {
            uint32_t end = b + 32 < n ? b + 32 : n;
            float most = 0;
            for (uint32_t i = b; i < end; i++)
                most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
            for (uint32_t i = b; i < end && most > 0; i++)
                x[i] = nearbyintf(x[i] * (127 / most)) * (most / 127);
        }
}

/* What rows in bf16 stand for: some processors multiply bf16 weights with those. */
static void round_halves(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
        memcpy(&x[i], &bits, sizeof bits);
    }
}

static double distance(const float *a, const float *b, size_t n) {
    double d = 0, s = 0;
    for (size_t i = 0; i < n; i++) {
        d += (a[i] - b[i]) * (double)(a[i] - b[i]);
        s += (double)b[i] * b[i];
    }
    return sqrt(d / (s > 0 ? s : 1));
}

static void product(struct chip *c, const struct gguf_tensor *t, const float *in, uint32_t rows,
                    const float *norm, float *out) {
    struct chip_weights *w = NULL;
    const struct gguf_tensor *list[1] = {t};
    uint32_t n = (uint32_t)t->dim[0], m = (uint32_t)t->dim[1];
    struct error e;
    assert_int_equal(chip_load(&w, c, NULL, list, 1, &e), 0);
    struct chip_linear l = {
        .rows = rows, .in = in, .in_stride = n, .norm = norm, .norm_eps = 1e-5f, .outputs = 1};
    l.out[0].w = chip_weights_matrix(w, 0);
    l.out[0].out = out;
    l.out[0].out_stride = m;
    chip_linear(c, &l);
    float *alone = malloc(m * sizeof *alone);
    for (uint32_t r = 0; r < rows; r++) {
        l.rows = 1;
        l.in = in + r * n;
        l.out[0].out = alone;
        chip_linear(c, &l);
        assert_memory_equal(alone, out + r * m, m * sizeof *alone);
    }
    free(alone);
    chip_unload(c, w);
}

static bool is_x86(const struct chip *c) {
    return !strcmp(chip_kernels(c), "avx2") || !strcmp(chip_kernels(c), "avx512");
}

/* How far a table may be from the reference on rows that it need not round. Two blocks that share a multiplication (x86_joined.inc.h) lose the half of a
 * unit of a sum in 16 bits, which is most of it where one output alone nearly cancels; `joined` below says to the last bit what is to come of them. */
static double allowed(const struct chip *fast, const struct format *f, uint32_t inputs, uint32_t results) {
    if (is_x86(fast) && form_joined(form_of(f)))
        return results < 64 ? 2e-2 : 2e-4;
    return 1e-5 * (1 + sqrt(inputs) / 64);
}

static void check_format(struct chip *fast, struct chip *judge, const struct format *f, uint32_t inputs,
                         uint32_t outputs, uint32_t rows) {
    struct gguf_tensor t = make_tensor(f, inputs, outputs);
    bool whole = f->id == FORMAT_F32 || f->id == FORMAT_F16, half = f->id == FORMAT_BF16;
    float *in = fill((size_t)rows * inputs, 1), *norm = fill(inputs, 1),
          *got = fill((size_t)rows * outputs, 0), *want = fill((size_t)rows * outputs, 0);
    product(fast, &t, in, rows, norm, got);
    product(judge, &t, in, rows, norm, want);
    double d = distance(got, want, (size_t)rows * outputs);
    if (d > (whole  ? 1e-5
             : half ? 4e-3
                    : 2e-2) &&
        rows * outputs >= 64) /* one output alone may nearly cancel, and rounding then is most of it */
        fail_msg("%s %s %ux%u, %u rows, unrounded input: %g from the reference", chip_kernels(fast), f->name,
                 outputs, inputs, rows, d);
    if (half)
        round_halves(in, (size_t)rows * inputs);
    else
        round_blocks(in, rows, inputs);
    product(fast, &t, in, rows, NULL, got);
    product(judge, &t, in, rows, NULL, want);
    d = distance(got, want, (size_t)rows * outputs);
    if (d > allowed(fast, f, inputs, rows * outputs))
        fail_msg("%s %s %ux%u, %u rows: %g from the reference", chip_kernels(fast), f->name, outputs, inputs,
                 rows, d);
    free((void *)(uintptr_t)t.data);
    free(in);
    free(norm);
    free(got);
    free(want);
}

static void products(void **state) {
    struct chip *judge = open_table("reference");
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        struct chip *fast = open_table(tables[k]);
        for (size_t i = 0; fast && i < sizeof formats / sizeof *formats; i++) {
            const struct format *f = format_by_id(formats[i]);
            assert_non_null(f);
            if (!f->encode) {
                print_message("%s has no encoder: not tested\n", f->name);
                continue;
            }
            uint32_t unit = f->values == 1 ? 7 : f->values;
            check_format(fast, judge, f, unit, 1, 1);
            check_format(fast, judge, f, unit * 3, 17, 5);
            check_format(fast, judge, f, unit * 2, 100, 13);
            check_format(fast, judge, f, unit * 5, 67, 6);
            for (uint32_t rows = 2; rows < 10; rows++) /* tiles of every height */
                check_format(fast, judge, f, unit, 37, rows);
        }
        chip_close(fast);
    }
    chip_close(judge);
}

/* ---- products of joined blocks, as x86_joined.inc.h defines them ---- */

struct joined_row {
    int32_t code[37 * 256], scale[37 * 8], sum[37 * 8]; /* sum: of the codes, times the scale, in eighths */
    float unit;
};

static void joined_row(struct joined_row *row, const float *x, uint32_t blocks) {
    float scale[blocks], most = 0;
    int32_t sum[blocks];
    for (uint32_t b = 0; b < blocks; b++, x += 32) {
        float top = 0;
        for (int i = 0; i < 32; i++)
            top = fmaxf(top, fabsf(x[i]));
        scale[b] = top / 127;
        sum[b] = 0;
        for (int i = 0; i < 32; i++)
            sum[b] += row->code[b * 32 + i] = (int32_t)nearbyintf(x[i] * (127 / top));
        most = fmaxf(most, scale[b] + fabsf(scale[b] * (float)sum[b]) * (8.0f / 32512));
    }
    for (uint32_t b = 0; b < blocks; b++) {
        row->scale[b] = (int32_t)lrintf(scale[b] * (32767 / most));
        row->sum[b] = (int32_t)lrintf(scale[b] * (float)sum[b] * (32767 / most * (8.0f / 32768)));
    }
    row->unit = most * (32768.0f / 32767);
}

/* f16 at every `step` bytes in 12 bits of the largest; their unit. */
static float joined_halves(const uint8_t *w, size_t step, uint32_t n, int32_t *out) {
    int exponent = -100;
    float x[16];
    for (uint32_t b = 0; b < n; b++) {
        int e;
        format_by_id(FORMAT_F16)->decode(w + b * step, &x[b], 1);
        frexpf(x[b], &e);
        exponent = e > exponent ? e : exponent;
    }
    for (uint32_t b = 0; b < n; b++)
        out[b] = (int32_t)roundf(ldexpf(x[b], 12 - exponent));
    return ldexpf(1, exponent - 12);
}

/* A group's integers of one output, from the file. */
struct joined_group {
    int32_t scale[16], min[16];
    float scale_unit, min_unit;
};

static struct joined_group joined_group_of(const struct format *f, const uint8_t *w, uint32_t n) {
    struct joined_group g = {.min_unit = 0};
    g.scale_unit = joined_halves(w, f->bytes, n, g.scale);
    if (f->id == FORMAT_Q4_1)
        g.min_unit = joined_halves(w + 2, f->bytes, n, g.min);
    return g;
}

/* One output: exact sums of centred codes, times the rows' scales rounded to 16 bits, plus what the codes are off the centre, times the weights' scales; the minimums
 * times the codes' sums; in float from group to group. `w` is the output's row in the file. */
static float joined_output(const struct format *f, const uint8_t *w, const struct joined_row *row,
                           uint32_t blocks) {
    const int centre = f->id == FORMAT_Q4_0 ? 0 : 8;
    float total = 0;
    for (uint32_t b = 0; b < blocks; b += 16) {
        uint32_t n = b + 16 < blocks ? 16 : blocks - b;
        const uint8_t *at = w + b * 32 / f->values * f->bytes;
        struct joined_group g = joined_group_of(f, at, n);
        int32_t sum = 0, minimums = 0;
        for (uint32_t k = 0; k < n; k++) {
            struct format_split split;
            int32_t dot = 0, off = centre ? row->sum[b + k] : 0;
            f->split(at + k * 32 / f->values * f->bytes, &split);
            for (uint32_t i = 0; i < 32; i++)
                dot += (split.code[(k * 32 + i) % f->values] - centre) * row->code[(b + k) * 32 + i];
            sum += (((dot * row->scale[b + k] + 0x4000) >> 15) + off) * g.scale[k];
            minimums += row->sum[b + k] * g.min[k];
        }
        total = fmaf((float)sum, g.scale_unit, total);
        total = fmaf((float)minimums, g.min_unit / 8, total);
    }
    return total * row->unit;
}

static void check_joined(struct chip *fast, const struct format *f, uint32_t blocks) {
    enum { OUTPUTS = 37, ROWS = 8 };
    const uint32_t n = blocks * 32;
    struct gguf_tensor t = make_tensor(f, n, OUTPUTS);
    uint8_t *w = (uint8_t *)(uintptr_t)t.data;
    struct joined_row *row = malloc(sizeof *row);
    float *x = fill((size_t)ROWS * n, 1), got[ROWS * OUTPUTS];
    assert_non_null(row);
    for (uint32_t b = 0; b < t.bytes / f->bytes; b++) { /* scales that differ in size and in sign */
        uint8_t *high = w + b * f->bytes + 1;
        if (b % 3 == 0)
            *high = (uint8_t)((*high ^ (b & 64 ? 0x80 : 0)) - (b % 5) * 4);
        if (b % 2 && f->id != FORMAT_Q4_0) /* minimums too */
            high[2] = (uint8_t)((high[2] ^ (b & 32 ? 0x80 : 0)) - (b % 3) * 4);
    }
    for (uint32_t j = 0; j < ROWS * n; j++) { /* blocks of rows likewise, none of them an outlier */
        x[j] = j / n == 1 ? 1 : j / n == 2 ? -fabsf(x[j]) : x[j]; /* the largest sums, and large ones */
        x[j] *= j / 32 % 3 ? 1 : 0.5f;
    }
    product(fast, &t, x, ROWS, NULL, got);
    for (uint32_t r = 0; r < ROWS; r++) {
        joined_row(row, x + r * n, blocks);
        for (uint32_t o = 0; o < OUTPUTS; o++) {
            float want = joined_output(f, w + o * (t.bytes / OUTPUTS), row, blocks);
            if (memcmp(&want, &got[r * OUTPUTS + o], sizeof want))
                fail_msg("%s %s, %u blocks, row %u, output %u: %.9g instead of %.9g", chip_kernels(fast),
                         f->name, blocks, r, o, (double)got[r * OUTPUTS + o], (double)want);
        }
    }
    free(row);
    free(w);
    free(x);
}

static void joined(void **state) {
    static const uint32_t blocks[] = {1, 2, 7, 16, 18, 37};
    for (size_t k = 0; k < 2; k++) {
        struct chip *fast = open_table(tables[k]);
        for (size_t i = 0; fast && i < sizeof formats / sizeof *formats; i++) {
            const struct format *f = format_by_id(formats[i]);
            for (size_t j = 0; form_joined(form_of(f)) && j < sizeof blocks / sizeof *blocks; j++)
                check_joined(fast, f, blocks[j] * f->values / 32);
        }
        chip_close(fast);
    }
}

/* Outputs that are added to what is there, with and without a bias between; their last columns take another way than the others. */
static void added(void **state) {
    enum { INPUTS = 96, OUTPUTS = 83, ROWS = 11 };
    static const uint32_t some[] = {FORMAT_F32, FORMAT_Q4_1, FORMAT_Q5_1, FORMAT_Q8_0};
    struct chip *judge = open_table("reference");
    float *in = fill(ROWS * INPUTS, 1), *bias = fill(OUTPUTS, 1), *old = fill(ROWS * OUTPUTS, 1);
    round_blocks(in, ROWS, INPUTS);
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        struct chip *both[2] = {judge, open_table(tables[k])};
        for (size_t i = 0; both[1] && i < 2 * sizeof some / sizeof *some; i++) {
            const struct format *f = format_by_id(some[i / 2]);
            struct gguf_tensor t = make_tensor(f, INPUTS, OUTPUTS);
            const struct gguf_tensor *list[1] = {&t};
            float out[2][ROWS * OUTPUTS];
            for (int j = 0; j < 2; j++) {
                struct chip_weights *w = NULL;
                assert_int_equal(chip_load(&w, both[j], NULL, list, 1, NULL), 0);
                memcpy(out[j], old, sizeof out[j]);
                struct chip_linear l = {.rows = ROWS, .in = in, .in_stride = INPUTS, .outputs = 1};
                l.out[0].w = chip_weights_matrix(w, 0);
                l.out[0].bias = i % 2 ? bias : NULL;
                l.out[0].out = out[j];
                l.out[0].out_stride = OUTPUTS;
                l.out[0].add = true;
                chip_linear(both[j], &l);
                chip_unload(both[j], w);
            }
            assert_true(distance(out[1], out[0], ROWS * OUTPUTS) < allowed(both[1], f, 0, ROWS * OUTPUTS));
            free((void *)(uintptr_t)t.data);
        }
        chip_close(both[1]);
    }
    free(in);
    free(bias);
    free(old);
    chip_close(judge);
}

/* A few inputs are a hundred times the others: those beside them keep their precision. */
static void outliers(void **state) {
    struct chip *judge = open_table("reference");
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        struct chip *fast = open_table(tables[k]);
        for (size_t i = 0; fast && i < sizeof formats / sizeof *formats; i++) {
            enum { INPUTS = 1024, OUTPUTS = 50, ROWS = 7 };
            const struct format *f = format_by_id(formats[i]);
            if (!f->encode)
                continue;
            struct gguf_tensor t = make_tensor(f, INPUTS, OUTPUTS);
            float *in = fill(ROWS * INPUTS, 1), got[ROWS * OUTPUTS], want[ROWS * OUTPUTS];
            for (size_t j = 37; j < ROWS * INPUTS; j += 501)
                in[j] = in[j] < 0 ? -100 : 100;
            product(fast, &t, in, ROWS, NULL, got);
            product(judge, &t, in, ROWS, NULL, want);
            double d = distance(got, want, ROWS * OUTPUTS);
            if (d > 1e-3)
                fail_msg("%s %s, rows with outliers: %g from the reference", tables[k], f->name, d);
            free((void *)(uintptr_t)t.data);
            free(in);
        }
        chip_close(fast);
    }
    chip_close(judge);
}

struct shape {
    uint32_t heads, kv_heads, dim, window, tokens;
    float softcap;
    bool neox;
};

/* The whole prompt in calls of `step` rows; out[tokens][heads * dim]. */
static void attend(struct chip *c, const struct shape *s, const float *q, const float *k, const float *v,
                   uint32_t step, float *out) {
    uint32_t qn = s->heads * s->dim, kn = s->kv_heads * s->dim, pages = s->tokens / KV_PAGE_TOKENS + 1,
             page[pages];
    struct chip_kv kv = {.page_bytes = chip_kv_page_bytes(c, 2, s->kv_heads, s->dim),
                         .layers = 2,
                         .kv_heads = s->kv_heads,
                         .head_dim = s->dim};
    kv.base = chip_alloc(c, kv.page_bytes * pages);
    memset(kv.base, 0xFF, kv.page_bytes * pages); /* what nobody wrote is not a number */
    for (uint32_t i = 0; i < pages; i++)
        page[i] = pages - 1 - i;
    float frequency[s->dim / 2], *table = fill((size_t)step * s->dim, 0),
                                 *mine = fill((size_t)step * (qn + kn), 0);
    for (uint32_t i = 0; i < s->dim / 2; i++)
        frequency[i] = powf(10000, -2.0f * (float)i / (float)s->dim);
    for (uint32_t at = 0; at < s->tokens; at += step) {
        uint32_t rows = s->tokens - at < step ? s->tokens - at : step, position[rows];
        struct chip_attend_row row[rows];
        for (uint32_t r = 0; r < rows; r++) {
            position[r] = at + r;
            row[r] = (struct chip_attend_row){page, at + r};
        }
        memcpy(mine, q + (size_t)at * qn, (size_t)rows * qn * sizeof *q);
        memcpy(mine + (size_t)step * qn, k + (size_t)at * kn, (size_t)rows * kn * sizeof *k);
        chip_rope_table(c, rows, position, s->dim, frequency, table);
        struct chip_attend a = {.rows = rows,
                                .row = row,
                                .kv = &kv,
                                .layer = 1,
                                .heads = s->heads,
                                .q = mine,
                                .k = mine + (size_t)step * qn,
                                .v = v + (size_t)at * kn,
                                .q_stride = qn,
                                .k_stride = kn,
                                .v_stride = kn,
                                .rope = table,
                                .rope_dims = s->dim,
                                .rope_neox = s->neox,
                                .scale = 0.3f,
                                .softcap = s->softcap,
                                .window = s->window,
                                .out = out + (size_t)at * qn,
                                .out_stride = qn};
        chip_attend(c, &a);
    }
    chip_release(c, kv.base, kv.page_bytes * pages);
    free(table);
    free(mine);
}

static const struct {
    const char *name;
    double most; /* distance from the reference's floats */
} forms[KV_FORMS] = {[KV_F16] = {"f16", 2e-3}, [KV_BF16] = {"bf16", 4e-3}, [KV_Q8] = {"q8", 1.5e-2}};
enum { TABLES = sizeof tables / sizeof *tables };

/* A table with a form of pages, also one that chip_open would not choose here; NULL: this machine has not both. */
static struct chip *open_form(const char *table, enum kv_form form) {
    struct chip *c = open_table(table);
    if (c && (!c->fast->kv[form].attend || (form == KV_BF16 && !c->fast->pairs()))) {
        chip_close(c);
        return NULL;
    }
    if (c)
        c->kv = &c->fast->kv[form];
    return c;
}

/* Every table's attention with each form of KV memory against the reference's, then to the last bit alike however the prompt is cut. */
static void check_attention(struct chip *const fast[TABLES][KV_FORMS], struct chip *judge,
                            const struct shape *s) {
    size_t n = (size_t)s->tokens * s->heads * s->dim, kn = (size_t)s->tokens * s->kv_heads * s->dim;
    float *q = fill(n, 1), *key = fill(kn, 1), *v = fill(kn, 1), *want = fill(n, 0), *got = fill(n, 0),
          *other = fill(n, 0);
    attend(judge, s, q, key, v, s->tokens, want);
    for (size_t i = 0; i < (size_t)TABLES * KV_FORMS; i++) {
        struct chip *c = fast[i / KV_FORMS][i % KV_FORMS];
        if (!c)
            continue;
        attend(c, s, q, key, v, s->tokens, got);
        double d = distance(got, want, n);
        if (!(d <= forms[i % KV_FORMS].most))
            fail_msg("%s attention, %s, %u heads, %u tokens: %g from the reference", chip_kernels(c),
                     forms[i % KV_FORMS].name, s->heads, s->tokens, d);
        for (uint32_t step = 1; step < 60; step += emulated() ? 33 : 11) {
            attend(c, s, q, key, v, step, other);
            assert_memory_equal(got, other, n * sizeof *got);
        }
    }
    free(q), free(key), free(v), free(want), free(got), free(other);
}

/* Every form of pages that the table has, also one that chip_open would not choose here; short and long (more than one segment), few and many heads to a KV head,
 * odd head sizes, windows, a softcap. */
static void attention(void **state) {
    static const struct shape shapes[] = {{9, 3, 64, 0, 131, 0, false},  {4, 1, 256, 37, 150, 0, true},
                                          {32, 4, 64, 0, 70, 20, false}, {2, 2, 20, 33, 65, 0, true},
                                          {8, 1, 64, 0, 600, 0, true},   {3, 3, 80, 400, 640, 0, true},
                                          {10, 2, 32, 0, 530, 5, false}, {100, 1, 64, 0, 40, 0, false}};
    struct chip *judge = open_table("reference"), *fast[TABLES][KV_FORMS];
    for (size_t i = 0; i < (size_t)TABLES * KV_FORMS; i++)
        fast[i / KV_FORMS][i % KV_FORMS] = open_form(tables[i / KV_FORMS], i % KV_FORMS);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        check_attention(fast, judge, &shapes[i]);
    for (size_t i = 0; i < (size_t)TABLES * KV_FORMS; i++)
        chip_close(fast[i / KV_FORMS][i % KV_FORMS]);
    chip_close(judge);
}

/* Half the memory, but for the scales; an unknown form is refused. */
static void kv_forms(void **state) {
    struct chip *c = NULL, *half = NULL;
    struct error e = {0};
    assert_int_equal(chip_open(&c, &(struct chip_options){.kv = "f8", .threads = 1}, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "f8"));
    c = open_table(NULL);
    half = open_chip(NULL, "q8");
    if (!strcmp(chip_kernels(c), "reference"))
        skip();
    size_t whole = chip_kv_page_bytes(c, 3, 2, 64);
    assert_int_equal(whole, 3 * 2 * 2 * KV_PAGE_TOKENS * 64 * 2);
    assert_true(chip_kv_page_bytes(half, 3, 2, 64) <= whole * 54 / 100);
    chip_close(c);
    chip_close(half);
}

static void gated(void **state) {
    struct chip *judge = open_table("reference");
    struct gguf_tensor t[2] = {make_tensor(format_by_id(FORMAT_F32), 33, 45),
                               make_tensor(format_by_id(FORMAT_F32), 33, 45)};
    const struct gguf_tensor *list[2] = {&t[0], &t[1]};
    float *in = fill(5 * 33, 20), *norm = fill(33, 4);
    for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
        struct chip *both[2] = {judge, open_table(tables[k])};
        for (int f = ARCH_SILU; both[1] && f <= ARCH_GELU_TANH; f++) {
            float out[2][5 * 45];
            for (int i = 0; i < 2; i++) {
                struct chip_weights *w = NULL;
                assert_int_equal(chip_load(&w, both[i], NULL, list, 2, NULL), 0);
                chip_gated(both[i], &(struct chip_gated){.rows = 5,
                                                         .in = in,
                                                         .in_stride = 33,
                                                         .norm = norm,
                                                         .norm_eps = 1e-6f,
                                                         .gate = chip_weights_matrix(w, 0),
                                                         .up = chip_weights_matrix(w, 1),
                                                         .activation = (enum arch_activation)f,
                                                         .out = out[i],
                                                         .out_stride = 45});
                chip_unload(both[i], w);
            }
            assert_true(distance(out[1], out[0], 5 * 45) < 1e-5);
        }
        chip_close(both[1]);
    }
    for (int i = 0; i < 2; i++)
        free((void *)(uintptr_t)t[i].data);
    free(in);
    free(norm);
    chip_close(judge);
}

/* Seconds of a product of 8 rows on one thread, the best of a few. */
static double seconds_of(const char *table, const struct gguf_tensor *t, const float *in, float *out) {
    struct chip *c;
    struct chip_weights *w = NULL;
    const struct gguf_tensor *list[1] = {t};
    double best = 1e9;
    if (chip_open(&c, &(struct chip_options){.kernels = table, .threads = 1}, NULL))
        return 0;
    assert_int_equal(chip_load(&w, c, NULL, list, 1, NULL), 0);
    struct chip_linear l = {.rows = 8, .in = in, .in_stride = t->dim[0], .outputs = 1};
    l.out[0].w = chip_weights_matrix(w, 0);
    l.out[0].out = out;
    l.out[0].out_stride = t->dim[1];
    for (int i = 0; i < 8; i++) {
        int64_t start = clock_mono_ns();
        chip_linear(c, &l);
        best = fmin(best, (double)(clock_mono_ns() - start) / 1e9);
    }
    chip_unload(c, w);
    chip_close(c);
    return best;
}

/* Every format's product; the ratios are printed, not judged: machines differ. */
static void speed(void **state) {
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        const struct format *f = format_by_id(formats[i]);
        if (!f->encode)
            continue;
        struct gguf_tensor t = make_tensor(f, 2048, emulated() ? 32 : 512);
        float *in = fill(8 * 2048, 1), *out = fill(8 * 512, 0);
        double reference = seconds_of("reference", &t, in, out);
        print_message("%-6s 8 rows: reference %5.0f us", f->name, reference * 1e6);
        for (size_t k = 0; k < sizeof tables / sizeof *tables; k++) {
            double fast = seconds_of(tables[k], &t, in, out);
            if (fast > 0)
                print_message(", %s %4.0f us (%.0f times as fast)", tables[k], fast * 1e6, reference / fast);
        }
        print_message("\n");
        free((void *)(uintptr_t)t.data);
        free(in);
        free(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(best),     cmocka_unit_test(products), cmocka_unit_test(joined),
        cmocka_unit_test(added),    cmocka_unit_test(outliers), cmocka_unit_test(attention),
        cmocka_unit_test(kv_forms), cmocka_unit_test(gated),    cmocka_unit_test(speed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
