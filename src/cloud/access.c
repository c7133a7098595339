/* Who may administer the cloud, and what they did; see access.h. The keys are mirrored in memory, so that a stranger's guess never reaches the database; what a key may
 * is asked of the database again in the transaction that uses it. */
#include "cloud/operation.h"

#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ADMIN_NAME_BYTES = 256,
    MOST_REQUEST = 4096,
    MOST_AUDIT = 100,
    MOST_KEY_SECONDS = 366 * 86400,
    SECOND = 1000000000
};

struct admin_key {
    struct hash hash;
    int64_t id, expires; /* 0: never */
    enum role role;
    char name[ADMIN_NAME_BYTES];
    bool revoked;
    struct seen seen;
    struct admin_key *next; /* newest first */
};

struct access {
    struct hash secret; /* of the hashes of admin keys alone */
    struct admin_key *keys;
};

/* ---- roles ---- */

static const struct {
    enum role role;
    const char *name;
} roles[] = {{ROLE_OWNER, "owner"},
             {ROLE_OPERATOR, "operator"},
             {ROLE_BILLING, "billing"},
             {ROLE_READER, "read-only"}};

const char *role_name(enum role role) {
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (roles[i].role == role)
            return roles[i].name;
    return "nobody";
}

enum role role_named(struct str name) {
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (str_is(name, roles[i].name))
            return roles[i].role;
    return ROLE_NOBODY;
}

/* ---- the mirror ---- */

static void free_keys(struct admin_key *k) {
    for (struct admin_key *next; k != NULL; k = next) {
        next = k->next;
        free(k);
    }
}

static int read_keys(struct cloud *c, struct admin_key **keys, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "SELECT id, name, role, hash, expires, revoked FROM admin_key ORDER BY id", e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct str name = query_column_text(q, 1), hash = query_column_text(q, 3);
        struct admin_key *k = calloc(1, sizeof *k);
        if (k == NULL || name.n >= sizeof k->name || hash.n != sizeof k->hash) {
            free(k);
            return error_set(e, ERR_CORRUPT, "an admin key of the books is damaged");
        }
        k->id = query_column_int(q, 0);
        k->role = role_named(query_column_text(q, 2));
        k->expires = query_column_int(q, 4);
        k->revoked = query_column_int(q, 5) != 0;
        memcpy(k->name, name.p, name.n);
        memcpy(&k->hash, hash.p, sizeof k->hash);
        k->next = *keys;
        *keys = k;
        rc = 0;
    }
    return rc;
}

int access_load(struct cloud *c, struct error *e) {
    struct admin_key *keys = NULL, *old;
    if (c->access == NULL && (c->access = calloc(1, sizeof *c->access)) == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the admin keys");
    int rc = read_keys(c, &keys, e);
    if (rc != 0) {
        free_keys(keys);
        return rc;
    }
    /* A secret for each purpose, as the one block of HKDF-Expand (RFC 5869): a tenant's key hashes to nothing that is known here, nor the other way round. */
    c->access->secret = hash_hmac((struct str){(const char *)c->secret.byte, sizeof c->secret.byte},
                                  STR("unkai admin keys\x01"));
    pthread_mutex_lock(&c->lock);
    old = c->access->keys;
    c->access->keys = keys;
    pthread_mutex_unlock(&c->lock);
    free_keys(old);
    return 0;
}

void access_free(struct cloud *c) {
    if (c->access != NULL)
        free_keys(c->access->keys);
    free(c->access);
}

static struct hash hash_of(const struct cloud *c, struct str token) {
    return hash_hmac((struct str){(const char *)c->access->secret.byte, sizeof c->access->secret.byte},
                     token);
}

static bool is_valid(const struct admin_key *k, int64_t now) {
    return !k->revoked && (k->expires == 0 || now < k->expires);
}

int access_authenticate(struct cloud *c, struct str token, const struct address *from, struct actor *out,
                        struct error *e) {
    /* Hashes are compared, not tokens: how long that takes tells nothing about a key. */
    struct hash hash = hash_of(c, token.n <= 256 ? token : STR(""));
    struct seen *seen = NULL;
    int64_t now = clock_wall_ns();
    *out = (struct actor){0};
    pthread_mutex_lock(&c->lock);
    for (struct admin_key *k = c->access->keys; k != NULL; k = k->next)
        if (hash_equal(&k->hash, &hash) && is_valid(k, now)) {
            *out = (struct actor){k->id, k->role};
            seen = &k->seen;
        }
    int rc = cloud_admit_attempt(c, seen, from, e);
    pthread_mutex_unlock(&c->lock);
    return rc;
}

bool access_open(struct cloud *c) {
    int64_t now = clock_wall_ns();
    bool open = false;
    pthread_mutex_lock(&c->lock);
    for (const struct admin_key *k = c->access->keys; k != NULL && !open; k = k->next)
        open = is_valid(k, now);
    pthread_mutex_unlock(&c->lock);
    return open;
}

bool access_tenant_name(struct cloud *c, int64_t tenant, struct buf *name) {
    pthread_mutex_lock(&c->lock);
    const struct tenant *t = memory_tenant_of(c, tenant);
    if (t != NULL)
        buf_text(name, t->name);
    pthread_mutex_unlock(&c->lock);
    return t != NULL;
}

/* ---- in the transaction ---- */

int access_check(struct cloud *c, const struct actor *who, struct error *e) {
    struct query *q;
    if (who->key == 0)
        return 0;
    int rc = store_query(
        c->store, &q,
        "SELECT role FROM admin_key WHERE id = $1 AND revoked = 0 AND (expires = 0 OR expires > $2)", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, who->key);
    query_int(q, 2, clock_wall_ns());
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool same = rc > 0 && role_named(query_column_text(q, 0)) == who->role;
    rc = query_run(q, e);
    return rc == 0 && !same ? error_set(e, ERR_AUTH, "this admin key is no longer valid") : rc;
}

/* What a request asked for, without what it may have brought that is secret. */
static void write_request(struct buf *out, const struct json *request) {
    static const char *const secret[] = {"key", "password", "secret", "token"};
    size_t start = out->n;
    buf_byte(out, '{');
    for (void *it = json_first(request); it != NULL; it = json_next(request, it)) {
        bool hide = false;
        if (str_is(json_key(it), "op"))
            continue;
        for (size_t i = 0; i < sizeof secret / sizeof *secret; i++)
            hide = hide || (str_is(json_key(it), secret[i]) && json_kind(json_value(it)) == JSON_KIND_STRING);
        if (out->n > start + 1)
            buf_byte(out, ',');
        json_write_str(out, json_key(it));
        buf_byte(out, ':');
        if (hide)
            buf_text(out, "\"left out\"");
        else
            json_write(out, json_value(it));
    }
    buf_byte(out, '}');
    if (out->n - start > MOST_REQUEST) {
        size_t bytes = out->n - start;
        out->n = start;
        buf_printf(out, "{\"bytes\":%zu}", bytes);
    }
}

/* Whom or what it is about: the first of these arguments that is there. */
static void write_target(struct buf *out, const struct json *request) {
    static const char *const member[] = {"tenant",   "name",  "model", "number", "account",
                                         "transfer", "month", "file",  "id"};
    for (size_t i = 0; i < sizeof member / sizeof *member; i++) {
        const struct json *v = json_get(request, member[i]);
        struct str text = json_as_str(v);
        if (json_kind(v) == JSON_KIND_INT) {
            buf_printf(out, "%lld", (long long)json_as_int(v));
            return;
        }
        if (text.n > 0 && text.n <= 200 && memchr(text.p, 0, text.n) == NULL) {
            buf_str(out, text);
            return;
        }
    }
}

int access_audit(struct cloud *c, const struct actor *who, const struct json *request, const char *outcome,
                 struct error *e) {
    struct query *q;
    struct buf text = {0}, target = {0};
    char actor[32] = "command";
    if (who->key != 0)
        snprintf(actor, sizeof actor, "key:%lld", (long long)who->key);
    write_request(&text, request);
    write_target(&target, request);
    int rc = text.failed || target.failed
                 ? error_set(e, ERR_NO_MEMORY, "no memory for the audit log")
                 : store_query(c->store, &q,
                               "INSERT INTO audit (at, actor, role, operation, target, request, outcome)"
                               " VALUES ($1, $2, $3, $4, $5, $6, $7)",
                               e);
    if (rc == 0) {
        query_int(q, 1, clock_wall_ns());
        query_text(q, 2, str_from(actor));
        query_text(q, 3, str_from(role_name(who->role)));
        query_text(q, 4, args_text(request, "op"));
        query_text(q, 5, buf_view(&target));
        query_text(q, 6, buf_view(&text));
        query_text(q, 7, str_from(outcome));
        rc = query_run(q, e);
    }
    buf_free(&text);
    buf_free(&target);
    return rc;
}

/* ---- operations on admin keys ---- */

static void write_key(struct buf *out, const struct admin_key *k, int64_t created, const char *text) {
    buf_printf(out, "{\"id\":%lld", (long long)k->id);
    answer_text(out, "name", str_from(k->name));
    answer_text(out, "role", str_from(role_name(k->role)));
    buf_printf(out, ",\"created\":%lld,\"expires\":%lld,\"revoked\":%s", (long long)(created / SECOND),
               (long long)(k->expires / SECOND), k->revoked ? "true" : "false");
    if (text != NULL)
        answer_text(out, "key", str_from(text));
    buf_byte(out, '}');
}

static int parse_key(struct admin_key *k, const struct json *args, int64_t now, struct error *e) {
    struct str name = args_text(args, "name");
    const struct json *seconds = json_get(args, "expires_in");
    bool printable = name.n > 0 && name.n < sizeof k->name;
    for (size_t i = 0; printable && i < name.n; i++)
        printable = (unsigned char)name.p[i] >= ' ' && name.p[i] != 0x7f;
    if (!printable)
        return error_param(e, ERR_INVALID, "name", "an admin key's name has 1 to %d bytes",
                           ADMIN_NAME_BYTES - 1);
    k->role = role_named(args_text(args, "role"));
    if (k->role == ROLE_NOBODY)
        return error_param(e, ERR_INVALID, "role", "a role is one of owner, operator, billing, read-only");
    if (seconds != NULL && (json_as_int(seconds) < 1 || json_as_int(seconds) > MOST_KEY_SECONDS))
        return error_param(e, ERR_INVALID, "expires_in", "a key expires in 1 to %d seconds",
                           MOST_KEY_SECONDS);
    k->expires = seconds != NULL ? now + json_as_int(seconds) * SECOND : 0;
    memcpy(k->name, name.p, name.n);
    return 0;
}

static int insert_key(struct cloud *c, struct admin_key *k, int64_t now, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "INSERT INTO admin_key (name, role, hash, created, expires, revoked)"
                         " VALUES ($1, $2, $3, $4, $5, 0) RETURNING id",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(k->name));
    query_text(q, 2, str_from(role_name(k->role)));
    query_blob(q, 3, (struct str){(const char *)k->hash.byte, sizeof k->hash.byte});
    query_int(q, 4, now);
    query_int(q, 5, k->expires);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the key got no number");
    k->id = query_column_int(q, 0);
    return query_run(q, e);
}

static int admin_key_create(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    char text[KEY_TEXT_BYTES];
    int64_t now = clock_wall_ns();
    struct admin_key *k = calloc(1, sizeof *k);
    if (k == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a key");
    int rc = parse_key(k, args, now, e);
    if (rc == 0) {
        key_make(text, "uka-");
        k->hash = hash_of(c, str_from(text));
        rc = insert_key(c, k, now, e);
    }
    if (rc != 0) {
        free(k);
        return rc;
    }
    write_key(out, k, now, text);
    pthread_mutex_lock(&c->lock);
    k->next = c->access->keys;
    c->access->keys = k;
    pthread_mutex_unlock(&c->lock);
    return shared_changed(c, NULL, e);
}

/* One key, or with id 0 a page of those that are not revoked, the oldest first. */
static int list_keys(struct cloud *c, int64_t id, struct args_page page, struct buf *out, int *rows,
                     struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "SELECT id, name, role, created, expires, revoked FROM admin_key"
                         " WHERE ($1 = 0 OR id = $1) AND id > $2 AND revoked = 0 ORDER BY id LIMIT $3",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, id);
    query_int(q, 2, page.after);
    query_int(q, 3, page.limit);
    for (*rows = 0; (rc = query_step(q, e)) > 0; ++*rows) {
        struct admin_key k = {.id = query_column_int(q, 0),
                              .role = role_named(query_column_text(q, 2)),
                              .expires = query_column_int(q, 4),
                              .revoked = query_column_int(q, 5) != 0};
        struct str name = query_column_text(q, 1);
        snprintf(k.name, sizeof k.name, "%.*s", (int)name.n, name.p);
        if (*rows > 0)
            buf_byte(out, ',');
        write_key(out, &k, query_column_int(q, 3), NULL);
    }
    return rc;
}

static int admin_key_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    int rows;
    buf_byte(out, '[');
    int rc = list_keys(c, 0, args_page(args), out, &rows, e);
    buf_byte(out, ']');
    return rc;
}

static int no_key(const struct json *args, struct error *e) {
    return error_param(e, ERR_NOT_FOUND, "id", "there is no admin key %lld; see unkai admin key list",
                       (long long)json_as_int(json_get(args, "id")));
}

static int admin_key_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    int rows = 0;
    int64_t id = json_as_int(json_get(args, "id"));
    int rc = id > 0 ? list_keys(c, id, args_page(NULL), out, &rows, e) : 0;
    return rc == 0 && rows == 0 ? no_key(args, e) : rc;
}

static int admin_key_revoke(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    int64_t id = json_as_int(json_get(args, "id"));
    struct admin_key *k = c->access->keys;
    while (k != NULL && (k->id != id || k->revoked))
        k = k->next;
    if (k == NULL)
        return no_key(args, e);
    int rc = store_query(c->store, &q, "UPDATE admin_key SET revoked = $2 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, id);
    query_int(q, 2, clock_wall_ns());
    if ((rc = query_run(q, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    k->revoked = true;
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld,\"revoked\":true}", (long long)id);
    return shared_changed(c, NULL, e);
}

/* ---- the audit log ---- */

static int64_t seconds(const struct json *args, const char *name, int64_t otherwise) {
    const struct json *v = json_get(args, name);
    int64_t t = json_as_int(v);
    if (json_kind(v) != JSON_KIND_INT)
        return otherwise;
    return t < 0 ? 0 : t > INT64_MAX / SECOND ? INT64_MAX : t * SECOND;
}

/* The name of the key behind "key:3"; the writer's thread alone adds to the list. */
static struct str actor_name(const struct cloud *c, struct str actor, int64_t *id) {
    *id = actor.n > 4 && actor.p[3] == ':' ? strtoll(actor.p + 4, NULL, 10) : 0;
    for (const struct admin_key *k = c->access->keys; k != NULL; k = k->next)
        if (k->id == *id)
            return str_from(k->name);
    return actor;
}

static void write_audit(struct cloud *c, struct buf *out, struct query *q) {
    int64_t key;
    struct str name = actor_name(c, query_column_text(q, 2), &key);
    buf_printf(out, "{\"id\":%lld,\"at\":%lld,\"key\":%lld", (long long)query_column_int(q, 0),
               (long long)(query_column_int(q, 1) / SECOND), (long long)key);
    answer_text(out, "actor", name);
    answer_text(out, "role", query_column_text(q, 3));
    answer_text(out, "operation", query_column_text(q, 4));
    answer_text(out, "target", query_column_text(q, 5));
    buf_text(out, ",\"request\":");
    buf_str(out, query_column_text(q, 6));
    answer_text(out, "outcome", query_column_text(q, 7));
    buf_byte(out, '}');
}

/* The newest first, MOST_AUDIT of them unless a limit is given; "from" and "to" are seconds since 1970, "to" itself is left out. */
static int admin_audit(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct args_page page = args_page(args);
    struct query *q;
    bool first = true;
    int rc =
        store_query(c->store, &q,
                    "SELECT seq, at, actor, role, operation, target, request, outcome FROM audit"
                    " WHERE ($1 = 0 OR seq < $1) AND at >= $2 AND at < $3 AND ($4 = '' OR operation = $4)"
                    " AND ($5 = '' OR target = $5) ORDER BY seq DESC LIMIT $6",
                    e);
    if (rc != 0)
        return rc;
    query_int(q, 1, page.after);
    query_int(q, 2, seconds(args, "from", 0));
    query_int(q, 3, seconds(args, "to", INT64_MAX));
    query_text(q, 4, args_text(args, "operation"));
    query_text(q, 5, args_text(args, "target"));
    query_int(q, 6, json_get(args, "limit") != NULL ? page.limit : MOST_AUDIT);
    buf_byte(out, '[');
    for (; (rc = query_step(q, e)) > 0; first = false) {
        if (!first)
            buf_byte(out, ',');
        write_audit(c, out, q);
    }
    buf_byte(out, ']');
    return rc;
}

const struct operation_row access_operations[] = {
    {"admin.key.create", admin_key_create},
    {"admin.key.list", admin_key_list, OPERATION_READS},
    {"admin.key.show", admin_key_show, OPERATION_READS},
    {"admin.key.revoke", admin_key_revoke},
    {"admin.audit", admin_audit, OPERATION_READS},
    {NULL},
};
