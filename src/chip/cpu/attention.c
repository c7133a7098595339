/* Attention with a fast table: what is written to which page, and how the work is cut for the threads. The arithmetic itself is in the table
 * (x86_attention.inc.h). Pages are f16, [layer][kv head]{keys [head_dim][32], values [32][head_dim]}. */
#include "chip/cpu/kernels.h"

#include <string.h>

enum { MOST_QUERIES = 24 };

struct attention {
    struct chip *c;
    const struct chip_attend *a;
};

static uint16_t *page_of(const struct chip_attend *a, uint32_t page, uint32_t head) {
    uint16_t *p = (uint16_t *)(void *)(a->kv->base + page * a->kv->page_bytes);
    return p + ((size_t)a->layer * a->kv->kv_heads + head) * 2 * KV_PAGE_TOKENS * a->kv->head_dim;
}

static void write_work(void *context, uint32_t thread) {
    const struct attention *p = context;
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
            uint16_t *page = page_of(a, a->row[r].page[at / KV_PAGE_TOKENS], h);
            p->c->fast->kv_write(page, page + KV_PAGE_TOKENS * dim, at % KV_PAGE_TOKENS, k,
                                 a->v + r * a->v_stride + h * dim, dim);
        }
    }
}

/* The query vectors of `rows` rows of one sequence that share one KV head meet that sequence's pages once. */
static void attend_group(struct chip *c, const struct chip_attend *a, uint32_t first, uint32_t rows,
                         uint32_t head, uint32_t thread) {
    const struct kernels *f = c->fast;
    uint32_t dim = a->kv->head_dim, group = a->heads / a->kv->kv_heads, n = rows * group;
    const struct chip_attend_row *last = &a->row[first + rows - 1];
    uint32_t begin = a->row[first].position + 1;
    uint32_t from = a->window && begin > a->window ? (begin - a->window) / KV_PAGE_TOKENS : 0,
             pages = last->position / KV_PAGE_TOKENS + 1;
    size_t stride = (size_t)(pages - from) * KV_PAGE_TOKENS;
    float *score = scratch_need(&c->own[thread], n * (stride + dim + 2) * sizeof *score),
          *out = score + n * stride;
    float *total = out + (size_t)n * dim;
    for (uint32_t i = 0; i < n; i += f->tile_rows) {
        uint32_t now = n - i < f->tile_rows ? n - i : f->tile_rows;
        const float *q[MOST_TILE_ROWS];
        for (uint32_t j = 0; j < now; j++)
            q[j] = a->q + (first + (i + j) / group) * a->q_stride + (head * group + (i + j) % group) * dim;
        for (uint32_t t = from; t < pages; t++)
            f->score(q, now, page_of(a, last->page[t], head), dim,
                     score + i * stride + (t - from) * KV_PAGE_TOKENS, stride);
    }
    for (uint32_t i = 0; i < n; i++) {
        uint32_t end = a->row[first + i / group].position + 1,
                 start = a->window && end > a->window ? end - a->window : 0;
        total[i] = f->softmax(score + i * stride, start - from * KV_PAGE_TOKENS, end - from * KV_PAGE_TOKENS,
                              a->scale, a->softcap);
    }
    memset(out, 0, (size_t)n * dim * sizeof *out);
    for (uint32_t t = from; t < pages; t++) {
        const uint16_t *values = page_of(a, last->page[t], head) + KV_PAGE_TOKENS * dim;
        for (uint32_t r = 0; r < rows; r++) {
            uint32_t end = a->row[first + r].position + 1, at = t * KV_PAGE_TOKENS;
            uint32_t tokens = end <= at ? 0 : end - at < KV_PAGE_TOKENS ? end - at : KV_PAGE_TOKENS;
            uint32_t start = a->window && end > a->window && end - a->window > at ? end - a->window - at : 0;
            for (uint32_t h = 0; start < tokens && h < group; h += f->tile_rows)
                f->mix(score + (r * group + h) * stride + (t - from) * KV_PAGE_TOKENS, stride,
                       group - h < f->tile_rows ? group - h : f->tile_rows, start, tokens, values, dim,
                       out + (r * group + h) * dim, dim);
        }
    }
    for (uint32_t i = 0; i < n; i++) {
        float *y = a->out + (first + i / group) * a->out_stride + (head * group + i % group) * dim,
              inverse = 1 / total[i];
        for (uint32_t d = 0; d < dim; d++)
            y[d] = out[i * dim + d] * inverse;
    }
}

/* Rows from r that one group may take: of the same sequence, few enough for the scratch. */
static uint32_t run_length(const struct chip_attend *a, uint32_t r) {
    uint32_t group = a->heads / a->kv->kv_heads, most = group >= MOST_QUERIES ? 1 : MOST_QUERIES / group,
             n = 1;
    while (n < most && r + n < a->rows && a->row[r + n].page == a->row[r].page)
        n++;
    return n;
}

static void attend_work(void *context, uint32_t thread) {
    const struct attention *p = context;
    uint32_t mine = atomic_fetch_add(&p->c->next, 1), i = 0;
    for (uint32_t r = 0, n; r < p->a->rows; r += n) {
        n = run_length(p->a, r);
        for (uint32_t h = 0; h < p->a->kv->kv_heads; h++, i++) {
            if (i != mine)
                continue;
            attend_group(p->c, p->a, r, n, h, thread);
            mine = atomic_fetch_add(&p->c->next, 1);
        }
    }
}

void fast_attend(struct chip *c, const struct chip_attend *a) {
    struct attention p = {c, a};
    if (a->rows < 4)
        for (uint32_t t = 0; t < c->threads; t++)
            write_work(&p, t);
    else
        pool_run(c->pool, write_work, &p);
    atomic_store(&c->next, 0);
    pool_run(c->pool, attend_work, &p);
}
