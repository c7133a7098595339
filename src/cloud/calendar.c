/* Days and months; see calendar.h. */
#include "cloud/calendar.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { NS = 1000000000 };

static struct tm local(int64_t at, int64_t zone) {
    /* Down, also before 1970. */
    time_t seconds = (time_t)(at / NS - (at % NS < 0) + zone * 60);
    struct tm tm = {0};
    gmtime_r(&seconds, &tm);
    return tm;
}

void calendar_day(char out[CALENDAR_DAY], int64_t at, int64_t zone) {
    struct tm tm = local(at, zone);
    strftime(out, CALENDAR_DAY, "%Y-%m-%d", &tm);
}

void calendar_month(char out[CALENDAR_MONTH], int64_t at, int64_t zone) {
    struct tm tm = local(at, zone);
    strftime(out, CALENDAR_MONTH, "%Y-%m", &tm);
}

void calendar_next_month(char month[CALENDAR_MONTH]) {
    int year = 0, number = 0;
    sscanf(month, "%4d-%2d", &year, &number);
    year += number == 12;
    snprintf(month, CALENDAR_MONTH, "%04u-%02u", (unsigned)year % 10000, (unsigned)number % 12 + 1);
}

int calendar_parse(int64_t *at, struct str text, int64_t zone, struct error *e) {
    static const char shape[] = "9999-99-99";
    struct tm tm = {0}, again;
    char copy[CALENDAR_DAY] = "";
    size_t n = text.n;
    bool good = n == CALENDAR_DAY - 1 || n == CALENDAR_MONTH - 1;
    for (size_t i = 0; good && i < n; i++) {
        good = shape[i] == '9' ? text.p[i] >= '0' && text.p[i] <= '9' : text.p[i] == shape[i];
        copy[i] = text.p[i];
    }
    if (good) {
        tm.tm_mday = 1;
        sscanf(copy, "%4d-%2d-%2d", &tm.tm_year, &tm.tm_mon, &tm.tm_mday);
        tm.tm_year -= 1900;
        tm.tm_mon -= 1;
        again = tm; /* timegm takes the 31st of February for a day in March */
        time_t seconds = timegm(&again);
        good =
            again.tm_mday == tm.tm_mday && again.tm_mon == tm.tm_mon && tm.tm_year >= 70 && tm.tm_year <= 300;
        *at = ((int64_t)seconds - zone * 60) * NS;
    }
    return good ? 0
                : error_set(e, ERR_INVALID,
                            "'%.*s' is no date: write it like 2026-12-01, or a month like 2026-12",
                            (int)(n < 40 ? n : 40), text.p);
}
