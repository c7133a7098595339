/* Webhooks as rows: which events are written, and once; how a delivery is signed, taken, tried again, given up; and that what cannot be sent stops nobody. */
#include "cloud/cloud.h"
#include "cloud/control.h"
#include "cloud/inner.h"
#include "cloud/refusal.h"
#include "cloud/webhook.h"

#include "base/clock.h"
#include "base/json.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_place.h"
#include "books_request.h"
#include "one_day.h"

static char folder[64];

static int fresh_folder(void **state) {
    return books_place(folder, sizeof folder);
}

static int remove_folder(void **state) {
    return books_place_remove(folder);
}

static struct json *ask(const char *request) {
    struct buf out = {0};
    struct json *answer = NULL;
    struct error e = {0};
    if (control_call(folder, str_from(request), &out, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    assert_int_equal(json_parse(&answer, buf_view(&out), &e), 0);
    buf_free(&out);
    return answer;
}

static void must(const char *request) {
    json_free(ask(request));
}

static int code_of(const char *request) {
    struct buf out = {0};
    struct error e = {0};
    int rc = control_call(folder, str_from(request), &out, &e);
    buf_free(&out);
    return rc;
}

/* ---- signing: the example of the reference libraries ---- */

static void test_signature(void **state) {
    static const uint8_t secret[24] = {0x31, 0xf2, 0x90, 0xf6, 0xbf, 0x06, 0x29, 0x8a,
                                       0xab, 0x4f, 0x08, 0xd4, 0x3c, 0x3f, 0x08, 0x2c,
                                       0xf6, 0x48, 0xa3, 0x62, 0xda, 0x2d, 0xa4, 0xb0};
    struct delivery d = {.id_text = "msg_p5jXN8AQM9LWM0D4loKWxJek"};
    struct signed_headers h;
    memcpy(d.secret.byte, secret, sizeof secret); /* zeros behind a key are no matter to HMAC */
    buf_text(&d.body, "{\"test\": 2432232314}");
    webhook_sign(&d, INT64_C(1614265330999999999), &h);
    assert_string_equal(h.id, "webhook-id: msg_p5jXN8AQM9LWM0D4loKWxJek");
    assert_string_equal(h.timestamp, "webhook-timestamp: 1614265330");
    assert_string_equal(h.signature, "webhook-signature: v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    buf_free(&d.body);
}

/* ---- operations ---- */

static void test_operations(void **state) {
    static const char *const bad[] = {
        "\"ftp://x/\"",
        "\"file:///etc/passwd\"",
        "\"http://\"",
        "\"https://a:b@x/\"",
        "\"https://a@x/\"",
        "\"x\"",
        "\"\"",
        "7",
        "\"http://x/\\u0000\"",
        "\"http://x/\\r\\nX: y\"",
        "\"http://x/ y\"",
        "\"gopher://x\"",
        "\"http://x/\\u00e4\"",
    };
    char request[1000], url[600];
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\"}");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(request, sizeof request, "{\"op\":\"webhook.add\",\"url\":%s}", bad[i]);
        if (code_of(request) != ERR_INVALID)
            fail_msg("%s is taken", bad[i]);
    }
    memset(url, 'x', sizeof url);
    snprintf(request, sizeof request, "{\"op\":\"webhook.add\",\"url\":\"http://%.505s\"}", url);
    assert_int_equal(code_of(request), ERR_INVALID);
    assert_int_equal(code_of("{\"op\":\"webhook.add\",\"url\":\"http://x\",\"events\":\"no.such\"}"),
                     ERR_INVALID);
    assert_int_equal(code_of("{\"op\":\"webhook.add\",\"url\":\"http://x\",\"tenant\":\"no\"}"),
                     ERR_NOT_FOUND);
    assert_int_equal(code_of("{\"op\":\"webhook.remove\",\"id\":1}"), ERR_NOT_FOUND);
    struct json *one = ask("{\"op\":\"webhook.add\",\"url\":\"https://x.example/"
                           "in?a=b\",\"events\":\"credit.low\",\"tenant\":\"t\"}");
    assert_true(str_starts(json_as_str(json_get(one, "secret")), STR("whsec_")) &&
                json_as_str(json_get(one, "secret")).n == 6 + 44);
    struct json *list = ask("{\"op\":\"webhook.list\"}"),
                *two = ask("{\"op\":\"webhook.add\",\"url\":\"http://y\"}");
    struct buf text = {0};
    json_write(&text, list);
    assert_null(strstr(text.p, "secret"));
    assert_non_null(strstr(text.p, "\"events\":[\"credit.low\"],\"tenant\":\"t\""));
    assert_false(str_equal(json_as_str(json_get(one, "secret")), json_as_str(json_get(two, "secret"))));
    must("{\"op\":\"webhook.remove\",\"id\":1}");
    assert_int_equal(code_of("{\"op\":\"webhook.test\",\"id\":1}"), ERR_NOT_FOUND);
    for (int i = 1; i < 64; i++)
        must("{\"op\":\"webhook.add\",\"url\":\"http://y\"}");
    assert_int_equal(code_of("{\"op\":\"webhook.add\",\"url\":\"http://y\"}"), ERR_CONFLICT);
    buf_free(&text);
    json_free(one);
    json_free(two);
    json_free(list);
}

/* ---- events ---- */

/* One request of so many tokens at 1 each. */
static void spend(struct cloud *c, const char *id, int64_t tenant, uint64_t tokens) {
    struct identity who = {.tenant = tenant, .key = tenant};
    struct admission a = {
        .who = &who, .model = STR("m"), .prompt_tokens = 1, .max_completion_tokens = tokens - 1};
    struct settlement s = {.completion_tokens = tokens - 1, .outcome = OUTCOME_DONE};
    struct error e = {0};
    struct hold *h;
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    if (books_admit(c, &a, &h, &e) != 0)
        fail_msg("%s", e.text);
    cloud_settle(h, &s);
}

static size_t deliveries(const char *what) {
    struct json *list = ask("{\"op\":\"webhook.deliveries\"}");
    size_t n = 0;
    for (size_t i = 0; i < json_count(list); i++)
        n += str_find(json_as_str(json_get(json_at(list, i), "event")), str_from(what), 0) != SIZE_MAX;
    json_free(list);
    return n;
}

static void open_tenants(void) {
    must("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"1000000\",\"output\":"
         "\"1000000\"}");
    for (int i = 0; i < 2; i++) {
        must(i ? "{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":\"1000\"}"
               : "{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"1000\"}");
        must(i ? "{\"op\":\"key.create\",\"tenant\":\"u\"}" : "{\"op\":\"key.create\",\"tenant\":\"t\"}");
    }
}

static void test_events(void **state) {
    struct cloud *c;
    struct error e = {0};
    within_a_day();
    open_tenants();
    must("{\"op\":\"webhook.add\",\"url\":\"http://operator\"}");
    must("{\"op\":\"webhook.add\",\"url\":\"http://t\",\"tenant\":\"t\",\"events\":[\"spend.threshold\"]}");
    must("{\"op\":\"webhook.add\",\"url\":\"http://u\",\"tenant\":\"u\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"spend_day\":\"100\",\"spend_month\":\"1000\",\"warn\":\"5,"
         "50,90\",\"credit_low\":\"950\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"60\",\"warn\":\"99\"}");
    assert_int_equal(deliveries(""), 0);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    spend(c, "a", 1, 4);
    assert_int_equal(deliveries(""), 0);
    spend(c, "b", 1, 40); /* 44: past 5 of the day, and not far from 5 of the month */
    spend(c, "c", 2, 500);
    assert_int_equal(deliveries("spend.threshold:1:0:"), 2); /* the operator's and the tenant's */
    assert_int_equal(deliveries(""), 2);
    spend(c, "d", 1,
          16); /* 60: past 50 of the day, 5 of the month, 99 of the key's month, and 940 are left */
    spend(c, "e", 2, 300);
    assert_int_equal(deliveries(":100000000000:50"), 2);
    assert_int_equal(deliveries(":1000000000000:5"), 2);
    assert_int_equal(deliveries("spend.threshold:1:1:"), 2);
    assert_int_equal(deliveries("credit.low:1:d"), 1); /* the tenant's wants spend alone */
    assert_int_equal(deliveries(""), 9);
    /* Below it already: nothing new, until a payment lifts it. */
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"0\"}");
    spend(c, "f", 1, 1);
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"20\"}");
    spend(c, "g", 1, 12);
    spend(c, "h", 1, 1);
    assert_int_equal(deliveries("credit.low:1:"), 2);
    assert_int_equal(deliveries("credit.low:1:g"), 1);
    assert_int_equal(deliveries(""), 10);
    /* What is set below what is spent is told at once, and once. */
    must("{\"op\":\"limit.set\",\"tenant\":\"u\",\"spend_month\":\"1000\",\"warn\":\"80\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"u\",\"spend_month\":\"1000\",\"warn\":\"70,80\"}");
    assert_int_equal(deliveries("spend.threshold:2:0:"), 2);
    must("{\"op\":\"limit.set\",\"tenant\":\"u\",\"credit_low\":\"200.5\"}");
    assert_int_equal(deliveries("credit.low:2:"), 2);
    cloud_close(c);
}

/* One request of so many tokens at 1 each is refused, and stays so. */
static struct refusal refused(struct cloud *c, int64_t tenant, uint64_t tokens) {
    struct identity who = {.tenant = tenant, .key = tenant};
    struct refusal r = {0};
    struct admission a = {.who = &who,
                          .model = STR("m"),
                          .prompt_tokens = 1,
                          .max_completion_tokens = tokens - 1,
                          .request_id = "never"};
    struct error e = {0};
    struct hold *h;
    struct limit_ask ask = {.worst = (amount)tokens * 1000000000};
    assert_int_equal(books_admit(c, &a, &h, &e), ERR_CREDIT);
    pthread_mutex_lock(&c->lock);
    refusal_find(memory_tenant_of(c, tenant), memory_key(c, tenant), &ask, &r);
    pthread_mutex_unlock(&c->lock);
    return r;
}

/* How many of them are new; into the books, as the courier's thread would. */
static size_t write_refusals(struct cloud *c) {
    struct refused *list = refusals_take(c);
    struct error e = {0};
    size_t before = deliveries("");
    assert_int_equal(journal_call(c, refusals_write, list, &e), 0);
    refusals_free(list);
    return deliveries("") - before;
}

static void *refused_often(void *cloud) {
    for (int i = 0; i < 200; i++)
        refused(cloud, 2, 2000);
    return NULL;
}

/* One event a limit and period, of many refusals, after a restart, too; none of what was not refused in the end. */
static void test_refusals(void **state) {
    struct cloud *c;
    struct error e = {0};
    pthread_t thread[8];
    open_tenants();
    must("{\"op\":\"webhook.add\",\"url\":\"http://operator\"}");
    must("{\"op\":\"webhook.add\",\"url\":\"http://u\",\"tenant\":\"u\",\"events\":\"credit.exhausted\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"spend_day\":\"100\",\"spend_month\":\"400\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"60\"}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    spend(c, "a", 1, 10);
    for (int i = 0; i < 5; i++) {
        struct refusal r = refused(c, 1, 51);
        assert_true(r.by == REFUSED_BY_MONTH && r.key == 1 && r.tenant == 1);
        assert_true(r.limit == 60000000000 && r.spent == 10000000000 && r.left == 50000000000 &&
                    r.asked == 51000000000);
    }
    assert_int_equal(write_refusals(c), 1);
    assert_int_equal(deliveries("spend.limit_reached:1:1:"), 1);
    refused(c, 1, 70);
    assert_int_equal(write_refusals(c), 0);
    /* Another limit is another event; the one before is known in the books. */
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"50\"}");
    refused(c, 1, 51);
    assert_int_equal(write_refusals(c), 1);
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"60\"}");
    refused(c, 1, 51);
    assert_int_equal(write_refusals(c), 0);
    /* The tenant's own, of a day and of a month. */
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"0\"}");
    assert_int_equal(refused(c, 1, 91).by, REFUSED_BY_DAY);
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"spend_day\":\"0\"}");
    assert_int_equal(refused(c, 1, 391).by, REFUSED_BY_MONTH);
    assert_int_equal(write_refusals(c), 2);
    assert_int_equal(deliveries(":100000000000"), 1);
    assert_int_equal(deliveries(":400000000000"), 1);
    /* Credit, from many threads at once, to two who want to know. */
    for (size_t i = 0; i < sizeof thread / sizeof *thread; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, refused_often, c), 0);
    for (size_t i = 0; i < sizeof thread / sizeof *thread; i++)
        pthread_join(thread[i], NULL);
    struct refusal r = refused(c, 2, 2000);
    assert_true(r.by == REFUSED_BY_CREDIT && r.limit == 0 && r.spent == 1000000000000 && r.key == 0);
    refusals_put_back(c, refusals_take(c)); /* the books were away */
    assert_int_equal(write_refusals(c), 2);
    assert_int_equal(deliveries("credit.exhausted:2:0:"), 2);
    assert_int_equal(deliveries(""), 6);
    cloud_close(c);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    refused(c, 2, 3000);
    assert_int_equal(write_refusals(c), 0);
    refused(c, 1, 500); /* and what nobody has written ends with the books */
    cloud_close(c);
}

/* The child: killed in the middle of an answer. */
static void die_in_debt(void) {
    struct identity who = {.tenant = 1, .key = 1};
    struct admission a = {
        .who = &who, .model = STR("m"), .prompt_tokens = 1, .max_completion_tokens = 80, .request_id = "x"};
    struct cloud *c;
    struct hold *h;
    struct error e = {0};
    if (cloud_open(&c, folder, NULL, NULL, &e) != 0 || books_admit(c, &a, &h, &e) != 0)
        _exit(1);
    cloud_sent(h, 64, 0);
    while (cloud_may_send(h) < 64 + 32)
        usleep(1000);
    kill(getpid(), SIGKILL);
}

/* What recovery charges is told as any other charge, and once. */
static void test_events_of_recovery(void **state) {
    int status;
    within_a_day();
    open_tenants();
    must("{\"op\":\"webhook.add\",\"url\":\"http://operator\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"spend_day\":\"100\",\"spend_month\":\"100\",\"warn\":\"50,"
         "65,"
         "66\",\"credit_low\":\"936\"}");
    must("{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"spend_month\":\"130\",\"warn\":\"50\"}");
    pid_t child = fork();
    if (child == 0)
        die_in_debt();
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    for (int i = 0; i < 2; i++) { /* the first opens the books: recovery */
        assert_int_equal(deliveries(":100000000000:65"), 2);
        assert_int_equal(deliveries("spend.threshold:1:1:"), 1);
        assert_int_equal(deliveries("credit.low:1:x"), 1);
        assert_int_equal(deliveries(""), 4);
    }
}

/* ---- deliveries ---- */

struct step {
    struct delivery d[DELIVERIES];
    size_t n;
    int64_t next;
    enum delivery_outcome outcome;
    const char *sql;
};

static int take(struct cloud *c, void *context, struct error *e) {
    struct step *s = context;
    return deliveries_take(c, s->d, DELIVERIES, &s->n, &s->next, e);
}

static int record(struct cloud *c, void *context, struct error *e) {
    struct step *s = context;
    int rc = 0;
    for (size_t i = 0; i < s->n && rc == 0; i++)
        rc = delivery_record(c, &s->d[i], s->outcome, "HTTP 500", e);
    return rc;
}

static int run_sql(struct cloud *c, void *context, struct error *e) {
    struct query *q;
    int rc = store_query(c->ledger.store, &q, ((struct step *)context)->sql, e);
    return rc != 0 ? rc : query_run(q, e);
}

static void call(struct cloud *c, int (*run)(struct cloud *c, void *context, struct error *e),
                 struct step *s) {
    struct error e = {0};
    if (journal_call(c, run, s, &e) != 0)
        fail_msg("%s", e.text);
}

static void forget(struct step *s) {
    for (size_t i = 0; i < s->n; i++)
        buf_free(&s->d[i].body);
}

static int64_t number_of(const char *member) {
    struct json *list = ask("{\"op\":\"webhook.deliveries\",\"id\":1}");
    int64_t n = json_as_int(json_get(json_at(list, 0), member));
    json_free(list);
    return n;
}

static void expect_state(const char *state) {
    struct json *list = ask("{\"op\":\"webhook.deliveries\",\"id\":1}");
    assert_true(str_is(json_as_str(json_get(json_at(list, 0), "state")), state));
    json_free(list);
}

static void test_deliveries(void **state) {
    static struct step s, other;
    struct cloud *c;
    struct error e = {0};
    char first[48];
    must("{\"op\":\"webhook.add\",\"url\":\"http://operator\"}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    must("{\"op\":\"webhook.test\",\"id\":1}");
    int64_t begin = clock_wall_ns();
    call(c, take, &s);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.d[0].url, "http://operator");
    assert_non_null(strstr(s.d[0].body.p, "{\"type\":\"webhook.test\",\"timestamp\":\"2"));
    snprintf(first, sizeof first, "%s", s.d[0].id_text);
    call(c, take, &other); /* nobody else takes it meanwhile */
    assert_int_equal(other.n, 0);
    assert_true(other.next > begin + INT64_C(50000000000) &&
                other.next <= clock_wall_ns() + INT64_C(60000000000));
    /* Who took it and died: a minute later it is there again, under the same name. */
    other.sql = "UPDATE delivery SET due = 1";
    call(c, run_sql, &other);
    forget(&s);
    call(c, take, &s);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.d[0].id_text, first);
    /* It fails, again and again, with growing pauses, and not for ever. */
    int64_t before = 0, attempts = 0;
    s.outcome = DELIVERY_REFUSED;
    for (; attempts < 100; attempts++) {
        int64_t start = clock_wall_ns() / 1000000000;
        call(c, record, &s);
        assert_int_equal(number_of("attempts"), attempts + 1);
        int64_t pause = number_of("due") - start, passed = clock_wall_ns() / 1000000000 - start;
        if (pause <= 0)
            break;
        assert_true(pause >= before - 1 && pause <= 28800 + passed + 1);
        before = pause - passed;
        /* As if that time had passed. */
        other.sql = "UPDATE delivery SET created = created - (due - (SELECT created FROM webhook)), due = 1";
        call(c, run_sql, &other);
        forget(&s);
        call(c, take, &s);
        assert_int_equal(s.n, 1);
    }
    expect_state("failed");
    assert_true(attempts >= 12 && attempts < 25);
    forget(&s);
    /* A clock that was ahead does not hold one up. */
    must("{\"op\":\"webhook.test\",\"id\":1}");
    other.sql = "UPDATE delivery SET due = due + 86400000000000000 WHERE state = 'due'";
    call(c, run_sql, &other);
    call(c, take, &s);
    assert_int_equal(s.n, 1);
    s.outcome = DELIVERY_TAKEN;
    call(c, record, &s);
    expect_state("done");
    forget(&s);
    /* Gone: this webhook is sent nothing more. */
    must("{\"op\":\"webhook.test\",\"id\":1}");
    call(c, take, &s);
    s.outcome = DELIVERY_GONE;
    call(c, record, &s);
    forget(&s);
    assert_int_equal(code_of("{\"op\":\"webhook.test\",\"id\":1}"), ERR_NOT_FOUND);
    /* What is done is forgotten in the end. */
    other.sql = "UPDATE delivery SET created = created - 3000000000000000";
    call(c, run_sql, &other);
    call(c, take, &s);
    assert_int_equal(deliveries(""), 0);
    cloud_close(c);
}

/* The thread: an address that is not public is not spoken to, and the end waits for nobody. */
static void test_courier(void **state) {
    struct cloud *c;
    struct error e = {0};
    must("{\"op\":\"webhook.add\",\"url\":\"http://127.0.0.1:9/\"}");
    must("{\"op\":\"webhook.add\",\"url\":\"http://[::ffff:169.254.169.254]/latest\"}");
    must("{\"op\":\"webhook.add\",\"url\":\"http://localhost:9/\"}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(cloud_send_webhooks(c, false, &e), 0);
    for (int i = 1; i <= 3; i++) {
        char request[80];
        snprintf(request, sizeof request, "{\"op\":\"webhook.test\",\"id\":%d}", i);
        must(request);
    }
    for (int i = 0; i < 500 && number_of("attempts") == 0; i++)
        usleep(10000);
    usleep(200000);
    struct json *list = ask("{\"op\":\"webhook.deliveries\"}");
    for (size_t i = 0; i < 3; i++) {
        assert_true(str_is(json_as_str(json_get(json_at(list, i), "note")), "its address is not public"));
        assert_true(str_is(json_as_str(json_get(json_at(list, i), "state")), "due"));
    }
    json_free(list);
    int64_t before = clock_mono_ns();
    cloud_close(c);
    assert_true(clock_mono_ns() - before < INT64_C(2000000000));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signature),
        cmocka_unit_test_setup_teardown(test_operations, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_refusals, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_events, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_events_of_recovery, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_deliveries, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_courier, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
