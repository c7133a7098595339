/* The writer: one thread takes all that is queued, writes it in one transaction, commits, and only then says that it is durable (group commit).
 * Entries are written in the order in which memory changed, so that whatever a crash leaves is a past state of the memory. An error of the database stops the
 * money path for good: nothing is retried, and nothing more is admitted. */
#include "cloud/inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <stddef.h>
#include <stdlib.h>
#include <time.h>

/* ---- groups ---- */

static struct hold *hold_of(struct entry *entry) {
    size_t offset = entry->kind == ENTRY_HOLD   ? offsetof(struct hold, placed)
                    : entry->kind == ENTRY_SENT ? offsetof(struct hold, journal)
                                                : offsetof(struct hold, settled);
    return (struct hold *)(void *)((char *)entry - offset);
}

static int write_entry(struct cloud *c, struct entry *entry, struct error *e) {
    if (entry->kind == ENTRY_FIND)
        return find_run(c->store, entry, e);
    struct hold *h = hold_of(entry);
    bool again;
    if (entry->kind == ENTRY_HOLD)
        return settle_hold(c, h, e);
    if (entry->kind == ENTRY_SENT)
        return h->ended ? 0 : settle_sent(c, h, e);
    return settle_charge(c, h, &again, e);
}

static void broke(struct cloud *c, const struct error *e) {
    pthread_mutex_lock(&c->lock);
    c->why = *e;
    atomic_store(&c->broken, true);
    pthread_mutex_unlock(&c->lock);
    log_error("the books have stopped, no request is admitted until the server is started again: %s",
              e->text);
}

static int write_group(struct cloud *c, struct entry *group, struct error *e) {
    int rc = ledger_begin(&c->ledger, e);
    c->now = clock_wall_ns();
    for (struct entry *i = group; rc == 0 && i != NULL; i = i->beside)
        rc = write_entry(c, i, e);
    if (rc == 0)
        rc = settle_group(c, e);
    if (rc == 0)
        rc = ledger_commit(&c->ledger, e);
    if (rc != 0)
        ledger_rollback(&c->ledger);
    return rc;
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
        struct hold *h = hold_of(i);
        if (i->kind == ENTRY_HOLD) {
            atomic_store(&h->durable, durable);
        } else if (i->kind == ENTRY_SETTLE) {
            if (h->answer != NULL)
                answer_give_back(c, h->answer, durable);
            free(h);
        } else if (durable) {
            atomic_store(&h->durable_sent, h->writing_sent);
        }
    }
}

static void run_call(struct cloud *c, struct call *call) {
    int rc = atomic_load(&c->broken) ? error_set(&call->error, ERR_UNAVAILABLE, "%s", c->why.text)
             : call->between         ? 0
                                     : ledger_begin(&c->ledger, &call->error);
    if (rc == 0 && (rc = call->run(c, call->context, &call->error)) == 0 && !call->between)
        rc = ledger_commit(&c->ledger, &call->error);
    if ((rc == ERR_IO || rc == ERR_CORRUPT) && !atomic_load(&c->broken))
        broke(c, &call->error); /* memory may have changed already */
    if (rc != 0)
        ledger_rollback(&c->ledger);
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
            hold_of(i)->writing_sent = hold_of(i)->sent;
            hold_of(i)->writing_cached = hold_of(i)->cached;
            hold_of(i)->ended = hold_of(i)->settled.queued;
        }
        if (i->kind == ENTRY_HOLD)
            hold_of(i)->group = c->groups;
        if (i->kind == ENTRY_SETTLE)
            hold_of(i)->whole = hold_of(i)->group == c->groups;
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

static void expire(struct cloud *c) {
    struct error e = {0};
    int64_t next = 0;
    int rc = ledger_begin(&c->ledger, &e);
    if (rc == 0 && (rc = ledger_expire(c, clock_wall_ns(), &next, &e)) == 0)
        rc = ledger_commit(&c->ledger, &e);
    c->next_expiry = next;
    if (rc != 0) {
        ledger_rollback(&c->ledger);
        broke(c, &e);
    }
}

/* Under the lock: wait for an entry, but no longer than until something expires; the clock may be set meanwhile. */
static void wait_for_entry(struct cloud *c) {
    struct timespec until;
    c->waiting = true;
    if (c->next_expiry == INT64_MAX) {
        pthread_cond_wait(&c->wake, &c->lock);
    } else {
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_sec++;
        pthread_cond_timedwait(&c->wake, &c->lock, &until);
    }
    c->waiting = false;
}

static void *writer_main(void *context) {
    struct cloud *c = context;
    struct error e = {0};
    for (;;) {
        if (clock_wall_ns() >= c->next_expiry && !atomic_load(&c->broken))
            expire(c);
        pthread_mutex_lock(&c->lock);
        if (c->first == NULL && !c->stopping)
            wait_for_entry(c);
        if (c->first == NULL && !c->stopping) {
            pthread_mutex_unlock(&c->lock);
            continue;
        }
        if (c->first == NULL) {
            pthread_mutex_unlock(&c->lock);
            return NULL;
        }
        struct entry *group = take_group(c);
        pthread_mutex_unlock(&c->lock);
        if (group->kind == ENTRY_CALL) {
            run_call(c, (struct call *)(void *)group);
            continue;
        }
        bool durable = !atomic_load(&c->broken); /* what is not written any more is settled by recovery */
        if (durable && write_group(c, group, &e) != 0) {
            broke(c, &e);
            durable = false;
        }
        group_done(c, group, durable);
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
}
