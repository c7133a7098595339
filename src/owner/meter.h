/* The chips' clock: how long they could have worked, how long they did, and what energy that took, into the books each minute (table chip_time). So utilisation is known for
 * the time the service ran, and the rest of what an asset costs is known to be idle. A crash loses a minute of it, on neither side a request's. */
#ifndef OWNER_METER_H
#define OWNER_METER_H

#include "cloud/cloud.h"

struct meter;

struct meter_source {
    int64_t (*busy_ns)(
        void *context); /* chips' working time since they began, all of them; from any thread */
    void *context;
    int chips;
};

int meter_start(struct meter **out, struct cloud *c, const struct meter_source *source, struct error *e);
/* Writes the last minute, joins the thread. Before the books close; NULL is fine. */
void meter_stop(struct meter *m);

/* What one span of the meter adds to the quarter of an hour that holds its middle; the writer's part, for tests. */
struct meter_span {
    int64_t from, to; /* of the wall clock, nanoseconds */
    int64_t available_ns, busy_ns, energy_uj, measured_ns;
};
int meter_write(struct cloud *c, const struct meter_span *s, struct error *e);

#endif
