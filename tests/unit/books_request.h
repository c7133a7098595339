/* A test's requests as the books see them: a hold, and what its settlement came to. */
#ifndef UNIT_BOOKS_REQUEST_H
#define UNIT_BOOKS_REQUEST_H

#include "cloud/inner.h"

#include <stdio.h>
#include <unistd.h>

/* Waits until it is decided. */
static inline int books_granted(struct hold **h, struct error *e) {
    int rc;
    while ((rc = cloud_granted(h, NULL, NULL, e)) == 1)
        usleep(50);
    return rc;
}

/* cloud_admit, and waits. */
static inline int books_admit(struct cloud *c, const struct admission *a, struct hold **out,
                              struct error *e) {
    int rc = cloud_admit(c, a, out, e);
    return rc != 0 ? rc : books_granted(out, e);
}

/* cloud_settle, and what the transfer that it made was of; -1: there is none. */
static inline amount books_settle(struct cloud *c, struct hold *h, const char *id,
                                  const struct settlement *s) {
    char request[200];
    struct json *op = NULL, *shown = NULL;
    struct buf answer = {0};
    amount charged = -1;
    cloud_settle(h, s);
    snprintf(request, sizeof request, "{\"op\":\"ledger.show\",\"transfer\":\"settle:%s\"}", id);
    if (json_parse(&op, str_from(request), NULL) == 0 && admin_run(c, op, &answer, NULL) == 0 &&
        json_parse(&shown, buf_view(&answer), NULL) == 0 &&
        money_parse(&charged, json_as_str(json_get(json_at(shown, 0), "amount")), AMOUNT_DIGITS, NULL) != 0)
        charged = -1;
    json_free(op);
    json_free(shown);
    buf_free(&answer);
    return charged;
}

#endif
