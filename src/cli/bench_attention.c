/* unkai bench --context: attention alone, as a model's layers do it at the end of long sequences, beside the limits of this machine. A decode step must read the keys and
 * values of every token it looks at once; a prompt's rows multiply two numbers for every value that they look at in the keys, and again in the values. */
#include "base/clock.h"
#include "chip/chip.h"
#include "cli/bench.h"
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PREFILL_ROWS = 256, /* as many as a step takes of a prompt that has the machine to itself */
    PREFILL_LAYERS = 6, /* all that this many can tell: of Gemma's, one of them looks back all the way */
    PASSES = 7,
    MOST_CONTEXT = 1 << 20
};

static const char *const kv_names[] = {"f16", "q8"};
enum { KV_NAMES = sizeof kv_names / sizeof *kv_names };

struct depth {
    uint32_t tokens;
    struct {
        double decode_gbs, prefill_gflops;
    } of[KV_NAMES];
};

struct attention_bench {
    const struct traits *traits;
    struct chip *chip;
    struct chip_kv kv;
    size_t kv_bytes;
    uint32_t *page, *position;
    struct chip_attend_row *row;
    float *q, *k, *v, *out, *rope;
    struct limit_samples *limits;
};

static uint32_t seen_by(const struct traits *t, uint32_t layer, uint32_t position) {
    uint32_t all = position + 1;
    return traits_layer_slides(t, layer) && all > t->window ? t->window : all;
}

static void attend_layer(const struct attention_bench *b, uint32_t layer, uint32_t rows, uint32_t window) {
    const struct traits *t = b->traits;
    size_t q = (size_t)t->heads * t->head_dim, kv = (size_t)t->kv_heads * t->head_dim;
    chip_attend(b->chip, &(struct chip_attend){.rows = rows,
                                               .row = b->row,
                                               .kv = &b->kv,
                                               .layer = layer,
                                               .heads = t->heads,
                                               .q = b->q,
                                               .k = b->k,
                                               .v = b->v,
                                               .q_stride = q,
                                               .k_stride = kv,
                                               .v_stride = kv,
                                               .rope = b->rope,
                                               .rope_dims = t->rope_dims,
                                               .rope_neox = t->rope_neox,
                                               .scale = t->attn_scale,
                                               .softcap = t->attn_softcap,
                                               .window = window,
                                               .out = b->out,
                                               .out_stride = q});
}

static void set_rows(const struct attention_bench *b, uint32_t from, uint32_t rows) {
    for (uint32_t r = 0; r < rows; r++) {
        b->position[r] = from + r;
        b->row[r] = (struct chip_attend_row){.page = b->page, .position = from + r};
    }
}

/* Seconds for `rows` at the end of `tokens`, through the first `layers`. */
static double pass(const struct attention_bench *b, uint32_t tokens, uint32_t rows, uint32_t layers) {
    double seconds[PASSES];
    set_rows(b, tokens - rows, rows);
    for (int i = 0; i < PASSES; i++) {
        int64_t start = clock_mono_ns();
        for (uint32_t l = 0; l < layers; l++)
            attend_layer(b, l, rows, traits_layer_slides(b->traits, l) ? b->traits->window : 0);
        seconds[i] = (double)(clock_mono_ns() - start) / 1e9;
    }
    return bench_median(seconds, PASSES);
}

static void measure_depth(const struct attention_bench *b, struct depth *d, int kv) {
    const struct traits *t = b->traits;
    uint32_t layers = t->layers < PREFILL_LAYERS ? t->layers : PREFILL_LAYERS,
             rows = d->tokens < PREFILL_ROWS ? d->tokens : PREFILL_ROWS;
    double tokens = 0, pairs = 0;
    for (uint32_t l = 0; l < t->layers; l++)
        tokens += seen_by(t, l, d->tokens - 1);
    for (uint32_t l = 0; l < layers; l++)
        for (uint32_t r = 0; r < rows; r++)
            pairs += seen_by(t, l, d->tokens - rows + r);
    double token_bytes = (double)b->kv.page_bytes / KV_PAGE_TOKENS / t->layers;
    bench_sample_limits(b->limits, b->chip);
    d->of[kv].decode_gbs = tokens * token_bytes / pass(b, d->tokens, 1, t->layers) / 1e9;
    bench_sample_limits(b->limits, b->chip);
    d->of[kv].prefill_gflops = 4.0 * t->heads * t->head_dim * pairs / pass(b, d->tokens, rows, layers) / 1e9;
}

/* Numbers of every row's own, through all layers and tokens; a window of one token makes that quick. */
static void fill_pages(const struct attention_bench *b, uint32_t tokens) {
    const struct traits *t = b->traits;
    uint32_t seed = 1;
    for (uint32_t at = 0; at < tokens; at += PREFILL_ROWS) {
        uint32_t rows = tokens - at < PREFILL_ROWS ? tokens - at : PREFILL_ROWS;
        for (size_t i = 0; i < (size_t)rows * t->kv_heads * t->head_dim; i++) {
            seed = seed * 1664525 + 1013904223;
            b->k[i] = (float)(seed >> 8) / (1 << 23) - 1;
            b->v[i] = b->q[i] = b->k[i] * 0.5f;
        }
        set_rows(b, at, rows);
        for (uint32_t l = 0; l < t->layers; l++)
            attend_layer(b, l, rows, 1);
    }
}

static void close_attention(struct attention_bench *b) {
    if (b->chip != NULL) {
        chip_release(b->chip, b->kv.base, b->kv_bytes);
        chip_close(b->chip);
    }
    free(b->page);
    free(b->position);
    free(b->row);
    free(b->q);
    free(b->k);
    free(b->v);
    free(b->out);
    free(b->rope);
}

static int open_attention(struct attention_bench *b, const struct chip_options *o, uint32_t tokens,
                          struct error *e) {
    const struct traits *t = b->traits;
    int rc = chip_open(&b->chip, o, e);
    if (rc != 0)
        return rc;
    uint32_t pages = (tokens + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
    size_t rows = PREFILL_ROWS, q = rows * t->heads * t->head_dim, kv = rows * t->kv_heads * t->head_dim;
    b->kv = (struct chip_kv){.page_bytes = chip_kv_page_bytes(b->chip, t->layers, t->kv_heads, t->head_dim),
                             .layers = t->layers,
                             .kv_heads = t->kv_heads,
                             .head_dim = t->head_dim};
    b->kv_bytes = b->kv.page_bytes * pages;
    b->kv.base = chip_alloc(b->chip, b->kv_bytes);
    b->page = calloc(pages, sizeof *b->page);
    b->position = calloc(rows, sizeof *b->position);
    b->row = calloc(rows, sizeof *b->row);
    b->q = calloc(q, sizeof *b->q);
    b->k = calloc(kv, sizeof *b->k);
    b->v = calloc(kv, sizeof *b->v);
    b->out = calloc(q, sizeof *b->out);
    b->rope = calloc(rows * t->rope_dims, sizeof *b->rope);
    if (!b->kv.base || !b->page || !b->position || !b->row || !b->q || !b->k || !b->v || !b->out || !b->rope)
        return error_set(e, ERR_NO_MEMORY, "no memory for the keys and values of %u tokens", tokens);
    for (uint32_t i = 0; i < pages; i++)
        b->page[i] = i;
    for (size_t i = 0; i < rows * t->rope_dims; i += 2)
        b->rope[i] = 1; /* no rotation: the rows pass many times */
    return 0;
}

/* "4096,16384" */
static int read_depths(struct depth *d, const char *list, struct error *e) {
    int n = 0;
    for (const char *at = list;; at++) {
        char *end;
        long long tokens = strtoll(at, &end, 10);
        if (end == at || tokens < 1 || tokens > MOST_CONTEXT || (*end != 0 && *end != ',') ||
            n == MOST_DEPTHS)
            return error_set(e, ERR_INVALID,
                             "--context wants up to %d numbers of tokens with commas between, not '%.100s'",
                             MOST_DEPTHS, list);
        d[n++].tokens = (uint32_t)tokens;
        at = end;
        if (*end == 0)
            return n;
    }
}

static void print_share(const char *kv, const char *what, double value, const char *unit, double limit,
                        const char *bound) {
    printf("  %-4s %-8s %12.1f %-8s %7.0f%%  %s\n", kv, what, value, unit, 100 * value / limit, bound);
}

static void print_depths(const struct depth *d, int n, const struct chip_limits *l) {
    printf("attention alone; %.1f GB/s read, %.0f GFLOP/s bf16, %.0f GFLOP/s fp32\n", l->read_gbs,
           l->bf16_gflops, l->fp32_gflops);
    for (int i = 0; i < n; i++) {
        printf("\n%u tokens of context\n", d[i].tokens);
        for (int k = 0; k < KV_NAMES; k++) {
            print_share(kv_names[k], "decode", d[i].of[k].decode_gbs, "GB/s", l->read_gbs, "read bandwidth");
            print_share(kv_names[k], "prefill", d[i].of[k].prefill_gflops, "GFLOP/s", l->fp32_gflops,
                        "fp32 peak");
        }
    }
}

static void print_depths_json(const struct depth *d, int n, const struct chip_limits *l) {
    printf(
        "{\"limits\": {\"read_gbs\": %.2f, \"bf16_gflops\": %.1f, \"fp32_gflops\": %.1f}, \"attention\": [",
        l->read_gbs, l->bf16_gflops, l->fp32_gflops);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < KV_NAMES; k++)
            printf("%s{\"context\": %u, \"kv\": \"%s\", \"decode_gbs\": %.2f, \"decode_share\": %.4f, "
                   "\"prefill_gflops\": "
                   "%.1f, \"prefill_share\": %.4f}",
                   i + k ? ", " : "", d[i].tokens, kv_names[k], d[i].of[k].decode_gbs,
                   d[i].of[k].decode_gbs / l->read_gbs, d[i].of[k].prefill_gflops,
                   d[i].of[k].prefill_gflops / l->fp32_gflops);
    printf("]}\n");
}

int bench_attention(const struct model *m, const struct chip_options *o, const char *contexts, bool as_json,
                    struct error *e) {
    struct depth depth[MOST_DEPTHS] = {{0}};
    struct limit_samples samples = {.n = 0};
    struct attention_bench of[KV_NAMES] = {{0}};
    uint32_t most = 0;
    int n = read_depths(depth, contexts, e), rc = n < 0 ? n : 0;
    for (int i = 0; i < n; i++)
        most = depth[i].tokens > most ? depth[i].tokens : most;
    for (int kv = 0; rc == 0 && kv < KV_NAMES; kv++) {
        struct chip_options with = *o;
        with.kv = kv_names[kv];
        of[kv].traits = &m->traits;
        of[kv].limits = &samples;
        rc = open_attention(&of[kv], &with, most, e);
    }
    if (rc == 0)
        chip_take_core(of[0].chip); /* after all have started their threads, which would inherit it */
    for (int kv = 0; rc == 0 && kv < KV_NAMES; kv++)
        fill_pages(&of[kv], most);
    for (int i = 0; rc == 0 && i < n; i++)
        for (int kv = 0; kv < KV_NAMES; kv++) {
            fprintf(stderr, "%s, %u tokens ...\n", kv_names[kv], depth[i].tokens);
            measure_depth(&of[kv], &depth[i], kv);
        }
    for (int kv = 0; kv < KV_NAMES; kv++)
        close_attention(&of[kv]);
    if (rc != 0)
        return rc;
    struct chip_limits limits = bench_limits(&samples);
    (as_json ? print_depths_json : print_depths)(depth, n, &limits);
    return 0;
}
