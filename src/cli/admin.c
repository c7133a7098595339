/* unkai admin: who may administer the cloud over HTTP, and what was changed by whom. */
#include "cli/books.h"

#include <stdio.h>
#include <string.h>

static void print_created(const struct json *k) {
    printf("%s\n", books_text(k, "key"));
    fprintf(stderr, "This is shown once. It is admin key %s, %s.\n", books_text(k, "id"),
            books_text(k, "role"));
}

static void print_keys(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *k = json_at(answer, i);
        printf("%6s %-24s %-10s %s%s%s\n", books_text(k, "id"), books_text(k, "name"), books_text(k, "role"),
               books_date(k, "created"), json_as_int(json_get(k, "expires")) != 0 ? " until " : "",
               json_as_int(json_get(k, "expires")) != 0 ? books_date(k, "expires") : "");
    }
}

static void print_revoked(const struct json *k) {
    printf("admin key %s is revoked\n", books_text(k, "id"));
}

static void print_audit(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *a = json_at(answer, i);
        printf("%s %-16s %-10s %-18s %-20s %s\n", books_date(a, "at"), books_text(a, "actor"),
               books_text(a, "role"), books_text(a, "operation"), books_text(a, "target"),
               books_text(a, "outcome"));
    }
}

int cmd_admin(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *role = NULL;
    char admin_key[] = "admin key";
    static const struct books_action key_actions[] = {
        {"list", "admin.key.list", {NULL}, 0, 0, print_keys},
        {"create", "admin.key.create", {"name"}, 1, 1, print_created},
        {"revoke", "admin.key.revoke", {"id"}, 1, 1, print_revoked},
        {NULL},
    };
    static const struct books_action actions[] = {
        {"audit", "admin.audit", {"target"}, 0, 1, print_audit},
        {NULL},
    };
    const struct option options[] = {
        {"role", OPTION_TEXT, &role, "ROLE", "create: owner, operator, billing or read-only"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"role", &role}, {NULL}};
    int rc = cli_options(argc, argv, &args, options,
                         "[key list | key create NAME | key revoke ID | audit [TARGET]]",
                         "The keys of the admin API under /admin/v1, each with a role, and the log of every "
                         "change of the books, by whomever. Without a key there is no admin API.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args > 0 && strcmp(argv[1], "key") == 0) {
        argv[1] = admin_key;
        return books_command(args - 1, argv + 1, key_actions, members, as_json);
    }
    return books_command(args, argv, actions, members, as_json);
}
