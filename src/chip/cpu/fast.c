/* Products with a fast table: what to norm, quantise and multiply when, and how the work is cut for the threads. The
 * arithmetic itself is in the table (x86.inc.h). A row's result depends on the row alone: every tile sums one output in the same order, however
 * many rows are beside it. */
#include "chip/cpu/kernels.h"

#include <string.h>

enum { CHUNK_BYTES = 512 << 10 };

struct product {
    struct chip *c;
    const struct quantised *a;
    const struct chip_linear *l;
    const struct chip_gated *g;
    uint32_t units; /* of two panels each, all matrices together */
    uint32_t chunks, piece;
};

/* So few rows wait for memory: they are one tile, which meets the weights once, panel by panel, as one stream of bytes in its order. */
static bool streams(const struct chip *c, uint32_t rows) {
    return rows <= c->fast->stream_rows;
}

struct quantising {
    struct chip *c;
    struct quantised a;
    const float *in, *norm;
    size_t stride;
    uint32_t n;
    float eps;
    bool codes, joined, floats, halves; /* what the matrices' forms take */
};

/* A tile is one thread's: its rows share cache lines, which two threads would tear from each other. */
static void quantise_tiles(const struct quantising *p, uint32_t from, uint32_t to) {
    const struct quantised *a = &p->a;
    for (uint32_t j = from; j < to; j++) {
        uint32_t first = tile_begin(a, j), end = tile_begin(a, j + 1);
        for (uint32_t r = first; r < end; r++)
            p->c->fast->quantise(a, first, end - first, r, p->in + r * p->stride, p->n, p->norm, p->eps);
    }
}

static void quantise_work(void *context, uint32_t thread) {
    const struct quantising *p = context;
    uint32_t from, to;
    while (pool_take(p->c->pool, thread, 1, &from, &to))
        quantise_tiles(p, from, to);
}

static void quantise_rows(struct quantising *p) {
    struct quantised *a = &p->a;
    a->tiles = streams(p->c, a->rows) ? 1 : (a->rows + p->c->fast->tile_rows - 1) / p->c->fast->tile_rows;
    a->blocks = blocks_of(p->n);
    a->padded = a->blocks * BLOCK;
    a->most_further = a->blocks / OUTLIER;
    size_t rows = a->rows, codes = p->codes ? rows * a->blocks * ROW_BYTES : 0,
           floats = p->floats ? rows * a->padded * sizeof *a->x : 0,
           halves = p->halves ? rows * a->padded * sizeof *a->halves : 0,
           further = p->codes ? rows * a->most_further * sizeof *a->further : 0;
    char *at = scratch_need(&p->c->shared, codes + floats + halves + further +
                                               rows * (sizeof *a->further_n + sizeof *a->unit));
    a->codes = codes ? (uint8_t *)at : NULL;
    a->x = floats ? (float *)(void *)(at + codes) : NULL;
    a->halves = halves ? (uint16_t *)(void *)(at + codes + floats) : NULL;
    a->further = (struct further *)(void *)(at + codes + floats + halves);
    a->further_n = (uint32_t *)(void *)(at + codes + floats + halves + further);
    a->unit = p->joined ? (float *)(a->further_n + rows) : NULL;
    if (a->tiles == 1) {
        quantise_tiles(p, 0, 1);
        return;
    }
    pool_share(p->c->pool, a->tiles);
    pool_run(p->c->pool, quantise_work, p);
}

static void quantise_for(struct quantising *p, const struct chip_matrix *m) {
    bool halves = m->form == FORM_BF16 && p->c->fast->pairs(),
         floats = m->form == FORM_F32 || m->form == FORM_F16 || m->form == FORM_BF16;
    p->halves |= halves;
    p->floats |= floats && !halves;
    p->codes |= !floats;
    p->joined |= form_joined(m->form);
}

static uint32_t panels_of(const struct chip_matrix *m) {
    return (m->outputs + PANEL - 1) / PANEL;
}

/* The rows of tiles [from, to). */
struct chunk {
    uint32_t from, to, first, rows;
};

/* How far ahead of its weights a tile asks for others. In a stream, the more is computed for each byte the earlier; else while two panels are multiplied, for the
 * next two. */
static size_t ahead(const struct product *p, const struct chip_matrix *m) {
    if (!streams(p->c, p->a->rows))
        return 2 * m->panel_bytes;
    return p->a->rows <= 2 ? AHEAD_BYTES : 4 * AHEAD_BYTES;
}

/* The products of a chunk's rows with (up to) two panels from `panel`, into out[rows][stride] or added to it. */
static void multiply(const struct product *p, const struct chip_matrix *m, uint32_t panel,
                     const struct chunk *k, float *out, size_t stride, bool add) {
    const struct kernels *f = p->c->fast;
    uint32_t panels = panels_of(m) - panel < 2 ? 1 : 2, most = streams(p->c, p->a->rows) ? 1 : f->tile_panels;
    struct tile t = {
        .a = p->a, .w = m, .stride = stride, .add = add, .ahead = ahead(p, m), .asks = k->to - k->from};
    for (uint32_t i = 0; i < panels; i += most) {
        t.panel = panel + i;
        t.panels = panels - i < most ? panels - i : most;
        for (uint32_t j = k->from; j < k->to; j++) {
            t.ask = j - k->from;
            t.row = tile_begin(p->a, j);
            t.rows = tile_begin(p->a, j + 1) - t.row;
            t.out = out + (t.row - k->first) * stride + i * PANEL;
            f->tile(&t);
        }
    }
}

/* Two panels of matrix i: straight into its rows, but for its last columns and where a bias comes between. */
static void linear_unit(const struct product *p, uint32_t i, uint32_t unit, const struct chunk *k, float *y) {
    const struct chip_linear *l = p->l;
    uint32_t column = unit * COLUMNS, n = l->out[i].w->outputs - column;
    size_t stride = l->out[i].out_stride;
    float *out = l->out[i].out + k->first * stride + column;
    if (n >= COLUMNS && !l->out[i].bias) {
        multiply(p, l->out[i].w, unit * 2, k, out, stride, l->out[i].add);
        return;
    }
    multiply(p, l->out[i].w, unit * 2, k, y, COLUMNS, false);
    for (uint32_t r = 0; r < k->rows; r++, y += COLUMNS, out += stride)
        for (uint32_t j = 0; j < n && j < COLUMNS; j++) {
            float x = l->out[i].bias ? y[j] + l->out[i].bias[column + j] : y[j];
            out[j] = l->out[i].add ? out[j] + x : x;
        }
}

static void gated_unit(const struct product *p, uint32_t unit, const struct chunk *k, float *y) {
    const struct chip_gated *g = p->g;
    float *up = y + (size_t)k->rows * COLUMNS;
    multiply(p, g->gate, unit * 2, k, y, COLUMNS, false);
    multiply(p, g->up, unit * 2, k, up, COLUMNS, false);
    uint32_t column = unit * COLUMNS, n = g->gate->outputs - column;
    float *out = g->out + k->first * g->out_stride + column;
    if (n >= COLUMNS) {
        p->c->fast->gate(g->activation, y, up, k->rows, out, g->out_stride);
        return;
    }
    p->c->fast->gate(g->activation, y, up, k->rows, y, COLUMNS);
    for (uint32_t r = 0; r < k->rows; r++)
        memcpy(out + r * g->out_stride, y + r * COLUMNS, n * sizeof *y);
}

static void unit_run(const struct product *p, uint32_t unit, const struct chunk *k, float *y) {
    uint32_t i = 0, units;
    if (p->g) {
        gated_unit(p, unit, k, y);
        return;
    }
    while (unit >= (units = (panels_of(p->l->out[i].w) + 1) / 2)) {
        unit -= units;
        i++;
    }
    linear_unit(p, i, unit, k, y);
}

/* Chunks of nearly as many tiles, each so small that a core's own cache holds it beside two panels. */
static uint32_t count_chunks(const struct product *p) {
    size_t tile = (size_t)p->a->blocks * ROW_BYTES * p->c->fast->tile_rows;
    uint32_t most = CHUNK_BYTES / tile < 2 ? 2 : (uint32_t)(CHUNK_BYTES / tile);
    return (p->a->tiles + most - 1) / most;
}

static struct chunk chunk_at(const struct product *p, uint32_t i) {
    struct chunk k = {.from = p->a->tiles * i / p->chunks, .to = p->a->tiles * (i + 1) / p->chunks};
    k.first = tile_begin(p->a, k.from);
    k.rows = tile_begin(p->a, k.to) - k.first;
    return k;
}

/* The work is shared out chunk by chunk, so that a thread stays with its rows and lets the weights pass. */
static void product_work(void *context, uint32_t thread) {
    const struct product *p = context;
    struct chip *c = p->c;
    uint32_t height = c->fast->tile_rows > c->fast->stream_rows ? c->fast->tile_rows : c->fast->stream_rows;
    size_t most = ((size_t)p->a->tiles / p->chunks + 1) * height;
    float *y = scratch_need(&c->own[thread], most * 2 * COLUMNS * sizeof *y);
    uint32_t from, to;
    while (pool_take(c->pool, thread, p->piece, &from, &to))
        while (from < to) {
            struct chunk k = chunk_at(p, from / p->units);
            uint32_t end = (from / p->units + 1) * p->units;
            for (end = end < to ? end : to; from < end; from++)
                unit_run(p, from % p->units, &k, y);
        }
}

static void product_run(struct product *p) {
    p->chunks = count_chunks(p);
    uint32_t pieces = p->c->threads * 16, all = p->units * p->chunks;
    p->piece = (all + pieces - 1) / pieces;
    pool_share(p->c->pool, all);
    pool_run(p->c->pool, product_work, p);
}

void fast_linear(struct chip *c, const struct chip_linear *l) {
    struct quantising q = {.c = c,
                           .a.rows = l->rows,
                           .in = l->in,
                           .norm = l->norm,
                           .stride = l->in_stride,
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
                           .a.rows = g->rows,
                           .in = g->in,
                           .norm = g->norm,
                           .stride = g->in_stride,
                           .n = g->gate->inputs,
                           .eps = g->norm_eps};
    quantise_for(&q, g->gate);
    quantise_for(&q, g->up);
    quantise_rows(&q);
    struct product p = {.c = c, .a = &q.a, .g = g, .units = (panels_of(g->gate) + 1) / 2};
    product_run(&p);
}
