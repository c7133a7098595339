/* unkai owner: what the machines cost, what a token costs, and when it is all paid back. */
#include "cli/books.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static double real(const struct json *object, const char *member) {
    const struct json *v = json_get(object, member);
    return json_numeric(v) ? json_as_number(v) : NAN;
}

/* For people: six digits that count, or whole units; no zeros behind. */
static const char *figure(const struct json *object, const char *member) {
    static char text[12][48];
    static unsigned next;
    char *out = text[next++ % 12];
    double x = real(object, member);
    if (isnan(x))
        return "-";
    int decimals = x == 0 ? 0 : 5 - (int)floor(log10(fabs(x)));
    int n = snprintf(out, 48, "%.*f", decimals < 0 ? 0 : decimals > 12 ? 12 : decimals, x);
    while (decimals > 0 && out[n - 1] == '0')
        out[--n] = 0;
    if (decimals > 0 && out[n - 1] == '.')
        out[--n] = 0;
    return out;
}

static const char *percent(const struct json *object, const char *member) {
    static char text[4][40];
    static unsigned next;
    char *out = text[next++ % 4];
    double x = real(object, member) * 100;
    snprintf(out, 40, isnan(x) ? "-" : fabs(x) < 1 ? "%.3f%%" : "%.1f%%", x);
    return out;
}

/* ---- assets and expenses ---- */

static void print_asset(const struct json *a) {
    const struct json *p = json_get(a, "profile");
    const char *method = books_text(p, "method");
    printf("%-24s %s %s on %s, %s over %s months, worth %s now", books_text(a, "name"), figure(p, "price"),
           books_text(p, "currency"), books_text(p, "bought"), method, books_text(p, "life"),
           figure(a, "value"));
    printf("; %s chips, %s W%s at %s a kWh and a PUE of %s, operation %s, discount rate %s",
           figure(p, "chips"), figure(p, "watts"),
           json_as_bool(json_get(p, "measured")) ? " and what is measured" : "", figure(p, "kwh"),
           figure(p, "pue"), percent(p, "operation"), percent(p, "discount"));
    if (json_kind(json_get(a, "retired")) == JSON_KIND_STRING)
        printf("; retired on %s, sold for %s", books_text(a, "retired"), figure(p, "sold"));
    printf("\n");
}

static void print_expense(const struct json *x) {
    const struct json *p = json_get(x, "profile");
    printf("%-24s %s %s a year from %s", books_text(x, "name"), figure(p, "amount"),
           books_text(p, "currency"), books_text(p, "from"));
    if (json_kind(json_get(x, "until")) == JSON_KIND_STRING)
        printf(" until %s", books_text(x, "until"));
    printf("\n");
}

static void print_each(const struct json *answer, void (*print)(const struct json *)) {
    for (size_t i = 0; i < json_count(answer); i++)
        print(json_at(answer, i));
}

static void print_assets(const struct json *answer) {
    print_each(answer, print_asset);
}

static void print_expenses(const struct json *answer) {
    print_each(answer, print_expense);
}

/* ---- the report ---- */

static void print_uses(const struct json *report, const char *list, const char *noun, bool tokens) {
    const struct json *rows = json_get(report, list);
    if (json_count(rows) == 0)
        return;
    printf("\n%-24s %12s %12s %12s %8s", noun, "chip-seconds", "cost", "revenue", "margin");
    printf(tokens ? " %14s %14s   %s\n" : "\n", "input million", "output million", "(with idle time)");
    for (size_t i = 0; i < json_count(rows); i++) {
        const struct json *u = json_at(rows, i);
        printf("%-24s %12.1f %12s %12s %8s", books_text(u, noun),
               real(u, "prefill_seconds") + real(u, "decode_seconds"), figure(u, "cost"),
               figure(u, "revenue"), percent(u, "margin"));
        if (tokens)
            printf(" %14s %14s   (%s, %s)", figure(u, "input_million"), figure(u, "output_million"),
                   figure(u, "input_million_with_idle"), figure(u, "output_million_with_idle"));
        printf("\n");
    }
}

static void print_payback(const struct json *p, const char *rate) {
    const struct json *on = json_get(p, "paid_back_on");
    printf("  %-22s %s a year comes in, %s goes out for running\n", rate, figure(p, "revenue_year"),
           figure(p, "operating_year"));
    if (isnan(real(p, "years")))
        printf("  %-22s never at this rate\n", "paid back");
    else
        printf("  %-22s in %.2f years from new; %s are left, so on %s\n", "paid back", real(p, "years"),
               figure(p, "remaining"),
               json_kind(on) == JSON_KIND_STRING ? books_text(p, "paid_back_on") : "no day near");
    if (!isnan(real(p, "price_chip_hour")))
        printf("  %-22s in %.0f months at %s a chip-hour sold: prices times %s\n", "", real(p, "months"),
               figure(p, "price_chip_hour"), figure(p, "price_factor"));
}

static void print_report(const struct json *r) {
    const struct json *assets = json_get(r, "assets"), *cost = json_get(r, "cost"),
                      *hour = json_get(r, "chip_hour"), *hours = json_get(r, "chip_hours"),
                      *use = json_get(r, "utilisation"), *idle = json_get(r, "idle"),
                      *supposed = json_get(r, "supposed");
    printf("%s to %s, in %s\n\n", books_text(r, "from"), books_text(r, "to"), books_text(r, "currency"));
    printf("  %-22s %s, for %s; worth %s now; %s chips\n", "assets", books_text(assets, "count"),
           figure(assets, "price"), figure(assets, "value"), figure(assets, "chips"));
    printf("  %-22s %s: capital %s, power %s, operation %s, other %s\n", "cost", figure(cost, "total"),
           figure(cost, "capital"), figure(cost, "power"), figure(cost, "operation"),
           figure(cost, "expenses"));
    printf("  %-22s %s; over the assets' life %s straight line, %s as an annuity\n", "a chip-hour costs",
           figure(hour, "period"), figure(hour, "straight"), figure(hour, "annuity"));
    printf("  %-22s %.3f owned, %.3f served, %.3f used: %.3f prefill, %.3f decode\n", "chip-hours",
           real(hours, "owned"), real(hours, "available"), real(hours, "used"), real(hours, "prefill"),
           real(hours, "decode"));
    printf("  %-22s %s, of the time served %s; it pays from %s on\n", "utilisation", percent(use, "owned"),
           percent(use, "available"), percent(use, "break_even"));
    printf("  %-22s cost %s: %s not serving, %s waiting, %s working for nobody yet\n", "idle time",
           figure(idle, "cost"), figure(idle, "off"), figure(idle, "waiting"), figure(idle, "unclaimed"));
    printf("  %-22s %s, profit %s, margin %s\n", "revenue", figure(r, "revenue"), figure(r, "profit"),
           percent(r, "margin"));
    print_payback(json_get(r, "payback"), "at this rate");
    if (supposed != NULL) {
        printf("\n  %-22s a chip-hour for %s, %s of the time; it pays from %s on, as an annuity %s\n",
               "supposed", figure(supposed, "sold"), percent(supposed, "use"),
               percent(supposed, "break_even_straight"), percent(supposed, "break_even_annuity"));
        print_payback(supposed, "at that rate");
    }
    print_uses(r, "models", "model", true);
    print_uses(r, "tenants", "tenant", false);
}

int cmd_owner(int argc, char **argv) {
    static const struct books_action report[] = {{"report", "owner.report", {NULL}, 0, 0, print_report},
                                                 {NULL}},
                                     asset[] =
                                         {
                                             {"list", "owner.asset.list", {NULL}, 0, 0, print_assets},
                                             {"add", "owner.asset.add", {"name"}, 1, 1, print_asset},
                                             {"retire", "owner.asset.retire", {"name"}, 1, 1, print_asset},
                                             {NULL},
                                         },
                                     expense[] = {
                                         {"list", "owner.expense.list", {NULL}, 0, 0, print_expenses},
                                         {"add", "owner.expense.add", {"name"}, 1, 1, print_expense},
                                         {"end", "owner.expense.end", {"name"}, 1, 1, print_expense},
                                         {NULL},
                                     };
    int args;
    bool as_json = false, measured = false;
    const char *month = NULL, *from = NULL, *to = NULL, *currency = NULL, *basis = NULL, *months = NULL,
               *sold = NULL, *use = NULL, *price = NULL, *bought = NULL, *life = NULL, *method = NULL,
               *residual = NULL, *chips = NULL, *watts = NULL, *kwh = NULL, *pue = NULL, *operation = NULL,
               *discount = NULL, *amount = NULL, *per = NULL, *on = NULL, *yes = NULL;
    const struct option options[] = {
        {"month", OPTION_TEXT, &month, "MONTH", "report: the month, like 2026-11 (the one that runs)"},
        {"from", OPTION_TEXT, &from, "DAY", "report: or from this day; expense add: it begins then (today)"},
        {"to", OPTION_TEXT, &to, "DAY", "report: up to this day, included (today)"},
        {"currency", OPTION_TEXT, &currency, "CODE", "the currency, like USD; report: of the first asset"},
        {"basis", OPTION_TEXT, &basis, "BASIS",
         "report: capital as the assets are written off, book, or as an annuity (book)"},
        {"months", OPTION_TEXT, &months, "N",
         "report: the price that pays the machines back in so many months (36)"},
        {"sold", OPTION_TEXT, &sold, "PRICE",
         "report: suppose that a chip-hour sells for this; asset retire: it was sold for that"},
        {"use", OPTION_TEXT, &use, "PERCENT",
         "report: suppose that chips are used so much of the time, like 60%"},
        {"price", OPTION_TEXT, &price, "AMOUNT", "asset add: what it cost"},
        {"bought", OPTION_TEXT, &bought, "DAY", "asset add: when (today)"},
        {"life", OPTION_TEXT, &life, "TIME", "asset add: useful life in months, like 60, or years, like 5y"},
        {"method", OPTION_TEXT, &method, "METHOD", "asset add: straight, or declining (straight)"},
        {"residual", OPTION_TEXT, &residual, "AMOUNT", "asset add: its worth after its life (0)"},
        {"chips", OPTION_TEXT, &chips, "N", "asset add: chips in it (1)"},
        {"watts", OPTION_TEXT, &watts, "N",
         "asset add: drawn at all times, all chips and what is around them (0)"},
        {"measured", OPTION_FLAG, &measured, NULL,
         "asset add: and beside them what the machine measures itself"},
        {"kwh", OPTION_TEXT, &kwh, "PRICE", "asset add: of a kilowatt-hour (0)"},
        {"pue", OPTION_TEXT, &pue, "FACTOR", "asset add: of the building, watts drawn for one used (1)"},
        {"operation", OPTION_TEXT, &operation, "PERCENT",
         "asset add: other costs a year, of the price, like 10% (0)"},
        {"discount", OPTION_TEXT, &discount, "PERCENT", "asset add: the rate of the annuity, a year (0)"},
        {"amount", OPTION_TEXT, &amount, "AMOUNT", "expense add: how much"},
        {"per", OPTION_TEXT, &per, "TIME", "expense add: month or year (month)"},
        {"on", OPTION_TEXT, &on, "DAY", "asset retire, expense end: when (now)"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"month", &month},
                                           {"from", &from},
                                           {"to", &to},
                                           {"currency", &currency},
                                           {"basis", &basis},
                                           {"months", &months},
                                           {"sold", &sold},
                                           {"use", &use},
                                           {"price", &price},
                                           {"bought", &bought},
                                           {"life", &life},
                                           {"method", &method},
                                           {"residual", &residual},
                                           {"chips", &chips},
                                           {"watts", &watts},
                                           {"measured", &yes},
                                           {"kwh", &kwh},
                                           {"pue", &pue},
                                           {"operation", &operation},
                                           {"discount", &discount},
                                           {"amount", &amount},
                                           {"per", &per},
                                           {"on", &on},
                                           {NULL}};
    int rc = cli_options(
        argc, argv, &args, options,
        "[report | asset [list | add NAME | retire NAME] | expense [list | add NAME | end NAME]]",
        "What the machines cost, what a token costs, what it brings, and when the machines are paid "
        "back. A year\nis 365 days; docs/owner.md has the formulae.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    yes = measured ? "yes" : NULL;
    const struct books_action *actions = report;
    if (args > 0 && strcmp(argv[1], "asset") == 0)
        actions = asset;
    else if (args > 0 && strcmp(argv[1], "expense") == 0)
        actions = expense;
    if (actions == report)
        return books_command(args, argv, actions, members, as_json);
    argv[1] = actions == asset ? "owner asset" : "owner expense";
    return books_command(args - 1, argv + 1, actions, members, as_json);
}
