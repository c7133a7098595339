/* The database seam: everything the books keep goes through here, and nothing else knows which database it is. Statements are written once with $1, $2 ... and bound
 * values only. A struct store is used by one thread; there is one that writes.
 *
 * An error of the database (a full disk, a failed sync) is reported and never retried here: the caller stops the money path. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/buf.h"
#include "base/error.h"

struct store;
struct query; /* a prepared statement; the store keeps it for the next time */

/* Open or make the books in `folder` and bring their schema up to date. */
int store_open(struct store **out, const char *folder, struct error *e);
void store_close(struct store *s); /* checkpoints */

int store_begin(struct store *s, struct error *e);
int store_commit(struct store *s, struct error *e); /* durable when it returns 0 */
void store_rollback(struct store *s);

/* sql must be a literal (it is known again by its address). The query is reset and unbound. ERR_IO. */
int store_query(struct store *s, struct query **out, const char *sql, struct error *e);
void query_int(struct query *q, int parameter, int64_t value); /* parameters count from 1 */
void query_text(struct query *q, int parameter, struct str value);
void query_blob(struct query *q, int parameter, struct str value);
/* 1: a row is there; 0: no more; negative: an error (ERR_CONFLICT: it would break a constraint). */
int query_step(struct query *q, struct error *e);
/* Step until done. */
int query_run(struct query *q, struct error *e);
/* The number of the row that the last query inserted; 0: it inserted none. (Where a database must be asked for it: RETURNING, which SQLite makes dear.) */
int64_t query_inserted(struct query *q);
/* Columns count from 0; text and blobs live until the next step. */
int64_t query_column_int(struct query *q, int column);
struct str query_column_text(struct query *q, int column);

#endif
