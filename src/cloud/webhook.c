/* Who wants to be told of what: webhooks as rows of the books, the operations on them, and what happens to an event; see webhook.h. A webhook's secret is made of the data
 * folder's secret and a random number in its row: the books alone do not tell it. */
#include "cloud/webhook.h"

#include "base/clock.h"
#include "cloud/inner.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const int64_t second = 1000000000;
enum { MOST_WEBHOOKS = 64, URL_BYTES = 512, NUMBER_BYTES = 32 };

static const char *const kinds[] = {"credit.exhausted", "credit.low", "spend.limit_reached",
                                    "spend.threshold", "webhook.test"};

/* ---- events ---- */

/* events: a JSON array; empty means all. */
static bool wants(struct str events, const char *kind) {
    struct json *list = NULL;
    bool wanted = json_parse(&list, events, NULL) == 0 && json_count(list) == 0;
    for (size_t i = 0; i < json_count(list) && !wanted; i++)
        wanted = str_is(json_as_str(json_at(list, i)), kind);
    json_free(list);
    return wanted;
}

static void write_time(struct buf *out, int64_t at) {
    time_t seconds = (time_t)(at / second);
    struct tm tm;
    char text[32];
    gmtime_r(&seconds, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    buf_text(out, text);
}

static int write_delivery(struct store *s, int64_t webhook, const char *kind, const char *event,
                          struct str body, int64_t now, struct error *e) {
    struct query *q;
    int rc =
        store_query(s, &q,
                    "INSERT INTO delivery (webhook, event, kind, body, created, due, attempts, state, note)"
                    " VALUES ($1, $2, $3, $4, $5, $5, 0, 'due', '') ON CONFLICT (webhook, event) DO NOTHING",
                    e);
    if (rc != 0)
        return rc;
    query_int(q, 1, webhook);
    query_text(q, 2, str_from(event));
    query_text(q, 3, str_from(kind));
    query_text(q, 4, body);
    query_int(q, 5, now);
    return query_run(q, e);
}

/* The webhooks that want it. */
static int find_wanting(struct store *s, const char *kind, int64_t tenant, int64_t id[MOST_WEBHOOKS],
                        size_t *n, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q,
        "SELECT id, events FROM webhook WHERE disabled = 0 AND (tenant = 0 OR tenant = $1) ORDER BY id", e);
    *n = 0;
    if (rc != 0)
        return rc;
    query_int(q, 1, tenant);
    while ((rc = query_step(q, e)) > 0)
        if (*n < MOST_WEBHOOKS && wants(query_column_text(q, 1), kind))
            id[(*n)++] = query_column_int(q, 0);
    return rc;
}

static void write_body(struct buf *out, const char *kind, int64_t now, struct str data) {
    buf_printf(out, "{\"type\":\"%s\",\"timestamp\":\"", kind);
    write_time(out, now);
    buf_text(out, "\",\"data\":");
    buf_str(out, data);
    buf_byte(out, '}');
}

int webhook_emit(struct cloud *c, const char *kind, int64_t tenant, const char *event, struct str data,
                 struct error *e) {
    int64_t id[MOST_WEBHOOKS], now = clock_wall_ns();
    struct buf body = {0};
    size_t n;
    write_body(&body, kind, now, data);
    int rc = body.failed ? error_set(e, ERR_NO_MEMORY, "no memory for an event")
                         : find_wanting(c->store, kind, tenant, id, &n, e);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = write_delivery(c->store, id[i], kind, event, buf_view(&body), now, e);
    buf_free(&body);
    return rc;
}

/* ---- operations ---- */

/* http or https, a host, no name and password: it is shown in lists. */
static int check_url(struct str url, struct error *e) {
    char copy[URL_BYTES];
    char *scheme = NULL, *user = NULL, *host = NULL;
    CURLU *parts = curl_url();
    bool good = parts != NULL && url.n < sizeof copy && memchr(url.p, 0, url.n) == NULL;
    for (size_t i = 0; i < url.n; i++)
        good = good && url.p[i] > ' ' && url.p[i] < 127;
    if (good) {
        memcpy(copy, url.p, url.n);
        copy[url.n] = 0;
        good = curl_url_set(parts, CURLUPART_URL, copy, 0) == CURLUE_OK &&
               curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
               curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
               curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_NO_USER &&
               (strcmp(scheme, "https") == 0 || strcmp(scheme, "http") == 0);
    }
    curl_free(scheme);
    curl_free(user);
    curl_free(host);
    curl_url_cleanup(parts);
    return good ? 0
                : error_param(
                      e, ERR_INVALID, "url",
                      "a webhook's URL is http:// or https:// with a host, no password, up to %d characters",
                      URL_BYTES - 1);
}

/* "a,b" or ["a", "b"] as an array; without it empty: all. */
static int read_kinds(const struct json *v, struct buf *array, struct error *e) {
    int rc = args_list(v, "events", false, array, e);
    struct json *list = NULL;
    if (rc == 0)
        rc = json_parse(&list, buf_view(array), e);
    for (size_t i = 0; rc == 0 && i < json_count(list); i++) {
        struct str name = json_as_str(json_at(list, i));
        bool known = false;
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            known = known || str_is(name, kinds[k]);
        if (!known)
            rc = error_param(
                e, ERR_INVALID, "events",
                "there is no event '%.*s'; there are credit.exhausted, credit.low, spend.limit_reached, "
                "spend.threshold and webhook.test",
                (int)(name.n < 60 ? name.n : 60), name.p);
    }
    json_free(list);
    return rc;
}

static int find_tenant(struct cloud *c, const struct json *args, int64_t *id, struct error *e) {
    const struct json *name = json_get(args, "tenant");
    struct tenant *t = NULL;
    int rc = name != NULL ? memory_need_tenant(c, json_as_str(name), "tenant", &t, e) : 0;
    *id = t != NULL ? t->id : 0;
    return rc;
}

static int insert_webhook(struct cloud *c, int64_t tenant, struct str url, struct str events,
                          struct str number, int64_t *id, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "INSERT INTO webhook (tenant, url, secret, events, created, disabled)"
                         " VALUES ($1, $2, $3, $4, $5, 0) RETURNING id",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, tenant);
    query_text(q, 2, url);
    query_blob(q, 3, number);
    query_text(q, 4, events);
    query_int(q, 5, clock_wall_ns());
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the webhook got no number");
    *id = query_column_int(q, 0);
    return query_run(q, e);
}

static int count_webhooks(struct cloud *c, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q, "SELECT count(*) FROM webhook WHERE disabled = 0", e);
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    int64_t n = query_column_int(q, 0);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    return n < MOST_WEBHOOKS
               ? 0
               : error_set(e, ERR_CONFLICT, "there are %d webhooks already, the most there may be",
                           MOST_WEBHOOKS);
}

static int webhook_add(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str url = json_as_str(json_get(args, "url"));
    unsigned char random[NUMBER_BYTES];
    struct str number = {(const char *)random, sizeof random};
    struct buf events = {0};
    int64_t tenant, id = 0;
    random_bytes(random, sizeof random);
    int rc = check_url(url, e);
    if (rc == 0)
        rc = find_tenant(c, args, &tenant, e);
    if (rc == 0)
        rc = count_webhooks(c, e);
    if (rc == 0)
        rc = read_kinds(json_get(args, "events"), &events, e);
    if (rc == 0)
        rc = insert_webhook(c, tenant, url, buf_view(&events), number, &id, e);
    if (rc == 0) {
        struct hash secret = webhook_secret(c, number);
        buf_printf(out, "{\"id\":%lld,\"url\":", (long long)id);
        json_write_str(out, url);
        buf_text(out, ",\"secret\":\"whsec_");
        buf_base64(out, (struct str){(const char *)secret.byte, sizeof secret.byte});
        buf_text(out, "\"}");
    }
    buf_free(&events);
    return rc;
}

static int webhook_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    bool first = true;
    int rc =
        store_query(c->store, &q,
                    "SELECT w.id, w.url, w.events, w.created, w.disabled, coalesce(t.name, '') FROM webhook w"
                    " LEFT JOIN tenant t ON t.id = w.tenant ORDER BY w.id",
                    e);
    buf_byte(out, '[');
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        buf_printf(out, "%s{\"id\":%lld,\"url\":", first ? "" : ",", (long long)query_column_int(q, 0));
        json_write_str(out, query_column_text(q, 1));
        buf_text(out, ",\"events\":");
        buf_str(out, query_column_text(q, 2));
        buf_text(out, ",\"tenant\":");
        json_write_str(out, query_column_text(q, 5));
        buf_printf(out, ",\"created\":%lld,\"disabled\":%s}", (long long)(query_column_int(q, 3) / second),
                   query_column_int(q, 4) != 0 ? "true" : "false");
        first = false;
        rc = 0;
    }
    buf_byte(out, ']');
    return rc;
}

/* Its number; ERR_NOT_FOUND. */
static int need_webhook(struct cloud *c, const struct json *args, int64_t *id, struct error *e) {
    struct query *q;
    *id = json_as_int(json_get(args, "id"));
    int rc = store_query(c->store, &q, "SELECT id FROM webhook WHERE id = $1 AND disabled = 0", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, *id);
    if ((rc = query_step(q, e)) == 0)
        return error_param(e, ERR_NOT_FOUND, "id", "there is no webhook %lld; see unkai webhook list",
                           (long long)*id);
    return rc < 0 ? rc : query_run(q, e);
}

/* What it was to be sent is not sent any more. */
static int webhook_remove(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    int64_t id;
    struct query *q;
    int rc = need_webhook(c, args, &id, e);
    if (rc != 0 || (rc = webhook_disable(c->store, id, clock_wall_ns(), e)) != 0 ||
        (rc = store_query(c->store, &q,
                          "UPDATE delivery SET state = 'failed', note = 'the webhook was removed' WHERE "
                          "webhook = $1 AND state = 'due'",
                          e)) != 0)
        return rc;
    query_int(q, 1, id);
    buf_printf(out, "{\"id\":%lld,\"disabled\":true}", (long long)id);
    return query_run(q, e);
}

static int webhook_test(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    int64_t id, now = clock_wall_ns();
    char event[64];
    struct buf body = {0};
    int rc = need_webhook(c, args, &id, e);
    if (rc != 0)
        return rc;
    snprintf(event, sizeof event, "webhook.test:%lld", (long long)now);
    write_body(&body, "webhook.test", now, STR("{}"));
    rc = write_delivery(c->store, id, "webhook.test", event, buf_view(&body), now, e);
    buf_free(&body);
    courier_ring(c);
    buf_printf(out, "{\"id\":%lld,\"event\":\"%s\"}", (long long)id, event);
    return rc;
}

static int webhook_deliveries(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    bool first = true;
    int rc = store_query(c->store, &q,
                         "SELECT id, webhook, event, kind, state, attempts, created, due, note FROM delivery"
                         " WHERE $1 = 0 OR webhook = $1 ORDER BY id DESC LIMIT 100",
                         e);
    if (rc == 0)
        query_int(q, 1, json_as_int(json_get(args, "id")));
    buf_byte(out, '[');
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        static const char *const name[] = {"event", "kind", "state"};
        buf_printf(out, "%s{\"id\":%lld,\"webhook\":%lld", first ? "" : ",",
                   (long long)query_column_int(q, 0), (long long)query_column_int(q, 1));
        for (int i = 0; i < 3; i++) {
            buf_printf(out, ",\"%s\":", name[i]);
            json_write_str(out, query_column_text(q, 2 + i));
        }
        buf_printf(out, ",\"attempts\":%lld,\"created\":%lld,\"due\":%lld,\"note\":",
                   (long long)query_column_int(q, 5), (long long)(query_column_int(q, 6) / second),
                   (long long)(query_column_int(q, 7) / second));
        json_write_str(out, query_column_text(q, 8));
        buf_byte(out, '}');
        first = false;
        rc = 0;
    }
    buf_byte(out, ']');
    return rc;
}

const struct operation_row webhook_operations[] = {
    {"webhook.add", webhook_add},
    {"webhook.list", webhook_list, OPERATION_READS},
    {"webhook.remove", webhook_remove},
    {"webhook.test", webhook_test},
    {"webhook.deliveries", webhook_deliveries, OPERATION_READS},
    {NULL},
};
