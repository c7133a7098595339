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
    rc = query_run(q, e);
    return rc != 0 || h->answer == NULL ? rc : answer_write_running(s, h, e);
}

static int write_sent(struct store *s, const struct hold *h, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "UPDATE request SET sent = $2, cached = $3 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(h->id));
    query_int(q, 2, (int64_t)h->writing_sent);
    query_int(q, 3, (int64_t)h->writing_cached);
    return query_run(q, e);
}

/* What a settlement writes, from a live hold or from recovery: the request's record as it will stand, and the charge. */
struct settling {
    struct str id;
    int64_t account, revenue, at;
    struct usage_record usage;
};

static struct str state_of(enum outcome outcome) {
    static const char *const state[] = {"done", "cancelled", "failed"};
    return str_from(state[outcome]);
}

static int write_request(struct store *s, const struct settling *w, struct error *e) {
    const struct usage_record *u = &w->usage;
    struct query *q;
    int rc = store_query(s, &q,
                         "UPDATE request SET state = $2, sent = $3, cached = $4, charge = $5, chip_ns = $6,"
                         " prefill_ns = $7, first_token_ns = $8, total_ns = $9 WHERE id = $1",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, w->id);
    query_text(q, 2, u->state);
    query_int(q, 3, u->sent);
    query_int(q, 4, u->cached);
    query_int(q, 5, u->charge);
    query_int(q, 6, u->chip_ns);
    query_int(q, 7, u->prefill_ns);
    query_int(q, 8, u->first_token_ns);
    query_int(q, 9, u->total_ns);
    return query_run(q, e);
}

/* The charge and the usage record. The balances follow, unless it was written before. */
static int write_settlement(struct ledger *l, const struct settling *w, bool *again, struct error *e) {
    char id[REQUEST_ID_BYTES + 16];
    struct transfer t = {.kind = STR("settle"),
                         .debit = w->account,
                         .credit = w->revenue,
                         .value = w->usage.charge,
                         .at = w->at,
                         .usage = &w->usage};
    snprintf(id, sizeof id, "settle:%.*s", (int)w->id.n, w->id.p);
    t.id = str_from(id);
    int rc = ledger_record(l, &t, again, e);
    return rc != 0 ? rc : write_request(l->store, w, e);
}

static int write_remainder(struct store *s, int64_t account, int64_t remainder, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "UPDATE account SET remainder = $2 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, account);
    query_int(q, 2, remainder);
    return query_run(q, e);
}

/* ---- the accounts of a group: many charges change few of them, so each is written once ---- */

static int find_revenue(struct ledger *l, const char *currency, int64_t *account, struct error *e) {
    char name[32];
    snprintf(name, sizeof name, "revenue:%s", currency);
    return ledger_account(l, name, currency, account, e);
}

static int need_revenue(struct cloud *c, const char *currency, struct revenue **out, struct error *e) {
    struct revenue *r = c->revenues;
    while (r != NULL && strcmp(r->currency, currency) != 0)
        r = r->next;
    *out = r;
    if (r != NULL)
        return 0;
    if ((r = calloc(1, sizeof *r)) == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for an account");
    snprintf(r->currency, sizeof r->currency, "%s", currency);
    int rc = find_revenue(&c->ledger, currency, &r->account, e);
    if (rc != 0) {
        free(r);
        return rc;
    }
    r->next = c->revenues;
    *out = c->revenues = r;
    return 0;
}

static int write_charge(struct cloud *c, const struct hold *h, struct error *e) {
    struct tenant *t = h->tenant;
    struct revenue *r;
    bool again;
    int rc = need_revenue(c, t->currency, &r, e);
    if (rc != 0)
        return rc;
    const struct settlement *done = &h->settlement;
    struct settling w = {.id = str_from(h->id),
                         .account = t->account,
                         .revenue = r->account,
                         .at = clock_wall_ns(),
                         .usage = {.model = str_from(h->model),
                                   .state = state_of(done->outcome),
                                   .tenant = t->id,
                                   .key = h->key,
                                   .price = h->price,
                                   .rate = RATE_ONE,
                                   .at = h->at,
                                   .prompt = (int64_t)h->prompt,
                                   .most = (int64_t)h->most,
                                   .hold = h->held,
                                   .sent = (int64_t)done->completion_tokens,
                                   .cached = (int64_t)done->cached_tokens,
                                   .charge = h->charge,
                                   .chip_ns = done->chip_ns,
                                   .prefill_ns = done->prefill_ns,
                                   .first_token_ns = done->first_token_ns,
                                   .total_ns = done->total_ns}};
    rc = write_settlement(&c->ledger, &w, &again, e);
    if (rc == 0 && h->answer != NULL)
        rc = answer_write_end(c->store, h, e);
    if (rc != 0 || again)
        return rc;
    if (!t->charged) {
        t->charged = true;
        t->charges = 0;
        t->next_charged = c->charged;
        c->charged = t;
    }
    t->charged_remainder = h->remainder;
    if (__builtin_add_overflow(t->charges, h->charge, &t->charges) ||
        __builtin_add_overflow(r->charges, h->charge, &r->charges))
        return error_set(e, ERR_INVALID, "the charges would be too large");
    return 0;
}

static int write_accounts(struct cloud *c, struct error *e) {
    int rc = 0;
    for (struct tenant *t; rc == 0 && (t = c->charged) != NULL; c->charged = t->next_charged) {
        t->charged = false;
        rc = ledger_add(&c->ledger, t->account, -t->charges, e);
        if (rc == 0)
            rc = write_remainder(c->store, t->account, t->charged_remainder, e);
    }
    for (struct revenue *r = c->revenues; rc == 0 && r != NULL; r = r->next) {
        if (r->charges != 0)
            rc = ledger_add(&c->ledger, r->account, r->charges, e);
        r->charges = 0;
    }
    return rc;
}

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
    if (entry->kind == ENTRY_HOLD)
        return write_hold(c->store, h, e);
    if (entry->kind == ENTRY_SENT)
        return h->ended ? 0 : write_sent(c->store, h, e);
    return write_charge(c, h, e);
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
    for (struct entry *i = group; rc == 0 && i != NULL; i = i->beside)
        rc = write_entry(c, i, e);
    if (rc == 0)
        rc = write_accounts(c, e);
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
                                     : ledger_begin(&c->ledger, &call->error);
    if (rc == 0 && (rc = call->run(c, call->context, &call->error)) == 0)
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
        while (c->first == NULL && !c->stopping) {
            c->waiting = true;
            pthread_cond_wait(&c->wake, &c->lock);
        }
        c->waiting = false;
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
    for (struct revenue *r = c->revenues, *next; r != NULL; r = next) {
        next = r->next;
        free(r);
    }
}

/* ---- recovery ---- */

/* The first request that a crash left open: its record as it stands, and what its prices are. The texts live until the next query. 1: there is one. */
static int read_open(struct store *s, struct settling *w, struct str *currency, int64_t *remainder,
                     struct tariff *tariff, struct query **q, struct error *e) {
    int column = 4;
    int rc = store_query(
        s, q,
        "SELECT r.id, r.model, r.node, r.route, r.tenant, r.key, r.price, r.rate, r.at, r.prompt, r.most,"
        " r.hold, r.sent, r.cached, coalesce(p.input, 0), coalesce(p.cached, 0), coalesce(p.output, 0),"
        " t.account, a.remainder, t.currency FROM request r JOIN tenant t ON t.id = r.tenant"
        " JOIN account a ON a.id = t.account LEFT JOIN price p ON p.id = r.price"
        " WHERE r.state = 'open' LIMIT 1",
        e);
    if (rc != 0 || (rc = query_step(*q, e)) <= 0)
        return rc;
    struct usage_record *u = &w->usage;
    int64_t *const number[] = {&u->tenant,     &u->key,         &u->price,       &u->rate,    &u->at,
                               &u->prompt,     &u->most,        &u->hold,        &u->sent,    &u->cached,
                               &tariff->input, &tariff->cached, &tariff->output, &w->account, remainder};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        *number[i] = query_column_int(*q, column++);
    w->id = query_column_text(*q, 0);
    u->model = query_column_text(*q, 1);
    u->node = query_column_text(*q, 2);
    u->route = query_column_text(*q, 3);
    *currency = query_column_text(*q, column);
    return 1;
}

/* Settle it for what its journal says was sent. 1: there was one. */
static int recover_one(struct ledger *l, struct error *e) {
    struct settling w = {.at = clock_wall_ns(), .usage = {.state = state_of(OUTCOME_FAILED)}};
    struct usage_record *u = &w.usage;
    struct query *q;
    struct tariff tariff = {0};
    struct str text = {0};
    int64_t remainder = 0;
    bool again;
    char currency[4];
    int rc = read_open(l->store, &w, &text, &remainder, &tariff, &q, e);
    if (rc <= 0)
        return rc;
    if (u->prompt < 0 || u->cached < 0 || u->cached > u->prompt || u->sent < 0 || u->hold < 0)
        return error_set(e, ERR_CORRUPT, "the request %.*s of the books is damaged",
                         (int)(w.id.n < 60 ? w.id.n : 60), w.id.p);
    snprintf(currency, sizeof currency, "%.*s", (int)text.n, text.p);
    if (u->sent > 0) {
        money_wide cost = remainder + tariff_cost(&tariff, (uint64_t)(u->prompt - u->cached),
                                                  (uint64_t)u->cached, (uint64_t)u->sent);
        u->charge = cost / 1000 > u->hold ? u->hold : (amount)(cost / 1000);
        remainder = cost / 1000 > u->hold ? 0 : (int64_t)(cost % 1000);
    }
    if ((rc = find_revenue(l, currency, &w.revenue, e)) != 0 ||
        (rc = write_settlement(l, &w, &again, e)) != 0 ||
        (rc = answer_recover(l->store, w.id, u->sent > 0, e)) != 0 || (rc = query_run(q, e)) != 0 ||
        (rc = write_remainder(l->store, w.account, remainder, e)) != 0)
        return rc;
    if (!again && ((rc = ledger_add(l, w.account, -u->charge, e)) != 0 ||
                   (rc = ledger_add(l, w.revenue, u->charge, e)) != 0))
        return rc;
    return 1;
}

int journal_recover(struct cloud *c, struct error *e) {
    int n = 0, rc = ledger_begin(&c->ledger, e);
    if (rc != 0)
        return rc;
    while ((rc = recover_one(&c->ledger, e)) > 0)
        n++;
    if (rc == 0)
        rc = ledger_commit(&c->ledger, e);
    if (rc == ERR_CONFLICT) /* nobody else has the books open, as that would say to our caller */
        rc = e->code = ERR_CORRUPT;
    if (rc != 0)
        ledger_rollback(&c->ledger);
    else if (n > 0)
        log_warn("%d requests were cut off by the last end of the server; each is settled for what was sent",
                 n);
    return rc;
}
