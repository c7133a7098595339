/* The writer: one thread takes all that is queued, writes it in one transaction, commits, and only then says that it is durable (group commit).
 * Entries are written in the order in which memory changed, so that whatever a crash leaves is a past state of the memory. An error of the database stops the
 * money path for good: nothing is retried, and nothing more is admitted. */
#include "cloud/inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one entry ---- */

static int write_hold(struct store *s, const struct hold *h, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q,
        "INSERT INTO request (id, tenant, key, model, price, at, prompt, most, hold, sent, cached, state,"
        " charge, chip_ns, first_token_ns, total_ns)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0, 0, 'open', 0, 0, 0, 0)",
        e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(h->id));
    query_int(q, 2, h->tenant->id);
    query_int(q, 3, h->key);
    query_text(q, 4, str_from(h->model));
    query_int(q, 5, h->price);
    query_int(q, 6, h->at);
    query_int(q, 7, (int64_t)h->prompt);
    query_int(q, 8, (int64_t)h->most);
    query_int(q, 9, h->held);
    return query_run(q, e);
}

static int write_sent(struct store *s, struct str id, uint64_t sent, uint64_t cached, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "UPDATE request SET sent = $2, cached = $3 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, id);
    query_int(q, 2, (int64_t)sent);
    query_int(q, 3, (int64_t)cached);
    return query_run(q, e);
}

/* What a settlement writes, from a live hold or from recovery. */
struct settling {
    struct str id;
    int64_t account, at, remainder;
    const char *currency;
    amount charge;
    struct settlement s;
};

static int write_settlement(struct store *s, const struct settling *w, struct error *e) {
    static const char *const state[] = {"done", "cancelled", "failed"};
    char revenue[32], id[REQUEST_ID_BYTES + 16];
    struct query *q;
    struct transfer t = {.kind = STR("settle"), .debit = w->account, .value = w->charge, .at = w->at};
    snprintf(revenue, sizeof revenue, "revenue:%s", w->currency);
    snprintf(id, sizeof id, "settle:%.*s", (int)w->id.n, w->id.p);
    t.id = str_from(id);
    int rc = ledger_account(s, revenue, w->currency, &t.credit, e);
    if (rc != 0 || (rc = ledger_transfer(s, &t, NULL, e)) != 0 ||
        (rc = store_query(s, &q, "UPDATE account SET remainder = $2 WHERE id = $1", e)) != 0)
        return rc;
    query_int(q, 1, w->account);
    query_int(q, 2, w->remainder);
    if ((rc = query_run(q, e)) != 0 ||
        (rc = store_query(s, &q,
                          "UPDATE request SET state = $2, sent = $3, cached = $4, charge = $5, chip_ns = $6,"
                          " first_token_ns = $7, total_ns = $8 WHERE id = $1",
                          e)) != 0)
        return rc;
    query_text(q, 1, w->id);
    query_text(q, 2, str_from(state[w->s.outcome]));
    query_int(q, 3, (int64_t)w->s.completion_tokens);
    query_int(q, 4, (int64_t)w->s.cached_tokens);
    query_int(q, 5, w->charge);
    query_int(q, 6, w->s.chip_ns);
    query_int(q, 7, w->s.first_token_ns);
    query_int(q, 8, w->s.total_ns);
    return query_run(q, e);
}

static struct hold *hold_of(struct entry *entry) {
    size_t offset = entry->kind == ENTRY_HOLD   ? offsetof(struct hold, placed)
                    : entry->kind == ENTRY_SENT ? offsetof(struct hold, journal)
                                                : offsetof(struct hold, settled);
    return (struct hold *)(void *)((char *)entry - offset);
}

static int write_entry(struct cloud *c, struct entry *entry, struct error *e) {
    struct hold *h = hold_of(entry);
    if (entry->kind == ENTRY_HOLD)
        return write_hold(c->store, h, e);
    if (entry->kind == ENTRY_SENT)
        return write_sent(c->store, str_from(h->id), h->writing_sent, h->writing_cached, e);
    struct settling w = {.id = str_from(h->id),
                         .account = h->tenant->account,
                         .at = clock_wall_ns(),
                         .remainder = h->remainder,
                         .currency = h->tenant->currency,
                         .charge = h->charge,
                         .s = h->settlement};
    return write_settlement(c->store, &w, e);
}

/* ---- groups ---- */

static void broke(struct cloud *c, const struct error *e) {
    pthread_mutex_lock(&c->lock);
    c->why = *e;
    atomic_store(&c->broken, true);
    pthread_mutex_unlock(&c->lock);
    log_error("the books have stopped, no request is admitted until the server is started again: %s",
              e->text);
}

static int write_group(struct cloud *c, struct entry *group, struct error *e) {
    int rc = store_begin(c->store, e);
    for (struct entry *i = group; rc == 0 && i != NULL; i = i->beside)
        rc = write_entry(c, i, e);
    if (rc == 0)
        rc = store_commit(c->store, e);
    if (rc != 0)
        store_rollback(c->store);
    return rc;
}

/* The group was written or is given up: say what is durable, and let go of what was settled. */
static void group_done(struct entry *group, bool durable) {
    for (struct entry *i = group, *beside; i != NULL; i = beside) {
        beside = i->beside;
        struct hold *h = hold_of(i);
        if (i->kind == ENTRY_HOLD)
            atomic_store(&h->durable, durable);
        else if (i->kind == ENTRY_SETTLE)
            free(h);
        else if (durable)
            atomic_store(&h->durable_sent, h->writing_sent);
    }
}

static void run_call(struct cloud *c, struct call *call) {
    int rc = atomic_load(&c->broken) ? error_set(&call->error, ERR_UNAVAILABLE, "%s", c->why.text)
                                     : store_begin(c->store, &call->error);
    if (rc == 0 && (rc = call->run(c, call->context, &call->error)) == 0)
        rc = store_commit(c->store, &call->error);
    if ((rc == ERR_IO || rc == ERR_CORRUPT) && !atomic_load(&c->broken))
        broke(c, &call->error); /* memory may have changed already */
    if (rc != 0)
        store_rollback(c->store);
    pthread_mutex_lock(&c->lock);
    call->rc = rc;
    call->done = true;
    pthread_cond_broadcast(&c->called);
    pthread_mutex_unlock(&c->lock);
}

/* Under the lock: the entries up to the next call, or that call alone. */
static struct entry *take_group(struct cloud *c) {
    struct entry *group = c->first, **link = &group;
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
        }
    } while (c->first != NULL && c->first->kind != ENTRY_CALL && group->kind != ENTRY_CALL);
    *link = NULL;
    if (c->first == NULL)
        c->last = &c->first;
    return group;
}

static void *writer_main(void *context) {
    struct cloud *c = context;
    struct error e = {0};
    for (;;) {
        pthread_mutex_lock(&c->lock);
        while (c->first == NULL && !c->stopping)
            pthread_cond_wait(&c->wake, &c->lock);
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
        pthread_mutex_lock(&c->lock);
        c->stats.commits += durable;
        pthread_mutex_unlock(&c->lock);
        group_done(group, durable);
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
    pthread_cond_signal(&c->wake);
}

int journal_call(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e), void *context,
                 struct error *e) {
    struct call call = {.entry = {.kind = ENTRY_CALL}, .run = run, .context = context};
    pthread_mutex_lock(&c->lock);
    journal_put(c, &call.entry);
    while (!call.done)
        pthread_cond_wait(&c->called, &c->lock);
    pthread_mutex_unlock(&c->lock);
    if (call.rc != 0 && e != NULL)
        *e = call.error;
    return call.rc;
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

/* ---- recovery ---- */

/* The first request that a crash left open, settled for what its journal says was sent. 1: there was one. */
static int recover_one(struct store *s, struct error *e) {
    struct query *q;
    struct settling w = {.at = clock_wall_ns(), .s = {.outcome = OUTCOME_FAILED}};
    struct tariff tariff = {0};
    char id[REQUEST_ID_BYTES], currency[4];
    int rc =
        store_query(s, &q,
                    "SELECT r.id, t.account, t.currency, r.prompt, r.sent, r.cached, a.remainder, r.hold,"
                    " coalesce(p.input, 0), coalesce(p.cached, 0), coalesce(p.output, 0) FROM request r"
                    " JOIN tenant t ON t.id = r.tenant JOIN account a ON a.id = t.account"
                    " LEFT JOIN price p ON p.id = r.price WHERE r.state = 'open' LIMIT 1",
                    e);
    if (rc != 0 || (rc = query_step(q, e)) <= 0)
        return rc;
    struct str text = query_column_text(q, 0), money = query_column_text(q, 2);
    snprintf(id, sizeof id, "%.*s", (int)text.n, text.p);
    snprintf(currency, sizeof currency, "%.*s", (int)money.n, money.p);
    w.id = str_from(id);
    w.currency = currency;
    w.account = query_column_int(q, 1);
    uint64_t prompt = (uint64_t)query_column_int(q, 3);
    w.s.completion_tokens = (uint64_t)query_column_int(q, 4);
    w.s.cached_tokens = (uint64_t)query_column_int(q, 5);
    w.remainder = query_column_int(q, 6);
    amount held = query_column_int(q, 7);
    tariff = (struct tariff){query_column_int(q, 8), query_column_int(q, 9), query_column_int(q, 10)};
    if ((rc = query_run(q, e)) != 0)
        return rc;
    if (w.s.completion_tokens > 0) {
        money_wide cost = w.remainder + tariff_cost(&tariff, prompt - w.s.cached_tokens, w.s.cached_tokens,
                                                    w.s.completion_tokens);
        w.charge = cost / 1000 > held ? held : (amount)(cost / 1000);
        w.remainder = cost / 1000 > held ? 0 : (int64_t)(cost % 1000);
    }
    rc = write_settlement(s, &w, e);
    return rc != 0 ? rc : 1;
}

int journal_recover(struct cloud *c, struct error *e) {
    int n = 0, rc = store_begin(c->store, e);
    if (rc != 0)
        return rc;
    while ((rc = recover_one(c->store, e)) > 0)
        n++;
    if (rc == 0)
        rc = store_commit(c->store, e);
    if (rc == ERR_CONFLICT) /* nobody else has the books open, as that would say to our caller */
        rc = e->code = ERR_CORRUPT;
    if (rc != 0)
        store_rollback(c->store);
    else if (n > 0)
        log_warn("%d requests were cut off by the last end of the server; each is settled for what was sent",
                 n);
    return rc;
}
