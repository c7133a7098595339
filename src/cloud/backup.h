/* Copies of the books: to a file while they are used, back from one, and from one database to another. A copy is a SQLite file whatever database the books are in, and
 * it is verified as the books are before anybody is told that it is there. */
#ifndef CLOUD_BACKUP_H
#define CLOUD_BACKUP_H

#include "base/hash.h"
#include "store/store.h"

/* What was copied. */
struct copied {
    int64_t rows, transfers; /* rows 0: pages were copied */
    struct hash root;        /* of the journal */
};

/* From a file to where the books of this data folder belong. ERR_CONFLICT: there are books already, or they are in use. */
int backup_restore(const char *folder, const char *file, const struct progress *progress, struct copied *out,
                   struct error *e);
/* From where the books of this data folder are to another place: a folder, or a postgresql:// URL. The old ones stay. ERR_CONFLICT: there are books already, or these
 * are in use. */
int backup_move(const char *folder, const char *to, const struct progress *progress, struct copied *out,
                struct error *e);

#endif
