/* What this machine can do at most: read bandwidth and arithmetic peaks, all threads together, measured in about a second. `unkai bench` reports
 * every speed as a share of these, so that a number means the same on every machine. */
#include "chip/cpu/kernels.h"

#include "base/clock.h"

enum { STREAM_BYTES = 320 << 20, PIECE_BYTES = 64 << 10, STREAM_RUNS = 12, PEAK_RUNS = 3 };

struct measuring {
    struct chip *c;
    const struct kernels
        *kernels; /* the table in use; for the reference the best one, since a limit is the machine's */
    const char *stream;
    int what;
    uint64_t rounds;
    _Atomic uint64_t sink;
    double *operations; /* [threads] */
};

/* As the products do it: each thread streams a part of its own, and takes from the others' when the system held them up. */
static void read_work(void *context, uint32_t thread) {
    struct measuring *m = context;
    typedef uint64_t lanes __attribute__((vector_size(64)));
    lanes sum[4] = {{0}};
    uint32_t from, to;
    while (pool_take(m->c->pool, thread, 1, &from, &to)) {
        const lanes *p = (const lanes *)(const void *)(m->stream + (size_t)from * PIECE_BYTES);
        for (size_t i = 0; i < PIECE_BYTES / sizeof *p; i += 4) {
            for (int j = 0; j < 4; j++) {
                __builtin_prefetch(p + i + (size_t)j + AHEAD_BYTES / sizeof *p);
                sum[j] ^= p[i + (size_t)j];
            }
        }
    }
    sum[0] ^= sum[1] ^ sum[2] ^ sum[3];
    atomic_fetch_xor(&m->sink, sum[0][0] ^ sum[0][1] ^ sum[0][2] ^ sum[0][3] ^ sum[0][4] ^ sum[0][5] ^
                                   sum[0][6] ^ sum[0][7]);
}

/* Where there is no table: plain C, which then is this machine's peak as far as this build can use it. */
static void scalar_peak(uint64_t rounds, double *operations) {
    volatile float seed = 1;
    float s[8] = {0}, x = seed;
    for (uint64_t n = 0; n < rounds; n++)
        for (int i = 0; i < 8; i++)
            s[i] = s[i] * x + x;
    for (int i = 1; i < 8; i++)
        s[0] += s[i];
    seed = s[0];
    *operations = (double)rounds * 16;
}

static void peak_work(void *context, uint32_t thread) {
    struct measuring *m = context;
    if (m->kernels)
        m->kernels->measure(m->what, m->rounds, &m->operations[thread]);
    else
        scalar_peak(m->rounds, &m->operations[thread]);
}

static double peak(struct measuring *m, int what) {
    double best = 0;
    m->what = what;
    for (int i = 0; i < PEAK_RUNS; i++) {
        int64_t start = clock_mono_ns();
        pool_run(m->c->pool, peak_work, m);
        double ns = (double)(clock_mono_ns() - start), all = 0;
        for (uint32_t t = 0; t < m->c->threads; t++)
            all += m->operations[t];
        best = all / ns > best ? all / ns : best;
    }
    return best;
}

void chip_measure(struct chip *c, struct chip_limits *out) {
    *out = (struct chip_limits){0};
    double operations[c->threads];
    char *p = chip_alloc(c, STREAM_BYTES);
    if (p) {
        for (size_t i = 0; i < STREAM_BYTES; i += 4096)
            p[i] = (char)i;
        struct measuring m = {.c = c, .stream = p};
        for (int i = 0; i < STREAM_RUNS; i++) {
            pool_share(c->pool, STREAM_BYTES / PIECE_BYTES);
            int64_t start = clock_mono_ns();
            pool_run(c->pool, read_work, &m);
            double gbs = (double)STREAM_BYTES / (double)(clock_mono_ns() - start);
            out->read_gbs = gbs > out->read_gbs ? gbs : out->read_gbs;
        }
        chip_release(c, p, STREAM_BYTES);
    }
    struct measuring m = {
        .c = c, .kernels = c->fast ? c->fast : kernels_best(), .rounds = 6000000, .operations = operations};
    out->fp32_gflops = peak(&m, MEASURE_FP32);
    out->bf16_gflops = peak(&m, MEASURE_BF16);
    out->int8_gops = peak(&m, MEASURE_INT8);
}
