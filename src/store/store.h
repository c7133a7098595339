/* The database seam: everything the books keep goes through here, and nothing else knows which database it is. Statements are written once with $1, $2 ... and bound
 * values only, in words that both databases take (docs/database.md). A struct store is used by one thread; there is one that writes.
 *
 * An error of the database (ERR_IO: a full disk, a failed sync; ERR_CORRUPT) is reported and never retried here: the caller stops the money path. ERR_UNAVAILABLE: the
 * server of the database is gone, and may come back. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "base/buf.h"
#include "base/error.h"

struct store;
struct query; /* a prepared statement; the store keeps it for the next time */

/* Open or make the books in a folder (SQLite) or at a postgresql:// URL, and bring their schema up to date. The URL's password is in no error.
 * ERR_CONFLICT: somebody else has these books open on PostgreSQL. */
int store_open(struct store **out, const char *where, struct error *e);
/* The same among others that open them so: PostgreSQL alone can do that, of a folder it is store_open. ERR_CONFLICT: somebody has them alone, or
 * the schema must be brought up to date and others have the books open. */
int store_open_shared(struct store **out, const char *where, struct error *e);
/* The same beside whoever has them open, to read them: PostgreSQL alone can do that. */
int store_open_beside(struct store **out, const char *where, struct error *e);
/* A SQLite file of that name: another one's books, or a copy. ERR_NOT_FOUND: it is to be there and is not; ERR_CONFLICT: it is to be made and is there. */
int store_open_file(struct store **out, const char *file, bool make, struct error *e);
void store_close(struct store *s); /* checkpoints */
bool store_is_url(const char *where);
int store_version(void); /* that opening brings a schema to */

int store_begin(struct store *s, struct error *e);
/* One that only reads, and sees the books as they are now until it ends. */
int store_begin_reading(struct store *s, struct error *e);
int store_commit(struct store *s, struct error *e); /* durable when it returns 0 */
void store_rollback(struct store *s);
/* Had the transaction whose commit failed changed anything, as far as is known? */
bool store_wrote(const struct store *s);
/* After ERR_UNAVAILABLE: try to reach the server again, without waiting for it. 1: under way, ask again in a moment; 0: it is back, and the transaction
 * that was being committed when it went is done or undone, which its rows tell; ERR_UNAVAILABLE: not yet; another error: it is back, and no good. */
int store_reconnect(struct store *s, struct error *e);

/* sql must be a literal (it is known again by its address). The query is reset and unbound. ERR_IO. */
int store_query(struct store *s, struct query **out, const char *sql, struct error *e);
void query_int(struct query *q, int parameter, int64_t value); /* parameters count from 1 */
void query_text(struct query *q, int parameter, struct str value);
void query_blob(struct query *q, int parameter, struct str value);
/* 1: a row is there; 0: no more; negative: an error (ERR_CONFLICT: it would break a constraint). */
int query_step(struct query *q, struct error *e);
/* Step until done. Within a transaction it may only be sent: its error then comes with a later call, at the latest with store_commit. */
int query_run(struct query *q, struct error *e);
/* How many rows the query that was just run has changed. Over a network this is a round trip. */
int64_t query_changed(struct query *q);
/* Columns count from 0; text and blobs live until the next step. */
int64_t query_column_int(struct query *q, int column);
struct str query_column_text(struct query *q, int column);

/* ---- copies ---- */

/* Who hears how far a long piece of work is: in rows, or in pages or bytes of a file. tell may be NULL. */
struct progress {
    void (*tell)(void *context, int64_t done, int64_t total);
    void *context;
};
/* Have these books no row but their head? */
int store_is_empty(struct store *s, bool *empty, struct error *e);
/* All rows of all tables from one store to an empty one, whatever databases they are, in one transaction on either side. The rows that arrived are counted again in the copy; *rows says how many. */
int store_copy(struct store *from, struct store *to, const struct progress *progress, int64_t *rows,
               struct error *e);

/* A copy of a SQLite file while it is used: a step copies a piece, on the thread that uses the store and outside of a transaction. What is written between two steps is
 * in the copy. The file is made and must not be there. */
struct store_backup;
int store_backup_start(struct store *s, const char *file, struct store_backup **out, struct error *e);
/* 1: there is more; 0: the copy is whole and durable. */
int store_backup_step(struct store_backup *b, int64_t *done, int64_t *total, struct error *e);
void store_backup_end(struct store_backup *b);

#endif
