/* Products of 4-bit codes whose blocks share their multiplications by twos. A multiplication takes a dot product's place in the processor, shifts and additions do not; and a
 * block's sum of centred codes fits 16 bits: at most 8 * 127 * 32. So the sums of two blocks stand in one lane, the first in its high half, and
 *     t    = both times the rows' 16-bit scales of these blocks, rounded to 16 bits                       (vpmulhrsw)
 *     t   += what the sums of uncentred codes have more, where the form has minimums
 *     acc += both times the weights' 12-bit scales, in 32 bits                                            (vpdpwssd, vpmaddwd)
 * for GROUP blocks; then acc times the unit of the weights' scales is added in float. Minimums times the sums of the rows' codes are summed up likewise. What t
 * loses is half a unit of a sum of the row's coarsest block, and that is at most OUTLIER times as coarse as the mean (kernels.h): a tenth of what the codes
 * of the rows have lost. */

enum { MOST_SUM_4 = 8 * 127 * BLOCK };
enum { GROUP = 16 };                     /* blocks: 16 * 32512 * 4094 < 2^31 */
enum { JOINED_SCALE = 3, JOINED_E = 7 }; /* what of a 16-bit scale is not the scale */

/* ---- weights ----
 * Two blocks of a panel are what their form has for 16 outputs each, in pairs [16][2], the second block's first, and then the codes of both. An f16 becomes
 * an int16, 8 s + e: s * 2^(E - 26) is what it was, s from -4094 to 4094, and E, which is the largest of the GROUP's exponents, has its lower three bits in the second's
 * e and the others in the first's. Such scales are what the file has down to half of the largest; smaller ones lose their last bits. */

/* Where the pair of block b begins in a panel. */
INLINE size_t joined_at(const enum form form, uint32_t b) {
    return b / 2 * 2 * form_block_bytes(form);
}

/* What stands before a pair's codes. */
INLINE int joined_head(const enum form form) {
    return 2 * ((int)form_block_bytes(form) - 256);
}

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

/* The f16 at `at` and at every `step` bytes from there, for `blocks` blocks of a group, as integers of what is largest of an output. */
static void group_units(const uint8_t *at, size_t step, uint32_t blocks, int16_t out[GROUP][PANEL]) {
    for (uint32_t col = 0; col < PANEL; col++, at += 2) {
        int most = 0;
        for (uint32_t b = 0; b < blocks; b++) {
            int e = f16_exponent(load_u16(at + b * step));
            most = e > most ? e : most;
        }
        for (uint32_t b = 0; b < blocks; b++)
            out[b][col] =
                (int16_t)(f16_units(load_u16(at + b * step), most) * 8 + (b % 2 ? most & 7 : most >> 3));
    }
}

/* A group of blocks from pack.c's order into this. */
static void join_group(uint8_t *p, enum form form, uint32_t blocks) {
    const size_t half = form_block_bytes(form), head = half - 256, kinds = head / (2 * PANEL);
    int16_t units[2][GROUP][PANEL];
    for (size_t k = 0; k < kinds; k++)
        group_units(p + k * 2 * PANEL, half, blocks, units[k]);
    for (uint32_t b = 0; b < blocks; b += 2, p += 2 * half) {
        memmove(p + 2 * head, p + head, 256);
        for (size_t k = 0; k < kinds; k++)
            for (uint32_t col = 0; col < PANEL; col++) {
                int16_t pair[2] = {units[k][b + 1][col], units[k][b][col]};
                memcpy(p + (k * PANEL + col) * 4, pair, 4);
            }
    }
}

static void order(const struct chip_matrix *m, uint8_t *panel) {
    uint32_t blocks = blocks_of(m->inputs);
    for (uint32_t b = 0; form_joined(m->form) && b < blocks; b += GROUP)
        join_group(panel + joined_at(m->form, b), m->form, b + GROUP < blocks ? GROUP : blocks - b);
}

/* Both blocks' scales (what = 0) or minimums (1), as 16-bit integers, for vector v of a panel whose pair begins at p. */
INLINE VI joined_pair(const uint8_t *p, const int what, const int v) {
    return vi_sar16(vi_loadu(p + (what * PANEL + v * VW) * 4), JOINED_SCALE);
}

/* What they are units of, p being the first pair of a group. Minimums are multiplied by sums that count in eighths. */
INLINE VF joined_unit(const uint8_t *p, const int what, const int v) {
    VI x = vi_loadu(p + (what * PANEL + v * VW) * 4), low = vi_shl(vi_and(x, vi_set32(JOINED_E)), 23),
       high = vi_shl(vi_and(x, vi_set32(JOINED_E << 16)), 23 + 3 - 16);
    return v_bits(vi_add(vi_add(low, high), vi_set32((127 - 26 - (what ? 3 : 0)) << 23)));
}

/* ---- rows ---- */

/* The scales of row i of a tile of `rows` for two blocks each, in 16 bits of the largest, and eight times their codes' sums times the scales in the same unit, which is
 * what uncentred codes have more than centred ones; the unit is such that both together fit, and returned. The second block's sum starts where it
 * cannot borrow from the first's. */
static float join_scales(const struct quantised *a, uint8_t *at, uint32_t rows, uint32_t i) {
    const size_t step = rows * ROW_BYTES;
    float most = 0;
    for (uint32_t b = 0; b < a->blocks; b++) {
        float all = block_scale(at + b * step, rows, i) +
                    fabsf(row_float(at + b * step, AT_SCALED_SUM, (int)rows, (int)i)) * (8.0f / MOST_SUM_4);
        most = all > most ? all : most;
    }
    float inverse = most > 1e-30f ? INT16_MAX / most : 0, eighths = inverse * (8.0f / 32768);
    for (uint32_t b = 0; b < a->blocks; b += 2) {
        uint8_t *first = at + b * step, *second = first + step;
        int16_t scale[2] = {(int16_t)lrintf(block_scale(second, rows, i) * inverse),
                            (int16_t)lrintf(block_scale(first, rows, i) * inverse)},
                sum[2] = {(int16_t)lrintf(row_float(second, AT_SCALED_SUM, (int)rows, (int)i) * eighths),
                          (int16_t)lrintf(row_float(first, AT_SCALED_SUM, (int)rows, (int)i) * eighths)};
        int32_t start = row_int(second, AT_START_4, (int)rows, (int)i) + 0x8000;
        memcpy(first + rows * AT_JOINED + i * 4, sum, 4);
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
                            const int np, const enum form form, const bool ask,
                            VI acc[STREAM_ROWS][NV_MOST]) {
    const size_t next = t->w->panel_bytes;
    const int nv = np * VPP, head = joined_head(form);
    const uint8_t *second = rows + nr * ROW_BYTES;
    VI sum[STREAM_ROWS][NV_MOST], held[STREAM_ROWS][NV_MOST], scale[NV_MOST];
    if (ask)
        tile_prefetch(t, p, np, head + 256);
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        sum[i][v] = START_4(row_int(rows, AT_START_4, nr, i));
    dots_4(rows, p + head, next, nr, np, form, sum);
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        sum[i][v] =
            JOIN(held[i][v], sum[i][v], row_int(rows, AT_START_4, nr, i), row_int(second, AT_START_4, nr, i));
    if (ask)
        tile_prefetch(t, p + head + 256, np, 256);
    dots_4(second, p + head + 256, next, nr, np, form, sum);
    UNROLL
    for (int v = 0; v < nv; v++)
        scale[v] = joined_pair(p + v / VPP * next, 0, v % VPP);
    UNROLL
    for (int i = 0; i < nr; i++) {
        VI as = vi_set32(row_int(second, AT_JOINED, nr, i)), am = vi_set32(row_int(rows, AT_JOINED, nr, i));
        UNROLL
        for (int v = 0; v < nv; v++) {
            VI both = vi_mul15(JOINED(held[i][v], sum[i][v], row_int(second, AT_START_4, nr, i)), as);
            if (form != FORM_4)
                both = vi_add16(both, am);
            acc[i][v] = vi_dot16(acc[i][v], both, scale[v]);
        }
    }
}

/* acc += the sums of a group of blocks of rows times the minimums of np panels. */
INLINE void minimums_joined(const uint8_t *rows, const uint8_t *p, const size_t next, const int nr,
                            const int np, const enum form form, const uint32_t blocks,
                            VI acc[STREAM_ROWS][NV_MOST]) {
    const int nv = np * VPP;
    for (uint32_t b = 0; b < blocks; b += 2) {
        VI min[NV_MOST];
        UNROLL
        for (int v = 0; v < nv; v++)
            min[v] = joined_pair(p + v / VPP * next, 1, v % VPP);
        UNROLL
        for (int i = 0; i < nr; i++) {
            VI am = vi_set32(row_int(rows, AT_JOINED, nr, i));
            UNROLL
            for (int v = 0; v < nv; v++)
                acc[i][v] = vi_dot16(acc[i][v], am, min[v]);
        }
        p += 2 * form_block_bytes(form);
        rows += 2 * nr * ROW_BYTES;
    }
}

INLINE void joined_clear(const int nr, const int nv, VI acc[STREAM_ROWS][NV_MOST]) {
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        acc[i][v] = vi_zero();
}

/* total += acc, which is of a group that begins at p. */
INLINE void joined_add(const uint8_t *p, const size_t next, const int nr, const int np, const int what,
                       VI acc[STREAM_ROWS][NV_MOST], VF total[STREAM_ROWS][NV_MOST]) {
    UNROLL
    for (int v = 0; v < np * VPP; v++) {
        VF unit = joined_unit(p + v / VPP * next, what, v % VPP);
        UNROLL
        for (int i = 0; i < nr; i++)
            total[i][v] = v_fma(v_int(acc[i][v]), unit, total[i][v]);
    }
}

INLINE void tile_joined(const struct tile *t, const int nr, const int np, const enum form form) {
    const size_t next = t->w->panel_bytes;
    const int nv = np * VPP;
    const uint32_t blocks = t->a->blocks;
    const uint8_t *panel = t->w->packed + t->panel * next;
    const uint8_t *rows = t->a->codes + (size_t)t->row * blocks * ROW_BYTES;
    const bool together = 3 * nr * nv + 8 <= REGISTERS; /* else minimums have a loop of their own */
    VF total[STREAM_ROWS][NV_MOST];
    uint32_t left = t->ask;
    tile_expect(t, nr, np);
    tile_clear(nr, nv, total);
    for (uint32_t group = 0; group < blocks; group += GROUP) {
        const uint8_t *p = panel + joined_at(form, group), *head = p, *first = rows;
        const uint32_t n = group + GROUP < blocks ? GROUP : blocks - group;
        VI acc[STREAM_ROWS][NV_MOST], low[STREAM_ROWS][NV_MOST];
        joined_clear(nr, nv, acc);
        joined_clear(nr, nv, low);
        for (uint32_t b = 0; b < n; b += 2) {
            multiply_joined(t, rows, p, nr, np, form, tile_turn(t, &left), acc);
            if (form != FORM_4 && together)
                minimums_joined(rows, p, next, nr, np, form, 2, low);
            p += 2 * form_block_bytes(form);
            rows += 2 * nr * ROW_BYTES;
        }
        joined_add(head, next, nr, np, 0, acc, total);
        if (form == FORM_4)
            continue;
        if (!together)
            minimums_joined(first, head, next, nr, np, form, n, low);
        joined_add(head, next, nr, np, 1, low, total);
    }
    UNROLL
    for (int i = 0; i < nr; i++)
        UNROLL
    for (int v = 0; v < nv; v++)
        total[i][v] = v_mul(total[i][v], v_set(t->a->unit[t->row + i]));
    tile_store(t, nr, nv, total);
}

/* One of a pair's integers as float. */
INLINE VF joined_one(VI pair, uint32_t number) {
    return v_int(vi_sar(number % 2 ? vi_shl(pair, 16) : pair, 16));
}

/* acc += a block of one row, of its own and in float, times block `number` of the np panels at `panel`. */
INLINE void block_joined(const uint8_t *row, const uint8_t *panel, const size_t next, const uint32_t number,
                         const int np, const enum form form, VF acc[STREAM_ROWS][NV_MOST]) {
    const uint8_t *p = panel + joined_at(form, number),
                  *group = panel + joined_at(form, number / GROUP * GROUP);
    const int32_t start = form == FORM_4 ? row_int(row, AT_START_4, 1, 0) : 0;
    const VF as = v_set(row_float(row, AT_SCALE, 1, 0)), am = v_set(row_float(row, AT_SCALED_SUM, 1, 0) * 8);
    VI sum[STREAM_ROWS][NV_MOST];
    UNROLL
    for (int v = 0; v < np * VPP; v++)
        sum[0][v] = START_4(start);
    dots_4(row, p + joined_head(form) + number % 2 * 256, next, 1, np, form, sum);
    UNROLL
    for (int v = 0; v < np * VPP; v++) {
        const size_t at = v / VPP * next;
        VF scale =
            v_mul(joined_one(joined_pair(p + at, 0, v % VPP), number), joined_unit(group + at, 0, v % VPP));
        acc[0][v] = v_fma(v_int(END_4(sum[0][v], start)), v_mul(scale, as), acc[0][v]);
        if (form == FORM_4)
            continue;
        VF min =
            v_mul(joined_one(joined_pair(p + at, 1, v % VPP), number), joined_unit(group + at, 1, v % VPP));
        acc[0][v] = v_fma(min, am, acc[0][v]);
    }
}
