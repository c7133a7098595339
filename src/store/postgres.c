/* The books in PostgreSQL: one connection in pipeline mode. What changes rows is only sent, many statements a round trip; the results are read when somebody asks for
 * rows, and at the commit. On the yen's journey: where a charge becomes durable. */
#include "store/postgres.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { SEND_EVERY = 64, LOOKS = 100, LOOK_MS = 100, INT_OID = 20, TEXT_OID = 25, BYTES_OID = 17 };

struct value {
    Oid type; /* 0: not bound */
    struct buf bytes;
};

struct postgres_query {
    struct query base;
    char name[24];
    bool prepared, running;
    int parameters, used; /* used: the highest that was ever bound, plus one */
    struct value value[STORE_PARAMETERS];
    PGresult *result; /* the rows that are being read */
    int row;
    uint64_t decoded; /* columns of this row whose bytes are no longer in hexadecimal */
    PGresult **ahead; /* further ones, read since the connection was wanted for something else */
    size_t aheads, next;
};

static struct postgres *postgres_of(struct store *s) {
    return (struct postgres *)(void *)s;
}

static struct postgres_query *query_of(struct query *q) {
    return (struct postgres_query *)(void *)q;
}

/* ---- results ---- */

/* The first error stays until the transaction ends: what was sent behind it was not done. */
static int note(struct postgres *s, const PGresult *r) {
    if (s->rc == 0)
        s->rc = postgres_fail(s, r, &s->error);
    return s->rc;
}

static int failed(const struct postgres *s, struct error *e) {
    if (s->rc != 0 && e != NULL)
        *e = s->error;
    return s->rc;
}

/* In pieces: when we were stopped ourselves, that is no time that we have waited. */
static bool wait_for_server(struct postgres *s, bool to_send) {
    struct pollfd p = {.fd = PQsocket(s->db), .events = (short)(POLLIN | (to_send ? POLLOUT : 0))};
    for (int i = 0; i < LOOKS || s->base.patient; i++) {
        int n = poll(&p, 1, LOOK_MS);
        if (n < 0 && errno != EINTR)
            return false;
        if (n > 0)
            return (p.revents & (POLLIN | POLLERR | POLLHUP)) == 0 || PQconsumeInput(s->db) != 0;
    }
    shutdown(p.fd, SHUT_RDWR); /* for libpq it is gone then */
    return PQconsumeInput(s->db) != 0;
}

PGresult *postgres_result(struct postgres *s) {
    for (;;) {
        int left = PQflush(s->db);
        if (left < 0 || !PQisBusy(s->db) || !wait_for_server(s, left > 0))
            return PQgetResult(s->db);
    }
}

static bool gone(struct postgres *s) {
    if (PQstatus(s->db) != CONNECTION_BAD)
        return false;
    s->pending = 0;
    s->reading = NULL;
    note(s, NULL);
    return true;
}

/* Read one statement's results to their end. */
static void skip_statement(struct postgres *s) {
    PGresult *r;
    s->pending--;
    while ((r = postgres_result(s)) != NULL) {
        ExecStatusType status = PQresultStatus(r);
        if (status == PGRES_FATAL_ERROR)
            note(s, r);
        s->changed = strtoll(PQcmdTuples(r), NULL, 10);
        PQclear(r);
        if (gone(s))
            return;
    }
}

static void read_ahead(struct postgres *s);

/* Read the results of all that was sent but the last `keep`. */
static void read_pending(struct postgres *s, int keep) {
    read_ahead(s);
    while (s->pending > keep && !gone(s))
        skip_statement(s);
}

static void read_sync(struct postgres *s) {
    if (gone(s))
        return;
    PGresult *r = postgres_result(s);
    if (r != NULL && PQresultStatus(r) != PGRES_PIPELINE_SYNC)
        note(s, r);
    PQclear(r);
    gone(s);
}

/* End what is under way with a sync, behind which the connection is good for use again. */
static void synchronise(struct postgres *s) {
    if (gone(s) || PQpipelineSync(s->db) == 0)
        note(s, NULL);
    read_pending(s, 0);
    read_sync(s);
}

/* ---- a query's rows ---- */

static void drop_rows(struct postgres_query *q) {
    PQclear(q->result);
    for (; q->next < q->aheads; q->next++)
        PQclear(q->ahead[q->next]);
    free(q->ahead);
    q->result = NULL;
    q->ahead = NULL;
    q->aheads = q->next = 0;
}

static void end_reading(struct postgres *s) {
    s->reading = NULL;
    s->pending--;
    if (!s->writing)
        read_sync(s);
}

/* The next piece from the connection, NULL when there is none. */
static PGresult *receive_rows(struct postgres *s) {
    PGresult *r;
    while ((r = postgres_result(s)) != NULL) {
        ExecStatusType status = PQresultStatus(r);
        if (status == PGRES_SINGLE_TUPLE || (status == PGRES_TUPLES_OK && PQntuples(r) > 0))
            return r;
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK && status != PGRES_PIPELINE_ABORTED)
            note(s, r);
        s->changed = strtoll(PQcmdTuples(r), NULL, 10);
        PQclear(r);
        if (gone(s))
            return NULL;
    }
    end_reading(s);
    return NULL;
}

/* The connection is wanted: what the query that reads has not read yet is kept in memory. */
static void read_ahead(struct postgres *s) {
    struct postgres_query *q = s->reading;
    PGresult *r;
    while (s->reading != NULL && (r = receive_rows(s)) != NULL) {
        PGresult **more = realloc(q->ahead, (q->aheads + 1) * sizeof(PGresult *));
        if (more == NULL) {
            PQclear(r);
            s->rc = s->rc != 0 ? s->rc : error_set(&s->error, ERR_NO_MEMORY, "no memory for rows");
            continue;
        }
        q->ahead = more;
        q->ahead[q->aheads++] = r;
    }
}

/* ---- statements ---- */

static int count_parameters(const char *sql) {
    int most = 0;
    for (const char *p = strchr(sql, '$'); p != NULL; p = strchr(p + 1, '$'))
        most = atoi(p + 1) > most ? atoi(p + 1) : most;
    return most;
}

static int prepare(struct store *base, struct query **out, const char *sql, struct error *e) {
    struct postgres *s = postgres_of(base);
    struct postgres_query *q = calloc(1, sizeof *q);
    if (q == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a query");
    q->parameters = count_parameters(sql);
    snprintf(q->name, sizeof q->name, "q%lld", (long long)s->names++);
    *out = &q->base;
    return 0;
}

static void forget(struct query *base) {
    struct postgres_query *q = query_of(base);
    struct postgres *s = postgres_of(base->store);
    if (s->reading == q)
        read_ahead(s);
    drop_rows(q);
    for (int i = 0; i < STORE_PARAMETERS; i++)
        buf_free(&q->value[i].bytes);
    free(q);
}

static void reset(struct query *base) {
    struct postgres_query *q = query_of(base);
    struct postgres *s = postgres_of(base->store);
    if (s->reading == q)
        read_ahead(s);
    drop_rows(q);
    q->running = false;
    for (int i = 0; i < q->used; i++)
        q->value[i].type = 0;
}

static void bind_value(struct query *base, int parameter, Oid type, const void *p, size_t n) {
    struct postgres_query *q = query_of(base);
    struct value *v = &q->value[parameter - 1];
    v->type = type;
    buf_clear(&v->bytes);
    buf_append(&v->bytes, p, n);
    q->used = parameter > q->used ? parameter : q->used;
}

static void bind_int(struct query *q, int parameter, int64_t value) {
    uint64_t big = htobe64((uint64_t)value);
    bind_value(q, parameter, INT_OID, &big, sizeof big);
}

static void bind_text(struct query *q, int parameter, struct str value) {
    bind_value(q, parameter, TEXT_OID, value.p, value.n);
}

static void bind_blob(struct query *q, int parameter, struct str value) {
    bind_value(q, parameter, BYTES_OID, value.p, value.n);
}

/* Types are said with the first use; a statement's parameters always have the same ones. */
static int prepare_now(struct postgres *s, struct postgres_query *q) {
    Oid type[STORE_PARAMETERS];
    for (int i = 0; i < q->parameters; i++)
        type[i] = q->value[i].type;
    if (PQsendPrepare(s->db, q->name, q->base.sql, q->parameters, type) == 0)
        return note(s, NULL);
    s->pending++;
    if (!s->writing)
        synchronise(s);
    else if (PQsendFlushRequest(s->db) == 0)
        note(s, NULL);
    read_pending(s, 0);
    q->prepared = s->rc == 0;
    return s->rc;
}

static int send_query(struct postgres *s, struct postgres_query *q) {
    const char *value[STORE_PARAMETERS];
    int length[STORE_PARAMETERS], format[STORE_PARAMETERS];
    read_ahead(s);
    if (s->rc != 0 || (!q->prepared && prepare_now(s, q) != 0))
        return s->rc;
    for (int i = 0; i < q->parameters; i++) {
        const struct value *v = &q->value[i];
        value[i] = v->type == 0 ? NULL : v->bytes.p != NULL ? v->bytes.p : "";
        length[i] = (int)v->bytes.n;
        format[i] = 1;
    }
    if (PQsendQueryPrepared(s->db, q->name, q->parameters, value, length, format, 0) == 0)
        return note(s, NULL);
    return ++s->pending % SEND_EVERY == 0 && PQflush(s->db) < 0 ? note(s, NULL) : 0;
}

static int send_words(struct postgres *s, const char *sql) {
    read_ahead(s);
    if (s->rc == 0 && PQsendQueryParams(s->db, sql, 0, NULL, NULL, NULL, NULL, 0) == 0)
        return note(s, NULL);
    s->pending += s->rc == 0;
    return s->rc;
}

/* Outside a transaction each query stands for itself, with its own errors. */
static void start_alone(struct postgres *s) {
    if (!s->writing && PQstatus(s->db) == CONNECTION_OK)
        s->rc = 0;
}

static int step(struct query *base, struct error *e) {
    struct postgres_query *q = query_of(base);
    struct postgres *s = postgres_of(base->store);
    if (!q->running) {
        start_alone(s);
        if (send_query(s, q) != 0 || (s->writing ? PQsendFlushRequest(s->db) : PQpipelineSync(s->db)) == 0) {
            note(s, NULL);
            return failed(s, e);
        }
        read_pending(s, 1);
        if (s->rc == 0) {
            s->reading = q;
            q->running = true;
            PQsetSingleRowMode(s->db); /* however many there are, one is in memory */
        }
    } else if (q->result != NULL && q->row + 1 < PQntuples(q->result)) {
        q->row++;
        q->decoded = 0;
        return 1;
    }
    PQclear(q->result);
    q->row = 0;
    q->decoded = 0;
    q->result = q->next < q->aheads ? q->ahead[q->next++] : s->reading == q ? receive_rows(s) : NULL;
    if (q->result != NULL)
        return 1;
    q->running = false;
    drop_rows(q);
    return failed(s, e);
}

static int run(struct query *base, struct error *e) {
    struct postgres_query *q = query_of(base);
    struct postgres *s = postgres_of(base->store);
    int rc;
    if (s->writing && !q->running) {
        send_query(s, q);
        return failed(s, e);
    }
    while ((rc = step(base, e)) > 0) {}
    return rc;
}

static int64_t column_int(struct query *base, int column) {
    const struct postgres_query *q = query_of(base);
    if (PQgetisnull(q->result, q->row, column))
        return 0;
    const char *text = PQgetvalue(q->result, q->row, column);
    return *text == 't' ? 1 : strtoll(text, NULL, 10);
}

static int digit(char c) {
    return c <= '9' ? c - '0' : c - 'a' + 10;
}

static struct str column_text(struct query *base, int column) {
    struct postgres_query *q = query_of(base);
    if (PQgetisnull(q->result, q->row, column))
        return (struct str){"", 0};
    char *p = PQgetvalue(q->result, q->row, column);
    size_t n = (size_t)PQgetlength(q->result, q->row, column);
    if (PQftype(q->result, column) != BYTES_OID || column >= 64)
        return (struct str){p, n};
    n = n / 2 - 1; /* "\x", then two digits a byte: decoded where they stand, once */
    for (size_t i = 0; i < n && (q->decoded >> column & 1) == 0; i++)
        p[i] = (char)(digit(p[2 + 2 * i]) << 4 | digit(p[3 + 2 * i]));
    q->decoded |= 1ULL << column;
    return (struct str){p, n};
}

/* ---- transactions ---- */

static int begin_with(struct store *base, const char *words, struct error *e) {
    struct postgres *s = postgres_of(base);
    if (PQstatus(s->db) == CONNECTION_OK)
        s->rc = 0;
    s->writing = true;
    send_words(s, words);
    return failed(s, e);
}

static int begin(struct store *base, struct error *e) {
    return begin_with(base, "BEGIN ISOLATION LEVEL READ COMMITTED", e);
}

static int begin_reading(struct store *base, struct error *e) {
    return begin_with(base, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", e);
}

/* Numbers come from sequences, which know nothing of rows that brought their own. */
static int renumber(struct store *base, struct error *e) {
    struct postgres *s = postgres_of(base);
    send_words(
        s, "DO $$ DECLARE c record; BEGIN FOR c IN SELECT table_name AS t, column_name AS n"
           " FROM information_schema.columns WHERE is_identity = 'YES' AND table_schema = current_schema()"
           " LOOP EXECUTE format('SELECT setval(pg_get_serial_sequence(%L, %L), coalesce(max(%I), 0) + 1,"
           " false) FROM %I', quote_ident(c.t), c.n, c.n, c.t); END LOOP; END $$");
    return failed(s, e);
}

/* Which transaction it is must be known before its commit is sent: when no answer comes, its end is waited for. */
static int name_transaction(struct postgres *s, struct error *e) {
    struct query *q;
    s->base.read = false;
    int rc = store_query(&s->base, &q, "SELECT pg_current_xact_id_if_assigned()", e);
    if (rc != 0 || (rc = step(q, e)) < 0)
        return rc;
    snprintf(s->committing, sizeof s->committing, "%s", column_text(q, 0).p);
    s->base.read = s->committing[0] == 0;
    return run(q, e);
}

static int commit(struct store *base, struct error *e) {
    struct postgres *s = postgres_of(base);
    s->committing[0] = 0;
    if (name_transaction(s, e) == 0 && send_words(s, "COMMIT") == 0)
        synchronise(s);
    if (s->rc != ERR_UNAVAILABLE)
        s->committing[0] = 0;
    s->writing = s->rc != 0;
    return failed(s, e);
}

static void rollback(struct store *base) {
    struct postgres *s = postgres_of(base);
    if (!s->writing)
        return;
    synchronise(s);
    if (PQstatus(s->db) == CONNECTION_OK && PQtransactionStatus(s->db) != PQTRANS_IDLE) {
        s->rc = 0;
        send_words(s, "ROLLBACK");
        synchronise(s);
    }
    s->writing = false;
}

static int64_t changed(struct query *base) {
    struct postgres *s = postgres_of(base->store);
    if (s->rc == 0 && s->pending > 0 && PQsendFlushRequest(s->db) == 0)
        note(s, NULL);
    read_pending(s, 0);
    return s->rc == 0 ? s->changed : 0;
}

static int reconnect(struct store *base, struct error *e) {
    struct postgres *s = postgres_of(base);
    int rc = postgres_reconnect(s, e);
    if (rc != 0)
        return rc;
    store_forget(base); /* what was prepared was so on the old connection */
    s->rc = s->pending = 0;
    s->writing = false;
    s->committing[0] = 0;
    return 0;
}

static void postgres_close(struct store *base) {
    struct postgres *s = postgres_of(base);
    PQfinish(s->db);
    PQfinish(s->next);
    free(s->url);
    free(s);
}

static const struct driver driver = {
    .close = postgres_close,
    .begin = begin,
    .begin_reading = begin_reading,
    .commit = commit,
    .rollback = rollback,
    .reconnect = reconnect,
    .prepare = prepare,
    .forget = forget,
    .reset = reset,
    .bind_int = bind_int,
    .bind_text = bind_text,
    .bind_blob = bind_blob,
    .step = step,
    .run = run,
    .changed = changed,
    .column_int = column_int,
    .column_text = column_text,
    .renumber = renumber,
};

int postgres_open(struct store **out, const char *url, enum postgres_company company, struct error *e) {
    struct postgres *s = calloc(1, sizeof *s);
    if (s == NULL || (s->url = strdup(url)) == NULL) {
        free(s);
        return error_set(e, ERR_NO_MEMORY, "no memory for the books");
    }
    s->base.driver = &driver;
    s->company = company;
    s->base.patient = true; /* a migration may take long */
    int rc = postgres_connect(s, e);
    s->base.patient = company == POSTGRES_BESIDE;
    if (rc != 0) {
        store_close(&s->base);
        return rc;
    }
    *out = &s->base;
    return 0;
}
