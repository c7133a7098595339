/* The OpenAPI 3.1 description of an API, from the rows that it is made of; see api.h. */
#include "gateway/api.h"

#include <ctype.h>
#include <string.h>

enum { MOST_SHAPES = 128 };

static const char *const error_statuses[] = {"400", "401", "402", "403", "404",
                                             "409", "413", "415", "429", "503"};

/* What calendar_parse takes: 1970 to 2200, each month with its days. */
#define YEAR "(19[7-9][0-9]|2[01][0-9]{2}|2200)"
#define LEAP_YEAR "(19(7[26]|8[048]|9[26])|2000|2[01](0[48]|[2468][048]|[13579][26]))"
#define MONTH_PATTERN "^" YEAR "-(0[1-9]|1[0-2])$"
#define DAY_PATTERN                                                                                    \
    "^(" YEAR "-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)" \
    "|" LEAP_YEAR "-02-29)$"

/* ---- names ---- */

static void write_lower(struct buf *out, const char *text) {
    for (; *text != 0; text++)
        buf_byte(out, (char)tolower((unsigned char)*text));
}

static void write_operation_id(struct buf *out, const struct api_route *r) {
    bool gap = true;
    write_lower(out, r->method);
    for (const char *c = r->path; *c != 0; c++) {
        bool word = isalnum((unsigned char)*c);
        if (word && gap)
            buf_byte(out, '_');
        if (word)
            buf_byte(out, *c);
        gap = !word;
    }
}

/* ---- what goes in ---- */

/* The words in front of any =, as an array. */
static void write_words(struct buf *out, const char *words) {
    buf_byte(out, '[');
    for (const char *w = words; *w != 0; w += strcspn(w, "|"), w += *w == '|') {
        buf_text(out, w > words ? "," : "");
        json_write_str(out, (struct str){w, strcspn(w, "|=")});
    }
    buf_byte(out, ']');
}

static void write_id(struct buf *out, const char *prefix) {
    buf_printf(out, "{\"type\":\"string\",\"pattern\":\"^%s[1-9][0-9]{0,17}$\"}", prefix);
}

static void write_value_schema(struct buf *out, const struct param *p) {
    switch (p->type) {
    case TYPE_TEXT:
    case TYPE_TEXTS:
        buf_printf(out,
                   "{\"type\":\"string\",\"minLength\":%lld,\"maxLength\":%lld,"
                   "\"pattern\":\"^[^\\\\u0000-\\\\u001f\\\\u007f]*$\"}",
                   (long long)p->least, (long long)p->most);
        return;
    case TYPE_NAME:
        buf_printf(out, "{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9._:/@-]{%lld,%lld}$\"}",
                   (long long)p->least, (long long)p->most);
        return;
    case TYPE_CHOICE:
    case TYPE_CHOICES:
        buf_text(out, "{\"type\":\"string\",\"enum\":");
        write_words(out, p->words);
        buf_byte(out, '}');
        return;
    case TYPE_ID:
    case TYPE_IDS:
    case TYPE_TENANT:
        write_id(out, p->words);
        return;
    case TYPE_NUMBER:
        buf_printf(out, "{\"type\":\"number\",\"minimum\":%lld,\"maximum\":%lld}", (long long)p->least,
                   (long long)p->most);
        return;
    case TYPE_INT:
    case TYPE_INTS:
        buf_printf(out, "{\"type\":\"integer\",\"minimum\":%lld,\"maximum\":%lld", (long long)p->least,
                   (long long)p->most);
        if (p->otherwise != 0)
            buf_printf(out, ",\"default\":%lld", (long long)p->otherwise);
        buf_byte(out, '}');
        return;
    case TYPE_BOOL:
        buf_text(out, "{\"type\":\"boolean\",\"default\":false}");
        return;
    case TYPE_MONTH:
    case TYPE_DAY:
        buf_printf(out, "{\"type\":\"string\",\"pattern\":\"%s\"}",
                   p->type == TYPE_DAY ? DAY_PATTERN : MONTH_PATTERN);
        return;
    case TYPE_CURRENCY:
        buf_text(out, "{\"type\":\"string\",\"pattern\":\"^[A-Z]{3}$\"}");
        return;
    case TYPE_MONEY:
    case TYPE_PRICE:
        buf_printf(out, "{\"type\":\"string\",\"pattern\":\"^[0-9]{1,9}(\\\\.[0-9]{1,%d})?$\"%s}",
                   p->type == TYPE_MONEY ? 9 : 6, p->least > 0 ? ",\"not\":{\"pattern\":\"^[0.]*$\"}" : "");
        return;
    case TYPE_JSON:
        buf_text(out, p->words);
        return;
    }
}

static void write_schema(struct buf *out, const struct param *p) {
    if (p->type < TYPE_CHOICES) {
        write_value_schema(out, p);
        return;
    }
    buf_printf(out, "{\"type\":\"array\",\"maxItems\":%d,\"items\":", p->place == IN_BODY ? 64 : 5);
    write_value_schema(out, p);
    buf_byte(out, '}');
}

static void write_about(struct buf *out, const char *about) {
    if (about != NULL) {
        buf_text(out, ",\"description\":");
        json_write_text(out, about);
    }
}

static void write_parameters(struct buf *out, const struct api_route *r) {
    bool first = true;
    buf_text(out, ",\"parameters\":[");
    for (const struct param *p = r->param; p < r->param + API_PARAMS && p->name != NULL; p++) {
        if (p->place == IN_BODY)
            continue;
        buf_printf(out, "%s{\"name\":\"%s\",\"in\":\"%s\",\"required\":%s", first ? "" : ",", p->name,
                   p->place == IN_PATH ? "path" : "query", p->required ? "true" : "false");
        write_about(out, p->about);
        buf_text(out, ",\"schema\":");
        write_schema(out, p);
        buf_byte(out, '}');
        first = false;
    }
    buf_byte(out, ']');
}

static void write_body(struct buf *out, const struct api_route *r) {
    struct buf names = {0}, required = {0};
    for (const struct param *p = r->param; p < r->param + API_PARAMS && p->name != NULL; p++) {
        if (p->place != IN_BODY)
            continue;
        buf_printf(&names, "%s\"%s\":", names.n > 0 ? "," : "", p->name);
        write_schema(&names, p);
        if (p->about != NULL) { /* inside the schema's braces */
            names.n--;
            write_about(&names, p->about);
            buf_byte(&names, '}');
        }
        if (p->required)
            buf_printf(&required, "%s\"%s\"", required.n > 0 ? "," : "", p->name);
    }
    if (names.n > 0) {
        buf_text(out, ",\"requestBody\":{\"required\":true,\"content\":{\"application/json\":{\"schema\":{"
                      "\"type\":\"object\",\"additionalProperties\":false,\"properties\":{");
        buf_str(out, buf_view(&names));
        buf_text(out, "},\"required\":[");
        buf_str(out, buf_view(&required));
        buf_text(out, "]}}}}");
    }
    buf_free(&names);
    buf_free(&required);
}

/* ---- what comes back ---- */

static void write_reference(struct buf *out, const struct shape *shape) {
    buf_printf(out, "{\"$ref\":\"#/components/schemas/%s\"}", shape->name);
}

static void write_type(struct buf *out, const char *type, bool nullable) {
    buf_printf(out, nullable ? "{\"type\":[\"%s\",\"null\"]" : "{\"type\":\"%s\"", type);
}

/* Without the last brace. */
static void open_form(struct buf *out, const struct field *f) {
    switch (f->form) {
    case FORM_IS:
        if (f->more == NULL)
            buf_text(out, "{\"type\":\"null\"");
        else
            buf_printf(out, "{\"const\":\"%s\"", f->more);
        return;
    case FORM_TEXT:
    case FORM_EVENT:
    case FORM_LOWER:
        write_type(out, "string", f->nullable);
        return;
    case FORM_MONEY:
        write_type(out, "string", f->nullable);
        buf_text(out, ",\"pattern\":\"^-?[0-9]+(\\\\.[0-9]{1,9})?$\"");
        return;
    case FORM_INT:
    case FORM_TIME:
        write_type(out, "integer", f->nullable);
        return;
    case FORM_NUMBER:
    case FORM_AMOUNT:
        write_type(out, "number", f->nullable);
        return;
    case FORM_BOOL:
        write_type(out, "boolean", f->nullable);
        return;
    case FORM_ID:
        write_type(out, "string", f->nullable);
        buf_printf(out, ",\"pattern\":\"^%s[1-9][0-9]*$\"", f->more);
        return;
    case FORM_EITHER:
        buf_text(out, "{\"enum\":");
        write_words(out, f->more);
        return;
    case FORM_INSIDE:
        buf_text(out, "{\"anyOf\":[");
        write_reference(out, f->shape);
        buf_text(out, f->nullable ? ",{\"type\":\"null\"}]" : "]");
        return;
    case FORM_LIST:
        buf_text(out, "{\"type\":\"array\",\"items\":");
        write_reference(out, f->shape);
        return;
    case FORM_ANY:
        buf_text(out, "{\"$comment\":\"as it is\"");
        return;
    }
}

static void write_shape(struct buf *out, const struct shape *shape) {
    buf_printf(out, "\"%s\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{",
               shape->name);
    for (const struct field *f = shape->field; f->name != NULL; f++) {
        buf_printf(out, "%s\"%s\":", f > shape->field ? "," : "", f->name);
        open_form(out, f);
        write_about(out, f->about);
        buf_byte(out, '}');
    }
    buf_text(out, "},\"required\":[");
    for (const struct field *f = shape->field; f->name != NULL; f++)
        buf_printf(out, "%s\"%s\"", f > shape->field ? "," : "", f->name);
    buf_text(out, "]}");
}

struct shapes {
    const struct shape *shape[MOST_SHAPES];
    size_t n;
};

static void collect(struct shapes *all, const struct shape *shape) {
    for (size_t i = 0; i < all->n; i++)
        if (all->shape[i] == shape)
            return;
    if (all->n == MOST_SHAPES)
        return;
    all->shape[all->n++] = shape;
    for (const struct field *f = shape->field; f->name != NULL; f++)
        if (f->shape != NULL)
            collect(all, f->shape); /* as deep as shapes lie in each other */
}

/* What was made is named in the paths below: its id there, and what its own path names. */
static void write_link(struct buf *out, const struct api_route *r, const struct api_route *to) {
    const struct param *made = NULL;
    for (const struct param *p = to->param; p < to->param + API_PARAMS && p->name != NULL; p++) {
        size_t n = strlen(r->path), m = strlen(p->name);
        if (p->place == IN_PATH && strncmp(to->path + n, "/{", 2) == 0 &&
            strncmp(to->path + n + 2, p->name, m) == 0)
            made = p;
    }
    buf_byte(out, '"');
    write_operation_id(out, to);
    buf_text(out, "\":{\"operationId\":\"");
    write_operation_id(out, to);
    buf_text(out, "\",\"parameters\":{");
    for (const struct param *p = to->param, *first = p; p < to->param + API_PARAMS && p->name != NULL; p++) {
        if (p->place != IN_PATH)
            continue;
        buf_printf(out, "%s\"%s\":\"", p > first ? "," : "", p->name);
        if (p == made)
            buf_text(out, "$response.body#/id\"");
        else
            buf_printf(out, "$request.path.%s\"", p->name);
    }
    buf_text(out, "}}");
}

static bool leads(const struct api_route *r, const struct api_route *to) {
    size_t n = strlen(r->path);
    const char *below = strncmp(to->path, r->path, n) == 0 ? to->path + n : "";
    const char *end = strncmp(below, "/{", 2) == 0 ? strchr(below, '}') : NULL;
    return end != NULL && strchr(end, '{') == NULL && access_knows(to->operation);
}

static void write_links(struct buf *out, const struct api *api, const struct api_route *r) {
    struct buf links = {0};
    if (strcmp(r->method, "POST") == 0 && r->shape->field[0].form == FORM_ID)
        for (const struct api_route *to = api->route; to->method != NULL; to++)
            if (leads(r, to)) {
                buf_text(&links, links.n > 0 ? "," : "");
                write_link(&links, r, to);
            }
    if (links.n > 0) {
        buf_text(out, ",\"links\":{");
        buf_str(out, buf_view(&links));
        buf_byte(out, '}');
    }
    buf_free(&links);
}

static void write_answers(struct buf *out, const struct api *api, const struct api_route *r) {
    buf_text(out, ",\"responses\":{\"200\":{\"description\":\"done\",\"content\":{\"application/json\":{"
                  "\"schema\":");
    if (r->answers != ANSWERS_OBJECT) {
        buf_text(out, "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"object\":{"
                      "\"const\":\"list\"},\"data\":{\"type\":\"array\",\"items\":");
        write_reference(out, r->shape);
        buf_text(
            out,
            "},\"first_id\":{\"type\":[\"string\",\"null\"]},\"last_id\":{\"type\":[\"string\",\"null\"]},"
            "\"has_more\":{\"type\":\"boolean\"}},\"required\":[\"object\",\"data\",\"first_id\","
            "\"last_id\",\"has_more\"]}");
    } else {
        write_reference(out, r->shape);
    }
    buf_text(out, "}}");
    write_links(out, api, r);
    buf_byte(out, '}');
    for (size_t i = 0; i < sizeof error_statuses / sizeof *error_statuses; i++)
        buf_printf(out, ",\"%s\":{\"$ref\":\"#/components/responses/Error\"}", error_statuses[i]);
    buf_byte(out, '}');
}

/* ---- routes ---- */

static void write_roles(struct buf *out, unsigned roles) {
    bool first = true;
    buf_text(out, ",\"x-roles\":[");
    for (unsigned role = ROLE_OWNER; role <= ROLE_READER; role <<= 1)
        if (roles & role) {
            buf_printf(out, "%s\"%s\"", first ? "" : ",", role_name((enum role)role));
            first = false;
        }
    buf_byte(out, ']');
}

static void write_operation(struct buf *out, const struct api *api, const struct api_route *r) {
    buf_byte(out, '"');
    write_lower(out, r->method);
    buf_text(out, "\":{\"operationId\":\"");
    write_operation_id(out, r);
    buf_text(out, "\",\"summary\":");
    json_write_text(out, r->about);
    write_roles(out, r->roles);
    write_parameters(out, r);
    write_body(out, r);
    write_answers(out, api, r);
    buf_byte(out, '}');
}

/* All methods of a path in one place, where its first one stands. */
static void write_paths(struct buf *out, const struct api *api, struct shapes *shapes) {
    bool first = true;
    for (const struct api_route *r = api->route; r->method != NULL; r++) {
        bool seen = !access_knows(r->operation), more = false;
        for (const struct api_route *o = api->route; o < r && !seen; o++)
            seen = strcmp(o->path, r->path) == 0 && access_knows(o->operation);
        if (seen)
            continue;
        buf_printf(out, "%s\"%s\":{", first ? "" : ",", r->path);
        for (const struct api_route *o = r; o->method != NULL; o++)
            if (strcmp(o->path, r->path) == 0 && access_knows(o->operation)) {
                buf_text(out, more ? "," : "");
                write_operation(out, api, o);
                collect(shapes, o->shape);
                more = true;
            }
        buf_byte(out, '}');
        first = false;
    }
}

/* The members of one part of what other files answer, each behind a comma. */
static void write_described(struct buf *out, const struct api *api, const char *part) {
    struct json *all = NULL;
    if (api->described == NULL ||
        json_parse(&all, (struct str){(const char *)api->described, *api->described_bytes}, NULL) != 0)
        return;
    const struct json *of = json_get(all, part);
    for (void *it = json_first(of); it != NULL; it = json_next(of, it)) {
        buf_byte(out, ',');
        json_write_str(out, json_key(it));
        buf_byte(out, ':');
        json_write(out, json_value(it));
    }
    json_free(all);
}

void openapi_write(const struct api *api, struct buf *out) {
    struct shapes shapes = {0};
    buf_printf(out, "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"%s\",\"version\":\"" UNKAI_VERSION "\"",
               api->title);
    write_about(out, api->about);
    buf_printf(out, "},\"servers\":[{\"url\":\"%s\"}],\"security\":[{\"key\":[]}],\"paths\":{", api->prefix);
    write_paths(out, api, &shapes);
    write_described(out, api, "paths");
    buf_text(out,
             "},\"components\":{\"securitySchemes\":{\"key\":{\"type\":\"http\",\"scheme\":\"bearer\"}},"
             "\"responses\":{\"Error\":{\"description\":\"why it was not done\",\"content\":{"
             "\"application/json\":{\"schema\":{\"$ref\":\"#/components/schemas/Error\"}}}}},"
             "\"schemas\":{\"Error\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
             "\"error\":{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
             "\"message\":{\"type\":\"string\"},\"type\":{\"type\":\"string\"},"
             "\"param\":{\"type\":[\"string\",\"null\"]},\"code\":{\"type\":[\"string\",\"null\"]}},"
             "\"required\":[\"message\",\"type\",\"param\",\"code\"]}},\"required\":[\"error\"]}");
    for (size_t i = 0; i < shapes.n; i++) {
        buf_byte(out, ',');
        write_shape(out, shapes.shape[i]);
    }
    write_described(out, api, "schemas");
    if (api->write_schemas != NULL)
        api->write_schemas(out);
    buf_text(out, "}}}\n");
}
