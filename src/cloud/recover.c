/* Recovery: what a crash left open is settled for what its journal says was sent, through the same steps as a request that ends. */
#include "cloud/inner.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <stdlib.h>

static int read_open(struct cloud *c, struct query *q, struct hold **out, struct error *e) {
    struct str id = query_column_text(q, 0), model = query_column_text(q, 1), route = query_column_text(q, 2),
               node = query_column_text(q, 3);
    int64_t prompt = query_column_int(q, 9), most = query_column_int(q, 10), held = query_column_int(q, 11),
            sent = query_column_int(q, 12), cached = query_column_int(q, 13);
    struct hold *h = calloc(1, sizeof *h);
    *out = h;
    if (h == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a request");
    snprintf(h->id, sizeof h->id, "%.*s", (int)id.n, id.p);
    snprintf(h->model, sizeof h->model, "%.*s", (int)model.n, model.p);
    snprintf(h->route, sizeof h->route, "%.*s", (int)route.n, route.p);
    snprintf(h->node, sizeof h->node, "%.*s", (int)node.n, node.p);
    h->cloud = c;
    h->tenant = memory_tenant_of(c, query_column_int(q, 4));
    if (h->tenant == NULL || prompt < 0 || prompt > INT32_MAX || most < 0 || most > INT32_MAX || held < 0 ||
        sent < 0 || sent > most || cached < 0 || cached > prompt || !str_is(id, h->id) ||
        !str_is(model, h->model) || !str_is(route, h->route) || !str_is(node, h->node))
        return error_set(e, ERR_CORRUPT, "the request %s of the books is damaged", h->id);
    h->key = query_column_int(q, 5);
    h->limited_key = memory_key_of(c, h->tenant, h->key);
    h->price = query_column_int(q, 6);
    h->tariff = (struct tariff){.rate = query_column_int(q, 7),
                                .input = query_column_int(q, 14),
                                .cached = query_column_int(q, 15),
                                .output = query_column_int(q, 16)};
    h->at = query_column_int(q, 8);
    h->prompt = (uint64_t)prompt;
    h->most = (uint64_t)most;
    h->held = held;
    h->settlement = (struct settlement){
        .cached_tokens = (uint64_t)cached, .completion_tokens = (uint64_t)sent, .outcome = OUTCOME_FAILED};
    return 0;
}

static int check_unsettled(struct store *s, const struct hold *h, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT seq FROM transfer WHERE id = 'settle:' || $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(h->id));
    rc = query_step(q, e);
    return rc > 0 ? error_set(e, ERR_CORRUPT, "the request %s of the books is settled and open", h->id) : rc;
}

/* The first request that is open. 1: there was one. */
static int recover_one(struct cloud *c, const char *node, const char *wanted, struct error *e) {
    struct query *q;
    struct hold *h = NULL;
    int rc =
        store_query(c->store, &q,
                    "SELECT r.id, r.model, r.route, r.node, r.tenant, r.key, r.price, r.rate, r.at, "
                    "r.prompt, r.most, r.hold,"
                    " r.sent, r.cached, coalesce(p.input, 0), coalesce(p.cached, 0), coalesce(p.output, 0)"
                    " FROM request r LEFT JOIN price p ON p.id = r.price WHERE r.state = 'open'"
                    " AND ($1 = '*' OR r.node = $1) AND ($2 = '' OR r.id = $2) LIMIT 1",
                    e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(node != NULL ? node : "*"));
    query_text(q, 2, str_from(wanted));
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    if ((rc = read_open(c, q, &h, e)) == 0 && (rc = query_run(q, e)) == 0) {
        rc = check_unsettled(c->store, h, e);
        if (rc == 0)
            rc = settle_left_open(c, h, e);
        if (rc == 0)
            rc = answer_recover(c->store, str_from(h->id), h->settlement.completion_tokens > 0, e);
    }
    free(h);
    return rc != 0 ? rc : 1;
}

int recover_requests(struct cloud *c, const char *node, const char *id, int *n, struct error *e) {
    int rc;
    c->now = clock_wall_ns();
    while ((rc = recover_one(c, node, id, e)) > 0)
        ++*n;
    if (rc == ERR_CONFLICT) /* nobody else has the books open, as that would say to our caller */
        rc = e->code = ERR_CORRUPT;
    return rc;
}

int recover_open(struct cloud *c, struct error *e) {
    int n = 0, rc = journal_begin(c, e);
    if (rc != 0)
        return rc;
    if (c->shared == NULL)
        rc = recover_requests(c, NULL, "", &n, e);
    else if ((rc = recover_requests(c, shared_node(c), "", &n, e)) == 0)
        rc = recover_requests(c, "", "", &n, e); /* of before nodes had names */
    if (rc == 0)
        rc = journal_commit(c, e);
    if (rc != 0)
        journal_rollback(c);
    else if (n > 0)
        log_warn("%d requests were cut off by the last end of the server; each is settled for what was sent",
                 n);
    return rc;
}
