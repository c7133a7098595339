/* The books: exact money, holds that never overdraw, settlements that add up, retries, and what a crash at any point leaves. A crash is a child that is killed;
 * what it "sent" it wrote to a shared page first. */
#include "cloud/cloud.h"
#include "cloud/control.h"
#include "cloud/money.h"

#include "base/clock.h"
#include "base/json.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_place.h"
#include "books_request.h"

static const struct address nowhere;

static char folder[64];

static int fresh_folder(void **state) {
    return books_place(folder, sizeof folder);
}

static int remove_folder(void **state) {
    return books_place_remove(folder);
}

/* ---- money ---- */

static void check_money(const char *text, int digits, int64_t value, const char *again) {
    struct error e = {0};
    struct buf out = {0};
    int64_t got;
    assert_int_equal(money_parse(&got, str_from(text), digits, &e), 0);
    assert_int_equal(got, value);
    money_write(&out, got, digits);
    assert_string_equal(out.p, again);
    buf_free(&out);
}

static void test_money(void **state) {
    struct error e = {0};
    int64_t got;
    static const char *const bad[] = {"",   ".",  ".5",        "1.2.3",          "-1",  "1e5",
                                      " 1", "1 ", "0.0000001", "99999999999999", "NaN", "0x10"};
    check_money("12.5", 9, 12500000000, "12.5");
    check_money("0", 9, 0, "0");
    check_money("0.000000001", 9, 1, "0.000000001");
    check_money("007", 6, 7000000, "7");
    check_money("0.15", 6, 150000, "0.15"); /* a price per million tokens */
    check_money("0.000001", 6, 1, "0.000001");
    check_money("9223372036854.775807", 6, INT64_MAX, "9223372036854.775807");
    check_money("2.50000000", 6, 2500000, "2.5");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(money_parse(&got, str_from(bad[i]), 6, &e), ERR_INVALID);
    struct tariff t = {INT64_MAX, INT64_MAX, INT64_MAX, RATE_ONE};
    money_wide cost;
    assert_true(tariff_cost(&t, INT32_MAX / 4, INT32_MAX / 4, INT32_MAX / 4, &cost)); /* 128 bits */
    assert_true(cost == (money_wide)3 * INT64_MAX * (INT32_MAX / 4) * RATE_ONE);
    t.rate = INT64_MAX;
    assert_false(tariff_cost(&t, INT32_MAX, INT32_MAX, INT32_MAX, &cost));
}

/* ---- operations ---- */

static int ask(const char *request, struct json **answer, struct error *e) {
    struct buf out = {0};
    int rc = control_call(folder, str_from(request), &out, e);
    *answer = NULL;
    if (rc == 0)
        assert_int_equal(json_parse(answer, buf_view(&out), e), 0);
    buf_free(&out);
    return rc;
}

static void must(const char *request, const char *member, char *value, size_t size) {
    struct json *answer;
    struct error e = {0};
    if (ask(request, &answer, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    if (value != NULL)
        snprintf(value, size, "%.*s", (int)json_as_str(json_get(answer, member)).n,
                 json_as_str(json_get(answer, member)).p);
    json_free(answer);
}

static int code_of(const char *request) {
    struct json *answer;
    struct error e = {0};
    int rc = ask(request, &answer, &e);
    json_free(answer);
    return rc;
}

static void verify(void) {
    struct json *answer;
    struct error e = {0};
    struct buf text = {0};
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", &answer, &e), 0);
    json_write(&text, answer);
    if (!json_as_bool(json_get(answer, "ok")))
        fail_msg("%s", text.p);
    buf_free(&text);
    json_free(answer);
}

static char key[64];

/* A tenant with 1 JPY; a token in costs 0.0003, out 0.0007 and a bit, so that remainders matter. */
static void open_tenant(void) {
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"1\"}", "name", NULL, 0);
    must("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300\",\"cached\":\"150\","
         "\"output\":\"700.000333\"}",
         "model", NULL, 0);
    must("{\"op\":\"key.create\",\"tenant\":\"t\"}", "key", key, sizeof key);
}

/* Payments that look alike are not the same one, and a name that would be lost is refused. */
static void check_payments(void) {
    char request[300], value[64];
    const char *credit = "{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"1\",\"payment\":\"%.*s%s\"}";
    char hundred[101];
    memset(hundred, 'x', 100);
    for (int i = 0; i < 2; i++) {
        snprintf(request, sizeof request, credit, 99, hundred, i ? "b" : "a");
        must(request, "available", value, sizeof value);
        assert_string_equal(value, i ? "5" : "4");
    }
    snprintf(request, sizeof request, credit, 100, hundred, "a");
    assert_int_equal(code_of(request), ERR_INVALID);
    snprintf(request, sizeof request, credit, 1, hundred, "\\u0000a");
    assert_int_equal(code_of(request), ERR_INVALID);
    snprintf(request, sizeof request, credit, 0, hundred, ""); /* a script's unset variable */
    assert_int_equal(code_of(request), ERR_INVALID);
    snprintf(request, sizeof request, credit, 0, hundred, "opening"); /* not the credit it was made with */
    must(request, "available", value, sizeof value);
    assert_string_equal(value, "6");
    for (int i = 0; i < 2; i++)
        must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"0.5\"}", "available", value,
             sizeof value);
    assert_string_equal(value, "7");
    assert_int_equal(code_of("{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":"
                             "\"9223372036\"}"),
                     ERR_INVALID);
}

/* A caller of the control socket that stands still does not keep the server from ending. */
static void check_end_beside_idle_caller(struct cloud *c) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s/control.sock", folder);
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(write(fd, "{", 1), 1);
    usleep(50000);
    int64_t before = clock_mono_ns();
    cloud_close(c);
    assert_true(clock_mono_ns() - before < 5000000000);
    close(fd);
}

static void test_operations(void **state) {
    char value[64];
    struct cloud *c;
    struct error e = {0};
    struct identity who;
    open_tenant();
    assert_int_equal(code_of("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\"}"), ERR_CONFLICT);
    assert_int_equal(code_of("{\"op\":\"tenant.create\",\"name\":\"../x y\",\"currency\":\"JPY\"}"),
                     ERR_INVALID);
    assert_int_equal(code_of("{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"yen\"}"), ERR_INVALID);
    assert_int_equal(code_of("{\"op\":\"drop everything\"}"), ERR_UNSUPPORTED);
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"2\",\"payment\":\"p\"}", "available", value,
         sizeof value);
    assert_string_equal(value, "3");
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"2\",\"payment\":\"p\"}", "available", value,
         sizeof value);
    assert_string_equal(value, "3"); /* the same payment */
    assert_int_equal(code_of("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"5\",\"payment\":\"p\"}"),
                     ERR_CONFLICT);
    check_payments();
    /* The same operations through the control socket of whoever has the books open. */
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(cloud_authenticate(c, str_from(key), &nowhere, &who, &e), 0);
    assert_string_equal(who.tenant_name, "t");
    assert_int_equal(cloud_authenticate(c, STR("uk-wrong"), &nowhere, &who, &e), ERR_AUTH);
    assert_int_equal(cloud_authenticate(c, STR(""), &nowhere, &who, &e), ERR_AUTH);
    assert_int_equal(cloud_authenticate(c, STR("' OR 1=1 --"), &nowhere, &who, &e), ERR_AUTH);
    must("{\"op\":\"tenant.show\",\"name\":\"t\"}", "available", value, sizeof value);
    assert_string_equal(value, "7");
    must("{\"op\":\"key.revoke\",\"id\":1}", "id", NULL, 0);
    assert_int_equal(cloud_authenticate(c, str_from(key), &nowhere, &who, &e), ERR_AUTH);
    check_end_beside_idle_caller(c);
    verify();
}

/* ---- requests ---- */

static struct hold *ask_for(struct cloud *c, int64_t tenant, const char *id, uint64_t prompt, uint64_t most,
                            struct error *e) {
    struct identity who = {.tenant = tenant, .key = 1, .account = (uint64_t)tenant, .weight = 1};
    struct admission a = {
        .who = &who, .model = STR("m"), .prompt_tokens = prompt, .max_completion_tokens = most};
    struct hold *h = NULL;
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    cloud_admit(c, &a, &h, e);
    return h;
}

static struct hold *admit_for(struct cloud *c, int64_t tenant, const char *id, uint64_t prompt, uint64_t most,
                              struct error *e) {
    struct hold *h = ask_for(c, tenant, id, prompt, most, e);
    if (h != NULL)
        books_granted(&h, e);
    return h;
}

static struct hold *admit(struct cloud *c, const char *id, uint64_t prompt, uint64_t most, struct error *e) {
    return admit_for(c, 1, id, prompt, most, e);
}

struct racer {
    struct cloud *c;
    int number, admitted;
    amount charged;
};

static void *race(void *context) {
    struct racer *r = context;
    char id[40];
    for (int i = 0; i < 100; i++) {
        struct error e = {0};
        snprintf(id, sizeof id, "r%d-%d", r->number, i);
        struct hold *h = admit(r->c, id, 10, 100, &e);
        if (h == NULL)
            continue;
        struct settlement s = {.cached_tokens = 3, .completion_tokens = 37, .outcome = OUTCOME_DONE};
        cloud_sent(h, 37, 3);
        r->charged += books_settle(r->c, h, id, &s);
        r->admitted++;
    }
    return NULL;
}

/* Sixteen threads for credit that is enough for some of their requests: never below zero, and every 10^-12 is accounted for. */
static void test_race_for_the_last_unit(void **state) {
    struct cloud *c;
    struct error e = {0};
    struct racer racer[16];
    pthread_t thread[16];
    amount charged = 0;
    int64_t admitted = 0;
    char value[64];
    open_tenant();
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (int i = 0; i < 16; i++) {
        racer[i] = (struct racer){.c = c, .number = i};
        pthread_create(&thread[i], NULL, race, &racer[i]);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(thread[i], NULL);
        charged += racer[i].charged;
        admitted += racer[i].admitted;
    }
    cloud_close(c);
    assert_true(admitted >= 20 && admitted < 1600);
    /* Each cost (7 * 300 + 3 * 150 + 37 * 700.000333) * 10^-6; what is below 10^-9 is still to be charged. */
    money_wide exact = (money_wide)admitted * (7 * 300000000LL + 3 * 150000000LL + 37 * 700000333LL);
    assert_true((int64_t)(exact / 1000) == charged);
    must("{\"op\":\"tenant.show\",\"name\":\"t\"}", "balance", value, sizeof value);
    int64_t balance;
    assert_int_equal(money_parse(&balance, str_from(value), 9, &e), 0);
    assert_int_equal(balance, 1000000000 - charged);
    verify();
}

static void expect_balance(const char *tenant, amount wanted) {
    char request[80], value[64];
    struct error e = {0};
    amount got;
    snprintf(request, sizeof request, "{\"op\":\"tenant.show\",\"name\":\"%s\"}", tenant);
    must(request, "balance", value, sizeof value);
    assert_int_equal(money_parse(&got, str_from(value), AMOUNT_DIGITS, &e), 0);
    assert_int_equal(got, wanted);
}

/* Charges of several tenants and currencies in the same groups: each account gets its own. */
static void test_groups(void **state) {
    enum { EACH = 200 };
    struct cloud *c;
    struct error e = {0};
    amount charged[3] = {0};
    char id[32];
    open_tenant();
    must("{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":\"100\"}", "name", NULL,
         0);
    must("{\"op\":\"tenant.create\",\"name\":\"v\",\"currency\":\"USD\",\"credit\":\"100\"}", "name", NULL,
         0);
    must(
        "{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"USD\",\"input\":\"3\",\"output\":\"7.000003\"}",
        "model", NULL, 0);
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"99\"}", "available", NULL, 0);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (int i = 0; i < 3 * EACH; i++) {
        struct settlement s = {.completion_tokens = (uint64_t)i % 50 + 1, .outcome = OUTCOME_DONE};
        snprintf(id, sizeof id, "g%d", i);
        struct hold *h = admit_for(c, i % 3 + 1, id, 10, 100, &e);
        assert_non_null(h);
        charged[i % 3] += books_settle(c, h, id, &s);
    }
    cloud_close(c);
    verify();
    expect_balance("t", 100000000000 - charged[0]);
    expect_balance("u", 100000000000 - charged[1]);
    expect_balance("v", 100000000000 - charged[2]);
    assert_true(charged[0] > charged[2] && charged[2] > 0);
}

static void test_no_more_than_the_journal_allows(void **state) {
    struct cloud *c;
    struct error e = {0};
    open_tenant();
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    struct hold *h = admit(c, "one", 10, 200, &e);
    assert_non_null(h);
    assert_int_equal(cloud_may_send(h), 32); /* at once: the disk need not have the hold */
    cloud_sent(h, 5, 0);                     /* the first ones, in one event */
    for (int i = 0; i < 20000 && cloud_may_send(h) == 32; i++)
        usleep(1000);
    assert_int_equal(cloud_may_send(h), 37);
    cloud_sent(h, 32, 0);
    for (int i = 0; i < 20000 && cloud_may_send(h) == 37; i++)
        usleep(1000);
    assert_int_equal(cloud_may_send(h), 64);
    assert_null(admit(c, "two", 10, 1000000, &e));
    assert_int_equal(e.code, ERR_CREDIT);
    struct settlement s = {.outcome = OUTCOME_FAILED};
    assert_int_equal(books_settle(c, h, "one", &s), 0);
    cloud_close(c);
    verify();
}

static int64_t usage_tokens(void) {
    struct json *answer;
    struct error e = {0};
    assert_int_equal(ask("{\"op\":\"usage\",\"tenant\":\"t\"}", &answer, &e), 0);
    int64_t tokens = json_as_int(json_get(answer, "completion_tokens"));
    json_free(answer);
    return tokens;
}

/* Streams that send as fast as they may, so that an entry is queued again while the writer writes it: all of it reaches the books. */
static void test_streams(void **state) {
    enum { MANY = 32, EACH = 3000 };
    struct cloud *c;
    struct error e = {0};
    struct hold *h[MANY];
    uint64_t sent[MANY] = {0};
    char id[32];
    open_tenant();
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"1000\"}", "available", NULL, 0);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (int i = 0; i < MANY; i++) {
        snprintf(id, sizeof id, "s%d", i);
        h[i] = admit(c, id, 10, EACH, &e);
        assert_non_null(h[i]);
    }
    for (int running = MANY; running > 0;)
        for (int i = 0; i < MANY; i++) {
            if (h[i] == NULL || sent[i] >= cloud_may_send(h[i]))
                continue;
            cloud_sent(h[i], ++sent[i], 0);
            if (sent[i] < EACH)
                continue;
            struct settlement s = {.completion_tokens = EACH, .outcome = OUTCOME_DONE};
            cloud_settle(h[i], &s);
            h[i] = NULL;
            running--;
        }
    struct cloud_stats stats;
    cloud_stats(c, &stats);
    assert_int_equal(stats.settled, MANY);
    cloud_close(c);
    assert_int_equal(usage_tokens(), MANY * EACH);
    verify();
}

struct seller {
    struct cloud *c;
    atomic_bool enough, done;
};

/* More than a piece of verification, until they were verified often enough, and of a kind that leaves something open in between. */
static void *sell(void *context) {
    enum { MANY = 8000, OPEN = 50 };
    struct seller *s = context;
    struct hold *h[OPEN] = {0};
    struct error e = {0};
    char id[32];
    for (int i = 0, last = -1; i <= last || last < 0; i++) {
        struct settlement done = {.completion_tokens = (uint64_t)i % 3, .outcome = OUTCOME_DONE};
        if (h[i % OPEN] != NULL && books_granted(&h[i % OPEN], &e) == 0)
            cloud_settle(h[i % OPEN], &done);
        snprintf(id, sizeof id, "v%06d", i);
        if (last < 0 && i >= MANY && atomic_load(&s->enough))
            last = i + OPEN - 1;
        h[i % OPEN] = last < 0 ? ask_for(s->c, 1, id, 1, 2, &e) : NULL;
        if (i >= MANY || i % 1000 == 0) /* then more slowly than they are verified */
            usleep(1000);
    }
    atomic_store(&s->done, true);
    return NULL;
}

/* The books are verified in pieces, and what is written between two of them is no contradiction. */
static void test_verified_beside_requests(void **state) {
    struct seller s = {0};
    struct error e = {0};
    pthread_t thread;
    int times = 0;
    open_tenant();
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"1000\"}", "available", NULL, 0);
    assert_int_equal(cloud_open(&s.c, folder, NULL, NULL, &e), 0);
    pthread_create(&thread, NULL, sell, &s);
    do {
        verify();
        if (++times == 2)
            atomic_store(&s.enough, true);
    } while (!atomic_load(&s.done));
    pthread_join(thread, NULL);
    verify();
    cloud_close(s.c);
    verify();
}

/* ---- crashes ---- */

enum { STREAMS = 32 };

/* The child: streams that send as far as they may; what they sent stands in `sent` before the books hear of it. */
static void stream_until_killed(_Atomic uint64_t *sent) {
    struct cloud *c;
    struct error e = {0};
    struct hold *h[STREAMS];
    char id[32];
    if (cloud_open(&c, folder, NULL, NULL, &e) != 0)
        _exit(1);
    for (int i = 0; i < STREAMS; i++) {
        snprintf(id, sizeof id, "s%d-%d", (int)getpid(), i);
        h[i] = admit(c, id, 10, 20000, &e);
    }
    for (;;)
        for (int i = 0; i < STREAMS; i++)
            if (h[i] != NULL && atomic_load(&sent[i]) < 20000 &&
                atomic_load(&sent[i]) < cloud_may_send(h[i])) {
                atomic_fetch_add(&sent[i], 1);
                cloud_sent(h[i], atomic_load(&sent[i]), 0);
            }
}

static void test_killed(void **state) {
    size_t size = STREAMS * sizeof(uint64_t);
    _Atomic uint64_t *sent = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *kills = getenv("UNKAI_KILLS");
    int64_t before = 0, in_all = 0;
    int rounds = kills ? atoi(kills) : 10;
    open_tenant();
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"1000000\"}", "available", NULL, 0);
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < STREAMS; i++)
            atomic_store(&sent[i], 0);
        pid_t child = fork();
        if (child == 0)
            stream_until_killed(sent);
        usleep(20000 + (useconds_t)(rand() % 150000));
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        int64_t all = 0;
        for (int i = 0; i < STREAMS; i++)
            all += (int64_t)atomic_load(&sent[i]);
        verify(); /* opens the books: recovery, no hold is left open */
        int64_t billed = usage_tokens() - before;
        assert_true(billed <= all);
        assert_true(all - billed <= 32 * STREAMS);
        before += billed;
        in_all += all;
    }
    print_message("%d kills: %lld tokens sent, %lld billed\n", rounds, (long long)in_all, (long long)before);
    munmap((void *)sent, size);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_money),
        cmocka_unit_test_setup_teardown(test_operations, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_race_for_the_last_unit, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_groups, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_no_more_than_the_journal_allows, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_streams, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_verified_beside_requests, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_killed, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
