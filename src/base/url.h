/* Parts of a URL. */
#ifndef BASE_URL_H
#define BASE_URL_H

#include "base/buf.h"

/* A part of a path or, with plus for a space, of a query, in place of what is in `out`. What is no escape stays as it is. */
void percent_decode(struct buf *out, struct str s, bool plus);

#endif
