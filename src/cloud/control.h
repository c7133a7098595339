/* How a command reaches the books: by itself when nobody has them open, through the server's control socket otherwise. The socket lies in the
 * data folder, readable by its owner only; one line of JSON goes in, one comes out. */
#ifndef CLOUD_CONTROL_H
#define CLOUD_CONTROL_H

#include "base/buf.h"
#include "base/error.h"
#include "store/store.h"

/* request: a JSON object with "op" (the table in cloud/admin.c) and its arguments. Appends the JSON answer. */
int control_call(const char *folder, struct str request, struct buf *answer, struct error *e);
/* The same for an operation that takes long and says how far it is; progress may be NULL. */
int control_call_telling(const char *folder, struct str request, const struct progress *progress,
                         struct buf *answer, struct error *e);

#endif
