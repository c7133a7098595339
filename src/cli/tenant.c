/* unkai tenant: who may use the cloud, and with how much credit. */
#include "cli/books.h"

#include <stdio.h>

static void print_one(const struct json *t) {
    printf("%-24s %12s %s available, %s held\n", books_text(t, "name"), books_text(t, "available"),
           books_text(t, "currency"), books_text(t, "held"));
}

static void print(const struct json *answer) {
    if (json_kind(answer) == JSON_KIND_OBJECT)
        print_one(answer);
    for (size_t i = 0; i < json_count(answer) && json_kind(answer) == JSON_KIND_ARRAY; i++)
        print_one(json_at(answer, i));
}

int cmd_tenant(int argc, char **argv) {
    int args;
    bool as_json = false, later = false;
    const char *credit = NULL, *currency = NULL, *id = NULL, *line = NULL;
    static const struct books_action actions[] = {
        {"list", "tenant.list", {NULL}, 0, 0, print},
        {"create", "tenant.create", {"name"}, 1, 1, print},
        {"show", "tenant.show", {"name"}, 1, 1, print},
        {"set", "tenant.set", {"name"}, 1, 1, print},
        {"credit", "tenant.credit", {"name", "amount"}, 2, 2, print},
        {NULL},
    };
    const struct option options[] = {
        {"credit", OPTION_TEXT, &credit, "AMOUNT", "create: what the tenant has paid in advance"},
        {"currency", OPTION_TEXT, &currency, "CODE", "create: the tenant's currency, like JPY"},
        {"postpaid", OPTION_FLAG, &later, NULL, "create: the tenant pays later, up to its credit line"},
        {"line", OPTION_TEXT, &line, "AMOUNT",
         "create, set: the credit line, how far below zero the tenant may go"},
        {"id", OPTION_TEXT, &id, "ID", "credit: name the payment, so that repeating it pays once"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    static const char *const yes = "yes", *const absent = NULL;
    struct books_option members[] = {{"credit", &credit}, {"currency", &currency}, {"payment", &id},
                                     {"line", &line},     {"postpaid", &absent},   {NULL}};
    int rc = cli_options(
        argc, argv, &args, options, "[list | create NAME | show NAME | set NAME | credit NAME AMOUNT]",
        "Tenants use the cloud with keys of their own and pay from prepaid credit, or later.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    members[4].value = later ? &yes : &absent;
    return books_command(args, argv, actions, members, as_json);
}
