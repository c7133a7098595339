/* What the commands that touch the books share: an operation goes out as JSON, its answer comes back as JSON or as a table. */
#ifndef CLI_BOOKS_H
#define CLI_BOOKS_H

#include "base/json.h"
#include "cli/cli.h"

/* One action of a command: `unkai tenant create NAME`. Arguments beyond the action become members of the request. */
struct books_action {
    const char *name, *op;
    const char *argument[3];                  /* what the words after the action are called in the request */
    int least, most;                          /* how many there may be */
    void (*print)(const struct json *answer); /* for people */
};

struct books_option { /* an option whose text becomes a member when it was given */
    const char *member;
    const char *const *value;
    bool json; /* it is JSON already */
};

/* Send a request; *answer is `text` parsed, and the caller frees both. */
int books_ask(struct str request, struct buf *text, struct json **answer, struct error *e);

/* Find the action argv[1], send the request, print the answer; an exit code. Both lists end with a row whose name is NULL. */
int books_command(int args, char **argv, const struct books_action *actions,
                  const struct books_option *options, bool as_json);

/* Take the price list at `path` (unkai price import) into the books; an exit code. */
int price_import(const char *path, const char *currency, const char *since, const char *note);

/* A member as text, numbers too; static memory, used once per call of printf at most 8 times. */
const char *books_text(const struct json *object, const char *member);
/* Seconds since 1970 as a date. */
const char *books_date(const struct json *object, const char *member);

#endif
