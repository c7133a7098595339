/* Products and attention with a fast table: what to norm, quantise and multiply when, and how the work is cut for the threads. The
 * arithmetic itself is in the table (x86.inc.h). A row's result depends on the row alone: every tile sums one output in the same order, however
 * many rows are beside it. */
#include "chip/cpu/kernels.h"

#include <string.h>

enum { CHUNK_BYTES = 384 << 10, COLUMNS = 2 * PANEL };

struct product {
    struct chip *c;
    const struct quantised *a;
    const struct chip_linear *l;
    const struct chip_gated *g;
    uint32_t units, piece; /* of two panels each, all matrices together */
};

struct quantising {
    struct chip *c;
    struct quantised a;
    const float *in, *norm;
    size_t stride;
    uint32_t rows, n;
    float eps;
    bool codes, floats; /* what the matrices' forms take */
};

static void quantise_work(void *context, uint32_t thread) {
    struct quantising *p = context;
    for (uint32_t r = thread; r < p->rows; r += p->c->threads)
        p->c->fast->quantise(&p->a, r, p->in + r * p->stride, p->n, p->norm, p->eps);
}

static void quantise_rows(struct quantising *p) {
    struct quantised *a = &p->a;
    a->blocks = (p->n + BLOCK - 1) / BLOCK;
    a->padded = a->blocks * BLOCK;
    a->stride = a->blocks + a->blocks / OUTLIER;
    size_t rows = p->rows, codes = p->codes ? rows * a->stride * sizeof *a->block : 0,
           floats = p->floats ? rows * a->padded * sizeof *a->x : 0;
    char *at = scratch_need(&p->c->shared, codes + floats + rows * sizeof *a->further);
    a->block = codes ? (struct quantised_block *)(void *)at : NULL;
    a->x = floats ? (float *)(void *)(at + codes) : NULL;
    a->further = (uint32_t *)(void *)(at + codes + floats);
    if (p->rows < 4)
        for (uint32_t r = 0; r < p->rows; r++)
            p->c->fast->quantise(a, r, p->in + r * p->stride, p->n, p->norm, p->eps);
    else
        pool_run(p->c->pool, quantise_work, p);
}

static void quantise_for(struct quantising *p, const struct chip_matrix *m) {
    bool floats = m->form == FORM_F32 || m->form == FORM_F16 || m->form == FORM_BF16;
    p->floats |= floats;
    p->codes |= !floats;
}

static uint32_t panels_of(const struct chip_matrix *m) {
    return (m->outputs + PANEL - 1) / PANEL;
}

/* All rows' products with (up to) two panels from `panel`, into out[rows][COLUMNS]. While two panels are multiplied the next two are asked for, so that
 * reading and computing overlap. */
static void multiply(const struct product *p, const struct chip_matrix *m, uint32_t panel, uint32_t first,
                     uint32_t rows, float *out) {
    const struct kernels *k = p->c->fast;
    uint32_t panels = panels_of(m) - panel < 2 ? 1 : 2;
    struct tile t = {
        .a = p->a, .w = m, .row = first, .rows = rows, .panels = 1, .stride = COLUMNS, .ahead = AHEAD_BYTES};
    if (rows <= 2) { /* they wait for memory: one stream of bytes in its order */
        for (uint32_t i = 0; i < panels; i++) {
            t.panel = panel + i;
            t.out = out + i * PANEL;
            k->tile(&t);
        }
        return;
    }
    uint32_t tiles = (rows + k->tile_rows - 1) / k->tile_rows;
    t.ahead = 2 * m->panel_bytes;
    for (uint32_t i = 0; i < panels; i += k->tile_panels) {
        t.panel = panel + i;
        t.panels = panels - i < k->tile_panels ? panels - i : k->tile_panels;
        for (uint32_t j = 0; j < tiles; j++) {
            uint32_t r =
                rows * j / tiles; /* all of nearly the same height: 8 rows are 4 and 4, not 6 and 2 */
            t.row = first + r;
            t.rows = rows * (j + 1) / tiles - r;
            t.out = out + r * COLUMNS + i * PANEL;
            k->tile(&t);
        }
    }
}

static void store(const struct chip_linear *l, uint32_t i, uint32_t first, uint32_t rows, uint32_t column,
                  float *y) {
    uint32_t n = l->out[i].w->outputs - column < COLUMNS ? l->out[i].w->outputs - column : COLUMNS;
    const float *bias = l->out[i].bias ? l->out[i].bias + column : NULL;
    for (uint32_t r = 0; r < rows; r++, y += COLUMNS) {
        float *out = l->out[i].out + (first + r) * l->out[i].out_stride + column;
        for (uint32_t j = 0; bias && j < n; j++)
            y[j] += bias[j];
        for (uint32_t j = 0; l->out[i].add && j < n; j++)
            y[j] += out[j];
        memcpy(out, y, n * sizeof *y);
    }
}

static void unit_run(const struct product *p, uint32_t unit, uint32_t first, uint32_t rows, float *y) {
    if (p->l) {
        uint32_t i = 0, units;
        while (unit >= (units = (panels_of(p->l->out[i].w) + 1) / 2)) {
            unit -= units;
            i++;
        }
        multiply(p, p->l->out[i].w, unit * 2, first, rows, y);
        store(p->l, i, first, rows, unit * COLUMNS, y);
        return;
    }
    const struct chip_gated *g = p->g;
    float *up = y + (size_t)rows * COLUMNS;
    multiply(p, g->gate, unit * 2, first, rows, y);
    multiply(p, g->up, unit * 2, first, rows, up);
    uint32_t column = unit * COLUMNS,
             n = g->gate->outputs - column < COLUMNS ? g->gate->outputs - column : COLUMNS;
    p->c->fast->gate(g->activation, y, up, y, rows * COLUMNS);
    for (uint32_t r = 0; r < rows; r++)
        memcpy(g->out + (first + r) * g->out_stride + column, y + r * COLUMNS, n * sizeof *y);
}

static void product_work(void *context, uint32_t thread) {
    const struct product *p = context;
    struct chip *c = p->c;
    uint32_t rows = p->l ? p->l->rows : p->g->rows, most = CHUNK_BYTES / p->a->padded / 12 * 12;
    most = most < 12 ? 12 : most > 192 ? 192 : most;
    float *y = scratch_need(&c->own[thread], (size_t)(rows < most ? rows : most) * 2 * COLUMNS * sizeof *y);
    uint32_t from, to;
    while (pool_take(c->pool, thread, p->piece, &from, &to))
        for (uint32_t first = 0; first < rows; first += most)
            for (uint32_t unit = from; unit < to; unit++)
                unit_run(p, unit, first, rows - first < most ? rows - first : most, y);
}

static void product_run(struct product *p) {
    uint32_t pieces = p->c->threads * 16;
    p->piece = (p->units + pieces - 1) / pieces;
    pool_share(p->c->pool, p->units);
    pool_run(p->c->pool, product_work, p);
}

void fast_linear(struct chip *c, const struct chip_linear *l) {
    struct quantising q = {.c = c,
                           .in = l->in,
                           .norm = l->norm,
                           .stride = l->in_stride,
                           .rows = l->rows,
                           .n = l->out[0].w->inputs,
                           .eps = l->norm_eps};
    for (uint32_t i = 0; i < l->outputs; i++)
        quantise_for(&q, l->out[i].w);
    quantise_rows(&q);
    struct product p = {.c = c, .a = &q.a, .l = l};
    for (uint32_t i = 0; i < l->outputs; i++)
        p.units += (panels_of(l->out[i].w) + 1) / 2;
    product_run(&p);
}

void fast_gated(struct chip *c, const struct chip_gated *g) {
    struct quantising q = {.c = c,
                           .in = g->in,
                           .norm = g->norm,
                           .stride = g->in_stride,
                           .rows = g->rows,
                           .n = g->gate->inputs,
                           .eps = g->norm_eps};
    quantise_for(&q, g->gate);
    quantise_for(&q, g->up);
    quantise_rows(&q);
    struct product p = {.c = c, .a = &q.a, .g = g, .units = (panels_of(g->gate) + 1) / 2};
    product_run(&p);
}

/* ---- attention: pages of f16, [layer][kv head]{keys [head_dim][32], values [32][head_dim]} ---- */

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
