/* For what counts by days or months. */
#ifndef UNIT_ONE_DAY_H
#define UNIT_ONE_DAY_H

#include "base/clock.h"

#include <unistd.h>

/* Where midnight (UTC) is nearer than a minute, it passes first. */
static inline void within_a_day(void) {
    unsigned left = 86400 - (unsigned)(clock_wall_ns() / 1000000000 % 86400);
    if (left < 60)
        sleep(left + 1);
}

#endif
