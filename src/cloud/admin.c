/* The operations behind the commands: each takes and gives JSON, runs on the writer's thread in a transaction of its own, and changes the mirror in memory with
 * the books. One table, whether the command runs them itself or asks the server over its control socket. */
#include "cloud/bill/party.h"
#include "cloud/inner.h"
#include "cloud/report.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

/* ---- arguments ---- */

static struct str text_of(const struct json *args, const char *name) {
    return json_as_str(json_get(args, name));
}

static bool is_name(struct str s, size_t most) {
    for (size_t i = 0; i < s.n; i++)
        if ((s.p[i] < 'a' || s.p[i] > 'z') && (s.p[i] < 'A' || s.p[i] > 'Z') &&
            (s.p[i] < '0' || s.p[i] > '9') && (s.p[i] == 0 || strchr("._-:/@", s.p[i]) == NULL))
            return false;
    return s.n > 0 && s.n < most;
}

static int need_tenant(struct cloud *c, const struct json *args, const char *name, struct tenant **out,
                       struct error *e) {
    struct str text = text_of(args, name);
    *out = memory_tenant(c, text);
    return *out != NULL
               ? 0
               : error_param(e, ERR_NOT_FOUND, name, "there is no tenant '%.*s'; see unkai tenant list",
                             (int)(text.n < 60 ? text.n : 60), text.p);
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

/* ---- answers ---- */

static void write_money(struct buf *out, const char *name, int64_t value, int digits) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, digits);
    buf_byte(out, '"');
}

static void write_tenant(struct cloud *c, struct buf *out, const struct tenant *t) {
    pthread_mutex_lock(&c->lock);
    amount balance = t->balance, held = t->held, line = t->line;
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld,\"name\":", (long long)t->id);
    json_write_text(out, t->name);
    buf_printf(out, ",\"currency\":\"%s\"", t->currency);
    write_money(out, "balance", balance, AMOUNT_DIGITS);
    write_money(out, "held", held, AMOUNT_DIGITS);
    write_money(out, "line", line, AMOUNT_DIGITS);
    write_money(out, "available", balance - held + line, AMOUNT_DIGITS);
    buf_printf(out, ",\"postpaid\":%s,\"closed\":%s}", line > 0 ? "true" : "false",
               t->closed ? "true" : "false");
}

/* ---- tenants ---- */

enum { PAYMENT_BYTES = 100 };

/* id: the transfer's; the same one again changes nothing. */
static int add_credit(struct cloud *c, struct tenant *t, amount value, const char *id, struct error *e) {
    char funding[32];
    bool again;
    struct transfer transfer = {.id = str_from(id),
                                .kind = STR("credit"),
                                .credit = t->account,
                                .value = value,
                                .at = clock_wall_ns()};
    if (value > INT64_MAX / 4 || t->balance > INT64_MAX / 4)
        return error_param(e, ERR_INVALID, "amount", "the credit is too large");
    snprintf(funding, sizeof funding, "funding:%s", t->currency);
    int rc = ledger_account(&c->ledger, funding, t->currency, &transfer.debit, e);
    if (rc != 0 || (rc = ledger_transfer(&c->ledger, &transfer, &again, e)) != 0 || again)
        return rc;
    pthread_mutex_lock(&c->lock);
    t->balance += value;
    pthread_mutex_unlock(&c->lock);
    return 0;
}

/* How far below zero a tenant may go: nothing for one that pays in advance. */
static int read_line(amount *line, const struct json *args, struct error *e) {
    struct str text = text_of(args, "line");
    bool postpaid = json_as_bool(json_get(args, "postpaid")) || str_is(text_of(args, "postpaid"), "yes");
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
    struct str name = text_of(args, "name"), currency = text_of(args, "currency"),
               credit = text_of(args, "credit");
    struct tenant t = {.max_concurrent = 256};
    struct query *q;
    amount value = 0;
    char account[TENANT_NAME_BYTES + 16], opening[40];
    if (!is_name(name, TENANT_NAME_BYTES))
        return error_param(e, ERR_INVALID, "name",
                           "a tenant's name is 1 to %d letters, digits and . _ - : / @",
                           TENANT_NAME_BYTES - 1);
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
    query_int(q, 5, clock_wall_ns());
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
        write_tenant(c, out, &t);
    return rc;
}

/* Its credit line: another one, or none. */
static int tenant_set(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    amount line;
    int rc = need_tenant(c, args, "name", &t, e);
    if (rc != 0 || (rc = read_line(&line, args, e)) != 0)
        return rc;
    if (text_of(args, "line").n == 0)
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
    int rc = need_tenant(c, args, "name", &t, e);
    if (rc == 0)
        write_tenant(c, out, t);
    return rc;
}

static int tenant_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    buf_byte(out, '[');
    for (const struct tenant *t = c->tenants; t != NULL; t = t->next) {
        if (t != c->tenants)
            buf_byte(out, ',');
        write_tenant(c, out, t);
    }
    buf_byte(out, ']');
    return 0;
}

/* The payment's name as its maker gave it, whole: two that were cut to the same would pay once. Without one it is a payment of its own. */
static int name_payment(char *id, size_t size, int64_t tenant, const struct json *payment, struct error *e) {
    struct str name = json_as_str(payment);
    unsigned char own[12];
    if (payment != NULL && (name.n == 0 || name.n > PAYMENT_BYTES || memchr(name.p, 0, name.n) != NULL))
        return error_param(e, ERR_INVALID, "payment", "a payment's name has 1 to %d bytes", PAYMENT_BYTES);
    int n = snprintf(id, size, "credit:%lld:%.*s", (long long)tenant, (int)name.n, name.p);
    random_bytes(own, sizeof own);
    for (size_t i = 0; i < sizeof own && payment == NULL; i++)
        n += snprintf(id + n, size - (size_t)n, "%02x", own[i]);
    return 0;
}

static int tenant_credit(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct tenant *t;
    amount value;
    char id[PAYMENT_BYTES + 32];
    int rc = need_tenant(c, args, "name", &t, e);
    if (rc != 0 || (rc = money_parse(&value, text_of(args, "amount"), AMOUNT_DIGITS, e)) != 0 ||
        (rc = name_payment(id, sizeof id, t->id, json_get(args, "payment"), e)) != 0)
        return rc;
    rc = add_credit(c, t, value, id, e);
    if (rc == 0)
        write_tenant(c, out, t);
    return rc;
}

/* ---- keys ---- */

enum { KEY_BYTES = 32, KEY_TEXT = 3 + 43 };

static void make_key(char text[KEY_TEXT + 1]) {
    static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    unsigned char byte[KEY_BYTES + 1] = {0};
    random_bytes(byte, KEY_BYTES);
    memcpy(text, "uk-", 3);
    for (int i = 0; i < 43; i++) {
        int bit = i * 6;
        unsigned pair = (unsigned)byte[bit / 8] << 8 | byte[bit / 8 + 1];
        text[3 + i] = digit[pair >> (10 - bit % 8) & 63];
    }
    text[KEY_TEXT] = 0;
}

static int key_create(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct key k = {0};
    struct query *q;
    char text[KEY_TEXT + 1];
    int rc = need_tenant(c, args, "tenant", &k.tenant, e);
    if (rc != 0)
        return rc;
    make_key(text);
    k.hash = hash_hmac((struct str){(const char *)c->secret.byte, sizeof c->secret.byte}, str_from(text));
    rc = store_query(
        c->store, &q,
        "INSERT INTO key (tenant, name, hash, created, revoked) VALUES ($1, $2, $3, $4, 0) RETURNING id", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, k.tenant->id);
    query_text(q, 2, text_of(args, "name"));
    query_blob(q, 3, (struct str){(const char *)k.hash.byte, sizeof k.hash.byte});
    query_int(q, 4, clock_wall_ns());
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the key got no number");
    k.id = query_column_int(q, 0);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    rc = memory_add_key(c, &k, e);
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld,\"tenant\":", (long long)k.id);
    json_write_text(out, k.tenant->name);
    buf_printf(out, ",\"key\":\"%s\"}", text);
    return rc;
}

static int key_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    struct str tenant = text_of(args, "tenant");
    bool first = true;
    int rc = store_query(
        c->store, &q,
        "SELECT k.id, t.name, k.name, k.created, k.revoked FROM key k JOIN tenant t ON t.id = k.tenant"
        " WHERE $1 = '' OR t.name = $1 ORDER BY k.id",
        e);
    if (rc != 0)
        return rc;
    query_text(q, 1, tenant);
    buf_byte(out, '[');
    while ((rc = query_step(q, e)) > 0) {
        buf_printf(out, "%s{\"id\":%lld,\"tenant\":", first ? "" : ",", (long long)query_column_int(q, 0));
        json_write_str(out, query_column_text(q, 1));
        buf_text(out, ",\"name\":");
        json_write_str(out, query_column_text(q, 2));
        buf_printf(out, ",\"created\":%lld,\"revoked\":%s}", (long long)(query_column_int(q, 3) / 1000000000),
                   query_column_int(q, 4) ? "true" : "false");
        first = false;
    }
    buf_byte(out, ']');
    return rc;
}

static int key_revoke(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    int64_t id = json_as_int(json_get(args, "id"));
    bool found = false;
    int rc = store_query(c->store, &q, "UPDATE key SET revoked = $2 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, id);
    query_int(q, 2, clock_wall_ns());
    if ((rc = query_run(q, e)) != 0)
        return rc;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < sizeof c->keys / sizeof *c->keys; i++)
        for (struct key *k = c->keys[i]; k != NULL; k = k->next)
            if (k->id == id)
                found = k->revoked = true;
    pthread_mutex_unlock(&c->lock);
    buf_printf(out, "{\"id\":%lld,\"revoked\":true}", (long long)id);
    return found ? 0
                 : error_param(e, ERR_NOT_FOUND, "id", "there is no key %lld; see unkai key list",
                               (long long)id);
}

/* ---- the table ---- */

static const struct operation_row operations[] = {
    {"tenant.create", tenant_create, false}, {"tenant.set", tenant_set, false},
    {"tenant.show", tenant_show, false},     {"tenant.list", tenant_list, false},
    {"tenant.credit", tenant_credit, false}, {"key.create", key_create, false},
    {"key.list", key_list, false},           {"key.revoke", key_revoke, false},
    {"usage", report_usage, false},          {NULL},
};

static const struct operation_row *tables[16] = {
    operations,
    ledger_operations,
    limit_operations,
    webhook_operations,
    backup_operations,
    close_operations,
    invoice_operations,
    party_operations,
    price_operations,
    focus_operations,
    events_operations,
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

struct operation {
    struct cloud *cloud;
    const struct json *args;
    struct buf *out;
    const struct operation_row *row;
};

static int run_operation(struct cloud *c, void *context, struct error *e) {
    struct operation *o = context;
    return o->row->run(c, o->args, o->out, e);
}

int admin_run(struct cloud *c, const struct json *request, struct buf *out, struct error *e) {
    struct operation o = {
        .cloud = c, .args = request, .out = out, .row = admin_find(json_as_str(json_get(request, "op")))};
    if (o.row == NULL)
        return error_set(e, ERR_UNSUPPORTED,
                         "this server does not know the operation; is it of another version?");
    size_t start = out->n;
    int rc = o.row->pieces ? o.row->run(c, request, out, e) : journal_call(c, run_operation, &o, e);
    if (rc == 0 && out->failed)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for the answer");
    if (rc != 0)
        out->n = start;
    return rc;
}
