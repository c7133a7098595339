/* unkai ledger: the transfers, and the proof that they add up. */
#include "cli/books.h"

#include <stdio.h>

static void print_verified(const struct json *v) {
    const struct json *wrong = json_get(v, "wrong");
    for (size_t i = 0; i < json_count(wrong); i++)
        printf("wrong: %.*s\n", (int)json_as_str(json_at(wrong, i)).n, json_as_str(json_at(wrong, i)).p);
    printf("%s transfers, %s\n", books_text(v, "transfers"),
           json_as_bool(json_get(v, "ok")) ? "every one balances and every account is their sum"
                                           : "the books are damaged");
    if (json_get(v, "root_at") != NULL)
        printf("the root that was kept is that of transfer %s\n", books_text(v, "root_at"));
    printf("root %s\n", books_text(v, "root"));
}

static void print_list(const struct json *answer) {
    for (size_t i = json_count(answer); i-- > 0;) {
        const struct json *t = json_at(answer, i);
        printf("%8s %s %-8s %-24s -> %-24s %16s %s\n", books_text(t, "seq"), books_date(t, "at"),
               books_text(t, "kind"), books_text(t, "debit"), books_text(t, "credit"),
               books_text(t, "amount"), books_text(t, "currency"));
    }
}

int cmd_ledger(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *tenant = NULL, *root = NULL;
    static const struct books_action actions[] = {
        {"verify", "ledger.verify", {NULL}, 0, 0, print_verified},
        {"list", "ledger.list", {NULL}, 0, 0, print_list},
        {NULL},
    };
    const struct option options[] = {
        {"tenant", OPTION_TEXT, &tenant, "NAME", "list: this tenant's transfers only"},
        {"root", OPTION_TEXT, &root, "HEX",
         "verify: the books must contain this root of an earlier verification"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"tenant", &tenant}, {"root", &root}, {NULL}};
    int rc = cli_options(
        argc, argv, &args, options, "[verify | list]",
        "verify checks that nothing in the journal was changed, every account is the sum of its postings, "
        "every\n"
        "finished request has one settlement and no hold is left open, and prints the root of the journal: "
        "kept\n"
        "elsewhere, it proves later that nothing up to it was rewritten. list shows the last 50 transfers.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
