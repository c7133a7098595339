/* More methods of strings: case, kinds of characters, padding; and the two ways of formatting, str.format and "%". */
#include "model/template/inner.h"

#include "base/utf8.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METHOD(name)                                                                     \
    static struct value name(struct render *r, struct value self, const struct value *a, \
                             const struct call *call)

METHOD(string_upper) {
    return value_text(text_map(&r->w, self.s, CASE_UPPER));
}
METHOD(string_lower) {
    return value_text(text_map(&r->w, self.s, CASE_LOWER));
}

/* Maps each character by what stands before it. */
static struct value map_by_place(struct render *r, const struct text *s, bool words) {
    struct writer o = {.w = &r->w};
    bool inside = false;
    work_charge(&r->w, s->n / 16);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t out[3], c = utf8_decode((struct str){s->p + i, s->n - i}, &n);
        size_t count = char_map(c, inside ? CASE_LOWER : CASE_TITLE, out);
        for (size_t k = 0; k < count; k++)
            writer_char(&o, (uint32_t)out[k], text_caller_at(s, i));
        inside = words ? char_is_cased(c) : true;
    }
    return value_text(writer_done(&o));
}
METHOD(string_title) {
    return map_by_place(r, self.s, true);
}
METHOD(string_capitalize) {
    return map_by_place(r, self.s, false);
}
METHOD(string_swapcase) {
    struct writer o = {.w = &r->w};
    work_charge(&r->w, self.s->n / 16);
    for (size_t i = 0, n; i < self.s->n; i += n) {
        int32_t out[3], c = utf8_decode((struct str){self.s->p + i, self.s->n - i}, &n);
        size_t count = char_map(c,
                                char_is_upper(c)   ? CASE_LOWER
                                : char_is_lower(c) ? CASE_UPPER
                                                   : CASE_LOWER,
                                out);
        for (size_t k = 0; k < count; k++)
            writer_char(&o, (uint32_t)(char_is_cased(c) ? out[k] : c), text_caller_at(self.s, i));
    }
    return value_text(writer_done(&o));
}

/* True for a string that is not empty and all of whose characters pass. */
static struct value all_are(struct render *r, const struct text *s, bool (*pass)(int32_t c)) {
    work_charge(&r->w, s->n / 16);
    for (size_t i = 0, n; i < s->n; i += n)
        if (!pass(utf8_decode((struct str){s->p + i, s->n - i}, &n)))
            return value_bool(false);
    return value_bool(s->n > 0);
}
static bool is_alnum(int32_t c) {
    return char_is_alpha(c) || char_is_digit(c);
}
METHOD(string_isalpha) {
    return all_are(r, self.s, char_is_alpha);
}
METHOD(string_isdigit) {
    return all_are(r, self.s, char_is_digit);
}
METHOD(string_isalnum) {
    return all_are(r, self.s, is_alnum);
}
METHOD(string_isspace) {
    return all_are(r, self.s, char_is_space);
}
/* Some cased characters, and none of the other case. */
static struct value has_case(struct render *r, const struct text *s, bool upper) {
    bool some = false;
    work_charge(&r->w, s->n / 16);
    for (size_t i = 0, n; i < s->n; i += n) {
        int32_t c = utf8_decode((struct str){s->p + i, s->n - i}, &n);
        if (upper ? char_is_lower(c) : char_is_upper(c))
            return value_bool(false);
        some |= char_is_cased(c);
    }
    return value_bool(some);
}
METHOD(string_isupper) {
    return has_case(r, self.s, true);
}
METHOD(string_islower) {
    return has_case(r, self.s, false);
}
METHOD(string_istitle) {
    bool inside = false, some = false;
    for (size_t i = 0, n; i < self.s->n; i += n) {
        int32_t c = utf8_decode((struct str){self.s->p + i, self.s->n - i}, &n);
        if ((char_is_upper(c) && inside) || (char_is_lower(c) && !inside))
            return value_bool(false);
        inside = char_is_cased(c);
        some |= inside;
    }
    return value_bool(some);
}

/* ---- padding ---- */

static void write_fill(struct writer *o, int64_t n, const struct text *fill, bool caller) {
    if (n > TEMPLATE_MOST_MEMORY)
        work_fail(o->w, ERR_TOO_LARGE, "it needs more than %d MiB of memory", TEMPLATE_MOST_MEMORY >> 20);
    work_charge(o->w, n > 0 ? (size_t)n / 16 : 0);
    for (int64_t i = 0; i < n; i++)
        writer_bytes(o, fill->p, fill->n, caller || text_caller_any(fill, 0, fill->n));
}

static struct value pad(struct render *r, const struct text *s, const struct value *a, char align) {
    static const struct text space = {.p = " ", .n = 1};
    const struct text *fill = a[1].kind == UNSET ? &space : argument_text(&r->w, a[1], "the fill character");
    int64_t width = argument_int(&r->w, a[0], 0, "the width"), n = (int64_t)text_chars(&r->w, s);
    if (text_chars(&r->w, fill) != 1)
        work_fail(&r->w, ERR_INVALID, "the fill character must be exactly one character long");
    int64_t room = width > n ? width - n : 0;
    int64_t left = align == '<' ? 0 : align == '>' ? room : room / 2 + (room & width & 1);
    struct writer o = {.w = &r->w};
    write_fill(&o, left, fill, a[0].caller);
    writer_text(&o, s);
    write_fill(&o, room - left, fill, a[0].caller);
    return value_text(writer_done(&o));
}
METHOD(string_ljust) {
    return pad(r, self.s, a, '<');
}
METHOD(string_rjust) {
    return pad(r, self.s, a, '>');
}
METHOD(string_center) {
    return pad(r, self.s, a, '^');
}
METHOD(string_zfill) {
    static const struct text zero = {.p = "0", .n = 1};
    const struct text *s = self.s;
    int64_t room = argument_int(&r->w, a[0], 0, "the width") - (int64_t)text_chars(&r->w, s);
    size_t sign = s->n > 0 && (s->p[0] == '+' || s->p[0] == '-');
    struct writer o = {.w = &r->w};
    writer_part(&o, s, 0, sign);
    write_fill(&o, room, &zero, a[0].caller);
    writer_part(&o, s, sign, s->n - sign);
    return value_text(writer_done(&o));
}

const struct builtin template_more_string_methods[] = {
    {"upper", string_upper, "", 0},
    {"lower", string_lower, "", 0},
    {"casefold", string_lower, "", 0},
    {"title", string_title, "", 0},
    {"capitalize", string_capitalize, "", 0},
    {"swapcase", string_swapcase, "", 0},
    {"isalpha", string_isalpha, "", 0},
    {"isdigit", string_isdigit, "", 0},
    {"isdecimal", string_isdigit, "", 0},
    {"isnumeric", string_isdigit, "", 0},
    {"isalnum", string_isalnum, "", 0},
    {"isspace", string_isspace, "", 0},
    {"isupper", string_isupper, "", 0},
    {"islower", string_islower, "", 0},
    {"istitle", string_istitle, "", 0},
    {"ljust", string_ljust, "width fillchar", 1},
    {"rjust", string_rjust, "width fillchar", 1},
    {"center", string_center, "width fillchar", 1},
    {"zfill", string_zfill, "width", 1},
    {NULL, NULL, NULL, 0},
};

/* ---- formatting ---- */

static bool one_of(char c, const char *set) {
    return c != 0 && strchr(set, c) != NULL;
}

/* One conversion, of str.format or of "%". */
struct spec {
    struct text fill;
    char align; /* 0: as the type has it */
    char sign;  /* '-', '+' or ' ' */
    bool zero, alternate, percent;
    char group;           /* ',' or '_' */
    int width, precision; /* precision -1: none */
    char type;
};

static int spec_number(struct render *r, const char **p, const char *end) {
    int n = 0;
    for (; *p < end && **p >= '0' && **p <= '9'; ++*p) {
        n = n * 10 + **p - '0';
        if (n > 100000)
            work_fail(&r->w, ERR_TOO_LARGE, "a format is wider than 100000 characters");
    }
    return n;
}

static void write_padded(struct render *r, struct writer *o, const struct text *s, const struct spec *spec,
                         char align) {
    int64_t room = spec->width - (int64_t)text_chars(&r->w, s);
    align = spec->align ? spec->align : align;
    room = room > 0 ? room : 0;
    int64_t left = align == '<' ? 0 : align == '^' ? room / 2 : room;
    size_t sign = align == '=' && s->n > 0 && one_of(s->p[0], "+- ");
    writer_part(o, s, 0, sign);
    write_fill(o, left, &spec->fill, false);
    writer_part(o, s, sign, s->n - sign);
    write_fill(o, room - left, &spec->fill, false);
}

static void group_digits(char *text, size_t size, char group) {
    char plain[400];
    size_t digits = 0, start = strspn(text, "+- "), k = 0;
    snprintf(plain, sizeof plain, "%s", text);
    while (isdigit((unsigned char)plain[start + digits]))
        digits++;
    for (size_t i = 0; plain[i] != 0 && k + 2 < size; i++) {
        if (i > start && i < start + digits && (start + digits - i) % 3 == 0)
            text[k++] = group;
        text[k++] = plain[i];
    }
    text[k] = 0;
}

static void format_integer(struct render *r, const struct spec *spec, int64_t i, char text[400]) {
    uint64_t u = i < 0 ? -(uint64_t)i : (uint64_t)i;
    const char *sign = i < 0 ? "-" : spec->sign == '+' ? "+" : spec->sign == ' ' ? " " : "";
    int precision =
        spec->percent && spec->precision > 0 ? (spec->precision < 300 ? spec->precision : 300) : 1;
    if (spec->type == 'x')
        snprintf(text, 400, "%s%s%.*" PRIx64, sign, spec->alternate ? "0x" : "", precision, u);
    else if (spec->type == 'X')
        snprintf(text, 400, "%s%s%.*" PRIX64, sign, spec->alternate ? "0X" : "", precision, u);
    else if (spec->type == 'o')
        snprintf(text, 400, "%s%s%.*" PRIo64, sign, spec->alternate ? "0o" : "", precision, u);
    else if (spec->type == 'b')
        work_fail(&r->w, ERR_UNSUPPORTED, "the format type b is not supported");
    else
        snprintf(text, 400, "%s%.*" PRIu64, sign, precision, u);
}

static void format_real(const struct spec *spec, double f, char text[400]) {
    const char *sign = spec->sign == '+' ? "+" : spec->sign == ' ' ? " " : "";
    int precision = spec->precision < 0 ? 6 : spec->precision < 50 ? spec->precision : 50;
    if (spec->type == '%')
        f *= 100;
    if (signbit(f))
        sign = "-";
    f = fabs(f);
    if (spec->type == 'e' || spec->type == 'E')
        snprintf(text, 400, spec->type == 'e' ? "%s%.*e" : "%s%.*E", sign, precision, f);
    else if (spec->type == 'g' || spec->type == 'G')
        snprintf(text, 400, spec->type == 'g' ? "%s%.*g" : "%s%.*G", sign, precision, f);
    else
        snprintf(text, 400, "%s%.*f%s", sign, precision, f, spec->type == '%' ? "%" : "");
}

static void format_number(struct render *r, struct writer *o, struct value v, const struct spec *spec) {
    char text[400];
    bool real = one_of(spec->type, "eEfFgG%");
    if (!real && v.kind == FLOAT && spec->percent) {
        if (!isfinite(v.f) || fabs(v.f) >= 9.2e18)
            work_fail(&r->w, ERR_INVALID, "cannot convert the float to an integer");
        v = value_int((int64_t)v.f);
    }
    if (real) {
        format_real(spec, value_number(v), text);
    } else if (v.kind == FLOAT) {
        if (spec->precision >= 0 || spec->type != 0)
            work_fail(&r->w, ERR_UNSUPPORTED, "this format of a float is not supported; use f, e or g");
        print_float(text, v.f);
        if (spec->sign != '-' && text[0] != '-') {
            memmove(text + 1, text, strlen(text) + 1);
            text[0] = spec->sign;
        }
    } else {
        format_integer(r, spec, value_integer(v), text);
    }
    if (spec->group != 0)
        group_digits(text, sizeof text, spec->group);
    const struct text s = {.p = text, .n = strlen(text), .caller = v.caller};
    struct spec own = *spec;
    if (spec->zero && spec->align == 0) {
        own.fill = (struct text){.p = "0", .n = 1};
        own.align = '=';
    }
    write_padded(r, o, &s, &own, '>');
}

static void format_text(struct render *r, struct writer *o, const struct text *s, const struct spec *spec) {
    if (spec->precision >= 0)
        s = text_part(&r->w, s, 0, text_offset(&r->w, s, (size_t)spec->precision));
    struct spec own = *spec;
    if (spec->zero && !spec->percent && spec->align == 0)
        own.fill = (struct text){.p = "0", .n = 1};
    if (own.align == '=')
        work_fail(&r->w, ERR_INVALID, "'=' alignment not allowed in string format specifier");
    write_padded(r, o, s, &own, spec->percent ? '>' : '<');
}

static void format_value(struct render *r, struct writer *o, struct value v, const char *p, size_t n) {
    const char *end = p + n;
    struct spec spec = {.fill = {.p = " ", .n = 1}, .sign = '-', .precision = -1};
    if (n == 0) {
        print_value(o, v);
        return;
    }
    size_t first = 1;
    utf8_decode((struct str){p, n}, &first);
    if (first < n && one_of(p[first], "<>=^")) {
        spec.fill = (struct text){.p = p, .n = first};
        spec.align = p[first];
        p += first + 1;
    } else if (one_of(*p, "<>=^")) {
        spec.align = *p++;
    }
    if (p < end && one_of(*p, "+- "))
        spec.sign = *p++;
    if (p < end && *p == '#')
        spec.alternate = p++ != NULL;
    if (p < end && *p == '0')
        spec.zero = p++ != NULL;
    spec.width = spec_number(r, &p, end);
    if (p < end && (*p == ',' || *p == '_'))
        spec.group = *p++;
    if (p < end && *p == '.') {
        p++;
        spec.precision = spec_number(r, &p, end);
    }
    spec.type = p < end ? *p++ : 0;
    bool number = value_numeric(v) && (v.kind != BOOL || spec.type != 0);
    const char *types = !number ? "s" : v.kind == FLOAT ? "eEfFgG%" : "dnxXobeEfFgG%";
    if (p != end || (spec.type != 0 && !one_of(spec.type, types)) ||
        (!number && v.kind != STRING && v.kind != BOOL))
        work_fail(&r->w, ERR_INVALID, "unsupported format for a value of type '%s'", value_type(v));
    if (number)
        format_number(r, o, v, &spec);
    else
        format_text(r, o, value_to_text(&r->w, v), &spec);
}

/* A replacement field's name: "", "0", "name", "0.name[key]". */
static struct value format_field(struct render *r, const struct call *call, const char *p, size_t n,
                                 int64_t *next) {
    size_t first = 0;
    while (first < n && p[first] != '.' && p[first] != '[')
        first++;
    struct value v = {.kind = UNSET};
    bool number = text_is_number((struct str){p, first});
    if (first == 0 || number) {
        if ((first == 0) == (*next < 0))
            work_fail(&r->w, ERR_INVALID, "cannot switch between automatic and manual field numbering");
        int64_t at = number ? strtoll(p, NULL, 10) : (*next)++ - 1;
        if (at < 0 || (uint64_t)at >= call->n)
            work_fail(&r->w, ERR_INVALID,
                      "Replacement index %" PRId64 " out of range for positional args tuple", at);
        v = call->arg[at];
    }
    for (size_t i = 0; v.kind == UNSET && i < call->names; i++)
        if (str_equal(text_str(call->named[i].name), (struct str){p, first}))
            v = call->named[i].value;
    if (v.kind == UNSET)
        work_fail(&r->w, ERR_INVALID, "the format names an argument that is not given");
    if (first < n)
        work_fail(&r->w, ERR_UNSUPPORTED, "attributes and items in a format are not supported");
    return v;
}

struct value string_format(struct render *r, const struct text *format, const struct call *call) {
    struct writer o = {.w = &r->w};
    const char *p = format->p;
    int64_t next = 0; /* 0: not known yet; > 0: automatic, counting from 1; -1: manual */
    for (size_t i = 0; i < format->n;) {
        if ((p[i] == '{' || p[i] == '}') && i + 1 < format->n && p[i + 1] == p[i]) {
            writer_part(&o, format, i, 1);
            i += 2;
        } else if (p[i] == '{') {
            const char *close = memchr(p + i, '}', format->n - i);
            if (close == NULL)
                work_fail(&r->w, ERR_INVALID, "expected '}' before end of string");
            size_t end = (size_t)(close - p), name = i + 1, name_end = name;
            while (name_end < end && p[name_end] != ':' && p[name_end] != '!')
                name_end++;
            bool numbered = name_end > name && p[name] >= '0' && p[name] <= '9';
            if (next == 0 && (name_end == name || numbered))
                next = numbered ? -1 : 1;
            struct value v = format_field(r, call, p + name, name_end - name, &next);
            size_t spec = name_end;
            if (p[spec] == '!' && spec + 1 < end) {
                struct writer converted = {.w = &r->w};
                if (p[spec + 1] == 'r')
                    print_repr(&converted, v);
                else
                    print_value(&converted, v);
                v = value_text(writer_done(&converted));
                spec += 2;
            }
            spec += p[spec] == ':';
            format_value(r, &o, v, p + spec, end - spec);
            i = end + 1;
        } else if (p[i] == '}') {
            work_fail(&r->w, ERR_INVALID, "Single '}' encountered in format string");
        } else {
            size_t end = i;
            while (end < format->n && p[end] != '{' && p[end] != '}')
                end++;
            writer_part(&o, format, i, end - i);
            i = end;
        }
    }
    const struct text *s = writer_done(&o);
    return value_text(text_caller_any(format, 0, format->n) ? text_as_caller(&r->w, s) : s);
}

/* "%s and %d" % values */
struct value string_percent(struct render *r, const struct text *format, struct value args) {
    struct writer o = {.w = &r->w};
    const char *p = format->p, *end = p + format->n;
    const struct value *item = args.kind == TUPLE ? args.list->item : &args;
    size_t n = args.kind == TUPLE ? args.list->n : 1, used = 0;
    while (p < end) {
        const char *mark = memchr(p, '%', (size_t)(end - p)), *stop = mark ? mark : end;
        writer_part(&o, format, (size_t)(p - format->p), (size_t)(stop - p));
        p = stop;
        if (mark == NULL)
            break;
        struct spec spec = {.fill = {.p = " ", .n = 1}, .sign = '-', .precision = -1, .percent = true};
        struct value v = {.kind = UNSET};
        p++;
        if (p < end && *p == '(') {
            const char *close = memchr(p, ')', (size_t)(end - p));
            if (close == NULL || args.kind != DICT)
                work_fail(&r->w, ERR_INVALID, "format requires a mapping");
            const struct value *hit =
                dict_find_str(&r->w, args.dict, (struct str){p + 1, (size_t)(close - p - 1)});
            if (hit == NULL)
                work_fail(&r->w, ERR_INVALID, "the format names a key that is not given");
            v = *hit;
            p = close + 1;
        }
        for (; p < end && one_of(*p, "-+ #0"); p++) {
            spec.align = *p == '-' ? '<' : spec.align;
            spec.sign = *p == '+' || (*p == ' ' && spec.sign != '+') ? *p : spec.sign;
            spec.alternate |= *p == '#';
            spec.zero |= *p == '0';
        }
        spec.width = spec_number(r, &p, end);
        if (p < end && *p == '.') {
            p++;
            spec.precision = spec_number(r, &p, end);
        }
        spec.type = p < end ? *p++ : 0;
        if (spec.type == '%') {
            writer_bytes(&o, "%", 1, text_caller_at(format, (size_t)(p - 1 - format->p)));
            continue;
        }
        if (!one_of(spec.type, "sradiuxXoeEfFgG"))
            work_fail(&r->w, ERR_INVALID, "unsupported format character in a string before %%");
        if (v.kind == UNSET) {
            if (used == n)
                work_fail(&r->w, ERR_INVALID, "not enough arguments for format string");
            v = item[used++];
        }
        bool text = one_of(spec.type, "sra");
        if (!text && !value_numeric(v))
            work_fail(&r->w, ERR_INVALID, "%%%c format: a number is required, not %s", spec.type,
                      value_type(v));
        struct writer printed = {.w = &r->w};
        if (!text) {
            format_number(r, &o, v, &spec);
            continue;
        }
        if (spec.type == 's')
            print_value(&printed, v);
        else
            print_repr(&printed, v);
        format_text(r, &o, writer_done(&printed), &spec);
    }
    if (used < n && args.kind != DICT && args.kind != LIST && args.kind != UNDEFINED && args.kind != RANGE)
        work_fail(&r->w, ERR_INVALID, "not all arguments converted during string formatting");
    const struct text *s = writer_done(&o);
    return value_text(text_caller_any(format, 0, format->n) ? text_as_caller(&r->w, s) : s);
}
