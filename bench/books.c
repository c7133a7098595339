/* What the books cost alone: requests are admitted, sent and settled as the gateway does it, durable on SQLite, and nothing else runs. Streams overlap as real ones do, so that a hold and its
 * settlement lie in different groups, unless --at-once asks for answers that end at once. Then what reading them takes: usage of a tenant, the last transfers, and how much memory.
 * Meant for one core: taskset -c 1. docs/performance.md has the figures. */
#include "cloud/cloud.h"
#include "cloud/control.h"

#include "base/clock.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TENANTS = 16, MODELS = 4, QUEUE = 8192, SENT = 20 };

struct bench {
    char folder[300];
    int64_t requests, warm_up;
    size_t streams;
    bool at_once, keep, read_only;
};

static int ask(const struct bench *b, const char *request, struct buf *answer) {
    struct error e = {0};
    struct buf unread = {0};
    int rc = control_call(b->folder, str_from(request), answer != NULL ? answer : &unread, &e);
    if (rc != 0)
        fprintf(stderr, "%s: %s\n", request, e.text);
    buf_free(&unread);
    return rc;
}

static int set_up(const struct bench *b) {
    char request[200];
    int rc = 0;
    for (int i = 0; rc == 0 && i < TENANTS; i++) {
        snprintf(request, sizeof request,
                 "{\"op\":\"tenant.create\",\"name\":\"t%d\",\"currency\":\"JPY\",\"credit\":\"100000000\"}",
                 i);
        rc = ask(b, request, NULL);
        snprintf(request, sizeof request, "{\"op\":\"limit.set\",\"tenant\":\"t%d\",\"concurrent\":100000}",
                 i);
        rc = rc != 0 ? rc : ask(b, request, NULL);
    }
    for (int i = 0; rc == 0 && i < MODELS; i++) {
        snprintf(request, sizeof request,
                 "{\"op\":\"price.set\",\"model\":\"m%d\",\"currency\":\"JPY\",\"input\":\"15\",\"output\":"
                 "\"60.%d\"}",
                 i, i);
        rc = ask(b, request, NULL);
    }
    return rc;
}

/* ---- requests ---- */

struct stream {
    struct hold *hold;
    int step;
};

static int64_t began; /* number of requests */

static int admit(struct cloud *c, struct stream *s, struct error *e) {
    struct identity who = {.tenant = began % TENANTS + 1, .key = 1, .account = 1, .weight = 1};
    char model[8];
    struct admission a = {
        .who = &who, .route = STR("chat.completions"), .prompt_tokens = 100, .max_completion_tokens = 50};
    snprintf(model, sizeof model, "m%d", (int)(began / TENANTS % MODELS));
    a.model = str_from(model);
    snprintf(a.request_id, sizeof a.request_id, "chatcmpl-%016llx%08x", (unsigned long long)clock_wall_ns(),
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
        if (i % 64 == 0)
            wait_for_writer(c);
        if (s->hold == NULL && began < end)
            rc = admit(c, s, e);
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

/* The books are open beside it, as a server has them: the operations come over its socket. */
static int read_books(const struct bench *b, struct error *e) {
    static const struct {
        const char *what, *request;
    } table[] = {
        {"usage of a tenant", "{\"op\":\"usage\",\"tenant\":\"t1\"}"},
        {"usage of all, by day", "{\"op\":\"usage\",\"by\":\"day\"}"},
        {"an invoice", "{\"op\":\"invoice.draft\",\"tenant\":\"t1\"}"},
        {"the last transfers", "{\"op\":\"ledger.list\"}"},
        {"a tenant's last transfers", "{\"op\":\"ledger.list\",\"tenant\":\"t1\"}"},
        {"verification", "{\"op\":\"ledger.verify\"}"},
    };
    struct cloud *c;
    int rc = cloud_open(&c, b->folder, NULL, NULL, e);
    if (rc != 0)
        return rc;
    rc = ask(
        b,
        "{\"op\":\"invoice.issuer\",\"profile\":{\"name\":\"a cloud\",\"country\":\"JP\",\"rule\":\"none\"}}",
        NULL);
    if (rc == 0)
        rc = ask(b,
                 "{\"op\":\"invoice.party\",\"tenant\":\"t1\",\"profile\":{\"name\":\"a "
                 "tenant\",\"country\":\"JP\"}}",
                 NULL);
    for (size_t i = 0; rc == 0 && i < sizeof table / sizeof *table; i++)
        rc = time_one(b, table[i].what, table[i].request);
    cloud_close(c);
    printf("%ld MiB\n", peak_mib());
    return rc;
}

static int usage(void) {
    fprintf(
        stderr,
        "usage: books [--requests N] [--streams N] [--at-once] [--folder NEW | --read FOLDER] [--quick]\n");
    return 2;
}

int main(int argc, char **argv) {
    static const struct option options[] = {
        {"requests", required_argument, NULL, 'n'},
        {"streams", required_argument, NULL, 's'},
        {"at-once", no_argument, NULL, 'a'},
        {"folder", required_argument, NULL, 'f'},
        {"quick", no_argument, NULL, 'q'},
        {"read", required_argument, NULL, 'r'},
        {NULL, 0, NULL, 0},
    };
    struct bench b = {
        .folder = "/tmp/unkai-bench-XXXXXX", .requests = 200000, .warm_up = 10000, .streams = 1000};
    struct error e = {0};
    char command[400];
    int option;
    setvbuf(stdout, NULL, _IOLBF, 0);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'n')
            b.requests = atoll(optarg);
        else if (option == 's')
            b.streams = (size_t)atoll(optarg);
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
    if (optind < argc || b.requests < 1 || b.streams < 1 ||
        (!b.read_only && (b.keep ? mkdir(b.folder, 0700) != 0 : mkdtemp(b.folder) == NULL)))
        return usage();
    int rc = b.read_only ? 0 : set_up(&b);
    if (rc == 0 && ((!b.read_only && (rc = measure(&b, &e)) != 0) || (rc = read_books(&b, &e)) != 0))
        fprintf(stderr, "books: %s\n", e.text);
    snprintf(command, sizeof command, "rm -rf '%s'", b.folder);
    if (!b.keep && system(command) != 0)
        rc = -1;
    return rc == 0 ? 0 : 1;
}
