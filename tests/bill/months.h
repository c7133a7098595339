/* Books of several months for tests: made through the program's own calls, under a clock that the test sets. Whoever links months.c links no other clock. */
#ifndef TESTS_BILL_MONTHS_H
#define TESTS_BILL_MONTHS_H

#include "base/buf.h"

#include <stdint.h>

extern int64_t months_now;        /* what clock_wall_ns says */
void months_at(const char *time); /* "2024-01-10T12:00:00Z" */

/* Run an operation; ends the program where that fails. The answer lives until the next one. */
const char *months_ask(const char *folder, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Behind the program's back, on either database (UNKAI_DB): change something; ask for one number. */
void months_sql(const char *folder, const char *sql);
int64_t months_number(const char *folder, const char *sql);

/* January to March 2024, in Tokyo's zone: three tenants (acme, prepaid, JPY; euro, EUR; idle), two models, one of them with a second price
 * from February, a third one with a price in USD alone and exchange rates, in February a reversal, a credit and charges by hand, one request at 2024-01-31T15:30Z, which is February in Tokyo. Months are open. */
void months_make(const char *folder);
/* The same, but acme pays later, and a charge in March by hand takes it below zero. */
void months_make_owing(const char *folder);

#endif
