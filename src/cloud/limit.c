/* Limits; see limit.h. On a request's journey: between its hold's price and its hold. */
#include "cloud/limit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const int64_t minute = 60000000000, day = 86400000000000;

void limits_free(struct limits *l) {
    json_free(l->models);
    free(l->network);
    l->models = NULL;
    l->network = NULL;
    l->networks = 0;
}

/* ---- buckets ---- */

/* How far from full it is. A clock that was set back would have it wait for longer than it holds: then it is empty. */
static int64_t debt(struct bucket *b, int64_t now) {
    if (b->full > now + minute)
        b->full = now + minute;
    return b->full > now ? b->full - now : 0;
}

/* Rounded down, so that `limit` of them fit. */
static int64_t time_of(int64_t limit, int64_t n) {
    return (int64_t)((money_wide)n * minute / limit);
}

int64_t bucket_wait(struct bucket *b, int64_t limit, int64_t n, int64_t now) {
    if (n > limit)
        return -1;
    int64_t over = debt(b, now) + time_of(limit, n) - minute;
    return over > 0 ? over : 0;
}

static void take(struct bucket *b, int64_t limit, int64_t n, int64_t now) {
    b->full = now + debt(b, now) + time_of(limit, n);
}

bool bucket_take(struct bucket *b, int64_t limit, int64_t n, int64_t now) {
    if (bucket_wait(b, limit, n, now) != 0)
        return false;
    take(b, limit, n, now);
    return true;
}

void bucket_write(const struct bucket *b, int64_t now, int64_t *level) {
    struct bucket copy = *b;
    *level = debt(&copy, now);
}

struct bucket bucket_read(int64_t level, int64_t at, int64_t wall, int64_t now) {
    int64_t since = wall > at ? wall - at : 0;
    int64_t left = level < 0 || level < since ? 0 : level - since;
    return (struct bucket){now + (left < minute ? left : minute)};
}

static struct rate rate_of(struct bucket *b, int64_t limit, int64_t now) {
    if (limit == 0)
        return (struct rate){0};
    int64_t missing = debt(b, now);
    return (struct rate){limit, (int64_t)((money_wide)(minute - missing) * limit / minute), missing};
}

static struct rate tighter(struct rate a, struct rate b) {
    return b.limit == 0 || (a.limit != 0 && a.remaining <= b.remaining) ? a : b;
}

void limits_rates(struct limited *tenant, struct limited *key, int64_t now, struct rates *out) {
    struct limited none = {0};
    struct limited *k = key != NULL ? key : &none;
    out->requests = tighter(rate_of(&k->used.requests, k->limits.requests_minute, now),
                            rate_of(&tenant->used.requests, tenant->limits.requests_minute, now));
    out->tokens = tighter(rate_of(&k->used.tokens, k->limits.tokens_minute, now),
                          rate_of(&tenant->used.tokens, tenant->limits.tokens_minute, now));
}

void duration_write(char text[DURATION_BYTES], int64_t ns) {
    int64_t ms = ns <= 0 ? 0 : (ns - 1) / 1000000 + 1, s = ms / 1000;
    int n = 0;
    if (s >= 3600)
        n += snprintf(text, DURATION_BYTES, "%lldh", (long long)(s / 3600));
    if (s >= 60)
        n += snprintf(text + n, (size_t)(DURATION_BYTES - n), "%lldm", (long long)(s / 60 % 60));
    if (ms > 0 && ms < 1000) {
        snprintf(text, DURATION_BYTES, "%lldms", (long long)ms);
        return;
    }
    n += snprintf(text + n, (size_t)(DURATION_BYTES - n), "%lld", (long long)(s % 60));
    if (ms % 1000 != 0) {
        n += snprintf(text + n, (size_t)(DURATION_BYTES - n), ".%03lld", (long long)(ms % 1000));
        while (text[n - 1] == '0')
            n--;
    }
    text[n] = 's';
    text[n + 1] = 0;
}

/* ---- days and months ---- */

static int64_t day_number(int64_t wall, int64_t zone) {
    int64_t local = wall + zone * minute;
    return local / day - (local % day < 0);
}

static int64_t month_number(int64_t days) {
    time_t at = (time_t)(days * 86400);
    struct tm t;
    gmtime_r(&at, &t);
    return (t.tm_year + 1900LL) * 12 + t.tm_mon;
}

static void turn(struct spent slot[2], int64_t period) {
    struct spent before = slot[0];
    if (before.period == period)
        return;
    slot[0] = slot[1].period == period ? slot[1] : (struct spent){period, 0};
    slot[1] = before;
}

void used_roll(struct used *u, int64_t wall, int64_t zone) {
    int64_t today = day_number(wall, zone);
    if (u->day[0].period == today && u->month[0].period != 0)
        return;
    turn(u->day, today);
    turn(u->month, month_number(today));
}

/* When the present day or month ends, in UTC. */
static void write_end(char *text, size_t size, bool of_month, int64_t wall, int64_t zone) {
    int64_t today = day_number(wall, zone);
    time_t at = (time_t)(today * 86400);
    struct tm t;
    gmtime_r(&at, &t);
    t.tm_mday = of_month ? 1 : t.tm_mday + 1;
    t.tm_mon += of_month;
    at = timegm(&t) - zone * 60;
    gmtime_r(&at, &t);
    strftime(text, size, "%Y-%m-%dT%H:%M:%SZ", &t);
}

/* ---- one who is limited ---- */

static bool matches(struct str pattern, struct str name) {
    if (pattern.n > 0 && pattern.p[pattern.n - 1] == '*')
        return str_starts(name, (struct str){pattern.p, pattern.n - 1});
    return str_equal(pattern, name);
}

static int check_model(const struct limits *l, const char *whose, const struct limit_ask *ask,
                       struct error *e) {
    for (size_t i = 0; i < json_count(l->models); i++)
        if (matches(json_as_str(json_at(l->models, i)), ask->model))
            return 0;
    return l->models == NULL
               ? 0
               : error_param(e, ERR_DENIED, "model", "this %s may not use the model '%.*s'", whose,
                             (int)(ask->model.n < 200 ? ask->model.n : 200), ask->model.p);
}

static int check_from(const struct limits *l, const char *whose, const struct address *from,
                      struct error *e) {
    char text[ADDRESS_TEXT_BYTES];
    for (size_t i = 0; i < l->networks; i++)
        if (network_has(&l->network[i], from))
            return 0;
    if (l->networks == 0)
        return 0;
    address_write(from, text);
    return error_set(e, ERR_DENIED, "this %s may not be used from %s", whose, text);
}

static int check_bucket(struct bucket *b, int64_t limit, int64_t n, const char *what, const char *whose,
                        int64_t now, struct error *e) {
    int64_t wait = limit != 0 ? bucket_wait(b, limit, n, now) : 0;
    if (wait == 0)
        return 0;
    struct rate r = rate_of(b, limit, now);
    char again[DURATION_BYTES];
    duration_write(again, wait);
    if (wait < 0)
        error_param(e, ERR_BUSY, what,
                    "this request asks for up to %lld %s, and the %s's limit is %lld a minute: ask for less",
                    (long long)n, what, whose, (long long)limit);
    else
        error_param(
            e, ERR_BUSY, what,
            "the %s's limit of %s a minute is reached: limit %lld, left %lld, asked for %lld; try again "
            "in %s",
            whose, what, (long long)limit, (long long)r.remaining, (long long)n, again);
    if (e != NULL)
        e->wait_ns = wait;
    return ERR_BUSY;
}

money_wide limits_left(const struct limited *who, bool of_month) {
    const struct spent *s = of_month ? who->used.month : who->used.day;
    amount most = of_month ? who->limits.spend_month : who->limits.spend_day;
    return most != 0 ? (money_wide)most - s->value - who->used.held : (money_wide)1 << 100;
}

static int check_spend(const struct limited *who, bool of_month, const char *whose,
                       const struct limit_ask *ask, struct error *e) {
    money_wide left = limits_left(who, of_month);
    char end[32];
    struct buf text = {0};
    if (ask->worst == 0 || ask->worst <= left)
        return 0;
    write_end(end, sizeof end, of_month, ask->wall, ask->zone);
    buf_printf(&text, "the %s may spend ", whose);
    money_write(&text, of_month ? who->limits.spend_month : who->limits.spend_day, AMOUNT_DIGITS);
    buf_printf(&text, " %s a %s, of which ", ask->currency, of_month ? "month" : "day");
    money_write(&text, left > 0 ? (int64_t)left : 0, AMOUNT_DIGITS);
    buf_text(&text, " are left, and this request may cost up to ");
    money_write(&text, ask->worst, AMOUNT_DIGITS);
    buf_printf(&text, "; the next %s begins at %s", of_month ? "month" : "day", end);
    error_write(e, ERR_CREDIT, "", "%s", text.p != NULL ? text.p : "no more may be spent");
    buf_free(&text);
    return ERR_CREDIT;
}

static int check(struct limited *who, const char *whose, const struct limit_ask *ask, struct error *e) {
    const struct limits *l = &who->limits;
    struct used *u = &who->used;
    int rc;
    if (l->concurrent != 0 && u->open >= l->concurrent)
        return error_set(e, ERR_BUSY,
                         "the %s has %lld requests running already, its limit; try again in a moment", whose,
                         (long long)u->open);
    used_roll(u, ask->wall, ask->zone);
    if ((rc = check_bucket(&u->requests, l->requests_minute, 1, "requests", whose, ask->now, e)) != 0 ||
        (rc = check_bucket(&u->tokens, l->tokens_minute, ask->tokens, "tokens", whose, ask->now, e)) != 0 ||
        (rc = check_spend(who, false, whose, ask, e)) != 0)
        return rc;
    return check_spend(who, true, whose, ask, e);
}

/* ---- both together ---- */

int limits_check_address(const struct limited *tenant, const struct limited *key, const struct address *from,
                         struct error *e) {
    int rc = check_from(&tenant->limits, "tenant", from, e);
    return rc != 0 || key == NULL ? rc : check_from(&key->limits, "key", from, e);
}

int limits_check(struct limited *tenant, struct limited *key, const struct limit_ask *ask, struct error *e) {
    int rc;
    if ((rc = limits_check_address(tenant, key, &ask->from, e)) != 0 ||
        (rc = check_model(&tenant->limits, "tenant", ask, e)) != 0 ||
        (key != NULL && (rc = check_model(&key->limits, "key", ask, e)) != 0) ||
        (key != NULL && (rc = check(key, "key", ask, e)) != 0))
        return rc;
    return check(tenant, "tenant", ask, e);
}

static void take_all(struct limited *who, const struct limit_ask *ask) {
    if (who->limits.requests_minute != 0)
        take(&who->used.requests, who->limits.requests_minute, 1, ask->now);
    if (who->limits.tokens_minute != 0)
        take(&who->used.tokens, who->limits.tokens_minute, ask->tokens, ask->now);
    who->used.open++;
    who->used.held += ask->worst;
}

void limits_take(struct limited *tenant, struct limited *key, const struct limit_ask *ask) {
    take_all(tenant, ask);
    if (key != NULL)
        take_all(key, ask);
}

static amount add(amount a, amount b) {
    amount sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* From `before` to `after`. */
static struct crossing cross(const struct limits *l, amount limit, amount before, amount after,
                             int64_t wall) {
    struct crossing x = {.spent = after, .wall = wall};
    for (size_t i = 0; limit != 0 && i < LIMIT_WARNINGS && l->warn[i] != 0; i++) {
        money_wide at = (money_wide)limit * l->warn[i];
        if ((money_wide)before * 100 < at && (money_wide)after * 100 >= at)
            x.percent = l->warn[i];
    }
    return x;
}

static struct crossings charge(struct limited *who, const struct limit_settle *s) {
    struct used *u = &who->used;
    const struct limits *l = &who->limits;
    used_roll(u, s->wall, s->zone);
    amount in_day = u->day[0].value, in_month = u->month[0].value;
    u->day[0].value = add(in_day, s->charge);
    u->month[0].value = add(in_month, s->charge);
    return (struct crossings){cross(l, l->spend_day, in_day, u->day[0].value, s->wall),
                              cross(l, l->spend_month, in_month, u->month[0].value, s->wall)};
}

void limits_charge(struct limited *tenant, struct limited *key, const struct limit_settle *s,
                   struct crossings *tenant_crossed, struct crossings *key_crossed) {
    *tenant_crossed = charge(tenant, s);
    *key_crossed = key != NULL ? charge(key, s) : (struct crossings){0};
}

static void give_back(struct limited *who, const struct limit_settle *s) {
    struct used *u = &who->used;
    int64_t limit = who->limits.tokens_minute;
    if (limit != 0 && s->tokens <= limit && s->used < s->tokens) /* else it is a limit of later */
        u->tokens.full -= time_of(limit, s->tokens) - time_of(limit, s->used);
    u->open--;
    u->held -= s->worst;
}

void limits_settle(struct limited *tenant, struct limited *key, const struct limit_settle *s,
                   struct crossings *tenant_crossed, struct crossings *key_crossed) {
    give_back(tenant, s);
    if (key != NULL)
        give_back(key, s);
    limits_charge(tenant, key, s, tenant_crossed, key_crossed);
}

void limits_reached(const struct limited *who, int64_t wall, struct crossings *out) {
    const struct limits *l = &who->limits;
    out->day = cross(l, l->spend_day, -1, who->used.day[0].value, wall);
    out->month = cross(l, l->spend_month, -1, who->used.month[0].value, wall);
}
