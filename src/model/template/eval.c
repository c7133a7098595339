/* Expressions at work: the value of a node. */
#include "model/template/inner.h"

#include <math.h>
#include <string.h>

static const struct json *find_variable(const struct render *r, struct str name) {
    const struct json *found = NULL;
    if (r->said != NULL && str_is(name, "messages"))
        return r->said->messages;
    if (r->said != NULL && str_is(name, "tools"))
        return r->said->tools;
    for (void *it = json_first(r->vars); it != NULL; it = json_next(r->vars, it))
        if (str_equal(json_key(it), name))
            found = json_value(it);
    return found;
}

struct value scope_get(struct render *r, const struct scope *s, uint32_t symbol) {
    for (size_t walked = 0; s != NULL; s = s->parent)
        for (const struct binding *b = s->first; b != NULL; b = b->next) {
            if (b->symbol == symbol)
                return b->value;
            if (++walked % 8 == 0)
                work_charge(&r->w, 1);
        }
    struct value *global = &r->global[symbol];
    if (global->kind == UNSET) {
        struct str name = r->t->symbol[symbol];
        const struct builtin *builtin = builtin_find(template_globals, name);
        *global = value_undefined(text_new(&r->w, name.p, name.n, false));
        if (builtin != NULL)
            *global = (struct value){.kind = BUILTIN, .builtin = builtin};
        const struct json *variable = find_variable(r, name);
        if (variable != NULL)
            *global =
                value_json(&r->w, variable,
                           str_is(name, "messages") || str_is(name, "tools") || str_is(name, "documents"));
    }
    return *global;
}

void scope_set(struct render *r, struct scope *s, uint32_t symbol, struct value v) {
    struct binding *b = s->first;
    for (size_t walked = 0; b != NULL && b->symbol != symbol; b = b->next)
        if (++walked % 8 == 0)
            work_charge(&r->w, 1);
    if (b == NULL) {
        b = work_alloc(&r->w, 1, sizeof *b);
        b->symbol = symbol;
        b->next = s->first;
        s->first = b;
    }
    b->value = v;
}

/* ---- operators ---- */

static int64_t floor_divide(int64_t a, int64_t b) {
    return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

static struct value power(struct work *w, struct value a, struct value b) {
    if (a.kind == FLOAT || b.kind == FLOAT || value_integer(b) < 0) {
        if (value_number(a) == 0 && value_number(b) < 0)
            work_fail(w, ERR_INVALID, "0.0 cannot be raised to a negative power");
        double x = pow(value_number(a), value_number(b));
        if (isnan(x) && !isnan(value_number(a)) && !isnan(value_number(b)))
            work_fail(w, ERR_UNSUPPORTED, "complex numbers are not supported");
        if (isinf(x) && isfinite(value_number(a)) && isfinite(value_number(b)))
            work_fail(w, ERR_INVALID, "the result is too large");
        return value_float(x);
    }
    int64_t base = value_integer(a), exponent = value_integer(b), result = 1;
    bool over = false;
    for (; exponent > 0 && !over; exponent >>= 1) {
        if (exponent & 1)
            over |= __builtin_mul_overflow(result, base, &result);
        if (exponent > 1)
            over |= __builtin_mul_overflow(base, base, &base);
    }
    if (over)
        work_fail(w, ERR_TOO_LARGE, "a number is larger than 64 bits");
    return value_int(result);
}

static struct value divide(struct work *w, enum op op, struct value a, struct value b) {
    if (value_number(b) == 0)
        work_fail(w, ERR_INVALID, "division by zero");
    if (op == OP_DIV)
        return value_float(value_number(a) / value_number(b));
    if (a.kind == FLOAT || b.kind == FLOAT) {
        double x = value_number(a), y = value_number(b), rest = fmod(x, y);
        if (rest != 0 && (rest < 0) != (y < 0))
            rest += y;
        if (op == OP_MOD)
            return value_float(rest == 0 ? copysign(0, y) : rest);
        double quotient = (x - rest) / y, whole = floor(quotient);
        if (quotient - whole > 0.5)
            whole += 1;
        return value_float(whole == 0 ? copysign(0, x / y) : whole);
    }
    int64_t x = value_integer(a), y = value_integer(b);
    if (y == -1 && x == INT64_MIN)
        work_fail(w, ERR_TOO_LARGE, "a number is larger than 64 bits");
    int64_t quotient = floor_divide(x, y);
    return value_int(op == OP_FLOOR ? quotient : x - quotient * y);
}

static struct value arithmetic(struct work *w, enum op op, struct value a, struct value b) {
    if (op == OP_POW)
        return power(w, a, b);
    if (op == OP_DIV || op == OP_FLOOR || op == OP_MOD)
        return divide(w, op, a, b);
    if (a.kind == FLOAT || b.kind == FLOAT) {
        double x = value_number(a), y = value_number(b);
        return value_float(op == OP_ADD ? x + y : op == OP_SUB ? x - y : x * y);
    }
    int64_t x = value_integer(a), y = value_integer(b), z;
    bool over = op == OP_ADD   ? __builtin_add_overflow(x, y, &z)
                : op == OP_SUB ? __builtin_sub_overflow(x, y, &z)
                               : __builtin_mul_overflow(x, y, &z);
    if (over)
        work_fail(w, ERR_TOO_LARGE, "a number is larger than 64 bits");
    return value_int(z);
}

static struct value repeat(struct render *r, struct value v, struct value times) {
    int64_t n = value_integer(times) > 0 ? value_integer(times) : 0;
    size_t size;
    if (v.kind == STRING) {
        struct writer o = {.w = &r->w};
        if (v.s->n == 0 || n == 0)
            return value_text(writer_done(&o));
        if (n > TEMPLATE_MOST_MEMORY)
            work_fail(&r->w, ERR_TOO_LARGE, "it needs more than %d MiB of memory",
                      TEMPLATE_MOST_MEMORY >> 20);
        for (int64_t i = 0; i < n; i++) {
            if (i % 4 == 0)
                work_charge(&r->w, 1);
            writer_text(&o, v.s);
        }
        const struct text *s = writer_done(&o);
        return value_text(times.caller ? text_as_caller(&r->w, s) : s);
    }
    if (__builtin_mul_overflow(v.list->n, (size_t)n, &size) || size > TEMPLATE_MOST_MEMORY)
        work_fail(&r->w, ERR_TOO_LARGE, "it needs more than %d MiB of memory", TEMPLATE_MOST_MEMORY >> 20);
    struct value *item = work_alloc(&r->w, size, sizeof *item);
    work_charge(&r->w, size / 4 + (size_t)(size > 0 ? n / 4 : 0));
    for (size_t i = 0; i < size; i += v.list->n)
        memcpy(item + i, v.list->item, v.list->n * sizeof *item);
    struct value out = value_list(&r->w, (enum kind)v.kind, item, size);
    out.caller = v.caller || times.caller;
    return out;
}

static struct value add_lists(struct render *r, struct value a, struct value b) {
    size_t n = a.list->n + b.list->n;
    struct value *item = work_alloc(&r->w, n, sizeof *item);
    work_charge(&r->w, n / 4);
    if (a.list->n > 0)
        memcpy(item, a.list->item, a.list->n * sizeof *item);
    if (b.list->n > 0)
        memcpy(item + a.list->n, b.list->item, b.list->n * sizeof *item);
    struct value out = value_list(&r->w, (enum kind)a.kind, item, n);
    out.caller = a.caller || b.caller;
    return out;
}

static void write_escaped(struct writer *o, const struct text *s) {
    static const char *const entity[] = {
        ['&'] = "&amp;", ['<'] = "&lt;", ['>'] = "&gt;", ['\''] = "&#39;", ['"'] = "&#34;"};
    size_t plain = 0;
    for (size_t i = 0; i < s->n; i++) {
        unsigned char c = (unsigned char)s->p[i];
        if (c >= sizeof entity / sizeof *entity || entity[c] == NULL)
            continue;
        writer_part(o, s, plain, i - plain);
        writer_bytes(o, entity[c], strlen(entity[c]), text_caller_at(s, i));
        plain = i + 1;
    }
    writer_part(o, s, plain, s->n - plain);
}

const struct text *text_escape(struct work *w, const struct text *s) {
    if (s->markup)
        return s;
    struct writer o = {.w = w};
    write_escaped(&o, s);
    struct text *escaped = text_new(w, "", 0, false);
    *escaped = *writer_done(&o);
    escaped->markup = true;
    return escaped;
}

static struct value add_strings(struct render *r, const struct text *a, const struct text *b) {
    struct writer o = {.w = &r->w};
    bool markup = a->markup || b->markup;
    writer_text(&o, markup ? text_escape(&r->w, a) : a);
    writer_text(&o, markup ? text_escape(&r->w, b) : b);
    struct text *sum = text_new(&r->w, "", 0, false);
    *sum = *writer_done(&o);
    sum->markup = markup;
    return value_text(sum);
}

struct value value_binary(struct render *r, enum op op, struct value a, struct value b) {
    static const char *const symbol[] = {[OP_ADD] = "+",    [OP_SUB] = "-", [OP_MUL] = "*", [OP_DIV] = "/",
                                         [OP_FLOOR] = "//", [OP_MOD] = "%", [OP_POW] = "**"};
    struct value out;
    if (value_numeric(a) && value_numeric(b)) {
        out = arithmetic(&r->w, op, a, b);
        out.caller = a.caller || b.caller;
        return out;
    }
    if (op == OP_MOD && a.kind == STRING)
        return string_percent(r, a.s, b);
    if (a.kind == UNDEFINED || b.kind == UNDEFINED)
        value_fail_undefined(&r->w, a.kind == UNDEFINED ? a : b);
    if (op == OP_ADD && a.kind == STRING && b.kind == STRING)
        return add_strings(r, a.s, b.s);
    if (op == OP_ADD && a.kind == b.kind && (a.kind == LIST || a.kind == TUPLE))
        return add_lists(r, a, b);
    bool repeats = a.kind == STRING || a.kind == LIST || a.kind == TUPLE;
    if (op == OP_MUL && repeats && value_integral(b))
        return repeat(r, a, b);
    if (op == OP_MUL && value_integral(a) && (b.kind == STRING || b.kind == LIST || b.kind == TUPLE))
        return repeat(r, b, a);
    work_fail(&r->w, ERR_INVALID, "unsupported operand type(s) for %s: '%s' and '%s'", symbol[op],
              value_type(a), value_type(b));
}

static bool compare(struct work *w, enum op op, struct value a, struct value b) {
    static const char *const symbol[] = {[OP_LT] = "<", [OP_LE] = "<=", [OP_GT] = ">", [OP_GE] = ">="};
    if (op == OP_EQ || op == OP_NE)
        return value_equal(w, a, b) == (op == OP_EQ);
    if (op == OP_IN || op == OP_NOT_IN)
        return value_contains(w, b, a) == (op == OP_IN);
    int order = value_order(w, a, b, symbol[op]);
    if (order == 2) /* not a number */
        return false;
    return op == OP_LT ? order < 0 : op == OP_LE ? order <= 0 : op == OP_GT ? order > 0 : order >= 0;
}

/* ---- nodes ---- */

static size_t count(const struct node *list) {
    size_t n = 0;
    for (; list != NULL; list = list->next)
        n++;
    return n;
}

static struct value eval_list(struct render *r, struct scope *s, const struct node *n) {
    size_t items = count(n->list);
    struct value *item = work_alloc(&r->w, items, sizeof *item), *to = item;
    for (const struct node *k = n->list; k != NULL; k = k->next)
        *to++ = render_eval(r, s, k);
    return value_list(&r->w, n->kind == NODE_LIST ? LIST : TUPLE, item, items);
}

static struct value eval_dict(struct render *r, struct scope *s, const struct node *n) {
    struct value d = value_dict(&r->w);
    for (const struct node *k = n->list; k != NULL; k = k->next->next) {
        struct value key = render_eval(r, s, k);
        dict_set(&r->w, d.dict, key, render_eval(r, s, k->next));
    }
    return d;
}

static struct value eval_compare(struct render *r, struct scope *s, const struct node *n) {
    struct value left = render_eval(r, s, n->a);
    for (const struct node *k = n->list; k != NULL; k = k->next) {
        struct value right = render_eval(r, s, k->a);
        if (!compare(&r->w, (enum op)k->op, left, right))
            return value_bool(false);
        left = right;
    }
    return value_bool(true);
}

/* a ~ b ~ c is a chain to the left; its parts are written in one go. */
static struct value eval_concat(struct render *r, struct scope *s, const struct node *n) {
    size_t parts = 1;
    for (const struct node *k = n; k->kind == NODE_CONCAT; k = k->a)
        parts++;
    const struct node **part = work_alloc(&r->w, parts, sizeof *part);
    size_t i = parts;
    for (; n->kind == NODE_CONCAT; n = n->a)
        part[--i] = n->b;
    part[0] = n;
    struct writer o = {.w = &r->w};
    for (i = 0; i < parts; i++)
        print_value(&o, render_eval(r, s, part[i]));
    return value_text(writer_done(&o));
}

static void add_named(struct render *r, struct call *call, size_t *room, const struct text *name,
                      struct value v) {
    for (size_t i = 0; i < call->names; i++)
        if (str_equal(text_str(call->named[i].name), text_str(name)))
            work_fail(&r->w, ERR_INVALID, "the argument '%.*s' is given twice",
                      (int)(name->n < 60 ? name->n : 60), name->p);
    work_charge(&r->w, call->names / 4);
    if (call->names == *room) {
        size_t grown = *room ? *room * 2 : 4;
        struct named *named = work_alloc(&r->w, grown, sizeof *named);
        if (call->names > 0)
            memcpy(named, call->named, call->names * sizeof *named);
        call->named = named;
        *room = grown;
    }
    call->named[call->names++] = (struct named){name, v};
}

/* *args: appended to the positional arguments. */
static void add_spread(struct render *r, struct call *call, size_t *room, const struct value *v, size_t n) {
    if (n > *room - call->n) {
        *room = (call->n + n) * 2;
        struct value *arg = work_alloc(&r->w, *room, sizeof *arg);
        if (call->n > 0)
            memcpy(arg, call->arg, call->n * sizeof *arg);
        call->arg = arg;
    }
    if (n > 0)
        memcpy(call->arg + call->n, v, n * sizeof *v);
    call->n += n;
}

static struct call eval_arguments(struct render *r, struct scope *s, const struct node *list) {
    struct call call = {0};
    size_t room = 0, name_room = 0, n;
    for (const struct node *k = list; k != NULL; k = k->next) {
        struct value v = render_eval(r, s, k->a);
        if (k->op == 1) {
            const struct value *item = value_items(&r->w, v, &n);
            add_spread(r, &call, &room, item, n);
        } else if (k->op == 2) {
            if (v.kind != DICT)
                work_fail(&r->w, ERR_INVALID, "argument after ** must be a mapping, not %s", value_type(v));
            for (size_t i = 0; i < v.dict->n; i++) {
                if (v.dict->entry[i].key.kind != STRING)
                    work_fail(&r->w, ERR_INVALID, "keywords must be strings");
                add_named(r, &call, &name_room, v.dict->entry[i].key.s, v.dict->entry[i].value);
            }
        } else if (k->name.p != NULL) {
            add_named(r, &call, &name_room, text_new(&r->w, k->name.p, k->name.n, false), v);
        } else {
            add_spread(r, &call, &room, &v, 1);
        }
    }
    return call;
}

static struct value eval_slice(struct render *r, struct scope *s, const struct node *n) {
    struct value of = render_eval(r, s, n->a);
    const struct node *const part[3] = {n->b, n->c, n->d};
    struct value bound[3];
    for (int i = 0; i < 3; i++)
        bound[i] = part[i] ? render_eval(r, s, part[i]) : value_none();
    return value_slice(r, of, bound);
}

static struct value negate(struct render *r, struct value v, bool minus) {
    if (v.kind == UNDEFINED)
        value_fail_undefined(&r->w, v);
    if (!value_numeric(v))
        work_fail(&r->w, ERR_INVALID, "bad operand type for unary %c: '%s'", minus ? '-' : '+',
                  value_type(v));
    if (v.kind == FLOAT) {
        v.f = minus ? -v.f : v.f;
        return v;
    }
    return value_binary(r, minus ? OP_SUB : OP_ADD, value_int(0), v);
}

static struct value eval_logic(struct render *r, struct scope *s, const struct node *n) {
    struct value left = render_eval(r, s, n->a);
    return value_true(&r->w, left) == (n->kind == NODE_OR) ? left : render_eval(r, s, n->b);
}

static struct value eval_choice(struct render *r, struct scope *s, const struct node *n) {
    if (value_true(&r->w, render_eval(r, s, n->b)))
        return render_eval(r, s, n->a);
    return n->c ? render_eval(r, s, n->c) : value_undefined(NULL);
}

static struct value eval_call(struct render *r, struct scope *s, const struct node *n) {
    struct value callee = render_eval(r, s, n->a);
    struct call call = eval_arguments(r, s, n->arguments);
    r->w.line = n->line;
    return value_call(r, callee, &call);
}

static struct value eval_filter(struct render *r, struct scope *s, const struct node *n) {
    struct value v = render_eval(r, s, n->a);
    struct call call = eval_arguments(r, s, n->arguments);
    r->w.line = n->line;
    return n->kind == NODE_FILTER ? builtin_call(r, template_filter(r, n->name), v, &call)
                                  : builtin_call(r, template_test(r, n->name), v, &call);
}

static struct value eval_node(struct render *r, struct scope *s, const struct node *n) {
    struct value a;
    switch (n->kind) {
    case NODE_CONST:
        return n->value;
    case NODE_NAME:
        return scope_get(r, s, n->symbol);
    case NODE_LIST:
    case NODE_TUPLE:
        return eval_list(r, s, n);
    case NODE_DICT:
        return eval_dict(r, s, n);
    case NODE_ATTRIBUTE:
        return value_attribute(r, render_eval(r, s, n->a), n->name);
    case NODE_ITEM:
        a = render_eval(r, s, n->a);
        return value_item(r, a, render_eval(r, s, n->b));
    case NODE_SLICE:
        return eval_slice(r, s, n);
    case NODE_CALL:
        return eval_call(r, s, n);
    case NODE_FILTER:
    case NODE_TEST:
        return eval_filter(r, s, n);
    case NODE_BINARY:
        a = render_eval(r, s, n->a);
        return value_binary(r, (enum op)n->op, a, render_eval(r, s, n->b));
    case NODE_NEGATE:
    case NODE_PLUS:
        return negate(r, render_eval(r, s, n->a), n->kind == NODE_NEGATE);
    case NODE_NOT:
        return value_bool(!value_true(&r->w, render_eval(r, s, n->a)));
    case NODE_AND:
    case NODE_OR:
        return eval_logic(r, s, n);
    case NODE_COMPARE:
        return eval_compare(r, s, n);
    case NODE_CONCAT:
        return eval_concat(r, s, n);
    case NODE_IF_ELSE:
        return eval_choice(r, s, n);
    default: /* NODE_BODY: what a filter block or a block assignment has rendered */
        return scope_get(r, s, SYMBOL_BODY);
    }
}

struct value render_eval(struct render *r, struct scope *s, const struct node *n) {
    work_charge(&r->w, 1);
    work_enter(&r->w);
    r->w.line = n->line;
    struct value v = eval_node(r, s, n);
    r->w.depth--;
    return v;
}
