/* The methods of strings, lists and dicts that templates call, as Python has them, without those that change something. Also the methods of a loop
 * and of a cycler. What was decided by a caller's text (where to split, what to replace) is the caller's. */
#include "model/template/inner.h"

#include "base/utf8.h"

#include <string.h>

#define METHOD(name)                                                                     \
    static struct value name(struct render *r, struct value self, const struct value *a, \
                             const struct call *call)

static const struct text *optional_text(struct render *r, struct value v, const char *what) {
    return v.kind == UNSET || v.kind == NONE ? NULL : argument_text(&r->w, v, what);
}

static bool is_callers(const struct text *s) {
    return s != NULL && text_caller_any(s, 0, s->n);
}

/* ---- stripping and splitting ---- */

static struct value strip(struct render *r, struct value self, struct value chars, bool left, bool right) {
    return value_text(
        text_strip(&r->w, self.s, optional_text(r, chars, "the characters to strip"), left, right));
}
METHOD(string_strip) {
    return strip(r, self, a[0], true, true);
}
METHOD(string_lstrip) {
    return strip(r, self, a[0], true, false);
}
METHOD(string_rstrip) {
    return strip(r, self, a[0], false, true);
}

/* Grows while parts are found. */
struct parts {
    struct render *r;
    struct value *item;
    size_t n, capacity;
    bool caller;
};

static void parts_add(struct parts *p, const struct text *s, size_t from, size_t to) {
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 8;
        struct value *grown = work_alloc(&p->r->w, capacity, sizeof *grown);
        if (p->n > 0)
            memcpy(grown, p->item, p->n * sizeof *grown);
        p->item = grown;
        p->capacity = capacity;
    }
    work_charge(&p->r->w, 1);
    const struct text *part = text_part(&p->r->w, s, from, to - from);
    p->item[p->n++] = value_text(p->caller ? text_as_caller(&p->r->w, part) : part);
}

static struct value parts_done(struct parts *p, bool backwards) {
    for (size_t i = 0; backwards && i < p->n / 2; i++) {
        struct value other = p->item[i];
        p->item[i] = p->item[p->n - 1 - i];
        p->item[p->n - 1 - i] = other;
    }
    return value_list(&p->r->w, LIST, p->item, p->n);
}

static size_t space_after(const struct text *s, size_t at, size_t *n) {
    return char_is_space(utf8_decode((struct str){s->p + at, s->n - at}, n));
}

static struct value split_space(struct parts *p, const struct text *s, int64_t most) {
    size_t at = 0, n;
    for (;;) {
        while (at < s->n && space_after(s, at, &n))
            at += n;
        if (at == s->n)
            break;
        if (most >= 0 && (int64_t)p->n >= most) {
            parts_add(p, s, at, s->n);
            break;
        }
        size_t from = at;
        while (at < s->n && !space_after(s, at, &n))
            at += n;
        parts_add(p, s, from, at);
    }
    return parts_done(p, false);
}

static size_t char_before(const struct text *s, size_t at) {
    do
        at--;
    while (at > 0 && ((unsigned char)s->p[at] & 0xC0) == 0x80);
    return at;
}

static struct value rsplit_space(struct parts *p, const struct text *s, int64_t most) {
    size_t at = s->n, n;
    for (;;) {
        while (at > 0 && space_after(s, char_before(s, at), &n))
            at = char_before(s, at);
        if (at == 0)
            break;
        if (most >= 0 && (int64_t)p->n >= most) {
            parts_add(p, s, 0, at);
            break;
        }
        size_t to = at;
        while (at > 0 && !space_after(s, char_before(s, at), &n))
            at = char_before(s, at);
        parts_add(p, s, at, to);
    }
    return parts_done(p, true);
}

/* Where the last needle before `end` begins, or SIZE_MAX. */
static size_t find_last(struct work *w, const struct text *s, const struct text *needle, size_t end) {
    if (needle->n > end)
        return SIZE_MAX;
    if (needle->n == 0)
        return end;
    for (size_t at = end - needle->n;; at--) {
        if (s->p[at] == needle->p[0]) {
            work_charge(w, needle->n / 64);
            if (memcmp(s->p + at, needle->p, needle->n) == 0)
                return at;
        }
        if (at == 0)
            return SIZE_MAX;
    }
}

static struct value split(struct render *r, struct value self, const struct value *a, bool backwards) {
    const struct text *s = self.s, *by = optional_text(r, a[0], "the separator");
    struct parts p = {.r = r, .caller = is_callers(by) || a[1].caller};
    int64_t most = argument_int(&r->w, a[1], -1, "maxsplit");
    work_charge(&r->w, s->n / 16);
    if (by == NULL)
        return backwards ? rsplit_space(&p, s, most) : split_space(&p, s, most);
    if (by->n == 0)
        work_fail(&r->w, ERR_INVALID, "empty separator");
    size_t at = backwards ? s->n : 0;
    while (most < 0 || (int64_t)p.n < most) {
        size_t hit = backwards ? find_last(&r->w, s, by, at) : str_find(text_str(s), text_str(by), at);
        if (hit == SIZE_MAX)
            break;
        if (backwards)
            parts_add(&p, s, hit + by->n, at);
        else
            parts_add(&p, s, at, hit);
        at = backwards ? hit : hit + by->n;
    }
    if (backwards)
        parts_add(&p, s, 0, at);
    else
        parts_add(&p, s, at, s->n);
    return parts_done(&p, backwards);
}
METHOD(string_split) {
    return split(r, self, a, false);
}
METHOD(string_rsplit) {
    return split(r, self, a, true);
}

METHOD(string_splitlines) {
    const struct text *s = self.s;
    struct parts p = {.r = r};
    bool keep = a[0].kind != UNSET && value_true(&r->w, a[0]);
    size_t from = 0, n;
    for (size_t at = 0; at < s->n; at += n) {
        int32_t c = utf8_decode((struct str){s->p + at, s->n - at}, &n);
        if (!((c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029))
            continue;
        size_t end = at;
        if (c == '\r' && at + 1 < s->n && s->p[at + 1] == '\n')
            n = 2;
        parts_add(&p, s, from, keep ? at + n : end);
        from = at + n;
    }
    if (from < s->n)
        parts_add(&p, s, from, s->n);
    return parts_done(&p, false);
}

static struct value partition(struct render *r, const struct text *s, const struct text *by, bool backwards) {
    if (by->n == 0)
        work_fail(&r->w, ERR_INVALID, "empty separator");
    struct parts p = {.r = r, .caller = is_callers(by)};
    work_charge(&r->w, s->n / 16);
    size_t hit = backwards ? find_last(&r->w, s, by, s->n) : str_find(text_str(s), text_str(by), 0);
    bool found = hit != SIZE_MAX;
    size_t from = found ? hit : backwards ? 0 : s->n, to = found ? hit + by->n : from;
    parts_add(&p, s, 0, from);
    parts_add(&p, s, from, to);
    parts_add(&p, s, to, s->n);
    return value_list(&r->w, TUPLE, p.item, p.n);
}
METHOD(string_partition) {
    return partition(r, self.s, argument_text(&r->w, a[0], "the separator"), false);
}
METHOD(string_rpartition) {
    return partition(r, self.s, argument_text(&r->w, a[0], "the separator"), true);
}

/* ---- finding and replacing ---- */

/* [from, to) in bytes of the optional bounds in code points; false when from lies behind the end. */
static bool find_bounds(struct render *r, const struct text *s, const struct value *a, size_t *from,
                        size_t *to) {
    *from = 0;
    *to = s->n;
    if (a[0].kind == UNSET && a[1].kind == UNSET)
        return true;
    int64_t n = (int64_t)text_chars(&r->w, s), low = 0, high = n;
    if (a[0].kind != UNSET && a[0].kind != NONE)
        low = argument_int(&r->w, a[0], 0, "the start");
    if (a[1].kind != UNSET && a[1].kind != NONE)
        high = argument_int(&r->w, a[1], 0, "the end");
    low = low < -n ? 0 : low < 0 ? low + n : low;
    high = high < -n ? 0 : high < 0 ? high + n : high > n ? n : high;
    if (low > high)
        return false;
    *from = text_offset(&r->w, s, (size_t)low);
    *to = text_offset(&r->w, s, (size_t)high);
    return true;
}

static int64_t find(struct render *r, const struct text *s, const struct value *a, bool backwards) {
    const struct text *needle = argument_text(&r->w, a[0], "what is sought");
    size_t from, to, hit;
    if (!find_bounds(r, s, a + 1, &from, &to))
        return -1;
    struct text part = {.p = s->p + from, .n = to - from};
    work_charge(&r->w, part.n / 16);
    hit =
        backwards ? find_last(&r->w, &part, needle, part.n) : str_find(text_str(&part), text_str(needle), 0);
    if (hit == SIZE_MAX)
        return -1;
    part.n = hit + from;
    part.p = s->p;
    return (int64_t)text_chars(&r->w, &part);
}
/* A place in a caller's text, or of one, is the caller's number. */
static struct value place(struct value self, struct value needle, int64_t at) {
    struct value v = value_int(at);
    v.caller = is_callers(self.s) || is_callers(needle.s);
    return v;
}
METHOD(string_find) {
    return place(self, a[0], find(r, self.s, a, false));
}
METHOD(string_rfind) {
    return place(self, a[0], find(r, self.s, a, true));
}
static struct value index_of(struct render *r, struct value self, const struct value *a, bool backwards) {
    int64_t at = find(r, self.s, a, backwards);
    if (at < 0)
        work_fail(&r->w, ERR_INVALID, "substring not found");
    return place(self, a[0], at);
}
METHOD(string_index) {
    return index_of(r, self, a, false);
}
METHOD(string_rindex) {
    return index_of(r, self, a, true);
}
METHOD(string_count) {
    const struct text *needle = argument_text(&r->w, a[0], "what is counted");
    size_t from, to, count = 0;
    if (!find_bounds(r, self.s, a + 1, &from, &to))
        return value_int(0);
    const struct text part = {.p = self.s->p + from, .n = to - from};
    work_charge(&r->w, part.n / 16);
    if (needle->n == 0)
        return place(self, a[0], (int64_t)text_chars(&r->w, &part) + 1);
    for (size_t at = 0; (at = str_find(text_str(&part), text_str(needle), at)) != SIZE_MAX; at += needle->n)
        count++;
    return place(self, a[0], (int64_t)count);
}

/* startswith and endswith: one affix or a tuple of them. */
static bool has_affix(struct render *r, const struct text *s, const struct value *a, bool end) {
    const struct value *item = a;
    size_t n = 1, from, to;
    if (!find_bounds(r, s, a + 1, &from, &to))
        return false;
    if (a[0].kind == TUPLE)
        item = value_items(&r->w, a[0], &n);
    for (size_t i = 0; i < n; i++) {
        const struct text *affix =
            argument_text(&r->w, item[i], end ? "endswith's argument" : "startswith's argument");
        if (affix->n <= to - from &&
            memcmp(end ? s->p + to - affix->n : s->p + from, affix->p, affix->n) == 0)
            return true;
    }
    return false;
}
METHOD(string_startswith) {
    return value_bool(has_affix(r, self.s, a, false));
}
METHOD(string_endswith) {
    return value_bool(has_affix(r, self.s, a, true));
}
METHOD(string_removeprefix) {
    bool has = has_affix(r, self.s, (struct value[]){a[0], {.kind = UNSET}, {.kind = UNSET}}, false);
    size_t n = has ? a[0].s->n : 0;
    const struct text *s = text_part(&r->w, self.s, n, self.s->n - n);
    return value_text(has && is_callers(a[0].s) ? text_as_caller(&r->w, s) : s);
}
METHOD(string_removesuffix) {
    bool has = has_affix(r, self.s, (struct value[]){a[0], {.kind = UNSET}, {.kind = UNSET}}, true);
    const struct text *s = text_part(&r->w, self.s, 0, self.s->n - (has ? a[0].s->n : 0));
    return value_text(has && is_callers(a[0].s) ? text_as_caller(&r->w, s) : s);
}

/* The replacement keeps its own authorship only where all it replaces was the template's. */
const struct text *string_replace(struct work *w, const struct text *s, const struct text *old,
                                  const struct text *with, int64_t most) {
    struct writer o = {.w = w};
    bool callers = is_callers(s);
    size_t at = 0;
    work_charge(w, s->n / 16);
    for (int64_t done = 0; most < 0 || done < most; done++) {
        size_t hit = str_find(text_str(s), text_str(old), at), n = 1;
        if (hit == SIZE_MAX || (old->n == 0 && done > 0 && at >= s->n))
            break;
        if (old->n == 0 && done > 0) { /* between all characters */
            utf8_decode((struct str){s->p + at, s->n - at}, &n);
            hit = at + n;
        }
        writer_part(&o, s, at, hit - at);
        bool own = old->n == 0 ? callers : text_caller_any(s, hit, old->n);
        if (own)
            writer_bytes(&o, with->p, with->n, true);
        else
            writer_text(&o, with);
        at = hit + old->n;
        work_charge(w, 1);
    }
    writer_part(&o, s, at, s->n - at);
    const struct text *out = writer_done(&o);
    return is_callers(old) ? text_as_caller(w, out) : out;
}
METHOD(string_replace_method) {
    const struct text *s =
        string_replace(&r->w, self.s, argument_text(&r->w, a[0], "what is replaced"),
                       argument_text(&r->w, a[1], "the replacement"), argument_int(&r->w, a[2], -1, "count"));
    return value_text(a[2].caller ? text_as_caller(&r->w, s) : s);
}

METHOD(string_join) {
    struct writer o = {.w = &r->w};
    size_t n;
    const struct value *item = value_items(&r->w, a[0], &n);
    for (size_t i = 0; i < n; i++) {
        if (item[i].kind != STRING)
            work_fail(&r->w, ERR_INVALID, "sequence item %zu: expected str instance, %s found", i,
                      value_type(item[i]));
        if (i > 0)
            writer_text(&o, self.s);
        writer_text(&o, item[i].s);
    }
    return value_text(writer_done(&o));
}

METHOD(string_format_method) {
    return string_format(r, self.s, call);
}

const struct builtin template_string_methods[] = {
    {"strip", string_strip, "chars", 0},
    {"lstrip", string_lstrip, "chars", 0},
    {"rstrip", string_rstrip, "chars", 0},
    {"split", string_split, "sep maxsplit", 0},
    {"rsplit", string_rsplit, "sep maxsplit", 0},
    {"splitlines", string_splitlines, "keepends", 0},
    {"partition", string_partition, "sep", 1},
    {"rpartition", string_rpartition, "sep", 1},
    {"find", string_find, "sub start end", 1},
    {"rfind", string_rfind, "sub start end", 1},
    {"index", string_index, "sub start end", 1},
    {"rindex", string_rindex, "sub start end", 1},
    {"count", string_count, "sub start end", 1},
    {"startswith", string_startswith, "prefix start end", 1},
    {"endswith", string_endswith, "suffix start end", 1},
    {"removeprefix", string_removeprefix, "prefix", 1},
    {"removesuffix", string_removesuffix, "suffix", 1},
    {"replace", string_replace_method, "old new count", 2},
    {"join", string_join, "iterable", 1},
    {"format", string_format_method, "*", 0},
    {NULL, NULL, NULL, 0},
};

/* ---- lists and dicts ---- */

METHOD(list_index) {
    size_t count;
    const struct value *item = value_items(&r->w, self, &count);
    int64_t n = (int64_t)count, from = argument_int(&r->w, a[1], 0, "the start"),
            to = argument_int(&r->w, a[2], n, "the end");
    from = from < -n ? 0 : from < 0 ? from + n : from;
    to = to < 0 ? to + n : to > n ? n : to;
    for (int64_t i = from; i < to; i++)
        if (value_equal(&r->w, item[i], a[0]))
            return value_int(i);
    work_fail(&r->w, ERR_INVALID, "the value is not in the %s", value_type(self));
}
METHOD(list_count) {
    size_t n;
    int64_t count = 0;
    const struct value *item = value_items(&r->w, self, &n);
    for (size_t i = 0; i < n; i++)
        count += value_equal(&r->w, item[i], a[0]);
    return value_int(count);
}
METHOD(list_copy) {
    return self; /* nothing can change either of them */
}

const struct builtin template_list_methods[] = {
    {"index", list_index, "value start end", 1},
    {"count", list_count, "value", 1},
    {"copy", list_copy, "", 0},
    {NULL, NULL, NULL, 0},
};

METHOD(dict_get) {
    const struct value *hit = dict_find(&r->w, self.dict, a[0]);
    return hit != NULL ? *hit : a[1].kind != UNSET ? a[1] : value_none();
}

enum view { VIEW_KEYS, VIEW_VALUES, VIEW_ITEMS };
static struct value dict_view(struct render *r, struct value self, enum view what) {
    static const char *const type[] = {"dict_keys", "dict_values", "dict_items"};
    const struct dict *d = self.dict;
    struct value *item = work_alloc(&r->w, d->n, sizeof *item);
    work_charge(&r->w, d->n / 4);
    for (size_t i = 0; i < d->n; i++) {
        const struct entry *e = &d->entry[i];
        if (what == VIEW_ITEMS) {
            struct value *pair = work_alloc(&r->w, 2, sizeof *pair);
            pair[0] = e->key;
            pair[1] = e->value;
            item[i] = value_list(&r->w, TUPLE, pair, 2);
            item[i].caller = self.caller;
        } else {
            item[i] = what == VIEW_KEYS ? e->key : e->value;
        }
    }
    struct value v = value_list(&r->w, VIEW, item, d->n);
    v.list->type = type[what];
    v.caller = self.caller;
    return v;
}
METHOD(dict_keys) {
    return dict_view(r, self, VIEW_KEYS);
}
METHOD(dict_values) {
    return dict_view(r, self, VIEW_VALUES);
}
METHOD(dict_items) {
    return dict_view(r, self, VIEW_ITEMS);
}

const struct builtin template_dict_methods[] = {
    {"get", dict_get, "key default", 1}, {"keys", dict_keys, "", 0}, {"values", dict_values, "", 0},
    {"items", dict_items, "", 0},        {"copy", list_copy, "", 0}, {NULL, NULL, NULL, 0},
};

/* ---- loops and cyclers ---- */

METHOD(loop_cycle) {
    if (call->n == 0)
        work_fail(&r->w, ERR_INVALID, "no items for cycling given");
    return call->arg[self.loop->index0 % call->n];
}
METHOD(loop_changed) {
    struct value now = value_list(&r->w, TUPLE, call->arg, call->n);
    bool changed = self.loop->changed.kind == UNSET || !value_equal(&r->w, self.loop->changed, now);
    self.loop->changed = now;
    return value_bool(changed);
}
const struct builtin template_loop_methods[] = {
    {"cycle", loop_cycle, "*", 0}, {"changed", loop_changed, "*", 0}, {NULL, NULL, NULL, 0}};

METHOD(cycler_next) {
    struct value v = self.cycler->item[self.cycler->at];
    self.cycler->at = (self.cycler->at + 1) % self.cycler->n;
    return v;
}
METHOD(cycler_reset) {
    self.cycler->at = 0;
    return value_none();
}
const struct builtin template_cycler_methods[] = {
    {"next", cycler_next, "", 0}, {"reset", cycler_reset, "", 0}, {NULL, NULL, NULL, 0}};
