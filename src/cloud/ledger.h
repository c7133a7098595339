/* The ledger: accounts and the journal of transfers between them, on the writer's thread. A transfer is never changed: the rows are a chain of SHA-256, each of
 * the row, of the request that it settles and of the hash before, so that what is edited behind the program's back is found. After TigerBeetle's model of accounts and
 * transfers with ids chosen by the caller. */
#ifndef CLOUD_LEDGER_H
#define CLOUD_LEDGER_H

#include "base/hash.h"
#include "cloud/calendar.h"
#include "cloud/cloud.h"
#include "store/store.h"

enum { TRANSFER_ID_BYTES = 160, ACCOUNT_NAME_BYTES = 96 };

enum transfer_phase {
    PHASE_SINGLE,  /* moves the balances at once */
    PHASE_PENDING, /* sets aside: moves pending_debit and pending_credit only */
    PHASE_POST,    /* moves up to what was pending, and gives back the rest */
    PHASE_VOID,    /* gives all of it back */
    PHASE_EXPIRED  /* the same, because its time was over */
};

enum account_flag {
    ACCOUNT_NO_OVERDRAFT = 1, /* never below its line (which is 0 unless there is credit) */
    ACCOUNT_CLOSED = 2        /* takes part in no new transfer */
};

/* The books in a transaction: the store, and their head. */
struct ledger {
    struct store *store;
    bool shared;        /* with other nodes: each transaction takes the head first, and is one turn */
    bool locked, moved; /* the head was read and nobody else can move it; it must be written */
    int64_t turn, prices,
        rest;         /* the number of this transaction; of those that last changed prices, and the rest */
    int64_t seq;      /* of the last transfer */
    struct hash hash; /* of the last transfer: the root of all */
    int64_t period, zone;
    char month[CALENDAR_MONTH]; /* of the period */
    bool closed;                /* the period is */
    struct buf row;             /* what is hashed */
};

/* What a request's record says once it is settled, for the hash of its settlement. */
struct usage_record {
    struct str model, state, node, route;
    int64_t tenant, key, price, rate, at, prompt, most, hold, sent, cached, charge, chip_ns, prefill_ns,
        first_token_ns, total_ns;
};

struct transfer {
    struct str id, kind;
    int64_t debit, credit; /* accounts: debit's balance falls, credit's rises */
    amount value;
    int64_t at;
    enum transfer_phase phase;
    struct str about; /* the id of the transfer that it posts, voids, expires or reverses */
    struct str note;  /* why, for people */
    bool covered;     /* somebody who knows better than the row says that the debit's balance is enough */
    const struct usage_record *usage; /* of the request that it settles, or NULL */
};

/* ---- adopt.c ---- */

/* Make the head of new books, and chain what a version without a chain has written. */
int ledger_start(struct ledger *l, struct error *e);

/* ---- ledger.c ---- */

void ledger_end(struct ledger *l);
int ledger_begin(struct ledger *l, struct error *e);
int ledger_commit(struct ledger *l, struct error *e); /* durable when it returns 0 */
void ledger_rollback(struct ledger *l);
/* Read the head and keep others from moving it until the transaction ends; whoever records does it. */
int ledger_lock(struct ledger *l, struct error *e);
/* Begin the period that a posting of this time belongs to, if it is not the last one: its month is over, or closed. A clock that goes back begins none. */
int ledger_need_period(struct ledger *l, int64_t at, struct error *e);

/* Move value from one account to another. The same id with the same content is the same transfer (and 0 is returned with *again set); with other content ERR_CONFLICT. */
int ledger_transfer(struct ledger *l, const struct transfer *t, bool *again, struct error *e);
/* Its two halves: the row of the journal, and what it adds to an account. Whoever records many transfers in one transaction moves an account once,
 * before the commit. */
int ledger_record(struct ledger *l, const struct transfer *t, bool *again, struct error *e);
/* The row of a transfer that cannot be there yet: nobody waits for the answer whether it was, and one that is there breaks the transaction. */
int ledger_append(struct ledger *l, const struct transfer *t, struct error *e);
struct movement {
    amount balance, pending_debit, pending_credit;
};
int ledger_move(struct ledger *l, int64_t account, const struct movement *m, struct error *e);
/* The account of that name, made when absent. ERR_CONFLICT: it is there with another currency. */
int ledger_account(struct ledger *l, const char *name, const char *currency, int64_t *id, struct error *e);
struct account {
    int64_t id, flags;
    char name[ACCOUNT_NAME_BYTES], currency[4];
    struct movement now; /* its balance, and what is pending */
    amount line;
};
/* ERR_NOT_FOUND. */
int ledger_find(struct ledger *l, struct str name, struct account *out, struct error *e);
/* May the transfer be? Both accounts of one currency and open, and the debit's balance enough where it must be: ERR_INVALID, ERR_DENIED, ERR_CREDIT. */
int ledger_check(struct ledger *l, const struct transfer *t, struct error *e);
/* Set its flags (of enum account_flag) and its credit line. */
int ledger_limit(struct ledger *l, int64_t account, int64_t flags, amount line, struct error *e);

/* ---- pending.c ---- */

struct pending {
    int64_t seq, debit, credit, expires; /* expires: ns since 1970, 0: never */
    amount value;
    bool open; /* not posted, voided or expired yet */
};
/* t: of PHASE_PENDING. Ends at `expires` by itself unless that is 0. */
int pending_make(struct ledger *l, const struct transfer *t, int64_t expires, bool *again, struct error *e);
/* ERR_NOT_FOUND. */
int pending_find(struct ledger *l, struct str id, struct pending *out, struct error *e);
/* t: of PHASE_POST (with what is posted, the rest is given back), PHASE_VOID or PHASE_EXPIRED (with all of it), about the pending one, between its accounts.
 * ERR_CONFLICT: it has ended otherwise. */
int pending_end(struct ledger *l, const struct pending *p, const struct transfer *t, bool *again,
                struct error *e);
/* The one that expires first: when (INT64_MAX: none) and its id. */
int pending_next(struct ledger *l, int64_t *expires, char *id, size_t size, struct error *e);

/* ---- chain.c ---- */

/* The hash of transfer number seq of that period, behind the one with the hash `before`. `row` is room to work in. */
struct hash chain_hash(struct buf *row, const struct hash *before, int64_t seq, int64_t period,
                       const struct transfer *t);
/* The journal, row by row. */
struct chain_row {
    int64_t seq, period;
    struct transfer transfer; /* texts live until the next row */
    struct usage_record usage;
    struct hash hash; /* as it stands in the row: nothing but zeros when there is none */
};
/* Ask for the rows behind number `after`, in order, `most` at most. */
int chain_read(struct store *s, struct query **q, int64_t after, int64_t most, struct error *e);
/* 1: a row; 0: no more. */
int chain_next(struct query *q, struct chain_row *out, struct error *e);

/* ---- verify.c ---- */

struct verification {
    bool live;                /* in: a server runs, requests may be open */
    const struct hash *known; /* in: a root that somebody kept, or NULL */
    int64_t transfers;        /* out */
    int64_t known_at; /* out: the number of the transfer whose root that is; 0: the books do not contain it */
    struct hash root; /* out: of the last transfer */
};
/* In pieces, each in a transaction, between which others may write; what is wrong is appended to `wrong` as JSON strings, separated by commas. */
struct verify_walk *ledger_verify_begin(struct buf *wrong); /* NULL: no memory */
int ledger_verify_piece(struct ledger *l, struct verify_walk *w, struct verification *v,
                        struct error *e); /* 1: there is more; 0: that was all */
void ledger_verify_end(struct verify_walk *w);
/* All of it in the transaction that the ledger is in. */
int ledger_verify(struct ledger *l, struct verification *v, struct buf *wrong, struct error *e);

#endif
