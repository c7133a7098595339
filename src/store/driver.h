/* What a database is to store.c: a table of functions. A driver's own structs begin with these two. */
#ifndef STORE_DRIVER_H
#define STORE_DRIVER_H

#include "store/store.h"

struct driver {
    void (*close)(struct store *s);
    int (*begin)(struct store *s, struct error *e);
    int (*begin_reading)(struct store *s, struct error *e);
    int (*commit)(struct store *s, struct error *e);
    void (*rollback)(struct store *s);
    int (*reconnect)(struct store *s, struct error *e);
    int (*prepare)(struct store *s, struct query **out, const char *sql, struct error *e);
    void (*forget)(struct query *q); /* frees it */
    void (*reset)(struct query *q);  /* rows that were not read are dropped, parameters unbound */
    void (*bind_int)(struct query *q, int parameter, int64_t value);
    void (*bind_text)(struct query *q, int parameter, struct str value);
    void (*bind_blob)(struct query *q, int parameter, struct str value);
    int (*step)(struct query *q, struct error *e);
    int (*run)(struct query *q, struct error *e);
    int64_t (*changed)(struct query *q);
    int64_t (*column_int)(struct query *q, int column);
    struct str (*column_text)(struct query *q, int column);
    int (*renumber)(struct store *s,
                    struct error *e); /* rows were written with their numbers: go on behind them */
};

enum { STORE_PARAMETERS = 24, STORE_BUCKETS = 256 };

struct store {
    const struct driver *driver;
    bool read;                            /* the last transaction has changed nothing */
    bool patient;                         /* waits for its server as long as it takes */
    struct query *queries[STORE_BUCKETS]; /* by the address of their text */
};

struct query {
    struct store *store;
    const char *sql;
    struct query *next;
};

/* Let go of the statements that are kept: their texts may end now. */
void store_forget(struct store *s);

int sqlite_open(struct store **out, const char *folder, struct error *e);
/* Who else may have the books open: nobody; others that share them; whoever has. */
enum postgres_company { POSTGRES_ALONE, POSTGRES_SHARED, POSTGRES_BESIDE };
int postgres_open(struct store **out, const char *url, enum postgres_company company, struct error *e);

#endif
