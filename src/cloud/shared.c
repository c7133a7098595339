/* Several nodes on the same books. Whatever changes them is one turn: a transaction that has the books' head first, so that turns come one behind the other, and in which
 * a node reads what others' turns have changed before it decides anything. So a tenant's credit and limits hold across all of them; what a request asks for is decided by the
 * writer, not where it is asked. A node says every second that it is there; one that is silent for long is settled by another, and if it comes back it is told so
 * (the fence) and charges nothing twice. On the yen's journey: beside the ledger. */
#include "cloud/operation.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const int64_t second = 1000000000;
enum { SILENT_S = 900 }; /* longer than most times that a database is away */

/* Another node, and since when by our clock it has said nothing new. */
struct neighbour {
    char name[NODE_NAME_BYTES];
    int64_t said, since;
    bool there;
    struct neighbour *next;
};

struct shared {
    char node[NODE_NAME_BYTES];
    int64_t started;            /* as our row says */
    bool joining;               /* this row is not committed yet */
    int64_t turn, prices, rest; /* up to which the mirror is whole */
    int64_t fence;              /* rises when another node has settled what we had open */
    int64_t next_tick;          /* on the monotonic clock */
    struct neighbour *neighbours;
};

/* ---- who we are ---- */

/* A name of the data folder's own, made at the first start: the machine's, and chance. */
static int read_name(struct cloud *c, char name[NODE_NAME_BYTES], struct error *e) {
    char path[4200], host[40] = "node";
    uint32_t chance;
    snprintf(path, sizeof path, "%s/node", c->folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, name, NODE_NAME_BYTES - 1);
    if (fd >= 0)
        close(fd);
    if (fd < 0 && errno == ENOENT) {
        gethostname(host, sizeof host - 1);
        random_bytes(&chance, sizeof chance);
        n = snprintf(name, NODE_NAME_BYTES, "%s-%08x", host, chance);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, name, (size_t)n) != n || fsync(fd) != 0)
            n = 0;
        if (fd >= 0)
            close(fd);
    }
    name[n > 0 ? n : 0] = 0;
    return n > 0 ? 0 : error_set(e, ERR_IO, "%.300s: %s", path, strerror(errno));
}

/* A lock of the session, which ends with it; a server that was killed has it for a moment still. A data folder that was copied whole has the name, too. */
static int hold_name(struct cloud *c, int tries, struct error *e) {
    struct query *q;
    bool held = false;
    int rc = 0;
    for (int i = 0; i < tries && rc == 0 && !held; i++) {
        if (i > 0)
            usleep(100000);
        if ((rc = store_query(c->store, &q, "SELECT pg_try_advisory_lock(1970169699, hashtext($1))", e)) != 0)
            return rc;
        query_text(q, 1, str_from(c->shared->node));
        if ((rc = query_step(q, e)) < 0)
            return rc;
        held = rc > 0 && query_column_int(q, 0) != 0;
        rc = query_run(q, e);
    }
    return rc != 0 || held
               ? rc
               : error_set(e, ERR_CONFLICT,
                           "another node runs under the name %s: if this data folder was copied from "
                           "there, remove the file 'node' from it",
                           c->shared->node);
}

int shared_create(struct cloud *c, struct error *e) {
    struct shared *s = c->shared = calloc(1, sizeof *s);
    if (s == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the books");
    s->turn = -1;
    c->silence = SILENT_S * second;
    c->ledger.shared = true;
    int rc = read_name(c, s->node, e);
    return rc != 0 ? rc : hold_name(c, 30, e);
}

const char *shared_node(const struct cloud *c) {
    return c->shared != NULL ? c->shared->node : "";
}

int64_t shared_fence(const struct cloud *c) {
    return c->shared != NULL ? c->shared->fence : 0;
}

/* Keys work here only with the secret that they were made with. */
static int check_seal(struct cloud *c, struct error *e) {
    struct query *q;
    struct hash seal =
        hash_hmac((struct str){(const char *)c->secret.byte, sizeof c->secret.byte}, STR("unkai books"));
    int rc = store_query(c->store, &q, "SELECT seal FROM book WHERE id = 1", e);
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    struct str known = query_column_text(q, 0);
    bool none = known.n == 0, same = known.n == sizeof seal && memcmp(known.p, &seal, sizeof seal) == 0;
    if ((rc = query_run(q, e)) != 0 || same)
        return rc;
    if (!none)
        return error_set(
            e, ERR_DENIED,
            "the keys in these books were made with another secret: copy the file 'secret' from the "
            "data folder of a node that has them to %.200s",
            c->folder);
    if ((rc = store_query(c->store, &q, "UPDATE book SET seal = $1 WHERE id = 1", e)) != 0)
        return rc;
    query_blob(q, 1, (struct str){(const char *)seal.byte, sizeof seal});
    return query_run(q, e);
}

static int write_node(struct cloud *c, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "INSERT INTO node (name, seen, started) VALUES ($1, $2, $2) ON CONFLICT (name) DO"
                         " UPDATE SET seen = excluded.seen, started = excluded.started",
                         e);
    if (rc != 0)
        return rc;
    c->shared->started = clock_wall_ns();
    c->shared->joining = true;
    query_text(q, 1, str_from(c->shared->node));
    query_int(q, 2, c->shared->started);
    return query_run(q, e);
}

int shared_join(struct cloud *c, struct error *e) {
    struct query *q;
    if (c->shared == NULL) { /* what nodes have kept there is of another time */
        int rc = store_query(c->store, &q, "DELETE FROM used", e);
        return rc != 0 ? rc : query_run(q, e);
    }
    int rc = check_seal(c, e);
    if (rc != 0 || (rc = limit_load_used(c, -1, e)) != 0)
        return rc;
    c->shared->prices = c->ledger.prices;
    c->shared->rest = c->ledger.rest;
    return write_node(c, e);
}

void shared_leave(struct cloud *c) {
    struct query *q;
    if (c->shared == NULL)
        return;
    if (c->shared->started != 0 && ledger_begin(&c->ledger, NULL) == 0) {
        if (store_query(c->store, &q, "DELETE FROM node WHERE name = $1", NULL) == 0) {
            query_text(q, 1, str_from(c->shared->node));
            query_run(q, NULL);
        }
        if (ledger_commit(&c->ledger, NULL) != 0) /* the next start says so again */
            ledger_rollback(&c->ledger);
    }
    for (struct neighbour *n = c->shared->neighbours, *next; n != NULL; n = next) {
        next = n->next;
        free(n);
    }
    free(c->shared);
    c->shared = NULL;
}

/* ---- what others have changed ---- */

/* Has another node taken us for dead, and settled what we had open? */
static int check_fence(struct cloud *c, struct error *e) {
    struct shared *s = c->shared;
    struct query *q;
    int rc = store_query(c->store, &q, "SELECT started FROM node WHERE name = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(s->node));
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool ours = rc > 0 && query_column_int(q, 0) == s->started;
    if ((rc = query_run(q, e)) != 0 || ours)
        return rc;
    log_warn("another node has taken this one for dead and settled what it had open; those requests go on "
             "and are charged for nothing more");
    pthread_mutex_lock(&c->lock);
    s->fence++;
    pthread_mutex_unlock(&c->lock);
    return write_node(c, e);
}

static int read_accounts(struct cloud *c, int64_t since, struct error *e) {
    struct query *q;
    int rc =
        store_query(c->store, &q,
                    "SELECT t.id, a.balance, a.remainder, a.pending_debit, a.line, a.flags FROM account a"
                    " JOIN tenant t ON t.account = a.id WHERE a.turn > $1",
                    e);
    if (rc != 0)
        return rc;
    query_int(q, 1, since);
    while ((rc = query_step(q, e)) > 0) {
        struct tenant *t = memory_tenant_of(c, query_column_int(q, 0));
        if (t == NULL)
            continue;
        pthread_mutex_lock(&c->lock);
        t->balance = query_column_int(q, 1);
        t->remainder = query_column_int(q, 2);
        t->held = query_column_int(q, 3);
        t->line = query_column_int(q, 4);
        t->closed = (query_column_int(q, 5) & ACCOUNT_CLOSED) != 0;
        pthread_mutex_unlock(&c->lock);
    }
    return rc;
}

static int read_rest(struct cloud *c, int64_t since, struct error *e) {
    int rc = memory_load_changed(c, since, e);
    if (rc == 0)
        rc = limit_load_changed(c, since, e);
    return rc != 0 ? rc : access_load(c, e);
}

int shared_refresh(struct cloud *c, struct error *e) {
    struct shared *s = c->shared;
    const struct ledger *l = &c->ledger;
    if (s == NULL || s->turn < 0)
        return 0;
    int rc = s->joining ? write_node(c, e) : 0; /* the transaction that did was not to be */
    if (rc != 0 || l->turn == s->turn + 1)
        return rc;
    if ((s->joining || (rc = check_fence(c, e)) == 0) && l->rest != s->rest)
        rc = read_rest(c, s->turn, e);
    if (rc == 0 && l->prices != s->prices)
        rc = price_load(c, e);
    if (rc == 0 && (rc = read_accounts(c, s->turn, e)) == 0)
        rc = limit_load_used(c, s->turn, e);
    if (rc != 0)
        return rc;
    s->turn = l->turn - 1;
    s->rest = l->rest;
    s->prices = l->prices;
    return 0;
}

void shared_committed(struct cloud *c) {
    if (c->shared == NULL)
        return;
    c->shared->turn = c->ledger.turn;
    c->shared->joining = false;
}

/* ---- what we change ---- */

int shared_changed(struct cloud *c, const struct tenant *t, struct error *e) {
    struct query *q;
    int rc;
    if (c->shared == NULL)
        return 0;
    if (t != NULL) {
        if ((rc = store_query(c->store, &q, "UPDATE tenant SET turn = $2 WHERE id = $1", e)) != 0)
            return rc;
        query_int(q, 1, t->id);
        query_int(q, 2, c->ledger.turn);
        if ((rc = query_run(q, e)) != 0)
            return rc;
    }
    rc = store_query(c->store, &q, "UPDATE book SET rest = turn WHERE id = 1", e);
    return rc != 0 ? rc : query_run(q, e);
}

int shared_changed_prices(struct cloud *c, struct error *e) {
    struct query *q;
    if (c->shared == NULL)
        return 0;
    int rc = store_query(c->store, &q, "UPDATE book SET prices = turn WHERE id = 1", e);
    return rc != 0 ? rc : query_run(q, e);
}

/* ---- every second ---- */

bool shared_due(const struct cloud *c) {
    return c->shared != NULL && clock_mono_ns() >= c->shared->next_tick;
}

static struct neighbour *find_neighbour(struct shared *s, struct str name) {
    struct neighbour *n = s->neighbours;
    while (n != NULL && !str_is(name, n->name))
        n = n->next;
    if (n == NULL && name.n < NODE_NAME_BYTES && (n = calloc(1, sizeof *n)) != NULL) {
        memcpy(n->name, name.p, name.n);
        n->next = s->neighbours;
        s->neighbours = n;
    }
    return n;
}

static int look_around(struct cloud *c, struct error *e) {
    struct shared *s = c->shared;
    struct query *q;
    for (struct neighbour *n = s->neighbours; n != NULL; n = n->next)
        n->there = false;
    int rc = store_query(c->store, &q, "SELECT name, seen FROM node WHERE name <> $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(s->node));
    while ((rc = query_step(q, e)) > 0) {
        struct neighbour *n = find_neighbour(s, query_column_text(q, 0));
        if (n == NULL)
            continue;
        if (n->said != query_column_int(q, 1))
            n->since = clock_mono_ns();
        n->said = query_column_int(q, 1);
        n->there = true;
    }
    for (struct neighbour **link = &s->neighbours, *n; (n = *link) != NULL;) {
        if (n->there) {
            link = &n->next;
            continue;
        }
        *link = n->next;
        free(n);
    }
    return rc;
}

int shared_settle_node(struct cloud *c, const char *name, struct error *e) {
    struct query *q;
    int n = 0, rc = recover_requests(c, name, "", &n, e);
    if (rc != 0 || (rc = store_query(c->store, &q, "DELETE FROM node WHERE name = $1", e)) != 0)
        return rc;
    query_text(q, 1, str_from(name));
    log_warn("the node %s is gone: %d requests that it had open are settled for what was sent", name, n);
    return query_run(q, e);
}

int shared_tick(struct cloud *c, struct error *e) {
    struct shared *s = c->shared;
    struct query *q;
    s->next_tick = clock_mono_ns() + second;
    int rc = store_query(c->store, &q, "UPDATE node SET seen = $2 WHERE name = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(s->node));
    query_int(q, 2, clock_wall_ns());
    if ((rc = query_run(q, e)) != 0 || (rc = look_around(c, e)) != 0)
        return rc;
    for (struct neighbour *n = s->neighbours; n != NULL && rc == 0; n = n->next)
        if (clock_mono_ns() - n->since >= c->silence)
            rc = shared_settle_node(c, n->name, e);
    return rc;
}

void shared_was_away(struct cloud *c) {
    struct error e = {0};
    if (c->shared != NULL && hold_name(c, 1, &e) != 0)
        log_warn("%s", e.text);
    for (struct neighbour *n = c->shared != NULL ? c->shared->neighbours : NULL; n != NULL; n = n->next)
        n->since = clock_mono_ns(); /* others may not have found the database again yet */
}

/* ---- operations ---- */

static int node_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    int64_t now = clock_wall_ns();
    int rc = store_query(c->store, &q,
                         "SELECT n.name, n.started, n.seen, (SELECT count(*) FROM request r"
                         " WHERE r.state = 'open' AND r.node = n.name) FROM node n ORDER BY n.name",
                         e);
    if (rc != 0)
        return rc;
    buf_byte(out, '[');
    for (bool first = true; (rc = query_step(q, e)) > 0; first = false) {
        int64_t silent = (now - query_column_int(q, 2)) / second;
        buf_text(out, first ? "{\"name\":" : ",{\"name\":");
        json_write_str(out, query_column_text(q, 0));
        buf_printf(out, ",\"started\":%lld,\"silent_seconds\":%lld,\"open_requests\":%lld,\"this\":%s}",
                   (long long)(query_column_int(q, 1) / second), (long long)(silent > 0 ? silent : 0),
                   (long long)query_column_int(q, 3),
                   str_is(query_column_text(q, 0), shared_node(c)) ? "true" : "false");
    }
    buf_byte(out, ']');
    return rc;
}

static int node_remove(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = args_text(args, "name");
    struct query *q;
    char text[NODE_NAME_BYTES] = {0};
    int rc = store_query(c->store, &q, "SELECT 1 FROM node WHERE name = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, name);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool known = rc > 0 && name.n < sizeof text;
    if ((rc = query_run(q, e)) != 0)
        return rc;
    if (!known || str_is(name, shared_node(c)))
        return error_param(e, known ? ERR_CONFLICT : ERR_NOT_FOUND, "name",
                           known ? "this is the node that runs here; stop it instead"
                                 : "there is no node of that name; see unkai node list");
    memcpy(text, name.p, name.n);
    if ((rc = shared_settle_node(c, text, e)) == 0) {
        buf_text(out, "{\"name\":");
        json_write_text(out, text);
        buf_text(out, ",\"removed\":true}");
    }
    return rc;
}

const struct operation_row shared_operations[] = {
    {"node.list", node_list, OPERATION_READS},
    {"node.remove", node_remove},
    {NULL},
};
