/* Books of several months; see months.h. */
#include "../unit/books_request.h"

#include "months.h"

#include "base/clock.h"
#include "base/json.h"
#include "cloud/bill/bill.h"
#include "cloud/control.h"
#include "cloud/inner.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t months_now = 1704888000000000000;

int64_t clock_wall_ns(void) {
    return months_now;
}

int64_t clock_mono_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

void months_at(const char *time) {
    months_now = time_read(str_from(time));
}

static void die(const char *what, const struct error *e) {
    fprintf(stderr, "%s: %s\n", what, e->text);
    abort();
}

const char *months_ask(const char *folder, const char *format, ...) {
    static struct buf answer;
    static char request[20000];
    struct error e = {0};
    va_list args;
    va_start(args, format);
    vsnprintf(request, sizeof request, format, args);
    va_end(args);
    buf_clear(&answer);
    if (control_call(folder, str_from(request), &answer, &e) != 0)
        die(request, &e);
    return answer.p;
}

static uint64_t state; /* xorshift64 */
static int number;     /* of requests */

static uint64_t drawn(uint64_t below) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % below;
}

static void request(struct cloud *c, int64_t tenant, const char *model) {
    struct identity who = {.tenant = tenant, .key = tenant, .account = (uint64_t)tenant, .weight = 1};
    uint64_t prompt = 1 + drawn(4000), most = 1 + drawn(900);
    struct admission a = {
        .who = &who, .model = str_from(model), .prompt_tokens = prompt, .max_completion_tokens = most};
    struct settlement s = {.cached_tokens = drawn(3) ? 0 : drawn(prompt),
                           .completion_tokens = drawn(most + 1),
                           .chip_ns = 1000000,
                           .first_token_ns = 1,
                           .total_ns = 2};
    struct hold *h;
    struct error e = {0};
    snprintf(a.request_id, sizeof a.request_id, "r-%d", ++number);
    s.outcome = drawn(10) ? OUTCOME_DONE : OUTCOME_CANCELLED;
    if (drawn(20) == 0) /* nothing came */
        s = (struct settlement){.outcome = OUTCOME_FAILED};
    if (books_admit(c, &a, &h, &e) != 0)
        die("a request", &e);
    cloud_settle(h, &s);
}

/* models: how many of the list below take part. */
static void requests(const char *folder, int n, const char *time, int models) {
    static const char *const model[] = {"small", "small", "large <b>&", "foreign"};
    struct cloud *c;
    struct error e = {0};
    months_at(time);
    if (cloud_open(&c, folder, NULL, NULL, &e) != 0)
        die("open", &e);
    for (int i = 0; i < n; i++) {
        int64_t tenant = 1 + (int64_t)drawn(2);
        request(c, tenant, model[drawn((uint64_t)models)]);
    }
    cloud_close(c);
}

/* A request that is taken back, a kindness, a charge by hand. */
static void transfers(const char *folder) {
    months_at("2024-02-20T03:00:00Z");
    months_ask(folder,
               "{\"op\":\"ledger.reverse\",\"transfer\":\"settle:r-9\",\"reason\":\"wrong model <served>\"}");
    months_ask(folder, "{\"op\":\"ledger.transfer\",\"transfer\":\"goodwill-1\",\"debit\":\"revenue:JPY\","
                       "\"credit\":\"tenant:acme\",\"amount\":\"1.500000001\",\"note\":\"for the outage\"}");
    months_ask(folder, "{\"op\":\"ledger.transfer\",\"transfer\":\"set-up\",\"debit\":\"tenant:euro\","
                       "\"credit\":\"revenue:EUR\",\"amount\":\"2.505\",\"note\":\"set-up\"}");
    /* Set aside and given back: on no bill. */
    months_ask(folder, "{\"op\":\"ledger.transfer\",\"transfer\":\"deposit\",\"debit\":\"tenant:euro\","
                       "\"credit\":\"revenue:EUR\",\"amount\":\"7\",\"pending\":true}");
    months_ask(folder, "{\"op\":\"ledger.void\",\"transfer\":\"transfer:deposit\"}");
    /* Set aside, and a part of it taken. */
    months_ask(folder, "{\"op\":\"ledger.transfer\",\"transfer\":\"support\",\"debit\":\"tenant:euro\","
                       "\"credit\":\"revenue:EUR\",\"amount\":\"7\",\"pending\":true}");
    months_ask(folder, "{\"op\":\"ledger.post\",\"transfer\":\"transfer:support\",\"amount\":\"3.25\"}");
}

static int64_t run(const char *folder, const char *sql) {
    const char *url = getenv("UNKAI_DB");
    struct store *s;
    struct query *q;
    struct error e = {0};
    int64_t number = 0;
    int rc = store_open(&s, url != NULL ? url : folder, &e);
    if (rc == 0 && (rc = store_begin(s, &e)) == 0 && (rc = store_query(s, &q, sql, &e)) == 0 &&
        (rc = query_step(q, &e)) > 0) {
        number = query_column_int(q, 0);
        rc = query_run(q, &e);
    }
    if (rc != 0 || store_commit(s, &e) != 0)
        die(sql, &e);
    store_close(s);
    return number;
}

void months_sql(const char *folder, const char *sql) {
    run(folder, sql);
}

int64_t months_number(const char *folder, const char *sql) {
    return run(folder, sql);
}

void months_make(const char *folder) {
    state = 88172645463325252;
    number = 0;
    months_at("2024-01-05T00:00:00Z");
    months_ask(folder, "{\"op\":\"ledger.zone\",\"zone\":\"+09:00\"}");
    months_ask(folder,
               "{\"op\":\"tenant.create\",\"name\":\"acme\",\"currency\":\"JPY\",\"credit\":\"5000\"}");
    months_ask(folder,
               "{\"op\":\"tenant.create\",\"name\":\"euro\",\"currency\":\"EUR\",\"credit\":\"400.5\"}");
    months_ask(folder, "{\"op\":\"tenant.create\",\"name\":\"idle\",\"currency\":\"JPY\",\"credit\":\"1\"}");
    for (int i = 0; i < 2; i++) {
        const char *currency = i ? "EUR" : "JPY", *tenth = i ? "0" : "1";
        months_ask(folder, "{\"op\":\"key.create\",\"tenant\":\"%s\",\"name\":\"main\"}",
                   i ? "euro" : "acme");
        months_ask(folder,
                   "{\"op\":\"price.set\",\"model\":\"small\",\"currency\":\"%s\",\"input\":\"%s5.000001\","
                   "\"cached\":\"%s1.5\",\"output\":\"%s60.00037\"}",
                   currency, tenth, tenth, tenth);
        months_ask(
            folder,
            "{\"op\":\"price.set\",\"model\":\"large "
            "<b>&\",\"currency\":\"%s\",\"input\":\"%s50.333333\",\"cached\":\"%s5\",\"output\":\"%s600.7\"}",
            currency, tenth, tenth, tenth);
    }
    requests(folder, 400, "2024-01-10T12:00:00Z", 3);
    requests(folder, 250, "2024-01-20T22:00:00Z", 3);
    requests(folder, 150, "2024-01-31T15:30:00Z", 3); /* February in Tokyo */
    months_ask(folder, "{\"op\":\"price.set\",\"model\":\"small\",\"currency\":\"JPY\",\"input\":\"14\","
                       "\"cached\":\"1\",\"output\":\"50\"}");
    months_ask(folder,
               "{\"op\":\"tenant.credit\",\"name\":\"acme\",\"amount\":\"100\",\"payment\":\"topup\"}");
    months_ask(folder, "{\"op\":\"price.set\",\"model\":\"foreign\",\"currency\":\"USD\",\"input\":\"0.15\","
                       "\"cached\":\"0.0375\",\"output\":\"0.6\"}");
    months_ask(folder, "{\"op\":\"price.rate\",\"base\":\"USD\",\"quote\":\"JPY\",\"rate\":\"150.25\"}");
    months_ask(folder, "{\"op\":\"price.rate\",\"base\":\"USD\",\"quote\":\"EUR\",\"rate\":\"0.923456789\"}");
    requests(folder, 600, "2024-02-15T01:00:00Z", 4);
    transfers(folder);
    months_at("2024-03-01T00:00:00Z");
    months_ask(folder,
               "{\"op\":\"price.rate\",\"base\":\"USD\",\"quote\":\"JPY\",\"rate\":\"149.000000001\"}");
    requests(folder, 300, "2024-03-02T12:00:00Z", 4);
}

void months_make_owing(const char *folder) {
    months_make(folder);
    months_ask(folder, "{\"op\":\"tenant.set\",\"name\":\"acme\",\"line\":\"50000\"}");
    months_at("2024-03-20T00:00:00Z");
    months_ask(folder, "{\"op\":\"ledger.transfer\",\"transfer\":\"training\",\"debit\":\"tenant:acme\","
                       "\"credit\":\"revenue:JPY\",\"amount\":\"9000.75\",\"note\":\"training\"}");
}
