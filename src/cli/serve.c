/* unkai serve: the cloud itself. Opens the books, loads the models, and serves until it is told to stop. */
#include "base/log.h"
#include "cli/cli.h"
#include "cloud/cloud.h"
#include "engine/engine.h"
#include "gateway/gateway.h"
#include "owner/meter.h"
#include "owner/owner.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct serve {
    struct option_list models;
    const char *listen, *admin_listen, *kernels, *kv, *kv_spill, *proxies;
    struct network proxy[64];
    bool webhooks_within;
    size_t proxies_n;
    int64_t kv_spill_bytes;
    int64_t memory_bytes, kv_bytes, max_running, max_waiting, max_context, threads, max_connections, drain,
        client_timeout;
    struct cloud *cloud;
    struct engine *engine;
    struct gateway *gateway;
    struct meter *meter;
};

static struct gateway *serving; /* for the signal handler, which is set only while this is */
static struct gateway_bell bell = {PTHREAD_MUTEX_INITIALIZER, NULL};

static void on_signal(int number) {
    gateway_drain(serving);
}

static void on_signals(void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

/* Until the models are loaded a signal just ends the program: nothing was promised to anybody. When the loop has ended only what is
 * promised is still done, and no signal interrupts that. */
static int serve(struct serve *s, struct error *e) {
    serving = s->gateway;
    signal(SIGPIPE, SIG_IGN); /* whoever read our log has gone */
    signal(SIGXFSZ, SIG_IGN); /* a limit on files is a full disk */
    gateway_bell_set(&bell, s->gateway);
    on_signals(on_signal);
    int rc = gateway_run(s->gateway, e);
    on_signals(SIG_IGN);
    engine_stop(s->engine);
    gateway_bell_set(&bell, NULL);
    return rc;
}

/* HOST:PORT, [IPv6]:PORT. */
static int split_listen(const char *option, const char *listen, char *host, size_t size, uint16_t *port,
                        struct error *e) {
    const char *colon = strrchr(listen, ':');
    char *end;
    long p = colon != NULL ? strtol(colon + 1, &end, 10) : -1;
    if (p < 0 || p > 65535 || end == colon + 1 || *end != 0)
        return error_set(e, ERR_INVALID, "%s wants HOST:PORT, not '%.100s'", option, listen);
    size_t n = (size_t)(colon - listen);
    if (n >= 2 && listen[0] == '[' && listen[n - 1] == ']') {
        listen++;
        n -= 2;
    }
    if (n == 0 || n >= size)
        return error_set(e, ERR_INVALID, "%s wants a host before the port; 127.0.0.1 is this machine alone",
                         option);
    memcpy(host, listen, n);
    host[n] = 0;
    *port = (uint16_t)p;
    return 0;
}

/* NAME=PATH, or a path or a name in the data folder, which then also names the model. */
static int add_model(struct serve *s, const char *item, struct error *e) {
    char name[256], path[4096];
    const char *equals = strchr(item, '='), *from = equals != NULL ? equals + 1 : item;
    const char *base = strrchr(item, '/') != NULL && equals == NULL ? strrchr(item, '/') + 1 : item;
    size_t n = equals != NULL ? (size_t)(equals - item) : strlen(base);
    if (equals == NULL && n > 5 && strcmp(base + n - 5, ".gguf") == 0)
        n -= 5;
    if (n == 0 || n >= sizeof name)
        return error_set(e, ERR_INVALID, "--model wants NAME=PATH, not '%.100s'", item);
    memcpy(name, base, n);
    name[n] = 0;
    if (engine_model(s->engine, str_from(name)) != NULL)
        return error_set(e, ERR_CONFLICT, "two models are called '%.100s'", name);
    int rc = cli_model_path(path, sizeof path, from, e);
    if (rc == 0)
        rc = engine_add_model(s->engine, name, path, e);
    if (rc == 0)
        rc = cloud_know_model(s->cloud, name, e);
    if (rc == 0)
        log_info("model %s is %s", name, path);
    return rc;
}

/* As many descriptors as we may have: one a connection. */
static void raise_descriptors(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        setrlimit(RLIMIT_NOFILE, &r);
    }
}

/* A file for KV pages: where the operator said, else in the data folder, if that can be. */
static int open_spill(struct serve *s, struct error *e) {
    if (s->kv_spill != NULL && strcmp(s->kv_spill, "off") == 0)
        return 0;
    int rc = engine_spill(s->engine, s->kv_spill != NULL ? s->kv_spill : cli_home(),
                          (uint64_t)s->kv_spill_bytes, e);
    if (rc == 0 || s->kv_spill != NULL)
        return rc;
    log_warn("%s; KV memory does without", e->text);
    return 0;
}

static int64_t chip_busy_ns(void *context) {
    struct engine_stats stats;
    engine_stats(context, &stats);
    return stats.chip_ns;
}

/* Networks, separated by commas. */
static int read_proxies(struct serve *s, struct error *e) {
    struct str text = str_from(s->proxies);
    int rc = 0;
    for (size_t n; text.n > 0 && rc == 0; text = (struct str){text.p + n, text.n - n}) {
        size_t comma = str_find(text, STR(","), 0);
        n = comma < text.n ? comma + 1 : text.n;
        rc = s->proxies_n == sizeof s->proxy / sizeof *s->proxy
                 ? error_set(e, ERR_INVALID, "--trusted-proxies wants at most %zu networks", s->proxies_n)
                 : network_parse((struct str){text.p, comma < text.n ? comma : text.n},
                                 &s->proxy[s->proxies_n++], e);
    }
    return rc;
}

static int set_up(struct serve *s, struct error *e) {
    char host[256], admin_host[256], folder[4096];
    uint16_t port = 0, admin_port = 0;
    struct engine_options engine = {
        .chip = {.kernels = s->kernels, .kv = s->kv, .threads = (uint32_t)s->threads, .pack_folder = folder},
        .memory_bytes = (size_t)s->memory_bytes,
        .kv_bytes = (size_t)s->kv_bytes,
        .max_running = (uint32_t)s->max_running,
        .max_waiting = (uint32_t)s->max_waiting,
        .max_context = (uint32_t)s->max_context,
    };
    snprintf(folder, sizeof folder, "%s/packed", cli_home());
    int rc = split_listen("--listen", s->listen, host, sizeof host, &port, e);
    if (rc == 0 && s->admin_listen != NULL)
        rc = split_listen("--admin-listen", s->admin_listen, admin_host, sizeof admin_host, &admin_port, e);
    if (rc == 0)
        rc = read_proxies(s, e);
    if (rc == 0)
        rc = cloud_open(&s->cloud, cli_home(), gateway_bell_ring, &bell, e);
    if (rc == 0)
        rc = engine_create(&s->engine, &engine, e);
    if (rc == 0)
        rc = open_spill(s, e);
    for (size_t i = 0; i < s->models.n && rc == 0; i++)
        rc = add_model(s, s->models.item[i], e);
    if (rc == 0)
        rc = engine_start(s->engine, e);
    if (rc == 0)
        rc = cloud_send_webhooks(s->cloud, s->webhooks_within, e);
    struct meter_source chip = {.busy_ns = chip_busy_ns, .context = s->engine, .chips = 1};
    if (rc == 0)
        rc = meter_start(&s->meter, s->cloud, &chip, e);
    struct gateway_options gateway = {
        .host = host,
        .port = port,
        .admin_host = s->admin_listen != NULL ? admin_host : NULL,
        .admin_port = admin_port,
        .max_connections = (uint32_t)s->max_connections,
        .client_timeout_ns = s->client_timeout * 1000000000,
        .drain_ns = s->drain * 1000000000,
        .proxies = s->proxy,
        .proxies_n = s->proxies_n,
    };
    if (rc == 0)
        rc = gateway_create(&s->gateway, &gateway, s->engine, s->cloud, e);
    if (rc != 0)
        return rc;
    if (!gateway_loopback(s->gateway))
        log_warn("others than this machine can reach this server, and what they send is not encrypted");
    log_info("listening on %s, port %u", host, gateway_port(s->gateway));
    return 0;
}

int cmd_serve(int argc, char **argv) {
    struct serve s = {
        .listen = "127.0.0.1:8080", .max_connections = 10000, .drain = 30, .client_timeout = 30};
    const struct option options[] = {
        {"listen", OPTION_TEXT, &s.listen, "HOST:PORT", "where to listen (127.0.0.1:8080)", 0, 0},
        {"admin-listen", OPTION_TEXT, &s.admin_listen, "HOST:PORT",
         "where the admin API listens by itself (with the other one, if that is this machine's alone)", 0, 0},
        {"model", OPTION_LIST, &s.models, "NAME=PATH", "a model to serve; may be given several times", 0, 0},
        {"kv", OPTION_TEXT, &s.kv, "FORM", CLI_KV_HELP, 0, 0},
        {"memory-bytes", OPTION_INT, &s.memory_bytes, "N",
         "weights and KV memory of all models together (7/8 of what the machine or its control group has)", 1,
         INT64_MAX},
        {"kv-bytes", OPTION_INT, &s.kv_bytes, "N",
         "KV memory of all models together (a quarter of the memory, at most 4 GiB)", 0, INT64_MAX},
        {"kv-spill", OPTION_TEXT, &s.kv_spill, "DIR",
         "where the file lies for keys and values that memory has no room for; or off (the data folder)", 0,
         0},
        {"kv-spill-bytes", OPTION_INT, &s.kv_spill_bytes, "N",
         "size of that file (a quarter of the free disk, at most 4 GiB)", 1, INT64_MAX},
        {"max-running", OPTION_INT, &s.max_running, "N", "sequences that step together (64)", 1,
         ENGINE_MOST_RUNNING},
        {"max-waiting", OPTION_INT, &s.max_waiting, "N", "sequences in the queue; more get 429 (256)", 1,
         65536},
        {"max-context", OPTION_INT, &s.max_context, "N", "tokens of prompt and answer (the model's own)", 1,
         1 << 30},
        {"threads", OPTION_INT, &s.threads, "N", "threads that compute (one a core)", 1, 1024},
        {"kernels", OPTION_TEXT, &s.kernels, "NAME", CLI_KERNELS_HELP, 0, 0},
        {"max-connections", OPTION_INT, &s.max_connections, "N", "connections at once (10000)", 1, 1 << 20},
        {"trusted-proxies", OPTION_TEXT, &s.proxies, "NETWORKS",
         "proxies whose X-Forwarded-For says where a request came from, like 10.0.0.0/8,::1", 0, 0},
        {"webhooks-within", OPTION_FLAG, &s.webhooks_within, NULL,
         "send webhooks also to this machine and to private networks", 0, 0},
        {"client-timeout", OPTION_INT, &s.client_timeout, "SECONDS",
         "cut off a client that neither sends nor takes anything for so long (30)", 1, 86400},
        {"drain", OPTION_INT, &s.drain, "SECONDS", "how long answers may go on after SIGTERM (30)", 0, 86400},
        {NULL},
    };
    struct error e = {0};
    int args;
    int parsed =
        cli_options(argc, argv, &args, options, "--model NAME=PATH ...",
                    "Serve models over HTTP in OpenAI's API. SIGTERM and SIGINT end it in an orderly way; a "
                    "second one ends it at once.");
    if (parsed != 0)
        return parsed > 0 ? EXIT_OK : EXIT_USAGE;
    if (s.models.n == 0 || args > 0) {
        fprintf(stderr,
                "unkai serve: name at least one model with --model NAME=PATH; see unkai serve --help\n");
        return EXIT_USAGE;
    }
    raise_descriptors();
    owner_operations();
    int rc = set_up(&s, &e);
    if (rc == 0)
        rc = serve(&s, &e);
    gateway_free(s.gateway);
    meter_stop(s.meter);
    if (s.engine != NULL)
        engine_free(s.engine);
    if (s.cloud != NULL)
        cloud_close(s.cloud);
    return rc == 0 ? EXIT_OK : cli_fail("serve", &e);
}
