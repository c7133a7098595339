/* The model file reader against hostile files: a small valid one is made here, then cut short and damaged in every way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/buf.h"
#include "model/gguf.h"

static void put(struct buf *b, uint64_t x, size_t bytes) {
    buf_append(b, &x, bytes);
}

static void put_name(struct buf *b, const char *name) {
    put(b, strlen(name), 8);
    buf_text(b, name);
}

/* Where things lie in the file that make_file writes. */
struct layout {
    size_t version, tensors, keys, first_dims, first_dim0, first_type, second_offset, data;
};

static struct buf make_file(struct layout *at) {
    struct buf b = {0};
    buf_text(&b, "GGUF");
    at->version = b.n;
    put(&b, 3, 4);
    at->tensors = b.n;
    put(&b, 2, 8);
    at->keys = b.n;
    put(&b, 3, 8);
    put_name(&b, "a.number");
    put(&b, GGUF_U32, 4);
    put(&b, 77, 4);
    put_name(&b, "a.text");
    put(&b, GGUF_STRING, 4);
    put_name(&b, "words");
    put_name(&b, "a.list");
    put(&b, GGUF_ARRAY, 4);
    put(&b, GGUF_STRING, 4);
    put(&b, 2, 8);
    put_name(&b, "x");
    put_name(&b, "yz");
    for (int i = 0; i < 2; i++) {
        put_name(&b, i ? "second" : "first");
        if (i == 0)
            at->first_dims = b.n;
        put(&b, 2, 4);
        if (i == 0)
            at->first_dim0 = b.n;
        put(&b, 32, 8);
        put(&b, 2, 8);
        if (i == 0)
            at->first_type = b.n;
        put(&b, FORMAT_Q8_0, 4);
        if (i == 1)
            at->second_offset = b.n;
        put(&b, i ? 96 : 0, 8);
    }
    while (b.n % 32 != 0)
        buf_byte(&b, 0);
    at->data = b.n;
    for (int i = 0; i < 96 + 68; i++)
        buf_byte(&b, (char)i);
    return b;
}

static int open_bytes(struct buf b) {
    struct gguf *g;
    struct error e = {0};
    /* A copy of exact size, so that the address sanitizer sees one byte too many. */
    char *copy = malloc(b.n ? b.n : 1);
    memcpy(copy, b.p, b.n);
    int rc = gguf_open_memory(&g, (struct str){copy, b.n}, &e);
    assert_true(rc == 0 || (rc == (int)e.code && e.text[0] != 0));
    gguf_close(g);
    free(copy);
    return rc;
}

static void test_reads(void **state) {
    struct layout at;
    struct buf b = make_file(&at);
    struct gguf *g;
    struct error e;
    uint64_t n;
    struct str s;
    struct gguf_array a;
    (void)state;
    assert_int_equal(gguf_open_memory(&g, buf_view(&b), &e), 0);
    assert_true(gguf_u64(g, "a.number", &n) && n == 77);
    assert_true(gguf_str(g, "a.text", &s) && str_is(s, "words"));
    assert_false(gguf_u64(g, "a.text", &n));
    assert_true(gguf_array(g, "a.list", &a) && a.count == 2);
    assert_true(str_is(gguf_array_str(&a, 1), "yz"));
    assert_int_equal(gguf_array_str(&a, 2).n, 0);
    const struct gguf_tensor *t = gguf_tensor_find(g, "second");
    assert_non_null(t);
    assert_int_equal(t->bytes, 68);
    assert_ptr_equal(t->data, b.p + at.data + 96);
    assert_null(gguf_tensor_find(g, "third"));
    gguf_close(g);
    buf_free(&b);
}

static void test_every_truncation(void **state) {
    struct layout at;
    struct buf b = make_file(&at);
    (void)state;
    for (size_t n = b.n; n-- > 0;)
        assert_int_not_equal(open_bytes((struct buf){.p = b.p, .n = n}), 0);
    buf_free(&b);
}

static void test_hostile_fields(void **state) {
    struct layout at;
    struct buf b = make_file(&at);
    const struct {
        size_t place, bytes;
        uint64_t value;
    } bad[] = {
        {0, 4, 0x46475547}, /* the magic back to front */
        {at.version, 4, 1},
        {at.tensors, 8, UINT64_MAX},
        {at.tensors, 8, 1ull << 40},
        {at.keys, 8, UINT64_MAX},
        {at.keys, 8, 1ull << 62},
        {at.first_dims, 4, 0},
        {at.first_dims, 4, 5},
        {at.first_dims, 4, UINT32_MAX},
        {at.first_dim0, 8, 0},
        {at.first_dim0, 8, 33},
        {at.first_dim0, 8, 1ull << 63},
        {at.first_dim0, 8, 1ull << 60},
        {at.first_type, 4, 4},
        {at.first_type, 4, UINT32_MAX},
        {at.second_offset, 8, 64}, /* overlaps the first */
        {at.second_offset, 8, 97}, /* not aligned */
        {at.second_offset, 8, UINT64_MAX - 31},
        {at.second_offset, 8, 1 << 20},
    };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct buf copy = {0};
        buf_append(&copy, b.p, b.n);
        memcpy(copy.p + bad[i].place, &bad[i].value, bad[i].bytes);
        assert_int_not_equal(open_bytes(copy), 0);
        buf_free(&copy);
    }
    buf_free(&b);
}

static void test_random_damage(void **state) {
    struct layout at;
    struct buf b = make_file(&at);
    uint32_t random = 12345;
    (void)state;
    for (int i = 0; i < 100000; i++) {
        struct buf copy = {0};
        buf_append(&copy, b.p, b.n);
        for (int k = 0; k < 3; k++) {
            random = random * 1664525 + 1013904223;
            copy.p[(random >> 8) % at.data] = (char)random;
        }
        open_bytes(copy);
        buf_free(&copy);
    }
    buf_free(&b);
}

/* A file cut short while it is mapped: zeros and a flag, not a dead program. */
static void test_truncated_while_mapped(void **state) {
    char path[] = "/tmp/unkai-test-gguf-XXXXXX";
    struct layout at;
    struct buf b = make_file(&at);
    struct gguf *g;
    struct error e;
    (void)state;
    for (int i = 0; i < 100000; i++)
        buf_byte(&b, 1);
    int fd = mkstemp(path);
    assert_int_equal(write(fd, b.p, b.n), b.n);
    assert_int_equal(gguf_open(&g, path, &e), 0);
    assert_false(gguf_damaged(g));
    assert_int_equal(ftruncate(fd, 10), 0);
    struct str bytes = gguf_bytes(g);
    volatile char last = bytes.p[bytes.n - 1];
    assert_int_equal(last, 0);
    assert_true(gguf_damaged(g));
    gguf_close(g);
    close(fd);
    unlink(path);
    buf_free(&b);
}

/* One that is written to while it is mapped says so; one that another is renamed over does not change. */
static void test_written_while_mapped(void **state) {
    char path[] = "/tmp/unkai-test-gguf-XXXXXX", other[] = "/tmp/unkai-test-gguf-XXXXXX";
    struct layout at;
    struct buf b = make_file(&at);
    struct gguf *g;
    struct error e;
    (void)state;
    int fd = mkstemp(path), second = mkstemp(other);
    assert_int_equal(write(fd, b.p, b.n), b.n);
    assert_int_equal(gguf_open(&g, path, &e), 0);
    usleep(20000); /* the file system's clock ticks every few milliseconds */
    assert_int_equal(rename(other, path), 0);
    assert_false(gguf_damaged(g));
    assert_int_equal(pwrite(fd, "x", 1, (off_t)at.data), 1);
    assert_true(gguf_damaged(g));
    gguf_close(g);
    close(fd);
    close(second);
    unlink(path);
    buf_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reads),
        cmocka_unit_test(test_every_truncation),
        cmocka_unit_test(test_hostile_fields),
        cmocka_unit_test(test_random_damage),
        cmocka_unit_test(test_truncated_while_mapped),
        cmocka_unit_test(test_written_while_mapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
