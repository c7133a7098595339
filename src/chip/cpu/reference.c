/* The reference: plain scalar C that decodes every weight exactly and sums in double. It judges the fast tables and serves where there is
 * none. Rows of a matrix are split over the threads; a weight row is decoded once a call and met with all input rows. */
#include "chip/cpu/kernels.h"

#include <math.h>
#include <string.h>

struct reference_product {
    struct chip *c;
    const float *x; /* normed rows, packed */
    uint32_t rows, inputs;
    const struct chip_linear *l;
    const struct chip_gated *g;
};

static const float *norm_rows(struct chip *c, const float *in, size_t stride, uint32_t rows, uint32_t n,
                              const float *norm, float eps) {
    float *x = scratch_need(&c->shared, (size_t)rows * n * sizeof *x);
    for (uint32_t r = 0; r < rows; r++) {
        float f = norm ? norm_factor(in + r * stride, n, eps) : 1;
        for (uint32_t i = 0; i < n; i++)
            x[(size_t)r * n + i] = norm ? in[r * stride + i] * f * norm[i] : in[r * stride + i];
    }
    return x;
}

static void decode_row(const struct chip_matrix *w, uint32_t row, float *out) {
    w->format->decode(w->rows + row * w->row_bytes, out, w->inputs / w->format->values);
}

/* The same sums in the same order whatever the machine can do, only more of them at a time; the judge need not be slow. (The thread sanitizer
 * cannot start a program that chooses a function while it is loaded.) */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER
#endif
#elif defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER
#endif
#if defined(__x86_64__) && !defined(THREAD_SANITIZER)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif

CLONES static double dot(const float *a, const float *b, uint32_t n) {
    double s[16] = {0};
    uint32_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++)
            s[j] += (double)a[i + j] * b[i + j];
    for (; i < n; i++)
        s[0] += (double)a[i] * b[i];
    for (int width = 8; width > 0; width /= 2)
        for (int j = 0; j < width; j++)
            s[j] += s[j + width];
    return s[0];
}

static void linear_work(void *context, uint32_t thread) {
    const struct reference_product *p = context;
    struct chip *c = p->c;
    float *w = scratch_need(&c->own[thread], p->inputs * sizeof *w);
    for (uint32_t i = 0; i < p->l->outputs; i++) {
        const struct chip_matrix *m = p->l->out[i].w;
        for (uint32_t o = thread; o < m->outputs; o += c->threads) {
            decode_row(m, o, w);
            for (uint32_t r = 0; r < p->rows; r++) {
                float *out = p->l->out[i].out + r * p->l->out[i].out_stride + o;
                double y = dot(w, p->x + (size_t)r * p->inputs, p->inputs);
                if (p->l->out[i].bias)
                    y += p->l->out[i].bias[o];
                *out = p->l->out[i].add ? (float)(*out + y) : (float)y;
            }
        }
    }
}

void reference_linear(struct chip *c, const struct chip_linear *l) {
    uint32_t n = l->out[0].w->inputs;
    struct reference_product p = {
        c, norm_rows(c, l->in, l->in_stride, l->rows, n, l->norm, l->norm_eps), l->rows, n, l, NULL};
    pool_run(c->pool, linear_work, &p);
}

static double activate(enum arch_activation f, double x) {
    if (f == ARCH_SILU)
        return x / (1 + exp(-x));
    return 0.5 * x * (1 + tanh(0.79788456080286535588 * (x + 0.044715 * x * x * x)));
}

static void gated_work(void *context, uint32_t thread) {
    const struct reference_product *p = context;
    struct chip *c = p->c;
    float *w = scratch_need(&c->own[thread], 2 * p->inputs * sizeof *w), *u = w + p->inputs;
    for (uint32_t o = thread; o < p->g->gate->outputs; o += c->threads) {
        decode_row(p->g->gate, o, w);
        decode_row(p->g->up, o, u);
        for (uint32_t r = 0; r < p->rows; r++) {
            const float *x = p->x + (size_t)r * p->inputs;
            p->g->out[r * p->g->out_stride + o] =
                (float)(activate(p->g->activation, dot(w, x, p->inputs)) * dot(u, x, p->inputs));
        }
    }
}

void reference_gated(struct chip *c, const struct chip_gated *g) {
    uint32_t n = g->gate->inputs;
    struct reference_product p = {
        c, norm_rows(c, g->in, g->in_stride, g->rows, n, g->norm, g->norm_eps), g->rows, n, NULL, g};
    pool_run(c->pool, gated_work, &p);
}

/* ---- attention: pages of f32, [layer][kv head][key or value][token][head_dim] ---- */

struct reference_attention {
    struct chip *c;
    const struct chip_attend *a;
};

static float *page_of(const struct chip_attend *a, uint32_t page, uint32_t head) {
    float *p = (float *)(void *)(a->kv->base + page * a->kv->page_bytes);
    return p + ((size_t)a->layer * a->kv->kv_heads + head) * 2 * KV_PAGE_TOKENS * a->kv->head_dim;
}

static void write_work(void *context, uint32_t thread) {
    const struct reference_attention *p = context;
    const struct chip_attend *a = p->a;
    uint32_t dim = a->kv->head_dim;
    for (uint32_t r = thread; r < a->rows; r += p->c->threads) {
        const float *rope = a->rope + (size_t)r * a->rope_dims;
        uint32_t at = a->row[r].position;
        for (uint32_t h = 0; h < a->heads; h++)
            head_rotate(a->q + r * a->q_stride + h * dim, a, a->q_norm, rope);
        for (uint32_t h = 0; h < a->kv->kv_heads; h++) {
            float *k = a->k + r * a->k_stride + h * dim;
            head_rotate(k, a, a->k_norm, rope);
            float *page = page_of(a, a->row[r].page[at / KV_PAGE_TOKENS], h) + at % KV_PAGE_TOKENS * dim;
            memcpy(page, k, dim * sizeof *k);
            memcpy(page + KV_PAGE_TOKENS * dim, a->v + r * a->v_stride + h * dim, dim * sizeof *k);
        }
    }
}

static void attend_head(const struct chip_attend *a, uint32_t r, uint32_t h, double *score, double *sum) {
    uint32_t dim = a->kv->head_dim, end = a->row[r].position + 1, kv_head = h / (a->heads / a->kv->kv_heads);
    uint32_t first = a->window && end > a->window ? end - a->window : 0;
    const float *q = a->q + r * a->q_stride + h * dim;
    double most = -INFINITY, total = 0;
    for (uint32_t t = first; t < end; t++) {
        const float *k = page_of(a, a->row[r].page[t / KV_PAGE_TOKENS], kv_head) + t % KV_PAGE_TOKENS * dim;
        double s = dot(q, k, dim) * a->scale;
        score[t] = a->softcap > 0 ? a->softcap * tanh(s / a->softcap) : s;
        most = score[t] > most ? score[t] : most;
    }
    memset(sum, 0, dim * sizeof *sum);
    for (uint32_t t = first; t < end; t++) {
        const float *v = page_of(a, a->row[r].page[t / KV_PAGE_TOKENS], kv_head) +
                         (KV_PAGE_TOKENS + t % KV_PAGE_TOKENS) * dim;
        double w = exp(score[t] - most);
        total += w;
        for (uint32_t i = 0; i < dim; i++)
            sum[i] += w * v[i];
    }
    for (uint32_t i = 0; i < dim; i++)
        a->out[r * a->out_stride + h * dim + i] = (float)(sum[i] / total);
}

static void attend_work(void *context, uint32_t thread) {
    const struct reference_attention *p = context;
    const struct chip_attend *a = p->a;
    uint32_t longest = 0, dim = a->kv->head_dim;
    for (uint32_t r = 0; r < a->rows; r++)
        longest = a->row[r].position >= longest ? a->row[r].position + 1 : longest;
    double *score = scratch_need(&p->c->own[thread], (longest + dim) * sizeof *score);
    for (uint32_t i = thread; i < a->rows * a->heads; i += p->c->threads)
        attend_head(a, i / a->heads, i % a->heads, score, score + longest);
}

void reference_attend(struct chip *c, const struct chip_attend *a) {
    struct reference_attention p = {c, a};
    pool_run(c->pool, write_work, &p);
    pool_run(c->pool, attend_work, &p);
}
