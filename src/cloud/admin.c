/* The operations behind the commands and the admin API, whoever asks: a command by itself, a command through the server's control socket, or the gateway. Here are
 * those on tenants, keys and prices, and how any of them is run. */
#include "cloud/bill/party.h"
#include "cloud/operation.h"
#include "cloud/report.h"

#include "base/clock.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

/* ---- arguments ---- */

struct str args_text(const struct json *args, const char *name) {
    return json_as_str(json_get(args, name));
}

bool args_name(struct str s, size_t most) {
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < 'a' || s.p[i] > 'z') && (s.p[i] < 'A' || s.p[i] > 'Z') &&
            (s.p[i] < '0' || s.p[i] > '9') && (s.p[i] == 0 || strchr("._-:/@", s.p[i]) == NULL))
            return false;
    return s.n > 0 && s.n < most;
}

int args_tenant(struct cloud *c, const struct json *args, const char *name, struct tenant **out,
                struct error *e) {
    return memory_need_tenant(c, args_text(args, name), name, out, e);
}

static struct str next_word(struct str *text, char separator) {
    size_t n = 0;
    while (n < text->n && text->p[n] != separator)
        n++;
    struct str word = {text->p, n};
    n += n < text->n;
    *text = (struct str){text->p + n, text->n - n};
    return word;
}

int args_list(const struct json *v, const char *name, bool numbers, struct buf *array, struct error *e) {
    struct str text = json_as_str(v);
    bool first = true;
    buf_byte(array, '[');
    for (size_t i = 0; json_kind(v) == JSON_KIND_ARRAY && i < json_count(v); i++) {
        const struct json *item = json_at(v, i);
        if (json_kind(item) != (numbers ? JSON_KIND_INT : JSON_KIND_STRING))
            return error_param(e, ERR_INVALID, name, "%s wants a list of %s", name,
                               numbers ? "whole numbers" : "texts");
        buf_text(array, i > 0 ? "," : "");
        json_write(array, item);
    }
    while (text.n > 0) {
        struct str word = next_word(&text, ',');
        buf_text(array, first ? "" : ",");
        first = false;
        for (size_t i = 0; numbers && i < word.n; i++)
            if (word.p[i] < '0' || word.p[i] > '9' || i > 2 || word.p[0] == '0')
                return error_param(e, ERR_INVALID, name, "%s wants whole numbers, like 80,100", name);
        if (word.n == 0)
            return error_param(e, ERR_INVALID, name, "%s has an empty item", name);
        if (numbers)
            buf_str(array, word);
        else
            json_write_str(array, word);
    }
    buf_byte(array, ']');
    return array->failed ? error_set(e, ERR_NO_MEMORY, "no memory for a list") : 0;
}

struct args_page args_page(const struct json *args) {
    struct args_page page = {json_as_int(json_get(args, "after")), json_as_int(json_get(args, "limit"))};
    if (page.limit <= 0)
        page.limit = INT32_MAX;
    return page;
}

/* ---- answers ---- */

void answer_money(struct buf *out, const char *name, int64_t value, int digits) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, digits);
    buf_byte(out, '"');
}

void answer_text(struct buf *out, const char *name, struct str value) {
    buf_printf(out, ",\"%s\":", name);
    json_write_str(out, value);
}

static void write_tenant(struct cloud *c, struct buf *out, const struct tenant *t) {
    pthread_mutex_lock(&c->lock);
    amount balance = t->balance, held = t->held, line = t->line;
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld", (long long)t->id);
    answer_text(out, "name", str_from(t->name));
    buf_printf(out, ",\"created\":%lld,\"archived\":%lld,\"currency\":\"%s\"",
               (long long)(t->created / 1000000000), (long long)(t->archived / 1000000000), t->currency);
    answer_money(out, "balance", balance, AMOUNT_DIGITS);
    answer_money(out, "held", held, AMOUNT_DIGITS);
    answer_money(out, "line", line, AMOUNT_DIGITS);
    answer_money(out, "available", balance - held + line, AMOUNT_DIGITS);
    buf_printf(out, ",\"postpaid\":%s,\"closed\":%s}", line > 0 ? "true" : "false",
               t->closed ? "true" : "false");
}

/* ---- tenants ---- */

enum { PAYMENT_BYTES = 100 };
#define TENANT_NAME_RULE "a tenant's name is 1 to %d letters, digits and . _ - : / @"

int tenant_fund(struct cloud *c, struct tenant *tenant, struct transfer *t, struct error *e) {
    char funding[32];
    bool again;
    if (t->value > INT64_MAX / 4 || tenant->balance > INT64_MAX / 4)
        return error_param(e, ERR_INVALID, "amount", "the credit is too large");
    snprintf(funding, sizeof funding, "funding:%s", tenant->currency);
    t->credit = tenant->account;
    int rc = ledger_account(&c->ledger, funding, tenant->currency, &t->debit, e);
    if (rc != 0 || (rc = ledger_transfer(&c->ledger, t, &again, e)) != 0 || again)
        return rc;
    pthread_mutex_lock(&c->lock);
    tenant->balance += t->value;
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static int add_credit(struct cloud *c, struct tenant *t, amount value, const char *id, struct error *e) {
    struct transfer transfer = {
        .id = str_from(id), .kind = STR("credit"), .value = value, .at = clock_wall_ns()};
    return tenant_fund(c, t, &transfer, e);
}

/* How far below zero a tenant may go: nothing for one that pays in advance. */
static int read_line(amount *line, const struct json *args, struct error *e) {
    struct str text = args_text(args, "line");
    bool postpaid = json_as_bool(json_get(args, "postpaid")) || str_is(args_text(args, "postpaid"), "yes");
    *line = 0;
    int rc = text.n > 0 ? money_parse(line, text, AMOUNT_DIGITS, e) : 0;
    if (rc == 0 && *line > INT64_MAX / 4)
        return error_param(e, ERR_INVALID, "line", "the credit line is too large");
    return rc != 0 || !postpaid || *line > 0
               ? rc
               : error_param(e, ERR_INVALID, "line",
                             "a tenant that pays later has a credit line: --line AMOUNT");
}

static int tenant_create(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str name = args_text(args, "name"), currency = args_text(args, "currency"),
               credit = args_text(args, "credit");
    struct tenant t = {.max_concurrent = 256, .created = clock_wall_ns()};
    struct query *q;
    amount value = 0;
    char account[TENANT_NAME_BYTES + 16], opening[40];
    if (!args_name(name, TENANT_NAME_BYTES))
        return error_param(e, ERR_INVALID, "name", TENANT_NAME_RULE, TENANT_NAME_BYTES - 1);
    if (!money_currency(currency))
        return error_param(e, ERR_INVALID, "currency", "a currency is three capital letters, like JPY");
    if (memory_tenant(c, name) != NULL)
        return error_param(e, ERR_CONFLICT, "name", "there is a tenant %.*s already", (int)name.n, name.p);
    int rc = credit.n > 0 ? money_parse(&value, credit, AMOUNT_DIGITS, e) : 0;
    if (rc != 0 || (rc = read_line(&t.line, args, e)) != 0)
        return rc;
    memcpy(t.name, name.p, name.n);
    memcpy(t.currency, currency.p, 3);
    snprintf(account, sizeof account, "tenant:%s", t.name);
    if ((rc = ledger_account(&c->ledger, account, t.currency, &t.account, e)) != 0 ||
        (rc = ledger_limit(&c->ledger, t.account, ACCOUNT_NO_OVERDRAFT, t.line, e)) != 0 ||
        (rc = store_query(c->store, &q,
                          "INSERT INTO tenant (name, currency, account, max_concurrent, created)"
                          " VALUES ($1, $2, $3, $4, $5) RETURNING id",
                          e)) != 0)
        return rc;
    query_text(q, 1, name);
    query_text(q, 2, currency);
    query_int(q, 3, t.account);
    query_int(q, 4, t.max_concurrent);
    query_int(q, 5, t.created);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the tenant got no number");
    t.id = query_column_int(q, 0);
    snprintf(opening, sizeof opening, "opening:%lld", (long long)t.id);
    if ((rc = query_run(q, e)) != 0 || (value > 0 && (rc = add_credit(c, &t, value, opening, e)) != 0))
        return rc;
    pthread_mutex_lock(&c->lock);
    rc = memory_add_tenant(c, &t, e);
    pthread_mutex_unlock(&c->lock);
    if (rc == 0)
        rc = shared_changed(c, &t, e);
    if (rc == 0)
        write_tenant(c, out, &t);
    return rc;
}

/* Its credit line: another one, or none. */
static int tenant_set(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    amount line;
    int rc = args_tenant(c, args, "name", &t, e);
    if (rc != 0 || (rc = read_line(&line, args, e)) != 0)
        return rc;
    if (args_text(args, "line").n == 0)
        return error_param(e, ERR_INVALID, "line", "say the new credit line: --line AMOUNT, 0 for none");
    pthread_mutex_lock(&c->lock);
    bool used = (money_wide)t->balance - t->held + line < 0;
    pthread_mutex_unlock(&c->lock);
    if (used)
        return error_param(e, ERR_CONFLICT, "line", "the tenant has used more than that already");
    if ((rc = ledger_limit(&c->ledger, t->account, ACCOUNT_NO_OVERDRAFT | (t->closed ? ACCOUNT_CLOSED : 0),
                           line, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    t->line = line;
    pthread_mutex_unlock(&c->lock);
    write_tenant(c, out, t);
    return 0;
}

static int tenant_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    int rc = args_tenant(c, args, "name", &t, e);
    if (rc == 0)
        write_tenant(c, out, t);
    return rc;
}

/* The newest first. */
static int tenant_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct args_page page = args_page(args);
    bool all = json_kind(json_get(args, "archived")) != JSON_KIND_FALSE;
    size_t start = out->n;
    buf_byte(out, '[');
    for (const struct tenant *t = c->tenants; t != NULL && page.limit > 0; t = t->next) {
        if ((page.after != 0 && t->id >= page.after) || (t->archived != 0 && !all))
            continue;
        if (out->n > start + 1)
            buf_byte(out, ',');
        write_tenant(c, out, t);
        page.limit--;
    }
    buf_byte(out, ']');
    return 0;
}

/* The account carries the tenant's name, for people; the books know both by number. */
static int rename_tenant(struct cloud *c, struct tenant *t, struct str name, struct error *e) {
    char account[TENANT_NAME_BYTES + 16];
    struct query *q;
    const struct tenant *other = memory_tenant(c, name);
    if (!args_name(name, TENANT_NAME_BYTES))
        return error_param(e, ERR_INVALID, "to", TENANT_NAME_RULE, TENANT_NAME_BYTES - 1);
    if (other == t)
        return 0;
    if (other != NULL)
        return error_param(e, ERR_CONFLICT, "to", "there is a tenant %.*s already", (int)name.n, name.p);
    snprintf(account, sizeof account, "tenant:%.*s", (int)name.n, name.p);
    int rc = store_query(c->store, &q, "UPDATE account SET name = $2 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, t->account);
    query_text(q, 2, str_from(account));
    if ((rc = query_run(q, e)) != 0 ||
        (rc = store_query(c->store, &q, "UPDATE tenant SET name = $2 WHERE id = $1", e)) != 0)
        return rc;
    query_int(q, 1, t->id);
    query_text(q, 2, name);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    memset(t->name, 0, sizeof t->name);
    memcpy(t->name, name.p, name.n);
    pthread_mutex_unlock(&c->lock);
    return 0;
}

static int tenant_rename(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    int rc = args_tenant(c, args, "name", &t, e);
    if (rc == 0 && t->archived != 0)
        return error_param(e, ERR_CONFLICT, "name", "the tenant %s is archived", t->name);
    if (rc == 0)
        rc = rename_tenant(c, t, args_text(args, "to"), e);
    if (rc == 0)
        rc = shared_changed(c, t, e);
    if (rc == 0)
        write_tenant(c, out, t);
    return rc;
}

/* Its keys stop working; its account and what it did stay. Again changes nothing. */
static int tenant_archive(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    struct query *q;
    int64_t now = clock_wall_ns();
    int rc = args_tenant(c, args, "name", &t, e);
    if (rc == 0 && t->archived == 0) {
        if ((rc = store_query(c->store, &q, "UPDATE tenant SET archived = $2 WHERE id = $1", e)) != 0)
            return rc;
        query_int(q, 1, t->id);
        query_int(q, 2, now);
        if ((rc = query_run(q, e)) != 0)
            return rc;
        pthread_mutex_lock(&c->lock);
        t->archived = now;
        pthread_mutex_unlock(&c->lock);
        rc = shared_changed(c, t, e);
    }
    if (rc == 0)
        write_tenant(c, out, t);
    return rc;
}

int args_payment(char *id, size_t size, const char *prefix, int64_t tenant, const struct json *payment,
                 struct error *e) {
    struct str name = json_as_str(payment);
    unsigned char own[12];
    if (payment != NULL && (name.n == 0 || name.n > PAYMENT_BYTES || memchr(name.p, 0, name.n) != NULL))
        return error_param(e, ERR_INVALID, "payment", "a payment's name has 1 to %d bytes", PAYMENT_BYTES);
    int n = snprintf(id, size, "%s:%lld:%.*s", prefix, (long long)tenant, (int)name.n, name.p);
    random_bytes(own, sizeof own);
    for (size_t i = 0; i < sizeof own && payment == NULL; i++)
        n += snprintf(id + n, size - (size_t)n, "%02x", own[i]);
    return 0;
}

static int tenant_credit(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    amount value;
    char id[PAYMENT_BYTES + 32];
    int rc = args_tenant(c, args, "name", &t, e);
    if (rc != 0 || (rc = money_parse(&value, args_text(args, "amount"), AMOUNT_DIGITS, e)) != 0 ||
        (rc = args_payment(id, sizeof id, "credit", t->id, json_get(args, "payment"), e)) != 0)
        return rc;
    rc = add_credit(c, t, value, id, e);
    if (rc == 0)
        write_tenant(c, out, t);
    return rc;
}

/* ---- keys ---- */

void key_make(char text[KEY_TEXT_BYTES], const char *prefix) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char byte[HASH_BYTES + 1] = {0};
    random_bytes(byte, HASH_BYTES);
    char *to = stpcpy(text, prefix);
    for (int bit = 0; bit < 8 * HASH_BYTES; bit += 6) {
        unsigned pair = (unsigned)byte[bit / 8] << 8 | byte[bit / 8 + 1];
        *to++ = digit[pair >> (10 - bit % 8) & 63];
    }
    *to = 0;
}

static int key_create(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct key k = {0};
    struct query *q;
    struct str name = args_text(args, "name");
    int64_t now = clock_wall_ns();
    char text[KEY_TEXT_BYTES];
    int rc = args_tenant(c, args, "tenant", &k.tenant, e);
    if (rc != 0)
        return rc;
    if (k.tenant->archived != 0)
        return error_param(e, ERR_CONFLICT, "tenant", "the tenant %s is archived", k.tenant->name);
    key_make(text, "uk-");
    k.hash = hash_hmac((struct str){(const char *)c->secret.byte, sizeof c->secret.byte}, str_from(text));
    rc = store_query(
        c->store, &q,
        "INSERT INTO key (tenant, name, hash, created, revoked) VALUES ($1, $2, $3, $4, 0) RETURNING id", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, k.tenant->id);
    query_text(q, 2, name);
    query_blob(q, 3, (struct str){(const char *)k.hash.byte, sizeof k.hash.byte});
    query_int(q, 4, now);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the key got no number");
    k.id = query_column_int(q, 0);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    rc = memory_add_key(c, &k, e);
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld,\"created\":%lld", (long long)k.id, (long long)(now / 1000000000));
    answer_text(out, "tenant", str_from(k.tenant->name));
    answer_text(out, "name", name);
    answer_text(out, "key", str_from(text));
    buf_byte(out, '}');
    return rc != 0 ? rc : shared_changed(c, k.tenant, e);
}

/* Of one tenant if it is named, one key if id is not 0, and without the revoked ones if "revoked" is false. */
static int list_keys(struct cloud *c, const struct json *args, int64_t id, struct buf *out, int *rows,
                     struct error *e) {
    struct args_page page = args_page(id == 0 ? args : NULL);
    struct query *q;
    int rc = store_query(
        c->store, &q,
        "SELECT k.id, t.name, k.name, k.created, k.revoked FROM key k JOIN tenant t ON t.id = k.tenant"
        " WHERE ($1 = '' OR t.name = $1) AND ($2 = 0 OR k.id = $2) AND k.id > $3"
        " AND (k.revoked = 0 OR $4 = 1) ORDER BY k.id LIMIT $5",
        e);
    if (rc != 0)
        return rc;
    query_text(q, 1, args_text(args, "tenant"));
    query_int(q, 2, id);
    query_int(q, 3, page.after);
    query_int(q, 4, json_kind(json_get(args, "revoked")) != JSON_KIND_FALSE);
    query_int(q, 5, page.limit);
    for (*rows = 0; (rc = query_step(q, e)) > 0; ++*rows) {
        buf_printf(out, "%s{\"id\":%lld", *rows > 0 ? "," : "", (long long)query_column_int(q, 0));
        answer_text(out, "tenant", query_column_text(q, 1));
        answer_text(out, "name", query_column_text(q, 2));
        buf_printf(out, ",\"created\":%lld,\"revoked\":%s}", (long long)(query_column_int(q, 3) / 1000000000),
                   query_column_int(q, 4) ? "true" : "false");
    }
    return rc;
}

static int key_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    int rows;
    buf_byte(out, '[');
    int rc = list_keys(c, args, 0, out, &rows, e);
    buf_byte(out, ']');
    return rc;
}

static int no_key(const struct json *args, struct error *e) {
    return error_param(e, ERR_NOT_FOUND, "id", "there is no key %lld; see unkai key list",
                       (long long)json_as_int(json_get(args, "id")));
}

/* With "tenant": of that one alone. */
static int key_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    int rows;
    int64_t id = json_as_int(json_get(args, "id"));
    int rc = id > 0 ? list_keys(c, args, id, out, &rows, e) : no_key(args, e);
    return rc == 0 && rows == 0 ? no_key(args, e) : rc;
}

static struct key *find_key(struct cloud *c, int64_t id, struct str tenant) {
    struct key *k = memory_key(c, id);
    return k != NULL && (tenant.n == 0 || str_is(tenant, k->tenant->name)) ? k : NULL;
}

static int key_revoke(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    struct key *k = find_key(c, json_as_int(json_get(args, "id")), args_text(args, "tenant"));
    if (k == NULL)
        return no_key(args, e);
    int rc = store_query(c->store, &q, "UPDATE key SET revoked = $2 WHERE id = $1 AND revoked = 0", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, k->id);
    query_int(q, 2, clock_wall_ns());
    if ((rc = query_run(q, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    k->revoked = true;
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld,\"revoked\":true}", (long long)k->id);
    return shared_changed(c, k->tenant, e);
}

/* ---- the table ---- */

static const struct operation_row admin_operations[] = {
    {"tenant.create", tenant_create},
    {"tenant.set", tenant_set},
    {"tenant.show", tenant_show, OPERATION_READS},
    {"tenant.list", tenant_list, OPERATION_READS},
    {"tenant.rename", tenant_rename},
    {"tenant.archive", tenant_archive},
    {"tenant.credit", tenant_credit},
    {"key.create", key_create},
    {"key.show", key_show, OPERATION_READS},
    {"key.list", key_list, OPERATION_READS},
    {"key.revoke", key_revoke},
    {"usage", report_usage, OPERATION_READS},
    {NULL},
};

static const struct operation_row *tables[20] = {
    admin_operations,   access_operations, bucket_operations, ledger_operations, limit_operations,
    webhook_operations, backup_operations, shared_operations, close_operations,  invoice_operations,
    payment_operations, party_operations,  price_operations,  focus_operations,  events_operations,
};

void admin_add(const struct operation_row *rows) {
    size_t i = 0;
    while (tables[i] != NULL && tables[i] != rows)
        i++;
    tables[i] = rows;
}

const struct operation_row *admin_find(struct str name) {
    for (size_t i = 0; tables[i] != NULL; i++)
        for (const struct operation_row *row = tables[i]; row->name != NULL; row++)
            if (str_is(name, row->name))
                return row;
    return NULL;
}

bool access_knows(const char *operation) {
    return admin_find(str_from(operation)) != NULL;
}

struct run {
    const struct operation_row *operation;
    const struct actor *who;
    const struct json *request;
    struct buf *out;
    const char *outcome;
};

static bool changes(const struct run *r) {
    const char *by = r->operation->changes_by;
    return r->operation->kind == OPERATION_CHANGES && (by == NULL || json_get(r->request, by) != NULL);
}

static int run_check(struct cloud *c, void *context, struct error *e) {
    struct run *r = context;
    return access_check(c, r->who, e);
}

static int run_operation(struct cloud *c, void *context, struct error *e) {
    struct run *r = context;
    int rc = access_check(c, r->who, e);
    if (rc == 0)
        rc = r->operation->run(c, r->request, r->out, e);
    /* The operation has changed memory. When its change cannot be written down, it cannot stay, so the books stop. */
    if (rc == 0 && changes(r) && access_audit(c, r->who, r->request, r->outcome, e) != 0)
        rc = e->code = ERR_IO;
    return rc;
}

static int run_audit(struct cloud *c, void *context, struct error *e) {
    struct run *r = context;
    return access_audit(c, r->who, r->request, r->outcome, e);
}

/* In a transaction of its own: that of the change was rolled back. */
static void audit_refusal(struct cloud *c, struct run *r, const char *why) {
    struct error e;
    r->outcome = why;
    if (journal_call(c, run_audit, r, &e) != 0)
        log_warn("a refused %s is not in the audit log: %s", r->operation->name, e.text);
}

int access_run(struct cloud *c, const struct actor *who, const struct json *request, struct buf *out,
               struct error *e) {
    struct run r = {admin_find(args_text(request, "op")), who, request, out};
    struct error why = {0};
    if (r.operation == NULL)
        return error_set(e, ERR_UNSUPPORTED,
                         "this server does not know the operation; is it of another version?");
    size_t start = out->n;
    bool takes = r.operation->kind == OPERATION_TAKES_LONG,
         aside = takes || r.operation->kind == OPERATION_READS_LONG, audited = takes || changes(&r);
    r.outcome = "ok";
    int rc = aside || r.operation->kind == OPERATION_READS
                 ? journal_call_harmless(c, aside ? run_check : run_operation, &r, &why)
                 : journal_call(c, run_operation, &r, &why);
    if (rc == 0 && aside)
        rc = r.operation->run(c, request, out, &why);
    if (rc == 0 && takes)
        rc = journal_call(c, run_audit, &r, &why);
    if (rc == 0 && out->failed)
        rc = error_set(&why, ERR_NO_MEMORY, "no memory for the answer");
    else if (rc != 0 && audited)
        audit_refusal(c, &r, why.text);
    if (rc != 0)
        out->n = start;
    if (rc != 0 && e != NULL)
        *e = why;
    return rc;
}

void access_refused(struct cloud *c, const struct actor *who, const struct json *request) {
    struct run r = {admin_find(args_text(request, "op")), who, request};
    if (r.operation != NULL)
        audit_refusal(c, &r, "the key's role does not allow this");
}

int admin_run(struct cloud *c, const struct json *request, struct buf *out, struct error *e) {
    static const struct actor command = {.role = ROLE_OWNER};
    return access_run(c, &command, request, out, e);
}
