/* unkai limit: what a tenant and its keys may use, and how much of it is used. */
#include "cli/books.h"

#include <stdio.h>
#include <string.h>

static void print_number(const struct json *l, const char *name, const char *label) {
    if (json_as_int(json_get(l, name)) != 0)
        printf("  %-22s %s\n", label, books_text(l, name));
}

static void print_left(const struct json *l, const char *name, const char *left, const char *label) {
    if (json_as_int(json_get(l, name)) != 0)
        printf("  %-22s %s, %s left\n", label, books_text(l, name), books_text(json_get(l, "used"), left));
}

static void print_spend(const struct json *l, const char *name, const char *spent, const char *label) {
    if (strcmp(books_text(l, name), "0") != 0)
        printf("  %-22s %s %s, %s spent\n", label, books_text(l, name), books_text(l, "currency"),
               books_text(json_get(l, "used"), spent));
}

static void print_list(const struct json *l, const char *name, const char *label) {
    const struct json *list = json_get(l, name);
    struct buf item = {0};
    for (size_t i = 0; i < json_count(list); i++) {
        buf_text(&item, i > 0 ? ", " : "");
        if (json_kind(json_at(list, i)) == JSON_KIND_STRING)
            buf_str(&item, json_as_str(json_at(list, i)));
        else
            json_write(&item, json_at(list, i));
    }
    if (item.n > 0)
        printf("  %-22s %s\n", label, item.p);
    buf_free(&item);
}

static void print(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *l = json_at(answer, i);
        if (json_get(l, "key") != NULL)
            printf("key %s of %s\n", books_text(l, "key"), books_text(l, "tenant"));
        else
            printf("%s\n", books_text(l, "tenant"));
        print_left(l, "requests_per_minute", "requests_left", "requests a minute");
        print_left(l, "tokens_per_minute", "tokens_left", "tokens a minute");
        print_number(l, "concurrency", "requests at once");
        print_spend(l, "spend_day", "day", "spend a day");
        print_spend(l, "spend_month", "month", "spend a month");
        if (strcmp(books_text(l, "credit_low"), "0") != 0)
            printf("  %-22s %s %s\n", "credit is low below", books_text(l, "credit_low"),
                   books_text(l, "currency"));
        print_list(l, "models", "models");
        print_list(l, "addresses", "addresses");
        print_list(l, "warn", "warn at percent");
        if (json_as_int(json_get(l, "expires")) != 0)
            printf("  %-22s %s\n", "expires", books_date(l, "expires"));
    }
}

int cmd_limit(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *key = NULL, *requests = NULL, *tokens = NULL, *concurrency = NULL, *day = NULL, *month = NULL,
               *low = NULL, *models = NULL, *addresses = NULL, *expires = NULL, *warn = NULL;
    static const struct books_action actions[] = {
        {"show", "limit.show", {"tenant"}, 1, 1, print},
        {"set", "limit.set", {"tenant"}, 1, 1, print},
        {NULL},
    };
    const struct option options[] = {
        {"key", OPTION_TEXT, &key, "ID", "one of the tenant's keys, instead of all of them together"},
        {"requests-per-minute", OPTION_TEXT, &requests, "N", "set: requests a minute"},
        {"tokens-per-minute", OPTION_TEXT, &tokens, "N", "set: tokens a minute, of prompts and answers"},
        {"concurrency", OPTION_TEXT, &concurrency, "N", "set: requests at once"},
        {"spend-day", OPTION_TEXT, &day, "AMOUNT", "set: what a day may cost"},
        {"spend-month", OPTION_TEXT, &month, "AMOUNT", "set: what a month may cost"},
        {"credit-low", OPTION_TEXT, &low, "AMOUNT", "set: tell webhooks when less credit is left"},
        {"models", OPTION_TEXT, &models, "NAMES", "set: models that may be used, a,b*; none: all"},
        {"addresses", OPTION_TEXT, &addresses, "NETWORKS",
         "set: where requests may come from; none: anywhere"},
        {"expires", OPTION_TEXT, &expires, "DATE", "set: when the key ends; none: never"},
        {"warn", OPTION_TEXT, &warn, "PERCENTS", "set: tell webhooks when so much is spent, 80,100"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"key", &key},
                                           {"requests_per_minute", &requests},
                                           {"tokens_per_minute", &tokens},
                                           {"concurrency", &concurrency},
                                           {"spend_day", &day},
                                           {"spend_month", &month},
                                           {"credit_low", &low},
                                           {"models", &models},
                                           {"addresses", &addresses},
                                           {"expires", &expires},
                                           {"warn", &warn},
                                           {NULL}};
    int rc = cli_options(argc, argv, &args, options, "[show TENANT | set TENANT]",
                         "What a tenant and each of its keys may use. 0, or an empty list, ends a limit.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
