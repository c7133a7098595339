/* Errors as values; see error.h. */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void error_write(struct error *e, enum err code, const char *param, const char *format, ...) {
    va_list args;
    if (e == NULL)
        return;
    e->code = code;
    e->wait_ns = 0;
    snprintf(e->param, sizeof e->param, "%s", param);
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
}

int error_prefix(struct error *e, const char *format, ...) {
    char old[sizeof e->text];
    char head[sizeof e->text];
    va_list args;
    if (e == NULL)
        return ERR_INTERNAL;
    memcpy(old, e->text, sizeof old);
    va_start(args, format);
    vsnprintf(head, sizeof head, format, args);
    va_end(args);
    size_t n = strlen(head);
    memcpy(e->text, head, n);
    snprintf(e->text + n, sizeof e->text - n, "%s", old);
    return e->code;
}
