/* Attention with a fast table: what is written to which page, and how the work is cut for the threads; the arithmetic itself is in the table
 * (x86_attention.inc.h). The tokens that a row looks at are cut into segments of SEGMENT pages, counted from the sequence's beginning. Each is summed by itself and they are
 * merged in their order, whether one thread meets them all or each another; so a row's bits depend on its position alone. */
#include "chip/cpu/kernels.h"

#include <assert.h>
#include <math.h>
#include <string.h>

enum {
    SEGMENT = 16, /* pages */
    BLOCK_VALUES =
        6144, /* queries that meet a page together, times their dims: they stay in the nearest caches */
    UNITS = 4 /* pieces of work that a thread wants at least, or segments are dealt one by one */
};
#define LOG2_E 1.44269504f

/* Rows of one sequence that meet its pages together, and one KV head. */
struct item {
    uint32_t row, rows, head;
    uint32_t from, to;     /* segments */
    uint32_t first;        /* part of the first of them, when segments are dealt one by one */
    _Atomic uint32_t left; /* segments that are not done */
};

/* What a run of pages gave for n queries. */
struct part {
    float *out, *most, *total;
};

struct attention {
    struct chip *c;
    const struct chip_attend *a;
    struct item *item;
    uint32_t items, most_queries;
    bool dealt;   /* segments one by one: each writes a part of its own */
    float *parts; /* [segments of all items][part_values] */
};

static uint32_t group_of(const struct chip_attend *a) {
    assert(a->kv->kv_heads > 0);
    return a->heads / a->kv->kv_heads;
}

static size_t part_values(const struct chip_attend *a, uint32_t queries) {
    return queries * ((size_t)attend_wide(a->kv->head_dim) + 2);
}

static struct part part_at(const struct chip_attend *a, float *p, uint32_t queries) {
    float *most = p + queries * (size_t)attend_wide(a->kv->head_dim);
    return (struct part){p, most, most + queries};
}

/* ---- keys and values to their pages ---- */

/* Where this layer's part for a KV head lies in page 0. */
static char *layer_part(const struct chip *c, const struct chip_attend *a, uint32_t head) {
    return a->kv->base + ((size_t)a->layer * a->kv->kv_heads + head) * c->kv->bytes(a->kv->head_dim);
}

static void write_row(const struct chip *c, const struct chip_attend *a, uint32_t r) {
    const float *rope = a->rope + (size_t)r * a->rope_dims;
    uint32_t dim = a->kv->head_dim, at = a->row[r].position;
    size_t page = a->row[r].page[at / KV_PAGE_TOKENS] * a->kv->page_bytes;
    for (uint32_t h = 0; h < a->heads; h++)
        head_rotate(a->q + r * a->q_stride + h * dim, a, a->q_norm, rope);
    for (uint32_t h = 0; h < a->kv->kv_heads; h++) {
        float *k = a->k + r * a->k_stride + h * dim;
        head_rotate(k, a, a->k_norm, rope);
        c->kv->write(layer_part(c, a, h) + page, at % KV_PAGE_TOKENS, k, a->v + r * a->v_stride + h * dim,
                     dim);
    }
}

/* Rows side by side are one thread's: their keys share cache lines. */
static void write_work(void *context, uint32_t thread) {
    const struct attention *p = context;
    uint32_t from, to;
    while (pool_take(p->c->pool, thread, KV_PAGE_TOKENS, &from, &to))
        for (uint32_t r = from; r < to; r++)
            write_row(p->c, p->a, r);
}

/* ---- queries ---- */

static void look_at(const struct chip_attend *a, uint32_t row, uint32_t *start, uint32_t *end) {
    *end = a->row[row].position + 1;
    *start = a->window && *end > a->window ? *end - a->window : 0;
}

/* A thread's room for one item. */
struct desk {
    struct attend_block block;
    uint32_t *start, *end;
    float *q;
    struct part sum, now;
};

static void desk_lay(struct desk *d, const struct attention *p, const struct item *i, uint32_t thread) {
    const struct chip_attend *a = p->a;
    uint32_t dim = a->kv->head_dim, wide = attend_wide(dim), group = group_of(a), n = i->rows * group;
    size_t part = part_values(a, n), q = (size_t)n * wide;
    size_t work = (attend_work_bytes(n, dim) + 63) / 64 * 64;
    char *at = scratch_need(&p->c->own[thread], work + (2 * part + q + 2 * (size_t)n) * sizeof(float));
    d->q = (float *)(void *)(at + work);
    d->sum = part_at(a, d->q + q, n);
    d->now = part_at(a, d->q + q + part, n);
    d->start = (uint32_t *)(void *)(d->q + q + 2 * part);
    d->end = d->start + n;
    float scale = a->softcap > 0 ? 2 * LOG2_E * a->scale / a->softcap : LOG2_E * a->scale;
    for (uint32_t j = 0; j < n; j++) {
        const float *from = a->q + (i->row + j / group) * a->q_stride + (i->head * group + j % group) * dim;
        float *to = d->q + (size_t)j * wide;
        for (uint32_t k = 0; k < wide; k++)
            to[k] = k < dim ? from[k] * scale : 0;
        look_at(a, i->row + j / group, &d->start[j], &d->end[j]);
    }
    d->block = (struct attend_block){.base = layer_part(p->c, a, i->head),
                                     .page_bytes = a->kv->page_bytes,
                                     .queries = n,
                                     .dim = dim,
                                     .start = d->start,
                                     .end = d->end,
                                     .q = d->q,
                                     .softcap = LOG2_E * a->softcap,
                                     .work = at};
}

/* One segment's pages, of those that the item's rows look at. */
static void attend_segment(struct desk *d, const struct attention *p, const struct item *i, uint32_t segment,
                           struct part to) {
    struct attend_block *b = &d->block;
    uint32_t from = d->start[0] / KV_PAGE_TOKENS, end = (d->end[b->queries - 1] - 1) / KV_PAGE_TOKENS + 1;
    from = from > segment * SEGMENT ? from : segment * SEGMENT;
    end = end < (segment + 1) * SEGMENT ? end : (segment + 1) * SEGMENT;
    b->page = p->a->row[i->row].page + from;
    b->pages = end - from;
    b->at = from * KV_PAGE_TOKENS;
    b->out = to.out;
    b->most = to.most;
    b->total = to.total;
    p->c->kv->attend(b);
}

/* The sums of the segments before, and those of one more. */
static void merge(struct part sum, struct part more, uint32_t queries, uint32_t wide) {
    for (uint32_t i = 0; i < queries; i++) {
        float most = sum.most[i] > more.most[i] ? sum.most[i] : more.most[i];
        float f = exp2f(sum.most[i] - most), g = exp2f(more.most[i] - most);
        float *to = sum.out + (size_t)i * wide, *from = more.out + (size_t)i * wide;
        for (uint32_t d = 0; d < wide; d++)
            to[d] = to[d] * f + from[d] * g;
        sum.total[i] = sum.total[i] * f + more.total[i] * g;
        sum.most[i] = most;
    }
}

static void finish(const struct chip_attend *a, const struct item *i, struct part sum) {
    uint32_t dim = a->kv->head_dim, group = group_of(a);
    for (uint32_t j = 0; j < i->rows * group; j++) {
        float *y = a->out + (i->row + j / group) * a->out_stride + (i->head * group + j % group) * dim;
        float inverse = 1 / sum.total[j];
        for (uint32_t d = 0; d < dim; d++)
            y[d] = sum.out[j * (size_t)attend_wide(dim) + d] * inverse;
    }
}

/* ---- pieces of work ---- */

static void item_work(const struct attention *p, const struct item *i, uint32_t thread) {
    struct desk d;
    desk_lay(&d, p, i, thread);
    for (uint32_t s = i->from; s < i->to; s++) {
        attend_segment(&d, p, i, s, s == i->from ? d.sum : d.now);
        if (s > i->from)
            merge(d.sum, d.now, d.block.queries, attend_wide(d.block.dim));
    }
    finish(p->a, i, d.sum);
}

/* Whoever does an item's last segment merges them. */
static void segment_work(const struct attention *p, struct item *i, uint32_t segment, uint32_t thread) {
    struct desk d;
    uint32_t n = i->rows * group_of(p->a);
    size_t values = part_values(p->a, p->most_queries);
    float *first = p->parts + i->first * values;
    desk_lay(&d, p, i, thread);
    attend_segment(&d, p, i, segment, part_at(p->a, first + (segment - i->from) * values, n));
    if (atomic_fetch_sub(&i->left, 1) > 1)
        return;
    for (uint32_t s = 1; s < i->to - i->from; s++)
        merge(part_at(p->a, first, n), part_at(p->a, first + s * values, n), n, attend_wide(d.block.dim));
    finish(p->a, i, part_at(p->a, first, n));
}

static void attend_work(void *context, uint32_t thread) {
    const struct attention *p = context;
    uint32_t unit, to, i = 0;
    while (pool_take(p->c->pool, thread, 1, &unit, &to)) {
        if (!p->dealt) {
            item_work(p, &p->item[unit], thread);
            continue;
        }
        for (i = 0; unit >= p->item[i].first + (p->item[i].to - p->item[i].from);)
            i++;
        segment_work(p, &p->item[i], p->item[i].from + unit - p->item[i].first, thread);
    }
}

/* Rows from r that one item may take: of the same sequence, and few enough. */
static uint32_t run_length(const struct chip_attend *a, uint32_t r) {
    uint32_t most = BLOCK_VALUES / attend_wide(a->kv->head_dim) / group_of(a), n = 1;
    while (n < most && r + n < a->rows && a->row[r + n].page == a->row[r].page)
        n++;
    return n;
}

/* All items, and how many segments they have together. */
static uint32_t cut(struct attention *p) {
    const struct chip_attend *a = p->a;
    uint32_t segments = 0, start, end;
    for (uint32_t r = 0, n; r < a->rows; r += n) {
        n = run_length(a, r);
        look_at(a, r, &start, &end);
        uint32_t from = start / (SEGMENT * KV_PAGE_TOKENS),
                 to = a->row[r + n - 1].position / (SEGMENT * KV_PAGE_TOKENS) + 1;
        for (uint32_t h = 0; h < a->kv->kv_heads; h++) {
            struct item *i = &p->item[p->items++];
            *i = (struct item){
                .row = r, .rows = n, .head = h, .from = from, .to = to, .first = segments, .left = to - from};
            segments += to - from;
        }
        p->most_queries = n * group_of(a) > p->most_queries ? n * group_of(a) : p->most_queries;
    }
    return segments;
}

void fast_attend(struct chip *c, const struct chip_attend *a) {
    struct attention p = {.c = c, .a = a};
    if (a->rows < 4) {
        for (uint32_t r = 0; r < a->rows; r++)
            write_row(c, a, r);
    } else {
        pool_share(c->pool, a->rows);
        pool_run(c->pool, write_work, &p);
    }
    p.item = scratch_need(&c->shared, (size_t)a->rows * a->kv->kv_heads * sizeof *p.item);
    uint32_t segments = cut(&p);
    p.dealt = c->threads > 1 && p.items < UNITS * c->threads && segments > p.items;
    if (p.dealt)
        p.parts = scratch_need(&c->parts, segments * part_values(a, p.most_queries) * sizeof *p.parts);
    pool_share(c->pool, p.dealt ? segments : p.items);
    pool_run(c->pool, attend_work, &p);
}
