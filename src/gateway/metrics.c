/* GET /metrics in Prometheus' text format. Names follow vLLM's under the prefix unkai_, so that dashboards carry over. All counters belong to the loop's
 * thread. */
#include "gateway/inner.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static const double bound[HISTOGRAM_BUCKETS] = {0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15,
                                                0.25,  0.5,    0.75,  1,    2.5,  5,    10,   20,   40,  80};

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

void histogram_see_ns(struct histogram *h, int64_t ns) {
    double seconds = (double)ns * 1e-9;
    size_t i = 0;
    while (i < HISTOGRAM_BUCKETS && seconds > bound[i])
        i++;
    h->count[i]++;
    h->sum += seconds;
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

static void write_counts(struct buf *out, const struct metrics *m) {
    static const char *const reason[OUTCOMES] = {",finished_reason=\"stop\"", ",finished_reason=\"length\"",
                                                 ",finished_reason=\"abort\"", ",finished_reason=\"error\""};
    head(out, "num_requests_running", "gauge", "Sequences that have begun to answer.");
    for (size_t i = 0; i < m->models; i++)
        sample(out, "num_requests_running", m->model[i].name, "", m->model[i].running);
    head(out, "num_requests_waiting", "gauge", "Sequences that wait for their first token.");
    for (size_t i = 0; i < m->models; i++)
        sample(out, "num_requests_waiting", m->model[i].name, "", m->model[i].waiting);
    head(out, "prompt_tokens_total", "counter", "Prompt tokens of ended sequences.");
    for (size_t i = 0; i < m->models; i++)
        sample(out, "prompt_tokens_total", m->model[i].name, "", (double)m->model[i].prompt_tokens);
    head(out, "prompt_tokens_cached_total", "counter", "Prompt tokens found in the prefix cache.");
    for (size_t i = 0; i < m->models; i++)
        sample(out, "prompt_tokens_cached_total", m->model[i].name, "", (double)m->model[i].cached_tokens);
    head(out, "generation_tokens_total", "counter", "Tokens generated.");
    for (size_t i = 0; i < m->models; i++)
        sample(out, "generation_tokens_total", m->model[i].name, "", (double)m->model[i].generation_tokens);
    head(out, "request_success_total", "counter", "Sequences that ended, by reason.");
    for (size_t i = 0; i < m->models; i++)
        for (int k = 0; k < OUTCOMES; k++)
            sample(out, "request_success_total", m->model[i].name, reason[k],
                   (double)m->model[i].finished[k]);
}

static void write_histogram(struct buf *out, const struct metrics *m, const char *name, const char *help,
                            size_t offset) {
    char more[40], full[80];
    head(out, name, "histogram", help);
    for (size_t i = 0; i < m->models; i++) {
        const struct histogram *h =
            (const struct histogram *)(const void *)((const char *)&m->model[i] + offset);
        uint64_t sum = 0;
        snprintf(full, sizeof full, "%s_bucket", name);
        for (int k = 0; k <= HISTOGRAM_BUCKETS; k++) {
            sum += h->count[k];
            if (k < HISTOGRAM_BUCKETS)
                snprintf(more, sizeof more, ",le=\"%g\"", bound[k]);
            else
                snprintf(more, sizeof more, ",le=\"+Inf\"");
            sample(out, full, m->model[i].name, more, (double)sum);
        }
        snprintf(full, sizeof full, "%s_sum", name);
        sample(out, full, m->model[i].name, "", h->sum);
        snprintf(full, sizeof full, "%s_count", name);
        sample(out, full, m->model[i].name, "", (double)sum);
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
    plain(out, "num_preemptions_total", "counter", "Sequences paused for want of KV memory.",
          (double)s.preempted);
    plain(out, "kv_cache_usage_perc", "gauge", "Share of KV pages in use, 0 to 1.",
          s.kv_pages ? (double)s.kv_pages_used / (double)s.kv_pages : 0);
    plain(out, "kv_cache_pages", "gauge", "KV pages there are.", (double)s.kv_pages);
    plain(out, "prefix_cache_pages", "gauge", "KV pages kept for prefixes.", (double)s.kv_pages_cached);
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
    plain(out, "http_timeouts_total", "counter", "Connections cut for being too slow.", (double)s.timeouts);
    plain(out, "http_broken_total", "counter", "Requests that could not be read.", (double)s.broken);
}

void metrics_write(struct buf *out, struct gateway *g) {
    const struct metrics *m = &g->metrics;
    write_counts(out, m);
    write_histogram(out, m, "time_to_first_token_seconds", "From the request to its first token.",
                    offsetof(struct model_metrics, first_token));
    write_histogram(out, m, "time_per_output_token_seconds",
                    "Mean time of a token after the first, one sample a sequence.",
                    offsetof(struct model_metrics, per_token));
    write_histogram(out, m, "e2e_request_latency_seconds", "From the request to its last token.",
                    offsetof(struct model_metrics, latency));
    write_histogram(out, m, "request_queue_time_seconds", "From the request to its first step.",
                    offsetof(struct model_metrics, queue));
    write_engine(out, g);
    write_cloud(out, g);
    write_http(out, g);
}
