/* The file of KV pages: what was put comes back to the last bit or not at all; the log's order; a full disk, a failing one, one that is too slow, one that changes bytes; and that
 * nobody else finds or reads the file. The last part is the page pool on top of it. */
#include "engine/kv.h"
#include "engine/kv_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PAGE = 4096, LARGE = 1 << 20 };

static char folder[] = "/tmp/unkai-kv-file-XXXXXX";
static pthread_mutex_t gate =
    PTHREAD_MUTEX_INITIALIZER; /* who holds it stops the file's thread after its next read */
static atomic_uint woken;

static void on_wake(void *context) {
    pthread_mutex_lock(&gate);
    pthread_mutex_unlock(&gate);
    atomic_fetch_add(&woken, 1);
}

static struct kv_file *open_file(uint64_t bytes) {
    struct kv_file *f;
    struct error e = {0};
    if (kv_file_open(&f, folder, bytes, on_wake, NULL, &e) != 0)
        fail_msg("%s", e.text);
    return f;
}

static struct kv_key key(uint64_t pool, uint32_t number) {
    struct kv_key k = {.pool = pool};
    k.name = hash_sha256((struct str){(const char *)&number, sizeof number});
    k.token[0] = (token_id)number;
    return k;
}

/* What page `number` holds. */
static void content(unsigned char *page, size_t bytes, uint32_t number) {
    uint64_t random = number * 2654435761u + 1;
    for (size_t i = 0; i < bytes; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        page[i] = (unsigned char)(random >> 56);
    }
}

static void put(struct kv_file *f, uint64_t pool, uint32_t number, size_t bytes) {
    static unsigned char page[LARGE];
    struct kv_key k = key(pool, number);
    content(page, bytes, number);
    kv_file_put(f, &k, page, bytes);
}

static struct kv_file_stats counts(struct kv_file *f) {
    struct kv_file_stats s;
    kv_file_count(f, &s);
    return s;
}

/* Until so many pages have been written or dropped. */
static void settle(struct kv_file *f, uint64_t pages) {
    for (struct kv_file_stats s = counts(f); s.spilled + s.dropped < pages; s = counts(f))
        usleep(200);
}

static void put_all(struct kv_file *f, uint32_t first, uint32_t end, size_t bytes) {
    for (uint32_t i = first; i < end; i++) {
        struct kv_file_stats s = counts(f);
        put(f, 1, i, bytes);
        settle(f, s.spilled + s.dropped + 1);
    }
}

static bool has(struct kv_file *f, uint64_t pool, uint32_t number, size_t bytes) {
    struct kv_key k = key(pool, number);
    return kv_file_has(f, &k, bytes, 1e18);
}

static struct kv_arrival arrival(struct kv_file *f) {
    struct kv_arrival a;
    while (!kv_file_take(f, &a))
        usleep(100);
    return a;
}

enum got { ABSENT, BROKEN, WHOLE };

static enum got get(struct kv_file *f, uint64_t pool, uint32_t number, size_t bytes) {
    static unsigned char page[LARGE], expected[LARGE];
    struct kv_key k = key(pool, number);
    memset(page, 0, bytes);
    if (!kv_file_get(f, &k, page, bytes, number))
        return ABSENT;
    struct kv_arrival a = arrival(f);
    assert_int_equal(a.pool, pool);
    assert_int_equal(a.number, number);
    content(expected, bytes, number);
    if (a.whole)
        assert_memory_equal(page, expected, bytes);
    return a.whole ? WHOLE : BROKEN;
}

/* The descriptor of the file, which has no path: by its folder. */
static int descriptor(void) {
    char path[64], target[4096];
    for (int fd = 3; fd < 200; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t n = readlink(path, target, sizeof target - 1);
        if (n > 0 && strncmp(target, folder, strlen(folder)) == 0)
            return fd;
    }
    fail_msg("the file is not open");
    return -1;
}

/* ---- the log ---- */

static void test_what_was_put_comes_back(void **state) {
    struct kv_file *f = open_file(64 * PAGE);
    assert_int_equal(get(f, 1, 0, PAGE), ABSENT);
    for (uint32_t i = 0; i < 20; i++)
        put(f, 1, i, PAGE);
    for (uint32_t i = 0; i < 20; i++) /* some from the file, some before they are written */
        assert_int_equal(get(f, 1, i, PAGE), WHOLE);
    settle(f, 20);
    for (uint32_t i = 20; i-- > 0;)
        assert_int_equal(get(f, 1, i, PAGE), WHOLE);
    assert_int_equal(get(f, 2, 0, PAGE), ABSENT);     /* another model's */
    assert_int_equal(get(f, 1, 0, 2 * PAGE), ABSENT); /* another size */
    struct kv_key other = key(1, 3);
    other.token[5] = 77; /* the same name with other tokens, as after a collision, does not open */
    unsigned char page[PAGE];
    assert_true(kv_file_get(f, &other, page, PAGE, 9));
    assert_false(arrival(f).whole);
    struct kv_file_stats s = counts(f);
    assert_int_equal(s.spilled, 20);
    assert_int_equal(s.dropped, 0);
    assert_int_equal(s.restored, 40);
    assert_int_equal(s.failed, 1);
    assert_int_equal(s.bytes, 19 * PAGE);
    assert_true(atomic_load(&woken) > 0);
    kv_file_close(f);
}

static void test_the_oldest_goes_first(void **state) {
    struct kv_file *f = open_file(10 * PAGE + 100);
    put_all(f, 0, 10, PAGE);
    for (uint32_t i = 0; i < 10; i++)
        assert_true(has(f, 1, i, PAGE));
    put_all(f, 10, 12, PAGE); /* round, over the oldest */
    for (uint32_t i = 0; i < 12; i++)
        assert_int_equal(has(f, 1, i, PAGE), i >= 2);
    assert_int_equal(counts(f).bytes, 10 * PAGE);
    /* What was written lately is not written again; what would go soon is. */
    put_all(f, 100, 100, PAGE);
    put(f, 1, 11, PAGE);
    put(f, 1, 2, PAGE);
    settle(f, 13);
    assert_int_equal(counts(f).spilled, 13);
    put_all(f, 12, 15, PAGE);
    assert_int_equal(get(f, 1, 2, PAGE), WHOLE);
    put(f, 1, 50, 11 * PAGE); /* larger than the file */
    assert_int_equal(counts(f).dropped, 1);
    assert_int_equal(get(f, 1, 14, PAGE), WHOLE);
    kv_file_close(f);
}

static void test_a_pool_ends(void **state) {
    static unsigned char page[20][PAGE];
    struct kv_file *f = open_file(64 * PAGE);
    for (uint32_t i = 0; i < 20; i++)
        put(f, 1 + i % 2, i, PAGE);
    for (uint32_t i = 0; i < 20; i++) {
        struct kv_key k = key(1 + i % 2, i);
        assert_true(kv_file_get(f, &k, page[i], PAGE, i));
    }
    kv_file_forget(f, 1);
    memset(page[0], 0, PAGE); /* nobody writes there any more: the thread sanitizer sees it */
    for (uint32_t i = 0; i < 20; i++)
        arrival(f);
    for (uint32_t i = 0; i < 20; i++)
        assert_int_equal(has(f, 1 + i % 2, i, PAGE), i % 2 == 1);
    put(f, 1, 0, PAGE);
    assert_int_equal(get(f, 1, 0, PAGE), WHOLE);
    kv_file_close(f);
}

/* Pages of many sizes, more than fit: whatever is found is what was put, and what was just written is found. */
static void test_random(void **state) {
    enum { NUMBERS = 60, OPERATIONS = 4000 };
    uint64_t random = 5, puts = 0, found = 0, looked = 0;
    struct kv_file *f = open_file(40 * PAGE);
    for (int i = 0; i < OPERATIONS; i++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        uint32_t number = (uint32_t)(random >> 33) % NUMBERS;
        size_t bytes = PAGE * (1 + number % 5);
        if (random >> 63 != 0) {
            put(f, 1, number, bytes);
            puts++;
            if (random >> 60 == 15)
                assert_int_equal(get(f, 1, number, bytes), WHOLE);
        } else {
            enum got got = get(f, 1, number, bytes);
            assert_int_not_equal(got, BROKEN);
            found += got == WHOLE;
            looked++;
        }
        assert_true(counts(f).bytes <= 40 * PAGE);
    }
    print_message("%lu puts, %lu of %lu found\n", (unsigned long)puts, (unsigned long)found,
                  (unsigned long)looked);
    assert_true(found > looked / 10);
    kv_file_close(f);
}

/* ---- what goes wrong ---- */

static void test_full_disk(void **state) {
    struct rlimit was, full;
    struct kv_file *f = open_file(16 * PAGE);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    full = (struct rlimit){.rlim_cur = 4 * PAGE + 100, .rlim_max = was.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &full), 0);
    put_all(f, 0, 10, PAGE); /* the fifth is written in part */
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(get(f, 1, i, PAGE), i < 4 ? WHOLE : ABSENT);
    assert_int_equal(counts(f).spilled, 4);
    assert_int_equal(counts(f).dropped, 6);
    assert_int_equal(counts(f).bytes, 4 * PAGE);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    put_all(f, 4, 10, PAGE); /* there is room again */
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(get(f, 1, i, PAGE), WHOLE);
    kv_file_close(f);
}

static void test_bytes_that_change(void **state) {
    unsigned char page[2 * PAGE];
    struct kv_file *f = open_file(16 * PAGE);
    int fd = descriptor();
    put_all(f, 0, 4, PAGE);
    assert_int_equal(pread(fd, page, 1, PAGE + 1234), 1);
    page[0] ^= 4; /* one bit */
    assert_int_equal(pwrite(fd, page, 1, PAGE + 1234), 1);
    /* A whole page in another's place, as from a disk that loses its way. */
    assert_int_equal(pread(fd, page, PAGE, 3 * PAGE), PAGE);
    assert_int_equal(pwrite(fd, page, PAGE, 2 * PAGE), PAGE);
    const enum got expected[] = {WHOLE, BROKEN, BROKEN, WHOLE};
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(get(f, 1, i, PAGE), expected[i]);
    for (uint32_t i = 0; i < 4; i++) /* a page that was broken is not asked for again */
        assert_int_equal(get(f, 1, i, PAGE), expected[i] == WHOLE ? WHOLE : ABSENT);
    put_all(f, 1, 3, PAGE);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(get(f, 1, i, PAGE), WHOLE);
    kv_file_close(f);
}

static void test_reads_that_fail(void **state) {
    struct kv_file *f = open_file(16 * PAGE);
    int fd = descriptor();
    put_all(f, 0, 6, PAGE);
    assert_int_equal(ftruncate(fd, 2 * PAGE + 10), 0); /* a short read, and reads of nothing */
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(get(f, 1, i, PAGE), i < 2 ? WHOLE : BROKEN);
    int broken = open("/dev/null", O_WRONLY | O_CLOEXEC), kept = dup(fd);
    assert_true(broken >= 0 && kept >= 0);
    assert_true(dup2(broken, fd) >= 0); /* reading is an error now */
    assert_int_equal(get(f, 1, 0, PAGE), BROKEN);
    assert_int_equal(counts(f).failed, 3);
    assert_true(dup2(kept, fd) >= 0);
    close(broken);
    close(kept);
    put_all(f, 0, 1, PAGE);
    assert_int_equal(get(f, 1, 0, PAGE), WHOLE);
    kv_file_close(f);
}

/* A disk that does not come back: puts are dropped at once, and whoever waits for a page is told to stop waiting. */
static void test_slow_disk(void **state) {
    static unsigned char page[PAGE];
    struct kv_file *f = open_file((uint64_t)256 * LARGE);
    struct kv_key k = key(1, 0);
    put_all(f, 0, 1, PAGE);
    pthread_mutex_lock(&gate);
    assert_true(kv_file_get(f, &k, page, PAGE, 0)); /* its arrival stops the thread */
    assert_true(arrival(f).whole);
    assert_false(kv_file_reading(f));
    assert_true(kv_file_get(f, &k, page, PAGE, 1));
    assert_true(kv_file_reading(f));
    assert_false(kv_file_stuck(f));
    for (uint32_t i = 1; i <= 96; i++) /* returns, though nobody writes */
        put(f, 1, i, LARGE);
    assert_false(kv_file_takes(f, LARGE));
    assert_true(counts(f).dropped >= 31 && counts(f).dropped <= 33); /* 64 MiB wait */
    while (!kv_file_stuck(f))
        usleep(10000);
    pthread_mutex_unlock(&gate);
    assert_true(arrival(f).whole);
    assert_false(kv_file_stuck(f));
    settle(f, 97);
    assert_int_equal(get(f, 1, 20, LARGE), WHOLE);
    assert_int_equal(get(f, 1, 80, LARGE), ABSENT);
    kv_file_close(f);
}

/* Reading is worth it or not, as it was measured; and a measurement is not believed for ever. */
static void test_worth(void **state) {
    struct kv_file *f = open_file(16 * PAGE);
    struct kv_key k = key(1, 0);
    put_all(f, 0, 2, PAGE);
    assert_true(kv_file_has(f, &k, PAGE, 0)); /* nothing is known: try */
    for (int i = 0; i < 5; i++)
        assert_int_equal(get(f, 1, 0, PAGE), WHOLE);
    assert_true(kv_file_has(f, &k, PAGE, 1e9));
    assert_false(kv_file_has(f, &k, PAGE, 10));
    int tries = 1;
    while (!kv_file_has(f, &k, PAGE, 10))
        tries++;
    print_message("tried again after %d refusals\n", tries);
    assert_true(tries > 20);
    kv_file_close(f);
}

/* ---- who else sees it ---- */

static void test_nobody_finds_it(void **state) {
    static const char secret[] = "what a tenant wrote, and nobody else reads";
    char page[PAGE], in_file[4 * PAGE];
    struct stat st;
    struct kv_file *f = open_file(16 * PAGE);
    struct kv_key k = key(1, 0);
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (const struct dirent *entry; (entry = readdir(d)) != NULL;)
        assert_int_equal(entry->d_name[0], '.'); /* no name */
    closedir(d);
    int fd = descriptor();
    assert_int_equal(fstat(fd, &st), 0);
    assert_int_equal(st.st_nlink, 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    memset(page, 0, sizeof page);
    memcpy(page + 100, secret, sizeof secret);
    kv_file_put(f, &k, page, PAGE);
    settle(f, 1);
    assert_int_equal(pread(fd, in_file, sizeof in_file, 0), PAGE);
    assert_null(memmem(in_file, PAGE, secret, 8)); /* what is left on the disk is sealed */
    kv_file_close(f);
}

static void test_no_folder(void **state) {
    struct kv_file *f;
    struct error e = {0};
    char deep[64], made[64];
    assert_int_equal(kv_file_open(&f, "/dev/null/there", PAGE, on_wake, NULL, &e), ERR_IO);
    assert_null(f);
    assert_non_null(strstr(e.text, "/dev/null/there"));
    snprintf(deep, sizeof deep, "%s/none/deep", folder);
    assert_int_equal(kv_file_open(&f, deep, PAGE, on_wake, NULL, &e), ERR_IO);
    snprintf(made, sizeof made, "%s/made", folder);
    assert_int_equal(kv_file_open(&f, made, 0, on_wake, NULL, &e), 0); /* a size by itself */
    put(f, 1, 1, PAGE);
    assert_int_equal(get(f, 1, 1, PAGE), WHOLE);
    kv_file_close(f);
    assert_int_equal(rmdir(made), 0); /* nothing is left */
}

/* ---- the page pool on top ---- */

struct pool {
    struct kv_budget budget;
    struct kv *kv;
    char *base;
    struct hash name[16];
    token_id token[16][KV_PAGE_TOKENS];
};

static void make_pool(struct pool *p, uint32_t pages, uint32_t file_pages) {
    struct error e = {0};
    struct chip_kv layout = {.page_bytes = PAGE};
    kv_budget_start(&p->budget, pages * PAGE);
    p->budget.file = open_file((uint64_t)file_pages * PAGE);
    assert_int_equal(kv_create(&p->kv, &p->budget, &layout, &e), 0);
    p->base = layout.base;
    for (int i = 0; i < 16; i++) {
        for (int t = 0; t < KV_PAGE_TOKENS; t++)
            p->token[i][t] = 100 * i + t;
        p->name[i] = kv_name(p->kv, 1, NULL, p->token[i]);
    }
}

static void end_pool(struct pool *p) {
    kv_free(p->kv);
    kv_file_close(p->budget.file);
}

/* Compute page i and let it go. */
static void compute(struct pool *p, uint32_t i) {
    uint32_t page = kv_acquire(p->kv);
    assert_int_not_equal(page, KV_NO_PAGE);
    content((unsigned char *)p->base + (size_t)page * PAGE, PAGE, i);
    kv_publish(p->kv, page, &p->name[i], p->token[i]);
    kv_release(p->kv, page);
}

static bool fetch(struct pool *p, uint32_t i) {
    return kv_fetch(p->kv, &p->name[i], p->token[i], 1e18);
}

static void await_pages(struct pool *p) {
    while (kv_file_reading(p->budget.file)) {
        kv_collect(&p->budget);
        usleep(100);
    }
}

static void assert_found(struct pool *p, uint32_t i) {
    unsigned char expected[PAGE];
    uint32_t page = kv_find(p->kv, &p->name[i], p->token[i]);
    assert_int_not_equal(page, KV_NO_PAGE);
    content(expected, PAGE, i);
    assert_memory_equal(p->base + (size_t)page * PAGE, expected, PAGE);
    kv_release(p->kv, page);
}

static void test_evicted_pages_come_back(void **state) {
    struct pool p;
    uint64_t held = 0, cached = 0;
    make_pool(&p, 4, 64);
    for (uint32_t i = 0; i < 10; i++)
        compute(&p, i); /* the last four are in memory */
    assert_int_equal(kv_find(p.kv, &p.name[0], p.token[0]), KV_NO_PAGE);
    assert_false(kv_coming(p.kv, &p.name[0]));
    assert_true(fetch(&p, 0));
    assert_true(kv_coming(p.kv, &p.name[0]));
    assert_true(fetch(&p, 0)); /* it is under way already */
    assert_int_equal(kv_find(p.kv, &p.name[0], p.token[0]), KV_NO_PAGE);
    kv_count(p.kv, &held, &cached);
    assert_int_equal(held, 1); /* nobody takes its memory meanwhile */
    assert_int_equal(cached, 3);
    await_pages(&p);
    assert_false(kv_coming(p.kv, &p.name[0]));
    assert_found(&p, 0);
    for (uint32_t i = 0; i < 10; i++) {
        assert_true(fetch(&p, i));
        await_pages(&p);
        assert_found(&p, i);
    }
    assert_false(fetch(&p, 11)); /* never computed */
    struct kv_file_stats s = counts(p.budget.file);
    assert_int_equal(s.failed, 0);
    /* All memory is held: nothing is sent for. */
    for (int i = 0; i < 4; i++)
        assert_int_not_equal(kv_acquire(p.kv), KV_NO_PAGE);
    assert_false(fetch(&p, 0));
    end_pool(&p);
}

static void test_a_page_that_is_lost_on_the_way(void **state) {
    struct pool p;
    make_pool(&p, 4, 64);
    for (uint32_t i = 0; i < 8; i++)
        compute(&p, i);
    settle(p.budget.file, 4);
    assert_int_equal(ftruncate(descriptor(), PAGE), 0);
    for (uint32_t i = 0; i < 3; i++)
        assert_true(fetch(&p, i));
    await_pages(&p);
    assert_found(&p, 0);
    for (uint32_t i = 1; i < 3; i++) {
        assert_false(kv_coming(p.kv, &p.name[i]));
        assert_int_equal(kv_find(p.kv, &p.name[i], p.token[i]), KV_NO_PAGE);
        assert_false(fetch(&p, i));
        compute(&p, i); /* as it would be without a file */
        assert_found(&p, i);
    }
    uint64_t held = 0, cached = 0;
    kv_count(p.kv, &held, &cached);
    assert_int_equal(held, 0);
    assert_int_equal(p.budget.used, cached * PAGE);
    assert_true(fetch(&p, 4)); /* a pool that ends while a page is under way */
    end_pool(&p);
}

/* A quarter of the memory is copied before it is wanted, the oldest first; evicting it then writes nothing. */
static void test_copied_ahead(void **state) {
    struct pool p;
    make_pool(&p, 8, 64);
    for (uint32_t i = 0; i < 6; i++)
        compute(&p, i);
    assert_false(kv_copy_ahead(&p.budget)); /* a quarter is free */
    assert_int_equal(counts(p.budget.file).spilled, 0);
    compute(&p, 6);
    compute(&p, 7);
    assert_found(&p, 0); /* used again: the youngest now */
    assert_false(kv_copy_ahead(&p.budget));
    settle(p.budget.file, 2);
    for (uint32_t i = 0; i < 8; i++) {
        struct kv_key k = {.pool = 0, .name = p.name[i]};
        assert_int_equal(kv_file_has(p.budget.file, &k, PAGE, 1e18), i == 1 || i == 2);
    }
    assert_found(&p, 1); /* it may be used all the same, and stays copied */
    assert_false(kv_copy_ahead(&p.budget));
    compute(&p, 8); /* takes the place of 2 */
    settle(p.budget.file, 2);
    assert_false(kv_copy_ahead(&p.budget));
    settle(p.budget.file, 3); /* the quarter is made up: 3 beside 1 */
    assert_int_equal(counts(p.budget.file).spilled, 3);
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(fetch(&p, i), i != 9);
        await_pages(&p);
        if (i != 9)
            assert_found(&p, i);
        kv_copy_ahead(&p.budget);
    }
    assert_int_equal(counts(p.budget.file).dropped, 0);
    end_pool(&p);
}

static void test_idle_memory_goes_back(void **state) {
    struct pool p;
    make_pool(&p, 8, 64);
    for (uint32_t i = 0; i < 6; i++)
        compute(&p, i);
    uint32_t page = kv_acquire(p.kv), empty = kv_acquire(p.kv);
    kv_release(p.kv, empty);
    assert_int_equal(p.budget.resident, 8 * PAGE);
    assert_true(kv_trim(&p.budget)); /* the empty one alone: the others may be wanted */
    assert_int_equal(p.budget.resident, 7 * PAGE);
    assert_found(&p, 2); /* used since */
    assert_true(kv_trim(&p.budget));
    assert_int_equal(p.budget.resident, 2 * PAGE); /* that one, and the one that is held */
    assert_int_equal(p.budget.used, 2 * PAGE);
    assert_found(&p, 2);
    for (uint32_t i = 0; i < 6; i++) {
        assert_true(fetch(&p, i));
        await_pages(&p);
        assert_found(&p, i);
    }
    kv_release(p.kv, page);
    end_pool(&p);
    make_pool(&p, 8, 7); /* a file that is smaller than memory would lose what memory can keep */
    compute(&p, 0);
    assert_true(kv_trim(&p.budget) && kv_trim(&p.budget));
    assert_int_equal(p.budget.resident, PAGE);
    assert_found(&p, 0);
    end_pool(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_comes_back),
        cmocka_unit_test(test_the_oldest_goes_first),
        cmocka_unit_test(test_a_pool_ends),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_bytes_that_change),
        cmocka_unit_test(test_reads_that_fail),
        cmocka_unit_test(test_slow_disk),
        cmocka_unit_test(test_worth),
        cmocka_unit_test(test_nobody_finds_it),
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_evicted_pages_come_back),
        cmocka_unit_test(test_a_page_that_is_lost_on_the_way),
        cmocka_unit_test(test_copied_ahead),
        cmocka_unit_test(test_idle_memory_goes_back),
    };
    if (mkdtemp(folder) == NULL) {
        printf("cannot make %s\n", folder);
        return 1;
    }
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rmdir(folder);
    return failed;
}
