/* bench/serve: replays recorded requests against a server that speaks OpenAI's API, whoever made it, and says how many of them it served well. The
 * loop is open: requests leave when the trace says, however long the answers take, as they do where many people ask. */
#include "base/clock.h"
#include "base/json.h"
#include "bench/client.h"
#include "bench/prompt.h"
#include "bench/report.h"

#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum {
    MOST_MODELS = 256,
    MOST_POINTS = 64,
    MOST_KEYS = 4096,
    FEW = 8,
    MANY = 200,
    ASK_SECONDS = 300,
    MOST_ROUND = 9999
};

/* Texts that no request has: own texts are streams of round, point and number. */
enum { STREAM_TENANT = 0x7E000000, STREAM_CALIBRATION = 0x7F000000 };

struct bench {
    struct workload workload;
    const char *traces, *url, *keys;
    const char *model[MOST_MODELS];
    uint32_t models;
    double rate[MOST_POINTS];
    uint32_t rates;
    double seconds, grace;
    uint64_t seed;
    uint32_t round;
    enum split split;
    bool json;

    char *key[MOST_KEYS];
    uint32_t key_count;
    struct buf key_text;
    struct prompt_cost cost[MOST_MODELS];
    bool plain; /* the server refuses fields that OpenAI does not have */
    struct client *client;
};

/* ---- the command line ---- */

static const struct option options[] = {{"workload", required_argument, NULL, 'w'},
                                        {"traces", required_argument, NULL, 't'},
                                        {"model", required_argument, NULL, 'm'},
                                        {"keys", required_argument, NULL, 'k'},
                                        {"rate", required_argument, NULL, 'r'},
                                        {"seconds", required_argument, NULL, 's'},
                                        {"grace", required_argument, NULL, 'g'},
                                        {"seed", required_argument, NULL, 'n'},
                                        {"round", required_argument, NULL, 'o'},
                                        {"by", required_argument, NULL, 'b'},
                                        {"json", no_argument, NULL, 'j'},
                                        {"help", no_argument, NULL, 'h'},
                                        {NULL, 0, NULL, 0}};

static void print_help(void) {
    printf("usage: serve [options] --model NAME --rate R[,R...] URL\n\n"
           "Replays a workload against the OpenAI-compatible server at URL (http://HOST:PORT/v1).\n\n"
           "options:\n"
           "  --workload NAME    what is sent (chat):\n");
    for (const struct workload *w = workloads; w->name != NULL; w++)
        printf("                       %-8s %s (%s)\n", w->name, w->about, w->trace);
    printf("  --traces FOLDER    where the traces are (../shared/traces)\n"
           "  --model NAME       a model to ask; again for more, the most popular first\n"
           "  --keys FILE        API keys, one a line: the tenants take them in turn\n"
           "  --rate R[,R...]    requests a second to offer; each is one point, measured in turn\n"
           "  --seconds N        how long requests are sent for a point (30)\n"
           "  --grace N          how long answers may take after the last request was sent (15)\n"
           "  --seed N           other tenants, texts and requests (1)\n"
           "  --round N          other requests of the same tenants, to measure again (0)\n"
           "  --by tenant|model  show every tenant or model by itself\n"
           "  --json             print JSON\n"
           "  --help, -h         show this and exit\n");
}

static int wrong(const char *what) {
    fprintf(stderr, "serve: %s; see serve --help\n", what);
    return -1;
}

static int read_rates(struct bench *b, const char *text) {
    char *end;
    for (b->rates = 0; b->rates < MOST_POINTS; text = end + 1) {
        double rate = strtod(text, &end);
        if (end == text || !(rate > 0 && rate < 1e5) || (*end != 0 && *end != ','))
            break;
        b->rate[b->rates++] = rate;
        if (*end == 0)
            return 0;
    }
    return wrong("--rate wants numbers above 0 with commas between");
}

static int read_number(double *to, const char *text, double least, const char *what) {
    char *end;
    *to = strtod(text, &end);
    return end != text && *end == 0 && *to >= least && *to < 1e9 ? 0 : wrong(what);
}

static int take_option(struct bench *b, int letter) {
    double number = 0;
    int rc = 0;
    const struct workload *w = NULL;
    switch (letter) {
    case 'w':
        if ((w = workload_find(optarg)) == NULL)
            return wrong("there is no such workload");
        b->workload = *w;
        return 0;
    case 't':
        b->traces = optarg;
        return 0;
    case 'm':
        if (b->models == MOST_MODELS)
            return wrong("too many models");
        b->model[b->models++] = optarg;
        return 0;
    case 'k':
        b->keys = optarg;
        return 0;
    case 'r':
        return read_rates(b, optarg);
    case 's':
        return read_number(&b->seconds, optarg, 1, "--seconds wants a number from 1");
    case 'g':
        return read_number(&b->grace, optarg, 0, "--grace wants a number from 0");
    case 'n':
        rc = read_number(&number, optarg, 0, "--seed wants a number from 0");
        b->seed = (uint64_t)number;
        return rc;
    case 'o':
        rc = read_number(&number, optarg, 0, "--round wants a number from 0 to 9999");
        b->round = (uint32_t)number;
        return rc == 0 && number > MOST_ROUND ? wrong("--round wants a number from 0 to 9999") : rc;
    case 'b':
        b->split = strcmp(optarg, "tenant") == 0  ? SPLIT_TENANT
                   : strcmp(optarg, "model") == 0 ? SPLIT_MODEL
                                                  : SPLIT_NONE;
        return b->split != SPLIT_NONE ? 0 : wrong("--by wants tenant or model");
    case 'j':
        b->json = true;
        return 0;
    default:
        return wrong("that is not understood");
    }
}

/* 0, 1 for --help, -1 for a mistake. */
static int read_options(struct bench *b, int argc, char **argv) {
    opterr = 0;
    for (int letter; (letter = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
        if (letter == 'h') {
            print_help();
            return 1;
        }
        if (take_option(b, letter) != 0)
            return -1;
    }
    if (argc - optind != 1 || b->models == 0 || b->rates == 0)
        return wrong("a URL, --model and --rate are wanted");
    b->url = argv[optind];
    if (b->workload.flood > 1 && b->split == SPLIT_NONE)
        b->split = SPLIT_FLOOD;
    return 0;
}

static int read_keys(struct bench *b, struct error *e) {
    int rc = b->keys != NULL ? trace_file(&b->key_text, b->keys, 1 << 20, e) : 0;
    if (rc != 0 || b->keys == NULL)
        return rc;
    for (char *rest = b->key_text.p, *line;
         (line = strtok_r(rest, " \r\n", &rest)) != NULL && b->key_count < MOST_KEYS;)
        b->key[b->key_count++] = line;
    return b->key_count > 0 ? 0 : error_set(e, ERR_INVALID, "%.300s holds no key", b->keys);
}

/* ---- asking ---- */

struct wish {
    uint32_t tenant, model;
    uint64_t own_stream;
    uint32_t shared_words, own_words; /* without shared words there is no system message */
    uint32_t output;
};

static void write_message(struct buf *out, const char *role, uint64_t seed, uint64_t stream, uint32_t words) {
    buf_printf(out, "{\"role\":\"%s\",\"content\":\"", role);
    prompt_words(out, seed, stream, words);
    buf_text(out, "\"}");
}

static void write_body(struct buf *out, const struct bench *b, const struct wish *w) {
    buf_text(out, "{\"model\":");
    json_write_text(out, b->model[w->model]);
    buf_text(out, ",\"messages\":[");
    if (w->shared_words > 0) {
        write_message(out, "system", b->seed, (uint64_t)STREAM_TENANT << 32 | w->tenant, w->shared_words);
        buf_byte(out, ',');
    }
    write_message(out, "user", b->seed, w->own_stream, w->own_words);
    buf_printf(out,
               "],\"max_tokens\":%u,\"temperature\":1,\"seed\":%u,\"stream\":true,\"stream_options\":{"
               "\"include_usage\":true}%s}",
               w->output, (uint32_t)w->own_stream, b->plain ? "" : ",\"ignore_eos\":true");
}

static const char *key_of(const struct bench *b, uint32_t tenant) {
    return b->key_count > 0 ? b->key[tenant % b->key_count] : NULL;
}

/* One request by itself, before the measurement. */
static int ask(struct bench *b, struct answer *a, const struct wish *w, struct error *e) {
    for (bool again = true; again;) {
        struct buf body = {0};
        write_body(&body, b, w);
        client_ask(b->client, a, key_of(b, w->tenant), buf_view(&body));
        client_run(b->client, clock_mono_ns() + (int64_t)ASK_SECONDS * 1000000000, true);
        client_abandon(b->client);
        buf_free(&body);
        buf_free(&a->gaps);
        again = a->end == ANSWER_REFUSED && (a->status == 400 || a->status == 422) && !b->plain;
        b->plain = b->plain || again;
    }
    if (a->end != ANSWER_COMPLETE)
        return error_set(e, ERR_IO, "%.150s, asked for %.80s: %.150s", b->url, b->model[w->model], a->error);
    if (a->input == 0)
        return error_set(e, ERR_UNSUPPORTED,
                         "%.200s sends no usage at the end of its streams (stream_options.include_usage)",
                         b->url);
    return 0;
}

/* Prompts have two messages where the workload shares text, else one: templates put words of their own in place of a system message. */
static bool shares(const struct workload *w) {
    return w->system > 0 || w->shared > 0;
}

/* What a word costs on a model. */
static int learn_cost(struct bench *b, uint32_t m, struct error *e) {
    struct answer few, many;
    struct wish w = {.model = m, .own_stream = (uint64_t)STREAM_CALIBRATION << 32 | m, .output = 1};
    uint32_t shared = w.shared_words = shares(&b->workload) ? 1 : 0;
    w.own_words = FEW;
    int rc = ask(b, &few, &w, e);
    w.own_words = MANY;
    rc = rc == 0 ? ask(b, &many, &w, e) : rc;
    if (rc == 0 && many.input <= few.input)
        rc = error_set(e, ERR_INVALID, "%.150s counts %u tokens for %d words and %u for %d", b->url,
                       few.input, FEW, many.input, MANY);
    if (rc == 0)
        b->cost[m] = prompt_cost(FEW + shared, few.input, MANY + shared, many.input);
    return rc;
}

static struct wish wish_of(const struct bench *b, const struct request *r, uint64_t own_stream) {
    const struct prompt_cost *c = &b->cost[r->model];
    struct wish w = {.tenant = r->tenant, .model = r->model, .own_stream = own_stream, .output = r->output};
    bool shared = shares(&b->workload);
    if (shared)
        w.shared_words = prompt_count(c, r->shared - c->around);
    w.own_words = prompt_count(c, r->own - (shared ? 0 : c->around));
    return w;
}

/* Let every tenant's beginning be known to the server, as it would be after the first minute. */
static int introduce(struct bench *b, uint32_t tenants, struct error *e) {
    uint32_t hot = b->workload.hot > 0 && b->workload.hot < b->models ? b->workload.hot : b->models;
    if (b->workload.system == 0 || hot == 0)
        return 0;
    struct answer a;
    int rc = 0;
    for (uint32_t t = 0; t < tenants && rc == 0; t++) {
        struct request r = {
            .tenant = t, .model = t % hot, .shared = b->workload.system, .own = 1, .output = 1};
        struct wish w = wish_of(b, &r, (uint64_t)STREAM_CALIBRATION << 32 | (b->models + t));
        rc = ask(b, &a, &w, e);
    }
    return rc;
}

/* ---- a point ---- */

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1e-6;
}

/* All bodies are written before the first leaves. */
static int replay(struct bench *b, const struct load *l, uint32_t point, struct answer *answer,
                  struct point *p, int64_t *started, struct error *e) {
    struct buf *body = calloc(l->n, sizeof *body);
    if (body == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for %zu requests", l->n);
    for (size_t i = 0; i < l->n; i++) {
        struct wish w = wish_of(b, &l->request[i], (uint64_t)(b->round * MOST_POINTS + point) << 32 | i);
        write_body(&body[i], b, &w);
    }
    double cpu = cpu_seconds();
    int64_t start = *started = clock_mono_ns() + 100000000;
    for (size_t i = 0; i < l->n; i++) {
        int64_t due = start + (int64_t)(l->request[i].at * 1e9);
        client_run(b->client, due, false);
        p->late = fmax(p->late, (double)(clock_mono_ns() - due) * 1e-9);
        client_ask(b->client, &answer[i], key_of(b, l->request[i].tenant), buf_view(&body[i]));
    }
    int64_t last = start + (int64_t)(b->seconds * 1e9);
    client_run(b->client, last + (int64_t)(b->grace * 1e9), true);
    client_abandon(b->client);
    int64_t end = clock_mono_ns();
    p->wall = fmax((double)(end - start) * 1e-9, b->seconds);
    p->cpu = (cpu_seconds() - cpu) / ((double)(end - start) * 1e-9);
    for (size_t i = 0; i < l->n; i++)
        buf_free(&body[i]);
    free(body);
    return 0;
}

static int measure(struct bench *b, uint32_t point, const struct load *l, struct point *p, struct error *e) {
    struct answer *answer = calloc(l->n, sizeof *answer);
    int64_t started;
    *p = (struct point){.rate = b->rate[point], .seconds = b->seconds};
    int rc = answer != NULL ? 0 : error_set(e, ERR_NO_MEMORY, "no memory for %zu answers", l->n);
    if (rc == 0)
        rc = replay(b, l, point, answer, p, &started, e);
    if (rc == 0)
        rc = point_sum(p, &b->workload, l, answer, started, b->split, b->model, e);
    for (size_t i = 0; i < l->n && answer != NULL; i++)
        buf_free(&answer[i].gaps);
    free(answer);
    return rc;
}

static void begin_json(struct buf *out, const struct bench *b) {
    const struct workload *w = &b->workload;
    buf_text(out, "{\"url\":");
    json_write_text(out, b->url);
    buf_printf(out,
               ",\"workload\":\"%s\",\"trace\":\"%s\",\"divide\":%u,\"system_tokens\":%u,\"first_token_level_"
               "ms\":%.0f,\"between_tokens_level_ms\":%.0f,"
               "\"seed\":%llu,\"round\":%u,\"ignore_eos\":%s,\"models\":[",
               w->name, w->trace, w->divide, w->system, w->first_s * 1e3, w->gap_s * 1e3,
               (unsigned long long)b->seed, b->round, b->plain ? "false" : "true");
    for (uint32_t m = 0; m < b->models; m++) {
        buf_text(out, m > 0 ? "," : "");
        json_write_text(out, b->model[m]);
    }
    buf_text(out, "],\"points\":[");
}

static void print_what(const struct bench *b) {
    const struct workload *w = &b->workload;
    printf("%s: %s. %s, lengths divided by %u; %.0f s a point.\n", w->name, w->about, w->trace, w->divide,
           b->seconds);
    printf("Service level: first token within %.0f ms, 99%% (or the mean) of a request's gaps between tokens "
           "within %.0f ms.\n",
           w->first_s * 1e3, w->gap_s * 1e3);
    if (b->plain)
        printf("The server does not take ignore_eos: answers may be shorter than the trace's.\n");
    report_head();
    fflush(stdout);
}

static int run(struct bench *b, struct load *load, struct error *e) {
    struct buf out = {0};
    int rc = read_keys(b, e);
    for (uint32_t i = 0; i < b->rates && rc == 0; i++)
        rc = load_make(&load[i], &b->workload, b->traces, b->rate[i], b->seconds, b->models,
                       b->seed + b->round, e);
    if (rc == 0)
        rc = client_create(&b->client, b->url, e);
    for (uint32_t m = 0; m < b->models && rc == 0; m++)
        rc = learn_cost(b, m, e);
    if (rc == 0)
        rc = introduce(b, load[0].tenants, e);
    if (rc != 0)
        return rc;
    if (b->json)
        begin_json(&out, b);
    else
        print_what(b);
    for (uint32_t i = 0; i < b->rates && rc == 0; i++) {
        struct point p;
        rc = measure(b, i, &load[i], &p, e);
        if (rc == 0 && b->json) {
            buf_text(&out, i > 0 ? ",\n" : "\n");
            report_json(&out, &p);
        } else if (rc == 0) {
            report_point(&p);
        }
        point_free(&p);
    }
    if (rc == 0 && b->json)
        printf("%s]}\n", out.p);
    buf_free(&out);
    return rc;
}

/* A descriptor a request. */
static void raise_descriptors(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

int main(int argc, char **argv) {
    static struct bench b = {.traces = "../shared/traces", .seconds = 30, .grace = 15, .seed = 1};
    static struct load load[MOST_POINTS];
    struct error e;
    b.workload = workloads[0];
    int rc = read_options(&b, argc, argv);
    if (rc != 0)
        return rc > 0 ? 0 : 2;
    signal(SIGPIPE, SIG_IGN);
    raise_descriptors();
    rc = run(&b, load, &e);
    if (rc != 0)
        fprintf(stderr, "serve: %s\n", e.text);
    for (uint32_t i = 0; i < b.rates; i++)
        load_free(&load[i]);
    client_free(b.client);
    buf_free(&b.key_text);
    return rc == 0 ? 0 : 1;
}
