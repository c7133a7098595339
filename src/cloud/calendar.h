/* Days and months as the books count them: in their zone, minutes east of UTC, which alone says where a day begins. */
#ifndef CLOUD_CALENDAR_H
#define CLOUD_CALENDAR_H

#include "base/buf.h"
#include "base/error.h"

#include <stdint.h>

enum { CALENDAR_DAY = 11, CALENDAR_MONTH = 8 }; /* bytes, with the NUL */

/* at: ns since 1970. "2026-11-25", "2026-11". Both order as text as they do in time. */
void calendar_day(char out[CALENDAR_DAY], int64_t at, int64_t zone);
void calendar_month(char out[CALENDAR_MONTH], int64_t at, int64_t zone);
/* The month after this one. */
void calendar_next_month(char month[CALENDAR_MONTH]);
/* Where "2026-11-25" or "2026-11" begins. ERR_INVALID when it is neither. */
int calendar_parse(int64_t *at, struct str text, int64_t zone, struct error *e);

#endif
