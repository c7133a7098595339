/* KV pages of bf16, multiplied in pairs (two products a lane, sums in float): keys [dim / 2][32][2] and values [16][dim][2], so that a vector of either is an operand as it lies in
 * the page. Queries and weights are rounded to bf16. avx512.c includes this after x86_attention.inc.h, whose tiles and pages it uses; chip_open chooses it where pairs() says yes. */

INLINE uint32_t bf16_even(uint32_t dim) {
    return (dim + 1) / 2 * 2;
}

static size_t bf16_bytes(uint32_t dim) {
    return (size_t)2 * KV_PAGE_TOKENS * bf16_even(dim) * sizeof(uint16_t);
}

/* What is too large becomes the largest value, so that no weight of 0 ever meets an infinity. */
INLINE uint16_t to_bf16_finite(float x) {
    const float most = 0x1.FEp127f;
    return to_bf16(x > most ? most : x < -most ? -most : x);
}

static void bf16_write(void *page, uint32_t slot, const float *k, const float *v, uint32_t dim) {
    const uint32_t even = bf16_even(dim);
    uint16_t *keys = page, *values = keys + KV_PAGE_TOKENS * even;
    keys += 2 * slot;
    values += slot / 2 * even * 2 + slot % 2;
    for (uint32_t i = 0; i < even; i++) {
        keys[i / 2 * 2 * KV_PAGE_TOKENS + i % 2] = i < dim ? to_bf16_finite(k[i]) : 0;
        values[2 * i] = i < dim ? to_bf16_finite(v[i]) : 0;
    }
}

/* For tiles that meet the page together: its values with as many dims as the outputs have. */
static void bf16_spread(const struct attend_block *b, struct kv_page *p) {
    const size_t wide = attend_wide(b->dim), even = bf16_even(b->dim), bytes = bf16_bytes(b->dim);
    for (size_t i = 0; i < bytes; i += 64)
        _mm_prefetch(p->next + i, _MM_HINT_T0);
    if (even == wide)
        return;
    uint16_t *to = attend_room(b);
    for (size_t t = 0; t < KV_PAGE_TOKENS / 2; t++)
        memcpy(to + t * wide * 2, p->values + t * even * 2 * sizeof *to, even * 2 * sizeof *to);
    p->values = (const char *)to;
}

/* The queries' bf16, behind the room for a page. */
INLINE uint16_t *bf16_query(const struct attend_block *b) {
    return (uint16_t *)attend_room(b) + (size_t)KV_PAGE_TOKENS * attend_wide(b->dim);
}

static void bf16_start(const struct attend_block *b) {
    uint16_t *to = bf16_query(b);
    for (size_t i = 0; i < (size_t)b->queries * attend_wide(b->dim); i += VW)
        v_store_bf16(to + i, v_loadu(b->q + i));
}

INLINE void bf16_score(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                       const bool shared, VF s[ATTEND_ROWS][NV]) {
    const size_t wide = attend_wide(b->dim);
    const uint16_t *q = bf16_query(b) + (size_t)i * wide;
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        s[r][v] = v_zero();
    for (size_t d = 0; d < b->dim; d += 2) {
        const char *keys = p->keys + d * KV_PAGE_TOKENS * sizeof *q;
        VI x[ATTEND_ROWS];
        UNROLL
        for (int r = 0; r < n; r++)
            x[r] = vi_set32(load_i32(q + r * wide + d));
        UNROLL
        for (int v = 0; v < NV; v++) {
            VI k = vi_loadu(keys + v * VW * 4);
            UNROLL
            for (int r = 0; r < n; r++)
                s[r][v] = DOT_BF16(s[r][v], k, x[r]);
            if (!shared)
                _mm_prefetch(p->next + (keys - p->keys) + v * VW * 4, _MM_HINT_T0);
        }
    }
}

/* The outputs' nv vectors of dims from d on. */
INLINE void bf16_mix_dims(const struct attend_block *b, const struct kv_page *p, float *out, size_t d,
                          const int n, const int nv, const bool shared,
                          uint16_t weight[ATTEND_ROWS][KV_PAGE_TOKENS], const struct change *c) {
    const size_t wide = attend_wide(b->dim);
    const char *next = p->next + bf16_bytes(b->dim) / 2;
    VF acc[ATTEND_ROWS][2 * NV];
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[r][v] = v_mul(v_loadu(out + r * wide + d + v * VW), v_set(c->factor[r]));
    for (size_t t = 0; t < p->tokens; t += 2) {
        /* nobody may have written the last token's neighbour yet: it is no number */
        const VI there = vi_set32(t + 1 < p->tokens ? -1 : 0xFFFF);
        const size_t at = (t * wide + 2 * d) * sizeof(uint16_t);
        VI x[ATTEND_ROWS];
        UNROLL
        for (int r = 0; r < n; r++)
            x[r] = vi_set32(load_i32(weight[r] + t));
        UNROLL
        for (int v = 0; v < nv; v++) {
            VI y = vi_and(vi_loadu(p->values + at + v * VW * 4), there);
            UNROLL
            for (int r = 0; r < n; r++)
                acc[r][v] = DOT_BF16(acc[r][v], y, x[r]);
            if (!shared)
                _mm_prefetch(next + at + v * VW * 4, _MM_HINT_T0);
        }
    }
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < nv; v++)
        v_storeu(out + r * wide + d + v * VW, acc[r][v]);
}

INLINE void bf16_mix(const struct attend_block *b, const struct kv_page *p, uint32_t i, const int n,
                     const bool shared, VF s[ATTEND_ROWS][NV], const struct change *c) {
    const size_t wide = attend_wide(b->dim);
    float *out = b->out + i * wide;
    uint16_t weight[ATTEND_ROWS][KV_PAGE_TOKENS];
    UNROLL
    for (int r = 0; r < n; r++)
        UNROLL
    for (int v = 0; v < NV; v++)
        v_store_bf16(weight[r] + v * VW, s[r][v]);
    size_t d = 0;
    for (; 2 * n <= ATTEND_ROWS && d + 2 * STRIP <= wide; d += 2 * STRIP)
        bf16_mix_dims(b, p, out, d, n, 2 * NV, shared, weight, c);
    for (; d < wide; d += STRIP)
        bf16_mix_dims(b, p, out, d, n, NV, shared, weight, c);
}

FOR_ATTEND_ROWS(ATTEND_TILE, bf16, 0)
FOR_ATTEND_ROWS(ATTEND_TILE, bf16, 1)
static attend_tile *const bf16_tiles[2][ATTEND_ROWS] = {{FOR_ATTEND_ROWS(ATTEND_TILE_NAME, bf16, 0)},
                                                        {FOR_ATTEND_ROWS(ATTEND_TILE_NAME, bf16, 1)}};

static void bf16_attend(const struct attend_block *b) {
    attend_start(b);
    bf16_start(b);
    attend_pages(b, bf16_tiles, bf16_bytes(b->dim) / 2, b->dim % STRIP == 0, bf16_spread);
    attend_end(b);
}
