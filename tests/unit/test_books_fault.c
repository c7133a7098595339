/* The books on a disk that fails: every write in turn meets a full disk, every sync in turn an error. Afterwards the money path has stopped, the
 * file was not touched again, and the next start finds books that verify, no open hold, and nobody billed for what was not sent. And on one that hangs in
 * a sync: 32 tokens a stream may be sent, of 1,024 streams, and no more; killed or without power there, the books are whole.
 *
 * The disk is a layer between SQLite and its own one (a VFS, sqlite.org/vfs.html) that counts what changes a file. */
#include "books_request.h"

#include "cloud/cloud.h"
#include "cloud/control.h"

#include "base/json.h"

#include <setjmp.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the disk ---- */

enum fault { NO_FAULT, FULL_DISK, FAILED_SYNC };

static struct {
    enum fault kind;
    const char *with;   /* NULL, or what the writes that count have in them */
    _Atomic int left;   /* operations of that kind until it happens; negative: it has */
    _Atomic int behind; /* writes and syncs after it */
    atomic_bool hangs;  /* in every sync */
} disk;

static sqlite3_vfs *below;

struct file {
    sqlite3_file base;
    sqlite3_file *real;
};

static sqlite3_file *real(sqlite3_file *f) {
    return ((struct file *)(void *)f)->real;
}

/* SQLITE_OK, or what this operation meets. Only the first one fails: whoever tried again would be seen. */
static int meet(enum fault kind, int code) {
    if (disk.kind == NO_FAULT)
        return SQLITE_OK;
    if (atomic_load(&disk.left) < 0)
        atomic_fetch_add(&disk.behind, 1);
    else if (kind == disk.kind && atomic_fetch_sub(&disk.left, 1) == 0)
        return code;
    return SQLITE_OK;
}

static int file_close(sqlite3_file *f) {
    int rc = real(f)->pMethods != NULL ? real(f)->pMethods->xClose(real(f)) : SQLITE_OK;
    free(real(f));
    return rc;
}

static int file_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
    return real(f)->pMethods->xRead(real(f), to, n, at);
}

static int file_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
    bool counts = disk.with == NULL || memmem(from, (size_t)n, disk.with, strlen(disk.with)) != NULL;
    int rc = meet(counts ? FULL_DISK : NO_FAULT, SQLITE_FULL);
    if (rc == SQLITE_OK)
        return real(f)->pMethods->xWrite(real(f), from, n, at);
    real(f)->pMethods->xWrite(real(f), from, n / 2, at); /* part of it had room */
    return rc;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size) {
    meet(NO_FAULT, 0);
    return real(f)->pMethods->xTruncate(real(f), size);
}

static int file_sync(sqlite3_file *f, int flags) {
    while (atomic_load(&disk.hangs))
        usleep(1000);
    int rc = meet(FAILED_SYNC, SQLITE_IOERR_FSYNC);
    return rc != SQLITE_OK ? rc : real(f)->pMethods->xSync(real(f), flags);
}

static int file_size(sqlite3_file *f, sqlite3_int64 *size) {
    return real(f)->pMethods->xFileSize(real(f), size);
}

static int file_lock(sqlite3_file *f, int level) {
    return real(f)->pMethods->xLock(real(f), level);
}

static int file_unlock(sqlite3_file *f, int level) {
    return real(f)->pMethods->xUnlock(real(f), level);
}

static int file_reserved(sqlite3_file *f, int *out) {
    return real(f)->pMethods->xCheckReservedLock(real(f), out);
}

static int file_control(sqlite3_file *f, int op, void *arg) {
    return real(f)->pMethods->xFileControl(real(f), op, arg);
}

static int file_sector(sqlite3_file *f) {
    return real(f)->pMethods->xSectorSize(real(f));
}

static int file_traits(sqlite3_file *f) {
    return real(f)->pMethods->xDeviceCharacteristics(real(f));
}

static int file_shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out) {
    return real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
}

static int file_shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}

static void file_shm_barrier(sqlite3_file *f) {
    real(f)->pMethods->xShmBarrier(real(f));
}

static int file_shm_unmap(sqlite3_file *f, int remove) {
    return real(f)->pMethods->xShmUnmap(real(f), remove);
}

static const sqlite3_io_methods methods = {
    .iVersion = 2,
    .xClose = file_close,
    .xRead = file_read,
    .xWrite = file_write,
    .xTruncate = file_truncate,
    .xSync = file_sync,
    .xFileSize = file_size,
    .xLock = file_lock,
    .xUnlock = file_unlock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
    .xShmMap = file_shm_map,
    .xShmLock = file_shm_lock,
    .xShmBarrier = file_shm_barrier,
    .xShmUnmap = file_shm_unmap,
};

static int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
    struct file *mine = (struct file *)(void *)f;
    mine->base.pMethods = &methods;
    mine->real = calloc(1, (size_t)below->szOsFile);
    if (mine->real == NULL)
        return SQLITE_NOMEM;
    return below->xOpen(below, name, mine->real, flags, out);
}

static void disk_insert(void) {
    static sqlite3_vfs vfs;
    below = sqlite3_vfs_find(NULL);
    vfs = *below;
    vfs.zName = "failing";
    vfs.szOsFile = sizeof(struct file);
    vfs.xOpen = disk_open;
    vfs.pNext = NULL;
    assert_int_equal(sqlite3_vfs_register(&vfs, 1), SQLITE_OK);
}

/* ---- the books ---- */

enum { STREAMS = 3, EACH = 70 };

static char folder[64];

static int64_t ask(const char *request, const char *member) {
    struct buf out = {0};
    struct json *answer;
    struct error e = {0};
    if (control_call(folder, str_from(request), &out, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    assert_int_equal(json_parse(&answer, buf_view(&out), &e), 0);
    const struct json *got = json_get(answer, member);
    if (got == NULL)
        fail_msg("%s: no %s in %s", request, member, out.p);
    int64_t value = json_as_bool(got) ? 1 : json_as_int(got);
    buf_free(&out);
    json_free(answer);
    return value;
}

static void set_up_books(void) {
    snprintf(folder, sizeof folder, "/tmp/unkai-books-XXXXXX");
    assert_non_null(mkdtemp(folder));
    ask("{\"op\":\"tenant.create\",\"name\":\"t\",\"currency\":\"JPY\",\"credit\":\"1000\"}", "name");
    ask("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300\",\"cached\":\"150\","
        "\"output\":\"700\"}",
        "model");
}

static void remove_books(void) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
}

static bool admit(struct cloud *c, int number, struct answer *answer, struct hold **out, struct error *e) {
    int64_t tenant = number / 256 + 1; /* which may have so many at once */
    struct identity who = {.tenant = tenant, .key = 1, .account = (uint64_t)tenant, .weight = 1};
    struct admission a = {
        .who = &who, .model = STR("m"), .prompt_tokens = 10, .max_completion_tokens = EACH, .answer = answer};
    snprintf(a.request_id, sizeof a.request_id, "r%d", number);
    return books_admit(c, &a, out, e) == 0;
}

static struct answer *answer_of(int stream) {
    struct answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->tenant = 1;
    a->key = hash_sha256((struct str){(const char *)&stream, sizeof stream});
    return a;
}

/* None of the keys is in use any more: each has its whole answer, or is spent, or free. */
static void check_keys(void) {
    struct cloud *c;
    struct error e = {0};
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    for (int i = 0; i < STREAMS; i++) {
        struct answer *a = answer_of(i), *found = NULL;
        assert_int_equal(cloud_find_answer(c, a, &e), 0);
        while ((found = cloud_take_answer(c)) == NULL)
            usleep(100);
        assert_ptr_equal(found, a);
        assert_true(a->status == ANSWER_NONE || a->status == ANSWER_SPENT ||
                    (a->status == 200 && str_is(buf_view(&a->bytes), "answer")));
        answer_free(a);
    }
    cloud_close(c);
}

/* Streams under keys that send what they may until they are done or the books have stopped; returns the tokens they sent. */
static uint64_t stream(struct cloud *c) {
    struct hold *h[STREAMS];
    struct answer *answer[STREAMS];
    uint64_t sent[STREAMS] = {0}, all = 0, least = 0;
    struct error e = {0};
    for (int i = 0; i < STREAMS; i++)
        if (!admit(c, i, answer[i] = answer_of(i), &h[i], &e)) {
            assert_int_equal(e.code, ERR_UNAVAILABLE);
            h[i] = NULL;
            answer_free(answer[i]);
        }
    while (least < EACH && !cloud_stopped(c, &e)) {
        least = EACH;
        for (int i = 0; i < STREAMS; i++) {
            if (h[i] != NULL && sent[i] < EACH && sent[i] < cloud_may_send(h[i]))
                cloud_sent(h[i], ++sent[i], 0);
            least = h[i] != NULL && sent[i] < least ? sent[i] : least;
        }
    }
    for (int i = 0; i < STREAMS; i++) {
        struct settlement s = {.completion_tokens = sent[i], .outcome = OUTCOME_DONE};
        all += sent[i];
        if (h[i] == NULL)
            continue;
        answer[i]->status = sent[i] == EACH ? 200 : sent[i] > 0 ? ANSWER_SPENT : ANSWER_NONE;
        buf_text(&answer[i]->bytes, "answer");
        cloud_settle(h[i], &s);
    }
    return all;
}

/* Returns whether there was an operation of that number to fail. */
static bool fail_at(enum fault kind, int number) {
    struct cloud *c;
    struct error e = {0};
    uint64_t sent = 0;
    set_up_books();
    disk.kind = kind;
    atomic_store(&disk.left, number);
    atomic_store(&disk.behind, 0);
    if (cloud_open(&c, folder, NULL, NULL, &e) == 0) {
        sent = stream(c);
        for (int i = 0; i < 200 && atomic_load(&disk.left) < 0 && !cloud_stopped(c, &e); i++)
            usleep(1000); /* the last settlement is on its way */
        if (cloud_stopped(c, &e)) {
            struct hold *h;
            assert_false(admit(c, 99, NULL, &h, &e));
            assert_int_equal(e.code, ERR_UNAVAILABLE);
        }
        cloud_close(c);
    } else {
        assert_true(e.code == ERR_IO && e.text[0] != 0);
    }
    bool happened = atomic_load(&disk.left) < 0;
    if (atomic_load(&disk.behind) > 0)
        fail_msg("operation %d failed, and %d came behind it", number, atomic_load(&disk.behind));
    disk.kind = NO_FAULT;
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", "ok"), 1); /* opens them: recovery */
    int64_t billed = ask("{\"op\":\"usage\",\"tenant\":\"t\"}", "completion_tokens");
    if (billed > (int64_t)sent || (int64_t)sent - billed > 32 * STREAMS)
        fail_msg("operation %d: %ld tokens sent, %ld billed", number, (long)sent, (long)billed);
    check_keys();
    remove_books();
    return happened;
}

static void fail_at_each(enum fault kind, const char *what) {
    int n = 0;
    while (fail_at(kind, n))
        n++;
    print_message("%d %s failed in turn\n", n, what);
    assert_true(n > 5);
}

static void test_full_disk(void **state) {
    fail_at_each(FULL_DISK, "writes");
}

static void test_failed_sync(void **state) {
    fail_at_each(FAILED_SYNC, "syncs");
}

/* The write that has a webhook's delivery in it stops the money path as any other does; the event comes with the charge that recovery makes. */
static void test_full_disk_at_delivery(void **state) {
    struct cloud *c;
    struct error e = {0};
    struct buf answer = {0};
    set_up_books();
    ask("{\"op\":\"webhook.add\",\"url\":\"http://operator\"}", "id");
    assert_int_equal(control_call(folder,
                                  STR("{\"op\":\"limit.set\",\"tenant\":\"t\",\"credit_low\":\"1000\"}"),
                                  &answer, &e),
                     0);
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    disk.with = "credit.low";
    disk.kind = FULL_DISK;
    atomic_store(&disk.left, 0);
    atomic_store(&disk.behind, 0);
    assert_true(stream(c) > 0);
    for (int i = 0; i < 20000 && !cloud_stopped(c, &e); i++)
        usleep(1000);
    assert_true(cloud_stopped(c, &e));
    struct hold *h;
    assert_false(admit(c, 99, NULL, &h, &e));
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    cloud_close(c);
    assert_true(atomic_load(&disk.left) < 0);
    assert_int_equal(atomic_load(&disk.behind), 0);
    disk.kind = NO_FAULT;
    disk.with = NULL;
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", "ok"), 1);
    assert_true(ask("{\"op\":\"usage\",\"tenant\":\"t\"}", "completion_tokens") > 0);
    buf_clear(&answer);
    assert_int_equal(control_call(folder, STR("{\"op\":\"webhook.deliveries\"}"), &answer, &e), 0);
    size_t first = str_find(buf_view(&answer), STR("credit.low:1:r"), 0);
    assert_true(first != SIZE_MAX &&
                str_find(buf_view(&answer), STR("credit.low:1:r"), first + 1) == SIZE_MAX);
    buf_free(&answer);
    remove_books();
}

/* ---- a disk that hangs ---- */

enum { AHEAD = 1024, UNJOURNALLED = 32 };

/* Send what may be sent, and expect that to be `most` at last. */
static void send_up_to(struct hold *h, uint64_t *sent, uint64_t most) {
    for (int i = 0; i < 20000 && *sent < most; i++) {
        while (*sent < most && *sent < cloud_may_send(h))
            cloud_sent(h, ++*sent, 0);
        if (*sent < most)
            usleep(1000);
    }
    assert_int_equal(*sent, most);
}

/* A request that ends before its hold is durable, the ones in front of the limit, and the one behind it. */
static void test_hanging_disk(void **state) {
    struct hold *h[AHEAD + 1];
    uint64_t sent[AHEAD + 1] = {0};
    struct cloud *c;
    struct error e = {0};
    char request[100];
    set_up_books();
    for (int i = 2; i <= AHEAD / 256 + 1; i++) {
        snprintf(request, sizeof request,
                 "{\"op\":\"tenant.create\",\"name\":\"t%d\",\"currency\":\"JPY\",\"credit\":\"1000\"}", i);
        ask(request, "name");
    }
    assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
    atomic_store(&disk.hangs, true);
    for (int i = 0; i <= AHEAD; i++)
        assert_true(admit(c, i, NULL, &h[i], &e));
    for (int i = 0; i < AHEAD; i++)
        send_up_to(h[i], &sent[i], UNJOURNALLED);
    cloud_settle(h[0], &(struct settlement){.outcome = OUTCOME_CANCELLED});
    cloud_settle(h[1], &(struct settlement){.completion_tokens = UNJOURNALLED, .outcome = OUTCOME_DONE});
    usleep(20000);
    for (int i = 2; i < AHEAD; i++)
        assert_int_equal(cloud_may_send(h[i]), UNJOURNALLED);
    assert_int_equal(cloud_may_send(h[AHEAD]), 0);
    atomic_store(&disk.hangs, false);
    for (int i = 2; i <= AHEAD; i++) {
        send_up_to(h[i], &sent[i], 2 * UNJOURNALLED);
        cloud_settle(h[i], &(struct settlement){.completion_tokens = sent[i], .outcome = OUTCOME_DONE});
    }
    cloud_close(c);
    assert_int_equal(ask("{\"op\":\"ledger.verify\"}", "ok"), 1);
    assert_int_equal(ask("{\"op\":\"usage\",\"tenant\":\"t\"}", "completion_tokens"),
                     UNJOURNALLED + 254 * 2 * UNJOURNALLED);
    remove_books();
}

static void shell(const char *format) {
    char command[200];
    snprintf(command, sizeof command, format, folder, folder);
    assert_int_equal(system(command), 0);
}

/* The child: its streams have sent all that they may while the disk has none of it. */
static void send_beside_hanging_disk(void) {
    struct cloud *c;
    struct hold *h[STREAMS];
    uint64_t sent[STREAMS] = {0};
    struct error e = {0};
    if (cloud_open(&c, folder, NULL, NULL, &e) != 0)
        _exit(1);
    shell("mkdir %s/synced && cd %s && cp books.db* synced"); /* at rest: all of it is on the disk */
    atomic_store(&disk.hangs, true);
    for (int i = 0; i < STREAMS; i++) {
        if (!admit(c, i, NULL, &h[i], &e))
            _exit(1);
        send_up_to(h[i], &sent[i], UNJOURNALLED);
    }
    usleep(20000); /* the writer writes, and hangs */
    kill(getpid(), SIGKILL);
}

/* Killed, the log may have what was never synced; without power it has not. */
static void test_end_beside_hanging_disk(void **state) {
    for (int power_lost = 0; power_lost < 2; power_lost++) {
        int status;
        set_up_books();
        pid_t child = fork();
        if (child == 0)
            send_beside_hanging_disk();
        waitpid(child, &status, 0);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        if (power_lost)
            shell("mv %s/synced/* %s");
        assert_int_equal(ask("{\"op\":\"ledger.verify\"}", "ok"), 1);
        int64_t billed = ask("{\"op\":\"usage\",\"tenant\":\"t\"}", "completion_tokens");
        assert_true(billed <= (power_lost ? 0 : UNJOURNALLED * STREAMS));
        remove_books();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_failed_sync),
        cmocka_unit_test(test_full_disk_at_delivery),
        cmocka_unit_test(test_hanging_disk),
        cmocka_unit_test(test_end_beside_hanging_disk),
    };
    disk_insert();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
