/* Prices: which version and which exchange rate hold for a request, what it costs then to the last 10^-21, and numbers that are read as they are written. */
#include "cloud/cloud.h"
#include "cloud/control.h"
#include "cloud/money.h"

#include "base/clock.h"
#include "base/json.h"
#include "cloud/calendar.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_ask.h"
#include "books_request.h"
#include "one_day.h"

static void test_numbers(void **state) {
    static const struct {
        const char *text;
        int64_t value;
    } good[] = {{"1.5e-07", 150000},
                {"0.00000015", 150000},
                {"2.5E-6", 2500000},
                {"1e-12", 1},
                {"10e-13", 1},
                {"1.0e-12", 1},
                {"0.0", 0},
                {"0", 0},
                {"0e-30", 0},
                {"1E+2", 100000000000000},
                {"3", 3000000000000},
                {"0.000000000001000", 1},
                {"1.23456789e-4", 123456789},
                {"9223372.036854775807", INT64_MAX},
                /* what is left of a double: nearest, and a few units in the last place away */
                {"2.9999999999999997e-07", 300000},
                {"3.0000000000000004e-07", 300000},
                {"3.0000000000000001e-07", 300000},
                {"1.00000000000000001e-07", 100000},
                {"0.00000029999999999999997", 300000},
                {"2.99999999999999973713e-07", 300000},
                {"1.5000020000000002e-05", 15000020},
                {"1.0000000000000002e-12", 1},
                {"0.30000000000000004", 300000000000},
                {"0.9999999999990001", 999999999999}};
    static const char *const bad[] = {"1e-13",
                                      "1.41953125e-07",
                                      "2.857142857142857e-07",
                                      "1.1428571428571428e-06",
                                      "3.00000000000001e-07",
                                      "2.99999999999999e-07",
                                      "1.0000000000001e-12",
                                      "4e-13",
                                      "6e-13",
                                      "9.9999999999999e-13",
                                      "1e-400",
                                      "4.9e-324",
                                      "1.0000000000000000000000000000000000000000000000000000000001e-07",
                                      "-2.9999999999999997e-07",
                                      "2.99999x9999999997e-07",
                                      "1.1000000000000001",
                                      "12345.1234567890123",
                                      "-1",
                                      "1e",
                                      "e5",
                                      "1e999999999",
                                      "1.2.3",
                                      "0x1",
                                      "NaN",
                                      "",
                                      "9223372.036854775808",
                                      "1e-",
                                      "1e1e1",
                                      " 1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        struct error e = {0};
        int64_t value = -1;
        if (money_parse_number(&value, str_from(good[i].text), PRICE_DIGITS, &e) != 0 ||
            value != good[i].value)
            fail_msg("%s: %lld %s", good[i].text, (long long)value, e.text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t value;
        if (money_parse_number(&value, str_from(bad[i]), PRICE_DIGITS, NULL) == 0)
            fail_msg("%s was taken for %lld", bad[i], (long long)value);
    }
}

static int numbers;

/* What a request of so many tokens costs the tenant. */
static amount cost(struct cloud *c, int64_t tenant, const char *model, uint64_t prompt, uint64_t sent) {
    struct identity who = {.tenant = tenant, .key = 1, .account = 1, .weight = 1};
    struct admission a = {
        .who = &who, .model = str_from(model), .prompt_tokens = prompt, .max_completion_tokens = sent};
    struct settlement done = {.completion_tokens = sent, .outcome = OUTCOME_DONE};
    struct hold *h = NULL;
    struct error e = {0};
    snprintf(a.request_id, sizeof a.request_id, "r%d", numbers++);
    if (books_admit(c, &a, &h, &e) != 0)
        fail_msg("%s", e.text);
    return books_settle(c, h, a.request_id, &done);
}

static void sound(void) {
    expect("{'op':'ledger.verify'}", "\"wrong\":[]");
}

static void test_dated(void **state) {
    struct cloud *c;
    struct error e = {0};
    char day[CALENDAR_DAY], request[300];
    within_a_day();
    must("{'op':'tenant.create','name':'t','currency':'JPY','credit':'1000'}");
    must("{'op':'price.set','model':'m','currency':'JPY','input':'1','output':'2'}");
    refuse("{'op':'price.set','model':'m','currency':'JPY','input':'1','output':'2','since':'2020-01-01'}",
           ERR_INVALID, "keeps its price");
    refuse("{'op':'price.set','model':'m','currency':'JPY','input':'1','output':'2','since':'soon'}",
           ERR_INVALID, "no date");
    must("{'op':'price.set','model':'m','currency':'JPY','input':'100','output':'200','since':'2199-01-01'}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(cost(c, 1, "m", 1000, 1000), 3000000);
    calendar_day(day, clock_wall_ns(), 0);
    snprintf(request, sizeof request,
             "{'op':'price.set','model':'m','currency':'JPY','input':'3','output':'4','since':'%s'}", day);
    must(request); /* today is at once */
    assert_int_equal(cost(c, 1, "m", 1000, 1000), 7000000);
    cloud_close(c);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0); /* and so it is read again */
    assert_int_equal(cost(c, 1, "m", 1000, 1000), 7000000);
    cloud_close(c);
    sound();
}

/* 150.25 yen a dollar: 10^-12 dollars a token, exactly. */
static void test_rates(void **state) {
    struct cloud *c;
    struct error e = {0};
    must("{'op':'tenant.create','name':'t','currency':'JPY','credit':'1000'}");
    must("{'op':'tenant.create','name':'u','currency':'USD','credit':'1000'}");
    must("{'op':'price.set','model':'m','currency':'USD','input':'0.000001','output':'1.5'}");
    refuse("{'op':'price.rate','base':'USD','quote':'JPY','rate':'0'}", ERR_INVALID, "above zero");
    refuse("{'op':'price.rate','base':'USD','quote':'USD','rate':'1'}", ERR_INVALID, "two currencies");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(cost(c, 1, "m", 1000, 1000), 0); /* no rate yet: for nothing */
    must("{'op':'price.rate','base':'USD','quote':'JPY','rate':'150.25'}");
    must("{'op':'price.rate','base':'USD','quote':'JPY','rate':'1','since':'2199-01-01'}");
    expect("{'op':'price.rates'}", "\"rate\":\"150.25\"");
    /* 3 tokens of 10^-12 dollars are 450.75 * 10^-12 yen: a thousand such requests are 450.75 * 10^-9. */
    amount sum = 0;
    for (int i = 0; i < 1000; i++)
        sum += cost(c, 1, "m", 3, 0);
    assert_int_equal(sum, 450);
    assert_int_equal(cost(c, 1, "m", 1, 0), 0);
    assert_int_equal(cost(c, 1, "m", 1, 0), 1);          /* .75 + .15025 + .15025 */
    assert_int_equal(cost(c, 2, "m", 0, 1000), 1500000); /* its own currency */
    must("{'op':'price.rate','base':'USD','quote':'JPY','rate':'0.000000001'}");
    assert_int_equal(cost(c, 1, "m", 0, 1000), 0); /* 1.5 * 10^-12 yen */
    must("{'op':'price.set','model':'m','currency':'JPY','input':'0','output':'2'}");
    assert_int_equal(cost(c, 1, "m", 0, 1000), 2000000); /* the tenant's own currency goes first */
    cloud_close(c);
    expect("{'op':'price.list'}", "\"input\":\"0.000001\"");
    sound();
}

static void test_import(void **state) {
    struct cloud *c;
    struct error e = {0};
    must("{'op':'tenant.create','name':'u','currency':'USD','credit':'1000'}");
    must("{'op':'price.import','currency':'USD','prices':[{'model':'a','input_cost_per_token':'1.5e-07',"
         "'cache_read_input_token_cost':7.5e-08,'output_cost_per_token':6.000000000000001e-07},"
         "{'model':'b','input_cost_per_token':1e-12,'output_cost_per_token':0}]}");
    refuse("{'op':'price.import','currency':'USD','prices':[{'model':'d','input_cost_per_token':1}]}",
           ERR_INVALID, "d: an amount is missing");
    expect("{'op':'price.list'}",
           "\"model\":\"a\",\"currency\":\"USD\",\"input\":\"0.15\",\"cached\":\"0.075\",\"output\":\"0.6\"");
    expect("{'op':'price.list'}", "\"model\":\"b\",\"currency\":\"USD\",\"input\":\"0.000001\",\"cached\":"
                                  "\"0.000001\",\"output\":\"0\"");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(cost(c, 1, "a", 1000, 1000), 750000);
    /* One that cannot be kept is the end of all, in memory too. */
    refuse(
        "{'op':'price.import','currency':'USD','prices':[{'model':'a','input_cost_per_token':1,"
        "'output_cost_per_token':1},{'model':'d','input_cost_per_token':1e-13,'output_cost_per_token':0}]}",
        ERR_INVALID, "d: '1e-13' has more than 12 decimals");
    assert_int_equal(cost(c, 1, "a", 1000, 1000), 750000);
    cloud_close(c);
    sound();
}

/* A request that could cost more than can be counted is refused, and nothing breaks. */
static void test_too_dear(void **state) {
    struct cloud *c;
    struct error e = {0};
    struct identity who = {.tenant = 1, .key = 1, .account = 1, .weight = 1};
    struct admission a = {.who = &who,
                          .model = STR("m"),
                          .request_id = "x",
                          .prompt_tokens = INT32_MAX,
                          .max_completion_tokens = INT32_MAX};
    struct hold *h;
    must("{'op':'tenant.create','name':'t','currency':'JPY','credit':'1000'}");
    must("{'op':'price.set','model':'m','currency':'USD','input':'9000000000000','output':'9000000000000'}");
    must("{'op':'price.rate','base':'USD','quote':'JPY','rate':'9000000000'}");
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(books_admit(c, &a, &h, &e), ERR_INVALID);
    a.prompt_tokens = 0;
    a.max_completion_tokens = 1;
    assert_int_equal(books_admit(c, &a, &h, &e), ERR_CREDIT);
    cloud_close(c);
    sound();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers),
        cmocka_unit_test_setup_teardown(test_dated, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_rates, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_import, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_too_dear, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
