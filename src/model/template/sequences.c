/* Filters on lists and dicts. */
#include "model/template/inner.h"

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

/* item by a path such as "function.name" or 0; `by` not given: the item itself. */
static struct value by_path(struct render *r, struct value item, struct value by, struct value fallback) {
    if (!given(by))
        return item;
    if (by.kind != STRING)
        item = value_item(r, item, by);
    for (size_t at = 0; by.kind == STRING && at <= by.s->n;) {
        size_t dot = str_find(text_str(by.s), STR("."), at), end = dot == SIZE_MAX ? by.s->n : dot;
        const struct text *part = text_part(&r->w, by.s, at, end - at);
        struct value key = value_text(part);
        if (part->n < 10 && text_is_number(text_str(part))) {
            key = value_int(0);
            for (size_t i = 0; i < part->n; i++)
                key.i = key.i * 10 + part->p[i] - '0';
        }
        item = value_item(r, item, key);
        if (item.kind == UNDEFINED && given(fallback))
            item = fallback;
        at = end + 1;
    }
    if (by.kind != STRING && item.kind == UNDEFINED && given(fallback))
        item = fallback;
    return item;
}

static struct value folded(struct render *r, struct value v, bool case_sensitive) {
    return v.kind == STRING && !case_sensitive ? value_text(text_map(&r->w, v.s, CASE_LOWER)) : v;
}

/* ---- first, last, length, list, reverse, join ---- */

FILTER(filter_first) {
    size_t n, left = self.kind == GENERATOR ? self.list->walked : 0;
    const struct value *item = value_items(&r->w, self, &n);
    if (self.kind == GENERATOR && n > 0)
        self.list->walked = left + 1;
    return n > 0 ? item[0] : value_undefined(NULL);
}
FILTER(filter_last) {
    size_t n;
    if (self.kind == GENERATOR)
        work_fail(&r->w, ERR_INVALID, "'generator' object is not reversible");
    const struct value *item = value_items(&r->w, self, &n);
    return n > 0 ? item[n - 1] : value_undefined(NULL);
}
FILTER(filter_length) {
    int64_t n = value_length(&r->w, self);
    if (n < 0)
        work_fail(&r->w, ERR_INVALID, "object of type '%s' has no len()", value_type(self));
    struct value v = value_int(n);
    v.caller = self.kind == STRING ? text_caller_any(self.s, 0, self.s->n) : self.caller;
    return v;
}
static struct value copy_items(struct render *r, struct value v) {
    size_t n;
    const struct value *item = value_items(&r->w, v, &n);
    struct value *copy = work_alloc(&r->w, n, sizeof *copy);
    work_charge(&r->w, n / 4);
    if (n > 0)
        memcpy(copy, item, n * sizeof *copy);
    struct value out = value_list(&r->w, LIST, copy, n);
    out.caller = v.caller;
    return out;
}
FILTER(filter_list) {
    return copy_items(r, self);
}
FILTER(filter_reverse) {
    struct value minus[3] = {value_none(), value_none(), value_int(-1)};
    if (self.kind == STRING)
        return value_slice(r, self, minus);
    struct value v = copy_items(r, self);
    for (size_t i = 0; i < v.list->n / 2; i++) {
        struct value other = v.list->item[i];
        v.list->item[i] = v.list->item[v.list->n - 1 - i];
        v.list->item[v.list->n - 1 - i] = other;
    }
    return self.kind == GENERATOR ? v : value_generator(&r->w, v.list->item, v.list->n);
}
FILTER(filter_join) {
    struct writer o = {.w = &r->w};
    size_t n;
    const struct value *item = value_items(&r->w, self, &n);
    for (size_t i = 0; i < n; i++) {
        if (i > 0 && a[0].kind != UNSET)
            print_value(&o, a[0]);
        work_charge(&r->w, 1);
        print_value(&o, by_path(r, item[i], a[1], value_none()));
    }
    return value_text(writer_done(&o));
}
FILTER(filter_items) {
    if (self.kind == UNDEFINED)
        return value_generator(&r->w, NULL, 0);
    if (self.kind != DICT)
        work_fail(&r->w, ERR_INVALID, "Can only get item pairs from a mapping.");
    struct call none = {0};
    struct value v = builtin_call(r, builtin_find(template_dict_methods, STR("items")), self, &none);
    return value_generator(&r->w, v.list->item, v.list->n);
}
FILTER(filter_attr) {
    struct value out;
    struct str name = text_str(argument_text(&r->w, a[0], "the attribute's name"));
    if (self.kind == NAMESPACE)
        return value_attribute(r, self, name);
    return value_method(r, self, name, &out) ? out : value_undefined(a[0].s);
}

/* ---- order ---- */

struct keyed {
    struct value key, item;
};

static void sort_keyed(struct work *w, struct keyed *k, struct keyed *other, size_t n, bool reverse) {
    if (n < 2)
        return;
    size_t half = n / 2, i = 0, j = half, to = 0;
    sort_keyed(w, k, other, half, reverse);
    sort_keyed(w, k + half, other, n - half, reverse);
    while (i < half || j < n) {
        bool right = i == half;
        if (i < half && j < n)
            right = reverse ? value_order(w, k[i].key, k[j].key, "<") == -1
                            : value_order(w, k[j].key, k[i].key, "<") == -1;
        other[to++] = right ? k[j++] : k[i++];
    }
    memcpy(k, other, n * sizeof *k);
}

/* The key of an item: its value at `by`, or a list of them when `by` names several with commas. */
static struct value sort_key(struct render *r, struct value item, struct value by, bool case_sensitive) {
    if (!given(by) || by.kind != STRING || str_find(text_str(by.s), STR(","), 0) == SIZE_MAX)
        return folded(r, by_path(r, item, by, value_none()), case_sensitive);
    struct call comma = {.arg = (struct value[]){value_literal(&r->w, ",")}, .n = 1};
    struct value parts = builtin_call(r, builtin_find(template_string_methods, STR("split")), by, &comma);
    for (size_t i = 0; i < parts.list->n; i++)
        parts.list->item[i] = folded(r, by_path(r, item, parts.list->item[i], value_none()), case_sensitive);
    return parts;
}

static struct keyed *keyed_items(struct render *r, const struct value *item, size_t n, struct value by,
                                 bool case_sensitive) {
    struct keyed *k = work_alloc(&r->w, n, sizeof *k);
    for (size_t i = 0; i < n; i++)
        k[i] = (struct keyed){sort_key(r, item[i], by, case_sensitive), item[i]};
    return k;
}

static struct value sorted(struct render *r, struct value self, bool reverse, bool case_sensitive,
                           struct value by) {
    struct value v = copy_items(r, self);
    size_t n = v.list->n;
    struct keyed *k = keyed_items(r, v.list->item, n, by, case_sensitive);
    sort_keyed(&r->w, k, work_alloc(&r->w, n, sizeof *k), n, reverse);
    for (size_t i = 0; i < n; i++)
        v.list->item[i] = k[i].item;
    return v;
}
FILTER(filter_sort) {
    return sorted(r, self, flag(r, a[0]), flag(r, a[1]), a[2]);
}
FILTER(filter_dictsort) {
    bool by_value = a[1].kind == STRING && str_is(text_str(a[1].s), "value");
    if (self.kind == UNDEFINED)
        value_fail_undefined(&r->w, self);
    if (self.kind != DICT)
        work_fail(&r->w, ERR_INVALID, "'%s' object has no attribute 'items'", value_type(self));
    if (a[1].kind != UNSET && !by_value && (a[1].kind != STRING || !str_is(text_str(a[1].s), "key")))
        work_fail(&r->w, ERR_INVALID, "You can only sort by either \"key\" or \"value\"");
    struct call none = {0};
    struct value pairs = builtin_call(r, builtin_find(template_dict_methods, STR("items")), self, &none);
    return sorted(r, pairs, flag(r, a[2]), flag(r, a[0]), value_int(by_value));
}
static struct value extreme(struct render *r, struct value self, const struct value *a, bool most) {
    size_t n, best = 0;
    const struct value *item = value_items(&r->w, self, &n);
    if (n == 0)
        return value_undefined(NULL);
    struct keyed *k = keyed_items(r, item, n, a[1], flag(r, a[0]));
    for (size_t i = 1; i < n; i++)
        if (value_order(&r->w, k[i].key, k[best].key, most ? ">" : "<") == (most ? 1 : -1))
            best = i;
    return item[best];
}
FILTER(filter_min) {
    return extreme(r, self, a, false);
}
FILTER(filter_max) {
    return extreme(r, self, a, true);
}
FILTER(filter_unique) {
    size_t n, kept = 0;
    const struct value *item = value_items(&r->w, self, &n);
    struct keyed *k = keyed_items(r, item, n, a[1], flag(r, a[0]));
    struct value seen = value_dict(&r->w), *out = work_alloc(&r->w, n, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        if (dict_find(&r->w, seen.dict, k[i].key) != NULL)
            continue;
        dict_set(&r->w, seen.dict, k[i].key, value_none());
        out[kept++] = item[i];
    }
    return value_generator(&r->w, out, kept);
}
FILTER(filter_sum) {
    size_t n;
    const struct value *item = value_items(&r->w, self, &n);
    struct value sum = a[1].kind == UNSET ? value_int(0) : a[1];
    if (sum.kind == STRING)
        work_fail(&r->w, ERR_INVALID, "sum() can't sum strings [use ''.join(seq) instead]");
    for (size_t i = 0; i < n; i++)
        sum = value_binary(r, OP_ADD, sum, by_path(r, item[i], a[0], value_none()));
    return sum;
}

/* Lists of (key, items) by the value of an attribute. */
FILTER(filter_groupby) {
    bool case_sensitive = flag(r, a[2]);
    struct value v = copy_items(r, self);
    size_t n = v.list->n, groups = 0;
    struct keyed *k = work_alloc(&r->w, n, sizeof *k);
    for (size_t i = 0; i < n; i++)
        k[i] = (struct keyed){folded(r, by_path(r, v.list->item[i], a[0], a[1]), case_sensitive),
                              v.list->item[i]};
    sort_keyed(&r->w, k, work_alloc(&r->w, n, sizeof *k), n, false);
    struct value *group = work_alloc(&r->w, n, sizeof *group);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && value_equal(&r->w, k[i].key, k[end].key);)
            end++;
        struct value *items = work_alloc(&r->w, end - i, sizeof *items),
                     *pair = work_alloc(&r->w, 2, sizeof *pair);
        for (size_t j = i; j < end; j++)
            items[j - i] = k[j].item;
        pair[0] = by_path(r, k[i].item, a[0], a[1]);
        pair[1] = value_list(&r->w, LIST, items, end - i);
        group[groups++] = value_list(&r->w, TUPLE, pair, 2);
    }
    return value_list(&r->w, LIST, group, groups);
}

/* ---- pieces ---- */

static struct value piece(struct render *r, const struct value *item, size_t n, size_t fill,
                          struct value with) {
    struct value *out = work_alloc(&r->w, n + fill, sizeof *out);
    work_charge(&r->w, (n + fill) / 4 + 1);
    if (n > 0)
        memcpy(out, item, n * sizeof *out);
    for (size_t i = 0; i < fill; i++)
        out[n + i] = with;
    return value_list(&r->w, LIST, out, n + fill);
}
FILTER(filter_batch) {
    size_t n, pieces = 0;
    int64_t size = argument_int(&r->w, a[0], 1, "batch's size");
    const struct value *item = value_items(&r->w, self, &n);
    if (size < 1 || size > TEMPLATE_MOST_MEMORY)
        work_fail(&r->w, ERR_INVALID, "batch wants a positive number of items");
    struct value *out = work_alloc(&r->w, n / (size_t)size + 1, sizeof *out);
    for (size_t at = 0; at < n; at += (size_t)size) {
        size_t here = n - at < (size_t)size ? n - at : (size_t)size;
        out[pieces++] = piece(r, item + at, here, given(a[1]) ? (size_t)size - here : 0, a[1]);
    }
    return value_generator(&r->w, out, pieces);
}
FILTER(filter_slice) {
    size_t n, at = 0;
    int64_t slices = argument_int(&r->w, a[0], 1, "slice's number");
    const struct value *item = value_items(&r->w, self, &n);
    if (slices < 1 || slices > TEMPLATE_MOST_RANGE)
        work_fail(&r->w, ERR_INVALID, "slice wants a positive number of slices");
    struct value *out = work_alloc(&r->w, (size_t)slices, sizeof *out);
    for (size_t i = 0; i < (size_t)slices; i++) {
        bool extra = i < n % (size_t)slices;
        size_t here = n / (size_t)slices + extra;
        out[i] = piece(r, item + at, here, given(a[1]) && !extra, a[1]);
        at += here;
    }
    return value_generator(&r->w, out, (size_t)slices);
}

/* ---- map and select ---- */

static const struct value *named_argument(const struct call *call, const char *name) {
    for (size_t i = 0; i < call->names; i++)
        if (str_is(text_str(call->named[i].name), name))
            return &call->named[i].value;
    return NULL;
}

FILTER(filter_map) {
    size_t n;
    if (!value_true(&r->w, self))
        return value_generator(&r->w, NULL, 0);
    const struct value *item = value_items(&r->w, self, &n);
    const struct value *attribute = call->n == 0 ? named_argument(call, "attribute") : NULL;
    const struct value *fallback = attribute ? named_argument(call, "default") : NULL;
    struct value *out = work_alloc(&r->w, n, sizeof *out);
    if (attribute == NULL && call->n == 0)
        work_fail(&r->w, ERR_INVALID, "map requires a filter argument");
    if (attribute != NULL && call->names > 1U + (fallback != NULL))
        work_fail(&r->w, ERR_INVALID, "map got an unexpected keyword argument");
    struct value by = attribute ? *attribute : value_none();
    struct call rest = *call;
    const struct builtin *filter = NULL;
    if (attribute == NULL) {
        filter = template_filter(r, text_str(argument_text(&r->w, call->arg[0], "the filter's name")));
        rest.arg++;
        rest.n--;
    }
    for (size_t i = 0; i < n; i++) {
        work_charge(&r->w, 1);
        out[i] = filter ? builtin_call(r, filter, item[i], &rest)
                        : by_path(r, item[i], by, fallback ? *fallback : value_none());
    }
    return value_generator(&r->w, out, n);
}

static struct value select_items(struct render *r, struct value self, const struct call *call, bool keep,
                                 bool by_attribute) {
    size_t n, kept = 0;
    if (!value_true(&r->w, self))
        return value_generator(&r->w, NULL, 0);
    const struct value *item = value_items(&r->w, self, &n);
    struct call rest = *call;
    const struct builtin *test = NULL;
    struct value attribute = value_none();
    if (by_attribute) {
        if (rest.n == 0)
            work_fail(&r->w, ERR_INVALID, "Missing parameter for attribute name");
        attribute = *rest.arg++;
        rest.n--;
    }
    if (rest.n > 0) {
        test = template_test(r, text_str(argument_text(&r->w, *rest.arg++, "the test's name")));
        rest.n--;
    }
    struct value *out = work_alloc(&r->w, n, sizeof *out);
    for (size_t i = 0; i < n; i++) {
        struct value v = by_path(r, item[i], attribute, value_none());
        work_charge(&r->w, 1);
        if (value_true(&r->w, test ? builtin_call(r, test, v, &rest) : v) == keep)
            out[kept++] = item[i];
    }
    return value_generator(&r->w, out, kept);
}
FILTER(filter_select) {
    return select_items(r, self, call, true, false);
}
FILTER(filter_reject) {
    return select_items(r, self, call, false, false);
}
FILTER(filter_selectattr) {
    return select_items(r, self, call, true, true);
}
FILTER(filter_rejectattr) {
    return select_items(r, self, call, false, true);
}

const struct builtin template_more_filters[] = {
    {"attr", filter_attr, "name", 1},
    {"batch", filter_batch, "linecount fill_with", 1},
    {"count", filter_length, "", 0},
    {"dictsort", filter_dictsort, "case_sensitive by reverse", 0},
    {"first", filter_first, "", 0},
    {"groupby", filter_groupby, "attribute default case_sensitive", 1},
    {"items", filter_items, "", 0},
    {"join", filter_join, "d attribute", 0},
    {"last", filter_last, "", 0},
    {"length", filter_length, "", 0},
    {"list", filter_list, "", 0},
    {"map", filter_map, "*", 0},
    {"max", filter_max, "case_sensitive attribute", 0},
    {"min", filter_min, "case_sensitive attribute", 0},
    {"reject", filter_reject, "*", 0},
    {"rejectattr", filter_rejectattr, "*", 0},
    {"reverse", filter_reverse, "", 0},
    {"select", filter_select, "*", 0},
    {"selectattr", filter_selectattr, "*", 0},
    {"slice", filter_slice, "slices fill_with", 1},
    {"sort", filter_sort, "reverse case_sensitive attribute", 0},
    {"sum", filter_sum, "attribute start", 0},
    {"unique", filter_unique, "case_sensitive attribute", 0},
    {NULL, NULL, NULL, 0},
};
