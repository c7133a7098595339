/* unkai ledger: the transfers, the accounts, and the proof that they add up. */
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
        printf("%8s %s %-8s %-24s -> %-24s %16s %s  %s\n", books_text(t, "seq"), books_date(t, "at"),
               books_text(t, "kind"), books_text(t, "debit"), books_text(t, "credit"),
               books_text(t, "amount"), books_text(t, "currency"), books_text(t, "id"));
    }
}

static void print_shown(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *t = json_at(answer, i);
        printf("%s\n  number %s, %s, %s, %s\n", books_text(t, "id"), books_text(t, "seq"),
               books_date(t, "at"), books_text(t, "kind"), books_text(t, "phase"));
        printf("  %s -> %s: %s %s\n", books_text(t, "debit"), books_text(t, "credit"),
               books_text(t, "amount"), books_text(t, "currency"));
        if (json_as_str(json_get(t, "note")).n > 0)
            printf("  %s\n", books_text(t, "note"));
        printf("  hash %s\n", books_text(t, "hash"));
    }
}

static void print_done(const struct json *t) {
    printf("%s: %s%s\n", books_text(t, "id"), books_text(t, "amount"),
           json_as_bool(json_get(t, "again")) ? ", as it was already" : "");
}

static void print_account(const struct json *a) {
    printf("%-32s %20s %s%s%s\n", books_text(a, "name"), books_text(a, "balance"), books_text(a, "currency"),
           json_as_bool(json_get(a, "overdraft")) ? "" : ", no overdraft",
           json_as_bool(json_get(a, "closed")) ? ", closed" : "");
}

static void print_accounts(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++)
        print_account(json_at(answer, i));
}

static void print_balance(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++) {
        const struct json *b = json_at(answer, i);
        printf("%s: %s accounts, %s in credit, %s in debit: %s\n", books_text(b, "currency"),
               books_text(b, "accounts"), books_text(b, "credit"), books_text(b, "debit"),
               json_as_bool(json_get(b, "ok")) ? "they balance" : "they do not balance");
    }
}

static void print_zone(const struct json *z) {
    printf("days and months begin at midnight of UTC%s\n", books_text(z, "zone"));
}

int cmd_ledger(int argc, char **argv) {
    int args;
    bool as_json = false;
    const char *tenant = NULL, *root = NULL, *account = NULL, *before = NULL, *id = NULL, *note = NULL,
               *expires = NULL, *amount = NULL, *reason = NULL, *currency = NULL, *overdraft = NULL,
               *line = NULL, *closed = NULL;
    static const struct books_action actions[] = {
        {"verify", "ledger.verify", {NULL}, 0, 0, print_verified},
        {"list", "ledger.list", {NULL}, 0, 0, print_list},
        {"show", "ledger.show", {"transfer"}, 1, 1, print_shown},
        {"accounts", "ledger.accounts", {NULL}, 0, 0, print_accounts},
        {"balance", "ledger.balance", {NULL}, 0, 0, print_balance},
        {"transfer", "ledger.transfer", {"debit", "credit", "amount"}, 3, 3, print_done},
        {"post", "ledger.post", {"transfer"}, 1, 1, print_done},
        {"void", "ledger.void", {"transfer"}, 1, 1, print_done},
        {"reverse", "ledger.reverse", {"transfer"}, 1, 1, print_done},
        {"account", "ledger.account", {"account"}, 1, 1, print_account},
        {"zone", "ledger.zone", {"zone"}, 0, 1, print_zone},
        {NULL},
    };
    const struct option options[] = {
        {"tenant", OPTION_TEXT, &tenant, "NAME", "list: this tenant's transfers only"},
        {"account", OPTION_TEXT, &account, "NAME", "list: this account's transfers only"},
        {"before", OPTION_TEXT, &before, "NUMBER", "list: those before this one"},
        {"root", OPTION_TEXT, &root, "HEX",
         "verify: the books must contain this root of an earlier verification"},
        {"id", OPTION_TEXT, &id, "ID", "transfer: its name, so that repeating it moves once"},
        {"note", OPTION_TEXT, &note, "TEXT", "transfer: why"},
        {"expires", OPTION_TEXT, &expires, "SECONDS",
         "transfer: only set it aside, until it is posted or voided or this time is over"},
        {"amount", OPTION_TEXT, &amount, "AMOUNT", "post: only so much of it (all)"},
        {"reason", OPTION_TEXT, &reason, "TEXT", "reverse: why"},
        {"currency", OPTION_TEXT, &currency, "CODE", "account: make it when it is not there"},
        {"overdraft", OPTION_TEXT, &overdraft, "yes|no", "account: whether it may go below its line"},
        {"line", OPTION_TEXT, &line, "AMOUNT", "account: how far below zero it may go without overdraft"},
        {"closed", OPTION_TEXT, &closed, "yes|no", "account: whether it takes part in no new transfer"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"tenant", &tenant},       {"account", &account},
                                           {"before", &before},       {"root", &root},
                                           {"transfer", &id},         {"note", &note},
                                           {"expires", &expires},     {"amount", &amount},
                                           {"reason", &reason},       {"currency", &currency},
                                           {"overdraft", &overdraft}, {"line", &line},
                                           {"closed", &closed},       {NULL}};
    int rc = cli_options(argc, argv, &args, options,
                         "[verify | list | show ID | accounts | balance | transfer FROM TO AMOUNT | post ID "
                         "| void ID | reverse ID | "
                         "account NAME | zone [+HH:MM | -HH:MM]]",
                         "verify checks that nothing in the journal was changed, every account is the sum of "
                         "its postings, every\n"
                         "finished request has one settlement and no hold is left open, and prints the root "
                         "of the journal: kept\n"
                         "elsewhere, it proves later that nothing up to it was rewritten. list shows the "
                         "last 50 transfers. No\n"
                         "transfer is ever changed: reverse makes one the other way, once.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    return books_command(args, argv, actions, members, as_json);
}
