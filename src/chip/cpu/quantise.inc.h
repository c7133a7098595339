/* Rows to codes, for every table that has its own block of rows (kernels.h). Whoever includes this has defined, for row i of a block of n rows, block_codes (quantise 32
 * values into it), block_scale (theirs) and block_rest (what the codes leave of the values), and norm_block and block_halves. */

/* A row's blocks, and those that are quantised twice; how many are. `at` is the row's tile of `rows`, i the row's place there. */
static uint32_t quantise_codes(const struct quantised *a, uint8_t *at, uint32_t rows, uint32_t i,
                               struct further *further, const float *in, uint32_t n, const float *norm,
                               float f) {
    const size_t step = rows * ROW_BYTES;
    float x[BLOCK], scales = 0, most = 0;
    for (uint32_t b = 0; b < a->blocks; b++) {
        norm_block(x, in, b * BLOCK, n, norm, f);
        float coarseness = block_codes(at + b * step, rows, i, x);
        scales += coarseness;
        most = coarseness > most ? coarseness : most;
    }
    float coarse = scales * OUTLIER / (float)a->blocks;
    uint32_t found = 0;
    for (uint32_t b = 0; most > coarse && b < a->blocks && found < a->most_further; b++) {
        if (!(block_scale(at + b * step, rows, i) > coarse))
            continue;
        norm_block(x, in, b * BLOCK, n, norm, f);
        if (a->unit) { /* the first codes go, so that their scale is none of the joined */
            block_codes(further[found].block, 1, 0, x);
            block_rest(further[found].block, 1, 0, x);
            block_codes(at + b * step, rows, i, x);
        } else {
            block_rest(at + b * step, rows, i, x);
            block_codes(further[found].block, 1, 0, x);
        }
        further[found++].number = b;
    }
    return found;
}

static void quantise(const struct quantised *a, uint32_t first, uint32_t rows, uint32_t r, const float *in,
                     uint32_t n, const float *norm, float eps) {
    float f = norm ? norm_factor(in, n, eps) : 1;
    for (uint32_t b = 0; a->x && b < a->blocks; b++)
        norm_block(a->x + r * (size_t)a->padded + b * BLOCK, in, b * BLOCK, n, norm, f);
    for (uint32_t b = 0; a->halves && b < a->blocks; b++) {
        float x[BLOCK];
        norm_block(x, in, b * BLOCK, n, norm, f);
        block_halves(a->halves + (size_t)first * a->padded + (b * rows + r - first) * BLOCK, x);
    }
    a->further_n[r] =
        a->codes ? quantise_codes(a, a->codes + (size_t)first * a->blocks * ROW_BYTES, rows, r - first,
                                  a->further + r * (size_t)a->most_further, in, n, norm, f)
                 : 0;
}
