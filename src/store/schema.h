/* The migrations, in order: the n-th brings a database from version n to n + 1. One that was released is never edited. */
#ifndef STORE_SCHEMA_H
#define STORE_SCHEMA_H

#include "base/error.h"

#include <stdint.h>

extern const char *const schema_migrations[]; /* ends with NULL */

/* May this program use books of version `at`? */
int schema_check(int64_t at, struct error *e);

#endif
