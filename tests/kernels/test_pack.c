/* The packed file on disk and the pool. A second load maps what the first wrote; a truncated, foreign or scribbled file is packed again; a page that goes away
 * while it is mapped is noticed. The pool runs many short forks, which the thread sanitizer watches. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "chip/chip.h"
#include "chip/cpu/pool.h"
#include "model/guard.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INPUTS = 256, OUTPUTS = 300 };

static char folder[] = "/tmp/unkai-pack-XXXXXX";
static char model[64], packs[64];
static struct sigaction guard_action;

static void write_model(uint8_t first) {
    uint8_t bytes[128] = "GGUF\3\0\0\0\1";
    size_t n = 24;
    bytes[n] = 1, n += 8, bytes[n++] = 'w';
    bytes[n] = 2, n += 4;
    memcpy(bytes + n, &(uint64_t[]){INPUTS, OUTPUTS}, 16), n += 16;
    bytes[n] = FORMAT_Q4_0, n += 12;
    FILE *f = fopen(model, "wb");
    assert_non_null(f);
    fwrite(bytes, 1, (n + 31) / 32 * 32, f);
    for (uint32_t i = 0; i < INPUTS / 32 * OUTPUTS; i++) {
        uint8_t block[18] = {0, 0x30};
        for (int j = 2; j < 18; j++)
            block[j] = (uint8_t)(first + i * 7 + (uint32_t)j * 31);
        fwrite(block, 1, sizeof block, f);
    }
    assert_int_equal(fclose(f), 0);
}

/* The path of the packed file; fails unless there is exactly one (and nothing half-written). */
static void packed_path(char out[400]) {
    DIR *d = opendir(packs);
    int found = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        if (strstr(e->d_name, ".pack")) {
            found++;
            assert_true(snprintf(out, 400, "%s/%s", packs, e->d_name) < 400);
        }
    }
    closedir(d);
    assert_int_equal(found, 1);
}

struct loaded {
    struct chip *chip;
    struct gguf *gguf;
    struct chip_weights *weights;
};

static struct loaded open_file(const char *pack_folder) {
    struct loaded l = {0};
    struct error e = {0};
    if (chip_open(&l.chip, &(struct chip_options){.threads = 2, .pack_folder = pack_folder}, &e) ||
        gguf_open(&l.gguf, model, &e))
        fail_msg("%s", e.text);
    return l;
}

static void load_weights(struct loaded *l) {
    struct error e = {0};
    const struct gguf_tensor *t = gguf_tensor_find(l->gguf, "w");
    assert_non_null(t);
    if (chip_load(&l->weights, l->chip, l->gguf, &t, 1, &e))
        fail_msg("%s", e.text);
}

static struct loaded load(const char *pack_folder) {
    struct loaded l = open_file(pack_folder);
    load_weights(&l);
    return l;
}

static void multiply(struct loaded *l, float out[OUTPUTS]) {
    float in[INPUTS];
    for (int i = 0; i < INPUTS; i++)
        in[i] = (float)(i % 17) - 8;
    struct chip_linear p = {.rows = 1, .in = in, .in_stride = INPUTS, .outputs = 1};
    p.out[0].w = chip_weights_matrix(l->weights, 0);
    p.out[0].out = out;
    p.out[0].out_stride = OUTPUTS;
    chip_linear(l->chip, &p);
}

static void unload(struct loaded *l) {
    chip_unload(l->chip, l->weights);
    gguf_close(l->gguf);
    chip_close(l->chip);
}

static bool reference_only(void) {
    struct chip *c = NULL;
    struct error e;
    assert_int_equal(chip_open(&c, &(struct chip_options){.threads = 1}, &e), 0);
    bool plain = !strcmp(chip_kernels(c), "reference");
    chip_close(c);
    return plain;
}

static void keeps_and_repairs(void **state) {
    if (reference_only()) {
        print_message("no fast kernels on this machine: nothing is packed\n");
        return;
    }
    float want[OUTPUTS], got[OUTPUTS];
    char path[400];
    write_model(1);
    struct loaded l = load(NULL);
    multiply(&l, want);
    unload(&l);
    for (int damage = 0; damage < 6; damage++) {
        l = load(packs);
        multiply(&l, got);
        assert_memory_equal(got, want, sizeof want);
        assert_false(chip_weights_damaged(l.weights));
        unload(&l);
        packed_path(path);
        struct stat s;
        assert_int_equal(stat(path, &s), 0);
        int fd = open(path, O_RDWR);
        assert_true(fd >= 0);
        if (damage == 1)
            assert_int_equal(ftruncate(fd, s.st_size - 1), 0);
        else if (damage == 2)
            assert_int_equal(pwrite(fd, "x", 1, 10), 1);
        else if (damage == 3)
            assert_int_equal(ftruncate(fd, 0), 0);
        else if (damage == 4)
            assert_int_equal(pwrite(fd, "0123456789012345678901234567890", 31, 60), 31);
        close(fd);
    }
}

static void model_replaced(void **state) {
    if (reference_only())
        return;
    float old[OUTPUTS], want[OUTPUTS], got[OUTPUTS];
    write_model(1);
    struct loaded l = load(packs);
    multiply(&l, old);
    unload(&l);
    assert_int_equal(unlink(model), 0);
    write_model(77); /* the same path and size */
    l = load(NULL);
    multiply(&l, want);
    unload(&l);
    l = load(packs);
    multiply(&l, got);
    unload(&l);
    assert_memory_equal(got, want, sizeof want);
    assert_memory_not_equal(got, old, sizeof want);

    /* Once more while the old one is being loaded: its hash must not be noted for the new one. */
    l = open_file(packs);
    assert_int_equal(unlink(model), 0);
    write_model(1);
    load_weights(&l);
    unload(&l);
    l = load(packs);
    multiply(&l, got);
    unload(&l);
    assert_memory_equal(got, old, sizeof old);
}

static void page_gone(void **state) {
    if (reference_only())
        return;
    write_model(5);
    char path[400];
    float out[OUTPUTS];
    char clean[128];
    snprintf(clean, sizeof clean, "rm -rf '%s'", packs);
    assert_int_equal(system(clean), 0);
    struct loaded l = load(packs);
    unload(&l);
    l = load(packs);
    packed_path(path);
    assert_int_equal(truncate(path, 4096), 0);
    sigaction(SIGBUS, &guard_action, NULL); /* cmocka puts its own in place before each test */
    multiply(&l, out);
    assert_true(chip_weights_damaged(l.weights));
    unload(&l);
}

struct counts {
    uint64_t by[8];
};

static void count(void *context, uint32_t thread) {
    ((struct counts *)context)->by[thread]++;
}

static void forks(void **state) {
    struct error e;
    for (uint32_t threads = 1; threads <= 5; threads += 2) {
        struct pool *p = NULL;
        struct counts c = {{0}};
        assert_int_equal(pool_create(&p, threads, &e), 0);
        assert_int_equal(pool_threads(p), threads);
        for (int i = 0; i < 300; i++) {
            pool_run(p, count, &c);
            for (uint32_t t = 0; t < threads; t++)
                assert_int_equal(c.by[t], i + 1); /* all have returned */
            if (i % 100 == 0)
                usleep(2000); /* long enough to fall asleep */
        }
        pool_free(p);
    }
}

static int set_up(void **state) {
    if (!mkdtemp(folder))
        return -1;
    snprintf(model, sizeof model, "%s/m.gguf", folder);
    snprintf(packs, sizeof packs, "%s/packs", folder);
    return 0;
}

static int tear_down(void **state) {
    char clean[128];
    snprintf(clean, sizeof clean, "rm -rf '%s'", folder);
    return system(clean);
}

int main(void) {
    atomic_bool unused = false;
    if (guard_add(&unused, 1, &unused) || sigaction(SIGBUS, NULL, &guard_action))
        return 1;
    guard_remove(&unused);
    const struct CMUnitTest tests[] = {cmocka_unit_test(keeps_and_repairs), cmocka_unit_test(model_replaced),
                                       cmocka_unit_test(page_gone), cmocka_unit_test(forks)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
