/* The database's server goes away and comes back (UNKAI_TEST_DB, tests/postgres.py): streams go on meanwhile, nothing is admitted, and afterwards the books have all of it, exactly
 * once. Going away is a database that throws everybody out and lets nobody in. */
#include "cloud/control.h"
#include "cloud/inner.h"

#include "store/postgres.h"

#include "base/clock.h"
#include "base/json.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_place.h"
#include "books_request.h"

enum { STREAMS = 8, TOKENS = 20000 };

static char folder[64], name[32];
static struct error e;

static void sql(const char *format, ...) {
    char text[300];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    PGconn *db = PQconnectdb(getenv("UNKAI_TEST_DB"));
    PGresult *r = PQexec(db, text);
    if (PQresultStatus(r) != PGRES_COMMAND_OK && PQresultStatus(r) != PGRES_TUPLES_OK)
        fail_msg("%s: %s", text, PQerrorMessage(db));
    PQclear(r);
    PQfinish(db);
}

static void throw_out(void) {
    sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '%s'", name);
}

static void go_away(void) {
    sql("ALTER DATABASE %s ALLOW_CONNECTIONS false", name);
    throw_out();
}

static void come_back(void) {
    sql("ALTER DATABASE %s ALLOW_CONNECTIONS true", name);
}

static void must(const char *request, struct buf *answer) {
    struct buf own = {0};
    if (control_call(folder, str_from(request), answer != NULL ? answer : &own, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    buf_free(&own);
}

/* A database of its own, in the place of the one that the server's address names. */
static int fresh(void **state) {
    static int number;
    char url[400];
    const char *server = getenv("UNKAI_TEST_DB"), *path = strstr(server, "/postgres?");
    snprintf(folder, sizeof folder, "/tmp/unkai-books-XXXXXX");
    if (mkdtemp(folder) == NULL || path == NULL)
        return -1;
    snprintf(name, sizeof name, "away%d_%d", (int)getpid(), ++number);
    sql("CREATE DATABASE %s", name);
    snprintf(url, sizeof url, "%.*s/%s%s", (int)(path - server), server, name, path + strlen("/postgres"));
    setenv("UNKAI_DB", url, 1);
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"1000000\"}", NULL);
    must("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300\",\"output\":\"700.3\"}",
         NULL);
    return 0;
}

static int clean(void **state) {
    return books_place_remove(folder);
}

static struct hold *admit(struct cloud *c, const char *id) {
    struct identity who = {.tenant = 1, .key = 1, .account = 1, .weight = 1};
    struct admission a = {
        .who = &who, .model = STR("m"), .prompt_tokens = 10, .max_completion_tokens = TOKENS};
    struct hold *h = NULL;
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    books_admit(c, &a, &h, &e);
    return h;
}

static void must_verify(void) {
    struct buf answer = {0};
    must("{\"op\":\"ledger.verify\"}", &answer);
    if (strstr(answer.p, "\"ok\":true") == NULL)
        fail_msg("%s", answer.p);
    buf_free(&answer);
}

static int64_t billed(void) {
    struct buf answer = {0};
    struct json *usage;
    must("{\"op\":\"usage\",\"tenant\":\"t\"}", &answer);
    assert_int_equal(json_parse(&usage, buf_view(&answer), &e), 0);
    int64_t n = json_as_int(json_get(usage, "completion_tokens"));
    json_free(usage);
    buf_free(&answer);
    return n;
}

struct stream {
    struct hold *hold;
    uint64_t sent;
};

/* Send as far as each may, until each has sent `most`, or for so long. */
static void send_on(struct stream *s, uint64_t most, int64_t for_ns) {
    int64_t end = clock_mono_ns() + for_ns;
    for (bool more = true; more && clock_mono_ns() < end;) {
        more = false;
        for (int i = 0; i < STREAMS; i++) {
            more = more || s[i].sent < most;
            if (s[i].hold != NULL && s[i].sent < most && s[i].sent < cloud_may_send(s[i].hold))
                cloud_sent(s[i].hold, ++s[i].sent, 0);
        }
    }
}

static void wait_until(struct cloud *c, bool away) {
    for (int i = 0; i < 12000 && cloud_away(c) != away; i++)
        usleep(5000);
    assert_int_equal(cloud_away(c), away);
}

static void settle(struct stream *s) {
    struct settlement end = {.completion_tokens = s->sent, .outcome = OUTCOME_DONE};
    cloud_settle(s->hold, &end);
    s->hold = NULL;
}

static void start(struct cloud **c, struct stream s[STREAMS]) {
    char id[32];
    if (cloud_open(c, folder, NULL, NULL, &e) != 0)
        fail_msg("%s", e.text);
    memset(s, 0, STREAMS * sizeof *s);
    for (int i = 0; i < STREAMS; i++) {
        snprintf(id, sizeof id, "s%d", i);
        s[i].hold = admit(*c, id);
        assert_non_null(s[i].hold);
    }
}

/* Half of the streams end while it is away, and half after it. */
static void test_streams_go_on(void **state) {
    struct stream s[STREAMS];
    struct cloud *c;
    uint64_t all = 0;
    struct buf answer = {0};
    const int64_t minute = INT64_C(60000000000);
    start(&c, s);
    send_on(s, 100, minute);
    go_away();
    send_on(s, 2000, minute); /* far beyond what the database has heard */
    wait_until(c, true);
    assert_null(admit(c, "no"));
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    assert_int_equal(control_call(folder, STR("{\"op\":\"tenant.list\"}"), &answer, &e), ERR_UNAVAILABLE);
    for (int i = 0; i < STREAMS / 2; i++)
        settle(&s[i]);
    struct error why;
    assert_false(cloud_stopped(c, &why));
    usleep(700000); /* it has tried and failed */
    come_back();
    wait_until(c, false);
    send_on(s, 2000, minute);
    for (int i = STREAMS / 2; i < STREAMS; i++) {
        for (int j = 0; j < 500; j++)
            cloud_sent(s[i].hold, ++s[i].sent, 0);
        settle(&s[i]);
    }
    struct hold *h = admit(c, "again");
    assert_non_null(h);
    cloud_settle(h, &(struct settlement){.outcome = OUTCOME_FAILED});
    cloud_close(c);
    for (int i = 0; i < STREAMS; i++)
        all += s[i].sent;
    must_verify();
    assert_int_equal(billed(), (int64_t)all);
    buf_free(&answer);
    char path[100];
    snprintf(path, sizeof path, "%s/spool", folder);
    assert_int_equal(access(path, F_OK), -1);
}

/* A server that crashed gives a number out again: that somebody's transaction of the number is done says nothing of ours. */
static void test_number_of_another(void **state) {
    struct stream s[STREAMS];
    struct cloud *c;
    start(&c, s);
    send_on(s, 7, INT64_C(60000000000));
    go_away();
    for (int i = 0; i < STREAMS; i++)
        settle(&s[i]); /* what cannot be written */
    wait_until(c, true);
    struct postgres *p = (struct postgres *)(void *)c->store;
    PGconn *db = PQconnectdb(getenv("UNKAI_TEST_DB"));
    PGresult *r = PQexec(db, "SELECT pg_current_xact_id()");
    snprintf(p->committing, sizeof p->committing, "%s", PQgetvalue(r, 0, 0));
    PQclear(r);
    PQfinish(db);
    come_back();
    wait_until(c, false);
    assert_int_equal(billed(), 7 * STREAMS); /* now, and not by a recovery */
    cloud_close(c);
    must_verify();
}

static void stream_until_killed(_Atomic uint64_t *sent) {
    struct stream s[STREAMS];
    struct cloud *c;
    start(&c, s);
    for (;;)
        for (int i = 0; i < STREAMS; i++)
            if (s[i].sent < TOKENS && s[i].sent < cloud_may_send(s[i].hold)) {
                atomic_store(&sent[i], s[i].sent + 1);
                cloud_sent(s[i].hold, ++s[i].sent, 0);
            }
}

/* Killed while it is away: the spool bills what was sent. */
static void test_killed_meanwhile(void **state) {
    size_t size = STREAMS * sizeof(uint64_t);
    _Atomic uint64_t *sent = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = fork();
    if (child == 0)
        stream_until_killed(sent);
    while (atomic_load(&sent[STREAMS - 1]) < 200)
        usleep(1000);
    go_away();
    uint64_t before = atomic_load(&sent[0]), all = 0;
    for (int i = 0; i < 2000 && atomic_load(&sent[0]) < before + 2000 && atomic_load(&sent[0]) < TOKENS; i++)
        usleep(5000);
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    for (int i = 0; i < STREAMS; i++)
        all += atomic_load(&sent[i]);
    struct cloud *c;
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), ERR_UNAVAILABLE);
    come_back();
    must_verify();
    int64_t paid = billed();
    print_message("%lld tokens sent, %lld billed\n", (long long)all, (long long)paid);
    assert_true(paid <= (int64_t)all && (int64_t)all - paid <= 32 * STREAMS);
    munmap((void *)sent, size);
}

/* The connection breaks again and again, in the middle of commits too: every request is on the books once. */
static void test_breaks(void **state) {
    enum { BREAKS = 20 };
    struct cloud *c;
    char id[32];
    int64_t settled = 0;
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (int i = 0; i < BREAKS; i++) {
        pid_t child = fork();
        if (child == 0) {
            usleep((useconds_t)(rand() % 20000) + 1000 * (useconds_t)i);
            throw_out();
            _exit(0);
        }
        for (int n = 0; n < 300; n++) {
            struct settlement end = {.completion_tokens = 7, .outcome = OUTCOME_DONE};
            snprintf(id, sizeof id, "b%d-%d", i, n);
            struct hold *h = admit(c, id);
            if (h == NULL) {
                usleep(2000);
                continue;
            }
            cloud_sent(h, 7, 0);
            cloud_settle(h, &end);
            settled++;
            usleep(100);
        }
        waitpid(child, NULL, 0);
        wait_until(c, false);
    }
    struct error why;
    if (cloud_stopped(c, &why))
        fail_msg("%s", why.text);
    cloud_close(c);
    must_verify();
    assert_int_equal(billed(), 7 * settled);
    print_message("%d breaks, %lld settled\n", BREAKS, (long long)settled);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_streams_go_on, fresh, clean),
        cmocka_unit_test_setup_teardown(test_number_of_another, fresh, clean),
        cmocka_unit_test_setup_teardown(test_killed_meanwhile, fresh, clean),
        cmocka_unit_test_setup_teardown(test_breaks, fresh, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
