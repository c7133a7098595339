/* The rows of pre-tokenizers and the matchers they are made of; see pretokenize.h. On the request's journey: between the rendered prompt and
 * its tokens. */
#include "model/pretokenize.h"

#include "base/utf8.h"
#include "model/unicode.h"

enum {
    LETTER = UNICODE_LETTER,
    NUMBER = UNICODE_NUMBER,
    MARK = UNICODE_MARK,
    PUNCT = UNICODE_PUNCTUATION,
    SYMBOL = UNICODE_SYMBOL,
    SPACE = UNICODE_SPACE
};

/* ---- characters and runs of them ---- */

struct character {
    int32_t code;
    unsigned classes;
    size_t bytes; /* 0 at the end of the text */
};

static struct character character_at(struct str s, size_t at) {
    struct character c = {-1, 0, 0};
    if (at < s.n && (unsigned char)s.p[at] < 0x80) {
        c = (struct character){s.p[at], unicode_ascii[(unsigned char)s.p[at]], 1};
    } else if (at < s.n) {
        c.code = utf8_decode((struct str){s.p + at, s.n - at}, &c.bytes);
        c.classes = unicode_classes(c.code);
    }
    return c;
}

typedef bool character_test(const struct character *c);

static size_t run_of(struct str s, size_t at, character_test *in) {
    size_t start = at;
    for (struct character c; (c = character_at(s, at)).bytes != 0 && in(&c); at += c.bytes) {}
    return at - start;
}

static bool is_letter(const struct character *c) {
    return (c->classes & LETTER) != 0;
}
static bool is_letter_or_mark(const struct character *c) {
    return (c->classes & (LETTER | MARK)) != 0;
}
static bool is_number(const struct character *c) {
    return (c->classes & NUMBER) != 0;
}
static bool is_space(const struct character *c) {
    return (c->classes & SPACE) != 0;
}
static bool is_punctuation(const struct character *c) {
    return (c->classes & PUNCT) != 0;
}
static bool is_newline(const struct character *c) {
    return c->code == '\r' || c->code == '\n';
}
static bool is_newline_or_slash(const struct character *c) {
    return is_newline(c) || c->code == '/';
}
/* [^\s\p{L}\p{N}] */
static bool is_other(const struct character *c) {
    return (c->classes & (SPACE | LETTER | NUMBER)) == 0;
}
static bool is_punctuation_or_symbol(const struct character *c) {
    return (c->classes & (PUNCT | SYMBOL)) != 0;
}
/* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}] and [\p{Ll}\p{Lm}\p{Lo}\p{M}] */
static bool is_upper_word(const struct character *c) {
    return (c->classes & (LETTER | MARK)) != 0 && (c->classes & UNICODE_LOWER) == 0;
}
static bool is_lower_word(const struct character *c) {
    return (c->classes & (LETTER | MARK)) != 0 && (c->classes & UNICODE_UPPER) == 0;
}

struct range {
    int32_t first, last;
};

/* Is c in one of n ranges, which are in order? */
static bool in_ranges(const struct character *c, const struct range *range, size_t n) {
    size_t low = 0;
    while (n > 0) {
        size_t half = n / 2;
        if (c->code > range[low + half].last) {
            low += half + 1;
            n -= half + 1;
        } else if (c->code < range[low + half].first) {
            n = half;
        } else {
            return true;
        }
    }
    return false;
}

/* ---- alternatives that several expressions share ---- */

/* 's|'t|'re|'ve|'m|'ll|'d; with any_case (?i:...), where U+017F is an s, as Unicode folds it. */
static size_t contraction(struct str s, size_t at, bool any_case) {
    static const char two[3][2] = {{'r', 'e'}, {'v', 'e'}, {'l', 'l'}};
    if (s.n - at < 2 || s.p[at] != '\'')
        return 0;
    char fold = any_case ? 0x20 : 0, a = (char)(s.p[at + 1] | fold);
    if (a == 's' || a == 't' || a == 'm' || a == 'd')
        return 2;
    if (any_case && s.n - at >= 3 && s.p[at + 1] == '\xC5' && s.p[at + 2] == '\xBF')
        return 3;
    for (int i = 0; i < 3 && s.n - at >= 3; i++)
        if (a == two[i][0] && (s.p[at + 2] | fold) == two[i][1])
            return 3;
    return 0;
}

/* ` ?X+` */
static size_t spaced(struct str s, size_t at, character_test *in) {
    size_t space = at < s.n && s.p[at] == ' ', run = run_of(s, at + space, in);
    return run != 0 ? space + run : 0;
}

/* `\s?X+` */
static size_t any_spaced(struct str s, size_t at, character_test *in) {
    struct character c = character_at(s, at);
    size_t space = is_space(&c) ? c.bytes : 0, run = run_of(s, at + space, in);
    return run != 0 ? space + run : 0;
}

/* `\s+(?!\S)`: a run of spaces to the end of the text, or all of it but the last. */
static size_t trailing_spaces(struct str s, size_t at) {
    size_t end = at, last = 0;
    for (struct character c; (c = character_at(s, end)).bytes != 0 && is_space(&c); end += c.bytes)
        last = c.bytes;
    return end == s.n ? end - at : end - at - last;
}

/* `\s*[\r\n]+|\s+(?!\S)|\s+` */
static size_t lines_or_spaces(struct str s, size_t at) {
    size_t end = at, line = at, last = 0;
    for (struct character c; (c = character_at(s, end)).bytes != 0 && is_space(&c); end += c.bytes) {
        last = c.bytes;
        if (is_newline(&c))
            line = end + c.bytes;
    }
    if (line > at)
        return line - at;
    return end == s.n || end - at == last ? end - at : end - at - last;
}

/* `\p{N}{1,most}` */
static size_t digits(struct str s, size_t at, int most) {
    size_t end = at;
    for (struct character c; most > 0 && (c = character_at(s, end)).bytes != 0 && is_number(&c); most--)
        end += c.bytes;
    return end - at;
}

/* ` ?[^\s\p{L}\p{N}]+[tail]*` */
static size_t others(struct str s, size_t at, character_test *tail) {
    size_t n = spaced(s, at, is_other);
    return n != 0 && tail != NULL ? n + run_of(s, at + n, tail) : n;
}

/* `[^\r\n\p{L}\p{N}]?X+` */
static size_t prefixed(struct str s, size_t at, character_test *in) {
    struct character c = character_at(s, at);
    bool prefix = c.bytes != 0 && !is_newline(&c) && (c.classes & (LETTER | NUMBER)) == 0;
    size_t run = prefix ? run_of(s, at + c.bytes, in) : 0;
    if (run != 0)
        return c.bytes + run;
    return run_of(s, at, in);
}

/* `[^\r\n\p{L}\p{N}]?U*L+|[^\r\n\p{L}\p{N}]?U+L*` with U and L the words above, from `at` without the prefix. Letters without case are in both: a run
 * of U gives back as far as its last L, when no L follows it. *lower: the first alternative matched. */
static size_t cased(struct str s, size_t at, bool *lower) {
    size_t end = at, last = 0;
    for (struct character c; (c = character_at(s, end)).bytes != 0 && is_upper_word(&c); end += c.bytes)
        if (is_lower_word(&c))
            last = end + c.bytes;
    size_t run = run_of(s, end, is_lower_word);
    *lower = run != 0 || last != 0;
    return run != 0 ? end + run - at : last != 0 ? last - at : end - at;
}

static size_t prefixed_cased(struct str s, size_t at) {
    struct character c = character_at(s, at);
    bool prefix = c.bytes != 0 && !is_newline(&c) && (c.classes & (LETTER | NUMBER)) == 0;
    bool lower_after = false, lower = false;
    size_t after = prefix ? cased(s, at + c.bytes, &lower_after) : 0, plain = cased(s, at, &lower);
    if (after != 0 && (lower_after || !lower))
        return c.bytes + after;
    return plain;
}

/* ---- passes ---- */

static size_t pass_gpt2(struct str s, size_t at) {
    size_t n = contraction(s, at, false);
    if (n == 0)
        n = spaced(s, at, is_letter);
    if (n == 0)
        n = spaced(s, at, is_number);
    if (n == 0)
        n = others(s, at, NULL);
    return n != 0 ? n : trailing_spaces(s, at);
}

/* [^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[tail]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t whole_words(struct str s, size_t at, int most, character_test *tail) {
    size_t n = prefixed(s, at, is_letter);
    if (n == 0)
        n = digits(s, at, most);
    if (n == 0)
        n = others(s, at, tail);
    return n != 0 ? n : lines_or_spaces(s, at);
}

/* (?i:'s|...)|and the same */
static size_t words(struct str s, size_t at, int most, character_test *tail) {
    size_t n = contraction(s, at, true);
    return n != 0 ? n : whole_words(s, at, most, tail);
}

static size_t pass_llama3(struct str s, size_t at) {
    return words(s, at, 3, is_newline);
}

static size_t pass_qwen2(struct str s, size_t at) {
    return words(s, at, 1, is_newline);
}

/* Turkish writes its endings after an apostrophe. */
static size_t pass_ufakzeka(struct str s, size_t at) {
    return whole_words(s, at, 1, is_newline);
}

static size_t pass_seed_coder(struct str s, size_t at) {
    return words(s, at, 1, NULL);
}

/* [^\s\p{L}\p{M}\p{N}] */
static bool is_other_but_mark(const struct character *c) {
    return (c->classes & (SPACE | LETTER | NUMBER | MARK)) == 0;
}

/* As qwen2, with marks among the letters. */
static size_t pass_qwen35(struct str s, size_t at) {
    size_t n = contraction(s, at, true);
    if (n == 0)
        n = prefixed(s, at, is_letter_or_mark);
    if (n == 0)
        n = digits(s, at, 1);
    if (n == 0 && (n = spaced(s, at, is_other_but_mark)) != 0)
        n += run_of(s, at + n, is_newline);
    return n != 0 ? n : lines_or_spaces(s, at);
}

/* o200k and tekken: words cut where small letters meet capitals. */
static size_t cased_words(struct str s, size_t at, int most, bool contractions, character_test *tail) {
    size_t n = prefixed_cased(s, at);
    if (n != 0)
        return contractions && at + n < s.n ? n + contraction(s, at + n, true) : n;
    n = digits(s, at, most);
    if (n == 0)
        n = others(s, at, tail);
    return n != 0 ? n : lines_or_spaces(s, at);
}

static size_t pass_gpt4o(struct str s, size_t at) {
    return cased_words(s, at, 3, true, is_newline_or_slash);
}

static size_t pass_tekken(struct str s, size_t at) {
    return cased_words(s, at, 1, false, is_newline_or_slash);
}

static size_t pass_number(struct str s, size_t at) {
    return digits(s, at, 1);
}

static size_t pass_three_numbers(struct str s, size_t at) {
    return digits(s, at, 3);
}

static size_t pass_numbers(struct str s, size_t at) {
    return run_of(s, at, is_number);
}

static size_t pass_three_digits(struct str s, size_t at) {
    for (size_t i = 0; i < 3; i++)
        if (at + i >= s.n || s.p[at + i] < '0' || s.p[at + i] > '9')
            return 0;
    return 3;
}

static bool is_falcon_punctuation(const struct character *c) {
    return is_punctuation(c) || (c->code < 0x80 && (c->classes & SYMBOL) != 0);
}

/* [\p{P}\$\+<=>\^~\|`]+ */
static size_t pass_falcon(struct str s, size_t at) {
    return run_of(s, at, is_falcon_punctuation);
}

static bool is_default_punctuation(const struct character *c) {
    return is_falcon_punctuation(c) && c->code != '`';
}

/* [\p{P}\$\+<=>\^~\|]+ */
static size_t pass_default(struct str s, size_t at) {
    return run_of(s, at, is_default_punctuation);
}

/* [^(\s|.,!?…。，、।۔،)] */
static bool is_bloom_word(const struct character *c) {
    static const int32_t not_in[] = {'(',    '|',    '.',    ',',    '!',   '?',   ')',
                                     0x2026, 0x3002, 0xFF0C, 0x3001, 0x964, 0x6D4, 0x60C};
    for (size_t i = 0; i < sizeof not_in / sizeof *not_in; i++)
        if (c->code == not_in[i])
            return false;
    return !is_space(c);
}

static size_t pass_bloom(struct str s, size_t at) {
    return spaced(s, at, is_bloom_word);
}

/* DeepSeek's first tokenizers name their letters and signs one by one. */
static bool is_deepseek_letter(const struct character *c) {
    static const struct range range[] = {
        {0x41, 0x5A},       {0x61, 0x7A},       {0xB5, 0xB5},       {0xC0, 0xD6},       {0xD8, 0xF6},
        {0xF8, 0x1BA},      {0x1BC, 0x1BF},     {0x1C4, 0x293},     {0x295, 0x2AF},     {0x370, 0x373},
        {0x376, 0x376},     {0x377, 0x377},     {0x37B, 0x37D},     {0x37F, 0x37F},     {0x386, 0x386},
        {0x388, 0x38A},     {0x38C, 0x38C},     {0x38E, 0x3A1},     {0x3A3, 0x3F5},     {0x3F7, 0x481},
        {0x48A, 0x52F},     {0x531, 0x556},     {0x10A0, 0x10C5},   {0x13A0, 0x13F5},   {0x13F8, 0x13FD},
        {0x1C90, 0x1CBA},   {0x1CBD, 0x1CBF},   {0x1D00, 0x1D2B},   {0x1D6B, 0x1D77},   {0x1D79, 0x1D9A},
        {0x1E00, 0x1F15},   {0x1F18, 0x1F1D},   {0x1F20, 0x1F45},   {0x1F48, 0x1F4D},   {0x1F50, 0x1F57},
        {0x1F59, 0x1F59},   {0x1F5B, 0x1F5B},   {0x1F5D, 0x1F5D},   {0x1F5F, 0x3CE},    {0x1F80, 0x1FB4},
        {0x1FB6, 0x1FBC},   {0x1FBE, 0x1FBE},   {0x1FC2, 0x1FC4},   {0x1FC6, 0x1FCC},   {0x1FD0, 0x390},
        {0x1FD6, 0x38A},    {0x1FE0, 0x1FEC},   {0x1FF2, 0x1FF4},   {0x1FF6, 0x1FFC},   {0x2102, 0x2102},
        {0x2107, 0x2107},   {0x210A, 0x2113},   {0x2115, 0x2115},   {0x2119, 0x211D},   {0x2124, 0x2124},
        {0x2126, 0x2126},   {0x2128, 0x2128},   {0x212A, 0x212D},   {0x212F, 0x2134},   {0x2139, 0x2139},
        {0x213C, 0x213F},   {0x2145, 0x2149},   {0x214E, 0x214E},   {0x2183, 0x2183},   {0x2184, 0x2184},
        {0x2C00, 0x2C7B},   {0x2C7E, 0x2CE4},   {0x2CEB, 0x2CEE},   {0x2CF2, 0x2CF2},   {0x2CF3, 0x2CF3},
        {0xA640, 0xA66D},   {0xA680, 0xA69B},   {0xA722, 0xA76F},   {0xA771, 0xA787},   {0xA78B, 0xA78E},
        {0xAB70, 0xABBF},   {0xFB00, 0xFB06},   {0xFB13, 0xFB17},   {0xFF21, 0xFF3A},   {0xFF41, 0xFF5A},
        {0x10400, 0x1044F}, {0x104B0, 0x104D3}, {0x104D8, 0x104FB}, {0x10C80, 0x10CB2}, {0x10CC0, 0x10CF2},
        {0x118A0, 0x118DF}, {0x1E900, 0x1E943}};
    return in_ranges(c, range, sizeof range / sizeof *range);
}

static bool is_deepseek_sign(const struct character *c) {
    static const struct range range[] = {{0x21, 0x2F},     {0x3A, 0x7E},     {0x2018, 0x201F},
                                         {0x3000, 0x3002}, {0xFF01, 0xFF0F}, {0xFF1A, 0xFF5E}};
    return in_ranges(c, range, sizeof range / sizeof *range);
}

/* [一-龥ࠀ-一가-퟿] */
static bool is_deepseek_cjk(const struct character *c) {
    static const struct range range[] = {{0x800, 0x9FA5}, {0xAC00, 0xD7FF}};
    return in_ranges(c, range, sizeof range / sizeof *range);
}

/* [一-龥぀-ゟ゠-ヿ] */
static bool is_deepseek3_cjk(const struct character *c) {
    static const struct range range[] = {{0x3040, 0x30FF}, {0x4E00, 0x9FA5}};
    return in_ranges(c, range, sizeof range / sizeof *range);
}

static size_t pass_newline(struct str s, size_t at) {
    struct character c = character_at(s, at);
    return is_newline(&c) ? c.bytes : 0;
}

static size_t pass_deepseek_letters(struct str s, size_t at) {
    return any_spaced(s, at, is_deepseek_letter);
}

static size_t pass_deepseek_signs(struct str s, size_t at) {
    return any_spaced(s, at, is_deepseek_sign);
}

/* \s+$ */
static size_t pass_last_spaces(struct str s, size_t at) {
    size_t n = run_of(s, at, is_space);
    return at + n == s.n ? n : 0;
}

static size_t pass_deepseek_cjk(struct str s, size_t at) {
    return run_of(s, at, is_deepseek_cjk);
}

static size_t pass_deepseek3_cjk(struct str s, size_t at) {
    return run_of(s, at, is_deepseek3_cjk);
}

static size_t pass_letters(struct str s, size_t at) {
    return any_spaced(s, at, is_letter);
}

static size_t pass_punctuation(struct str s, size_t at) {
    return any_spaced(s, at, is_punctuation);
}

static bool is_ascii_letter(const struct character *c) {
    return c->code < 0x80 && (c->classes & LETTER) != 0;
}

/* `[!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+` */
static size_t pass_deepseek3(struct str s, size_t at) {
    struct character c = character_at(s, at);
    size_t n = 0, run;
    if (c.code >= 0 && c.code < 0x80 && is_punctuation_or_symbol(&c) &&
        (run = run_of(s, at + 1, is_ascii_letter)) != 0)
        return 1 + run;
    if (c.bytes != 0 && !is_newline(&c) && (c.classes & (LETTER | PUNCT | SYMBOL)) == 0 &&
        (run = run_of(s, at + c.bytes, is_letter_or_mark)) != 0)
        return c.bytes + run;
    n = run_of(s, at, is_letter_or_mark);
    if (n == 0 && (n = spaced(s, at, is_punctuation_or_symbol)) != 0)
        n += run_of(s, at + n, is_newline);
    return n != 0 ? n : lines_or_spaces(s, at);
}

/* ---- rows ---- */

#define DEFAULT_ROW(name) \
    { name, {pass_default, pass_gpt2, pass_numbers, pass_three_digits}, false, false }
#define GPT2_ROW(name) \
    { name, {pass_gpt2}, false, false }
#define STARCODER_ROW(name) \
    { name, {pass_number, pass_gpt2}, false, false }
#define LLAMA3_ROW(name) \
    { name, {pass_llama3}, true, true }
#define WORDS3_ROW(name) \
    { name, {pass_llama3}, false, false }
#define GLM4_ROW(name) \
    { name, {pass_llama3}, true, false }
#define QWEN2_ROW(name) \
    { name, {pass_qwen2}, false, false }
#define BLOOM_ROW(name) \
    { name, {pass_bloom}, false, false }
#define GPT4O_ROW(name) \
    { name, {pass_gpt4o}, false, false }
#define DEEPSEEK3_ROW(name) \
    { name, {pass_three_numbers, pass_deepseek3_cjk, pass_deepseek3}, false, false }

static const struct pretokenizer rows[] = {
    DEFAULT_ROW("default"),
    GPT2_ROW("gpt-2"),
    GPT2_ROW("phi-2"),
    GPT2_ROW("mpt"),
    GPT2_ROW("olmo"),
    GPT2_ROW("jais"),
    GPT2_ROW("trillion"),
    GPT2_ROW("granite-docling"),
    GPT2_ROW("roberta-bpe"),
    GPT2_ROW("gigachat"),
    GPT2_ROW("jina-es"),
    GPT2_ROW("jina-de"),
    GPT2_ROW("jina-v2-es"),
    GPT2_ROW("jina-v2-de"),
    GPT2_ROW("jina-v2-code"),
    GPT2_ROW("a.x-4.0"),
    GPT2_ROW("mellum"),
    GPT2_ROW("modern-bert"),
    GPT2_ROW("jina-v1-en"),
    GPT2_ROW("exaone4"),
    LLAMA3_ROW("llama3"),
    LLAMA3_ROW("llama-v3"),
    LLAMA3_ROW("llama-bpe"),
    LLAMA3_ROW("falcon3"),
    LLAMA3_ROW("falcon-h1"),
    LLAMA3_ROW("pixtral"),
    LLAMA3_ROW("midm-2.0"),
    LLAMA3_ROW("lfm2"),
    LLAMA3_ROW("jina-v5-nano"),
    WORDS3_ROW("dbrx"),
    WORDS3_ROW("smaug-bpe"),
    WORDS3_ROW("chatglm-bpe"),
    GLM4_ROW("glm4"),
    GLM4_ROW("glm5"),
    {"minicpm5", {pass_three_numbers, pass_llama3}, true, false},
    QWEN2_ROW("qwen2"),
    QWEN2_ROW("stablelm2"),
    QWEN2_ROW("deepseek-r1-qwen"),
    QWEN2_ROW("kormo"),
    QWEN2_ROW("f2llmv2"),
    QWEN2_ROW("grok-2"),
    QWEN2_ROW("bailingmoe"),
    QWEN2_ROW("bailingmoe2"),
    QWEN2_ROW("llada-moe"),
    QWEN2_ROW("megrez"),
    QWEN2_ROW("hunyuan"),
    QWEN2_ROW("solar-open"),
    {"qwen35", {pass_qwen35}, false, false},
    {"ufakzeka", {pass_ufakzeka}, false, false},
    {"seed-coder", {pass_seed_coder}, false, false},
    STARCODER_ROW("starcoder"),
    STARCODER_ROW("refact"),
    STARCODER_ROW("command-r"),
    STARCODER_ROW("smollm"),
    STARCODER_ROW("codeshell"),
    STARCODER_ROW("exaone"),
    STARCODER_ROW("minerva-7b"),
    STARCODER_ROW("mellum2"),
    {"falcon", {pass_falcon, pass_gpt2, pass_three_digits}, false, false},
    {"deepseek-llm",
     {pass_newline, pass_deepseek_letters, pass_deepseek_signs, pass_last_spaces, pass_deepseek_cjk,
      pass_numbers},
     false,
     false},
    {"deepseek-coder",
     {pass_newline, pass_letters, pass_punctuation, pass_deepseek_cjk, pass_number},
     false,
     false},
    DEEPSEEK3_ROW("deepseek-v3"),
    DEEPSEEK3_ROW("hunyuan-dense"),
    DEEPSEEK3_ROW("joyai-llm"),
    DEEPSEEK3_ROW("hy_v4"),
    GPT4O_ROW("gpt-4o"),
    GPT4O_ROW("llama4"),
    GPT4O_ROW("minimax-m2"),
    GPT4O_ROW("kanana2"),
    GPT4O_ROW("talkie"),
    {"tekken", {pass_tekken}, true, true},
    BLOOM_ROW("bloom"),
    BLOOM_ROW("poro-chat"),
    BLOOM_ROW("gpt3-finnish"),
    {"viking", {pass_bloom, pass_number}, false, false},
};

const struct pretokenizer *pretokenizer_at(size_t i) {
    return i < sizeof rows / sizeof *rows ? &rows[i] : NULL;
}

const struct pretokenizer *pretokenizer_find(struct str name) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (str_is(name, rows[i].name))
            return &rows[i];
    return NULL;
}

/* Cut s with the passes from number `pass` on. */
static int cut(const struct pretokenizer *p, int pass, struct str s,
               int (*piece)(void *context, struct str piece), void *context) {
    int rc = 0;
    if (s.n == 0)
        return 0;
    if (p->pass[pass] == NULL)
        return piece(context, s);
    size_t gap = 0, at = 0;
    while (at < s.n && rc == 0) {
        size_t n = p->pass[pass](s, at);
        if (n == 0) {
            at += character_at(s, at).bytes;
            continue;
        }
        rc = cut(p, pass + 1, (struct str){s.p + gap, at - gap}, piece, context);
        if (rc == 0)
            rc = cut(p, pass + 1, (struct str){s.p + at, n}, piece, context);
        at += n;
        gap = at;
    }
    return rc != 0 ? rc : cut(p, pass + 1, (struct str){s.p + gap, s.n - gap}, piece, context);
}

int pretokenize(const struct pretokenizer *p, struct str text, int (*piece)(void *context, struct str piece),
                void *context) {
    return cut(p, 0, text, piece, context);
}
