/* Assets and expenses; see asset.h. On a yen's journey: the first station, something is bought. */
#include "owner/asset.h"

#include "base/clock.h"
#include "cloud/calendar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double MOST_MONEY = 1e15, MOST_SHARE = 100, MOST_LIFE = 1200; /* months */

/* ---- members ---- */

/* "12.5", or "10%" where a share is meant. */
static bool decimal(struct str s, bool share, double *out) {
    char text[40], *end;
    bool plain = s.n > 0 && s.n < sizeof text;
    for (size_t i = 0; i < s.n && plain; i++)
        plain = (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '.' || (s.p[i] == '%' && share && i + 1 == s.n);
    if (!plain)
        return false;
    snprintf(text, sizeof text, "%.*s", (int)s.n, s.p);
    *out = strtod(text, &end);
    if (end != text && *end == '%') {
        *out /= 100;
        end++;
    }
    return end != text && *end == 0;
}

int number_of(const struct json *args, const char *name, double otherwise, double most, double *out,
              struct error *e) {
    const struct json *v = json_get(args, name);
    double x = json_as_number(v);
    if (json_kind(v) == JSON_KIND_NULL && !isnan(otherwise)) {
        *out = otherwise;
        return 0;
    }
    bool number =
        json_kind(v) == JSON_KIND_STRING ? decimal(json_as_str(v), most <= MOST_SHARE, &x) : json_numeric(v);
    if (!number || !(x >= 0 && x <= most))
        return error_param(e, ERR_INVALID, name, "%s wants a number from 0 to %.10g%s", name, most,
                           most <= MOST_SHARE ? ", or a share like 10%" : "");
    *out = x;
    return 0;
}

static int name_of(const struct json *args, char out[64], struct error *e) {
    struct str s = json_as_str(json_get(args, "name"));
    bool plain = s.n > 0 && s.n < 64;
    for (size_t i = 0; i < s.n && plain; i++)
        plain = (unsigned char)s.p[i] >= ' ' && s.p[i] != 127;
    if (!plain)
        return error_param(e, ERR_INVALID, "name", "a name is 1 to 63 bytes of text");
    snprintf(out, 64, "%.*s", (int)s.n, s.p);
    return 0;
}

static int currency_of(const struct json *args, char out[4], struct error *e) {
    struct str s = json_as_str(json_get(args, "currency"));
    if (!money_currency(s))
        return error_param(e, ERR_INVALID, "currency", "a currency is three capital letters, like JPY");
    snprintf(out, 4, "%.*s", (int)s.n, s.p);
    return 0;
}

int asset_day(int64_t *out, struct str text, int64_t zone, const char *name, struct error *e) {
    if (text.n != CALENDAR_DAY - 1)
        return error_param(e, ERR_INVALID, name, "%s wants a day, like 2026-11-01", name);
    return calendar_parse(out, text, zone, e);
}

/* A day, or `otherwise`. */
static int day_of(const struct json *args, const char *name, int64_t zone, int64_t otherwise, int64_t *out,
                  struct error *e) {
    struct str s = json_as_str(json_get(args, name));
    *out = otherwise;
    return s.n > 0 ? asset_day(out, s, zone, name, e) : 0;
}

/* "60" or "60m" months, as 60, "5y" years. */
static int life_of(const struct json *args, double *years, struct error *e) {
    struct str s = json_as_str(json_get(args, "life"));
    double months = (double)json_as_int(json_get(args, "life"));
    size_t i = 0;
    for (; i < s.n && i < 5 && s.p[i] >= '0' && s.p[i] <= '9'; i++)
        months = months * 10 + (s.p[i] - '0');
    if (i + 1 == s.n && s.p[i] == 'y')
        months *= 12;
    else if (i != s.n && !(i + 1 == s.n && s.p[i] == 'm'))
        months = 0;
    if (months < 1 || months > MOST_LIFE)
        return error_param(e, ERR_INVALID, "life", "life wants months, like 60, or years, like 5y");
    *years = months / 12;
    return 0;
}

/* ---- profiles ---- */

static int read_asset(struct asset *a, const struct json *p, int64_t zone, struct error *e) {
    const struct {
        const char *name;
        double *to, otherwise, most;
    } number[] = {
        {"price", &a->price, NAN, MOST_MONEY},
        {"residual", &a->residual, 0, MOST_MONEY},
        {"chips", &a->chips, 1, 1e7},
        {"watts", &a->watts, 0, 1e10},
        {"pue", &a->pue, 1, MOST_SHARE},
        {"kwh", &a->kwh, 0, MOST_MONEY},
        {"operation", &a->operation, 0, MOST_SHARE},
        {"discount", &a->discount, 0, MOST_SHARE},
        {"sold", &a->sold, 0, MOST_MONEY},
    };
    struct str method = json_as_str(json_get(p, "method"));
    int rc = currency_of(p, a->currency, e);
    for (size_t i = 0; i < sizeof number / sizeof *number && rc == 0; i++)
        rc = number_of(p, number[i].name, number[i].otherwise, number[i].most, number[i].to, e);
    if (rc != 0 || (rc = life_of(p, &a->life, e)) != 0 ||
        (rc = day_of(p, "bought", zone, 0, &a->bought, e)) != 0)
        return rc;
    if (method.n > 0 && !str_is(method, "straight") && !str_is(method, "declining"))
        return error_param(e, ERR_INVALID, "method", "method wants straight or declining");
    if (a->residual > a->price)
        return error_param(e, ERR_INVALID, "residual", "the residual value is above the price");
    if (a->pue < 1)
        return error_param(e, ERR_INVALID, "pue",
                           "no building draws less than what is in it: pue is 1 or more");
    if (!(a->chips > 0))
        return error_param(e, ERR_INVALID, "chips", "an asset has a chip at least");
    a->method = str_is(method, "declining") ? DECLINING_BALANCE : STRAIGHT_LINE;
    a->measured =
        json_as_bool(json_get(p, "measured")) || str_is(json_as_str(json_get(p, "measured")), "yes");
    return 0;
}

static void write_number(struct buf *out, const char *name, double x) {
    buf_printf(out, ",\"%s\":", name);
    json_write_number(out, x);
}

static void write_asset_profile(struct buf *out, const struct asset *a, int64_t zone) {
    char day[CALENDAR_DAY];
    calendar_day(day, a->bought, zone);
    buf_printf(out,
               "{\"currency\":\"%s\",\"bought\":\"%s\",\"life\":\"%.0f\",\"method\":\"%s\",\"measured\":%s",
               a->currency, day, a->life * 12, a->method == DECLINING_BALANCE ? "declining" : "straight",
               a->measured ? "true" : "false");
    write_number(out, "price", a->price);
    write_number(out, "residual", a->residual);
    write_number(out, "chips", a->chips);
    write_number(out, "watts", a->watts);
    write_number(out, "pue", a->pue);
    write_number(out, "kwh", a->kwh);
    write_number(out, "operation", a->operation);
    write_number(out, "discount", a->discount);
    write_number(out, "sold", a->sold);
    buf_byte(out, '}');
}

static int read_expense(struct expense *x, const struct json *p, int64_t zone, struct error *e) {
    struct str per = json_as_str(json_get(p, "per"));
    int rc = currency_of(p, x->currency, e);
    if (rc != 0 || (rc = number_of(p, "amount", NAN, MOST_MONEY, &x->yearly, e)) != 0 ||
        (rc = day_of(p, "from", zone, 0, &x->from, e)) != 0)
        return rc;
    if (per.n > 0 && !str_is(per, "month") && !str_is(per, "year"))
        return error_param(e, ERR_INVALID, "per", "per wants month or year");
    x->yearly *= str_is(per, "year") ? 1 : 12;
    return 0;
}

static void write_expense_profile(struct buf *out, const struct expense *x, int64_t zone) {
    char day[CALENDAR_DAY];
    calendar_day(day, x->from, zone);
    buf_printf(out, "{\"currency\":\"%s\",\"per\":\"year\",\"from\":\"%s\"", x->currency, day);
    write_number(out, "amount", x->yearly);
    buf_byte(out, '}');
}

/* ---- both tables: the same columns, written once ---- */

static const struct table {
    const char *noun, *insert, *select, *profile;
} assets = {"asset",
            "INSERT INTO asset (name, profile, created, retired) VALUES ($1, $2, $3, 0)"
            " ON CONFLICT (name) DO NOTHING RETURNING id",
            "SELECT id, name, profile, retired FROM asset ORDER BY id",
            "UPDATE asset SET profile = $2, retired = $3 WHERE name = $1 AND retired = 0 RETURNING id"},
  expenses = {"expense",
              "INSERT INTO expense (name, profile, created, retired) VALUES ($1, $2, $3, 0)"
              " ON CONFLICT (name) DO NOTHING RETURNING id",
              "SELECT id, name, profile, retired FROM expense ORDER BY id",
              "UPDATE expense SET profile = $2, retired = $3 WHERE name = $1 AND retired = 0 RETURNING id"};

/* insert or profile, whose third parameter is a time. One row is changed, or it is `otherwise`. */
static int write_row(struct cloud *c, const char *sql, const char *name, const struct buf *profile,
                     int64_t at, enum err otherwise, const char *why, struct error *e) {
    struct query *q;
    int rc = profile->failed ? error_set(e, ERR_NO_MEMORY, "no memory for a profile")
                             : store_query(c->store, &q, sql, e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(name));
    query_text(q, 2, buf_view(profile));
    query_int(q, 3, at);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    return rc > 0 ? query_run(q, e) : error_param(e, otherwise, "name", why, name);
}

/* Read all rows of a table into an array of `size` bytes each. */
static int load(struct cloud *c, const struct table *t, size_t size, void **out, size_t *n,
                int (*take)(void *row, struct str name, const struct json *profile, int64_t retired,
                            int64_t zone, struct error *e),
                struct error *e) {
    struct query *q;
    char *rows = NULL;
    int rc = store_query(c->store, &q, t->select, e);
    *n = 0;
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct json *profile = NULL;
        char *more = realloc(rows, (*n + 1) * size);
        if (more == NULL) {
            rc = error_set(e, ERR_NO_MEMORY, "no memory for the %ss", t->noun);
            break;
        }
        rows = more;
        memset(rows + *n * size, 0, size);
        rc = json_parse(&profile, query_column_text(q, 2), e);
        if (rc == 0)
            rc = take(rows + (*n)++ * size, query_column_text(q, 1), profile, query_column_int(q, 3), c->zone,
                      e);
        if (rc != 0)
            error_prefix(e, "%s %.*s: ", t->noun, (int)query_column_text(q, 1).n, query_column_text(q, 1).p);
        json_free(profile);
    }
    if (rc != 0) {
        free(rows);
        rows = NULL;
    }
    *out = rows;
    return rc;
}

static int take_asset(void *row, struct str name, const struct json *profile, int64_t retired, int64_t zone,
                      struct error *e) {
    struct asset *a = row;
    snprintf(a->name, sizeof a->name, "%.*s", (int)name.n, name.p);
    a->retired = retired;
    return read_asset(a, profile, zone, e);
}

static int take_expense(void *row, struct str name, const struct json *profile, int64_t retired, int64_t zone,
                        struct error *e) {
    struct expense *x = row;
    snprintf(x->name, sizeof x->name, "%.*s", (int)name.n, name.p);
    int rc = read_expense(x, profile, zone, e);
    x->until = retired;
    return rc;
}

int asset_load(struct cloud *c, struct asset **out, size_t *n, struct error *e) {
    void *rows;
    int rc = load(c, &assets, sizeof **out, &rows, n, take_asset, e);
    *out = rows;
    return rc;
}

int expense_load(struct cloud *c, struct expense **out, size_t *n, struct error *e) {
    void *rows;
    int rc = load(c, &expenses, sizeof **out, &rows, n, take_expense, e);
    *out = rows;
    return rc;
}

/* ---- operations ---- */

static void write_day(struct buf *out, const char *name, int64_t at, int64_t zone) {
    char day[CALENDAR_DAY] = "";
    if (at != 0)
        calendar_day(day, at, zone);
    buf_printf(out, at != 0 ? ",\"%s\":\"%s\"" : ",\"%s\":null", name, day);
}

static void write_asset(struct buf *out, const struct asset *a, int64_t zone, int64_t now) {
    double year_ns = YEAR_HOURS * HOUR_NS;
    buf_text(out, "{\"name\":");
    json_write_text(out, a->name);
    write_day(out, "retired", a->retired, zone);
    write_number(out, "value",
                 asset_value(a, (double)((a->retired != 0 ? a->retired : now) - a->bought) / year_ns));
    buf_text(out, ",\"profile\":");
    write_asset_profile(out, a, zone);
    buf_byte(out, '}');
}

int asset_add(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct asset a = {0};
    struct buf profile = {0};
    int64_t now = clock_wall_ns();
    int rc = name_of(args, a.name, e);
    if (rc != 0 || (rc = read_asset(&a, args, c->zone, e)) != 0)
        return rc;
    a.sold = 0;
    if (a.bought == 0)
        a.bought = now;
    write_asset_profile(&profile, &a, c->zone);
    rc = write_row(c, assets.insert, a.name, &profile, now, ERR_CONFLICT,
                   "there is an asset %s already; one that was retired keeps its name", e);
    if (rc == 0)
        write_asset(out, &a, c->zone, now);
    buf_free(&profile);
    return rc;
}

int asset_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct asset *a;
    size_t n;
    int rc = asset_load(c, &a, &n, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        buf_byte(out, i == 0 ? '[' : ',');
        write_asset(out, &a[i], c->zone, clock_wall_ns());
    }
    buf_text(out, n == 0 ? "[]" : "]");
    free(a);
    return 0;
}

int asset_retire(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct asset *all, a = {0};
    struct buf profile = {0};
    char name[64];
    size_t n, i = 0;
    int64_t on;
    int rc = name_of(args, name, e);
    if (rc != 0 || (rc = asset_load(c, &all, &n, e)) != 0)
        return rc;
    while (i < n && strcmp(all[i].name, name) != 0)
        i++;
    bool found = i < n && all[i].retired == 0;
    if (found)
        a = all[i];
    free(all);
    if (!found)
        return error_param(e, ERR_NOT_FOUND, "name",
                           "there is no asset %s in use; see unkai owner asset list", name);
    if ((rc = day_of(args, "on", c->zone, clock_wall_ns(), &on, e)) != 0 ||
        (rc = number_of(args, "sold", 0, MOST_MONEY, &a.sold, e)) != 0)
        return rc;
    if (on <= a.bought)
        return error_param(e, ERR_INVALID, "on", "it was bought after that");
    a.retired = on;
    write_asset_profile(&profile, &a, c->zone);
    rc = write_row(c, assets.profile, name, &profile, on, ERR_NOT_FOUND, "there is no asset %s in use", e);
    if (rc == 0)
        write_asset(out, &a, c->zone, on);
    buf_free(&profile);
    return rc;
}

static void write_expense(struct buf *out, const struct expense *x, int64_t zone) {
    buf_text(out, "{\"name\":");
    json_write_text(out, x->name);
    write_day(out, "until", x->until, zone);
    buf_text(out, ",\"profile\":");
    write_expense_profile(out, x, zone);
    buf_byte(out, '}');
}

int expense_add(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct expense x = {.name = ""};
    struct buf profile = {0};
    int64_t now = clock_wall_ns();
    int rc = name_of(args, x.name, e);
    if (rc != 0 || (rc = read_expense(&x, args, c->zone, e)) != 0)
        return rc;
    if (x.from == 0)
        x.from = now;
    write_expense_profile(&profile, &x, c->zone);
    rc = write_row(c, expenses.insert, x.name, &profile, now, ERR_CONFLICT, "there is an expense %s already",
                   e);
    if (rc == 0)
        write_expense(out, &x, c->zone);
    buf_free(&profile);
    return rc;
}

int expense_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct expense *x;
    size_t n;
    int rc = expense_load(c, &x, &n, e);
    if (rc != 0)
        return rc;
    for (size_t i = 0; i < n; i++) {
        buf_byte(out, i == 0 ? '[' : ',');
        write_expense(out, &x[i], c->zone);
    }
    buf_text(out, n == 0 ? "[]" : "]");
    free(x);
    return 0;
}

int expense_end(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct expense *all, x = {.name = ""};
    struct buf profile = {0};
    char name[64];
    size_t n, i = 0;
    int64_t on;
    int rc = name_of(args, name, e);
    if (rc != 0 || (rc = expense_load(c, &all, &n, e)) != 0)
        return rc;
    while (i < n && strcmp(all[i].name, name) != 0)
        i++;
    bool found = i < n && all[i].until == 0;
    if (found)
        x = all[i];
    free(all);
    if (!found)
        return error_param(e, ERR_NOT_FOUND, "name", "there is no expense %s; see unkai owner expense list",
                           name);
    if ((rc = day_of(args, "on", c->zone, clock_wall_ns(), &on, e)) != 0)
        return rc;
    if (on <= x.from)
        return error_param(e, ERR_INVALID, "on", "it begins after that");
    x.until = on;
    write_expense_profile(&profile, &x, c->zone);
    rc = write_row(c, expenses.profile, name, &profile, on, ERR_NOT_FOUND, "there is no expense %s", e);
    if (rc == 0)
        write_expense(out, &x, c->zone);
    buf_free(&profile);
    return rc;
}
