/* Operations that only read: usage, the ledger's lines, verification. */
#include "cloud/inner.h"
#include "cloud/report.h"

#include <string.h>

void report_money(struct buf *out, const char *name, int64_t value) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, AMOUNT_DIGITS);
    buf_byte(out, '"');
}

/* What usage_day sums up, in the order of the query. */
static const char *const count_name[] = {"requests",      "cancelled",     "failed",
                                         "prompt_tokens", "cached_tokens", "completion_tokens"};
enum { COUNTS = sizeof count_name / sizeof *count_name, SUMS = COUNTS + 3 };

static void write_counts(struct buf *out, const int64_t sum[SUMS]) {
    for (int i = 0; i < COUNTS; i++)
        buf_printf(out, "\"%s\":%lld,", count_name[i], (long long)sum[i]);
    buf_printf(out, "\"chip_seconds\":%.3f,\"prefill_seconds\":%.3f", (double)sum[COUNTS + 1] / 1e9,
               (double)sum[COUNTS + 2] / 1e9);
    report_money(out, "charged", sum[COUNTS]);
}

/* By what usage may be told apart, and what the list is called. */
static const struct {
    const char *by, *list;
} grouping[] = {{"model", "models"}, {"day", "days"}, {"month", "months"}, {"key", "keys"}};

struct usage_question {
    struct str month, from, to, model;
    int64_t key;
    size_t by; /* of grouping */
};

static int read_question(struct usage_question *u, const struct json *args, struct error *e) {
    static const char *const date[] = {"month", "from", "to"};
    struct str by = json_as_str(json_get(args, "by")), key = json_as_str(json_get(args, "key"));
    struct str *const text[] = {&u->month, &u->from, &u->to};
    int64_t at;
    *u = (struct usage_question){.model = json_as_str(json_get(args, "model"))};
    while (by.n > 0 && u->by < sizeof grouping / sizeof *grouping && !str_is(by, grouping[u->by].by))
        u->by++;
    if (u->by == sizeof grouping / sizeof *grouping)
        return error_param(e, ERR_INVALID, "by", "usage is told by model, day, month or key");
    for (size_t i = 0; i < sizeof date / sizeof *date; i++) {
        *text[i] = json_as_str(json_get(args, date[i]));
        if (text[i]->n > 0 && (calendar_parse(&at, *text[i], 0, NULL) != 0 ||
                               text[i]->n != (i == 0 ? CALENDAR_MONTH : CALENDAR_DAY) - 1))
            return error_param(e, ERR_INVALID, date[i], "'%.*s' is no %s: write it like %s",
                               (int)(text[i]->n < 40 ? text[i]->n : 40), text[i]->p, i == 0 ? "month" : "day",
                               i == 0 ? "2026-12" : "2026-12-01");
    }
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] < '0' || key.p[i] > '9' || i >= 18)
            return error_param(e, ERR_INVALID, "key", "a key is meant by its number; see unkai key list");
        u->key = u->key * 10 + (key.p[i] - '0');
    }
    return 0;
}

/* One tenant's finished requests, all together and apart. A prompt counts where it was due: with the first token, or with an answer that was done without
 * one. A month is the period that they were billed in; it comes first, so that its rows are found without the others. */
static int tenant_usage(struct cloud *c, const struct tenant *t, const struct usage_question *u,
                        struct buf *out, struct error *e) {
    struct query *q;
    struct buf parts = {0};
    int64_t total[SUMS] = {0};
    int rc = store_query(
        c->store, &q,
        "SELECT CASE $7 WHEN 'day' THEN u.day WHEN 'month' THEN p.month WHEN 'key' THEN CAST(u.key AS TEXT)"
        " ELSE u.model END, CAST(sum(requests) AS BIGINT), CAST(sum(cancelled) AS BIGINT),"
        " CAST(sum(failed) AS BIGINT), CAST(sum(prompt) AS BIGINT), CAST(sum(cached) AS BIGINT),"
        " CAST(sum(completion) AS BIGINT), CAST(sum(charge) AS BIGINT), CAST(sum(chip_ns) AS BIGINT),"
        " CAST(sum(prefill_ns) AS BIGINT) FROM period p CROSS JOIN usage_day u"
        " WHERE u.tenant = $1 AND u.period = p.id AND ($2 = '' OR p.month = $2) AND ($3 = '' OR u.day >= $3)"
        " AND ($4 = '' OR u.day <= $4) AND ($5 = '' OR u.model = $5) AND ($6 = 0 OR u.key = $6)"
        " GROUP BY 1 ORDER BY 1",
        e);
    if (rc != 0)
        return rc;
    query_int(q, 1, t->id);
    query_text(q, 2, u->month);
    query_text(q, 3, u->from);
    query_text(q, 4, u->to);
    query_text(q, 5, u->model);
    query_int(q, 6, u->key);
    query_text(q, 7, str_from(grouping[u->by].by));
    while ((rc = query_step(q, e)) > 0) {
        int64_t sum[SUMS];
        for (int i = 0; i < SUMS; i++) {
            sum[i] = query_column_int(q, i + 1);
            total[i] += sum[i];
        }
        buf_printf(&parts, "%s{\"%s\":", parts.n ? "," : "", grouping[u->by].by);
        json_write_str(&parts, query_column_text(q, 0));
        buf_byte(&parts, ',');
        write_counts(&parts, sum);
        buf_byte(&parts, '}');
    }
    pthread_mutex_lock(&c->lock);
    amount balance = t->balance, held = t->held, line = t->line;
    pthread_mutex_unlock(&c->lock);
    buf_text(out, "{\"tenant\":");
    json_write_text(out, t->name);
    buf_printf(out, ",\"currency\":\"%s\",", t->currency);
    write_counts(out, total);
    report_money(out, "held", held);
    report_money(out, "available", balance - held + line);
    buf_printf(out, ",\"%s\":[", grouping[u->by].list);
    buf_str(out, buf_view(&parts));
    buf_text(out, "]}");
    buf_free(&parts);
    return rc;
}

int report_usage(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = json_as_str(json_get(args, "tenant"));
    struct usage_question u;
    int rc = read_question(&u, args, e);
    if (rc != 0)
        return rc;
    if (name.n > 0) {
        struct tenant *t;
        rc = memory_need_tenant(c, name, "tenant", &t, e);
        return rc != 0 ? rc : tenant_usage(c, t, &u, out, e);
    }
    buf_byte(out, '[');
    for (const struct tenant *t = c->tenants; rc == 0 && t != NULL; t = t->next) {
        if (t != c->tenants)
            buf_byte(out, ',');
        rc = tenant_usage(c, t, &u, out, e);
    }
    buf_byte(out, ']');
    return rc;
}

/* root: 64 hexadecimal digits, as an earlier verification gave it out. */
static int parse_root(struct hash *out, struct str text, struct error *e) {
    bool good = text.n == HASH_HEX;
    *out = (struct hash){0};
    for (size_t i = 0; good && i < HASH_HEX; i++) {
        char digit = text.p[i];
        int value = digit >= '0' && digit <= '9'   ? digit - '0'
                    : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10
                                                   : -1;
        good = value >= 0;
        out->byte[i / 2] |= (uint8_t)((value & 15) << (i % 2 ? 0 : 4));
    }
    return good ? 0 : error_param(e, ERR_INVALID, "root", "a root is %d hexadecimal digits", HASH_HEX);
}

struct verifying {
    struct verify_walk *walk;
    struct verification result;
    bool more;
};

static int verify_some(struct cloud *c, void *context, struct error *e) {
    struct verifying *v = context;
    pthread_mutex_lock(&c->lock);
    v->result.live = c->stats.open_holds > 0 || c->first != NULL; /* settled, but not written yet */
    pthread_mutex_unlock(&c->lock);
    int rc = ledger_verify_piece(&c->ledger, v->walk, &v->result, e);
    v->more = rc > 0;
    return rc > 0 ? 0 : rc;
}

/* Runs on the caller's thread, a piece at a time on the writer's. */
int report_verify(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct buf wrong = {0};
    struct hash known;
    char root[HASH_HEX + 1];
    struct str text = json_as_str(json_get(args, "root"));
    int rc = text.n > 0 ? parse_root(&known, text, e) : 0;
    if (rc != 0)
        return rc;
    struct verifying v = {
        .walk = ledger_verify_begin(&wrong), .result = {.known = text.n > 0 ? &known : NULL}, .more = true};
    if (v.walk == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to verify");
    while (rc == 0 && v.more)
        rc = journal_call_harmless(c, verify_some, &v, e);
    ledger_verify_end(v.walk);
    if (v.result.known != NULL && v.result.known_at == 0)
        buf_printf(&wrong, "%s\"the books do not contain the root %.*s\"", wrong.n ? "," : "", (int)text.n,
                   text.p);
    hash_hex(&v.result.root, root);
    buf_printf(out, "{\"ok\":%s,\"transfers\":%lld,\"root\":\"%s\"", wrong.n ? "false" : "true",
               (long long)v.result.transfers, root);
    if (v.result.known_at > 0)
        buf_printf(out, ",\"root_at\":%lld", (long long)v.result.known_at);
    buf_text(out, ",\"wrong\":[");
    buf_str(out, buf_view(&wrong));
    buf_text(out, "]}");
    buf_free(&wrong);
    return rc;
}
