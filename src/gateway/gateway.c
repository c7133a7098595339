/* The gateway put together: the HTTP loop's callbacks, the engine's letters, and an orderly end. */
#include "gateway/inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdlib.h>

static void on_head(void *context, struct exchange *x, const struct http_head *head) {
    route_request(context, x, head);
}

/* NULL: it was answered at once. */
static const struct answerer *answerer_of(const struct exchange *x) {
    const struct answerer *const *user = exchange_user(x);
    return user != NULL ? *user : NULL;
}

static void on_body(void *context, struct exchange *x, struct str piece) {
    if (answerer_of(x) != NULL)
        answerer_of(x)->body(exchange_user(x), piece);
}

static void on_end(void *context, struct exchange *x) {
    if (answerer_of(x) != NULL)
        answerer_of(x)->body_end(exchange_user(x));
}

static void on_broken(void *context, struct exchange *x, int status, const char *why) {
    if (answerer_of(x) != NULL)
        answerer_of(x)->broken(exchange_user(x));
    respond_status(context, x, status, status == 408 ? "timeout" : "bad_request", why, STR(""));
}

static void on_taken(void *context, struct exchange *x, uint64_t mark) {
    answerer_of(x)->taken(exchange_user(x), mark);
}

static void on_closed(void *context, struct exchange *x, bool complete) {
    if (answerer_of(x) != NULL)
        answerer_of(x)->closed(exchange_user(x), complete);
}

static void read_letters(struct gateway *g) {
    while (inbox_take(&g->inbox))
        for (struct letter *l = inbox_next(&g->inbox, NULL); l != NULL; l = inbox_next(&g->inbox, l))
            completion_event(l->to, &l->event);
}

static void begin_drain(struct gateway *g) {
    if (g->drain_until != 0)
        return;
    g->drain_until = clock_mono_ns() + g->options.drain_ns;
    log_info("no more requests are taken; those that run may end within %lld s",
             (long long)(g->options.drain_ns / 1000000000));
    http_drain(g->http);
}

static void cut_all(struct gateway *g) {
    for (struct completion *c = g->live, *next; c != NULL; c = next) {
        next = completion_next(c);
        completion_abort(c);
    }
}

/* An orderly end: when nobody is connected and nothing is unsettled, or a second past the deadline whatever there is. */
static void watch_drain(struct gateway *g) {
    struct http_stats s;
    if (atomic_load(&g->drains) > 0)
        begin_drain(g);
    if (g->drain_until == 0)
        return;
    int64_t now = clock_mono_ns();
    if (atomic_load(&g->drains) > 1 && g->drain_until > now)
        g->drain_until = now;
    if (now >= g->drain_until)
        cut_all(g);
    http_stats(g->http, &s);
    if ((g->live == NULL && s.connections == 0) || now > g->drain_until + 1000000000)
        http_quit(g->http);
}

/* The books have written a group, or have failed: then what waits for them would wait for ever. */
static void go_on(struct gateway *g) {
    struct error why = {0};
    if (!cloud_stopped(g->cloud, &why)) {
        completion_books_committed(g);
        return;
    }
    for (struct completion *c = g->live, *next; c != NULL; c = next) {
        next = completion_next(c);
        completion_give_up(c, &why);
    }
}

static void on_wake(void *context) {
    struct gateway *g = context;
    read_letters(g);
    worker_done(g->worker);
    worker_done(g->clerk);
    if (atomic_exchange(&g->durable, false)) {
        completion_hear_books(g);
        once_answers(g);
        go_on(g);
    }
    watch_drain(g);
}

static void on_tick(void *context) {
    watch_drain(context);
}

static const struct http_handler handler = {on_head,  on_body,   on_end,  on_broken,
                                            on_taken, on_closed, on_wake, on_tick};

int gateway_create(struct gateway **out, const struct gateway_options *o, struct engine *engine,
                   struct cloud *cloud, struct error *e) {
    struct gateway *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the gateway");
    g->options = *o;
    g->engine = engine;
    g->cloud = cloud;
    g->created = clock_wall_ns() / 1000000000;
    inbox_create(&g->inbox);
    struct http_options http = {.door = {{o->host, o->port}, {o->admin_host, o->admin_port}},
                                .max_connections = o->max_connections,
                                .max_header = GATEWAY_MAX_HEADER,
                                .client_timeout_ns = o->client_timeout_ns};
    int rc = metrics_create(&g->metrics, engine);
    if (rc != 0)
        error_set(e, ERR_NO_MEMORY, "no memory for the gateway");
    if (rc == 0)
        rc = http_create(&g->http, &http, &handler, g, e);
    if (rc == 0)
        rc = worker_create(&g->worker, g->http, &completion_worker, e);
    if (rc == 0)
        rc = worker_create(&g->clerk, g->http, &admin_worker, e);
    if (rc != 0) {
        gateway_free(g);
        return rc;
    }
    *out = g;
    return 0;
}

uint16_t gateway_port(const struct gateway *g) {
    return http_port(g->http, 0);
}

bool gateway_loopback(const struct gateway *g) {
    return http_loopback(g->http, 0) && (g->options.admin_host == NULL || http_loopback(g->http, 1));
}

int gateway_run(struct gateway *g, struct error *e) {
    return http_loop(g->http, e);
}

void gateway_drain(struct gateway *g) {
    atomic_fetch_add(&g->drains, 1);
    http_wake(g->http);
}

void gateway_bell_ring(void *bell) {
    struct gateway_bell *b = bell;
    pthread_mutex_lock(&b->lock);
    if (b->gateway != NULL) {
        atomic_store(&b->gateway->durable, true);
        http_wake(b->gateway->http);
    }
    pthread_mutex_unlock(&b->lock);
}

void gateway_bell_set(struct gateway_bell *b, struct gateway *g) {
    pthread_mutex_lock(&b->lock);
    b->gateway = g;
    pthread_mutex_unlock(&b->lock);
}

void gateway_free(struct gateway *g) {
    if (g == NULL)
        return;
    if (g->http != NULL)
        read_letters(g);
    worker_stop(g->worker); /* they wake the loop, so they end first */
    worker_stop(g->clerk);
    http_free(g->http); /* closes every exchange */
    worker_free(g->worker);
    once_free_all(g);
    worker_free(g->clerk);
    metrics_free(&g->metrics);
    inbox_free(&g->inbox);
    free(g);
}
