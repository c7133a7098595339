/* Time. Durations come from the monotonic clock, dates from the wall clock, and never the other way. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

int64_t clock_mono_ns(void);
int64_t clock_wall_ns(void); /* since 1970, UTC */

#endif
