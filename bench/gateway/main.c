/* What a request and a token cost without the model: the gateway, the tenants' keys and the durable books in one process on one core, an engine that computes
 * nothing behind engine.h (stub_engine.c), and clients in another process on another core (client.c). At the end the books are asked whether they agree with
 * what the clients counted. docs/performance.md has the figures. */
#include "bench/gateway/client.h"
#include "bench/gateway/server.h"

#include "base/clock.h"
#include "base/json.h"
#include "cloud/control.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TENANTS = 16, SKIPPED = 77 };

static const struct phase {
    const char *name;
    uint32_t connections, quick; /* of a quick run */
    int max_tokens, rate;        /* tokens a second of a stream, 0: as many as go */
    double warm_up;              /* seconds */
    bool stream, idle;
} phases[] = {
    {"idle", 10000, 200, 4, 0, 0.1, false,
     true}, /* first, while the process owns nothing that it no longer needs */
    {"short answers", 1000, 32, 8, 0, 0.5, false, false},
    {"streams", 1000, 50, 1024, 0, 1, true, false},
    {"paced streams", 1000, 50, 100, 50, 2, true, false},
};

struct bench {
    const char *model, *parent;
    double seconds;
    bool quick;
    int core[2]; /* the server's, the clients' */
    const char *only;
    char folder[300];
    char key[TENANTS][80];
    pid_t server;
    uint16_t port;
    uint64_t answers, tokens, failed;
    int64_t cpu_ns; /* of the server, while a load was measured */
};

/* ---- the server's process ---- */

static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((size_t)core, &set);
    if (sched_setaffinity(0, sizeof set, &set) != 0)
        fprintf(stderr, "cannot stay on core %d: %s\n", core, strerror(errno));
}

static int start_server(struct bench *b, struct error *e) {
    int tell[2];
    if (pipe(tell) != 0 || (b->server = fork()) < 0)
        return error_set(e, ERR_IO, "cannot start the server: %s", strerror(errno));
    if (b->server == 0) {
        close(tell[0]);
        pin(b->core[0]);
        int rc = server_run(b->folder, b->model, tell[1], e);
        if (rc != 0)
            fprintf(stderr, "server: %s\n", e->text);
        exit(rc == 0 ? 0 : 1);
    }
    close(tell[1]);
    ssize_t n = read(tell[0], &b->port, sizeof b->port);
    close(tell[0]);
    pin(b->core[1]);
    return n == (ssize_t)sizeof b->port ? 0 : error_set(e, ERR_IO, "the server did not start");
}

static int stop_server(struct bench *b, struct error *e) {
    int status = 0;
    kill(b->server, SIGTERM);
    waitpid(b->server, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? 0
               : error_set(e, ERR_INTERNAL, "the server ended with status %d", status);
}

static int64_t server_cpu_ns(const struct bench *b) {
    clockid_t id;
    struct timespec t = {0};
    if (clock_getcpuclockid(b->server, &id) == 0)
        clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static double server_memory(const struct bench *b) {
    char path[64];
    long pages = 0;
    snprintf(path, sizeof path, "/proc/%d/statm", (int)b->server);
    FILE *f = fopen(path, "r");
    if (f != NULL && fscanf(f, "%*s %ld", &pages) != 1)
        pages = 0;
    if (f != NULL)
        fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void measuring(bool begins, void *context) {
    struct bench *b = context;
    b->cpu_ns = server_cpu_ns(b) - (begins ? 0 : b->cpu_ns);
}

/* ---- the books ---- */

static int books(const struct bench *b, struct json **out, struct error *e, const char *request) {
    struct buf answer = {0};
    int rc = control_call(b->folder, str_from(request), &answer, e);
    if (rc == 0)
        rc = json_parse(out, buf_view(&answer), e);
    buf_free(&answer);
    return rc;
}

static int make_books(struct bench *b, struct error *e) {
    struct json *answer = NULL;
    char request[200];
    int rc = books(b, &answer, e,
                   "{\"op\":\"price.set\",\"model\":\"stub\",\"currency\":\"JPY\",\"input\":\"0.15\","
                   "\"output\":\"0.6\"}");
    json_free(answer);
    for (int i = 0; i < TENANTS && rc == 0; i++) {
        snprintf(request, sizeof request,
                 "{\"op\":\"tenant.create\",\"name\":\"t%d\",\"credit\":\"1000000\",\"currency\":\"JPY\"}",
                 i);
        if ((rc = books(b, &answer, e, request)) != 0)
            break;
        json_free(answer);
        snprintf(request, sizeof request, "{\"op\":\"key.create\",\"tenant\":\"t%d\",\"name\":\"\"}", i);
        if ((rc = books(b, &answer, e, request)) != 0)
            break;
        struct str key = json_as_str(json_get(answer, "key"));
        snprintf(b->key[i], sizeof b->key[i], "%.*s", (int)key.n, key.p);
        json_free(answer);
    }
    return rc;
}

/* What was read is what was billed, and the ledger is sound. */
static int check_books(const struct bench *b, struct error *e) {
    struct json *usage = NULL, *ledger = NULL;
    uint64_t answers = 0, tokens = 0;
    int rc = books(b, &usage, e, "{\"op\":\"usage\"}");
    for (size_t i = 0; rc == 0 && i < json_count(usage); i++) {
        answers += (uint64_t)json_as_int(json_get(json_at(usage, i), "requests"));
        tokens += (uint64_t)json_as_int(json_get(json_at(usage, i), "completion_tokens"));
    }
    if (rc == 0)
        rc = books(b, &ledger, e, "{\"op\":\"ledger.verify\"}");
    if (rc == 0 && (answers != b->answers || tokens != b->tokens))
        rc = error_set(e, ERR_INTERNAL,
                       "the clients read %llu answers with %llu tokens, the books say %llu with %llu",
                       (unsigned long long)b->answers, (unsigned long long)b->tokens,
                       (unsigned long long)answers, (unsigned long long)tokens);
    if (rc == 0 && json_count(json_get(ledger, "wrong")) > 0)
        rc =
            error_set(e, ERR_CORRUPT, "the ledger: %s", json_as_str(json_at(json_get(ledger, "wrong"), 0)).p);
    if (rc == 0)
        printf("books: %llu answers with %llu tokens, as the clients counted; every transfer balances\n",
               (unsigned long long)answers, (unsigned long long)tokens);
    json_free(usage);
    json_free(ledger);
    return rc;
}

/* What the figures are bound by below everything else: how long a commit of this folder's disk takes at least. */
static double sync_ms(const struct bench *b) {
    enum { TIMES = 50 };
    char path[320], block[4096] = {0};
    snprintf(path, sizeof path, "%s/sync", b->folder);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int64_t begin = clock_mono_ns();
    for (int i = 0; i < TIMES; i++)
        if (pwrite(fd, block, sizeof block, 0) < 0 || fdatasync(fd) != 0)
            break;
    double ms = (double)(clock_mono_ns() - begin) * 1e-6 / TIMES;
    close(fd);
    unlink(path);
    return ms;
}

/* ---- loads ---- */

static void write_request(struct buf *out, const struct phase *p, const char *key) {
    struct buf body = {0};
    buf_printf(&body,
               "{\"model\":\"stub\",\"messages\":[{\"role\":\"system\",\"content\":\"You are a helpful "
               "assistant.\"},"
               "{\"role\":\"user\",\"content\":\"What is the capital of France? Answer in one word.\"}],"
               "\"max_tokens\":%d,\"temperature\":0.7,\"seed\":%d,\"stream\":%s}",
               p->max_tokens, p->rate, p->stream ? "true" : "false");
    buf_printf(out,
               "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nAccept: "
               "application/json\r\n"
               "Authorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
               key, body.n);
    buf_str(out, buf_view(&body));
    buf_free(&body);
}

static void print_spread(const char *what, const struct spread *s) {
    printf("; %s p50 %.2f p99 %.2f ms", what, spread_at(s, 0.5) / 1e3, spread_at(s, 0.99) / 1e3);
}

static void report(const struct bench *b, const struct phase *p, const struct load_result *r, double memory) {
    uint32_t connections = b->quick ? p->quick : p->connections;
    double cpu_us = (double)b->cpu_ns * 1e-3;
    printf("%-14s %5u connections: ", p->name, connections);
    if (p->idle) {
        printf("%.0f bytes of the server's memory each\n", memory / connections);
        return;
    }
    printf("%.0f answers/s, %.0f tokens/s; server's core %.0f%%, ", (double)r->answers / r->seconds,
           (double)r->tokens / r->seconds, cpu_us * 1e-4 / r->seconds);
    if (p->stream) {
        printf("%.2f us a token", cpu_us / (double)r->tokens);
        print_spread("first token", &r->first);
        print_spread("a token's way", &r->token);
    } else {
        printf("%.2f us an answer", cpu_us / (double)r->answers);
        print_spread("an answer", &r->answer);
    }
    printf("; server's memory %.0f MB\n", server_memory(b) * 1e-6);
}

static int run_phase(struct bench *b, const struct phase *p, struct error *e) {
    struct buf text[TENANTS] = {0};
    struct str request[TENANTS];
    struct client *client = NULL;
    struct load_result *r = calloc(1, sizeof *r);
    struct load load = {.port = b->port,
                        .connections = b->quick ? p->quick : p->connections,
                        .warm_up = b->quick ? p->warm_up / 10 : p->warm_up,
                        .seconds = b->seconds,
                        .request = request,
                        .requests = TENANTS,
                        .once = p->idle};
    if (r == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the results");
    for (int i = 0; i < TENANTS; i++) {
        write_request(&text[i], p, b->key[i]);
        request[i] = buf_view(&text[i]);
    }
    double memory = server_memory(b);
    int rc = client_run(&client, &load, r, measuring, b, e);
    if (rc == 0)
        report(b, p, r, server_memory(b) - memory);
    fflush(stdout);
    client_close(client);
    b->answers += r->all_answers;
    b->tokens += r->all_tokens;
    b->failed += r->failed;
    for (int i = 0; i < TENANTS; i++)
        buf_free(&text[i]);
    free(r);
    return rc;
}

static int run_all(struct bench *b, struct error *e) {
    int rc = make_books(b, e);
    if (rc == 0) {
        printf("a synced write of 4 KiB takes %.2f ms in %s\n", sync_ms(b), b->folder);
        fflush(stdout);
        rc = start_server(b, e);
    }
    for (size_t i = 0; i < sizeof phases / sizeof *phases && rc == 0; i++)
        if (b->only == NULL || strstr(phases[i].name, b->only) != NULL)
            rc = run_phase(b, &phases[i], e);
    int stopped = b->server > 0 ? stop_server(b, rc == 0 ? e : NULL) : 0;
    rc = rc != 0 ? rc : stopped;
    if (rc == 0 && b->failed > 0)
        rc = error_set(e, ERR_INTERNAL, "%llu answers were not what was asked for",
                       (unsigned long long)b->failed);
    return rc != 0 ? rc : check_books(b, e);
}

static void remove_folder(const struct bench *b) {
    static const char *const files[] = {"books.db", "books.db-wal", "books.db-shm",
                                        "secret",   "lock",         "control.sock"};
    char path[400];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/%s", b->folder, files[i]);
        unlink(path);
    }
    rmdir(b->folder);
}

static int parse(struct bench *b, int argc, char **argv) {
    static const struct option options[] = {{"model", 1, NULL, 'm'},
                                            {"folder", 1, NULL, 'f'},
                                            {"seconds", 1, NULL, 's'},
                                            {"cores", 1, NULL, 'c'},
                                            {"only", 1, NULL, 'o'},
                                            {"quick", 0, NULL, 'q'},
                                            {0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (c == 'm')
            b->model = optarg;
        else if (c == 'f')
            b->parent = optarg;
        else if (c == 's')
            b->seconds = strtod(optarg, NULL);
        else if (c == 'o')
            b->only = optarg;
        else if (c == 'q')
            b->quick = true;
        else if (c != 'c' || sscanf(optarg, "%d,%d", &b->core[0], &b->core[1]) != 2)
            return -1;
    }
    return optind == argc ? 0 : -1;
}

/* The default model, where ./run puts it. */
static const char *default_model(char *path, size_t size) {
    const char *models = getenv("UNKAI_MODELS"), *home = getenv("HOME");
    if (models != NULL && *models != 0)
        snprintf(path, size, "%s/smollm2-135m-q4_1.gguf", models);
    else
        snprintf(path, size, "%s/.local/share/unkai/models/smollm2-135m-q4_1.gguf", home != NULL ? home : "");
    return path;
}

int main(int argc, char **argv) {
    const char *temporary = getenv("TMPDIR");
    char path[4096];
    struct bench b = {.model = default_model(path, sizeof path),
                      .seconds = 5,
                      .core = {0, 1},
                      .parent = temporary != NULL ? temporary : "/tmp"};
    struct error e = {0};
    struct rlimit files;
    if (parse(&b, argc, argv) != 0) {
        fprintf(stderr, "usage: bench_gateway [--model FILE.gguf] [--folder FOLDER] [--seconds S] [--cores "
                        "SERVER,CLIENTS] [--only PHASE] "
                        "[--quick]\n"
                        "FILE's tokenizer and chat template are used, nothing else. The books are made in a "
                        "folder of their own in FOLDER, "
                        "which should lie on a real disk.\n");
        return 2;
    }
    if (access(b.model, R_OK) != 0) {
        fprintf(stderr, "skipped: there is no %s\n", b.model);
        return SKIPPED;
    }
    if (b.quick)
        b.seconds = 0.3;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    snprintf(b.folder, sizeof b.folder, "%.200s/unkai-bench-XXXXXX", b.parent);
    if (mkdtemp(b.folder) == NULL) {
        fprintf(stderr, "cannot make a folder in %s: %s\n", b.parent, strerror(errno));
        return 1;
    }
    int rc = run_all(&b, &e);
    if (rc != 0)
        fprintf(stderr, "bench_gateway: %s\n", e.text);
    remove_folder(&b);
    return rc == 0 ? 0 : 1;
}
