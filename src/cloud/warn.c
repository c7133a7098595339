/* Warnings: a settlement that takes spend over a percent of its limit, or credit below what was set, is told to webhooks in the transaction that writes the settlement.
 * Whether it does is known from the amounts before and behind it, so nothing is kept about what was said; each has a name, under which it is sent once. */
#include "cloud/inner.h"
#include "cloud/webhook.h"

#include "base/clock.h"

#include <stdio.h>

/* ,"name":"1.5" */
void warn_amount(struct buf *out, const char *name, amount value) {
    buf_printf(out, ",\"%s\":\"", name);
    money_write(out, value, AMOUNT_DIGITS);
    buf_byte(out, '"');
}

void warn_begin(struct buf *data, const struct tenant *t) {
    buf_text(data, "{\"tenant\":");
    json_write_text(data, t->name);
    buf_printf(data, ",\"currency\":\"%s\"", t->currency);
}

static int emit_spend(struct cloud *c, const struct tenant *t, int64_t key, const struct limits *l,
                      bool of_month, const struct crossing *x, struct error *e) {
    amount limit = of_month ? l->spend_month : l->spend_day;
    char event[160], period[CALENDAR_DAY];
    struct buf data = {0};
    if (of_month)
        calendar_month(period, x->wall, c->zone);
    else
        calendar_day(period, x->wall, c->zone);
    snprintf(event, sizeof event, "spend.threshold:%lld:%lld:%s:%lld:%d", (long long)t->id, (long long)key,
             period, (long long)limit, x->percent);
    warn_begin(&data, t);
    if (key != 0)
        buf_printf(&data, ",\"key\":%lld", (long long)key);
    buf_printf(&data, ",\"period\":\"%s\",\"percent\":%d", period, x->percent);
    warn_amount(&data, "limit", limit);
    warn_amount(&data, "spent", x->spent);
    buf_byte(&data, '}');
    int rc = webhook_emit(c, "spend.threshold", t->id, event, buf_view(&data), e);
    buf_free(&data);
    return rc;
}

static int emit_limited(struct cloud *c, const struct tenant *t, int64_t key, const struct limited *who,
                        const struct crossings *x, struct error *e) {
    int rc = x->day.percent != 0 ? emit_spend(c, t, key, &who->limits, false, &x->day, e) : 0;
    return rc != 0 || x->month.percent == 0 ? rc : emit_spend(c, t, key, &who->limits, true, &x->month, e);
}

int warn_credit(struct cloud *c, const struct tenant *t, amount left, const char *name, struct error *e) {
    char event[120];
    struct buf data = {0};
    snprintf(event, sizeof event, "credit.low:%lld:%s", (long long)t->id, name);
    warn_begin(&data, t);
    warn_amount(&data, "threshold", t->limited.limits.credit_low);
    warn_amount(&data, "balance", left);
    buf_byte(&data, '}');
    int rc = webhook_emit(c, "credit.low", t->id, event, buf_view(&data), e);
    buf_free(&data);
    courier_ring(c);
    return rc;
}

int warn_settled(struct cloud *c, const struct hold *h, struct error *e) {
    const struct warning *w = &h->warning;
    int rc = emit_limited(c, h->tenant, 0, &h->tenant->limited, &w->tenant, e);
    if (rc == 0 && h->limited_key != NULL)
        rc = emit_limited(c, h->tenant, h->key, &h->limited_key->limited, &w->key, e);
    if (rc == 0 && w->credit_low)
        rc = warn_credit(c, h->tenant, w->balance, h->id, e);
    courier_ring(c);
    return rc;
}

/* A limit or a threshold was set: what it is below already is told at once. */
int warn_set(struct cloud *c, const struct tenant *t, const struct key *k, const struct limited *who,
             struct error *e) {
    struct crossings x = {0};
    char now[32];
    int64_t wall = clock_wall_ns();
    pthread_mutex_lock(&c->lock);
    limits_reached(who, wall, &x);
    amount balance = t->balance;
    pthread_mutex_unlock(&c->lock);
    int rc = emit_limited(c, t, k != NULL ? k->id : 0, who, &x, e);
    snprintf(now, sizeof now, "set:%lld", (long long)wall);
    if (rc == 0 && k == NULL && balance < who->limits.credit_low)
        rc = warn_credit(c, t, balance, now, e);
    courier_ring(c);
    return rc;
}
