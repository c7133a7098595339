/* unkai key: the keys of tenants. */
#include "cli/books.h"

#include <stdio.h>

static void print_created(const struct json *k) {
    printf("%s\n", books_text(k, "key"));
    fprintf(stderr, "This is shown once. It is key %s of %s.\n", books_text(k, "id"),
            books_text(k, "tenant"));
}

static void print_list(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *k = json_at(answer, i);
        printf("%6s %-24s %-24s %s%s\n", books_text(k, "id"), books_text(k, "tenant"), books_text(k, "name"),
               books_date(k, "created"), json_as_bool(json_get(k, "revoked")) ? " revoked" : "");
    }
}

static void print_revoked(const struct json *k) {
    printf("key %s is revoked\n", books_text(k, "id"));
}

int cmd_key(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *name = NULL;
    static const struct books_action actions[] = {
        {"list", "key.list", {"tenant"}, 0, 1, print_list},
        {"create", "key.create", {"tenant"}, 1, 1, print_created},
        {"revoke", "key.revoke", {"id"}, 1, 1, print_revoked},
        {NULL},
    };
    const struct option options[] = {
        {"name", OPTION_TEXT, &name, "TEXT", "create: what the key is for"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"name", &name}, {NULL}};
    int rc = cli_options(argc, argv, &args, options, "[list [TENANT] | create TENANT | revoke ID]",
                         "A key is shown once, when it is made; the books keep only a keyed hash of it.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
