/* See report.h. */
#include "bench/report.h"

#include "base/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

double spread_at(const double *sorted, size_t n, double share) {
    size_t rank = (size_t)ceil(share * (double)n - 1e-9);
    return n == 0 ? 0 : sorted[rank > 0 ? rank - 1 : 0];
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct spread spread_of(double *value, size_t n) {
    if (n > 0)
        qsort(value, n, sizeof *value, by_value);
    return (struct spread){n, spread_at(value, n, 0.5), spread_at(value, n, 0.9), spread_at(value, n, 0.99),
                           spread_at(value, n, 1)};
}

/* ---- summing up ---- */

static size_t gaps_of(const struct answer *a) {
    return a->gaps.n / sizeof(uint32_t);
}

static size_t copy_gaps(double *to, const struct answer *a) {
    uint32_t us;
    for (size_t i = 0; i < gaps_of(a); i++) {
        memcpy(&us, a->gaps.p + i * sizeof us, sizeof us);
        to[i] = us * 1e-6;
    }
    return gaps_of(a);
}

/* to[] has room for the request's gaps and is left with them. */
static size_t add_answer(struct group *g, const struct workload *w, const struct answer *a, double first,
                         double *to) {
    size_t n = copy_gaps(to, a);
    g->sent++;
    g->complete += a->end == ANSWER_COMPLETE;
    g->refused += a->end == ANSWER_REFUSED;
    g->broken += a->end == ANSWER_BROKEN;
    g->unfinished += a->end == ANSWER_UNFINISHED;
    g->input += a->input;
    g->cached += a->cached;
    g->output += a->output;
    g->events += a->events;
    if (a->end == ANSWER_COMPLETE && first <= w->first_s) {
        double mean = n > 0 ? (double)(a->last_ns - a->first_ns) * 1e-9 / (double)n : 0;
        g->steady += mean <= w->gap_s;
        g->good += spread_of(to, n).p99 <= w->gap_s;
    }
    return n;
}

struct sums {
    const struct workload *workload;
    const struct load *load;
    const struct answer *answer;
    int64_t started_ns;
    double *first, *gap; /* room for all */
};

static uint32_t part_of(const struct request *r, enum split split) {
    return split == SPLIT_TENANT  ? r->tenant
           : split == SPLIT_MODEL ? r->model
           : split == SPLIT_FLOOD ? r->tenant != 0
                                  : 0;
}

/* Sum up the requests of one part of a split. */
static void sum_part(struct group *g, const struct sums *s, enum split split, uint32_t part) {
    size_t firsts = 0, gaps = 0;
    for (size_t i = 0; i < s->load->n; i++) {
        const struct request *r = &s->load->request[i];
        const struct answer *a = &s->answer[i];
        if (part_of(r, split) != part)
            continue;
        double first = (double)(a->first_ns - s->started_ns) * 1e-9 - r->at;
        gaps += add_answer(g, s->workload, a, first, s->gap + gaps);
        if (a->end == ANSWER_COMPLETE || a->end == ANSWER_UNFINISHED)
            s->first[firsts++] = first;
    }
    g->first = spread_of(s->first, firsts);
    g->gap = spread_of(s->gap, gaps);
}

static void note_trouble(struct point *p, const struct answer *a) {
    for (size_t i = 0; i < sizeof p->trouble / sizeof *p->trouble && a->error[0] != 0; i++) {
        struct trouble *t = &p->trouble[i];
        if (t->count > 0 && strcmp(t->text, a->error) != 0)
            continue;
        memcpy(t->text, a->error, sizeof t->text);
        t->count++;
        break;
    }
}

int point_sum(struct point *p, const struct workload *w, const struct load *l, const struct answer *answer,
              int64_t started_ns, enum split split, const char *const *models, struct error *e) {
    size_t gaps = 0;
    uint32_t parts = 0;
    for (size_t i = 0; i < l->n; i++) {
        uint32_t part = part_of(&l->request[i], split) + 1;
        gaps += gaps_of(&answer[i]);
        parts = part > parts ? part : parts;
    }
    struct sums s = {.workload = w, .load = l, .answer = answer, .started_ns = started_ns};
    s.first = calloc(l->n + 1, sizeof *s.first);
    s.gap = calloc(gaps + 1, sizeof *s.gap);
    p->part = calloc(parts + 1, sizeof *p->part);
    int rc = 0;
    if (s.first == NULL || s.gap == NULL || p->part == NULL) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory to sum up %zu answers", l->n);
        goto out;
    }
    snprintf(p->all.name, sizeof p->all.name, "all");
    sum_part(&p->all, &s, SPLIT_NONE, 0);
    for (size_t i = 0; i < l->n; i++)
        note_trouble(p, &answer[i]);
    p->parts = split == SPLIT_NONE ? 0 : parts;
    for (uint32_t i = 0; i < p->parts; i++) {
        struct group *g = &p->part[i];
        if (split == SPLIT_MODEL)
            snprintf(g->name, sizeof g->name, "%s", models[i]);
        else if (split == SPLIT_FLOOD)
            snprintf(g->name, sizeof g->name, "%s", i == 0 ? "the flooding tenant" : "the other tenants");
        else
            snprintf(g->name, sizeof g->name, "tenant %u", i);
        sum_part(g, &s, split, i);
    }
out:
    free(s.first);
    free(s.gap);
    return rc;
}

void point_free(struct point *p) {
    free(p->part);
    *p = (struct point){0};
}

/* ---- for people ---- */

void report_head(void) {
    printf("%8s %6s %6s %6s | %28s | %23s | %20s | %s\n", "", "", "", "", "tokens a second",
           "first token, ms", "between tokens, ms", "within the level, requests a second");
    printf("%8s %6s %6s %6s | %9s %8s %9s | %7s %7s %7s | %6s %6s %6s | %s\n", "offered", "sent", "done",
           "failed", "input", "cached", "output", "p50", "p90", "p99", "p50", "p90", "p99",
           "by p99 of gaps, by mean");
}

static void print_group(const struct group *g, const struct point *p) {
    printf("%6zu %6zu %6zu | %9.1f %8.1f %9.1f | %7.0f %7.0f %7.0f | %6.0f %6.0f %6.0f | %6.2f (%3.0f%%) "
           "%6.2f (%3.0f%%)",
           g->sent, g->complete, g->sent - g->complete, (double)g->input / p->wall,
           (double)g->cached / p->wall, (double)g->output / p->wall, g->first.p50 * 1e3, g->first.p90 * 1e3,
           g->first.p99 * 1e3, g->gap.p50 * 1e3, g->gap.p90 * 1e3, g->gap.p99 * 1e3,
           (double)g->good / p->seconds, g->sent > 0 ? 100.0 * (double)g->good / (double)g->sent : 0,
           (double)g->steady / p->seconds, g->sent > 0 ? 100.0 * (double)g->steady / (double)g->sent : 0);
}

void report_point(const struct point *p) {
    printf("%8.2f ", p->rate);
    print_group(&p->all, p);
    printf("\n");
    for (size_t i = 0; i < p->parts; i++)
        if (p->part[i].sent > 0) {
            printf("%8s ", "");
            print_group(&p->part[i], p);
            printf("  %s\n", p->part[i].name);
        }
    if (p->all.refused + p->all.broken + p->all.unfinished > 0)
        printf("%8s refused %zu, broken %zu, unfinished %zu\n", "", p->all.refused, p->all.broken,
               p->all.unfinished);
    for (size_t i = 0; i < sizeof p->trouble / sizeof *p->trouble && p->trouble[i].count > 0; i++)
        printf("%8s %zu times: %s\n", "", p->trouble[i].count, p->trouble[i].text);
    if (p->all.events < p->all.output * 9 / 10)
        printf("%8s only %llu of %llu tokens came with text: times between tokens are too long\n", "",
               (unsigned long long)p->all.events, (unsigned long long)p->all.output);
    if (p->cpu > 0)
        printf("%8s the generator took %.1f%% of a core; the latest request left %.1f ms after its time\n",
               "", p->cpu * 100, p->late * 1e3);
    fflush(stdout);
}

/* ---- for programs ---- */

static void json_number(struct buf *out, const char *name, double x) {
    buf_printf(out, "\"%s\":", name);
    json_write_number(out, x);
    buf_byte(out, ',');
}

static void json_spread(struct buf *out, const char *name, const struct spread *s) {
    buf_printf(out, "\"%s\":{\"count\":%zu,", name, s->n);
    json_number(out, "p50", s->p50 * 1e3);
    json_number(out, "p90", s->p90 * 1e3);
    json_number(out, "p99", s->p99 * 1e3);
    buf_text(out, "\"max\":");
    json_write_number(out, s->most * 1e3);
    buf_byte(out, '}');
}

static void json_group(struct buf *out, const struct group *g, const struct point *p) {
    buf_text(out, "{\"name\":");
    json_write_text(out, g->name);
    buf_printf(out,
               ",\"sent\":%zu,\"complete\":%zu,\"refused\":%zu,\"broken\":%zu,\"unfinished\":%zu,\"within_"
               "level\":%zu,"
               "\"within_level_by_mean\":%zu,\"input_tokens\":%llu,\"cached_tokens\":%llu,\"output_tokens\":%"
               "llu,\"text_events\":%llu,",
               g->sent, g->complete, g->refused, g->broken, g->unfinished, g->good, g->steady,
               (unsigned long long)g->input, (unsigned long long)g->cached, (unsigned long long)g->output,
               (unsigned long long)g->events);
    json_number(out, "goodput", (double)g->good / p->seconds);
    json_number(out, "goodput_by_mean", (double)g->steady / p->seconds);
    json_number(out, "input_tokens_per_s", (double)g->input / p->wall);
    json_number(out, "cached_tokens_per_s", (double)g->cached / p->wall);
    json_number(out, "output_tokens_per_s", (double)g->output / p->wall);
    json_spread(out, "first_token_ms", &g->first);
    buf_byte(out, ',');
    json_spread(out, "between_tokens_ms", &g->gap);
    buf_byte(out, '}');
}

void report_json(struct buf *out, const struct point *p) {
    buf_byte(out, '{');
    json_number(out, "rate", p->rate);
    json_number(out, "seconds", p->seconds);
    json_number(out, "wall_s", p->wall);
    json_number(out, "latest_ms", p->late * 1e3);
    json_number(out, "generator_cores", p->cpu);
    buf_text(out, "\"all\":");
    json_group(out, &p->all, p);
    buf_text(out, ",\"parts\":[");
    for (size_t i = 0; i < p->parts; i++) {
        if (i > 0)
            buf_byte(out, ',');
        json_group(out, &p->part[i], p);
    }
    buf_text(out, "],\"errors\":[");
    for (size_t i = 0; i < sizeof p->trouble / sizeof *p->trouble && p->trouble[i].count > 0; i++) {
        buf_printf(out, "%s{\"count\":%zu,\"text\":", i > 0 ? "," : "", p->trouble[i].count);
        json_write_text(out, p->trouble[i].text);
        buf_byte(out, '}');
    }
    buf_text(out, "]}");
}
