/* The database's server is gone for a while. What runs goes on inside its hold: holds and what was sent of them go to a synced file in the data folder instead (the
 * spool), so that a crash then still bills; nothing more is admitted. When the server is back, all of it is written in one transaction. On the yen's journey: a detour. */
#include "cloud/inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TRY_EVERY_MS = 500, SPOOL_NUMBERS = 8, MOST_SPOOL = 1 << 30 };

struct away {
    int spool;
    int64_t next_try, since;
    struct entry *flying; /* holds and settlements of the group whose commit was not answered */
    struct entry *kept;   /* those behind it */
    struct entry **last;
    struct hold *behind; /* whose count of what was sent is in the spool alone */
    struct buf lines;
};

static void spool_path(const struct cloud *c, char path[4200]) {
    snprintf(path, 4200, "%s/spool", c->folder);
}

/* ---- the spool: a line of JSON for a hold, or for what was sent of one ---- */

static void spool_hold(struct buf *out, const struct hold *h) {
    const int64_t number[SPOOL_NUMBERS] = {h->tenant->id,    h->key, h->price,
                                           h->tariff.rate,   h->at,  (int64_t)h->prompt,
                                           (int64_t)h->most, h->held};
    buf_text(out, "{\"hold\":");
    json_write_text(out, h->id);
    buf_text(out, ",\"model\":");
    json_write_text(out, h->model);
    buf_text(out, ",\"route\":");
    json_write_text(out, h->route);
    buf_text(out, ",\"node\":");
    json_write_text(out, h->node);
    for (int i = 0; i < SPOOL_NUMBERS; i++)
        buf_printf(out, "%s%lld", i > 0 ? "," : ",\"n\":[", (long long)number[i]);
    buf_text(out, "]}\n");
}

static void spool_sent(struct buf *out, const struct hold *h, uint64_t sent, uint64_t cached) {
    buf_text(out, "{\"sent\":");
    json_write_text(out, h->id);
    buf_printf(out, ",\"n\":[%llu,%llu]}\n", (unsigned long long)sent, (unsigned long long)cached);
}

static int spool_group(struct cloud *c, const struct entry *group, struct error *e) {
    struct buf *out = &c->away->lines;
    buf_clear(out);
    for (const struct entry *i = group; i != NULL; i = i->beside) {
        if (i->kind == ENTRY_FIND)
            continue;
        const struct hold *h = journal_hold((struct entry *)i);
        if (i->kind == ENTRY_HOLD)
            spool_hold(out, h);
        else if (i->kind == ENTRY_SETTLE)
            spool_sent(out, h, h->settlement.completion_tokens, h->settlement.cached_tokens);
        else if (!h->ended)
            spool_sent(out, h, h->writing_sent, h->writing_cached);
    }
    if (out->failed)
        return error_set(e, ERR_NO_MEMORY, "no memory to keep what was sent");
    if (out->n == 0)
        return 0;
    if (write(c->away->spool, out->p, out->n) != (ssize_t)out->n || fdatasync(c->away->spool) != 0)
        return error_set(e, ERR_IO,
                         "the books' database is away, and what is sent meanwhile cannot be written: %s",
                         strerror(errno));
    return 0;
}

/* ---- while it is away ---- */

static void keep(struct cloud *c, struct entry *group) {
    struct away *a = c->away;
    for (struct entry *i = group, *beside; i != NULL; i = beside) {
        beside = i->beside;
        i->beside = NULL;
        if (i->kind == ENTRY_FIND) {
            find_done(c, i, false);
            continue;
        }
        struct hold *h = journal_hold(i);
        if (i->kind == ENTRY_SENT) {
            if (!h->ended && !h->behind) {
                h->behind = true;
                h->next_behind = a->behind;
                a->behind = h;
            }
            atomic_store(&h->durable_sent, h->writing_sent);
            continue;
        }
        if (i->kind == ENTRY_HOLD) {
            atomic_store(&h->durable, true);
            pthread_mutex_lock(&c->lock);
            c->undurable--;
            pthread_mutex_unlock(&c->lock);
        }
        h->kept_end = i->kind == ENTRY_SETTLE;
        *a->last = i;
        a->last = &i->beside;
    }
}

int away_keep(struct cloud *c, struct entry *group, struct error *e) {
    int rc = spool_group(c, group, e);
    if (rc == 0)
        keep(c, group);
    return rc;
}

int away_begin(struct cloud *c, struct entry *group, const struct error *why, struct error *e) {
    char path[4200];
    struct away *a = c->away = calloc(1, sizeof *a);
    if (a == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to keep what was sent");
    spool_path(c, path);
    a->last = &a->kept;
    a->since = clock_mono_ns();
    a->spool = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (a->spool < 0)
        return error_set(e, ERR_IO, "%.300s: %s", path, strerror(errno));
    atomic_store(&c->is_away, true);
    log_warn("%s; what runs goes on, nothing is admitted until it is back", why->text);
    int rc = away_keep(c, group, e);
    a->flying = a->kept;
    a->kept = NULL;
    a->last = &a->kept;
    return rc;
}

/* ---- when it is back ---- */

static void let_go(struct cloud *c, struct entry *list) {
    for (struct entry *i = list, *beside; i != NULL; i = beside) {
        beside = i->beside;
        if (i->kind != ENTRY_SETTLE)
            continue;
        struct hold *h = journal_hold(i);
        if (h->answer != NULL)
            answer_give_back(c, h->answer, true);
        free(h);
    }
}

/* Those that have ended are written with their end. */
static void forget_ended(struct away *a) {
    for (struct hold **link = &a->behind; *link != NULL;)
        if ((*link)->kept_end)
            *link = (*link)->next_behind;
        else
            link = &(*link)->next_behind;
}

static void away_free(struct cloud *c) {
    struct away *a = c->away;
    for (struct hold *h = a->behind; h != NULL; h = h->next_behind)
        h->behind = false;
    let_go(c, a->flying);
    let_go(c, a->kept);
    if (a->spool >= 0)
        close(a->spool);
    buf_free(&a->lines);
    free(a);
    c->away = NULL;
}

static int write_all(struct cloud *c, bool committed, struct error *e) {
    struct away *a = c->away;
    char path[4200];
    forget_ended(a);
    if (committed) {
        let_go(c, a->flying);
        a->flying = NULL;
    }
    struct entry **end = &a->flying;
    while (*end != NULL)
        end = &(*end)->beside;
    *end = a->kept;
    a->kept = NULL;
    a->last = &a->kept;
    int rc = journal_write(c, a->flying, a->behind, e);
    if (rc != 0)
        return rc;
    spool_path(c, path);
    if (unlink(path) != 0)
        log_warn("%s cannot be removed: %s", path,
                 strerror(errno)); /* what it says is written already: the next start sees that */
    log_info("the books' database is back after %lld seconds",
             (long long)((clock_mono_ns() - a->since) / 1000000000));
    away_free(c);
    atomic_store(&c->is_away, false);
    return 0;
}

int away_try(struct cloud *c, struct error *e) {
    struct away *a = c->away;
    bool committed = false;
    int64_t now = clock_mono_ns();
    if (now < a->next_try)
        return 0;
    int rc = store_reconnect(c->store, &committed, e);
    if (rc == 0)
        rc = write_all(c, committed, e);
    if (rc == ERR_UNAVAILABLE)
        a->next_try = now + (int64_t)TRY_EVERY_MS * 1000000;
    return rc > 0 || rc == ERR_UNAVAILABLE ? 0 : rc;
}

void away_end(struct cloud *c) {
    if (c->away != NULL)
        away_free(c);
}

/* ---- after a crash ---- */

static int64_t number_of(const struct json *line, size_t i) {
    return json_as_int(json_at(json_get(line, "n"), i));
}

static int replay_hold(struct cloud *c, const struct json *line, struct error *e) {
    static const char *const text[] = {"hold", "model", "route", "node"};
    const struct tenant *t = memory_tenant_of(c, number_of(line, 0));
    struct query *q;
    if (t == NULL)
        return error_set(e, ERR_CORRUPT, "the spool beside the books is of other books");
    int rc =
        store_query(c->store, &q,
                    "INSERT INTO request (id, model, route, node, tenant, key, price, rate, at, prompt, "
                    "most, hold, state,"
                    " sent, cached, charge, chip_ns, prefill_ns, first_token_ns, total_ns)"
                    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 'open', 0, 0, 0, 0, 0, 0, 0)"
                    " ON CONFLICT (id) DO NOTHING",
                    e);
    if (rc != 0)
        return rc;
    for (int i = 0; i < 4; i++)
        query_text(q, i + 1, json_as_str(json_get(line, text[i])));
    for (int i = 0; i < SPOOL_NUMBERS; i++)
        query_int(q, i + 5, number_of(line, (size_t)i));
    if ((rc = query_run(q, e)) != 0 || query_changed(q) == 0)
        return rc;
    return ledger_move(&c->ledger, t->account, &(struct movement){.pending_debit = number_of(line, 7)}, e);
}

static int replay_sent(struct cloud *c, const struct json *line, struct error *e) {
    struct query *q;
    int rc = store_query(
        c->store, &q,
        "UPDATE request SET sent = $2, cached = $3 WHERE id = $1 AND state = 'open' AND sent < $2", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, json_as_str(json_get(line, "sent")));
    query_int(q, 2, number_of(line, 0));
    query_int(q, 3, number_of(line, 1));
    return query_run(q, e);
}

/* A line that a crash has cut is the last one, and was not synced. */
static int replay(struct cloud *c, struct str text, int *lines, struct error *e) {
    int rc = 0;
    for (size_t end; rc == 0 && (end = str_find(text, STR("\n"), 0)) < text.n;) {
        struct json *line = NULL;
        if (json_parse(&line, (struct str){text.p, end}, NULL) == 0)
            rc = json_get(line, "hold") != NULL ? replay_hold(c, line, e) : replay_sent(c, line, e);
        json_free(line);
        text = (struct str){text.p + end + 1, text.n - end - 1};
        ++*lines;
    }
    return rc;
}

int away_recover(struct cloud *c, struct error *e) {
    char path[4200];
    struct buf text = {.limit = MOST_SPOOL};
    ssize_t n = 0;
    int lines = 0;
    spool_path(c, path);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : error_set(e, ERR_IO, "%.300s: %s", path, strerror(errno));
    for (char *to; (to = buf_reserve(&text, 65536)) != NULL && (n = read(fd, to, 65536)) > 0;)
        text.n += (size_t)n;
    close(fd);
    int rc = n < 0 || text.failed ? error_set(e, ERR_IO, "%.300s cannot be read", path)
                                  : ledger_begin(&c->ledger, e);
    if (rc == 0 && (rc = replay(c, buf_view(&text), &lines, e)) == 0)
        rc = ledger_commit(&c->ledger, e);
    if (rc != 0)
        ledger_rollback(&c->ledger);
    else if (unlink(path) == 0)
        log_warn(
            "the last server ended while the books' database was away; %d lines that it kept are written",
            lines);
    buf_free(&text);
    return rc;
}
