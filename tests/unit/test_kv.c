/* The page pool and its prefix cache: references, names, whose pages are found, what is evicted and when, several models on one budget. */
#include "engine/kv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PAGE = 4096 };

static struct kv *pool(struct kv_budget *b, size_t page_bytes) {
    struct kv *k;
    struct error e = {0};
    struct chip_kv layout = {.page_bytes = page_bytes};
    assert_int_equal(kv_create(&k, b, &layout, &e), 0);
    assert_non_null(layout.base);
    assert_int_equal(layout.page_bytes % PAGE, 0);
    memset(layout.base, 1, layout.page_bytes); /* it can be written */
    return k;
}

static void tokens_from(token_id *t, token_id first) {
    for (int i = 0; i < KV_PAGE_TOKENS; i++)
        t[i] = first + i;
}

static void counts(const struct kv *k, uint64_t held, uint64_t cached) {
    uint64_t h = 0, c = 0;
    kv_count(k, &h, &c);
    assert_int_equal(h, held);
    assert_int_equal(c, cached);
}

static void test_pages_come_and_go(void **state) {
    struct kv_budget b;
    uint32_t page[4];
    kv_budget_start(&b, 4 * PAGE + 100);
    struct kv *k = pool(&b, PAGE - 64);
    assert_int_equal(kv_pages(k), 4);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(kv_available(k), 4 - i);
        page[i] = kv_acquire(k);
        assert_true(page[i] < 4);
        for (int j = 0; j < i; j++)
            assert_int_not_equal(page[i], page[j]);
    }
    assert_int_equal(kv_acquire(k), KV_NO_PAGE);
    counts(k, 4, 0);
    kv_release(k, page[2]); /* it has no name: it is empty at once */
    counts(k, 3, 0);
    assert_int_equal(kv_acquire(k), page[2]);
    for (int i = 0; i < 4; i++)
        kv_release(k, page[i]);
    counts(k, 0, 0);
    assert_int_equal(b.used, 0);
    kv_free(k);
}

static void test_too_small(void **state) {
    struct kv_budget b;
    struct kv *k;
    struct error e = {0};
    struct chip_kv layout = {.page_bytes = 2 * PAGE};
    kv_budget_start(&b, PAGE);
    assert_int_equal(kv_create(&k, &b, &layout, &e), ERR_NO_MEMORY);
    assert_null(k);
    assert_non_null(strstr(e.text, "4096"));
}

static void test_names(void **state) {
    struct kv_budget b, other_secret;
    token_id t[KV_PAGE_TOKENS], u[KV_PAGE_TOKENS];
    kv_budget_start(&b, 4 * PAGE);
    kv_budget_start(&other_secret, 4 * PAGE);
    struct kv *k = pool(&b, PAGE), *foreign = pool(&other_secret, PAGE);
    tokens_from(t, 100);
    tokens_from(u, 100);
    struct hash name = kv_name(k, 1, NULL, t), again = kv_name(k, 1, NULL, u);
    assert_true(hash_equal(&name, &again));
    u[31]++;
    const struct hash different[] = {
        kv_name(k, 2, NULL, t),       /* another account */
        kv_name(k, 1, &name, t),      /* another beginning */
        kv_name(k, 1, NULL, u),       /* other tokens */
        kv_name(foreign, 1, NULL, t), /* another engine: nobody can compute names in advance */
    };
    for (size_t i = 0; i < sizeof different / sizeof *different; i++)
        assert_false(hash_equal(&name, &different[i]));
    kv_free(k);
    kv_free(foreign);
}

static void test_find(void **state) {
    struct kv_budget b;
    token_id t[KV_PAGE_TOKENS], u[KV_PAGE_TOKENS];
    kv_budget_start(&b, 4 * PAGE);
    struct kv *k = pool(&b, PAGE);
    tokens_from(t, 1);
    tokens_from(u, 2);
    struct hash name = kv_name(k, 1, NULL, t);
    uint32_t page = kv_acquire(k), twin = kv_acquire(k);
    assert_int_equal(kv_find(k, &name, t), KV_NO_PAGE);
    kv_publish(k, page, &name, t);
    kv_publish(k, twin, &name, t); /* computed twice: the first stays the known one */
    assert_int_equal(kv_find(k, &name, t), page);
    /* Equal names with other tokens, as after a collision, are no hit. */
    assert_int_equal(kv_find(k, &name, u), KV_NO_PAGE);
    kv_release(k, twin);
    counts(k, 1, 0);
    kv_release(k, page);
    counts(k, 1, 0); /* the finder's reference */
    kv_release(k, page);
    counts(k, 0, 1);
    assert_int_equal(kv_available(k), 4);
    assert_int_equal(kv_find(k, &name, t), page); /* content outlives its holders */
    counts(k, 1, 0);
    kv_release(k, page);
    kv_free(k);
}

static void test_least_recently_used_goes_first(void **state) {
    struct kv_budget b;
    struct hash name[4];
    token_id t[4][KV_PAGE_TOKENS];
    uint32_t page[4];
    kv_budget_start(&b, 4 * PAGE);
    struct kv *k = pool(&b, PAGE);
    for (int i = 0; i < 4; i++) {
        tokens_from(t[i], 1000 * i);
        name[i] = kv_name(k, 1, NULL, t[i]);
        page[i] = kv_acquire(k);
        kv_publish(k, page[i], &name[i], t[i]);
    }
    for (int i = 0; i < 4; i++)
        kv_release(k, page[i]);
    counts(k, 0, 4);
    assert_int_equal(kv_find(k, &name[0], t[0]), page[0]); /* used again: now the youngest */
    kv_release(k, page[0]);
    assert_int_equal(kv_acquire(k), page[1]);
    assert_int_equal(kv_acquire(k), page[2]);
    assert_int_equal(kv_find(k, &name[1], t[1]), KV_NO_PAGE);
    assert_int_equal(kv_find(k, &name[0], t[0]), page[0]);
    assert_int_equal(kv_acquire(k), page[3]);
    assert_int_equal(kv_acquire(k), KV_NO_PAGE); /* held ones are never taken */
    counts(k, 4, 0);
    kv_free(k);
}

static void test_models_share_a_budget(void **state) {
    struct kv_budget b;
    token_id t[KV_PAGE_TOKENS];
    uint32_t page[8];
    kv_budget_start(&b, 8 * PAGE);
    struct kv *small = pool(&b, PAGE), *large = pool(&b, 4 * PAGE);
    assert_int_equal(kv_pages(small), 8);
    assert_int_equal(kv_pages(large), 2);
    for (int i = 0; i < 8; i++) {
        page[i] = kv_acquire(small);
        tokens_from(t, i);
        struct hash name = kv_name(small, 1, NULL, t);
        kv_publish(small, page[i], &name, t);
    }
    assert_int_equal(kv_available(large), 0);
    assert_int_equal(kv_acquire(large), KV_NO_PAGE);
    for (int i = 0; i < 5; i++)
        kv_release(small, page[i]);
    counts(small, 3, 5);
    assert_int_equal(kv_available(large), 1);
    assert_int_not_equal(kv_acquire(large), KV_NO_PAGE); /* the small one's cache pays */
    counts(small, 3, 1);
    assert_int_equal(b.used, 8 * PAGE);
    assert_int_equal(b.resident, 8 * PAGE); /* and with its memory, not only its share */
    assert_int_equal(kv_available(small), 1);
    kv_free(small);
    assert_int_equal(b.used, 4 * PAGE);
    assert_int_equal(b.resident, 4 * PAGE);
    kv_free(large);
    assert_int_equal(b.used, 0);
}

/* Against a plain model of what should be there: a list of references and names. */
static void test_random(void **state) {
    enum { PAGES = 12, NAMES = 20, OPERATIONS = 50000 };
    struct kv_budget b;
    struct hash name[NAMES];
    token_id t[NAMES][KV_PAGE_TOKENS];
    uint32_t references[PAGES] = {0};
    int content[PAGES];
    uint64_t random = 1;
    memset(content, -1, sizeof content);
    kv_budget_start(&b, PAGES * PAGE);
    struct kv *k = pool(&b, PAGE);
    for (int i = 0; i < NAMES; i++) {
        tokens_from(t[i], 100 * i);
        name[i] = kv_name(k, 1, NULL, t[i]);
    }
    for (int i = 0; i < OPERATIONS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint32_t page = (uint32_t)(random >> 33) % PAGES, n = (uint32_t)(random >> 50) % NAMES;
        int what = (int)(random >> 60) % 4, held = 0;
        if (what == 0 && (page = kv_acquire(k)) != KV_NO_PAGE) {
            assert_int_equal(references[page], 0);
            references[page] = 1;
            content[page] = -1;
        } else if (what == 1 && references[page] != 0) {
            kv_release(k, page);
            references[page]--;
        } else if (what == 2 && (page = kv_find(k, &name[n], t[n])) != KV_NO_PAGE) {
            assert_int_equal(content[page], n);
            references[page]++;
        } else if (what == 3 && page < PAGES && references[page] != 0 && content[page] < 0) {
            uint32_t known = kv_find(k, &name[n], t[n]);
            if (known != KV_NO_PAGE)
                kv_release(k, known);
            else
                content[page] = (int)n;
            kv_publish(k, page, &name[n], t[n]);
        }
        for (int p = 0; p < PAGES; p++)
            held += references[p] != 0;
        uint64_t h = 0, c = 0;
        kv_count(k, &h, &c);
        assert_int_equal(h, held);
        assert_int_equal(b.used, (h + c) * PAGE);
        assert_true(b.used <= b.resident && b.resident <= b.limit);
        assert_int_equal(kv_available(k), PAGES - held);
    }
    kv_free(k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pages_come_and_go),
        cmocka_unit_test(test_too_small),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_least_recently_used_goes_first),
        cmocka_unit_test(test_models_share_a_budget),
        cmocka_unit_test(test_random),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
