/* The mirror of the books that requests look into: tenants, keys, prices. Read at the start, changed under the lock with every change of the books. */
#include "cloud/inner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void memory_copy_text(char *to, size_t size, struct str from) {
    size_t n = from.n < size ? from.n : size - 1;
    memcpy(to, from.p, n);
    to[n] = 0;
}

static struct key **bucket_of(struct cloud *c, const struct hash *hash) {
    return &c->keys[(hash->byte[0] | hash->byte[1] << 8) % (sizeof c->keys / sizeof *c->keys)];
}

struct tenant *memory_tenant(struct cloud *c, struct str name) {
    struct tenant *t = c->tenants;
    while (t != NULL && !str_is(name, t->name))
        t = t->next;
    return t;
}

int memory_need_tenant(struct cloud *c, struct str name, const char *argument, struct tenant **out,
                       struct error *e) {
    *out = memory_tenant(c, name);
    return *out != NULL
               ? 0
               : error_param(e, ERR_NOT_FOUND, argument, "there is no tenant '%.*s'; see unkai tenant list",
                             (int)(name.n < 60 ? name.n : 60), name.p);
}

static struct tenant **tenant_bucket(struct cloud *c, int64_t id) {
    return &c->numbered_tenants[(uint64_t)id % (sizeof c->numbered_tenants / sizeof *c->numbered_tenants)];
}

struct tenant *memory_tenant_of(struct cloud *c, int64_t id) {
    struct tenant *t = *tenant_bucket(c, id);
    while (t != NULL && t->id != id)
        t = t->next_numbered;
    return t;
}

int memory_add_tenant(struct cloud *c, const struct tenant *t, struct error *e) {
    struct tenant *copy = malloc(sizeof *copy), **bucket = tenant_bucket(c, t->id);
    if (copy == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a tenant");
    *copy = *t;
    copy->next = c->tenants;
    c->tenants = copy;
    copy->next_numbered = *bucket;
    *bucket = copy;
    return 0;
}

int memory_add_key(struct cloud *c, const struct key *k, struct error *e) {
    struct key *copy = malloc(sizeof *copy), **bucket = bucket_of(c, &k->hash);
    if (copy == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a key");
    *copy = *k;
    copy->next = *bucket;
    *bucket = copy;
    bucket = &c->numbered[(uint64_t)k->id % (sizeof c->numbered / sizeof *c->numbered)];
    copy->next_numbered = *bucket;
    *bucket = copy;
    return 0;
}

struct key *memory_key(struct cloud *c, int64_t id) {
    struct key *k = c->numbered[(uint64_t)id % (sizeof c->numbered / sizeof *c->numbered)];
    while (k != NULL && k->id != id)
        k = k->next_numbered;
    return k;
}

struct key *memory_key_of(struct cloud *c, const struct tenant *t, int64_t id) {
    struct key *k = memory_key(c, id);
    return k != NULL && k->tenant == t ? k : NULL;
}

/* A tenant as its row says; its balance is the account's, which another hand reads. */
static int set_tenant(struct cloud *c, const struct tenant *t, struct error *e) {
    struct tenant *known = memory_tenant_of(c, t->id);
    if (known == NULL)
        return memory_add_tenant(c, t, e);
    memcpy(known->name, t->name, sizeof known->name);
    known->archived = t->archived;
    return 0;
}

static int load_tenants(struct cloud *c, int64_t since, struct error *e) {
    struct query *q;
    int rc =
        store_query(c->store, &q,
                    "SELECT t.id, t.account, t.name, t.currency, t.max_concurrent, a.balance, a.remainder,"
                    " a.pending_debit, a.line, a.flags, t.created, t.archived"
                    " FROM tenant t JOIN account a ON a.id = t.account WHERE t.turn > $1 ORDER BY t.id",
                    e);
    if (rc == 0)
        query_int(q, 1, since);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct tenant t = {.id = query_column_int(q, 0),
                           .account = query_column_int(q, 1),
                           .max_concurrent = query_column_int(q, 4),
                           .balance = query_column_int(q, 5),
                           .remainder = query_column_int(q, 6),
                           .held = query_column_int(q, 7),
                           .line = query_column_int(q, 8),
                           .closed = (query_column_int(q, 9) & ACCOUNT_CLOSED) != 0,
                           .created = query_column_int(q, 10),
                           .archived = query_column_int(q, 11)};
        memory_copy_text(t.name, sizeof t.name, query_column_text(q, 2));
        memory_copy_text(t.currency, sizeof t.currency, query_column_text(q, 3));
        pthread_mutex_lock(&c->lock);
        rc = set_tenant(c, &t, e);
        pthread_mutex_unlock(&c->lock);
    }
    return rc;
}

static int set_key(struct cloud *c, const struct key *k, struct error *e) {
    struct key *known = memory_key(c, k->id);
    if (known == NULL)
        return memory_add_key(c, k, e);
    known->revoked = k->revoked;
    known->expires = k->expires;
    return 0;
}

static int load_keys(struct cloud *c, int64_t since, struct error *e) {
    struct query *q;
    int rc = store_query(c->store, &q,
                         "SELECT k.id, k.tenant, k.hash, k.revoked, k.expires FROM key k"
                         " JOIN tenant t ON t.id = k.tenant WHERE t.turn > $1 ORDER BY k.id",
                         e);
    if (rc == 0)
        query_int(q, 1, since);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct key k = {.id = query_column_int(q, 0),
                        .tenant = memory_tenant_of(c, query_column_int(q, 1)),
                        .revoked = query_column_int(q, 3) != 0,
                        .expires = query_column_int(q, 4)};
        struct str hash = query_column_text(q, 2);
        if (k.tenant == NULL || hash.n != sizeof k.hash)
            return error_set(e, ERR_CORRUPT, "key %lld of the books is damaged", (long long)k.id);
        memcpy(&k.hash, hash.p, sizeof k.hash);
        pthread_mutex_lock(&c->lock);
        rc = set_key(c, &k, e);
        pthread_mutex_unlock(&c->lock);
    }
    return rc;
}

int memory_load_changed(struct cloud *c, int64_t since, struct error *e) {
    int rc = load_tenants(c, since, e);
    return rc != 0 ? rc : load_keys(c, since, e);
}

void memory_free(struct cloud *c) {
    for (struct tenant *t = c->tenants, *next; t != NULL; t = next) {
        next = t->next;
        limits_free(&t->limited.limits);
        free(t);
    }
    for (size_t i = 0; i < sizeof c->keys / sizeof *c->keys; i++)
        for (struct key *k = c->keys[i], *next; k != NULL; k = next) {
            next = k->next;
            limits_free(&k->limited.limits);
            free(k);
        }
    price_free(c);
}
