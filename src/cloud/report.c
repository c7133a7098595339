/* Operations that only read: usage, the ledger's lines, verification. */
#include "cloud/inner.h"
#include "cloud/report.h"

#include <string.h>

static void write_money(struct buf *out, const char *name, int64_t value) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, AMOUNT_DIGITS);
    buf_byte(out, '"');
}

static void write_counts(struct buf *out, const int64_t count[6]) {
    buf_printf(out,
               "\"requests\":%lld,\"prompt_tokens\":%lld,\"cached_tokens\":%lld,\"completion_tokens\":%lld,"
               "\"chip_seconds\":%.3f",
               (long long)count[0], (long long)count[1], (long long)count[2], (long long)count[3],
               (double)count[5] / 1e9);
    write_money(out, "charged", count[4]);
}

/* One tenant's finished requests, all models together and each. A prompt counts where it was due: with the first token, or with an answer that was done without
 * one. */
static int tenant_usage(struct cloud *c, const struct tenant *t, struct buf *out, struct error *e) {
    struct query *q;
    struct buf models = {0};
    int64_t total[6] = {0};
    int rc = store_query(
        c->store, &q,
        "SELECT model, count(*), sum(iif(due, prompt, 0)), sum(iif(due, cached, 0)), sum(sent), sum(charge),"
        " sum(chip_ns) FROM (SELECT *, sent > 0 OR state = 'done' AS due FROM request"
        " WHERE tenant = $1 AND state <> 'open') GROUP BY model ORDER BY model",
        e);
    if (rc != 0)
        return rc;
    query_int(q, 1, t->id);
    while ((rc = query_step(q, e)) > 0) {
        int64_t count[6];
        for (int i = 0; i < 6; i++) {
            count[i] = query_column_int(q, i + 1);
            total[i] += count[i];
        }
        buf_text(&models, models.n ? ",{\"model\":" : "{\"model\":");
        json_write_str(&models, query_column_text(q, 0));
        buf_byte(&models, ',');
        write_counts(&models, count);
        buf_byte(&models, '}');
    }
    pthread_mutex_lock(&c->lock);
    amount balance = t->balance, held = t->held;
    pthread_mutex_unlock(&c->lock);
    buf_text(out, "{\"tenant\":");
    json_write_text(out, t->name);
    buf_printf(out, ",\"currency\":\"%s\",", t->currency);
    write_counts(out, total);
    write_money(out, "held", held);
    write_money(out, "available", balance - held);
    buf_text(out, ",\"models\":[");
    buf_str(out, buf_view(&models));
    buf_text(out, "]}");
    buf_free(&models);
    return rc;
}

int report_usage(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = json_as_str(json_get(args, "tenant"));
    int rc = 0;
    if (name.n > 0) {
        const struct tenant *t = memory_tenant(c, name);
        if (t == NULL)
            return error_param(e, ERR_NOT_FOUND, "tenant", "there is no tenant '%.*s'; see unkai tenant list",
                               (int)(name.n < 60 ? name.n : 60), name.p);
        return tenant_usage(c, t, out, e);
    }
    buf_byte(out, '[');
    for (const struct tenant *t = c->tenants; rc == 0 && t != NULL; t = t->next) {
        if (t != c->tenants)
            buf_byte(out, ',');
        rc = tenant_usage(c, t, out, e);
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

int report_verify(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct buf wrong = {0};
    struct verification v = {0};
    struct hash known;
    char root[HASH_HEX + 1];
    struct str text = json_as_str(json_get(args, "root"));
    int rc = text.n > 0 ? parse_root(&known, text, e) : 0;
    if (rc != 0)
        return rc;
    v.known = text.n > 0 ? &known : NULL;
    pthread_mutex_lock(&c->lock);
    v.live = c->stats.open_holds > 0;
    pthread_mutex_unlock(&c->lock);
    rc = ledger_verify(&c->ledger, &v, &wrong, e);
    if (v.known != NULL && v.known_at == 0)
        buf_printf(&wrong, "%s\"the books do not contain the root %.*s\"", wrong.n ? "," : "", (int)text.n,
                   text.p);
    hash_hex(&v.root, root);
    buf_printf(out, "{\"ok\":%s,\"transfers\":%lld,\"root\":\"%s\"", wrong.n ? "false" : "true",
               (long long)v.transfers, root);
    if (v.known_at > 0)
        buf_printf(out, ",\"root_at\":%lld", (long long)v.known_at);
    buf_text(out, ",\"wrong\":[");
    buf_str(out, buf_view(&wrong));
    buf_text(out, "]}");
    buf_free(&wrong);
    return rc;
}

int report_ledger(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    int64_t limit = json_as_int(json_get(args, "limit"));
    bool first = true;
    int rc =
        store_query(c->store, &q,
                    "SELECT x.seq, x.id, x.kind, x.at, d.name, k.name, x.amount, d.currency FROM transfer x"
                    " JOIN account d ON d.id = x.debit JOIN account k ON k.id = x.credit"
                    " WHERE $1 = '' OR d.name = 'tenant:' || $1 OR k.name = 'tenant:' || $1"
                    " ORDER BY x.seq DESC LIMIT $2",
                    e);
    if (rc != 0)
        return rc;
    query_text(q, 1, json_as_str(json_get(args, "tenant")));
    query_int(q, 2, limit > 0 ? limit : 50);
    buf_byte(out, '[');
    while ((rc = query_step(q, e)) > 0) {
        static const char *const name[] = {"id", "kind"}, *const side[] = {"debit", "credit"};
        buf_printf(out, "%s{\"seq\":%lld,\"at\":%lld", first ? "" : ",", (long long)query_column_int(q, 0),
                   (long long)(query_column_int(q, 3) / 1000000000));
        for (int i = 0; i < 2; i++) {
            buf_printf(out, ",\"%s\":", name[i]);
            json_write_str(out, query_column_text(q, 1 + i));
            buf_printf(out, ",\"%s\":", side[i]);
            json_write_str(out, query_column_text(q, 4 + i));
        }
        write_money(out, "amount", query_column_int(q, 6));
        buf_text(out, ",\"currency\":");
        json_write_str(out, query_column_text(q, 7));
        buf_byte(out, '}');
        first = false;
    }
    buf_byte(out, ']');
    return rc;
}
