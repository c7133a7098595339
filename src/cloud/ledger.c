/* The ledger's head, accounts and transfers; see ledger.h. A transfer's two postings (the view of that name) sum to zero; an account's balance is the sum of its postings. On
 * the yen's journey: the charge itself. */
#include "cloud/ledger.h"

#include <stdio.h>
#include <string.h>

/* ---- the head ---- */

void ledger_end(struct ledger *l) {
    buf_free(&l->row);
}

int ledger_begin(struct ledger *l, struct error *e) {
    l->locked = l->moved = false;
    int rc = store_begin(l->store, e);
    return rc != 0 || !l->shared ? rc : ledger_lock(l, e);
}

static int read_period(struct ledger *l, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q, "SELECT month, closed FROM period WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, l->period);
    memset(l->month, 0, sizeof l->month);
    l->closed = false;
    if ((rc = query_step(q, e)) <= 0)
        return rc;
    struct str month = query_column_text(q, 0);
    memcpy(l->month, month.p, month.n < sizeof l->month ? month.n : sizeof l->month - 1);
    l->closed = query_column_int(q, 1) != 0;
    return query_run(q, e);
}

/* Written first, where others could write too, so that they wait. */
int ledger_lock(struct ledger *l, struct error *e) {
    struct query *q;
    if (l->locked)
        return 0;
    int rc = store_query(l->store, &q,
                         "UPDATE book SET turn = turn + $1 WHERE id = 1"
                         " RETURNING seq, hash, period, zone, turn, prices, rest",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, l->shared);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    struct str hash = query_column_text(q, 1);
    if (rc == 0 || hash.n != sizeof l->hash)
        return error_set(e, ERR_CORRUPT, "the head of the books is damaged");
    l->seq = query_column_int(q, 0);
    memcpy(&l->hash, hash.p, sizeof l->hash);
    l->period = query_column_int(q, 2);
    l->zone = query_column_int(q, 3);
    l->turn = query_column_int(q, 4);
    l->prices = query_column_int(q, 5);
    l->rest = query_column_int(q, 6);
    rc = query_run(q, e);
    l->locked = rc == 0;
    return rc != 0 ? rc : read_period(l, e);
}

int ledger_commit(struct ledger *l, struct error *e) {
    struct query *q;
    int rc = 0;
    if (l->moved) {
        rc = store_query(l->store, &q, "UPDATE book SET seq = $1, hash = $2, period = $3 WHERE id = 1", e);
        if (rc != 0)
            return rc;
        query_int(q, 1, l->seq);
        query_blob(q, 2, (struct str){(const char *)l->hash.byte, sizeof l->hash.byte});
        query_int(q, 3, l->period);
        rc = query_run(q, e);
    }
    return rc != 0 ? rc : store_commit(l->store, e);
}

void ledger_rollback(struct ledger *l) {
    l->locked = l->moved = false;
    store_rollback(l->store);
}

int ledger_need_period(struct ledger *l, int64_t at, struct error *e) {
    char month[CALENDAR_MONTH];
    struct query *q;
    calendar_month(month, at, l->zone);
    if (!l->closed && strcmp(month, l->month) <= 0)
        return 0;
    if (strcmp(month, l->month) <= 0) {
        memcpy(month, l->month, sizeof month);
        calendar_next_month(month);
    }
    int rc =
        store_query(l->store, &q,
                    "INSERT INTO period (id, month, first_seq, last_seq, closed, root, statement, signature)"
                    " VALUES ($1, $2, $3, 0, 0, $4, '', $4)",
                    e);
    if (rc != 0)
        return rc;
    query_int(q, 1, l->period + 1);
    query_text(q, 2, str_from(month));
    query_int(q, 3, l->seq + 1);
    query_blob(q, 4, STR(""));
    if ((rc = query_run(q, e)) != 0)
        return rc;
    l->period++;
    l->closed = false;
    l->moved = true;
    memcpy(l->month, month, sizeof month);
    return 0;
}

/* ---- accounts ---- */

int ledger_account(struct ledger *l, const char *name, const char *currency, int64_t *id, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q,
                         "INSERT INTO account (name, currency, balance, remainder) VALUES ($1, $2, 0, 0) ON "
                         "CONFLICT DO NOTHING",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(name));
    query_text(q, 2, str_from(currency));
    if ((rc = query_run(q, e)) != 0 ||
        (rc = store_query(l->store, &q, "SELECT id, currency FROM account WHERE name = $1", e)) != 0)
        return rc;
    query_text(q, 1, str_from(name));
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "the account %s is missing", name);
    *id = query_column_int(q, 0);
    bool same = str_is(query_column_text(q, 1), currency);
    rc = query_run(q, e);
    return rc != 0 || same ? rc : error_set(e, ERR_CONFLICT, "the account %s has another currency", name);
}

int ledger_move(struct ledger *l, int64_t account, const struct movement *m, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q,
                         "SELECT balance, pending_debit, pending_credit FROM account WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, account);
    if ((rc = query_step(q, e)) <= 0)
        return rc < 0 ? rc : error_set(e, ERR_INTERNAL, "there is no account %lld", (long long)account);
    struct movement now = {query_column_int(q, 0), query_column_int(q, 1), query_column_int(q, 2)};
    if ((rc = query_run(q, e)) != 0)
        return rc;
    if (__builtin_add_overflow(now.balance, m->balance, &now.balance) ||
        __builtin_add_overflow(now.pending_debit, m->pending_debit, &now.pending_debit) ||
        __builtin_add_overflow(now.pending_credit, m->pending_credit, &now.pending_credit))
        return error_set(e, ERR_INVALID, "the account's balance would be too large");
    if ((rc = store_query(l->store, &q,
                          "UPDATE account SET balance = $2, pending_debit = $3, pending_credit = $4, turn = "
                          "$5 WHERE id = $1",
                          e)) != 0)
        return rc;
    query_int(q, 1, account);
    query_int(q, 2, now.balance);
    query_int(q, 3, now.pending_debit);
    query_int(q, 4, now.pending_credit);
    query_int(q, 5, l->turn);
    return query_run(q, e);
}

int ledger_limit(struct ledger *l, int64_t account, int64_t flags, amount line, struct error *e) {
    struct query *q;
    int rc =
        store_query(l->store, &q, "UPDATE account SET flags = $2, line = $3, turn = $4 WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_int(q, 1, account);
    query_int(q, 2, flags);
    query_int(q, 3, line);
    query_int(q, 4, l->turn);
    return query_run(q, e);
}

/* ---- transfers ---- */

/* The transfer that has this id: ERR_CONFLICT unless it is the same one. */
static int check_same(struct store *s, const struct transfer *t, struct error *e) {
    struct query *q;
    int rc = store_query(
        s, &q, "SELECT kind, debit, credit, amount, phase, about, note FROM transfer WHERE id = $1", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, t->id);
    if ((rc = query_step(q, e)) < 0)
        return rc;
    bool same = rc > 0 && str_equal(query_column_text(q, 0), t->kind) && query_column_int(q, 1) == t->debit &&
                query_column_int(q, 2) == t->credit && query_column_int(q, 3) == t->value &&
                query_column_int(q, 4) == (int64_t)t->phase && str_equal(query_column_text(q, 5), t->about) &&
                str_equal(query_column_text(q, 6), t->note);
    rc = query_run(q, e);
    if (rc == 0 && !same)
        return error_set(e, ERR_CONFLICT, "there is a transfer %.*s with other content",
                         (int)(t->id.n < 100 ? t->id.n : 100), t->id.p);
    return rc;
}

#define INSERT_TRANSFER                                                                                 \
    "INSERT INTO transfer (seq, id, at, kind, debit, credit, amount, phase, about, period, note, hash)" \
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"

/* The row, as the chain's next one; *hash is its own. */
static int insert(struct ledger *l, const struct transfer *t, const char *sql, struct query **out,
                  struct hash *own, struct error *e) {
    struct query *q;
    int rc = ledger_lock(l, e);
    if (rc != 0 || (rc = ledger_need_period(l, t->at, e)) != 0 ||
        (rc = store_query(l->store, &q, sql, e)) != 0)
        return rc;
    struct hash hash = chain_hash(&l->row, &l->hash, l->seq + 1, l->period, t);
    if (l->row.failed)
        return error_set(e, ERR_NO_MEMORY, "no memory for a transfer");
    query_int(q, 1, l->seq + 1);
    query_text(q, 2, t->id);
    query_int(q, 3, t->at);
    query_text(q, 4, t->kind);
    query_int(q, 5, t->debit);
    query_int(q, 6, t->credit);
    query_int(q, 7, t->value);
    query_int(q, 8, t->phase);
    query_text(q, 9, t->about);
    query_int(q, 10, l->period);
    query_text(q, 11, t->note);
    query_blob(q, 12, (struct str){(const char *)hash.byte, sizeof hash.byte});
    *out = q;
    *own = hash;
    return query_run(q, e);
}

static void advance(struct ledger *l, const struct hash *hash) {
    l->seq++;
    l->hash = *hash;
    l->moved = true;
}

int ledger_record(struct ledger *l, const struct transfer *t, bool *again, struct error *e) {
    struct query *q;
    struct hash hash;
    int rc = insert(l, t, INSERT_TRANSFER " ON CONFLICT (id) DO NOTHING", &q, &hash, e);
    if (rc != 0)
        return rc;
    *again = query_changed(q) == 0;
    if (*again)
        return check_same(l->store, t, e);
    advance(l, &hash);
    return 0;
}

int ledger_append(struct ledger *l, const struct transfer *t, struct error *e) {
    struct query *q;
    struct hash hash;
    int rc = insert(l, t, INSERT_TRANSFER, &q, &hash, e);
    if (rc == 0)
        advance(l, &hash);
    return rc;
}

static int read_account(struct query *q, struct account *out, struct error *e) {
    int rc = query_step(q, e);
    if (rc <= 0)
        return rc < 0 ? rc : error_set(e, ERR_NOT_FOUND, "there is no such account");
    struct str name = query_column_text(q, 6), currency = query_column_text(q, 7);
    *out = (struct account){.id = query_column_int(q, 0),
                            .flags = query_column_int(q, 1),
                            .now = {query_column_int(q, 2), query_column_int(q, 3), query_column_int(q, 4)},
                            .line = query_column_int(q, 5)};
    snprintf(out->name, sizeof out->name, "%.*s", (int)name.n, name.p);
    snprintf(out->currency, sizeof out->currency, "%.*s", (int)currency.n, currency.p);
    return query_run(q, e);
}

int ledger_find(struct ledger *l, struct str name, struct account *out, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q,
                         "SELECT id, flags, balance, pending_debit, pending_credit, line, name, currency"
                         " FROM account WHERE name = $1",
                         e);
    if (rc != 0)
        return rc;
    query_text(q, 1, name);
    if ((rc = read_account(q, out, e)) == ERR_NOT_FOUND)
        return error_set(e, ERR_NOT_FOUND, "there is no account %.*s; see unkai ledger accounts",
                         (int)(name.n < 80 ? name.n : 80), name.p);
    return rc;
}

static int find_by_id(struct ledger *l, int64_t id, struct account *out, struct error *e) {
    struct query *q;
    int rc = store_query(l->store, &q,
                         "SELECT id, flags, balance, pending_debit, pending_credit, line, name, currency"
                         " FROM account WHERE id = $1",
                         e);
    if (rc != 0)
        return rc;
    query_int(q, 1, id);
    return read_account(q, out, e);
}

int ledger_check(struct ledger *l, const struct transfer *t, struct error *e) {
    struct account debit, credit;
    int rc = find_by_id(l, t->debit, &debit, e);
    if (rc != 0 || (rc = find_by_id(l, t->credit, &credit, e)) != 0)
        return rc;
    if (debit.id == credit.id || strcmp(debit.currency, credit.currency) != 0)
        return error_set(e, ERR_INVALID, "a transfer is between two accounts of one currency");
    if ((debit.flags | credit.flags) & ACCOUNT_CLOSED)
        return error_set(e, ERR_DENIED, "the account %s is closed",
                         debit.flags & ACCOUNT_CLOSED ? debit.name : credit.name);
    __extension__ __int128 left =
        (__int128)debit.now.balance + debit.line - debit.now.pending_debit - t->value;
    return t->covered || (debit.flags & ACCOUNT_NO_OVERDRAFT) == 0 || left >= 0
               ? 0
               : error_set(e, ERR_CREDIT, "the account %s has too little left", debit.name);
}

int ledger_transfer(struct ledger *l, const struct transfer *t, bool *again, struct error *e) {
    int rc = ledger_record(l, t, again, e);
    if (rc != 0 || *again || (rc = ledger_check(l, t, e)) != 0 ||
        (rc = ledger_move(l, t->debit, &(struct movement){.balance = -t->value}, e)) != 0)
        return rc;
    return ledger_move(l, t->credit, &(struct movement){.balance = t->value}, e);
}
