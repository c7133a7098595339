/* Who is in memory and who makes room; see residency.h. A model that comes in serves all that waits for it: only one that nobody uses is evicted, the least
 * recently used first. Where all are in use, one is closed: what runs on it ends, what comes for it waits until it is back, and it has had its turn before. So
 * models that do not fit together take turns that are long beside the time it takes to load one (time-slicing, as Aegaeon does between tokens, SOSP 2025). */
#include "engine/residency.h"

#include "base/log.h"
#include "engine/schedule.h"

static const int64_t TURN_NS = 2000000000; /* a model that is in use stays so long at least */

void residency_add(struct residency *r, struct pool_model *m) {
    struct residence *p = &m->residence;
    p->state = COLD;
    p->used = -(int64_t)r->models++; /* of those that nobody has asked for the last leaves first */
    p->extents = forward_extents(m->forward, p->extent);
    for (uint32_t i = 0; i < p->extents; i++)
        p->bytes += p->extent[i].bytes;
    r->used += forward_own_bytes(m->forward);
}

int residency_start(struct residency *r, bool strict, struct error *e) {
    const struct pool_model *largest = NULL;
    for (size_t i = 0; i < r->models; i++) {
        const struct pool_model *m = &r->model[i];
        if (largest == NULL || m->residence.bytes > largest->residence.bytes)
            largest = m;
    }
    size_t least = (largest != NULL ? largest->residence.bytes : 0) + r->kv->limit + r->used;
    if (least <= r->limit || largest == NULL)
        return 0;
    if (strict)
        return error_set(e, ERR_NO_MEMORY,
                         "model %s takes %zu MiB, and KV pages up to %zu: that is more than the %zu MiB that "
                         "both may take together",
                         largest->name, largest->residence.bytes >> 20, r->kv->limit >> 20, r->limit >> 20);
    log_warn("this machine has little memory for model %s (%zu MiB) beside KV pages (%zu MiB)", largest->name,
             largest->residence.bytes >> 20, r->kv->limit >> 20);
    r->limit = least;
    return 0;
}

/* ---- the loader's work ---- */

static void begin(struct residency *r, struct pool_model *m, int64_t now) {
    r->moving = m;
    r->moving_since = now;
}

static void load(struct residency *r, struct pool_model *m, int64_t now) {
    m->residence.state = LOADING;
    m->residence.tried = true;
    r->used += m->residence.bytes;
    begin(r, m, now);
    loader_read(r->loader, m->residence.extent, m->residence.extents);
}

static void evict(struct residency *r, struct pool_model *m, int64_t now) {
    m->residence.state = LEAVING;
    m->residence.closing = false;
    r->evictions++;
    begin(r, m, now);
    loader_drop(r->loader, m->residence.extent, m->residence.extents);
}

/* False: it is not done yet. */
static bool finish(struct residency *r, int64_t now) {
    if (r->moving == NULL)
        return true;
    if (loader_busy(r->loader))
        return false;
    struct residence *p = &r->moving->residence;
    r->moving = NULL;
    if (p->state == LEAVING) {
        p->state = COLD;
        r->used -= p->bytes;
        return true;
    }
    p->state = RESIDENT;
    p->loaded = now;
    p->wanted = 0;
    p->loads++;
    p->load_ns += now - r->moving_since;
    return true;
}

/* ---- decisions ---- */

/* Has m a sequence that would step now (one that waits for its client would not)? Among those that hold a slot alone? */
static bool has_work(const struct pool_model *m, bool started) {
    for (const struct sequence *q = m->first; q != NULL; q = q->next)
        if ((q->started || !started) && !sequence_blocked(q))
            return true;
    return false;
}

static void note_use(struct residency *r, int64_t now) {
    for (size_t i = 0; i < r->models; i++) {
        struct residence *p = &r->model[i].residence;
        p->busy = has_work(&r->model[i], false);
        if (!p->busy)
            p->wanted = 0;
        else if (p->state == RESIDENT)
            p->used = now;
        else if (p->wanted == 0)
            p->wanted = now;
    }
}

/* The one that somebody has waited for longest; else the first that has never been in memory and has room there. */
static struct pool_model *next_to_load(const struct residency *r, size_t room) {
    struct pool_model *next = NULL;
    for (size_t i = 0; i < r->models; i++) {
        struct pool_model *m = &r->model[i];
        if (m->residence.state == COLD && m->residence.wanted != 0 &&
            (next == NULL || m->residence.wanted < next->residence.wanted))
            next = m;
    }
    for (size_t i = 0; i < r->models && next == NULL; i++) {
        struct residence *p = &r->model[i].residence;
        if (p->state == COLD && !p->tried && r->used + p->bytes <= room)
            next = &r->model[i];
    }
    return next;
}

/* The one that nobody has used for longest; a closed one is used until what runs on it has ended. NULL: all are in use. */
static struct pool_model *least_recently_used(const struct residency *r) {
    struct pool_model *least = NULL;
    for (size_t i = 0; i < r->models; i++) {
        struct pool_model *m = &r->model[i];
        bool used = m->residence.closing ? has_work(m, true) : m->residence.busy;
        if (m->residence.state == RESIDENT && !used &&
            (least == NULL || m->residence.used < least->residence.used))
            least = m;
    }
    return least;
}

/* The open one with the fewest sequences: the fewer wait for it to be back. */
static struct pool_model *least_popular(const struct residency *r) {
    struct pool_model *least = NULL;
    for (size_t i = 0; i < r->models; i++) {
        struct pool_model *m = &r->model[i];
        if (m->residence.state == RESIDENT && !m->residence.closing &&
            (least == NULL || m->live < least->live ||
             (m->live == least->live && m->residence.loaded < least->residence.loaded)))
            least = m;
    }
    return least;
}

/* All that are in memory are in use: close as many as must go. Returns when the next one's turn is over. */
static int64_t close_some(struct residency *r, size_t too_much, int64_t now) {
    size_t leaving = 0;
    for (size_t i = 0; i < r->models; i++)
        leaving += r->model[i].residence.closing ? r->model[i].residence.bytes : 0;
    while (leaving < too_much) {
        struct pool_model *m = least_popular(r);
        if (m == NULL)
            break;
        if (m->residence.loaded + TURN_NS > now)
            return m->residence.loaded + TURN_NS;
        m->residence.closing = true;
        leaving += m->residence.bytes;
    }
    return INT64_MAX;
}

static void open_all(struct residency *r) {
    for (size_t i = 0; i < r->models; i++)
        r->model[i].residence.closing = false;
}

int64_t residency_tend(struct residency *r, int64_t now) {
    bool idle = finish(r, now);
    note_use(r, now);
    if (!idle)
        return INT64_MAX;
    size_t room = r->limit > r->kv->resident ? r->limit - r->kv->resident : 0;
    struct pool_model *next = next_to_load(r, room);
    size_t wanted = r->used + (next != NULL ? next->residence.bytes : 0);
    if (wanted <= room) {
        open_all(r);
        if (next != NULL)
            load(r, next, now);
        return INT64_MAX;
    }
    int64_t again = INT64_MAX;
    struct pool_model *least = least_recently_used(r);
    if (least == NULL) {
        again = close_some(r, wanted - room, now);
        least = least_recently_used(r);
    }
    if (least != NULL)
        evict(r, least, now);
    return again;
}
