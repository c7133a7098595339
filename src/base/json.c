/* JSON by jansson; see json.h. A struct json is a json_t behind another name. */
#include "base/json.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { JSON_MAX_DEPTH = 128, JSON_MAX_MEMBERS = 1 << 16 };

static json_t *inner(const struct json *v) {
    return (json_t *)(uintptr_t)v;
}

/* Outside strings, brackets nest no deeper than JSON_MAX_DEPTH and there are no more than JSON_MAX_MEMBERS colons, since a member of an object
 * costs the parser a hundred times what its bytes do; all else is the parser's business. */
static int json_bounded(struct str text, struct error *e) {
    size_t depth = 0, members = 0;
    bool quoted = false;
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
        } else if (c == '"') {
            quoted = true;
        } else if (c == '[' || c == '{') {
            if (++depth > JSON_MAX_DEPTH)
                return error_set(e, ERR_INVALID, "the JSON nests deeper than %d levels", JSON_MAX_DEPTH);
        } else if ((c == ']' || c == '}') && depth > 0) {
            depth--;
        } else if (c == ':' && ++members > JSON_MAX_MEMBERS) {
            return error_set(e, ERR_INVALID, "the JSON's objects have more than %d members",
                             JSON_MAX_MEMBERS);
        }
    }
    return 0;
}

int json_parse(struct json **out, struct str text, struct error *e) {
    json_error_t why;
    *out = NULL;
    int rc = json_bounded(text, e);
    if (rc != 0)
        return rc;
    json_t *v = json_loadb(text.p ? text.p : "", text.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, &why);
    if (v == NULL)
        return error_set(e, ERR_INVALID, "the JSON is broken at line %d, column %d: %.200s", why.line,
                         why.column, why.text);
    *out = (struct json *)v;
    return 0;
}

void json_free(struct json *root) {
    json_decref((json_t *)root);
}

enum json_kind json_kind(const struct json *v) {
    static const enum json_kind kind[] = {
        [JSON_OBJECT] = JSON_KIND_OBJECT, [JSON_ARRAY] = JSON_KIND_ARRAY, [JSON_STRING] = JSON_KIND_STRING,
        [JSON_INTEGER] = JSON_KIND_INT,   [JSON_REAL] = JSON_KIND_REAL,   [JSON_TRUE] = JSON_KIND_TRUE,
        [JSON_FALSE] = JSON_KIND_FALSE,   [JSON_NULL] = JSON_KIND_NULL,
    };
    return v ? kind[json_typeof(inner(v))] : JSON_KIND_NULL;
}

bool json_numeric(const struct json *v) {
    return json_is_number(inner(v));
}

int64_t json_as_int(const struct json *v) {
    return json_integer_value(inner(v));
}

double json_as_number(const struct json *v) {
    return json_number_value(inner(v));
}

struct str json_as_str(const struct json *v) {
    if (json_kind(v) != JSON_KIND_STRING)
        return (struct str){"", 0};
    return (struct str){json_string_value(inner(v)), json_string_length(inner(v))};
}

bool json_as_bool(const struct json *v) {
    return json_is_true(inner(v));
}

size_t json_count(const struct json *v) {
    return json_kind(v) == JSON_KIND_OBJECT ? json_object_size(inner(v)) : json_array_size(inner(v));
}

const struct json *json_at(const struct json *v, size_t i) {
    return (const struct json *)json_array_get(inner(v), i);
}

const struct json *json_get(const struct json *v, const char *key) {
    return (const struct json *)json_object_get(inner(v), key);
}

void *json_first(const struct json *object) {
    return json_object_iter(inner(object));
}

void *json_next(const struct json *object, void *it) {
    return json_object_iter_next(inner(object), it);
}

struct str json_key(void *it) {
    return str_from(json_object_iter_key(it)); /* jansson refuses keys that hold NUL */
}

const struct json *json_value(void *it) {
    return (const struct json *)json_object_iter_value(it);
}

void json_write_inside(struct buf *b, struct str s) {
    size_t plain = 0; /* start of the run that needs no escape */
    for (size_t i = 0, n; i < s.n; i += n) {
        unsigned char c = (unsigned char)s.p[i];
        n = 1;
        if (c >= 0x80 ? utf8_decode((struct str){s.p + i, s.n - i}, &n) >= 0
                      : c >= 32 && c != '"' && c != '\\')
            continue;
        buf_append(b, s.p + plain, i - plain);
        plain = i + n;
        if (c >= 0x80)
            buf_text(b, "\xEF\xBF\xBD");
        else if (c == '"' || c == '\\')
            buf_append(b, (char[2]){'\\', (char)c}, 2);
        else if (c == '\n')
            buf_text(b, "\\n");
        else if (c == '\t')
            buf_text(b, "\\t");
        else if (c == '\r')
            buf_text(b, "\\r");
        else
            buf_printf(b, "\\u%04x", c);
    }
    buf_append(b, s.p + plain, s.n - plain);
}

void json_write_str(struct buf *b, struct str s) {
    buf_byte(b, '"');
    json_write_inside(b, s);
    buf_byte(b, '"');
}

void json_write_text(struct buf *b, const char *c_string) {
    json_write_str(b, str_from(c_string));
}

void json_write_number(struct buf *b, double x) {
    char text[40];
    if (!isfinite(x)) {
        buf_text(b, "null");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    buf_text(b, text);
}

void json_write(struct buf *b, const struct json *v) {
    switch (json_kind(v)) {
    case JSON_KIND_OBJECT:
        buf_byte(b, '{');
        for (void *it = json_first(v), *first = it; it != NULL; it = json_next(v, it)) {
            if (it != first)
                buf_byte(b, ',');
            json_write_str(b, json_key(it));
            buf_byte(b, ':');
            json_write(b, json_value(it));
        }
        buf_byte(b, '}');
        break;
    case JSON_KIND_ARRAY:
        buf_byte(b, '[');
        for (size_t i = 0; i < json_count(v); i++) {
            if (i > 0)
                buf_byte(b, ',');
            json_write(b, json_at(v, i));
        }
        buf_byte(b, ']');
        break;
    case JSON_KIND_STRING:
        json_write_str(b, json_as_str(v));
        break;
    case JSON_KIND_INT:
        buf_printf(b, "%" PRId64, json_as_int(v));
        break;
    case JSON_KIND_REAL:
        json_write_number(b, json_as_number(v));
        break;
    case JSON_KIND_TRUE:
        buf_text(b, "true");
        break;
    case JSON_KIND_FALSE:
        buf_text(b, "false");
        break;
    case JSON_KIND_NULL:
        buf_text(b, "null");
        break;
    }
}
