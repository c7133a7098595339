/* ServeGen (Xiang et al., arXiv 2505.09999) describes each client of a service by itself: for every ten minutes its rate and the shape of the
 * distribution of the times between two requests, for every six hours how often its prompts and answers have which length. Here the ten
 * minutes in which all clients together send most are drawn again. */
#include "bench/servegen.h"

#include "base/json.h"
#include "bench/random.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_CLIENTS = 512, MOST_BYTES = 64 << 20, WINDOW = 600, WINDOWS = 4096, LENGTHS_WINDOW = 21600 };

/* How often which length occurs: `share` sums up from the first. */
struct lengths {
    uint32_t *length;
    double *share;
    size_t n;
};

struct client {
    long id;
    double rate, shape; /* requests a second; of the distribution */
    bool weibull;       /* else Gamma */
    double next;        /* when its next request comes */
    struct random random;
    struct lengths input, output;
};

/* The rows of one client's file, with `use` called for each: start, rate, shape (0 where it rests), Weibull or not. */
static int each_window(const char *path,
                       void (*use)(void *context, long start, double rate, double shape, bool weibull),
                       void *context, struct error *e) {
    struct buf text = {0};
    int rc = trace_file(&text, path, MOST_BYTES, e);
    size_t number = 1;
    for (char *p = text.p; rc == 0 && *p != 0; number++) {
        size_t n = strcspn(p, "\n");
        char kind[16] = "";
        double start, rate, cv, shape = 0;
        bool last = p[n] == 0;
        p[n] = 0;
        int fields = sscanf(p, "%lf,%lf,%lf,%15[A-Za-z],%lf", &start, &rate, &cv, kind, &shape);
        bool known = strcmp(kind, "Gamma") == 0 || strcmp(kind, "Weibull") == 0;
        bool rests = fields >= 2 && rate == 0;
        if (!rests && (fields != 5 || !known || !(shape > 0.01 && shape < 1000) || !(rate > 0 && rate < 1e6)))
            rc = error_set(e, ERR_INVALID, "%.200s, line %zu: '%.60s' is no window of a ServeGen client",
                           path, number, p);
        else
            use(context, (long)start, rate, rests ? 0 : shape, kind[0] == 'W');
        p += last ? n : n + 1;
    }
    buf_free(&text);
    return rc;
}

static void add_rate(void *context, long start, double rate, double shape, bool weibull) {
    double *total = context;
    if (start >= 0 && start / WINDOW < WINDOWS)
        total[start / WINDOW] += rate;
}

struct choice {
    long start;
    struct client *client;
};

static void keep_window(void *context, long start, double rate, double shape, bool weibull) {
    struct choice *c = context;
    if (start == c->start) {
        c->client->rate = rate;
        c->client->shape = shape;
        c->client->weibull = weibull;
    }
}

/* A Python dictionary as text: "{104: 0.11, 313: 0.22}". */
static int read_lengths(struct lengths *l, struct str text, const char *path, struct error *e) {
    size_t most = 1;
    double sum = 0;
    for (size_t i = 0; i < text.n; i++)
        most += text.p[i] == ':';
    l->length = calloc(most, sizeof *l->length);
    l->share = calloc(most, sizeof *l->share);
    struct buf copy = {0};
    buf_str(&copy, text);
    buf_byte(&copy, 0);
    if (l->length == NULL || l->share == NULL || copy.failed) {
        buf_free(&copy);
        return error_set(e, ERR_NO_MEMORY, "no memory for the lengths of %.200s", path);
    }
    const char *p = copy.p + (copy.p[0] == '{');
    for (double length, share; l->n < most; l->n++) {
        int end = 0;
        if (sscanf(p, " %lf : %lf%n", &length, &share, &end) != 2 || !(length >= 0 && length < 1e8) ||
            !(share >= 0))
            break;
        sum += share;
        l->length[l->n] = length < 1 ? 1 : (uint32_t)length;
        l->share[l->n] = sum;
        p += end + strspn(p + end, ", ");
    }
    buf_free(&copy);
    return 0;
}

static uint32_t draw_length(const struct lengths *l, struct random *r) {
    double at = random_unit(r) * l->share[l->n - 1];
    size_t low = 0;
    for (size_t high = l->n - 1; low < high;) {
        size_t middle = (low + high) / 2;
        if (l->share[middle] < at)
            low = middle + 1;
        else
            high = middle;
    }
    return l->length[low];
}

static int read_dataset(struct client *c, const char *path, long start, struct error *e) {
    struct buf text = {0};
    struct json *root = NULL;
    char key[32];
    int rc = trace_file(&text, path, MOST_BYTES, e);
    if (rc == 0 && (rc = json_parse(&root, (struct str){text.p, text.n - 1}, e)) != 0)
        error_prefix(e, "%.200s: ", path);
    snprintf(key, sizeof key, "%ld", start / LENGTHS_WINDOW * LENGTHS_WINDOW);
    const struct json *window = json_get(root, key);
    if (rc == 0)
        rc = read_lengths(&c->input, json_as_str(json_get(window, "input_tokens")), path, e);
    if (rc == 0)
        rc = read_lengths(&c->output, json_as_str(json_get(window, "output_tokens")), path, e);
    if (rc == 0 && (c->input.n == 0 || c->output.n == 0))
        rc = error_set(e, ERR_INVALID, "%.200s has no lengths for second %s", path, key);
    json_free(root);
    buf_free(&text);
    return rc;
}

static double draw_gap(struct client *c) {
    double gap =
        c->weibull ? random_weibull(&c->random, c->shape) : random_gamma(&c->random, c->shape) / c->shape;
    return gap / c->rate;
}

static int by_id(const void *a, const void *b) {
    long x = ((const struct client *)a)->id, y = ((const struct client *)b)->id;
    return (x > y) - (x < y);
}

static int list_clients(struct client *c, uint32_t *n, const char *folder, struct error *e) {
    DIR *d = opendir(folder);
    if (d == NULL)
        return error_set(e, ERR_NOT_FOUND, "cannot open the trace %.300s: %s", folder, strerror(errno));
    for (const struct dirent *entry; (entry = readdir(d)) != NULL && *n < MOST_CLIENTS;) {
        int end = 0;
        if (sscanf(entry->d_name, "chunk-%9ld-trace.csv%n", &c[*n].id, &end) == 1 && end > 0 &&
            entry->d_name[end] == 0)
            ++*n;
    }
    closedir(d);
    qsort(c, *n, sizeof *c, by_id);
    return *n > 0 ? 0 : error_set(e, ERR_INVALID, "%.300s holds no chunk-ID-trace.csv of ServeGen", folder);
}

static int read_clients(struct client *client, uint32_t n, const char *folder, uint64_t seed,
                        struct error *e) {
    double *total = calloc(WINDOWS, sizeof *total);
    char path[4096];
    long start = 0;
    int rc = total != NULL ? 0 : error_set(e, ERR_NO_MEMORY, "no memory for a trace");
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        snprintf(path, sizeof path, "%s/chunk-%ld-trace.csv", folder, client[i].id);
        rc = each_window(path, add_rate, total, e);
    }
    for (long w = 1; rc == 0 && w < WINDOWS; w++)
        if (total[w] > total[start / WINDOW])
            start = w * WINDOW;
    if (rc == 0 && total[start / WINDOW] == 0)
        rc = error_set(e, ERR_INVALID, "no client of %.300s ever sends", folder);
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        struct client *c = &client[i];
        snprintf(path, sizeof path, "%s/chunk-%ld-trace.csv", folder, c->id);
        rc = each_window(path, keep_window, &(struct choice){start, c}, e);
        if (rc != 0 || c->rate == 0)
            continue;
        snprintf(path, sizeof path, "%s/chunk-%ld-dataset.json", folder, c->id);
        rc = read_dataset(c, path, start, e);
        c->random = random_start(seed, (uint64_t)c->id);
        c->next = rc == 0 ? draw_gap(c) * random_unit(&c->random) : 0; /* it was under way before */
    }
    free(total);
    return rc;
}

int servegen_read(struct trace *t, const char *folder, size_t n, uint64_t seed, struct error *e) {
    struct client *client = calloc(MOST_CLIENTS + 1, sizeof *client);
    t->row = calloc(n + 1, sizeof *t->row);
    t->clients = 0;
    int rc = client != NULL && t->row != NULL ? list_clients(client, &t->clients, folder, e)
                                              : error_set(e, ERR_NO_MEMORY, "no memory for a trace");
    if (rc == 0)
        rc = read_clients(client, t->clients, folder, seed, e);
    while (rc == 0 && t->n < n) {
        struct client *c = client;
        for (uint32_t i = 1; i < t->clients; i++)
            if (client[i].rate > 0 && (c->rate == 0 || client[i].next < c->next))
                c = &client[i];
        t->row[t->n++] = (struct trace_row){.at = c->next,
                                            .input = draw_length(&c->input, &c->random),
                                            .output = draw_length(&c->output, &c->random),
                                            .client = (uint32_t)(c - client)};
        c->next += draw_gap(c);
    }
    for (uint32_t i = 0; i < t->clients && client != NULL; i++) {
        free(client[i].input.length);
        free(client[i].input.share);
        free(client[i].output.length);
        free(client[i].output.share);
    }
    free(client);
    return rc;
}
