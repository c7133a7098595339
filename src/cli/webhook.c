/* unkai webhook: who is told when credit runs low or spend nears a limit. */
#include "cli/books.h"

#include <stdio.h>

static void print_added(const struct json *w) {
    printf("%s\n", books_text(w, "secret"));
    fprintf(stderr, "This secret signs what is sent, and is shown once. It is webhook %s.\n",
            books_text(w, "id"));
}

static void print_list(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *w = json_at(answer, i), *events = json_get(w, "events");
        printf("%6s %-40s %s%s", books_text(w, "id"), books_text(w, "url"), books_text(w, "tenant"),
               json_as_bool(json_get(w, "disabled")) ? " removed" : "");
        for (size_t k = 0; k < json_count(events); k++)
            printf(" %.*s", (int)json_as_str(json_at(events, k)).n, json_as_str(json_at(events, k)).p);
        putchar('\n');
    }
}

static void print_removed(const struct json *w) {
    printf("webhook %s is removed\n", books_text(w, "id"));
}

static void print_tested(const struct json *w) {
    printf("webhook %s is sent a test; see unkai webhook deliveries %s\n", books_text(w, "id"),
           books_text(w, "id"));
}

static void print_deliveries(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *d = json_at(answer, i);
        printf("%s webhook %s %-16s %s after %s attempts %s\n", books_date(d, "created"),
               books_text(d, "webhook"), books_text(d, "kind"), books_text(d, "state"),
               books_text(d, "attempts"), books_text(d, "note"));
    }
}

int cmd_webhook(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *events = NULL, *tenant = NULL;
    static const struct books_action actions[] = {
        {"list", "webhook.list", {NULL}, 0, 0, print_list},
        {"add", "webhook.add", {"url"}, 1, 1, print_added},
        {"remove", "webhook.remove", {"id"}, 1, 1, print_removed},
        {"test", "webhook.test", {"id"}, 1, 1, print_tested},
        {"deliveries", "webhook.deliveries", {"id"}, 0, 1, print_deliveries},
        {NULL},
    };
    const struct option options[] = {
        {"events", OPTION_TEXT, &events, "NAMES",
         "add: credit.exhausted, credit.low, spend.limit_reached, spend.threshold (all)"},
        {"tenant", OPTION_TEXT, &tenant, "NAME", "add: what happens to this tenant only"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"events", &events}, {"tenant", &tenant}, {NULL}};
    int rc =
        cli_options(argc, argv, &args, options, "[list | add URL | remove ID | test ID | deliveries [ID]]",
                    "Whoever is named here is told, signed and until it is taken, when a tenant's credit "
                    "runs low or its spend "
                    "nears a limit.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
