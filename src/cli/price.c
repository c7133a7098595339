/* unkai price: the price book. */
#include "cli/books.h"

#include <stdio.h>

static void print_one(const struct json *p) {
    printf("%-32s %s: %s input, %s cached input, %s output a million tokens, since %s\n",
           books_text(p, "model"), books_text(p, "currency"), books_text(p, "input"), books_text(p, "cached"),
           books_text(p, "output"), books_date(p, "since"));
}

static void print_list(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++)
        print_one(json_at(answer, i));
}

int cmd_price(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *input = NULL, *cached = NULL, *output = NULL, *currency = NULL;
    static const struct books_action actions[] = {
        {"list", "price.list", {NULL}, 0, 0, print_list},
        {"set", "price.set", {"model"}, 1, 1, print_one},
        {NULL},
    };
    const struct option options[] = {
        {"input", OPTION_TEXT, &input, "PRICE", "set: of a million input tokens"},
        {"cached", OPTION_TEXT, &cached, "PRICE",
         "set: of a million input tokens that the prefix cache had (the input's price)"},
        {"output", OPTION_TEXT, &output, "PRICE", "set: of a million output tokens"},
        {"currency", OPTION_TEXT, &currency, "CODE", "set: the currency, like JPY"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {
        {"input", &input}, {"cached", &cached}, {"output", &output}, {"currency", &currency}, {NULL}};
    int rc = cli_options(argc, argv, &args, options, "[list | set MODEL]",
                         "Prices are exact to the millionth of the currency for a million tokens. A new "
                         "price holds for requests\n"
                         "that come after it; older ones keep theirs.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
