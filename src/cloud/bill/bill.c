/* What the files of the bills share; see bill.h. */
#include "cloud/bill/bill.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- periods ---- */

static int read_head(struct store *s, int64_t *seq, int64_t *zone, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT seq, zone FROM book", e);
    if (rc != 0 || (rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_NOT_FOUND, "nothing was posted yet");
    *seq = query_column_int(q, 0);
    *zone = query_column_int(q, 1);
    return query_run(q, e);
}

/* The row after it decides where it ends. */
static int find_end(struct store *s, struct period *p, int64_t newest, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT first_seq FROM period WHERE id > $1 ORDER BY id LIMIT 1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, p->id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    int64_t end = rc == 0 ? newest : query_column_int(q, 0) - 1;
    if (p->closed == 0)
        p->last_seq = end;
    return query_run(q, e);
}

/* A statement ends with the zone of its month; another one holds for the months after it. */
static void zone_of(struct str statement, int64_t *zone) {
    static const struct str name = STR(",\"zone\":");
    int64_t value = 0;
    size_t at = SIZE_MAX;
    for (size_t i = statement.n > 40 ? statement.n - 40 : 0; (i = str_find(statement, name, i)) != SIZE_MAX;
         i++)
        at = i;
    if (at == SIZE_MAX)
        return;
    const char *p = statement.p + at + name.n, *end = statement.p + statement.n;
    bool negative = p < end && *p == '-';
    for (p += negative; p < end && *p >= '0' && *p <= '9' && value < 10000; p++)
        value = value * 10 + (*p - '0');
    *zone = negative ? -value : value;
}

int period_find(struct store *s, struct str month, struct period *out, struct error *e) {
    struct query *q;
    int64_t newest;
    *out = (struct period){0};
    int rc = read_head(s, &newest, &out->zone, e);
    if (rc != 0 ||
        (rc = store_query(s, &q,
                          "SELECT id, month, first_seq, last_seq, closed, statement FROM period"
                          " WHERE CASE WHEN $1 = '' THEN closed = 0 ELSE month = $1 END ORDER BY id LIMIT 1",
                          e)) != 0)
        return rc;
    query_text(q, 1, month);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    if (rc == 0 || !month_parse(query_column_text(q, 1), out->month))
        return error_param(e, ERR_NOT_FOUND, "month", "nothing was posted in the month '%.*s'",
                           (int)(month.n < 20 ? month.n : 20), month.p);
    out->id = query_column_int(q, 0);
    out->first_seq = query_column_int(q, 2);
    out->last_seq = query_column_int(q, 3);
    out->closed = query_column_int(q, 4);
    if (out->closed != 0)
        zone_of(query_column_text(q, 5), &out->zone);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    month_bounds(out->month, out->zone, &out->from, &out->to);
    return find_end(s, out, newest, e);
}

/* ---- documents ---- */

static int compare_keys(const void *a, const void *b) {
    struct str x = json_key(*(void *const *)a), y = json_key(*(void *const *)b);
    int order = memcmp(x.p, y.p, x.n < y.n ? x.n : y.n);
    return order != 0 ? order : x.n < y.n ? -1 : x.n > y.n;
}

static void write_object(struct buf *out, const struct json *v) {
    size_t n = json_count(v), i = 0;
    void **member = calloc(n + 1, sizeof *member);
    if (member == NULL) {
        out->failed = true;
        return;
    }
    for (void *it = json_first(v); it != NULL; it = json_next(v, it))
        member[i++] = it;
    qsort(member, n, sizeof *member, compare_keys);
    buf_byte(out, '{');
    for (i = 0; i < n; i++) {
        if (i > 0)
            buf_byte(out, ',');
        json_write_str(out, json_key(member[i]));
        buf_byte(out, ':');
        canonical_write(out, json_value(member[i]));
    }
    buf_byte(out, '}');
    free(member);
}

void canonical_write(struct buf *out, const struct json *v) {
    if (json_kind(v) == JSON_KIND_OBJECT) {
        write_object(out, v);
    } else if (json_kind(v) == JSON_KIND_ARRAY) {
        buf_byte(out, '[');
        for (size_t i = 0; i < json_count(v); i++) {
            if (i > 0)
                buf_byte(out, ',');
            canonical_write(out, json_at(v, i));
        }
        buf_byte(out, ']');
    } else {
        json_write(out, v);
    }
}

int canonical(struct buf *out, struct str text, struct error *e) {
    struct json *v = NULL;
    int rc = json_parse(&v, text, e);
    if (rc == 0)
        canonical_write(out, v);
    json_free(v);
    return rc == 0 && out->failed ? error_set(e, ERR_NO_MEMORY, "no memory for a document") : rc;
}

/* ---- time ---- */

bool month_parse(struct str text, char month[CALENDAR_MONTH]) {
    int64_t at;
    if (text.n != CALENDAR_MONTH - 1 || calendar_parse(&at, text, 0, NULL) != 0)
        return false;
    memcpy(month, text.p, text.n);
    month[text.n] = 0;
    return true;
}

void month_bounds(const char *month, int64_t zone, int64_t *from, int64_t *to) {
    char next[CALENDAR_MONTH];
    memcpy(next, month, sizeof next);
    calendar_next_month(next);
    *from = *to = 0;
    calendar_parse(from, str_from(month), zone, NULL);
    calendar_parse(to, str_from(next), zone, NULL);
}

void time_write(struct buf *out, int64_t at) {
    char day[CALENDAR_DAY];
    calendar_day(day, at, 0);
    int second = (int)((at / 1000000000 - (at % 1000000000 < 0)) % 86400);
    second += second < 0 ? 86400 : 0;
    buf_printf(out, "%sT%02d:%02d:%02dZ", day, second / 3600, second / 60 % 60, second % 60);
}

static int two_digits(const char *p, int below) {
    int n = p[0] >= '0' && p[0] <= '9' && p[1] >= '0' && p[1] <= '9' ? (p[0] - '0') * 10 + p[1] - '0' : below;
    return n < below ? n : -1;
}

int64_t time_read(struct str text) {
    int64_t day;
    if (text.n != 20 || text.p[10] != 'T' || text.p[13] != ':' || text.p[16] != ':' || text.p[19] != 'Z' ||
        calendar_parse(&day, (struct str){text.p, CALENDAR_DAY - 1}, 0, NULL) != 0)
        return INT64_MIN;
    int hour = two_digits(text.p + 11, 24), minute = two_digits(text.p + 14, 60),
        second = two_digits(text.p + 17, 60);
    return hour < 0 || minute < 0 || second < 0
               ? INT64_MIN
               : day + ((int64_t)hour * 3600 + minute * 60 + second) * 1000000000;
}

/* ---- numbers ---- */

void bill_hex(struct buf *out, struct str bytes) {
    for (size_t i = 0; i < bytes.n; i++)
        buf_printf(out, "%02x", (unsigned char)bytes.p[i]);
}

static int nibble(char c) {
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool bill_unhex(struct str hex, void *out, size_t bytes) {
    if (hex.n != bytes * 2)
        return false;
    for (size_t i = 0; i < bytes; i++) {
        int high = nibble(hex.p[2 * i]), low = nibble(hex.p[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        ((uint8_t *)out)[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

int bill_add(amount *sum, amount value, struct error *e) {
    return __builtin_add_overflow(*sum, value, sum)
               ? error_set(e, ERR_INVALID, "the sum is too large for the books")
               : 0;
}

int64_t bill_page(const struct json *args) {
    const int64_t most = 2000;
    int64_t asked = json_as_int(json_get(args, "rows"));
    return asked > 0 && asked < most ? asked : most;
}
