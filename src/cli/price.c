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

int cmd_price(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *input = NULL, *cached = NULL, *output = NULL, *currency = NULL, *since = NULL, *note = NULL;
    static const struct books_action actions[] = {
        {"list", "price.list", {NULL}, 0, 0, print_list},
        {"set", "price.set", {"model"}, 1, 1, print_one},
        {"rate", "price.rate", {"base", "quote", "rate"}, 3, 3, print_rate},
        {"rates", "price.rates", {NULL}, 0, 0, print_rates},
        {NULL},
    };
    const struct option options[] = {
        {"input", OPTION_TEXT, &input, "PRICE", "set: of a million input tokens"},
        {"cached", OPTION_TEXT, &cached, "PRICE",
         "set: of a million input tokens that the prefix cache had (the input's price)"},
        {"output", OPTION_TEXT, &output, "PRICE", "set: of a million output tokens"},
        {"currency", OPTION_TEXT, &currency, "CODE", "set, import: the currency, like JPY"},
        {"since", OPTION_TEXT, &since, "DAY",
         "set, rate, import: from the beginning of this day on, like 2026-12-01 (at once)"},
        {"note", OPTION_TEXT, &note, "TEXT", "set, import: where it comes from"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"input", &input},
                                           {"cached", &cached},
                                           {"output", &output},
                                           {"currency", &currency},
                                           {"since", &since},
                                           {"note", &note},
                                           {NULL}};
    int rc = cli_options(argc, argv, &args, options,
                         "[list | set MODEL | rate BASE QUOTE RATE | rates | import FILE]",
                         "Prices are exact to the millionth of the currency for a million tokens. A new "
                         "price holds for requests\n"
                         "that come after it; older ones keep theirs. A model that has no price in a "
                         "tenant's currency is sold at\n"
                         "the price in another one and the rate of the day. import reads a list as LiteLLM "
                         "writes them: prices of\n"
                         "a token, exactly.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args == 2 && strcmp(argv[1], "import") == 0)
        return price_import(argv[2], currency, since, note);
    return books_command(args, argv, actions, members, as_json);
}
