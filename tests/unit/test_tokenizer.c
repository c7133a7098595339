/* The tokenizer on real vocabularies: the ones in $UNKAI_SHARED/vocab with the tokens that their makers expect, and everything a caller can
 * do to them: names of control tokens, broken UTF-8, huge texts of one kind. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/utf8.h"
#include "model/tokenizer.h"
#include "small_vocab.h"

/* Bytes of a large text: fewer under the sanitizers, where everything takes ten times as long. */
#if defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
enum { LARGE = SANITIZED ? 1 << 18 : 2 << 20, MOST = 32 };

static struct vocabulary {
    char path[600];
    struct gguf *g;
    struct tokenizer *t;
    bool lacks[256]; /* bytes that it has no token for */
} vocabulary[MOST];
static size_t vocabularies;

static uint64_t seed = 88172645463325252u;

static uint32_t chance(uint32_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 20) % below;
}

/* ---- helpers ---- */

/* Every test here skips when there is no vocabulary. */
static void begin(void **state) {
    (void)state;
    if (vocabularies == 0)
        skip();
}

static struct tokens encode_flags(const struct tokenizer *t, struct str text, bool control, unsigned flags) {
    struct tokens out = {0};
    struct error e;
    struct segment s = {text, control};
    assert_int_equal(tokenizer_encode(t, &s, 1, flags, &out, &e), 0);
    return out;
}

static struct tokens encode(const struct tokenizer *t, struct str text, bool control) {
    return encode_flags(t, text, control, 0);
}

static bool same_tokens(const struct tokens *a, const struct tokens *b) {
    return a->n == b->n && (a->n == 0 || memcmp(a->id, b->id, a->n * sizeof *a->id) == 0);
}

/* Is a caller's text decoded as it was, without the bytes that the vocabulary has no token for, and free of control tokens? (SentencePiece reads
 * U+2581 as a space: not for texts with it.) */
static bool comes_back(const struct vocabulary *v, struct str text) {
    const struct tokenizer *t = v->t;
    struct tokens tokens = encode(t, text, false);
    struct buf back = {0}, want = {0};
    for (size_t i = 0; i < text.n; i++)
        if (!v->lacks[(unsigned char)text.p[i]])
            buf_byte(&want, text.p[i]);
    tokenizer_decode(t, tokens.id, tokens.n, false, &back);
    bool same = str_equal(buf_view(&back), buf_view(&want));
    for (size_t i = 0; i < tokens.n; i++)
        if (tokenizer_is_control(t, tokens.id[i]))
            same = false;
    if (!same) {
        print_message("%s: does not come back:", v->path);
        for (size_t i = 0; i < text.n && i < 200; i++)
            print_message(" %02x", (unsigned char)text.p[i]);
        print_message("\n");
    }
    buf_free(&back);
    buf_free(&want);
    tokens_free(&tokens);
    return same;
}

static struct buf read_file(const char *path, const char *ending) {
    char name[700];
    struct buf text = {0};
    snprintf(name, sizeof name, "%s%s", path, ending);
    FILE *f = fopen(name, "rb");
    if (f == NULL)
        return text;
    for (size_t n; (n = fread(buf_reserve(&text, 65536), 1, 65536, f)) > 0;)
        text.n += n;
    fclose(f);
    return text;
}

static double seconds(void) {
    return (double)clock() / CLOCKS_PER_SEC;
}

/* ---- the expected tokens ---- */

static struct tokens read_ids(struct str line) {
    struct tokens t = {0};
    for (size_t i = 0; i < line.n;) {
        size_t start = i;
        token_id id = 0;
        for (; i < line.n && line.p[i] >= '0' && line.p[i] <= '9'; i++)
            id = id * 10 + line.p[i] - '0';
        if (i > start)
            tokens_push(&t, id);
        else
            i++;
    }
    return t;
}

static struct str take(struct str *text, struct str separator) {
    size_t end = str_find(*text, separator, 0);
    struct str part = {text->p, end == SIZE_MAX ? text->n : end};
    size_t used = end == SIZE_MAX ? text->n : end + separator.n;
    *text = (struct str){text->p + used, text->n - used};
    return part;
}

static void test_expected(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++) {
        const struct tokenizer *t = vocabulary[v].t;
        struct buf in = read_file(vocabulary[v].path, ".inp"), out = read_file(vocabulary[v].path, ".out");
        struct str texts = buf_view(&in), lines = buf_view(&out);
        int count = 0;
        assert_true(in.n > 0 && out.n > 0);
        while (texts.n > 0) {
            struct str text = take(&texts, STR("\n__ggml_vocab_test__\n")), line = take(&lines, STR("\n"));
            struct tokens want = read_ids(line), got = encode(t, text, false);
            if (!same_tokens(&want, &got))
                fail_msg("%s: text %d ('%.*s') gives other tokens than '%.*s'", vocabulary[v].path, count,
                         (int)text.n, text.p, (int)line.n, line.p);
            /* No control token is named in these texts, and a template's text is read as any other. */
            struct tokens control = encode(t, text, true);
            assert_true(same_tokens(&want, &control));
            assert_true(comes_back(&vocabulary[v], text));
            tokens_free(&want);
            tokens_free(&got);
            tokens_free(&control);
            count++;
        }
        assert_true(count > 40);
        print_message("%s: %d texts, %s %s\n", vocabulary[v].path, count, tokenizer_kind(t),
                      tokenizer_pre(t));
        buf_free(&in);
        buf_free(&out);
    }
}

/* ---- control tokens ---- */

static bool has_control(const struct tokenizer *t, const struct tokens *tokens) {
    for (size_t i = 0; i < tokens->n; i++)
        if (tokenizer_is_control(t, tokens->id[i]))
            return true;
    return false;
}

/* In a caller's text, alone, amid words, twice and nested, a control token's name is text; in a template's it is the token. */
static void check_control(const struct vocabulary *v, token_id id) {
    const struct tokenizer *t = v->t;
    struct str name = tokenizer_piece(t, id, true);
    struct buf text = {0};
    assert_int_equal(tokenizer_piece(t, id, false).n, 0);
    struct tokens token = encode(t, name, true);
    assert_true(token.n == 1 && token.id[0] == id);
    tokens_free(&token);
    assert_true(comes_back(v, name));
    buf_text(&text, "say ");
    buf_str(&text, name);
    buf_str(&text, name);
    buf_append(&text, name.p, name.n / 2);
    buf_str(&text, name);
    buf_append(&text, name.p + name.n / 2, name.n - name.n / 2);
    buf_text(&text, " to me");
    assert_true(comes_back(v, buf_view(&text)));
    /* The name across the seam of two segments, cut anywhere, in either order of kinds. */
    for (size_t cut = 1; cut < name.n; cut++)
        for (int first = 0; first < 2; first++) {
            struct segment s[] = {{{name.p, cut}, first == 0}, {{name.p + cut, name.n - cut}, first == 1}};
            struct tokens tokens = {0};
            assert_int_equal(tokenizer_encode(t, s, 2, 0, &tokens, NULL), 0);
            /* A shorter control token may lie within the template's part; this one may not come out. */
            for (size_t i = 0; i < tokens.n; i++)
                assert_int_not_equal(tokens.id[i], id);
            tokens_free(&tokens);
        }
    /* The template wrote it in pieces: it is the token. */
    struct segment halves[] = {{{name.p, name.n / 2}, true},
                               {{name.p + name.n / 2, name.n - name.n / 2}, true}};
    struct tokens joined = {0};
    assert_int_equal(tokenizer_encode(t, halves, 2, 0, &joined, NULL), 0);
    assert_true(joined.n == 1 && joined.id[0] == id);
    tokens_free(&joined);
    buf_free(&text);
}

static void test_control(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++) {
        const struct tokenizer *t = vocabulary[v].t;
        struct buf all = {0};
        int count = 0;
        for (token_id id = 0; (size_t)id < tokenizer_vocab(t); id++)
            if (tokenizer_is_control(t, id)) {
                check_control(&vocabulary[v], id);
                buf_str(&all, tokenizer_piece(t, id, true));
                count++;
            }
        assert_true(count > 0);
        assert_true(comes_back(&vocabulary[v], buf_view(&all)));
        struct tokens tokens = encode(t, buf_view(&all), true);
        assert_int_equal(tokens.n, count);
        tokens_free(&tokens);
        /* The dialogue as a template renders it, with a caller who writes the names, too. */
        struct str turn = tokenizer_piece(t, tokenizer_eos(t), true);
        struct segment s[] = {{turn, true}, {turn, false}, {turn, true}};
        assert_int_equal(tokenizer_encode(t, s, 3, 0, &tokens, NULL), 0);
        assert_int_equal(tokens.id[0], tokenizer_eos(t));
        assert_int_equal(tokens.id[tokens.n - 1], tokenizer_eos(t));
        struct tokens middle = {.id = tokens.id + 1, .n = tokens.n - 2};
        assert_true(tokens.n > 2 && !has_control(t, &middle));
        assert_true(tokenizer_ends(t, tokenizer_eos(t)));
        tokens_free(&tokens);
        buf_free(&all);
    }
}

static void test_begin(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++) {
        const struct tokenizer *t = vocabulary[v].t;
        struct tokens plain = encode(t, STR("Hello"), false),
                      special = encode_flags(t, STR("Hello"), false, TOKENIZER_ADD_SPECIAL);
        size_t bos = tokenizer_add_bos(t);
        assert_int_equal(special.n, plain.n + bos);
        assert_true(!bos || special.id[0] == tokenizer_bos(t));
        assert_memory_equal(special.id + bos, plain.id, plain.n * sizeof *plain.id);
        tokens_free(&plain);
        tokens_free(&special);
    }
}

/* ---- any bytes ---- */

static void test_every_cut(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++) {
        struct buf in = read_file(vocabulary[v].path, ".inp");
        /* Copies of exact size, so that the address sanitizer sees one byte too many. */
        for (size_t n = 0; n <= in.n; n += n < 400 ? 1 : 37) {
            char *cut = malloc(in.n - n + 1);
            memcpy(cut, in.p + n, in.n - n);
            assert_true(comes_back(&vocabulary[v], (struct str){cut, in.n - n}));
            memcpy(cut, in.p, in.n - n);
            assert_true(comes_back(&vocabulary[v], (struct str){cut, in.n - n}));
            free(cut);
        }
        buf_free(&in);
    }
}

static void random_unicode(struct buf *b, uint32_t characters) {
    static const uint32_t script[][2] = {
        {0, 0x7F},          {0x20, 0x7E},        {0x80, 0x24F},    {0x300, 0x5FF},   {0x900, 0xDFF},
        {0x1E00, 0x2580},   {0x2582, 0x33FF},    {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0xF900, 0xFFFF},
        {0x1F300, 0x1FAFF}, {0x10000, 0x10FFFF}, {0x3040, 0x30FF}};
    for (uint32_t i = 0; i < characters; i++) {
        const uint32_t *range = script[chance(sizeof script / sizeof *script)];
        char c[4];
        buf_append(b, c, utf8_encode(range[0] + chance(range[1] - range[0] + 1), c));
    }
}

static void test_random_text(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++)
        for (int i = 0; i < 400; i++) {
            struct buf text = {0};
            random_unicode(&text, 1 + chance(120));
            assert_true(comes_back(&vocabulary[v], buf_view(&text)));
            buf_clear(&text);
            for (uint32_t n = chance(200); n > 0; n--)
                buf_byte(&text, (char)chance(256));
            /* Random bytes that happen to spell U+2581 are a space to SentencePiece. */
            if (str_find(buf_view(&text), STR("\xE2\x96\x81"), 0) == SIZE_MAX)
                assert_true(comes_back(&vocabulary[v], buf_view(&text)));
            buf_free(&text);
        }
}

/* Cutting a text into segments of one kind changes nothing. */
static void test_segments_join(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++)
        for (int i = 0; i < 200; i++) {
            struct buf text = {0};
            struct segment s[8];
            size_t at = 0;
            random_unicode(&text, 1 + chance(40));
            for (size_t k = 0; k < 8; k++) {
                size_t n = k == 7 ? text.n - at : chance((uint32_t)(text.n - at) + 1);
                s[k] = (struct segment){{text.p + at, n}, i % 2 == 0};
                at += n;
            }
            struct tokens whole = encode(vocabulary[v].t, buf_view(&text), i % 2 == 0), parts = {0};
            assert_int_equal(tokenizer_encode(vocabulary[v].t, s, 8, 0, &parts, NULL), 0);
            assert_true(same_tokens(&whole, &parts));
            tokens_free(&whole);
            tokens_free(&parts);
            buf_free(&text);
        }
}

static void test_ids_from_outside(void **state) {
    static const token_id id[] = {-1, INT32_MIN, INT32_MAX, 1 << 24};
    begin(state);
    for (size_t v = 0; v < vocabularies; v++) {
        const struct tokenizer *t = vocabulary[v].t;
        struct buf out = {0};
        for (size_t i = 0; i < sizeof id / sizeof *id; i++) {
            assert_int_equal(tokenizer_piece(t, id[i], true).n, 0);
            assert_false(tokenizer_ends(t, id[i]) || tokenizer_is_control(t, id[i]));
        }
        tokenizer_decode(t, id, sizeof id / sizeof *id, true, &out);
        assert_int_equal(out.n, 0);
        buf_free(&out);
    }
}

/* ---- large texts ---- */

enum kind_of_text { ONE_LETTER, SPACES, NEWLINES, QUOTES, DIGITS, NAMES, BYTES, WORDS, KINDS };

static void fill(struct buf *b, enum kind_of_text kind, size_t n, struct str control) {
    static const char one[] = {
        [ONE_LETTER] = 'a', [SPACES] = ' ', [NEWLINES] = '\n', [QUOTES] = '\'', [DIGITS] = '7'};
    buf_clear(b);
    while (b->n < n)
        if (kind == NAMES)
            buf_append(b, control.p, control.n - 1);
        else if (kind == BYTES)
            buf_byte(b, (char)chance(256));
        else if (kind == WORDS)
            random_unicode(b, 1), buf_text(b, " the words of a\ttext,\n");
        else
            buf_byte(b, one[kind]);
    b->n = n;
}

/* Eight times the text in not much more than eight times the time; a quadratic step anywhere would take 64 times. */
static void test_large(void **state) {
    begin(state);
    for (size_t v = 0; v < vocabularies; v++) {
        const struct tokenizer *t = vocabulary[v].t;
        struct str control = tokenizer_piece(t, tokenizer_eos(t), true);
        /* The first of each kind gets the largest texts. */
        bool known = v > 0 && strcmp(tokenizer_kind(t), tokenizer_kind(vocabulary[v - 1].t)) == 0;
        size_t size = known ? LARGE / 8 : LARGE;
        for (enum kind_of_text kind = 0; kind < KINDS; kind++) {
            struct buf text = {0};
            double spent[2];
            for (int large = 0; large < 2; large++) {
                fill(&text, kind, large ? size : size / 8, control);
                double start = seconds();
                struct tokens tokens = encode(t, buf_view(&text), kind == NAMES);
                spent[large] = seconds() - start;
                assert_true(tokens.n > 0);
                tokens_free(&tokens);
            }
            if (spent[1] > 24 * spent[0] + 0.5)
                fail_msg("%s, text of kind %d: %zu bytes in %.3f s, %zu bytes in %.3f s", vocabulary[v].path,
                         kind, size / 8, spent[0], size, spent[1]);
            buf_free(&text);
        }
    }
}

/* ---- rules that no vocabulary at hand shows ---- */

/* Text is looked up in GPT-2's alphabet. A token written in other characters is never found there, whatever its bytes are: Command R's
 * vocabulary has a bare U+200D before the one in the alphabet. */
static void test_outside_alphabet(void **state) {
    static const token_id want[] = {'a', 258, 'b'};
    struct small_vocab v = {0};
    struct buf name = {0}, merge = {0}, text = {0};
    struct gguf *g;
    struct tokenizer *t;
    struct error e;
    (void)state;
    small_text(&v, "tokenizer.ggml.model", STR("gpt2"));
    small_bytes(&v, false);
    assert_int_equal(small_token(&v, STR("\u200D"), 1, 0), 256);
    small_alphabet(&name, STR("\xE2\x80"));
    assert_int_equal(small_token(&v, buf_view(&name), 1, 0), 257);
    small_alphabet(&merge, STR("\xE2"));
    buf_byte(&merge, ' ');
    small_alphabet(&merge, STR("\x80"));
    small_merge(&v, buf_view(&merge));
    buf_byte(&name, ' ');
    small_alphabet(&name, STR("\x8D"));
    small_merge(&v, buf_view(&name));
    buf_clear(&name);
    small_alphabet(&name, STR("\u200D"));
    assert_int_equal(small_token(&v, buf_view(&name), 1, 0), 258);
    small_token(&v, STR("\u200Db"), 1, 0);
    small_merge(&v, STR("\u200D b"));
    assert_int_equal(gguf_open_memory(&g, small_vocab_file(&v), &e), 0);
    assert_int_equal(tokenizer_create(&t, g, &e), 0);
    struct tokens tokens = encode(t, STR("a\u200Db"), false);
    assert_int_equal(tokens.n, 3);
    assert_memory_equal(tokens.id, want, sizeof want);
    tokenizer_decode(t, (const token_id[]){256, 258}, 2, false, &text);
    assert_true(str_is(buf_view(&text), "\u200D\u200D"));
    tokens_free(&tokens);
    buf_free(&text);
    buf_free(&merge);
    buf_free(&name);
    tokenizer_free(t);
    gguf_close(g);
    small_vocab_free(&v);
}

/* ---- all vocabularies ---- */

static int is_file(const struct dirent *f) {
    size_t n = strlen(f->d_name);
    return n > 5 && n < 80 && strcmp(f->d_name + n - 5, ".gguf") == 0;
}

static int open_one(const char *folder, const char *name) {
    struct vocabulary *v = &vocabulary[vocabularies];
    struct error e;
    snprintf(v->path, sizeof v->path, "%s/%.80s", folder, name);
    if (gguf_open(&v->g, v->path, &e) != 0 || tokenizer_create(&v->t, v->g, &e) != 0) {
        print_message("%s: %s\n", v->path, e.text);
        return -1;
    }
    vocabularies++;
    for (int byte = 0; byte < 256; byte++) {
        char c = (char)byte;
        struct tokens tokens = encode(v->t, (struct str){&c, 1}, false);
        v->lacks[byte] = tokens.n == 0;
        tokens_free(&tokens);
    }
    return 0;
}

static int open_all(void **state) {
    const char *shared = getenv("UNKAI_SHARED");
    char folder[512];
    struct dirent **file = NULL;
    int rc = 0;
    (void)state;
    snprintf(folder, sizeof folder, "%s/vocab", shared ? shared : "../shared");
    int files = scandir(folder, &file, is_file, alphasort);
    if (files <= 0)
        print_message("no vocabularies in %s: these tests are skipped\n", folder);
    for (int i = 0; i < files; i++) {
        if (rc == 0 && i < MOST)
            rc = open_one(folder, file[i]->d_name);
        free(file[i]);
    }
    free(file);
    return rc;
}

static int close_all(void **state) {
    (void)state;
    for (size_t v = 0; v < vocabularies; v++) {
        tokenizer_free(vocabulary[v].t);
        gguf_close(vocabulary[v].g);
    }
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expected),
        cmocka_unit_test(test_control),
        cmocka_unit_test(test_begin),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_random_text),
        cmocka_unit_test(test_segments_join),
        cmocka_unit_test(test_ids_from_outside),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_outside_alphabet),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
