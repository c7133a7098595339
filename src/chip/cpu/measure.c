/* What this machine can do at most: read bandwidth and arithmetic peaks, all threads together, measured in about a second. `unkai bench` reports
 * every speed as a share of these, so that a number means the same on every machine. */
#include "chip/cpu/kernels.h"

#include "base/clock.h"

enum { STREAM_BYTES = 320 << 20, STREAM_RUNS = 4, PEAK_RUNS = 3 };

struct measuring {
    struct chip *c;
    const uint64_t *stream;
    size_t words;
    int what;
    uint64_t rounds;
    _Atomic uint64_t sink;
    double *operations; /* [threads] */
};

static void read_work(void *context, uint32_t thread)
{
    struct measuring *m = context;
    size_t share = m->words / m->c->threads / 64 * 64;
    const uint64_t *p = m->stream + share * thread;
    uint64_t sum[16] = {0};
    for (size_t i = 0; i < share; i += 16) {
        __builtin_prefetch(p + i + 512);
        for (int j = 0; j < 16; j++)
            sum[j] ^= p[i + j];
    }
    for (int j = 1; j < 16; j++)
        sum[0] ^= sum[j];
    atomic_fetch_xor(&m->sink, sum[0]);
}

/* Where there is no table: plain C, which then is this machine's peak as far as this build can use it. */
static void scalar_peak(uint64_t rounds, double *operations)
{
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

static void peak_work(void *context, uint32_t thread)
{
    struct measuring *m = context;
    if (m->c->fast)
        m->c->fast->measure(m->what, m->rounds, &m->operations[thread]);
    else
        scalar_peak(m->rounds, &m->operations[thread]);
}

static double peak(struct measuring *m, int what)
{
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

void chip_measure(struct chip *c, struct chip_limits *out)
{
    *out = (struct chip_limits){0};
    double operations[c->threads];
    char *p = chip_alloc(c, STREAM_BYTES);
    if (p) {
        for (size_t i = 0; i < STREAM_BYTES; i += 4096)
            p[i] = (char)i;
        struct measuring m = {.c = c, .stream = (const uint64_t *)(const void *)p, .words = STREAM_BYTES / sizeof(uint64_t)};
        for (int i = 0; i < STREAM_RUNS; i++) {
            int64_t start = clock_mono_ns();
            pool_run(c->pool, read_work, &m);
            double gbs = (double)STREAM_BYTES / (double)(clock_mono_ns() - start);
            out->read_gbs = gbs > out->read_gbs ? gbs : out->read_gbs;
        }
        chip_release(c, p, STREAM_BYTES);
    }
    struct measuring m = {.c = c, .rounds = 6000000, .operations = operations};
    out->fp32_gflops = peak(&m, MEASURE_FP32);
    out->bf16_gflops = peak(&m, MEASURE_BF16);
    out->int8_gops = peak(&m, MEASURE_INT8);
}
