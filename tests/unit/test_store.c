/* The database seam, the same on each database: what is written is read, what is rolled back is not there, errors keep their meaning, and no password is shown. */
#include "store/store.h"

#include "store/postgres.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_place.h"

static char folder[64];
static struct store *s;
static struct error e;

static int open_store(void **state) {
    if (books_place(folder, sizeof folder) != 0)
        return -1;
    int rc = store_open(&s, books_where(folder), &e);
    if (rc != 0)
        fprintf(stderr, "%s\n", e.text);
    return rc;
}

static int close_store(void **state) {
    store_close(s);
    return books_place_remove(folder);
}

static int add_node(const char *name, int64_t seen) {
    struct query *q;
    int rc = store_query(s, &q, "INSERT INTO node (name, seen, started) VALUES ($1, $2, 0)", &e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(name));
    query_int(q, 2, seen);
    return query_run(q, &e);
}

static int64_t count_nodes(void) {
    struct query *q;
    assert_int_equal(store_query(s, &q, "SELECT count(*) FROM node", &e), 0);
    assert_int_equal(query_step(q, &e), 1);
    int64_t n = query_column_int(q, 0);
    assert_int_equal(query_run(q, &e), 0);
    return n;
}

static void test_transactions(void **state) {
    char name[32];
    assert_int_equal(store_begin(s, &e), 0);
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof name, "n%d", i);
        assert_int_equal(add_node(name, i), 0);
    }
    assert_int_equal(count_nodes(), 3000);
    store_rollback(s);
    assert_int_equal(count_nodes(), 0);
    assert_int_equal(store_begin(s, &e), 0);
    assert_int_equal(add_node("a", INT64_MIN), 0);
    assert_int_equal(store_commit(s, &e), 0);
    store_rollback(s); /* of nothing */
    assert_int_equal(count_nodes(), 1);
    assert_int_equal(add_node("b", INT64_MAX), 0); /* outside of one: at once */
    assert_int_equal(count_nodes(), 2);
}

/* An error comes with the statement or with one behind it, nothing of the transaction stays, and the store goes on. */
static void test_errors(void **state) {
    struct query *q;
    assert_int_equal(add_node("a", 1), 0);
    assert_int_equal(add_node("a", 1), ERR_CONFLICT);
    assert_int_equal(store_begin(s, &e), 0);
    assert_int_equal(add_node("b", 1), 0);
    int rc = add_node("a", 1);
    if (rc == 0)
        rc = add_node("c", 1);
    if (rc == 0)
        rc = store_commit(s, &e);
    assert_int_equal(rc, ERR_CONFLICT);
    store_rollback(s);
    assert_int_equal(count_nodes(), 1);
    assert_true(store_query(s, &q, "SELECT nothing FROM nowhere", &e) != 0 || query_step(q, &e) < 0);
    if (getenv("UNKAI_DB") != NULL)
        assert_int_equal(add_node("\xff", 1), ERR_INVALID);
    assert_int_equal(add_node("c", 1), 0);
    assert_int_equal(count_nodes(), 2);
}

static void test_values(void **state) {
    struct query *q;
    static const char bytes[] = {0, 1, '\\', 'x', (char)0xff, '\n'};
    struct str blob = {bytes, sizeof bytes}, none = {NULL, 0};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(store_query(s, &q,
                                     "INSERT INTO admin_key (name, role, hash, created, expires, revoked)"
                                     " VALUES ($1, $2, $3, $4, 0, 0) RETURNING id",
                                     &e),
                         0);
        query_text(q, 1, i ? none : STR("it's \"so\" \\ \xc3\xa9"));
        query_text(q, 2, STR("r"));
        query_blob(q, 3, i ? none : blob);
        query_int(q, 4, i ? INT64_MIN : INT64_MAX);
        assert_int_equal(query_step(q, &e), 1);
        assert_int_equal(query_column_int(q, 0), i + 1);
        assert_int_equal(query_run(q, &e), 0);
    }
    assert_int_equal(store_query(s, &q, "SELECT name, hash, created, hash FROM admin_key ORDER BY id", &e),
                     0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(query_step(q, &e), 1);
        assert_true(str_equal(query_column_text(q, 0), i ? none : STR("it's \"so\" \\ \xc3\xa9")));
        for (int again = 0; again < 2; again++)
            assert_true(str_equal(query_column_text(q, 1), i ? none : blob));
        assert_true(str_equal(query_column_text(q, 3), i ? none : blob));
        assert_true(query_column_int(q, 2) == (i ? INT64_MIN : INT64_MAX));
    }
    assert_int_equal(query_step(q, &e), 0);
}

/* A query that reads while others read and write, within a transaction and without one. */
static void test_nested(void **state) {
    struct query *all, *one;
    char name[32];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "n%03d", i);
        assert_int_equal(add_node(name, i), 0);
    }
    for (int transaction = 0; transaction < 2; transaction++) {
        int n = 0;
        if (transaction)
            assert_int_equal(store_begin(s, &e), 0);
        assert_int_equal(
            store_query(s, &all, "SELECT name, seen FROM node WHERE seen < 1000 ORDER BY name", &e), 0);
        while (query_step(all, &e) > 0) {
            assert_int_equal(query_column_int(all, 1), n);
            assert_int_equal(
                store_query(s, &one, "UPDATE node SET started = started + $2 WHERE name = $1", &e), 0);
            query_text(one, 1, query_column_text(all, 0));
            query_int(one, 2, n);
            assert_int_equal(query_run(one, &e), 0);
            assert_int_equal(query_changed(one), 1);
            n++;
        }
        assert_int_equal(n, 200);
        if (transaction)
            assert_int_equal(store_commit(s, &e), 0);
    }
    assert_int_equal(store_query(s, &one, "SELECT CAST(sum(started) AS BIGINT) FROM node", &e), 0);
    assert_int_equal(query_step(one, &e), 1);
    assert_int_equal(query_column_int(one, 0), 2 * 199 * 200 / 2);
}

/* One that is left in the middle is no hindrance. */
static void test_left(void **state) {
    struct query *q;
    test_nested(state);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(store_query(s, &q, "SELECT name FROM node ORDER BY name", &e), 0);
        assert_int_equal(query_step(q, &e), 1);
        assert_true(str_is(query_column_text(q, 0), "n000"));
    }
    assert_int_equal(count_nodes(), 200);
    assert_int_equal(store_begin(s, &e), 0);
    assert_int_equal(store_query(s, &q, "SELECT name FROM node ORDER BY name", &e), 0);
    assert_int_equal(query_step(q, &e), 1);
    assert_int_equal(store_commit(s, &e), 0);
}

static void test_again(void **state) {
    assert_int_equal(add_node("a", 1), 0);
    store_close(s);
    assert_int_equal(store_open(&s, books_where(folder), &e), 0); /* migrates nothing */
    assert_int_equal(count_nodes(), 1);
}

/* One hand alone writes; another one may read beside it. */
static void test_one_hand(void **state) {
    struct store *other;
    const char *url = getenv("UNKAI_DB");
    if (url == NULL)
        return;
    assert_int_equal(store_open(&other, url, &e), ERR_CONFLICT);
    assert_int_equal(store_open_beside(&other, url, &e), 0);
    store_close(other);
    store_close(s);
    assert_int_equal(store_open(&s, url, &e), 0);
}

static int reconnect(void) {
    int rc;
    while ((rc = store_reconnect(s, &e)) == 1)
        usleep(1000);
    return rc;
}

/* A server that crashed has lost the number of a transaction that was never durable: it is over, and that is no error. */
static void test_number_of_the_future(void **state) {
    struct postgres *p = (struct postgres *)(void *)s;
    if (getenv("UNKAI_DB") == NULL)
        return;
    snprintf(p->committing, sizeof p->committing, "999999999");
    for (int i = 0; i < 100 && reconnect() == ERR_UNAVAILABLE; i++)
        usleep(10000); /* our old connection has the books still */
    assert_int_equal(add_node("a", 1), 0);
    assert_int_equal(count_nodes(), 1);
}

/* A connection that breaks while it is made says nothing of the server's settings. */
static void test_broken_again(void **state) {
    struct postgres *p = (struct postgres *)(void *)s;
    const char *url = getenv("UNKAI_DB");
    if (url == NULL)
        return;
    for (int i = 0; i < 40; i++) {
        PGconn *killer = PQconnectdb(url);
        pid_t child = fork();
        if (child == 0) {
            usleep((useconds_t)(200 * i));
            PQclear(PQexec(killer, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                                   " WHERE application_name = 'unkai' AND datname = current_database()"));
            _exit(0);
        }
        int rc = reconnect();
        if (rc != 0 && rc != ERR_UNAVAILABLE)
            fail_msg("%d: %s", rc, e.text);
        waitpid(child, NULL, 0);
        PQfinish(killer);
    }
    for (int i = 0; i < 100 && reconnect() == ERR_UNAVAILABLE; i++)
        usleep(10000);
    assert_non_null(p->db);
    assert_int_equal(add_node("a", 1), 0);
}

/* A server that takes what is sent and never answers is left after a while. */
static void test_silence(void **state) {
    struct postgres *p = (struct postgres *)(void *)s;
    PGresult *r;
    if (getenv("UNKAI_DB") == NULL)
        return;
    assert_int_equal(PQexitPipelineMode(p->db), 1);
    assert_int_equal(PQsendQuery(p->db, "SELECT pg_sleep(600)"), 1);
    int64_t start = clock_mono_ns();
    while ((r = postgres_result(p)) != NULL)
        PQclear(r);
    int64_t seconds = (clock_mono_ns() - start) / 1000000000;
    assert_true(seconds >= 9 && seconds < 500);
    assert_int_equal(PQstatus(p->db), CONNECTION_BAD);
}

static void test_translation(void **state) {
    static const char *const table[][2] = {
        {"CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL) STRICT;",
         "CREATE TABLE t (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n BIGINT NOT NULL) ;"},
        {"(a TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;", "(a TEXT COLLATE \"C\" PRIMARY KEY) ;"},
        {"ADD COLUMN hash BLOB NOT NULL DEFAULT x'';", "ADD COLUMN hash BYTEA NOT NULL DEFAULT '\\x';"},
        {"note TEXT DEFAULT 'a TEXT, not x''STRICT'",
         "note TEXT COLLATE \"C\" DEFAULT 'a TEXT, not x''STRICT'"},
        {"CREATE INDEX INTEGERS ON TEXTS (max'')", "CREATE INDEX INTEGERS ON TEXTS (max'')"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct buf out = {0};
        postgres_translate(&out, table[i][0]);
        assert_string_equal(out.p, table[i][1]);
        buf_free(&out);
    }
}

/* Wherever the password stands in an address, and however libpq would misread it. */
static void test_no_password_is_shown(void **state) {
    static const char *const bad[] = {
        "postgresql://user:hunter2@127.0.0.1:1/books",
        "postgresql://user:hunter2@127.0.0.1:port/books",
        "postgresql://user:hunter2/x@127.0.0.1/books",
        "postgresql://user:hunter2?x@127.0.0.1/books",
        "postgresql://user:hunter2@x@127.0.0.1/books",
        "postgresql://user:hunter2%zz@127.0.0.1/books",
        "postgresql://127.0.0.1:1/books?password=hunter2",
        "postgresql://127.0.0.1:1/books?password=hunter2=x",
        "postgresql://127.0.0.1:1/books?pasword=hunter2",
        "postgresql://127.0.0.1:1/books?host=/hunter2&password=hunter2",
        "postgresql://user:hunter2@127.0.0.1:1/hunter2",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct store *none = NULL;
        int rc = store_open(&none, bad[i], &e);
        assert_true(rc == ERR_UNAVAILABLE || rc == ERR_INVALID);
        assert_null(none);
        if (strstr(e.text, "hunter2") != NULL)
            fail_msg("%s", e.text);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_transactions, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_errors, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_values, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_nested, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_left, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_again, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_one_hand, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_number_of_the_future, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_broken_again, open_store, close_store),
        cmocka_unit_test_setup_teardown(test_silence, open_store, close_store),
        cmocka_unit_test(test_translation),
        cmocka_unit_test(test_no_password_is_shown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
