/* Statements of a template. */
#include "model/template/inner.h"

#include <string.h>

static struct node *parse_body(struct parser *p, const char *const *ends);

static void end_tag(struct parser *p) {
    if (p->at->kind != TOKEN_BLOCK_END)
        parser_unexpected(p, "the end of the tag");
    p->at++;
}

/* A body up to "{% end %}", that tag included. */
static struct node *parse_until(struct parser *p, const char *end) {
    struct node *list = parse_body(p, (const char *const[]){end, NULL});
    p->at++;
    return list;
}

static struct node *parse_if(struct parser *p) {
    static const char *const ends[] = {"elif", "else", "endif", NULL};
    struct node *n = parser_node(p, NODE_IF), **to = &n->list;
    bool last = false;
    do {
        struct node *branch = parser_node(p, NODE_BRANCH);
        last = parser_is_name(p, "else");
        p->at++;
        if (!last)
            branch->a = parse_tuple(p, false, false, NULL);
        branch->list = parse_body(p, last ? ends + 2 : ends);
        to = parser_chain(to, branch);
    } while (!parser_is_name(p, "endif"));
    p->at++;
    return n;
}

static struct node *parse_for(struct parser *p) {
    static const char *const ends[] = {"endfor", "else", NULL};
    struct node *n = parser_node(p, NODE_FOR);
    p->at++;
    n->a = parse_target(p, false, "in");
    if (!parser_skip_name(p, "in"))
        parser_unexpected(p, "'in'");
    n->b = parse_tuple(p, false, false, "recursive");
    if (parser_skip_name(p, "if"))
        n->c = parse_expression(p, true);
    n->op = parser_skip_name(p, "recursive");
    p->loops++;
    n->list = parse_body(p, ends);
    p->loops--;
    if (parser_skip_name(p, "else"))
        n->other = parse_body(p, (const char *const[]){"endfor", NULL});
    p->at++;
    return n;
}

static struct node *parse_set(struct parser *p) {
    struct node *n = parser_node(p, NODE_SET);
    p->at++;
    n->a = parse_target(p, true, NULL);
    if (parser_skip_op(p, OP_ASSIGN)) {
        n->b = parse_tuple(p, true, false, NULL);
        return n;
    }
    n->kind = NODE_SET_BLOCK;
    if (n->a->kind == NODE_TUPLE)
        parser_unexpected(p, "'='");
    n->b = parse_filters(p, parser_node(p, NODE_BODY), false);
    n->list = parse_until(p, "endset");
    return n;
}

/* (a, b=1): parameters of a macro or of a call block. */
static struct node *parse_parameters(struct parser *p) {
    struct node *first = NULL, **to = &first;
    bool defaults = false;
    parser_expect_op(p, OP_OPEN, "a parenthesis");
    while (!parser_is_op(p, OP_CLOSE)) {
        if (first != NULL)
            parser_expect_op(p, OP_COMMA, "a comma");
        struct node *n = parser_node(p, NODE_PARAMETER);
        n->name = parser_expect_name(p);
        n->symbol = parser_symbol(p, n->name);
        if (parser_skip_op(p, OP_ASSIGN)) {
            n->a = parse_expression(p, true);
            defaults = true;
        } else if (defaults) {
            parser_unexpected(p, "a default as for the parameter before");
        }
        to = parser_chain(to, n);
    }
    p->at++;
    return first;
}

static void parse_macro_body(struct parser *p, struct node *n, const char *end) {
    uint8_t catches = p->catches;
    unsigned loops = p->loops;
    p->catches = 0;
    p->loops = 0;
    n->list = parse_until(p, end);
    n->catches = p->catches;
    p->catches = catches | n->catches; /* a call block in a macro may name the caller of the macro */
    p->loops = loops;
}

static struct node *parse_macro(struct parser *p) {
    struct node *n = parser_node(p, NODE_MACRO);
    p->at++;
    n->name = parser_expect_name(p);
    n->symbol = parser_symbol(p, n->name);
    n->arguments = parse_parameters(p);
    parse_macro_body(p, n, "endmacro");
    return n;
}

static struct node *parse_call_block(struct parser *p) {
    struct node *n = parser_node(p, NODE_CALL_BLOCK);
    n->b = parser_node(p, NODE_MACRO);
    p->at++;
    if (parser_is_op(p, OP_OPEN))
        n->b->arguments = parse_parameters(p);
    n->a = parse_expression(p, true);
    if (n->a->kind != NODE_CALL)
        parser_unexpected(p, "a call");
    parse_macro_body(p, n->b, "endcall");
    return n;
}

static struct node *parse_filter_block(struct parser *p) {
    struct node *n = parser_node(p, NODE_FILTER_BLOCK);
    p->at++;
    n->a = parse_filters(p, parser_node(p, NODE_BODY), true);
    n->list = parse_until(p, "endfilter");
    return n;
}

static struct node *parse_with(struct parser *p) {
    struct node *n = parser_node(p, NODE_SCOPE), **to = &n->arguments;
    p->at++;
    while (p->at->kind != TOKEN_BLOCK_END) {
        if (n->arguments != NULL)
            parser_expect_op(p, OP_COMMA, "a comma");
        struct node *set = parser_node(p, NODE_SET);
        set->a = parse_target(p, false, NULL);
        parser_expect_op(p, OP_ASSIGN, "'='");
        set->b = parse_expression(p, true);
        to = parser_chain(to, set);
    }
    n->list = parse_until(p, "endwith");
    return n;
}

/* Marks what the assistant wrote, for training: only its body counts. */
static struct node *parse_generation(struct parser *p) {
    struct node *n = parser_node(p, NODE_SCOPE);
    unsigned loops = p->loops;
    p->at++;
    p->loops = 0;
    n->list = parse_until(p, "endgeneration");
    p->loops = loops;
    return n;
}

static struct node *parse_jump(struct parser *p) {
    struct node *n = parser_node(p, parser_is_name(p, "break") ? NODE_BREAK : NODE_CONTINUE);
    p->at++;
    if (p->loops == 0)
        parser_unexpected(p, "a loop around break and continue");
    return n;
}

static struct node *parse_print_tag(struct parser *p) {
    struct node *n = parser_node(p, NODE_OUTPUT), **to = &n->list;
    p->at++;
    for (bool first = true; p->at->kind != TOKEN_BLOCK_END; first = false) {
        if (!first)
            parser_expect_op(p, OP_COMMA, "a comma");
        to = parser_chain(to, parse_expression(p, true));
    }
    return n;
}

static struct node *parse_statement(struct parser *p) {
    static const struct {
        const char *name;
        struct node *(*parse)(struct parser *p);
    } statements[] = {
        {"if", parse_if},           {"for", parse_for},
        {"set", parse_set},         {"macro", parse_macro},
        {"call", parse_call_block}, {"filter", parse_filter_block},
        {"with", parse_with},       {"generation", parse_generation},
        {"break", parse_jump},      {"continue", parse_jump},
        {"print", parse_print_tag},
    };
    for (size_t i = 0; i < sizeof statements / sizeof *statements; i++)
        if (parser_is_name(p, statements[i].name))
            return statements[i].parse(p);
    parser_unexpected(p, "a statement that is supported here");
}

/* Statements until a tag that one of `ends` opens; p stands on that name. No ends: until the template ends. */
static struct node *parse_body(struct parser *p, const char *const *ends) {
    struct node *first = NULL, **to = &first;
    work_enter(p->w);
    if (ends != NULL)
        end_tag(p);
    for (; p->at->kind != TOKEN_END; to = &(*to)->next) {
        if (p->at->kind == TOKEN_DATA) {
            *to = parser_node(p, NODE_DATA);
            (*to)->value = value_text(text_new(p->w, p->at->s.p, p->at->s.n, false));
            p->at++;
        } else if (p->at->kind == TOKEN_PRINT_BEGIN) {
            p->at++;
            *to = parser_node(p, NODE_OUTPUT);
            (*to)->list = parse_tuple(p, true, false, NULL);
            if (p->at->kind != TOKEN_PRINT_END)
                parser_unexpected(p, "the end of the expression");
            p->at++;
        } else {
            p->at++; /* {% */
            for (const char *const *end = ends; end != NULL && *end != NULL; end++)
                if (parser_is_name(p, *end)) {
                    p->w->depth--;
                    return first;
                }
            *to = parse_statement(p);
            end_tag(p);
        }
    }
    if (ends != NULL)
        work_fail(p->w, ERR_INVALID, "a block does not end: '%s' is missing", ends[0]);
    p->w->depth--;
    return first;
}

void template_build(struct work *w, struct template *t, struct token *tokens) {
    static const char *const known[SYMBOL_KNOWN] = {"loop", "caller", "varargs", "kwargs", "{body}"};
    struct parser p = {.w = w, .t = t, .at = tokens};
    for (size_t i = 0; i < SYMBOL_KNOWN; i++)
        parser_symbol(&p, str_from(known[i]));
    t->body = parse_body(&p, NULL);
}
