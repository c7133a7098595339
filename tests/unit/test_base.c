/* The ground floor: buffers, UTF-8, JSON, arena. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/address.h"
#include "base/arena.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/seal.h"
#include "base/utf8.h"

static void test_json_round_trip(void **state) {
    static const char text[] =
        "{\"big\":9007199254740993,\"min\":-9223372036854775808,\"f\":0.1,\"z\":\"a\\u0000b\\n\","
        "\"a\":[true,false,null,1e300]}";
    struct json *v;
    struct error e;
    struct buf b = {0};
    (void)state;
    assert_int_equal(json_parse(&v, str_from(text), &e), 0);
    assert_true(json_as_int(json_get(v, "big")) == 9007199254740993LL);
    assert_int_equal(json_as_str(json_get(v, "z")).n, 4);
    json_write(&b, v);
    assert_string_equal(
        b.p, "{\"big\":9007199254740993,\"min\":-9223372036854775808,\"f\":0.1,\"z\":\"a\\u0000b\\n\","
             "\"a\":[true,false,null,1e+300]}");
    buf_free(&b);
    json_free(v);
}

static void test_json_refuses(void **state) {
    static const char *const bad[] = {"",           "{",  "[1,]", "\"\xff\"", "99999999999999999999",
                                      "{\"a\":1}x", "nul"};
    struct json *v;
    struct error e;
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(json_parse(&v, str_from(bad[i]), &e), ERR_INVALID);
    char *deep = malloc(1000000);
    memset(deep, '[', 1000000);
    assert_int_equal(json_parse(&v, (struct str){deep, 1000000}, &e), ERR_INVALID);
    free(deep);
    struct buf wide = {0};
    buf_text(&wide, "{\":\":0"); /* a colon in a string is none */
    for (int i = 1; i < 1 << 16; i++)
        buf_printf(&wide, ",\"%d\":0", i);
    buf_byte(&wide, '}');
    assert_int_equal(json_parse(&v, buf_view(&wide), &e), 0);
    assert_int_equal(json_count(v), 1 << 16);
    json_free(v);
    wide.n--;
    buf_text(&wide, ",\"x\":0}");
    assert_int_equal(json_parse(&v, buf_view(&wide), &e), ERR_INVALID);
    buf_free(&wide);
}

static void test_utf8(void **state) {
    size_t n;
    char out[4];
    struct buf b = {0};
    (void)state;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (c >= 0xD800 && c < 0xE000)
            continue;
        size_t m = utf8_encode(c, out);
        assert_int_equal(utf8_decode((struct str){out, m}, &n), c);
        assert_int_equal(n, m);
        for (size_t cut = 1; cut < m; cut++)
            assert_int_equal(utf8_incomplete_tail((struct str){out, cut}), cut);
        assert_int_equal(utf8_incomplete_tail((struct str){out, m}), 0);
    }
    assert_false(utf8_valid(STR("\xC0\x80")));
    assert_false(utf8_valid(STR("\xED\xA0\x80")));
    assert_false(utf8_valid(STR("\xF4\x90\x80\x80")));
    /* Each R stands for U+FFFD; as Python's bytes.decode(errors="replace") has it. */
    static const struct {
        struct str broken;
        const char *repaired;
    } repair[] = {
        {STR("a\xFFz"), "aRz"},          {STR("\xE3\x81"), "R"},
        {STR("\xE3\x81x"), "Rx"},        {STR("\xF0\x9F\x98"), "R"},
        {STR("\xF0\x9F\x98\xFF"), "RR"}, {STR("\xE0\x80\x80"), "RRR"},
        {STR("\xED\xA0\x80"), "RRR"},    {STR("\xF4\x90\x80\x80"), "RRRR"},
        {STR("\xC0\xAF"), "RR"},         {STR("\xE3\xE3\x81\x82"), "R\xE3\x81\x82"},
        {STR("\xF1\x80\x80\xC2"), "RR"},
    };
    for (size_t i = 0; i < sizeof repair / sizeof *repair; i++) {
        struct buf want = {0};
        for (const char *r = repair[i].repaired; *r != 0; r++)
            if (*r == 'R')
                buf_text(&want, "\xEF\xBF\xBD");
            else
                buf_byte(&want, *r);
        buf_clear(&b);
        utf8_append_repaired(&b, repair[i].broken);
        assert_int_equal(b.n, want.n);
        assert_memory_equal(b.p, want.p, b.n);
        buf_free(&want);
    }
    buf_free(&b);
}

static void test_buf_limit(void **state) {
    struct buf b = {.limit = 10};
    (void)state;
    buf_text(&b, "12345");
    buf_text(&b, "123456");
    assert_true(b.failed);
    assert_string_equal(b.p, "12345");
    buf_free(&b);
}

/* Short and long, at the end of what there is and past a limit. */
static void test_buf_text(void **state) {
    char want[300];
    (void)state;
    for (int n = 0; n < 260; n++) {
        struct buf b = {0}, small = {.limit = 100};
        buf_printf(&b, "%s%*d;", "a", n, 7);
        snprintf(want, sizeof want, "a%*d;", n, 7);
        assert_string_equal(b.p, want);
        assert_int_equal(b.n, strlen(want));
        buf_printf(&b, "%s", want);
        assert_int_equal(b.n, 2 * strlen(want));
        buf_printf(&small, "%s", want);
        assert_int_equal(small.failed, strlen(want) > 100);
        buf_free(&b);
        buf_free(&small);
    }
    static const uint64_t number[] = {0, 9, 10, 4294967296, UINT64_MAX};
    for (size_t i = 0; i < sizeof number / sizeof *number; i++) {
        struct buf b = {0};
        buf_number(&b, number[i]);
        snprintf(want, sizeof want, "%llu", (unsigned long long)number[i]);
        assert_string_equal(b.p, want);
        buf_free(&b);
    }
}

static void test_arena(void **state) {
    struct arena a = {.limit = 100000};
    (void)state;
    for (size_t i = 1; i < 200; i++) {
        unsigned char *p = arena_alloc(&a, i);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t k = 0; k < i; k++)
            assert_int_equal(p[k], 0);
        memset(p, 0xAA, i);
    }
    assert_null(arena_alloc(&a, 100000));
    assert_null(arena_array(&a, SIZE_MAX / 2, 4));
    arena_free(&a);
}

static void test_hash(void **state) {
    struct hash h = hash_sha256(STR("abc"));
    char hex[HASH_HEX + 1], fifty[50], long_key[131];
    (void)state;
    memset(fifty, 0xCD, sizeof fifty);
    memset(long_key, 0xAA, sizeof long_key);
    hash_hex(&h, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* RFC 4231, test cases 1, 2, 4 and 6. */
    struct {
        struct str key, data;
        const char *hmac;
    } known[] = {
        {STR("\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b\x0b"),
         STR("Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
        {STR("Jefe"), STR("what do ya want for nothing?"),
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
        {STR("\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17"
             "\x18\x19"),
         {fifty, sizeof fifty},
         "82558a389a443c0ea4cc819899f2083a85f0faa3e578f8077a2e3ff46729665b"},
        {{long_key, sizeof long_key},
         STR("Test Using Larger Than Block-Size Key - Hash Key First"),
         "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        h = hash_hmac(known[i].key, known[i].data);
        hash_hex(&h, hex);
        assert_string_equal(hex, known[i].hmac);
    }
}

static void test_seal(void **state) {
    enum { BYTES = 10000 };
    static unsigned char plain[BYTES], data[BYTES];
    uint8_t tag[SEAL_TAG_BYTES], other_tag[SEAL_TAG_BYTES];
    struct seal *s = seal_create(), *other = seal_create();
    (void)state;
    for (int i = 0; i < BYTES; i++)
        plain[i] = data[i] = (unsigned char)(i * 7);
    for (size_t n = 0; n <= BYTES; n = n * 3 + 1) { /* any length */
        assert_true(seal_lock(s, n, STR("name"), data, n, tag));
        assert_true(n < 16 || memcmp(data, plain, n) != 0);
        assert_true(seal_open(s, n, STR("name"), data, n, tag));
        assert_memory_equal(data, plain, BYTES);
    }
    /* Another number, binding, seal, length, tag or bit: it does not open. */
    for (int i = 0; i < 6; i++) {
        memcpy(data, plain, BYTES);
        assert_true(seal_lock(s, 1000000 + (uint64_t)i, STR("name"), data, BYTES, tag));
        memcpy(other_tag, tag, sizeof tag);
        other_tag[15] ^= i == 4;
        data[BYTES - 1] ^= i == 5;
        assert_false(seal_open(i == 2 ? other : s, 1000000 + (uint64_t)i + (i == 0),
                               i == 1 ? STR("nama") : STR("name"), data, BYTES - (i == 3), other_tag));
    }
    seal_free(s);
    seal_free(other);
    seal_free(NULL);
}

static void test_base64(void **state) {
    static const char *const known[] = {
        "",     "",         "f",     "Zg==",     "fo",     "Zm8=",     "foo",          "Zm9v",
        "foob", "Zm9vYg==", "fooba", "Zm9vYmE=", "foobar", "Zm9vYmFy", "\xff\xfe\xfb", "//77"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i += 2) {
        struct buf b = {0};
        buf_text(&b, "");
        buf_base64(&b, str_from(known[i]));
        assert_true(str_is(buf_view(&b), known[i + 1]));
        buf_free(&b);
    }
}

static void test_address(void **state) {
    static const struct {
        const char *network, *inside, *outside;
    } table[] = {
        {"10.0.0.0/8", "10.255.0.1", "11.0.0.0"},
        {"192.0.2.7", "192.0.2.7", "192.0.2.6"},
        {"192.0.2.6/31", "192.0.2.7", "192.0.2.8"},
        {"0.0.0.0/0", "255.255.255.255", "::1"},
        {"2001:db8::/33", "2001:db8:7fff::1", "2001:db8:8000::"},
        {"::1/128", "::1", "::"},
        {"10.0.0.0/8", "::ffff:10.1.2.3", "::10.1.2.3"}, /* as a socket of both families tells it */
    };
    static const char *const bad[] = {"",
                                      "/",
                                      "10.0.0.0/33",
                                      "10.0.0.1/8",
                                      "10.0.0.0/",
                                      "10.0.0.0/8/8",
                                      "10.0.0.0/-1",
                                      "10.0.0.0/08888",
                                      "1.2.3",
                                      "host",
                                      "::/129",
                                      "1.2.3.4:80",
                                      "[::1]",
                                      "fe80::1%eth0",
                                      "::1/127"};
    static const char *const inside[] = {
        "127.0.0.1",   "10.1.2.3",        "172.31.0.1",   "192.168.1.1",     "169.254.169.254",
        "100.64.0.1",  "0.0.0.0",         "224.0.0.1",    "255.255.255.255", "::",
        "::1",         "fe80::1",         "fd00::1",      "ff02::1",         "::ffff:127.0.0.1",
        "::127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"};
    static const char *const outside[] = {"8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1111",
                                          "::ffff:8.8.8.8"};
    char text[ADDRESS_TEXT_BYTES];
    struct address a;
    struct network n;
    struct error e;
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct buf out = {0};
        assert_int_equal(network_parse(str_from(table[i].network), &n, &e), 0);
        assert_true(address_parse(str_from(table[i].inside), &a) && network_has(&n, &a));
        assert_true(address_parse(str_from(table[i].outside), &a) && !network_has(&n, &a));
        network_write(&out, &n);
        if (strcmp(table[i].network, "::1/128") != 0)
            assert_string_equal(out.p, table[i].network);
        buf_free(&out);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(network_parse(str_from(bad[i]), &n, &e), ERR_INVALID);
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        assert_true(address_parse(str_from(inside[i]), &a) && !address_public(&a));
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
        assert_true(address_parse(str_from(outside[i]), &a) && address_public(&a));
    assert_true(address_parse(STR("2001:DB8:0::1"), &a));
    address_write(&a, text);
    assert_string_equal(text, "2001:db8::1");
    assert_false(address_parse(((struct str){"1.2.3.4\0", 8}), &a));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_address),
        cmocka_unit_test(test_base64),
        cmocka_unit_test(test_json_round_trip),
        cmocka_unit_test(test_json_refuses),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_buf_limit),
        cmocka_unit_test(test_buf_text),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_hash),
        cmocka_unit_test(test_seal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
