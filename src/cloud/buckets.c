/* What was used and charged in buckets of a day, from the roll-up usage_day: behind the usage and cost routes of the admin API and of the tenants' own. */
#include "cloud/operation.h"

#include "base/clock.h"
#include "cloud/calendar.h"

#include <string.h>

enum { DAY = 86400, SECOND = 1000000000, MOST_BUCKETS = 180, MOST_NAMED = 5 };

/* What the answer is asked to tell apart, in the order of the columns. */
enum group { BY_TENANT, BY_KEY, BY_MODEL, BY_CURRENCY, GROUPS };
static const char *const group_names[GROUPS] = {"tenant", "key", "model", "currency"};

struct question {
    int64_t tenant; /* this one alone; 0: any */
    int64_t zone;   /* minutes east of UTC */
    int64_t from, until,
        last; /* seconds; days count from where they begin in the zone, the answer ends at `last` */
    bool by[GROUPS];
    const struct json *args;
};

/* One row for each day and group. $1: the groups' bits; $2 and $3: the days; from $4, $9 and $14 on: the tenants, keys and models that are named, if any is. */
#define ROWS                                                                                            \
    "SELECT u.day, CASE WHEN ($1 & 1) = 1 THEN u.tenant ELSE 0 END,"                                    \
    " CASE WHEN ($1 & 2) = 2 THEN u.key ELSE 0 END, CASE WHEN ($1 & 4) = 4 THEN u.model ELSE '' END,"   \
    " CASE WHEN ($1 & 8) = 8 THEN t.currency ELSE '' END,"                                              \
    " CAST(sum(u.requests) AS BIGINT), CAST(sum(u.prompt) AS BIGINT), CAST(sum(u.cached) AS BIGINT),"   \
    " CAST(sum(u.completion) AS BIGINT), CAST(sum(u.charge) AS BIGINT), CAST(sum(u.chip_ns) AS BIGINT)" \
    " FROM usage_day u JOIN tenant t ON t.id = u.tenant WHERE u.day >= $2 AND u.day < $3"               \
    " AND ($4 = 0 OR u.tenant IN ($4, $5, $6, $7, $8))"                                                 \
    " AND ($9 = 0 OR u.key IN ($9, $10, $11, $12, $13))"                                                \
    " AND ($14 = '' OR u.model IN ($14, $15, $16, $17, $18))"
#define ORDER " GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5"

static int64_t day_start(int64_t at, int64_t zone) {
    return at - ((at + 60 * zone) % DAY + DAY) % DAY;
}

static int read_zone(struct cloud *c, int64_t *zone, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q, "SELECT zone FROM book WHERE id = 1", e);
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    *zone = rc > 0 ? query_column_int(q, 0) : 0;
    return query_run(q, e);
}

static int read_groups(struct question *w, struct error *e) {
    const struct json *names = json_get(w->args, "group_by");
    for (size_t i = 0; i < json_count(names); i++) {
        bool found = false;
        for (int k = 0; k < GROUPS; k++)
            if (str_is(json_as_str(json_at(names, i)), group_names[k]))
                found = w->by[k] = true;
        if (!found)
            return error_param(e, ERR_INVALID, "group_by",
                               "usage can be told apart by tenant, key, model and currency");
    }
    return 0;
}

static int read_times(struct cloud *c, struct question *w, struct error *e) {
    static const int64_t latest = 4102444800; /* the year 2100 */
    const struct json *end = json_get(w->args, "end"), *page = json_get(w->args, "page");
    int64_t start = json_as_int(json_get(w->args, "start")), limit = json_as_int(json_get(w->args, "limit"));
    w->until = json_kind(end) == JSON_KIND_INT ? json_as_int(end) : clock_wall_ns() / SECOND + 1;
    int rc = read_zone(c, &w->zone, e);
    if (rc != 0)
        return rc;
    if (json_kind(json_get(w->args, "start")) != JSON_KIND_INT || start < 0 || start > latest)
        return error_param(e, ERR_INVALID, "start", "give the start in seconds since 1970");
    if (w->until > latest || (json_kind(end) == JSON_KIND_INT && w->until <= start))
        return error_param(e, ERR_INVALID, "end", "the end must come after the start");
    w->from = day_start(start, w->zone);
    if (json_kind(page) == JSON_KIND_INT) {
        if (json_as_int(page) < w->from || json_as_int(page) >= w->until)
            return error_param(e, ERR_NOT_FOUND, "page", "the answer has no such page");
        w->from = day_start(json_as_int(page), w->zone);
    }
    int64_t days = w->until > w->from ? (w->until - w->from + DAY - 1) / DAY : 0,
            most = limit > 0 && limit < MOST_BUCKETS ? limit : MOST_BUCKETS;
    w->last = w->from + DAY * (days < most ? days : most);
    return 0;
}

/* The named ones of a kind; the first one, or nothing, where there are no more. */
static int bind_named(struct query *q, int at, const struct question *w, const char *name, struct error *e) {
    const struct json *list = json_get(w->args, name);
    if (json_count(list) > MOST_NAMED)
        return error_param(e, ERR_INVALID, name, "name %d at most", MOST_NAMED);
    for (size_t i = 0; i < MOST_NAMED; i++) {
        const struct json *v = json_at(list, i < json_count(list) ? i : 0);
        if (strcmp(name, "models") == 0)
            query_text(q, at + (int)i, json_as_str(v));
        else
            query_int(q, at + (int)i, json_as_int(v));
    }
    return 0;
}

static int bind_all(struct query *q, const struct question *w, struct error *e) {
    char from[CALENDAR_DAY], until[CALENDAR_DAY];
    int64_t groups = 0;
    calendar_day(from, w->from * SECOND, w->zone);
    calendar_day(until, w->last * SECOND, w->zone);
    for (int i = 0; i < GROUPS; i++)
        groups |= (int64_t)w->by[i] << i;
    query_int(q, 1, groups);
    query_text(q, 2, str_from(from));
    query_text(q, 3, str_from(until));
    int rc = bind_named(q, 4, w, "tenants", e);
    if (rc == 0)
        rc = bind_named(q, 9, w, "keys", e);
    if (rc == 0)
        rc = bind_named(q, 14, w, "models", e);
    if (rc == 0 && w->tenant != 0)
        query_int(q, 19, w->tenant);
    return rc;
}

static void write_row(struct buf *out, struct query *q, const struct question *w) {
    static const char *const count[] = {"requests", "prompt", "cached", "completion"};
    int64_t uncached = query_column_int(q, 6) - query_column_int(q, 7);
    buf_byte(out, '{');
    for (int i = 0; i < 4; i++)
        buf_printf(out, "%s\"%s\":%lld", i > 0 ? "," : "", count[i], (long long)query_column_int(q, 5 + i));
    buf_printf(out, ",\"uncached\":%lld", (long long)uncached);
    answer_money(out, "charge", query_column_int(q, 9), AMOUNT_DIGITS);
    buf_printf(out, ",\"chip_seconds\":%.3f", (double)query_column_int(q, 10) / 1e9);
    for (int i = BY_TENANT; i <= BY_KEY; i++)
        if (w->by[i])
            buf_printf(out, ",\"%s\":%lld", group_names[i], (long long)query_column_int(q, 1 + i));
    for (int i = BY_MODEL; i <= BY_CURRENCY; i++)
        if (w->by[i])
            answer_text(out, group_names[i], query_column_text(q, 1 + i));
    buf_byte(out, '}');
}

/* Every day has its bucket, those without usage an empty one. */
static int write_buckets(struct buf *out, struct query *q, const struct question *w, struct error *e) {
    int rc = query_step(q, e);
    for (int64_t day = w->from; rc >= 0 && day < w->last; day += DAY) {
        char text[CALENDAR_DAY];
        bool first = true;
        int64_t end = day + DAY;
        calendar_day(text, day * SECOND, w->zone);
        buf_printf(out, "%s{\"start\":%lld,\"end\":%lld,\"results\":[", day > w->from ? "," : "",
                   (long long)day, (long long)end);
        for (; rc > 0 && str_is(query_column_text(q, 0), text); first = false, rc = query_step(q, e)) {
            if (!first)
                buf_byte(out, ',');
            write_row(out, q, w);
        }
        buf_text(out, "]}");
    }
    return rc < 0 ? rc : query_run(q, e);
}

/* {"start", "end", "page", "limit", "group_by", "tenants", "keys", "models", "tenant"}; of a page, "next" says where the next one begins, or 0. */
static int answer(struct cloud *c, struct question *w, struct buf *out, struct error *e) {
    struct str name = args_text(w->args, "tenant");
    struct tenant *t;
    struct query *q;
    int rc = read_groups(w, e);
    if (rc == 0)
        rc = read_times(c, w, e);
    if (rc == 0 && name.n > 0 && (rc = args_tenant(c, w->args, "tenant", &t, e)) == 0)
        w->tenant = t->id;
    if (rc == 0)
        rc = w->tenant != 0 ? store_query(c->store, &q, ROWS " AND u.tenant = $19" ORDER, e)
                            : store_query(c->store, &q, ROWS ORDER, e);
    if (rc != 0 || (rc = bind_all(q, w, e)) != 0)
        return rc;
    buf_text(out, "{\"buckets\":[");
    rc = write_buckets(out, q, w, e);
    buf_printf(out, "],\"next\":%lld}", (long long)(w->last < w->until ? w->last : 0));
    return rc;
}

static int usage_days(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct question w = {.args = args};
    return answer(c, &w, out, e);
}

/* Money of two currencies is never added up. */
static int cost_days(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct question w = {.args = args, .by[BY_CURRENCY] = true};
    return answer(c, &w, out, e);
}

const struct operation_row bucket_operations[] = {
    {"usage.days", usage_days, OPERATION_READS},
    {"cost.days", cost_days, OPERATION_READS},
    {NULL},
};
