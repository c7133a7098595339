/* From a path, a query and a body to an operation's request, by the route's row; see api.h. What the row does not name is refused: a filter that is misspelt must not
 * show more than was asked for. */
#include "gateway/api.h"

#include "base/url.h"
#include "cloud/calendar.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ASKED = 5, MOST_LISTED = 64, ID_DIGITS = 18, AMOUNT_WHOLE = 9 };
#define MOST_REAL 9007199254740992.0 /* up to here a double holds every whole number */

/* ---- which route ---- */

static struct str next_segment(struct str *path) {
    struct str segment = {path->p, 0};
    while (segment.n < path->n && path->p[segment.n] != '/')
        segment.n++;
    size_t used = segment.n < path->n ? segment.n + 1 : segment.n;
    *path = (struct str){path->p + used, path->n - used};
    return segment;
}

static bool is_hole(struct str segment) {
    return segment.n > 2 && segment.p[0] == '{';
}

static bool path_fits(const char *pattern, struct str path) {
    struct str want = str_from(pattern);
    while (want.n > 0 && path.n > 0) {
        struct str a = next_segment(&want), b = next_segment(&path);
        if (is_hole(a) ? b.n == 0 : !str_equal(a, b))
            return false;
    }
    return want.n == 0 && path.n == 0;
}

/* What is below the prefix, with the slash in front; a slash at the end makes another path. */
static bool below(const struct api *api, struct str *path) {
    struct str prefix = str_from(api->prefix);
    if (!str_starts(*path, prefix) || path->n <= prefix.n || path->p[path->n - 1] == '/')
        return false;
    *path = (struct str){path->p + prefix.n, path->n - prefix.n};
    return *path->p == '/';
}

void api_find(const struct api *api, struct str method, struct str path, struct api_match *out) {
    *out = (struct api_match){0};
    if (!below(api, &path))
        return;
    for (const struct api_route *r = api->route; r->method != NULL; r++) {
        bool get = strcmp(r->method, "GET") == 0;
        if (!path_fits(r->path, path) || !access_knows(r->operation))
            continue;
        if (str_is(method, r->method) || (get && str_is(method, "HEAD")))
            out->route = r;
        buf_printf(&out->allow, "%s%s%s", out->allow.n > 0 ? ", " : "", r->method, get ? ", HEAD" : "");
    }
}

/* ---- one value ---- */

static int refuse(const struct param *p, struct error *e, const char *what) {
    return error_param(e, ERR_INVALID, p->name, "%s must be %s", p->name, what);
}

/* Characters, or SIZE_MAX where there is one that no text of ours has. */
static size_t characters(struct str text) {
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c < ' ' || c == 0x7f)
            return SIZE_MAX;
        n += (c & 0xc0) != 0x80;
    }
    return n;
}

static bool made_of(struct str text, const char *more) {
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        if (!plain && (c == 0 || strchr(more, c) == NULL))
            return false;
    }
    return true;
}

/* "a|b=c": the word for the operation, or an empty one. */
static struct str chosen(const char *words, struct str text) {
    struct str rest = str_from(words);
    while (rest.n > 0) {
        size_t n = str_find(rest, STR("|"), 0);
        struct str word = {rest.p, n == SIZE_MAX ? rest.n : n}, name = word;
        size_t equals = str_find(word, STR("="), 0);
        if (equals != SIZE_MAX)
            name.n = equals++;
        if (str_equal(name, text))
            return equals == SIZE_MAX ? word : (struct str){word.p + equals, word.n - equals};
        rest = n == SIZE_MAX ? STR("") : (struct str){rest.p + n + 1, rest.n - n - 1};
    }
    return STR("");
}

static int64_t id_number(const char *prefix, struct str text) {
    size_t n = strlen(prefix);
    int64_t id = 0;
    if (!str_starts(text, str_from(prefix)) || text.n == n || text.n > n + ID_DIGITS || text.p[n] == '0')
        return 0;
    for (size_t i = n; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9')
            return 0;
        id = 10 * id + (text.p[i] - '0');
    }
    return id;
}

static int refuse_id(const struct param *p, struct str text, struct error *e) {
    if (p->place == IN_PATH)
        return error_param(e, ERR_NOT_FOUND, p->name, "there is no %.*s", (int)(text.n < 60 ? text.n : 60),
                           text.p);
    return error_param(e, ERR_INVALID, p->name, "%s must be %s and a number", p->name, p->words);
}

/* Digits, and a point and up to `fraction` more: as much as an amount holds for sure. */
static bool is_decimal(struct str text, size_t fraction) {
    size_t whole = 0, part = 0;
    while (whole < text.n && text.p[whole] >= '0' && text.p[whole] <= '9')
        whole++;
    if (whole == text.n)
        return whole > 0 && whole <= AMOUNT_WHOLE;
    while (whole + 1 + part < text.n && text.p[whole + 1 + part] >= '0' && text.p[whole + 1 + part] <= '9')
        part++;
    return whole > 0 && whole <= AMOUNT_WHOLE && text.p[whole] == '.' && part > 0 && part <= fraction &&
           whole + 1 + part == text.n;
}

static int write_id(const struct param *p, struct str text, struct buf *out, struct error *e) {
    int64_t id = id_number(p->words, text);
    if (id == 0)
        return refuse_id(p, text, e);
    buf_printf(out, "%lld", (long long)id);
    return 0;
}

static int write_tenant(struct cloud *c, const struct param *p, struct str text, struct buf *out,
                        struct error *e) {
    struct buf name = {0};
    int64_t id = id_number(p->words, text);
    if (id == 0 || !access_tenant_name(c, id, &name)) {
        buf_free(&name);
        return refuse_id(p, text, e);
    }
    json_write_str(out, buf_view(&name));
    buf_free(&name);
    return 0;
}

static int write_int(const struct param *p, struct str text, struct buf *out, struct error *e) {
    char *end, digits[24] = "";
    if (text.n > 0 && text.n < sizeof digits)
        memcpy(digits, text.p, text.n);
    long long x = strtoll(digits, &end, 10);
    bool plain = (digits[0] >= '0' && digits[0] <= '9') || digits[0] == '-';
    if (!plain || *end != 0 || (size_t)(end - digits) != text.n || x < p->least || x > p->most)
        return error_param(e, ERR_INVALID, p->name, "%s must be a whole number from %lld to %lld", p->name,
                           (long long)p->least, (long long)p->most);
    buf_printf(out, "%lld", x);
    return 0;
}

static int write_number(const struct param *p, struct str text, struct buf *out, struct error *e) {
    struct json *v = NULL;
    double x = json_parse(&v, text, NULL) == 0 && json_numeric(v) ? json_as_number(v) : NAN;
    json_free(v);
    if (!(x >= (double)p->least && x <= (double)p->most))
        return error_param(e, ERR_INVALID, p->name, "%s must be a number from %lld to %lld", p->name,
                           (long long)p->least, (long long)p->most);
    json_write_number(out, x);
    return 0;
}

static int write_text(const struct param *p, struct str text, struct buf *out, struct error *e) {
    size_t n = characters(text);
    bool name = p->type == TYPE_NAME;
    if (n == SIZE_MAX || n < (size_t)p->least || n > (size_t)p->most || (name && !made_of(text, "._-:/@")))
        return error_param(e, ERR_INVALID, p->name, "%s must have %lld to %lld %s", p->name,
                           (long long)p->least, (long long)p->most,
                           name ? "letters, digits and . _ - : / @" : "characters, none of them a control");
    json_write_str(out, text);
    return 0;
}

static int write_choice(const struct param *p, struct str text, struct buf *out, struct error *e) {
    struct str word = chosen(p->words, text);
    if (word.n == 0) {
        struct buf words = {0};
        for (const char *c = p->words; *c != 0; c++) { /* the API's words alone */
            if (*c == '=')
                c += strcspn(c, "|");
            buf_text(&words, *c == '|' ? ", " : "");
            if (*c == 0)
                break;
            if (*c != '|')
                buf_byte(&words, *c);
        }
        error_param(e, ERR_INVALID, p->name, "%s must be one of %s", p->name, words.p ? words.p : "");
        buf_free(&words);
        return ERR_INVALID;
    }
    json_write_str(out, word);
    return 0;
}

static int write_shaped(const struct param *p, struct str text, bool right, const char *what, struct buf *out,
                        struct error *e) {
    if (!right)
        return refuse(p, e, what);
    json_write_str(out, text);
    return 0;
}

static bool is_currency(struct str text) {
    bool right = text.n == 3;
    for (size_t i = 0; i < text.n; i++)
        right = right && text.p[i] >= 'A' && text.p[i] <= 'Z';
    return right;
}

/* 2026-11 or 2026-11-25 */
static bool is_date(struct str text, size_t n) {
    int64_t at;
    return text.n == n && calendar_parse(&at, text, 0, NULL) == 0;
}

static bool is_nothing(struct str decimal) {
    for (size_t i = 0; i < decimal.n; i++)
        if (decimal.p[i] != '0' && decimal.p[i] != '.')
            return false;
    return true;
}

/* A value that was written as text: all there are in a path and a query, and the texts of a body. */
static int write_value(struct cloud *c, const struct param *p, struct str text, struct buf *out,
                       struct error *e) {
    switch (p->type) {
    case TYPE_TEXT:
    case TYPE_TEXTS:
    case TYPE_NAME:
        return write_text(p, text, out, e);
    case TYPE_CHOICE:
    case TYPE_CHOICES:
        return write_choice(p, text, out, e);
    case TYPE_ID:
    case TYPE_IDS:
        return write_id(p, text, out, e);
    case TYPE_TENANT:
        return write_tenant(c, p, text, out, e);
    case TYPE_INT:
    case TYPE_INTS:
        return write_int(p, text, out, e);
    case TYPE_NUMBER:
        return write_number(p, text, out, e);
    case TYPE_BOOL:
        if (!str_is(text, "true") && !str_is(text, "false"))
            return refuse(p, e, "true or false");
        buf_str(out, text);
        return 0;
    case TYPE_MONTH:
        return write_shaped(p, text, is_date(text, CALENDAR_MONTH - 1), "a month, like 2026-11", out, e);
    case TYPE_DAY:
        return write_shaped(p, text, is_date(text, CALENDAR_DAY - 1), "a day, like 2026-11-25", out, e);
    case TYPE_CURRENCY:
        return write_shaped(p, text, is_currency(text), "three capital letters, like JPY", out, e);
    case TYPE_MONEY:
        if (p->least > 0 && is_nothing(text))
            return refuse(p, e, "above zero");
        return write_shaped(p, text, is_decimal(text, 9),
                            "a decimal number as text, of 9 digits before the point and after", out, e);
    case TYPE_PRICE:
        return write_shaped(p, text, is_decimal(text, 6),
                            "a decimal number as text, of 9 digits before the point and 6 after", out, e);
    case TYPE_JSON: /* stands in bodies alone */
        break;
    }
    return error_set(e, ERR_INTERNAL, "%s has no type", p->name);
}

/* ---- the request so far ---- */

struct taken {
    struct api_call *call;
    struct buf *out;
    struct buf value[API_PARAMS]; /* of each parameter: as JSON; of lists, without the brackets */
    size_t values[API_PARAMS];
    bool listed[API_PARAMS]; /* a list of the body, which may be empty */
};

static bool is_list(const struct param *p) {
    return p->type >= TYPE_CHOICES;
}

static int take(struct taken *t, size_t i, struct str text, struct error *e) {
    const struct param *p = &t->call->route->param[i];
    if (!is_list(p) && t->values[i] > 0)
        return refuse(p, e, "given once");
    if (t->values[i] == (p->place == IN_BODY ? MOST_LISTED : MOST_ASKED))
        return refuse(p, e, p->place == IN_BODY ? "a list of 64 at most" : "a list of 5 at most");
    if (t->values[i]++ > 0)
        buf_byte(&t->value[i], ',');
    return write_value(t->call->cloud, p, text, &t->value[i], e);
}

/* The parameter in that place; SIZE_MAX: there is none. */
static size_t find(const struct taken *t, enum place place, struct str name) {
    for (size_t i = 0; i < API_PARAMS && t->call->route->param[i].name != NULL; i++)
        if (t->call->route->param[i].place == place && str_is(name, t->call->route->param[i].name))
            return i;
    return SIZE_MAX;
}

static int unknown(struct str name, struct error *e) {
    char param[64];
    size_t n = name.n < 60 ? name.n : 60;
    for (size_t i = 0; i < n; i++) /* it is repeated to whoever sent it, and to nobody's terminal */
        param[i] = name.p[i] >= ' ' && name.p[i] < 0x7f ? name.p[i] : '?';
    param[n] = 0;
    return error_param(e, ERR_INVALID, param, "there is no parameter %s here", param);
}

/* ---- the path and the query ---- */

static int take_path(struct taken *t, struct error *e) {
    struct str want = str_from(t->call->route->path), path = t->call->path;
    struct buf text = {0};
    int rc = 0;
    below(t->call->api, &path);
    while (rc == 0 && want.n > 0) {
        struct str a = next_segment(&want), b = next_segment(&path);
        if (!is_hole(a))
            continue;
        percent_decode(&text, b, false);
        size_t i = find(t, IN_PATH, (struct str){a.p + 1, a.n - 2});
        rc = i == SIZE_MAX ? error_set(e, ERR_INTERNAL, "a path's parameter has no row")
                           : take(t, i, buf_view(&text), e);
    }
    buf_free(&text);
    if (rc == ERR_INVALID) /* a path that names nothing that could be is none */
        rc = e != NULL ? e->code = ERR_NOT_FOUND : ERR_NOT_FOUND;
    return rc;
}

/* One value, or of a list several between commas. */
static int take_query_value(struct taken *t, size_t i, struct str text, struct error *e) {
    int rc = 0;
    if (!is_list(&t->call->route->param[i]))
        return take(t, i, text, e);
    for (bool more = text.n > 0; rc == 0 && more;) {
        size_t n = str_find(text, STR(","), 0);
        more = n != SIZE_MAX;
        rc = take(t, i, (struct str){text.p, more ? n : text.n}, e);
        if (more)
            text = (struct str){text.p + n + 1, text.n - n - 1};
    }
    return rc;
}

static int take_query(struct taken *t, struct error *e) {
    struct str rest = t->call->query;
    struct buf name = {0}, text = {0};
    int rc = 0;
    while (rc == 0 && rest.n > 0) {
        size_t n = str_find(rest, STR("&"), 0);
        struct str pair = {rest.p, n == SIZE_MAX ? rest.n : n};
        rest = n == SIZE_MAX ? STR("") : (struct str){rest.p + n + 1, rest.n - n - 1};
        size_t equals = str_find(pair, STR("="), 0);
        if (pair.n == 0)
            continue;
        percent_decode(&name, (struct str){pair.p, equals == SIZE_MAX ? pair.n : equals}, true);
        if (equals == SIZE_MAX)
            buf_clear(&text);
        else
            percent_decode(&text, (struct str){pair.p + equals + 1, pair.n - equals - 1}, true);
        size_t i = find(t, IN_QUERY, buf_view(&name));
        if (i == SIZE_MAX && name.n > 2 &&
            strcmp(name.p + name.n - 2, "[]") == 0) { /* as official clients write lists */
            i = find(t, IN_QUERY, (struct str){name.p, name.n - 2});
            if (i != SIZE_MAX && !is_list(&t->call->route->param[i]))
                i = SIZE_MAX;
        }
        rc = i == SIZE_MAX ? unknown(buf_view(&name), e) : take_query_value(t, i, buf_view(&text), e);
    }
    buf_free(&name);
    buf_free(&text);
    return rc;
}

/* ---- the body ---- */

static int take_member(struct taken *t, size_t i, const struct json *v, struct error *e) {
    const struct param *p = &t->call->route->param[i];
    struct buf text = {0};
    bool wants_int = p->type == TYPE_INT || p->type == TYPE_INTS, wants_bool = p->type == TYPE_BOOL;
    enum json_kind kind = json_kind(v);
    bool is_bool = kind == JSON_KIND_TRUE || kind == JSON_KIND_FALSE;
    double real = json_as_number(v);
    if (wants_int && kind == JSON_KIND_REAL && real >= -MOST_REAL && real <= MOST_REAL &&
        real == (double)(int64_t)real) { /* 7.0 is a whole number */
        buf_printf(&text, "%lld", (long long)real);
        int rc = take(t, i, buf_view(&text), e);
        buf_free(&text);
        return rc;
    }
    if (p->type == TYPE_JSON) {
        json_write(&t->value[i], v);
        t->values[i]++;
        return 0;
    }
    bool wants_number = p->type == TYPE_NUMBER;
    if (wants_int      ? kind != JSON_KIND_INT
        : wants_number ? !json_numeric(v)
        : wants_bool   ? !is_bool
                       : kind != JSON_KIND_STRING)
        return refuse(p, e,
                      wants_int      ? "a whole number"
                      : wants_number ? "a number"
                      : wants_bool   ? "true or false"
                                     : "a text");
    if (kind == JSON_KIND_STRING)
        return take(t, i, json_as_str(v), e);
    json_write(&text, v);
    int rc = take(t, i, buf_view(&text), e);
    buf_free(&text);
    return rc;
}

static int take_list(struct taken *t, size_t i, const struct json *v, struct error *e) {
    int rc = 0;
    if (json_kind(v) != JSON_KIND_ARRAY)
        return refuse(&t->call->route->param[i], e, "a list");
    t->listed[i] = true;
    for (size_t k = 0; rc == 0 && k < json_count(v); k++)
        rc = take_member(t, i, json_at(v, k), e);
    return rc;
}

static bool has_body(const struct api_route *r) {
    for (size_t i = 0; i < API_PARAMS && r->param[i].name != NULL; i++)
        if (r->param[i].place == IN_BODY)
            return true;
    return false;
}

static int take_body(struct taken *t, struct error *e) {
    struct json *body = NULL;
    if (!has_body(t->call->route))
        return 0;
    int rc = json_parse(&body, t->call->body, e);
    if (rc == 0 && json_kind(body) != JSON_KIND_OBJECT)
        rc = error_set(e, ERR_INVALID, "the body must be an object of JSON");
    for (void *it = rc == 0 ? json_first(body) : NULL; rc == 0 && it != NULL; it = json_next(body, it)) {
        size_t i = find(t, IN_BODY, json_key(it));
        if (i == SIZE_MAX)
            rc = unknown(json_key(it), e);
        else if (is_list(&t->call->route->param[i]))
            rc = take_list(t, i, json_value(it), e);
        else
            rc = take_member(t, i, json_value(it), e);
    }
    json_free(body);
    return rc;
}

/* ---- all of it ---- */

static const char *member_of(const struct param *p) {
    return p->member != NULL ? p->member : p->name;
}

/* A list is asked for one row more than is shown, which says whether there are more. */
static void write_limit(struct taken *t, size_t i) {
    const struct param *p = &t->call->route->param[i];
    t->call->limit = t->values[i] > 0 ? strtoll(t->value[i].p, NULL, 10) : p->otherwise;
    bool list = t->call->route->answers == ANSWERS_LIST;
    buf_printf(t->out, ",\"limit\":%lld", (long long)t->call->limit + list);
}

static int write_param(struct taken *t, size_t i, struct error *e) {
    const struct param *p = &t->call->route->param[i];
    if (p->required && t->values[i] == 0)
        return error_param(e, ERR_INVALID, p->name, "%s is missing", p->name);
    if (strcmp(p->name, "limit") == 0) {
        write_limit(t, i);
    } else if (strcmp(member_of(p), "") == 0) {
        if (strcmp(p->name, "after") == 0)
            buf_str(&t->call->after, buf_view(&t->value[i]));
    } else if (t->values[i] > 0 || t->listed[i]) {
        buf_printf(t->out, ",\"%s\":%s", member_of(p), is_list(p) ? "[" : "");
        buf_str(t->out, buf_view(&t->value[i]));
        buf_text(t->out, is_list(p) ? "]" : "");
    } else if (p->type == TYPE_BOOL) {
        buf_printf(t->out, ",\"%s\":false", member_of(p));
    }
    return 0;
}

int api_request(struct api_call *call, struct buf *out, struct error *e) {
    const struct api_route *r = call->route;
    struct taken t = {.call = call, .out = out};
    buf_printf(out, "{\"op\":\"%s\"", r->operation);
    int rc = take_path(&t, e);
    if (rc == 0)
        rc = take_query(&t, e);
    if (rc == 0)
        rc = take_body(&t, e);
    for (size_t i = 0; rc == 0 && i < API_PARAMS && r->param[i].name != NULL; i++)
        rc = write_param(&t, i, e);
    if (r->fixed != NULL)
        buf_printf(out, ",%s", r->fixed);
    if (call->tenant.n > 0) { /* behind everything that was sent: of two members the last counts */
        buf_text(out, ",\"tenant\":");
        json_write_str(out, call->tenant);
    }
    buf_byte(out, '}');
    for (size_t i = 0; i < API_PARAMS; i++) {
        out->failed = out->failed || t.value[i].failed;
        buf_free(&t.value[i]);
    }
    return rc == 0 && out->failed ? error_set(e, ERR_NO_MEMORY, "no memory for the request") : rc;
}

void api_rename_error(const struct api_route *route, struct error *e) {
    for (size_t i = 0; i < API_PARAMS && route->param[i].name != NULL; i++)
        if (strcmp(member_of(&route->param[i]), e->param) == 0) {
            snprintf(e->param, sizeof e->param, "%s", route->param[i].name);
            return;
        }
}
