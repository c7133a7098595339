/* What the books cost alone: requests are admitted, sent and settled as the gateway does it, durable on SQLite, and nothing else runs. Streams overlap as real ones do, so that a hold and its
 * settlement lie in different groups, unless --at-once asks for answers that end at once. Then what reading them takes: opening, usage of a tenant, an invoice, a close, the last
 * transfers, verification, and how much memory. With --months the requests lie in that many months up to now, and the first tenant has a quarter of them, under a hundred keys.
 * Meant for one core: taskset -c 1. docs/performance.md has the figures. */
#include "cloud/calendar.h"
#include "cloud/cloud.h"
#include "cloud/control.h"

#include "base/clock.h"
#include "base/json.h"

#include <getopt.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MODELS = 4, QUEUE = 8192, SENT = 20, LARGE_KEYS = 100, LARGE_SHARE = 4 };

struct bench {
    char folder[300];
    int64_t requests, warm_up, tenants, months;
    size_t streams;
    bool at_once, keep, read_only;
};

/* ---- the wall clock, which is behind while months are filled (the linker puts it before the real one) ---- */

static _Atomic int64_t behind;

int64_t __real_clock_wall_ns(void);
int64_t __wrap_clock_wall_ns(void);
int64_t __wrap_clock_wall_ns(void) {
    return __real_clock_wall_ns() - atomic_load_explicit(&behind, memory_order_relaxed);
}

static int64_t months_ns(const struct bench *b) {
    return b->months * (365 * INT64_C(86400000000000) / 12);
}

/* Of `all` requests these have begun. */
static void set_clock(const struct bench *b, int64_t begun, int64_t all) {
    atomic_store_explicit(&behind, (int64_t)((double)months_ns(b) * (1 - (double)begun / (double)all)),
                          memory_order_relaxed);
}

static int ask(const struct bench *b, const char *request, struct buf *answer) {
    struct error e = {0};
    struct buf unread = {0};
    int rc = control_call(b->folder, str_from(request), answer != NULL ? answer : &unread, &e);
    if (rc != 0)
        fprintf(stderr, "%s: %s\n", request, e.text);
    buf_free(&unread);
    return rc;
}

static int create_key(const struct bench *b, int64_t tenant) {
    char request[100];
    snprintf(request, sizeof request, "{\"op\":\"key.create\",\"tenant\":\"t%lld\"}", (long long)tenant);
    return ask(b, request, NULL);
}

static int create_tenant(const struct bench *b, int64_t i) {
    char request[200];
    snprintf(request, sizeof request,
             "{\"op\":\"tenant.create\",\"name\":\"t%lld\",\"currency\":\"JPY\",\"credit\":\"1000000\"}",
             (long long)i);
    int rc = ask(b, request, NULL);
    snprintf(request, sizeof request, "{\"op\":\"limit.set\",\"tenant\":\"t%lld\",\"concurrent\":100000}",
             (long long)i);
    return rc != 0 ? rc : ask(b, request, NULL);
}

/* The keys of the first tenant have the first numbers. */
static int64_t keys_of_first(const struct bench *b) {
    return b->months > 0 ? LARGE_KEYS : 1;
}

static int set_up(const struct bench *b, struct error *e) {
    char request[200];
    struct cloud *c;
    int rc = cloud_open(&c, b->folder, NULL, NULL, e);
    if (rc != 0)
        return rc;
    for (int64_t i = 0; rc == 0 && i < b->tenants; i++) {
        rc = create_tenant(b, i);
        for (int64_t k = 0; rc == 0 && k < (i == 0 ? keys_of_first(b) : 1); k++)
            rc = create_key(b, i);
    }
    for (int i = 0; rc == 0 && i < MODELS; i++) {
        snprintf(request, sizeof request,
                 "{\"op\":\"price.set\",\"model\":\"m%d\",\"currency\":\"JPY\",\"input\":\"15\",\"output\":"
                 "\"60.%d\"}",
                 i, i);
        rc = ask(b, request, NULL);
    }
    cloud_close(c);
    return rc;
}

/* ---- requests ---- */

struct stream {
    struct hold *hold;
    int step;
};

static int64_t began; /* number of requests */

static struct identity next_identity(const struct bench *b) {
    int64_t tenant = b->months > 0 && began % LARGE_SHARE == 0 ? 0 : began % b->tenants;
    int64_t keys = keys_of_first(b), key = tenant > 0 ? keys + tenant : began / LARGE_SHARE % keys + 1;
    return (struct identity){.tenant = tenant + 1, .key = key, .account = 1, .weight = 1};
}

static int admit(struct cloud *c, const struct bench *b, struct stream *s, struct error *e) {
    struct identity who = next_identity(b);
    char model[8];
    struct admission a = {
        .who = &who, .route = STR("completions"), .prompt_tokens = 100, .max_completion_tokens = 50};
    snprintf(model, sizeof model, "m%d", (int)(began / b->tenants % MODELS));
    a.model = str_from(model);
    snprintf(a.request_id, sizeof a.request_id, "cmpl-%016llx%08x", (unsigned long long)clock_wall_ns(),
             (unsigned)began);
    began++;
    s->step = -1;
    return cloud_admit(c, &a, &s->hold, e);
}

/* What was sent goes to the journal first, as long as the socket needs for it. */
static void settle(struct stream *s) {
    struct settlement done = {.cached_tokens = 50,
                              .completion_tokens = SENT,
                              .chip_ns = 20000000,
                              .prefill_ns = 5000000,
                              .first_token_ns = 10000000,
                              .total_ns = 100000000,
                              .outcome = OUTCOME_DONE};
    cloud_settle(s->hold, &done);
    s->hold = NULL;
}

/* The writer must keep up: an engine is no faster than its disk for long. */
static void wait_for_writer(struct cloud *c) {
    struct cloud_stats stats;
    for (cloud_stats(c, &stats); stats.queue > QUEUE; cloud_stats(c, &stats))
        usleep(100);
}

/* Each visit takes a stream one step on: asked for, admitted, sent, settled. */
static int run(struct cloud *c, const struct bench *b, int64_t requests, struct error *e) {
    struct stream *stream = calloc(b->streams, sizeof *stream);
    int64_t settled = 0, end = began + requests;
    int rc = stream == NULL ? error_set(e, ERR_NO_MEMORY, "no memory") : 0;
    for (size_t i = 0; rc == 0 && settled < requests; i = (i + 1) % b->streams) {
        struct stream *s = &stream[i];
        if (i % 64 == 0) {
            set_clock(b, began, b->warm_up + b->requests);
            wait_for_writer(c);
        }
        if (s->hold == NULL && began < end)
            rc = admit(c, b, s, e);
        if (rc != 0 || s->hold == NULL)
            continue;
        if (s->step == -1) {
            int asked = cloud_granted(&s->hold, NULL, NULL, e);
            rc = asked < 0 ? asked : 0;
            s->step = asked == 0 ? 0 : -1;
            if (asked == 0 && b->at_once) {
                cloud_sent(s->hold, SENT, 50);
                settle(s);
                settled++;
            }
        } else if (s->step++ == 0) {
            cloud_sent(s->hold, SENT, 50);
        } else if (cloud_may_send(s->hold) >= SENT) {
            settle(s);
            settled++;
        }
    }
    free(stream);
    return rc;
}

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static long peak_mib(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss / 1024;
}

/* Until all of it is durable: closing waits for the writer. */
static int measure(const struct bench *b, struct error *e) {
    struct cloud *c;
    struct cloud_stats before, after;
    int rc = cloud_open(&c, b->folder, NULL, NULL, e);
    if (rc != 0 || (rc = run(c, b, b->warm_up, e)) != 0)
        return rc;
    cloud_stats(c, &before);
    double cpu = cpu_seconds();
    int64_t start = clock_mono_ns();
    rc = run(c, b, b->requests, e);
    for (cloud_stats(c, &after); rc == 0 && after.queue > 0; cloud_stats(c, &after))
        usleep(100);
    int64_t now = clock_mono_ns();
    cpu = cpu_seconds() - cpu;
    double seconds = (double)(now - start) / 1e9;
    if (rc == 0)
        printf("settled %lld requests in %.2f s: %.0f a second, %.1f us of the processor each, %.0f a "
               "commit, %ld MiB\n",
               (long long)b->requests, seconds, (double)b->requests / seconds,
               cpu * 1e6 / (double)b->requests,
               (double)b->requests / (double)(after.commits - before.commits), peak_mib());
    cloud_close(c);
    return rc;
}

/* ---- reading ---- */

static int time_one(const struct bench *b, const char *what, const char *request) {
    struct buf answer = {0};
    int64_t start = clock_mono_ns();
    int rc = ask(b, request, &answer);
    printf("%-28s %8.1f ms\n", what, (double)(clock_mono_ns() - start) / 1e6);
    buf_free(&answer);
    return rc;
}

/* Every month but the newest, the oldest first; *last: which was the last one. */
static int close_months(const struct bench *b, char last[CALENDAR_MONTH], struct error *e) {
    struct buf answer = {0};
    struct json *list = NULL;
    char request[80], what[40];
    int rc = ask(b, "{\"op\":\"close.list\"}", &answer);
    if (rc == 0)
        rc = json_parse(&list, buf_view(&answer), e);
    for (size_t i = 0; rc == 0 && i + 1 < json_count(list); i++) {
        const struct json *p = json_at(list, i);
        struct str month = json_as_str(json_get(p, "month"));
        snprintf(last, CALENDAR_MONTH, "%.*s", (int)month.n, month.p);
        snprintf(request, sizeof request, "{\"op\":\"close\",\"month\":\"%s\"}", last);
        snprintf(what, sizeof what, "closing %s", last);
        if (json_as_int(json_get(p, "closed")) == 0)
            rc = time_one(b, what, request);
    }
    json_free(list);
    buf_free(&answer);
    return rc;
}

static int set_parties(const struct bench *b) {
    int rc = ask(b,
                 "{\"op\":\"invoice.issuer\",\"profile\":{\"name\":\"a "
                 "cloud\",\"country\":\"JP\",\"rule\":\"none\"}}",
                 NULL);
    return rc != 0 ? rc
                   : ask(b,
                         "{\"op\":\"invoice.party\",\"tenant\":\"t0\",\"profile\":{\"name\":\"a "
                         "tenant\",\"country\":\"JP\"}}",
                         NULL);
}

/* The books are open beside it, as a server has them: the operations come over its socket. */
static int read_books(const struct bench *b, struct error *e) {
    static const struct {
        const char *what, *op, *arguments;
        bool month; /* of the last one that was closed */
    } table[] = {
        {"usage of a tenant", "usage", ",\"tenant\":\"t0\""},
        {"usage of a month", "usage", ",\"tenant\":\"t0\"", true},
        {"usage of a month, by key", "usage", ",\"tenant\":\"t0\",\"by\":\"key\"", true},
        {"usage of all in a month", "usage", "", true},
        {"an invoice", "invoice.draft", ",\"tenant\":\"t0\"", true},
        {"the last transfers", "ledger.list", ""},
        {"a tenant's last transfers", "ledger.list", ",\"tenant\":\"t0\""},
        {"verification", "ledger.verify", ""},
    };
    char month[CALENDAR_MONTH] = "", last[40] = "", request[200];
    struct cloud *c;
    int64_t start = clock_mono_ns();
    int rc = cloud_open(&c, b->folder, NULL, NULL, e);
    if (rc != 0)
        return rc;
    printf("%-28s %8.1f ms, %ld MiB\n", "opening", (double)(clock_mono_ns() - start) / 1e6, peak_mib());
    rc = set_parties(b);
    if (rc == 0 && (rc = close_months(b, month, e)) == 0 && month[0] != 0)
        snprintf(last, sizeof last, ",\"month\":\"%s\"", month);
    for (size_t i = 0; rc == 0 && i < sizeof table / sizeof *table; i++) {
        snprintf(request, sizeof request, "{\"op\":\"%s\"%s%s}", table[i].op, table[i].arguments,
                 table[i].month ? last : "");
        rc = time_one(b, table[i].what, request);
    }
    cloud_close(c);
    printf("%ld MiB\n", peak_mib());
    return rc;
}

static int usage(void) {
    fprintf(stderr, "usage: books [--requests N] [--streams N] [--tenants N] [--months N] [--at-once]\n"
                    "             [--folder NEW | --read FOLDER] [--quick]\n");
    return 2;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"requests", required_argument, NULL, 'n'},
        {"streams", required_argument, NULL, 's'},
        {"tenants", required_argument, NULL, 't'},
        {"months", required_argument, NULL, 'm'},
        {"at-once", no_argument, NULL, 'a'},
        {"folder", required_argument, NULL, 'f'},
        {"quick", no_argument, NULL, 'q'},
        {"read", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    struct bench b = {.folder = "/tmp/unkai-bench-XXXXXX",
                      .requests = 200000,
                      .warm_up = 10000,
                      .tenants = 16,
                      .streams = 1000};
    struct error e = {0};
    char command[400];
    int option;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'n')
            b.requests = atoll(optarg);
        else if (option == 's')
            b.streams = (size_t)atoll(optarg);
        else if (option == 't')
            b.tenants = atoll(optarg);
        else if (option == 'm')
            b.months = atoll(optarg);
        else if (option == 'a')
            b.at_once = true;
        else if (option == 'f')
            b.keep = snprintf(b.folder, sizeof b.folder, "%s", optarg) > 0;
        else if (option == 'r')
            b.read_only = b.keep = snprintf(b.folder, sizeof b.folder, "%s", optarg) > 0;
        else if (option == 'q')
            b.requests = b.warm_up = 2000;
        else
            return usage();
    }
    if (optind < argc || b.requests < 1 || b.streams < 1 || b.tenants < 1 || b.months < 0 ||
        (!b.read_only && (b.keep ? mkdir(b.folder, 0700) != 0 : mkdtemp(b.folder) == NULL)))
        return usage();
    set_clock(&b, 0, 1);
    int rc = b.read_only ? 0 : set_up(&b, &e);
    if (b.read_only)
        set_clock(&b, 1, 1);
    if (rc == 0 && ((!b.read_only && (rc = measure(&b, &e)) != 0) || (rc = read_books(&b, &e)) != 0))
        fprintf(stderr, "books: %s\n", e.text);
    snprintf(command, sizeof command, "rm -rf '%s'", b.folder);
    if (!b.keep && system(command) != 0)
        rc = -1;
    return rc == 0 ? 0 : 1;
}
