/* unkai db: where the books are, and copies of them. A backup is the server's own work where one runs; restoring and moving want the books for themselves. */
#include "cli/books.h"

#include "cloud/backup.h"
#include "cloud/control.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- progress, on standard error ---- */

struct reporter {
    time_t last;
    bool terminal, told; /* on a terminal the line is written over */
};

static void report(void *context, int64_t done, int64_t total) {
    struct reporter *r = context;
    time_t now = time(NULL);
    if (now == r->last)
        return;
    r->last = now;
    r->told = true;
    fprintf(stderr, "%s%lld of %lld (%d%%)%s", r->terminal ? "\r" : "", (long long)done, (long long)total,
            total > 0 ? (int)((double)done * 100 / (double)total) : 100, r->terminal ? "  " : "\n");
}

static struct reporter reporter;
static const struct progress progress = {report, &reporter};

static void start_report(void) {
    reporter = (struct reporter){.last = time(NULL), .terminal = isatty(STDERR_FILENO)};
}

static void end_report(void) {
    if (reporter.told && reporter.terminal)
        fputc('\n', stderr);
}

/* ---- actions ---- */

static int ask(struct buf *request, struct json **answer, struct buf *text, struct error *e) {
    start_report();
    int rc = control_call_telling(cli_home(), buf_view(request), &progress, text, e);
    end_report();
    return rc != 0 ? rc : json_parse(answer, buf_view(text), e);
}

static int migrate(const char *word, bool as_json, struct error *e) {
    struct buf request = {0}, text = {0};
    struct json *answer = NULL;
    buf_text(&request, "{\"op\":\"db.migrate\"}");
    int rc = ask(&request, &answer, &text, e);
    if (rc == 0 && as_json)
        puts(text.p);
    else if (rc == 0)
        printf("the books are in %s, of version %s\n", books_text(answer, "database"),
               books_text(answer, "version"));
    json_free(answer);
    buf_free(&request);
    buf_free(&text);
    return rc;
}

/* The server has another working folder: it gets the whole path. */
static int backup(const char *word, bool as_json, struct error *e) {
    struct buf request = {0}, text = {0}, path = {0};
    struct json *answer = NULL;
    char here[4000] = "";
    if (*word != '/' && getcwd(here, sizeof here) == NULL)
        return error_set(e, ERR_IO, "the working folder is gone");
    buf_printf(&path, "%s%s%s", here, *here != 0 ? "/" : "", word);
    buf_text(&request, "{\"op\":\"db.backup\",\"file\":");
    json_write_str(&request, buf_view(&path));
    buf_byte(&request, '}');
    int rc = ask(&request, &answer, &text, e);
    if (rc == 0 && as_json)
        puts(text.p);
    else if (rc == 0)
        printf("%s: %s bytes, %s transfers, verified\nroot %s\n", books_text(answer, "file"),
               books_text(answer, "bytes"), books_text(answer, "transfers"), books_text(answer, "root"));
    json_free(answer);
    buf_free(&request);
    buf_free(&text);
    buf_free(&path);
    return rc;
}

static void print_copied(const struct copied *copied, const char *what, bool as_json) {
    char root[HASH_HEX + 1];
    hash_hex(&copied->root, root);
    if (as_json)
        printf("{\"rows\":%lld,\"transfers\":%lld,\"root\":\"%s\"}\n", (long long)copied->rows,
               (long long)copied->transfers, root);
    else
        printf("%s: %lld transfers, verified\nroot %s\n", what, (long long)copied->transfers, root);
}

static int restore(const char *word, bool as_json, struct error *e) {
    struct copied copied;
    start_report();
    int rc = backup_restore(cli_home(), word, &progress, &copied, e);
    end_report();
    if (rc == 0)
        print_copied(&copied, "restored", as_json);
    return rc;
}

static int move(const char *word, bool as_json, struct error *e) {
    struct copied copied;
    const char *authority = strstr(word, "://"), *at = authority != NULL ? strrchr(authority, '@') : NULL;
    if (store_is_url(word) &&
        ((at != NULL && memchr(authority + 3, ':', (size_t)(at - authority - 3)) != NULL) ||
         strstr(word, "password=") != NULL))
        return error_set(e, ERR_INVALID,
                         "others can see a command's arguments: leave the password out of the address and "
                         "put it into ~/.pgpass or PGPASSWORD");
    start_report();
    int rc = backup_move(cli_home(), word, &progress, &copied, e);
    end_report();
    if (rc != 0)
        return rc;
    print_copied(&copied, "moved", as_json);
    if (!as_json && store_is_url(word))
        printf("From now on start everything with UNKAI_DB=%s; the old books are as they were.\n", word);
    else if (!as_json)
        printf("From now on use the data folder %s, with the file secret of this one in it, and no UNKAI_DB; "
               "the old books are as they were.\n",
               word);
    return 0;
}

int cmd_db(int argc, char **argv) {
    static const struct {
        const char *name;
        int words;
        int (*run)(const char *word, bool as_json, struct error *e);
    } actions[] = {
        {"migrate", 0, migrate}, {"backup", 1, backup}, {"restore", 1, restore}, {"move", 1, move}};
    int args;
    bool as_json = false;
    struct error e = {0};
    const struct option options[] = {{"json", OPTION_FLAG, &as_json, NULL, "print JSON"}, {NULL}};
    int rc = cli_options(
        argc, argv, &args, options, "migrate | backup FILE | restore FILE | move PLACE",
        "migrate brings the books to this program's version, as every other command does first. backup "
        "writes "
        "a copy to a file\n"
        "that must not be there, also while the server runs, and verifies it. restore makes books from such "
        "a "
        "file where there\n"
        "are none. move copies the books to another place, a folder or a postgresql:// address without a "
        "password, verifies the\n"
        "copy and leaves the old ones. The books lie in the data folder, or where UNKAI_DB says.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    for (size_t i = 0; args > 0 && i < sizeof actions / sizeof *actions; i++)
        if (strcmp(actions[i].name, argv[1]) == 0 && actions[i].words == args - 1) {
            rc = actions[i].run(args > 1 ? argv[2] : "", as_json, &e);
            return rc == 0 ? EXIT_OK : cli_fail("db", &e);
        }
    fprintf(stderr,
            "unkai db: wants one of migrate, backup FILE, restore FILE, move PLACE; see unkai db --help\n");
    return EXIT_USAGE;
}
