/* Bills: dates, tax, the close and what it finds, invoices that add up to the ledger and can be made again. */
#include "cloud/bill/document.h"
#include "cloud/bill/tax.h"
#include "cloud/bill/usage.h"
#include "cloud/calendar.h"
#include "cloud/control.h"
#include "cloud/money.h"

#include "books_place.h"
#include "months.h"

#include "base/json.h"
#include "base/sign.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[64];

static int fresh_folder(void **state) {
    return books_place(folder, sizeof folder);
}

static int remove_folder(void **state) {
    return books_place_remove(folder);
}

/* ---- dates ---- */

static void test_dates(void **state) {
    static const char *const bad[] = {"",        "2024",   "2024-13",    "2024-00",
                                      "1969-12", "2024-1", "2024-02-03", "x024-01"};
    char month[CALENDAR_MONTH];
    int64_t from, to;
    struct buf out = {0};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        if (month_parse(str_from(bad[i]), month))
            fail_msg("'%s' was read", bad[i]);
    assert_true(month_parse(STR("2023-12"), month));
    month_bounds(month, 540, &from, &to);
    time_write(&out, from);
    time_write(&out, to);
    assert_string_equal(out.p, "2023-11-30T15:00:00Z2023-12-31T15:00:00Z");
    buf_clear(&out);
    time_write(&out, 1709218799999999999);
    assert_string_equal(out.p, "2024-02-29T14:59:59Z");
    assert_int_equal(time_read(buf_view(&out)), 1709218799000000000);
    assert_int_equal(time_read(STR("2024-02-29T24:00:00Z")), INT64_MIN);
    assert_int_equal(time_read(STR("2024-02-30T00:00:00Z")), INT64_MIN);
    buf_free(&out);
}

/* ---- tax ---- */

static struct json *parsed(const char *text) {
    struct json *v = NULL;
    struct error e = {0};
    if (json_parse(&v, str_from(text), &e) != 0)
        fail_msg("%s: %s", text, e.text);
    return v;
}

static const int64_t COIN = 1000000000;

static void test_rounding(void **state) {
    static const struct {
        int64_t value;
        int decimals;
        int64_t down, up, nearest;
    } table[] = {
        {1500000000, 0, 1, 2, 2},
        {-1500000000, 0, -2, -1, -2},
        {2500000000, 0, 2, 3, 3},
        {1499999999, 0, 1, 2, 1},
        {-1400000000, 0, -2, -1, -1},
        {3000000000, 0, 3, 3, 3},
        {0, 0, 0, 0, 0},
        {-1, 0, -1, 0, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        assert_int_equal(money_round(table[i].value, table[i].decimals, DIRECTION_DOWN),
                         table[i].down * COIN);
        assert_int_equal(money_round(table[i].value, table[i].decimals, DIRECTION_UP), table[i].up * COIN);
        assert_int_equal(money_round(table[i].value, table[i].decimals, DIRECTION_NEAREST),
                         table[i].nearest * COIN);
    }
    assert_int_equal(money_round(1234567890, 2, DIRECTION_DOWN), 1230000000);
    assert_int_equal(currency_decimals("JPY"), 0);
    assert_int_equal(currency_decimals("EUR"), 2);
    assert_int_equal(currency_decimals("KWD"), 3);
}

/* The same lines under each scope: three of 1.5 coins at 10%, two of 3.7 at 8%. */
static void test_scopes(void **state) {
    static const struct {
        const char *scope, *direction;
        int64_t standard, reduced;
    } table[] = {
        {"line", "down", 0, 0},  {"line", "up", 3, 2},      {"rate", "down", 0, 0},
        {"rate", "up", 1, 1},    {"rate", "nearest", 0, 1}, {"invoice", "down", 0, 1},
        {"invoice", "up", 1, 1}, {"line", "nearest", 0, 0},
    };
    const struct tax_line line[] = {{STR("standard"), 1500000000},
                                    {STR("reduced"), 3700000000},
                                    {STR("standard"), 1500000000},
                                    {STR("standard"), 1500000000},
                                    {STR("reduced"), 3700000000}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char text[200];
        struct tax_row row[TAX_RATES];
        size_t rows;
        struct error e = {0};
        snprintf(text, sizeof text,
                 "{\"scope\":\"%s\",\"direction\":\"%s\",\"rates\":[{\"id\":\"standard\",\"percent\":\"10\"},"
                 "{\"id\":\"reduced\",\"percent\":\"8\"}]}",
                 table[i].scope, table[i].direction);
        struct json *rule = parsed(text);
        assert_int_equal(tax_apply(rule, line, 5, 0, row, &rows, &e), 0);
        assert_int_equal(rows, 2);
        assert_int_equal(row[0].base, 4500000000);
        assert_int_equal(row[1].base, 7400000000);
        if (row[0].tax != table[i].standard * COIN || row[1].tax != table[i].reduced * COIN)
            fail_msg("%s %s: %lld %lld", table[i].scope, table[i].direction, (long long)row[0].tax,
                     (long long)row[1].tax);
        json_free(rule);
    }
}

static void test_rules(void **state) {
    static const struct {
        const char *issuer, *customer, *day;
        enum err code;
        const char *says;
    } table[] = {
        {"{}", "{}", "2024-01-31", 0, "\"percent\":\"0\""},
        {"{\"rule\":\"jp-consumption\",\"tax_id\":\"T1234567890123\"}", "{}", "2024-01-31", 0,
         "\"rates\":[{\"id\":\"standard\",\"percent\":\"10\"},{\"id\":\"reduced\",\"percent\":\"8\"}]"},
        {"{\"rule\":\"jp-consumption\",\"tax_id\":\"T123456789012\"}", "{}", "2024-01-31", ERR_INVALID,
         "tax_id"},
        {"{\"rule\":\"jp-consumption\"}", "{}", "2024-01-31", ERR_INVALID, "tax_id"},
        {"{\"rule\":\"jp-consumption\",\"tax_id\":\"T1234567890123\",\"rounding\":\"up\"}", "{}",
         "2024-01-31", 0, "\"direction\":\"up\""},
        {"{\"rule\":\"jp-consumption\",\"tax_id\":\"T1234567890123\"}", "{}", "2019-09-30", ERR_INVALID,
         "no rate on that day"},
        {"{\"rule\":\"jp-consumption\",\"tax_id\":\"T1234567890123\"}", "{\"rule\":\"none\"}", "2024-01-31",
         0, "\"percent\":\"0\""},
        /* At home, with or without a number; to a person abroad; to a business abroad; outside. */
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}",
         "{\"country\":\"DE\",\"tax_id\":\"DE987654321\"}", "2024-01-31", 0, "\"percent\":\"19\""},
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}", "{\"country\":\"FR\"}",
         "2024-01-31", 0, "\"percent\":\"20\""},
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}",
         "{\"country\":\"FR\",\"tax_id\":\"FR12345678901\"}", "2024-01-31", 0,
         "\"percent\":\"0\"}],\"note\":{\"en\":\"Reverse charge"},
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}",
         "{\"country\":\"GR\",\"tax_id\":\"EL123456789\"}", "2024-01-31", 0, "Reverse charge"},
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}",
         "{\"country\":\"FR\",\"tax_id\":\"DE12345678\"}", "2024-01-31", ERR_INVALID,
         "no number of its country"},
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}", "{\"country\":\"JP\"}",
         "2024-01-31", 0, "outside the European Union"},
        {"{\"rule\":\"eu-vat\",\"country\":\"DE\",\"tax_id\":\"DE123456789\"}", "{}", "2024-01-31",
         ERR_INVALID, "country"},
        /* A rate that changes, on the days around. */
        {"{\"rule\":\"eu-vat\",\"country\":\"EE\",\"tax_id\":\"EE123456789\"}", "{\"country\":\"EE\"}",
         "2025-06-30", 0, "\"22\""},
        {"{\"rule\":\"eu-vat\",\"country\":\"EE\",\"tax_id\":\"EE123456789\"}", "{\"country\":\"EE\"}",
         "2025-07-01", 0, "\"24\""},
        {"{\"rule\":\"eu-vat\",\"country\":\"FI\",\"tax_id\":\"FI12345678\"}", "{\"country\":\"FI\"}",
         "2024-09-01", 0, "\"25.5\""},
        {"{\"rule\":\"moon\"}", "{}", "2024-01-31", ERR_INVALID, "no such rule"},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct json *issuer = parsed(table[i].issuer), *customer = parsed(table[i].customer);
        struct buf out = {0};
        struct error e = {0};
        int rc = tax_resolve(NULL, issuer, customer, table[i].day, &out, &e);
        const char *said = rc == 0 ? out.p : e.text;
        if (rc != table[i].code || strstr(said, table[i].says) == NULL)
            fail_msg("%s %s: %d %s", table[i].issuer, table[i].customer, rc, said);
        buf_free(&out);
        json_free(issuer);
        json_free(customer);
    }
}

/* The operator's rule of the same name comes before the program's. */
static void test_own_rules(void **state) {
    struct json *
        own = parsed(
           "{\"rules\":[{\"id\":\"none\",\"label\":{\"en\":\"Levy\"},\"scope\":\"line\",\"direction\":\"up\","
           "\"rates\":[{\"id\":\"standard\",\"since\":\"2020-01-01\",\"percent\":\"3.25\"}]}]}"),
       *nobody = parsed("{}");
    struct buf out = {0};
    struct error e = {0};
    assert_int_equal(tax_check_rules(own, &e), 0);
    assert_int_equal(tax_resolve(own, nobody, nobody, "2024-01-31", &out, &e), 0);
    assert_non_null(strstr(out.p, "3.25"));
    json_free(own);
    own = parsed("{\"rules\":[{\"id\":\"x\",\"label\":{\"en\":\"X\"},\"scope\":\"day\",\"direction\":\"up\","
                 "\"rates\":[]}]}");
    assert_int_equal(tax_check_rules(own, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "scope"));
    struct json *built_in = NULL;
    assert_int_equal(json_parse(&built_in, (struct str){(const char *)tax_rules, tax_rules_bytes}, &e), 0);
    if (tax_check_rules(built_in, &e) != 0)
        fail_msg("%s", e.text);
    json_free(built_in);
    json_free(own);
    json_free(nobody);
    buf_free(&out);
}

/* ---- a charge's parts ---- */

static void test_split(void **state) {
    uint64_t x = 1;
    for (int i = 0; i < 20000; i++) {
        struct usage u = {.rate = 1000000000};
        money_wide cost = 0;
        for (int k = 0; k < TOKEN_KINDS; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            u.tokens[k] = (int64_t)(x >> 40) % 3 ? (int64_t)(x >> 33) % 1000000 : 0;
            x = x * 6364136223846793005u + 1442695040888963407u;
            u.unit[k] = (int64_t)(x >> 34);
            cost += usage_unit_price(&u, (enum token_kind)k) * u.tokens[k];
        }
        u.charge = (amount)(cost / 1000000000000) + i % 3;
        amount sum = 0;
        usage_split(&u);
        for (int k = 0; k < TOKEN_KINDS; k++) {
            money_wide off = usage_unit_price(&u, (enum token_kind)k) * u.tokens[k] -
                             (money_wide)u.part[k] * 1000000000000;
            assert_true(off > -5 * (money_wide)1000000000000 && off < 5 * (money_wide)1000000000000);
            assert_true(u.tokens[k] > 0 || u.part[k] == 0 || cost == 0);
            sum += u.part[k];
        }
        assert_int_equal(sum, u.charge);
    }
}

/* ---- signatures (RFC 8032, 7.1, test 2) ---- */

static void test_sign(void **state) {
    struct sign_secret key;
    struct sign_public public;
    struct signature s;
    struct buf hex = {0};
    assert_true(bill_unhex(STR("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"), &key,
                           sizeof key));
    assert_true(sign_public_of(&key, &public) && sign_data(&key, STR("\x72"), &s));
    bill_hex(&hex, (struct str){(const char *)&public, sizeof public});
    assert_string_equal(hex.p, "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c");
    buf_clear(&hex);
    bill_hex(&hex, (struct str){(const char *)&s, sizeof s});
    assert_string_equal(hex.p, "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e159"
                               "96e458f3613d0f11d8c387b2ea"
                               "eb4302aeeb00d291612bb0c00");
    assert_true(sign_check(&public, STR("\x72"), &s));
    assert_false(sign_check(&public, STR("\x73"), &s));
    s.byte[5] ^= 1;
    assert_false(sign_check(&public, STR("\x72"), &s));
    buf_free(&hex);
}

/* ---- the close ---- */

static struct error last;

static int ask(const char *request, struct buf *answer) {
    buf_clear(answer);
    last = (struct error){0};
    return control_call(folder, str_from(request), answer, &last);
}

static void refused(const char *request, enum err code, const char *says) {
    struct buf answer = {0};
    int rc = ask(request, &answer);
    if (rc != (int)code || strstr(last.text, says) == NULL)
        fail_msg("%s: %d %s", request, rc, rc == 0 ? answer.p : last.text);
    buf_free(&answer);
}

static void says(const char *request, const char *text) {
    struct buf answer = {0};
    if (ask(request, &answer) != 0)
        fail_msg("%s: %s", request, last.text);
    if (strstr(answer.p, text) == NULL)
        fail_msg("%s: %s", request, answer.p);
    buf_free(&answer);
}

static void touch(const char *sql) {
    months_sql(folder, sql);
}

static int64_t number(const char *sql) {
    return months_number(folder, sql);
}

static void test_close(void **state) {
    struct stat st;
    char path[100];
    months_make(folder);
    refused("{\"op\":\"close\",\"month\":\"2024-02\"}", ERR_CONFLICT, "2024-01 comes first");
    refused("{\"op\":\"close\",\"month\":\"2023-12\"}", ERR_NOT_FOUND, "nothing was posted");
    refused("{\"op\":\"close.verify\",\"month\":\"2024-01\"}", ERR_NOT_FOUND, "not closed");
    says("{\"op\":\"close\"}", "\"month\":\"2024-01\"");
    snprintf(path, sizeof path, "%s/close.key", folder);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    refused("{\"op\":\"close\",\"month\":\"2024-01\"}", ERR_CONFLICT, "closed already");
    months_at("2024-02-29T14:59:59Z"); /* February ends in Tokyo at 15:00 */
    refused("{\"op\":\"close\",\"month\":\"2024-02\"}", ERR_INVALID, "still running");
    months_at("2024-02-29T15:00:00Z");
    says("{\"op\":\"close\",\"month\":\"2024-02\"}", "\"first_seq\":");
    says("{\"op\":\"close.verify\",\"month\":\"2024-01\"}", "\"ok\":true");
    says("{\"op\":\"close.verify\",\"month\":\"2024-02\"}", "\"ok\":true");
    says("{\"op\":\"close.verify\",\"month\":\"2024-02\",\"key\":\"00\"}", "another key");
    /* What is posted behind a close is in the next month, whatever the clock says. */
    months_at("2024-04-03T00:00:00Z");
    says("{\"op\":\"close\"}", "\"month\":\"2024-03\"");
    months_at("2024-03-15T00:00:00Z");
    months_ask(folder, "{\"op\":\"tenant.credit\",\"name\":\"acme\",\"amount\":\"1\"}");
    says("{\"op\":\"close.list\"}", "\"month\":\"2024-04\"");
    says("{\"op\":\"close.verify\",\"month\":\"2024-03\"}", "\"ok\":true");
    assert_int_equal(number("SELECT count(*) FROM period WHERE closed > 0"), 3);
    assert_int_equal(number("SELECT count(*) FROM period p JOIN period n ON n.id = p.id + 1 WHERE "
                            "n.first_seq <> p.last_seq + 1"),
                     0);
    chmod(path, 0644);
    refused("{\"op\":\"close.key\"}", ERR_DENIED, "can be read by others");
}

static void test_close_touched(void **state) {
    static const struct {
        const char *sql, *month, *says;
    } table[] = {
        {"UPDATE transfer SET amount = amount + 1 WHERE seq = 20", "2024-01",
         "the journal says something else"},
        {"UPDATE transfer SET amount = amount + 1 WHERE seq = 20", "2024-02",
         "the journal says something else"},
        {"UPDATE transfer SET hash = (SELECT hash FROM transfer WHERE seq = 1) WHERE seq = (SELECT last_seq "
         "FROM period WHERE id = 2)",
         "2024-02", "the journal says something else"},
        {"UPDATE period SET statement = replace(statement, '\"zone\":540', '\"zone\":541') WHERE id = 1",
         "2024-01", "the signature is not of this statement"},
        {"UPDATE period SET statement = replace(statement, '\"zone\":540', '\"zone\":541') WHERE id = 1",
         "2024-02", "the journal says something else"},
        {"UPDATE period SET signature = (SELECT signature FROM period WHERE id = 1) WHERE id = 2", "2024-02",
         "the signature is not of this statement"},
        {"UPDATE period SET statement = 'x' WHERE id = 2", "2024-02", "damaged"},
        {"UPDATE period SET last_seq = last_seq - 1 WHERE id = 1", "2024-01",
         "the journal says something else"},
    };
    months_make(folder);
    says("{\"op\":\"close\"}", "2024-01");
    says("{\"op\":\"close\"}", "2024-02");
    touch("CREATE TABLE kept AS SELECT seq, amount, hash FROM transfer");
    touch("CREATE TABLE kept_period AS SELECT id, last_seq, statement, signature FROM period");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        char request[100];
        touch(table[i].sql);
        snprintf(request, sizeof request, "{\"op\":\"close.verify\",\"month\":\"%s\"}", table[i].month);
        says(request, table[i].says);
        says(request, "\"ok\":false");
        touch("UPDATE transfer SET amount = (SELECT amount FROM kept WHERE kept.seq = transfer.seq),"
              " hash = (SELECT hash FROM kept WHERE kept.seq = transfer.seq)");
        touch("UPDATE period SET last_seq = (SELECT last_seq FROM kept_period k WHERE k.id = period.id),"
              " statement = (SELECT statement FROM kept_period k WHERE k.id = period.id),"
              " signature = (SELECT signature FROM kept_period k WHERE k.id = period.id)");
    }
    says("{\"op\":\"close.verify\",\"month\":\"2024-02\"}", "\"ok\":true");
}

/* ---- invoices ---- */

static void profiles(void) {
    says("{\"op\":\"invoice.issuer\",\"profile\":{\"name\":\"雲海クラウド "
         "<株>\",\"address\":[\"東京都\"],\"country\":\"JP\","
         "\"tax_id\":\"T1234567890123\",\"rule\":\"jp-consumption\",\"language\":\"ja\",\"terms_days\":30,"
         "\"series\":{\"invoice\":\"A-\"},\"rates\":{\"large <b>&\":\"reduced\"}}}",
         "\"country\":\"JP\"");
    says("{\"op\":\"invoice.party\",\"tenant\":\"euro\",\"profile\":{\"name\":\"Euro & "
         "Co\",\"country\":\"FR\",\"rule\":\"none\","
         "\"language\":\"en\"}}",
         "Euro");
}

static void test_profiles(void **state) {
    months_make(folder);
    refused("{\"op\":\"invoice.issuer\",\"profile\":{\"nam\":\"x\"}}", ERR_INVALID, "no 'nam'");
    refused("{\"op\":\"invoice.issuer\",\"profile\":{\"country\":\"JP\"}}", ERR_INVALID, "has a name");
    refused("{\"op\":\"invoice.issuer\",\"profile\":{\"name\":\"x\",\"country\":\"Japan\"}}", ERR_INVALID,
            "country");
    refused("{\"op\":\"invoice.party\",\"tenant\":\"acme\",\"profile\":{\"name\":\"x\",\"rounding\":\"up\"}}",
            ERR_INVALID, "rounding");
    refused("{\"op\":\"invoice.party\",\"tenant\":\"nobody\"}", ERR_NOT_FOUND, "no tenant");
    refused("{\"op\":\"invoice.rules\",\"profile\":{\"rules\":[{\"id\":\"X\"}]}}", ERR_INVALID,
            "small letters");
    says("{\"op\":\"invoice.party\",\"tenant\":\"acme\"}", "{}");
    says("{\"op\":\"invoice.rules\"}", "\"built_in\":{\"rules\":[");
    says("{\"op\":\"close\"}", "2024-01");
    refused("{\"op\":\"invoice.create\"}", ERR_NOT_FOUND, "nobody sends");
}

static void test_invoices(void **state) {
    months_make(folder);
    profiles();
    refused("{\"op\":\"invoice.create\"}", ERR_NOT_FOUND, "no month is closed");
    refused("{\"op\":\"invoice.create\",\"month\":\"2024-01\"}", ERR_CONFLICT, "is open");
    says("{\"op\":\"invoice.draft\",\"tenant\":\"acme\",\"month\":\"2024-01\"}", "\"number\":\"\"");
    months_at("2024-04-05T00:00:00Z");
    for (int i = 1; i <= 3; i++) {
        says("{\"op\":\"close\"}", "closed");
        says("{\"op\":\"invoice.create\"}", "\"number\":\"A-");
        says("{\"op\":\"invoice.create\"}", "[]");
    }
    refused("{\"op\":\"invoice.create\",\"tenant\":\"acme\"}", ERR_CONFLICT, "already");
    assert_int_equal(number("SELECT count(*) FROM invoice"), 6); /* idle has nothing to pay */
    /* All together they ask for what was charged, but for what is carried on below a coin; the tax is where it belongs. */
    for (int i = 0; i < 2; i++) {
        const int64_t coin = i ? 10000000 : 1000000000;
        int64_t revenue = number(i ? "SELECT balance FROM account WHERE name = 'revenue:EUR'"
                                   : "SELECT balance FROM account WHERE name = 'revenue:JPY'");
        int64_t net = number(i ? "SELECT CAST(sum(net) AS BIGINT) FROM invoice WHERE currency = 'EUR'"
                               : "SELECT CAST(sum(net) AS BIGINT) FROM invoice WHERE currency = 'JPY'");
        assert_int_equal(net, revenue / coin * coin);
    }
    assert_true(number("SELECT CAST(sum(tax) AS BIGINT) FROM invoice WHERE currency = 'JPY'") > 0);
    assert_int_equal(number("SELECT balance FROM account WHERE name = 'tax:jp-consumption:JPY'"),
                     number("SELECT CAST(sum(tax) AS BIGINT) FROM invoice"));
    assert_int_equal(number("SELECT balance FROM account WHERE name = 'receivable:acme'"),
                     -number("SELECT CAST(sum(tax) AS BIGINT) FROM invoice"));
    for (int i = 1; i <= 6; i++) {
        char request[100], expected[40];
        snprintf(expected, sizeof expected, "{\"number\":\"A-%06d\",\"ok\":true", i);
        snprintf(request, sizeof request, "{\"op\":\"invoice.verify\",\"number\":\"A-%06d\"}", i);
        says(request, expected);
    }
    /* Another zone from now on changes no month that is closed. */
    says("{\"op\":\"ledger.zone\",\"zone\":\"-05:00\"}", "-05:00");
    says("{\"op\":\"close.verify\",\"month\":\"2024-02\"}", "\"ok\":true");
    says("{\"op\":\"invoice.verify\",\"number\":\"A-000003\"}", "\"ok\":true");
    says("{\"op\":\"ledger.list\"}", "receivable:acme");
    refused("{\"op\":\"invoice.verify\",\"number\":\"A-7\"}", ERR_NOT_FOUND, "no invoice 'A-7'");
}

static void test_cancel(void **state) {
    months_make(folder);
    profiles();
    says("{\"op\":\"close\"}", "2024-01");
    says("{\"op\":\"invoice.create\",\"tenant\":\"acme\"}", "A-000001");
    int64_t tax = number("SELECT balance FROM account WHERE name = 'tax:jp-consumption:JPY'");
    assert_true(tax > 0);
    refused("{\"op\":\"invoice.cancel\",\"number\":\"A-000001\"}", ERR_INVALID, "why");
    says("{\"op\":\"invoice.cancel\",\"number\":\"A-000001\",\"reason\":\"wrong <address>\"}",
         "\"number\":\"CN-000001\"");
    assert_int_equal(number("SELECT balance FROM account WHERE name = 'tax:jp-consumption:JPY'"), 0);
    assert_int_equal(number("SELECT CAST(sum(total) AS BIGINT) FROM invoice"), 0);
    refused("{\"op\":\"invoice.cancel\",\"number\":\"A-000001\",\"reason\":\"x\"}", ERR_CONFLICT,
            "cancelled already");
    refused("{\"op\":\"invoice.cancel\",\"number\":\"CN-000001\",\"reason\":\"x\"}", ERR_CONFLICT,
            "no invoice");
    says("{\"op\":\"invoice.create\",\"tenant\":\"acme\"}", "A-000002");
    assert_int_equal(number("SELECT balance FROM account WHERE name = 'tax:jp-consumption:JPY'"), tax);
    says("{\"op\":\"invoice.verify\",\"number\":\"CN-000001\"}", "\"ok\":true");
    says("{\"op\":\"invoice.verify\",\"number\":\"A-000001\"}", "\"ok\":true");
    /* Rules and profiles that change later change nothing that was issued; a hand on what was issued is seen. */
    says("{\"op\":\"invoice.issuer\",\"profile\":{\"name\":\"New\",\"rule\":\"none\"}}", "New");
    says("{\"op\":\"invoice.verify\",\"number\":\"A-000002\"}", "\"ok\":true");
    touch("UPDATE invoice SET document = replace(document, 'T1234567890123', 'T1234567890124') WHERE number "
          "= 'A-000002'");
    says("{\"op\":\"invoice.verify\",\"number\":\"A-000002\"}", "its hash is another");
    touch("UPDATE usage_day SET charge = charge + 1 WHERE tenant = 1 AND period = 1 AND model = 'small' AND "
          "day = '2024-01-10'");
    says("{\"op\":\"invoice.verify\",\"number\":\"A-000001\"}", "the journal makes another document");
    touch("UPDATE invoice SET net = net + 1 WHERE number = 'CN-000001'");
    says("{\"op\":\"invoice.verify\",\"number\":\"CN-000001\"}", "other sums");
}

static void test_html(void **state) {
    struct buf page = {0};
    struct json *text = NULL;
    struct error e = {0};
    months_make(folder);
    profiles();
    says("{\"op\":\"close\"}", "2024-01");
    says("{\"op\":\"invoice.create\"}", "A-000001");
    assert_int_equal(ask("{\"op\":\"invoice.show\",\"number\":\"A-000001\",\"as\":\"html\"}", &page), 0);
    assert_int_equal(json_parse(&text, buf_view(&page), &e), 0);
    char *html = strndup(json_as_str(text).p, json_as_str(text).n);
    assert_non_null(strstr(html, "<html lang=\"ja\">"));
    assert_non_null(strstr(html, "請求書"));
    assert_non_null(strstr(html, "登録番号: T1234567890123"));
    assert_non_null(strstr(html, "雲海クラウド &lt;株&gt;"));
    assert_non_null(strstr(html, "large &lt;b&gt;&amp;"));
    assert_null(strstr(html, "<b>"));
    assert_null(strstr(html, "http"));
    free(html);
    json_free(text);
    buf_free(&page);
}

/* ---- payments ---- */

static int64_t balance(const char *account) {
    char sql[120];
    snprintf(sql, sizeof sql, "SELECT balance FROM account WHERE name = '%s'", account);
    return number(sql);
}

/* What the answer's member says, in 10^-9. */
static int64_t money_of(const char *request, const char *member) {
    struct buf answer = {0};
    int64_t value;
    if (ask(request, &answer) != 0)
        fail_msg("%s: %s", request, last.text);
    struct json *v = parsed(answer.p);
    value = document_amount(v, member);
    json_free(v);
    buf_free(&answer);
    return value;
}

/* Three months of a tenant that pays later, from March on below zero. */
static void invoiced(void) {
    months_make_owing(folder);
    profiles();
    months_at("2024-04-05T00:00:00Z");
    for (int i = 0; i < 3; i++) {
        says("{\"op\":\"close\"}", "closed");
        says("{\"op\":\"invoice.create\"}", "\"status\":\"open\"");
    }
}

#define PAY "{\"op\":\"invoice.pay\",\"number\":\"A-000005\""
#define STATUS "{\"op\":\"invoice.status\",\"number\":\"A-000005\"}"

static void test_payments(void **state) {
    invoiced();
    int64_t due = money_of(STATUS, "due"), tax = money_of(STATUS, "tax"), before = balance("tenant:acme"),
            owed = balance("receivable:acme");
    says(STATUS, "\"due_on\":\"2024-05-05\"");
    assert_int_equal(money_of(STATUS, "left"), due);
    assert_true(tax > 0 && due > tax + 1000 * COIN && due < money_of(STATUS, "total"));
    refused(PAY ",\"amount\":\"0\"}", ERR_INVALID, "above zero");
    refused(PAY ",\"amount\":\"1e3\"}", ERR_INVALID, "no amount");
    refused(PAY ",\"date\":\"2024-04-06\"}", ERR_INVALID, "not over");
    refused(PAY ",\"date\":\"2024-04\"}", ERR_INVALID, "a day");
    refused(PAY ",\"payment\":\"\"}", ERR_INVALID, "1 to 100 bytes");
    refused(PAY ",\"amount\":\"999999\"}", ERR_CONFLICT, "is left");
    refused("{\"op\":\"invoice.pay\",\"number\":\"A-9\"}", ERR_NOT_FOUND, "no invoice");
    /* A part, once; the same id for anything else is refused. */
    for (int i = 0; i < 3; i++) {
        says(PAY ",\"payment\":\"bank 1\",\"amount\":\"100.5\",\"date\":\"2024-04-02\"}",
             "{\"payment\":\"bank 1\",\"number\":\"A-000005\"");
        says(PAY ",\"payment\":\"bank 1\"}",
             "\"amount\":\"100.5\",\"date\":\"2024-04-02\",\"status\":\"part_paid\"");
        assert_int_equal(balance("tenant:acme"), before + 100500000000);
        assert_int_equal(balance("receivable:acme"), owed);
    }
    refused(PAY ",\"payment\":\"bank 1\",\"amount\":\"100\"}", ERR_CONFLICT, "other content");
    refused(PAY ",\"payment\":\"bank 1\",\"date\":\"2024-04-03\"}", ERR_CONFLICT, "other content");
    refused("{\"op\":\"invoice.pay\",\"number\":\"A-000003\",\"payment\":\"bank 1\"}", ERR_CONFLICT,
            "other content");
    assert_int_equal(money_of(STATUS, "left"), due - 100500000000);
    /* Charges come before tax, which is no credit of the tenant's. */
    char request[160];
    snprintf(request, sizeof request, PAY ",\"payment\":\"bank 2\",\"amount\":\"%lld.5\"}",
             (long long)((due - tax) / COIN - 101 + 7));
    for (int i = 0; i < 2; i++)
        says(request, "part_paid");
    assert_int_equal(balance("tenant:acme"), before + due - tax);
    assert_int_equal(balance("receivable:acme"), owed + 7 * COIN);
    assert_int_equal(money_of(STATUS, "left"), tax - 7 * COIN);
    for (int i = 0; i < 2; i++)
        says(PAY ",\"payment\":\"bank 3\"}", "\"status\":\"paid\"");
    says(STATUS, "\"left\":\"0\"");
    refused(PAY "}", ERR_CONFLICT, "nothing is left");
    assert_int_equal(balance("tenant:acme"), before + due - tax);
    assert_int_equal(balance("receivable:acme"), owed + tax);
    assert_int_equal(number("SELECT count(*) FROM transfer WHERE about = 'invoice:A-000005'"), 4);
    /* What never came is taken back in the ledger, and is owed again. */
    says("{\"op\":\"ledger.reverse\",\"transfer\":\"payment_tax:1:bank 3\",\"reason\":\"it bounced\"}",
         "reverse:");
    says(STATUS, "\"status\":\"part_paid\"");
    assert_int_equal(money_of(STATUS, "left"), tax - 7 * COIN);
    says(PAY "}", "\"status\":\"paid\"");
    says("{\"op\":\"ledger.verify\"}", "\"wrong\":[]");
    says("{\"op\":\"invoice.verify\",\"number\":\"A-000005\"}", "\"ok\":true");
    says("{\"op\":\"close.verify\",\"month\":\"2024-03\"}", "\"ok\":true");
    /* The next month has what was paid, and owes nothing of what was owed before. */
    months_at("2024-05-02T00:00:00Z");
    says("{\"op\":\"close\"}", "2024-04");
    says("{\"op\":\"close.verify\",\"month\":\"2024-04\"}", "\"ok\":true");
    says("{\"op\":\"invoice.create\",\"tenant\":\"acme\"}", "\"due\":\"0\"");
}

/* Of one that pays in advance only the tax is due; where nothing is due it is paid. A credit note leaves nothing, and what was paid counts for the invoice in its place. */
static void test_payments_and_credit_notes(void **state) {
    invoiced();
    int64_t account = balance("tenant:acme"), owed = balance("receivable:acme"),
            tax = money_of("{\"op\":\"invoice.status\",\"number\":\"A-000001\"}", "tax");
    says("{\"op\":\"invoice.pay\",\"number\":\"A-000001\"}", "\"status\":\"paid\"");
    assert_int_equal(balance("tenant:acme"), account);
    assert_int_equal(balance("receivable:acme"), owed + tax);
    says("{\"op\":\"invoice.status\",\"number\":\"A-000002\"}", "\"status\":\"paid\",\"due\":\"0\"");
    refused("{\"op\":\"invoice.pay\",\"number\":\"A-000002\"}", ERR_CONFLICT, "nothing is left");
    int64_t due = money_of(STATUS, "due");
    says(PAY ",\"payment\":\"p\",\"amount\":\"1000\"}", "part_paid");
    says("{\"op\":\"invoice.cancel\",\"number\":\"A-000005\",\"reason\":\"address\"}", "\"status\":\"\"");
    says(STATUS, "\"status\":\"cancelled\",\"due\":\"0\",\"paid\":\"0\",\"left\":\"0\"");
    says(PAY ",\"payment\":\"p\"}", "cancelled");
    refused(PAY "}", ERR_CONFLICT, "cancelled");
    refused("{\"op\":\"invoice.pay\",\"number\":\"CN-000001\"}", ERR_CONFLICT, "no invoice");
    says("{\"op\":\"invoice.create\",\"tenant\":\"acme\"}", "\"status\":\"part_paid\"");
    assert_int_equal(money_of("{\"op\":\"invoice.status\",\"number\":\"A-000007\"}", "left"),
                     due - 1000 * COIN);
    says("{\"op\":\"invoice.show\",\"number\":\"A-000007\",\"as\":\"html\"}", "入金済み");
    says("{\"op\":\"invoice.pay\",\"number\":\"A-000007\"}", "\"status\":\"paid\"");
    assert_int_equal(number("SELECT CAST(sum(amount) AS BIGINT) FROM transfer WHERE kind IN ('payment', "
                            "'payment_tax') AND about <> 'invoice:A-000001'"),
                     due);
    says("{\"op\":\"ledger.verify\"}", "\"wrong\":[]");
}

/* ---- exports ---- */

static void read_pages(const char *op, int rows, struct buf *out) {
    struct buf request = {0}, answer = {0}, after = {0};
    struct json *page = NULL;
    struct error e = {0};
    int pages = 0;
    do {
        buf_clear(&request);
        buf_printf(&request, "{\"op\":\"%s\",\"month\":\"2024-02\",\"rows\":%d", op, rows);
        if (after.n > 0)
            buf_printf(&request, ",\"after\":%s", after.p);
        buf_byte(&request, '}');
        if (ask(request.p, &answer) != 0)
            fail_msg("%s: %s", request.p, last.text);
        assert_int_equal(json_parse(&page, buf_view(&answer), &e), 0);
        struct str text = json_as_str(json_get(page, "text"));
        assert_true(json_as_int(json_get(page, "rows")) <= rows + 6); /* a day's parts, an invoice's rows */
        buf_str(out, text);
        struct buf before = after;
        after = (struct buf){0};
        json_write(&after, json_get(page, "after"));
        bool end = json_kind(json_get(page, "after")) == JSON_KIND_NULL ||
                   (before.n > 0 && strcmp(before.p, after.p) == 0);
        buf_free(&before);
        json_free(page);
        if (end)
            break;
    } while (++pages < 100000);
    buf_free(&request);
    buf_free(&answer);
    buf_free(&after);
}

/* Wherever the pages are cut, together they are the same. */
static void test_pages(void **state) {
    static const char *const op[] = {"export.focus", "export.events"};
    static const int rows[] = {1, 2, 3, 7, 100};
    months_make(folder);
    profiles();
    says("{\"op\":\"close\"}", "2024-01");
    says("{\"op\":\"close\"}", "2024-02");
    says("{\"op\":\"invoice.create\"}", "2024-02");
    for (int i = 0; i < 2; i++) {
        struct buf whole = {0}, cut = {0};
        read_pages(op[i], 2000, &whole);
        assert_true(whole.n > 5000);
        for (size_t k = i == 0 ? 0 : 4; k < sizeof rows / sizeof *rows; k++) {
            buf_clear(&cut);
            read_pages(op[i], rows[k], &cut);
            if (!str_equal(buf_view(&whole), buf_view(&cut)))
                fail_msg("%s in pages of %d rows is another", op[i], rows[k]);
        }
        buf_free(&whole);
        buf_free(&cut);
    }
    refused("{\"op\":\"export.focus\",\"month\":\"2024-02\",\"version\":\"9.9\"}", ERR_UNSUPPORTED,
            "no columns");
    refused("{\"op\":\"export.focus\",\"month\":\"2024-02\",\"tenant\":\"nobody\"}", ERR_NOT_FOUND,
            "no tenant");
    refused("{\"op\":\"export.events\",\"after\":-1}", ERR_INVALID, "not negative");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dates),
        cmocka_unit_test(test_rounding),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_own_rules),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_sign),
        cmocka_unit_test_setup_teardown(test_close, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_close_touched, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_profiles, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_invoices, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_cancel, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_payments, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_payments_and_credit_notes, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_html, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_pages, fresh_folder, remove_folder),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
