/* The kernels of attention of the x86 tables: what a KV page holds, and a pass over pages that never sees more than one at a time (online softmax: Milakov and Gimelshein,
 * arXiv 1805.02867; tiles: Dao et al., FlashAttention, arXiv 2205.14135). avx2.c and avx512.c include this after x86.inc.h, whose words it uses.
 *
 * A tile is up to ATTEND_ROWS queries by the 32 tokens of a page: scores, weights and the weighted sum of the values stay in registers and the nearest cache. A query's
 * arithmetic is the same in every tile, so that its bits never depend on its neighbours. */

enum { NV = KV_PAGE_TOKENS / VW, STRIP = 32 /* dims of an output that a tile sums at a time: NV vectors */ };

/* Room in b->work: each query's total in lanes, then for a page and the queries in another form. */
INLINE float *attend_lanes(const struct attend_block *b) {
    return b->work;
}

INLINE void *attend_room(const struct attend_block *b) {
    return attend_lanes(b) + (size_t)b->queries * VW;
}

/* One page of a KV head, as the tiles take it. Spread: its codes are widened in b->work, which pays when several tiles meet them. */
struct kv_page {
    const char *keys, *values; /* in the page, or spread */
    const uint16_t *scales;    /* KV_Q8 */
    const char *next;          /* the page to come, asked for while this one is met */
    uint32_t at, tokens;       /* position of the first token; how many any query looks at */
    bool partial;              /* some query does not look at all of them */
};

/* What a page changes for the queries of a tile: by what their sums so far shrink, and the largest weight in the page (1: the largest of all so far). */
struct change {
    float factor[VW], share[VW];
};

/* 2^x from -126 on: 2^n times a polynomial on [-1/2, 1/2] whose relative error is below 1e-7. */
INLINE VF v_exp2(VF x) {
    x = v_max(x, v_set(-126));
    VF n = v_round(x), r = v_sub(x, n);
    VF p = v_fma(v_set(0.00132647285f), r, v_set(0.00967151392f));
    p = v_fma(p, r, v_set(0.0555073358f));
    p = v_fma(p, r, v_set(0.240222424f));
    p = v_fma(p, r, v_set(0.693147004f));
    p = v_fma(p, r, v_set(1));
    return v_scale2(p, n);
}

/* cap * tanh; the queries are scaled so that 2^x is e^2y. */
INLINE VF v_softcap(VF x, float cap) {
    VF e = v_exp2(v_min(x, v_set(126)));
    return v_mul(v_set(cap), v_sub(v_set(1), v_div(v_set(2), v_add(e, v_set(1)))));
}

/* ---- f16: keys [dim][32], values [32][dim] ---- */

static size_t f16_bytes(uint32_t dim) {
    return (size_t)2 * KV_PAGE_TOKENS * dim * sizeof(uint16_t);
}

/* What is too large for f16 becomes its largest value, so that no weight of 0 ever meets an infinity. */
INLINE uint16_t to_f16(float x) {
    return (uint16_t)_cvtss_sh(x > 65504 ? 65504 : x < -65504 ? -65504 : x, 0);
}

static void f16_write(void *page, uint32_t slot, const float *k, const float *v, uint32_t dim) {
    uint16_t *keys = page, *values = keys + KV_PAGE_TOKENS * dim;
    for (uint32_t i = 0; i < dim; i++) {
        keys[i * KV_PAGE_TOKENS + slot] = to_f16(k[i]);
        values[slot * dim + i] = to_f16(v[i]);
    }
}

static void f16_spread(const struct attend_block *b, struct kv_page *p) {
    const size_t wide = attend_wide(b->dim);
    const uint16_t *k = (const void *)p->keys, *v = (const void *)p->values;
    float *keys = attend_room(b), *values = keys + KV_PAGE_TOKENS * wide;
    for (uint32_t i = 0; i < KV_PAGE_TOKENS * b->dim; i += VW) {
        _mm_prefetch(p->next + i * sizeof *k, _MM_HINT_T0);
        v_storeu(keys + i, v_f16(k + i));
    }
    for (uint32_t t = 0; t < p->tokens; t++, v += b->dim) {
        uint32_t d = 0;
        for (; d + VW <= b->dim; d += VW) {
            _mm_prefetch(p->next + f16_bytes(b->dim) / 2 + (t * b->dim + d) * sizeof *v, _MM_HINT_T0);
            v_storeu(values + t * wide + d, v_f16(v + d));
        }
        for (; d < b->dim; d++)
            values[t * wide + d] = _cvtsh_ss(v[d]);
    }
    p->keys = (const char *)keys;
    p->values = (const char *)values;
}

INLINE VF f16_load(const char *p, size_t i, const bool spread) {
    return spread ? v_loadu((const float *)(const void *)p + i)
                  : v_f16((const uint16_t *)(const void *)p + i);
}

INLINE void f16_score(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                      const bool spread, VF s[ATTEND_ROWS][NV]) {
    const size_t wide = attend_wide(b->dim);
    const float *q = b->q + (size_t)i * wide;
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        s[r][v] = v_zero();
    for (size_t d = 0; d < b->dim; d++) {
        VF x[ATTEND_ROWS];
        UNROLL
        for (int r = 0; r < n; r++)
            x[r] = v_set(q[r * wide + d]);
        UNROLL
        for (int v = 0; v < NV; v++) {
            VF k = f16_load(p->keys, d * KV_PAGE_TOKENS + (size_t)v * VW, spread);
            UNROLL
            for (int r = 0; r < n; r++)
                s[r][v] = v_fma(x[r], k, s[r][v]);
        }
        if (!spread)
            _mm_prefetch(p->next + d * KV_PAGE_TOKENS * sizeof(uint16_t), _MM_HINT_T0);
    }
}

/* The outputs' nv vectors of dims from d on. */
INLINE void f16_mix_dims(const struct attend_block *b, const struct kv_page *p, float *out, size_t d,
                         const int n, const int nv, const bool spread,
                         float weight[ATTEND_ROWS][KV_PAGE_TOKENS], const struct change *c) {
    const size_t wide = attend_wide(b->dim);
    VF acc[ATTEND_ROWS][2 * NV];
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[r][v] = v_mul(v_loadu(out + r * wide + d + v * VW), v_set(c->factor[r]));
    for (size_t t = 0; t < p->tokens; t++) {
        VF x[ATTEND_ROWS];
        UNROLL
        for (int r = 0; r < n; r++)
            x[r] = v_set(weight[r][t]);
        UNROLL
        for (int v = 0; v < nv; v++) {
            VF y = f16_load(p->values, t * wide + d + (size_t)v * VW, spread);
            UNROLL
            for (int r = 0; r < n; r++)
                acc[r][v] = v_fma(x[r], y, acc[r][v]);
        }
        if (!spread)
            for (int j = 0; j < nv / NV; j++)
                _mm_prefetch(p->next + f16_bytes(b->dim) / 2 +
                                 (t * wide + d + (size_t)j * STRIP) * sizeof(uint16_t),
                             _MM_HINT_T0);
    }
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < nv; v++)
        v_storeu(out + r * wide + d + v * VW, acc[r][v]);
}

/* out = out * factor + weights . values; few rows take two strips at a time, so that there are sums enough to hide an addition's latency. */
INLINE void f16_mix(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                    const bool spread, VF s[ATTEND_ROWS][NV], const struct change *c) {
    const size_t wide = attend_wide(b->dim);
    float *out = b->out + i * wide, weight[ATTEND_ROWS][KV_PAGE_TOKENS];
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        v_storeu(weight[r] + v * VW, s[r][v]);
    size_t d = 0;
    for (; 2 * n <= ATTEND_ROWS && d + 2 * STRIP <= wide; d += 2 * STRIP)
        f16_mix_dims(b, p, out, d, n, 2 * NV, spread, weight, c);
    for (; d < wide; d += STRIP)
        f16_mix_dims(b, p, out, d, n, NV, spread, weight, c);
}

/* ---- 8 bits: codes of keys [wide / 2][32][2] and values [16][wide][2], in pairs for the products of 16 bits; then bf16 scales of the keys and of the
 * values, [wide / 32][32] each: one for 32 dims of a token. Queries and weights are 16-bit integers here, sums exact within 32 dims or tokens. ---- */

static size_t q8_bytes(uint32_t dim) {
    return attend_wide(dim) * (size_t)(2 * KV_PAGE_TOKENS + 2 * sizeof(uint16_t));
}

/* The scale of 32 values, rounded up to bf16 so that no code leaves 127; the codes lie `step` apart. */
static uint16_t q8_encode(const float *x, uint32_t n, int8_t *code, size_t pair_step, size_t step) {
    float inverse;
    uint16_t scale = q8_scale(x, n, &inverse);
    for (uint32_t i = 0; i < STRIP; i++) {
        float c = i < n ? x[i] * inverse : 0;
        code[i / 2 * pair_step + i % 2 * step] = (int8_t)lrintf(c > 127 ? 127 : c < -127 ? -127 : c);
    }
    return scale;
}

static void q8_write(void *page, uint32_t slot, const float *k, const float *v, uint32_t dim) {
    const uint32_t wide = attend_wide(dim);
    int8_t *keys = page, *values = keys + KV_PAGE_TOKENS * wide;
    uint16_t *key_scale = (uint16_t *)(void *)(values + KV_PAGE_TOKENS * wide),
             *value_scale = key_scale + wide;
    for (uint32_t d = 0; d < dim; d += STRIP) {
        uint32_t n = dim - d < STRIP ? dim - d : STRIP;
        key_scale[d + slot] =
            q8_encode(k + d, n, keys + d * KV_PAGE_TOKENS + 2 * slot, 2 * KV_PAGE_TOKENS, 1);
        value_scale[d + slot] = q8_encode(v + d, n, values + (slot / 2 * wide + d) * 2 + slot % 2, 4, 2);
    }
}

static void q8_spread(const struct attend_block *b, struct kv_page *p) {
    const uint32_t n = KV_PAGE_TOKENS * attend_wide(b->dim);
    int16_t *keys = attend_room(b), *values = keys + n;
    for (uint32_t i = 0; i < n; i += 2 * VW) {
        _mm_prefetch(p->next + i, _MM_HINT_T0);
        _mm_prefetch(p->next + n + i, _MM_HINT_T0);
        vi_storeu(keys + i, vi_wide8(p->keys + i));
        vi_storeu(values + i, vi_wide8(p->values + i));
    }
    p->keys = (const char *)keys;
    p->values = (const char *)values;
}

INLINE VI q8_load(const char *p, size_t i, const bool spread) {
    return spread ? vi_loadu((const int16_t *)(const void *)p + i) : vi_wide8(p + i);
}

/* The queries' 16-bit integers and their units, behind the room for a page. */
INLINE int16_t *q8_query(const struct attend_block *b, float **unit) {
    const size_t wide = attend_wide(b->dim);
    int16_t *q = (int16_t *)attend_room(b) + (size_t)2 * KV_PAGE_TOKENS * wide;
    *unit = (float *)(void *)(q + (size_t)b->queries * wide);
    return q;
}

static void q8_start(const struct attend_block *b) {
    const size_t wide = attend_wide(b->dim);
    float *unit;
    int16_t *to = q8_query(b, &unit);
    for (uint32_t i = 0; i < b->queries; i++) {
        const float *q = b->q + (size_t)i * wide;
        VF most = v_zero();
        for (uint32_t d = 0; d < wide; d += VW) {
            VF x = v_loadu(q + d);
            most = v_max(most, v_max(x, v_sub(v_zero(), x)));
        }
        float top = v_top(most), f = top > 0 ? 32767 / top : 0;
        unit[i] = top / 32767;
        for (uint32_t d = 0; d < wide; d += VW)
            v_store16(to + (size_t)i * wide + d, v_mul(v_loadu(q + d), v_set(f)));
    }
}

INLINE void q8_score(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                     const bool spread, VF s[ATTEND_ROWS][NV]) {
    const size_t wide = attend_wide(b->dim);
    float *unit;
    const int16_t *q = q8_query(b, &unit) + (size_t)i * wide;
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        s[r][v] = v_zero();
    for (size_t d = 0; d < wide; d += STRIP) {
        VI sum[ATTEND_ROWS][NV];
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            sum[r][v] = vi_zero();
        for (size_t j = d; j < d + STRIP; j += 2) {
            VI x[ATTEND_ROWS];
            UNROLL
            for (int r = 0; r < n; r++)
                x[r] = vi_set32(load_i32(q + r * wide + j));
            UNROLL
            for (int v = 0; v < NV; v++) {
                VI k = q8_load(p->keys, j * KV_PAGE_TOKENS + (size_t)v * VW * 2, spread);
                UNROLL
                for (int r = 0; r < n; r++)
                    sum[r][v] = vi_dot16(sum[r][v], k, x[r]);
            }
            if (!spread)
                _mm_prefetch(p->next + j * KV_PAGE_TOKENS, _MM_HINT_T0);
        }
        UNROLL
        for (int v = 0; v < NV; v++) {
            VF scale = v_bf16(p->scales + d + v * VW);
            UNROLL
            for (int r = 0; r < n; r++)
                s[r][v] = v_fma(v_int(sum[r][v]), scale, s[r][v]);
        }
        _mm_prefetch(p->next + 2 * KV_PAGE_TOKENS * wide + 2 * d, _MM_HINT_T0);
        _mm_prefetch(p->next + 2 * KV_PAGE_TOKENS * wide + 2 * (wide + d), _MM_HINT_T0);
    }
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        s[r][v] = v_mul(s[r][v], v_set(unit[i + (uint32_t)r]));
}

/* The scales of 32 dims that query i meets, by the largest of them and 32767; returns that unit. Scales of tokens that are not there yet are anything. */
INLINE float q8_unit(const struct attend_block *b, const struct kv_page *p, uint32_t i, size_t d,
                     VF scale[NV]) {
    VF most = v_zero();
    UNROLL
    for (int v = 0; v < NV; v++) {
        scale[v] = v_bf16(p->scales + attend_wide(b->dim) + d + v * VW);
        if (p->partial)
            scale[v] = v_within(scale[v], p->at + (uint32_t)v * VW, b->start[i], b->end[i], 0);
        most = v_max(most, scale[v]);
    }
    float top = v_top(most);
    UNROLL
    for (int v = 0; v < NV; v++)
        scale[v] = v_mul(scale[v], v_set(top > 0 ? 32767 / top : 0));
    return top / 32767;
}

/* Weights times scales as integers: 32767 where both are their page's largest. */
INLINE void q8_weights(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                       size_t d, VF s[ATTEND_ROWS][NV], int16_t to[ATTEND_ROWS][KV_PAGE_TOKENS],
                       float *unit) {
    VF scale[NV];
    float all = q8_unit(b, p, i, d, scale);
    UNROLL
    for (int r = 0; r < n; r++) {
        unit[r] = p->partial ? q8_unit(b, p, i + (uint32_t)r, d, scale) : all;
        UNROLL
        for (int v = 0; v < NV; v++)
            v_store16(to[r] + v * VW, v_mul(s[r][v], scale[v]));
    }
}

INLINE void q8_mix(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                   const bool spread, VF s[ATTEND_ROWS][NV], const struct change *c) {
    const size_t wide = attend_wide(b->dim);
    float *out = b->out + i * wide, unit[ATTEND_ROWS], inverse[VW];
    int16_t weight[ATTEND_ROWS][KV_PAGE_TOKENS];
    v_storeu(inverse, v_div(v_set(1), v_loadu(c->share)));
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        s[r][v] = v_mul(s[r][v], v_set(inverse[r]));
    for (size_t d = 0; d < wide; d += STRIP) {
        VI sum[ATTEND_ROWS][NV];
        q8_weights(b, p, i, n, d, s, weight, unit);
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++)
            sum[r][v] = vi_zero();
        for (size_t t = 0; t < KV_PAGE_TOKENS; t += 2) {
            VI x[ATTEND_ROWS];
            UNROLL
            for (int r = 0; r < n; r++)
                x[r] = vi_set32(load_i32(weight[r] + t));
            UNROLL
            for (int v = 0; v < NV; v++) {
                VI y = q8_load(p->values, t * wide + (d + (size_t)v * VW) * 2, spread);
                UNROLL
                for (int r = 0; r < n; r++)
                    sum[r][v] = vi_dot16(sum[r][v], y, x[r]);
            }
            if (!spread)
                _mm_prefetch(p->next + KV_PAGE_TOKENS * wide + t * wide + d * 2, _MM_HINT_T0);
        }
        UNROLL
        for (int r = 0; r < n; r++)
            UNROLL
        for (int v = 0; v < NV; v++) {
            float *to = out + r * wide + d + v * VW;
            v_storeu(to, v_fma(v_int(sum[r][v]), v_set(unit[r] * c->share[r]),
                               v_mul(v_loadu(to), v_set(c->factor[r]))));
        }
    }
}

/* ---- a tile, whatever the page holds ---- */

/* Scores to weights 2^(s - most), `most` the largest score so far. */
INLINE void weigh(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                  VF s[ATTEND_ROWS][NV], struct change *c) {
    float now[VW] = {0}, before[VW] = {0}, top[VW] = {0}, *lanes = attend_lanes(b) + (size_t)i * VW;
    UNROLL
    for (int r = 0; r < n; r++) {
        VF most = v_set(-INFINITY);
        UNROLL
        for (int v = 0; v < NV; v++) {
            if (b->softcap > 0)
                s[r][v] = v_softcap(s[r][v], b->softcap);
            if (p->partial)
                s[r][v] = v_within(s[r][v], p->at + (uint32_t)v * VW, b->start[i + (uint32_t)r],
                                   b->end[i + (uint32_t)r], -INFINITY);
            most = v_max(most, s[r][v]);
        }
        top[r] = v_top(most);
        before[r] = b->most[i + (uint32_t)r];
        b->most[i + (uint32_t)r] = now[r] = top[r] > before[r] ? top[r] : before[r];
    }
    v_storeu(c->factor, v_exp2(v_sub(v_loadu(before), v_loadu(now))));
    v_storeu(c->share, v_exp2(v_sub(v_loadu(top), v_loadu(now))));
    UNROLL
    for (int r = 0; r < n; r++) {
        VF sum = v_mul(v_loadu(lanes + r * VW), v_set(c->factor[r]));
        UNROLL
        for (int v = 0; v < NV; v++) {
            s[r][v] = v_exp2(v_sub(s[r][v], v_set(now[r])));
            if (p->partial)
                s[r][v] = v_within(s[r][v], p->at + (uint32_t)v * VW, b->start[i + (uint32_t)r],
                                   b->end[i + (uint32_t)r], 0);
            sum = v_add(sum, s[r][v]);
        }
        v_storeu(lanes + r * VW, sum);
    }
}

#define ATTEND_TILE(FORM, SPREAD, NR)                                                              \
    static void FORM##_tile_##SPREAD##_##NR(const struct attend_block *b, const struct kv_page *p, \
                                            uint32_t i) {                                          \
        VF s[ATTEND_ROWS][NV];                                                                     \
        struct change c;                                                                           \
        FORM##_score(b, p, i, NR, SPREAD, s);                                                      \
        weigh(b, p, i, NR, s, &c);                                                                 \
        FORM##_mix(b, p, i, NR, SPREAD, s, &c);                                                    \
    }
FOR_ATTEND_ROWS(ATTEND_TILE, f16, 0)
FOR_ATTEND_ROWS(ATTEND_TILE, f16, 1)
FOR_ATTEND_ROWS(ATTEND_TILE, q8, 0)
FOR_ATTEND_ROWS(ATTEND_TILE, q8, 1)

#define ATTEND_TILE_NAME(FORM, SPREAD, NR) FORM##_tile_##SPREAD##_##NR,
typedef void attend_tile(const struct attend_block *b, const struct kv_page *p, uint32_t i);
static attend_tile *const f16_tiles[2][ATTEND_ROWS] = {{FOR_ATTEND_ROWS(ATTEND_TILE_NAME, f16, 0)},
                                                       {FOR_ATTEND_ROWS(ATTEND_TILE_NAME, f16, 1)}};
static attend_tile *const q8_tiles[2][ATTEND_ROWS] = {{FOR_ATTEND_ROWS(ATTEND_TILE_NAME, q8, 0)},
                                                      {FOR_ATTEND_ROWS(ATTEND_TILE_NAME, q8, 1)}};

/* All tiles of queries meet one page after the other. */
INLINE void attend_pages(const struct attend_block *b, attend_tile *const (*tiles)[ATTEND_ROWS], size_t half,
                         bool whole, void (*spread)(const struct attend_block *b, struct kv_page *p)) {
    uint32_t rounds = (b->queries + ATTEND_ROWS - 1) / ATTEND_ROWS;
    bool wide = rounds > 1 || !whole;
    for (uint32_t k = 0; k < b->pages; k++) {
        const char *page = b->base + b->page[k] * b->page_bytes;
        struct kv_page p = {.keys = page,
                            .values = page + half,
                            .scales = (const uint16_t *)(const void *)(page + 2 * half),
                            .next = b->base + b->page[k + 1 < b->pages ? k + 1 : k] * b->page_bytes,
                            .at = b->at + k * KV_PAGE_TOKENS};
        uint32_t end = b->end[b->queries - 1];
        p.tokens = end - p.at < KV_PAGE_TOKENS ? end - p.at : KV_PAGE_TOKENS;
        p.partial = b->end[0] < p.at + KV_PAGE_TOKENS || b->start[b->queries - 1] > p.at;
        if (wide)
            spread(b, &p);
        for (uint32_t j = 0; j < rounds; j++) {
            uint32_t i = b->queries * j / rounds, n = b->queries * (j + 1) / rounds - i;
            if (b->end[i + n - 1] > p.at && b->start[i] < p.at + KV_PAGE_TOKENS)
                tiles[wide][n - 1](b, &p, i);
        }
    }
}

/* Before: nothing seen. After: the lanes of the total weights added up. */
static void attend_start(const struct attend_block *b) {
    memset(b->out, 0, (size_t)b->queries * attend_wide(b->dim) * sizeof *b->out);
    memset(attend_lanes(b), 0, (size_t)b->queries * VW * sizeof(float));
    for (uint32_t i = 0; i < b->queries; i++)
        b->most[i] = ATTEND_NOTHING;
}

static void attend_end(const struct attend_block *b) {
    const float *lanes = attend_lanes(b);
    for (uint32_t i = 0; i < b->queries; i++, lanes += VW) {
        b->total[i] = 0;
        for (int j = 0; j < VW; j++)
            b->total[i] += lanes[j];
    }
}

static void f16_attend(const struct attend_block *b) {
    attend_start(b);
    attend_pages(b, f16_tiles, f16_bytes(b->dim) / 2, b->dim % STRIP == 0, f16_spread);
    attend_end(b);
}

static void q8_attend(const struct attend_block *b) {
    attend_start(b);
    q8_start(b);
    attend_pages(b, q8_tiles, (size_t)KV_PAGE_TOKENS * attend_wide(b->dim), true, q8_spread);
    attend_end(b);
}

#define KV_KERNELS                                                                              \
    {                                                                                           \
        [KV_F16] = {f16_bytes, f16_write, f16_attend}, [KV_BF16] = KV_BF16_KERNELS, [KV_Q8] = { \
            q8_bytes,                                                                           \
            q8_write,                                                                           \
            q8_attend                                                                           \
        }                                                                                       \
    }
