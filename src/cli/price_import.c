/* unkai price import: a price list as LiteLLM keeps it, {"model": {"input_cost_per_token": 1.5e-07, ...}, ...}. The numbers go into the books as they are written, digit
 * for digit: a floating-point number in between would lose some of them. */
#include "cli/books.h"

#include "cloud/control.h"
#include "cloud/money.h"

#include <stdio.h>
#include <string.h>

enum { MOST_LIST = 64 << 20, AT_ONCE = 1000 };

/* ---- a walk through JSON as it is written; what it finds is parsed before it is believed ---- */

struct walk {
    const char *at, *end;
};

static void skip_space(struct walk *w) {
    while (w->at < w->end && strchr(" \t\r\n,:", *w->at) != NULL)
        w->at++;
}

/* The next value as it is written. */
static struct str take(struct walk *w) {
    skip_space(w);
    const char *start = w->at;
    int depth = 0;
    bool quoted = false;
    for (; w->at < w->end; w->at++) {
        char c = *w->at;
        if (quoted) {
            w->at += c == '\\' && w->at + 1 < w->end;
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0)
                break; /* of what holds this value */
            depth--;
        } else if (depth == 0 && strchr(" \t\r\n,:", c) != NULL) {
            break;
        }
        if (depth == 0 && !quoted && (c == '}' || c == ']' || (c == '"' && w->at > start))) {
            w->at++;
            break;
        }
    }
    return (struct str){start, (size_t)(w->at - start)};
}

/* Into an object: whether there is another member. */
static bool next_member(struct walk *w, struct str *name, struct str *value) {
    *name = take(w);
    *value = take(w);
    return name->n > 0 && value->n > 0;
}

/* Nowhere when it is no object. */
static struct walk inside(struct str object) {
    return object.n >= 2 && object.p[0] == '{' && object.p[object.n - 1] == '}'
               ? (struct walk){object.p + 1, object.p + object.n - 1}
               : (struct walk){0};
}

/* ---- the list ---- */

enum { INPUT, CACHED, OUTPUT, PARTS };
static const char *const name_of[PARTS] = {"\"input_cost_per_token\"", "\"cache_read_input_token_cost\"",
                                           "\"output_cost_per_token\""};

static bool read_prices(struct str object, struct str part[PARTS]) {
    struct walk w = inside(object);
    struct str name, value;
    memset(part, 0, PARTS * sizeof *part);
    while (next_member(&w, &name, &value))
        for (int i = 0; i < PARTS; i++)
            if (str_is(name, name_of[i]) && value.p[0] != 'n') /* null */
                part[i] = value;
    return part[INPUT].n > 0 && part[OUTPUT].n > 0;
}

struct import {
    const char *currency, *since, *note;
    struct buf list;
    size_t listed, imported, others, refused;
};

static int send_list(struct import *m, struct error *e) {
    struct buf request = {0}, answer = {0};
    if (m->listed == 0)
        return 0;
    buf_text(&request, "{\"op\":\"price.import\",\"currency\":");
    json_write_text(&request, m->currency);
    if (m->since != NULL) {
        buf_text(&request, ",\"since\":");
        json_write_text(&request, m->since);
    }
    if (m->note != NULL) {
        buf_text(&request, ",\"note\":");
        json_write_text(&request, m->note);
    }
    buf_text(&request, ",\"prices\":[");
    buf_str(&request, buf_view(&m->list));
    buf_text(&request, "]}");
    int rc = control_call(cli_home(), buf_view(&request), &answer, e);
    m->imported += rc == 0 ? m->listed : 0;
    m->listed = 0;
    buf_clear(&m->list);
    buf_free(&request);
    buf_free(&answer);
    return rc;
}

/* What cannot be kept is said by name and left out, so that the rest is imported. */
static bool fits(const char *model, const struct str part[PARTS]) {
    struct error e = {0};
    int64_t value;
    for (int i = 0; i < PARTS; i++)
        if (part[i].n > 0 && money_parse_number(&value, part[i], PRICE_DIGITS, &e) != 0) {
            fprintf(stderr, "%s: %s\n", model, e.text);
            return false;
        }
    return true;
}

/* Both are JSON, the name a string and the other an object: ERR_INVALID unless. A list as a whole has more members than a request may, so its models are looked at one by one. */
static int parse_model(struct str name, struct str object, char *model, size_t size, struct error *e) {
    struct json *text = NULL, *value = NULL;
    int rc = json_parse(&text, name, e);
    if (rc == 0 && (rc = json_parse(&value, object, e)) == 0 &&
        (json_kind(text) != JSON_KIND_STRING || json_kind(value) != JSON_KIND_OBJECT))
        rc = error_set(e, ERR_INVALID, "a price list is an object of models");
    snprintf(model, size, "%.*s", (int)json_as_str(text).n, json_as_str(text).p);
    json_free(text);
    json_free(value);
    return rc;
}

static int add_model(struct import *m, struct str name, struct str object, struct error *e) {
    struct str part[PARTS];
    char model[300] = "";
    int rc = parse_model(name, object, model, sizeof model, e);
    if (rc != 0)
        return rc;
    if (!read_prices(object, part)) {
        m->others++;
        return 0;
    }
    if (!fits(model, part)) {
        m->refused++;
        return 0;
    }
    buf_text(&m->list, m->listed++ > 0 ? ",{\"model\":" : "{\"model\":");
    json_write_text(&m->list, model);
    for (int i = 0; i < PARTS; i++)
        if (part[i].n > 0) {
            buf_printf(&m->list, ",%s:", name_of[i]);
            json_write_str(&m->list, part[i]);
        }
    buf_byte(&m->list, '}');
    return m->listed == AT_ONCE ? send_list(m, e) : 0;
}

int price_import(const char *path, const char *currency, const char *since, const char *note) {
    struct import m = {.currency = currency != NULL ? currency : "USD", .since = since, .note = note};
    struct buf file = {0};
    struct str name, value;
    struct error e = {0};
    int rc = cli_read(&file, path, MOST_LIST, &e);
    struct walk whole = {file.p, file.p + file.n}, w = {0};
    if (rc == 0) {
        w = inside(take(&whole));
        skip_space(&whole);
        if (w.at == NULL || whole.at != whole.end)
            rc = error_set(&e, ERR_INVALID, "%s is no price list: an object of models is wanted", path);
    }
    if (rc == 0) {
        while (rc == 0 && next_member(&w, &name, &value))
            rc = add_model(&m, name, value, &e);
        if (rc == 0)
            rc = send_list(&m, &e);
        printf("%zu models' prices imported in %s, %zu without prices of tokens, %zu refused\n", m.imported,
               m.currency, m.others, m.refused);
    }
    buf_free(&file);
    buf_free(&m.list);
    return rc != 0 ? cli_fail("price", &e) : m.refused > 0 ? EXIT_FAILED : EXIT_OK;
}
