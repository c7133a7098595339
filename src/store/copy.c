/* The books from one database to another, row by row. What tables there are, and of which columns, is asked of a SQLite database in memory that the migrations have just made: the schema stands
 * in one place. */
#include "store/driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TABLES = 64, TELL_EVERY = 1000 };

struct table {
    char *name, *select, *insert, *count;
    int columns;
    char type[STORE_PARAMETERS]; /* of SQLite's words the first letter: INTEGER, TEXT, BLOB */
    int64_t rows;
};

struct tables {
    struct table table[TABLES];
    int n;
};

static void free_tables(struct tables *t) {
    for (int i = 0; i < t->n; i++) {
        free(t->table[i].name);
        free(t->table[i].select);
        free(t->table[i].insert);
        free(t->table[i].count);
    }
    free(t);
}

/* ---- what there is ---- */

static int describe(struct store *shape, struct table *t, struct error *e) {
    struct buf select = {0}, insert = {0}, values = {0}, count = {0};
    struct query *q;
    int rc = store_query(shape, &q, "SELECT name, type FROM pragma_table_info($1) ORDER BY cid", e);
    if (rc != 0)
        return rc;
    query_text(q, 1, str_from(t->name));
    buf_text(&select, "SELECT ");
    buf_printf(&insert, "INSERT INTO \"%s\" (", t->name);
    while ((rc = query_step(q, e)) > 0 && t->columns < STORE_PARAMETERS) {
        struct str name = query_column_text(q, 0), type = query_column_text(q, 1);
        const char *comma = t->columns > 0 ? ", " : "";
        buf_printf(&select, "%s\"%.*s\"", comma, (int)name.n, name.p);
        buf_printf(&insert, "%s\"%.*s\"", comma, (int)name.n, name.p);
        buf_printf(&values, "%s$%d", comma, t->columns + 1);
        t->type[t->columns++] = type.p[0];
    }
    buf_printf(&select, " FROM \"%s\"", t->name);
    buf_printf(&insert, ") VALUES (%s)", values.p);
    buf_printf(&count, "SELECT count(*) FROM \"%s\"", t->name);
    buf_free(&values);
    t->select = select.p;
    t->insert = insert.p;
    t->count = count.p;
    if (rc > 0)
        return error_set(e, ERR_INTERNAL, "the table %s has too many columns to be copied", t->name);
    return rc != 0 || (!select.failed && !insert.failed && !count.failed)
               ? rc
               : error_set(e, ERR_NO_MEMORY, "no memory for a copy");
}

/* In the order in which they were made: a row comes behind those that it refers to. */
static int list_tables(struct tables **out, struct error *e) {
    struct store *shape;
    struct query *q;
    struct tables *t = *out = calloc(1, sizeof *t);
    if (t == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a copy");
    int rc = store_open_file(&shape, ":memory:", false, e);
    if (rc == 0)
        rc = store_query(shape, &q, "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY rowid", e);
    while (rc == 0 && (rc = query_step(q, e)) > 0) {
        struct str name = query_column_text(q, 0);
        rc = 0;
        if (str_starts(name, STR("sqlite_")))
            continue;
        if (t->n == TABLES || (t->table[t->n].name = strndup(name.p, name.n)) == NULL)
            rc = error_set(e, ERR_NO_MEMORY, "no memory for a copy");
        else
            t->n++;
    }
    for (int i = 0; rc == 0 && i < t->n; i++)
        rc = describe(shape, &t->table[i], e);
    store_close(shape);
    return rc;
}

static int count_rows(struct store *s, const struct table *t, int64_t *n, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, t->count, e);
    if (rc != 0 || (rc = query_step(q, e)) < 0)
        return rc;
    *n = query_column_int(q, 0);
    return query_run(q, e);
}

/* ---- copying ---- */

struct copying {
    struct store *from, *to;
    const struct progress *progress;
    int64_t done, total;
};

static void tell(const struct copying *c) {
    if (c->progress->tell != NULL)
        c->progress->tell(c->progress->context, c->done, c->total);
}

static int copy_table(struct copying *c, const struct table *t, struct error *e) {
    struct query *from, *to;
    int rc = store_query(c->from, &from, t->select, e);
    while (rc == 0 && (rc = query_step(from, e)) > 0) {
        if ((rc = store_query(c->to, &to, t->insert, e)) != 0)
            return rc;
        for (int i = 0; i < t->columns; i++)
            if (t->type[i] == 'I')
                query_int(to, i + 1, query_column_int(from, i));
            else if (t->type[i] == 'B')
                query_blob(to, i + 1, query_column_text(from, i));
            else
                query_text(to, i + 1, query_column_text(from, i));
        rc = query_run(to, e);
        if (++c->done % TELL_EVERY == 0)
            tell(c);
    }
    return rc;
}

/* What opening made in the empty books is in the copy too. */
static int clear(struct store *s, struct error *e) {
    struct query *q;
    int rc = store_query(s, &q, "DELETE FROM book", e);
    if (rc == 0 && (rc = query_run(q, e)) == 0)
        rc = store_query(s, &q, "DELETE FROM period", e);
    return rc != 0 ? rc : query_run(q, e);
}

static int copy_all(struct copying *c, struct tables *t, struct error *e) {
    int rc = store_begin_reading(c->from, e);
    for (int i = 0; rc == 0 && i < t->n; i++)
        if ((rc = count_rows(c->from, &t->table[i], &t->table[i].rows, e)) == 0)
            c->total += t->table[i].rows;
    if (rc != 0 || (rc = store_begin(c->to, e)) != 0 || (rc = clear(c->to, e)) != 0)
        return rc;
    for (int i = 0; rc == 0 && i < t->n; i++)
        rc = copy_table(c, &t->table[i], e);
    if (rc != 0 || (rc = c->to->driver->renumber(c->to, e)) != 0 || (rc = store_commit(c->to, e)) != 0)
        return rc;
    for (int i = 0; i < t->n; i++) {
        int64_t n;
        if ((rc = count_rows(c->to, &t->table[i], &n, e)) != 0)
            return rc;
        if (n != t->table[i].rows)
            return error_set(e, ERR_CORRUPT, "%lld of %lld rows of %s have arrived", (long long)n,
                             (long long)t->table[i].rows, t->table[i].name);
    }
    tell(c);
    return 0;
}

int store_copy(struct store *from, struct store *to, const struct progress *progress, int64_t *rows,
               struct error *e) {
    struct copying c = {.from = from, .to = to, .progress = progress};
    struct tables *t;
    from->patient = to->patient = true; /* they are of nobody who waits */
    int rc = list_tables(&t, e);
    if (rc == 0)
        rc = copy_all(&c, t, e);
    store_rollback(from);
    if (rc != 0)
        store_rollback(to);
    store_forget(from);
    store_forget(to);
    free_tables(t);
    *rows = c.done;
    return rc;
}

int store_is_empty(struct store *s, bool *empty, struct error *e) {
    struct tables *t;
    int64_t n = 0, in_all = 0;
    s->patient = true;
    int rc = list_tables(&t, e);
    for (int i = 0; rc == 0 && i < t->n; i++)
        if (strcmp(t->table[i].name, "book") != 0 && strcmp(t->table[i].name, "period") != 0 &&
            strcmp(t->table[i].name, "node") != 0) {
            rc = count_rows(s, &t->table[i], &n, e);
            in_all += n;
        }
    *empty = in_all == 0;
    store_forget(s);
    free_tables(t);
    return rc;
}
