/* unkai perplexity: how well a model predicts a text, and with what certainty: the judge of every faster path and of every packing. It drives the
 * forward pass itself, without the scheduler, in windows that share nothing. */
#include "cli/cli.h"
#include "engine/forward.h"
#include "engine/sampler.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WINDOW = 512, MOST_WINDOW = 1 << 20, ROWS = 64, MOST_TOPS = 20, MOST_TEXT = 1 << 30 };

struct perplexity {
    struct chip *chip;
    struct model *model;
    struct forward *forward;
    struct tokens tokens;
    uint32_t *page;
    int64_t tops, window;
    struct buf top; /* the JSON array of --logprobs */
    double loss;    /* sum of -log p */
    size_t scored;
};

static void write_tops(struct perplexity *p, const float *logits) {
    int32_t id[MOST_TOPS];
    float logprob[MOST_TOPS];
    uint32_t n = (uint32_t)p->tops;
    n = n > p->model->traits.vocab ? p->model->traits.vocab : n;
    sampler_logprobs(logits, p->model->traits.vocab, 0, n, id, logprob);
    buf_text(&p->top, p->top.n > 1 ? ",[" : "[");
    for (uint32_t i = 0; i < n; i++)
        buf_printf(&p->top, "%s[%d,%.6f]", i ? "," : "", id[i], (double)logprob[i]);
    buf_byte(&p->top, ']');
}

/* Tokens [first, end) with nothing before them: all but the first are scored. */
static void run_window(struct perplexity *p, size_t first, size_t end) {
    struct forward_row row[ROWS];
    size_t vocab = p->model->traits.vocab;
    for (size_t at = first; at < end; at += ROWS) {
        uint32_t rows = end - at < ROWS ? (uint32_t)(end - at) : ROWS;
        for (uint32_t r = 0; r < rows; r++)
            row[r] = (struct forward_row){.token = p->tokens.id[at + r],
                                          .position = (uint32_t)(at + r - first),
                                          .page = p->page,
                                          .want_logits = true};
        const float *logits = forward_step(p->forward, row, rows);
        for (uint32_t r = 0; r < rows; r++, logits += vocab) {
            if (at + r + 1 < end) {
                p->loss -= (double)sampler_logprobs(logits, vocab, p->tokens.id[at + r + 1], 0, NULL, NULL);
                p->scored++;
            }
            if (p->tops > 0)
                write_tops(p, logits);
        }
    }
}

static int read_ids(struct perplexity *p, struct str text, struct error *e) {
    struct json *ids = NULL;
    int rc = json_parse(&ids, text, e);
    for (size_t i = 0; rc == 0 && i < json_count(ids); i++) {
        const struct json *v = json_at(ids, i);
        if (json_kind(v) != JSON_KIND_INT || json_as_int(v) < 0 || json_as_int(v) >= p->model->traits.vocab)
            rc = error_set(e, ERR_INVALID, "element %zu is no token id of this model (0 to %u)", i,
                           p->model->traits.vocab - 1);
        else if (tokens_push(&p->tokens, (token_id)json_as_int(v)) != 0)
            rc = error_set(e, ERR_NO_MEMORY, "no memory for the tokens");
    }
    json_free(ids);
    return rc;
}

static int read_tokens(struct perplexity *p, const char *path, bool ids, struct error *e) {
    struct buf text = {0};
    int rc = cli_read(&text, path, MOST_TEXT, e);
    if (rc == 0 && ids)
        rc = read_ids(p, buf_view(&text), e);
    else if (rc == 0) {
        const struct tokenizer *t = p->model->tokenizer;
        struct segment segment = {.text = buf_view(&text)};
        if (tokenizer_add_bos(t) && tokens_push(&p->tokens, tokenizer_bos(t)) != 0)
            rc = error_set(e, ERR_NO_MEMORY, "no memory for the tokens");
        else
            rc = tokenizer_encode(t, &segment, 1, 0, &p->tokens, e);
    }
    if (rc == 0 && p->tokens.n < 2)
        rc = error_set(e, ERR_INVALID, "%.200s holds fewer than two tokens: there is nothing to predict",
                       path);
    buf_free(&text);
    return rc;
}

static uint32_t pages_of(const struct perplexity *p) {
    return (uint32_t)(p->window + KV_PAGE_TOKENS - 1) / KV_PAGE_TOKENS;
}

static int open_model(struct perplexity *p, const char *path, struct chip_options o, struct error *e) {
    int rc;
    char packed[4200];
    snprintf(packed, sizeof packed, "%s/packed", cli_home());
    o.pack_folder = packed;
    if ((rc = model_open(&p->model, path, e)) != 0 || (rc = chip_open(&p->chip, &o, e)) != 0 ||
        (rc = forward_open(&p->forward, p->chip, p->model, ROWS, ROWS, e)) != 0)
        return rc;
    chip_take_core(p->chip);
    struct chip_kv *kv = forward_kv(p->forward);
    kv->base = chip_alloc(p->chip, kv->page_bytes * pages_of(p));
    p->page = calloc(pages_of(p), sizeof *p->page);
    if (kv->base == NULL || p->page == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the keys and values of %u tokens",
                         (unsigned)p->window);
    for (uint32_t i = 0; i < pages_of(p); i++)
        p->page[i] = i;
    return 0;
}

static void close_model(struct perplexity *p) {
    if (p->forward != NULL) {
        struct chip_kv *kv = forward_kv(p->forward);
        if (kv->base != NULL)
            chip_release(p->chip, kv->base, kv->page_bytes * pages_of(p));
    }
    forward_close(p->forward);
    if (p->chip != NULL)
        chip_close(p->chip);
    model_close(p->model);
    free(p->page);
    tokens_free(&p->tokens);
    buf_free(&p->top);
}

static void print_result(const struct perplexity *p, bool as_json) {
    double perplexity = exp(p->loss / (double)p->scored);
    if (!as_json) {
        printf("%zu tokens, perplexity %.4f\n", p->tokens.n, perplexity);
        return;
    }
    printf("{\"tokens\":%zu,\"perplexity\":%.6f", p->tokens.n, perplexity);
    if (p->tops > 0)
        printf(",\"top\":%s]", p->top.p);
    printf("}\n");
}

int cmd_perplexity(int argc, char **argv) {
    int args, rc;
    bool as_json = false, reference = false, ids = false;
    struct chip_options chip = {0};
    char path[4200];
    struct error e = {0};
    struct perplexity p = {.window = WINDOW};
    const struct option options[] = {
        {"json", OPTION_FLAG, &as_json, NULL, "print tokens, perplexity and the top K as JSON"},
        {"logprobs", OPTION_INT, &p.tops, "K", "with --json: the K likeliest next tokens at each position", 0,
         MOST_TOPS},
        {"window", OPTION_INT, &p.window, "N", "tokens of a window (512)", 2, MOST_WINDOW},
        {"kernels", OPTION_TEXT, &chip.kernels, "NAME", CLI_KERNELS_HELP},
        {"kv", OPTION_TEXT, &chip.kv, "FORM", CLI_KV_HELP},
        {"reference", OPTION_FLAG, &reference, NULL,
         "compute with the scalar reference kernels (slow, exact)"},
        {"ids", OPTION_FLAG, &ids, NULL, "FILE is a JSON array of token ids, used as they are"},
        {NULL},
    };
    rc = cli_options(
        argc, argv, &args, options, "MODEL FILE",
        "Measures how well MODEL predicts the text in FILE (- is standard input), in windows of tokens\n"
        "that start empty. Lower is better; equal numbers mean equal arithmetic.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args != 2) {
        fprintf(stderr, "unkai perplexity: wants a model and a file; see unkai perplexity --help\n");
        return EXIT_USAGE;
    }
    buf_byte(&p.top, '[');
    if (reference)
        chip.kernels = "reference";
    if ((rc = cli_model_path(path, sizeof path, argv[1], &e)) != 0 ||
        (rc = open_model(&p, path, chip, &e)) != 0 || (rc = read_tokens(&p, argv[2], ids, &e)) != 0)
        goto out;
    bool show = isatty(STDERR_FILENO) == 1;
    for (size_t at = 0, n = (size_t)p.window; at < p.tokens.n; at += n) {
        run_window(&p, at, at + n < p.tokens.n ? at + n : p.tokens.n);
        if (show)
            fprintf(stderr, "\r%zu of %zu tokens", at, p.tokens.n);
    }
    if (show)
        fprintf(stderr, "\r\033[K");
    if (forward_damaged(p.forward))
        rc = error_set(&e, ERR_CORRUPT, "%.200s changed while it was read", path);
    else if (p.top.failed)
        rc = error_set(&e, ERR_NO_MEMORY, "no memory for the log-probabilities");
    else
        print_result(&p, as_json);
out:
    close_model(&p);
    return rc == 0 ? EXIT_OK : cli_fail("perplexity", &e);
}
