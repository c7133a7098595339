/* What the files of the cloud share. Memory mirrors what the requests need of the books (tenants, keys, prices) under one lock; the writer's thread alone
 * touches the database. */
#ifndef CLOUD_INNER_H
#define CLOUD_INNER_H

#include "base/hash.h"
#include "base/json.h"
#include "cloud/attempt.h"
#include "cloud/cloud.h"
#include "cloud/ledger.h"
#include "cloud/limit.h"
#include "cloud/money.h"
#include "cloud/refusal.h"
#include "store/store.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    REQUEST_ID_BYTES = 64,
    MODEL_NAME_BYTES = 200,
    TENANT_NAME_BYTES = 64,
    ROUTE_BYTES = 32,
    NODE_NAME_BYTES = 64
};

/* What a group's transaction that was not to be puts back. */
struct before {
    amount balance, held;
    int64_t remainder;
    struct used used;
};

/* The last that webhooks were told of: a refusal in this period, by this limit. */
struct told {
    int64_t period;
    amount limit;
};

struct tenant {
    int64_t id, account;
    char name[TENANT_NAME_BYTES], currency[4];
    amount balance,
        held; /* what the ledger says once all that is queued is written; set aside for running requests */
    int64_t remainder;      /* 10^-21, below 10^12: charged with a later request */
    int64_t max_concurrent; /* unless a limit says otherwise */
    int64_t created, archived /* 0: it is not */;
    struct limited limited;
    struct told told[REFUSED_BYS];
    amount line; /* how far below zero the balance may go */
    bool closed;
    struct tenant *next, *next_numbered; /* of all, of the same bucket */
    /* The writer's: what the group that is being written changes. */
    bool touched;
    struct movement moves;
    int64_t written_remainder; /* after the last charge */
    struct before before;
    struct tally *tallies;
    struct tenant *next_touched;
};

/* The writer's: the account of a currency's revenue, and what the group that is being written adds to it. */
struct revenue {
    char currency[4];
    int64_t account;
    struct movement moves;
    struct revenue *next;
};

/* What finished requests of one kind come to. */
struct usage_sum {
    char model[MODEL_NAME_BYTES];
    int64_t key, price, rate, requests, cancelled, failed, prompt, cached, completion, charge, chip_ns,
        prefill_ns;
};

struct tally { /* a tenant's, in the group that is being written */
    struct usage_sum sum;
    struct tally *next;
};

struct key {
    struct hash hash;
    int64_t id;
    struct tenant *tenant;
    bool revoked;
    int64_t expires; /* 0: never */
    struct limited limited;
    struct told told[REFUSED_BYS];
    struct seen seen;
    struct key *next, *next_numbered; /* of the same bucket */
    bool touched;                     /* as a tenant, of books that are shared */
    struct used before;
    struct key *next_touched;
};

/* Of a price or a rate: from when on, and when it was entered. */
struct version {
    int64_t id, since, created;
};

struct price_row {
    struct version version;
    char model[MODEL_NAME_BYTES], currency[4];
    struct tariff tariff;
    struct price_row *next; /* of the same bucket, newest first */
};

struct rate_row {
    struct version version;
    char base[4], quote[4];
    int64_t value;         /* 10^-9 of quote for one of base */
    struct rate_row *next; /* newest first */
};

/* What the writer has to do. A hold's three entries are part of it, so that the token path allocates nothing. */
enum entry_kind { ENTRY_HOLD, ENTRY_SENT, ENTRY_SETTLE, ENTRY_FIND, ENTRY_CALL };
struct entry {
    enum entry_kind kind;
    bool queued;
    struct entry *next;   /* in the queue */
    struct entry *beside; /* in the group being written: meanwhile the entry may be queued again */
};

/* What a settlement has to tell webhooks. */
struct warning {
    bool any, credit_low;
    amount balance;
    struct crossings tenant, key;
};

enum verdict { HOLD_ASKED, HOLD_GRANTED, HOLD_REFUSED };

struct hold {
    struct cloud *cloud;
    struct tenant *tenant;
    struct key *limited_key; /* NULL: the books know no such key */
    struct entry placed, journal, settled;
    int64_t key, price, at;
    struct tariff tariff;
    char id[REQUEST_ID_BYTES], model[MODEL_NAME_BYTES], route[ROUTE_BYTES], node[NODE_NAME_BYTES];
    uint64_t prompt, most;
    amount held;
    atomic_bool durable;
    bool ahead; /* its first tokens need not wait until it is durable */
    atomic_uint_fast64_t durable_sent;
    uint64_t sent, cached;                 /* as the socket took them */
    uint64_t writing_sent, writing_cached; /* of the group that is being committed */
    uint64_t group;                        /* that writes the hold */
    bool whole;                            /* its settlement is in the same group: one row is written once */
    bool ended;            /* its settlement is queued behind what was sent, and says as much */
    bool behind, kept_end; /* see away.c */
    struct hold *next_behind;
    uint64_t least; /* of `most`, where less is left */
    int64_t fence;  /* of the node when it was placed */
    struct address from;
    struct rates rates;
    atomic_int verdict;    /* enum verdict */
    struct error *refusal; /* NULL: none, or no memory for it */
    bool refused, told;    /* told: and webhooks are to hear of it */
    struct settlement settlement;
    struct warning warning;
    amount charge;
    int64_t remainder;     /* the tenant's, after the charge */
    struct answer *answer; /* NULL, or the key it runs under */
};

/* Run on the writer's thread, in a transaction of its own or (between) in none. */
struct call {
    struct entry entry;
    bool between, harmless;
    int (*run)(struct cloud *c, void *context, struct error *e);
    void *context;
    struct error error;
    int rc;
    bool done;
};

struct cloud {
    char folder[4000];
    int lock_file;
    struct store *store;
    struct ledger ledger; /* the writer's, of that store */
    struct hash secret;   /* of the key hashes */
    void (*on_durable)(void *context);
    void *context;

    pthread_mutex_t lock;
    pthread_cond_t wake, called;
    struct tenant *tenants, *numbered_tenants[16384]; /* the newest first; by number */
    struct key *keys[16384], *numbered[16384];        /* by hash, by number */
    struct attempts attempts;
    int64_t zone;                   /* minutes east of UTC: where days and months begin */
    struct price_row *prices[1024]; /* by model */
    struct rate_row *rates;
    struct entry *first, **last;     /* the queue */
    bool stopping, writing, waiting; /* waiting: the writer, for an entry */
    uint32_t undurable;              /* holds that are not durable yet */
    atomic_bool broken, is_away;
    struct error why;
    struct cloud_stats stats;
    pthread_t writer;
    /* The writer's. */
    struct away *away; /* NULL: the database is there */
    uint64_t groups;
    int64_t now; /* of the group */
    int64_t next_expiry;
    struct tenant *touched;
    struct key *touched_keys;
    struct shared *shared;   /* NULL: nobody else has these books */
    _Atomic int64_t silence; /* after which a node is taken for gone */
    struct revenue *revenues;
    struct tally *spare_tallies;
    struct control *control;
    struct courier *courier; /* under the lock; NULL: nobody sends webhooks */
    struct refused *refused; /* under the lock: what the courier has to write */
    struct answer *answers;  /* that nobody has taken back yet */
    struct access *access;   /* of access.c */
};

/* What an operation does to the books, and who must know. */
enum operation_kind {
    OPERATION_CHANGES,    /* it is audited */
    OPERATION_TAKES_LONG, /* it takes books out of the house: as the next one, and audited */
    OPERATION_READS_LONG, /* it runs on its caller's thread, and itself calls the writer for a piece at a time */
    OPERATION_READS
};
/* An operation behind the commands, and its name in the table in admin.c. */
struct operation_row {
    const char *name;
    /* args: the whole request. Appends one JSON value. An error names the argument that is wrong. */
    int (*run)(struct cloud *c, const struct json *args, struct buf *out, struct error *e);
    enum operation_kind kind;
    const char *
        changes_by; /* OPERATION_CHANGES: a request without this member only reads; NULL: every one changes */
};

/* ---- cloud.c ---- */
/* Under the lock: what the settlement of a hold comes to, and what of it is to be told; of one that an earlier run left open. */
void hold_settle(struct cloud *c, struct hold *h);
void hold_recover(struct cloud *c, struct hold *h);
/* Under the lock: may it be? Then credit and limits are taken. */
int hold_decide(struct cloud *c, struct hold *h, struct error *e);
void hold_refuse(struct hold *h, const struct error *why); /* it is its asker's from now on */

/* ---- memory.c: the mirror ---- */
/* Tenants and keys that a turn after `since` has changed, new ones too; -1: all. */
int memory_load_changed(struct cloud *c, int64_t since, struct error *e);
/* Cut off where it does not fit. */
void memory_copy_text(char *to, size_t size, struct str from);
void memory_free(struct cloud *c);
struct tenant *memory_tenant(struct cloud *c,
                             struct str name); /* under the lock, or on the writer's thread */
/* The same, or ERR_NOT_FOUND, which names the argument that the name came by. */
int memory_need_tenant(struct cloud *c, struct str name, const char *argument, struct tenant **out,
                       struct error *e);
struct tenant *memory_tenant_of(struct cloud *c, int64_t id); /* the same */
int memory_add_tenant(struct cloud *c, const struct tenant *t, struct error *e);
struct key *memory_key(struct cloud *c, int64_t id);
struct key *memory_key_of(struct cloud *c, const struct tenant *t,
                          int64_t id); /* NULL: it is not that tenant's */
int memory_add_key(struct cloud *c, const struct key *k, struct error *e);

/* ---- idempotency.c: on the writer's thread ---- */
int answer_write_running(struct store *s, const struct hold *h, struct error *e);
/* The same where another node may have taken the key meanwhile; *taken says so. */
int answer_try_running(struct store *s, const struct hold *h, bool *taken, struct error *e);
int answer_write_end(struct store *s, const struct hold *h, struct error *e);
/* A crash cut the request off: its key is spent when anything is charged, else it is free again. */
int answer_recover(struct store *s, struct str request, bool charged, struct error *e);
int find_run(struct store *s, struct entry *entry, struct error *e);
void find_done(struct cloud *c, struct entry *entry, bool durable);
void answer_give_back(struct cloud *c, struct answer *a, bool durable);

/* ---- price.c ---- */
int price_load(struct cloud *c, struct error *e);
void price_free(struct cloud *c);
bool price_known(struct cloud *c, struct str model); /* under the lock, as the next */
/* What holds at `now` for a tenant of that currency: the price version's number, its prices and the rate. 0: there is none, all is for nothing, which is logged once. */
int64_t price_find(struct cloud *c, struct str model, const char *currency, int64_t now, struct tariff *out);
extern const struct operation_row price_operations[];

/* ---- shared.c: several nodes on the same books; without them (c->shared is NULL) nothing of it does anything ---- */
int shared_create(struct cloud *c, struct error *e);
int shared_join(struct cloud *c, struct error *e); /* in the transaction that has loaded the mirror */
void shared_leave(struct cloud *c);                /* once the writer has ended */
const char *shared_node(const struct cloud *c);    /* whose a request is; "" */
int64_t shared_fence(const struct cloud *c);
/* In a transaction that has begun: the mirror gets what others' turns have changed. */
int shared_refresh(struct cloud *c, struct error *e);
void shared_committed(struct cloud *c);
void shared_was_away(struct cloud *c);
/* This transaction changes a tenant (its keys, its limits), or, where t is NULL, something else that nodes keep in mind; prices or rates. */
int shared_changed(struct cloud *c, const struct tenant *t, struct error *e);
int shared_changed_prices(struct cloud *c, struct error *e);
bool shared_due(const struct cloud *c);
int shared_tick(struct cloud *c, struct error *e); /* in a transaction, every second */
/* What a node that is gone had open is settled for what was sent. */
int shared_settle_node(struct cloud *c, const char *name, struct error *e);
extern const struct operation_row shared_operations[];

/* ---- journal.c: the writer ---- */
/* A transaction of the books, and its end with what the group comes to; or nothing of it, in memory neither. */
int journal_begin(struct cloud *c, struct error *e);
int journal_commit(struct cloud *c, struct error *e);
void journal_rollback(struct cloud *c);
int journal_start(struct cloud *c, struct error *e);
void journal_stop(struct cloud *c);
void journal_put(struct cloud *c, struct entry *entry); /* under the lock; once until written */
/* On the writer's thread: there is something that expires then. 0: never. */
void journal_expire_at(struct cloud *c, int64_t at);
int journal_call(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e), void *context,
                 struct error *e);
/* The same, of what changes nothing in memory, and may be done or not when the database goes in its commit: the money path does not stop for it. */
int journal_call_harmless(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e),
                          void *context, struct error *e);
/* The same between transactions. */
int journal_call_between(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e),
                         void *context, struct error *e);

struct hold *journal_hold(struct entry *entry); /* whose entry it is */
/* One transaction: entries, and what was sent of the holds that are behind. */
int journal_write(struct cloud *c, struct entry *group, struct hold *behind, struct error *e);

/* ---- away.c: the database's server is gone, on the writer's thread ---- */
/* The group could not be written (why), or it is not known whether it was: it is kept. An error: of the spool. */
int away_begin(struct cloud *c, struct entry *group, const struct error *why, struct error *e);
int away_keep(struct cloud *c, struct entry *group, struct error *e); /* a further one */
int away_try(struct cloud *c, struct error *e);                       /* is it back? Then all is written */
void away_end(struct cloud *c);                                       /* what is kept stays in the spool */
/* At the start: what the spool of a server that ended then says. */
int away_recover(struct cloud *c, struct error *e);

/* ---- settle.c: a group's entries, on the writer's thread ---- */
int settle_hold(struct cloud *c, struct hold *h, struct error *e);
int settle_sent(struct cloud *c, const struct hold *h, struct error *e);
int settle_charge(struct cloud *c, struct hold *h, struct error *e);
int settle_left_open(struct cloud *c, struct hold *h, struct error *e); /* by a crash */
int settle_group(struct cloud *c, struct error *e); /* before the commit: the accounts and the usage */
void settle_done(struct cloud *c);                  /* it is committed */
void settle_undo(struct cloud *c); /* the transaction was not to be: forget what the group came to */
void settle_free(struct cloud *c);

/* ---- recover.c ---- */
/* At the start: settle what a crash left open. */
int recover_open(struct cloud *c, struct error *e);
/* In a transaction: what is open of a node (NULL: of all), or the one request of that id. *n counts them. */
int recover_requests(struct cloud *c, const char *node, const char *id, int *n, struct error *e);

/* ---- usage.c ---- */
bool usage_due(const struct usage_record *u);                               /* is the prompt to be paid? */
bool usage_same(const struct usage_sum *sum, const struct usage_record *u); /* does it count there? */
int usage_add(struct usage_sum *sum, const struct usage_record *u, struct error *e);
/* Add to the day's row of the ledger's period. */
int usage_write(struct ledger *l, int64_t tenant, const struct usage_sum *sum, int64_t at, struct error *e);

/* ---- cloud.c: for every kind of key, under the lock ---- */
/* key: where the valid key that was given was used from; NULL: it was none. ERR_AUTH; ERR_BUSY: where too many failed, a key that is new there is refused whether it is
 * valid or not, so that a guess tells nothing; one that was used from there before goes on, so that nobody is locked out by a neighbour. */
int cloud_admit_attempt(struct cloud *c, struct seen *key, const struct address *from, struct error *e);

/* ---- access.c ---- */
struct actor;
int access_load(struct cloud *c, struct error *e); /* again: what another node changed */
void access_free(struct cloud *c);
/* On the writer's thread, in its transaction: whether the actor's key is still valid; what it did. */
int access_check(struct cloud *c, const struct actor *who, struct error *e);
int access_audit(struct cloud *c, const struct actor *who, const struct json *request, const char *outcome,
                 struct error *e);

/* ---- admin.c: the operations behind the commands ---- */
/* The operations of a room above, before the first is run; the same table again changes nothing. A row whose name is NULL ends it. */
void admin_add(const struct operation_row *rows);
/* For an operation that is a part of another, in the same transaction; NULL: there is none. */
const struct operation_row *admin_find(struct str name);
/* request: {"op": "tenant.create", ...}, of a command on this machine. Appends one JSON value. */
/* A list as a JSON array, whether it came as one or as text with commas: of texts, or of whole numbers where `numbers`. */
int args_list(const struct json *v, const char *name, bool numbers, struct buf *array, struct error *e);
int admin_run(struct cloud *c, const struct json *request, struct buf *out, struct error *e);

/* ---- limit_admin.c: limits as rows, and the operations on them ---- */
int limit_load(struct cloud *c, struct error *e); /* once tenants and keys are there */
/* The limits of the tenants that a turn after `since` has changed, and the zone. */
int limit_load_changed(struct cloud *c, int64_t since, struct error *e);
/* What is used of limits, as rows: those of turns after `since`; one of the present turn. key 0: the tenant's own. */
int limit_load_used(struct cloud *c, int64_t since, struct error *e);
int limit_write_used(struct cloud *c, int64_t tenant, int64_t key, const struct used *u, struct error *e);
extern const struct operation_row limit_operations[];

/* ---- ledger_admin.c ---- */
extern const struct operation_row ledger_operations[];
/* What is pending and over by now gives back what it set aside, a thousand at a time; *next: when the next one is over. */
int ledger_expire(struct cloud *c, int64_t now, int64_t *next, struct error *e);

/* ---- backup.c: copies of the books ---- */
extern const struct operation_row backup_operations[];

/* ---- cloud.c: where the books of a data folder are ---- */
int cloud_lock(const char *folder, int *fd,
               struct error *e);             /* held until fd is closed. ERR_CONFLICT: by another one */
int cloud_is_away(struct error *e);          /* ERR_UNAVAILABLE */
const char *cloud_where(const char *folder); /* for store_open */

/* ---- webhook.c ---- */
extern const struct operation_row webhook_operations[];

/* ---- warn.c: on the writer's thread, in its transaction ---- */
/* An event's data: {"tenant","currency" of it, and ,"name":"1.5" */
void warn_begin(struct buf *data, const struct tenant *t);
void warn_amount(struct buf *data, const char *name, amount value);
int warn_settled(struct cloud *c, const struct hold *h, struct error *e);
/* name: what makes this time another one than the last. */
int warn_credit(struct cloud *c, const struct tenant *t, amount left, const char *name, struct error *e);
int warn_set(struct cloud *c, const struct tenant *t, const struct key *k, const struct limited *who,
             struct error *e);

/* ---- control.c ---- */
/* Tell whoever asked for the operation that this thread runs how far it is. */
void control_tell(void *context, int64_t done, int64_t total);
int control_start(struct cloud *c, struct error *e);
void control_stop(struct cloud *c);

#endif
