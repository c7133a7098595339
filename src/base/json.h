/* JSON. Reading goes through jansson (64-bit integers, embedded NULs and UTF-8 validation are right there; depth and members are
 * limited in front of it; see docs/dependencies.md); writing appends to a struct buf, without a tree, because the
 * token path writes many small objects. This header is the seam: nothing else includes jansson.h. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/buf.h"
#include "base/error.h"

struct json; /* a value, owned by its document's root */

enum json_kind {
    JSON_KIND_OBJECT,
    JSON_KIND_ARRAY,
    JSON_KIND_STRING,
    JSON_KIND_INT,
    JSON_KIND_REAL,
    JSON_KIND_TRUE,
    JSON_KIND_FALSE,
    JSON_KIND_NULL
};

/* Parse a whole document (any value may be the root). *out is freed with json_free. Nesting is limited to 128;
 * of duplicate keys the last wins. ERR_INVALID says line and column. */
int json_parse(struct json **out, struct str text, struct error *e);
void json_free(struct json *root);

/* Getters take NULL as null, so that json_as_int(json_get(o, "n")) needs no check in between. */
enum json_kind json_kind(const struct json *v);
bool json_numeric(const struct json *v);      /* INT or REAL */
int64_t json_as_int(const struct json *v);    /* INT, else 0 */
double json_as_number(const struct json *v);  /* INT or REAL, else 0 */
struct str json_as_str(const struct json *v); /* STRING, else empty; valid UTF-8, may hold NUL */
bool json_as_bool(const struct json *v);      /* TRUE */
size_t json_count(const struct json *v);      /* elements or members */
const struct json *json_at(const struct json *v, size_t i); /* array element or NULL */
const struct json *json_get(const struct json *v,
                            const char *key); /* member or NULL, also when v is no object */

/* Members in the order of the text: for (void *it = json_first(o); it; it = json_next(o, it)). */
void *json_first(const struct json *object);
void *json_next(const struct json *object, void *it);
struct str json_key(void *it);
const struct json *json_value(void *it);

/* Writers. Strings are escaped as JSON asks; broken UTF-8 becomes U+FFFD. */
void json_write_str(struct buf *b, struct str s);
void json_write_inside(struct buf *b, struct str s); /* a part of a string, without the quotes around it */
void json_write_text(struct buf *b, const char *c_string);
/* The shortest text that reads back as the same double; null for infinities and NaN. */
void json_write_number(struct buf *b, double x);
/* A whole value, compact, members in their order. */
void json_write(struct buf *b, const struct json *v);

#endif
