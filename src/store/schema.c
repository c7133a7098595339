/* The tables of the books; see schema.h and docs/books.md. Money is integers: amounts of 10^-9, prices of 10^-12 a token. Times are nanoseconds
 * since 1970. */
#include "store/schema.h"

#include <stddef.h>

const char *const schema_migrations[] = {
    /* 1: ledger, tenants, keys, prices, requests */
    "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, currency TEXT NOT NULL,"
    " balance INTEGER NOT NULL, remainder INTEGER NOT NULL) STRICT;"
    "CREATE TABLE transfer (seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at INTEGER NOT NULL,"
    " kind TEXT NOT NULL, debit INTEGER NOT NULL REFERENCES account(id),"
    " credit INTEGER NOT NULL REFERENCES account(id), amount INTEGER NOT NULL CHECK (amount >= 0)) STRICT;"
    "CREATE TABLE posting (transfer INTEGER NOT NULL REFERENCES transfer(seq),"
    " account INTEGER NOT NULL REFERENCES account(id), amount INTEGER NOT NULL,"
    " PRIMARY KEY (transfer, account)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE tenant (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, currency TEXT NOT NULL,"
    " account INTEGER NOT NULL REFERENCES account(id), max_concurrent INTEGER NOT NULL,"
    " created INTEGER NOT NULL) STRICT;"
    "CREATE TABLE key (id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL REFERENCES tenant(id),"
    " name TEXT NOT NULL, hash BLOB NOT NULL UNIQUE, created INTEGER NOT NULL, revoked INTEGER NOT NULL) "
    "STRICT;"
    "CREATE TABLE price (id INTEGER PRIMARY KEY, model TEXT NOT NULL, currency TEXT NOT NULL,"
    " input INTEGER NOT NULL, cached INTEGER NOT NULL, output INTEGER NOT NULL, since INTEGER NOT NULL) "
    "STRICT;"
    "CREATE TABLE request (id TEXT PRIMARY KEY, tenant INTEGER NOT NULL REFERENCES tenant(id),"
    " key INTEGER NOT NULL, model TEXT NOT NULL, price INTEGER NOT NULL, at INTEGER NOT NULL,"
    " prompt INTEGER NOT NULL, most INTEGER NOT NULL, hold INTEGER NOT NULL, sent INTEGER NOT NULL,"
    " cached INTEGER NOT NULL, state TEXT NOT NULL, charge INTEGER NOT NULL, chip_ns INTEGER NOT NULL,"
    " first_token_ns INTEGER NOT NULL, total_ns INTEGER NOT NULL) STRICT, WITHOUT ROWID;"
    "CREATE INDEX request_by_tenant ON request (tenant, model);"
    "CREATE INDEX request_open ON request (state) WHERE state = 'open';",
    NULL,
};
