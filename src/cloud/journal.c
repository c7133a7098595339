/* The writer: one thread takes all that is queued, writes it in one transaction, commits, and only then says that it is durable (group commit).
 * Entries are written in the order in which memory changed, so that whatever a crash leaves is a past state of the memory. An error of the database stops the
 * money path for good: nothing is retried, and nothing more is admitted. A server of a database that is gone may come back: see away.c. */
#include "cloud/inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

enum { LOOK_NS = 50000000 };

/* ---- groups ---- */

struct hold *journal_hold(struct entry *entry) {
    size_t offset = entry->kind == ENTRY_HOLD   ? offsetof(struct hold, placed)
                    : entry->kind == ENTRY_SENT ? offsetof(struct hold, journal)
                                                : offsetof(struct hold, settled);
    return (struct hold *)(void *)((char *)entry - offset);
}

static int write_entry(struct cloud *c, struct entry *entry, struct error *e) {
    if (entry->kind == ENTRY_FIND)
        return find_run(c->store, entry, e);
    struct hold *h = journal_hold(entry);
    if (entry->kind == ENTRY_HOLD)
        return settle_hold(c, h, e);
    if (entry->kind == ENTRY_SENT)
        return h->ended ? 0 : settle_sent(c, h, e);
    return settle_charge(c, h, e);
}

static void broke(struct cloud *c, const struct error *e) {
    pthread_mutex_lock(&c->lock);
    c->why = *e;
    atomic_store(&c->broken, true);
    pthread_mutex_unlock(&c->lock);
    log_error("the books have stopped, no request is admitted until the server is started again: %s",
              e->text);
}

int journal_begin(struct cloud *c, struct error *e) {
    int rc = ledger_begin(&c->ledger, e);
    return rc != 0 ? rc : shared_refresh(c, e);
}

int journal_commit(struct cloud *c, struct error *e) {
    int rc = settle_group(c, e);
    if (rc != 0 || (rc = ledger_commit(&c->ledger, e)) != 0)
        return rc;
    settle_done(c);
    shared_committed(c);
    return 0;
}

void journal_rollback(struct cloud *c) {
    ledger_rollback(&c->ledger);
    settle_undo(c);
}

int journal_write(struct cloud *c, struct entry *group, struct hold *behind, struct error *e) {
    int rc = journal_begin(c, e);
    c->now = clock_wall_ns();
    for (struct entry *i = group; rc == 0 && i != NULL; i = i->beside)
        rc = write_entry(c, i, e);
    for (const struct hold *h = behind; rc == 0 && h != NULL; h = h->next_behind)
        rc = settle_sent(c, h, e);
    if (rc == 0)
        rc = journal_commit(c, e);
    if (rc != 0)
        journal_rollback(c);
    return rc;
}

/* Its asker, who may free it at once, hears what became of it. */
static void hold_decided(struct cloud *c, struct hold *h, bool durable) {
    struct error why = {0};
    if (!durable)
        error_set(&why, ERR_UNAVAILABLE, "the books have stopped: %s", c->why.text);
    if (!durable || h->refused) {
        hold_refuse(h, &why);
        return;
    }
    pthread_mutex_lock(&c->lock);
    c->stats.admitted++;
    c->stats.open_holds++;
    pthread_mutex_unlock(&c->lock);
    atomic_store(&h->durable, true);
    atomic_store(&h->verdict, HOLD_GRANTED);
}

/* The group was written or is given up: say what is durable, and let go of what was settled. */
static void group_done(struct cloud *c, struct entry *group, bool durable) {
    uint32_t holds = 0;
    for (const struct entry *i = group; i != NULL; i = i->beside)
        holds += i->kind == ENTRY_HOLD;
    pthread_mutex_lock(&c->lock);
    c->stats.commits += durable;
    c->undurable -= holds;
    pthread_mutex_unlock(&c->lock);
    for (struct entry *i = group, *beside; i != NULL; i = beside) {
        beside = i->beside;
        if (i->kind == ENTRY_FIND) {
            find_done(c, i, durable);
            continue;
        }
        struct hold *h = journal_hold(i);
        if (i->kind == ENTRY_HOLD && c->shared != NULL) {
            hold_decided(c, h, durable);
        } else if (i->kind == ENTRY_HOLD) {
            atomic_store(&h->durable, durable);
        } else if (i->kind == ENTRY_SETTLE) {
            if (h->answer != NULL)
                answer_give_back(c, h->answer, durable && h->fence == shared_fence(c));
            free(h);
        } else if (durable) {
            atomic_store(&h->durable_sent, h->writing_sent);
        }
    }
}

/* The database has gone: what could not be written, or it is not known whether it was, is kept. */
static int go_away(struct cloud *c, struct entry *group, const struct error *e) {
    struct error why = *e, spool = {0};
    int rc = away_begin(c, group, &why, &spool);
    if (rc != 0)
        broke(c, &spool);
    return rc;
}

static int call_error(struct cloud *c, struct call *call) {
    return atomic_load(&c->broken)    ? error_set(&call->error, ERR_UNAVAILABLE, "%s", c->why.text)
           : atomic_load(&c->is_away) ? cloud_is_away(&call->error)
           : call->between            ? 0
                                      : journal_begin(c, &call->error);
}

static void run_call(struct cloud *c, struct call *call) {
    int rc = call_error(c, call), ran = ERR_UNAVAILABLE;
    bool here = !atomic_load(&c->broken) && !atomic_load(&c->is_away);
    if (rc == 0 && (rc = ran = call->run(c, call->context, &call->error)) == 0 && !call->between)
        rc = journal_commit(c, &call->error);
    if (rc != 0)
        journal_rollback(c);
    /* Memory may have changed already, and when the database goes in a commit it is not known whether the books have. */
    if (here && (rc == ERR_IO || rc == ERR_CORRUPT ||
                 (rc == ERR_UNAVAILABLE && ran == 0 && !call->harmless && store_wrote(c->store))))
        broke(c, &call->error);
    else if (here && rc == ERR_UNAVAILABLE && store_is_url(cloud_where(c->folder)))
        go_away(c, NULL, &call->error);
    pthread_mutex_lock(&c->lock);
    call->rc = rc;
    call->done = true;
    pthread_cond_broadcast(&c->called);
    pthread_mutex_unlock(&c->lock);
}

/* Under the lock: the entries up to the next call, or that call alone. */
static struct entry *take_group(struct cloud *c) {
    struct entry *group = c->first, **link = &group;
    c->groups++;
    do {
        struct entry *i = c->first;
        c->first = i->next;
        c->stats.queue--;
        i->queued = false;
        *link = i;
        link = &i->beside;
        if (i->kind == ENTRY_SENT) {
            journal_hold(i)->writing_sent = journal_hold(i)->sent;
            journal_hold(i)->writing_cached = journal_hold(i)->cached;
            journal_hold(i)->ended = journal_hold(i)->settled.queued;
        }
        if (i->kind == ENTRY_HOLD)
            journal_hold(i)->group = c->groups;
        if (i->kind == ENTRY_SETTLE)
            journal_hold(i)->whole = journal_hold(i)->group == c->groups;
    } while (c->first != NULL && c->first->kind != ENTRY_CALL && group->kind != ENTRY_CALL);
    *link = NULL;
    if (c->first == NULL)
        c->last = &c->first;
    return group;
}

/* ---- what happens by itself ---- */

void journal_expire_at(struct cloud *c, int64_t at) {
    if (at > 0 && at < c->next_expiry)
        c->next_expiry = at;
}

/* What is over; and where nodes share the books, what a second brings. */
static void do_due(struct cloud *c) {
    struct error e = {0};
    int64_t now = clock_wall_ns(), next = 0;
    int rc = journal_begin(c, &e);
    if (rc == 0 && (rc = ledger_expire(c, now, &next, &e)) == 0 && c->shared != NULL)
        rc = shared_tick(c, &e);
    if (rc == 0)
        rc = journal_commit(c, &e);
    c->next_expiry = rc == 0 ? next : now;
    if (rc != 0)
        journal_rollback(c);
    if (rc == ERR_UNAVAILABLE)
        go_away(c, NULL, &e);
    else if (rc != 0)
        broke(c, &e);
}

/* Under the lock: wait for an entry, but no longer than until something expires, or it is time to look for the database again. By the monotonic clock: the
 * other one may be set meanwhile. */
static void wait_for_entry(struct cloud *c) {
    struct timespec until;
    c->waiting = true;
    if (c->away == NULL && c->next_expiry == INT64_MAX && c->shared == NULL) {
        pthread_cond_wait(&c->wake, &c->lock);
    } else {
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_nsec += c->away != NULL ? LOOK_NS : 1000000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&c->wake, &c->lock, &until);
    }
    c->waiting = false;
}

static void write_or_keep(struct cloud *c, struct entry *group) {
    struct error e = {0};
    bool durable = !atomic_load(&c->broken); /* what is not written any more is settled by recovery */
    if (durable) {
        int rc = c->away != NULL ? away_keep(c, group, &e) : journal_write(c, group, NULL, &e);
        if (rc == ERR_UNAVAILABLE && go_away(c, group, &e) == 0)
            return;
        if (rc == 0 && c->away != NULL)
            return;
        if (rc != 0 && !atomic_load(&c->broken))
            broke(c, &e);
        durable = rc == 0;
    }
    group_done(c, group, durable);
}

static void *writer_main(void *context) {
    struct cloud *c = context;
    struct error e = {0};
    for (;;) {
        bool broken = atomic_load(&c->broken);
        if (c->away != NULL && !broken && away_try(c, &e) != 0)
            broke(c, &e);
        if (c->away == NULL && !broken && (clock_wall_ns() >= c->next_expiry || shared_due(c)))
            do_due(c);
        pthread_mutex_lock(&c->lock);
        if (c->first == NULL && !c->stopping)
            wait_for_entry(c);
        bool over = c->first == NULL && c->stopping;
        struct entry *group = c->first != NULL ? take_group(c) : NULL;
        pthread_mutex_unlock(&c->lock);
        if (over)
            return NULL;
        if (group == NULL)
            continue;
        if (group->kind == ENTRY_CALL) {
            run_call(c, (struct call *)(void *)group);
            continue;
        }
        write_or_keep(c, group);
        if (c->on_durable != NULL)
            c->on_durable(c->context);
    }
}

void journal_put(struct cloud *c, struct entry *entry) {
    if (entry->queued)
        return;
    entry->queued = true;
    entry->next = NULL;
    *c->last = entry;
    c->last = &entry->next;
    c->stats.queue++;
    if (c->waiting) {
        c->waiting = false;
        pthread_cond_signal(&c->wake);
    }
}

static int make_call(struct cloud *c, struct call *call, struct error *e) {
    pthread_mutex_lock(&c->lock);
    journal_put(c, &call->entry);
    while (!call->done)
        pthread_cond_wait(&c->called, &c->lock);
    pthread_mutex_unlock(&c->lock);
    if (call->rc != 0 && e != NULL)
        *e = call->error;
    return call->rc;
}

int journal_call(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e), void *context,
                 struct error *e) {
    struct call call = {.entry = {.kind = ENTRY_CALL}, .run = run, .context = context};
    return make_call(c, &call, e);
}

int journal_call_harmless(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e),
                          void *context, struct error *e) {
    struct call call = {.entry = {.kind = ENTRY_CALL}, .harmless = true, .run = run, .context = context};
    return make_call(c, &call, e);
}

int journal_call_between(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e),
                         void *context, struct error *e) {
    struct call call = {.entry = {.kind = ENTRY_CALL}, .between = true, .run = run, .context = context};
    return make_call(c, &call, e);
}

int journal_start(struct cloud *c, struct error *e) {
    c->last = &c->first;
    if (pthread_create(&c->writer, NULL, writer_main, c) != 0)
        return error_set(e, ERR_NO_MEMORY, "cannot start the books' writer");
    c->writing = true;
    return 0;
}

void journal_stop(struct cloud *c) {
    if (!c->writing)
        return;
    pthread_mutex_lock(&c->lock);
    c->stopping = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    pthread_join(c->writer, NULL);
    c->writing = false;
    away_end(c);
}
