/* Deliveries of webhooks as rows of the books: signed, taken for a minute, tried again with growing pauses; see webhook.h. */
#include "cloud/webhook.h"

#include "base/clock.h"
#include "cloud/inner.h"

#include <stdio.h>
#include <string.h>

static const int64_t second = 1000000000;
enum { LEASE_S = 60, KEEP_S = 32 * 86400, GIVE_UP_S = 3 * 86400, LOOK_AGAIN_S = 60 };
/* Seconds from one attempt to the next; the last one goes on. */
static const int32_t pauses[] = {5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800};
enum { PAUSES = sizeof pauses / sizeof *pauses };

/* ---- signing ---- */

struct hash webhook_secret(const struct cloud *c, struct str number) {
    struct buf name = {0};
    buf_text(&name, "webhook ");
    buf_str(&name, number);
    struct hash secret =
        hash_hmac((struct str){(const char *)c->secret.byte, sizeof c->secret.byte}, buf_view(&name));
    buf_free(&name);
    return secret;
}

void webhook_sign(const struct delivery *d, int64_t wall, struct signed_headers *out) {
    struct buf text = {0}, code = {0};
    buf_printf(&text, "%s.%lld.", d->id_text, (long long)(wall / second));
    buf_str(&text, buf_view(&d->body));
    struct hash mac =
        hash_hmac((struct str){(const char *)d->secret.byte, sizeof d->secret.byte}, buf_view(&text));
    buf_base64(&code, (struct str){(const char *)mac.byte, sizeof mac.byte});
    snprintf(out->id, sizeof out->id, "webhook-id: %s", d->id_text);
    snprintf(out->timestamp, sizeof out->timestamp, "webhook-timestamp: %lld", (long long)(wall / second));
    snprintf(out->signature, sizeof out->signature, "webhook-signature: v1,%s", code.p != NULL ? code.p : "");
    buf_free(&text);
    buf_free(&code);
}

/* ---- taking ---- */

/* The same for every attempt, and another one for each webhook. */
static void name_message(struct delivery *d, struct str event) {
    struct buf whole = {0};
    char hex[HASH_HEX + 1];
    buf_printf(&whole, "%lld:", (long long)d->webhook);
    buf_str(&whole, event);
    struct hash name = hash_sha256(buf_view(&whole));
    buf_free(&whole);
    hash_hex(&name, hex);
    snprintf(d->id_text, sizeof d->id_text, "msg_%.32s", hex);
}

static int read_due(struct cloud *c, struct delivery *out, size_t most, size_t *n, int64_t now,
                    struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "SELECT d.id, d.webhook, d.due, d.created, d.attempts, d.event, d.body, w.url, "
                         "w.secret FROM delivery d"
                         " JOIN webhook w ON w.id = d.webhook WHERE d.state = 'due' AND w.disabled = 0"
                         " AND (d.due <= $1 OR d.due > $2) ORDER BY d.due LIMIT $3",
                         e);
    *n = 0;
    if (rc != 0)
        return rc;
    query_int(q, 1, now);
    query_int(q, 2, now + (int64_t)pauses[PAUSES - 1] * 2 * second); /* by a clock that was ahead */
    query_int(q, 3, (int64_t)most);
    while ((rc = query_step(q, e)) > 0) {
        struct delivery *d = &out[(*n)++];
        struct str event = query_column_text(q, 5), url = query_column_text(q, 7);
        *d = (struct delivery){.id = query_column_int(q, 0),
                               .webhook = query_column_int(q, 1),
                               .due = query_column_int(q, 2),
                               .created = query_column_int(q, 3),
                               .attempts = query_column_int(q, 4),
                               .secret = webhook_secret(c, query_column_text(q, 8))};
        buf_str(&d->body, query_column_text(q, 6));
        snprintf(d->url, sizeof d->url, "%.*s", (int)url.n, url.p);
        name_message(d, event);
    }
    return rc < 0 ? rc : 0;
}

/* 1: it is ours for a minute; 0: somebody else was faster. */
static int lease(struct store *s, struct delivery *d, int64_t until, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q, "UPDATE delivery SET due = $2 WHERE id = $1 AND due = $3 AND state = 'due' RETURNING id", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, d->id);
    query_int(q, 2, until);
    query_int(q, 3, d->due);
    int found = query_step(q, e);
    d->due = until;
    rc = found > 0 ? query_run(q, e) : found;
    return rc != 0 ? rc : found;
}

static int forget_old(struct store *s, int64_t before, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "DELETE FROM delivery WHERE state <> 'due' AND created < $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, before);
    return query_run(q, e);
}

static int find_next(struct store *s, int64_t now, int64_t *next, struct error *e) {
    struct query *q;
    int64_t latest = now + LOOK_AGAIN_S * second;
    int rc = store_query(s, &q, "SELECT min(due) FROM delivery WHERE state = 'due' AND due > $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, now);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    int64_t due = rc > 0 ? query_column_int(q, 0) : 0;
    *next = due == 0 || due > latest ? latest : due;
    return rc > 0 ? query_run(q, e) : 0;
}

int deliveries_take(struct cloud *c, struct delivery *out, size_t most, size_t *n, int64_t *next,
                    struct error *e) {
    int64_t now = clock_wall_ns();
    size_t found = 0;
    *n = 0;
    int rc = forget_old(c->store, now - KEEP_S * second, e);
    if (rc == 0)
        rc = read_due(c, out, most, &found, now, e);
    for (size_t i = 0; i < found; i++) {
        int ours = rc == 0 ? lease(c->store, &out[i], now + LEASE_S * second, e) : 0;
        rc = ours < 0 ? ours : rc;
        if (ours > 0)
            out[(*n)++] = out[i];
        else
            buf_free(&out[i].body);
    }
    return rc != 0 ? rc : find_next(c->store, now, next, e);
}

/* ---- the outcome ---- */

int webhook_disable(struct store *s, int64_t webhook, int64_t now, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "UPDATE webhook SET disabled = $2 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, webhook);
    query_int(q, 2, now);
    return query_run(q, e);
}

int delivery_record(struct cloud *c, const struct delivery *d, enum delivery_outcome outcome,
                    const char *note, struct error *e) {
    int64_t now = clock_wall_ns();
    int64_t due = now + pauses[d->attempts < PAUSES ? d->attempts : PAUSES - 1] * second;
    const char *state = outcome == DELIVERY_TAKEN                                           ? "done"
                        : outcome == DELIVERY_GONE || due - d->created > GIVE_UP_S * second ? "failed"
                                                                                            : "due";
    struct query *q;
    int rc = store_query(
        c->store, &q, "UPDATE delivery SET state = $2, attempts = $3, due = $4, note = $5 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, d->id);
    query_text(q, 2, str_from(state));
    query_int(q, 3, d->attempts + 1);
    query_int(q, 4, strcmp(state, "due") == 0 ? due : now);
    query_text(q, 5, str_from(note));
    rc = query_run(q, e);
    return rc != 0 || outcome != DELIVERY_GONE ? rc : webhook_disable(c->store, d->webhook, now, e);
}
