/* Who is in memory and who makes room, with a disk that does what the test says; then the real one: pages that come and go; and what control groups allow. */
#include "engine/residency.h"

#include "base/memory.h"
#include "engine/schedule.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { MODELS = 4, EACH = 10, KV = 5, SEQUENCES = 4 };
static const int64_t MS = 1000000;

static struct world {
    struct residency r;
    struct kv_budget kv;
    struct pool_model model[MODELS];
    struct sequence sequence[MODELS][SEQUENCES];
    int64_t now;
} w;

static atomic_bool hangs;
static atomic_int reads, drops;

static void fake_read(const struct extent *x, size_t from, size_t bytes) {
    assert_int_equal(from, 0);
    assert_int_equal(bytes, x->bytes);
    while (atomic_load(&hangs))
        usleep(100);
    atomic_fetch_add(&reads, 1);
}

static void fake_drop(const struct extent *x) {
    (void)x;
    atomic_fetch_add(&drops, 1);
}

static void on_done(void *context) {
    (void)context;
}

/* Tend until nothing moves any more; returns what the last call said. */
static int64_t settle(void) {
    int64_t again;
    do {
        again = residency_tend(&w.r, w.now += MS);
        while (loader_busy(w.r.loader))
            usleep(50);
    } while (w.r.moving != NULL);
    return again;
}

static void start(size_t limit) {
    static const struct loader_disk disk = {fake_read, fake_drop};
    struct error e;
    w = (struct world){.now = 1000 * MS};
    w.kv.limit = KV;
    w.r = (struct residency){.limit = limit, .kv = &w.kv, .model = w.model, .models = MODELS};
    for (int i = 0; i < MODELS; i++)
        w.model[i].residence = (struct residence){
            .state = COLD, .used = -i, .extents = 1, .bytes = EACH, .extent = {{.bytes = EACH, .file = -1}}};
    atomic_store(&reads, 0);
    atomic_store(&drops, 0);
    assert_int_equal(loader_open(&w.r.loader, &disk, on_done, NULL, &e), 0);
    assert_int_equal(residency_start(&w.r, true, &e), 0);
    settle();
}

static void end(void) {
    loader_close(w.r.loader);
}

static struct sequence *ask(int model) {
    struct pool_model *m = &w.model[model];
    struct sequence *q = &w.sequence[model][m->live++];
    q->next = m->first;
    m->first = q;
    return q;
}

static void finish(int model) {
    struct pool_model *m = &w.model[model];
    m->first->started = false;
    m->first = m->first->next;
    m->live--;
}

static void assert_states(enum residence_state a, enum residence_state b, enum residence_state c,
                          enum residence_state d) {
    const enum residence_state want[MODELS] = {a, b, c, d};
    size_t used = 0;
    for (int i = 0; i < MODELS; i++) {
        assert_int_equal(w.model[i].residence.state, want[i]);
        used += want[i] == COLD ? 0 : EACH;
    }
    assert_int_equal(w.r.used, used);
}

/* At the start the first ones come in; then whoever is asked for, in place of the one that was used longest ago, or never. */
static void test_least_recently_used_leaves(void **state) {
    (void)state;
    start(3 * EACH + KV);
    assert_states(RESIDENT, RESIDENT, RESIDENT, COLD);
    ask(3);
    settle();
    assert_states(RESIDENT, RESIDENT, COLD, RESIDENT);
    finish(3);
    ask(0);
    settle();
    finish(0);
    ask(2);
    settle();
    assert_states(RESIDENT, COLD, RESIDENT, RESIDENT);
    finish(2);
    ask(1);
    settle();
    assert_states(RESIDENT, RESIDENT, RESIDENT, COLD);
    assert_int_equal(atomic_load(&reads), 6);
    assert_int_equal(atomic_load(&drops), 3);
    end();
}

/* All who wait for a model are one load, and in the order in which they came; meanwhile the others stay. */
static void test_waiting_is_gathered(void **state) {
    (void)state;
    start(2 * EACH + KV);
    atomic_store(&hangs, true);
    ask(3);
    residency_tend(&w.r, w.now += MS); /* 1 leaves */
    while (loader_busy(w.r.loader))
        usleep(50);
    ask(2);
    residency_tend(&w.r, w.now += MS);
    ask(3);
    ask(3);
    for (int i = 0; i < 10; i++)
        assert_int_equal(residency_tend(&w.r, w.now += MS), INT64_MAX);
    assert_states(RESIDENT, COLD, COLD, LOADING);
    atomic_store(&hangs, false);
    while (loader_busy(w.r.loader))
        usleep(50);
    settle();
    assert_states(COLD, COLD, RESIDENT, RESIDENT);
    assert_int_equal(w.model[3].residence.loads, 1);
    end();
}

/* When all are in use, the one with the fewest sequences is closed after its turn, and leaves when what runs on it has ended. */
static void test_turns(void **state) {
    (void)state;
    start(2 * EACH + KV);
    ask(0)->started = true;
    ask(0)->started = true;
    ask(1)->started = true;
    ask(2);
    int64_t turn = w.model[1].residence.loaded + 2000 * MS;
    assert_int_equal(settle(), turn);
    assert_false(w.model[0].residence.closing || w.model[1].residence.closing);
    w.now = turn + 100 * MS;
    settle();
    assert_true(w.model[1].residence.closing && !w.model[0].residence.closing);
    ask(1); /* comes too late: it does not start, and waits for the next turn */
    settle();
    assert_states(RESIDENT, RESIDENT, COLD, COLD);
    w.model[1].first->next->started = false; /* what ran has ended */
    settle();
    assert_states(RESIDENT, COLD, RESIDENT, COLD);
    for (int i = 0; i < MODELS; i++)
        assert_false(w.model[i].residence.closing);
    assert_int_equal(settle(), w.model[2].residence.loaded + 2000 * MS); /* 1 wants to be back */
    end();
}

/* Nobody waits any more: what was closed opens again. */
static void test_opens_again(void **state) {
    (void)state;
    start(EACH + KV);
    ask(0)->started = true;
    w.now += 3000 * MS;
    ask(1);
    settle();
    assert_true(w.model[0].residence.closing);
    finish(1);
    settle();
    assert_false(w.model[0].residence.closing);
    assert_states(RESIDENT, COLD, COLD, COLD);
    end();
}

/* A client that does not read holds no model, and calls for none. */
static void test_blocked(void **state) {
    (void)state;
    start(EACH + KV);
    struct sequence *q = ask(0);
    q->started = true;
    q->window = q->completion = 10;
    ask(1)->started = true;
    settle();
    assert_states(COLD, RESIDENT, COLD, COLD);
    finish(1);
    settle();
    assert_states(COLD, RESIDENT, COLD, COLD);
    atomic_store(&q->acked, 10);
    settle();
    assert_states(RESIDENT, COLD, COLD, COLD);
    end();
}

/* KV pages grow into the memory of those that nobody uses. */
static void test_kv_pages_grow(void **state) {
    (void)state;
    start(3 * EACH);
    assert_states(RESIDENT, RESIDENT, RESIDENT, COLD);
    ask(2)->started = true;
    w.kv.resident = KV;
    settle();
    assert_states(RESIDENT, COLD, RESIDENT, COLD);
    w.kv.resident = 0;
    settle(); /* the one that has never been there comes into what they leave */
    assert_states(RESIDENT, COLD, RESIDENT, RESIDENT);
    end();
}

static void test_too_large(void **state) {
    struct error e;
    (void)state;
    start(EACH + KV);
    end();
    w.r.used = 0;
    w.model[0].name = (char *)"giant";
    w.model[0].residence.bytes = 4 * EACH;
    assert_int_equal(residency_start(&w.r, true, &e), ERR_NO_MEMORY);
    assert_non_null(strstr(e.text, "giant"));
    assert_int_equal(residency_start(&w.r, false, &e), 0);
    assert_int_equal(w.r.limit, 4 * EACH + KV);
}

/* ---- the real disk ---- */

static size_t pages_in_memory(const char *at, size_t bytes) {
    unsigned char in[1024];
    size_t n = 0, pages = bytes / (size_t)sysconf(_SC_PAGESIZE);
    assert_true(pages <= sizeof in);
    assert_int_equal(mincore((void *)(uintptr_t)at, bytes, in), 0);
    for (size_t i = 0; i < pages; i++)
        n += in[i] & 1;
    return n;
}

static void test_extent(void **state) {
    char path[] = "extent-XXXXXX"; /* in the build's folder, since /tmp may be memory */
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = 256 * page;
    int fd = mkstemp(path);
    (void)state;
    assert_true(fd >= 0);
    unlink(path);
    char *text = malloc(bytes);
    memset(text, 'x', bytes);
    assert_int_equal(write(fd, text, bytes), bytes);
    assert_int_equal(fsync(fd), 0);
    char *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    assert_true(map != MAP_FAILED);
    /* A part that begins and ends within pages: those stay. */
    struct extent x = {.at = map + page / 2, .bytes = bytes - page, .file = fd, .offset = (off_t)page / 2};
    extent_read(&x, 0, x.bytes);
    assert_int_equal(pages_in_memory(map, bytes), 256);
    extent_drop(&x);
    assert_int_equal(map[0], 'x');
    size_t left = pages_in_memory(map + page, bytes - 2 * page);
    if (left != 254)             /* a file system in memory keeps all */
        assert_true(left <= 64); /* read ahead with the first page */
    extent_read(&x, 0, x.bytes);
    assert_int_equal(pages_in_memory(map, bytes), 256);
    assert_memory_equal(map, text, bytes);
    munmap(map, bytes);
    close(fd);
    /* Memory of our own comes back empty. */
    char *own = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(own, 1, bytes);
    extent_drop(&(struct extent){.at = own, .bytes = bytes, .file = -1});
    assert_int_equal(pages_in_memory(own, bytes), 0);
    assert_int_equal(own[0] + own[bytes - 1], 0);
    munmap(own, bytes);
    free(text);
}

/* ---- what may be used ---- */

static char root[] = "root-XXXXXX";

static void put(const char *path, const char *text) {
    char full[256];
    snprintf(full, sizeof full, "%s/%s", root, path);
    for (char *slash = strchr(full, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = 0;
        mkdir(full, 0700);
        *slash = '/';
    }
    FILE *f = fopen(full, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_memory_allowed(void **state) {
    static const size_t GIB = (size_t)1 << 30;
    (void)state;
    assert_non_null(mkdtemp(root));
    assert_true(memory_allowed(root) == SIZE_MAX);
    put("proc/meminfo", "MemTotal:       33554432 kB\nMemFree: 1 kB\nMemAvailable:   16777216 kB\n");
    assert_true(memory_allowed(root) == 16 * GIB);
    put("proc/self/cgroup", "0::/a/b\n");
    put("sys/fs/cgroup/a/b/memory.max", "max\n");
    assert_true(memory_allowed(root) == 16 * GIB);
    put("sys/fs/cgroup/a/memory.max", "4294967296\n"); /* the group above says so */
    assert_true(memory_allowed(root) == 4 * GIB);
    put("proc/self/cgroup", "9:name=systemd:/a\n4:cpu,memory:/box/1\n0::/\n");
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    assert_true(memory_allowed(root) == 16 * GIB);
    put("sys/fs/cgroup/memory/box/1/memory.limit_in_bytes", "2147483648\n");
    assert_true(memory_allowed(root) == 2 * GIB);
    put("proc/self/cgroup", "4:memory:/elsewhere/2\n"); /* a container sees its own group as the root */
    put("sys/fs/cgroup/memory/memory.limit_in_bytes", "1073741824\n");
    assert_true(memory_allowed(root) == GIB);
    put("proc/self/cgroup", "nonsense\n\n4:\n");
    assert_true(memory_allowed(root) == 16 * GIB);
    char command[64];
    snprintf(command, sizeof command, "rm -r %s", root);
    assert_int_equal(system(command), 0);
    assert_true(memory_allowed("") > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_least_recently_used_leaves),
        cmocka_unit_test(test_waiting_is_gathered),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_opens_again),
        cmocka_unit_test(test_blocked),
        cmocka_unit_test(test_kv_pages_grow),
        cmocka_unit_test(test_too_large),
        cmocka_unit_test(test_extent),
        cmocka_unit_test(test_memory_allowed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
