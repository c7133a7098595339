/* Webhooks: what somebody wants to be told is written into the books in the transaction that causes it, and sent from there by a thread of its own, signed, until it is
 * taken or three days are over (www.standardwebhooks.com). Nobody who pays or is paid ever waits for it. */
#ifndef CLOUD_WEBHOOK_H
#define CLOUD_WEBHOOK_H

#include "base/hash.h"
#include "cloud/cloud.h"

struct store;

/* ---- courier.c: the thread that sends what is due, from cloud_send_webhooks to cloud_close ---- */
void courier_stop(struct cloud *c);
void courier_ring(struct cloud *c); /* from any thread: there is something new */

/* The rest is for the writer's thread, in its transaction. */

/* ---- webhook.c ---- */

/* Something happened: every webhook that wants events of this kind gets it, those of the tenant and the operator's. event names it, and the same name is sent once;
 * data: a JSON object. */
int webhook_emit(struct cloud *c, const char *kind, int64_t tenant, const char *event, struct str data,
                 struct error *e);

/* ---- delivery.c ---- */

struct delivery {
    int64_t id, webhook, due, created, attempts;
    char id_text[48], url[512];
    struct hash secret; /* that it is signed with */
    struct buf body;    /* freed by whoever took it */
};
enum { DELIVERIES = 16 }; /* at once */
/* Take up to `most` for a minute, in which nobody else sends them; *next: when to look again, on the wall clock. */
int deliveries_take(struct cloud *c, struct delivery *out, size_t most, size_t *n, int64_t *next,
                    struct error *e);
/* Gone: nobody wants this webhook any more. */
enum delivery_outcome { DELIVERY_TAKEN, DELIVERY_REFUSED, DELIVERY_GONE };
/* How one went: it is done, or due after a pause, or given up. note: one line for people. */
int delivery_record(struct cloud *c, const struct delivery *d, enum delivery_outcome outcome,
                    const char *note, struct error *e);

/* The headers that prove who sent the body. */
struct signed_headers {
    char id[80], timestamp[64], signature[128];
};
void webhook_sign(const struct delivery *d, int64_t wall, struct signed_headers *out);
/* The secret of the webhook that has this random number. */
struct hash webhook_secret(const struct cloud *c, struct str number);
int webhook_disable(struct store *s, int64_t webhook, int64_t now, struct error *e);

#endif
