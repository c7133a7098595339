/* Two nodes on the same books (UNKAI_TEST_DB, tests/postgres.py): credit and limits hold across both, what one changes the other knows, and what a node that is gone had
 * open is settled once. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "books_ask.h"
#include "books_request.h"

#include "base/clock.h"

enum { NODES = 2, CLIENTS = 1000, PATIENCE_MS = 3000 };

static char home[NODES][64];
static struct cloud *node[NODES];
static struct error e;
static int numbers;

/* ---- two nodes ---- */

static void copy_secret(const char *from, const char *to) {
    char command[200];
    snprintf(command, sizeof command, "cp %s/secret %s/secret", from, to);
    assert_int_equal(system(command), 0);
}

static void open_node(int i) {
    if (cloud_open(&node[i], home[i], NULL, NULL, &e) != 0)
        fail_msg("node %d: %s", i, e.text);
}

static int two_nodes(void **state) {
    if (fresh_folder(state) != 0)
        return -1;
    memcpy(home[0], folder, sizeof folder);
    snprintf(home[1], sizeof home[1], "/tmp/unkai-books-XXXXXX");
    if (mkdtemp(home[1]) == NULL)
        return -1;
    must("{'op':'tenant.create','name':'t','currency':'JPY','credit':'1000'}");
    must("{'op':'price.set','model':'m','currency':'JPY','input':'0','output':'1000000'}"); /* 1 a token */
    copy_secret(home[0], home[1]);
    for (int i = 0; i < NODES; i++)
        open_node(i);
    return 0;
}

static int close_nodes(void **state) {
    for (int i = 0; i < NODES; i++) {
        cloud_close(node[i]);
        node[i] = NULL;
    }
    memcpy(folder, home[0], sizeof folder);
    expect("{'op':'ledger.verify'}", "\"wrong\":[]");
    expect("{'op':'tenant.show','name':'t'}", "\"held\":\"0\"");
    return books_place_remove(home[0]) + books_place_remove(home[1]);
}

/* An operation on a node. */
static void on(int i, const char *request, const char *says) {
    memcpy(folder, home[i], sizeof folder);
    expect(request, says);
}

/* What both have settled is written. */
static void rest_a_moment(void) {
    for (int i = 0; i < NODES; i++)
        on(i, "{'op':'tenant.list'}", "t");
}

/* ---- requests ---- */

static struct hold *begin_with(int i, const char *model, int64_t key, uint64_t most, struct answer *answer) {
    struct identity who = {.tenant = 1, .key = key, .account = 1, .weight = 1};
    struct admission a = {.who = &who,
                          .model = str_from(model),
                          .prompt_tokens = 1,
                          .max_completion_tokens = most,
                          .answer = answer};
    struct hold *h = NULL;
    snprintf(a.request_id, sizeof a.request_id, "n%d-%d", i, numbers++);
    if (cloud_admit(node[i], &a, &h, &e) != 0)
        fail_msg("%s", e.text);
    return h;
}

static struct hold *begin(int i, uint64_t most) {
    return begin_with(i, "m", 0, most, NULL);
}

static bool decided(struct hold **h) {
    return books_granted(h, &e) == 0;
}

static void settle(struct hold *h, uint64_t tokens) {
    cloud_settle(h, &(struct settlement){.completion_tokens = tokens, .outcome = OUTCOME_DONE});
}

static struct hold *ask_one(int i, uint64_t most) {
    struct hold *h = begin(i, most);
    return decided(&h) ? h : NULL;
}

/* ---- credit and limits ---- */

static void test_the_last_unit(void **state) {
    static struct hold *h[CLIENTS];
    for (int round = 0; round < 10; round++) {
        int granted = 0;
        struct hold *rest = ask_one(round % NODES, (uint64_t)(999 - round)); /* one is left */
        assert_non_null(rest);
        for (int i = 0; i < CLIENTS; i++)
            h[i] = begin(i % NODES, 1);
        for (int i = 0; i < CLIENTS; i++)
            granted += decided(&h[i]);
        assert_int_equal(granted, 1);
        for (int i = 0; i < CLIENTS; i++)
            if (h[i] != NULL)
                settle(h[i], 1);
        settle(rest, 0);
        rest_a_moment();
    }
    on(1, "{'op':'tenant.show','name':'t'}", "\"balance\":\"990\",\"held\":\"0\"");
}

struct client {
    int node;
    int64_t sent;
};

/* Takes what it gets until there is nothing, now at this length, now at that. */
static void *consume(void *context) {
    struct client *c = context;
    struct error why;
    for (int i = 0, refused = 0; refused < 20; i++) {
        struct identity who = {.tenant = 1, .key = 0, .account = 1, .weight = 1};
        struct admission a = {.who = &who, .model = STR("m"), .max_completion_tokens = (uint64_t)(i % 7 + 1)};
        struct hold *h;
        snprintf(a.request_id, sizeof a.request_id, "c%p-%d", context, i);
        if (books_admit(node[c->node], &a, &h, &why) != 0) {
            assert_int_equal(why.code, ERR_CREDIT);
            refused++;
            continue;
        }
        uint64_t tokens = (uint64_t)(i % 3 == 0 ? i % 7 + 1 : i % 2);
        settle(h, tokens);
        c->sent += (int64_t)tokens;
    }
    return NULL;
}

static void test_never_below(void **state) {
    struct client client[16] = {0};
    pthread_t thread[16];
    int64_t sent = 0;
    char says[60];
    for (int i = 0; i < 16; i++) {
        client[i].node = i % NODES;
        pthread_create(&thread[i], NULL, consume, &client[i]);
    }
    for (int i = 0; i < 16; i++) {
        pthread_join(thread[i], NULL);
        sent += client[i].sent;
    }
    assert_int_equal(sent, 1000);
    snprintf(says, sizeof says, "\"balance\":\"%lld\",\"held\":\"0\"", 1000 - (long long)sent);
    for (int i = 0; i < NODES; i++)
        on(i, "{'op':'tenant.show','name':'t'}", says);
}

static void test_limits(void **state) {
    struct hold *h[60];
    int granted = 0;
    on(0, "{'op':'limit.set','tenant':'t','requests_per_minute':30}", "30");
    int64_t start = clock_mono_ns();
    for (int i = 0; i < 60; i++)
        h[i] = begin(i % NODES, 1);
    for (int i = 0; i < 60; i++)
        granted += decided(&h[i]);
    int64_t filled = (clock_mono_ns() - start) / 2000000000 + 1; /* one every two seconds */
    assert_true(granted >= 30 && granted <= 30 + filled);
    for (int i = 0; i < 60; i++)
        if (h[i] != NULL)
            settle(h[i], 1);
    on(1, "{'op':'limit.set','tenant':'t','requests_per_minute':0,'concurrency':5}", "5");
    granted = 0;
    for (int i = 0; i < 20; i++)
        h[i] = begin(i % NODES, 1);
    for (int i = 0; i < 20; i++)
        granted += decided(&h[i]);
    assert_int_equal(granted, 5);
    for (int i = 0; i < 20; i++)
        if (h[i] != NULL)
            settle(h[i], 0);
    on(0, "{'op':'limit.set','tenant':'t','spend_day':'100'}", "100");
    h[0] = ask_one(0, 70 - (uint64_t)granted);
    assert_non_null(h[0]);
    assert_null(ask_one(1, 60));
    settle(h[0], 0);
    rest_a_moment();
    h[1] = ask_one(1, 60);
    assert_non_null(h[1]);
    settle(h[1], 0);
}

static struct answer *key_named(const char *name) {
    struct answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->tenant = 1;
    a->key = hash_sha256(str_from(name));
    a->body = hash_sha256(STR("body"));
    return a;
}

static void test_one_idempotency_key(void **state) {
    for (int round = 0; round < 20; round++) {
        char name[20];
        struct hold *h[NODES];
        struct answer *a[NODES];
        int granted = 0;
        snprintf(name, sizeof name, "key %d", round);
        for (int i = 0; i < NODES; i++)
            h[i] = begin_with(i, "m", 0, 1, a[i] = key_named(name));
        for (int i = 0; i < NODES; i++)
            if (decided(&h[i])) {
                granted++;
            } else {
                assert_int_equal(e.code, ERR_CONFLICT);
                answer_free(a[i]);
            }
        assert_int_equal(granted, 1);
        for (int i = 0; i < NODES; i++)
            if (h[i] != NULL) {
                a[i]->status = ANSWER_SPENT;
                settle(h[i], 1);
                while (cloud_take_answer(node[i]) == NULL)
                    usleep(100);
                answer_free(a[i]);
            }
    }
}

/* ---- changes ---- */

static int64_t make_key(int i, char token[64]) {
    struct buf answer = {0};
    struct json *made = NULL;
    memcpy(folder, home[i], sizeof folder);
    assert_int_equal(ask("{'op':'key.create','tenant':'t'}", &answer, &e), 0);
    assert_int_equal(json_parse(&made, buf_view(&answer), &e), 0);
    struct str key = json_as_str(json_get(made, "key"));
    snprintf(token, 64, "%.*s", (int)key.n, key.p);
    int64_t id = json_as_int(json_get(made, "id"));
    json_free(made);
    buf_free(&answer);
    return id;
}

/* Within a moment the node takes the key, or takes it no more. */
static void key_becomes(int i, const char *token, int rc) {
    struct identity who;
    struct address from = {0};
    for (int ms = 0; cloud_authenticate(node[i], str_from(token), &from, &who, &e) != rc; ms++) {
        if (ms > PATIENCE_MS)
            fail_msg("node %d does not know", i);
        usleep(1000);
    }
}

static void test_changes(void **state) {
    char token[64], text[200];
    int64_t key = make_key(0, token);
    struct hold *h;
    key_becomes(1, token, 0);
    /* Prices, credit and limits hold for the next request anywhere. */
    on(0, "{'op':'price.set','model':'m','currency':'JPY','input':'0','output':'2000000'}", "m");
    h = begin_with(1, "m", key, 400, NULL);
    assert_true(decided(&h));
    assert_null(ask_one(0, 200)); /* 800 of 1000 are held there */
    on(0, "{'op':'ledger.verify'}", "\"wrong\":[]");
    on(1, "{'op':'tenant.credit','name':'t','amount':'200'}", "1200");
    struct hold *more = ask_one(0, 200);
    assert_non_null(more);
    settle(more, 0);
    settle(h, 1);
    rest_a_moment();
    on(0, "{'op':'tenant.show','name':'t'}", "\"balance\":\"1198\",\"held\":\"0\"");
    on(0, "{'op':'tenant.set','name':'t','line':'100'}", "\"line\":\"100\"");
    more = ask_one(1, 640);
    assert_non_null(more);
    settle(more, 0);
    on(0, "{'op':'limit.set','tenant':'t','models':'other'}", "other");
    assert_null(ask_one(1, 1));
    on(1, "{'op':'limit.set','tenant':'t','models':''}", "\"models\":[]");
    more = ask_one(0, 1);
    assert_non_null(more);
    settle(more, 0);
    /* A key that was revoked elsewhere a moment ago is none. */
    snprintf(text, sizeof text, "{'op':'key.revoke','id':%lld}", (long long)key);
    on(0, text, "true");
    h = begin_with(1, "m", key, 1, NULL);
    assert_false(decided(&h));
    assert_int_equal(e.code, ERR_AUTH);
    key_becomes(1, token, ERR_AUTH);
    on(0, "{'op':'tenant.create','name':'new','currency':'USD','credit':'5'}", "new");
    on(1, "{'op':'tenant.show','name':'new'}", "\"balance\":\"5\"");
    on(1, "{'op':'tenant.rename','name':'new','to':'renamed'}", "renamed");
    on(0, "{'op':'tenant.show','name':'renamed'}", "\"balance\":\"5\"");
    on(0, "{'op':'ledger.zone','zone':'+09:00'}", "+09:00");
    on(1, "{'op':'ledger.zone'}", "+09:00");
    assert_int_equal(node[1]->zone, 540);
    on(0, "{'op':'ledger.account','account':'tenant:t','closed':'yes'}", "t");
    assert_null(ask_one(1, 1));
    on(0, "{'op':'ledger.account','account':'tenant:t','closed':'no'}", "t");
}

static bool same_used(const struct used *a, const struct used *b) {
    return a->open == b->open && a->held == b->held && memcmp(a->day, b->day, sizeof a->day) == 0 &&
           memcmp(a->month, b->month, sizeof a->month) == 0;
}

/* After whatever both have done, both have the same in mind. */
static void test_same_mind(void **state) {
    struct hold *open[40] = {0};
    on(0, "{'op':'limit.set','tenant':'t','spend_day':'1000','tokens_per_minute':100000}", "100000");
    srand(7);
    for (int n = 0; n < 2000; n++) {
        struct hold **h = &open[rand() % 40];
        if (*h != NULL) {
            settle(*h, (uint64_t)(rand() % 2));
            *h = NULL;
        } else {
            *h = begin(rand() % NODES, (uint64_t)(rand() % 4));
            decided(h);
        }
    }
    rest_a_moment();
    on(0, "{'op':'tenant.list'}", "t");
    struct tenant *a = memory_tenant_of(node[0], 1), *b = memory_tenant_of(node[1], 1);
    assert_true(a->balance == b->balance && a->held == b->held && a->remainder == b->remainder);
    assert_true(same_used(&a->limited.used, &b->limited.used));
    for (int i = 0; i < 40; i++)
        if (open[i] != NULL)
            settle(open[i], 0);
}

/* ---- nodes that go ---- */

static void test_another_secret(void **state) {
    struct cloud *c;
    char third[] = "/tmp/unkai-books-XXXXXX";
    assert_non_null(mkdtemp(third));
    assert_int_equal(cloud_open(&c, third, NULL, NULL, &e), ERR_DENIED);
    assert_non_null(strstr(e.text, "copy the file 'secret'"));
    copy_secret(home[0], third);
    assert_int_equal(cloud_open(&c, third, NULL, NULL, &e), 0);
    on(0, "{'op':'node.list'}", "\"this\":false");
    cloud_close(c);
    char command[200];
    snprintf(command, sizeof command, "cp %s/node %s/node", home[0], third);
    assert_int_equal(system(command), 0);
    assert_int_equal(cloud_open(&c, third, NULL, NULL, &e), ERR_CONFLICT);
    assert_non_null(strstr(e.text, "remove the file 'node'"));
    books_place_remove(third);
}

/* The name of the other node's row. */
static void name_of(int i, char name[NODE_NAME_BYTES]) {
    snprintf(name, NODE_NAME_BYTES, "%s", shared_node(node[i]));
}

static void remove_node(int by, const char *name) {
    char text[200];
    snprintf(text, sizeof text, "{'op':'node.remove','name':'%s'}", name);
    on(by, text, "true");
}

static void test_killed(void **state) {
    for (int i = 0; i < NODES; i++)
        cloud_close(node[i]);
    pid_t child = fork();
    if (child == 0) {
        if (cloud_open(&node[1], home[1], NULL, NULL, &e) != 0)
            _exit(1);
        for (int i = 0; i < 3; i++) {
            struct hold *h = ask_one(1, 100);
            if (h == NULL)
                _exit(2);
            cloud_sent(h, 40, 0);
            while (cloud_may_send(h) < 72)
                usleep(1000);
        }
        kill(getpid(), SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    open_node(0);
    on(0, "{'op':'tenant.show','name':'t'}", "\"balance\":\"1000\",\"held\":\"300\"");
    on(0, "{'op':'node.list'}", "\"open_requests\":3");
    node[0]->silence = 2000000000;
    for (amount held = 1; held != 0;) {
        usleep(100000);
        pthread_mutex_lock(&node[0]->lock);
        held = memory_tenant_of(node[0], 1)->held;
        pthread_mutex_unlock(&node[0]->lock);
    }
    on(0, "{'op':'tenant.show','name':'t'}", "\"balance\":\"880\",\"held\":\"0\"");
    open_node(1);
    on(1, "{'op':'tenant.show','name':'t'}", "\"balance\":\"880\",\"held\":\"0\"");
}

/* It was not dead at all: what it had open is settled, once, and it goes on. */
static void test_taken_for_dead(void **state) {
    char name[NODE_NAME_BYTES];
    struct hold *h = ask_one(1, 100);
    assert_non_null(h);
    cloud_sent(h, 10, 0);
    while (cloud_may_send(h) < 42)
        usleep(1000);
    name_of(1, name);
    remove_node(0, name);
    on(0, "{'op':'tenant.show','name':'t'}", "\"balance\":\"990\",\"held\":\"0\"");
    memcpy(folder, home[1], sizeof folder);
    refuse("{'op':'tenant.show','name':'none'}", ERR_NOT_FOUND,
           "no tenant"); /* the turn in which it learns of it is undone */
    struct hold *next = ask_one(1, 100);
    assert_non_null(next);
    on(0, "{'op':'tenant.show','name':'t'}", "\"balance\":\"990\",\"held\":\"100\"");
    cloud_sent(h, 90, 0);
    settle(h, 90);
    settle(next, 5);
    rest_a_moment();
    for (int i = 0; i < NODES; i++)
        on(i, "{'op':'tenant.show','name':'t'}", "\"balance\":\"985\",\"held\":\"0\"");
    on(0, "{'op':'node.list'}", name);
}

int main(void) {
#define on_two(test) cmocka_unit_test_setup_teardown(test, two_nodes, close_nodes)
    const struct CMUnitTest tests[] = {
        on_two(test_the_last_unit),       on_two(test_never_below), on_two(test_limits),
        on_two(test_one_idempotency_key), on_two(test_changes),     on_two(test_same_mind),
        on_two(test_another_secret),      on_two(test_killed),      on_two(test_taken_for_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
