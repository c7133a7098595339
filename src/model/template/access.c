/* Attributes, items, slices and calls. As in jinja2, v.name looks for an attribute and then for an item, v[key] the other way round; methods
 * that would change a list or a dict are refused, as the immutable sandbox does. */
#include "model/template/inner.h"

#include <string.h>

const struct builtin *builtin_find(const struct builtin *table, struct str name) {
    for (; table->name != NULL; table++)
        if (str_is(name, table->name))
            return table;
    return NULL;
}

static size_t params_place(const char *params, struct str name) {
    for (size_t i = 0; *params != 0; i++) {
        size_t n = strcspn(params, " ");
        if (n == name.n && memcmp(params, name.p, n) == 0)
            return i;
        params += n + (params[n] == ' ');
    }
    return SIZE_MAX;
}

struct value builtin_call(struct render *r, const struct builtin *b, struct value self,
                          const struct call *call) {
    struct value a[BUILTIN_MOST_PARAMS];
    size_t params = 0;
    for (size_t i = 0; i < BUILTIN_MOST_PARAMS; i++)
        a[i] = (struct value){.kind = UNSET};
    if (b->params[0] == '*')
        return b->function(r, self, a, call);
    for (const char *p = b->params; *p != 0; params++) {
        p += strcspn(p, " ");
        p += *p == ' ';
    }
    if (call->n > params)
        work_fail(&r->w, ERR_INVALID, "%s takes at most %zu arguments (%zu given)", b->name, params, call->n);
    for (size_t i = 0; i < call->n; i++)
        a[i] = call->arg[i];
    for (size_t i = 0; i < call->names; i++) {
        struct str name = text_str(call->named[i].name);
        size_t place = params_place(b->params, name);
        if (place == SIZE_MAX || a[place].kind != UNSET)
            work_fail(&r->w, ERR_INVALID, "%s got %s argument '%.*s'", b->name,
                      place == SIZE_MAX ? "an unexpected" : "two values for the",
                      (int)(name.n < 60 ? name.n : 60), name.p);
        a[place] = call->named[i].value;
    }
    for (size_t i = 0; i < b->need; i++)
        if (a[i].kind == UNSET)
            work_fail(&r->w, ERR_INVALID, "%s needs %d argument%s", b->name, b->need, b->need > 1 ? "s" : "");
    return b->function(r, self, a, call);
}

const struct builtin *template_filter(struct render *r, struct str name) {
    const struct builtin *b = builtin_find(template_filters, name);
    if (b == NULL)
        b = builtin_find(template_more_filters, name);
    if (b == NULL)
        work_fail(&r->w, ERR_INVALID, "No filter named '%.*s'.", (int)(name.n < 60 ? name.n : 60), name.p);
    return b;
}

const struct builtin *template_test(struct render *r, struct str name) {
    const struct builtin *b = builtin_find(template_tests, name);
    if (b == NULL)
        work_fail(&r->w, ERR_INVALID, "No test named '%.*s'.", (int)(name.n < 60 ? name.n : 60), name.p);
    return b;
}

int64_t argument_int(struct work *w, struct value v, int64_t fallback, const char *what) {
    if (v.kind == UNSET)
        return fallback;
    if (v.kind == UNDEFINED)
        value_fail_undefined(w, v);
    if (!value_integral(v))
        work_fail(w, ERR_INVALID, "%s must be an integer, not %s", what, value_type(v));
    return value_integer(v);
}

const struct text *argument_text(struct work *w, struct value v, const char *what) {
    if (v.kind == UNDEFINED)
        value_fail_undefined(w, v);
    if (v.kind != STRING)
        work_fail(w, ERR_INVALID, "%s must be str, not %s", what, value_type(v));
    return v.s;
}

/* ---- attributes ---- */

static bool bind(struct render *r, const struct builtin *table, struct value v, struct str name,
                 struct value *out) {
    const struct builtin *b = builtin_find(table, name);
    if (b == NULL)
        return false;
    struct method *m = work_alloc(&r->w, 1, sizeof *m);
    *m = (struct method){b, v};
    *out = (struct value){.kind = METHOD, .method = m};
    return true;
}

/* What Python's values have besides the methods that exist here: present, so an item of that name is not looked for, but of no use. */
static bool has_other_attribute(struct value v, struct str name) {
    static const char *const number[] = {
        "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator", "from_bytes", "imag",
        "numerator",        "real",      "to_bytes",   NULL};
    static const char *const real[] = {"as_integer_ratio", "conjugate", "fromhex", "hex", "imag",
                                       "is_integer",       "real",      NULL};
    static const char *const string[] = {"encode",      "expandtabs", "format_map", "isascii", "isidentifier",
                                         "isprintable", "maketrans",  "translate",  NULL};
    static const char *const list[] = {"append", "clear",   "extend", "insert", "pop",
                                       "remove", "reverse", "sort",   NULL};
    static const char *const dict[] = {"clear", "fromkeys", "pop", "popitem", "setdefault", "update", NULL};
    static const char *const range[] = {"start", "stop", "step", NULL};
    static const char *const view[] = {"isdisjoint", "mapping", NULL};
    const char *const *names = v.kind == BOOL || v.kind == INT ? number
                               : v.kind == FLOAT               ? real
                               : v.kind == STRING              ? string
                               : v.kind == LIST                ? list
                               : v.kind == DICT                ? dict
                               : v.kind == RANGE               ? range
                               : v.kind == VIEW                ? view
                                                               : NULL;
    for (; names != NULL && *names != NULL; names++)
        if (str_is(name, *names))
            return true;
    return name.n > 4 && memcmp(name.p, "__", 2) == 0 && memcmp(name.p + name.n - 2, "__", 2) == 0;
}

bool value_method(struct render *r, struct value v, struct str name, struct value *out) {
    switch (v.kind) {
    case STRING:
        if (bind(r, template_string_methods, v, name, out) ||
            bind(r, template_more_string_methods, v, name, out))
            return true;
        break;
    case LIST:
    case TUPLE:
    case RANGE:
        if (bind(r, template_list_methods, v, name, out))
            return true;
        break;
    case DICT:
        if (bind(r, template_dict_methods, v, name, out))
            return true;
        break;
    case CYCLER:
        if (bind(r, template_cycler_methods, v, name, out))
            return true;
        break;
    case LOOP:
        if (!bind(r, template_loop_methods, v, name, out))
            *out = loop_attribute(r, v.loop, name);
        return true;
    default:
        break;
    }
    if (!has_other_attribute(v, name))
        return false;
    struct writer o = {.w = &r->w};
    writer_printf(&o, false, "%s.", value_type(v));
    writer_bytes(&o, name.p, name.n, true);
    *out = value_undefined(writer_done(&o));
    return true;
}

static struct value missing(struct render *r, struct value v, struct value key) {
    struct writer o = {.w = &r->w};
    writer_printf(&o, false, "%s object has no attribute ", value_type(v));
    print_value(&o, key);
    return value_undefined(writer_done(&o));
}

/* v[key] as Python has it; false where Python raises LookupError or TypeError. */
static bool find_item(struct render *r, struct value v, struct value key, struct value *out) {
    if (v.kind == DICT) {
        if (key.kind == LIST || key.kind == DICT)
            return false;
        const struct value *hit = dict_find(&r->w, v.dict, key);
        if (hit != NULL)
            *out = *hit;
        return hit != NULL;
    }
    if (!value_integral(key) || (v.kind != STRING && v.kind != LIST && v.kind != TUPLE && v.kind != RANGE))
        return false;
    int64_t n = value_length(&r->w, v), i = value_integer(key);
    i += i < 0 ? n : 0;
    if (i < 0 || i >= n)
        return false;
    if (v.kind == RANGE) {
        *out = value_int(v.range->start + i * v.range->step);
        out->caller = v.caller || key.caller;
    } else if (v.kind == STRING) {
        size_t at = text_offset(&r->w, v.s, (size_t)i), end = at + 1;
        while (end < v.s->n && ((unsigned char)v.s->p[end] & 0xC0) == 0x80)
            end++;
        const struct text *part = text_part(&r->w, v.s, at, end - at);
        *out = value_text(key.caller ? text_as_caller(&r->w, part) : part);
    } else {
        *out = v.list->item[i];
    }
    return true;
}

static bool find_member(struct render *r, struct value v, struct str name, struct value *out) {
    if (v.kind != NAMESPACE)
        return false;
    const struct value *hit = dict_find_str(&r->w, v.dict, name);
    if (hit != NULL)
        *out = *hit;
    return hit != NULL;
}

struct value value_attribute(struct render *r, struct value v, struct str name) {
    struct value out, key = value_text(text_new(&r->w, name.p, name.n, false));
    if (v.kind == UNDEFINED)
        value_fail_undefined(&r->w, v);
    if (find_member(r, v, name, &out) || value_method(r, v, name, &out) || find_item(r, v, key, &out))
        return out;
    return missing(r, v, key);
}

struct value value_item(struct render *r, struct value v, struct value key) {
    struct value out;
    if (v.kind == UNDEFINED)
        value_fail_undefined(&r->w, v);
    if (find_item(r, v, key, &out))
        return out;
    if (key.kind == STRING &&
        (find_member(r, v, text_str(key.s), &out) || value_method(r, v, text_str(key.s), &out)))
        return out;
    return missing(r, v, key);
}

/* ---- slices ---- */

/* Start, stop and step as Python's slice.indices. */
static void slice_bounds(struct work *w, const struct value bound[3], int64_t n, int64_t out[3]) {
    for (int i = 0; i < 3; i++)
        if (bound[i].kind != NONE && !value_integral(bound[i]))
            work_fail(w, ERR_INVALID, "slice indices must be integers or None");
    int64_t step = bound[2].kind == NONE ? 1 : value_integer(bound[2]);
    if (step == 0)
        work_fail(w, ERR_INVALID, "slice step cannot be zero");
    int64_t low = step < 0 ? -1 : 0, high = step < 0 ? n - 1 : n;
    for (int i = 0; i < 2; i++) {
        int64_t at = (i == 0) == (step > 0) ? low : high;
        if (bound[i].kind != NONE) {
            at = value_integer(bound[i]);
            at = at < -n ? low : at < 0 ? at + n : at;
            at = at > high ? high : at;
        }
        out[i] = at;
    }
    out[2] = step;
}

static size_t slice_count(const int64_t at[3]) {
    if (at[2] > 0)
        return at[0] < at[1] ? (size_t)((at[1] - at[0] - 1) / at[2] + 1) : 0;
    return at[0] > at[1] ? (size_t)((at[0] - at[1] - 1) / (at[2] == INT64_MIN ? INT64_MAX : -at[2]) + 1) : 0;
}

static struct value slice_string(struct render *r, const struct text *s, const int64_t at[3], size_t n) {
    if (at[2] == 1) {
        size_t from = text_offset(&r->w, s, (size_t)at[0]);
        const struct text rest = {.p = s->p + from, .n = s->n - from};
        return value_text(text_part(&r->w, s, from, n == 0 ? 0 : text_offset(&r->w, &rest, n)));
    }
    struct writer o = {.w = &r->w};
    size_t chars;
    const struct value *item = value_items(&r->w, value_text(s), &chars);
    for (size_t i = 0; i < n; i++)
        writer_text(&o, item[at[0] + (int64_t)i * at[2]].s);
    return value_text(writer_done(&o));
}

struct value value_slice(struct render *r, struct value v, const struct value bound[3]) {
    if (v.kind == UNDEFINED)
        value_fail_undefined(&r->w, v);
    if (v.kind != STRING && v.kind != LIST && v.kind != TUPLE && v.kind != RANGE)
        work_fail(&r->w, ERR_INVALID, "'%s' object is not subscriptable", value_type(v));
    int64_t at[3];
    slice_bounds(&r->w, bound, value_length(&r->w, v), at);
    size_t n = slice_count(at);
    bool caller = bound[0].caller || bound[1].caller || bound[2].caller;
    work_charge(&r->w, n / 4);
    if (v.kind == STRING) {
        v = slice_string(r, v.s, at, n);
        return caller ? value_text(text_as_caller(&r->w, v.s)) : v;
    }
    if (v.kind == RANGE) {
        struct range *part = work_alloc(&r->w, 1, sizeof *part);
        *part = (struct range){v.range->start + at[0] * v.range->step, v.range->start + at[1] * v.range->step,
                               v.range->step * at[2], n};
        return (struct value){.kind = RANGE, .caller = v.caller || caller, .range = part};
    }
    struct value *item = work_alloc(&r->w, n, sizeof *item);
    for (size_t i = 0; i < n; i++)
        item[i] = v.list->item[at[0] + (int64_t)i * at[2]];
    struct value out = value_list(&r->w, (enum kind)v.kind, item, n);
    out.caller = v.caller || caller;
    return out;
}

struct value value_call(struct render *r, struct value callee, const struct call *call) {
    struct value v;
    work_enter(&r->w);
    if (callee.kind == MACRO) {
        v = macro_call(r, callee.macro, call);
    } else if (callee.kind == BUILTIN) {
        v = builtin_call(r, callee.builtin, value_none(), call);
    } else if (callee.kind == METHOD) {
        v = builtin_call(r, callee.method->builtin, callee.method->self, call);
    } else if (callee.kind == JOINER) {
        v = callee.cycler->at++ == 0 ? value_literal(&r->w, "") : callee.cycler->item[0];
    } else if (callee.kind == LOOP && call->n == 1) {
        v = loop_call(r, callee.loop, call->arg[0]);
    } else {
        if (callee.kind == UNDEFINED)
            value_fail_undefined(&r->w, callee);
        work_fail(&r->w, ERR_INVALID, "'%s' object is not callable", value_type(callee));
    }
    r->w.depth--;
    return v;
}
