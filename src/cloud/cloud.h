/* The books as the gateway and the commands see them: who is asking, may they, what does it cost, what was delivered.
 * Money: amounts are integers of 10^-9 of a currency, prices integers of 10^-12 of the currency a token; never floating point.
 *
 * A struct cloud owns the one connection that writes, in a thread of its own that commits in groups; the calls a request makes touch memory only and never wait
 * for the disk. All calls are thread-safe. */
#ifndef CLOUD_CLOUD_H
#define CLOUD_CLOUD_H

#include "base/address.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"

#include <stdint.h>

typedef int64_t amount; /* 10^-9 of a currency */
typedef int64_t price;  /* 10^-12 of a currency a token */

struct cloud;

/* Open (and migrate) the books in `folder` (SQLite file books.db and the secret of the key hashes), take the folder's lock, and recover: every hold left open by
 * a crash is settled for what its journal says was sent. on_durable (may be NULL) is called from the writer's thread after each group
 * commit: requests that waited in cloud_may_send may go on. ERR_CONFLICT: another process has the books open; it answers on its control socket
 * (see cloud/control.h). */
int cloud_open(struct cloud **out, const char *folder, void (*on_durable)(void *context), void *context,
               struct error *e);
void cloud_close(struct cloud *c); /* writes what is queued, checkpoints */

/* Who asks. */
struct identity {
    int64_t tenant, key;
    uint64_t account; /* for the engine: fair share and prefix sharing */
    uint32_t weight;
    char tenant_name[64];
};
/* token: what follows "Bearer "; from: where the request came from, all 0 when nobody knows. ERR_AUTH: it is no valid key; ERR_DENIED: not from there; ERR_BUSY: too many
 * were wrong from there (wait_ns), and this one has not been used from there before. Constant time in the secret; memory only. */
int cloud_authenticate(struct cloud *c, struct str token, const struct address *from, struct identity *out,
                       struct error *e);

/* Make sure the model has a price version (price 0 with a warning in the log when nobody set one). */
int cloud_know_model(struct cloud *c, const char *model, struct error *e);

/* ---- Idempotency-Key: under one key of a tenant one request at most is charged, and its answer is kept for those that ask again (docs/books.md) ---- */

enum { ANSWER_DAYS = 32 };

/* What stands under a key, if not the HTTP status of an answer that is kept. */
enum answer_status {
    ANSWER_NONE = -1,   /* nothing: the key is new, or what ran under it was charged for nothing */
    ANSWER_RUNNING = 0, /* a request that has not ended */
    ANSWER_SPENT = 1    /* it was charged for what was sent, and there is no whole answer */
};

/* A key and what stands under it. The caller's, but the books' from cloud_find_answer, and from cloud_settle of a hold that was admitted with it, until
 * cloud_take_answer gives it back. */
struct answer {
    int64_t tenant;
    struct hash key,
        body;   /* of the key; of all that makes a request another one: where something is found, its own */
    int status; /* an enum answer_status, or of HTTP */
    char type[48]; /* of the content */
    struct buf bytes;
    int rc; /* ERR_UNAVAILABLE: the books could not be read, or written */
    void *user;
    struct answer *next; /* of those that the books give back */
};
void answer_free(struct answer *a);
/* Have the books look what stands under the key. Does not wait: on_durable tells that cloud_take_answer has something. */
int cloud_find_answer(struct cloud *c, struct answer *a, struct error *e);
/* The next one that was found, or written by a settlement; NULL: no more. */
struct answer *cloud_take_answer(struct cloud *c);

/* ---- a request ---- */

struct hold; /* credit set aside for one request (all of its choices) */

/* What is left of a limit a minute; limit 0: there is none. */
struct rate {
    int64_t limit, remaining, full_ns; /* full_ns: until all of it is left again */
};
struct rates {
    struct rate requests, tokens;
};

struct admission {
    const struct identity *who;
    struct str model;
    struct str route;               /* how it came here, for its record: below 32 bytes */
    char request_id[64];            /* made by the server, unique: the transfer's id derives from it */
    uint64_t prompt_tokens;         /* counted once even with several choices */
    uint64_t max_completion_tokens; /* of all choices together */
    uint64_t
        least_completion_tokens; /* 0: all of them or none; else half of them, and half of that, down to so many, where less is left */
    struct address address; /* that it came from */
    struct answer
        *answer; /* NULL, or the key it runs under, which the hold and the settlement write with themselves */
    struct rates
        *rates; /* NULL, or gets what is left for minutes, of tenant and key the less, when it is refused */
};
/* Ask for a hold for the worst case at the price of now; cloud_granted says whether it is there. ERR_CREDIT: a prepaid tenant has too little left (text says how much is
 * missing); ERR_BUSY: over the tenant's limit of concurrent requests or holds. The hold is queued for the journal before this returns. */
int cloud_admit(struct cloud *c, const struct admission *a, struct hold **out, struct error *e);
/* Where other nodes share the books, it is decided with the next transaction. 1: not yet, on_durable tells when to ask again; 0: it is granted, of `most` completion tokens; else it
 * is refused as above, and *hold is NULL. rates, most: may be NULL. */
int cloud_granted(struct hold **hold, struct rates *rates, uint64_t *most, struct error *e);

/* How many completion tokens of the hold may have been sent to the socket by now: what the durable journal says plus 32. Of a hold that is not durable
 * itself that is 32, or 0 when a thousand others were not when it was placed. */
uint64_t cloud_may_send(struct hold *h);
/* The socket has taken `tokens` completion tokens in all (and with the first of them the prompt is due: prompt_tokens, of which cached came from the prefix cache). Journalled at the
 * latest every 32 tokens. */
void cloud_sent(struct hold *h, uint64_t tokens, uint64_t cached_prompt_tokens);

enum outcome { OUTCOME_DONE, OUTCOME_CANCELLED, OUTCOME_FAILED };
struct settlement {
    uint64_t cached_tokens;     /* of the prompt */
    uint64_t completion_tokens; /* that the socket took */
    int64_t chip_ns, first_token_ns, total_ns;
    int64_t prefill_ns; /* of chip_ns, what went before the first tokens */
    enum outcome outcome;
};
/* Charge what was delivered (the prompt with the first token, or with an answer that was done without one), give the rest back, write the usage record; frees the hold, which is granted. What the status of the
 * hold's answer says is written in the same transaction. */
void cloud_settle(struct hold *h, const struct settlement *s);

/* The database has failed: nothing is admitted, and no hold becomes durable any more, until the process is started again. */
bool cloud_stopped(struct cloud *c, struct error *why);
/* The database's server is gone for now: what runs goes on, nothing is admitted (ERR_UNAVAILABLE). */
bool cloud_away(struct cloud *c);

/* Send webhooks that are due from now on until cloud_close, in a thread of its own (docs/limits.md). within: also to addresses that are not public. */
int cloud_send_webhooks(struct cloud *c, bool within, struct error *e);

/* For /metrics. */
struct cloud_stats {
    uint64_t admitted, settled, refused_credit, refused_auth, refused_limit, commits, queue;
    uint64_t open_holds;
};
void cloud_stats(struct cloud *c, struct cloud_stats *out);

#endif
