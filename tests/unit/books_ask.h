/* A test's books and the operations on them: what they answer, and what they refuse. Behind cmocka.h. */
#ifndef UNIT_BOOKS_ASK_H
#define UNIT_BOOKS_ASK_H

#include "books_place.h"

#include "base/buf.h"
#include "cloud/control.h"

#include <string.h>

static char folder[64];

static inline int fresh_folder(void **state) {
    return books_place(folder, sizeof folder);
}

static inline int remove_folder(void **state) {
    return books_place_remove(folder);
}

/* Requests are written with ' for ", as long as nothing else needs one. */
static inline int ask(const char *request, struct buf *answer, struct error *e) {
    char text[1000];
    size_t n = 0;
    for (; request[n] != 0 && n < sizeof text - 1; n++)
        text[n] = request[n] == '\'' ? '"' : request[n];
    text[n] = 0;
    buf_clear(answer);
    return control_call(folder, str_from(text), answer, e);
}

static inline void must(const char *request) {
    struct buf answer = {0};
    struct error e = {0};
    if (ask(request, &answer, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    buf_free(&answer);
}

static inline void refuse(const char *request, enum err code, const char *says) {
    struct buf answer = {0};
    struct error e = {0};
    int rc = ask(request, &answer, &e);
    if (rc != (int)code || strstr(e.text, says) == NULL)
        fail_msg("%s: %d %s %s", request, rc, e.text, answer.n ? answer.p : "");
    buf_free(&answer);
}

static inline void expect(const char *request, const char *says) {
    struct buf answer = {0};
    struct error e = {0};
    if (ask(request, &answer, &e) != 0 || strstr(answer.p, says) == NULL)
        fail_msg("%s: %s %s", request, e.text, answer.n ? answer.p : "");
    buf_free(&answer);
}

#endif
