/* Usage as a stream of CloudEvents 1.0 (cloudevents.io), one a finished request, for billing systems outside. */
#ifndef CLOUD_BILL_EVENTS_H
#define CLOUD_BILL_EVENTS_H

#include "cloud/bill/bill.h"

#define EVENT_TYPE "unkai.usage.recorded"

/* On the writer's thread: the events of the settlements behind transfer `after` (of one tenant, or of all with 0), at most `most`, each a line of JSON. *last gets the transfer
 * to go on behind; *n how many there were. An event's id is the request's, its data holds the transfer's number as "seq": who has seen a line has seen all before it. */
int events_write(struct store *s, int64_t tenant, int64_t after, int64_t most, struct buf *out, int64_t *last,
                 int64_t *n, struct error *e);

#endif
