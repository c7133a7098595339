/* unkai usage: what tenants have used and were charged. */
#include "cli/books.h"

#include <stdio.h>

static void print_counts(const char *name, const struct json *u, const char *currency) {
    printf("  %-28s %8s requests %10s in %10s cached %10s out %16s %s\n", name, books_text(u, "requests"),
           books_text(u, "prompt_tokens"), books_text(u, "cached_tokens"), books_text(u, "completion_tokens"),
           books_text(u, "charged"), currency);
}

static void print_tenant(const struct json *u) {
    static const char *const list[][2] = {
        {"models", "model"}, {"days", "day"}, {"months", "month"}, {"keys", "key"}};
    printf("%s: %s %s available\n", books_text(u, "tenant"), books_text(u, "available"),
           books_text(u, "currency"));
    for (size_t l = 0; l < sizeof list / sizeof *list; l++)
        for (size_t i = 0; i < json_count(json_get(u, list[l][0])); i++) {
            const struct json *part = json_at(json_get(u, list[l][0]), i);
            print_counts(books_text(part, list[l][1]), part, books_text(u, "currency"));
        }
    print_counts("all", u, books_text(u, "currency"));
}

static void print(const struct json *answer) {
    if (json_kind(answer) == JSON_KIND_OBJECT)
        print_tenant(answer);
    for (size_t i = 0; i < json_count(answer) && json_kind(answer) == JSON_KIND_ARRAY; i++)
        print_tenant(json_at(answer, i));
}

int cmd_usage(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *tenant = NULL, *by = NULL, *month = NULL, *from = NULL, *to = NULL, *model = NULL,
               *key = NULL;
    static const struct books_action actions[] = {{"", "usage", {NULL}, 0, 0, print}, {NULL}};
    const struct option options[] = {
        {"by", OPTION_TEXT, &by, "WHAT", "one line for each model, day, month or key (model)"},
        {"month", OPTION_TEXT, &month, "MONTH", "what was billed in this month, like 2026-12"},
        {"from", OPTION_TEXT, &from, "DAY", "from this day on, like 2026-12-01"},
        {"to", OPTION_TEXT, &to, "DAY", "up to and with this day"},
        {"model", OPTION_TEXT, &model, "NAME", "of this model only"},
        {"key", OPTION_TEXT, &key, "ID", "of the key with this number only"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"tenant", &tenant}, {"by", &by}, {"month", &month},
                                           {"from", &from},     {"to", &to}, {"model", &model},
                                           {"key", &key},       {NULL}};
    int rc = cli_options(argc, argv, &args, options, "[TENANT]",
                         "Requests, tokens and charges of one tenant or of all, by model, day, month or key. "
                         "Works while the server runs.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args > 1) {
        fprintf(stderr, "unkai usage: wants one tenant at most; see unkai usage --help\n");
        return EXIT_USAGE;
    }
    tenant = args > 0 ? argv[1] : NULL;
    return books_command(0, argv, actions, members, as_json);
}
