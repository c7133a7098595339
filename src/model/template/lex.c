/* A template's source cut into tokens, as jinja2's lexer does with trim_blocks and lstrip_blocks: the first newline after a block or a
 * comment goes, and so do blanks before one that begins its line; "-" at a tag's edge takes all white space on that side, "+" none. */
#include "model/template/inner.h"

#include "base/utf8.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct lexer {
    struct work *w;
    struct str s; /* newlines made "\n", one at the end taken off */
    size_t at;
    struct token *token;
    size_t n, capacity;
    bool line_starting; /* the last match ended a line */
    unsigned open;      /* brackets */
    uint32_t line;
};

static struct token *lexer_add(struct lexer *x, enum token_kind kind) {
    if (x->n == x->capacity) {
        size_t capacity = x->capacity ? x->capacity * 2 : 256;
        struct token *grown = work_alloc(x->w, capacity, sizeof *grown);
        if (x->n > 0)
            memcpy(grown, x->token, x->n * sizeof *grown);
        x->token = grown;
        x->capacity = capacity;
    }
    struct token *t = &x->token[x->n++];
    *t = (struct token){.kind = (uint8_t)kind, .line = x->line};
    return t;
}

static char peek(const struct lexer *x, size_t ahead) {
    return ahead < x->s.n - x->at ? x->s.p[x->at + ahead] : 0;
}

static bool here(const struct lexer *x, size_t at, const char *what) {
    size_t n = strlen(what);
    return at <= x->s.n && n <= x->s.n - at && memcmp(x->s.p + at, what, n) == 0;
}

/* Length of the white space at `at` (Python's \s), 0 for none. */
static size_t space_at(const struct lexer *x, size_t at) {
    size_t n;
    if (at >= x->s.n)
        return 0;
    int32_t c = utf8_decode((struct str){x->s.p + at, x->s.n - at}, &n);
    return char_is_space(c) ? n : 0;
}

static size_t skip_space(const struct lexer *x, size_t at) {
    for (size_t n; (n = space_at(x, at)) > 0;)
        at += n;
    return at;
}

static void advance(struct lexer *x, size_t to) {
    for (size_t i = x->at; i < to; i++)
        x->line += x->s.p[i] == '\n';
    if (to > x->at)
        x->line_starting = x->s.p[to - 1] == '\n';
    x->at = to;
}

/* End of text [from, to) after the white space before a tag was taken off as its sign and the block rules ask. */
static size_t strip_before(const struct lexer *x, size_t from, size_t to, char sign, bool print) {
    const char *p = x->s.p;
    if (sign == '-') {
        const struct text all = {.p = p + from, .n = to - from};
        return from + text_strip(x->w, &all, NULL, false, true)->n;
    }
    if (sign == '+' || print)
        return to;
    size_t line = to;
    while (line > from && p[line - 1] != '\n')
        line--;
    if (line == from && !x->line_starting)
        return to;
    size_t end = line;
    for (size_t n; end < to && (n = space_at(x, end)) > 0;)
        end += n;
    return end == to ? line : to;
}

static void add_data(struct lexer *x, size_t from, size_t to) {
    if (to > from)
        lexer_add(x, TOKEN_DATA)->s = (struct str){x->s.p + from, to - from};
}

static char sign_at(const struct lexer *x, size_t at) {
    char c = at < x->s.n ? x->s.p[at] : 0;
    return c == '-' || c == '+' ? c : 0;
}

/* Where the text goes on after the tag's end at `at` ("%}", with or without a sign before it), or 0 when there is no tag's end. */
static size_t tag_end(const struct lexer *x, size_t at, const char *end, bool plus, bool trim) {
    if (here(x, at, end))
        return trim && here(x, at + 2, "\n") ? at + 3 : at + 2;
    if (here(x, at, "-") && here(x, at + 1, end))
        return skip_space(x, at + 3);
    if (plus && here(x, at, "+") && here(x, at + 1, end))
        return at + 3;
    return 0;
}

/* "{% raw %}" at `at`: where its text begins, or 0. */
static size_t raw_begin(const struct lexer *x, size_t at) {
    at = skip_space(x, at + 2 + (sign_at(x, at + 2) != 0));
    if (!here(x, at, "raw"))
        return 0;
    return tag_end(x, skip_space(x, at + 3), "%}", false, false);
}

static void lex_raw(struct lexer *x, size_t from) {
    for (size_t at = from; (at = str_find(x->s, STR("{%"), at)) != SIZE_MAX; at++) {
        char sign = sign_at(x, at + 2);
        size_t name = skip_space(x, at + 2 + (sign != 0));
        size_t end = here(x, name, "endraw") ? tag_end(x, skip_space(x, name + 6), "%}", true, true) : 0;
        if (end == 0)
            continue;
        add_data(x, from, strip_before(x, from, at, sign, false));
        advance(x, end);
        return;
    }
    x->w->line = x->line;
    work_fail(x->w, ERR_INVALID, "the end of a raw block is missing");
}

static void lex_comment(struct lexer *x, size_t from) {
    size_t at = str_find(x->s, STR("#}"), from);
    x->w->line = x->line;
    if (at == SIZE_MAX)
        work_fail(x->w, ERR_INVALID, "the end of a comment is missing");
    if (at > from && sign_at(x, at - 1) != 0)
        at--;
    advance(x, tag_end(x, at, "#}", true, true));
}

static void lex_root(struct lexer *x) {
    size_t tag = x->at;
    for (;; tag++) {
        const char *hit = tag < x->s.n ? memchr(x->s.p + tag, '{', x->s.n - tag) : NULL;
        if (hit == NULL) {
            add_data(x, x->at, x->s.n);
            advance(x, x->s.n);
            return;
        }
        tag = (size_t)(hit - x->s.p);
        if (here(x, tag, "{%") || here(x, tag, "{{") || here(x, tag, "{#"))
            break;
    }
    char type = x->s.p[tag + 1], sign = sign_at(x, tag + 2);
    size_t from = x->at, to = strip_before(x, from, tag, sign, type == '{');
    add_data(x, from, to);
    size_t raw = type == '%' ? raw_begin(x, tag) : 0;
    advance(x, raw != 0 ? raw : tag + 2 + (sign != 0));
    if (raw != 0)
        lex_raw(x, raw);
    else if (type == '#')
        lex_comment(x, x->at);
    else
        lexer_add(x, type == '%' ? TOKEN_BLOCK_BEGIN : TOKEN_PRINT_BEGIN);
}

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static int digit_of(char c) {
    return is_digit(c) ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : 99;
}

/* Digits with single underscores between them, from `at`; where they end. */
static size_t digits_end(const struct lexer *x, size_t at, int base) {
    while (at < x->s.n && (digit_of(x->s.p[at]) < base ||
                           (x->s.p[at] == '_' && at + 1 < x->s.n && digit_of(x->s.p[at + 1]) < base)))
        at++;
    return at;
}

static void lex_number(struct lexer *x) {
    size_t start = x->at, end = digits_end(x, start, 10);
    bool real = false;
    int base = 10;
    char second = (char)(peek(x, 1) | 32);
    if (peek(x, 0) == '0' && (second == 'x' || second == 'o' || second == 'b')) {
        base = second == 'x' ? 16 : second == 'o' ? 8 : 2;
        end = digits_end(x, start + 2, base);
        start += 2;
        if (end == start)
            work_fail(x->w, ERR_INVALID, "a number has no digits");
    } else if (start == 0 || x->s.p[start - 1] != '.') {
        if (end + 1 < x->s.n && x->s.p[end] == '.' && is_digit(x->s.p[end + 1])) {
            end = digits_end(x, end + 1, 10);
            real = true;
        }
        size_t exponent = end + 1;
        if (exponent < x->s.n && (x->s.p[end] | 32) == 'e') {
            exponent += x->s.p[exponent] == '+' || x->s.p[exponent] == '-';
            if (exponent < x->s.n && is_digit(x->s.p[exponent])) {
                end = digits_end(x, exponent, 10);
                real = true;
            }
        }
    }
    char digits[512];
    size_t n = 0;
    for (size_t i = start; i < end && n + 1 < sizeof digits; i++)
        if (x->s.p[i] != '_')
            digits[n++] = x->s.p[i];
    digits[n] = 0;
    struct token *t = lexer_add(x, real ? TOKEN_FLOAT : TOKEN_INT);
    errno = 0;
    if (real)
        t->f = strtod(digits, NULL);
    else
        t->i = strtoll(digits, NULL, base);
    if (!real && errno == ERANGE)
        work_fail(x->w, ERR_INVALID, "the number %.40s is larger than 64 bits", digits);
    if (!real && base == 10 && n > 1 && digits[0] == '0' && t->i != 0)
        work_fail(x->w, ERR_INVALID, "the number %.40s begins with a zero", digits);
    x->at = end;
}

/* One escape of a string literal, as Python's unicode-escape; `at` is after the backslash. Returns where it goes on. */
static size_t lex_escape(struct lexer *x, size_t at, struct writer *o) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = x->s.p[at];
    const char *hit = c ? strchr(from, c) : NULL;
    if (hit != NULL) {
        writer_bytes(o, &to[hit - from], 1, false);
        return at + 1;
    }
    if (c == '\n')
        return at + 1;
    size_t most = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    uint32_t code = 0;
    size_t end = at + 1;
    if (most > 0) {
        while (end < x->s.n && end < at + 1 + most && digit_of(x->s.p[end]) < 16)
            code = code << 4 | (uint32_t)digit_of(x->s.p[end++]);
        if (end < at + 1 + most || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
            work_fail(x->w, ERR_INVALID, "a string has a broken escape \\%c", c);
    } else if (c >= '0' && c <= '7') {
        for (end = at; end < x->s.n && end < at + 3 && x->s.p[end] >= '0' && x->s.p[end] <= '7'; end++)
            code = code << 3 | (uint32_t)(x->s.p[end] - '0');
    } else if (c == 'N') {
        work_fail(x->w, ERR_UNSUPPORTED, "characters by name (\\N{...}) are not supported");
    } else {
        writer_bytes(o, x->s.p + at - 1, 1, false); /* an unknown escape stays as it is */
        return at;
    }
    writer_char(o, code, false);
    return end;
}

static void lex_string(struct lexer *x) {
    char quote = peek(x, 0);
    size_t at = x->at + 1, plain = at;
    struct writer o = {.w = x->w};
    struct token *t = lexer_add(x, TOKEN_STRING);
    while (at < x->s.n && x->s.p[at] != quote) {
        if (x->s.p[at] != '\\') {
            at++;
            continue;
        }
        writer_bytes(&o, x->s.p + plain, at - plain, false);
        if (++at == x->s.n)
            break;
        plain = at = lex_escape(x, at, &o);
    }
    if (at >= x->s.n)
        work_fail(x->w, ERR_INVALID, "a string does not end");
    writer_bytes(&o, x->s.p + plain, at - plain, false);
    t->s = text_str(writer_done(&o));
    advance(x, at + 1);
}

static void lex_operator(struct lexer *x) {
    static const struct {
        char s[3];
        uint8_t op;
    } operators[] = {
        {"//", OP_FLOOR},      {"**", OP_POW},         {"==", OP_EQ},   {"!=", OP_NE},
        {">=", OP_GE},         {"<=", OP_LE},          {"+", OP_ADD},   {"-", OP_SUB},
        {"/", OP_DIV},         {"*", OP_MUL},          {"%", OP_MOD},   {"~", OP_CONCAT},
        {"[", OP_OPEN_SQUARE}, {"]", OP_CLOSE_SQUARE}, {"(", OP_OPEN},  {")", OP_CLOSE},
        {"{", OP_OPEN_CURLY},  {"}", OP_CLOSE_CURLY},  {">", OP_GT},    {"<", OP_LT},
        {"=", OP_ASSIGN},      {".", OP_DOT},          {":", OP_COLON}, {"|", OP_PIPE},
        {",", OP_COMMA},       {";", OP_SEMICOLON},
    };
    for (size_t i = 0; i < sizeof operators / sizeof *operators; i++) {
        if (!here(x, x->at, operators[i].s))
            continue;
        uint8_t op = operators[i].op;
        if (op == OP_OPEN || op == OP_OPEN_SQUARE || op == OP_OPEN_CURLY)
            x->open++;
        if (op == OP_CLOSE || op == OP_CLOSE_SQUARE || op == OP_CLOSE_CURLY) {
            if (x->open == 0)
                work_fail(x->w, ERR_INVALID, "unexpected '%s'", operators[i].s);
            x->open--;
        }
        lexer_add(x, TOKEN_OPERATOR)->op = op;
        x->at += strlen(operators[i].s);
        return;
    }
    work_fail(x->w, ERR_INVALID, "unexpected character '%c' in a tag", peek(x, 0));
}

static bool is_name(unsigned char c) {
    return c >= 0x80 || is_digit((char)c) || c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

/* Inside a tag, until its end. */
static void lex_tag(struct lexer *x) {
    bool print = x->token[x->n - 1].kind == TOKEN_PRINT_BEGIN;
    x->open = 0;
    for (;;) {
        x->w->line = x->line;
        if (x->at >= x->s.n)
            return; /* the parser will miss the end */
        size_t end = x->open > 0 ? 0 : tag_end(x, x->at, print ? "}}" : "%}", !print, !print);
        if (end != 0) {
            lexer_add(x, print ? TOKEN_PRINT_END : TOKEN_BLOCK_END);
            advance(x, end);
            return;
        }
        size_t space = skip_space(x, x->at), start = x->at;
        if (space > x->at) {
            advance(x, space);
        } else if (is_digit(peek(x, 0))) {
            lex_number(x);
        } else if (is_name((unsigned char)peek(x, 0))) {
            while (x->at < x->s.n && is_name((unsigned char)x->s.p[x->at]) && space_at(x, x->at) == 0)
                x->at++;
            lexer_add(x, TOKEN_NAME)->s = (struct str){x->s.p + start, x->at - start};
        } else if (peek(x, 0) == '"' || peek(x, 0) == '\'') {
            lex_string(x);
        } else {
            lex_operator(x);
        }
    }
}

/* "\r\n" and "\r" become "\n"; one newline at the end goes. */
static struct str normalise(struct work *w, struct str source) {
    char *p = work_alloc(w, source.n + 1, 1);
    size_t n = 0;
    for (size_t i = 0; i < source.n; i++) {
        if (source.p[i] == '\r' && i + 1 < source.n && source.p[i + 1] == '\n')
            continue;
        p[n++] = source.p[i] == '\r' ? '\n' : source.p[i];
    }
    return (struct str){p, n > 0 && p[n - 1] == '\n' ? n - 1 : n};
}

struct token *template_lex(struct work *w, struct str source) {
    if (source.n > TEMPLATE_MOST_SOURCE)
        work_fail(w, ERR_TOO_LARGE, "it has %zu bytes; at most %d are read", source.n, TEMPLATE_MOST_SOURCE);
    if (!utf8_valid(source))
        work_fail(w, ERR_INVALID, "it is not valid UTF-8");
    struct lexer x = {.w = w, .s = normalise(w, source), .line_starting = true, .line = 1};
    while (x.at < x.s.n) {
        size_t before = x.n;
        lex_root(&x);
        uint8_t kind = x.n > before ? x.token[x.n - 1].kind : TOKEN_END;
        if (kind == TOKEN_BLOCK_BEGIN || kind == TOKEN_PRINT_BEGIN)
            lex_tag(&x);
    }
    lexer_add(&x, TOKEN_END);
    return x.token;
}
