/* unkai usage: what tenants have used and were charged. */
#include "cli/books.h"

#include <stdio.h>

static void print_counts(const char *name, const struct json *u, const char *currency) {
    printf("  %-28s %8s requests %10s in %10s cached %10s out %16s %s\n", name, books_text(u, "requests"),
           books_text(u, "prompt_tokens"), books_text(u, "cached_tokens"), books_text(u, "completion_tokens"),
           books_text(u, "charged"), currency);
}

static void print_tenant(const struct json *u) {
    const struct json *models = json_get(u, "models");
    printf("%s: %s %s available\n", books_text(u, "tenant"), books_text(u, "available"),
           books_text(u, "currency"));
    for (size_t i = 0; i < json_count(models); i++)
        print_counts(books_text(json_at(models, i), "model"), json_at(models, i), books_text(u, "currency"));
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
    const char *tenant = NULL;
    static const struct books_action actions[] = {{"", "usage", {NULL}, 0, 0, print}, {NULL}};
    const struct option options[] = {{"json", OPTION_FLAG, &as_json, NULL, "print JSON"}, {NULL}};
    const struct books_option members[] = {{"tenant", &tenant}, {NULL}};
    int rc = cli_options(
        argc, argv, &args, options, "[TENANT]",
        "Requests, tokens and charges of one tenant or of all, by model. Works while the server runs.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args > 1) {
        fprintf(stderr, "unkai usage: wants one tenant at most; see unkai usage --help\n");
        return EXIT_USAGE;
    }
    tenant = args > 0 ? argv[1] : NULL;
    return books_command(0, argv, actions, members, as_json);
}
