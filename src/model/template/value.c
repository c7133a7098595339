/* Values as Python has them: truth, equality, order, length, dicts that keep the order of insertion, and what JSON turns into. */
#include "model/template/inner.h"

#include <math.h>
#include <string.h>

struct value value_undefined(const struct text *name) {
    return (struct value){.kind = UNDEFINED, .s = name};
}
struct value value_none(void) {
    return (struct value){.kind = NONE};
}
struct value value_bool(bool b) {
    return (struct value){.kind = BOOL, .b = b};
}
struct value value_int(int64_t i) {
    return (struct value){.kind = INT, .i = i};
}
struct value value_float(double f) {
    return (struct value){.kind = FLOAT, .f = f};
}
struct value value_text(const struct text *s) {
    return (struct value){.kind = STRING, .s = s};
}
struct value value_literal(struct work *w, const char *c_string) {
    return value_text(text_new(w, c_string, strlen(c_string), false));
}

struct value value_list(struct work *w, enum kind kind, struct value *item, size_t n) {
    struct list *l = work_alloc(w, 1, sizeof *l);
    if (item == NULL)
        item = work_alloc(w, 0, sizeof *item);
    *l = (struct list){.item = item, .n = n};
    return (struct value){.kind = (uint8_t)kind, .list = l};
}

struct value value_generator(struct work *w, struct value *item, size_t n) {
    struct value v = value_list(w, GENERATOR, item, n);
    v.list->type = "generator";
    return v;
}

struct value value_dict(struct work *w) {
    return (struct value){.kind = DICT, .dict = work_alloc(w, 1, sizeof(struct dict))};
}

void value_fail_undefined(struct work *w, struct value v) {
    if (v.s == NULL)
        work_fail(w, ERR_INVALID, "a value is undefined");
    work_fail(w, ERR_INVALID, "'%.*s' is undefined", (int)(v.s->n < 100 ? v.s->n : 100), v.s->p);
}

double value_number(struct value v) {
    return v.kind == FLOAT ? v.f : v.kind == BOOL ? (double)v.b : (double)v.i;
}

int64_t value_integer(struct value v) {
    return v.kind == BOOL ? v.b : v.i;
}

const char *value_type(struct value v) {
    static const char *const name[] = {
        [UNDEFINED] = "Undefined", [NONE] = "NoneType", [BOOL] = "bool",        [INT] = "int",
        [FLOAT] = "float",         [STRING] = "str",    [LIST] = "list",        [TUPLE] = "tuple",
        [DICT] = "dict",           [RANGE] = "range",   [VIEW] = "view",        [GENERATOR] = "generator",
        [NAMESPACE] = "Namespace", [MACRO] = "Macro",   [BUILTIN] = "function", [METHOD] = "method",
        [LOOP] = "LoopContext",    [CYCLER] = "Cycler", [JOINER] = "Joiner",    [UNSET] = "nothing",
    };
    return name[v.kind];
}

int64_t value_length(struct work *w, struct value v) {
    switch (v.kind) {
    case UNDEFINED:
        return 0;
    case STRING:
        return (int64_t)text_chars(w, v.s);
    case LIST:
    case TUPLE:
    case VIEW:
        return (int64_t)v.list->n;
    case DICT:
        return (int64_t)v.dict->n;
    case RANGE:
        return (int64_t)v.range->n;
    default:
        return -1;
    }
}

bool value_true(struct work *w, struct value v) {
    switch (v.kind) {
    case UNDEFINED:
    case NONE:
        return false;
    case BOOL:
        return v.b;
    case INT:
        return v.i != 0;
    case FLOAT:
        return v.f != 0;
    case STRING:
        return v.s->n > 0;
    default:
        return value_length(w, v) != 0; /* -1: things without a length are true */
    }
}

/* ---- equality and order ---- */

/* Exact, as Python compares an int with a float. */
static int order_numbers(struct value a, struct value b, bool *unordered) {
    if (a.kind != FLOAT && b.kind != FLOAT) {
        int64_t x = value_integer(a), y = value_integer(b);
        return x < y ? -1 : x > y;
    }
    double x = value_number(a), y = value_number(b);
    *unordered = isnan(x) || isnan(y);
    if (x != y || *unordered || (a.kind == FLOAT && b.kind == FLOAT))
        return x < y ? -1 : x > y;
    /* Equal after rounding: the float is integral here, and the exact integers decide. */
    if (fabs(x) >= 9223372036854775808.0)
        return a.kind == FLOAT ? 1 : -1;
    int64_t m = a.kind == FLOAT ? (int64_t)x : value_integer(a);
    int64_t n = b.kind == FLOAT ? (int64_t)y : value_integer(b);
    return m < n ? -1 : m > n;
}

static bool equal_lists(struct work *w, const struct list *a, const struct list *b) {
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++)
        if (!value_equal(w, a->item[i], b->item[i]))
            return false;
    return true;
}

static bool equal_dicts(struct work *w, const struct dict *a, const struct dict *b) {
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        const struct value *other = dict_find(w, b, a->entry[i].key);
        if (other == NULL || !value_equal(w, a->entry[i].value, *other))
            return false;
    }
    return true;
}

static bool equal_ranges(const struct range *a, const struct range *b) {
    return a->n == b->n && (a->n == 0 || (a->start == b->start && (a->n == 1 || a->step == b->step)));
}

bool value_equal(struct work *w, struct value a, struct value b) {
    bool unordered = false, equal = false;
    work_charge(w, 1);
    work_enter(w);
    if (value_numeric(a) && value_numeric(b))
        equal = order_numbers(a, b, &unordered) == 0 && !unordered;
    else if (a.kind != b.kind)
        equal = false;
    else if (a.kind == UNDEFINED || a.kind == NONE)
        equal = true;
    else if (a.kind == STRING)
        equal = str_equal(text_str(a.s), text_str(b.s));
    else if (a.kind == LIST || a.kind == TUPLE)
        equal = equal_lists(w, a.list, b.list);
    else if (a.kind == DICT)
        equal = equal_dicts(w, a.dict, b.dict);
    else if (a.kind == RANGE)
        equal = equal_ranges(a.range, b.range);
    else if (a.kind == METHOD)
        equal = a.method->builtin == b.method->builtin && a.method->self.i == b.method->self.i;
    else
        equal = a.list == b.list; /* the same thing */
    if (a.kind == STRING && b.kind == STRING)
        work_charge(w, a.s->n / 64);
    w->depth--;
    return equal;
}

int value_order(struct work *w, struct value a, struct value b, const char *operator_name) {
    bool unordered = false;
    int order = 0;
    work_charge(w, 1);
    if (value_numeric(a) && value_numeric(b)) {
        order = order_numbers(a, b, &unordered);
        return unordered ? 2 : order;
    }
    if (a.kind == STRING && b.kind == STRING) {
        size_t n = a.s->n < b.s->n ? a.s->n : b.s->n;
        work_charge(w, n / 64);
        order = n > 0 ? memcmp(a.s->p, b.s->p, n) : 0; /* UTF-8 sorts as its code points do */
        return order != 0 ? (order < 0 ? -1 : 1) : a.s->n < b.s->n ? -1 : a.s->n > b.s->n;
    }
    if (a.kind == b.kind && (a.kind == LIST || a.kind == TUPLE)) {
        work_enter(w);
        size_t n = a.list->n < b.list->n ? a.list->n : b.list->n, i = 0;
        while (i < n && value_equal(w, a.list->item[i], b.list->item[i]))
            i++;
        if (i < n)
            order = value_order(w, a.list->item[i], b.list->item[i], operator_name);
        else
            order = a.list->n < b.list->n ? -1 : a.list->n > b.list->n;
        w->depth--;
        return order;
    }
    if (a.kind == UNDEFINED || b.kind == UNDEFINED)
        value_fail_undefined(w, a.kind == UNDEFINED ? a : b);
    work_fail(w, ERR_INVALID, "'%s' not supported between instances of '%s' and '%s'", operator_name,
              value_type(a), value_type(b));
}

static bool range_contains(const struct range *r, struct value v) {
    if (!value_numeric(v) || (v.kind == FLOAT && (v.f != floor(v.f) || fabs(v.f) > 9e15)))
        return false;
    int64_t x = v.kind == FLOAT ? (int64_t)v.f : value_integer(v);
    __int128 offset = (__int128)x - r->start;
    return r->n > 0 && offset % r->step == 0 && offset / r->step >= 0 && offset / r->step < (__int128)r->n;
}

bool value_contains(struct work *w, struct value container, struct value item) {
    switch (container.kind) {
    case STRING:
        if (item.kind == UNDEFINED)
            value_fail_undefined(w, item);
        if (item.kind != STRING)
            work_fail(w, ERR_INVALID, "'in <string>' requires string as left operand, not %s",
                      value_type(item));
        work_charge(w, container.s->n / 64);
        return str_find(text_str(container.s), text_str(item.s), 0) != SIZE_MAX;
    case DICT:
        return dict_find(w, container.dict, item) != NULL;
    case RANGE:
        return range_contains(container.range, item);
    default: {
        size_t n;
        const struct value *items = value_items(w, container, &n);
        for (size_t i = 0; i < n; i++)
            if (value_equal(w, items[i], item))
                return true;
        return false;
    }
    }
}

/* ---- walking ---- */

bool value_walkable(struct value v) {
    return v.kind == UNDEFINED || (v.kind >= STRING && v.kind <= GENERATOR) || v.kind == LOOP;
}

static struct value *string_items(struct work *w, const struct text *s, size_t *n) {
    *n = text_chars(w, s);
    struct value *item = work_alloc(w, *n, sizeof *item);
    work_charge(w, *n / 4);
    for (size_t i = 0, at = 0; i < *n; i++) {
        size_t end = at + 1;
        while (end < s->n && ((unsigned char)s->p[end] & 0xC0) == 0x80)
            end++;
        struct text *c = text_new(w, s->p + at, end - at, s->caller);
        c->mask = s->mask ? s->mask + at : NULL;
        item[i] = value_text(c);
        at = end;
    }
    return item;
}

struct value *value_items(struct work *w, struct value v, size_t *n) {
    struct value *item = NULL;
    *n = 0;
    switch (v.kind) {
    case UNDEFINED:
        return NULL;
    case STRING:
        return string_items(w, v.s, n);
    case LIST:
    case TUPLE:
    case VIEW:
        *n = v.list->n;
        return v.list->item;
    case GENERATOR:
        item = v.list->item + v.list->walked;
        *n = v.list->n - v.list->walked;
        v.list->walked = v.list->n;
        return item;
    case DICT:
        *n = v.dict->n;
        item = work_alloc(w, *n, sizeof *item);
        work_charge(w, *n / 4);
        for (size_t i = 0; i < *n; i++)
            item[i] = v.dict->entry[i].key;
        return item;
    case RANGE:
        *n = v.range->n;
        item = work_alloc(w, *n, sizeof *item);
        work_charge(w, *n / 4);
        for (size_t i = 0; i < *n; i++)
            item[i] = (struct value){
                .kind = INT, .caller = v.caller, .i = v.range->start + (int64_t)i * v.range->step};
        return item;
    default:
        work_fail(w, ERR_INVALID, "'%s' object is not iterable", value_type(v));
    }
}

/* ---- dicts ---- */

static uint64_t hash_bytes(struct work *w, const char *p, size_t n) {
    uint64_t hash = 14695981039346656037u;
    work_charge(w, n / 64);
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (uint8_t)p[i]) * 1099511628211u;
    return hash ^ hash >> 29;
}

static uint64_t hash_value(struct work *w, struct value v) {
    uint64_t hash = v.kind;
    double f;
    switch (v.kind) {
    case STRING:
        return hash_bytes(w, v.s->p, v.s->n);
    case FLOAT:
        if (v.f == floor(v.f) && fabs(v.f) < 9e15)
            return (uint64_t)(int64_t)v.f * 0x9E3779B97F4A7C15u;
        f = v.f;
        memcpy(&hash, &f, sizeof hash);
        return hash;
    case BOOL:
    case INT:
        /* A large int may equal a float: both by their double. */
        if (value_integer(v) > 9000000000000000 || value_integer(v) < -9000000000000000) {
            f = value_number(v);
            memcpy(&hash, &f, sizeof hash);
            return hash;
        }
        return (uint64_t)value_integer(v) * 0x9E3779B97F4A7C15u;
    case TUPLE:
        work_enter(w);
        for (size_t i = 0; i < v.list->n; i++)
            hash = (hash ^ hash_value(w, v.list->item[i])) * 1099511628211u;
        w->depth--;
        return hash;
    case LIST:
    case DICT:
        work_fail(w, ERR_INVALID, "unhashable type: '%s'", value_type(v));
    default:
        return hash;
    }
}

static void dict_index(struct work *w, struct dict *d) {
    d->slots = d->capacity * 2;
    d->slot = work_alloc(w, d->slots, sizeof *d->slot);
    for (size_t i = 0; i < d->n; i++) {
        size_t at = d->entry[i].hash % d->slots;
        while (d->slot[at] != 0)
            at = (at + 1) % d->slots;
        d->slot[at] = (uint32_t)i + 1;
    }
}

static struct entry *dict_entry(struct work *w, const struct dict *d, struct value key, uint64_t hash) {
    if (d->slot == NULL) {
        for (size_t i = 0; i < d->n; i++)
            if (d->entry[i].hash == hash && value_equal(w, d->entry[i].key, key))
                return &d->entry[i];
        return NULL;
    }
    for (size_t at = hash % d->slots; d->slot[at] != 0; at = (at + 1) % d->slots) {
        struct entry *e = &d->entry[d->slot[at] - 1];
        work_charge(w, 1);
        if (e->hash == hash && value_equal(w, e->key, key))
            return e;
    }
    return NULL;
}

void dict_set(struct work *w, struct dict *d, struct value key, struct value v) {
    uint64_t hash = hash_value(w, key);
    struct entry *e = dict_entry(w, d, key, hash);
    if (e != NULL) {
        e->value = v;
        return;
    }
    if (d->n == d->capacity) {
        size_t capacity = d->capacity ? d->capacity * 2 : 4;
        struct entry *grown = work_alloc(w, capacity, sizeof *grown);
        if (d->n > 0)
            memcpy(grown, d->entry, d->n * sizeof *grown);
        d->entry = grown;
        d->capacity = capacity;
        d->slot = NULL;
    }
    d->entry[d->n++] = (struct entry){key, v, hash};
    if (d->slot != NULL) {
        size_t at = hash % d->slots;
        while (d->slot[at] != 0)
            at = (at + 1) % d->slots;
        d->slot[at] = (uint32_t)d->n;
    } else if (d->n > 8) {
        dict_index(w, d);
    }
}

struct value *dict_find(struct work *w, const struct dict *d, struct value key) {
    struct entry *e = dict_entry(w, d, key, hash_value(w, key));
    return e ? &e->value : NULL;
}

struct value *dict_find_str(struct work *w, const struct dict *d, struct str key) {
    const struct text s = {.p = key.p, .n = key.n};
    return dict_find(w, d, value_text(&s));
}

/* ---- from JSON ---- */

struct value value_json(struct work *w, const struct json *v, bool caller) {
    struct value out;
    struct str s;
    work_charge(w, 1);
    switch (json_kind(v)) {
    case JSON_KIND_OBJECT:
        out = value_dict(w);
        for (void *it = json_first(v); it != NULL; it = json_next(v, it)) {
            s = json_key(it);
            dict_set(w, out.dict, value_text(text_new(w, s.p, s.n, caller)),
                     value_json(w, json_value(it), caller));
        }
        break;
    case JSON_KIND_ARRAY:
        out = value_list(w, LIST, work_alloc(w, json_count(v), sizeof out), json_count(v));
        for (size_t i = 0; i < json_count(v); i++)
            out.list->item[i] = value_json(w, json_at(v, i), caller);
        break;
    case JSON_KIND_STRING:
        s = json_as_str(v);
        out = value_text(text_new(w, s.p, s.n, caller));
        break;
    case JSON_KIND_INT:
        out = value_int(json_as_int(v));
        break;
    case JSON_KIND_REAL:
        out = value_float(json_as_number(v));
        break;
    case JSON_KIND_TRUE:
    case JSON_KIND_FALSE:
        out = value_bool(json_as_bool(v));
        break;
    case JSON_KIND_NULL:
        out = value_none();
        break;
    }
    out.caller = caller;
    return out;
}
