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

enum { TRY_EVERY_MS = 500, MOST_SPOOL = 1 << 30 };

/* A request whose hold was asked for in the group whose commit was not answered: its asker was sent away, and it may be open in the books. */
struct stray {
    char id[REQUEST_ID_BYTES];
    struct stray *next;
};

struct away {
    int spool;
    int64_t next_try, since;
    struct entry *flying; /* settlements of the group whose commit was not answered */
    struct entry *kept;   /* those behind it */
    struct entry **last;
    struct stray *strays;
    struct hold *behind; /* whose count of what was sent is in the spool alone */
    struct buf lines;
};

static void spool_path(const struct cloud *c, char path[4200]) {
    snprintf(path, 4200, "%s/spool", c->folder);
}

/* ---- the spool: a line of JSON for what was sent of a request ---- */

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
        if (i->kind == ENTRY_SETTLE)
            spool_sent(out, h, h->settlement.completion_tokens, h->settlement.cached_tokens);
        else if (i->kind == ENTRY_SENT && !h->ended)
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

/* Nobody is admitted. */
static void turn_away(struct cloud *c, struct hold *h) {
    struct stray *s = calloc(1, sizeof *s);
    struct error why = {0};
    if (s != NULL) { /* else a start settles it */
        memcpy(s->id, h->id, sizeof s->id);
        s->next = c->away->strays;
        c->away->strays = s;
    }
    pthread_mutex_lock(&c->lock);
    c->undurable--;
    pthread_mutex_unlock(&c->lock);
    cloud_is_away(&why);
    hold_refuse(h, &why);
}

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
            turn_away(c, h);
            continue;
        }
        h->kept_end = true;
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
    for (struct stray *s = a->strays, *next; s != NULL; s = next) {
        next = s->next;
        free(s);
    }
    if (a->spool >= 0)
        close(a->spool);
    buf_free(&a->lines);
    free(a);
    c->away = NULL;
}

static int settle_strays(struct cloud *c, struct error *e) {
    int n = 0, rc = c->away->strays != NULL ? journal_begin(c, e) : 0;
    if (rc != 0 || c->away->strays == NULL)
        return rc;
    for (const struct stray *s = c->away->strays; s != NULL && rc == 0; s = s->next)
        rc = recover_requests(c, shared_node(c), s->id, &n, e);
    if (rc == 0)
        rc = journal_commit(c, e);
    if (rc != 0)
        journal_rollback(c);
    return rc;
}

/* Was the group written whose first settlement this is? Its request's row tells. The number of its transaction would not: a server that crashed gives out again what it has forgotten. */
static int is_written(struct cloud *c, struct entry *first, bool *written, struct error *e) {
    struct query *q;
    *written = false;
    if (first == NULL)
        return 0;
    int rc = store_query(c->store, &q, "SELECT 1 FROM request WHERE id = $1 AND state <> 'open'", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(journal_hold(first)->id));
    rc = query_step(q, e);
    *written = rc > 0;
    return rc > 0 ? query_run(q, e) : rc;
}

static int write_all(struct cloud *c, struct error *e) {
    struct away *a = c->away;
    char path[4200];
    bool written;
    int rc = is_written(c, a->flying, &written, e);
    if (rc != 0)
        return rc;
    forget_ended(a);
    if (written) {
        let_go(c, a->flying);
        a->flying = NULL;
    }
    struct entry **end = &a->flying;
    while (*end != NULL)
        end = &(*end)->beside;
    *end = a->kept;
    a->kept = NULL;
    a->last = &a->kept;
    if ((rc = settle_strays(c, e)) != 0 || (rc = journal_write(c, a->flying, a->behind, e)) != 0)
        return rc;
    shared_was_away(c);
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
    int64_t now = clock_mono_ns();
    if (now < a->next_try)
        return 0;
    int rc = store_reconnect(c->store, e);
    if (rc == 0)
        rc = write_all(c, e);
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
            rc = replay_sent(c, line, e);
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
    int rc = n < 0 || text.failed ? error_set(e, ERR_IO, "%.300s cannot be read", path) : journal_begin(c, e);
    if (rc == 0 && (rc = replay(c, buf_view(&text), &lines, e)) == 0)
        rc = journal_commit(c, e);
    if (rc != 0)
        journal_rollback(c);
    else if (unlink(path) == 0)
        log_warn(
            "the last server ended while the books' database was away; %d lines that it kept are written",
            lines);
    buf_free(&text);
    return rc;
}
