/* unkai price: the price book. */
#include "cli/books.h"

#include <stdio.h>
#include <string.h>

static void print_one(const struct json *p) {
    printf("%-32s %s: %s input, %s cached input, %s output a million tokens, since %s\n",
           books_text(p, "model"), books_text(p, "currency"), books_text(p, "input"), books_text(p, "cached"),
           books_text(p, "output"), books_date(p, "since"));
}

static void print_list(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++)
        print_one(json_at(answer, i));
}

static void print_rate(const struct json *r) {
    printf("1 %s is %s %s, since %s\n", books_text(r, "base"), books_text(r, "rate"), books_text(r, "quote"),
           books_date(r, "since"));
}

static void print_rates(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++)
        print_rate(json_at(answer, i));
}

static const char *figure(const struct json *object, const char *member) {
    static char text[4][40];
    static unsigned next;
    const struct json *v = json_get(object, member);
    char *out = text[next++ % 4];
    snprintf(out, 40, json_numeric(v) ? "%.6g" : "-", json_as_number(v));
    return out;
}

static void print_suggested(const struct json *answer) {
    const struct json *prices = json_get(answer, "prices"), *little = json_get(answer, "too_little_measured");
    printf("a chip-hour costs %s %s; sold %.3g%% of the time, at a margin of %.3g%%, a million tokens of\n",
           figure(answer, "chip_hour"), books_text(answer, "currency"),
           100 * json_as_number(json_get(answer, "use")), 100 * json_as_number(json_get(answer, "margin")));
    for (size_t i = 0; i < json_count(prices); i++) {
        const struct json *p = json_at(prices, i);
        printf("%-32s input cost %s and should be %s, cached %s; output cost %s and should be %s\n",
               books_text(p, "model"), figure(p, "input_cost"), books_text(p, "input"),
               books_text(p, "cached"), figure(p, "output_cost"), books_text(p, "output"));
    }
    for (size_t i = 0; i < json_count(little); i++)
        printf("%-32.*s too little was measured\n", (int)json_as_str(json_at(little, i)).n,
               json_as_str(json_at(little, i)).p);
    printf(json_as_bool(json_get(answer, "set")) ? "These are the prices from now on.\n"
                                                 : "Nothing was set; --set does it.\n");
}

static const char *dearer(const struct json *offer, const char *member) {
    static char text[4][40];
    static unsigned next;
    const struct json *v = json_get(offer, member);
    double x = json_as_number(v);
    char *out = text[next++ % 4];
    if (!json_numeric(v))
        snprintf(out, 40, "-");
    else if (x < 1)
        snprintf(out, 40, "%.1f%% %s", x < 0 ? -100 * x : 100 * x, x < 0 ? "cheaper" : "dearer");
    else
        snprintf(out, 40, "%.3g times", 1 + x);
    return out;
}

static void print_compared(const struct json *answer) {
    const struct json *prices = json_get(answer, "prices");
    printf("public prices of %s (%s), %s a million tokens\n", books_text(answer, "date"),
           books_text(answer, "source"), books_text(answer, "currency"));
    for (size_t i = 0; i < json_count(prices); i++) {
        const struct json *p = json_at(prices, i), *offers = json_get(p, "offers");
        printf("\n%s: %s %s input, %s output; of its tokens %.0f%% are output, %.0f%% cached input. It is\n",
               books_text(p, "model"), books_text(p, "input"), books_text(p, "currency"),
               books_text(p, "output"), 100 * json_as_number(json_get(p, "output_share")),
               100 * json_as_number(json_get(p, "cached_share")));
        printf("  %-32s %-7s %9s %9s   %-16s %-16s %s\n", "beside", "class", "input", "output", "input",
               "output", "all together");
        for (size_t k = 0; k < json_count(offers); k++) {
            const struct json *o = json_at(offers, k);
            char name[80];
            snprintf(name, sizeof name, "%s %s", books_text(o, "provider"), books_text(o, "model"));
            printf("  %-32s %-7s %9s %9s   %-16s %-16s %s\n", name, books_text(o, "class"),
                   books_text(o, "input"), books_text(o, "output"), dearer(o, "input_dearer"),
                   dearer(o, "output_dearer"), dearer(o, "mix_dearer"));
        }
    }
}

int cmd_price(int argc, char **argv) {
    int args;
    bool as_json = false, set = false;
    const char *input = NULL, *cached = NULL, *output = NULL, *currency = NULL, *since = NULL, *note = NULL,
               *margin = NULL, *use = NULL, *month = NULL, *model = NULL, *against = NULL, *file = NULL,
               *list = NULL, *yes = NULL;
    struct buf text = {0};
    struct error e = {0};
    static const struct books_action actions[] = {
        {"list", "price.list", {NULL}, 0, 0, print_list},
        {"set", "price.set", {"model"}, 1, 1, print_one},
        {"rate", "price.rate", {"base", "quote", "rate"}, 3, 3, print_rate},
        {"rates", "price.rates", {NULL}, 0, 0, print_rates},
        {"suggest", "price.suggest", {NULL}, 0, 0, print_suggested},
        {"compare", "price.compare", {NULL}, 0, 0, print_compared},
        {NULL},
    };
    const struct option options[] = {
        {"input", OPTION_TEXT, &input, "PRICE", "set: of a million input tokens"},
        {"cached", OPTION_TEXT, &cached, "PRICE",
         "set: of a million input tokens that the prefix cache had (the input's price); suggest: as a share "
         "of the input's (10%)"},
        {"output", OPTION_TEXT, &output, "PRICE", "set: of a million output tokens"},
        {"currency", OPTION_TEXT, &currency, "CODE",
         "set, import: the currency, like JPY; suggest: of the first asset"},
        {"since", OPTION_TEXT, &since, "DAY",
         "set, rate, import: from the beginning of this day on, like 2026-12-01 (at once)"},
        {"note", OPTION_TEXT, &note, "TEXT", "set, import: where it comes from"},
        {"margin", OPTION_TEXT, &margin, "PERCENT", "suggest: what is to be left of the price, like 30%"},
        {"use", OPTION_TEXT, &use, "PERCENT", "suggest: of the time that chips will be used (as they were)"},
        {"model", OPTION_TEXT, &model, "NAME", "suggest, compare: this model alone (all)"},
        {"month", OPTION_TEXT, &month, "MONTH",
         "suggest, compare: measured in this month (the one that runs)"},
        {"set", OPTION_FLAG, &set, NULL, "suggest: make them the prices from now on"},
        {"against", OPTION_TEXT, &against, "NAME",
         "compare: with this provider, model or class, like 8b (with all)"},
        {"file", OPTION_TEXT, &file, "FILE",
         "compare: another list of prices, in the shape of data/prices-public.json"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"input", &input},   {"cached", &cached},
                                           {"output", &output}, {"currency", &currency},
                                           {"since", &since},   {"note", &note},
                                           {"margin", &margin}, {"use", &use},
                                           {"model", &model},   {"month", &month},
                                           {"set", &yes},       {"against", &against},
                                           {"list", &list},     {NULL}};
    int rc =
        cli_options(argc, argv, &args, options,
                    "[list | set MODEL | rate BASE QUOTE RATE | rates | import FILE | suggest | compare]",
                    "Prices are exact to the millionth of the currency for a million tokens. A new "
                    "price holds for requests\n"
                    "that come after it; older ones keep theirs. A model that has no price in a "
                    "tenant's currency is sold at\n"
                    "the price in another one and the rate of the day. import reads a list as LiteLLM "
                    "writes them: prices of\n"
                    "a token, exactly. suggest reckons prices from what tokens cost here, compare sets the "
                    "book beside public ones.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args == 2 && strcmp(argv[1], "import") == 0)
        return price_import(argv[2], currency, since, note);
    yes = set ? "yes" : NULL;
    if (file != NULL && cli_read(&text, file, 1 << 19, &e) != 0)
        rc = cli_fail("price", &e);
    list = text.p;
    if (rc == 0)
        rc = books_command(args, argv, actions, members, as_json);
    buf_free(&text);
    return rc;
}
