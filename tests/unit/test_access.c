/* Who may administer the cloud: keys apart from the tenants', roles, and an audit log that holds every change and no secret. */
#include "cloud/access.h"

#include "cloud/cloud.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "books_place.h"
#include "books_request.h"
#include "one_day.h"

static char folder[64];
static struct cloud *cloud;
static const struct actor command = {.role = ROLE_OWNER};
static const struct address here; /* nobody knows */

static int fresh_books(void **state) {
    struct error e;
    return books_place(folder, sizeof folder) != 0 || cloud_open(&cloud, folder, NULL, NULL, &e) != 0;
}

static int remove_books(void **state) {
    cloud_close(cloud);
    return books_place_remove(folder);
}

static void reopen(void) {
    struct error e = {0};
    cloud_close(cloud);
    assert_int_equal(cloud_open(&cloud, folder, NULL, NULL, &e), 0);
}

static int ask(const struct actor *who, const char *request, struct buf *answer, struct error *e) {
    struct json *parsed;
    assert_int_equal(json_parse(&parsed, str_from(request), e), 0);
    buf_clear(answer);
    int rc = access_run(cloud, who, parsed, answer, e);
    json_free(parsed);
    return rc;
}

static void must(const char *request, struct buf *answer) {
    struct error e = {0};
    if (ask(&command, request, answer, &e) != 0)
        fail_msg("%s: %s", request, e.text);
}

/* The text of a key that was made. */
static void make(const char *request, char *key, size_t size) {
    struct buf answer = {0};
    struct json *parsed;
    must(request, &answer);
    assert_int_equal(json_parse(&parsed, buf_view(&answer), NULL), 0);
    struct str text = json_as_str(json_get(parsed, "key"));
    snprintf(key, size, "%.*s", (int)text.n, text.p);
    json_free(parsed);
    buf_free(&answer);
}

static void test_two_kinds_of_keys(void **state) {
    struct error e;
    struct actor who;
    struct identity tenant;
    struct buf answer = {0};
    char admin[80], used[80];
    assert_false(access_open(cloud));
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\"}", &answer);
    make("{\"op\":\"key.create\",\"tenant\":\"t\"}", used, sizeof used);
    assert_false(access_open(cloud)); /* a tenant's key opens nothing */
    make("{\"op\":\"admin.key.create\",\"name\":\"b\",\"role\":\"billing\"}", admin, sizeof admin);
    assert_int_equal(strncmp(admin, "uka-", 4), 0);
    for (int round = 0; round < 2; round++, reopen()) {
        assert_true(access_open(cloud));
        assert_int_equal(access_authenticate(cloud, str_from(admin), &here, &who, &e), 0);
        assert_int_equal(who.role, ROLE_BILLING);
        assert_int_equal(access_authenticate(cloud, str_from(used), &here, &who, &e), ERR_AUTH);
        assert_int_equal(access_authenticate(cloud, str_from(used + 3), &here, &who, &e), ERR_AUTH);
        assert_int_equal(access_authenticate(cloud, STR(""), &here, &who, &e), ERR_AUTH);
        assert_int_equal(cloud_authenticate(cloud, str_from(admin), &here, &tenant, &e), ERR_AUTH);
        assert_int_equal(cloud_authenticate(cloud, str_from(used), &here, &tenant, &e), 0);
        admin[strlen(admin) - 1] ^= 1;
        assert_int_equal(access_authenticate(cloud, str_from(admin), &here, &who, &e), ERR_AUTH);
        admin[strlen(admin) - 1] ^= 1;
    }
    assert_int_equal(access_authenticate(cloud, str_from(admin), &here, &who, &e), 0);
    must("{\"op\":\"admin.key.revoke\",\"id\":1}", &answer);
    assert_int_equal(ask(&who, "{\"op\":\"tenant.list\"}", &answer, &e), ERR_AUTH); /* begun before, too */
    for (int round = 0; round < 2; round++, reopen()) {
        assert_int_equal(access_authenticate(cloud, str_from(admin), &here, &who, &e), ERR_AUTH);
        assert_false(access_open(cloud));
    }
    assert_int_equal(ask(&command, "{\"op\":\"admin.key.revoke\",\"id\":1}", &answer, &e), ERR_NOT_FOUND);
    buf_free(&answer);
}

static void test_bad_keys(void **state) {
    static const char *const bad[] = {
        "{\"op\":\"admin.key.create\",\"name\":\"x\"}",
        "{\"op\":\"admin.key.create\",\"name\":\"x\",\"role\":\"root\"}",
        "{\"op\":\"admin.key.create\",\"name\":\"\",\"role\":\"owner\"}",
        "{\"op\":\"admin.key.create\",\"name\":\"a\\u0000b\",\"role\":\"owner\"}",
        "{\"op\":\"admin.key.create\",\"name\":\"x\",\"role\":\"owner\",\"expires_in\":0}",
        "{\"op\":\"admin.key.create\",\"name\":\"x\",\"role\":\"owner\",\"expires_in\":9223372036854775807}",
    };
    struct buf answer = {0};
    struct error e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(ask(&command, bad[i], &answer, &e), ERR_INVALID);
    assert_false(access_open(cloud));
    buf_free(&answer);
}

static size_t count(struct str text, const char *word) {
    size_t n = 0;
    for (size_t at = 0; (at = str_find(text, str_from(word), at)) != SIZE_MAX; at++)
        n++;
    return n;
}

static void test_audit(void **state) {
    struct error e;
    struct actor who;
    struct buf answer = {0};
    struct json *request;
    char key[80], used[80];
    make("{\"op\":\"admin.key.create\",\"name\":\"ops\",\"role\":\"operator\"}", key, sizeof key);
    assert_int_equal(access_authenticate(cloud, str_from(key), &here, &who, &e), 0);
    assert_int_equal(ask(&who, "{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\"}", &answer, &e),
                     0);
    assert_int_equal(ask(&who, "{\"op\":\"tenant.list\"}", &answer, &e), 0); /* changes nothing */
    assert_int_equal(ask(&who, "{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"EUR\"}", &answer, &e),
                     ERR_CONFLICT);
    make("{\"op\":\"key.create\",\"tenant\":\"t\",\"secret\":\"hush\",\"key\":\"hush\"}", used, sizeof used);
    assert_int_equal(json_parse(&request, STR("{\"op\":\"key.revoke\",\"id\":1}"), &e), 0);
    access_refused(cloud, &who, request);
    json_free(request);
    reopen();
    must("{\"op\":\"admin.audit\"}", &answer);
    struct str log = buf_view(&answer);
    assert_int_equal(count(log, "\"at\":"), 5);
    assert_int_equal(count(log, "\"outcome\":\"ok\""), 3);
    assert_int_equal(count(log, "there is a tenant t already"), 1);
    assert_int_equal(count(log, "role does not allow"), 1);
    assert_int_equal(count(log, "\"key\":1,\"actor\":\"ops\",\"role\":\"operator\""), 3);
    assert_int_equal(count(log, "hush") + count(log, key) + count(log, used), 0);
    must("{\"op\":\"admin.audit\",\"limit\":1,\"after\":5}", &answer);
    assert_int_equal(count(buf_view(&answer), "\"operation\":\"key.create\""), 1);
    must("{\"op\":\"admin.audit\",\"operation\":\"tenant.create\",\"target\":\"t\"}", &answer);
    assert_int_equal(count(buf_view(&answer), "\"at\":"), 2);
    must("{\"op\":\"admin.audit\",\"to\":1}", &answer);
    assert_string_equal(answer.p, "[]");
    buf_free(&answer);
}

static void test_archive_and_rename(void **state) {
    struct error e;
    struct identity who;
    struct buf answer = {0};
    char key[80];
    must("{\"op\":\"tenant.create\",\"name\":\"a\",\"currency\":\"JPY\",\"credit\":\"5\"}", &answer);
    must("{\"op\":\"tenant.create\",\"name\":\"b\",\"currency\":\"JPY\"}", &answer);
    make("{\"op\":\"key.create\",\"tenant\":\"a\"}", key, sizeof key);
    must("{\"op\":\"tenant.rename\",\"name\":\"a\",\"to\":\"c\"}", &answer);
    assert_int_equal(ask(&command, "{\"op\":\"tenant.rename\",\"name\":\"c\",\"to\":\"b\"}", &answer, &e),
                     ERR_CONFLICT);
    assert_int_equal(ask(&command, "{\"op\":\"tenant.rename\",\"name\":\"c\",\"to\":\"\"}", &answer, &e),
                     ERR_INVALID);
    for (int round = 0; round < 2; round++, reopen()) {
        assert_int_equal(cloud_authenticate(cloud, str_from(key), &here, &who, &e), 0);
        assert_string_equal(who.tenant_name, "c");
    }
    must("{\"op\":\"tenant.create\",\"name\":\"a\",\"currency\":\"EUR\"}",
         &answer); /* an account of its own */
    assert_int_equal(count(buf_view(&answer), "\"balance\":\"0\""), 1);
    must("{\"op\":\"tenant.archive\",\"name\":\"c\"}", &answer);
    for (int round = 0; round < 2; round++, reopen()) {
        assert_int_equal(cloud_authenticate(cloud, str_from(key), &here, &who, &e), ERR_AUTH);
        assert_int_equal(ask(&command, "{\"op\":\"key.create\",\"tenant\":\"c\"}", &answer, &e),
                         ERR_CONFLICT);
        must("{\"op\":\"tenant.list\",\"archived\":false}", &answer);
        assert_int_equal(count(buf_view(&answer), "\"name\""), 2);
        must("{\"op\":\"tenant.list\"}", &answer);
        assert_int_equal(count(buf_view(&answer), "\"name\""), 3);
    }
    must("{\"op\":\"ledger.verify\"}", &answer);
    assert_int_equal(count(buf_view(&answer), "\"ok\":true"), 1);
    buf_free(&answer);
}

static void test_pages(void **state) {
    struct buf answer = {0};
    must("{\"op\":\"tenant.create\",\"name\":\"one\",\"currency\":\"JPY\"}", &answer);
    must("{\"op\":\"tenant.create\",\"name\":\"two\",\"currency\":\"JPY\"}", &answer);
    must("{\"op\":\"tenant.create\",\"name\":\"three\",\"currency\":\"JPY\"}", &answer);
    must("{\"op\":\"tenant.list\",\"limit\":2}", &answer);
    assert_int_equal(count(buf_view(&answer), "\"name\""), 2);
    assert_int_equal(count(buf_view(&answer), "\"one\""), 0);
    must("{\"op\":\"tenant.list\",\"limit\":2,\"after\":2}", &answer);
    assert_int_equal(count(buf_view(&answer), "\"name\""), 1);
    assert_int_equal(count(buf_view(&answer), "\"one\""), 1);
    char key[80];
    for (int i = 0; i < 3; i++)
        make("{\"op\":\"key.create\",\"tenant\":\"one\"}", key, sizeof key);
    make("{\"op\":\"key.create\",\"tenant\":\"two\"}", key, sizeof key);
    must("{\"op\":\"key.list\",\"tenant\":\"one\",\"after\":1,\"limit\":1}", &answer);
    assert_int_equal(count(buf_view(&answer), "\"id\":2,"), 1);
    struct error e;
    must("{\"op\":\"key.show\",\"tenant\":\"two\",\"id\":4}", &answer);
    assert_int_equal(ask(&command, "{\"op\":\"key.show\",\"tenant\":\"one\",\"id\":4}", &answer, &e),
                     ERR_NOT_FOUND);
    assert_int_equal(ask(&command, "{\"op\":\"key.revoke\",\"tenant\":\"one\",\"id\":4}", &answer, &e),
                     ERR_NOT_FOUND);
    assert_int_equal(ask(&command, "{\"op\":\"key.show\",\"tenant\":\"one\"}", &answer, &e), ERR_NOT_FOUND);
    buf_free(&answer);
}

/* Usage that a request left: the same question in every form that the statement has. */
static void test_buckets(void **state) {
    static const char *const ask_for[] = {
        "{\"op\":\"usage.days\",\"start\":0,\"end\":4102444800,\"limit\":2}",
        "{\"op\":\"cost.days\",\"start\":86400,\"end\":172800,\"group_by\":[\"tenant\",\"key\",\"model\"]}",
        ("{\"op\":\"usage.days\",\"start\":86400,\"end\":172800,\"tenants\":[1,2],\"keys\":[3],\"models\":["
         "\"m\",\"n\"]}"),
        "{\"op\":\"usage.days\",\"start\":86400,\"end\":172800,\"tenant\":\"t\",\"models\":[\"m\"]}",
    };
    struct identity who;
    struct hold *hold;
    struct error e = {0};
    struct buf answer = {0};
    char key[80];
    within_a_day();
    must("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"5\"}", &answer);
    must("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"1000\",\"output\":\"2000\"}",
         &answer);
    make("{\"op\":\"key.create\",\"tenant\":\"t\"}", key, sizeof key);
    for (size_t i = 0; i < sizeof ask_for / sizeof *ask_for; i++) {
        must(ask_for[i], &answer);
        assert_int_equal(count(buf_view(&answer), "\"results\":[]"), i == 0 ? 2 : 1);
    }
    assert_int_equal(cloud_authenticate(cloud, str_from(key), &here, &who, &e), 0);
    struct admission a = {
        .who = &who, .model = STR("m"), .request_id = "r", .prompt_tokens = 10, .max_completion_tokens = 5};
    assert_int_equal(books_admit(cloud, &a, &hold, &e), 0);
    struct settlement s = {.completion_tokens = 4, .cached_tokens = 3};
    cloud_sent(hold, 4, 3);
    cloud_settle(hold, &s);
    char now[200];
    int64_t day = clock_wall_ns() / 1000000000 / 86400 * 86400;
    snprintf(now, sizeof now,
             "{\"op\":\"cost.days\",\"start\":%lld,\"tenant\":\"t\",\"group_by\":[\"model\"]}",
             (long long)day);
    must(now, &answer);
    assert_int_equal(count(buf_view(&answer), "\"requests\":1,\"prompt\":10,\"cached\":3,\"completion\":4,"
                                              "\"uncached\":7,\"charge\":\"0.018\""),
                     1);
    assert_int_equal(count(buf_view(&answer), "\"model\":\"m\",\"currency\":\"JPY\""), 1);
    snprintf(now, sizeof now, "{\"op\":\"usage.days\",\"start\":%lld,\"tenants\":[2]}", (long long)day);
    must(now, &answer);
    assert_int_equal(count(buf_view(&answer), "\"results\":[]"), 1);
    buf_free(&answer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_two_kinds_of_keys, fresh_books, remove_books),
        cmocka_unit_test_setup_teardown(test_bad_keys, fresh_books, remove_books),
        cmocka_unit_test_setup_teardown(test_audit, fresh_books, remove_books),
        cmocka_unit_test_setup_teardown(test_archive_and_rename, fresh_books, remove_books),
        cmocka_unit_test_setup_teardown(test_buckets, fresh_books, remove_books),
        cmocka_unit_test_setup_teardown(test_pages, fresh_books, remove_books),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
