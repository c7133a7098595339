/* See stream.h. */
#include "bench/stream.h"

#include "base/json.h"

#include <stdio.h>
#include <string.h>

enum { MOST_LINE = 8 << 20 };

void stream_start(struct stream *s, struct answer *a) {
    *s = (struct stream){.answer = a, .line = {.limit = MOST_LINE}};
}

/* {"error": {"message": ...}}, {"error": "..."} or {"message": ...}. */
static struct str message_of(const struct json *v) {
    const struct json *error = json_get(v, "error");
    const struct json *inner = json_get(error, "message");
    if (inner == NULL)
        inner = json_kind(error) == JSON_KIND_STRING ? error : json_get(v, "message");
    return json_as_str(inner);
}

static bool has_text(const struct json *v) {
    const struct json *choice = json_at(json_get(v, "choices"), 0), *delta = json_get(choice, "delta");
    return json_as_str(json_get(delta, "content")).n > 0 ||
           json_as_str(json_get(delta, "reasoning_content")).n > 0 ||
           json_as_str(json_get(choice, "text")).n > 0;
}

static void count_text(struct answer *a, int64_t now_ns) {
    if (a->first_ns == 0) {
        a->first_ns = now_ns;
    } else {
        uint32_t gap = (uint32_t)((now_ns - a->last_ns) / 1000);
        buf_append(&a->gaps, &gap, sizeof gap);
    }
    a->last_ns = now_ns;
    a->events++;
}

static void take_event(struct stream *s, struct str data, int64_t now_ns) {
    struct answer *a = s->answer;
    struct json *v;
    struct error e;
    if (str_is(data, "[DONE]")) {
        s->done = true;
        return;
    }
    if (json_parse(&v, data, &e) != 0) {
        snprintf(a->error, sizeof a->error, "%.190s", e.text);
        return;
    }
    const struct json *usage = json_get(v, "usage");
    if (json_kind(json_get(v, "error")) != JSON_KIND_NULL) {
        struct str why = message_of(v);
        snprintf(a->error, sizeof a->error, "%.*s", (int)(why.n < 190 ? why.n : 190),
                 why.n > 0 ? why.p : "an error");
    }
    if (json_kind(usage) == JSON_KIND_OBJECT) {
        const struct json *details = json_get(usage, "prompt_tokens_details");
        a->input = (uint32_t)json_as_int(json_get(usage, "prompt_tokens"));
        a->cached = (uint32_t)json_as_int(json_get(details, "cached_tokens"));
        a->output = (uint32_t)json_as_int(json_get(usage, "completion_tokens"));
    }
    if (has_text(v))
        count_text(a, now_ns);
    json_free(v);
}

static void take_line(struct stream *s, int64_t now_ns) {
    struct str line = buf_view(&s->line);
    if (line.n > 0 && line.p[line.n - 1] == '\r')
        line.n--;
    if (str_starts(line, STR("data:"))) {
        size_t skip = line.n > 5 && line.p[5] == ' ' ? 6 : 5;
        take_event(s, (struct str){line.p + skip, line.n - skip}, now_ns);
    } else if (str_starts(line, STR("error:"))) {
        snprintf(s->answer->error, sizeof s->answer->error, "%.*s", (int)(line.n < 190 ? line.n : 190),
                 line.p);
    }
    buf_clear(&s->line);
}

void stream_feed(struct stream *s, struct str bytes, bool events, int64_t now_ns) {
    while (events && bytes.n > 0) {
        const char *end = memchr(bytes.p, '\n', bytes.n);
        size_t n = end != NULL ? (size_t)(end - bytes.p) : bytes.n;
        buf_append(&s->line, bytes.p, n);
        if (end != NULL)
            take_line(s, now_ns);
        n += end != NULL;
        bytes = (struct str){bytes.p + n, bytes.n - n};
    }
    if (!events)
        buf_str(&s->line, bytes);
}

void stream_refusal(struct stream *s, int status) {
    struct answer *a = s->answer;
    struct json *v = NULL;
    struct error e;
    struct str why = json_parse(&v, buf_view(&s->line), &e) == 0 ? message_of(v) : (struct str){0};
    snprintf(a->error, sizeof a->error, "HTTP %d%s%.*s", status, why.n > 0 ? ": " : "",
             (int)(why.n < 170 ? why.n : 170), why.n > 0 ? why.p : "");
    json_free(v);
}

void stream_free(struct stream *s) {
    buf_free(&s->line);
}
