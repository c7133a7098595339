/* Books that somebody has touched: whatever is changed behind the program's back, verification names it; and what is no book of ours, or is in
 * somebody's hands, is refused with a sentence that says so. */
#include "cloud/cloud.h"
#include "cloud/control.h"

#include "base/json.h"

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
    if (cloud_admit(c, &a, &h, &e) != 0)
        fail_msg("%s", e.text);
    return h;
}

/* Two tenants, three payments, and a request of each kind: done, done without a token, failed before the first, cancelled. */
static void make_books(void) {
    static const struct {
        const char *id;
        struct settlement s;
    } request[] = {
        {"full", {.delivered = true, .cached_tokens = 4, .completion_tokens = 7, .outcome = OUTCOME_DONE}},
        {"empty", {.delivered = true, .outcome = OUTCOME_DONE}},
        {"failed", {.outcome = OUTCOME_FAILED}},
        {"cut", {.delivered = true, .completion_tokens = 3, .outcome = OUTCOME_CANCELLED}},
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
        cloud_settle(admit(c, request[i].id), &request[i].s, NULL);
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

static void test_touched(void **state) {
    static const struct {
        const char *sql, *says;
    } table[] = {
        {"UPDATE posting SET amount = amount + 1 WHERE transfer = 1 AND amount > 0", "do not balance"},
        {"UPDATE posting SET amount = 9223372036854775807 WHERE amount > 0", "is not the sum"},
        {"UPDATE posting SET account = 4 WHERE transfer = 1 AND amount > 0", "are not its amount"},
        {"DELETE FROM posting WHERE transfer = 3", "without postings"},
        {"UPDATE account SET balance = balance + 1 WHERE name = 'tenant:t'", "is not the sum"},
        {"UPDATE account SET balance = balance + 4294967296 WHERE name = 'tenant:t'", "is not the sum"},
        {"UPDATE account SET remainder = remainder + 1 WHERE name = 'tenant:t'",
         "a tenant's charges are not what its requests cost: t"},
        {"UPDATE account SET remainder = 1 WHERE name = 'tenant:u'",
         "a tenant's charges are not what its requests cost: u"},
        {"UPDATE transfer SET amount = amount + 1 WHERE seq = 1", "are not its amount"},
        {"DELETE FROM transfer WHERE seq = 1", "belongs to nothing: posting"},
        {"DELETE FROM transfer WHERE seq = 2; DELETE FROM posting WHERE transfer = 2;"
         "UPDATE account SET balance = 0 WHERE name = 'tenant:u';"
         "UPDATE account SET balance = balance + 10000000000 WHERE name = 'funding:JPY'",
         "a transfer is missing: 2"},
        {"DELETE FROM transfer WHERE id = 'settle:full'; DELETE FROM posting WHERE transfer = 4",
         "without its settlement: full"},
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
    };
    char good[100], back[250];
    struct buf answer = {0};
    struct error e = {0};
    make_books();
    must("{\"op\":\"tenant.list\"}");
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", &answer, &e), 0);
    assert_string_equal(answer.p, "{\"ok\":true,\"transfers\":7,\"wrong\":[]}");
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

/* A prompt that was not due is not on the bill, so it is not in the sums either. */
static void test_usage(void **state) {
    struct buf answer = {0};
    struct error e = {0};
    make_books();
    assert_int_equal(ask("{\"op\":\"usage\",\"tenant\":\"t\"}", &answer, &e), 0);
    /* (30 - 4) * 300.000001 + 4 * 150 + 10 * 700.000333, in 10^-6 */
    const char *sums = "\"requests\":4,\"prompt_tokens\":30,\"cached_tokens\":4,\"completion_tokens\":10,"
                       "\"chip_seconds\":0.000,\"charged\":\"0.015400003\"";
    if (strstr(answer.p, sums) == NULL)
        fail_msg("%s", answer.p);
    buf_free(&answer);
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
    check_refused(ERR_CORRUPT, "settle:full with other content");
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_touched, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_usage, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_not_ours, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_one_hand, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
