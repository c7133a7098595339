/* GET /metrics in Prometheus' text format. Names follow vLLM's under the prefix unkai_, so that dashboards carry over. All counters belong to the loop's
 * thread. */
#include "gateway/inner.h"

#include <stdio.h>
#include <stdlib.h>

static const double seconds[HISTOGRAM_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06,
                                                  0.08,  0.1,    0.15,  0.25, 0.5,  0.75, 1,
                                                  2.5,   5,      10,    20,   40,   80};
static const double tokens[HISTOGRAM_BUCKETS] = {1,     2,      5,      10,     20,      50,     100,
                                                 200,   500,    1000,   2000,   5000,    10000,  20000,
                                                 50000, 100000, 200000, 500000, 1000000, 2000000};

static const struct histogram_kind {
    const char *name, *help;
    const double *bound;
} histogram_kind[HISTOGRAMS] = {
    [SEEN_FIRST_TOKEN] = {"time_to_first_token_seconds", "From the request to its first token.", seconds},
    [SEEN_INTER_TOKEN] = {"inter_token_latency_seconds", "From one token to the next.", seconds},
    [SEEN_PER_TOKEN] = {"time_per_output_token_seconds",
                        "Mean time of a token after the first, one sample a sequence.", seconds},
    [SEEN_LATENCY] = {"e2e_request_latency_seconds", "From the request to its last token.", seconds},
    [SEEN_QUEUE] = {"request_queue_time_seconds", "From the request to its first step.", seconds},
    [SEEN_INFERENCE] = {"request_inference_time_seconds", "From the first step to the last token.", seconds},
    [SEEN_PREFILL] = {"request_prefill_time_seconds", "From the first step to the first token.", seconds},
    [SEEN_DECODE] = {"request_decode_time_seconds", "From the first token to the last.", seconds},
    [SEEN_PROMPT_TOKENS] = {"request_prompt_tokens", "Tokens of a sequence's prompt.", tokens},
    [SEEN_GENERATION_TOKENS] = {"request_generation_tokens", "Tokens that a sequence generated.", tokens},
};

int metrics_create(struct metrics *m, const struct engine *engine) {
    m->models = engine_model_count(engine);
    m->model = calloc(m->models + 1, sizeof *m->model);
    for (size_t i = 0; m->model != NULL && i < m->models; i++)
        m->model[i].name = engine_model_name(engine, i);
    return m->model != NULL ? 0 : ERR_NO_MEMORY;
}

void metrics_free(struct metrics *m) {
    free(m->model);
}

struct model_metrics *metrics_model(struct metrics *m, struct str name) {
    for (size_t i = 0; i < m->models; i++)
        if (str_is(name, m->model[i].name))
            return &m->model[i];
    return NULL;
}

void metrics_see(struct model_metrics *m, enum model_histogram which, double x) {
    struct histogram *h = &m->histogram[which];
    size_t i = 0;
    while (i < HISTOGRAM_BUCKETS && x > histogram_kind[which].bound[i])
        i++;
    h->count[i]++;
    h->sum += x;
}

void metrics_see_ns(struct model_metrics *m, enum model_histogram which, int64_t ns) {
    metrics_see(m, which, (double)ns * 1e-9);
}

static void head(struct buf *out, const char *name, const char *type, const char *help) {
    buf_printf(out, "# HELP unkai_%s %s\n# TYPE unkai_%s %s\n", name, help, name, type);
}

static void plain(struct buf *out, const char *name, const char *type, const char *help, double value) {
    head(out, name, type, help);
    buf_printf(out, "unkai_%s %.17g\n", name, value);
}

/* A label's value: backslash, quote and newline are escaped. */
static void label(struct buf *out, const char *value) {
    for (; *value != 0; value++) {
        if (*value == '\\' || *value == '"')
            buf_byte(out, '\\');
        if (*value == '\n')
            buf_text(out, "\\n");
        else
            buf_byte(out, *value);
    }
}

static void sample(struct buf *out, const char *name, const char *model, const char *more, double value) {
    buf_printf(out, "unkai_%s{model_name=\"", name);
    label(out, model);
    buf_printf(out, "\"%s} %.17g\n", more, value);
}

/* One number of a model's. */
static double running(const struct model_metrics *m) {
    return m->running;
}

static double waiting(const struct model_metrics *m) {
    return m->waiting;
}

static double prompt_tokens(const struct model_metrics *m) {
    return (double)m->prompt_tokens;
}

static double cached_tokens(const struct model_metrics *m) {
    return (double)m->cached_tokens;
}

static double generation_tokens(const struct model_metrics *m) {
    return (double)m->generation_tokens;
}

static const struct model_number {
    const char *name, *type, *help;
    double (*get)(const struct model_metrics *m);
} model_number[] = {
    {"num_requests_running", "gauge", "Sequences that have left the queue.", running},
    {"num_requests_waiting", "gauge", "Sequences in the queue.", waiting},
    {"prompt_tokens_total", "counter", "Prompt tokens processed.", prompt_tokens},
    {"prompt_tokens_cached_total", "counter", "Prompt tokens found in the prefix cache.", cached_tokens},
    {"prefix_cache_queries_total", "counter", "Tokens looked for in the prefix cache.", prompt_tokens},
    {"prefix_cache_hits_total", "counter", "Tokens found in the prefix cache.", cached_tokens},
    {"generation_tokens_total", "counter", "Tokens generated.", generation_tokens},
};

static void write_counts(struct buf *out, const struct metrics *m) {
    static const char *const reason[OUTCOMES] = {",finished_reason=\"stop\"", ",finished_reason=\"length\"",
                                                 ",finished_reason=\"abort\"", ",finished_reason=\"error\""};
    for (size_t k = 0; k < sizeof model_number / sizeof *model_number; k++) {
        const struct model_number *n = &model_number[k];
        head(out, n->name, n->type, n->help);
        for (size_t i = 0; i < m->models; i++)
            sample(out, n->name, m->model[i].name, "", n->get(&m->model[i]));
    }
    head(out, "request_success_total", "counter", "Sequences that ended, by reason.");
    for (size_t i = 0; i < m->models; i++)
        for (int k = 0; k < OUTCOMES; k++)
            sample(out, "request_success_total", m->model[i].name, reason[k],
                   (double)m->model[i].finished[k]);
}

static void write_histogram(struct buf *out, const struct metrics *m, enum model_histogram which) {
    const struct histogram_kind *kind = &histogram_kind[which];
    char more[40], full[80];
    head(out, kind->name, "histogram", kind->help);
    for (size_t i = 0; i < m->models; i++) {
        const struct histogram *h = &m->model[i].histogram[which];
        uint64_t sum = 0;
        snprintf(full, sizeof full, "%s_bucket", kind->name);
        for (int k = 0; k <= HISTOGRAM_BUCKETS; k++) {
            sum += h->count[k];
            if (k < HISTOGRAM_BUCKETS)
                snprintf(more, sizeof more, ",le=\"%.10g\"", kind->bound[k]);
            else
                snprintf(more, sizeof more, ",le=\"+Inf\"");
            sample(out, full, m->model[i].name, more, (double)sum);
        }
        snprintf(full, sizeof full, "%s_sum", kind->name);
        sample(out, full, m->model[i].name, "", h->sum);
        snprintf(full, sizeof full, "%s_count", kind->name);
        sample(out, full, m->model[i].name, "", (double)sum);
    }
}

static double share_used(const struct engine_model_stats *s) {
    return s->kv_pages ? (double)s->kv_pages_used / (double)s->kv_pages : 0;
}

static double preemptions(const struct engine_model_stats *s) {
    return (double)s->preempted;
}

static double pages(const struct engine_model_stats *s) {
    return (double)s->kv_pages;
}

static double prefix_pages(const struct engine_model_stats *s) {
    return (double)s->kv_pages_cached;
}

static double resident_bytes(const struct engine_model_stats *s) {
    return (double)s->resident_bytes;
}

static double loads(const struct engine_model_stats *s) {
    return (double)s->loads;
}

static double load_seconds(const struct engine_model_stats *s) {
    return (double)s->load_ns * 1e-9;
}

static double drafted(const struct engine_model_stats *s) {
    return (double)s->drafted;
}

static double accepted(const struct engine_model_stats *s) {
    return (double)s->accepted;
}

static const struct engine_number {
    const char *name, *type, *help;
    double (*get)(const struct engine_model_stats *s);
} engine_number[] = {
    {"kv_cache_usage_perc", "gauge", "Share of KV pages in use, 0 to 1.", share_used},
    {"num_preemptions_total", "counter", "Sequences paused for want of KV memory or of a slot.", preemptions},
    {"kv_cache_pages", "gauge", "KV pages there are.", pages},
    {"prefix_cache_pages", "gauge", "KV pages kept for prefixes.", prefix_pages},
    {"model_memory_bytes", "gauge", "Weights and activations in memory; 0: the model is not.",
     resident_bytes},
    {"model_loads_total", "counter", "Times the model was brought into memory.", loads},
    {"model_load_seconds_total", "counter", "Time that took.", load_seconds},
    {"spec_decode_num_draft_tokens_total", "counter", "Guessed tokens that steps took along.", drafted},
    {"spec_decode_num_accepted_tokens_total", "counter", "Guessed tokens that came true.", accepted},
};

static void write_engine_numbers(struct buf *out, struct gateway *g) {
    struct engine_model_stats s;
    for (size_t k = 0; k < sizeof engine_number / sizeof *engine_number; k++) {
        const struct engine_number *n = &engine_number[k];
        head(out, n->name, n->type, n->help);
        for (size_t i = 0; i < g->metrics.models; i++) {
            engine_model_stats(g->engine, i, &s);
            sample(out, n->name, g->metrics.model[i].name, "", n->get(&s));
        }
    }
}

static void write_engine(struct buf *out, struct gateway *g) {
    struct engine_stats s;
    engine_stats(g->engine, &s);
    plain(out, "engine_sequences_running", "gauge", "Sequences that step together.", s.running);
    plain(out, "engine_sequences_waiting", "gauge", "Sequences in the queue.", s.waiting);
    plain(out, "engine_sequences_paused", "gauge", "Sequences that wait for memory or for their client.",
          s.paused);
    plain(out, "engine_steps_total", "counter", "Steps of any model.", (double)s.steps);
    plain(out, "engine_chip_seconds_total", "counter", "Time the chip worked.", (double)s.chip_ns * 1e-9);
    plain(out, "memory_limit_bytes", "gauge", "Memory that weights and KV pages may take together.",
          (double)s.memory_limit_bytes);
    plain(out, "weights_memory_bytes", "gauge", "Weights and activations in memory.",
          (double)s.weights_resident_bytes);
    plain(out, "model_evictions_total", "counter", "Times a model left memory for another, or for KV pages.",
          (double)s.evictions);
    plain(out, "kv_memory_bytes", "gauge", "KV memory taken from the system.", (double)s.kv_resident_bytes);
    plain(out, "kv_spill_bytes", "gauge", "KV pages that lie in the file.", (double)s.kv_file.bytes);
    plain(out, "kv_pages_spilled_total", "counter", "KV pages written to the file.",
          (double)s.kv_file.spilled);
    plain(out, "kv_pages_restored_total", "counter", "KV pages read back from the file.",
          (double)s.kv_file.restored);
    plain(out, "kv_pages_dropped_total", "counter",
          "KV pages that the file did not take: the disk was too slow, full or broken.",
          (double)s.kv_file.dropped);
    plain(out, "kv_pages_lost_total", "counter", "KV pages that could not be read back whole.",
          (double)s.kv_file.failed);
}

static void write_cloud(struct buf *out, struct gateway *g) {
    struct cloud_stats s;
    cloud_stats(g->cloud, &s);
    plain(out, "ledger_admitted_total", "counter", "Requests a hold was placed for.", (double)s.admitted);
    plain(out, "ledger_settled_total", "counter", "Holds settled.", (double)s.settled);
    plain(out, "ledger_open_holds", "gauge", "Holds not settled yet.", (double)s.open_holds);
    plain(out, "ledger_commits_total", "counter", "Group commits of the books.", (double)s.commits);
    plain(out, "ledger_queue", "gauge", "Entries waiting to be committed.", (double)s.queue);
    plain(out, "refused_credit_total", "counter", "Requests refused for want of credit.",
          (double)s.refused_credit);
    plain(out, "refused_limit_total", "counter", "Requests over a limit of their tenant or key.",
          (double)s.refused_limit);
    plain(out, "refused_auth_total", "counter", "Requests refused for want of a valid key.",
          (double)s.refused_auth);
}

static void write_http(struct buf *out, struct gateway *g) {
    struct http_stats s;
    http_stats(g->http, &s);
    head(out, "http_responses_total", "counter", "Responses by class of status.");
    for (int i = 2; i < 6; i++)
        buf_printf(out, "unkai_http_responses_total{status=\"%dxx\"} %llu\n", i,
                   (unsigned long long)g->metrics.status[i]);
    plain(out, "http_connections", "gauge", "Connections open.", s.connections);
    plain(out, "http_connections_total", "counter", "Connections accepted.", (double)s.accepted);
    plain(out, "http_connections_refused_total", "counter", "Connections over the limit.", (double)s.refused);
    plain(out, "idempotent_replays_total", "counter", "Answers given again under an idempotency key.",
          (double)g->replays);
    plain(out, "http_timeouts_total", "counter", "Connections cut for being too slow.", (double)s.timeouts);
    plain(out, "http_broken_total", "counter", "Requests that could not be read.", (double)s.broken);
}

void metrics_write(struct buf *out, struct gateway *g) {
    write_counts(out, &g->metrics);
    for (int i = 0; i < HISTOGRAMS; i++)
        write_histogram(out, &g->metrics, (enum model_histogram)i);
    write_engine_numbers(out, g);
    write_engine(out, g);
    write_cloud(out, g);
    write_http(out, g);
}
