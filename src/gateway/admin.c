/* The APIs over the books, while a request lives: authenticate from memory, take the body, hand both to a worker that waits for the books, answer. The loop never waits;
 * what the routes are is in admin_routes.c. */
#include "gateway/api.h"
#include "gateway/inner.h"

#include <stdlib.h>
#include <string.h>

#define SAFE_HEADERS "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"

enum { MOST_ERRANDS = 256 };

/* One request. */
struct errand {
    const struct answerer *answerer; /* first */
    struct gateway *gateway;
    struct exchange *x; /* NULL when it has closed */
    struct api_call call;
    struct actor who;
    int64_t tenant; /* who asks for itself */
    bool denied, working;
    struct buf path, query, body, name, answer;
    struct error error;
    int rc;
    struct errand *next, **link;
};

static void free_errand(struct errand *r) {
    *r->link = r->next;
    if (r->next != NULL)
        r->next->link = r->link;
    r->gateway->errands--;
    buf_free(&r->path);
    buf_free(&r->query);
    buf_free(&r->body);
    buf_free(&r->name);
    buf_free(&r->answer);
    buf_free(&r->call.after);
    free(r);
}

static size_t most_body(const struct api_route *route) {
    return route->most_body != 0 ? route->most_body : API_BODY;
}

/* ---- answers ---- */

static void refuse(struct gateway *g, struct exchange *x, const struct error *e) {
    respond_error(g, x, e, STR(SAFE_HEADERS));
}

static void respond(struct gateway *g, struct exchange *x, struct str body) {
    g->metrics.status[2]++;
    exchange_respond(x, 200, "application/json", STR(SAFE_HEADERS), (int64_t)body.n);
    exchange_write(x, body, 0);
    exchange_finish(x);
}

static void answer(struct errand *r) {
    if (r->rc != 0)
        refuse(r->gateway, r->x, &r->error);
    else
        respond(r->gateway, r->x, buf_view(&r->answer));
}

/* ---- on the worker's thread ---- */

/* Somebody tried what the role does not allow: the answer is the same whether the rest of the request was right. */
static int deny(struct errand *r, struct buf *request) {
    struct json *parsed = NULL;
    if (api_request(&r->call, request, NULL) != 0) {
        buf_clear(request);
        buf_printf(request, "{\"op\":\"%s\"}", r->call.route->operation);
    }
    if (json_parse(&parsed, buf_view(request), NULL) == 0)
        access_refused(r->call.cloud, &r->who, parsed);
    json_free(parsed);
    return error_set(&r->error, ERR_DENIED, "the role %s does not allow this", role_name(r->who.role));
}

static int carry_out(struct errand *r, struct buf *request) {
    struct json *parsed = NULL, *result = NULL;
    struct buf text = {0};
    int rc = api_request(&r->call, request, &r->error);
    if (rc == 0)
        rc = json_parse(&parsed, buf_view(request), &r->error);
    if (rc == 0 && (rc = access_run(r->call.cloud, &r->who, parsed, &text, &r->error)) != 0)
        api_rename_error(r->call.route, &r->error);
    if (rc == 0)
        rc = json_parse(&result, buf_view(&text), &r->error);
    if (rc == 0) {
        api_answer(&r->call, result, &r->answer);
        if (r->answer.failed)
            rc = error_set(&r->error, ERR_NO_MEMORY, "no memory for the answer");
    }
    json_free(parsed);
    json_free(result);
    buf_free(&text);
    return rc;
}

static void work(void *errand) {
    struct errand *r = errand;
    struct buf request = {0};
    r->call.path = buf_view(&r->path);
    r->call.query = buf_view(&r->query);
    r->call.body = buf_view(&r->body);
    r->call.tenant = buf_view(&r->name);
    r->rc = r->denied ? deny(r, &request) : carry_out(r, &request);
    buf_free(&request);
}

static void worked(void *errand) {
    struct errand *r = errand;
    r->working = false;
    if (r->x == NULL) {
        free_errand(r);
        return;
    }
    answer(r);
}

const struct worker_kind admin_worker = {work, worked};

/* ---- on the loop's ---- */

static void take_body(void *errand, struct str piece) {
    struct errand *r = errand;
    struct error e = {0};
    buf_str(&r->body, piece);
    if (r->body.failed && !exchange_responded(r->x)) {
        error_set(&e, ERR_TOO_LARGE, "the body may have %zu bytes at most", most_body(r->call.route));
        refuse(r->gateway, r->x, &e);
    }
}

static void end_body(void *errand) {
    struct errand *r = errand;
    r->working = true;
    worker_put(r->gateway->clerk, r);
}

static void broken(void *errand) {}

static void taken(void *errand, uint64_t mark) {}

static void closed(void *errand, bool complete) {
    struct errand *r = errand;
    r->x = NULL;
    if (!r->working)
        free_errand(r);
}

static const struct answerer answerer = {take_body, end_body, broken, taken, closed};

/* A tenant's questions are answered one by one: the books have one writer, and everybody's tokens go through it. */
static int check_room(const struct gateway *g, int64_t tenant, int64_t length, size_t most, struct error *e) {
    if (g->drain_until != 0)
        return error_set(e, ERR_UNAVAILABLE, "the server is shutting down");
    if (length > (int64_t)most)
        return error_set(e, ERR_TOO_LARGE, "the body may have %zu bytes at most", most);
    if (g->errands >= MOST_ERRANDS)
        return error_set(e, ERR_BUSY, "too many requests like this one are waiting; try again in a moment");
    for (const struct errand *r = tenant != 0 ? g->errand : NULL; r != NULL; r = r->next)
        if (r->tenant == tenant)
            return error_set(e, ERR_BUSY, "one question at a time, please; wait for the answer to the last");
    return 0;
}

static int receive(struct gateway *g, struct exchange *x, const struct http_head *head,
                   const struct errand *what, struct error *e) {
    size_t most = most_body(what->call.route);
    int rc = check_room(g, what->tenant, head->length, most, e);
    struct errand *r = rc == 0 ? malloc(sizeof *r) : NULL;
    if (rc == 0 && r == NULL)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for the request");
    if (rc != 0)
        return rc;
    *r = *what;
    r->answerer = &answerer;
    r->gateway = g;
    r->x = x;
    r->call.cloud = g->cloud;
    r->body.limit = most;
    buf_str(&r->path, head->path);
    buf_str(&r->query, head->query);
    r->next = g->errand;
    r->link = &g->errand;
    if (g->errand != NULL)
        g->errand->link = &r->next;
    g->errand = r;
    g->errands++;
    exchange_set_user(x, r);
    return 0;
}

/* ---- who ---- */

/* A route, or the answer that there is none. */
static const struct api_route *find(struct gateway *g, struct exchange *x, const struct http_head *head,
                                    const struct api *api) {
    struct api_match match;
    api_find(api, head->method, head->path, &match);
    if (match.route == NULL && match.allow.n > 0) {
        struct buf headers = {0};
        buf_printf(&headers, SAFE_HEADERS "Allow: %s\r\n", match.allow.p);
        respond_status(g, x, 405, "method_not_allowed", "this path takes another method", buf_view(&headers));
        buf_free(&headers);
    } else if (match.route == NULL) {
        respond_status(g, x, 404, "not_found", "there is no such path", STR(SAFE_HEADERS));
    }
    buf_free(&match.allow);
    return match.route;
}

static bool describes(const struct api *api, const struct http_head *head) {
    struct str path = head->path, prefix = str_from(api->prefix);
    return str_starts(path, prefix) && (str_is(head->method, "GET") || str_is(head->method, "HEAD")) &&
           str_is((struct str){path.p + prefix.n, path.n - prefix.n}, "/openapi.json");
}

static void describe(struct gateway *g, struct exchange *x, const struct api *api) {
    struct buf out = {0};
    openapi_write(api, &out);
    respond(g, x, buf_view(&out));
    buf_free(&out);
}

static bool is_open(const struct gateway *g, const struct http_head *head) {
    bool door = g->options.admin_host != NULL ? head->door == 1 : http_loopback(g->http, 0);
    return door && access_open(g->cloud);
}

void admin_receive(struct gateway *g, struct exchange *x, const struct http_head *head) {
    struct errand r = {.call.api = &admin_api};
    struct error e = {0};
    if (!is_open(g, head)) {
        respond_status(g, x, 404, "not_found", "there is no such path", STR(SAFE_HEADERS));
        return;
    }
    bool description = describes(&admin_api, head);
    if (!description && (r.call.route = find(g, x, head, &admin_api)) == NULL)
        return;
    struct address from = route_source(g, head);
    struct str key = route_bearer(head);
    int rc = key.p == NULL
                 ? error_set(&e, ERR_AUTH, "give an admin key in the header 'Authorization: Bearer KEY'")
                 : access_authenticate(g->cloud, key, &from, &r.who, &e);
    if (rc == 0 && description) {
        describe(g, x, &admin_api);
        return;
    }
    if (rc == 0 && head->coded) {
        respond_status(g, x, 415, "unsupported_media_type",
                       "send the body as it is, without a Content-Encoding",
                       STR(SAFE_HEADERS "Accept-Encoding: identity\r\n"));
        return;
    }
    r.denied = rc == 0 && (r.call.route->roles & r.who.role) == 0;
    if (rc == 0)
        rc = receive(g, x, head, &r, &e);
    if (rc != 0)
        refuse(g, x, &e);
}

/* What a tenant may ask about itself. The actor is the program: such routes only read, and see nothing of anybody else (api_request). */
void own_receive(struct gateway *g, struct exchange *x, const struct http_head *head,
                 const struct identity *who) {
    struct errand r = {.call.api = &tenant_api, .tenant = who->tenant};
    struct error e = {0};
    if (describes(&tenant_api, head)) {
        describe(g, x, &tenant_api);
        return;
    }
    if ((r.call.route = find(g, x, head, &tenant_api)) == NULL)
        return;
    buf_text(&r.name, who->tenant_name);
    int rc = r.call.route->roles != ROLE_TENANT || r.name.n == 0
                 ? error_set(&e, ERR_DENIED, "this route is closed")
                 : receive(g, x, head, &r, &e);
    if (rc != 0) {
        buf_free(&r.name);
        refuse(g, x, &e);
    }
}
