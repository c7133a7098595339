/* What the files of the template interpreter share: nodes, values, strings that know who wrote each byte. Nothing outside
 * src/model/template/ includes this; the public face is model/template.h. It lies on a request's journey between the gateway and the
 * tokenizer.
 *
 * Everything is allocated in one arena per parse and one per rendering, so nothing here frees. Errors unwind with longjmp to the one
 * setjmp in template.c: an interpreter whose every step can fail stays readable that way, and there is nothing to clean up
 * in between. */
#ifndef MODEL_TEMPLATE_INNER_H
#define MODEL_TEMPLATE_INNER_H

#include "base/arena.h"
#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"
#include "model/template.h"

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

/* Budgets. A template comes with a model file and is hostile; messages come from anybody. */
enum {
    TEMPLATE_MOST_SOURCE = 1 << 20,             /* bytes of template */
    TEMPLATE_MOST_OUTPUT = 16 << 20,            /* bytes of rendered text */
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION /* smaller, so that a fuzzer tries more instead of waiting */
    TEMPLATE_MOST_MEMORY = 16 << 20,
    TEMPLATE_MOST_STEPS = 30 * 1000,
#else
    TEMPLATE_MOST_MEMORY = 256 << 20,
    TEMPLATE_MOST_STEPS =
        20 * 1000 * 1000, /* nodes evaluated; 64 bytes of text or 4 items count as one more */
#endif
    TEMPLATE_MOST_NESTING = 200, /* of the source: brackets, blocks, operators */
    TEMPLATE_MOST_DEPTH = 1000,  /* of the evaluation: nested nodes over all macro calls, nested values */
    TEMPLATE_MOST_RANGE = 100000 /* as the sandbox of jinja2 */
};

/* What a parse and a rendering have in common. */
struct work {
    struct arena *arena;
    struct error *e;
    jmp_buf stop;
    int code; /* of the error that stopped the work */
    uint32_t line;
    int64_t steps; /* left */
    unsigned depth, most_depth;
};

_Noreturn void work_fail(struct work *w, enum err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void *work_alloc(struct work *w, size_t count, size_t size);
void work_charge(struct work *w, size_t steps);
void work_enter(struct work *w); /* one level deeper; w->depth-- leaves */

/* A string: bytes of valid UTF-8 and who wrote them. Immutable. */
struct text {
    const char *p;
    size_t n;
    const uint8_t *mask; /* a byte for each byte of p, 1: the caller's; NULL: all are as `caller` says */
    bool caller;
    bool markup; /* came out of safe or escape: "+" escapes what is added to it */
};

enum kind {
    UNDEFINED,
    NONE,
    BOOL,
    INT,
    FLOAT,
    STRING,
    LIST,
    TUPLE,
    DICT,
    RANGE,
    VIEW,      /* dict_keys, dict_values, dict_items */
    GENERATOR, /* what map, select and so on give: to be walked once */
    NAMESPACE,
    MACRO,
    BUILTIN, /* a global function */
    METHOD,  /* a method and what it is bound to */
    LOOP,
    CYCLER,
    JOINER,
    UNSET /* an argument that was not given */
};

struct value {
    uint8_t kind;
    bool caller; /* of a number, None, True, False and the punctuation of a container: the caller's data */
    union {
        bool b;
        int64_t i;
        double f;
        const struct text *s; /* STRING; UNDEFINED: its name, or NULL */
        struct list *list;    /* LIST, TUPLE, VIEW, GENERATOR */
        struct dict *dict;    /* DICT, NAMESPACE */
        struct range *range;
        struct macro *macro;
        const struct builtin *builtin;
        struct method *method;
        struct loop *loop;
        struct cycler *cycler;
    };
};

struct list {
    struct value *item;
    size_t n;
    size_t walked;    /* of a generator: items already given out */
    const char *type; /* "dict_items", "generator": how Python prints it */
};

struct entry {
    struct value key, value;
    uint64_t hash;
};
struct dict {
    struct entry *entry; /* in the order of insertion */
    size_t n, capacity;
    uint32_t *slot; /* open addressing, entry number + 1; NULL while there are few entries */
    size_t slots;
};

struct range {
    int64_t start, stop, step;
    size_t n;
};

struct cycler { /* and joiner: item[0] is its separator */
    struct value *item;
    size_t n, at;
};

/* Arguments of a call as they were written. */
struct named {
    const struct text *name; /* the caller's, when it came out of a caller's dict by ** */
    struct value value;
};
struct call {
    struct value *arg;
    size_t n;
    struct named *named;
    size_t names;
};

/* ---- nodes ---- */

enum node_kind {
    NODE_CONST,
    NODE_NAME,
    NODE_LIST,
    NODE_TUPLE,
    NODE_DICT, /* list: key, value, key, value ... */
    NODE_ATTRIBUTE,
    NODE_ITEM,
    NODE_SLICE, /* a of b, c, d */
    NODE_CALL,
    NODE_FILTER,
    NODE_TEST,
    NODE_BINARY,
    NODE_NEGATE,
    NODE_PLUS,
    NODE_NOT,
    NODE_AND,
    NODE_OR,
    NODE_COMPARE, /* a, then list: NODE_OPERAND */
    NODE_OPERAND,
    NODE_CONCAT,
    NODE_IF_ELSE, /* a if b else c */
    NODE_ARGUMENT,
    NODE_DATA,
    NODE_OUTPUT,
    NODE_IF, /* list: NODE_BRANCH (a: condition or NULL, list: body) */
    NODE_BRANCH,
    NODE_FOR,          /* a: target, b: over, c: filter, list: body, other: else */
    NODE_SET,          /* a: target, b: value */
    NODE_SET_BLOCK,    /* a: target, b: filters applied to NODE_BODY or NULL, list: body */
    NODE_MACRO,        /* arguments: NODE_PARAMETER, list: body */
    NODE_PARAMETER,    /* symbol, a: default or NULL */
    NODE_CALL_BLOCK,   /* a: the call, b: NODE_MACRO of its body */
    NODE_FILTER_BLOCK, /* a: filters applied to NODE_BODY, list: body */
    NODE_BODY,
    NODE_SCOPE, /* arguments: NODE_SET, list: body */
    NODE_BREAK,
    NODE_CONTINUE
};

enum op {
    OP_NONE,
    OP_ADD,
    OP_SUB,
    OP_MUL,
    OP_DIV,
    OP_FLOOR,
    OP_MOD,
    OP_POW,
    OP_CONCAT,
    OP_EQ,
    OP_NE,
    OP_LT,
    OP_LE,
    OP_GT,
    OP_GE,
    OP_IN,
    OP_NOT_IN,
    OP_ASSIGN,
    OP_DOT,
    OP_COLON,
    OP_PIPE,
    OP_COMMA,
    OP_SEMICOLON,
    OP_OPEN,
    OP_CLOSE,
    OP_OPEN_SQUARE,
    OP_CLOSE_SQUARE,
    OP_OPEN_CURLY,
    OP_CLOSE_CURLY
};

struct node {
    uint8_t kind; /* enum node_kind */
    uint8_t op; /* enum op; of an argument the number of stars before it; of a loop 1 when it is recursive */
    uint8_t catches; /* of a macro: CATCH_ bits, what its body mentions */
    uint32_t line;
    uint32_t symbol; /* of a name, a parameter, a macro */
    struct node *a, *b, *c, *d;
    struct node *list, *arguments, *other; /* first of a chain by `next` */
    struct node *next;
    struct str name; /* of an attribute, a filter, a test, a keyword argument */
    struct value value;
};

enum { CATCH_VARARGS = 1, CATCH_KWARGS = 2, CATCH_CALLER = 4 };

/* Names are numbered while parsing; the first ones are these. */
enum { SYMBOL_LOOP, SYMBOL_CALLER, SYMBOL_VARARGS, SYMBOL_KWARGS, SYMBOL_BODY, SYMBOL_KNOWN };

struct template {
    struct arena arena;
    struct node *body;
    struct str *symbol;
    size_t symbols;
};

/* ---- tokens ---- */

enum token_kind {
    TOKEN_DATA,
    TOKEN_BLOCK_BEGIN,
    TOKEN_BLOCK_END,
    TOKEN_PRINT_BEGIN,
    TOKEN_PRINT_END,
    TOKEN_NAME,
    TOKEN_STRING,
    TOKEN_INT,
    TOKEN_FLOAT,
    TOKEN_OPERATOR,
    TOKEN_END
};
struct token {
    uint8_t kind, op;
    uint32_t line;
    struct str s; /* data, name, contents of a string after its escapes */
    union {
        int64_t i;
        double f;
    };
};
/* Cut the source into tokens; the last is TOKEN_END. */
struct token *template_lex(struct work *w, struct str source);
/* Parse into t, whose arena is w's. */
void template_build(struct work *w, struct template *t, struct token *tokens);

/* The parser; its two files share it. */
struct parser {
    struct work *w;
    struct template *t;
    struct token *at;
    uint32_t *slot; /* hash of the symbols */
    size_t slots;
    uint8_t catches; /* of the macro being parsed */
    unsigned loops;  /* nested around here, inside the innermost macro */
};
struct node *parser_node(struct parser *p, enum node_kind kind);
/* Put a node at the end of a chain; returns where the next one goes. */
static inline struct node **parser_chain(struct node **to, struct node *n) {
    *to = n;
    return &n->next;
}
uint32_t parser_symbol(struct parser *p, struct str name);
bool parser_is_op(const struct parser *p, enum op op);
bool parser_is_name(const struct parser *p, const char *name);
bool parser_skip_op(struct parser *p, enum op op);
bool parser_skip_name(struct parser *p, const char *name);
void parser_expect_op(struct parser *p, enum op op, const char *what);
struct str parser_expect_name(struct parser *p);
_Noreturn void parser_unexpected(struct parser *p, const char *wanted);
struct node *parse_expression(struct parser *p, bool conditional);
/* Comma-separated: one expression, or a tuple. `targets`: names, and tuples of names in parentheses, that are assigned to. */
struct node *parse_tuple(struct parser *p, bool conditional, bool parentheses, const char *end);
struct node *parse_target(struct parser *p, bool dotted, const char *end);
/* Filters after a node: {% filter a|b %} starts without a bar. */
struct node *parse_filters(struct parser *p, struct node *node, bool start);
struct node *parse_primary(struct parser *p);
struct node *parse_unary(struct parser *p, bool filters);
struct node *parse_call_arguments(struct parser *p);

/* ---- text ---- */

struct text *text_new(struct work *w, const char *p, size_t n, bool caller);
const struct text *text_part(struct work *w, const struct text *s, size_t from, size_t n);
static inline bool text_caller_at(const struct text *s, size_t i) {
    return s->mask ? s->mask[i] != 0 : s->caller;
}
bool text_caller_any(const struct text *s, size_t from, size_t n);
static inline struct str text_str(const struct text *s) {
    return (struct str){s->p, s->n};
}
size_t text_chars(struct work *w, const struct text *s);                /* code points */
size_t text_offset(struct work *w, const struct text *s, size_t chars); /* byte offset of a code point */
const struct text *text_strip(struct work *w, const struct text *s, const struct text *chars, bool left,
                              bool right);

/* Grows a string byte by byte, keeping who wrote them. */
struct writer {
    struct work *w;
    char *p;
    uint8_t *mask;
    size_t n, capacity;
    size_t limit; /* 0: none but memory */
    bool caller;  /* while mask is NULL: of all bytes so far */
};
void writer_bytes(struct writer *o, const char *p, size_t n, bool caller);
void writer_text(struct writer *o, const struct text *s);
void writer_part(struct writer *o, const struct text *s, size_t from, size_t n);
void writer_char(struct writer *o, uint32_t c, bool caller);
void writer_printf(struct writer *o, bool caller, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
const struct text *writer_done(struct writer *o);
/* Everything becomes the caller's when the caller decided where it was cut. */
const struct text *text_as_caller(struct work *w, const struct text *s);

bool text_is_number(struct str s); /* one or more ASCII digits */
bool char_is_space(int32_t c);     /* str.isspace of Python */
enum char_case { CASE_LOWER, CASE_UPPER, CASE_TITLE };
/* Up to three code points; returns how many. */
size_t char_map(int32_t c, enum char_case to, int32_t out[3]);
bool char_is_upper(int32_t c);
bool char_is_lower(int32_t c);
bool char_is_cased(int32_t c);
bool char_is_alpha(int32_t c);
bool char_is_digit(int32_t c);
bool char_is_printable(int32_t c);
const struct text *text_escape(struct work *w, const struct text *s); /* for HTML, unless it is markup */
const struct text *text_map(struct work *w, const struct text *s, enum char_case to);

/* ---- values ---- */

struct value value_undefined(const struct text *name);
struct value value_none(void);
struct value value_bool(bool b);
struct value value_int(int64_t i);
struct value value_float(double f);
struct value value_text(const struct text *s);
struct value value_literal(struct work *w, const char *c_string);
struct value value_list(struct work *w, enum kind kind, struct value *item, size_t n);
struct value value_generator(struct work *w, struct value *item, size_t n);
struct value value_dict(struct work *w);
struct value value_json(struct work *w, const struct json *v, bool caller);

bool value_true(struct work *w, struct value v);
bool value_equal(struct work *w, struct value a, struct value b);
int value_order(struct work *w, struct value a, struct value b,
                const char *operator_name); /* fails for unlike kinds */
bool value_contains(struct work *w, struct value container, struct value item);
const char *value_type(struct value v); /* Python's name of the type */
static inline bool value_numeric(struct value v) {
    return v.kind == BOOL || v.kind == INT || v.kind == FLOAT;
}
static inline bool value_integral(struct value v) {
    return v.kind == BOOL || v.kind == INT;
}
double value_number(struct value v);
int64_t value_integer(struct value v);
_Noreturn void value_fail_undefined(struct work *w, struct value v);
int64_t value_length(struct work *w, struct value v); /* -1: it has none */
/* The items of anything that can be walked; a generator is used up. */
struct value *value_items(struct work *w, struct value v, size_t *n);
bool value_walkable(struct value v);

void dict_set(struct work *w, struct dict *d, struct value key, struct value v);
struct value *dict_find(struct work *w, const struct dict *d,
                        struct value key); /* NULL: absent; fails for a key that cannot be hashed */
struct value *dict_find_str(struct work *w, const struct dict *d, struct str key);

/* str() and repr() of Python, and json.dumps. */
void print_value(struct writer *o, struct value v);
void print_repr(struct writer *o, struct value v);
const struct text *value_to_text(struct work *w, struct value v);
void print_float(char out[40], double f);
struct json_style {
    bool ascii, sort;
    const struct text *indent; /* NULL: one line */
    const struct text *comma, *colon;
};
void print_json(struct writer *o, struct value v, const struct json_style *style, unsigned level);

/* ---- evaluation ---- */

struct binding {
    uint32_t symbol;
    struct value value;
    struct binding *next;
};
struct scope {
    struct scope *parent;
    struct binding *first;
};

struct render {
    struct work w;
    const struct template *t;
    const struct json *vars;
    const struct conversation *said;
    int64_t now_ns;
    struct value *global; /* by symbol: variables of the caller and global functions; UNSET until asked for */
    struct writer *out;
};

struct macro {
    const struct node *node;
    struct scope *scope;
};

struct loop {
    const struct node *node;
    struct scope *scope; /* around the loop */
    struct value *item;
    size_t items, taken; /* taken: looked at, those that the filter refused too */
    size_t index0;
    bool peeked, started;
    struct value ahead, now, before;
    unsigned depth0;
    struct value changed;
};

/* A function, filter, test or method. params: names by position, separated by spaces; "*" hands over the call as it is.
 * need: how many of them must be given. */
typedef struct value builtin_function(struct render *r, struct value self, const struct value *a,
                                      const struct call *call);
struct builtin {
    const char *name;
    builtin_function *function;
    const char *params;
    uint8_t need;
};
struct method {
    const struct builtin *builtin;
    struct value self;
};
enum { BUILTIN_MOST_PARAMS = 6 };
struct value builtin_call(struct render *r, const struct builtin *b, struct value self,
                          const struct call *call);
const struct builtin *builtin_find(const struct builtin *table, struct str name);
extern const struct builtin template_filters[], template_more_filters[], template_tests[], template_globals[];
const struct builtin *template_filter(struct render *r, struct str name);
const struct builtin *template_test(struct render *r, struct str name);

/* A method or attribute of a value as Python's getattr sees it: false when there is none. */
bool value_method(struct render *r, struct value v, struct str name, struct value *out);
struct value value_attribute(struct render *r, struct value v, struct str name); /* v.name */
struct value value_item(struct render *r, struct value v, struct value key);     /* v[key] */
struct value value_slice(struct render *r, struct value v, const struct value bound[3]);
struct value value_binary(struct render *r, enum op op, struct value a, struct value b);
struct value value_call(struct render *r, struct value callee, const struct call *call);
struct value render_eval(struct render *r, struct scope *s, const struct node *n);
void render_body(struct render *r, struct scope *s, const struct node *list);
struct value macro_call(struct render *r, const struct macro *m, const struct call *call);
struct value loop_call(struct render *r, const struct loop *outer, struct value over);
struct value loop_attribute(struct render *r, struct loop *l, struct str name);
struct value scope_get(struct render *r, const struct scope *s, uint32_t symbol);
void scope_set(struct render *r, struct scope *s, uint32_t symbol, struct value v);
/* Methods and functions that other files need. */
struct value string_format(struct render *r, const struct text *format, const struct call *call);
struct value string_percent(struct render *r, const struct text *format, struct value args);
const struct text *string_replace(struct work *w, const struct text *s, const struct text *old,
                                  const struct text *with, int64_t most);
extern const struct builtin template_cycler_methods[], template_loop_methods[];
extern const struct builtin template_string_methods[], template_list_methods[], template_dict_methods[],
    template_more_string_methods[];
int64_t argument_int(struct work *w, struct value v, int64_t fallback, const char *what);
const struct text *argument_text(struct work *w, struct value v, const char *what);

#endif
