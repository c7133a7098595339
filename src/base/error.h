/* Errors as values. A function that can fail returns 0 or a negative enum err and fills a struct error
 * with one sentence that a person can act on. Both journeys use it. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include <stdint.h>

enum err {
    ERR_OK = 0,
    ERR_INVALID = -1,      /* the caller's input is wrong (HTTP 400) */
    ERR_NOT_FOUND = -2,    /* no such thing (404) */
    ERR_AUTH = -3,         /* no valid key (401) */
    ERR_DENIED = -4,       /* valid, but not allowed (403) */
    ERR_CREDIT = -5,       /* not enough credit (402) */
    ERR_BUSY = -6,         /* try again later (429) */
    ERR_TOO_LARGE = -7,    /* over a stated limit (413) */
    ERR_NO_MEMORY = -8,    /* memory or KV space ran out */
    ERR_IO = -9,           /* the operating system said no */
    ERR_CORRUPT = -10,     /* a file or a database holds what it must not */
    ERR_UNSUPPORTED = -11, /* understood, but not built here */
    ERR_CONFLICT = -12,    /* exists already, or the same id with other content */
    ERR_CANCELLED = -13,   /* the caller went away */
    ERR_UNAVAILABLE = -14, /* this part has failed and serves nobody now (503) */
    ERR_INTERNAL = -15,    /* our mistake */
    ERR_KEY_REUSED = -16,  /* an idempotency key that stands for another request (422) */
    ERR_KEY_SPENT = -17    /* an idempotency key whose request was charged and has no whole answer (409) */
};

struct error {
    enum err code;
    char param[64];  /* name of the offending request parameter or metadata key, or "" */
    char text[400];  /* one sentence, no newline */
    int64_t wait_ns; /* ERR_BUSY: how long until it may work; 0: nobody knows, negative: never as it is */
};

/* Fill *e, which may be NULL. Callers use the two macros below. */
void error_write(struct error *e, enum err code, const char *param, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static inline int error_code(enum err code) {
    return (int)code;
}

/* Fill *e and give the code back: `return error_set(e, ERR_IO, "cannot open %s", path);`. Macros, so that a checker sees
 * that the result is not 0. */
#define error_set(e, code, ...) (error_write((e), (code), "", __VA_ARGS__), error_code(code))
/* The same, naming the parameter at fault. */
#define error_param(e, code, param, ...) (error_write((e), (code), (param), __VA_ARGS__), error_code(code))

/* Put words in front of the text: "models/a.gguf: tensor 3 ...". Returns e->code. */
int error_prefix(struct error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
