/* Products of 4-bit codes whose blocks share their multiplications by twos. A multiplication takes a dot product's place in the processor, shifts and additions do not; and a
 * block's sum of centred codes fits 16 bits: at most 8 * 127 * 32. So the sums of two blocks stand in one lane, the first in its high half, and
 *     t    = both times the rows' 16-bit scales of these blocks, rounded to 16 bits                       (vpmulhrsw)
 *     acc += both times the weights' 12-bit scales, in 32 bits                                            (vpdpwssd, vpmaddwd)
 * for GROUP blocks; then acc times the unit of the weights' scales is added in float. What t loses is half a unit of a sum of the row's coarsest block, and that
 * is at most OUTLIER times as coarse as the mean (kernels.h): a tenth of what the codes of the rows have lost. */

enum { GROUP = 16 };                     /* blocks: 16 * 32512 * 4094 < 2^31 */
enum { JOINED_BYTES = 64 + 2 * 256 };    /* two blocks of a panel: those of FORM_4 */
enum { JOINED_SCALE = 3, JOINED_E = 7 }; /* what of a 16-bit scale is not the scale */

/* ---- weights ----
 * Two blocks of a panel are int16 scale[16][2], the second block's first, and the codes of both. A scale is 8 s + e: s * 2^(E - 26) is the block's, from -4094 to
 * 4094, and E, which is the largest of the GROUP's exponents, has its lower three bits in the second's e and the others in the first's. Scales are what
 * the file has down to half of the largest; smaller ones lose their last bits. */

INLINE uint16_t load_u16(const uint8_t *p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE int f16_exponent(uint16_t h) {
    int e = h >> 10 & 31;
    return e ? e : 1;
}

/* An f16 in units of 2^(most - 26). */
INLINE int f16_units(uint16_t h, int most) {
    int value = ((h & 1023) | (h >> 10 & 31 ? 1024 : 0)) * 2, lost = most - f16_exponent(h);
    value = (value + (1 << lost >> 1)) >> lost;
    return h >> 15 ? -value : value;
}

/* Blocks [from, to) of a panel, a group, from pack.c's order into this. */
static void join_group(uint8_t *panel, uint32_t from, uint32_t to) {
    enum { HALF = JOINED_BYTES / 2, HEAD = 2 * PANEL };
    int most[PANEL] = {0};
    for (uint32_t b = from; b < to; b++)
        for (uint32_t col = 0; col < PANEL; col++) {
            int e = f16_exponent(load_u16(panel + b * HALF + 2 * col));
            most[col] = e > most[col] ? e : most[col];
        }
    for (uint32_t b = from; b < to; b += 2) {
        uint8_t *p = panel + b * HALF;
        int16_t scale[PANEL][2];
        for (uint32_t col = 0; col < PANEL; col++) {
            scale[col][1] = (int16_t)(f16_units(load_u16(p + 2 * col), most[col]) * 8 + (most[col] >> 3));
            scale[col][0] =
                (int16_t)(f16_units(load_u16(p + HALF + 2 * col), most[col]) * 8 + (most[col] & 7));
        }
        memmove(p + 2 * HEAD, p + HEAD, HALF - HEAD);
        memcpy(p, scale, sizeof scale);
    }
}

static void order(const struct chip_matrix *m, uint8_t *panel) {
    uint32_t blocks = (uint32_t)(m->panel_bytes / (JOINED_BYTES / 2));
    for (uint32_t b = 0; m->form == FORM_4 && b < blocks; b += GROUP)
        join_group(panel, b, b + GROUP < blocks ? b + GROUP : blocks);
}

/* Both blocks' scales, and their unit, times a panel's outputs. */
INLINE VI joined_scales(const uint8_t *p) {
    return vi_sar16(vi_loadu(p), JOINED_SCALE);
}

INLINE VF joined_unit(const uint8_t *p) {
    VI x = vi_loadu(p), low = vi_shl(vi_and(x, vi_set32(JOINED_E)), 23),
       high = vi_shl(vi_and(x, vi_set32(JOINED_E << 16)), 23 + 3 - 16);
    return v_bits(vi_add(vi_add(low, high), vi_set32((127 - 26) << 23)));
}

/* ---- rows ---- */

/* The scales of row i of a tile of `rows` for two blocks each, in 16 bits of the largest; what a product is to be multiplied by is returned. The second
 * block's sum starts where it cannot borrow from the first's. */
static float join_scales(const struct quantised *a, uint8_t *at, uint32_t rows, uint32_t i) {
    const size_t step = rows * ROW_BYTES;
    int32_t bits = 0; /* scales are not negative: their bits are in their order, and are compared faster */
    float most;
    for (uint32_t b = 0; b < a->blocks; b++) {
        int32_t scale = row_int(at + b * step, AT_SCALE, (int)rows, (int)i);
        bits = scale > bits ? scale : bits;
    }
    memcpy(&most, &bits, sizeof most);
    float inverse = most > 1e-30f ? INT16_MAX / most : 0;
    for (uint32_t b = 0; b < a->blocks; b += 2) {
        uint8_t *first = at + b * step, *second = first + step;
        uint16_t scale[2] = {(uint16_t)lrintf(block_scale(second, rows, i) * inverse),
                             (uint16_t)lrintf(block_scale(first, rows, i) * inverse)};
        int32_t start = row_int(second, AT_START_4, (int)rows, (int)i) + 0x8000;
        memcpy(second + rows * AT_JOINED + i * 4, scale, 4);
        memcpy(second + rows * AT_START_4 + i * 4, &start, 4);
    }
    return most * (32768.0f / INT16_MAX);
}

static void quantise_joined(const struct quantised *a, uint32_t first, uint32_t rows, uint32_t r,
                            const float *in, uint32_t n, const float *norm, float eps) {
    quantise(a, first, rows, r, in, n, norm, eps);
    if (a->unit)
        a->unit[r] = join_scales(a, a->codes + (size_t)first * a->blocks * ROW_BYTES, rows, r - first);
}

/* ---- products ---- */

/* acc += two blocks of rows times the two blocks of np panels at p. */
INLINE void multiply_joined(const struct tile *t, const uint8_t *rows, const uint8_t *p, const int nr,
                            const int np, const bool ask, VI acc[STREAM_ROWS][NV_MOST]) {
    const size_t next = t->w->panel_bytes;
    const int nv = np * VPP;
    const uint8_t *second = rows + nr * ROW_BYTES;
    VI sum[STREAM_ROWS][NV_MOST], held[STREAM_ROWS][NV_MOST], scale[NV_MOST];
    if (ask)
        tile_prefetch(t, p, np, 64 + 256);
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        sum[i][v] = START_4(row_int(rows, AT_START_4, nr, i));
    dots_4(rows, p + 64, next, nr, np, sum);
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        sum[i][v] =
            JOIN(held[i][v], sum[i][v], row_int(rows, AT_START_4, nr, i), row_int(second, AT_START_4, nr, i));
    if (ask)
        tile_prefetch(t, p + 64 + 256, np, 256);
    dots_4(second, p + 64 + 256, next, nr, np, sum);
    UNROLL
    for (int v = 0; v < nv; v++)
        scale[v] = joined_scales(p + v / VPP * next + v % VPP * VW * 4);
    UNROLL
    for (int i = 0; i < nr; i++) {
        VI as = vi_set32(row_int(second, AT_JOINED, nr, i));
        UNROLL
        for (int v = 0; v < nv; v++) {
            VI s = JOINED(held[i][v], sum[i][v], row_int(second, AT_START_4, nr, i));
            acc[i][v] = vi_dot16(acc[i][v], vi_mul15(s, as), scale[v]);
        }
    }
}

INLINE void tile_joined(const struct tile *t, const int nr, const int np, const enum form form) {
    (void)form;
    const size_t next = t->w->panel_bytes;
    const int nv = np * VPP;
    const uint32_t blocks = t->a->blocks;
    const uint8_t *p = t->w->packed + t->panel * next;
    const uint8_t *rows = t->a->codes + (size_t)t->row * blocks * ROW_BYTES;
    VF total[STREAM_ROWS][NV_MOST];
    uint32_t left = t->ask;
    tile_expect(t, nr, np);
    tile_clear(nr, nv, total);
    for (uint32_t group = 0; group < blocks; group += GROUP) {
        const uint8_t *head = p;
        VI acc[STREAM_ROWS][NV_MOST];
        UNROLL
        for (int i = 0; i < nr; i++)
            UNROLL
        for (int v = 0; v < nv; v++)
            acc[i][v] = vi_zero();
        for (uint32_t b = group; b < blocks && b < group + GROUP; b += 2) {
            multiply_joined(t, rows, p, nr, np, tile_turn(t, &left), acc);
            p += JOINED_BYTES;
            rows += 2 * nr * ROW_BYTES;
        }
        UNROLL
        for (int v = 0; v < nv; v++) {
            VF unit = joined_unit(head + v / VPP * next + v % VPP * VW * 4);
            UNROLL
            for (int i = 0; i < nr; i++)
                total[i][v] = v_fma(v_int(acc[i][v]), unit, total[i][v]);
        }
    }
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        total[i][v] = v_mul(total[i][v], v_set(t->a->unit[t->row + i]));
    tile_store(t, nr, nv, total);
}

/* acc += a block of one row, of its own and in float, times block `number` of the np panels at `panel`. */
INLINE void block_joined(const uint8_t *row, const uint8_t *panel, const size_t next, const uint32_t number,
                         const int np, VF acc[STREAM_ROWS][NV_MOST]) {
    const uint8_t *p = panel + (size_t)(number / 2) * JOINED_BYTES;
    const int32_t start = row_int(row, AT_START_4, 1, 0);
    const VF as = v_set(row_float(row, AT_SCALE, 1, 0));
    VI sum[STREAM_ROWS][NV_MOST];
    UNROLL
    for (int v = 0; v < np * VPP; v++)
        sum[0][v] = START_4(start);
    dots_4(row, p + 64 + number % 2 * 256, next, 1, np, sum);
    UNROLL
    for (int v = 0; v < np * VPP; v++) {
        const uint8_t *at = p + v / VPP * next + v % VPP * VW * 4;
        VI s = vi_loadu(at);
        s = vi_sar(number % 2 ? vi_shl(s, 16) : s, 16 + JOINED_SCALE);
        acc[0][v] =
            v_fma(v_int(END_4(sum[0][v], start)), v_mul(v_mul(v_int(s), joined_unit(at)), as), acc[0][v]);
    }
}
