/* Limits: buckets against a slow exact model and under clocks that jump, all or nothing, money a day and a month, and the same through the books with many
 * threads. */
#include "cloud/attempt.h"
#include "cloud/cloud.h"
#include "cloud/control.h"
#include "cloud/limit.h"

#include "base/clock.h"
#include "base/json.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_place.h"
#include "books_request.h"
#include "one_day.h"

static const struct address nowhere;

static const int64_t second = 1000000000, minute = 60000000000, hour = 3600000000000, day = 86400000000000;

/* ---- buckets ---- */

/* The textbook's bucket: a level that is refilled. Exact: in parts of a token, a minute's ns of them. What fits is taken. */
struct slow {
    money_wide level;
    int64_t at, takes;
};

/* The bucket of time rounds what a token is worth down to a ns: since so many takes it may be ahead by so many ns. */
static bool slow_take(struct slow *s, int64_t limit, int64_t n, int64_t now) {
    money_wide full = (money_wide)limit * minute;
    s->level += (money_wide)(now - s->at) * limit;
    s->at = now;
    if (s->level >= full) {
        s->level = full;
        s->takes = 0;
    }
    bool fits = s->level + (money_wide)s->takes * limit >= (money_wide)n * minute;
    s->level -= (money_wide)n * minute;
    s->takes++;
    return fits;
}

static void check_bucket(int64_t limit) {
    int64_t now = 12345, least = limit < 1000 ? 1 : limit / 1000, refused = 0;
    struct bucket b = {0};
    struct slow s = {.level = (money_wide)limit * minute, .at = now};
    /* A minute's worth at once, and not one more. */
    for (int64_t left = limit; left >= least; left -= least)
        assert_true(bucket_take(&b, limit, least, now) && slow_take(&s, limit, least, now));
    assert_false(bucket_take(&b, limit, least + limit % least, now));
    for (int k = 0; k < 20000; k++) {
        int64_t n = 1 + random() % (limit / 10 + 1), wait;
        now += random() % (minute / 20);
        wait = bucket_wait(&b, limit, n, now);
        assert_true(n > limit ? wait < 0 : wait >= 0);
        if (n > limit)
            continue;
        if (wait > 0) { /* it comes when it was said, and not before */
            refused++;
            assert_false(bucket_take(&b, limit, n, now + wait - 1));
            now += wait;
        }
        assert_true(bucket_take(&b, limit, n, now));
        assert_true(slow_take(&s, limit, n, now));
    }
    assert_true(refused > 1000);
}

static void test_bucket(void **state) {
    static const int64_t limits[] = {1, 3, 7, 60, 1000, 999983, LIMIT_MOST};
    struct bucket b = {0};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++)
        check_bucket(limits[i]);
    assert_int_equal(bucket_wait(&b, 10, 11, 5), -1);
}

/* Whatever the clock does: at most a full bucket, and never a frozen one. */
static void test_clock(void **state) {
    struct bucket b = {0};
    int64_t now = 100 * day;
    int got = 0;
    for (int i = 0; i < 20; i++)
        got += bucket_take(&b, 10, 1, now);
    assert_int_equal(got, 10);
    now += day;
    for (int i = 0; i < 20; i++)
        got += bucket_take(&b, 10, 1, now);
    assert_int_equal(got, 20);
    now -= 2 * day;
    assert_false(bucket_take(&b, 10, 1, now));
    assert_true(bucket_take(&b, 10, 1, now + 6 * second)); /* refills from there on */
    assert_false(bucket_take(&b, 10, 10, now + minute));
    assert_true(bucket_take(&b, 10, 10, now + minute + 6 * second));
    b.full = INT64_MAX / 2; /* a row that somebody else wrote */
    assert_false(bucket_take(&b, 10, 1, now));
    assert_true(bucket_take(&b, 10, 10, now + minute));
}

static void test_rows(void **state) {
    int64_t level, now = 5 * day, wall = 1000 * day;
    struct bucket b = {0}, other;
    assert_true(bucket_take(&b, 60, 30, now));
    bucket_write(&b, now, &level);
    assert_int_equal(level, 30 * second);
    other = bucket_read(level, wall, wall + 10 * second, 7);
    assert_int_equal(bucket_wait(&other, 60, 41, 7), second);
    other = bucket_read(level, wall, wall - hour, 7); /* written by a node whose clock is ahead */
    assert_int_equal(bucket_wait(&other, 60, 31, 7), second);
    other = bucket_read(level, wall, wall + hour, 7);
    assert_int_equal(bucket_wait(&other, 60, 60, 7), 0);
    other = bucket_read(INT64_MAX, INT64_MIN / 2, 0, 7);
    assert_true(bucket_wait(&other, 60, 60, 7) <= minute);
    other = bucket_read(-5, wall, wall, 7);
    assert_int_equal(bucket_wait(&other, 60, 60, 7), 0);
}

static void test_durations(void **state) {
    static const struct {
        int64_t ns;
        const char *text;
    } table[] = {{0, "0s"},
                 {-5, "0s"},
                 {1, "1ms"},
                 {120000000, "120ms"},
                 {999999999, "1s"},
                 {1000000000, "1s"},
                 {59700000000, "59.7s"},
                 {59999000001, "1m0s"},
                 {60000000000, "1m0s"},
                 {360000000000, "6m0s"},
                 {64200000000, "1m4.2s"},
                 {7660000000, "7.66s"},
                 {3600000000000, "1h0m0s"},
                 {3605001000000, "1h0m5.001s"}};
    char text[DURATION_BYTES];
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        duration_write(text, table[i].ns);
        assert_string_equal(text, table[i].text);
    }
}

/* ---- one request ---- */

static struct crossings crossed[2];

static struct limit_ask ask_for(int64_t tokens, amount worst, int64_t now) {
    return (struct limit_ask){.model = STR("m"),
                              .tokens = tokens,
                              .worst = worst,
                              .currency = "JPY",
                              .now = now,
                              .wall = 20000 * day + now};
}

static void test_all_or_nothing(void **state) {
    struct limited tenant = {.limits = {.requests_minute = 100, .tokens_minute = 1000, .concurrent = 50}};
    struct limited key = {.limits = {.requests_minute = 2, .tokens_minute = 5000, .spend_day = 100}};
    struct limit_ask ask = ask_for(400, 30, 7 * second);
    struct rates r;
    struct error e = {0};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(limits_check(&tenant, &key, &ask, &e), 0);
        limits_take(&tenant, &key, &ask);
    }
    limits_rates(&tenant, &key, ask.now, &r);
    assert_true(r.requests.limit == 2 && r.requests.remaining == 0 && r.requests.full_ns == minute);
    assert_true(r.tokens.limit == 1000 && r.tokens.remaining == 200 && r.tokens.full_ns == 48 * second);
    struct used before[2] = {tenant.used, key.used};
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), ERR_BUSY);
    assert_string_equal(e.param, "requests");
    assert_int_equal(e.wait_ns, 30 * second);
    key.limits.requests_minute = 0;
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), ERR_BUSY);
    assert_string_equal(e.param, "tokens");
    assert_int_equal(e.wait_ns, 12 * second);
    ask.tokens = 1001;
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), ERR_BUSY);
    assert_true(e.wait_ns < 0);
    ask.tokens = 1;
    ask.worst = 41;
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), ERR_CREDIT);
    assert_non_null(strstr(e.text, "begins at 2024-10-05T00:00:00Z"));
    assert_memory_equal(&before[0], &tenant.used, sizeof tenant.used);
    assert_memory_equal(&before[1], &key.used, sizeof key.used);
    /* What was not used comes back: of the first 400 tokens 100 and of 30 money 10 were due. */
    struct limit_settle s = {
        .tokens = 400, .used = 100, .worst = 30, .charge = 10, .now = ask.now, .wall = ask.wall};
    limits_settle(&tenant, &key, &s, &crossed[0], &crossed[1]);
    limits_rates(&tenant, &key, ask.now, &r);
    assert_int_equal(r.tokens.remaining, 500);
    ask.worst = 60;
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), 0);
    ask.worst = 61;
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), ERR_CREDIT);
    key.limits.concurrent = 1;
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), ERR_BUSY);
    limits_settle(&tenant, &key, &s, &crossed[0], &crossed[1]);
    ask.worst = 0; /* costs nothing: spend is no matter */
    assert_int_equal(limits_check(&tenant, &key, &ask, &e), 0);
    assert_int_equal(key.used.open, 0);
    assert_int_equal(key.used.held, 0);
}

static void spend(struct limited *who, int64_t wall, int64_t zone, amount charge) {
    struct limit_ask ask = {
        .model = STR("m"), .worst = charge, .currency = "JPY", .wall = wall, .zone = zone};
    struct limit_settle s = {.worst = charge, .charge = charge, .wall = wall, .zone = zone};
    limits_take(who, NULL, &ask);
    limits_settle(who, NULL, &s, &crossed[0], &crossed[1]);
}

static bool may_spend(struct limited *who, int64_t wall, int64_t zone, amount worst) {
    struct limit_ask ask = {.model = STR("m"), .worst = worst, .currency = "JPY", .wall = wall, .zone = zone};
    struct error e = {0};
    return limits_check(who, NULL, &ask, &e) == 0;
}

static void test_days_and_months(void **state) {
    struct limited who = {.limits = {.spend_day = 10, .spend_month = 25}};
    int64_t zone = 540, start = 20392 * day - zone * minute; /* 2025-10-31T00:00 there */
    spend(&who, start + hour, zone, 10);
    assert_false(may_spend(&who, start + day - 1, zone, 1));
    assert_true(
        may_spend(&who, start + day, zone, 10)); /* the first of November there, the 31st of October in UTC */
    assert_false(may_spend(&who, start + day, zone, 11));
    for (int i = 1; i <= 2; i++)
        spend(&who, start + i * day, zone, 10);
    assert_true(may_spend(&who, start + 3 * day, zone, 5));
    assert_false(may_spend(&who, start + 3 * day, zone, 6)); /* of the month 20 are gone */
    /* A clock that jumps ahead and comes back finds its own day and month again. */
    spend(&who, start + 3 * day, zone, 4);
    assert_true(may_spend(&who, start + 40 * day, zone, 10));
    assert_false(may_spend(&who, start + 3 * day, zone, 2));
    assert_true(may_spend(&who, start + 3 * day, zone, 1));
    spend(&who, INT64_MAX / 4, zone, INT64_MAX / 2); /* and nothing overflows */
    spend(&who, INT64_MAX / 4, zone, INT64_MAX / 2);
    spend(&who, INT64_MAX / 4, zone, INT64_MAX / 2);
    assert_false(may_spend(&who, INT64_MAX / 4, zone, 1));
    assert_false(may_spend(&who, 5, -720, INT64_MAX));
}

/* ---- wrong keys ---- */

static void test_attempts(void **state) {
    static struct attempts a = {.secret = {0x123456789abcdef, 12345}};
    struct address from, other, unknown = {0};
    int64_t now = 3 * day;
    assert_true(address_parse(STR("2001:db8::1"), &from) && address_parse(STR("2001:db8::ffff:1"), &other));
    for (int i = 0; i < ATTEMPTS_MINUTE; i++) {
        assert_int_equal(attempts_wait(&a, &from, now), 0);
        attempts_failed(&a, i % 2 ? &from : &other, now);
    }
    assert_int_equal(attempts_wait(&a, &from, now), 3 * second);
    assert_int_equal(attempts_wait(&a, &other, now), 3 * second);
    assert_int_equal(attempts_wait(&a, &from, now + 3 * second), 0);
    assert_int_equal(attempts_wait(&a, &unknown, now), 0);
    attempts_failed(&a, &unknown, now);
    /* Addresses that fail once each fill the table many times over, and let nobody who has failed often go free. */
    for (int i = 0; i < 100000; i++) {
        address_parse(STR("10.0.0.0"), &other);
        memcpy(other.byte + 13, &i, 3);
        attempts_failed(&a, &other, now + i);
    }
    assert_true(attempts_wait(&a, &from, now + 100000) > 2 * second);
}

/* ---- through the books ---- */

static char folder[64], key_text[64];

static int fresh_folder(void **state) {
    return books_place(folder, sizeof folder);
}

static int remove_folder(void **state) {
    return books_place_remove(folder);
}

static int ask(const char *request, struct json **answer, struct error *e) {
    struct buf out = {0};
    int rc = control_call(folder, str_from(request), &out, e);
    *answer = NULL;
    if (rc == 0)
        assert_int_equal(json_parse(answer, buf_view(&out), e), 0);
    buf_free(&out);
    return rc;
}

static int code_of(const char *request) {
    struct json *answer;
    struct error e = {0};
    int rc = ask(request, &answer, &e);
    json_free(answer);
    return rc;
}

static void must(const char *request) {
    struct json *answer;
    struct error e = {0};
    if (ask(request, &answer, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    struct str text = json_as_str(json_get(answer, "key"));
    if (text.n > 0)
        snprintf(key_text, sizeof key_text, "%.*s", (int)text.n, text.p);
    json_free(answer);
}

static void open_tenant(void) {
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"100\"}");
    must("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"1000000\",\"output\":"
         "\"1000000\"}"); /* 1 a token */
    must("{\"op\":\"key.create\",\"tenant\":\"t\"}");
}

static struct hold *admit(struct cloud *c, const char *id, const char *model, const char *from, uint64_t most,
                          struct error *e) {
    struct identity who = {.tenant = 1, .key = 1};
    struct admission a = {
        .who = &who, .model = str_from(model), .prompt_tokens = 1, .max_completion_tokens = most};
    struct hold *h = NULL;
    if (from != NULL)
        address_parse(str_from(from), &a.address);
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    books_admit(c, &a, &h, e);
    return h;
}

static void settle(struct hold *h, uint64_t tokens) {
    struct settlement s = {.completion_tokens = tokens, .outcome = OUTCOME_DONE};
    cloud_settle(h, &s);
}

static void test_operations(void **state) {
    static const char *const bad[] = {
        "{\"op\":\"limit.set\",\"tenant\":\"nobody\"}",
        "{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":\"2\"}",
        "{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":\"x\"}",
        "{\"op\":\"limit.show\",\"tenant\":\"t\",\"key\":0}",
    };
    static const char *const wrong[] = {
        "\"requests_per_minute\":\"-1\"",
        "\"tokens_per_minute\":\"1000000001\"",
        "\"tokens_per_minute\":\"99999999999999999999\"",
        "\"concurrency\":\"\"",
        "\"concurrency\":1.5",
        "\"spend_day\":\"1e3\"",
        "\"spend_month\":\"-1\"",
        "\"models\":\"a,,b\"",
        "\"models\":[1]",
        "\"addresses\":\"10.0.0.1/8\"",
        "\"addresses\":[\"host\"]",
        "\"warn\":\"100,80\"",
        "\"warn\":\"101\"",
        "\"warn\":[0]",
        "\"warn\":\"1,2,3,4,5,6,7,8,9\"",
        "\"expires\":\"2027-01-01\"",
        "\"key\":1,\"expires\":\"2027-02-30\"",
        "\"key\":1,\"expires\":\"tomorrow\"",
        "\"key\":1,\"expires\":\"2027-1-1\"",
        "\"key\":1,\"credit_low\":\"1\"",
    };
    struct json *answer;
    struct error e = {0};
    struct buf text = {0};
    char request[200];
    open_tenant();
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(code_of(bad[i]), ERR_NOT_FOUND);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        snprintf(request, sizeof request, "{\"op\":\"limit.set\",\"tenant\":\"t\",%s}", wrong[i]);
        if (code_of(request) != ERR_INVALID)
            fail_msg("%s is taken", wrong[i]);
    }
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"requests_per_minute\":\"60\",\"spend_month\":\"99.5\","
         "\"warn\":\"80,100\",\"credit_low\":\"5\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"tokens_per_minute\":5000,\"models\":\"m,gemma*"
         "\",\"addresses\":[\"10.0.0.0/8\",\"::1\"],"
         "\"expires\":\"2199-01-01\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":\"1\",\"concurrency\":\"3\",\"models\":[\"m\",\"n,"
         "o\"]}");
    assert_int_equal(ask("{\"op\":\"limit.show\",\"tenant\":\"t\"}", &answer, &e), 0);
    json_write(&text, answer);
    json_free(answer);
    assert_string_equal(
        text.p, "[{\"tenant\":\"t\",\"requests_per_minute\":60,\"tokens_per_minute\":0,\"concurrency\":256,"
                "\"currency\":\"JPY\",\"spend_day\":\"0\",\"spend_month\":\"99.5\","
                "\"credit_low\":\"5\",\"models\":[],\"addresses\":[],\"warn\":[80,100],\"used\":{\"running\":"
                "0,\"requests_left\":60,\"tokens_left\":0,\"held\":\"0\",\"day\":\"0\","
                "\"month\":\"0\"}},{\"tenant\":\"t\",\"key\":1,\"expires\":7226582400,\"requests_per_"
                "minute\":0,\"tokens_per_minute\":5000,\"concurrency\":3,\"currency\":\"JPY\","
                "\"spend_day\":\"0\",\"spend_month\":\"0\",\"credit_low\":\"0\",\"models\":[\"m\",\"n,o\"],"
                "\"addresses\":[\"10.0.0.0/8\",\"::1\"],\"warn\":[],\"used\":{\"running\":0,"
                "\"requests_left\":0,\"tokens_left\":5000,\"held\":\"0\",\"day\":\"0\",\"month\":\"0\"}}]");
    buf_free(&text);
}

static void test_admission(void **state) {
    struct cloud *c;
    struct error e = {0};
    struct identity who;
    struct hold *h;
    open_tenant();
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"models\":\"m*,n\",\"tokens_per_minute\":1000}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"addresses\":\"10.0.0.0/8\"}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_null(admit(c, "a", "nn", "10.0.0.1", 10, &e));
    assert_int_equal(e.code, ERR_DENIED);
    assert_string_equal(e.param, "model");
    assert_null(admit(c, "a", "m", "11.0.0.1", 10, &e));
    assert_int_equal(e.code, ERR_DENIED);
    assert_null(admit(c, "a", "m", NULL, 10, &e)); /* nobody knows from where */
    assert_int_equal(e.code, ERR_DENIED);
    assert_non_null(h = admit(c, "a", "m", "10.0.0.1", 9, &e));
    settle(h, 9);
    assert_non_null(h = admit(c, "b", "mm", "10.9.0.1", 979, &e)); /* the price of mm is nothing */
    assert_null(admit(c, "c", "n", "10.0.0.1", 600, &e));
    assert_int_equal(e.code, ERR_BUSY);
    assert_true(e.wait_ns > 0 && e.wait_ns < minute);
    settle(h, 9);
    assert_non_null(h = admit(c, "c", "n", "10.0.0.1", 600, &e));
    settle(h, 50);
    /* A key that has expired is none, and one that expires while its request is read is refused as well. */
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"addresses\":\"\",\"expires\":\"2020-01-01T00:00:"
         "00Z\"}");
    assert_int_equal(cloud_authenticate(c, str_from(key_text), &nowhere, &who, &e), ERR_AUTH);
    assert_null(admit(c, "d", "n", NULL, 50, &e));
    assert_int_equal(e.code, ERR_AUTH);
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"expires\":\"\"}");
    assert_int_equal(cloud_authenticate(c, str_from(key_text), &nowhere, &who, &e), 0);
    must("{\"op\":\"key.revoke\",\"id\":1}");
    assert_null(admit(c, "d", "n", NULL, 50, &e));
    assert_int_equal(e.code, ERR_AUTH);
    cloud_close(c);
}

struct racer {
    struct cloud *c;
    int number;
    _Atomic int *running;
    int most, charged;
};

static void *race(void *context) {
    struct racer *r = context;
    char id[40];
    for (int i = 0; i < 100; i++) {
        struct error e = {0};
        snprintf(id, sizeof id, "r%d-%d", r->number, i);
        struct hold *h = admit(r->c, id, "m", NULL, 2, &e);
        if (h == NULL)
            continue;
        int running = atomic_fetch_add(r->running, 1) + 1;
        r->most = running > r->most ? running : r->most;
        usleep(100);
        atomic_fetch_sub(r->running, 1);
        settle(h, (uint64_t)i % 2);
        r->charged += 1 + i % 2;
    }
    return NULL;
}

/* Sixteen threads: never more at once than may be, and never more spent than may be, whatever is under way. */
static void test_race(void **state) {
    struct cloud *c;
    struct error e = {0};
    struct racer racer[16];
    pthread_t thread[16];
    _Atomic int running = 0;
    int charged = 0;
    within_a_day();
    open_tenant();
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"concurrency\":5,\"spend_month\":\"40\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_day\":\"37\"}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (int i = 0; i < 16; i++) {
        racer[i] = (struct racer){.c = c, .number = i, .running = &running};
        pthread_create(&thread[i], NULL, race, &racer[i]);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(thread[i], NULL);
        charged += racer[i].charged;
        assert_true(racer[i].most <= 5);
    }
    assert_true(charged <= 37 && charged >= 35); /* a request may cost 3 */
    assert_null(admit(c, "last", "m", NULL, 36, &e));
    assert_int_equal(e.code, ERR_CREDIT);
    cloud_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bucket),
        cmocka_unit_test(test_clock),
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_all_or_nothing),
        cmocka_unit_test(test_days_and_months),
        cmocka_unit_test(test_attempts),
        cmocka_unit_test_setup_teardown(test_operations, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_admission, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_race, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
