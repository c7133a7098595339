/* unkai close: the end of a month, and the proof of what it came to. */
#include "cli/books.h"

#include <stdio.h>

static void print_closed(const struct json *answer) {
    const struct json *statement = json_get(answer, "statement"), *totals = json_get(statement, "totals"),
                      *accounts = json_get(statement, "accounts");
    printf("%s, transfers %s to %s\n", books_text(answer, "month"), books_text(statement, "first_seq"),
           books_text(statement, "last_seq"));
    printf("  %-32s %20s %20s %20s %20s\n", "account", "opening", "debits", "credits", "balance");
    for (size_t i = 0; i < json_count(accounts); i++) {
        const struct json *a = json_at(accounts, i);
        printf("  %-32s %20s %20s %20s %20s %s\n", books_text(a, "name"), books_text(a, "opening"),
               books_text(a, "debits"), books_text(a, "credits"), books_text(a, "balance"),
               books_text(a, "currency"));
    }
    for (size_t i = 0; i < json_count(totals); i++)
        printf("  %-32s %20s %20s %20s %20s %s\n", "all", "", books_text(json_at(totals, i), "debits"),
               books_text(json_at(totals, i), "credits"), "", books_text(json_at(totals, i), "currency"));
    printf("root       %s\nkey        %s\nsignature  %s\n", books_text(statement, "root"),
           books_text(statement, "key"), books_text(answer, "signature"));
}

static void print_verified(const struct json *v) {
    const struct json *wrong = json_get(v, "wrong");
    for (size_t i = 0; i < json_count(wrong); i++)
        printf("wrong: %.*s\n", (int)json_as_str(json_at(wrong, i)).n, json_as_str(json_at(wrong, i)).p);
    printf("%s: %s\nstatement  %s\nroot       %s\n", books_text(v, "month"),
           json_as_bool(json_get(v, "ok"))
               ? "the journal makes the same statement, byte for byte, and it is signed"
               : "the close does not stand",
           books_text(v, "statement"), books_text(v, "root"));
}

static void print_list(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *p = json_at(answer, i);
        if (json_as_int(json_get(p, "closed")) != 0)
            printf("%s  transfers %s to %s, closed %s\n", books_text(p, "month"), books_text(p, "first_seq"),
                   books_text(p, "last_seq"), books_date(p, "closed"));
        else
            printf("%s  transfers from %s, open\n", books_text(p, "month"), books_text(p, "first_seq"));
    }
}

static void print_key(const struct json *answer) {
    printf("%s\n", books_text(answer, "key"));
}

int cmd_close(int argc, char **argv) {
    int args;
    bool as_json = false, verify = false, public_key = false, show = false, list = false;
    const char *key = NULL;
    static const struct books_action actions[] = {
        {"close", "close", {"month"}, 0, 1, print_closed},
        {"show", "close.show", {"month"}, 1, 1, print_closed},
        {"verify", "close.verify", {"month"}, 1, 1, print_verified},
        {"key", "close.key", {NULL}, 0, 0, print_key},
        {"list", "close.list", {NULL}, 0, 0, print_list},
        {NULL},
    };
    const struct option options[] = {
        {"list", OPTION_FLAG, &list, NULL, "instead: the months, open and closed"},
        {"show", OPTION_FLAG, &show, NULL, "instead: the statement of a month that is closed"},
        {"verify", OPTION_FLAG, &verify, NULL,
         "instead: make its statement again from every transfer, and check the signature"},
        {"key", OPTION_TEXT, &key, "HEX", "verify: the public key that must have signed"},
        {"public-key", OPTION_FLAG, &public_key, NULL, "instead: the public key of these books"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"key", &key}, {NULL}};
    int rc = cli_options(
        argc, argv, &args, options, "[MONTH]",
        "Ends the oldest month that is open, once it is over: its trial balance is written down with the "
        "root of the\n"
        "journal's chain, and signed. What comes late is posted in the next month.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args > 1 || list + show + verify + public_key > 1) {
        fprintf(stderr, "unkai close: wants one month and one thing to do; see unkai close --help\n");
        return EXIT_USAGE;
    }
    char *words[] = {argv[0],
                     list         ? "list"
                     : show       ? "show"
                     : verify     ? "verify"
                     : public_key ? "key"
                                  : "close",
                     args > 0 ? argv[1] : NULL};
    return books_command(1 + args, words, actions, members, as_json);
}
