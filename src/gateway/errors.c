/* Errors as OpenAI's clients expect them: one object, with the parameter's name, behind the right status. */
#include "gateway/inner.h"

#include "base/json.h"

#include <string.h>

struct kind {
    enum err code;
    int status;
    const char *type, *name;
};

static const struct kind kinds[] = {
    {ERR_INVALID, 400, "invalid_request_error", NULL},
    {ERR_UNSUPPORTED, 400, "invalid_request_error", "unsupported"},
    {ERR_AUTH, 401, "invalid_request_error", "invalid_api_key"},
    {ERR_CREDIT, 402, "insufficient_quota", "insufficient_quota"},
    {ERR_DENIED, 403, "permission_error", "denied"},
    {ERR_NOT_FOUND, 404, "invalid_request_error", "not_found"},
    {ERR_CONFLICT, 409, "invalid_request_error", "conflict"},
    {ERR_TOO_LARGE, 413, "invalid_request_error", "too_large"},
    {ERR_KEY_REUSED, 422, "idempotency_error", "idempotency_key_reused"},
    {ERR_KEY_SPENT, 409, "idempotency_error", "idempotency_key_spent"},
    {ERR_BUSY, 429, "rate_limit_error", "rate_limit_exceeded"},
    {ERR_UNAVAILABLE, 503, "service_unavailable_error", "unavailable"},
    {ERR_NO_MEMORY, 503, "service_unavailable_error", "overloaded"},
    {ERR_INTERNAL, 500, "server_error", "internal_error"}, /* last: everything else */
};

static const struct kind *kind_of(enum err code) {
    size_t last = sizeof kinds / sizeof *kinds - 1;
    for (size_t i = 0; i < last; i++)
        if (kinds[i].code == code)
            return &kinds[i];
    return &kinds[last];
}

int error_status(enum err code) {
    return kind_of(code)->status;
}

static void write_object(struct buf *out, const char *type, const char *code, const char *param,
                         const char *text) {
    buf_text(out, "{\"error\":{\"message\":");
    json_write_text(out, text);
    buf_text(out, ",\"type\":");
    json_write_text(out, type);
    buf_text(out, ",\"param\":");
    if (param != NULL && param[0] != 0)
        json_write_text(out, param);
    else
        buf_text(out, "null");
    buf_text(out, ",\"code\":");
    if (code != NULL)
        json_write_text(out, code);
    else
        buf_text(out, "null");
    buf_text(out, "}}");
}

void error_write_json(struct buf *out, const struct error *e) {
    const struct kind *k = kind_of(e->code);
    const char *code = k->name, *type = k->type, *param = e->param;
    if (e->code == ERR_NOT_FOUND && strcmp(e->param, "model") == 0)
        code = "model_not_found";
    if (e->code == ERR_BUSY && param[0] != 0) { /* "requests" or "tokens": what there is too much of */
        type = param;
        param = NULL;
    }
    write_object(out, type, code, param, e->text);
}

static void respond(struct gateway *g, struct exchange *x, int status, const char *type, struct str headers,
                    struct str body) {
    g->metrics.status[status / 100]++;
    exchange_respond(x, status, type, headers, (int64_t)body.n);
    exchange_write(x, body, 0);
    exchange_finish(x);
}

void respond_json(struct gateway *g, struct exchange *x, int status, struct str body) {
    respond(g, x, status, "application/json", STR(""), body);
}

/* When to come again: a whole number of seconds, rounded up. What can never work is not tried again by the official clients. */
static void write_retry(struct gateway *g, struct buf *headers, int64_t wait_ns) {
    if (wait_ns < 0)
        buf_text(headers, "x-should-retry: false\r\n");
    else
        buf_printf(headers, "Retry-After: %lld\r\n",
                   wait_ns > 0 ? (long long)((wait_ns - 1) / 1000000000 + 1)
                               : (long long)engine_retry_after(g->engine));
}

void respond_error(struct gateway *g, struct exchange *x, const struct error *e, struct str more) {
    struct buf body = {0}, headers = {0};
    int status = error_status(e->code);
    error_write_json(&body, e);
    if (status == 401)
        buf_text(&headers, "WWW-Authenticate: Bearer realm=\"unkai\"\r\n");
    if (e->code == ERR_KEY_REUSED || e->code == ERR_KEY_SPENT) /* to the official clients, which would */
        buf_text(&headers, "x-should-retry: false\r\n");
    if (status == 429)
        write_retry(g, &headers, e->wait_ns);
    buf_str(&headers, more);
    respond(g, x, status, "application/json", buf_view(&headers), buf_view(&body));
    buf_free(&body);
    buf_free(&headers);
}

void respond_status(struct gateway *g, struct exchange *x, int status, const char *code, const char *text,
                    struct str headers) {
    struct buf body = {0};
    write_object(&body, status >= 500 ? "server_error" : "invalid_request_error", code, NULL, text);
    respond(g, x, status, "application/json", headers, buf_view(&body));
    buf_free(&body);
}
