/* The operations on the ledger: transfers between named accounts, in one phase or two; reversals; accounts and what they come to. The books in memory follow: a tenant's
 * credit is what its account says. */
#include "cloud/operation.h"
#include "cloud/report.h"

#include "base/clock.h"

#include <stdio.h>
#include <string.h>

enum { CALLER_ID_BYTES = 100, NOTE_BYTES = 500 };

static int need_text(struct str *out, const struct json *args, const char *name, size_t most,
                     struct error *e) {
    *out = args_text(args, name);
    if (out->n > 0 && out->n <= most && memchr(out->p, 0, out->n) == NULL)
        return 0;
    return error_param(e, ERR_INVALID, name, "%s: a text of 1 to %zu bytes is wanted", name, most);
}

/* ---- the mirror ---- */

static struct tenant *tenant_of(struct cloud *c, int64_t account) {
    struct tenant *t = c->tenants;
    while (t != NULL && t->account != account)
        t = t->next;
    return t;
}

/* Memory knows of holds and charges that are not written yet, so for a tenant it decides whether there is enough, and sets it aside at once. */
static int mirror(struct cloud *c, int64_t account, const struct movement *m, bool check, struct error *e) {
    struct tenant *t = tenant_of(c, account);
    if (t == NULL)
        return 0;
    pthread_mutex_lock(&c->lock);
    money_wide left = (money_wide)t->balance + t->line - t->held + m->balance - m->pending_debit;
    bool fits = !check || left >= 0;
    if (fits) {
        t->balance += m->balance;
        t->held += m->pending_debit;
    }
    pthread_mutex_unlock(&c->lock);
    return fits ? 0 : error_set(e, ERR_CREDIT, "the tenant %s has too little left", t->name);
}

static struct movement opposite(const struct movement *m) {
    return (struct movement){-m->balance, -m->pending_debit, -m->pending_credit};
}

/* ---- one transfer ---- */

static void write_done(struct buf *out, const struct transfer *t, bool again) {
    buf_text(out, "{\"id\":");
    json_write_str(out, t->id);
    report_money(out, "amount", t->value);
    buf_printf(out, ",\"again\":%s}", again ? "true" : "false");
}

/* Move it, in the books and in memory. expires: of a pending one. */
static int move(struct cloud *c, struct transfer *t, int64_t expires, struct buf *out, struct error *e) {
    bool pending = t->phase == PHASE_PENDING, again = false;
    struct movement debit = pending ? (struct movement){.pending_debit = t->value}
                                    : (struct movement){.balance = -t->value},
                    back = opposite(&debit);
    t->covered = tenant_of(c, t->debit) != NULL;
    /* The same transfer again needs nothing, so that there is too little for it matters only when it is new. */
    struct error little = {0};
    int short_of = mirror(c, t->debit, &debit, true, &little);
    int rc =
        pending ? pending_make(&c->ledger, t, expires, &again, e) : ledger_transfer(&c->ledger, t, &again, e);
    if (short_of == 0 && (rc != 0 || again))
        mirror(c, t->debit, &back, false, NULL);
    if (rc == 0 && !again && short_of != 0) {
        *e = little;
        rc = short_of;
    }
    if (rc == 0 && !again && !pending)
        rc = mirror(c, t->credit, &(struct movement){.balance = t->value}, false, e);
    if (rc == 0 && pending)
        journal_expire_at(c, expires);
    if (rc == 0)
        write_done(out, t, again);
    return rc;
}

/* "transfer:" and the caller's name for it, so that no name of a caller's is ever one of ours. Without one it is a transfer of its own. */
static int name_transfer(char id[TRANSFER_ID_BYTES], const struct json *args, struct error *e) {
    struct str name = STR("");
    unsigned char own[12];
    bool given = json_get(args, "transfer") != NULL;
    int rc = given ? need_text(&name, args, "transfer", CALLER_ID_BYTES, e) : 0;
    int n = snprintf(id, TRANSFER_ID_BYTES, "transfer:%.*s", (int)name.n, name.p);
    random_bytes(own, sizeof own);
    for (size_t i = 0; i < sizeof own && !given; i++)
        n += snprintf(id + n, TRANSFER_ID_BYTES - (size_t)n, "%02x", own[i]);
    return rc;
}

static int read_expiry(int64_t *expires, const struct json *v, int64_t now, struct error *e) {
    int64_t wait = json_as_int(v);
    struct str seconds = json_as_str(v);
    int rc = seconds.n > 0 ? money_parse(&wait, seconds, 0, e) : 0;
    *expires = 0;
    if (rc == 0 && v != NULL &&
        (wait <= 0 || __builtin_mul_overflow(wait, INT64_C(1000000000), expires) ||
         __builtin_add_overflow(*expires, now, expires)))
        return error_param(e, ERR_INVALID, "expires", "a pending transfer expires after a number of seconds");
    return rc;
}

static int ledger_op_transfer(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    char id[TRANSFER_ID_BYTES];
    struct account debit, credit;
    int64_t expires;
    bool pending = json_as_bool(json_get(args, "pending")) || json_get(args, "expires") != NULL;
    struct transfer t = {.kind = STR("transfer"),
                         .at = clock_wall_ns(),
                         .phase = pending ? PHASE_PENDING : PHASE_SINGLE,
                         .note = args_text(args, "note")};
    int rc = name_transfer(id, args, e);
    if (rc != 0 || (rc = ledger_find(&c->ledger, args_text(args, "debit"), &debit, e)) != 0 ||
        (rc = ledger_find(&c->ledger, args_text(args, "credit"), &credit, e)) != 0 ||
        (rc = money_parse(&t.value, args_text(args, "amount"), AMOUNT_DIGITS, e)) != 0 ||
        (rc = read_expiry(&expires, json_get(args, "expires"), t.at, e)) != 0)
        return rc;
    if (t.value == 0)
        return error_param(e, ERR_INVALID, "amount", "a transfer moves more than nothing");
    if (t.note.n > NOTE_BYTES)
        return error_param(e, ERR_INVALID, "note", "a note has up to %d bytes", NOTE_BYTES);
    t.id = str_from(id);
    t.debit = debit.id;
    t.credit = credit.id;
    return move(c, &t, expires, out, e);
}

/* ---- the second phase ---- */

static const struct {
    enum transfer_phase phase;
    const char *kind;
} ending[] = {{PHASE_POST, "post"}, {PHASE_VOID, "void"}, {PHASE_EXPIRED, "expire"}};

static int end_pending(struct cloud *c, struct str about, enum transfer_phase phase, struct str value,
                       struct buf *out, struct error *e) {
    char id[TRANSFER_ID_BYTES + 16];
    struct pending p;
    bool again;
    const char *kind = ending[phase - PHASE_POST].kind;
    int rc = pending_find(&c->ledger, about, &p, e);
    if (rc != 0)
        return rc;
    struct transfer t = {.kind = str_from(kind),
                         .debit = p.debit,
                         .credit = p.credit,
                         .value = p.value,
                         .at = clock_wall_ns(),
                         .phase = phase,
                         .about = about};
    snprintf(id, sizeof id, "%s:%.*s", kind, (int)about.n, about.p);
    t.id = str_from(id);
    if ((value.n > 0 && (rc = money_parse(&t.value, value, AMOUNT_DIGITS, e)) != 0) ||
        (rc = pending_end(&c->ledger, &p, &t, &again, e)) != 0)
        return rc;
    amount posted = phase == PHASE_POST ? t.value : 0;
    if (!again) {
        mirror(c, p.debit, &(struct movement){.balance = -posted, .pending_debit = -p.value}, false, NULL);
        mirror(c, p.credit, &(struct movement){.balance = posted}, false, NULL);
    }
    write_done(out, &t, again);
    return 0;
}

static int ledger_op_post(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    return end_pending(c, args_text(args, "transfer"), PHASE_POST, args_text(args, "amount"), out, e);
}

static int ledger_op_void(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    return end_pending(c, args_text(args, "transfer"), PHASE_VOID, STR(""), out, e);
}

int ledger_expire(struct cloud *c, int64_t now, int64_t *next, struct error *e) {
    char id[TRANSFER_ID_BYTES];
    struct buf out = {0};
    int rc = 0, n = 0;
    while (rc == 0 && (rc = pending_next(&c->ledger, next, id, sizeof id, e)) == 0 && *next <= now &&
           n++ < 1000)
        rc = end_pending(c, str_from(id), PHASE_EXPIRED, STR(""), &out, e);
    buf_free(&out);
    return rc;
}

/* ---- corrections ---- */

static int ledger_op_reverse(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    char id[TRANSFER_ID_BYTES + 16];
    struct query *q;
    struct str about = args_text(args, "transfer");
    struct transfer t = {.kind = STR("reverse"), .at = clock_wall_ns(), .about = about};
    int rc = need_text(&t.note, args, "reason", NOTE_BYTES, e);
    if (rc != 0 ||
        (rc = store_query(c->store, &q,
                          "SELECT credit, debit, amount, phase, kind FROM transfer WHERE id = $1", e)) != 0)
        return rc;
    query_text(q, 1, about);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool found = rc > 0;
    int64_t phase = query_column_int(q, 3);
    bool reversal = str_is(query_column_text(q, 4), "reverse");
    t.debit = query_column_int(q, 0);
    t.credit = query_column_int(q, 1);
    t.value = query_column_int(q, 2);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    if (!found || about.n >= TRANSFER_ID_BYTES)
        return error_param(e, ERR_NOT_FOUND, "transfer", "there is no transfer %.*s; see unkai ledger list",
                           (int)(about.n < 100 ? about.n : 100), about.p);
    if (reversal || (phase != PHASE_SINGLE && phase != PHASE_POST))
        return error_param(e, ERR_CONFLICT, "transfer",
                           reversal ? "a reversal stays: make the transfer anew"
                                    : "that transfer moved nothing: void it while it is pending");
    snprintf(id, sizeof id, "reverse:%.*s", (int)about.n, about.p);
    t.id = str_from(id);
    return move(c, &t, 0, out, e);
}

/* ---- accounts ---- */

static void write_account(struct buf *out, const struct account *a) {
    buf_text(out, "{\"name\":");
    json_write_text(out, a->name);
    buf_printf(out, ",\"currency\":\"%s\"", a->currency);
    report_money(out, "balance", a->now.balance);
    report_money(out, "pending_debit", a->now.pending_debit);
    report_money(out, "pending_credit", a->now.pending_credit);
    report_money(out, "line", a->line);
    buf_printf(out, ",\"overdraft\":%s,\"closed\":%s}", a->flags & ACCOUNT_NO_OVERDRAFT ? "false" : "true",
               a->flags & ACCOUNT_CLOSED ? "true" : "false");
}

/* A switch: absent leaves as it is. */
static int read_switch(const struct json *args, const char *name, const char *const word[2], int64_t flag,
                       int64_t *flags, struct error *e) {
    struct str text = args_text(args, name);
    if (text.n == 0)
        return 0;
    if (!str_is(text, word[0]) && !str_is(text, word[1]))
        return error_param(e, ERR_INVALID, name, "%s is %s or %s", name, word[0], word[1]);
    *flags = str_is(text, word[1]) ? *flags | flag : *flags & ~flag;
    return 0;
}

/* Make an account, or change what it may do. */
static int ledger_op_account(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    static const char *const overdraft[2] = {"yes", "no"}, *const closed[2] = {"no", "yes"};
    struct str name, currency = args_text(args, "currency"), line = args_text(args, "line");
    struct account a;
    char text[ACCOUNT_NAME_BYTES], money[4] = "";
    int rc = need_text(&name, args, "account", sizeof text - 1, e);
    if (rc != 0)
        return rc;
    snprintf(text, sizeof text, "%.*s", (int)name.n, name.p);
    if (currency.n > 0) {
        if (!money_currency(currency))
            return error_param(e, ERR_INVALID, "currency", "a currency is three capital letters, like JPY");
        if (str_starts(name, STR("tenant:")))
            return error_param(e, ERR_INVALID, "account",
                               "a tenant's account is made with it; see unkai tenant create");
        memcpy(money, currency.p, 3);
        if ((rc = ledger_account(&c->ledger, text, money, &(int64_t){0}, e)) != 0)
            return rc;
    }
    if ((rc = ledger_find(&c->ledger, name, &a, e)) != 0 ||
        (rc = read_switch(args, "overdraft", overdraft, ACCOUNT_NO_OVERDRAFT, &a.flags, e)) != 0 ||
        (rc = read_switch(args, "closed", closed, ACCOUNT_CLOSED, &a.flags, e)) != 0 ||
        (line.n > 0 && (rc = money_parse(&a.line, line, AMOUNT_DIGITS, e)) != 0))
        return rc;
    struct tenant *t = tenant_of(c, a.id);
    if (t != NULL && (line.n > 0 || args_text(args, "overdraft").n > 0))
        return error_param(e, ERR_INVALID, "account", "a tenant's credit line is set with unkai tenant set");
    if ((a.flags & ACCOUNT_NO_OVERDRAFT) && (money_wide)a.now.balance + a.line < a.now.pending_debit &&
        t == NULL)
        return error_param(e, ERR_INVALID, "account", "the account is below that already");
    if ((rc = ledger_limit(&c->ledger, a.id, a.flags, a.line, e)) != 0)
        return rc;
    if (t != NULL) {
        pthread_mutex_lock(&c->lock);
        t->closed = (a.flags & ACCOUNT_CLOSED) != 0;
        pthread_mutex_unlock(&c->lock);
    }
    write_account(out, &a);
    return 0;
}

/* Every account with what went out of it and came into it, and by currency that all of them together come to nothing. */
static int ledger_op_accounts(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    bool first = true;
    int rc = store_query(c->store, &q,
                         "SELECT id, flags, balance, pending_debit, pending_credit, line, name, currency"
                         " FROM account ORDER BY currency, name",
                         e);
    buf_byte(out, '[');
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct str name = query_column_text(q, 6), currency = query_column_text(q, 7);
        struct account a = {.flags = query_column_int(q, 1),
                            .now = {query_column_int(q, 2), query_column_int(q, 3), query_column_int(q, 4)},
                            .line = query_column_int(q, 5)};
        snprintf(a.name, sizeof a.name, "%.*s", (int)name.n, name.p);
        snprintf(a.currency, sizeof a.currency, "%.*s", (int)currency.n, currency.p);
        if (!first)
            buf_byte(out, ',');
        first = false;
        write_account(out, &a);
        rc = 0;
    }
    buf_byte(out, ']');
    return rc;
}

/* The trial balance: what the accounts of a currency have, and what they lack, come to the same. */
static int ledger_op_balance(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    char currency[4] = "";
    int64_t has = 0, lacks = 0, accounts = 0;
    int rc = store_query(c->store, &q, "SELECT currency, balance FROM account ORDER BY currency", e);
    buf_byte(out, '[');
    while (rc == 0) {
        rc = query_step(q, e);
        bool row = rc > 0, other = row && !str_is(query_column_text(q, 0), currency);
        if (accounts > 0 && (!row || other)) {
            buf_printf(out, "%s{\"currency\":\"%s\",\"accounts\":%lld", out->p[out->n - 1] == '[' ? "" : ",",
                       currency, (long long)accounts);
            report_money(out, "credit", has);
            report_money(out, "debit", -lacks);
            buf_printf(out, ",\"ok\":%s}", has == -lacks ? "true" : "false");
            has = lacks = accounts = 0;
        }
        if (!row)
            break;
        snprintf(currency, sizeof currency, "%.*s", (int)query_column_text(q, 0).n,
                 query_column_text(q, 0).p);
        int64_t balance = query_column_int(q, 1), *side = balance > 0 ? &has : &lacks;
        accounts++;
        rc = __builtin_add_overflow(*side, balance, side)
                 ? error_set(e, ERR_INVALID, "the balances of %s are too large to be added", currency)
                 : 0;
    }
    buf_byte(out, ']');
    return rc;
}

/* ---- reading transfers ---- */

enum { LIST_REACH = 1000000 }; /* transfers that a list looks through: the writer waits meanwhile */

/* Columns: seq, at, amount, phase, id, kind, about, note, debit, credit, currency, hash. */
static void write_transfer(struct buf *out, struct query *q) {
    static const char *const phase[] = {"single", "pending", "posted", "voided", "expired"},
                             *const text[] = {"id", "kind", "about", "note", "debit", "credit", "currency"};
    int64_t of = query_column_int(q, 3);
    struct str bytes = query_column_text(q, 11);
    struct hash hash = {0};
    char hex[HASH_HEX + 1];
    if (bytes.n == sizeof hash)
        memcpy(&hash, bytes.p, sizeof hash);
    hash_hex(&hash, hex);
    buf_printf(out, "{\"seq\":%lld,\"at\":%lld,\"phase\":\"%s\"", (long long)query_column_int(q, 0),
               (long long)(query_column_int(q, 1) / 1000000000),
               of >= 0 && of <= PHASE_EXPIRED ? phase[of] : "");
    report_money(out, "amount", query_column_int(q, 2));
    for (int i = 0; i < (int)(sizeof text / sizeof *text); i++) {
        buf_printf(out, ",\"%s\":", text[i]);
        json_write_str(out, query_column_text(q, 4 + i));
    }
    buf_printf(out, ",\"hash\":\"%s\"}", hex);
}

static int write_transfers(struct query *q, struct buf *out, struct error *e) {
    bool first = true;
    int rc;
    buf_byte(out, '[');
    while ((rc = query_step(q, e)) > 0) {
        if (!first)
            buf_byte(out, ',');
        first = false;
        write_transfer(out, q);
    }
    buf_byte(out, ']');
    return rc;
}

/* The last ones, newest first; `before` a number pages on. */
static int ledger_op_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    struct str tenant = args_text(args, "tenant"), account = args_text(args, "account"),
               from = args_text(args, "before");
    char name[ACCOUNT_NAME_BYTES];
    int64_t limit = json_as_int(json_get(args, "limit")), before = json_as_int(json_get(args, "before"));
    int rc = from.n > 0 ? money_parse(&before, from, 0, e) : 0;
    if (rc != 0 || (before == 0 && (rc = ledger_lock(&c->ledger, e)) != 0) ||
        (rc = store_query(
             c->store, &q,
             "SELECT x.seq, x.at, x.amount, x.phase, x.id, x.kind, x.about, x.note, d.name, k.name,"
             " d.currency, x.hash FROM transfer x"
             " JOIN account d ON d.id = x.debit JOIN account k ON k.id = x.credit"
             " WHERE x.seq < $1 AND x.seq >= $2 AND ($3 = '' OR d.name = $3 OR k.name = $3)"
             " ORDER BY x.seq DESC LIMIT $4",
             e)) != 0)
        return rc;
    if (before <= 0)
        before = c->ledger.seq + 1;
    snprintf(name, sizeof name, tenant.n > 0 ? "tenant:%.*s" : "%.*s",
             (int)(tenant.n > 0 ? tenant.n : account.n), tenant.n > 0 ? tenant.p : account.p);
    query_int(q, 1, before);
    query_int(q, 2, before - LIST_REACH);
    query_text(q, 3, str_from(name));
    query_int(q, 4, limit > 0 ? limit : 50);
    return write_transfers(q, out, e);
}

/* A transfer, and those about it. */
static int ledger_op_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    size_t start = out->n;
    struct str id = args_text(args, "transfer");
    int rc =
        store_query(c->store, &q,
                    "SELECT x.seq, x.at, x.amount, x.phase, x.id, x.kind, x.about, x.note, d.name, k.name,"
                    " d.currency, x.hash FROM transfer x"
                    " JOIN account d ON d.id = x.debit JOIN account k ON k.id = x.credit"
                    " WHERE x.id = $1 OR (x.about <> '' AND x.about = $1) ORDER BY x.seq",
                    e);
    if (rc != 0)
        return rc;
    query_text(q, 1, id);
    rc = write_transfers(q, out, e);
    if (rc == 0 && out->n == start + 2)
        return error_param(e, ERR_NOT_FOUND, "transfer", "there is no transfer %.*s; see unkai ledger list",
                           (int)(id.n < 100 ? id.n : 100), id.p);
    return rc;
}

/* ---- the zone ---- */

/* "+09:00" */
static int parse_zone(int64_t *zone, struct str text, struct error *e) {
    static const char shape[] = "s99:99";
    bool good = text.n == sizeof shape - 1 && (text.p[0] == '+' || text.p[0] == '-');
    for (size_t i = 1; good && i < text.n; i++)
        good = shape[i] == '9' ? text.p[i] >= '0' && text.p[i] <= '9' : text.p[i] == shape[i];
    if (good) {
        int64_t hours = (text.p[1] - '0') * 10 + text.p[2] - '0',
                minutes = (text.p[4] - '0') * 10 + text.p[5] - '0';
        *zone = (hours * 60 + minutes) * (text.p[0] == '-' ? -1 : 1);
        good = hours <= 14 && minutes < 60;
    }
    return good ? 0 : error_param(e, ERR_INVALID, "zone", "a zone is the distance from UTC, like +09:00");
}

static int ledger_op_zone(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct str text = args_text(args, "zone");
    struct query *q;
    int64_t zone;
    int rc = ledger_lock(&c->ledger, e);
    if (rc == 0 && json_get(args, "zone") != NULL) {
        if ((rc = parse_zone(&zone, text, e)) != 0 ||
            (rc = store_query(c->store, &q, "UPDATE book SET zone = $1 WHERE id = 1", e)) != 0)
            return rc;
        query_int(q, 1, zone);
        if ((rc = query_run(q, e)) != 0)
            return rc;
        c->ledger.zone = zone;
        pthread_mutex_lock(&c->lock);
        c->zone = zone;
        pthread_mutex_unlock(&c->lock);
        rc = shared_changed(c, NULL, e);
    }
    zone = c->ledger.zone < 0 ? -c->ledger.zone : c->ledger.zone;
    buf_printf(out, "{\"zone\":\"%c%02d:%02d\"}", c->ledger.zone < 0 ? '-' : '+', (int)zone / 60,
               (int)zone % 60);
    return rc;
}

const struct operation_row ledger_operations[] = {
    {"ledger.transfer", ledger_op_transfer},
    {"ledger.post", ledger_op_post},
    {"ledger.void", ledger_op_void},
    {"ledger.reverse", ledger_op_reverse},
    {"ledger.account", ledger_op_account},
    {"ledger.accounts", ledger_op_accounts, OPERATION_READS},
    {"ledger.balance", ledger_op_balance, OPERATION_READS},
    {"ledger.list", ledger_op_list, OPERATION_READS},
    {"ledger.show", ledger_op_show, OPERATION_READS},
    {"ledger.zone", ledger_op_zone, .changes_by = "zone"},
    {"ledger.verify", report_verify, OPERATION_READS_LONG},
    {NULL},
};
