/* Filters on strings and numbers, tojson, and the tests ("is ..."). */
#include "model/template/inner.h"

#include "base/utf8.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILTER(name)                                                                     \
    static struct value name(struct render *r, struct value self, const struct value *a, \
                             const struct call *call)

static bool given(struct value v) {
    return v.kind != UNSET && v.kind != NONE;
}

static bool flag(struct render *r, struct value v) {
    return v.kind != UNSET && value_true(&r->w, v);
}

/* Calls a method of strings on str(self). */
static struct value as_method(struct render *r, struct value self, const char *name,
                              const struct call *call) {
    const struct builtin *b = builtin_find(template_string_methods, str_from(name));
    if (b == NULL)
        b = builtin_find(template_more_string_methods, str_from(name));
    return builtin_call(r, b, value_text(value_to_text(&r->w, self)), call);
}

FILTER(filter_upper) {
    return as_method(r, self, "upper", call);
}
FILTER(filter_lower) {
    return as_method(r, self, "lower", call);
}
FILTER(filter_capitalize) {
    return as_method(r, self, "capitalize", call);
}

/* Unlike the method: a word begins after white space and - ( { [ < only. */
FILTER(filter_title) {
    const struct text *s = value_to_text(&r->w, self);
    struct writer o = {.w = &r->w};
    bool inside = false;
    work_charge(&r->w, s->n / 16);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t out[3], c = utf8_decode((struct str){s->p + i, s->n - i}, &n);
        size_t count = char_map(c, inside ? CASE_LOWER : CASE_UPPER, out);
        for (size_t k = 0; k < count; k++)
            writer_char(&o, (uint32_t)out[k], text_caller_at(s, i));
        inside = !char_is_space(c) && c != '-' && c != '(' && c != '{' && c != '[' && c != '<';
    }
    return value_text(writer_done(&o));
}

FILTER(filter_trim) {
    const struct text *chars = given(a[0]) ? argument_text(&r->w, a[0], "the characters to trim") : NULL;
    return value_text(text_strip(&r->w, value_to_text(&r->w, self), chars, true, true));
}

FILTER(filter_string) {
    return value_text(value_to_text(&r->w, self));
}

FILTER(filter_replace) {
    const struct text *s =
        string_replace(&r->w, value_to_text(&r->w, self), value_to_text(&r->w, a[0]),
                       value_to_text(&r->w, a[1]), given(a[2]) ? argument_int(&r->w, a[2], -1, "count") : -1);
    return value_text(a[2].caller ? text_as_caller(&r->w, s) : s);
}

FILTER(filter_escape) {
    return value_text(text_escape(&r->w, value_to_text(&r->w, self)));
}

FILTER(filter_safe) {
    struct text *s = text_new(&r->w, "", 0, false);
    *s = *value_to_text(&r->w, self);
    s->markup = true;
    return value_text(s);
}

FILTER(filter_indent) {
    static const struct text four = {.p = "    ", .n = 4};
    const struct text *s = argument_text(&r->w, self, "what indent gets"), *by = &four;
    struct writer o = {.w = &r->w};
    if (a[0].kind == STRING)
        by = a[0].s;
    else if (a[0].kind != UNSET)
        by = value_binary(r, OP_MUL, value_literal(&r->w, " "), a[0]).s;
    for (size_t at = 0, line = 0; at < s->n; line++) {
        size_t end = str_find(text_str(s), STR("\n"), at);
        bool last = end == SIZE_MAX;
        end = last ? s->n : end;
        if (line == 0 ? flag(r, a[1]) : end > at || flag(r, a[2]))
            writer_text(&o, by);
        writer_part(&o, s, at, end - at + !last);
        at = end + !last;
        work_charge(&r->w, 1);
    }
    return value_text(writer_done(&o));
}

FILTER(filter_truncate) {
    const struct text *end =
        a[2].kind == UNSET ? text_new(&r->w, "...", 3, false) : argument_text(&r->w, a[2], "truncate's end");
    int64_t length = argument_int(&r->w, a[0], 255, "truncate's length"),
            leeway = given(a[3]) ? argument_int(&r->w, a[3], 5, "truncate's leeway") : 5;
    int64_t kept = length - (int64_t)text_chars(&r->w, end);
    if (kept < 0 || leeway < 0)
        work_fail(&r->w, ERR_INVALID, "truncate expects a length of at least its end's");
    int64_t chars = value_length(&r->w, self);
    if (chars >= 0 && chars - length <= leeway)
        return self;
    const struct text *s = argument_text(&r->w, self, "what truncate gets");
    size_t n = text_offset(&r->w, s, (size_t)kept);
    if (!flag(r, a[1]))
        while (n > 0 && memchr(s->p, ' ', n) != NULL && s->p[--n] != ' ')
            continue;
    struct writer o = {.w = &r->w};
    writer_part(&o, s, 0, n);
    writer_text(&o, end);
    s = writer_done(&o);
    return value_text(a[0].caller || a[3].caller ? text_as_caller(&r->w, s) : s);
}

FILTER(filter_wordcount) {
    const struct text *s = value_to_text(&r->w, self);
    int64_t words = 0;
    bool inside = false;
    work_charge(&r->w, s->n / 16);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t c = utf8_decode((struct str){s->p + i, s->n - i}, &n);
        bool word = char_is_alpha(c) || char_is_digit(c) || c == '_';
        words += word && !inside;
        inside = word;
    }
    return value_int(words);
}

/* query: a part of a query string, where a space is "+" and "/" has no place. */
static void write_quoted(struct writer *o, struct value v, bool query) {
    const struct text *s = value_to_text(o->w, v);
    for (size_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        if ((c < 0x80 && isalnum(c)) || (c != 0 && strchr(query ? "_.-~" : "_.-~/", c) != NULL))
            writer_part(o, s, i, 1);
        else if (query && c == ' ')
            writer_bytes(o, "+", 1, text_caller_at(s, i));
        else
            writer_printf(o, text_caller_at(s, i), "%%%02X", c);
    }
}
FILTER(filter_urlencode) {
    struct writer o = {.w = &r->w};
    struct call none = {0};
    size_t n, parts;
    if (self.kind == STRING || !value_walkable(self)) {
        write_quoted(&o, self, false);
        return value_text(writer_done(&o));
    }
    if (self.kind == DICT)
        self = builtin_call(r, builtin_find(template_dict_methods, STR("items")), self, &none);
    const struct value *item = value_items(&r->w, self, &n);
    for (size_t i = 0; i < n; i++) {
        const struct value *pair = value_items(&r->w, item[i], &parts);
        if (parts != 2)
            work_fail(&r->w, ERR_INVALID, "urlencode wants pairs");
        writer_bytes(&o, "&", i > 0, self.caller);
        write_quoted(&o, pair[0], true);
        writer_bytes(&o, "=", 1, self.caller);
        write_quoted(&o, pair[1], true);
    }
    return value_text(writer_done(&o));
}

FILTER(filter_format) {
    struct value args = value_list(&r->w, TUPLE, call->arg, call->n);
    if (call->names > 0) {
        args = value_dict(&r->w);
        for (size_t i = 0; i < call->names; i++)
            dict_set(&r->w, args.dict, value_text(call->named[i].name), call->named[i].value);
    }
    return string_percent(r, value_to_text(&r->w, self), args);
}

FILTER(filter_center) {
    struct call width = {.arg = work_alloc(&r->w, 1, sizeof *width.arg), .n = 1};
    width.arg[0] = a[0].kind == UNSET ? value_int(80) : a[0];
    return as_method(r, self, "center", &width);
}

/* ---- numbers ---- */

/* Digits with white space around them and single underscores between; false when it is no number. */
static bool clean_number(const struct text *s, char out[64], bool prefix) {
    size_t n = 0, from = 0, to = s->n;
    while (from < to && isspace((unsigned char)s->p[from]))
        from++;
    while (to > from && isspace((unsigned char)s->p[to - 1]))
        to--;
    for (size_t i = from; i < to; i++) {
        bool digit = i > from && isxdigit((unsigned char)s->p[i - 1]);
        if (s->p[i] == '_' && (digit || prefix) && i + 1 < to && isxdigit((unsigned char)s->p[i + 1]))
            continue;
        if (n == 63 || s->p[i] == 0 || isspace((unsigned char)s->p[i]))
            return false;
        out[n++] = s->p[i];
    }
    out[n] = 0;
    return n > 0;
}

static bool text_to_int(const struct text *s, int base, int64_t *out) {
    char digits[64], *end;
    const char *p = digits;
    if (!clean_number(s, digits, base != 10))
        return false;
    bool minus = *p == '-';
    p += *p == '-' || *p == '+';
    if (p[0] == '0' && p[1] != 0 && base != 10) {
        int prefix = (p[1] | 32) == 'x' ? 16 : (p[1] | 32) == 'o' ? 8 : (p[1] | 32) == 'b' ? 2 : 0;
        p += prefix == base ? 2 : 0;
    }
    if (!isxdigit((unsigned char)*p))
        return false;
    errno = 0;
    *out = strtoll(p, &end, base);
    *out = minus ? -*out : *out;
    return *end == 0 && errno == 0 && (base != 16 || (p[1] | 32) != 'x');
}

static bool text_to_float(const struct text *s, double *out) {
    char digits[64], *end;
    if (!clean_number(s, digits, false) || strpbrk(digits, "xXpP(") != NULL)
        return false;
    *out = strtod(digits, &end);
    return *end == 0;
}

static struct value whole(struct value v, struct value fallback) {
    if (!isfinite(v.f) || fabs(v.f) >= 9.2e18)
        return fallback;
    return value_int((int64_t)v.f);
}

FILTER(filter_int) {
    struct value out = a[0].kind == UNSET ? value_int(0) : a[0];
    int64_t base = argument_int(&r->w, a[1], 10, "int's base"), i;
    double f;
    if (self.kind == STRING) {
        if (base >= 2 && base <= 36 && text_to_int(self.s, (int)base, &i))
            out = value_int(i);
        else if (text_to_float(self.s, &f))
            out = whole(value_float(f), out);
        out.caller |= text_caller_any(self.s, 0, self.s->n);
        return out;
    }
    if (self.kind == UNDEFINED)
        value_fail_undefined(&r->w, self);
    if (value_integral(self))
        out = value_int(value_integer(self));
    else if (self.kind == FLOAT)
        out = whole(self, out);
    out.caller |= self.caller;
    return out;
}

FILTER(filter_float) {
    struct value out = a[0].kind == UNSET ? value_float(0) : a[0];
    double f;
    if (self.kind == UNDEFINED)
        value_fail_undefined(&r->w, self);
    if (self.kind == STRING && text_to_float(self.s, &f))
        out = value_float(f);
    else if (value_numeric(self))
        out = value_float(value_number(self));
    out.caller |= self.kind == STRING ? text_caller_any(self.s, 0, self.s->n) : self.caller;
    return out;
}

FILTER(filter_abs) {
    if (self.kind == UNDEFINED)
        value_fail_undefined(&r->w, self);
    if (!value_numeric(self))
        work_fail(&r->w, ERR_INVALID, "bad operand type for abs(): '%s'", value_type(self));
    bool caller = self.caller;
    if (self.kind == FLOAT)
        self.f = fabs(self.f);
    else if (value_integer(self) < 0)
        self = value_binary(r, OP_SUB, value_int(0), self);
    else
        self = value_int(value_integer(self));
    self.caller = caller;
    return self;
}

/* round: Python rounds the exact decimal value, half to even, as printf does. */
FILTER(filter_round) {
    int64_t places = argument_int(&r->w, a[0], 0, "round's precision");
    struct str method =
        a[1].kind == UNSET ? STR("common") : text_str(argument_text(&r->w, a[1], "round's method"));
    bool up = str_is(method, "ceil"), down = str_is(method, "floor");
    if (self.kind == UNDEFINED)
        value_fail_undefined(&r->w, self);
    if (!value_numeric(self))
        work_fail(&r->w, ERR_INVALID, "round wants a number, not %s", value_type(self));
    if (!up && !down && !str_is(method, "common"))
        work_fail(&r->w, ERR_INVALID, "method must be common, ceil or floor");
    double f = value_number(self), scale = pow(10, (double)places);
    bool caller = self.caller || a[0].caller;
    char text[400];
    if (up || down) {
        self = value_float((up ? ceil(f * scale) : floor(f * scale)) / scale);
    } else if (self.kind != FLOAT) {
        int64_t i = value_integer(self);
        self = value_int(places >= 0 ? i : places < -18 ? 0 : (int64_t)(nearbyint(f * scale) / scale));
    } else if (places >= 0 && fabs(f) < 1e300) {
        snprintf(text, sizeof text, "%.*f", (int)(places < 60 ? places : 60), f);
        self = value_float(strtod(text, NULL));
    } else if (places < 0) {
        self = value_float(places < -308 ? 0 : nearbyint(f * scale) / scale);
    }
    self.caller = caller;
    return self;
}

/* ---- JSON ---- */

FILTER(filter_tojson) {
    struct json_style style = {.ascii = flag(r, a[0]), .sort = flag(r, a[3])};
    if (given(a[1]) && a[1].kind == STRING)
        style.indent = a[1].s;
    else if (given(a[1]))
        style.indent = value_binary(r, OP_MUL, value_literal(&r->w, " "),
                                    value_int(argument_int(&r->w, a[1], 0, "tojson's indent")))
                           .s;
    style.comma = style.indent ? text_new(&r->w, ",", 1, false) : text_new(&r->w, ", ", 2, false);
    style.colon = text_new(&r->w, ": ", 2, false);
    if (given(a[2])) {
        size_t n;
        const struct value *pair = value_items(&r->w, a[2], &n);
        if (n != 2)
            work_fail(&r->w, ERR_INVALID, "tojson wants two separators");
        style.comma = argument_text(&r->w, pair[0], "a separator");
        style.colon = argument_text(&r->w, pair[1], "a separator");
    }
    struct writer o = {.w = &r->w};
    print_json(&o, self, &style, 0);
    return value_text(writer_done(&o));
}

FILTER(filter_default) {
    bool use = self.kind == UNDEFINED || (flag(r, a[1]) && !value_true(&r->w, self));
    return !use ? self : a[0].kind == UNSET ? value_literal(&r->w, "") : a[0];
}

const struct builtin template_filters[] = {
    {"abs", filter_abs, "", 0},
    {"capitalize", filter_capitalize, "*", 0},
    {"center", filter_center, "width", 0},
    {"d", filter_default, "default_value boolean", 0},
    {"default", filter_default, "default_value boolean", 0},
    {"e", filter_escape, "", 0},
    {"escape", filter_escape, "", 0},
    {"float", filter_float, "default", 0},
    {"format", filter_format, "*", 0},
    {"indent", filter_indent, "width first blank", 0},
    {"int", filter_int, "default base", 0},
    {"lower", filter_lower, "*", 0},
    {"replace", filter_replace, "old new count", 2},
    {"round", filter_round, "precision method", 0},
    {"safe", filter_safe, "", 0},
    {"string", filter_string, "", 0},
    {"title", filter_title, "", 0},
    {"tojson", filter_tojson, "ensure_ascii indent separators sort_keys", 0},
    {"trim", filter_trim, "chars", 0},
    {"truncate", filter_truncate, "length killwords end leeway", 0},
    {"upper", filter_upper, "*", 0},
    {"urlencode", filter_urlencode, "", 0},
    {"wordcount", filter_wordcount, "", 0},
    {NULL, NULL, NULL, 0},
};
