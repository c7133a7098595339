/* Copies of the books, of either database: made while requests run, restored elsewhere, moved from one database to the other; and what is no copy, or would be written over books, is
 * refused. */
#include "cloud/backup.h"
#include "cloud/cloud.h"
#include "cloud/control.h"

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

static char folder[64], file[80];
static struct error e;

static int fresh(void **state) {
    if (books_place(folder, sizeof folder) != 0)
        return -1;
    snprintf(file, sizeof file, "%s.copy", folder);
    return 0;
}

static int clean(void **state) {
    unlink(file);
    return books_place_remove(folder);
}

static void must(const char *where, const char *request, struct buf *answer) {
    struct buf own = {0};
    buf_clear(answer != NULL ? answer : &own);
    if (control_call(where, str_from(request), answer != NULL ? answer : &own, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    buf_free(&own);
}

static int backup(void) {
    char request[200];
    struct buf answer = {0};
    snprintf(request, sizeof request, "{\"op\":\"db.backup\",\"file\":\"%s\"}", file);
    int rc = control_call(folder, str_from(request), &answer, &e);
    buf_free(&answer);
    return rc;
}

static void must_verify(const char *where) {
    struct buf answer = {0};
    must(where, "{\"op\":\"ledger.verify\"}", &answer);
    if (strstr(answer.p, "\"ok\":true") == NULL)
        fail_msg("%s", answer.p);
    buf_free(&answer);
}

static void make_books(void) {
    must(folder, "{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"1000\"}", NULL);
    must(folder,
         "{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300\",\"output\":\"700.3\"}",
         NULL);
    must(folder, "{\"op\":\"key.create\",\"tenant\":\"t\"}", NULL);
}

static struct hold *admit(struct cloud *c, const char *id) {
    struct identity who = {.tenant = 1, .key = 1, .account = 1, .weight = 1};
    struct admission a = {.who = &who, .model = STR("m"), .prompt_tokens = 10, .max_completion_tokens = 50};
    struct hold *h = NULL;
    struct error why;
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    if (books_admit(c, &a, &h, &why) != 0)
        fail_msg("%s", why.text);
    return h;
}

struct load {
    struct cloud *c;
    atomic_bool stop;
    _Atomic int settled;
};

static void *run_load(void *context) {
    struct load *l = context;
    char id[32];
    for (int i = 0; i < 20000 && !atomic_load(&l->stop); i++) {
        struct settlement s = {.completion_tokens = 7, .outcome = OUTCOME_DONE};
        snprintf(id, sizeof id, "l%d", i);
        struct hold *h = admit(l->c, id);
        cloud_sent(h, 7, 0);
        cloud_settle(h, &s);
        atomic_fetch_add(&l->settled, 1);
        usleep(100);
    }
    return NULL;
}

/* The copy is of one moment, with the requests that ran then open in it: where it is restored they are settled for what was journalled. */
static void test_while_serving(void **state) {
    struct load load = {0};
    struct copied copied;
    struct progress none = {0};
    pthread_t thread;
    char second[64];
    make_books();
    assert_int_equal(cloud_open(&load.c, folder, NULL, NULL, &e), 0);
    struct hold *open = admit(load.c, "open");
    pthread_create(&thread, NULL, run_load, &load);
    while (atomic_load(&load.settled) < 200)
        usleep(1000);
    int before = atomic_load(&load.settled);
    if (backup() != 0)
        fail_msg("%s", e.text);
    assert_int_equal(backup(), ERR_CONFLICT); /* it is there */
    atomic_store(&load.stop, true);
    pthread_join(thread, NULL);
    int after = atomic_load(&load.settled);
    cloud_settle(open, &(struct settlement){.outcome = OUTCOME_FAILED});
    cloud_close(load.c);
    must_verify(folder);

    assert_int_equal(books_place(second, sizeof second), 0);
    if (backup_restore(second, file, &none, &copied, &e) != 0)
        fail_msg("%s", e.text);
    assert_true(copied.transfers > 0 && copied.transfers <= after + 1 && before <= after);
    must_verify(second);
    assert_int_equal(backup_restore(second, file, &none, &copied, &e), ERR_CONFLICT);
    must(second, "{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":\"1\"}", NULL);
    must_verify(second);
    books_place_remove(second);
}

static void test_not_a_copy(void **state) {
    struct copied copied;
    char damage[200];
    struct progress none = {0};
    make_books();
    assert_int_equal(backup(), 0);
    assert_int_equal(backup_restore(folder, file, &none, &copied, &e), ERR_CONFLICT); /* books are there */
    books_place_remove(folder);
    assert_int_equal(books_place(folder, sizeof folder), 0);
    assert_int_equal(backup_restore(folder, "/nowhere", &none, &copied, &e), ERR_NOT_FOUND);
    snprintf(damage, sizeof damage, "dd if=/dev/zero of=%s bs=4096 seek=1 count=30 conv=notrunc status=none",
             file);
    assert_int_equal(system(damage), 0);
    assert_int_equal(backup_restore(folder, file, &none, &copied, &e), ERR_CORRUPT);
    snprintf(damage, sizeof damage, "echo 'This is a letter to my aunt.' > %s", file);
    assert_int_equal(system(damage), 0);
    assert_int_equal(backup_restore(folder, file, &none, &copied, &e), ERR_CORRUPT);
    make_books(); /* nothing was left behind */
    must_verify(folder);
}

/* There and back: from a folder, or from PostgreSQL, to a folder; and with a server to another schema of it. */
static void test_moved(void **state) {
    struct copied copied, again;
    struct progress none = {0};
    char third[64];
    make_books();
    const char *url = getenv("UNKAI_DB");
    char *old = url != NULL ? strdup(url) : NULL;
    assert_int_equal(books_place(third, sizeof third), 0); /* UNKAI_DB is a new schema now */
    char *new = getenv("UNKAI_DB") != NULL ? strdup(getenv("UNKAI_DB")) : strdup(third);
    if (old != NULL)
        setenv("UNKAI_DB", old, 1);
    if (backup_move(folder, new, &none, &copied, &e) != 0)
        fail_msg("%s", e.text);
    assert_int_equal(backup_move(folder, new, &none, &again, &e), ERR_CONFLICT);
    assert_true(copied.rows > 5);
    must_verify(folder); /* the old ones stay */
    if (old != NULL)
        setenv("UNKAI_DB", new, 1);
    must_verify(third);
    must(third, "{\"op\":\"tenant.create\",\"name\":\"u\",\"currency\":\"JPY\",\"credit\":\"1\"}", NULL);
    must(third,
         "{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"1\",\"output\":\"1\"}",
         NULL);
    char *target = NULL;
    if (old != NULL) { /* and to a folder */
        char fourth[] = "/tmp/unkai-books-XXXXXX";
        target = strdup(mkdtemp(fourth));
        if (backup_move(third, target, &none, &copied, &e) != 0)
            fail_msg("%s", e.text);
        unsetenv("UNKAI_DB");
        must_verify(target);
        must(target, "{\"op\":\"tenant.credit\",\"name\":\"u\",\"amount\":\"1\"}", NULL);
        books_place_remove(target);
        setenv("UNKAI_DB", old, 1);
    }
    books_place_remove(third);
    free(target);
    free(old);
    free(new);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_while_serving, fresh, clean),
        cmocka_unit_test_setup_teardown(test_not_a_copy, fresh, clean),
        cmocka_unit_test_setup_teardown(test_moved, fresh, clean),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
