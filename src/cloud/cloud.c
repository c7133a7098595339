/* The books as requests meet them: who is asking, a hold, what was sent, a settlement; memory only, the journal follows. See cloud.h. On the request's journey:
 * between the gateway and the engine, and last of all. */
#include "cloud/inner.h"
#include "cloud/refusal.h"
#include "cloud/webhook.h"

#include "base/clock.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum {
    UNJOURNALLED = 32,
    JOURNAL_EVERY = 8,
    AHEAD =
        1024 /* holds ahead of the disk whose first tokens may be sent: all that a disk that hangs can cost */
};

/* ---- opening ---- */

/* The secret of the key hashes, made at the first start. Written aside and renamed, so that a crash leaves a whole one or none. */
static int read_secret(struct cloud *c, struct error *e) {
    char path[4200], fresh[4200];
    snprintf(path, sizeof path, "%s/secret", c->folder);
    snprintf(fresh, sizeof fresh, "%s/secret.new", c->folder);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) {
        random_bytes(&c->secret, sizeof c->secret);
        fd = open(fresh, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (fd < 0 || write(fd, &c->secret, sizeof c->secret) != (ssize_t)sizeof c->secret ||
            fsync(fd) != 0 || rename(fresh, path) != 0) {
            if (fd >= 0)
                close(fd);
            return error_set(e, ERR_IO, "cannot write %.300s: %s", path, strerror(errno));
        }
        close(fd);
        return 0;
    }
    ssize_t n = fd < 0 ? -1 : read(fd, &c->secret, sizeof c->secret);
    if (fd >= 0)
        close(fd);
    return n == (ssize_t)sizeof c->secret
               ? 0
               : error_set(e, ERR_CORRUPT, "%.300s cannot be read or is damaged; no key works without it",
                           path);
}

int cloud_lock(const char *folder, int *fd, struct error *e) {
    char path[4200];
    snprintf(path, sizeof path, "%s/lock", folder);
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (*fd < 0)
        return error_set(e, ERR_IO, "cannot open %.300s: %s", path, strerror(errno));
    if (flock(*fd, LOCK_EX | LOCK_NB) != 0)
        return error_set(e, ERR_CONFLICT, "another unkai has the books in %.300s open", folder);
    return 0;
}

const char *cloud_where(const char *folder) {
    const char *url = getenv("UNKAI_DB");
    return url != NULL && *url != 0 ? url : folder;
}

/* The mirror, as of one moment. */
static int load(struct cloud *c, struct error *e) {
    int rc = ledger_begin(&c->ledger, e);
    if (rc == 0)
        rc = memory_load_changed(c, -1, e);
    if (rc == 0)
        rc = price_load(c, e);
    if (rc == 0)
        rc = limit_load(c, e);
    if (rc == 0)
        rc = access_load(c, e);
    if (rc == 0)
        rc = shared_join(c, e);
    if (rc == 0)
        rc = ledger_commit(&c->ledger, e);
    if (rc != 0)
        ledger_rollback(&c->ledger);
    else
        shared_committed(c);
    return rc;
}

static int open_books(struct cloud *c, struct error *e) {
    const char *where = cloud_where(c->folder);
    bool elsewhere = where != c->folder;
    if (elsewhere && !store_is_url(where))
        return error_set(e, ERR_INVALID, "UNKAI_DB is no address like postgresql://USER@HOST/DATABASE");
    int rc = store_open_shared(&c->store, where, e);
    c->ledger.store = c->store;
    if (rc == 0)
        rc = ledger_start(&c->ledger, e);
    if (rc == 0 && elsewhere)
        rc = shared_create(c, e);
    if (rc == 0)
        rc = load(c, e);
    if (rc == 0)
        rc = away_recover(c, e);
    if (rc == 0)
        rc = recover_open(c, e);
    if (rc != 0 && !elsewhere)
        error_prefix(e, "%.200s: ", c->folder);
    return rc;
}

int cloud_open(struct cloud **out, const char *folder, void (*on_durable)(void *context), void *context,
               struct error *e) {
    struct cloud *c = calloc(1, sizeof *c);
    pthread_condattr_t monotonic;
    int rc;
    *out = NULL;
    if (c == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the books");
    c->lock_file = -1;
    random_bytes(c->attempts.secret, sizeof c->attempts.secret);
    c->on_durable = on_durable;
    c->context = context;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    pthread_cond_init(&c->called, NULL);
    if ((size_t)snprintf(c->folder, sizeof c->folder, "%s", folder) >= sizeof c->folder)
        rc = error_set(e, ERR_INVALID, "the data folder's path is too long");
    else if ((rc = cloud_lock(c->folder, &c->lock_file, e)) == 0 && (rc = read_secret(c, e)) == 0 &&
             (rc = open_books(c, e)) == 0 && (rc = journal_start(c, e)) == 0)
        rc = control_start(c, e);
    if (rc != 0) {
        cloud_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void cloud_close(struct cloud *c) {
    if (c == NULL)
        return;
    control_stop(c);
    courier_stop(c);
    journal_stop(c);
    shared_leave(c);
    ledger_end(&c->ledger);
    settle_free(c);
    store_close(c->store);
    memory_free(c);
    for (struct answer *a; (a = cloud_take_answer(c)) != NULL;)
        answer_free(a);
    access_free(c);
    if (c->lock_file >= 0)
        close(c->lock_file);
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->wake);
    pthread_cond_destroy(&c->called);
    free(c);
}

/* ---- who ---- */

static bool valid(const struct key *k) {
    return !k->revoked && k->tenant->archived == 0 && (k->expires == 0 || clock_wall_ns() < k->expires);
}

static struct key *find_key(struct cloud *c, const struct hash *hash) {
    size_t bucket = (hash->byte[0] | hash->byte[1] << 8) % (sizeof c->keys / sizeof *c->keys);
    for (struct key *k = c->keys[bucket]; k != NULL; k = k->next)
        if (hash_equal(&k->hash, hash) && valid(k))
            return k;
    return NULL;
}

static bool seen_from(const struct seen *s, const struct address *source) {
    bool seen = false;
    for (size_t i = 0; s != NULL && i < sizeof s->from / sizeof *s->from; i++)
        seen = seen || memcmp(&s->from[i], source, sizeof *source) == 0;
    return seen;
}

int cloud_admit_attempt(struct cloud *c, struct seen *key, const struct address *from, struct error *e) {
    struct address source = attempt_source(from);
    char text[ADDRESS_TEXT_BYTES], again[DURATION_BYTES];
    int64_t now = clock_mono_ns();
    bool seen = seen_from(key, &source);
    int64_t wait = seen ? 0 : attempts_wait(&c->attempts, from, now);
    c->stats.refused_auth += key == NULL || wait > 0;
    if (wait > 0) {
        address_write(from, text);
        duration_write(again, wait);
        error_set(e, ERR_BUSY, "too many keys from %s were not valid; try again in %s", text, again);
        if (e != NULL)
            e->wait_ns = wait;
        return ERR_BUSY;
    }
    if (key == NULL) {
        attempts_failed(&c->attempts, from, now);
        return error_set(e, ERR_AUTH, "this is no valid key");
    }
    if (!seen && address_known(from)) {
        key->from[key->next] = source;
        key->next = (uint8_t)((key->next + 1) % (sizeof key->from / sizeof *key->from));
    }
    return 0;
}

int cloud_authenticate(struct cloud *c, struct str token, const struct address *from, struct identity *out,
                       struct error *e) {
    /* The hash is looked up, not the token: how long that takes tells nothing about a key. */
    struct hash hash = hash_hmac((struct str){(const char *)c->secret.byte, sizeof c->secret.byte},
                                 token.n <= 256 ? token : STR(""));
    pthread_mutex_lock(&c->lock);
    struct key *k = find_key(c, &hash);
    int rc = cloud_admit_attempt(c, k != NULL ? &k->seen : NULL, from, e);
    if (rc == 0)
        rc = limits_check_address(&k->tenant->limited, &k->limited, from, e);
    if (rc == 0) {
        *out = (struct identity){
            .tenant = k->tenant->id, .key = k->id, .account = (uint64_t)k->tenant->id, .weight = 1};
        memcpy(out->tenant_name, k->tenant->name, sizeof out->tenant_name);
    }
    pthread_mutex_unlock(&c->lock);
    return rc;
}

int cloud_know_model(struct cloud *c, const char *model, struct error *e) {
    if (strlen(model) >= MODEL_NAME_BYTES)
        return error_set(e, ERR_INVALID, "a model's name may have %d bytes", MODEL_NAME_BYTES - 1);
    pthread_mutex_lock(&c->lock);
    bool priced = price_known(c, str_from(model));
    pthread_mutex_unlock(&c->lock);
    if (!priced)
        log_warn("model %s has no price and is served for nothing; unkai price set %s ... sets one", model,
                 model);
    return 0;
}

/* ---- a request's money ---- */

static int refuse_credit(struct cloud *c, const struct tenant *t, money_wide worst, struct error *e) {
    struct buf text = {0};
    money_wide left = (money_wide)t->balance + t->line - t->held;
    amount available = left > INT64_MAX ? INT64_MAX : (amount)left;
    c->stats.refused_credit++;
    buf_text(&text, "this request may cost up to ");
    money_write(&text, worst > INT64_MAX ? INT64_MAX : (int64_t)worst, AMOUNT_DIGITS);
    buf_printf(&text, " %s and ", t->currency);
    money_write(&text, available, AMOUNT_DIGITS);
    buf_printf(&text, " %s are left; ask for fewer tokens or add credit", t->currency);
    error_write(e, ERR_CREDIT, "", "%s", text.p ? text.p : "not enough credit");
    buf_free(&text);
    return ERR_CREDIT;
}

/* All or nothing, of `most`. */
static int place(struct cloud *c, struct hold *h, int64_t now, struct refusal *refusal, struct error *e) {
    struct tenant *t = h->tenant;
    struct key *k = h->limited_key;
    /* Cached input may cost more than input in a strange price book: the worst case is the dearer one. */
    bool dear = h->tariff.cached > h->tariff.input;
    money_wide worst;
    if (!tariff_cost(&h->tariff, dear ? 0 : h->prompt, dear ? h->prompt : 0, h->most, &worst))
        return error_set(e, ERR_INVALID, "the request may cost more than can be counted");
    worst = (worst + AMOUNT_PARTS - 1) / AMOUNT_PARTS;
    struct limit_ask ask = {.model = str_from(h->model),
                            .from = h->from,
                            .tokens = (int64_t)(h->prompt + h->most),
                            .worst = worst > INT64_MAX ? INT64_MAX : (amount)worst,
                            .currency = t->currency,
                            .now = now,
                            .wall = h->at,
                            .zone = c->zone};
    struct limited *of_key = k != NULL ? &k->limited : NULL;
    int rc = k != NULL && !valid(k) ? error_set(e, ERR_AUTH, "this key is valid no longer")
             : t->closed            ? error_set(e, ERR_DENIED, "the tenant's account is closed")
                                    : limits_check(&t->limited, of_key, &ask, e);
    c->stats.refused_limit += rc != 0;
    if (rc == 0 && worst > 0 && worst > (money_wide)t->balance + t->line - t->held)
        rc = refuse_credit(c, t, worst, e);
    if (rc == ERR_CREDIT)
        refusal_find(t, k, &ask, refusal);
    if (rc != 0)
        return rc;
    limits_take(&t->limited, of_key, &ask);
    h->held = ask.worst;
    t->held += h->held;
    return 0;
}

int hold_decide(struct cloud *c, struct hold *h, struct error *e) {
    struct refusal refusal = {0};
    int64_t now = clock_mono_ns();
    int rc;
    h->price = price_find(c, str_from(h->model), h->tenant->currency, h->at, &h->tariff);
    for (;; h->most /= 2) {
        rc = place(c, h, now, &refusal, e);
        bool too_long = rc == ERR_CREDIT || (rc == ERR_BUSY && e->wait_ns < 0);
        if (!too_long || h->least == 0 || h->most / 2 < h->least)
            break;
    }
    limits_rates(&h->tenant->limited, h->limited_key != NULL ? &h->limited_key->limited : NULL, now,
                 &h->rates);
    h->told = rc == ERR_CREDIT && refusal_note(c, &refusal);
    return rc;
}

/* The same at once, where nobody else has these books. */
static int decide_now(struct cloud *c, struct hold *h, struct error *e) {
    struct error why = {0};
    int rc = hold_decide(c, h, &why);
    if (rc != 0) {
        if (e != NULL)
            *e = why;
        return rc;
    }
    c->stats.admitted++;
    c->stats.open_holds++;
    h->ahead = c->undurable < AHEAD;
    atomic_store(&h->verdict, HOLD_GRANTED);
    return 0;
}

void hold_refuse(struct hold *h, const struct error *why) {
    if (h->refusal == NULL && (h->refusal = malloc(sizeof *h->refusal)) != NULL)
        *h->refusal = *why;
    atomic_store(&h->verdict, HOLD_REFUSED);
}

int cloud_granted(struct hold **hold, struct rates *rates, uint64_t *most, struct error *e) {
    struct hold *h = *hold;
    int verdict = atomic_load(&h->verdict);
    if (verdict == HOLD_ASKED)
        return 1;
    if (rates != NULL)
        *rates = h->rates;
    if (most != NULL)
        *most = h->most;
    if (verdict == HOLD_GRANTED)
        return 0;
    struct error none = {.code = ERR_NO_MEMORY, .text = "no memory for a request"};
    struct error why = h->refusal != NULL ? *h->refusal : none;
    if (e != NULL)
        *e = why;
    free(h->refusal);
    free(h);
    *hold = NULL;
    return why.code;
}

/* Under the lock. */
static int stopped(const struct cloud *c, struct error *e) {
    return error_set(e, ERR_UNAVAILABLE, "the books have stopped: %s", c->why.text);
}

int cloud_is_away(struct error *e) {
    return error_set(e, ERR_UNAVAILABLE, "the books' database is away; try again in a moment");
}

bool cloud_away(struct cloud *c) {
    return atomic_load(&c->is_away);
}

bool cloud_stopped(struct cloud *c, struct error *why) {
    if (!atomic_load(&c->broken))
        return false;
    pthread_mutex_lock(&c->lock);
    stopped(c, why);
    pthread_mutex_unlock(&c->lock);
    return true;
}

int cloud_admit(struct cloud *c, const struct admission *a, struct hold **out, struct error *e) {
    *out = NULL;
    if (a->model.n >= MODEL_NAME_BYTES || a->prompt_tokens > INT32_MAX ||
        a->max_completion_tokens > INT32_MAX || a->route.n >= ROUTE_BYTES)
        return error_set(e, ERR_INVALID, "the request is too large to be counted");
    struct hold *h = calloc(1, sizeof *h);
    if (h == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a request");
    h->cloud = c;
    h->placed.kind = ENTRY_HOLD;
    h->journal.kind = ENTRY_SENT;
    h->settled.kind = ENTRY_SETTLE;
    h->key = a->who->key;
    h->at = clock_wall_ns();
    h->prompt = a->prompt_tokens;
    h->most = a->max_completion_tokens;
    h->least = a->least_completion_tokens;
    h->from = a->address;
    h->answer = a->answer;
    snprintf(h->node, sizeof h->node, "%s", shared_node(c));
    snprintf(h->id, sizeof h->id, "%s", a->request_id);
    memcpy(h->model, a->model.p, a->model.n);
    if (a->route.n > 0)
        memcpy(h->route, a->route.p, a->route.n);
    pthread_mutex_lock(&c->lock);
    h->tenant = memory_tenant_of(c, a->who->tenant);
    h->limited_key = memory_key_of(c, h->tenant, h->key);
    int rc = atomic_load(&c->broken)    ? stopped(c, e)
             : atomic_load(&c->is_away) ? cloud_is_away(e)
             : h->tenant == NULL        ? error_set(e, ERR_AUTH, "the tenant is gone")
             : c->shared == NULL        ? decide_now(c, h, e)
                                        : 0;
    bool told = h->told;
    if (rc == 0) {
        c->undurable++;
        h->fence = shared_fence(c);
        journal_put(c, &h->placed);
    }
    pthread_mutex_unlock(&c->lock);
    if (told)
        courier_ring(c);
    if (rc != 0) {
        if (a->rates != NULL)
            *a->rates = h->rates;
        free(h);
        return rc;
    }
    *out = h;
    return 0;
}

uint64_t cloud_may_send(struct hold *h) {
    return atomic_load(&h->durable) || h->ahead ? atomic_load(&h->durable_sent) + UNJOURNALLED : 0;
}

void cloud_sent(struct hold *h, uint64_t tokens, uint64_t cached_prompt_tokens) {
    struct cloud *c = h->cloud;
    pthread_mutex_lock(&c->lock);
    h->sent = tokens;
    h->cached = cached_prompt_tokens < h->prompt ? cached_prompt_tokens : h->prompt;
    /* The prompt is due with the first ones, however many come together. */
    uint64_t durable = atomic_load(&h->durable_sent);
    if (tokens >= durable + JOURNAL_EVERY || durable == 0)
        journal_put(c, &h->journal);
    pthread_mutex_unlock(&c->lock);
}

/* Under the lock: what its settlement comes to, within the hold; what is below 10^-9 stays for the next time. */
static void hold_charge(struct hold *h) {
    struct tenant *t = h->tenant;
    const struct settlement *s = &h->settlement;
    money_wide cost = 0;
    /* It fits: no more than the worst case, which did. */
    if (s->completion_tokens > 0 || s->outcome == OUTCOME_DONE)
        tariff_cost(&h->tariff, h->prompt - s->cached_tokens, s->cached_tokens, s->completion_tokens, &cost);
    cost += t->remainder;
    h->charge = cost / AMOUNT_PARTS > h->held ? h->held : (amount)(cost / AMOUNT_PARTS);
    h->remainder = t->remainder = (int64_t)(cost % AMOUNT_PARTS);
    t->balance -= h->charge;
    t->held -= h->held;
}

/* Under the lock, once the charge is known: what of it is to be told. */
static void find_warnings(struct hold *h) {
    const struct tenant *t = h->tenant;
    struct warning *w = &h->warning;
    amount low = t->limited.limits.credit_low;
    w->balance = t->balance;
    w->credit_low = t->balance < low && t->balance + h->charge >= low;
    w->any = w->credit_low || w->tenant.day.percent || w->tenant.month.percent || w->key.day.percent ||
             w->key.month.percent;
}

/* Under the lock: what was taken of the limits and not used is there again. */
static void give_back(struct cloud *c, struct hold *h) {
    const struct settlement *s = &h->settlement;
    bool due = s->completion_tokens > 0 || s->outcome == OUTCOME_DONE;
    struct limit_settle done = {.tokens = (int64_t)(h->prompt + h->most),
                                .used = due ? (int64_t)(h->prompt + s->completion_tokens) : 0,
                                .worst = h->held,
                                .charge = h->charge,
                                .now = clock_mono_ns(),
                                .wall = clock_wall_ns(),
                                .zone = c->zone};
    limits_settle(&h->tenant->limited, h->limited_key != NULL ? &h->limited_key->limited : NULL, &done,
                  &h->warning.tenant, &h->warning.key);
    find_warnings(h);
}

void hold_settle(struct cloud *c, struct hold *h) {
    hold_charge(h);
    give_back(c, h);
}

void hold_recover(struct cloud *c, struct hold *h) {
    if (c->shared != NULL) { /* others count it as running */
        hold_settle(c, h);
        return;
    }
    hold_charge(h);
    struct limit_settle done = {.charge = h->charge, .wall = c->now, .zone = c->zone};
    limits_charge(&h->tenant->limited, h->limited_key != NULL ? &h->limited_key->limited : NULL, &done,
                  &h->warning.tenant, &h->warning.key);
    find_warnings(h);
}

void cloud_settle(struct hold *h, const struct settlement *s) {
    struct cloud *c = h->cloud;
    pthread_mutex_lock(&c->lock);
    h->settlement = *s;
    if (h->settlement.cached_tokens > h->prompt)
        h->settlement.cached_tokens = h->prompt;
    if (h->settlement.completion_tokens > h->most)
        h->settlement.completion_tokens = h->most;
    if (c->shared == NULL)
        hold_settle(c, h);
    c->stats.settled++;
    c->stats.open_holds--;
    journal_put(c, &h->settled);
    pthread_mutex_unlock(&c->lock);
}

void cloud_stats(struct cloud *c, struct cloud_stats *out) {
    pthread_mutex_lock(&c->lock);
    *out = c->stats;
    pthread_mutex_unlock(&c->lock);
}
