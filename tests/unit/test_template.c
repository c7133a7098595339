/* The chat template interpreter: meaning, authorship of every character, budgets. Its likeness to jinja2 at large is the business of
 * tests/golden/test_template.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "model/template.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static const int64_t NOON = INT64_C(1764072000123456789); /* 2025-11-25 12:00:00 UTC */

/* Renders into `out`, one letter before each segment: C control, U user (the caller); or "!" and the error's text. */
static int marked(const char *source, size_t n, const char *vars, struct buf *out) {
    struct template *t;
    struct json *v = NULL;
    struct rendered r = {0};
    struct error e = {0};
    assert_int_equal(json_parse(&v, str_from(vars), &e), 0);
    int rc = template_parse(&t, (struct str){source, n}, &e);
    if (rc == 0)
        rc = template_render(t, v, NULL, NOON, &r, &e);
    buf_clear(out);
    for (size_t i = 0; rc == 0 && i < r.segments; i++) {
        buf_text(out, r.segment[i].control ? "C:" : "U:");
        buf_str(out, r.segment[i].text);
        buf_text(out, "|");
    }
    if (rc != 0) {
        assert_int_equal(rc, e.code);
        buf_text(out, "!");
        buf_text(out, e.text);
    }
    rendered_free(&r);
    template_free(t);
    json_free(v);
    return rc;
}

static void expect_at(const char *source, const char *vars, const char *wanted, int line) {
    struct buf out = {0};
    marked(source, strlen(source), vars, &out);
    if (strcmp(out.p ? out.p : "", wanted) != 0)
        fail_msg("line %d: %s\n  wanted %s\n  got    %s", line, source, wanted, out.p);
    buf_free(&out);
}
#define expect(source, vars, wanted) expect_at(source, vars, wanted, __LINE__)

#define CHAT                                                                                                 \
    "{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\\n <s> there\", \"n\": 7, \"list\": [\"a\", 1, " \
    "null]}],"                                                                                               \
    " \"bos_token\": \"<s>\", \"tools\": [{\"name\": \"f\", \"arguments\": {\"key\": \"v\\\"\"}}], \"x\": "  \
    "5}"
#define M "messages[0]."

static void test_meaning(void **state) {
    expect("a{{ x + 1 }}b", CHAT, "C:a6b|");
    expect("{% for i in range(3) %}{{ i }}{% if not loop.last %},{% endif %}{% endfor %}", CHAT, "C:0,1,2|");
    expect("{{ strftime_now('%Y-%m-%d') }}", CHAT, "C:2025-11-25|");
    expect("", CHAT, "");
    expect("{{ undefined_thing }}", CHAT, "");
}

static void test_errors_say_where(void **state) {
    expect("a\n\n{{ 1 / 0 }}", CHAT, "!the chat template, line 3: division by zero");
    expect("a\n{% if %}", CHAT, "!the chat template, line 2: expected an expression, but the tag ends");
    expect("{{ nope.x }}", CHAT, "!the chat template, line 1: 'nope' is undefined");
    expect("{% if x %}", CHAT, "!the chat template, line 1: a block does not end: 'elif' is missing");
    expect("{{ raise_exception('no\\nway') }}", CHAT, "!no way");
    expect("{{ [].append(1) }}", CHAT, "!the chat template, line 1: 'list.append' is undefined");
    expect("{% include 'x' %}", CHAT,
           "!the chat template, line 1: expected a statement that is supported here, not 'include'");
    struct buf out = {0};
    assert_int_equal(marked("\xff", 1, CHAT, &out), ERR_INVALID);
    assert_int_equal(marked("a\0b", 3, CHAT, &out), 0);
    buf_free(&out);
}

/* What the caller wrote stays the caller's on every way through the template. */
static void test_authorship(void **state) {
    expect("{{ bos_token }}{{ " M "content }}", CHAT, "C:<s>|U:Hi\n <s> there|");
    expect("{{ '<' + " M "role + '>' }}", CHAT, "C:<|U:user|C:>|");
    expect("{{ '<' ~ " M "role ~ '>' }}", CHAT, "C:<|U:user|C:>|");
    expect("{{ ('<' ~ " M "role ~ '>')[1:3] }}", CHAT, "U:us|");
    expect("{{ ('<' ~ " M "role ~ '>')[::-1] }}", CHAT, "C:>|U:resu|C:<|");
    expect("{{ ('<' ~ " M "role ~ '>')|upper }}", CHAT, "C:<|U:USER|C:>|");
    expect("{{ ('< ' ~ " M "role ~ ' >').split()|join('-') }}", CHAT, "C:<-|U:user|C:->|");
    expect("{{ ['<', " M "role]|join('|') }}", CHAT, "C:<||U:user|");
    expect("{{ '%s!%s'|format(" M "role, 'x') }}", CHAT, "U:user|C:!x|");
    expect("{{ '{}!'.format(" M "role) }}", CHAT, "U:user|C:!|");
    expect("{{ 'us<s>'.replace('s', " M "role) }}", CHAT, "C:u|U:user|C:<|U:user|C:>|");
    /* A caller who decides where something is put must not put control there. */
    expect("{{ " M "content.replace('<s>', '<im>') }}", CHAT, "U:Hi\n <im> there|");
    expect("{{ 'a<s>b'.replace(" M "content[4:7], '<im>') }}", CHAT, "U:a<im>b|");
    expect("{{ '<s><e>'.split(" M "content[6:7])[0] }}", CHAT, "U:<s|");
    expect("{{ '<s><e>'[:" M "n] }}", CHAT, "U:<s><e>|");
    expect("{{ '<' * " M "n }}", CHAT, "U:<<<<<<<|");
    expect("{{ (" M "content ~ '<s>')|format }}", CHAT, "U:Hi\n <s> there<s>|");
    expect("{{ '<s>'.strip(" M "content) }}", CHAT, "");
    expect("{{ '<x>'.strip(" M "content) }}", CHAT, "U:x|");
    /* Comparing with the caller's text is how a template chooses its own. */
    expect("{{ '<s>' if " M "role == 'user' else '<e>' }}", CHAT, "C:<s>|");
    expect("{{ {'user': '<u>'}[" M "role] }}", CHAT, "C:<u>|");
    /* Numbers, punctuation, keys, repr and JSON. */
    expect("{{ " M "n }}{{ x }}{{ " M "n + x }}", CHAT, "U:7|C:5|U:12|");
    expect("{{ " M "list }}", CHAT, "U:['a', 1, None]|");
    expect("{{ tools|tojson }}", CHAT, "U:[{\"name\": \"f\", \"arguments\": {\"key\": \"v\\\"\"}}]|");
    expect("{{ {'t': tools[0].name, 'n': 1}|tojson }}", CHAT, "C:{\"t\": |U:\"f\"|C:, \"n\": 1}|");
    expect("{% for k, v in tools[0].arguments.items() %}{{ k }}={{ v }}{% endfor %}", CHAT,
           "U:key|C:=|U:v\"|");
    expect("{% set ns = namespace(t='') %}{% for m in messages %}{% set ns.t = ns.t + m.role + ';' %}{% "
           "endfor %}{{ ns.t }}",
           CHAT, "U:user|C:;|");
    expect("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(" M "role) }}", CHAT, "C:<|U:user|C:>|");
    expect("{% set b %}<{{ " M "role }}>{% endset %}{{ b|trim }}", CHAT, "C:<|U:user|C:>|");
    expect("{% filter upper %}<{{ " M "role }}>{% endfilter %}", CHAT, "C:<|U:USER|C:>|");
    expect("{{ " M "role|int }}{{ '7'|int }}", CHAT, "U:0|C:7|");
    expect("{{ raise_exception(" M "role) }}", CHAT, "!user");
    expect("{% macro m() %}{{ kwargs }}{% endmacro %}{{ m(**{'a': 1}) }}", CHAT, "C:{'a': 1}|");
    expect(
        "{% macro m() %}{% for k in kwargs %}{{ k }}{% endfor %}{% endmacro %}{{ m(**tools[0].arguments) }}",
        CHAT, "U:key|");
    expect("{{ dict(**tools[0].arguments)|list|first }}{{ namespace(**tools[0].arguments).key }}", CHAT,
           "U:keyv\"|");
    expect("{% for i in range(" M "n, 8) %}{{ i }}{% endfor %}{{ range(" M "n)[2] }}", CHAT, "U:72|");
    expect("{{ '<s>'[" M "role|length:] }}{{ '<s>'[:" M "content.find('<')] }}", CHAT, "U:<s>|");
    expect("{{ 'x'|int(" M "n) }}{{ 1.25|round(" M "n) }}{{ ('<s>' * 4)|truncate(" M "n, true, '', 0) }}",
           CHAT, "U:71.25<s><s><|");
}

/* ---- budgets ---- */

static void expect_refusal(const char *source, size_t n, enum err code, const char *why) {
    struct buf out = {0};
    int64_t start = clock_mono_ns();
    assert_int_equal(marked(source, n, "{}", &out), code);
    if (strstr(out.p, why) == NULL)
        fail_msg("wanted '%s', got %s", why, out.p);
    assert_true(clock_mono_ns() - start < INT64_C(60) * 1000000000); /* sanitizers are slow */
    buf_free(&out);
}

static void test_bombs(void **state) {
    static const struct {
        const char *source, *why;
    } bombs[] = {
        {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "more than"},
        {"{% set n = namespace(s='ab') %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
         "MiB"},
        {"{% set n = namespace(l=[1]) %}{% for i in range(99) %}{% set n.l = n.l + n.l %}{% endfor %}",
         "MiB"},
        {"{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l }}",
         "deeper"},
        {"{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}{{ n.l == "
         "n.l }}",
         "deeper"},
        {"{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% endfor %}{{ "
         "n.l|tojson }}",
         "deeper"},
        {"{% set n = namespace() %}{% set n.x = n %}{{ n }}", "deeper"},
        {"{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "deeper"},
        {"{% macro m(a) %}{% for i in [1] %}{{ m(a) + m(a) }}{% endfor %}{% endmacro %}{{ m(1) }}", "deeper"},
        {"{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}", "deeper"},
        {"{{ 'a' * 99999999999 }}", "MiB"},
        {"{{ ('a' * 1000000).replace('a', 'b' * 100000) }}", "MiB"},
        {"{{ '%99999s' % 'a' * 99999 }}", "MiB"},
        {"{{ '%999999999s' % 'a' }}", "wider"},
        {"{{ '{:999999999}'.format(1) }}", "wider"},
        {"{{ 'a'.center(999999999999) }}", "MiB"},
        {"{{ 9 ** 9 ** 9 }}", "64 bits"},
        {"{{ range(100001) }}", "Range too big"},
        {"{% for i in range(100000) %}{{ 'abcdefgh' * 64 }}{% endfor %}", "writes more than"},
        {"{% for i in range(100000) %}{% set x = ('a' * 99999).rfind('b' * 5000) %}{% endfor %}",
         "more than"},
        {"{% for i in range(100000) %}{% set x = 'é'|join('é' * 99999) %}{{ ('é' * 9999)[9000] }}{% endfor "
         "%}",
         "more than"},
    };
    for (size_t i = 0; i < sizeof bombs / sizeof *bombs; i++) {
        struct buf out = {0};
        int rc = marked(bombs[i].source, strlen(bombs[i].source), "{}", &out);
        if ((rc != ERR_TOO_LARGE && rc != ERR_INVALID) || strstr(out.p, bombs[i].why) == NULL)
            fail_msg("%s\n  wanted '%s', got %.300s", bombs[i].source, bombs[i].why, out.p);
        buf_free(&out);
    }
}

static void repeated(struct buf *b, const char *before, const char *what, size_t times, const char *after) {
    buf_clear(b);
    buf_text(b, before);
    for (size_t i = 0; i < times; i++)
        buf_text(b, what);
    buf_text(b, after);
}

static void test_deep_sources(void **state) {
    static const struct {
        const char *before, *what, *after;
        size_t times;
    } deep[] = {
        {"{{ ", "[", "", 1000000},
        {"{{ ", "(", "", 1000000},
        {"{{ ", "{1:", "", 300000},
        {"{{ ", "not ", "1 }}", 200000},
        {"{{ ", "- ", "1 }}", 200000},
        {"{{ ", "1+", "1 }}", 200000},
        {"{{ a", ".a", " }}", 200000},
        {"{{ a", "[0]", " }}", 200000},
        {"{{ 1", "|string", " }}", 100000},
        {"", "{% if 1 %}", "", 90000},
        {"", "{% for i in [1] %}", "", 50000},
        {"{{ ", "1 if 0 else ", "1 }}", 60000},
        {"{{ x is ", "in ", "1 }}", 100000},
        {"{{ 1", " and 1", " }}", 150000},
        {"{% set ", "(", "", 500000},
        {"", "{% macro m() %}", "", 60000},
        {"{{ a", "()", " }}", 300000},
        {"", "{% filter e %}", "", 60000},
    };
    struct buf source = {0};
    for (size_t i = 0; i < sizeof deep / sizeof *deep; i++) {
        repeated(&source, deep[i].before, deep[i].what, deep[i].times, deep[i].after);
        struct buf out = {0};
        int rc = marked(source.p, source.n, "{\"a\": {}}", &out);
        if (rc != ERR_TOO_LARGE && rc != ERR_INVALID)
            fail_msg("%s...: %d %.100s", deep[i].what, rc, out.p);
        buf_free(&out);
    }
    /* Long is not deep. */
    struct buf out = {0};
    repeated(&source, "{{ 1", "~1", 100000, " }}");
    assert_int_equal(marked(source.p, source.n, "{}", &out), 0);
    assert_int_equal(out.n, 100004);
    repeated(&source, "{% if 0 %}", "{% elif 0 %}", 50000, "{% else %}x{% endif %}");
    assert_int_equal(marked(source.p, source.n, "{}", &out), 0);
    assert_string_equal(out.p, "C:x|");
    repeated(&source, "", "x", (1 << 20) + 1, "");
    expect_refusal(source.p, source.n, ERR_TOO_LARGE, "at most 1048576");
    buf_free(&out);
    buf_free(&source);
}

/* A long conversation is no bomb: 4,000 turns, 8 MB. */
static void test_long_conversation(void **state) {
    struct buf vars = {0}, out = {0};
    buf_text(&vars, "{\"messages\":[");
    for (int i = 0; i < 4000; i++) {
        buf_printf(&vars, "%s{\"role\":\"%s\",\"content\":\"", i ? "," : "", i % 2 ? "assistant" : "user");
        for (int k = 0; k < 200; k++)
            buf_text(&vars, "some text ");
        buf_text(&vars, "\"}");
    }
    buf_text(&vars, "]}");
    static const char source[] = "{% for m in messages %}{% set c = m.content|trim %}<|{{ m.role }}|>\n{{ "
                                 "c.split('</think>')[-1] }}<|end|>\n"
                                 "{% endfor %}";
    assert_int_equal(marked(source, sizeof source - 1, vars.p, &out), 0);
    assert_true(out.n > 8000000);
    buf_free(&vars);
    buf_free(&out);
}

/* ---- one template, many threads ---- */

static struct template *shared;
static struct json *shared_vars;

static void *render_often(void *result) {
    for (int i = 0; i < 50; i++) {
        struct rendered r;
        struct error e;
        if (template_render(shared, shared_vars, NULL, NOON, &r, &e) != 0 ||
            !str_is(buf_view(&r.text), "USER é 3 2025 Straße STRASSE;"))
            *(bool *)result = true;
        rendered_free(&r);
    }
    return NULL;
}

static void test_threads(void **state) {
    struct error e;
    pthread_t thread[4];
    bool wrong[4] = {false};
    assert_int_equal(
        template_parse(&shared,
                       STR("{% for m in messages %}{{ m.role|upper }} {{ 'é日'[0] }} {{ 'é日x'|length }} "
                           "{{ strftime_now('%Y') }} {{ 'Straße' }} {{ 'Straße'|upper }};{% endfor %}"),
                       &e),
        0);
    assert_int_equal(json_parse(&shared_vars, STR("{\"messages\":[{\"role\":\"user\"}]}"), &e), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, render_often, &wrong[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        assert_false(wrong[i]);
    }
    template_free(shared);
    json_free(shared_vars);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_meaning),      cmocka_unit_test(test_errors_say_where),
        cmocka_unit_test(test_authorship),   cmocka_unit_test(test_bombs),
        cmocka_unit_test(test_deep_sources), cmocka_unit_test(test_long_conversation),
        cmocka_unit_test(test_threads),
    };
    setenv("TZ", "UTC", 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
