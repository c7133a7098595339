/* The monthly close: the trial balance of a month by the journal's sequence, written as a canonical statement with the chain's root, and signed. It is made from the
 * roll-ups, so that it takes no longer for a month of many requests; close.verify makes it again from every transfer since the first. What does not add up is
 * ERR_CONFLICT here, which stops nothing: only an error of the database stops the money path. On the yen's
 * journey: where a month of charges becomes a figure that somebody can rely on. */
#include "cloud/bill/balance.h"
#include "cloud/bill/bill.h"

#include "base/clock.h"
#include "base/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the key ---- */

/* Made at the first close; written aside and renamed, so that a crash leaves a whole one or none. */
static int make_key(const char *path, struct sign_secret *key, struct error *e) {
    char fresh[4200];
    snprintf(fresh, sizeof fresh, "%s.new", path);
    random_bytes(key, sizeof *key);
    unlink(fresh);
    int fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && write(fd, key, sizeof *key) == (ssize_t)sizeof *key && fsync(fd) == 0;
    if (fd >= 0)
        close(fd);
    return ok && rename(fresh, path) == 0
               ? 0
               : error_set(e, ERR_DENIED, "cannot write %.300s: %s", path, strerror(errno));
}

static int read_key(const struct cloud *c, struct sign_secret *key, struct error *e) {
    char path[4100];
    struct stat st;
    snprintf(path, sizeof path, "%s/close.key", c->folder);
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return make_key(path, key, e);
    bool ok = fd >= 0 && fstat(fd, &st) == 0 && st.st_size == (off_t)sizeof *key &&
              read(fd, key, sizeof *key) == (ssize_t)sizeof *key;
    bool secret = ok && (st.st_mode & 077) == 0;
    if (fd >= 0)
        close(fd);
    if (!ok)
        return error_set(e, ERR_DENIED, "%.300s is no key that signs", path);
    return secret ? 0
                  : error_set(e, ERR_DENIED, "%.300s can be read by others; chmod 600 it, or make another",
                              path);
}

static int public_key(const struct sign_secret *key, struct sign_public *out, struct error *e) {
    return sign_public_of(key, out) ? 0 : error_set(e, ERR_INTERNAL, "OpenSSL has no Ed25519");
}

static struct str bytes_of(const void *p, size_t n) {
    return (struct str){p, n};
}

static int close_key(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct sign_secret key;
    struct sign_public public;
    int rc = read_key(c, &key, e);
    if (rc != 0 || (rc = public_key(&key, &public, e)) != 0)
        return rc;
    buf_text(out, "{\"algorithm\":\"Ed25519\",\"key\":\"");
    bill_hex(out, bytes_of(&public, sizeof public));
    buf_text(out, "\"}");
    return 0;
}

/* ---- the statement ---- */

static void write_amount(struct buf *out, const char *name, amount value) {
    buf_printf(out, "\"%s\":\"", name);
    money_write(out, value, AMOUNT_DIGITS);
    buf_byte(out, '"');
}

static int write_accounts(struct buf *out, const struct balance *b, struct error *e) {
    bool first = true;
    int rc = 0;
    buf_text(out, "\"accounts\":[");
    for (size_t i = 0; i < b->n; i++) {
        const struct account_line *a = &b->line[i];
        amount balance = a->opening;
        if (a->opening == 0 && a->debits == 0 && a->credits == 0) /* not yet, or to no effect */
            continue;
        if ((rc = bill_add(&balance, a->credits, e)) != 0 || (rc = bill_add(&balance, -a->debits, e)) != 0)
            return rc;
        buf_text(out, first ? "{" : ",{");
        write_amount(out, "balance", balance);
        buf_byte(out, ',');
        write_amount(out, "credits", a->credits);
        buf_printf(out, ",\"currency\":\"%s\",", a->currency);
        write_amount(out, "debits", a->debits);
        buf_text(out, ",\"name\":");
        json_write_text(out, a->name);
        buf_byte(out, ',');
        write_amount(out, "opening", a->opening);
        buf_byte(out, '}');
        first = false;
    }
    buf_byte(out, ']');
    return rc;
}

static int compare_currencies(const void *a, const void *b) {
    int order =
        strcmp(((const struct account_line *)a)->currency, ((const struct account_line *)b)->currency);
    return order != 0 ? order : balance_by_name(a, b);
}

/* Each currency's debits and credits: the same, or the books do not balance. */
static int write_totals(struct buf *out, struct balance *b, struct error *e) {
    int rc = 0;
    qsort(b->line, b->n, sizeof *b->line, compare_currencies);
    buf_text(out, "\"totals\":[");
    for (size_t i = 0, end; i < b->n; i = end) {
        amount debits = 0, credits = 0;
        for (end = i; end < b->n && strcmp(b->line[end].currency, b->line[i].currency) == 0; end++)
            if ((rc = bill_add(&debits, b->line[end].debits, e)) != 0 ||
                (rc = bill_add(&credits, b->line[end].credits, e)) != 0)
                return rc;
        if (debits != credits)
            return error_set(e, ERR_CONFLICT,
                             "debits and credits in %s are not the same; see unkai ledger verify",
                             b->line[i].currency);
        if (debits == 0)
            continue;
        if (out->p[out->n - 1] == '}')
            buf_byte(out, ',');
        buf_byte(out, '{');
        write_amount(out, "credits", credits);
        buf_printf(out, ",\"currency\":\"%s\",", b->line[i].currency);
        write_amount(out, "debits", debits);
        buf_byte(out, '}');
    }
    buf_byte(out, ']');
    return rc;
}

/* The hash of the chain after a transfer. */
static int read_root(struct store *s, int64_t seq, struct hash *root, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT hash FROM transfer WHERE seq = $1", e);
    *root = (struct hash){0};
    if (rc != 0)
        return rc;
    query_int(q, 1, seq);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    struct str hash = rc > 0 ? query_column_text(q, 0) : STR("");
    bool whole = hash.n == sizeof *root;
    if (whole)
        memcpy(root, hash.p, sizeof *root);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    return whole || seq == 0 ? 0 : error_set(e, ERR_CONFLICT, "transfer %lld has no hash", (long long)seq);
}

/* b ends up sorted by currency. previous: the hash of the statement before. */
static int write_statement(struct buf *out, const struct period *p, struct balance *b,
                           const struct hash *root, const struct hash *previous,
                           const struct sign_public *key, struct error *e) {
    qsort(b->line, b->n, sizeof *b->line, balance_by_name);
    buf_byte(out, '{');
    int rc = write_accounts(out, b, e);
    if (rc != 0)
        return rc;
    buf_printf(out, ",\"first_seq\":%lld,\"format\":\"unkai-close-1\",\"key\":\"", (long long)p->first_seq);
    bill_hex(out, bytes_of(key, sizeof *key));
    buf_printf(out, "\",\"last_seq\":%lld,\"month\":\"%s\",\"previous\":\"", (long long)p->last_seq,
               p->month);
    bill_hex(out, bytes_of(previous, sizeof *previous));
    buf_text(out, "\",\"root\":\"");
    bill_hex(out, bytes_of(root, sizeof *root));
    buf_text(out, "\",");
    rc = write_totals(out, b, e);
    buf_printf(out, ",\"zone\":%lld}", (long long)p->zone);
    return rc == 0 && out->failed ? error_set(e, ERR_NO_MEMORY, "no memory for the statement") : rc;
}

/* The period before, if there is one: its statement (which is freed with buf_free). ERR_CONFLICT: it is open. */
static int read_before(struct store *s, const struct period *p, struct buf *statement, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q, "SELECT statement, closed, month FROM period WHERE id < $1 ORDER BY id DESC LIMIT 1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, p->id);
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    buf_str(statement, query_column_text(q, 0));
    struct str month = query_column_text(q, 2);
    if (query_column_int(q, 1) == 0)
        rc = error_param(e, ERR_CONFLICT, "month", "%.*s comes first: it is open",
                         (int)(month.n < 8 ? month.n : 8), month.p);
    return rc < 0 ? rc : query_run(q, e);
}

/* ---- closing ---- */

static int save(struct store *s, const struct period *p, int64_t now, const struct hash *root,
                struct str statement, const struct signature *signature, struct error *e) {
    struct query *q;
    int rc =
        store_query(s, &q,
                    "UPDATE period SET last_seq = $2, closed = $3, root = $4, statement = $5, signature = $6"
                    " WHERE id = $1",
                    e);
    if (rc != 0)
        return rc;
    query_int(q, 1, p->id);
    query_int(q, 2, p->last_seq);
    query_int(q, 3, now);
    query_blob(q, 4, bytes_of(root, sizeof *root));
    query_text(q, 5, statement);
    query_blob(q, 6, bytes_of(signature, sizeof *signature));
    return query_run(q, e);
}

static void write_closed(struct buf *out, const struct period *p, struct str statement,
                         const struct signature *signature) {
    buf_printf(out, "{\"month\":\"%s\",\"closed\":%lld,\"statement\":", p->month,
               (long long)(p->closed / 1000000000));
    buf_str(out, statement);
    buf_text(out, ",\"signature\":\"");
    bill_hex(out, bytes_of(signature, sizeof *signature));
    buf_text(out, "\"}");
}

/* Statement and signature of a period, from the roll-ups. */
static int make_statement(struct cloud *c, const struct period *p, struct hash *root, struct buf *statement,
                          struct signature *signature, struct error *e) {
    struct sign_secret key;
    struct sign_public public;
    struct buf before = {0};
    struct balance b = {0};
    struct json *parsed = NULL;
    struct hash previous = {0};
    int rc = read_key(c, &key, e);
    if (rc != 0 || (rc = public_key(&key, &public, e)) != 0 ||
        (rc = read_before(c->store, p, &before, e)) != 0)
        goto out;
    if (before.n > 0) {
        previous = hash_sha256(buf_view(&before));
        if ((rc = json_parse(&parsed, buf_view(&before), e)) != 0)
            goto out;
    }
    if ((rc = balance_accounts(c->store, &b, e)) == 0 && (rc = balance_period(c->store, p, &b, e)) == 0 &&
        (rc = balance_openings(&b, parsed, e)) == 0 && (rc = read_root(c->store, p->last_seq, root, e)) == 0)
        rc = write_statement(statement, p, &b, root, &previous, &public, e);
    if (rc == 0 && !sign_data(&key, buf_view(statement), signature))
        rc = error_set(e, ERR_INTERNAL, "OpenSSL could not sign");
out:
    json_free(parsed);
    balance_free(&b);
    buf_free(&before);
    return rc;
}

static int close_month(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct period p;
    struct hash root;
    struct signature signature;
    struct buf statement = {0};
    int64_t now = clock_wall_ns();
    int rc = ledger_lock(&c->ledger,
                         e); /* the next posting begins a month of its own, whatever the clock says then */
    if (rc != 0 || (rc = period_find(c->store, json_as_str(json_get(args, "month")), &p, e)) != 0)
        return rc;
    if (p.closed != 0)
        return error_param(e, ERR_CONFLICT, "month", "%s is closed already; see unkai close %s --verify",
                           p.month, p.month);
    if (now < p.to)
        return error_param(e, ERR_INVALID, "month", "%s is still running", p.month);
    rc = make_statement(c, &p, &root, &statement, &signature, e);
    p.closed = now;
    if (rc == 0)
        rc = save(c->store, &p, now, &root, buf_view(&statement), &signature, e);
    if (rc == 0)
        write_closed(out, &p, buf_view(&statement), &signature);
    buf_free(&statement);
    return rc;
}

/* What is kept of a closed month. */
static int read_closed(struct store *s, const struct period *p, struct buf *statement,
                       struct signature *signature, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "SELECT statement, signature FROM period WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, p->id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    struct str kept = query_column_text(q, 1);
    bool whole = rc > 0 && kept.n == sizeof *signature;
    buf_str(statement, query_column_text(q, 0));
    if (whole)
        memcpy(signature, kept.p, sizeof *signature);
    if ((rc = query_run(q, e)) != 0)
        return rc;
    return whole ? 0 : error_set(e, ERR_CONFLICT, "%s has no signature", p->month);
}

static int close_show(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct period p;
    struct signature signature;
    struct buf statement = {0};
    int rc = period_find(c->store, json_as_str(json_get(args, "month")), &p, e);
    if (rc == 0 && p.closed == 0)
        rc = error_param(e, ERR_NOT_FOUND, "month", "%s is not closed yet", p.month);
    if (rc == 0)
        rc = read_closed(c->store, &p, &statement, &signature, e);
    if (rc == 0)
        write_closed(out, &p, buf_view(&statement), &signature);
    buf_free(&statement);
    return rc;
}

static int close_list(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct query *q;
    bool first = true;
    int rc = store_query(c->store, &q,
                         "SELECT month, first_seq, last_seq, closed, root FROM period ORDER BY id", e);
    buf_byte(out, '[');
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        rc = 0;
        buf_text(out, first ? "{\"month\":" : ",{\"month\":");
        json_write_str(out, query_column_text(q, 0));
        buf_printf(out, ",\"first_seq\":%lld,\"last_seq\":%lld,\"closed\":%lld,\"root\":\"",
                   (long long)query_column_int(q, 1), (long long)query_column_int(q, 2),
                   (long long)(query_column_int(q, 3) / 1000000000));
        bill_hex(out, query_column_text(q, 4));
        buf_text(out, "\"}");
        first = false;
    }
    buf_byte(out, ']');
    return rc;
}

/* ---- closing again, from the journal ---- */

enum { PIECE = 50000 };

struct verifying {
    struct period p;
    struct balance balance;
    struct buf statement, before;
    struct signature signature;
    struct hash root;
    int64_t from, to;
};

static int begin_verify(struct cloud *c, void *context, struct error *e) {
    struct verifying *v = context;
    char month[CALENDAR_MONTH];
    memcpy(month, v->p.month, sizeof month);
    int rc = period_find(c->store, str_from(month), &v->p, e);
    if (rc == 0 && v->p.closed == 0)
        rc = error_param(e, ERR_NOT_FOUND, "month", "%s is not closed yet", v->p.month);
    if (rc != 0 || (rc = read_closed(c->store, &v->p, &v->statement, &v->signature, e)) != 0 ||
        (rc = read_before(c->store, &v->p, &v->before, e)) != 0 ||
        (rc = read_root(c->store, v->p.last_seq, &v->root, e)) != 0)
        return rc;
    return balance_accounts(c->store, &v->balance, e);
}

static int verify_piece(struct cloud *c, void *context, struct error *e) {
    struct verifying *v = context;
    return balance_journal(c->store, v->from, v->to, v->to < v->p.first_seq, &v->balance, e);
}

/* Every transfer up to the month's last, in pieces between which the writer writes. */
static int sum_journal(struct cloud *c, struct verifying *v, struct error *e) {
    int rc = 0;
    for (v->from = 1; rc == 0 && v->from <= v->p.last_seq; v->from = v->to + 1) {
        int64_t end = v->from < v->p.first_seq ? v->p.first_seq - 1 : v->p.last_seq;
        v->to = end - v->from < PIECE ? end : v->from + PIECE - 1;
        rc = journal_call_harmless(c, verify_piece, v, e);
    }
    return rc;
}

static void add_wrong(struct buf *wrong, const char *what) {
    if (wrong->n > 0)
        buf_byte(wrong, ',');
    json_write_text(wrong, what);
}

/* The key of the statement, which the signature is by; and the statement as the journal makes it, with that key. */
static int compare(struct verifying *v, struct str trusted, struct buf *wrong, struct error *e) {
    struct json *kept = NULL;
    struct buf again = {0};
    struct sign_public key;
    struct hash previous = {0};
    int rc = json_parse(&kept, buf_view(&v->statement), NULL);
    struct str hex = json_as_str(json_get(kept, "key"));
    if (v->before.n > 0)
        previous = hash_sha256(buf_view(&v->before));
    if (rc != 0 || !bill_unhex(hex, &key, sizeof key)) {
        add_wrong(wrong, "the statement is damaged");
        rc = 0;
    } else {
        if (!sign_check(&key, buf_view(&v->statement), &v->signature))
            add_wrong(wrong, "the signature is not of this statement");
        if (trusted.n > 0 && !str_equal(trusted, hex))
            add_wrong(wrong, "it was signed with another key");
        rc = write_statement(&again, &v->p, &v->balance, &v->root, &previous, &key, e);
        if (rc == 0 && !str_equal(buf_view(&again), buf_view(&v->statement)))
            add_wrong(wrong, "the journal says something else than the statement");
    }
    json_free(kept);
    buf_free(&again);
    return rc;
}

static int close_verify(struct cloud *c, const struct json *args, struct buf *out, struct error *e) {
    struct verifying v = {0};
    struct buf wrong = {0};
    struct hash hash;
    if (!month_parse(json_as_str(json_get(args, "month")), v.p.month))
        return error_param(e, ERR_INVALID, "month", "a month is written like 2026-11");
    int rc = journal_call_harmless(c, begin_verify, &v, e);
    if (rc == 0 && (rc = sum_journal(c, &v, e)) == 0)
        rc = compare(&v, json_as_str(json_get(args, "key")), &wrong, e);
    if (rc == 0) {
        hash = hash_sha256(buf_view(&v.statement));
        buf_printf(out, "{\"month\":\"%s\",\"ok\":%s,\"transfers\":%lld,\"root\":\"", v.p.month,
                   wrong.n ? "false" : "true", (long long)v.p.last_seq);
        bill_hex(out, bytes_of(&v.root, sizeof v.root));
        buf_text(out, "\",\"statement\":\"");
        bill_hex(out, bytes_of(&hash, sizeof hash));
        buf_text(out, "\",\"wrong\":[");
        buf_str(out, buf_view(&wrong));
        buf_text(out, "]}");
    }
    balance_free(&v.balance);
    buf_free(&v.statement);
    buf_free(&v.before);
    buf_free(&wrong);
    return rc;
}

const struct operation_row close_operations[] = {
    {"close", close_month},
    {"close.show", close_show, OPERATION_READS},
    {"close.list", close_list, OPERATION_READS},
    {"close.verify", close_verify, OPERATION_READS_LONG},
    {"close.key", close_key},
    {NULL},
};
