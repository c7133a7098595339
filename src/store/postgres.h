/* What the files of the PostgreSQL driver share. */
#ifndef STORE_POSTGRES_H
#define STORE_POSTGRES_H

#include "store/driver.h"

#include <libpq-fe.h>

struct postgres {
    struct store base;
    PGconn *db;
    char *url;
    int64_t names;       /* of prepared statements */
    int pending;         /* statements that were sent and whose results were not read */
    int64_t changed;     /* rows, by the last statement whose results were read */
    char committing[24]; /* the transaction whose commit was sent and not answered, or "" */
    PGconn *next;        /* a connection that is being made in place of one that broke */
    int64_t next_until;  /* when that is given up */
    enum postgres_company company;
    bool writing; /* in a transaction */
    int rc;       /* the first error of what was sent since store_begin */
    struct error error;
    struct postgres_query *reading; /* its rows are on their way */
};

/* Connect, refuse a server that would lose what it committed, bring the schema up to date, and leave the connection in pipeline mode. ERR_UNAVAILABLE. */
int postgres_connect(struct postgres *s, struct error *e);
/* The same in place of a connection that broke, without waiting: 1: under way. */
int postgres_reconnect(struct postgres *s, struct error *e);
/* The next result, after sending what is still to be sent; NULL: a statement's results end. A server from which nothing comes for 10 seconds is left, unless the store is patient. */
PGresult *postgres_result(struct postgres *s);
/* What a result that is an error says (NULL: the connection's own state). */
int postgres_fail(struct postgres *s, const PGresult *r, struct error *e);

/* Schema text from SQLite's words to PostgreSQL's. */
void postgres_translate(struct buf *out, const char *schema);

#endif
