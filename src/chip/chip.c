/* The CPU chip's front: opening, memory, and the operations that need no kernel of their own. The products and attention go to the table
 * that chip_open chose. On a request's journey this is the step from the engine into arithmetic. */
#include "chip/cpu/kernels.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>

/* The tables that are built (meson.build says for which processors), the best first, and whether this machine can run them. */
#ifdef CHIP_X86_KERNELS
static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") &&
           __builtin_cpu_supports("fma"); /* F16C came with AVX, and clang 14 cannot ask for it */
}

static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vnni");
}
#elif defined(CHIP_ARM_KERNELS)
static bool has_neon(void) {
    return getauxval(AT_HWCAP) & HWCAP_ASIMDDP;
}

static bool has_i8mm(void) {
    return has_neon() && getauxval(AT_HWCAP2) & HWCAP2_I8MM;
}
#endif

static const struct {
    const struct kernels *kernels;
    bool (*here)(void);
} tables[] = {
#ifdef CHIP_X86_KERNELS
    {&kernels_avx512, has_avx512},
    {&kernels_avx2, has_avx2},
#elif defined(CHIP_ARM_KERNELS)
    {&kernels_i8mm, has_i8mm},
    {&kernels_neon, has_neon},
#endif
    {NULL, NULL}, /* the reference */
};

/* By name, or the best there is; *known: whether this machine can run what was asked for. */
static const struct kernels *find_kernels(const char *name, bool *known) {
    bool any = !name || !strcmp(name, "auto");
    size_t i = 0;
    while (tables[i].kernels && !(tables[i].here() && (any || !strcmp(name, tables[i].kernels->name))))
        i++;
    *known = tables[i].kernels || any || !strcmp(name, "reference");
    return tables[i].kernels;
}

const struct kernels *kernels_best(void) {
    bool known;
    return find_kernels(NULL, &known);
}

static int kernels_unknown(const char *name, struct error *e) {
    struct buf here = {0};
    for (size_t i = 0; tables[i].kernels; i++)
        if (tables[i].here())
            buf_printf(&here, ", %s", tables[i].kernels->name);
    int rc = error_set(e, ERR_UNSUPPORTED,
                       "this machine cannot run the kernels \"%s\"; there are auto, reference%.*s", name,
                       (int)here.n, here.n ? here.p : "");
    buf_free(&here);
    return rc;
}

/* What options call the forms of KV pages. */
static int find_kv_form(const char *name, enum kv_form *out, struct error *e) {
    static const struct {
        const char *name;
        enum kv_form form;
    } forms[] = {{"f16", KV_F16}, {"q8", KV_Q8}};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
        if (!strcmp(name ? name : "f16", forms[i].name)) {
            *out = forms[i].form;
            return 0;
        }
    return error_set(e, ERR_INVALID, "keys and values are kept as f16 or q8, not \"%.100s\"", name);
}

int chip_open(struct chip **out, const struct chip_options *o, struct error *e) {
    *out = NULL;
    bool known;
    const struct kernels *fast = find_kernels(o->kernels, &known);
    if (!known)
        return kernels_unknown(o->kernels, e);
    enum kv_form kv;
    int rc = find_kv_form(o->kv, &kv, e);
    if (rc)
        return rc;
    struct chip *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(e, ERR_NO_MEMORY, "no memory for the chip");
    rc = pool_create(&c->pool, o->threads, e);
    if (rc)
        goto fail;
    c->fast = fast;
    if (kv == KV_F16 && fast && fast->pairs() && fast->kv[KV_BF16].attend)
        kv = KV_BF16;
    c->kv = fast ? &fast->kv[kv] : NULL;
    c->threads = pool_threads(c->pool);
    c->own = calloc(c->threads, sizeof *c->own);
    c->pack_folder = o->pack_folder ? strdup(o->pack_folder) : NULL;
    if (!c->own || (o->pack_folder && !c->pack_folder)) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory for the chip");
        goto fail;
    }
    *out = c;
    return 0;
fail:
    chip_close(c);
    return rc;
}

void chip_close(struct chip *c) {
    if (!c)
        return;
    for (uint32_t i = 0; c->own && i < c->threads; i++)
        free(c->own[i].p);
    free(c->own);
    free(c->shared.p);
    free(c->parts.p);
    free(c->pack_folder);
    pool_free(c->pool);
    free(c);
}

const char *chip_kernels(const struct chip *c) {
    return c->fast ? c->fast->name : "reference";
}

void chip_take_core(const struct chip *c) {
    pool_pin_caller(c->pool);
}

uint32_t chip_threads(const struct chip *c) {
    return c->threads;
}

void *chip_alloc(struct chip *c, size_t bytes) {
    void *p = mmap(NULL, bytes ? bytes : 1, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (bytes >= (size_t)4 << 20)
        madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

void chip_release(struct chip *c, void *p, size_t bytes) {
    if (p)
        munmap(p, bytes ? bytes : 1);
}

void *scratch_need(struct scratch *s, size_t bytes) {
    if (s->bytes < bytes) {
        free(s->p);
        s->bytes = (bytes + bytes / 4 + 4095) / 4096 * 4096;
        s->p = aligned_alloc(4096, s->bytes);
        if (!s->p) {
            log_error("no memory for %zu bytes of the chip's scratch", s->bytes);
            abort();
        }
    }
    return s->p;
}

void head_rotate(float *x, const struct chip_attend *a, const float *norm, const float *rope) {
    if (norm) {
        float f = norm_factor(x, a->kv->head_dim, a->norm_eps);
        for (uint32_t i = 0; i < a->kv->head_dim; i++)
            x[i] = x[i] * f * norm[i];
    }
    uint32_t half = a->rope_dims / 2;
    for (uint32_t i = 0; i < half; i++) {
        float *p = a->rope_neox ? x + i : x + 2 * i, *q = a->rope_neox ? x + i + half : x + 2 * i + 1;
        float cosine = rope[2 * i], sine = rope[2 * i + 1], u = *p, v = *q;
        *p = u * cosine - v * sine;
        *q = u * sine + v * cosine;
    }
}

void chip_embed(struct chip *c, const struct gguf_tensor *table, const int32_t *id, uint32_t rows,
                float scale, float *out, size_t out_stride) {
    size_t blocks = table->dim[0] / table->format->values, row_bytes = blocks * table->format->bytes;
    for (uint32_t r = 0; r < rows; r++) {
        float *y = out + r * out_stride;
        table->format->decode((const char *)table->data + (size_t)id[r] * row_bytes, y, blocks);
        for (size_t i = 0; scale != 1 && i < table->dim[0]; i++)
            y[i] *= scale;
    }
}

void chip_linear(struct chip *c, const struct chip_linear *l) {
    if (l->rows)
        (c->fast ? fast_linear : reference_linear)(c, l);
}

void chip_gated(struct chip *c, const struct chip_gated *g) {
    if (g->rows)
        (c->fast ? fast_gated : reference_gated)(c, g);
}

void chip_attend(struct chip *c, const struct chip_attend *a) {
    if (a->rows)
        (c->fast ? fast_attend : reference_attend)(c, a);
}

void chip_norm_add(struct chip *c, uint32_t rows, uint32_t width, const float *in, size_t in_stride,
                   const float *weight, float eps, float *out, size_t out_stride) {
    for (uint32_t r = 0; r < rows; r++) {
        const float *x = in + r * in_stride;
        float f = norm_factor(x, width, eps), *y = out + r * out_stride;
        for (uint32_t i = 0; i < width; i++)
            y[i] += x[i] * f * weight[i];
    }
}

void chip_rope_table(struct chip *c, uint32_t rows, const uint32_t *position, uint32_t dims,
                     const float *frequency, float *table) {
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < dims / 2; i++) {
            double angle = (double)position[r] * (double)frequency[i];
            table[(size_t)r * dims + 2 * i] = (float)cos(angle);
            table[(size_t)r * dims + 2 * i + 1] = (float)sin(angle);
        }
    }
}

size_t chip_kv_page_bytes(const struct chip *c, uint32_t layers, uint32_t kv_heads, uint32_t head_dim) {
    size_t part = c->kv ? c->kv->bytes(head_dim) : (size_t)2 * KV_PAGE_TOKENS * head_dim * sizeof(float);
    return (size_t)layers * kv_heads * part;
}
