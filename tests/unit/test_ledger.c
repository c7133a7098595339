/* Books that somebody has touched: whatever is changed behind the program's back, verification names it; and what is no book of ours, or is in
 * somebody's hands, is refused with a sentence that says so. */
#include "books_request.h"

#include "cloud/cloud.h"
#include "cloud/control.h"
#include "cloud/ledger.h"

#include "base/json.h"
#include "store/schema.h"

#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64], path[80];

static int fresh_folder(void **state) {
    snprintf(folder, sizeof folder, "/tmp/unkai-books-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    snprintf(path, sizeof path, "%s/books.db", folder);
    return 0;
}

static int remove_folder(void **state) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

static int ask(const char *request, struct buf *answer, struct error *e) {
    buf_clear(answer);
    return control_call(folder, str_from(request), answer, e);
}

static void must(const char *request) {
    struct buf answer = {0};
    struct error e = {0};
    if (ask(request, &answer, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    buf_free(&answer);
}

static struct hold *admit(struct cloud *c, const char *id) {
    struct identity who = {.tenant = 1, .key = 1, .account = 1, .weight = 1};
    struct admission a = {.who = &who, .model = STR("m"), .prompt_tokens = 10, .max_completion_tokens = 50};
    struct hold *h = NULL;
    struct error e = {0};
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    if (books_admit(c, &a, &h, &e) != 0)
        fail_msg("%s", e.text);
    return h;
}

/* Two tenants, three payments, and a request of each kind: done, done without a token, failed before the first, cancelled. */
static void make_books(void) {
    static const struct {
        const char *id;
        struct settlement s;
    } request[] = {
        {"full", {.cached_tokens = 4, .completion_tokens = 7, .outcome = OUTCOME_DONE}},
        {"empty", {.outcome = OUTCOME_DONE}},
        {"failed", {.outcome = OUTCOME_FAILED}},
        {"cut", {.completion_tokens = 3, .outcome = OUTCOME_CANCELLED}},
    };
    struct cloud *c;
    struct error e = {0};
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"10\"}");
    must("{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":\"10\"}");
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"5\"}");
    must("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300.000001\",\"cached\":"
         "\"150\","
         "\"output\":\"700.000333\"}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (size_t i = 0; i < sizeof request / sizeof *request; i++)
        cloud_settle(admit(c, request[i].id), &request[i].s);
    cloud_close(c);
}

static void touch(const char *sql) {
    sqlite3 *db;
    char *why = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
        fail_msg("%s: %s", sql, why);
    sqlite3_close(db);
}

#define ONLY_HEAD "\"wrong\":[\"the journal does not end where its head says: "
#define ONLY_CHAIN "\"wrong\":[\"the chain breaks at transfer: "

static void test_touched(void **state) {
    static const struct {
        const char *sql, *says;
    } table[] = {
        {"UPDATE account SET balance = balance + 1 WHERE name = 'tenant:t'", "is not the sum"},
        {"UPDATE account SET balance = balance + 4294967296 WHERE name = 'tenant:t'", "is not the sum"},
        {"UPDATE account SET remainder = remainder + 1 WHERE name = 'tenant:t'",
         "a tenant's charges are not what its requests cost: t"},
        {"UPDATE account SET remainder = 1 WHERE name = 'tenant:u'",
         "a tenant's charges are not what its requests cost: u"},
        {"UPDATE transfer SET amount = amount + 1 WHERE seq = 1", "is not the sum of its postings: tenant:t"},
        {"UPDATE transfer SET amount = amount + 1 WHERE seq = 1",
         "[\"the chain breaks at transfer: 1, opening:1\","},
        {"UPDATE transfer SET amount = 9223372036854775807", "is not the sum"},
        {"UPDATE transfer SET credit = 3 WHERE seq = 1", "is not the sum of its postings: tenant:u"},
        {"UPDATE transfer SET credit = 99 WHERE seq = 1", "a transfer belongs to no account: opening:1"},
        {"UPDATE transfer SET phase = 1 WHERE seq = 1", "is not the sum of its postings: tenant:t"},
        {"UPDATE tenant SET account = 99 WHERE name = 'u'", "a tenant has no account: u"},
        {"DELETE FROM transfer WHERE seq = 1", "a transfer is missing: 1"},
        {"DELETE FROM transfer WHERE seq = 2;"
         "UPDATE account SET balance = 0 WHERE name = 'tenant:u';"
         "UPDATE account SET balance = balance + 10000000000 WHERE name = 'funding:JPY'",
         "a transfer is missing: 2"},
        {"DELETE FROM transfer WHERE id = 'settle:full'", "without its settlement: full"},
        {"DELETE FROM request WHERE id = 'full'", "without its request: settle:full"},
        {"UPDATE request SET charge = charge - 1 WHERE id = 'full'", "without its settlement: full"},
        {"UPDATE request SET tenant = 2 WHERE id = 'full'", "without its settlement: full"},
        {"UPDATE request SET sent = sent + 1 WHERE id = 'full'", "not what its request cost: full"},
        {"UPDATE request SET sent = sent - 1 WHERE id = 'cut'", "not what its request cost: cut"},
        {"UPDATE request SET sent = 1 WHERE id = 'failed'", "not what its request cost: failed"},
        {"UPDATE request SET prompt = prompt - 1 WHERE id = 'empty'", "not what its request cost: empty"},
        {"UPDATE request SET cached = cached + 1 WHERE id = 'full'", "not what its request cost: full"},
        {"UPDATE request SET cached = -9223372036854775807 WHERE id = 'full'",
         "not what its request cost: full"},
        {"UPDATE request SET price = 0 WHERE id = 'full'", "not what its request cost: full"},
        {"UPDATE price SET output = output + 1000000000", "not what its request cost: full"},
        {"UPDATE price SET output = output + 1", "a tenant's charges are not what its requests cost: t"},
        {"UPDATE request SET hold = charge - 1 WHERE id = 'full'", "above its hold: full"},
        {"UPDATE usage_day SET completion = completion + 1",
         "a month's usage is not what its requests come to: tenant: 1"},
        {"UPDATE usage_day SET model = 'n'", "a month's usage is not what its requests come to: tenant: 1"},
        {"DELETE FROM usage_day", "a month's usage is not what its requests come to: tenant: 1"},
        {"UPDATE account SET pending_debit = 1 WHERE name = 'tenant:t'",
         "what is pending on an account is not the sum of it: tenant:t"},
        {"UPDATE account SET pending_credit = 1 WHERE name = 'tenant:t'",
         "what is pending on an account is not the sum of it: tenant:t"},
        {"INSERT INTO pending VALUES (1, 0)", "an open row of pending transfers is of none: 1"},
        {"UPDATE transfer SET phase = 2 WHERE seq = 1",
         "what was posted or given back was not pending: opening:1"},
        {"UPDATE request SET tenant = 9 WHERE id = 'full'", "a request belongs to no tenant: full"},
        /* What adds up all the same: the chain alone sees it. */
        {"UPDATE transfer SET amount = amount + 1 WHERE seq = 2; UPDATE account SET balance = balance + 1"
         " WHERE name = 'tenant:u'; UPDATE account SET balance = balance - 1 WHERE name = 'funding:JPY'",
         ONLY_CHAIN "2, opening:2\"]"},
        {"UPDATE transfer SET at = at + 1 WHERE seq = 2", ONLY_CHAIN "2, opening:2\"]"},
        {"UPDATE transfer SET id = 'opening:9' WHERE seq = 2", ONLY_CHAIN "2, opening:9\"]"},
        {"UPDATE transfer SET note = 'a gift' WHERE seq = 2", ONLY_CHAIN "2, opening:2\"]"},
        {"UPDATE transfer SET hash = x'' WHERE seq = 3", ONLY_CHAIN "3, credit:1:"},
        {"UPDATE request SET total_ns = 1 WHERE id = 'full'", ONLY_CHAIN "4, settle:full\"]"},
        {"UPDATE request SET route = 'other' WHERE id = 'full'", ONLY_CHAIN "4, settle:full\"]"},
        {"UPDATE request SET at = 2 WHERE id = 'empty'", ONLY_CHAIN "5, settle:empty\"]"},
        {"UPDATE book SET seq = 8", ONLY_HEAD "8\"]"},
        {"UPDATE book SET hash = zeroblob(32)", ONLY_HEAD "7\"]"},
    };
    char good[100], back[250];
    struct buf answer = {0};
    struct error e = {0};
    make_books();
    must("{\"op\":\"tenant.list\"}");
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", &answer, &e), 0);
    assert_non_null(strstr(answer.p, "{\"ok\":true,\"transfers\":7,\"root\":\""));
    assert_non_null(strstr(answer.p, "\"wrong\":[]}"));
    snprintf(good, sizeof good, "%s.good", path);
    snprintf(back, sizeof back, "cp %s %s", path, good);
    assert_int_equal(system(back), 0);
    snprintf(back, sizeof back, "cp %s %s", good, path);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        touch(table[i].sql);
        if (ask("{\"op\":\"ledger.verify\"}", &answer, &e) != 0)
            fail_msg("%s: %s", table[i].sql, e.text);
        if (strstr(answer.p, table[i].says) == NULL || strstr(answer.p, "\"ok\":false") == NULL)
            fail_msg("%s: %s", table[i].sql, answer.p);
        assert_int_equal(system(back), 0);
    }
    buf_free(&answer);
}

static void get_root(char root[65]) {
    struct buf answer = {0};
    struct error e = {0};
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", &answer, &e), 0);
    const char *at = strstr(answer.p, "\"root\":\"");
    assert_non_null(at);
    snprintf(root, 65, "%.64s", at + 8);
    buf_free(&answer);
}

static void expect_verify(const char *root, const char *says) {
    char request[150];
    struct buf answer = {0};
    struct error e = {0};
    snprintf(request, sizeof request, "{\"op\":\"ledger.verify\",\"root\":\"%s\"}", root);
    assert_int_equal(ask(request, &answer, &e), 0);
    if (strstr(answer.p, says) == NULL)
        fail_msg("%s: %s", says, answer.p);
    buf_free(&answer);
}

/* Books that were written anew from a changed row on have a sound chain of their own: only a root that was kept elsewhere tells. */
static void test_kept_root(void **state) {
    char root[65], later[65];
    struct buf answer = {0};
    struct error e = {0};
    make_books();
    get_root(root);
    must("{\"op\":\"tenant.credit\",\"name\":\"u\",\"amount\":\"1\"}");
    get_root(later);
    assert_string_not_equal(root, later);
    expect_verify(root, "{\"ok\":true,\"transfers\":8,");
    expect_verify(root, "\"root_at\":7,");
    expect_verify(later, "\"root_at\":8,");
    assert_int_equal(ask("{\"op\":\"ledger.verify\",\"root\":\"12\"}", &answer, &e), ERR_INVALID);
    touch("DELETE FROM transfer WHERE seq = 8; UPDATE account SET balance = balance - 1000000000 WHERE"
          " name = 'tenant:u'; UPDATE account SET balance = balance + 1000000000 WHERE name = 'funding:JPY'");
    expect_verify(root, ONLY_HEAD "8\"]");
    touch("UPDATE book SET seq = 7, hash = (SELECT hash FROM transfer WHERE seq = 7)");
    expect_verify(root, "{\"ok\":true,\"transfers\":7,");
    expect_verify(later, "[\"the books do not contain the root ");
    touch("UPDATE transfer SET note = 'a gift', hash = x'' WHERE seq = 2; UPDATE transfer SET hash = x'';"
          "DELETE FROM book; DELETE FROM period; DELETE FROM usage_day"); /* the next start chains them */
    expect_verify(root, "\"ok\":false");
    expect_verify(root, "[\"the books do not contain the root ");
    buf_free(&answer);
}

static void expect_usage(const char *with, const char *says) {
    char request[200];
    struct buf answer = {0};
    struct error e = {0};
    snprintf(request, sizeof request, "{\"op\":\"usage\",\"tenant\":\"t\"%s}", with);
    if (ask(request, &answer, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    if (strstr(answer.p, says) == NULL)
        fail_msg("%s: %s", request, answer.p);
    buf_free(&answer);
}

/* Books of the first version, with transfers and a request that is open: they get their chain, periods and holds, and go on. */
static void test_first_version(void **state) {
    char root[65];
    touch(schema_migrations[0]);
    touch(
        "PRAGMA user_version = 1;"
        "INSERT INTO account VALUES (1, 'tenant:t', 'JPY', 9999999000, 7), (2, 'funding:JPY', 'JPY',"
        " -10000000000, 0), (3, 'revenue:JPY', 'JPY', 1000, 0);"
        "INSERT INTO tenant VALUES (1, 't', 'JPY', 1, 256, 1);"
        "INSERT INTO price VALUES (1, 'm', 'JPY', 1000007, 500, 2000, 1);"
        "INSERT INTO request VALUES ('a', 1, 1, 'm', 1, 1764000000000000000, 1, 10, 2000, 0, 0, 'done', 1000,"
        " 5, 6, 7), ('b', 1, 1, 'm', 1, 1764000000000000000, 3, 10, 5000, 2, 1, 'open', 0, 0, 0, 0);"
        "INSERT INTO transfer VALUES (1, 'opening:1', 1761900000000000000, 'credit', 2, 1, 10000000000),"
        " (2, 'settle:a', 1764000000000000000, 'settle', 1, 3, 1000);"
        "INSERT INTO posting VALUES (1, 2, -10000000000), (1, 1, 10000000000), (2, 1, -1000), (2, 3, 1000)");
    get_root(root); /* and recovery */
    expect_verify(root, "{\"ok\":true,\"transfers\":3,");
    /* 7 * 10^-3 was carried, and one of the two tokens' prompt was cached. */
    expect_usage(",\"by\":\"month\"", "\"months\":[{\"month\":\"2025-11\",\"requests\":1,\"cancelled\":0,"
                                      "\"failed\":0,\"prompt_tokens\":1,");
    expect_usage(",\"by\":\"model\"",
                 "\"requests\":2,\"cancelled\":0,\"failed\":1,\"prompt_tokens\":4,\"cached_tokens\":1,"
                 "\"completion_tokens\":2,\"chip_seconds\":0.000,\"prefill_seconds\":0.000,"
                 "\"charged\":\"0.000003004\",\"held\":\"0\"");
    touch("UPDATE transfer SET amount = amount + 1 WHERE seq = 1");
    expect_verify(root, "the chain breaks at transfer: 1, opening:1");
}

static const char nothing[] = "\"requests\":0,\"cancelled\":0,";

/* A prompt that was not due is not on the bill, so it is not in the sums either. */
static void test_usage(void **state) {
    struct buf answer = {0};
    struct error e = {0};
    make_books();
    /* (30 - 4) * 300.000001 + 4 * 150 + 10 * 700.000333, in 10^-6 */
    expect_usage("", "\"requests\":4,\"cancelled\":1,\"failed\":1,\"prompt_tokens\":30,\"cached_tokens\":4,"
                     "\"completion_tokens\":10,\"chip_seconds\":0.000,\"prefill_seconds\":0.000,"
                     "\"charged\":\"0.015400003\"");
    expect_usage("", "\"models\":[{\"model\":\"m\",\"requests\":4,");
    expect_usage(",\"by\":\"key\"", "\"keys\":[{\"key\":\"1\",\"requests\":4,");
    expect_usage(",\"by\":\"day\"", "\"days\":[{\"day\":\"20");
    expect_usage(",\"by\":\"month\"", "\"months\":[{\"month\":\"20");
    expect_usage(",\"key\":\"1\",\"model\":\"m\",\"from\":\"2026-01-01\"", "\"requests\":4,");
    expect_usage(",\"key\":\"2\"", nothing);
    expect_usage(",\"model\":\"n\"", nothing);
    expect_usage(",\"month\":\"2025-01\"", nothing);
    expect_usage(",\"to\":\"2025-01-01\"", nothing);
    expect_usage(",\"from\":\"2199-01-01\"", nothing);
    assert_int_equal(ask("{\"op\":\"usage\",\"by\":\"moon\"}", &answer, &e), ERR_INVALID);
    assert_int_equal(ask("{\"op\":\"usage\",\"from\":\"2026-02-30\"}", &answer, &e), ERR_INVALID);
    assert_int_equal(ask("{\"op\":\"usage\",\"month\":\"2026-02-01\"}", &answer, &e), ERR_INVALID);
    assert_int_equal(ask("{\"op\":\"usage\",\"key\":\"' OR 1=1\"}", &answer, &e), ERR_INVALID);
    buf_free(&answer);
}

/* ---- periods ---- */

static struct ledger ledger;

static int64_t when(const char *day, int64_t zone) {
    int64_t at = 0;
    struct error e = {0};
    if (calendar_parse(&at, str_from(day), zone, &e) != 0)
        fail_msg("%s", e.text);
    return at;
}

/* A transfer of 1 from the first account to the second; the period it is in. */
static int64_t period_of(int64_t at) {
    static int number;
    char id[20];
    struct error e = {0};
    bool again;
    snprintf(id, sizeof id, "p%d", number++);
    struct transfer t = {.id = str_from(id), .kind = STR("x"), .debit = 1, .credit = 2, .value = 1, .at = at};
    assert_int_equal(ledger_begin(&ledger, &e), 0);
    if (ledger_transfer(&ledger, &t, &again, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(ledger_commit(&ledger, &e), 0);
    return ledger.period;
}

static void run_sql(const char *sql) {
    struct query *q;
    struct error e = {0};
    assert_int_equal(store_query(ledger.store, &q, sql, &e), 0);
    assert_int_equal(query_run(q, &e), 0);
}

static void test_periods(void **state) {
    struct error e = {0};
    int64_t account;
    struct verification v = {0};
    struct buf wrong = {0};
    assert_int_equal(store_open(&ledger.store, folder, &e), 0);
    assert_int_equal(ledger_start(&ledger, &e), 0);
    assert_int_equal(ledger_account(&ledger, "a", "JPY", &account, &e), 0);
    assert_int_equal(ledger_account(&ledger, "b", "JPY", &account, &e), 0);
    assert_int_equal(ledger_account(&ledger, "b", "USD", &account, &e), ERR_CONFLICT);
    assert_int_equal(period_of(when("2026-11-30", 0)), 1);
    assert_int_equal(period_of(when("2026-12-01", 0) - 1), 1);
    assert_int_equal(period_of(when("2026-12-01", 0)), 2);
    assert_int_equal(period_of(when("2026-11-30", 0)), 2); /* the clock has gone back */
    run_sql("UPDATE book SET zone = 540");
    assert_int_equal(period_of(when("2027-01-01", 540) - 1), 2);
    assert_int_equal(period_of(when("2027-01-01", 540)), 3); /* still December in Greenwich */
    run_sql("UPDATE period SET closed = 1");
    assert_int_equal(period_of(when("2027-01-05", 540)), 4); /* closed too early: what comes is February's */
    assert_int_equal(period_of(when("2027-02-05", 540)), 4);
    assert_int_equal(period_of(when("2028-02-05", 540)), 5);
    run_sql("DELETE FROM period WHERE (id, month, first_seq) IN (VALUES (1, '2026-11', 1), (2, '2026-12', 3),"
            " (3, '2027-01', 6), (4, '2027-02', 7))");
    assert_int_equal(ledger_begin(&ledger, &e), 0);
    assert_int_equal(ledger_verify(&ledger, &v, &wrong, &e), 0);
    assert_int_equal(wrong.n, 0);
    struct query *q;
    assert_int_equal(store_query(ledger.store, &q, "SELECT month, first_seq FROM period", &e), 0);
    assert_int_equal(query_step(q, &e), 1);
    assert_true(str_is(query_column_text(q, 0), "2028-02") && query_column_int(q, 1) == 9);
    assert_int_equal(query_step(q, &e), 0);
    ledger_rollback(&ledger);
    buf_free(&wrong);
    ledger_end(&ledger);
    store_close(ledger.store);
    ledger = (struct ledger){0};
}

static void check_refused(enum err code, const char *says) {
    struct cloud *c;
    struct error e = {0};
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), code);
    if (strstr(e.text, says) == NULL || strstr(e.text, folder) == NULL)
        fail_msg("%s", e.text);
}

static void test_not_ours(void **state) {
    char damage[250];
    make_books();
    touch("UPDATE request SET state = 'open', sent = 1 WHERE id = 'full'"); /* it has its settlement */
    check_refused(ERR_CORRUPT, "the request full of the books is settled and open");
    touch("PRAGMA user_version = 1000");
    check_refused(ERR_UNSUPPORTED, "use a newer unkai");
    touch("PRAGMA user_version = -1");
    check_refused(ERR_CORRUPT, "no version");
    touch("PRAGMA user_version = 2");
    snprintf(damage, sizeof damage, "dd if=/dev/zero of=%s bs=4096 seek=1 count=20 conv=notrunc status=none",
             path);
    assert_int_equal(system(damage), 0);
    check_refused(ERR_CORRUPT, "malformed");
    snprintf(damage, sizeof damage, "echo 'This is a letter to my aunt, and no database at all.' > %s", path);
    assert_int_equal(system(damage), 0);
    check_refused(ERR_CORRUPT, "not a database");
}

/* While the books are open nobody else can take hold of them, and nobody's hold on them is waited out or overridden. */
static void test_one_hand(void **state) {
    struct cloud *c;
    struct error e = {0};
    sqlite3 *db;
    make_books();
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_BUSY);
    assert_int_equal(sqlite3_exec(db, "PRAGMA wal_checkpoint", NULL, NULL, NULL), SQLITE_BUSY);
    must("{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"1\"}");
    cloud_close(c);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    check_refused(ERR_IO, "another program");
    sqlite3_close(db);
    must("{\"op\":\"ledger.verify\"}");
}

/* An operation that the books do not take leaves memory as it was. One that the audit log does not take has changed it already: the books stop. */
static void test_not_taken(void **state) {
    static const struct {
        const char *trigger, *change, *look;
        bool stops;
    } row[] = {
        {"UPDATE OF zone ON book", "{\"op\":\"ledger.zone\",\"zone\":\"-03:30\"}",
         "{\"op\":\"limit.set\",\"tenant\":\"t\",\"key\":1,\"expires\":\"2027-01-01\"}", false},
        {"INSERT ON audit", "{\"op\":\"tenant.credit\",\"name\":\"t\",\"amount\":\"5\"}",
         "{\"op\":\"tenant.show\",\"name\":\"t\"}", true},
    };
    struct buf before = {0}, after = {0};
    struct error e = {0};
    char sql[200];
    make_books();
    must("{\"op\":\"key.create\",\"tenant\":\"t\"}");
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        struct cloud *c;
        assert_int_equal(ask(row[i].look, &before, &e), 0);
        snprintf(sql, sizeof sql, "CREATE TRIGGER no BEFORE %s BEGIN SELECT RAISE(ABORT, 'no'); END",
                 row[i].trigger);
        touch(sql);
        assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
        assert_int_not_equal(ask(row[i].change, &after, &e), 0);
        assert_int_equal(cloud_stopped(c, &e), row[i].stops);
        assert_int_equal(ask(row[i].look, &after, &e), row[i].stops ? ERR_UNAVAILABLE : 0);
        cloud_close(c);
        touch("DROP TRIGGER no");
        if (row[i].stops)
            assert_int_equal(ask(row[i].look, &after, &e), 0);
        assert_true(str_equal(buf_view(&before), buf_view(&after)));
    }
    buf_free(&before);
    buf_free(&after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_touched, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_kept_root, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_first_version, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_usage, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_periods, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_not_ours, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_one_hand, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_not_taken, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
