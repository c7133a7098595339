/* Where a test's books lie: a folder of its own, and with UNKAI_TEST_DB set (tests/postgres.py) a schema of its own on that server. */
#ifndef UNIT_BOOKS_PLACE_H
#define UNIT_BOOKS_PLACE_H

#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Makes both, and sets UNKAI_DB. */
static inline int books_place(char *folder, size_t size) {
    static int number;
    const char *server = getenv("UNKAI_TEST_DB");
    char sql[100], url[400];
    snprintf(folder, size, "/tmp/unkai-books-XXXXXX");
    if (mkdtemp(folder) == NULL)
        return -1;
    if (server == NULL)
        return 0;
    PGconn *db = PQconnectdb(server);
    snprintf(sql, sizeof sql, "CREATE SCHEMA t%d_%d", (int)getpid(), ++number);
    PGresult *r = PQexec(db, sql);
    int rc = PQresultStatus(r) == PGRES_COMMAND_OK ? 0 : -1;
    if (rc != 0)
        fprintf(stderr, "%s", PQerrorMessage(db));
    PQclear(r);
    PQfinish(db);
    snprintf(url, sizeof url, "%s&options=-csearch_path%%3Dt%d_%d", server, (int)getpid(), number);
    return rc != 0 ? rc : setenv("UNKAI_DB", url, 1);
}

/* For store_open. */
static inline const char *books_where(const char *folder) {
    const char *url = getenv("UNKAI_DB");
    return url != NULL ? url : folder;
}

static inline int books_place_remove(const char *folder) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command);
}

#endif
