/* Values as text: str() and repr() of Python, and json.dumps as the tojson filter of transformers calls it. The punctuation around a
 * caller's data is the caller's. */
#include "model/template/inner.h"

#include "base/utf8.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* repr(float): the fewest digits that read back, in plain notation from 1e-4 to below 1e16. */
void print_float(char out[40], double f) {
    char digits[40];
    if (!isfinite(f)) {
        snprintf(out, 40, "%s", isnan(f) ? "nan" : f < 0 ? "-inf" : "inf");
        return;
    }
    int precision = 0;
    do
        snprintf(digits, sizeof digits, "%.*e", precision, f);
    while (strtod(digits, NULL) != f && ++precision < 17);
    int exponent = (int)strtol(strchr(digits, 'e') + 1, NULL, 10);
    if (exponent < -4 || exponent >= 16)
        snprintf(out, 40, "%s", digits);
    else
        snprintf(out, 40, "%.*f", precision > exponent ? precision - exponent : 1, f);
}

static bool quotes_double(const struct text *s) {
    return s->n > 0 && memchr(s->p, '\'', s->n) != NULL && memchr(s->p, '"', s->n) == NULL;
}

static void repr_string(struct writer *o, const struct text *s) {
    char quote = quotes_double(s) ? '"' : '\'';
    bool edge = s->n > 0 ? text_caller_at(s, 0) : s->caller;
    size_t plain = 0;
    if (s->markup)
        writer_bytes(o, "Markup(", 7, edge);
    writer_bytes(o, &quote, 1, edge);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t c = utf8_decode((struct str){s->p + i, s->n - i}, &n);
        if (char_is_printable(c) && c != quote && c != '\\')
            continue;
        bool caller = text_caller_at(s, i);
        writer_part(o, s, plain, i - plain);
        plain = i + n;
        if (c == quote || c == '\\')
            writer_printf(o, caller, "\\%c", (char)c);
        else if (c == '\n' || c == '\r' || c == '\t')
            writer_printf(o, caller, "\\%c", c == '\n' ? 'n' : c == '\r' ? 'r' : 't');
        else
            writer_printf(o, caller,
                          c < 0x100     ? "\\x%02x"
                          : c < 0x10000 ? "\\u%04x"
                                        : "\\U%08x",
                          (unsigned)c);
    }
    writer_part(o, s, plain, s->n - plain);
    edge = s->n > 0 ? text_caller_at(s, s->n - 1) : s->caller;
    writer_bytes(o, &quote, 1, edge);
    if (s->markup)
        writer_bytes(o, ")", 1, edge);
}

static void repr_items(struct writer *o, const struct list *l, const char *open, const char *close,
                       bool caller) {
    writer_bytes(o, open, strlen(open), caller);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            writer_bytes(o, ", ", 2, caller);
        print_repr(o, l->item[i]);
    }
    writer_bytes(o, close, strlen(close), caller);
}

static void repr_dict(struct writer *o, const struct dict *d, bool caller) {
    writer_bytes(o, "{", 1, caller);
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0)
            writer_bytes(o, ", ", 2, caller);
        print_repr(o, d->entry[i].key);
        writer_bytes(o, ": ", 2, caller);
        print_repr(o, d->entry[i].value);
    }
    writer_bytes(o, "}", 1, caller);
}

void print_repr(struct writer *o, struct value v) {
    char number[40];
    work_charge(o->w, 1);
    work_enter(o->w);
    switch (v.kind) {
    case UNDEFINED:
        writer_bytes(o, "Undefined", 9, v.caller);
        break;
    case NONE:
        writer_bytes(o, "None", 4, v.caller);
        break;
    case BOOL:
        writer_bytes(o, v.b ? "True" : "False", v.b ? 4 : 5, v.caller);
        break;
    case INT:
        writer_printf(o, v.caller, "%" PRId64, v.i);
        break;
    case FLOAT:
        print_float(number, v.f);
        writer_bytes(o, number, strlen(number), v.caller);
        break;
    case STRING:
        repr_string(o, v.s);
        break;
    case LIST:
        repr_items(o, v.list, "[", "]", v.caller);
        break;
    case TUPLE:
        repr_items(o, v.list, "(", v.list->n == 1 ? ",)" : ")", v.caller);
        break;
    case VIEW:
        writer_bytes(o, v.list->type, strlen(v.list->type), v.caller);
        repr_items(o, v.list, "([", "])", v.caller);
        break;
    case DICT:
        repr_dict(o, v.dict, v.caller);
        break;
    case NAMESPACE:
        writer_bytes(o, "<Namespace ", 11, v.caller);
        repr_dict(o, v.dict, v.caller);
        writer_bytes(o, ">", 1, v.caller);
        break;
    case RANGE: {
        int64_t start = v.range->start, step = v.range->step;
        writer_printf(o, v.caller, "range(%" PRId64 ", %" PRId64, start, v.range->stop);
        writer_printf(o, v.caller, step == 1 ? ")" : ", %" PRId64 ")", step);
        break;
    }
    default:
        writer_printf(o, v.caller, "<%s>", value_type(v));
    }
    o->w->depth--;
}

void print_value(struct writer *o, struct value v) {
    if (v.kind == STRING)
        writer_text(o, v.s);
    else if (v.kind != UNDEFINED)
        print_repr(o, v);
}

const struct text *value_to_text(struct work *w, struct value v) {
    if (v.kind == STRING)
        return v.s;
    struct writer o = {.w = w};
    print_value(&o, v);
    return writer_done(&o);
}

/* ---- JSON ---- */

static void json_string(struct writer *o, const struct text *s, bool ascii, bool caller) {
    static const char from[] = "\"\\\n\r\t\b\f", to[] = "\"\\nrtbf";
    size_t plain = 0;
    writer_bytes(o, "\"", 1, s->n > 0 ? text_caller_at(s, 0) : s->caller || caller);
    for (size_t i = 0, n = 1; i < s->n; i += n) {
        unsigned char byte = (unsigned char)s->p[i];
        n = 1;
        if (byte >= 32 && byte != '"' && byte != '\\' && (byte < 0x80 || !ascii))
            continue;
        bool own = text_caller_at(s, i);
        int32_t c = utf8_decode((struct str){s->p + i, s->n - i}, &n);
        const char *hit = byte != 0 && byte < 0x80 ? strchr(from, byte) : NULL;
        writer_part(o, s, plain, i - plain);
        plain = i + n;
        if (hit != NULL)
            writer_printf(o, own, "\\%c", to[hit - from]);
        else if (c < 0x10000)
            writer_printf(o, own, "\\u%04x", (unsigned)c);
        else
            writer_printf(o, own, "\\u%04x\\u%04x", 0xD7C0u + ((unsigned)c >> 10),
                          0xDC00u | ((unsigned)c & 0x3FF));
    }
    writer_part(o, s, plain, s->n - plain);
    writer_bytes(o, "\"", 1, s->n > 0 ? text_caller_at(s, s->n - 1) : s->caller || caller);
}

static void json_line(struct writer *o, const struct json_style *style, unsigned level, bool caller) {
    if (style->indent == NULL)
        return;
    writer_bytes(o, "\n", 1, caller);
    for (unsigned i = 0; i < level; i++)
        writer_bytes(o, style->indent->p, style->indent->n,
                     caller || text_caller_any(style->indent, 0, style->indent->n));
}

static void json_separator(struct writer *o, const struct text *s, bool caller) {
    writer_bytes(o, s->p, s->n, caller || text_caller_any(s, 0, s->n));
}

static void json_list(struct writer *o, const struct list *l, bool caller, const struct json_style *style,
                      unsigned level) {
    if (l->n == 0) {
        writer_bytes(o, "[]", 2, caller);
        return;
    }
    writer_bytes(o, "[", 1, caller);
    for (size_t i = 0; i < l->n; i++) {
        if (i > 0)
            json_separator(o, style->comma, caller);
        json_line(o, style, level + 1, caller);
        print_json(o, l->item[i], style, level + 1);
    }
    json_line(o, style, level, caller);
    writer_bytes(o, "]", 1, caller);
}

static void json_number(struct writer *o, struct value v) {
    char number[40];
    if (v.kind == INT) {
        snprintf(number, sizeof number, "%" PRId64, v.i);
    } else {
        print_float(number, v.f);
        if (!isfinite(v.f))
            snprintf(number, sizeof number, "%s", isnan(v.f) ? "NaN" : v.f < 0 ? "-Infinity" : "Infinity");
    }
    writer_bytes(o, number, strlen(number), v.caller);
}

static void json_scalar(struct writer *o, struct value v) {
    if (v.kind == NONE)
        writer_bytes(o, "null", 4, v.caller);
    else if (v.kind == BOOL)
        writer_bytes(o, v.b ? "true" : "false", v.b ? 4 : 5, v.caller);
    else
        json_number(o, v);
}

static void json_dict_key(struct writer *o, struct value key, bool ascii) {
    if (key.kind == STRING) {
        json_string(o, key.s, ascii, key.caller);
        return;
    }
    if (key.kind != NONE && !value_numeric(key))
        work_fail(o->w, ERR_INVALID, "keys must be str, int, float, bool or None, not %s", value_type(key));
    writer_bytes(o, "\"", 1, key.caller);
    json_scalar(o, key);
    writer_bytes(o, "\"", 1, key.caller);
}

static void sort_entries(struct work *w, struct entry *e, struct entry *other, size_t n) {
    if (n < 2)
        return;
    size_t half = n / 2, a = 0, b = half, k = 0;
    sort_entries(w, e, other, half);
    sort_entries(w, e + half, other, n - half);
    while (a < half || b < n) {
        bool right = a == half || (b < n && value_order(w, e[b].key, e[a].key, "<") == -1);
        other[k++] = right ? e[b++] : e[a++];
    }
    memcpy(e, other, n * sizeof *e);
}

static void json_dict(struct writer *o, const struct dict *d, bool caller, const struct json_style *style,
                      unsigned level) {
    struct entry *entry = d->entry;
    if (d->n == 0) {
        writer_bytes(o, "{}", 2, caller);
        return;
    }
    if (style->sort) {
        entry = work_alloc(o->w, d->n, sizeof *entry);
        memcpy(entry, d->entry, d->n * sizeof *entry);
        sort_entries(o->w, entry, work_alloc(o->w, d->n, sizeof *entry), d->n);
    }
    writer_bytes(o, "{", 1, caller);
    for (size_t i = 0; i < d->n; i++) {
        if (i > 0)
            json_separator(o, style->comma, caller);
        json_line(o, style, level + 1, caller);
        json_dict_key(o, entry[i].key, style->ascii);
        json_separator(o, style->colon, caller);
        print_json(o, entry[i].value, style, level + 1);
    }
    json_line(o, style, level, caller);
    writer_bytes(o, "}", 1, caller);
}

void print_json(struct writer *o, struct value v, const struct json_style *style, unsigned level) {
    work_charge(o->w, 1);
    work_enter(o->w);
    if (v.kind == STRING)
        json_string(o, v.s, style->ascii, v.caller);
    else if (v.kind == LIST || v.kind == TUPLE)
        json_list(o, v.list, v.caller, style, level);
    else if (v.kind == DICT)
        json_dict(o, v.dict, v.caller, style, level);
    else if (v.kind == NONE || value_numeric(v))
        json_scalar(o, v);
    else
        work_fail(o->w, ERR_INVALID, "Object of type %s is not JSON serializable", value_type(v));
    o->w->depth--;
}
