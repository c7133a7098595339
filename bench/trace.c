/* See trace.h. The Azure format is read here, ServeGen's in servegen.c. */
#include "bench/trace.h"

#include "bench/servegen.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

enum { MOST_BYTES = 256 << 20, LINE = 256 };

int trace_file(struct buf *out, const char *path, size_t most, struct error *e) {
    int rc = 0;
    FILE *f = fopen(path, "rbe");
    if (f == NULL)
        return error_set(e, ERR_NOT_FOUND, "cannot open the trace %.300s: %s", path, strerror(errno));
    for (size_t got = 1; got > 0 && rc == 0;) {
        char *to = buf_reserve(out, 1 << 16);
        got = to != NULL ? fread(to, 1, 1 << 16, f) : 0;
        out->n += got;
        if (to == NULL || out->n > most)
            rc = error_set(e, ERR_TOO_LARGE, "%.300s is larger than %zu bytes", path, most);
    }
    if (rc == 0 && ferror(f))
        rc = error_set(e, ERR_IO, "cannot read %.300s: %s", path, strerror(errno));
    fclose(f);
    buf_byte(out, 0); /* so that text functions stop */
    if (rc == 0 && out->failed)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for %.300s", path);
    return rc;
}

/* "2023-11-16 18:15:46.6805900,374,44" */
static int read_row(struct trace_row *row, const char *line) {
    struct tm day = {0};
    double second;
    long long input, output;
    int end = 0;
    int fields = sscanf(line, "%4d-%2d-%2d %2d:%2d:%lf,%lld,%lld%n", &day.tm_year, &day.tm_mon, &day.tm_mday,
                        &day.tm_hour, &day.tm_min, &second, &input, &output, &end);
    if (fields != 8 || line[end] != 0 || input < 0 || output < 0 || input > INT32_MAX || output > INT32_MAX)
        return -1;
    day.tm_year -= 1900;
    day.tm_mon -= 1;
    row->at = (double)timegm(&day) + second;
    row->input = input > 0 ? (uint32_t)input : 1;
    row->output = output > 0 ? (uint32_t)output : 1;
    return 0;
}

static int read_azure(struct trace *t, const char *path, struct str text, struct error *e) {
    const char *end = text.p + text.n;
    size_t number = 1, most = 1;
    for (const char *p = text.p; (p = memchr(p, '\n', (size_t)(end - p))) != NULL; p++)
        most++;
    t->row = calloc(most, sizeof *t->row);
    if (t->row == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for %zu requests", most);
    for (const char *p = text.p; p < end; number++) {
        char line[LINE];
        size_t n = strcspn(p, "\n"), kept = n > 0 && p[n - 1] == '\r' ? n - 1 : n;
        snprintf(line, sizeof line, "%.*s", (int)(kept < LINE ? kept : LINE - 1), p);
        p += n + (p[n] == '\n');
        if (line[0] == 0 || (number == 1 && strncmp(line, "TIMESTAMP,", 10) == 0))
            continue;
        struct trace_row *row = &t->row[t->n];
        if (read_row(row, line) != 0)
            return error_set(e, ERR_INVALID,
                             "%.200s, line %zu: '%.60s' is not a time, a prompt's and an answer's length",
                             path, number, line);
        if (t->n > 0 && row->at < t->row[t->n - 1].at)
            return error_set(e, ERR_INVALID, "%.200s, line %zu: the time runs backwards", path, number);
        t->n++;
    }
    return 0;
}

int trace_read(struct trace *t, const char *path, size_t least, uint64_t seed, struct error *e) {
    struct stat s;
    struct buf text = {0};
    int rc = 0;
    *t = (struct trace){.clients = 1};
    if (stat(path, &s) == 0 && S_ISDIR(s.st_mode)) {
        rc = servegen_read(t, path, least, seed, e);
    } else {
        rc = trace_file(&text, path, MOST_BYTES, e);
        if (rc == 0)
            rc = read_azure(t, path, (struct str){text.p, text.n - 1}, e);
    }
    if (rc == 0 && t->n < least)
        rc = error_set(e, ERR_INVALID,
                       "%.300s holds %zu requests and %zu are wanted; lower the rate or the seconds", path,
                       t->n, least);
    for (size_t i = t->n; i > 0; i--)
        t->row[i - 1].at -= t->row[0].at;
    buf_free(&text);
    if (rc != 0)
        trace_free(t);
    return rc;
}

void trace_free(struct trace *t) {
    free(t->row);
    *t = (struct trace){0};
}
