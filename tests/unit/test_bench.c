/* The load generator: what it sends is what the trace and the workload say, and what it reports is what came. */
#include "bench/prompt.h"
#include "bench/random.h"
#include "bench/report.h"
#include "bench/stream.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { ROWS = 600 };

static char folder[] = "/tmp/unkai-bench-XXXXXX";

static void write_file(const char *name, const char *text) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Row i comes at second i, or, one in ten, with the one before; it has i + 4 tokens in and 8 out. */
static int set_up(void **state) {
    char path[256];
    struct buf b = {0};
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/azure", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    buf_text(&b, "TIMESTAMP,ContextTokens,GeneratedTokens\r\n");
    for (int i = 0; i < ROWS; i++) {
        int s = 23 * 3600 + 55 * 60 + i - (i % 10 == 9); /* over midnight */
        buf_printf(&b, "2023-11-%02d %02d:%02d:%02d.5000000,%d,8%s", 16 + s / 86400, s / 3600 % 24,
                   s / 60 % 60, s % 60, i + 4, i + 1 < ROWS ? "\r\n" : "");
    }
    write_file("azure/conv.csv", b.p);
    buf_free(&b);
    return 0;
}

static int tear_down(void **state) {
    char command[256];
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command); /* NOLINT(cert-env33-c) */
}

static void test_percentiles(void **state) {
    double v[100], one[] = {7}, four[] = {4, 1, 3, 2};
    for (int i = 0; i < 100; i++)
        v[i] = 100 - i;
    struct spread s = spread_of(v, 100);
    assert_true(s.n == 100 && s.p50 == 50 && s.p90 == 90 && s.p99 == 99 && s.most == 100);
    s = spread_of(one, 1);
    assert_true(s.p50 == 7 && s.p99 == 7 && s.most == 7);
    s = spread_of(four, 4);
    assert_true(s.p50 == 2 && s.p90 == 4 && s.p99 == 4);
    s = spread_of(four, 0);
    assert_true(s.n == 0 && s.p50 == 0 && s.p99 == 0);
}

static void test_random(void **state) {
    struct random a = random_start(5, 1), b = random_start(5, 1), c = random_start(5, 2);
    assert_int_equal(random_next(&a), random_next(&b));
    assert_int_not_equal(random_next(&a), random_next(&c));
    for (int k = 0; k < 3; k++) {
        /* Gamma of shape 1/CV^2 and mean 1 has that CV; Weibull of shape 0.7 has CV 1.462. */
        double cv = k == 0 ? 3.5 : k == 1 ? 0.5 : 1.462, sum = 0, squares = 0;
        int n = 400000;
        for (int i = 0; i < n; i++) {
            double x = k < 2 ? random_gamma(&a, 1 / (cv * cv)) * cv * cv : random_weibull(&a, 0.7);
            sum += x;
            squares += x * x;
        }
        double mean = sum / n, got = sqrt(squares / n - mean * mean) / mean;
        assert_true(fabs(mean - 1) < 0.03 && fabs(got / cv - 1) < 0.03);
    }
}

static void test_trace(void **state) {
    struct trace t;
    struct error e;
    char path[256];
    snprintf(path, sizeof path, "%s/azure/conv.csv", folder);
    assert_int_equal(trace_read(&t, path, 10, 1, &e), 0);
    assert_int_equal(t.n, ROWS);
    assert_true(t.row[0].at == 0 && t.row[8].at == 8 && t.row[9].at == 8 && t.row[9].input == 13 &&
                t.row[9].output == 8);
    trace_free(&t);
    assert_int_equal(trace_read(&t, path, ROWS + 1, 1, &e), ERR_INVALID);
    assert_int_equal(trace_read(&t, "/nowhere/at/all.csv", 1, 1, &e), ERR_NOT_FOUND);
    assert_non_null(strstr(e.text, "/nowhere/at/all.csv"));
    static const char *const broken[] = {"2023-11-16 18:15:46.6,374", "2023-11-16 18:15:46.6,-1,4", "words",
                                         "2023-11-16 18:15:46.6,3,4,5",
                                         "2023-11-16 18:15:46.6,3,4\n2023-11-16 18:15:45.6,3,4"};
    for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
        write_file("broken.csv", broken[i]);
        snprintf(path, sizeof path, "%s/broken.csv", folder);
        assert_int_equal(trace_read(&t, path, 1, 1, &e), ERR_INVALID);
        assert_non_null(strstr(e.text, i == 4 ? "line 2" : "line 1"));
    }
}

static void test_servegen(void **state) {
    struct trace t, again;
    struct error e;
    write_file("azure/chunk-7-trace.csv", "0,0,0,,0,0\n600,2,3.5,Gamma,0.1,5\n1200,1,1,Weibull,0.7,1\n");
    write_file("azure/chunk-9-trace.csv", "0,1,1,Gamma,1,1\n600,6,1,Weibull,0.7,1\n1200,0,0,,0,0\n");
    write_file("azure/chunk-7-dataset.json",
               "{\"0\": {\"input_tokens\": \"{10: 0.5, 20: 0.5}\", \"output_tokens\": \"{3: 1.0}\"}}");
    write_file("azure/chunk-9-dataset.json",
               "{\"0\": {\"input_tokens\": \"{100: 1.0}\", \"output_tokens\": \"{0: 0.2, 5: 0.8}\"}}");
    char path[256];
    snprintf(path, sizeof path, "%s/azure", folder);
    assert_int_equal(trace_read(&t, path, 4000, 3, &e), 0);
    assert_int_equal(trace_read(&again, path, 4000, 3, &e), 0);
    assert_true(t.n == 4000 && t.clients == 2 && memcmp(t.row, again.row, t.n * sizeof *t.row) == 0);
    size_t second = 0, ones = 0;
    for (size_t i = 0; i < t.n; i++) {
        const struct trace_row *r = &t.row[i];
        assert_true(i == 0 || r->at >= t.row[i - 1].at);
        assert_true(r->client == 0 ? (r->input == 10 || r->input == 20) && r->output == 3
                                   : r->input == 100 && (r->output == 1 || r->output == 5));
        second += r->client;
        ones += r->output == 1;
    }
    assert_true(second > 2700 && second < 3300 && ones > 480 && ones < 720); /* 6 of 8; a fifth of these */
    assert_true(t.row[t.n - 1].at > 400 && t.row[t.n - 1].at < 600);         /* 8 a second */
    trace_free(&t);
    trace_free(&again);
    write_file("azure/chunk-9-trace.csv", "0,1,1,Gamma,1,1\n600,6,1,Pareto,0.7,1\n");
    assert_int_equal(trace_read(&t, path, 10, 3, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "line 2"));
}

static size_t count_tenant(const struct load *l, uint32_t tenant) {
    size_t n = 0;
    for (size_t i = 0; i < l->n; i++)
        n += l->request[i].tenant == tenant;
    return n;
}

static void test_load(void **state) {
    struct load l, flood;
    struct error e;
    struct workload w = *workload_find("chat");
    assert_null(workload_find("chats"));
    assert_int_equal(load_make(&l, &w, folder, 5, 20, 1, 1, &e), 0);
    assert_int_equal(l.n, 100);
    double input = 0;
    for (size_t i = 0; i < l.n; i++) {
        const struct request *r = &l.request[i];
        assert_true(r->at >= 0 && r->at < 20 && (i == 0 || r->at >= l.request[i - 1].at));
        assert_true(r->shared == 256 && r->output == 2 && r->tenant < 16 && r->model == 0);
        input += r->own;
    }
    assert_true(fabs(input / 100 - (ROWS / 2.0 + 4) / 4) < 2); /* the whole trace's mean */
    assert_true(l.request[l.n - 1].at == 20 * (1 - 0.01));
    w.flood = 20;
    assert_int_equal(load_make(&flood, &w, folder, 5, 20, 1, 1, &e), 0);
    assert_int_equal(count_tenant(&flood, 0), 20 * count_tenant(&l, 0));
    for (uint32_t t = 1; t < 16; t++)
        assert_int_equal(count_tenant(&flood, t), count_tenant(&l, t));
    load_free(&l);
    load_free(&flood);
}

static void test_market(void **state) {
    struct load l;
    struct error e;
    struct workload w = *workload_find("market");
    size_t of[24] = {0}, cold = 0;
    w.cold = 0.2;
    assert_int_equal(load_make(&l, &w, folder, 30, 20, 24, 1, &e), 0);
    for (size_t i = 0; i < l.n; i++) {
        assert_true(l.request[i].at >= 0 && l.request[i].at < 20);
        of[l.request[i].model]++;
    }
    for (int m = 2; m < 24; m++)
        cold += of[m];
    assert_true(cold > 84 && cold < 156 && of[0] > 180 && of[1] > 180);
    load_free(&l);
    w = *workload_find("code");
    w.trace = "azure/conv.csv";
    assert_int_equal(load_make(&l, &w, folder, 1, 100, 1, 1, &e), 0);
    for (size_t i = 0; i < l.n; i++)
        assert_true(fabs(l.request[i].shared - 0.37 * (l.request[i].shared + l.request[i].own)) <= 0.5);
    load_free(&l);
}

static void test_prompt(void **state) {
    struct buf shorter = {0}, longer = {0}, other = {0};
    prompt_words(&shorter, 1, 2, 50);
    prompt_words(&longer, 1, 2, 80);
    prompt_words(&other, 1, 3, 80);
    assert_true(str_starts(buf_view(&longer), buf_view(&shorter)) && longer.p[shorter.n] == ' ');
    assert_false(str_equal(buf_view(&longer), buf_view(&other)));
    buf_free(&shorter);
    buf_free(&longer);
    buf_free(&other);
    struct prompt_cost c = prompt_cost(10, 35, 110, 185);
    assert_true(c.word == 1.5 && c.around == 20);
    assert_int_equal(prompt_count(&c, 300), 200);
    assert_int_equal(prompt_count(&c, -5), 1);
}

static void feed(struct stream *s, const char *text, size_t piece, int64_t *now) {
    for (size_t n = strlen(text), i = 0; i < n; i += piece, *now += 1000000)
        stream_feed(s, (struct str){text + i, n - i < piece ? n - i : piece}, true, *now);
}

static void test_stream(void **state) {
    static const char text[] =
        "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n"
        ": a comment\r\n"
        "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\r\n\r\n"
        "data: {\"choices\":[{\"text\":\"b\"}],\"usage\":null}\n\n"
        "data:{\"choices\":[{\"delta\":{\"reasoning_content\":\"c\"}}]}\n\n"
        "data: "
        "{\"choices\":[],\"usage\":{\"prompt_tokens\":40,\"completion_tokens\":3,\"prompt_tokens_details\":{"
        "\"cached_tokens\":32}}}\n\n"
        "data: [DONE]\n\n";
    for (size_t piece = 1; piece < sizeof text; piece += 7) {
        struct answer a = {0};
        struct stream s;
        int64_t now = 1000000;
        stream_start(&s, &a);
        feed(&s, text, piece, &now);
        assert_true(s.done && a.events == 3 && a.input == 40 && a.cached == 32 && a.output == 3);
        assert_true(a.error[0] == 0 && a.first_ns > 0 && a.gaps.n == 2 * sizeof(uint32_t));
        stream_free(&s);
        buf_free(&a.gaps);
    }
    struct answer a = {0};
    struct stream s;
    int64_t now = 0;
    stream_start(&s, &a);
    feed(&s, "data: {\"error\":{\"message\":\"no more\"}}\n\n", 5, &now);
    assert_string_equal(a.error, "no more");
    stream_free(&s);
    stream_start(&s, &a);
    stream_feed(&s, STR("{\"error\":{\"message\":\"come "), false, 0);
    stream_feed(&s, STR("later\"}}"), false, 0);
    stream_refusal(&s, 429);
    assert_string_equal(a.error, "HTTP 429: come later");
    stream_free(&s);
}

/* Gaps in milliseconds, ended by 0. */
static struct answer made_answer(enum answer_end end, int64_t first_ms, const uint32_t *gaps) {
    struct answer a = {.end = end,
                       .first_ns = first_ms * 1000000,
                       .last_ns = first_ms * 1000000,
                       .input = 10,
                       .cached = 4,
                       .output = 5};
    for (; *gaps > 0; gaps++) {
        uint32_t us = *gaps * 1000;
        a.last_ns += us * 1000;
        buf_append(&a.gaps, &us, sizeof us);
    }
    return a;
}

static void test_sum(void **state) {
    struct request request[] = {{.at = 0, .tenant = 0},
                                {.at = 1, .tenant = 1},
                                {.at = 2, .tenant = 1},
                                {.at = 3, .tenant = 0},
                                {.at = 4, .tenant = 3}};
    struct load l = {.request = request, .n = 5, .tenants = 4};
    struct workload w = *workload_find("chat");
    struct answer answer[] = {
        made_answer(ANSWER_COMPLETE, 500, (uint32_t[]){100, 200, 0}), /* well served */
        made_answer(ANSWER_COMPLETE, 2000,
                    (uint32_t[]){50, 50, 300, 0}),               /* one gap too long, the mean is not */
        made_answer(ANSWER_COMPLETE, 4100, (uint32_t[]){10, 0}), /* first token after 2.1 s */
        made_answer(ANSWER_REFUSED, 3001, (uint32_t[]){0}),
        made_answer(ANSWER_UNFINISHED, 9000, (uint32_t[]){0}),
    };
    struct point p = {.rate = 1, .seconds = 5, .wall = 10};
    struct error e;
    snprintf(answer[3].error, sizeof answer[3].error, "HTTP 429");
    snprintf(answer[4].error, sizeof answer[4].error, "HTTP 429");
    assert_int_equal(point_sum(&p, &w, &l, answer, 0, SPLIT_TENANT, NULL, &e), 0);
    const struct group *g = &p.all;
    assert_true(g->sent == 5 && g->complete == 3 && g->refused == 1 && g->unfinished == 1 && g->broken == 0);
    assert_true(g->good == 1 && g->steady == 2 && g->input == 50 && g->cached == 20 && g->output == 25);
    assert_true(g->first.n == 4 && fabs(g->first.p50 - 1) < 1e-9 && fabs(g->first.most - 5) < 1e-9);
    assert_true(g->gap.n == 6 && fabs(g->gap.most - 0.3) < 1e-9 && fabs(g->gap.p50 - 0.05) < 1e-9);
    assert_true(p.parts == 4 && p.part[0].sent == 2 && p.part[1].sent == 2 && p.part[2].sent == 0 &&
                p.part[3].sent == 1);
    assert_true(p.part[1].gap.n == 4 && p.part[0].good == 1 && p.part[1].steady == 1);
    assert_true(p.trouble[0].count == 2 && p.trouble[1].count == 0);
    struct buf out = {0};
    report_json(&out, &p);
    assert_non_null(strstr(out.p, "\"goodput\":0.2,"));
    assert_non_null(strstr(out.p, "\"output_tokens_per_s\":2.5,"));
    buf_free(&out);
    point_free(&p);
    for (int i = 0; i < 5; i++)
        buf_free(&answer[i].gaps);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_percentiles), cmocka_unit_test(test_random), cmocka_unit_test(test_trace),
        cmocka_unit_test(test_load),        cmocka_unit_test(test_market), cmocka_unit_test(test_servegen),
        cmocka_unit_test(test_prompt),      cmocka_unit_test(test_stream), cmocka_unit_test(test_sum),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
