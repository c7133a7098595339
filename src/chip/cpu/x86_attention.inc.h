/* The kernels of attention of the x86 tables: KV pages, scores, softmax, and the mix of the values. avx2.c and avx512.c include this after x86.inc.h,
 * whose words it uses. */

static void kv_write(uint16_t *keys, uint16_t *values, uint32_t slot, const float *k, const float *v,
                     uint32_t dim) {
    for (uint32_t i = 0; i < dim; i++) {
        keys[i * KV_PAGE_TOKENS + slot] = (uint16_t)_cvtss_sh(k[i], 0);
        values[slot * dim + i] = (uint16_t)_cvtss_sh(v[i], 0);
    }
}

INLINE void score_rows(const float *const *q, const int n, const uint16_t *keys, uint32_t dim, float *out,
                       size_t stride) {
    enum { NV = KV_PAGE_TOKENS / VW };
    VF acc[TILE_ROWS][NV];
    UNROLL
    for (int i = 0; i < n; i++)
        UNROLL
    for (int v = 0; v < NV; v++)
        acc[i][v] = v_zero();
    for (uint32_t d = 0; d < dim; d++) {
        VF k[NV];
        UNROLL
        for (int v = 0; v < NV; v++)
            k[v] = v_f16(keys + d * KV_PAGE_TOKENS + v * VW);
        UNROLL
        for (int i = 0; i < n; i++)
            UNROLL
        for (int v = 0; v < NV; v++)
            acc[i][v] = v_fma(v_set(q[i][d]), k[v], acc[i][v]);
    }
    UNROLL
    for (int i = 0; i < n; i++)
        UNROLL
    for (int v = 0; v < NV; v++)
        v_storeu(out + i * stride + v * VW, acc[i][v]);
}

static void score(const float *const *q, uint32_t n, const uint16_t *keys, uint32_t dim, float *out,
                  size_t stride) {
    switch (n) {
    case 1:
        score_rows(q, 1, keys, dim, out, stride);
        return;
    case 2:
        score_rows(q, 2, keys, dim, out, stride);
        return;
#if TILE_ROWS > 2
    case 3:
        score_rows(q, 3, keys, dim, out, stride);
        return;
    case 4:
        score_rows(q, 4, keys, dim, out, stride);
        return;
    case 5:
        score_rows(q, 5, keys, dim, out, stride);
        return;
    default:
        score_rows(q, 6, keys, dim, out, stride);
#endif
    }
}

static float softmax(float *s, uint32_t first, uint32_t n, float scale, float softcap) {
    VF most = v_set(-INFINITY), total = v_zero();
    uint32_t end = (n + VW - 1) / VW * VW;
    for (uint32_t i = 0; i < end; i += VW) {
        VF x = v_mul(v_loadu(s + i), v_set(scale));
        if (softcap > 0) { /* tanh(y) = 1 - 2 / (1 + e^2y) */
            VF e = v_add(v_exp(v_mul(x, v_set(2 / softcap))), v_set(1));
            x = v_mul(v_set(softcap), v_sub(v_set(1), v_div(v_set(2), e)));
        }
        x = v_within(x, i, first, n, -INFINITY);
        most = v_max(most, x);
        v_storeu(s + i, x);
    }
    float lane[VW], top = -INFINITY, sum = 0;
    v_storeu(lane, most);
    for (int i = 0; i < VW; i++)
        top = lane[i] > top ? lane[i] : top;
    for (uint32_t i = 0; i < end; i += VW) {
        VF x = v_within(v_exp(v_sub(v_loadu(s + i), v_set(top))), i, first, n, 0);
        total = v_add(total, x);
        v_storeu(s + i, x);
    }
    v_storeu(lane, total);
    for (int i = 0; i < VW; i++)
        sum += lane[i];
    return sum;
}

INLINE void mix_rows(const float *p, size_t p_stride, const int n, uint32_t from, uint32_t tokens,
                     const uint16_t *values, uint32_t dim, float *out, size_t stride) {
    uint32_t d = 0;
    for (; d + 2 * VW <= dim; d += 2 * VW) {
        VF acc[TILE_ROWS][2];
        UNROLL
        for (int i = 0; i < n; i++)
            UNROLL
        for (int v = 0; v < 2; v++)
            acc[i][v] = v_loadu(out + i * stride + d + v * VW);
        for (uint32_t t = from; t < tokens; t++) {
            VF x0 = v_f16(values + t * dim + d), x1 = v_f16(values + t * dim + d + VW);
            UNROLL
            for (int i = 0; i < n; i++) {
                VF w = v_set(p[i * p_stride + t]);
                acc[i][0] = v_fma(w, x0, acc[i][0]);
                acc[i][1] = v_fma(w, x1, acc[i][1]);
            }
        }
        UNROLL
        for (int i = 0; i < n; i++)
            UNROLL
        for (int v = 0; v < 2; v++)
            v_storeu(out + i * stride + d + v * VW, acc[i][v]);
    }
    for (; d < dim; d++)
        UNROLL
    for (int i = 0; i < n; i++)
        for (uint32_t t = from; t < tokens; t++)
            out[i * stride + d] =
                fmaf(p[i * p_stride + t], _cvtsh_ss(values[t * dim + d]), out[i * stride + d]);
}

static void mix(const float *p, size_t p_stride, uint32_t n, uint32_t from, uint32_t tokens,
                const uint16_t *values, uint32_t dim, float *out, size_t stride) {
    switch (n) {
    case 1:
        mix_rows(p, p_stride, 1, from, tokens, values, dim, out, stride);
        return;
    case 2:
        mix_rows(p, p_stride, 2, from, tokens, values, dim, out, stride);
        return;
#if TILE_ROWS > 2
    case 3:
        mix_rows(p, p_stride, 3, from, tokens, values, dim, out, stride);
        return;
    case 4:
        mix_rows(p, p_stride, 4, from, tokens, values, dim, out, stride);
        return;
    case 5:
        mix_rows(p, p_stride, 5, from, tokens, values, dim, out, stride);
        return;
    default:
        mix_rows(p, p_stride, 6, from, tokens, values, dim, out, stride);
#endif
    }
}
