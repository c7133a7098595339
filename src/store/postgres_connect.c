/* A connection to PostgreSQL for the books: whom to trust, what to say of errors, the schema. The address comes from UNKAI_DB and may hold a password, so nothing of it is
 * ever repeated. */
#include "store/postgres.h"
#include "store/schema.h"

#include "base/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For a connection in place of one that broke; the first one has option_names' time. */
#define CONNECT_NS INT64_C(5000000000)

/* ---- errors ---- */

static const char *password_of(const PGconn *db) {
    const char *password = db != NULL ? PQpass(db) : NULL;
    return password != NULL ? password : "";
}

/* The first line of what libpq says, unless the password is in it. */
static void one_line(char *out, size_t size, const struct postgres *s, const char *text) {
    const char *password = password_of(s->db);
    if (text == NULL || *text == 0 || (*password != 0 && strstr(text, password) != NULL))
        text = "it gives no reason that can be shown";
    snprintf(out, size, "%.*s", (int)strcspn(text, "\n"), text);
}

int postgres_fail(struct postgres *s, const PGresult *r, struct error *e) {
    /* By the class of the SQLSTATE, the longest match first. */
    static const struct {
        const char *state;
        enum err code;
    } table[] = {
        {"XX001", ERR_CORRUPT},     {"XX002", ERR_CORRUPT},  {"57P", ERR_UNAVAILABLE},
        {"53300", ERR_UNAVAILABLE}, {"08", ERR_UNAVAILABLE}, {"25P03", ERR_UNAVAILABLE},
        {"40", ERR_UNAVAILABLE},    {"22", ERR_INVALID},     {"23", ERR_CONFLICT},
        {"42", ERR_INTERNAL},
    };
    const char *state = r != NULL ? PQresultErrorField(r, PG_DIAG_SQLSTATE) : NULL;
    const char *text = r != NULL ? PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY) : NULL;
    char line[300];
    enum err code = ERR_IO;
    if (state == NULL || PQstatus(s->db) == CONNECTION_BAD) {
        one_line(line, sizeof line, s, text != NULL ? text : PQerrorMessage(s->db));
        return error_set(e, ERR_UNAVAILABLE, "the books' database does not answer: %s", line);
    }
    for (size_t i = sizeof table / sizeof *table; i-- > 0;)
        if (strncmp(state, table[i].state, strlen(table[i].state)) == 0)
            code = table[i].code;
    one_line(line, sizeof line, s, text);
    return error_set(e, code, "the books' database: %s (%s)", line, state);
}

/* ---- whom to trust ---- */

/* libpq takes a password with an @, / or ? in it for something else, and would say so. */
static int check_url(const char *url, struct error *e) {
    const char *authority = strstr(url, "://") + 3, *end = authority + strcspn(authority, "/?"),
               *at = strchr(authority, '@');
    if (at != NULL && (at >= end || strchr(at + 1, '@') != NULL))
        return error_set(e, ERR_INVALID,
                         "UNKAI_DB: write @, / and ? in a user's name or password as %%40, %%2F and %%3F");
    return 0;
}

/* What was sent comes to, with the limit that all waiting has; NULL: nothing was sent. */
static PGresult *last_result(struct postgres *s, int sent) {
    PGresult *last = NULL, *r;
    while (sent == 1 && (r = postgres_result(s)) != NULL) {
        PQclear(last);
        last = r;
    }
    return last;
}

static int run_now(struct postgres *s, const char *sql, struct error *e) {
    PGresult *r = last_result(s, PQsendQuery(s->db, sql));
    int rc = PQresultStatus(r) == PGRES_COMMAND_OK || PQresultStatus(r) == PGRES_TUPLES_OK
                 ? 0
                 : postgres_fail(s, r, e);
    PQclear(r);
    return rc;
}

/* 1: what it shows is that value; 0: it is not. */
static int is_setting(struct postgres *s, const char *show, const char *value, struct error *e) {
    PGresult *r = last_result(s, PQsendQuery(s->db, show));
    int rc = PQresultStatus(r) == PGRES_TUPLES_OK ? strcmp(PQgetvalue(r, 0, 0), value) == 0
                                                  : postgres_fail(s, r, e);
    PQclear(r);
    return rc;
}

static int check_server(struct postgres *s, struct error *e) {
    int rc;
    if (PQserverVersion(s->db) < 140000)
        return error_set(e, ERR_UNSUPPORTED, "the books want PostgreSQL 14 or newer");
    if (strcmp(PQparameterStatus(s->db, "server_encoding"), "UTF8") != 0)
        return error_set(e, ERR_UNSUPPORTED, "the books want a database in the encoding UTF8");
    if ((rc = is_setting(s, "SHOW fsync", "on", e)) <= 0)
        return rc < 0 ? rc
                      : error_set(e, ERR_UNSUPPORTED,
                                  "the database's server runs with fsync off: it would lose what it has "
                                  "committed");
    rc = is_setting(s, "SHOW synchronous_commit", "off", e);
    return rc > 0 ? run_now(s, "SET synchronous_commit = on", e) : rc;
}

/* A client that is gone without a word is noticed in about 20 seconds; the server then lets go of our locks. */
static const char session[] =
    "SET client_min_messages = warning; SET bytea_output = hex; SET standard_conforming_strings = on;"
    "SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3;"
    "SET idle_in_transaction_session_timeout = '60s'";
/* Others wait for the head of the books meanwhile. */
static const char among_nodes[] = "SET idle_in_transaction_session_timeout = '10s'";

/* ---- the schema ---- */

static bool is_word(char c) {
    return isalnum((unsigned char)c) || c == '_';
}

void postgres_translate(struct buf *out, const char *p) {
    static const struct {
        const char *from, *to;
    } words[] = {
        {"INTEGER PRIMARY KEY", "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY"},
        {"INTEGER", "BIGINT"},
        {"BLOB", "BYTEA"},
        {"TEXT", "TEXT COLLATE \"C\""}, /* sorts as SQLite does */
        {"STRICT, WITHOUT ROWID", ""},
        {"STRICT", ""},
        {"x'", "'\\x"},
    };
    char before = ' ';
    for (bool quoted = false; *p != 0;) {
        size_t i = 0, n = 0;
        for (; !quoted && !is_word(before) && i < sizeof words / sizeof *words; i++) {
            n = strlen(words[i].from);
            if (strncmp(p, words[i].from, n) == 0 && (!is_word(p[n]) || !is_word(words[i].from[n - 1])))
                break;
            n = 0;
        }
        if (n > 0)
            buf_text(out, words[i].to);
        else
            buf_byte(out, *p);
        p += n > 0 ? n : 1;
        before = p[-1];
        quoted = before == '\'' ? !quoted : quoted;
    }
}

static int version_of(struct postgres *s, int64_t *version, struct error *e) {
    PGresult *r = last_result(s, PQsendQuery(s->db, "SELECT version FROM books_version"));
    int rc = PQresultStatus(r) == PGRES_TUPLES_OK ? 0 : postgres_fail(s, r, e);
    *version = rc == 0 && PQntuples(r) == 1 ? strtoll(PQgetvalue(r, 0, 0), NULL, 10) : -1;
    PQclear(r);
    return rc;
}

static int migrate_step(struct postgres *s, int64_t at, struct error *e) {
    struct buf sql = {0};
    postgres_translate(&sql, schema_migrations[at]);
    buf_printf(&sql, "UPDATE books_version SET version = %d", (int)at + 1);
    int rc = sql.failed ? error_set(e, ERR_NO_MEMORY, "no memory for the schema") : run_now(s, sql.p, e);
    buf_free(&sql);
    return rc;
}

#define THE_BOOKS "(1970169698, hashtext(current_schema()::text))" /* the lock of who has them open */

/* In one transaction, the lock taken first: of two nodes that start together one migrates. What others have open stays as it is. */
static int migrate(struct postgres *s, struct error *e) {
    int64_t at = 0;
    int known = store_version();
    int rc = run_now(s,
                     "BEGIN; SELECT pg_advisory_xact_lock(1970169697, hashtext(current_schema()::text));"
                     "CREATE TABLE IF NOT EXISTS books_version (version BIGINT NOT NULL);"
                     "INSERT INTO books_version SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM books_version)",
                     e);
    if (rc == 0 && (rc = version_of(s, &at, e)) == 0)
        rc = schema_check(at, e);
    bool old = rc == 0 && at > 0 && at < known;
    if (old && (rc = is_setting(s, "SELECT pg_try_advisory_xact_lock" THE_BOOKS, "t", e)) >= 0)
        rc = rc == 1
                 ? 0
                 : error_set(e, ERR_CONFLICT,
                             "the books are of version %d and other nodes have them open: stop those, and "
                             "start this one first",
                             (int)at);
    for (; rc == 0 && at < known; at++)
        rc = migrate_step(s, at, e);
    return rc == 0 ? run_now(s, "COMMIT", e) : rc;
}

/* ---- connecting ---- */

static void be_silent(void *context, const PGresult *r) {}

static const char *const option_names[] = {"dbname",           "application_name", "client_encoding",
                                           "connect_timeout",  "keepalives_idle",  "keepalives_interval",
                                           "keepalives_count", "tcp_user_timeout", NULL};

/* The connection is made: may it be used? */
static int set_up(struct postgres *s, struct error *e) {
    int rc;
    if (s->db == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the books");
    if (PQstatus(s->db) != CONNECTION_OK)
        return postgres_fail(s, NULL, e);
    PQsetNoticeReceiver(s->db, be_silent, NULL);
    if ((rc = run_now(s, session, e)) != 0 || (rc = check_server(s, e)) != 0 ||
        (s->company == POSTGRES_SHARED && (rc = run_now(s, among_nodes, e)) != 0))
        return rc;
    return migrate(s, e);
}

/* The lock of the session, which ends with it: a server that was killed has it for a moment still. */
static int be_in_company(struct postgres *s, int tries, struct error *e) {
    bool alone = s->company == POSTGRES_ALONE;
    int rc = s->company != POSTGRES_BESIDE ? 0 : 1;
    for (int i = 0; i < tries && rc == 0; i++) {
        if (i > 0)
            usleep(100000);
        rc = is_setting(s,
                        alone ? "SELECT pg_try_advisory_lock" THE_BOOKS
                              : "SELECT pg_try_advisory_lock_shared" THE_BOOKS,
                        "t", e);
    }
    return rc == 0 ? error_set(e, ERR_CONFLICT, "another unkai has the books of this database open")
                   : (rc < 0 ? rc : 0);
}

static int start_pipeline(struct postgres *s, struct error *e) {
    return PQsetnonblocking(s->db, 1) == 0 && PQenterPipelineMode(s->db) == 1 ? 0 : postgres_fail(s, NULL, e);
}

int postgres_connect(struct postgres *s, struct error *e) {
    const char *const value[] = {s->url, "unkai", "UTF8", "5", "10", "3", "3", "20000", NULL};
    PQconninfoOption *parsed = NULL;
    int rc = check_url(s->url, e);
    if (rc != 0)
        return rc;
    parsed = PQconninfoParse(s->url, NULL); /* what it has to say may hold the password */
    if (parsed == NULL)
        return error_set(e, ERR_INVALID, "UNKAI_DB is no address like postgresql://USER@HOST/DATABASE");
    PQconninfoFree(parsed);
    s->db = PQconnectdbParams(option_names, value, 1);
    if ((rc = set_up(s, e)) != 0 || (rc = be_in_company(s, 30, e)) != 0)
        return rc;
    return start_pipeline(s, e);
}

/* ---- again ---- */

/* While the old connection lives, the transaction whose commit was not answered may still be done. A number that the server does not know is of one that is over. */
static int wait_until_over(struct postgres *s, struct error *e) {
    const char *const value[] = {s->committing};
    if (s->committing[0] == 0)
        return 0;
    PGresult *r =
        last_result(s, PQsendQueryParams(s->db, "SELECT coalesce(pg_xact_status($1::text::xid8), 'unknown')",
                                         1, NULL, value, NULL, NULL, 0));
    const char *state = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    int rc = 0;
    if (PQresultStatus(r) == PGRES_TUPLES_OK) {
        if (strcmp(PQgetvalue(r, 0, 0), "in progress") == 0)
            rc = error_set(e, ERR_UNAVAILABLE, "the books' database is not done with the last transaction");
    } else if (state == NULL || strcmp(state, "22023") != 0) {
        rc = postgres_fail(s, r, e);
    }
    PQclear(r);
    return rc;
}

static int take_over(struct postgres *s, struct error *e) {
    PQfinish(s->db);
    s->db = s->next;
    s->next = NULL;
    int rc = set_up(s, e);
    if (rc == 0 &&
        be_in_company(s, 1, e) != 0) /* our old connection has it, or somebody else who found it free */
        rc = e->code = ERR_UNAVAILABLE;
    if (rc == 0 && (rc = wait_until_over(s, e)) == 0)
        rc = start_pipeline(s, e);
    return rc;
}

int postgres_reconnect(struct postgres *s, struct error *e) {
    const char *const value[] = {s->url, "unkai", "UTF8", "5", "10", "3", "3", "20000", NULL};
    if (s->next == NULL) {
        s->next = PQconnectStartParams(option_names, value, 1);
        s->next_until = clock_mono_ns() + CONNECT_NS;
        return s->next != NULL ? 1 : error_set(e, ERR_UNAVAILABLE, "no memory for a connection");
    }
    PostgresPollingStatusType at = PQconnectPoll(s->next);
    if (at == PGRES_POLLING_OK)
        return take_over(s, e);
    if (at != PGRES_POLLING_FAILED && clock_mono_ns() < s->next_until)
        return 1;
    PQfinish(s->next);
    s->next = NULL;
    return error_set(e, ERR_UNAVAILABLE, "the books' database does not answer");
}
