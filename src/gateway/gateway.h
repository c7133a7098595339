/* The gateway: HTTP in front of the engine and the books. It knows the tenants' keys, the API's words and what each socket has taken;
 * the engine below it knows none of that. Station one and last of a request's journey. */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include "cloud/cloud.h"
#include "engine/engine.h"

#include <pthread.h>

struct gateway;

struct gateway_options {
    const char *host;
    uint16_t port; /* 0: any free one */
    const char
        *admin_host; /* where the admin API listens by itself; NULL: it is on `host`, if that is loopback */
    uint16_t admin_port;
    uint32_t max_connections;
    int64_t client_timeout_ns;     /* a client that neither sends nor takes anything for so long is cut off */
    int64_t drain_ns;              /* how long streams may go on after gateway_drain */
    const struct network *proxies; /* whose X-Forwarded-For is believed; borrowed */
    size_t proxies_n;
};

/* Bind and listen. The engine and the cloud are borrowed. */
int gateway_create(struct gateway **out, const struct gateway_options *o, struct engine *engine,
                   struct cloud *cloud, struct error *e);
uint16_t gateway_port(const struct gateway *g);
bool gateway_loopback(
    const struct gateway *g); /* whoever reaches it is on this machine, administrators included */
/* Serve until a drain has ended. */
int gateway_run(struct gateway *g, struct error *e);
/* From a signal handler or any thread: take no more requests and end when those that run have ended or drain_ns has passed; called again, end now. */
void gateway_drain(struct gateway *g);
/* After engine_stop: settle what was still open, and free. */
void gateway_free(struct gateway *g);

/* What the books ring when they have committed, so that answers that waited for it go on: the books are opened before the gateway and closed after it. Begins as
 * {PTHREAD_MUTEX_INITIALIZER, NULL}. */
struct gateway_bell {
    pthread_mutex_t lock;
    struct gateway *gateway; /* NULL: nobody waits */
};
void gateway_bell_ring(void *bell); /* cloud_open's on_durable, with the bell as its context */
void gateway_bell_set(struct gateway_bell *b, struct gateway *g);

#endif
