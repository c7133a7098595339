/* See server.h. As `unkai serve` puts it together (cli/serve.c), with another engine. */
#include "bench/gateway/server.h"

#include "cloud/cloud.h"
#include "engine/engine.h"
#include "gateway/gateway.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static struct gateway *serving; /* for the signal handler, which is set only while this is */
static struct gateway_bell bell = {PTHREAD_MUTEX_INITIALIZER, NULL};

static void on_signal(int number) {
    gateway_drain(serving);
}

static int serve(struct engine *engine, struct cloud *cloud, int tell, struct error *e) {
    const struct gateway_options options = {.host = "127.0.0.1",
                                            .max_connections = SERVER_MOST_CONNECTIONS,
                                            .client_timeout_ns = 60000000000,
                                            .drain_ns = 10000000000};
    struct gateway *g = NULL;
    int rc = gateway_create(&g, &options, engine, cloud, e);
    if (rc != 0)
        return rc;
    uint16_t port = gateway_port(g);
    serving = g;
    gateway_bell_set(&bell, g);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = on_signal}, NULL);
    if (write(tell, &port, sizeof port) == (ssize_t)sizeof port)
        rc = gateway_run(g, e);
    else
        rc = error_set(e, ERR_IO, "cannot tell the port: %s", strerror(errno));
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
    engine_stop(engine);
    gateway_bell_set(&bell, NULL);
    gateway_free(g);
    return rc;
}

int server_run(const char *folder, const char *model, int tell, struct error *e) {
    struct engine *engine = NULL;
    struct cloud *cloud = NULL;
    int rc = cloud_open(&cloud, folder, gateway_bell_ring, &bell, e);
    if (rc == 0)
        rc = engine_create(&engine, &(struct engine_options){0}, e);
    if (rc == 0)
        rc = engine_add_model(engine, "stub", model, e);
    if (rc == 0)
        rc = cloud_know_model(cloud, "stub", e);
    if (rc == 0)
        rc = engine_start(engine, e);
    if (rc == 0)
        rc = serve(engine, cloud, tell, e);
    if (engine != NULL)
        engine_free(engine);
    cloud_close(cloud);
    return rc;
}
