/* Each pre-tokenizer's row against the regular expressions it was published as, in PCRE2 (Unicode properties on): thousands of random texts over an alphabet of
 * nasty characters, cut into the same pieces. */
#include "model/pretokenize.h"

#include "base/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"
#define APOSTROPHE "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define LINES "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WHOLE_WORDS(digits, tail) \
    "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+" tail LINES
#define WORDS(digits, tail) APOSTROPHE "|" WHOLE_WORDS(digits, tail)
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define CASED(after, digits)                                                                               \
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" after "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" after \
    "|\\p{N}" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" LINES
#define CJK "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+"

static const struct {
    const char *name, *pass[7];
} rows[] = {
    {"gpt-2", {GPT2}},
    {"default", {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"llama-bpe", {WORDS("{1,3}", "[\\r\\n]*")}},
    {"qwen2", {WORDS("", "[\\r\\n]*")}},
    {"minicpm5", {"\\p{N}{1,3}", WORDS("+", "[\\r\\n]*")}},
    {"bailingmoe",
     {"'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*"
      "|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"ufakzeka", {WHOLE_WORDS("", "[\\r\\n]*")}},
    {"seed-coder", {WORDS("", "")}},
    {"qwen35",
     {APOSTROPHE "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*" LINES}},
    {"smollm", {"\\p{N}", GPT2}},
    {"starcoder", {"\\p{N}", GPT2}},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"deepseek-coder", {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", CJK, "\\p{N}"}},
    {"deepseek-v3",
     {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+",
      "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
      "| ?[\\p{P}\\p{S}]+[\\r\\n]*" LINES}},
    {"gpt-4o", {CASED(APOSTROPHE "?", "{1,3}")}},
    {"tekken", {CASED("", "")}},
    {"bloom", {" ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+"}},
    {"viking", {" ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+", "\\p{N}"}},
};

static const char *const alphabet[] = {
    "a",          "b",      "s",      "S",      "T",       "re",         "LL",
    "'",          "'",      "'s",     "'LL",    "\u2019",  " ",          " ",
    " ",          "  ",     "\t",     "\n",     "\n",      "\r",         "\r\n",
    "\u00A0",     "\u3000", "\u2028", "\v",     "\f",      "\xC2\x85",   "0",
    "1",          "9",      "12",     "\u0663", "\u2167",  "\u00BD",     "\u00B2",
    ".",          ",",      "!",      "?",      "-",       "_",          "(",
    ")",          "/",      "$",      "+",      "<",       "=",          ">",
    "^",          "~",      "|",      "`",      "\u20AC",  "\u00E9",     "\u00C9",
    "\u00DF",     "\u01C5", "\u02B0", "\u00AA", "e\u0301", "\u0301",     "\u0E33",
    "\u0E31",     "\u05D0", "\u0627", "\u3042", "\u30AB",  "\u65E5",     "\u672C",
    "\u9FFF",     "\uAC00", "\u3002", "\uFF0C", "\u2026",  "\U0001F600", "\U0001F468\u200D\U0001F469",
    "\U0001D400", "\u200B", "\a",     "\u017F", "\u212A",  "\u0964",     "\uFF11",
    "Z",          "z",      "\u0130", "\u03A9", "\u0416",  "\u0436"};

static unsigned seed = 12345;

static unsigned chance(unsigned n) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

struct pieces {
    size_t end[4096], n;
};

static int add_piece(void *context, struct str piece) {
    struct pieces *p = context;
    p->end[p->n] = (p->n ? p->end[p->n - 1] : 0) + piece.n;
    p->n++;
    return 0;
}

/* What the expressions say: each pass cuts every piece into matches and gaps, and sees nothing outside of it. */
static void cut(pcre2_code *const *code, struct str s, struct pieces *out) {
    if (s.n == 0)
        return;
    if (*code == NULL) {
        add_piece(out, s);
        return;
    }
    pcre2_match_data *match = pcre2_match_data_create_from_pattern(*code, NULL);
    size_t gap = 0, at = 0;
    while (at < s.n && pcre2_match(*code, (PCRE2_SPTR)s.p, s.n, at, 0, match, NULL) > 0) {
        const size_t *v = pcre2_get_ovector_pointer(match);
        assert_true(v[1] > v[0]);
        cut(code + 1, (struct str){s.p + gap, v[0] - gap}, out);
        cut(code + 1, (struct str){s.p + v[0], v[1] - v[0]}, out);
        gap = at = v[1];
    }
    pcre2_match_data_free(match);
    cut(code + 1, (struct str){s.p + gap, s.n - gap}, out);
}

static void check(const char *name, const struct pretokenizer *p, pcre2_code *const *code, struct str text) {
    static struct pieces want, got;
    want.n = got.n = 0;
    cut(code, text, &want);
    assert_int_equal(pretokenize(p, text, add_piece, &got), 0);
    if (want.n == got.n && memcmp(want.end, got.end, want.n * sizeof *want.end) == 0)
        return;
    size_t i = 0;
    while (i < want.n && i < got.n && want.end[i] == got.end[i])
        i++;
    fail_msg("%s: piece %zu of \"%.*s\" ends at %zu, not at %zu", name, i, (int)text.n, text.p, got.end[i],
             want.end[i]);
}

static void test_rows(void **state) {
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        pcre2_code *code[8] = {NULL};
        const struct pretokenizer *p = pretokenizer_find(str_from(rows[r].name));
        assert_non_null(p);
        for (int i = 0; rows[r].pass[i] != NULL; i++) {
            int error;
            size_t at;
            code[i] = pcre2_compile((PCRE2_SPTR)rows[r].pass[i], PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                                    &error, &at, NULL);
            if (code[i] == NULL)
                fail_msg("%s: expression %d is broken at %zu", rows[r].name, i, at);
            pcre2_jit_compile(code[i], PCRE2_JIT_COMPLETE);
        }
        for (int i = 0; i < 6000; i++) {
            struct buf text = {0};
            for (unsigned n = 1 + chance(24); n > 0; n--)
                buf_text(&text, alphabet[chance(sizeof alphabet / sizeof *alphabet)]);
            check(rows[r].name, p, code, buf_view(&text));
            buf_free(&text);
        }
        for (int i = 0; code[i] != NULL; i++)
            pcre2_code_free(code[i]);
    }
}

/* Every row loses nothing, whatever the bytes. */
static void test_broken_bytes(void **state) {
    static struct pieces got;
    char text[300];
    const struct pretokenizer *p;
    for (size_t r = 0; (p = pretokenizer_at(r)) != NULL; r++)
        for (int i = 0; i < 300; i++) {
            size_t n = 1 + chance(sizeof text - 1);
            for (size_t k = 0; k < n; k++)
                text[k] = (char)chance(256);
            got.n = 0;
            assert_int_equal(pretokenize(p, (struct str){text, n}, add_piece, &got), 0);
            assert_int_equal(got.end[got.n - 1], n);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows), cmocka_unit_test(test_broken_bytes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
