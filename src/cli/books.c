/* Operations on the books from the command line; see books.h. */
#include "cli/books.h"

#include "cloud/control.h"
#include "owner/owner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static char *slot(void) {
    static char text[8][300];
    static unsigned next;
    return text[next++ % 8];
}

const char *books_text(const struct json *object, const char *member) {
    const struct json *v = json_get(object, member);
    char *out = slot();
    if (json_kind(v) == JSON_KIND_INT)
        snprintf(out, 300, "%lld", (long long)json_as_int(v));
    else if (json_kind(v) == JSON_KIND_REAL)
        snprintf(out, 300, "%.3f", json_as_number(v));
    else if (json_kind(v) == JSON_KIND_TRUE || json_kind(v) == JSON_KIND_FALSE)
        snprintf(out, 300, "%s", json_as_bool(v) ? "yes" : "no");
    else
        snprintf(out, 300, "%.*s", (int)json_as_str(v).n, json_as_str(v).p);
    return out;
}

const char *books_date(const struct json *object, const char *member) {
    time_t t = (time_t)json_as_int(json_get(object, member));
    struct tm tm;
    char *out = slot();
    gmtime_r(&t, &tm);
    strftime(out, 300, "%Y-%m-%d %H:%M:%S", &tm);
    return out;
}

static void add_member(struct buf *request, const char *name, const char *value) {
    char *end;
    long long number = strtoll(value, &end, 10);
    buf_printf(request, ",\"%s\":", name);
    if (strcmp(name, "id") == 0 && *value != 0 && *end == 0)
        buf_printf(request, "%lld", number);
    else
        json_write_text(request, value);
}

static int usage_error(const char *command, const struct books_action *actions) {
    fprintf(stderr, "unkai %s: wants one of", command);
    for (const struct books_action *a = actions; a->name != NULL; a++) {
        fprintf(stderr, "%s %s", a == actions ? "" : ",", a->name);
        for (int i = 0; i < a->most; i++) {
            fprintf(stderr, i < a->least ? " " : " [");
            for (const char *p = a->argument[i]; *p != 0; p++)
                fputc(*p >= 'a' && *p <= 'z' ? *p - 32 : *p, stderr);
            fprintf(stderr, i < a->least ? "" : "]");
        }
    }
    fprintf(stderr, "; see unkai %s --help\n", command);
    return EXIT_USAGE;
}

int books_ask(struct str request, struct buf *text, struct json **answer, struct error *e) {
    int rc = control_call(cli_home(), request, text, e);
    return rc == 0 ? json_parse(answer, buf_view(text), e) : rc;
}

int books_command(int args, char **argv, const struct books_action *actions,
                  const struct books_option *options, bool as_json) {
    const struct books_action *a = actions;
    owner_operations();
    struct buf request = {0}, text = {0};
    struct json *answer = NULL;
    struct error e = {0};
    const char *word = args > 0 ? argv[1] : actions->name; /* the first action is the usual one */
    while (a->name != NULL && strcmp(a->name, word) != 0)
        a++;
    int words = args > 0 ? args - 1 : 0;
    if (a->name == NULL || words < a->least || words > a->most)
        return usage_error(argv[0], actions);
    buf_printf(&request, "{\"op\":\"%s\"", a->op);
    for (int i = 0; i < words; i++)
        add_member(&request, a->argument[i], argv[2 + i]);
    for (const struct books_option *o = options; o->member != NULL; o++)
        if (*o->value != NULL && o->json)
            buf_printf(&request, ",\"%s\":%s", o->member, *o->value);
        else if (*o->value != NULL)
            add_member(&request, o->member, *o->value);
    buf_byte(&request, '}');
    int rc = books_ask(buf_view(&request), &text, &answer, &e);
    if (rc == 0 && as_json)
        puts(text.p);
    else if (rc == 0 && json_kind(answer) == JSON_KIND_ARRAY && json_count(answer) == 0)
        fprintf(stderr, "there is nothing yet\n");
    else if (rc == 0)
        a->print(answer);
    bool failed = json_kind(json_get(answer, "ok")) == JSON_KIND_FALSE;
    json_free(answer);
    buf_free(&request);
    buf_free(&text);
    return rc != 0 ? cli_fail(argv[0], &e) : failed ? EXIT_FAILED : EXIT_OK;
}
