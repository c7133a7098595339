/* Refusals for want of money, told to webhooks once a period and limit; see refusal.h. The road of a request that is refused never waits for any of this: it compares two numbers in memory, and what is
 * new is queued there until the courier's thread has the writer put it into the books. Under the same name it is there once, whatever ran before or runs beside. */
#include "cloud/refusal.h"

#include "cloud/inner.h"
#include "cloud/webhook.h"

#include <stdio.h>
#include <stdlib.h>

struct refused {
    struct refusal refusal;
    struct refused *next;
};

/* ---- which ---- */

static bool find_spend(const struct limited *who, int64_t key, const struct limit_ask *ask,
                       struct refusal *out) {
    for (int of_month = 0; of_month < 2; of_month++) {
        const struct spent *s = of_month ? who->used.month : who->used.day;
        money_wide left = limits_left(who, of_month);
        if (ask->worst <= left)
            continue;
        *out = (struct refusal){.by = of_month ? REFUSED_BY_MONTH : REFUSED_BY_DAY,
                                .key = key,
                                .period = s->period,
                                .limit = of_month ? who->limits.spend_month : who->limits.spend_day,
                                .spent = s->value,
                                .left = left > 0 ? (amount)left : 0};
        return true;
    }
    return false;
}

/* In the order in which limits are checked. */
void refusal_find(const struct tenant *t, const struct key *k, const struct limit_ask *ask,
                  struct refusal *out) {
    if ((k == NULL || !find_spend(&k->limited, k->id, ask, out)) && !find_spend(&t->limited, 0, ask, out)) {
        money_wide left = (money_wide)t->balance + t->line - t->held;
        *out = (struct refusal){.by = REFUSED_BY_CREDIT,
                                .period = t->limited.used.day[0].period,
                                .limit = t->line,
                                .spent = t->balance,
                                .left = left > INT64_MAX ? INT64_MAX
                                        : left > 0       ? (amount)left
                                                         : 0};
    }
    out->tenant = t->id;
    out->asked = ask->worst;
    out->wall = ask->wall;
}

/* ---- once ---- */

/* Under the lock: it is the first of its period and limit. */
static bool is_new(struct cloud *c, const struct refusal *r) {
    struct tenant *t = memory_tenant_of(c, r->tenant);
    struct key *k = r->key != 0 ? memory_key(c, r->key) : NULL;
    if (t == NULL || r->by == REFUSED_NOT || (r->key != 0 && k == NULL))
        return false;
    struct told *told = k != NULL ? &k->told[r->by] : &t->told[r->by];
    if (told->period == r->period && told->limit == r->limit)
        return false;
    *told = (struct told){r->period, r->limit};
    return true;
}

bool refusal_note(struct cloud *c, const struct refusal *r) {
    struct refused *new = is_new(c, r) ? malloc(sizeof *new) : NULL;
    if (new == NULL)
        return false;
    *new = (struct refused){*r, c->refused};
    c->refused = new;
    return true;
}

/* ---- into the books ---- */

struct refused *refusals_take(struct cloud *c) {
    pthread_mutex_lock(&c->lock);
    struct refused *list = c->refused;
    c->refused = NULL;
    pthread_mutex_unlock(&c->lock);
    return list;
}

void refusals_put_back(struct cloud *c, struct refused *list) {
    struct refused **last = &list;
    while (*last != NULL)
        last = &(*last)->next;
    pthread_mutex_lock(&c->lock);
    *last = c->refused;
    c->refused = list;
    pthread_mutex_unlock(&c->lock);
}

void refusals_free(struct refused *list) {
    for (struct refused *next; list != NULL; list = next) {
        next = list->next;
        free(list);
    }
}

static void write_period(char period[CALENDAR_DAY], const struct refusal *r, int64_t zone) {
    if (r->by == REFUSED_BY_MONTH)
        calendar_month(period, r->wall, zone);
    else
        calendar_day(period, r->wall, zone);
}

static int write_one(struct cloud *c, const struct refusal *r, struct error *e) {
    bool credit = r->by == REFUSED_BY_CREDIT;
    const char *kind = credit ? "credit.exhausted" : "spend.limit_reached";
    const struct tenant *t = memory_tenant_of(c, r->tenant);
    char event[160], period[CALENDAR_DAY];
    struct buf data = {0};
    if (t == NULL)
        return 0;
    write_period(period, r, c->zone);
    snprintf(event, sizeof event, "%s:%lld:%lld:%s:%lld", kind, (long long)r->tenant, (long long)r->key,
             period, (long long)r->limit);
    warn_begin(&data, t);
    if (r->key != 0)
        buf_printf(&data, ",\"key\":%lld", (long long)r->key);
    buf_printf(&data, ",\"period\":\"%s\"", period);
    warn_amount(&data, credit ? "credit_line" : "limit", r->limit);
    warn_amount(&data, credit ? "balance" : "spent", r->spent);
    warn_amount(&data, "left", r->left);
    warn_amount(&data, "asked", r->asked);
    buf_byte(&data, '}');
    int rc = webhook_emit(c, kind, r->tenant, event, buf_view(&data), e);
    buf_free(&data);
    return rc;
}

int refusals_write(struct cloud *c, void *list, struct error *e) {
    int rc = 0;
    for (const struct refused *i = list; rc == 0 && i != NULL; i = i->next)
        rc = write_one(c, &i->refusal, e);
    return rc;
}
