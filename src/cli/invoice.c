/* unkai invoice: what tenants are asked to pay. */
#include "cli/books.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { FILE_BYTES = 1 << 20 };

/* "; part paid, 40 left, due on 2026-12-31" */
static void print_status(const struct json *v) {
    struct str status = json_as_str(json_get(v, "status"));
    bool paid = str_is(status, "paid"), dated = json_as_str(json_get(v, "due_on")).n > 0;
    printf("; %s", str_is(status, "part_paid") ? "part paid" : books_text(v, "status"));
    if (!paid)
        printf(", %s left%s%s", books_text(v, "left"), dated ? ", due on " : "", books_text(v, "due_on"));
}

static void print_row(const struct json *v) {
    bool about = json_as_str(json_get(v, "about")).n > 0;
    printf("%-16s %-11s %-24s %s %18s + %14s = %18s %s", books_text(v, "number"), books_text(v, "kind"),
           books_text(v, "tenant"), books_text(v, "month"), books_text(v, "net"), books_text(v, "tax"),
           books_text(v, "total"), books_text(v, "currency"));
    printf("%s%s", about ? " takes back " : "", books_text(v, "about"));
    if (str_is(json_as_str(json_get(v, "kind")), "invoice"))
        print_status(v);
    putchar('\n');
}

static void print_list(const struct json *answer) {
    for (size_t i = 0; i < json_count(answer); i++)
        print_row(json_at(answer, i));
}

static void print_paid(const struct json *v) {
    printf("%s: %s %s paid on %s as %s", books_text(v, "number"), books_text(v, "amount"),
           books_text(v, "currency"), books_text(v, "date"), books_text(v, "payment"));
    print_status(v);
    putchar('\n');
}

static void print_one(const struct json *v) {
    printf("%s takes back %s: %s %s\n", books_text(v, "number"), books_text(v, "about"),
           books_text(v, "total"), books_text(v, "currency"));
}

static void print_verified(const struct json *v) {
    const struct json *wrong = json_get(v, "wrong");
    for (size_t i = 0; i < json_count(wrong); i++)
        printf("wrong: %.*s\n", (int)json_as_str(json_at(wrong, i)).n, json_as_str(json_at(wrong, i)).p);
    printf("%s %s\n", books_text(v, "number"),
           json_as_bool(json_get(v, "ok")) ? "is what the journal makes, byte for byte" : "does not stand");
}

/* A document as it is: JSON, or the page. */
static void print_document(const struct json *v) {
    struct buf out = {0};
    if (json_kind(v) == JSON_KIND_STRING)
        buf_str(&out, json_as_str(v));
    else
        json_write(&out, v);
    fwrite(out.p, 1, out.n, stdout);
    if (json_kind(v) != JSON_KIND_STRING)
        putchar('\n');
    buf_free(&out);
}

/* Standard output becomes the file, so that writing to it fails as writing there does. */
static int redirect(const char *path) {
    if (path == NULL || freopen(path, "w", stdout) != NULL)
        return 0;
    fprintf(stderr, "unkai invoice: cannot write %s: %s\n", path, strerror(errno));
    return -1;
}

/* The file's JSON, parsed here, so that what is wrong with it is said of the file. */
static int read_profile(const char *path, struct buf *out, struct error *e) {
    struct json *v = NULL;
    struct buf text = {0};
    int rc = cli_read(&text, path, FILE_BYTES, e);
    if (rc == 0 && (rc = json_parse(&v, buf_view(&text), e)) == 0)
        json_write(out, v);
    json_free(v);
    buf_free(&text);
    return rc;
}

int cmd_invoice(int argc, char **argv) {
    int args;
    bool as_json = false, html = false;
    const char *month = NULL, *reason = NULL, *file = NULL, *output = NULL, *profile = NULL, *as = NULL,
               *amount = NULL, *id = NULL, *date = NULL;
    static const struct books_action actions[] = {
        {"list", "invoice.list", {"tenant"}, 0, 1, print_list},
        {"create", "invoice.create", {"tenant"}, 0, 1, print_list},
        {"draft", "invoice.draft", {"tenant"}, 1, 1, print_document},
        {"show", "invoice.show", {"number"}, 1, 1, print_document},
        {"verify", "invoice.verify", {"number"}, 1, 1, print_verified},
        {"cancel", "invoice.cancel", {"number"}, 1, 1, print_one},
        {"status", "invoice.status", {"number"}, 1, 1, print_row},
        {"pay", "invoice.pay", {"number"}, 1, 1, print_paid},
        {"party", "invoice.party", {"tenant"}, 1, 1, print_document},
        {"issuer", "invoice.issuer", {NULL}, 0, 0, print_document},
        {"rules", "invoice.rules", {NULL}, 0, 0, print_document},
        {NULL},
    };
    const struct option options[] = {
        {"month", OPTION_TEXT, &month, "MONTH",
         "create: the month (the newest that is closed); draft: (the running one)"},
        {"reason", OPTION_TEXT, &reason, "TEXT", "cancel: why"},
        {"amount", OPTION_TEXT, &amount, "AMOUNT", "pay: a part (all that is left)"},
        {"id", OPTION_TEXT, &id, "ID", "pay: name the payment, so that repeating it pays once"},
        {"date", OPTION_TEXT, &date, "DAY", "pay: when it was paid (today)"},
        {"file", OPTION_TEXT, &file, "PATH", "party, issuer, rules: take this JSON (- is standard input)"},
        {"html", OPTION_FLAG, &html, NULL,
         "show, draft: a page to read or print, instead of the JSON document"},
        {"output", OPTION_TEXT, &output, "PATH", "write to a file"},
        {"json", OPTION_FLAG, &as_json, NULL, "print JSON"},
        {NULL},
    };
    const struct books_option members[] = {{"month", &month, false},   {"reason", &reason, false},
                                           {"as", &as, false},         {"profile", &profile, true},
                                           {"amount", &amount, false}, {"payment", &id, false},
                                           {"date", &date, false},     {NULL}};
    int rc = cli_options(
        argc, argv, &args, options,
        "[list [TENANT] | create [TENANT] | draft TENANT | show NUMBER | status NUMBER | verify NUMBER | "
        "cancel NUMBER | pay NUMBER | party TENANT | issuer | rules]",
        "One invoice a tenant and closed month; without a tenant, create makes everybody's who has none and "
        "something\n"
        "to pay. cancel takes one back by a credit note. pay writes down that it was paid, or a part of it; "
        "status and\n"
        "list say what is left. party and issuer keep what the parties say of themselves, rules the tax "
        "rules "
        "that come\n"
        "before the program's own.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    struct buf text = {0};
    struct error e = {0};
    if (file != NULL && read_profile(file, &text, &e) != 0) {
        buf_free(&text);
        return cli_fail(argv[0], &e);
    }
    profile = file != NULL ? text.p : NULL;
    as = html ? "html" : NULL;
    rc = redirect(output) != 0 ? EXIT_FAILED : books_command(args, argv, actions, members, as_json && !html);
    buf_free(&text);
    return rc;
}
