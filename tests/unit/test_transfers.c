/* Transfers as operations: in one phase and in two, what may be and what may not, the same one again, corrections; and that the books in memory, which requests are admitted by,
 * say the same as the ones on the disk. After TigerBeetle's accounts and two-phase transfers. */
#include "cloud/cloud.h"
#include "cloud/control.h"
#include "cloud/money.h"

#include "base/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_ask.h"
#include "books_request.h"

static void sound(void) {
    expect("{'op':'ledger.verify'}", "\"wrong\":[]");
    expect("{'op':'ledger.balance'}", "\"ok\":true");
}

/* What is on the disk of an account. */
static void expect_account(const char *name, const char *balance, const char *debit, const char *credit) {
    char says[200];
    snprintf(says, sizeof says,
             "{\"name\":\"%s\",\"currency\":\"JPY\",\"balance\":\"%s\",\"pending_debit\":\"%s\",\"pending_"
             "credit\":\"%s\"",
             name, balance, debit, credit);
    expect("{'op':'ledger.accounts'}", says);
}

/* b has 100 and may not go below zero, a may. */
static void make_accounts(void) {
    must("{'op':'ledger.account','account':'a','currency':'JPY'}");
    must("{'op':'ledger.account','account':'b','currency':'JPY','overdraft':'no'}");
    must("{'op':'ledger.account','account':'usd','currency':'USD'}");
    must("{'op':'ledger.transfer','transfer':'first','debit':'a','credit':'b','amount':'100'}");
}

static void test_single(void **state) {
    make_accounts();
    expect_account("a", "-100", "0", "0");
    expect_account("b", "100", "0", "0");
    expect("{'op':'ledger.transfer','transfer':'first','debit':'a','credit':'b','amount':'100'}",
           "\"again\":true");
    expect_account("b", "100", "0", "0");
    refuse("{'op':'ledger.transfer','transfer':'first','debit':'a','credit':'b','amount':'101'}",
           ERR_CONFLICT, "with other content");
    refuse("{'op':'ledger.transfer','transfer':'first','debit':'a','credit':'b','amount':'100','note':'x'}",
           ERR_CONFLICT, "with other content");
    refuse("{'op':'ledger.transfer','transfer':'2','debit':'b','credit':'a','amount':'100.000000001'}",
           ERR_CREDIT, "too little");
    must("{'op':'ledger.transfer','transfer':'2','debit':'b','credit':'a','amount':'100'}");
    expect("{'op':'ledger.transfer','transfer':'2','debit':'b','credit':'a','amount':'100'}",
           "\"again\":true");
    refuse("{'op':'ledger.transfer','transfer':'3','debit':'a','credit':'usd','amount':'1'}", ERR_INVALID,
           "one currency");
    refuse("{'op':'ledger.transfer','transfer':'3','debit':'a','credit':'a','amount':'1'}", ERR_INVALID,
           "two accounts");
    refuse("{'op':'ledger.transfer','transfer':'3','debit':'a','credit':'b','amount':'0'}", ERR_INVALID,
           "nothing");
    refuse("{'op':'ledger.transfer','transfer':'3','debit':'a','credit':'c','amount':'1'}", ERR_NOT_FOUND,
           "account c");
    refuse("{'op':'ledger.transfer','transfer':'','debit':'a','credit':'b','amount':'1'}", ERR_INVALID,
           "transfer");
    /* Without a name it is one of its own each time. */
    must("{'op':'ledger.transfer','debit':'a','credit':'b','amount':'1'}");
    must("{'op':'ledger.transfer','debit':'a','credit':'b','amount':'1'}");
    expect_account("b", "2", "0", "0");
    /* Beyond 64 bits is an error and no end of the books. */
    must("{'op':'ledger.transfer','transfer':'4','debit':'a','credit':'b','amount':'9000000000'}");
    refuse("{'op':'ledger.transfer','transfer':'5','debit':'a','credit':'b','amount':'9000000000'}",
           ERR_INVALID, "too large");
    sound();
}

static void test_two_phases(void **state) {
    make_accounts();
    expect("{'op':'ledger.transfer','transfer':'p','debit':'b','credit':'a','amount':'60','pending':true}",
           "\"id\":\"transfer:p\"");
    expect("{'op':'ledger.transfer','transfer':'p','debit':'b','credit':'a','amount':'60','pending':true}",
           "\"again\":true");
    expect_account("b", "100", "60", "0");
    expect_account("a", "-100", "0", "60");
    sound();
    refuse("{'op':'ledger.transfer','transfer':'q','debit':'b','credit':'a','amount':'41'}", ERR_CREDIT,
           "too little");
    refuse("{'op':'ledger.transfer','transfer':'q','debit':'b','credit':'a','amount':'41','pending':true}",
           ERR_CREDIT, "too little");
    must("{'op':'ledger.transfer','transfer':'q','debit':'b','credit':'a','amount':'40','pending':true}");
    refuse("{'op':'ledger.post','transfer':'transfer:p','amount':'60.1'}", ERR_INVALID, "more");
    expect("{'op':'ledger.post','transfer':'transfer:p','amount':'25'}",
           "\"id\":\"post:transfer:p\",\"amount\":\"25\"");
    expect_account("b", "75", "40", "0");
    expect_account("a", "-75", "0", "40");
    expect("{'op':'ledger.post','transfer':'transfer:p','amount':'25'}", "\"again\":true");
    refuse("{'op':'ledger.post','transfer':'transfer:p','amount':'26'}", ERR_CONFLICT, "with other content");
    refuse("{'op':'ledger.post','transfer':'transfer:p'}", ERR_CONFLICT, "with other content");
    refuse("{'op':'ledger.void','transfer':'transfer:p'}", ERR_CONFLICT, "pending no longer");
    must("{'op':'ledger.void','transfer':'transfer:q'}");
    expect("{'op':'ledger.void','transfer':'transfer:q'}", "\"again\":true");
    refuse("{'op':'ledger.post','transfer':'transfer:q'}", ERR_CONFLICT, "pending no longer");
    expect_account("b", "75", "0", "0");
    refuse("{'op':'ledger.post','transfer':'transfer:first'}", ERR_NOT_FOUND, "no pending");
    refuse("{'op':'ledger.post','transfer':'transfer:none'}", ERR_NOT_FOUND, "no pending");
    expect("{'op':'ledger.show','transfer':'transfer:p'}", "\"phase\":\"posted\"");
    sound();
}

/* By itself, also when it was over while nobody had the books open. */
static void test_expiry(void **state) {
    struct cloud *c;
    struct error e = {0};
    make_accounts();
    refuse("{'op':'ledger.transfer','transfer':'p','debit':'b','credit':'a','amount':'1','expires':'0'}",
           ERR_INVALID, "seconds");
    must("{'op':'ledger.transfer','transfer':'p','debit':'b','credit':'a','amount':'60','expires':'1'}");
    must("{'op':'ledger.transfer','transfer':'q','debit':'b','credit':'a','amount':'1','expires':'1000'}");
    sleep(1);
    expect_account("b", "100", "1", "0");
    refuse("{'op':'ledger.post','transfer':'transfer:p'}", ERR_CONFLICT, "pending no longer");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    must("{'op':'ledger.transfer','transfer':'r','debit':'b','credit':'a','amount':'60','expires':'1'}");
    expect_account("b", "100", "61", "0");
    usleep(2200000);
    expect_account("b", "100", "1", "0");
    expect("{'op':'ledger.show','transfer':'transfer:r'}", "\"id\":\"expire:transfer:r\"");
    cloud_close(c);
    sound();
}

static void test_reversal(void **state) {
    make_accounts();
    must("{'op':'ledger.transfer','transfer':'x','debit':'b','credit':'a','amount':'30'}");
    refuse("{'op':'ledger.reverse','transfer':'transfer:x'}", ERR_INVALID, "reason");
    must("{'op':'ledger.reverse','transfer':'transfer:x','reason':'the wrong account'}");
    expect("{'op':'ledger.reverse','transfer':'transfer:x','reason':'the wrong account'}", "\"again\":true");
    refuse("{'op':'ledger.reverse','transfer':'transfer:x','reason':'once more'}", ERR_CONFLICT,
           "other content");
    expect_account("b", "100", "0", "0");
    refuse("{'op':'ledger.reverse','transfer':'reverse:transfer:x','reason':'no'}", ERR_CONFLICT, "stays");
    refuse("{'op':'ledger.reverse','transfer':'transfer:y','reason':'no'}", ERR_NOT_FOUND, "no transfer");
    must("{'op':'ledger.transfer','transfer':'p','debit':'b','credit':'a','amount':'60','pending':true}");
    refuse("{'op':'ledger.reverse','transfer':'transfer:p','reason':'no'}", ERR_CONFLICT, "moved nothing");
    refuse("{'op':'ledger.reverse','transfer':'transfer:first','reason':'b has it no longer'}", ERR_CREDIT,
           "too little");
    must("{'op':'ledger.post','transfer':'transfer:p','amount':'10'}");
    must("{'op':'ledger.reverse','transfer':'post:transfer:p','reason':'returned'}");
    expect_account("b", "100", "0", "0");
    expect("{'op':'ledger.show','transfer':'transfer:x'}", "\"note\":\"the wrong account\"");
    sound();
}

static void test_closed(void **state) {
    make_accounts();
    must("{'op':'ledger.transfer','transfer':'p','debit':'b','credit':'a','amount':'60','pending':true}");
    must("{'op':'ledger.account','account':'b','closed':'yes'}");
    refuse("{'op':'ledger.transfer','transfer':'x','debit':'b','credit':'a','amount':'1'}", ERR_DENIED,
           "b is closed");
    refuse("{'op':'ledger.transfer','transfer':'x','debit':'a','credit':'b','amount':'1'}", ERR_DENIED,
           "b is closed");
    must("{'op':'ledger.post','transfer':'transfer:p'}"); /* what was agreed before goes on */
    must("{'op':'ledger.account','account':'b','closed':'no'}");
    must("{'op':'ledger.transfer','transfer':'x','debit':'b','credit':'a','amount':'1'}");
    refuse("{'op':'ledger.account','account':'a','overdraft':'no'}", ERR_INVALID, "below");
    must("{'op':'ledger.account','account':'a','overdraft':'no','line':'50'}");
    refuse("{'op':'ledger.transfer','transfer':'y','debit':'a','credit':'b','amount':'20'}", ERR_CREDIT,
           "too little");
    must("{'op':'ledger.transfer','transfer':'y','debit':'a','credit':'b','amount':'11'}");
    refuse("{'op':'ledger.account','account':'none','closed':'yes'}", ERR_NOT_FOUND, "no account");
    refuse("{'op':'ledger.account','account':'a','currency':'USD'}", ERR_CONFLICT, "currency");
    sound();
}

/* ---- tenants: what memory says is what counts ---- */

static int admit(struct cloud *c, const char *id, uint64_t most, struct hold **out) {
    struct identity who = {.tenant = 1, .key = 1, .account = 1, .weight = 1};
    struct admission a = {.who = &who, .model = STR("m"), .prompt_tokens = 0, .max_completion_tokens = most};
    struct error e = {0};
    snprintf(a.request_id, sizeof a.request_id, "%s", id);
    return books_admit(c, &a, out, &e);
}

static void test_tenant(void **state) {
    struct cloud *c;
    struct error e = {0};
    struct hold *h, *none;
    struct settlement done = {.completion_tokens = 10, .outcome = OUTCOME_DONE};
    /* A token costs 1. */
    must("{'op':'price.set','model':'m','currency':'JPY','input':'0','output':'1000000'}");
    must("{'op':'tenant.create','name':'t','currency':'JPY','credit':'100'}");
    must("{'op':'ledger.account','account':'cash','currency':'JPY'}");
    refuse("{'op':'ledger.account','account':'tenant:u','currency':'JPY'}", ERR_INVALID, "tenant create");
    refuse("{'op':'ledger.account','account':'tenant:t','overdraft':'yes'}", ERR_INVALID, "tenant set");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(admit(c, "one", 70, &h), 0);
    refuse("{'op':'ledger.transfer','transfer':'r','debit':'tenant:t','credit':'cash','amount':'31'}",
           ERR_CREDIT, "tenant t");
    must("{'op':'ledger.transfer','transfer':'r','debit':'tenant:t','credit':'cash','amount':'20','pending':"
         "true}");
    expect("{'op':'ledger.transfer','transfer':'r','debit':'tenant:t','credit':'cash','amount':'20','pending'"
           ":true}",
           "\"again\":true");
    expect("{'op':'tenant.show','name':'t'}", "\"available\":\"10\"");
    assert_int_equal(admit(c, "two", 11, &none), ERR_CREDIT);
    expect_account("tenant:t", "100", "90", "0");
    cloud_settle(h, &done);
    expect("{'op':'tenant.show','name':'t'}", "\"available\":\"70\"");
    expect_account("tenant:t", "90", "20", "0");
    must("{'op':'ledger.post','transfer':'transfer:r','amount':'15'}");
    expect("{'op':'tenant.show','name':'t'}", "\"available\":\"75\"");
    must("{'op':'ledger.reverse','transfer':'settle:one','reason':'a bad answer'}");
    expect("{'op':'tenant.show','name':'t'}", "\"available\":\"85\"");
    refuse("{'op':'ledger.reverse','transfer':'opening:1','reason':'it did not come'}", ERR_CREDIT,
           "tenant t");
    must("{'op':'ledger.account','account':'tenant:t','closed':'yes'}");
    assert_int_equal(admit(c, "three", 1, &none), ERR_DENIED);
    must("{'op':'ledger.account','account':'tenant:t','closed':'no'}");
    /* Paid later. */
    refuse("{'op':'tenant.set','name':'t'}", ERR_INVALID, "line");
    expect("{'op':'tenant.set','name':'t','line':'50'}", "\"available\":\"135\",\"postpaid\":true");
    assert_int_equal(admit(c, "four", 136, &none), ERR_CREDIT);
    assert_int_equal(admit(c, "five", 135, &h), 0);
    refuse("{'op':'tenant.set','name':'t','line':'0'}", ERR_CONFLICT, "used");
    done.completion_tokens = 135;
    cloud_settle(h, &done);
    refuse("{'op':'tenant.set','name':'t','line':'49'}", ERR_CONFLICT, "used");
    expect_account("tenant:t", "-50", "0", "0");
    cloud_close(c);
    expect("{'op':'tenant.show','name':'t'}",
           "\"balance\":\"-50\",\"held\":\"0\",\"line\":\"50\",\"available\":\"0\"");
    refuse("{'op':'tenant.create','name':'u','currency':'JPY','postpaid':true}", ERR_INVALID, "credit line");
    expect("{'op':'tenant.create','name':'u','currency':'JPY','postpaid':true,'line':'5'}",
           "\"available\":\"5\"");
    sound();
}

static void test_lists(void **state) {
    make_accounts();
    must("{'op':'ledger.transfer','transfer':'x','debit':'b','credit':'a','amount':'30','note':'rent'}");
    must("{'op':'ledger.account','account':'c','currency':'JPY'}");
    must("{'op':'ledger.transfer','transfer':'y','debit':'b','credit':'c','amount':'1'}");
    expect("{'op':'ledger.list','account':'c'}", "[{\"seq\":3,");
    expect("{'op':'ledger.list','before':'3'}", "[{\"seq\":2,");
    expect("{'op':'ledger.list','limit':1}", "[{\"seq\":3,");
    expect("{'op':'ledger.list','account':'d'}", "[]");
    refuse("{'op':'ledger.show','transfer':'transfer:z'}", ERR_NOT_FOUND, "no transfer");
    expect("{'op':'ledger.zone'}", "+00:00");
    expect("{'op':'ledger.zone','zone':'-03:30'}", "-03:30");
    expect("{'op':'ledger.zone'}", "-03:30");
    refuse("{'op':'ledger.zone','zone':'Tokyo'}", ERR_INVALID, "+09:00");
    sound();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_single, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_two_phases, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_expiry, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_reversal, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_closed, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_tenant, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_lists, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
