/* unkai export: usage and cost for other programs, page by page, so that it takes no more memory for a large month and the server writes in between. */
#include "cli/books.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct export {
    const char *month, *tenant, *version;
    int64_t after;
};

static void add_text(struct buf *request, const char *name, const char *value) {
    if (value == NULL)
        return;
    buf_printf(request, ",\"%s\":", name);
    json_write_text(request, value);
}

/* Ask for a page and print it. *after: what the next one is asked with, as JSON; emptied at the end. */
static int page(const struct export *x, const char *op, struct buf *after, struct error *e) {
    struct buf request = {0}, text = {0};
    struct json *answer = NULL;
    buf_printf(&request, "{\"op\":\"%s\"", op);
    add_text(&request, "month", x->month);
    add_text(&request, "tenant", x->tenant);
    add_text(&request, "version", x->version);
    if (after->n > 0) {
        buf_text(&request, ",\"after\":");
        buf_str(&request, buf_view(after));
    }
    buf_byte(&request, '}');
    int rc = books_ask(buf_view(&request), &text, &answer, e);
    if (rc == 0) {
        const struct json *next = json_get(answer, "after");
        struct str lines = json_as_str(json_get(answer, "text"));
        struct buf asked = *after;
        *after = (struct buf){0};
        if (fwrite(lines.p, 1, lines.n, stdout) != lines.n)
            rc = error_set(e, ERR_IO, "the output could not be written");
        if (json_kind(next) != JSON_KIND_NULL)
            json_write(after, next);
        if (str_equal(buf_view(after), buf_view(&asked))) /* events: nothing new */
            buf_clear(after);
        buf_free(&asked);
    }
    json_free(answer);
    buf_free(&request);
    buf_free(&text);
    return rc;
}

static int usage_error(const char *what) {
    fprintf(stderr, "unkai export: %s; see unkai export --help\n", what);
    return EXIT_USAGE;
}

int cmd_export(int argc, char **argv) {
    int args;
    struct export x = {0};
    const char *output = NULL;
    const struct option options[] = {
        {"month", OPTION_TEXT, &x.month, "MONTH", "focus: the month, like 2026-11"},
        {"version", OPTION_TEXT, &x.version, "N", "focus: of the specification (1.2)"},
        {"after", OPTION_INT, &x.after, "SEQ", "events: those behind this transfer (0)", 0, INT64_MAX / 4},
        {"tenant", OPTION_TEXT, &x.tenant, "NAME", "this tenant's only"},
        {"output", OPTION_TEXT, &output, "PATH", "write to a file"},
        {NULL},
    };
    int rc = cli_options(
        argc, argv, &args, options, "focus | events",
        "focus: a month's usage and cost as CSV in the columns of FinOps FOCUS. events: one CloudEvent a "
        "finished\n"
        "request, a line of JSON each; the last one's \"seq\" is where to go on with --after.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    bool focus = args == 1 && strcmp(argv[1], "focus") == 0;
    if (!focus && (args != 1 || strcmp(argv[1], "events") != 0))
        return usage_error("wants focus or events");
    if (focus && x.month == NULL)
        return usage_error("focus wants a --month");
    if (output != NULL && freopen(output, "w", stdout) == NULL) {
        fprintf(stderr, "unkai export: cannot write %s: %s\n", output, strerror(errno));
        return EXIT_FAILED;
    }
    struct buf after = {0};
    struct error e = {0};
    if (!focus)
        buf_printf(&after, "%lld", (long long)x.after);
    do
        rc = page(&x, focus ? "export.focus" : "export.events", &after, &e);
    while (rc == 0 && after.n > 0);
    buf_free(&after);
    return rc != 0 ? cli_fail(argv[0], &e) : EXIT_OK;
}
