/* The tests ("is ...") and the global functions of templates. */
#include "model/template/inner.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#define TEST(name)                                                                       \
    static struct value name(struct render *r, struct value self, const struct value *a, \
                             const struct call *call)

TEST(test_defined) {
    return value_bool(self.kind != UNDEFINED);
}
TEST(test_undefined) {
    return value_bool(self.kind == UNDEFINED);
}
TEST(test_none) {
    return value_bool(self.kind == NONE);
}
TEST(test_boolean) {
    return value_bool(self.kind == BOOL);
}
TEST(test_true) {
    return value_bool(self.kind == BOOL && self.b);
}
TEST(test_false) {
    return value_bool(self.kind == BOOL && !self.b);
}
TEST(test_string) {
    return value_bool(self.kind == STRING);
}
TEST(test_number) {
    return value_bool(value_numeric(self));
}
TEST(test_integer) {
    return value_bool(self.kind == INT);
}
TEST(test_float) {
    return value_bool(self.kind == FLOAT);
}
TEST(test_mapping) {
    return value_bool(self.kind == DICT);
}
TEST(test_sequence) {
    return value_bool(self.kind == UNDEFINED || (self.kind >= STRING && self.kind <= RANGE));
}
TEST(test_iterable) {
    return value_bool(value_walkable(self));
}
TEST(test_callable) {
    return value_bool(self.kind == UNDEFINED || (self.kind >= MACRO && self.kind <= LOOP) ||
                      self.kind == JOINER);
}
TEST(test_escaped) {
    return value_bool(self.kind == STRING && self.s->markup);
}
TEST(test_filter) {
    const char *known = self.kind == STRING ? "" : NULL;
    return value_bool(known != NULL && (builtin_find(template_filters, text_str(self.s)) != NULL ||
                                        builtin_find(template_more_filters, text_str(self.s)) != NULL));
}
TEST(test_test) {
    return value_bool(self.kind == STRING && builtin_find(template_tests, text_str(self.s)) != NULL);
}

static bool divides(struct render *r, struct value v, struct value by, int64_t rest) {
    struct value left = value_binary(r, OP_MOD, v, by);
    return value_equal(&r->w, left, value_int(rest));
}
TEST(test_odd) {
    return value_bool(divides(r, self, value_int(2), 1));
}
TEST(test_even) {
    return value_bool(divides(r, self, value_int(2), 0));
}
TEST(test_divisibleby) {
    return value_bool(divides(r, self, a[0], 0));
}

static struct value has_case(struct render *r, struct value self, const char *method) {
    struct call none = {0};
    return builtin_call(r, builtin_find(template_more_string_methods, str_from(method)),
                        value_text(value_to_text(&r->w, self)), &none);
}
TEST(test_lower) {
    return has_case(r, self, "islower");
}
TEST(test_upper) {
    return has_case(r, self, "isupper");
}

TEST(test_eq) {
    return value_bool(value_equal(&r->w, self, a[0]));
}
TEST(test_ne) {
    return value_bool(!value_equal(&r->w, self, a[0]));
}
TEST(test_lt) {
    return value_bool(value_order(&r->w, self, a[0], "<") == -1);
}
TEST(test_gt) {
    return value_bool(value_order(&r->w, self, a[0], ">") == 1);
}
TEST(test_le) {
    return value_bool(value_order(&r->w, self, a[0], "<=") <= 0);
}
TEST(test_ge) {
    int order = value_order(&r->w, self, a[0], ">=");
    return value_bool(order == 0 || order == 1);
}
TEST(test_in) {
    return value_bool(value_contains(&r->w, a[0], self));
}
/* Python's identity, as far as values here have one. */
TEST(test_sameas) {
    bool same = self.kind == a[0].kind &&
                (self.kind == NONE || (self.kind == BOOL ? self.b == a[0].b : self.i == a[0].i));
    return value_bool(same);
}

const struct builtin template_tests[] = {
    {"!=", test_ne, "other", 1},
    {"<", test_lt, "other", 1},
    {"<=", test_le, "other", 1},
    {"==", test_eq, "other", 1},
    {">", test_gt, "other", 1},
    {">=", test_ge, "other", 1},
    {"boolean", test_boolean, "", 0},
    {"callable", test_callable, "", 0},
    {"defined", test_defined, "", 0},
    {"divisibleby", test_divisibleby, "num", 1},
    {"eq", test_eq, "other", 1},
    {"equalto", test_eq, "other", 1},
    {"escaped", test_escaped, "", 0},
    {"even", test_even, "", 0},
    {"false", test_false, "", 0},
    {"filter", test_filter, "", 0},
    {"float", test_float, "", 0},
    {"ge", test_ge, "other", 1},
    {"greaterthan", test_gt, "other", 1},
    {"gt", test_gt, "other", 1},
    {"in", test_in, "seq", 1},
    {"integer", test_integer, "", 0},
    {"iterable", test_iterable, "", 0},
    {"le", test_le, "other", 1},
    {"lessthan", test_lt, "other", 1},
    {"lower", test_lower, "", 0},
    {"lt", test_lt, "other", 1},
    {"mapping", test_mapping, "", 0},
    {"ne", test_ne, "other", 1},
    {"none", test_none, "", 0},
    {"number", test_number, "", 0},
    {"odd", test_odd, "", 0},
    {"sameas", test_sameas, "other", 1},
    {"sequence", test_sequence, "", 0},
    {"string", test_string, "", 0},
    {"test", test_test, "", 0},
    {"true", test_true, "", 0},
    {"undefined", test_undefined, "", 0},
    {"upper", test_upper, "", 0},
    {NULL, NULL, NULL, 0},
};

/* ---- global functions ---- */

TEST(global_range) {
    int64_t start = 0, stop = argument_int(&r->w, a[0], 0, "range's bound"), step = 1;
    if (a[1].kind != UNSET) {
        start = stop;
        stop = argument_int(&r->w, a[1], 0, "range's bound");
        step = argument_int(&r->w, a[2], 1, "range's step");
    }
    if (step == 0)
        work_fail(&r->w, ERR_INVALID, "range() arg 3 must not be zero");
    __int128 n = step > 0 ? ((__int128)stop - start + step - 1) / step
                          : ((__int128)start - stop - step - 1) / -(__int128)step;
    if ((step > 0) != (stop > start) || n < 0)
        n = 0;
    if (n > TEMPLATE_MOST_RANGE)
        work_fail(&r->w, ERR_TOO_LARGE, "Range too big. The sandbox blocks ranges larger than %d.",
                  TEMPLATE_MOST_RANGE);
    struct range *range = work_alloc(&r->w, 1, sizeof *range);
    *range = (struct range){start, stop, step, (size_t)n};
    return (struct value){.kind = RANGE, .caller = a[0].caller || a[1].caller || a[2].caller, .range = range};
}

/* What dict(...) and namespace(...) make of their arguments. */
static struct value fill_dict(struct render *r, const struct call *call, enum kind kind) {
    struct value d = value_dict(&r->w);
    d.kind = (uint8_t)kind;
    if (call->n > 1)
        work_fail(&r->w, ERR_INVALID, "dict expected at most 1 argument, got %zu", call->n);
    if (call->n == 1 && call->arg[0].kind == DICT) {
        const struct dict *from = call->arg[0].dict;
        for (size_t i = 0; i < from->n; i++)
            dict_set(&r->w, d.dict, from->entry[i].key, from->entry[i].value);
        d.caller = call->arg[0].caller;
    } else if (call->n == 1) {
        size_t n, parts;
        const struct value *item = value_items(&r->w, call->arg[0], &n);
        for (size_t i = 0; i < n; i++) {
            const struct value *pair = value_items(&r->w, item[i], &parts);
            if (parts != 2)
                work_fail(&r->w, ERR_INVALID,
                          "dictionary update sequence element #%zu has length %zu; 2 is required", i, parts);
            dict_set(&r->w, d.dict, pair[0], pair[1]);
        }
    }
    for (size_t i = 0; i < call->names; i++)
        dict_set(&r->w, d.dict, value_text(call->named[i].name), call->named[i].value);
    return d;
}
TEST(global_dict) {
    return fill_dict(r, call, DICT);
}
TEST(global_namespace) {
    return fill_dict(r, call, NAMESPACE);
}

TEST(global_raise) {
    struct error *e = r->w.e;
    const struct text *s = value_to_text(&r->w, a[0]);
    if (s->n == 0)
        work_fail(&r->w, ERR_INVALID, "it refuses this conversation and does not say why");
    r->w.code = error_set(e, ERR_INVALID, "%.*s", (int)(s->n < 390 ? s->n : 390), s->p);
    for (char *p = e ? e->text : NULL; p != NULL && *p != 0; p++)
        if (*p == '\n' || *p == '\r')
            *p = ' ';
    longjmp(r->w.stop, 1);
}

TEST(global_strftime) {
    const struct text *format = argument_text(&r->w, a[0], "strftime_now's format");
    time_t seconds = (time_t)(r->now_ns / 1000000000 - (r->now_ns % 1000000000 < 0));
    struct tm tm;
    struct writer o = {.w = &r->w};
    bool caller = text_caller_any(format, 0, format->n);
    if (localtime_r(&seconds, &tm) == NULL)
        work_fail(&r->w, ERR_INVALID, "the time is not a date");
    for (size_t i = 0; i < format->n;) {
        char one[16] = {0}, out[256];
        size_t n = 1;
        if (format->p[i] == '%' && i + 1 < format->n) {
            n = format->p[i + 1] == '-' && i + 2 < format->n ? 3 : 2;
            memcpy(one, format->p + i, n);
        }
        if (n > 1 && one[n - 1] == 'f') {
            writer_printf(&o, caller, "%06d",
                          (int)((r->now_ns % 1000000000 + 1000000000) % 1000000000 / 1000));
        } else if (n > 1) {
            if (strchr("zZ", one[n - 1]) == NULL) /* a date without a zone prints none */
                writer_bytes(&o, out, strftime(out, sizeof out, one, &tm), caller);
        } else {
            writer_part(&o, format, i, 1);
        }
        i += n;
    }
    return value_text(writer_done(&o));
}

static struct value walker(struct render *r, enum kind kind, struct value *item, size_t n) {
    struct cycler *c = work_alloc(&r->w, 1, sizeof *c);
    *c = (struct cycler){item, n, 0};
    return (struct value){.kind = (uint8_t)kind, .cycler = c};
}
TEST(global_cycler) {
    if (call->n == 0)
        work_fail(&r->w, ERR_INVALID, "at least one item has to be provided");
    return walker(r, CYCLER, call->arg, call->n);
}
TEST(global_joiner) {
    struct value *separator = work_alloc(&r->w, 1, sizeof *separator);
    *separator = a[0].kind == UNSET ? value_literal(&r->w, ", ") : a[0];
    return walker(r, JOINER, separator, 1);
}

const struct builtin template_globals[] = {
    {"range", global_range, "start stop step", 1},
    {"dict", global_dict, "*", 0},
    {"namespace", global_namespace, "*", 0},
    {"raise_exception", global_raise, "message", 1},
    {"strftime_now", global_strftime, "format", 1},
    {"cycler", global_cycler, "*", 0},
    {"joiner", global_joiner, "sep", 0},
    {NULL, NULL, NULL, 0},
};
