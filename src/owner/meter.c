/* The chips' clock; see meter.h. On a yen's journey: the chip-seconds that nobody asked for. */
#include "owner/meter.h"

#include "base/clock.h"
#include "base/log.h"
#include "cloud/inner.h"
#include "owner/power.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

static const int64_t SECOND = 1000000000, MINUTE = 60 * SECOND, QUARTER = 15 * MINUTE;

struct meter {
    struct cloud *cloud;
    struct meter_source source;
    struct power *power;        /* NULL: nothing is measured here */
    int64_t mono, busy, energy; /* as of the last span */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stopping;
};

static int write_span(struct cloud *c, void *context, struct error *e) {
    const struct meter_span *s = context;
    struct query *q;
    int64_t middle = s->from + (s->to - s->from) / 2;
    int rc = store_query(c->store, &q,
                         "INSERT INTO chip_time (at, available_ns, busy_ns, energy_uj, measured_ns)"
                         " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (at) DO UPDATE SET"
                         " available_ns = chip_time.available_ns + excluded.available_ns,"
                         " busy_ns = chip_time.busy_ns + excluded.busy_ns,"
                         " energy_uj = chip_time.energy_uj + excluded.energy_uj,"
                         " measured_ns = chip_time.measured_ns + excluded.measured_ns",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, middle - middle % QUARTER);
    query_int(q, 2, s->available_ns);
    query_int(q, 3, s->busy_ns);
    query_int(q, 4, s->energy_uj);
    query_int(q, 5, s->measured_ns);
    return query_run(q, e);
}

int meter_write(struct cloud *c, const struct meter_span *s, struct error *e) {
    struct meter_span copy = *s;
    return journal_call(c, write_span, &copy, e);
}

/* What has passed since the last span. When the books have stopped it is nobody's. */
static void span(struct meter *m) {
    struct error e = {0};
    int64_t now = clock_mono_ns(), busy = m->source.busy_ns(m->source.context), energy = m->energy;
    struct meter_span s = {.to = clock_wall_ns(), .available_ns = (now - m->mono) * m->source.chips};
    s.from = s.to - (now - m->mono);
    s.busy_ns = busy - m->busy;
    if (m->power != NULL && power_read(m->power, &energy)) {
        s.energy_uj = energy - m->energy;
        s.measured_ns = now - m->mono;
    }
    m->mono = now;
    m->busy = busy;
    m->energy = energy;
    if (!cloud_stopped(m->cloud, NULL) && meter_write(m->cloud, &s, &e) != 0)
        log_warn("a minute of chip time is not in the books: %s", e.text);
}

/* At each minute of the wall clock, so that none is counted to another quarter of an hour, or month; a clock that jumps makes nobody wait. */
static void wait_for_minute(struct meter *m) {
    int64_t until = clock_mono_ns() + MINUTE - clock_wall_ns() % MINUTE;
    struct timespec t = {.tv_sec = until / SECOND, .tv_nsec = until % SECOND};
    int rc = 0;
    while (rc == 0 && !m->stopping)
        rc = pthread_cond_timedwait(&m->wake, &m->lock, &t);
}

static void *meter_main(void *context) {
    struct meter *m = context;
    bool last = false;
    while (!last) {
        pthread_mutex_lock(&m->lock);
        wait_for_minute(m);
        last = m->stopping;
        pthread_mutex_unlock(&m->lock);
        span(m);
    }
    return NULL;
}

int meter_start(struct meter **out, struct cloud *c, const struct meter_source *source, struct error *e) {
    struct meter *m = calloc(1, sizeof *m);
    *out = NULL;
    if (m == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the meter");
    m->cloud = c;
    m->source = *source;
    m->power = power_open(NULL, NULL);
    if (m->power != NULL)
        log_info("this machine measures its energy: %d counters", power_counters(m->power));
    m->mono = clock_mono_ns();
    m->busy = source->busy_ns(source->context);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&m->lock, NULL);
    pthread_cond_init(&m->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    if (pthread_create(&m->thread, NULL, meter_main, m) == 0) {
        *out = m;
        return 0;
    }
    power_close(m->power);
    free(m);
    return error_set(e, ERR_NO_MEMORY, "cannot start the meter");
}

void meter_stop(struct meter *m) {
    if (m == NULL)
        return;
    pthread_mutex_lock(&m->lock);
    m->stopping = true;
    pthread_cond_signal(&m->wake);
    pthread_mutex_unlock(&m->lock);
    pthread_join(m->thread, NULL); /* which wrote the last span */
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->wake);
    power_close(m->power);
    free(m);
}
