/* Usage as CloudEvents; see events.h. */
#include "cloud/bill/events.h"

/* Where they come from: the books, known by the hash of their first transfer. */
static int write_source(struct store *s, struct buf *out, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT hash FROM transfer WHERE seq = 1", e);
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    struct str hash = rc > 0 ? query_column_text(q, 0) : STR("");
    buf_text(out, "urn:unkai:");
    bill_hex(out, (struct str){hash.p, hash.n < 8 ? hash.n : 8});
    return query_run(q, e);
}

static void write_event(struct query *q, struct str source, struct buf *out) {
    static const struct {
        const char *name;
        int column;
    } text[] = {{"tenant", 2}, {"model", 4}, {"route", 5}, {"outcome", 6}, {"currency", 7}},
      number[] = {
          {"seq", 0},   {"key", 3}, {"prompt_tokens", 8}, {"cached_tokens", 9}, {"completion_tokens", 10},
          {"price", 12}};
    buf_text(out, "{\"specversion\":\"1.0\",\"type\":\"" EVENT_TYPE "\",\"source\":\"");
    buf_str(out, source);
    buf_text(out, "\",\"id\":");
    json_write_str(out, query_column_text(q, 1));
    buf_text(out, ",\"time\":\"");
    time_write(out, query_column_int(q, 14));
    buf_text(out, "\",\"subject\":");
    json_write_str(out, query_column_text(q, 2));
    buf_text(out, ",\"datacontenttype\":\"application/json\",\"data\":{");
    for (size_t i = 0; i < sizeof text / sizeof *text; i++) {
        buf_printf(out, "\"%s\":", text[i].name);
        json_write_str(out, query_column_text(q, text[i].column));
        buf_byte(out, ',');
    }
    for (size_t i = 0; i < sizeof number / sizeof *number; i++)
        buf_printf(out, "\"%s\":%lld,", number[i].name, (long long)query_column_int(q, number[i].column));
    buf_printf(out, "\"total_tokens\":%lld,\"exchange_rate\":\"",
               (long long)query_column_int(q, 8) + (long long)query_column_int(q, 10));
    money_write(out, query_column_int(q, 13), 9);
    buf_text(out, "\",\"charge\":\"");
    money_write(out, query_column_int(q, 11), AMOUNT_DIGITS);
    buf_text(out, "\"}}\n");
}

int events_write(struct store *s, int64_t tenant, int64_t after, int64_t most, struct buf *out, int64_t *last,
                 int64_t *n, struct error *e) {
    struct buf source = {0};
    struct query *q;
    *last = after;
    *n = 0;
    int rc = write_source(s, &source, e);
    if (rc == 0)
        rc = store_query(s, &q,
                         "SELECT x.seq, r.id, t.name, r.key, r.model, r.route, r.state, t.currency,"
                         " CASE WHEN r.sent > 0 OR r.state = 'done' THEN r.prompt ELSE 0 END,"
                         " CASE WHEN r.sent > 0 OR r.state = 'done' THEN r.cached ELSE 0 END,"
                         " r.sent, r.charge, r.price, r.rate, x.at, r.tenant FROM transfer x JOIN request r "
                         "ON r.id = substr(x.id, 8)"
                         " JOIN tenant t ON t.id = r.tenant WHERE x.seq > $1 AND x.seq <= $1 + $2 AND x.kind "
                         "= 'settle' ORDER BY x.seq",
                         e); /* 8: behind "settle:" */
    if (rc == 0) {
        query_int(q, 1, after);
        query_int(q, 2, most);
        while ((rc = query_step(q, e)) > 0)
            if (tenant == 0 || query_column_int(q, 15) == tenant) {
                write_event(q, buf_view(&source), out);
                ++*n;
            }
    }
    buf_free(&source);
    if (rc == 0 && (rc = store_query(s, &q, "SELECT max(seq) FROM transfer WHERE seq <= $1", e)) == 0) {
        query_int(q, 1, after + most);
        if ((rc = query_step(q, e)) > 0) {
            *last = query_column_int(q, 0) > after ? query_column_int(q, 0) : after;
            rc = query_run(q, e);
        }
    }
    return rc;
}

/* {"after", "tenant", "rows"}: {"text": lines, "rows", "after": what the next call is given; the same: there is nothing new}. */
static int export_events(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = json_as_str(json_get(args, "tenant"));
    struct tenant *t = NULL;
    int64_t after = json_as_int(json_get(args, "after")), last, n;
    struct buf text = {0};
    if (name.n > 0 && memory_need_tenant(c, name, "tenant", &t, e) != 0)
        return ERR_NOT_FOUND;
    if (after < 0 || after > INT64_MAX / 2)
        return error_param(e, ERR_INVALID, "after", "a transfer's number is not negative");
    int rc = events_write(c->store, t != NULL ? t->id : 0, after, bill_page(args), &text, &last, &n, e);
    if (rc == 0) {
        buf_printf(out, "{\"rows\":%lld,\"after\":%lld,\"text\":", (long long)n, (long long)last);
        json_write_str(out, buf_view(&text));
        buf_byte(out, '}');
        rc = text.failed ? error_set(e, ERR_NO_MEMORY, "no memory for an export") : 0;
    }
    buf_free(&text);
    return rc;
}

const struct operation_row events_operations[] = {{"export.events", export_events, OPERATION_READS}, {NULL}};
