/* The migrations, in order: the n-th brings a database from version n to n + 1. One that was released is never edited. */
#ifndef STORE_SCHEMA_H
#define STORE_SCHEMA_H

extern const char *const schema_migrations[]; /* ends with NULL */

#endif
