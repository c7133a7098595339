/* How a command reaches the books: by itself when nobody has them open, through the server's control socket otherwise. The socket lies in the
 * data folder, readable by its owner only; one line of JSON goes in, one comes out. */
#ifndef CLOUD_CONTROL_H
#define CLOUD_CONTROL_H

#include "base/buf.h"
#include "base/error.h"

/* request: a JSON object with "op" (the table in cloud/admin.c) and its arguments. Appends the JSON answer. */
int control_call(const char *folder, struct str request, struct buf *answer, struct error *e);

#endif
