/* What the files of the bills share: a period of the books, documents that are written one way only, and the operations. */
#ifndef CLOUD_BILL_BILL_H
#define CLOUD_BILL_BILL_H

#include "cloud/bill/tax.h"
#include "cloud/calendar.h"
#include "cloud/inner.h"

/* The transfers of a month: from the first that was posted in it to the one before the next month's first. */
struct period {
    int64_t id, first_seq, last_seq; /* last_seq of a running month: the newest transfer */
    int64_t closed;                  /* when; 0: open */
    int64_t zone, from, to;          /* the month, in nanoseconds */
    char month[CALENDAR_MONTH];
};
/* month "": the oldest one that is open. ERR_NOT_FOUND: nothing was posted in it. */
int period_find(struct store *s, struct str month, struct period *out, struct error *e);

/* A JSON value written the one way in which it is hashed and signed: members sorted by their names' bytes, no space, as RFC 8785 for the strings, whole numbers
 * and structures that occur here. */
void canonical_write(struct buf *out, const struct json *v);
/* Parse `text` and write it so. */
int canonical(struct buf *out, struct str text, struct error *e);

/* "2026-11", and where it and the next month begin. */
bool month_parse(struct str text, char month[CALENDAR_MONTH]);
void month_bounds(const char *month, int64_t zone, int64_t *from, int64_t *to);
/* "2026-11-30T15:00:00Z", and back (INT64_MIN: it is not written so). */
void time_write(struct buf *out, int64_t at);
int64_t time_read(struct str text);

void bill_hex(struct buf *out, struct str bytes);
bool bill_unhex(struct str hex, void *out, size_t bytes);

/* How many rows a page of an export may have: "rows" of the request, at most 2,000, so that the writer waits some milliseconds for one. */
int64_t bill_page(const struct json *args);
/* Where the sum of two amounts is no amount. */
int bill_add(amount *sum, amount value, struct error *e);

extern const struct operation_row close_operations[], invoice_operations[], payment_operations[],
    focus_operations[], events_operations[];

#endif
