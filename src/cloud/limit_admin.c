/* Limits as rows of the books, and the operations that show and set them. A tenant's own row has key 0. */
#include "cloud/inner.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- lists: JSON arrays in rows; what people type is separated by commas ---- */

static int set_models(struct limits *l, struct str array, struct error *e) {
    int rc = json_parse(&l->models, array, e);
    for (size_t i = 0; rc == 0 && i < json_count(l->models); i++) {
        struct str name = json_as_str(json_at(l->models, i));
        if (name.n == 0 || name.n >= MODEL_NAME_BYTES)
            rc = error_param(e, ERR_INVALID, "models", "a model's name is 1 to %d bytes",
                             MODEL_NAME_BYTES - 1);
    }
    if (rc == 0 && json_count(l->models) == 0) {
        json_free(l->models);
        l->models = NULL;
    }
    return rc;
}

static int set_networks(struct limits *l, struct str array, struct error *e) {
    struct json *list = NULL;
    int rc = json_parse(&list, array, e);
    size_t n = json_count(list);
    if (rc == 0 && n > 0 && (l->network = calloc(n, sizeof *l->network)) == NULL)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for a limit");
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = network_parse(json_as_str(json_at(list, i)), &l->network[l->networks++], e);
    json_free(list);
    if (rc == ERR_INVALID && e != NULL)
        snprintf(e->param, sizeof e->param, "addresses");
    return rc;
}

static int set_warnings(struct limits *l, struct str array, struct error *e) {
    struct json *list = NULL;
    int rc = json_parse(&list, array, e);
    int64_t before = 0;
    memset(l->warn, 0, sizeof l->warn);
    for (size_t i = 0; rc == 0 && i < json_count(list); i++) {
        int64_t percent = json_as_int(json_at(list, i));
        if (i == LIMIT_WARNINGS || percent <= before || percent > 100)
            rc = error_param(e, ERR_INVALID, "warn",
                             "warn wants up to %d rising percents up to 100, like 80,100", LIMIT_WARNINGS);
        else
            l->warn[i] = (uint8_t)(before = percent);
    }
    json_free(list);
    return rc;
}

/* The three lists of a row, from its texts. */
static int set_lists(struct limits *l, struct str models, struct str addresses, struct str warn,
                     struct error *e) {
    int rc = set_models(l, models, e);
    if (rc == 0)
        rc = set_networks(l, addresses, e);
    return rc != 0 ? rc : set_warnings(l, warn, e);
}

static void write_lists(const struct limits *l, struct buf *models, struct buf *addresses, struct buf *warn) {
    if (l->models != NULL)
        json_write(models, l->models);
    else
        buf_text(models, "[]");
    for (size_t i = 0; i < l->networks; i++) {
        buf_text(addresses, i > 0 ? "\",\"" : "[\"");
        network_write(addresses, &l->network[i]);
    }
    buf_text(addresses, l->networks > 0 ? "\"]" : "[]");
    buf_byte(warn, '[');
    for (size_t i = 0; i < LIMIT_WARNINGS && l->warn[i] != 0; i++)
        buf_printf(warn, "%s%d", i > 0 ? "," : "", l->warn[i]);
    buf_byte(warn, ']');
}

/* ---- loading ---- */

static int read_zone(struct cloud *c, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q, "SELECT zone FROM book WHERE id = 1", e);
    if (rc != 0 || (rc = query_step(q, e)) <= 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    c->zone = query_column_int(q, 0);
    pthread_mutex_unlock(&c->lock);
    return query_run(q, e);
}

/* Whom a row is about; NULL: nobody (any more). */
static struct limited *find_limited(struct cloud *c, int64_t tenant, int64_t key) {
    struct tenant *t = memory_tenant_of(c, tenant);
    struct key *k = memory_key_of(c, t, key);
    if (key == 0)
        return t != NULL ? &t->limited : NULL;
    return k != NULL ? &k->limited : NULL;
}

static int read_limits(struct query *q, struct limits *l, struct error *e) {
    *l = (struct limits){.requests_minute = query_column_int(q, 2),
                         .tokens_minute = query_column_int(q, 3),
                         .concurrent = query_column_int(q, 4),
                         .spend_day = query_column_int(q, 5),
                         .spend_month = query_column_int(q, 6),
                         .credit_low = query_column_int(q, 7)};
    int rc = set_lists(l, query_column_text(q, 8), query_column_text(q, 9), query_column_text(q, 10), e);
    if (rc == ERR_INVALID)
        rc = error_set(e, ERR_CORRUPT, "a limit of the books is damaged");
    if (rc != 0)
        limits_free(l);
    return rc;
}

static void replace_limits(struct cloud *c, struct limited *who, const struct limits *l) {
    pthread_mutex_lock(&c->lock);
    struct limits old = who->limits;
    who->limits = *l;
    pthread_mutex_unlock(&c->lock);
    limits_free(&old);
}

int limit_load_changed(struct cloud *c, int64_t since, struct error *e) {
    struct query *q;
    struct limits l;
    int rc = store_query(
        c->store, &q,
        "SELECT l.tenant, l.key, l.requests_minute, l.tokens_minute, l.concurrent, l.spend_day, "
        "l.spend_month,"
        " l.credit_low, l.models, l.addresses, l.warn FROM limits l JOIN tenant t ON t.id = l.tenant"
        " WHERE t.turn > $1",
        e);
    if (rc == 0)
        query_int(q, 1, since);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct limited *who = find_limited(c, query_column_int(q, 0), query_column_int(q, 1));
        rc = 0;
        if (who != NULL && (rc = read_limits(q, &l, e)) == 0)
            replace_limits(c, who, &l);
    }
    for (struct tenant *t = c->tenants; rc == 0 && t != NULL; t = t->next) {
        pthread_mutex_lock(&c->lock);
        if (t->limited.limits.concurrent == 0)
            t->limited.limits.concurrent = t->max_concurrent;
        pthread_mutex_unlock(&c->lock);
    }
    return rc != 0 ? rc : read_zone(c, e);
}

/* ---- what is used, where nodes share the books ---- */

enum { USED_NUMBERS = 14 };

int limit_load_used(struct cloud *c, int64_t since, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "SELECT tenant, key, at, requests, tokens, open, held, day, day_spent, last_day,"
                         " last_day_spent, month, month_spent, last_month, last_month_spent FROM used"
                         " WHERE turn > $1",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, since);
    while ((rc = query_step(q, e)) > 0) {
        struct limited *who = find_limited(c, query_column_int(q, 0), query_column_int(q, 1));
        int64_t at = query_column_int(q, 2), wall = clock_wall_ns(), now = clock_mono_ns();
        if (who == NULL)
            continue;
        pthread_mutex_lock(&c->lock);
        who->used = (struct used){
            .requests = bucket_read(query_column_int(q, 3), at, wall, now),
            .tokens = bucket_read(query_column_int(q, 4), at, wall, now),
            .open = query_column_int(q, 5),
            .held = query_column_int(q, 6),
            .day = {{query_column_int(q, 7), query_column_int(q, 8)},
                    {query_column_int(q, 9), query_column_int(q, 10)}},
            .month = {{query_column_int(q, 11), query_column_int(q, 12)},
                      {query_column_int(q, 13), query_column_int(q, 14)}},
        };
        pthread_mutex_unlock(&c->lock);
    }
    return rc;
}

int limit_write_used(struct cloud *c, int64_t tenant, int64_t key, const struct used *u, struct error *e) {
    int64_t number[USED_NUMBERS] = {c->ledger.turn,
                                    clock_wall_ns(),
                                    0,
                                    0,
                                    u->open,
                                    u->held,
                                    u->day[0].period,
                                    u->day[0].value,
                                    u->day[1].period,
                                    u->day[1].value,
                                    u->month[0].period,
                                    u->month[0].value,
                                    u->month[1].period,
                                    u->month[1].value};
    struct query *q;
    int64_t now = clock_mono_ns();
    int rc = store_query(
        c->store, &q,
        "INSERT INTO used (tenant, key, turn, at, requests, tokens, open, held, day, day_spent, last_day,"
        " last_day_spent, month, month_spent, last_month, last_month_spent)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
        " ON CONFLICT (tenant, key) DO UPDATE SET turn = excluded.turn, at = excluded.at,"
        " requests = excluded.requests, tokens = excluded.tokens, open = excluded.open, held = excluded.held,"
        " day = excluded.day, day_spent = excluded.day_spent, last_day = excluded.last_day,"
        " last_day_spent = excluded.last_day_spent, month = excluded.month,"
        " month_spent = excluded.month_spent, last_month = excluded.last_month,"
        " last_month_spent = excluded.last_month_spent",
        e);
    if (rc != 0)
        return rc;
    bucket_write(&u->requests, now, &number[2]);
    bucket_write(&u->tokens, now, &number[3]);
    query_int(q, 1, tenant);
    query_int(q, 2, key);
    for (int i = 0; i < USED_NUMBERS; i++)
        query_int(q, i + 3, number[i]);
    return query_run(q, e);
}

static void add_spent(struct used *u, amount in_day, amount in_month) {
    u->day[0].value += in_day;
    u->month[0].value += in_month;
}

/* What this day and month have cost so far, from the roll-up, in the order in which it lies: the month's period, and the one before in case the zone has changed. */
static int load_spent(struct cloud *c, struct error *e) {
    struct query *q;
    char today[CALENDAR_DAY], month[CALENDAR_MONTH];
    int64_t wall = clock_wall_ns();
    calendar_day(today, wall, c->zone);
    calendar_month(month, wall, c->zone);
    for (struct tenant *t = c->tenants; t != NULL; t = t->next)
        used_roll(&t->limited.used, wall, c->zone);
    for (size_t i = 0; i < sizeof c->keys / sizeof *c->keys; i++)
        for (struct key *k = c->keys[i]; k != NULL; k = k->next)
            used_roll(&k->limited.used, wall, c->zone);
    int rc = store_query(c->store, &q,
                         "SELECT u.tenant, u.key,"
                         " CAST(sum(CASE WHEN u.day = $2 THEN u.charge ELSE 0 END) AS BIGINT),"
                         " CAST(sum(u.charge) AS BIGINT)"
                         " FROM tenant t CROSS JOIN period p CROSS JOIN usage_day u"
                         " WHERE p.id >= coalesce((SELECT max(id) FROM period WHERE month < $1), 0)"
                         " AND u.tenant = t.id AND u.period = p.id AND u.day > $1 AND u.day <= $2"
                         " GROUP BY u.tenant, u.key",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(month)); /* "2026-11" is before all of its days */
    query_text(q, 2, str_from(today));
    while ((rc = query_step(q, e)) > 0) {
        struct key *k = memory_key(c, query_column_int(q, 1));
        struct tenant *t = k != NULL ? k->tenant : memory_tenant_of(c, query_column_int(q, 0));
        amount in_day = query_column_int(q, 2), in_month = query_column_int(q, 3);
        if (k != NULL)
            add_spent(&k->limited.used, in_day, in_month);
        if (t != NULL)
            add_spent(&t->limited.used, in_day, in_month);
    }
    return rc;
}

int limit_load(struct cloud *c, struct error *e) {
    int rc = limit_load_changed(c, -1, e);
    return rc != 0 ? rc : load_spent(c, e);
}

/* ---- who an operation is about ---- */

struct subject {
    struct tenant *tenant;
    struct key *key; /* NULL: the tenant itself */
    struct limited *who;
};

static int64_t number_of(const struct json *v) {
    struct str text = json_as_str(v);
    int64_t n = 0;
    if (json_kind(v) != JSON_KIND_STRING)
        return json_kind(v) == JSON_KIND_INT ? json_as_int(v) : -1;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || n > LIMIT_MOST)
            return -1;
        n = n * 10 + text.p[i] - '0';
    }
    return text.n > 0 ? n : -1;
}

static int find_subject(struct cloud *c, const struct json *args, struct subject *s, struct error *e) {
    const struct json *key = json_get(args, "key");
    *s = (struct subject){0};
    if (memory_need_tenant(c, json_as_str(json_get(args, "tenant")), "tenant", &s->tenant, e) != 0)
        return ERR_NOT_FOUND;
    s->who = &s->tenant->limited;
    if (key == NULL)
        return 0;
    s->key = memory_key(c, number_of(key));
    if (s->key == NULL || s->key->tenant != s->tenant)
        return error_param(e, ERR_NOT_FOUND, "key", "the tenant has no such key; see unkai key list %s",
                           s->tenant->name);
    s->who = &s->key->limited;
    return 0;
}

/* ---- showing ---- */

static void write_amount(struct buf *out, const char *name, amount value) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, AMOUNT_DIGITS);
    buf_byte(out, '"');
}

static void write_subject(struct cloud *c, const struct subject *s, struct buf *out) {
    struct buf models = {0}, addresses = {0}, warn = {0};
    struct rates left;
    pthread_mutex_lock(&c->lock);
    used_roll(&s->who->used, clock_wall_ns(), c->zone);
    limits_rates(s->who, NULL, clock_mono_ns(), &left);
    struct used used = s->who->used;
    pthread_mutex_unlock(&c->lock);
    const struct limits *l = &s->who->limits;
    write_lists(l, &models, &addresses, &warn);
    buf_text(out, "{\"tenant\":");
    json_write_text(out, s->tenant->name);
    if (s->key != NULL)
        buf_printf(out, ",\"key\":%lld,\"expires\":%lld", (long long)s->key->id,
                   (long long)(s->key->expires / 1000000000));
    buf_printf(
        out,
        ",\"requests_per_minute\":%lld,\"tokens_per_minute\":%lld,\"concurrency\":%lld,\"currency\":\"%s\"",
        (long long)l->requests_minute, (long long)l->tokens_minute, (long long)l->concurrent,
        s->tenant->currency);
    write_amount(out, "spend_day", l->spend_day);
    write_amount(out, "spend_month", l->spend_month);
    write_amount(out, "credit_low", l->credit_low);
    buf_printf(out, ",\"models\":%s,\"addresses\":%s,\"warn\":%s", models.p, addresses.p, warn.p);
    buf_printf(out, ",\"used\":{\"running\":%lld,\"requests_left\":%lld,\"tokens_left\":%lld",
               (long long)used.open, (long long)left.requests.remaining, (long long)left.tokens.remaining);
    write_amount(out, "held", used.held);
    write_amount(out, "day", used.day[0].value);
    write_amount(out, "month", used.month[0].value);
    buf_text(out, "}}");
    buf_free(&models);
    buf_free(&addresses);
    buf_free(&warn);
}

static bool is_limited(const struct key *k) {
    const struct limits *l = &k->limited.limits;
    return k->expires != 0 || l->requests_minute != 0 || l->tokens_minute != 0 || l->concurrent != 0 ||
           l->spend_day != 0 || l->spend_month != 0 || l->models != NULL || l->networks != 0;
}

static int limit_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct subject s;
    int rc = find_subject(c, args, &s, e);
    if (rc != 0)
        return rc;
    buf_byte(out, '[');
    write_subject(c, &s, out);
    for (size_t i = 0; s.key == NULL && i < sizeof c->numbered / sizeof *c->numbered; i++)
        for (struct key *k = c->numbered[i]; k != NULL; k = k->next_numbered)
            if (k->tenant == s.tenant && !k->revoked && is_limited(k)) {
                buf_byte(out, ',');
                write_subject(c, &(struct subject){s.tenant, k, &k->limited}, out);
            }
    buf_byte(out, ']');
    return 0;
}

/* ---- setting ---- */

static int set_number(const struct json *args, const char *name, int64_t *to, struct error *e) {
    const struct json *v = json_get(args, name);
    int64_t n = number_of(v);
    if (v == NULL)
        return 0;
    if (n < 0 || n > LIMIT_MOST)
        return error_param(e, ERR_INVALID, name, "%s wants a number from 0 (no limit) to %d", name,
                           LIMIT_MOST);
    *to = n;
    return 0;
}

static int set_amount(const struct json *args, const char *name, amount *to, struct error *e) {
    const struct json *v = json_get(args, name);
    int rc = v == NULL ? 0 : money_parse(to, json_as_str(v), AMOUNT_DIGITS, e);
    if (rc != 0 && e != NULL)
        snprintf(e->param, sizeof e->param, "%s", name);
    return rc;
}

/* "2027-01-01" (where that day begins in the books' zone), "2027-01-01T12:00:00Z", seconds since 1970, or empty or 0: never. */
static int set_expiry(struct cloud *c, const struct json *args, int64_t *to, struct error *e) {
    const struct json *v = json_get(args, "expires");
    struct str text = json_as_str(v);
    struct tm tm = {0}, same;
    char copy[32] = "", again[32];
    bool day = text.n == 10;
    if (json_kind(v) == JSON_KIND_INT && json_as_int(v) >= 0 && json_as_int(v) <= INT64_MAX / 1000000000)
        *to = json_as_int(v) * 1000000000;
    if (v == NULL || json_kind(v) == JSON_KIND_INT)
        return 0;
    if (text.n < sizeof copy)
        memcpy(copy, text.p, text.n);
    const char *shape = day ? "%Y-%m-%d" : "%Y-%m-%dT%H:%M:%SZ", *end = strptime(copy, shape, &tm);
    same = tm;
    time_t at = timegm(&same);
    bool good = end != NULL && *end == 0 && strftime(again, sizeof again, shape, &same) == text.n &&
                str_is(text, again) && tm.tm_year < 300;
    *to = text.n == 0 ? 0 : ((int64_t)at - (day ? c->zone * 60 : 0)) * 1000000000;
    return good || text.n == 0
               ? 0
               : error_param(e, ERR_INVALID, "expires",
                             "'%.*s' is no date: write it like 2027-01-01 or 2027-01-01T12:00:00Z",
                             (int)(text.n < 40 ? text.n : 40), text.p);
}

/* The lists that the arguments name, the others as they are. */
static int change_lists(const struct json *args, const struct limits *old, struct limits *l,
                        struct error *e) {
    static const char *const name[] = {"models", "addresses", "warn"};
    struct buf text[3] = {0}, given = {0};
    int rc = 0;
    write_lists(old, &text[0], &text[1], &text[2]);
    for (int i = 0; i < 3 && rc == 0; i++)
        if (json_get(args, name[i]) != NULL) {
            buf_clear(&given);
            rc = args_list(json_get(args, name[i]), name[i], i == 2, &given, e);
            buf_clear(&text[i]);
            buf_str(&text[i], buf_view(&given));
        }
    if (rc == 0)
        rc = set_lists(l, buf_view(&text[0]), buf_view(&text[1]), buf_view(&text[2]), e);
    for (int i = 0; i < 3; i++)
        buf_free(&text[i]);
    buf_free(&given);
    return rc;
}

static int change(const struct json *args, const struct limits *old, struct limits *l, struct error *e) {
    int rc;
    *l = *old;
    l->models = NULL;
    l->network = NULL;
    l->networks = 0;
    if ((rc = set_number(args, "requests_per_minute", &l->requests_minute, e)) != 0 ||
        (rc = set_number(args, "tokens_per_minute", &l->tokens_minute, e)) != 0 ||
        (rc = set_number(args, "concurrency", &l->concurrent, e)) != 0 ||
        (rc = set_amount(args, "spend_day", &l->spend_day, e)) != 0 ||
        (rc = set_amount(args, "spend_month", &l->spend_month, e)) != 0 ||
        (rc = set_amount(args, "credit_low", &l->credit_low, e)) != 0)
        return rc;
    return change_lists(args, old, l, e);
}

static int write_limits(struct store *s, int64_t tenant, int64_t key, const struct limits *l,
                        struct error *e) {
    struct buf models = {0}, addresses = {0}, warn = {0};
    struct query *q;
    int rc = store_query(
        s, &q,
        "INSERT INTO limits (tenant, key, requests_minute, tokens_minute, concurrent, spend_day, "
        "spend_month, credit_low,"
        " models, addresses, warn) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT "
        "(tenant, key) DO"
        " UPDATE SET requests_minute = excluded.requests_minute, tokens_minute = excluded.tokens_minute,"
        " concurrent = excluded.concurrent, spend_day = excluded.spend_day, spend_month = "
        "excluded.spend_month,"
        " credit_low = excluded.credit_low, models = excluded.models, addresses = excluded.addresses, warn = "
        "excluded.warn",
        e);
    if (rc != 0)
        return rc;
    write_lists(l, &models, &addresses, &warn);
    query_int(q, 1, tenant);
    query_int(q, 2, key);
    query_int(q, 3, l->requests_minute);
    query_int(q, 4, l->tokens_minute);
    query_int(q, 5, l->concurrent);
    query_int(q, 6, l->spend_day);
    query_int(q, 7, l->spend_month);
    query_int(q, 8, l->credit_low);
    query_text(q, 9, buf_view(&models));
    query_text(q, 10, buf_view(&addresses));
    query_text(q, 11, buf_view(&warn));
    rc = query_run(q, e);
    buf_free(&models);
    buf_free(&addresses);
    buf_free(&warn);
    return rc;
}

static int write_expiry(struct store *s, int64_t key, int64_t expires, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "UPDATE key SET expires = $2 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, key);
    query_int(q, 2, expires);
    return query_run(q, e);
}

/* A limit that is changed begins with a full bucket; what is spent and what runs stays. */
static void apply(struct cloud *c, const struct subject *s, struct limits *l, int64_t expires) {
    pthread_mutex_lock(&c->lock);
    struct limits old = s->who->limits;
    if (l->requests_minute != old.requests_minute)
        s->who->used.requests.full = 0;
    if (l->tokens_minute != old.tokens_minute)
        s->who->used.tokens.full = 0;
    if (s->key != NULL)
        s->key->expires = expires;
    else if (l->concurrent == 0)
        l->concurrent = s->tenant->max_concurrent;
    s->who->limits = *l;
    pthread_mutex_unlock(&c->lock);
    limits_free(&old);
}

static int limit_set(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct subject s;
    struct limits l = {0};
    int rc = find_subject(c, args, &s, e);
    if (rc != 0)
        return rc;
    int64_t expires = s.key != NULL ? s.key->expires : 0;
    if (s.key == NULL && json_get(args, "expires") != NULL)
        return error_param(e, ERR_INVALID, "expires", "a key may expire, a tenant does not: name the key");
    if (s.key != NULL && json_get(args, "credit_low") != NULL)
        return error_param(e, ERR_INVALID, "credit_low", "credit is the tenant's, not the key's");
    rc = set_expiry(c, args, &expires, e);
    if (rc == 0)
        rc = change(args, &s.who->limits, &l, e);
    if (rc == 0)
        rc = write_limits(c->store, s.tenant->id, s.key != NULL ? s.key->id : 0, &l, e);
    if (rc == 0 && s.key != NULL)
        rc = write_expiry(c->store, s.key->id, expires, e);
    if (rc != 0) {
        limits_free(&l);
        return rc;
    }
    apply(c, &s, &l, expires);
    if (c->shared != NULL &&
        (rc = limit_write_used(c, s.tenant->id, s.key != NULL ? s.key->id : 0, &s.who->used, e)) != 0)
        return rc;
    if ((rc = shared_changed(c, s.tenant, e)) != 0 || (rc = warn_set(c, s.tenant, s.key, s.who, e)) != 0)
        return rc;
    buf_byte(out, '[');
    write_subject(c, &s, out);
    buf_byte(out, ']');
    return 0;
}

const struct operation_row limit_operations[] = {
    {"limit.show", limit_show, OPERATION_READS},
    {"limit.set", limit_set},
    {NULL},
};
