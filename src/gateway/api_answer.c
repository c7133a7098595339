/* From an operation's answer to the API's, by the route's shape; see api.h. */
#include "gateway/api.h"

#include <string.h>

/* What OpenAI's audit log calls it. */
static const struct {
    const char *operation, *type;
} events[] = {
    {"tenant.create", "project.created"},   {"tenant.rename", "project.updated"},
    {"tenant.archive", "project.archived"}, {"key.create", "api_key.created"},
    {"key.revoke", "api_key.deleted"},      {"limit.set", "rate_limit.updated"},
};

static void write_event(struct buf *out, struct str operation) {
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (str_is(operation, events[i].operation)) {
            json_write_text(out, events[i].type);
            return;
        }
    json_write_str(out, operation);
}

static bool is_true(const struct json *v) {
    return json_as_bool(v) || json_as_int(v) != 0;
}

static void write_either(struct buf *out, const char *words, bool yes) {
    size_t n = strcspn(words, "|");
    json_write_str(out, yes ? str_from(words + n + 1) : (struct str){words, n});
}

static void write_lower(struct buf *out, struct str text) {
    buf_byte(out, '"');
    for (size_t i = 0; i < text.n; i++)
        buf_byte(out, (char)(text.p[i] >= 'A' && text.p[i] <= 'Z' ? text.p[i] | 32 : text.p[i]));
    buf_byte(out, '"');
}

static void write_id(struct buf *out, const char *prefix, int64_t id) {
    buf_printf(out, "\"%s%lld\"", prefix, (long long)id);
}

static void write_shape(struct buf *out, const struct shape *shape, const struct json *from);

static void write_all(struct buf *out, const struct shape *shape, const struct json *list) {
    buf_byte(out, '[');
    for (size_t i = 0; i < json_count(list); i++) {
        if (i > 0)
            buf_byte(out, ',');
        write_shape(out, shape, json_at(list, i));
    }
    buf_byte(out, ']');
}

static bool is_nothing(const struct field *f, const struct json *from, const struct json *v) {
    switch (f->form) {
    case FORM_IS:
        return f->more == NULL;
    case FORM_INSIDE:
        return f->more != NULL && !is_true(json_get(from, f->more));
    case FORM_TEXT:
    case FORM_LOWER:
    case FORM_EVENT:
    case FORM_MONEY:
    case FORM_AMOUNT:
        return json_as_str(v).n == 0;
    case FORM_TIME:
    case FORM_ID:
        return json_as_int(v) == 0;
    case FORM_INT:
    case FORM_NUMBER:
        return !json_numeric(v);
    case FORM_BOOL:
    case FORM_EITHER:
    case FORM_LIST:
    case FORM_ANY:
        return false;
    }
    return true;
}

static void write_field(struct buf *out, const struct field *f, const struct json *from) {
    const char *member = f->member != NULL ? f->member : f->name;
    const struct json *v = strcmp(member, ".") == 0 ? from : json_get(from, member);
    if (f->nullable && is_nothing(f, from, v)) {
        buf_text(out, "null");
        return;
    }
    switch (f->form) {
    case FORM_IS:
        json_write_text(out, f->more);
        return;
    case FORM_TEXT:
    case FORM_MONEY:
        json_write_str(out, json_as_str(v));
        return;
    case FORM_INT:
    case FORM_TIME:
        buf_printf(out, "%lld", (long long)json_as_int(v));
        return;
    case FORM_NUMBER:
        json_write_number(out, json_as_number(v));
        return;
    case FORM_BOOL:
        buf_text(out, is_true(v) ? "true" : "false");
        return;
    case FORM_AMOUNT:
        buf_str(out, json_as_str(v));
        return;
    case FORM_LOWER:
        write_lower(out, json_as_str(v));
        return;
    case FORM_ID:
        write_id(out, f->more, json_as_int(v));
        return;
    case FORM_EITHER:
        write_either(out, f->more, is_true(v));
        return;
    case FORM_EVENT:
        write_event(out, json_as_str(v));
        return;
    case FORM_INSIDE:
        write_shape(out, f->shape, from);
        return;
    case FORM_LIST:
        write_all(out, f->shape, v);
        return;
    case FORM_ANY:
        json_write(out, v);
        return;
    }
}

static void write_shape(struct buf *out, const struct shape *shape, const struct json *from) {
    buf_byte(out, '{');
    for (const struct field *f = shape->field; f->name != NULL; f++) {
        buf_printf(out, "%s\"%s\":", f > shape->field ? "," : "", f->name);
        write_field(out, f, from);
    }
    buf_byte(out, '}');
}

/* ---- lists ---- */

static void write_edge(struct buf *out, const char *name, const struct shape *shape, const struct json *row) {
    buf_printf(out, ",\"%s\":", name);
    if (row == NULL)
        buf_text(out, "null");
    else
        write_field(out, &shape->field[0], row); /* the id is every shape's first field */
}

/* Where the page begins in all there is. */
static size_t first_of(const struct api_call *call, const struct json *rows) {
    struct buf id = {0};
    size_t i = 0;
    bool found = call->after.n == 0;
    while (i < json_count(rows) && !found) {
        buf_clear(&id);
        write_field(&id, &call->route->shape->field[0], json_at(rows, i++));
        found = str_equal(buf_view(&id), buf_view(&call->after));
    }
    buf_free(&id);
    return i;
}

static void write_list(const struct api_call *call, const struct json *rows, struct buf *out) {
    const struct shape *shape = call->route->shape;
    size_t begin = first_of(call, rows), left = json_count(rows) - begin,
           n = call->limit > 0 && (size_t)call->limit < left ? (size_t)call->limit : left;
    if (call->route->answers == ANSWERS_ONE && n > 1)
        n = left = 1;
    buf_text(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < n; i++) {
        if (i > 0)
            buf_byte(out, ',');
        write_shape(out, shape, json_at(rows, begin + i));
    }
    buf_byte(out, ']');
    write_edge(out, "first_id", shape, n > 0 ? json_at(rows, begin) : NULL);
    write_edge(out, "last_id", shape, n > 0 ? json_at(rows, begin + n - 1) : NULL);
    buf_printf(out, ",\"has_more\":%s}", left > n ? "true" : "false");
}

void api_answer(const struct api_call *call, const struct json *result, struct buf *out) {
    bool one = call->route->answers == ANSWERS_OBJECT;
    if (one)
        write_shape(out, call->route->shape,
                    json_kind(result) == JSON_KIND_ARRAY ? json_at(result, 0) : result);
    else
        write_list(call, result, out);
    buf_byte(out, '\n');
}
