/* The one table of routes. What is not in it does not exist (404), and a row without an authentication does not compile into an open door: the first
 * value of the enumeration denies. Station two of a request's journey: parse the path, authenticate, hand on. */
#include "gateway/inner.h"

#include "base/json.h"
#include "base/url.h"

#include <string.h>
#include <strings.h>

enum authentication { AUTH_DENY, AUTH_NONE, AUTH_KEY };

struct visit {
    struct gateway *g;
    struct exchange *x;
    const struct http_head *head;
    struct address from;
    struct identity who; /* AUTH_KEY */
    struct buf rest;     /* what follows a route that ends with a slash, decoded */
};

static void get_health(struct visit *v) {
    size_t failed = 0;
    for (size_t i = 0; i < v->g->metrics.models; i++)
        failed += engine_model_failed(v->g->engine, str_from(v->g->metrics.model[i].name), NULL);
    /* One model that has failed does not stop the others; a balancer should turn away when none is left, when the books have stopped, or when we
     * are leaving. */
    struct error why;
    bool well = failed < v->g->metrics.models && v->g->drain_until == 0 &&
                !cloud_stopped(v->g->cloud, &why) && !cloud_away(v->g->cloud);
    struct buf out = {0};
    buf_printf(&out, "{\"status\":\"%s\",\"models\":%zu,\"failed\":%zu}\n", well ? "ok" : "unavailable",
               v->g->metrics.models, failed);
    respond_json(v->g, v->x, well ? 200 : 503, buf_view(&out));
    buf_free(&out);
}

static void get_metrics(struct visit *v) {
    struct buf out = {0};
    metrics_write(&out, v->g);
    v->g->metrics.status[2]++;
    exchange_respond(v->x, 200, "text/plain; version=0.0.4; charset=utf-8", STR(""), (int64_t)out.n);
    exchange_write(v->x, buf_view(&out), 0);
    exchange_finish(v->x);
    buf_free(&out);
}

static void write_model(struct buf *out, const struct gateway *g, size_t i) {
    static const char *const status[] = {
        [MODEL_UNLOADED] = "unloaded", [MODEL_LOADING] = "loading", [MODEL_LOADED] = "loaded"};
    const char *name = g->metrics.model[i].name;
    struct engine_model_stats s;
    engine_model_stats(g->engine, i, &s);
    buf_text(out, "{\"id\":");
    json_write_text(out, name);
    buf_printf(out,
               ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"unkai\",\"max_model_len\":%u,"
               "\"status\":{\"value\":\"%s\"}}",
               (long long)g->created, engine_model_context(g->engine, str_from(name)), status[s.residence]);
}

static void get_models(struct visit *v) {
    struct buf out = {0};
    buf_text(&out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < v->g->metrics.models; i++) {
        if (i > 0)
            buf_byte(&out, ',');
        write_model(&out, v->g, i);
    }
    buf_text(&out, "]}\n");
    respond_json(v->g, v->x, 200, buf_view(&out));
    buf_free(&out);
}

static void get_model(struct visit *v) {
    struct buf out = {0};
    struct error e;
    struct model_metrics *m = metrics_model(&v->g->metrics, buf_view(&v->rest));
    if (m == NULL) {
        error_param(&e, ERR_NOT_FOUND, "model", "the model '%.*s' does not exist",
                    (int)(v->rest.n < 200 ? v->rest.n : 200), v->rest.n ? v->rest.p : "");
        respond_error(v->g, v->x, &e, STR(""));
        return;
    }
    write_model(&out, v->g, (size_t)(m - v->g->metrics.model));
    buf_byte(&out, '\n');
    respond_json(v->g, v->x, 200, buf_view(&out));
    buf_free(&out);
}

static void post_chat(struct visit *v) {
    completion_receive(v->g, v->x, v->head, &v->who, &v->from, true);
}

static void post_completion(struct visit *v) {
    completion_receive(v->g, v->x, v->head, &v->who, &v->from, false);
}

static void get_own(struct visit *v) {
    own_receive(v->g, v->x, v->head, &v->who);
}

static const struct route {
    const char *method /* "": any */, *path; /* a path that ends with a slash takes whatever follows it */
    enum authentication authentication;
    void (*handle)(struct visit *v);
} routes[] = {
    {"POST", "/v1/chat/completions", AUTH_KEY, post_chat},
    {"POST", "/v1/completions", AUTH_KEY, post_completion},
    {"GET", "/v1/models", AUTH_KEY, get_models},
    {"GET", "/v1/models/", AUTH_KEY, get_model},
    {"", "/v1/organization/", AUTH_KEY, get_own}, /* rows of its own: tenant_api */
    {"GET", "/v1/openapi.json", AUTH_KEY, get_own},
    /* For balancers and Prometheus; they tell names of models and sums over all tenants, nothing about any one. */
    {"GET", "/health", AUTH_NONE, get_health},
    {"GET", "/metrics", AUTH_NONE, get_metrics},
};

/* Whoever may GET may ask for the head alone. */
static bool method_fits(const struct route *r, struct str method) {
    return r->method[0] == 0 || str_is(method, r->method) ||
           (str_is(method, "HEAD") && strcmp(r->method, "GET") == 0);
}

static bool path_fits(const struct route *r, struct str path) {
    size_t n = strlen(r->path);
    if (r->path[n - 1] == '/')
        return path.n > n && memcmp(path.p, r->path, n) == 0;
    return str_is(path, r->path);
}

static bool trusted(const struct gateway *g, const struct address *a) {
    for (size_t i = 0; i < g->options.proxies_n; i++)
        if (network_has(&g->options.proxies[i], a))
            return true;
    return false;
}

static bool is_blank(char c) {
    return c == ' ' || c == '\t';
}

/* One of X-Forwarded-For: an address, perhaps in brackets, perhaps with a port. */
static bool read_hop(struct str hop, struct address *out) {
    while (hop.n > 0 && is_blank(hop.p[0]))
        hop = (struct str){hop.p + 1, hop.n - 1};
    while (hop.n > 0 && is_blank(hop.p[hop.n - 1]))
        hop.n--;
    size_t colon = str_find(hop, STR(":"), 0), bracket = str_find(hop, STR("]"), 0);
    if (hop.n > 0 && hop.p[0] == '[' && bracket < hop.n)
        hop = (struct str){hop.p + 1, bracket - 1};
    else if (colon < hop.n && str_find(hop, STR(":"), colon + 1) == SIZE_MAX)
        hop.n = colon;
    return address_parse(hop, out);
}

/* Each proxy adds whom it heard at the end: from there back to the first that is none of ours. What stands before that anybody may have written. */
struct address route_source(const struct gateway *g, const struct http_head *head) {
    struct address from = head->peer;
    struct str rest = head->forwarded;
    while (rest.n > 0 && trusted(g, &from)) {
        size_t begin = rest.n;
        while (begin > 0 && rest.p[begin - 1] != ',')
            begin--;
        if (!read_hop((struct str){rest.p + begin, rest.n - begin}, &from))
            break;
        rest.n = begin > 0 ? begin - 1 : 0;
    }
    return from;
}

struct str route_bearer(const struct http_head *head) {
    struct str a = head->authorization;
    if (a.n < 7 || strncasecmp(a.p, "Bearer ", 7) != 0)
        return (struct str){0};
    a = (struct str){a.p + 7, a.n - 7};
    while (a.n > 0 && *a.p == ' ')
        a = (struct str){a.p + 1, a.n - 1};
    return a;
}

static int authenticate(struct visit *v, struct error *e) {
    struct str key = route_bearer(v->head);
    if (key.p == NULL)
        return error_set(e, ERR_AUTH, "give your key in the header 'Authorization: Bearer KEY'");
    return cloud_authenticate(v->g->cloud, key, &v->from, &v->who, e);
}

static void serve(const struct route *r, struct visit *v) {
    struct error e = {0};
    int rc = 0;
    if (r->authentication == AUTH_KEY)
        rc = authenticate(v, &e);
    else if (r->authentication != AUTH_NONE)
        rc = error_set(&e, ERR_DENIED, "this route is closed");
    if (rc != 0) {
        respond_error(v->g, v->x, &e, STR(""));
        return;
    }
    size_t n = strlen(r->path);
    if (r->path[n - 1] == '/')
        percent_decode(&v->rest, (struct str){v->head->path.p + n, v->head->path.n - n}, false);
    r->handle(v);
    buf_free(&v->rest);
}

void route_request(struct gateway *g, struct exchange *x, const struct http_head *head) {
    const struct route *other = NULL;
    struct visit v = {.g = g, .x = x, .head = head, .from = route_source(g, head)};
    bool admin = str_starts(head->path, STR("/admin/"));
    if (admin || head->door == 1) {
        if (admin)
            admin_receive(g, x, head);
        else
            respond_status(g, x, 404, "not_found", "there is no such path", STR(""));
        return;
    }
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        if (!path_fits(&routes[i], head->path))
            continue;
        other = &routes[i];
        if (method_fits(other, head->method)) {
            serve(other, &v);
            return;
        }
    }
    if (other != NULL) {
        struct buf allow = {0};
        buf_printf(&allow, "Allow: %s%s\r\n", other->method,
                   strcmp(other->method, "GET") == 0 ? ", HEAD" : "");
        respond_status(g, x, 405, "method_not_allowed", "this path takes another method", buf_view(&allow));
        buf_free(&allow);
        return;
    }
    respond_status(g, x, 404, "not_found", "there is no such path", STR(""));
}
