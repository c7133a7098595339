/* unkai node: the nodes that share the books. */
#include "cli/books.h"

#include <stdio.h>

static void print_list(const struct json *answer) {
    if (json_count(answer) == 0)
        printf("these books are one node's alone\n");
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *n = json_at(answer, i);
        printf("%-40s since %s, silent for %s s, %s requests open%s\n", books_text(n, "name"),
               books_date(n, "started"), books_text(n, "silent_seconds"), books_text(n, "open_requests"),
               json_as_bool(json_get(n, "this")) ? " (this one)" : "");
    }
}

static void print_removed(const struct json *n) {
    printf("%s is removed, and what it had open is settled for what was sent\n", books_text(n, "name"));
}

int cmd_node(int argc, char **argv) {
    int args;
    bool as_json = false;
    static const struct books_action actions[] = {
        {"list", "node.list", {NULL}, 0, 0, print_list},
        {"remove", "node.remove", {"name"}, 1, 1, print_removed},
        {NULL},
    };
    const struct option options[] = {
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{NULL}};
    int rc = cli_options(argc, argv, &args, options, "[list | remove NAME]",
                         "Nodes share their books through one PostgreSQL. What a node that is gone had open "
                         "is settled by another "
                         "after 15 minutes, or at once when it is removed.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
