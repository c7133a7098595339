/* Statements at work: output, conditions, loops, assignments, macros. Scopes follow jinja2: a loop's body, a macro, a block assignment
 * and "with" have their own; a condition has none. A macro sees the variables around its definition as they are when it is called. */
#include "model/template/inner.h"

#include <string.h>

enum flow { FLOW_ON, FLOW_BREAK, FLOW_CONTINUE };

static enum flow render_list(struct render *r, struct scope *s, const struct node *list);

static struct scope *scope_new(struct render *r, struct scope *parent) {
    struct scope *s = work_alloc(&r->w, 1, sizeof *s);
    s->parent = parent;
    return s;
}

/* The text that a body writes. */
static struct value capture(struct render *r, struct scope *s, const struct node *list) {
    struct writer text = {.w = &r->w}, *outer = r->out;
    r->out = &text;
    render_list(r, s, list);
    r->out = outer;
    return value_text(writer_done(&text));
}

static void assign(struct render *r, struct scope *s, const struct node *target, struct value v) {
    if (target->kind == NODE_NAME) {
        scope_set(r, s, target->symbol, v);
        return;
    }
    if (target->kind == NODE_ATTRIBUTE) {
        struct value of = scope_get(r, s, target->a->symbol);
        if (of.kind != NAMESPACE)
            work_fail(&r->w, ERR_INVALID, "cannot assign attribute on non-namespace object");
        dict_set(&r->w, of.dict, value_text(text_new(&r->w, target->name.p, target->name.n, false)), v);
        return;
    }
    size_t n;
    if (v.kind == UNDEFINED)
        value_fail_undefined(&r->w, v);
    const struct value *item = value_items(&r->w, v, &n);
    const struct node *k = target->list;
    for (size_t i = 0; i < n && k != NULL; i++, k = k->next)
        assign(r, s, k, item[i]);
    size_t wanted = 0;
    for (k = target->list; k != NULL; k = k->next)
        wanted++;
    if (wanted != n)
        work_fail(&r->w, ERR_INVALID, "%s values to unpack: expected %zu, got %zu",
                  wanted < n ? "too many" : "not enough", wanted, n);
}

/* ---- loops ---- */

/* The next item that the loop's filter lets through, into *v. The filter is asked as late as jinja2 asks it. */
static bool loop_take(struct render *r, struct loop *l, struct value *v) {
    while (l->taken < l->items) {
        *v = l->item[l->taken++];
        if (l->node->c == NULL)
            return true;
        struct scope *s = scope_new(r, l->scope);
        assign(r, s, l->node->a, *v);
        if (value_true(&r->w, render_eval(r, s, l->node->c)))
            return true;
    }
    return false;
}

static bool loop_peek(struct render *r, struct loop *l) {
    if (!l->peeked)
        l->peeked = loop_take(r, l, &l->ahead);
    return l->peeked;
}

static bool loop_next(struct render *r, struct loop *l) {
    struct value v;
    if (l->peeked)
        v = l->ahead;
    else if (!loop_take(r, l, &v))
        return false;
    l->peeked = false;
    l->before = l->started ? l->now : value_undefined(NULL);
    l->index0 = l->started ? l->index0 + 1 : 0;
    l->started = true;
    l->now = v;
    return true;
}

/* How many items there are in all: asks the filter about the rest. */
static int64_t loop_length(struct render *r, struct loop *l) {
    if (l->node->c != NULL && l->taken < l->items) {
        size_t rest = 0;
        struct value *item = work_alloc(&r->w, l->items - l->taken, sizeof *item);
        while (loop_take(r, l, &item[rest]))
            rest++;
        struct node *plain = work_alloc(&r->w, 1, sizeof *plain);
        *plain = *l->node;
        plain->c = NULL; /* what is left now has passed */
        l->node = plain;
        l->item = item;
        l->items = rest;
        l->taken = 0;
    }
    return (int64_t)(l->index0 + 1 + l->peeked + (l->items - l->taken));
}

struct value loop_attribute(struct render *r, struct loop *l, struct str name) {
    static const char *const counters[] = {"index",     "index0", "length", "revindex",
                                           "revindex0", "depth",  "depth0", NULL};
    int64_t at = (int64_t)l->index0;
    size_t i = 0;
    if (str_is(name, "first"))
        return value_bool(at == 0);
    if (str_is(name, "last"))
        return value_bool(!loop_peek(r, l));
    if (str_is(name, "previtem"))
        return l->before;
    if (str_is(name, "nextitem"))
        return loop_peek(r, l) ? l->ahead : value_undefined(NULL);
    while (counters[i] != NULL && !str_is(name, counters[i]))
        i++;
    switch (i) {
    case 0:
        return value_int(at + 1);
    case 1:
        return value_int(at);
    case 2:
        return value_int(loop_length(r, l));
    case 3:
        return value_int(loop_length(r, l) - at);
    case 4:
        return value_int(loop_length(r, l) - at - 1);
    case 5:
        return value_int(l->depth0 + 1);
    case 6:
        return value_int(l->depth0);
    default:
        return value_undefined(text_new(&r->w, name.p, name.n, false));
    }
}

static enum flow render_for(struct render *r, struct scope *s, const struct node *n, struct value over,
                            unsigned depth0) {
    struct loop *l = work_alloc(&r->w, 1, sizeof *l);
    *l = (struct loop){.node = n, .scope = s, .depth0 = depth0, .changed = {.kind = UNSET}};
    l->item = value_items(&r->w, over, &l->items);
    while (loop_next(r, l)) {
        struct scope *inner = scope_new(r, s);
        work_charge(&r->w, 1);
        scope_set(r, inner, SYMBOL_LOOP, (struct value){.kind = LOOP, .loop = l});
        assign(r, inner, n->a, l->now);
        if (render_list(r, inner, n->list) == FLOW_BREAK)
            break;
    }
    if (!l->started && n->other != NULL)
        return render_list(r, scope_new(r, s), n->other);
    return FLOW_ON;
}

struct value loop_call(struct render *r, const struct loop *outer, struct value over) {
    struct writer text = {.w = &r->w}, *out = r->out;
    if (outer->node->op == 0)
        work_fail(&r->w, ERR_INVALID, "the loop must have the 'recursive' marker to be called");
    r->out = &text;
    render_for(r, outer->scope, outer->node, over, outer->depth0 + 1);
    r->out = out;
    return value_text(writer_done(&text));
}

/* ---- macros ---- */

static void bind_rest(struct render *r, struct scope *s, const struct macro *m, const struct call *call,
                      size_t wanted, const bool *used) {
    struct value rest = value_dict(&r->w), more = value_list(&r->w, TUPLE, NULL, 0), caller;
    bool has_caller = false;
    for (size_t i = 0; i < call->names; i++) {
        if (used[i])
            continue;
        struct str name = text_str(call->named[i].name);
        if (str_is(name, "caller")) {
            caller = call->named[i].value;
            has_caller = true;
        } else if (m->node->catches & CATCH_KWARGS) {
            dict_set(&r->w, rest.dict, value_text(call->named[i].name), call->named[i].value);
        } else {
            work_fail(&r->w, ERR_INVALID, "macro '%.*s' takes no keyword argument '%.*s'",
                      (int)m->node->name.n, m->node->name.p, (int)(name.n < 60 ? name.n : 60), name.p);
        }
    }
    if (call->n > wanted) {
        if (!(m->node->catches & CATCH_VARARGS))
            work_fail(&r->w, ERR_INVALID, "macro '%.*s' takes not more than %zu argument(s)",
                      (int)(m->node->name.n < 60 ? m->node->name.n : 60), m->node->name.p, wanted);
        more.list->item = call->arg + wanted;
        more.list->n = call->n - wanted;
    }
    if (m->node->catches & CATCH_KWARGS)
        scope_set(r, s, SYMBOL_KWARGS, rest);
    if (m->node->catches & CATCH_VARARGS)
        scope_set(r, s, SYMBOL_VARARGS, more);
    if (m->node->catches & CATCH_CALLER)
        scope_set(r, s, SYMBOL_CALLER, has_caller ? caller : value_undefined(NULL));
    else if (has_caller)
        work_fail(&r->w, ERR_INVALID,
                  "macro '%.*s' was invoked with two values for the special caller argument",
                  (int)(m->node->name.n < 60 ? m->node->name.n : 60), m->node->name.p);
}

struct value macro_call(struct render *r, const struct macro *m, const struct call *call) {
    struct scope *s = scope_new(r, m->scope);
    bool *used = work_alloc(&r->w, call->names, sizeof *used);
    size_t i = 0;
    for (const struct node *p = m->node->arguments; p != NULL; p = p->next, i++) {
        struct value v = {.kind = UNSET};
        if (i < call->n)
            v = call->arg[i];
        for (size_t k = 0; k < call->names; k++) {
            if (used[k] || !str_equal(text_str(call->named[k].name), p->name))
                continue;
            if (v.kind != UNSET)
                work_fail(&r->w, ERR_INVALID, "macro got two values for the argument '%.*s'",
                          (int)(p->name.n < 60 ? p->name.n : 60), p->name.p);
            used[k] = true;
            v = call->named[k].value;
        }
        if (v.kind == UNSET)
            v = p->a ? render_eval(r, s, p->a)
                     : value_undefined(text_new(&r->w, p->name.p, p->name.n, false));
        scope_set(r, s, p->symbol, v);
    }
    bind_rest(r, s, m, call, i, used);
    return capture(r, s, m->node->list);
}

static struct value new_macro(struct render *r, struct scope *s, const struct node *n) {
    struct macro *m = work_alloc(&r->w, 1, sizeof *m);
    *m = (struct macro){n, s};
    return (struct value){.kind = MACRO, .macro = m};
}

/* {% call f(...) %}body{% endcall %}: f gets the body as `caller`. */
static void render_call_block(struct render *r, struct scope *s, const struct node *n) {
    struct node argument = {.kind = NODE_ARGUMENT, .line = n->line, .name = STR("caller")};
    struct node constant = {.kind = NODE_CONST, .line = n->line, .value = new_macro(r, s, n->b)};
    struct node call = *n->a;
    argument.a = &constant;
    argument.next = call.arguments;
    call.arguments = &argument;
    print_value(r->out, render_eval(r, s, &call));
}

/* ---- the rest ---- */

static struct value filtered_body(struct render *r, struct scope *s, const struct node *filters,
                                  const struct node *list) {
    struct scope *inner = scope_new(r, s);
    struct value body = capture(r, inner, list);
    if (filters->kind == NODE_BODY)
        return body;
    struct scope *own = scope_new(r, s);
    scope_set(r, own, SYMBOL_BODY, body);
    return render_eval(r, own, filters);
}

static enum flow render_if(struct render *r, struct scope *s, const struct node *n) {
    for (const struct node *branch = n->list; branch != NULL; branch = branch->next)
        if (branch->a == NULL || value_true(&r->w, render_eval(r, s, branch->a)))
            return render_list(r, s, branch->list);
    return FLOW_ON;
}

static enum flow render_scope(struct render *r, struct scope *s, const struct node *n) {
    struct scope *inner = scope_new(r, s);
    for (const struct node *k = n->arguments; k != NULL; k = k->next)
        assign(r, inner, k->a, render_eval(r, s, k->b));
    return render_list(r, inner, n->list);
}

static enum flow render_node(struct render *r, struct scope *s, const struct node *n) {
    switch (n->kind) {
    case NODE_DATA:
        writer_text(r->out, n->value.s);
        break;
    case NODE_OUTPUT:
        for (const struct node *k = n->list; k != NULL; k = k->next)
            print_value(r->out, render_eval(r, s, k));
        break;
    case NODE_IF:
        return render_if(r, s, n);
    case NODE_FOR:
        return render_for(r, s, n, render_eval(r, s, n->b), 0);
    case NODE_SET:
        assign(r, s, n->a, render_eval(r, s, n->b));
        break;
    case NODE_SET_BLOCK:
        assign(r, s, n->a, filtered_body(r, s, n->b, n->list));
        break;
    case NODE_FILTER_BLOCK:
        print_value(r->out, filtered_body(r, s, n->a, n->list));
        break;
    case NODE_MACRO:
        scope_set(r, s, n->symbol, new_macro(r, s, n));
        break;
    case NODE_CALL_BLOCK:
        render_call_block(r, s, n);
        break;
    case NODE_SCOPE:
        return render_scope(r, s, n);
    case NODE_BREAK:
        return FLOW_BREAK;
    case NODE_CONTINUE:
        return FLOW_CONTINUE;
    default:
        work_fail(&r->w, ERR_INTERNAL, "a node of the template has no meaning");
    }
    return FLOW_ON;
}

static enum flow render_list(struct render *r, struct scope *s, const struct node *list) {
    enum flow flow = FLOW_ON;
    work_enter(&r->w);
    for (; list != NULL && flow == FLOW_ON; list = list->next) {
        work_charge(&r->w, 1);
        r->w.line = list->line;
        flow = render_node(r, s, list);
    }
    r->w.depth--;
    return flow;
}

void render_body(struct render *r, struct scope *s, const struct node *list) {
    render_list(r, s, list);
}
