/* The tables of the books; see schema.h and docs/books.md. Money is integers: amounts of 10^-9, prices of 10^-12 a token. Times are nanoseconds
 * since 1970. */
#include "store/schema.h"
#include "store/store.h"

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
    /* 2: the chain over the journal, pending transfers, periods, roll-ups, limits, idempotency, billing, the owner's assets, administration.
     * Written in words that PostgreSQL takes too once its driver has replaced the types; see store.h. */
    "DROP TABLE posting;"
    "DROP INDEX request_by_tenant;"                          /* usage_day is read instead */
    "UPDATE account SET remainder = remainder * 1000000000;" /* 10^-12 became 10^-21 */
    "ALTER TABLE account ADD COLUMN pending_debit INTEGER NOT NULL DEFAULT 0;" /* what pending transfers and holds may still take */
    "ALTER TABLE account ADD COLUMN pending_credit INTEGER NOT NULL DEFAULT 0;" /* and bring */
    "ALTER TABLE account ADD COLUMN flags INTEGER NOT NULL DEFAULT 0;"          /* enum account_flag */
    "ALTER TABLE account ADD COLUMN line INTEGER NOT NULL DEFAULT 0;" /* credit line: how far below zero it may go */
    "UPDATE account SET flags = 1 WHERE id IN (SELECT account FROM tenant);"
    "UPDATE account SET pending_debit = coalesce((SELECT CAST(sum(r.hold) AS BIGINT) FROM request r"
    " JOIN tenant t ON t.id = r.tenant WHERE t.account = account.id AND r.state = 'open'), 0);"
    "ALTER TABLE transfer ADD COLUMN phase INTEGER NOT NULL DEFAULT 0;" /* enum transfer_phase */
    "ALTER TABLE transfer ADD COLUMN about TEXT NOT NULL DEFAULT '';" /* the id of the transfer that it posts, voids, expires or reverses */
    "ALTER TABLE transfer ADD COLUMN period INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE transfer ADD COLUMN note TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE transfer ADD COLUMN hash BLOB NOT NULL DEFAULT x'';" /* of this row, what it settles, and the hash before */
    "CREATE VIEW posting AS SELECT seq AS transfer, debit AS account, -amount AS amount FROM transfer"
    " WHERE phase IN (0, 2) UNION ALL SELECT seq, credit, amount FROM transfer WHERE phase IN (0, 2);"
    "CREATE INDEX transfer_about ON transfer (about) WHERE about <> '';"
    "CREATE INDEX transfer_other ON transfer (seq) WHERE kind <> 'settle';" /* few: what bills read beside the roll-ups */
    "CREATE TABLE pending (transfer INTEGER PRIMARY KEY REFERENCES transfer(seq), expires INTEGER NOT NULL) "
    "STRICT;" /* open ones alone */
    /* The head of the books, one row: who writes locks it. */
    "CREATE TABLE book (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL,"
    " period INTEGER NOT NULL, zone INTEGER NOT NULL," /* zone: minutes east of UTC, where a month begins */
    /* Of books that nodes share (shared.c): the number of the last transaction, and of those that last changed prices, and anything else that nodes keep in mind. */
    " turn INTEGER NOT NULL DEFAULT 0, prices INTEGER NOT NULL DEFAULT 0, rest INTEGER NOT NULL DEFAULT 0,"
    " seal BLOB NOT NULL DEFAULT x'') STRICT;" /* of the secret that the keys' hashes are made with */
    /* turn: the transaction of a node that changed the row last. */
    "ALTER TABLE account ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;"
    "CREATE INDEX account_turn ON account (turn);"
    "ALTER TABLE tenant ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;" /* and of its keys and limits */
    "CREATE INDEX tenant_turn ON tenant (turn);"
    "CREATE TABLE period (id INTEGER PRIMARY KEY, month TEXT NOT NULL UNIQUE, first_seq INTEGER NOT NULL,"
    " last_seq INTEGER NOT NULL, closed INTEGER NOT NULL, root BLOB NOT NULL, statement TEXT NOT NULL,"
    " signature BLOB NOT NULL) STRICT;" /* open: last_seq 0, closed 0 */
    "CREATE TABLE rate (id INTEGER PRIMARY KEY, base TEXT NOT NULL, quote TEXT NOT NULL, value INTEGER NOT "
    "NULL,"
    " since INTEGER NOT NULL, created INTEGER NOT NULL DEFAULT 0) STRICT;" /* 10^-9 quote for one base; created: when it was entered */
    "ALTER TABLE price ADD COLUMN created INTEGER NOT NULL DEFAULT 0;"
    "UPDATE price SET created = since;"
    "ALTER TABLE price ADD COLUMN note TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE request ADD COLUMN node TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE request ADD COLUMN route TEXT NOT NULL DEFAULT '';"
    "ALTER TABLE request ADD COLUMN rate INTEGER NOT NULL DEFAULT 1000000000;" /* of exchange, pinned with the price */
    "ALTER TABLE request ADD COLUMN prefill_ns INTEGER NOT NULL DEFAULT 0;" /* the part of chip_ns that went into the prompt */
    /* What finished requests come to, kept in the transaction that settles them. */
    "CREATE TABLE usage_day (period INTEGER NOT NULL, day TEXT NOT NULL, tenant INTEGER NOT NULL, key "
    "INTEGER NOT NULL,"
    " model TEXT NOT NULL, price INTEGER NOT NULL, rate INTEGER NOT NULL, requests INTEGER NOT NULL,"
    " cancelled INTEGER NOT NULL, failed INTEGER NOT NULL, prompt INTEGER NOT NULL, cached INTEGER NOT NULL,"
    " completion INTEGER NOT NULL, charge INTEGER NOT NULL, chip_ns INTEGER NOT NULL, prefill_ns INTEGER NOT "
    "NULL,"
    " PRIMARY KEY (tenant, period, day, key, model, price, rate)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX usage_day_by_day ON usage_day (day);" /* of all tenants */
    /* Limits: key 0 is the tenant's own row; 0 or '' is no limit. */
    "ALTER TABLE key ADD COLUMN expires INTEGER NOT NULL DEFAULT 0;"
    "CREATE TABLE limits (tenant INTEGER NOT NULL REFERENCES tenant(id), key INTEGER NOT NULL,"
    " requests_minute INTEGER NOT NULL, tokens_minute INTEGER NOT NULL, concurrent INTEGER NOT NULL,"
    " spend_day INTEGER NOT NULL, spend_month INTEGER NOT NULL, credit_low INTEGER NOT NULL, models TEXT NOT "
    "NULL, addresses TEXT NOT "
    "NULL,"
    " warn TEXT NOT NULL, PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID;" /* models, addresses: JSON arrays; warn: percents */
    /* What is used of limits, where nodes share the books (struct used in cloud/limit.h). */
    "CREATE TABLE used (tenant INTEGER NOT NULL, key INTEGER NOT NULL, turn INTEGER NOT NULL, at INTEGER NOT "
    "NULL,"
    " requests INTEGER NOT NULL, tokens INTEGER NOT NULL," /* buckets: how far from full at `at`, in ns */
    " open INTEGER NOT NULL, held INTEGER NOT NULL, day INTEGER NOT NULL, day_spent INTEGER NOT NULL,"
    " last_day INTEGER NOT NULL, last_day_spent INTEGER NOT NULL, month INTEGER NOT NULL,"
    " month_spent INTEGER NOT NULL, last_month INTEGER NOT NULL, last_month_spent INTEGER NOT NULL,"
    " PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX used_turn ON used (turn);"
    "CREATE TABLE idempotency (tenant INTEGER NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL, request TEXT "
    "NOT NULL,"
    " at INTEGER NOT NULL, status INTEGER NOT NULL, type TEXT NOT NULL, answer BLOB NOT NULL,"
    " PRIMARY KEY (tenant, key)) STRICT, WITHOUT ROWID;" /* key, body: hashes; status: enum answer_status, or of HTTP */
    "CREATE INDEX idempotency_at ON idempotency (at);"
    "CREATE INDEX idempotency_running ON idempotency (request) WHERE status = 0;"
    "CREATE TABLE webhook (id INTEGER PRIMARY KEY, tenant INTEGER NOT NULL, url TEXT NOT NULL, secret BLOB "
    "NOT NULL,"
    " events TEXT NOT NULL, created INTEGER NOT NULL, disabled INTEGER NOT NULL) STRICT;" /* tenant 0: of the operator */
    "CREATE TABLE delivery (id INTEGER PRIMARY KEY, webhook INTEGER NOT NULL REFERENCES webhook(id), event "
    "TEXT NOT NULL,"
    " kind TEXT NOT NULL, body TEXT NOT NULL, created INTEGER NOT NULL, due INTEGER NOT NULL, attempts "
    "INTEGER NOT NULL,"
    " state TEXT NOT NULL, note TEXT NOT NULL, UNIQUE (webhook, event)) STRICT;" /* note: how the last attempt went */
    "CREATE INDEX delivery_due ON delivery (due) WHERE state = 'due';"
    /* Bills. */
    "CREATE TABLE party (tenant INTEGER PRIMARY KEY, profile TEXT NOT NULL) STRICT;" /* JSON: name, address, country, tax; tenant 0: who sends the invoices */
    "CREATE TABLE invoice (id INTEGER PRIMARY KEY, number TEXT NOT NULL UNIQUE, tenant INTEGER NOT NULL,"
    " period INTEGER NOT NULL, kind TEXT NOT NULL, about TEXT NOT NULL, issued INTEGER NOT NULL, currency "
    "TEXT NOT NULL,"
    " net INTEGER NOT NULL, tax INTEGER NOT NULL, total INTEGER NOT NULL, document TEXT NOT NULL, hash BLOB "
    "NOT NULL) STRICT;"
    "CREATE UNIQUE INDEX invoice_once ON invoice (tenant, period) WHERE kind = 'invoice';" /* one taken back is 'cancelled' */
    "CREATE TABLE series (name TEXT PRIMARY KEY, last INTEGER NOT NULL) STRICT, WITHOUT ROWID;" /* the newest number of each */
    /* The owner's. */
    "CREATE TABLE asset (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, profile TEXT NOT NULL, created "
    "INTEGER NOT NULL,"
    " retired INTEGER NOT NULL) STRICT;" /* JSON: what owner/ reads */
    "CREATE TABLE expense (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, profile TEXT NOT NULL, created "
    "INTEGER NOT NULL,"
    " retired INTEGER NOT NULL) STRICT;"
    /* Of all nodes together, by the quarter of an hour that begins at `at`: how long chips could have worked and did; energy measured, and for how long. */
    "CREATE TABLE chip_time (at INTEGER NOT NULL, available_ns INTEGER NOT NULL, busy_ns INTEGER NOT NULL,"
    " energy_uj INTEGER NOT NULL, measured_ns INTEGER NOT NULL, PRIMARY KEY (at)) STRICT, WITHOUT ROWID;"
    /* Administration. */
    "ALTER TABLE tenant ADD COLUMN archived INTEGER NOT NULL DEFAULT 0;" /* when; 0: it is not */
    "CREATE TABLE admin_key (id INTEGER PRIMARY KEY, name TEXT NOT NULL, role TEXT NOT NULL, hash BLOB NOT "
    "NULL UNIQUE,"
    " created INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER NOT NULL) STRICT;"
    "CREATE TABLE audit (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, actor TEXT NOT NULL, role TEXT NOT "
    "NULL,"
    " operation TEXT NOT NULL, target TEXT NOT NULL, request TEXT NOT NULL, outcome TEXT NOT NULL) STRICT;"
    "CREATE TABLE node (name TEXT PRIMARY KEY, seen INTEGER NOT NULL, started INTEGER NOT NULL) STRICT, "
    "WITHOUT ROWID;"
    "CREATE INDEX request_of_node ON request (node) WHERE state = 'open';",
    NULL,
};

int store_version(void) {
    int known = 0;
    while (schema_migrations[known] != NULL)
        known++;
    return known;
}

int schema_check(int64_t at, struct error *e) {
    int known = store_version();
    if (at < 0)
        return error_set(e, ERR_CORRUPT, "the books have no version");
    if (at > known)
        return error_set(e, ERR_UNSUPPORTED,
                         "the books are of version %d, this program knows %d: use a newer unkai", (int)at,
                         known);
    return 0;
}
