/* What the books keep under an idempotency key: nothing, a request that runs, an answer, or that the key is spent; after an orderly end, after SIGKILL, and 32
 * days later. */
#include "cloud/cloud.h"
#include "cloud/control.h"

#include "base/clock.h"
#include "base/json.h"
#include "store/store.h"
#include "books_place.h"
#include "books_request.h"

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

static char folder[64];

static int64_t ask(const char *request, const char *member) {
    struct buf out = {0};
    struct json *answer;
    struct error e = {0};
    if (control_call(folder, str_from(request), &out, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    assert_int_equal(json_parse(&answer, buf_view(&out), &e), 0);
    const struct json *got = json_get(answer, member);
    int64_t value = json_as_bool(got) ? 1 : json_as_int(got);
    buf_free(&out);
    json_free(answer);
    return value;
}

static int set_up(void **state) {
    if (books_place(folder, sizeof folder) != 0)
        return 1;
    ask("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"1000\"}", "name");
    ask("{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":\"1000\"}", "name");
    ask("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300\",\"output\":\"700\"}",
        "model");
    return 0;
}

static int tear_down(void **state) {
    return books_place_remove(folder);
}

static struct cloud *open_books(void) {
    struct cloud *c;
    struct error e = {0};
    if (cloud_open(&c, folder, NULL, NULL, &e) != 0)
        fail_msg("%s", e.text);
    return c;
}

static struct answer *answer_of(int64_t tenant, const char *key, const char *body) {
    struct answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->tenant = tenant;
    a->key = hash_sha256(str_from(key));
    a->body = hash_sha256(str_from(body));
    return a;
}

static struct answer *await(struct cloud *c) {
    struct answer *a = NULL;
    for (int i = 0; i < 20000 && (a = cloud_take_answer(c)) == NULL; i++)
        usleep(1000);
    assert_non_null(a);
    return a;
}

static struct answer *find(struct cloud *c, int64_t tenant, const char *key, const char *body) {
    struct answer *a = answer_of(tenant, key, body);
    struct error e;
    assert_int_equal(cloud_find_answer(c, a, &e), 0);
    assert_ptr_equal(await(c), a);
    assert_int_equal(a->rc, 0);
    return a;
}

/* One that stands under the key with this body: its status and its bytes. */
static void expect(struct cloud *c, const char *key, int status, const char *bytes) {
    struct answer *a = find(c, 1, key, "body");
    assert_int_equal(a->status, status);
    struct hash body = hash_sha256(STR("body"));
    assert_true(hash_equal(&a->body, &body));
    assert_true(str_is(buf_view(&a->bytes), bytes));
    answer_free(a);
}

static struct hold *admit(struct cloud *c, const char *id, struct answer *a) {
    struct identity who = {.tenant = a->tenant, .key = 1, .account = 1, .weight = 1};
    struct admission admission = {
        .who = &who, .model = STR("m"), .prompt_tokens = 10, .max_completion_tokens = 100, .answer = a};
    struct hold *h;
    struct error e = {0};
    snprintf(admission.request_id, sizeof admission.request_id, "%s", id);
    if (books_admit(c, &admission, &h, &e) != 0)
        fail_msg("%s", e.text);
    return h;
}

static void settle(struct cloud *c, struct hold *h, struct answer *a, int status, uint64_t tokens,
                   const char *bytes) {
    struct settlement s = {.completion_tokens = tokens,
                           .outcome = status == 200 ? OUTCOME_DONE : OUTCOME_FAILED};
    a->status = status;
    snprintf(a->type, sizeof a->type, "text/plain");
    buf_text(&a->bytes, bytes);
    cloud_settle(h, &s);
    assert_ptr_equal(await(c), a);
    assert_int_equal(a->rc, 0);
    answer_free(a);
}

static void check_keys(struct cloud *c) {
    expect(c, "kept", 200, "all of it");
    expect(c, "spent", ANSWER_SPENT, "");
    expect(c, "free", ANSWER_NONE, "");
    expect(c, "never", ANSWER_NONE, "");
    struct answer *other = find(c, 1, "kept", "another body");
    struct hash body = hash_sha256(STR("body"));
    assert_true(hash_equal(&other->body, &body)); /* that of the first */
    assert_int_equal(other->status, 200);
    answer_free(other);
    struct answer *stranger = find(c, 2, "kept", "body");
    assert_int_equal(stranger->status, ANSWER_NONE);
    answer_free(stranger);
}

static void test_kept(void **state) {
    struct cloud *c = open_books();
    struct answer *a = answer_of(1, "kept", "body");
    struct hold *h = admit(c, "r1", a);
    expect(c, "kept", ANSWER_RUNNING, "");
    settle(c, h, a, 200, 20, "all of it");
    a = answer_of(1, "spent", "body");
    settle(c, admit(c, "r2", a), a, ANSWER_SPENT, 5, "a part");
    a = answer_of(1, "free", "body");
    settle(c, admit(c, "r3", a), a, ANSWER_NONE, 0, "nothing");
    check_keys(c);
    cloud_close(c);
    c = open_books();
    check_keys(c);
    a = answer_of(1, "free", "body"); /* the second try */
    settle(c, admit(c, "r4", a), a, 200, 7, "all of that");
    expect(c, "free", 200, "all of that");
    cloud_close(c);
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", "ok"), 1);
}

/* Bytes of any value, and many of them. */
static void test_long_answer(void **state) {
    struct cloud *c = open_books();
    struct answer *a = answer_of(1, "long", "body");
    struct hold *h = admit(c, "r1", a);
    for (int i = 0; i < 1 << 20; i++)
        buf_byte(&a->bytes, (char)(i * 7));
    settle(c, h, a, 200, 100, "");
    a = find(c, 1, "long", "body");
    assert_int_equal(a->bytes.n, 1 << 20);
    for (int i = 0; i < 1 << 20; i++)
        if (a->bytes.p[i] != (char)(i * 7))
            fail_msg("byte %d", i);
    answer_free(a);
    cloud_close(c);
}

/* The child: one request of which tokens were sent, one of which none were, both on the books; then the end. */
static void run_until_killed(void) {
    struct cloud *c = open_books();
    struct hold *sent = admit(c, "r1", answer_of(1, "sent", "body"));
    admit(c, "r2", answer_of(1, "silent", "body"));
    cloud_sent(sent, 9, 0);
    for (int i = 0; i < 5000 && cloud_may_send(sent) < 41; i++)
        usleep(1000);
    answer_free(find(c, 1, "sent", "body")); /* behind the holds */
    kill(getpid(), SIGKILL);
}

static void test_killed(void **state) {
    int status;
    pid_t child = fork();
    if (child == 0)
        run_until_killed();
    waitpid(child, &status, 0);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    struct cloud *c = open_books();
    expect(c, "sent", ANSWER_SPENT, "");
    expect(c, "silent", ANSWER_NONE, "");
    cloud_close(c);
    assert_int_equal(ask("{\"op\":\"usage\",\"tenant\":\"t\"}", "completion_tokens"), 9);
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", "ok"), 1);
}

static int64_t change(const char *sql, int64_t value, bool reads) {
    struct store *s;
    struct query *q;
    struct error e = {0};
    assert_int_equal(store_open(&s, books_where(folder), &e), 0);
    assert_int_equal(store_query(s, &q, sql, &e), 0);
    query_int(q, 1, value);
    int64_t got = 0;
    if (query_step(q, &e) == 1 && reads)
        got = query_column_int(q, 0);
    assert_int_equal(query_run(q, &e), 0);
    store_close(s);
    return got;
}

/* After 32 days a key is new, and every hold that comes takes two old rows away. */
static void test_old_keys(void **state) {
    enum { MANY = 12 };
    const int64_t day = INT64_C(86400000000000);
    struct cloud *c = open_books();
    char name[16];
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "k%d", i);
        struct answer *a = answer_of(1, name, "body");
        settle(c, admit(c, name, a), a, 200, 1, "x");
    }
    cloud_close(c);
    change("UPDATE idempotency SET at = $1", clock_wall_ns() - ANSWER_DAYS * day + day, false);
    c = open_books();
    expect(c, "k3", 200, "x");
    cloud_close(c);
    change("UPDATE idempotency SET at = $1", clock_wall_ns() - ANSWER_DAYS * day - 1, false);
    c = open_books();
    expect(c, "k3", ANSWER_NONE, "");
    struct answer *a = answer_of(1, "k11", "another body");
    settle(c, admit(c, "again", a), a, 200, 1, "y");
    a = find(c, 1, "k11", "another body");
    assert_true(str_is(buf_view(&a->bytes), "y"));
    answer_free(a);
    cloud_close(c);
    int64_t left = change("SELECT count(*) FROM idempotency WHERE at > $1", 0, true);
    assert_true(left == MANY - 2 || left == MANY - 1); /* the one that is used again may be among the two */
    c = open_books();
    for (int i = 0; i < MANY / 2; i++) {
        snprintf(name, sizeof name, "n%d", i);
        a = answer_of(1, name, "body");
        settle(c, admit(c, name, a), a, 200, 1, "z");
    }
    cloud_close(c);
    assert_int_equal(change("SELECT count(*) FROM idempotency WHERE at > $1", 0, true), MANY / 2 + 1);
}

/* Asked and not waited for: the books' end frees it. */
static void test_end_beside_questions(void **state) {
    struct cloud *c = open_books();
    struct error e;
    for (int i = 0; i < 50; i++)
        assert_int_equal(cloud_find_answer(c, answer_of(1, "k", "body"), &e), 0);
    cloud_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_kept, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_killed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_old_keys, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_end_beside_questions, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
