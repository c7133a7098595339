/* unkai bench: how fast a model runs here, each speed beside the limit of this machine that binds it. Limits and speeds are measured in the same run and by turns,
 * because machines are noisy and ratios are what travels. It drives the forward pass itself. */
#include "cli/bench.h"
#include "cli/cli.h"
#include "engine/forward.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PREFILL = 512,
    MOST_SEQUENCES = 32,
    CONTEXT = 128,
    REPEATS = 7,
    PATIENCE = 5 /* seconds */
};

struct speed {
    uint32_t rows; /* tokens of a prompt, or sequences */
    double tps, limit, share;
    const char *bound;
};

struct bench {
    struct chip *chip;
    struct model *model;
    struct forward *forward;
    struct chip_limits limits;
    struct limit_samples samples;
    double layer_weights, head_weights; /* values */
    double kv_token_bytes;
    uint32_t page[MOST_SEQUENCES][PREFILL / KV_PAGE_TOKENS];
    struct forward_row row[PREFILL];
    struct speed prefill, decode[6];
};

static const uint32_t sequences[6] = {1, 2, 4, 8, 16, 32};

/* ---- measuring ---- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *value, int n) {
    qsort(value, (size_t)n, sizeof *value, by_value);
    return value[n / 2];
}

void bench_sample_limits(struct limit_samples *s, struct chip *c) {
    struct chip_limits now;
    chip_measure(c, &now);
    s->read[s->n] = now.read_gbs;
    s->int8[s->n] = now.int8_gops;
    s->bf16[s->n] = now.bf16_gflops;
    s->fp32[s->n++] = now.fp32_gflops;
}

struct chip_limits bench_limits(struct limit_samples *s) {
    return (struct chip_limits){.read_gbs = bench_median(s->read, s->n),
                                .int8_gops = bench_median(s->int8, s->n),
                                .bf16_gflops = bench_median(s->bf16, s->n),
                                .fp32_gflops = bench_median(s->fp32, s->n)};
}

/* Of REPEATS measurements, or of as many as PATIENCE allows: the reference kernels take seconds for one. */
static double median_seconds(struct bench *b, uint32_t rows, int steps) {
    double seconds[REPEATS], all = 0;
    int n = 0;
    while (n < REPEATS && all < PATIENCE) {
        int64_t start = clock_mono_ns();
        for (int k = 0; k < steps; k++)
            forward_step(b->forward, b->row, rows);
        double took = (double)(clock_mono_ns() - start) / 1e9;
        all += took;
        seconds[n++] = took / steps;
    }
    return bench_median(seconds, n);
}

static struct forward_row make_row(const struct bench *b, uint32_t i, uint32_t position, uint32_t sequence,
                                   bool logits) {
    return (struct forward_row){.token = (token_id)(i * 2654435761u % b->model->traits.vocab),
                                .position = position,
                                .page = b->page[sequence],
                                .want_logits = logits};
}

static void measure_prefill(struct bench *b) {
    for (uint32_t i = 0; i < PREFILL; i++)
        b->row[i] = make_row(b, i, i, 0, i + 1 == PREFILL);
    b->prefill.rows = PREFILL;
    b->prefill.tps = PREFILL / median_seconds(b, PREFILL, 1);
}

static void measure_decode(struct bench *b, struct speed *s, uint32_t n) {
    struct chip_kv *kv = forward_kv(b->forward);
    for (uint32_t i = 0; i < CONTEXT; i++)
        b->row[i] = make_row(b, i, i, 0, false);
    forward_step(b->forward, b->row, CONTEXT);
    for (uint32_t q = 1; q < n; q++) /* every sequence has a context of its own to look back on */
        for (uint32_t i = 0; i < CONTEXT / KV_PAGE_TOKENS; i++)
            memcpy(kv->base + b->page[q][i] * kv->page_bytes, kv->base + b->page[0][i] * kv->page_bytes,
                   kv->page_bytes);
    for (uint32_t q = 0; q < n; q++)
        b->row[q] = make_row(b, q, CONTEXT, q, true);
    s->rows = n;
    s->tps = n / median_seconds(b, n, n < 8 ? 6 : 3);
}

/* ---- limits ---- */

/* A step reads the weights once, and every sequence's keys and values; it multiplies every weight with every row. */
static void find_share(const struct bench *b, struct speed *s, double rows, double heads, double kv_tokens) {
    double bytes = (double)forward_weight_bytes(b->forward) + kv_tokens * b->kv_token_bytes;
    double operations = 2 * (rows * b->layer_weights + heads * b->head_weights);
    double reading = bytes / (b->limits.read_gbs * 1e9), computing = operations / (b->limits.int8_gops * 1e9);
    s->bound = reading > computing ? "read bandwidth" : "int8 peak";
    s->limit = rows / (reading > computing ? reading : computing);
    s->share = s->tps / s->limit;
}

static void find_shares(struct bench *b) {
    find_share(b, &b->prefill, PREFILL, 1, 0);
    for (int i = 0; i < 6; i++)
        find_share(b, &b->decode[i], sequences[i], sequences[i], (double)sequences[i] * CONTEXT);
}

/* ---- the command ---- */

static int open_chip(struct bench *b, const struct chip_options *o, struct error *e) {
    int rc;
    if ((rc = chip_open(&b->chip, o, e)) != 0 ||
        (rc = forward_open(&b->forward, b->chip, b->model, PREFILL, MOST_SEQUENCES, e)) != 0)
        return rc;
    const struct traits *t = &b->model->traits;
    chip_take_core(b->chip);
    struct chip_kv *kv = forward_kv(b->forward);
    kv->base = chip_alloc(b->chip, kv->page_bytes * MOST_SEQUENCES * (PREFILL / KV_PAGE_TOKENS));
    if (kv->base == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the keys and values of %d sequences",
                         MOST_SEQUENCES);
    for (uint32_t q = 0, page = 0; q < MOST_SEQUENCES; q++)
        for (uint32_t i = 0; i < PREFILL / KV_PAGE_TOKENS; i++)
            b->page[q][i] = page++;
    double heads = (double)t->heads * t->head_dim, kv_heads = (double)t->kv_heads * t->head_dim;
    b->kv_token_bytes = (double)kv->page_bytes / KV_PAGE_TOKENS;
    b->layer_weights = t->layers * t->width * (2 * heads + 2 * kv_heads + 3.0 * t->ffn_width);
    b->head_weights = (double)t->width * t->vocab;
    return 0;
}

static void close_model(struct bench *b) {
    if (b->forward != NULL && forward_kv(b->forward)->base != NULL)
        chip_release(b->chip, forward_kv(b->forward)->base,
                     forward_kv(b->forward)->page_bytes * MOST_SEQUENCES * (PREFILL / KV_PAGE_TOKENS));
    forward_close(b->forward);
    if (b->chip != NULL)
        chip_close(b->chip);
    model_close(b->model);
}

static void print_table(const struct bench *b) {
    printf(
        "%s kernels, %u threads; %.1f GB/s read, %.0f Gop/s int8, %.0f GFLOP/s bf16, %.0f GFLOP/s fp32\n\n",
        chip_kernels(b->chip), chip_threads(b->chip), b->limits.read_gbs, b->limits.int8_gops,
        b->limits.bf16_gflops, b->limits.fp32_gflops);
    printf("%-24s %12s %8s  bound by\n", "", "tokens/s", "share");
    printf("prefill, %-4u tokens     %12.1f %7.0f%%  %s\n", b->prefill.rows, b->prefill.tps,
           100 * b->prefill.share, b->prefill.bound);
    for (int i = 0; i < 6; i++)
        printf("decode, %2u sequences     %12.1f %7.0f%%  %s\n", b->decode[i].rows, b->decode[i].tps,
               100 * b->decode[i].share, b->decode[i].bound);
}

static void print_json(const struct bench *b) {
    printf("{\"limits\": {\"read_gbs\": %.2f, \"int8_gops\": %.1f, \"bf16_gflops\": %.1f, \"fp32_gflops\": "
           "%.1f}, "
           "\"prefill\": {\"tokens\": %u, \"tps\": %.2f, \"share\": %.4f}, \"decode\": [",
           b->limits.read_gbs, b->limits.int8_gops, b->limits.bf16_gflops, b->limits.fp32_gflops,
           b->prefill.rows, b->prefill.tps, b->prefill.share);
    for (int i = 0; i < 6; i++)
        printf("%s{\"sequences\": %u, \"tps\": %.2f, \"share\": %.4f}", i ? ", " : "", b->decode[i].rows,
               b->decode[i].tps, b->decode[i].share);
    printf("]}\n");
}

static int bench_steps(struct bench *b, const struct chip_options *o, bool as_json, struct error *e) {
    int rc = open_chip(b, o, e);
    if (rc != 0)
        return rc;
    bench_sample_limits(&b->samples, b->chip);
    fprintf(stderr, "prefill ...\n");
    measure_prefill(b);
    for (int i = 0; i < 6; i++) {
        fprintf(stderr, "decode, %u sequences ...\n", sequences[i]);
        bench_sample_limits(&b->samples, b->chip);
        measure_decode(b, &b->decode[i], sequences[i]);
    }
    bench_sample_limits(&b->samples, b->chip);
    b->limits = bench_limits(&b->samples);
    find_shares(b);
    (as_json ? print_json : print_table)(b);
    return 0;
}

int cmd_bench(int argc, char **argv) {
    int args;
    int64_t threads = 0;
    bool as_json = false;
    const char *contexts = NULL;
    char path[4200], packed[4200];
    struct chip_options o = {.pack_folder = packed};
    struct error e = {0};
    const struct option options[] = {
        {"context", OPTION_TEXT, &contexts, "N,N",
         "attention alone, after so many tokens, with every form of --kv"},
        {"kernels", OPTION_TEXT, &o.kernels, "NAME", CLI_KERNELS_HELP},
        {"kv", OPTION_TEXT, &o.kv, "FORM", CLI_KV_HELP},
        {"threads", OPTION_INT, &threads, "N", "threads (one a core)", 1, 1024},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    int rc = cli_options(
        argc, argv, &args, options, "MODEL",
        "Measures this machine's limits, then MODEL's speed for a prompt and for 1 to 32 sequences at once, "
        "and says\n"
        "what share of the binding limit each reaches. Best on a machine that does nothing else.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args != 1) {
        fprintf(stderr, "unkai bench: wants one model; see unkai bench --help\n");
        return EXIT_USAGE;
    }
    snprintf(packed, sizeof packed, "%s/packed", cli_home());
    o.threads = (uint32_t)threads;
    struct bench *b = calloc(1, sizeof *b);
    rc = b == NULL ? error_set(&e, ERR_NO_MEMORY, "no memory")
                   : cli_model_path(path, sizeof path, argv[1], &e);
    if (rc == 0 && (rc = model_open(&b->model, path, &e)) == 0)
        rc = contexts != NULL ? bench_attention(b->model, &o, contexts, as_json, &e)
                              : bench_steps(b, &o, as_json, &e);
    if (b != NULL)
        close_model(b);
    free(b);
    return rc != 0 ? cli_fail("bench", &e) : EXIT_OK;
}
