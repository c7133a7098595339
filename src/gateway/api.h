/* An API over the operations on the books, as tables: a route says who may, which operation it is, what it takes and what its answer looks like. From the same rows a
 * request is checked and turned into the operation's arguments (api_request.c), its answer written (api_answer.c) and the description generated (openapi.c), so
 * that none of them can say something else than the others. Names, types, pages and errors are those of OpenAI's administration API where it has the like. */
#ifndef GATEWAY_API_H
#define GATEWAY_API_H

#include "base/json.h"
#include "cloud/access.h"

/* ---- what a route takes ---- */

enum place { IN_PATH, IN_QUERY, IN_BODY };

enum type {
    TYPE_TEXT,   /* least to most characters, none of them a control character */
    TYPE_NAME,   /* the like of letters, digits and . _ - : / @ */
    TYPE_CHOICE, /* one of `words`, separated by | */
    TYPE_ID,     /* `words` and a number, which is what the operation gets */
    TYPE_TENANT, /* proj_ and a number; the operation gets the tenant's name */
    TYPE_INT,    /* least to most */
    TYPE_NUMBER, /* the same, with a fraction */
    TYPE_BOOL,
    TYPE_MONTH,    /* 2026-11 */
    TYPE_DAY,      /* 2026-11-25 */
    TYPE_CURRENCY, /* three capital letters */
    TYPE_MONEY,    /* a decimal number as text, 9 digits behind the point; least 1: above zero */
    TYPE_PRICE,    /* 6 digits */
    TYPE_JSON,     /* of a body: as it is; `words` is its JSON schema, and the operation checks it */
    TYPE_CHOICES, /* lists of these, in a query of up to 5, in a body of up to 64 and empty, too; a choice may be "api's word=operation's word" */
    TYPE_IDS,
    TYPE_INTS,
    TYPE_TEXTS
};

struct param {
    const char *name;   /* in the API */
    const char *member; /* of the operation's request; NULL: the same; "": of none */
    enum place place;
    enum type type;
    bool required;
    const char *words;
    int64_t least, most;
    int64_t otherwise; /* TYPE_INT: when it is left out; 0: nothing */
    const char *about;
};

/* ---- what it answers ---- */

enum form {
    FORM_IS,   /* `more`, always */
    FORM_TEXT, /* and null for "" */
    FORM_INT,
    FORM_NUMBER,
    FORM_BOOL,
    FORM_TIME,   /* seconds since 1970 */
    FORM_MONEY,  /* a decimal number as text */
    FORM_AMOUNT, /* the same as a number of JSON, as exact */
    FORM_LOWER,  /* text in lower case */
    FORM_ID,     /* `more` and a number */
    FORM_EITHER, /* `more` is "no|yes": which says whether the member is true or not 0 */
    FORM_EVENT,  /* an operation's name as OpenAI's audit log calls it */
    FORM_INSIDE, /* an object of the shape `shape` from the same object; null where the member `more` is 0 */
    FORM_LIST,   /* of such */
    FORM_ANY     /* as it is */
};

struct shape;
struct field {
    const char *name;
    enum form form;
    const char *member; /* of the operation's answer; NULL: the same; ".": all of it */
    const char *more;
    const struct shape *shape;
    bool nullable; /* null for an empty text, a time or number 0, a member that is not there */
    const char *about;
};
struct shape {
    const char *name;          /* in the description */
    const struct field *field; /* ends with a row whose name is NULL */
};

/* ---- the routes ---- */

enum answers {
    ANSWERS_OBJECT, /* of several the first */
    ANSWERS_LIST,   /* as OpenAI's: object, data, first_id, last_id, has_more; the operation cuts the page */
    ANSWERS_WHOLE,  /* the same of an operation that gives all there is */
    ANSWERS_ONE     /* of the first alone */
};

enum { ROLE_TENANT = 16, ROLES_ALL = ROLE_OWNER | ROLE_OPERATOR | ROLE_BILLING | ROLE_READER };

enum { API_PARAMS = 16, API_BODY = 64 << 10 };
struct api_route {
    const char *method, *path; /* below the API's prefix; {name} stands for a parameter in the path */
    unsigned roles;            /* who may; nobody is the default */
    const char *
        operation; /* of the table in cloud/admin.c; a route whose operation is not there is not there either */
    enum answers answers;
    const struct shape *shape;
    struct param param[API_PARAMS];
    const char *fixed; /* members that the operation gets as they stand here */
    const char *about;
    size_t most_body; /* bytes; 0: API_BODY */
};

struct api {
    const char *prefix; /* "/admin/v1" */
    const char *title, *about;
    const struct api_route *route; /* ends with a row whose method is NULL */
    /* Of the description: paths and schemas of what other files answer under the same prefix, as JSON, and more schemas, each behind a comma. */
    const unsigned char *described;
    const size_t *described_bytes;
    void (*write_schemas)(struct buf *out);
};
extern const struct api admin_api, tenant_api;

/* ---- api_request.c ---- */

struct api_match {
    const struct api_route *route; /* NULL: there is none with this path and method */
    struct buf allow;              /* the methods that the path takes: empty when there is no such path */
};
/* path: as sent, with the prefix. */
void api_find(const struct api *api, struct str method, struct str path, struct api_match *out);

/* What came, to be turned into the operation's request. */
struct api_call {
    const struct api *api;
    const struct api_route *route;
    struct cloud *cloud;
    struct str path, query, body;
    struct str tenant; /* of the tenant's API: who asks, and may see nothing else */
    int64_t limit;     /* of a list: how many rows are wanted; 0 otherwise */
    struct buf after;  /* ANSWERS_WHOLE: the id, as JSON, behind which the page begins */
};
/* Checks everything and appends the request. An error names the parameter. */
int api_request(struct api_call *call, struct buf *out, struct error *e);
/* The operation's error speaks of its arguments: name the route's parameter instead. */
void api_rename_error(const struct api_route *route, struct error *e);

/* ---- api_answer.c ---- */

/* result: the operation's answer. */
void api_answer(const struct api_call *call, const struct json *result, struct buf *out);

/* ---- openapi.c ---- */

/* The OpenAPI 3.1 description of what is there now. */
void openapi_write(const struct api *api, struct buf *out);

#endif
