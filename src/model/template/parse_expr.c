/* Expressions of a template, parsed by recursive descent in the order of precedence of jinja2's own parser. */
#include "model/template/inner.h"

#include <string.h>

struct node *parser_node(struct parser *p, enum node_kind kind) {
    struct node *n = work_alloc(p->w, 1, sizeof *n);
    n->kind = (uint8_t)kind;
    n->line = p->at->line;
    return n;
}

bool parser_is_op(const struct parser *p, enum op op) {
    return p->at->kind == TOKEN_OPERATOR && p->at->op == op;
}

bool parser_is_name(const struct parser *p, const char *name) {
    return p->at->kind == TOKEN_NAME && str_is(p->at->s, name);
}

bool parser_skip_op(struct parser *p, enum op op) {
    bool is = parser_is_op(p, op);
    p->at += is;
    return is;
}

bool parser_skip_name(struct parser *p, const char *name) {
    bool is = parser_is_name(p, name);
    p->at += is;
    return is;
}

void parser_unexpected(struct parser *p, const char *wanted) {
    p->w->line = p->at->line;
    if (p->at->kind == TOKEN_NAME || p->at->kind == TOKEN_STRING)
        work_fail(p->w, ERR_INVALID, "expected %s, not '%.*s'", wanted,
                  (int)(p->at->s.n < 60 ? p->at->s.n : 60), p->at->s.p);
    work_fail(p->w, ERR_INVALID, "expected %s%s", wanted,
              p->at->kind == TOKEN_END         ? ", but the template ends"
              : p->at->kind == TOKEN_BLOCK_END ? ", but the tag ends"
              : p->at->kind == TOKEN_PRINT_END ? ", but the expression ends"
                                               : "");
}

void parser_expect_op(struct parser *p, enum op op, const char *what) {
    if (!parser_skip_op(p, op))
        parser_unexpected(p, what);
}

struct str parser_expect_name(struct parser *p) {
    if (p->at->kind != TOKEN_NAME)
        parser_unexpected(p, "a name");
    return p->at++->s;
}

uint32_t parser_symbol(struct parser *p, struct str name) {
    struct template *t = p->t;
    if (t->symbols * 2 >= p->slots) {
        size_t slots = p->slots ? p->slots * 2 : 64;
        uint32_t *slot = work_alloc(p->w, slots, sizeof *slot);
        struct str *symbol = work_alloc(p->w, slots, sizeof *symbol);
        for (size_t i = 0; i < t->symbols; i++) {
            uint64_t hash = 14695981039346656037u;
            for (size_t k = 0; k < t->symbol[i].n; k++)
                hash = (hash ^ (uint8_t)t->symbol[i].p[k]) * 1099511628211u;
            size_t at = hash & (slots - 1);
            while (slot[at] != 0)
                at = (at + 1) & (slots - 1);
            slot[at] = (uint32_t)i + 1;
            symbol[i] = t->symbol[i];
        }
        p->slot = slot;
        p->slots = slots;
        t->symbol = symbol;
    }
    uint64_t hash = 14695981039346656037u;
    for (size_t k = 0; k < name.n; k++)
        hash = (hash ^ (uint8_t)name.p[k]) * 1099511628211u;
    size_t at = hash & (p->slots - 1);
    for (; p->slot[at] != 0; at = (at + 1) & (p->slots - 1)) {
        work_charge(p->w, 1);
        if (str_equal(t->symbol[p->slot[at] - 1], name))
            return p->slot[at] - 1;
    }
    t->symbol[t->symbols] = name;
    p->slot[at] = (uint32_t)++t->symbols;
    return (uint32_t)t->symbols - 1;
}

static struct node *constant(struct parser *p, struct value v) {
    struct node *n = parser_node(p, NODE_CONST);
    n->value = v;
    return n;
}

static struct node *parse_string(struct parser *p) {
    struct node *n = parser_node(p, NODE_CONST);
    struct str s = p->at++->s;
    if (p->at->kind == TOKEN_STRING) { /* "a" 'b' is one string */
        struct writer o = {.w = p->w};
        writer_bytes(&o, s.p, s.n, false);
        for (; p->at->kind == TOKEN_STRING; p->at++)
            writer_bytes(&o, p->at->s.p, p->at->s.n, false);
        n->value = value_text(writer_done(&o));
    } else {
        n->value = value_text(text_new(p->w, s.p, s.n, false));
    }
    return n;
}

static struct node *parse_name(struct parser *p) {
    static const struct {
        const char *name;
        uint8_t kind;
        bool b;
    } constants[] = {{"true", BOOL, true},   {"True", BOOL, true},  {"false", BOOL, false},
                     {"False", BOOL, false}, {"none", NONE, false}, {"None", NONE, false}};
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        if (parser_skip_name(p, constants[i].name))
            return constant(p, (struct value){.kind = constants[i].kind, .b = constants[i].b});
    struct node *n = parser_node(p, NODE_NAME);
    n->symbol = parser_symbol(p, p->at++->s);
    p->catches |= n->symbol == SYMBOL_VARARGS  ? CATCH_VARARGS
                  : n->symbol == SYMBOL_KWARGS ? CATCH_KWARGS
                  : n->symbol == SYMBOL_CALLER ? CATCH_CALLER
                                               : 0;
    return n;
}

/* A list or a dict, after its opening bracket. */
static struct node *parse_items(struct parser *p, enum node_kind kind, enum op close) {
    struct node *n = parser_node(p, kind), **to = &n->list;
    p->at++;
    for (bool first = true; !parser_is_op(p, close); first = false) {
        if (!first)
            parser_expect_op(p, OP_COMMA, "a comma");
        if (parser_is_op(p, close))
            break;
        to = parser_chain(to, parse_expression(p, true));
        if (kind != NODE_DICT)
            continue;
        parser_expect_op(p, OP_COLON, "a colon");
        to = parser_chain(to, parse_expression(p, true));
    }
    p->at++;
    return n;
}

struct node *parse_primary(struct parser *p) {
    struct node *n = NULL;
    work_enter(p->w);
    switch (p->at->kind) {
    case TOKEN_NAME:
        n = parse_name(p);
        break;
    case TOKEN_STRING:
        n = parse_string(p);
        break;
    case TOKEN_INT:
        n = constant(p, value_int(p->at++->i));
        break;
    case TOKEN_FLOAT:
        n = constant(p, value_float(p->at++->f));
        break;
    default:
        if (parser_skip_op(p, OP_OPEN)) {
            n = parse_tuple(p, true, true, NULL);
            parser_expect_op(p, OP_CLOSE, "a closing parenthesis");
        } else if (parser_is_op(p, OP_OPEN_SQUARE)) {
            n = parse_items(p, NODE_LIST, OP_CLOSE_SQUARE);
        } else if (parser_is_op(p, OP_OPEN_CURLY)) {
            n = parse_items(p, NODE_DICT, OP_CLOSE_CURLY);
        } else {
            parser_unexpected(p, "an expression");
        }
    }
    p->w->depth--;
    return n;
}

static bool at_tuple_end(const struct parser *p, const char *end) {
    return p->at->kind == TOKEN_PRINT_END || p->at->kind == TOKEN_BLOCK_END || parser_is_op(p, OP_CLOSE) ||
           (end != NULL && parser_is_name(p, end));
}

/* Elements by commas; element parses one of them. */
static struct node *parse_commas(struct parser *p,
                                 struct node *(*element)(struct parser *p, bool conditional),
                                 bool conditional, bool parentheses, const char *end) {
    struct node *tuple = parser_node(p, NODE_TUPLE), **to = &tuple->list;
    bool is_tuple = false;
    while (!at_tuple_end(p, end)) {
        to = parser_chain(to, element(p, conditional));
        if (!parser_skip_op(p, OP_COMMA))
            break;
        is_tuple = true;
    }
    if (!is_tuple && tuple->list != NULL)
        return tuple->list;
    if (!is_tuple && !parentheses)
        parser_unexpected(p, "an expression");
    return tuple;
}

struct node *parse_tuple(struct parser *p, bool conditional, bool parentheses, const char *end) {
    return parse_commas(p, parse_expression, conditional, parentheses, end);
}

static struct node *parse_target_element(struct parser *p, bool dotted) {
    if (parser_is_op(p, OP_OPEN)) {
        work_enter(p->w);
        p->at++;
        struct node *n = parse_commas(p, parse_target_element, dotted, true, NULL);
        parser_expect_op(p, OP_CLOSE, "a closing parenthesis");
        p->w->depth--;
        return n;
    }
    struct node *n = parse_name(p);
    if (n->kind != NODE_NAME)
        parser_unexpected(p, "a name that can be assigned to");
    if (dotted && parser_skip_op(p, OP_DOT)) {
        struct node *member = parser_node(p, NODE_ATTRIBUTE);
        member->a = n;
        member->name = parser_expect_name(p);
        return member;
    }
    return n;
}

struct node *parse_target(struct parser *p, bool dotted, const char *end) {
    if (p->at->kind != TOKEN_NAME && !parser_is_op(p, OP_OPEN))
        parser_unexpected(p, "a name");
    return parse_commas(p, parse_target_element, dotted, false, end);
}

struct node *parse_call_arguments(struct parser *p) {
    struct node *first = NULL, **to = &first;
    p->at++;
    while (!parser_is_op(p, OP_CLOSE)) {
        if (first != NULL) {
            parser_expect_op(p, OP_COMMA, "a comma");
            if (parser_is_op(p, OP_CLOSE))
                break;
        }
        struct node *n = parser_node(p, NODE_ARGUMENT);
        n->op = parser_skip_op(p, OP_MUL) ? 1 : parser_skip_op(p, OP_POW) ? 2 : 0;
        if (n->op == 0 && p->at->kind == TOKEN_NAME && p->at[1].kind == TOKEN_OPERATOR &&
            p->at[1].op == OP_ASSIGN) {
            n->name = p->at->s;
            p->at += 2;
        }
        n->a = parse_expression(p, true);
        to = parser_chain(to, n);
    }
    p->at++;
    return first;
}

/* Inside square brackets: an expression or a slice. */
static struct node *parse_subscript_part(struct parser *p, struct node *of) {
    struct node *bound[3] = {NULL, NULL, NULL};
    if (!parser_is_op(p, OP_COLON))
        bound[0] = parse_expression(p, true);
    if (!parser_is_op(p, OP_COLON)) {
        struct node *n = parser_node(p, NODE_ITEM);
        n->a = of;
        n->b = bound[0];
        return n;
    }
    struct node *n = parser_node(p, NODE_SLICE);
    for (int i = 1; i < 3 && parser_skip_op(p, OP_COLON); i++)
        if (!parser_is_op(p, OP_COLON) && !parser_is_op(p, OP_CLOSE_SQUARE) && !parser_is_op(p, OP_COMMA))
            bound[i] = parse_expression(p, true);
    n->a = of;
    n->b = bound[0];
    n->c = bound[1];
    n->d = bound[2];
    return n;
}

static struct node *parse_subscript(struct parser *p, struct node *of) {
    if (parser_skip_op(p, OP_DOT)) {
        struct node *n = parser_node(p, NODE_ATTRIBUTE);
        n->a = of;
        if (p->at->kind == TOKEN_NAME) {
            n->name = p->at++->s;
            return n;
        }
        if (p->at->kind != TOKEN_INT)
            parser_unexpected(p, "a name or a number after the dot");
        n->kind = NODE_ITEM;
        n->b = constant(p, value_int(p->at++->i));
        return n;
    }
    p->at++; /* [ */
    struct node *n = parse_subscript_part(p, of);
    if (parser_is_op(p, OP_COMMA) && n->kind == NODE_ITEM) {
        struct node *tuple = parser_node(p, NODE_TUPLE), **to = parser_chain(&tuple->list, n->b);
        while (parser_skip_op(p, OP_COMMA)) {
            to = parser_chain(to, parse_expression(p, true));
        }
        n->b = tuple;
    }
    parser_expect_op(p, OP_CLOSE_SQUARE, "a closing bracket");
    return n;
}

static struct node *parse_call(struct parser *p, struct node *callee) {
    struct node *n = parser_node(p, NODE_CALL);
    n->a = callee;
    n->arguments = parse_call_arguments(p);
    return n;
}

static struct node *parse_postfix(struct parser *p, struct node *n) {
    for (;;) {
        if (parser_is_op(p, OP_DOT) || parser_is_op(p, OP_OPEN_SQUARE))
            n = parse_subscript(p, n);
        else if (parser_is_op(p, OP_OPEN))
            n = parse_call(p, n);
        else
            return n;
    }
}

/* The name of a filter or a test: may hold dots, though none that exists here does. */
static struct str parse_dotted_name(struct parser *p) {
    struct str name = parser_expect_name(p);
    if (!parser_is_op(p, OP_DOT))
        return name;
    struct writer o = {.w = p->w};
    writer_bytes(&o, name.p, name.n, false);
    while (parser_skip_op(p, OP_DOT)) {
        name = parser_expect_name(p);
        writer_bytes(&o, ".", 1, false);
        writer_bytes(&o, name.p, name.n, false);
    }
    return text_str(writer_done(&o));
}

struct node *parse_filters(struct parser *p, struct node *node, bool start) {
    while (start || parser_skip_op(p, OP_PIPE)) {
        struct node *n = parser_node(p, NODE_FILTER);
        start = false;
        n->a = node;
        n->name = parse_dotted_name(p);
        if (parser_is_op(p, OP_OPEN))
            n->arguments = parse_call_arguments(p);
        node = n;
    }
    return node;
}

static struct node *parse_test(struct parser *p, struct node *of) {
    bool negated = parser_skip_name(p, "not");
    struct node *n = parser_node(p, NODE_TEST);
    n->a = of;
    n->name = parse_dotted_name(p);
    uint8_t next = p->at->kind;
    if (parser_is_op(p, OP_OPEN)) {
        n->arguments = parse_call_arguments(p);
    } else if ((next == TOKEN_NAME || next == TOKEN_STRING || next == TOKEN_INT || next == TOKEN_FLOAT ||
                parser_is_op(p, OP_OPEN_SQUARE) || parser_is_op(p, OP_OPEN_CURLY)) &&
               !parser_is_name(p, "else") && !parser_is_name(p, "or") && !parser_is_name(p, "and")) {
        if (parser_is_name(p, "is"))
            parser_unexpected(p, "no second test");
        n->arguments = parser_node(p, NODE_ARGUMENT);
        n->arguments->a = parse_postfix(p, parse_primary(p));
    }
    if (!negated)
        return n;
    struct node *not = parser_node(p, NODE_NOT);
    not ->a = n;
    return not ;
}

static struct node *parse_after_filters(struct parser *p, struct node *n) {
    for (;;) {
        if (parser_is_op(p, OP_PIPE))
            n = parse_filters(p, n, false);
        else if (parser_skip_name(p, "is"))
            n = parse_test(p, n);
        else if (parser_is_op(p, OP_OPEN))
            n = parse_call(p, n);
        else
            return n;
    }
}

struct node *parse_unary(struct parser *p, bool filters) {
    struct node *n;
    work_enter(p->w);
    if (parser_is_op(p, OP_SUB) || parser_is_op(p, OP_ADD)) {
        n = parser_node(p, parser_is_op(p, OP_SUB) ? NODE_NEGATE : NODE_PLUS);
        p->at++;
        n->a = parse_unary(p, false);
    } else {
        n = parse_primary(p);
    }
    n = parse_postfix(p, n);
    if (filters)
        n = parse_after_filters(p, n);
    p->w->depth--;
    return n;
}

/* The binary operators from the tightest level to the loosest; level 0 are unary ones. */
enum { LEVELS = 4 };
static struct node *parse_binary(struct parser *p, int level) {
    static const uint8_t operators[LEVELS + 1][5] = {
        {0}, {OP_POW}, {OP_MUL, OP_DIV, OP_FLOOR, OP_MOD}, {OP_CONCAT}, {OP_ADD, OP_SUB}};
    if (level == 0)
        return parse_unary(p, true);
    struct node *left = parse_binary(p, level - 1);
    while (p->at->kind == TOKEN_OPERATOR && strchr((const char *)operators[level], p->at->op) != NULL) {
        struct node *n = parser_node(p, p->at->op == OP_CONCAT ? NODE_CONCAT : NODE_BINARY);
        n->op = p->at++->op;
        n->a = left;
        n->b = parse_binary(p, level - 1);
        left = n;
    }
    return left;
}

static enum op comparison(struct parser *p) {
    if (p->at->kind == TOKEN_OPERATOR && p->at->op >= OP_EQ && p->at->op <= OP_GE)
        return (enum op)p->at++->op;
    if (parser_skip_name(p, "in"))
        return OP_IN;
    if (parser_is_name(p, "not") && p->at[1].kind == TOKEN_NAME && str_is(p->at[1].s, "in")) {
        p->at += 2;
        return OP_NOT_IN;
    }
    return OP_NONE;
}

static struct node *parse_compare(struct parser *p) {
    struct node *left = parse_binary(p, LEVELS), *compare = NULL, **to = NULL;
    for (enum op op; (op = comparison(p)) != OP_NONE;) {
        if (compare == NULL) {
            compare = parser_node(p, NODE_COMPARE);
            compare->a = left;
            to = &compare->list;
        }
        struct node *n = parser_node(p, NODE_OPERAND);
        n->op = (uint8_t)op;
        n->a = parse_binary(p, LEVELS);
        to = parser_chain(to, n);
    }
    return compare ? compare : left;
}

static struct node *parse_not(struct parser *p) {
    if (!parser_is_name(p, "not"))
        return parse_compare(p);
    work_enter(p->w);
    struct node *n = parser_node(p, NODE_NOT);
    p->at++;
    n->a = parse_not(p);
    p->w->depth--;
    return n;
}

static struct node *parse_logic(struct parser *p, bool is_or) {
    struct node *left = is_or ? parse_logic(p, false) : parse_not(p);
    while (parser_skip_name(p, is_or ? "or" : "and")) {
        struct node *n = parser_node(p, is_or ? NODE_OR : NODE_AND);
        n->a = left;
        n->b = is_or ? parse_logic(p, false) : parse_not(p);
        left = n;
    }
    return left;
}

struct node *parse_expression(struct parser *p, bool conditional) {
    work_enter(p->w);
    struct node *n = parse_logic(p, true);
    while (conditional && parser_skip_name(p, "if")) {
        struct node *choice = parser_node(p, NODE_IF_ELSE);
        choice->a = n;
        choice->b = parse_logic(p, true);
        choice->c = parser_skip_name(p, "else") ? parse_expression(p, true) : NULL;
        n = choice;
    }
    p->w->depth--;
    return n;
}
