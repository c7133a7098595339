/* The owner's side of the books: energy counters that are made up, the chips' clock, and what a chip-hour costs. usage: test_owner FAKE_NVML */
#include "cloud/inner.h"
#include "owner/cost.h"
#include "owner/meter.h"
#include "owner/owner.h"
#include "owner/power.h"

#include "base/clock.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "books_place.h"

static char folder[64];
static const char *fake_nvml;

static int fresh_folder(void **state) {
    return books_place(folder, sizeof folder);
}

static int remove_folder(void **state) {
    return books_place_remove(folder);
}

/* ---- energy ---- */

static void put(const char *name, const char *file, const char *text) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    mkdir(path, 0700);
    snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void put_zone(const char *name, const char *kind, const char *energy) {
    put(name, "name", kind);
    put(name, "max_energy_range_uj", "1000000\n");
    put(name, "energy_uj", energy);
}

static void test_rapl(void **state) {
    int64_t uj = -1;
    (void)state;
    assert_null(power_open(folder, "/nonexistent.so"));
    put_zone("intel-rapl:0", "package-0\n", "500000\n");
    put_zone("intel-rapl:0:0", "core\n", "400000\n"); /* a part of the package */
    put_zone("intel-rapl:0:1", "dram\n", "900000\n");
    put_zone("intel-rapl:1", "psys\n", "100\n");         /* holds the package again */
    put_zone("intel-rapl-mmio:0", "package-0\n", "1\n"); /* counts it another time */
    put("intel-rapl:2", "name", "package-1\n");          /* and of this one nothing can be read */
    struct power *p = power_open(folder, "/nonexistent.so");
    assert_non_null(p);
    assert_int_equal(power_counters(p), 2);
    assert_true(power_read(p, &uj) && uj == 0);
    put_zone("intel-rapl:0", "package-0\n", "500700\n");
    put_zone("intel-rapl:0:1", "dram\n", "50\n"); /* it wrapped */
    assert_true(power_read(p, &uj) && uj == 700 + 100050);
    put("intel-rapl:0", "energy_uj", "broken\n");
    assert_false(power_read(p, &uj));
    put("intel-rapl:0", "energy_uj", "500900\n"); /* nothing was lost meanwhile */
    assert_true(power_read(p, &uj) && uj == 900 + 100050);
    power_close(p);
}

static void test_nvml(void **state) {
    int64_t uj = -1;
    (void)state;
    struct power *p = power_open("/nonexistent", fake_nvml);
    assert_non_null(p);
    assert_int_equal(power_counters(p), 2);
    assert_true(power_read(p, &uj) && uj == 3000000);
    assert_true(power_read(p, &uj) && uj == 6000000);
    power_close(p);
}

/* ---- the chips' clock ---- */

/* Rows, and the sums of their columns. */
static int sum_chip_time(struct cloud *c, void *context, struct error *e) {
    struct query *q;
    int64_t *sum = context;
    int rc =
        store_query(c->store, &q,
                    "SELECT at, available_ns, busy_ns, energy_uj, measured_ns FROM chip_time ORDER BY at", e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        sum[0]++;
        for (int i = 1; i < 5; i++)
            sum[i] += query_column_int(q, i);
        rc = 0;
    }
    return rc;
}

static void see(struct cloud *c, int64_t expected[5]) {
    int64_t sum[5] = {0};
    struct error e = {0};
    if (journal_call(c, sum_chip_time, sum, &e) != 0)
        fail_msg("%s", e.text);
    assert_memory_equal(sum, expected, sizeof sum);
}

static void test_spans(void **state) {
    static const int64_t minute = 60000000000, quarter = 15 * minute;
    struct cloud *c;
    struct error e;
    (void)state;
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    int64_t at = 2000 * quarter;
    struct meter_span s = {at, at + minute, 8 * minute, 100, 7, minute};
    assert_int_equal(meter_write(c, &s, &e), 0);
    s.from = at + 14 * minute;
    s.to = at + 15 * minute; /* the next quarter has not begun */
    assert_int_equal(meter_write(c, &s, &e), 0);
    see(c, (int64_t[]){1, 16 * minute, 200, 14, 2 * minute});
    s.from += minute;
    s.to += minute;
    assert_int_equal(meter_write(c, &s, &e), 0);
    see(c, (int64_t[]){2, 24 * minute, 300, 21, 3 * minute});
    cloud_close(c);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    see(c, (int64_t[]){2, 24 * minute, 300, 21, 3 * minute});
    cloud_close(c);
}

static int64_t busy(void *context) {
    return *(int64_t *)context += 500;
}

static void test_meter(void **state) {
    struct cloud *c;
    struct meter *m;
    struct error e;
    int64_t sum[5] = {0}, worked = 1000, start = clock_mono_ns();
    struct meter_source source = {busy, &worked, 4};
    (void)state;
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    assert_int_equal(meter_start(&m, c, &source, &e), 0);
    usleep(20000);
    meter_stop(m); /* writes what there is since the last minute */
    int64_t passed = clock_mono_ns() - start;
    assert_int_equal(journal_call(c, sum_chip_time, sum, &e), 0);
    assert_in_range(sum[1], 4 * 20000000, 4 * passed);
    assert_int_equal(sum[2] % 500, 0);
    assert_in_range(sum[2], 500,
                    500 * (2 + passed / INT64_C(60000000000))); /* once more for each minute that began */
    cloud_close(c);
}

/* ---- what a chip-hour costs ---- */

static double chip_hour(const struct asset *a, double capital) {
    return (capital + asset_power(a, 0) + asset_operation(a)) / (a->chips * YEAR_HOURS);
}

static void assert_near(double x, double expected, double within) {
    if (!(x > expected - within && x < expected + within))
        print_message("%.9f is not %.9f\n", x, expected);
    assert_true(x > expected - within && x < expected + within);
}

/* Eight accelerators, as docs/owner.md reckons them. */
static void test_worked_case(void **state) {
    struct asset a = {.price = 393984,
                      .life = 5,
                      .chips = 8,
                      .watts = 8 * 1730,
                      .pue = 1,
                      .kwh = 0.15,
                      .operation = 0.10,
                      .discount = 0.10};
    (void)state;
    assert_near(chip_hour(&a, asset_straight(&a)), 1.946, 0.0005);
    assert_near(chip_hour(&a, asset_annuity(&a)), 2.305, 0.0005);
    const struct { double use, years; } sold[] = {{0.60, 9.56}, {0.90, 4.35}};
    for (int i = 0; i < 2; i++) {
        struct payback p = {.price = a.price,
                            .remaining = a.price,
                            .chip_hours = sold[i].use * a.chips * YEAR_HOURS,
                            .operating = asset_power(&a, 0) + asset_operation(&a)};
        p.revenue = 2.35 * p.chip_hours;
        assert_near(payback_years(&p), sold[i].years, 0.005);
        assert_near(payback_left(&p), payback_years(&p), 1e-12);
        /* At the price that pays it back in so many months it is paid back in so many months. */
        p.revenue = payback_price(&p, 30) * p.chip_hours;
        assert_near(payback_years(&p), 2.5, 1e-12);
    }
}

/* Whatever the method, the price less the residual value is written off, no year brings value back, and no day is counted twice. */
static void test_depreciation(void **state) {
    static const double life[] = {1.0 / 12, 0.5, 1, 2, 2.5, 5, 10, 100};
    (void)state;
    for (size_t i = 0; i < sizeof life / sizeof *life; i++)
        for (int kind = 0; kind < 6; kind++) {
            struct asset a = {.price = 1000, .life = life[i], .residual = kind / 2 * 400};
            a.method = kind % 2 ? DECLINING_BALANCE : STRAIGHT_LINE;
            double sum = 0, last = a.price;
            for (int k = 0; k < 97; k++) {
                double from = 1.3 * a.life * k / 97, to = 1.3 * a.life * (k + 1) / 97;
                sum += asset_depreciation(&a, from, to);
                assert_true(asset_value(&a, to) <= last + 1e-9 && asset_value(&a, to) >= a.residual - 1e-9);
                last = asset_value(&a, to);
            }
            assert_near(sum, a.price - a.residual, 1e-9);
            assert_near(asset_value(&a, 2 * a.life), a.residual, 1e-9);
        }
    /* 200% of the straight line's 10%: 200, 160, 128; and the straight line once it is more. */
    struct asset a = {.price = 1000, .life = 10, .method = DECLINING_BALANCE};
    const double value[] = {1000, 800, 640, 512, 409.6, 327.68, 262.144, 196.608, 131.072, 65.536, 0};
    for (int k = 0; k <= 10; k++)
        assert_near(asset_value(&a, k), value[k], 1e-9);
    assert_near(asset_value(&a, 0.5), 900, 1e-9);
}

static void test_never(void **state) {
    struct payback p = {.price = 10, .remaining = 10, .revenue = 5, .operating = 6};
    (void)state;
    assert_true(isnan(payback_years(&p)) && isnan(payback_left(&p)) && isnan(payback_price(&p, 36)));
    p.remaining = -1;
    assert_true(payback_left(&p) == 0);
}

/* ---- operations, on either database ---- */

static struct cloud *books;

static struct json *ask(const char *request, int expected) {
    struct buf out = {0};
    struct json *args, *answer = NULL;
    struct error e = {0};
    assert_int_equal(json_parse(&args, str_from(request), &e), 0);
    int rc = admin_run(books, args, &out, &e);
    if (rc != expected)
        print_message("%s: %d %s\n", request, rc, e.text);
    assert_int_equal(rc, expected);
    if (rc == 0)
        assert_int_equal(json_parse(&answer, buf_view(&out), &e), 0);
    json_free(args);
    buf_free(&out);
    return answer;
}

static void tell(const char *request) {
    json_free(ask(request, 0));
}

static double real(const struct json *object, const char *path) {
    char name[32];
    while (strchr(path, '.') != NULL) {
        snprintf(name, sizeof name, "%.*s", (int)(strchr(path, '.') - path), path);
        object = json_get(object, name);
        path = strchr(path, '.') + 1;
    }
    assert_true(json_numeric(json_get(object, path)));
    return json_as_number(json_get(object, path));
}

/* A month of two tenants in two currencies, beyond 64 bits in its sums. */
static int write_month(struct cloud *c, void *context, struct error *e) {
    struct query *q;
    int rc =
        store_query(c->store, &q,
                    "INSERT INTO rate (base, quote, value, since) VALUES ('USD', 'JPY', 150000000000, 0)", e);
    if (rc != 0 || (rc = query_run(q, e)) != 0)
        return rc;
    for (int tenant = 1; tenant <= 2; tenant++)
        for (int day = 1; day <= 30; day++) {
            char text[16];
            snprintf(text, sizeof text, "2026-10-%02d", day);
            rc = store_query(
                c->store, &q,
                "INSERT INTO usage_day (period, day, tenant, key, model, price, rate, requests, cancelled, "
                "failed,"
                " prompt, cached, completion, charge, chip_ns, prefill_ns) VALUES (1, $1, $2, 1, 'm', 1,"
                " 1000000000, 100, 0, 0, 3000000, 1000000, 500000, $3, $4, $5)",
                e);
            if (rc != 0)
                return rc;
            query_text(q, 1, str_from(text));
            query_int(q, 2, tenant);
            query_int(q, 3, 9000000000000000000);
            query_int(q, 4, 900000000000000000);
            query_int(q, 5, 300000000000000000);
            if ((rc = query_run(q, e)) != 0)
                return rc;
        }
    return 0;
}

static void test_operations(void **state) {
    struct error e;
    (void)state;
    owner_operations();
    owner_operations(); /* once is enough */
    assert_int_equal(cloud_open(&books, folder, NULL, NULL, &e), 0);
    tell("{\"op\":\"tenant.create\",\"name\":\"a\",\"currency\":\"JPY\"}");
    tell("{\"op\":\"tenant.create\",\"name\":\"b\",\"currency\":\"USD\"}");
    assert_int_equal(journal_call(books, write_month, NULL, &e), 0);
    ask("{\"op\":\"price.suggest\",\"margin\":\"30%\",\"month\":\"2026-10\"}",
        ERR_INVALID); /* nothing was bought */
    tell("{\"op\":\"owner.asset.add\",\"name\":\"x\",\"price\":1e9,\"currency\":\"USD\",\"life\":\"5y\","
         "\"bought\":\"2026-01-01\",\"chips\":100000,\"operation\":0.1}");
    ask("{\"op\":\"owner.asset.add\",\"name\":\"x\",\"price\":1,\"currency\":\"USD\",\"life\":\"5y\"}",
        ERR_CONFLICT);
    tell("{\"op\":\"owner.asset.add\",\"name\":\"y\",\"price\":\"1000\",\"currency\":\"JPY\",\"life\":"
         "\"60\"}");
    tell("{\"op\":\"owner.expense.add\",\"name\":\"rent\",\"amount\":\"100\",\"currency\":\"JPY\",\"from\":"
         "\"2026-10-01\"}");
    struct json *r = ask("{\"op\":\"owner.report\",\"month\":\"2026-10\",\"currency\":\"JPY\"}", 0);
    const struct json *m = json_at(json_get(r, "models"), 0);
    assert_near(real(r, "revenue") / (30 * 9e9 * 151), 1, 1e-12);
    assert_near(real(r, "chip_hours.used"), 60 * 9e8 / 3600, 1e-3);
    assert_near((real(m, "cost") + real(r, "idle.cost")) / real(r, "cost.total"), 1, 1e-12);
    assert_int_equal(json_count(json_get(r, "tenants")), 2);
    assert_near(real(r, "cost.expenses"), 1200 * 31 / 365.0, 1e-9);
    json_free(r);
    struct json *p =
        ask("{\"op\":\"price.suggest\",\"margin\":\"30%\",\"month\":\"2026-10\",\"set\":\"yes\"}", 0);
    struct json *list = ask("{\"op\":\"price.list\"}", 0);
    assert_int_equal(json_count(list), 1);
    assert_true(str_equal(json_as_str(json_get(json_at(list, 0), "input")),
                          json_as_str(json_get(json_at(json_get(p, "prices"), 0), "input"))));
    json_free(p);
    json_free(list);
    tell("{\"op\":\"price.compare\",\"against\":\"1b\",\"month\":\"2026-10\"}");
    ask("{\"op\":\"price.compare\",\"against\":\"none\"}", ERR_NOT_FOUND);
    tell("{\"op\":\"owner.asset.retire\",\"name\":\"y\"}");
    ask("{\"op\":\"owner.asset.retire\",\"name\":\"y\"}", ERR_NOT_FOUND);
    tell("{\"op\":\"owner.expense.end\",\"name\":\"rent\",\"on\":\"2026-10-16\"}");
    list = ask("{\"op\":\"owner.asset.list\"}", 0);
    assert_int_equal(json_count(list), 2);
    json_free(list);
    r = ask("{\"op\":\"owner.report\",\"month\":\"2026-10\",\"currency\":\"JPY\"}", 0);
    assert_near(real(r, "cost.expenses"), 1200 * 15 / 365.0, 1e-9);
    json_free(r);
    cloud_close(books);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rapl, fresh_folder, remove_folder),
        cmocka_unit_test(test_nvml),
        cmocka_unit_test_setup_teardown(test_spans, fresh_folder, remove_folder),
        cmocka_unit_test_setup_teardown(test_meter, fresh_folder, remove_folder),
        cmocka_unit_test(test_worked_case),
        cmocka_unit_test(test_depreciation),
        cmocka_unit_test(test_never),
        cmocka_unit_test_setup_teardown(test_operations, fresh_folder, remove_folder),
    };
    fake_nvml = argc > 1 ? argv[1] : "";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
