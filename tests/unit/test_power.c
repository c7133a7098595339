/* The books on a disk that loses power at a random moment: of what was not synced some writes are there, some are not, and some are there in part. At the next start
 * nothing is charged that was not sent, at most 32 tokens of a stream are not charged, every key has its whole answer or is spent or free, and the ledger verifies. The
 * power may go again while the books recover.
 *
 * The disk is in memory, below SQLite (a VFS, sqlite.org/vfs.html). 200 times in every test run, UNKAI_POWER=10000 for a campaign; UNKAI_SEED repeats one. */
#include "books_request.h"

#include "cloud/cloud.h"
#include "cloud/control.h"

#include "base/clock.h"
#include "base/json.h"

#include <pthread.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { STREAMS = 4, EACH = 70, PROMPT = 10, UNBILLED = 32, SECTOR = 512, FILES = 3, LIFE = 25 };

static _Atomic uint64_t sent[STREAMS]; /* that the sockets took, in this life */
static uint64_t sent_at_cut[STREAMS];

static uint64_t random_state;

static uint64_t chance(uint64_t n) {
    random_state ^= random_state << 13; /* Marsaglia, Xorshift RNGs, 2003 */
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state % n;
}

/* ---- the disk ---- */

struct content {
    unsigned char *p;
    size_t n;
    bool there;
};

struct disk_file {
    const char *end;            /* of its name */
    struct content now, synced; /* as the program sees it; as it is after a cut, but for what follows */
};

struct change {
    struct disk_file *file;
    size_t at, n; /* bytes NULL: cut to n */
    unsigned char *bytes;
    struct change *next;
};

static pthread_mutex_t disk_lock = PTHREAD_MUTEX_INITIALIZER;
static struct disk_file disk[FILES] = {
    {.end = "books.db"}, {.end = "books.db-wal"}, {.end = "books.db-journal"}};
static struct change *changes, **last_change = &changes; /* not synced yet, oldest first */
static int64_t until_cut = -1;                           /* operations; negative: none is planned */
static bool powerless;
static sqlite3_vfs *below;

static void resize(struct content *c, size_t n) {
    if (n > c->n) {
        c->p = realloc(c->p, n);
        assert_non_null(c->p);
        memset(c->p + c->n, 0, n - c->n);
    }
    c->n = n;
}

static void put(struct content *c, size_t at, const unsigned char *bytes, size_t n) {
    if (at + n > c->n)
        resize(c, at + n);
    memcpy(c->p + at, bytes, n);
}

static void copy(struct content *to, const struct content *from) {
    resize(to, 0);
    if (from->n > 0)
        put(to, 0, from->p, from->n);
    to->there = from->there;
}

static void drop_changes(const struct disk_file *of) {
    for (struct change **link = &changes; *link != NULL;) {
        struct change *c = *link;
        if (of != NULL && c->file != of) {
            link = &c->next;
            continue;
        }
        *link = c->next;
        free(c->bytes);
        free(c);
    }
    last_change = &changes;
    while (*last_change != NULL)
        last_change = &(*last_change)->next;
}

static void reach_disk(const struct change *c, bool torn) {
    struct content *to = &c->file->synced;
    if (c->bytes == NULL) {
        resize(to, c->n);
        return;
    }
    for (size_t from = 0; from < c->n; from += SECTOR)
        if (!torn || chance(2) == 0)
            put(to, c->at + from, c->bytes + from, c->n - from < SECTOR ? c->n - from : SECTOR);
}

/* Each write that was not synced is there, or not, or in part; sometimes all or none of them. */
static void cut_power(void) {
    uint64_t odds = chance(4);
    for (const struct change *c = changes; c != NULL; c = c->next) {
        uint64_t fate = odds == 0 ? 0 : odds == 1 ? 1 : chance(3);
        if (fate != 0)
            reach_disk(c, fate == 2);
    }
    drop_changes(NULL);
    for (int i = 0; i < STREAMS; i++)
        sent_at_cut[i] = atomic_load(&sent[i]);
    powerless = true;
    until_cut = -1;
}

static void power_on(void) {
    pthread_mutex_lock(&disk_lock);
    if (!powerless)
        cut_power();
    for (int i = 0; i < FILES; i++)
        copy(&disk[i].now, &disk[i].synced);
    powerless = false;
    pthread_mutex_unlock(&disk_lock);
}

/* Before each operation that changes the disk; with the lock. True: there is power. */
static bool goes(void) {
    if (until_cut >= 0 && until_cut-- == 0)
        cut_power();
    return !powerless;
}

static void note(struct disk_file *file, size_t at, const void *bytes, size_t n) {
    struct change *c = calloc(1, sizeof *c);
    assert_non_null(c);
    *c = (struct change){.file = file, .at = at, .n = n};
    if (bytes != NULL) {
        c->bytes = malloc(n);
        assert_non_null(c->bytes);
        memcpy(c->bytes, bytes, n);
    }
    *last_change = c;
    last_change = &c->next;
}

struct file {
    sqlite3_file base;
    struct disk_file *on_disk;
};

static struct disk_file *of(sqlite3_file *f) {
    return ((struct file *)(void *)f)->on_disk;
}

static int file_close(sqlite3_file *f) {
    return SQLITE_OK;
}

static int file_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at) {
    pthread_mutex_lock(&disk_lock);
    const struct content *c = &of(f)->now;
    size_t have = (size_t)at < c->n ? c->n - (size_t)at : 0;
    have = have < (size_t)n ? have : (size_t)n;
    if (have > 0)
        memcpy(to, c->p + at, have);
    memset((char *)to + have, 0, (size_t)n - have);
    int rc = powerless ? SQLITE_IOERR_READ : have < (size_t)n ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
    pthread_mutex_unlock(&disk_lock);
    return rc;
}

static int file_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at) {
    pthread_mutex_lock(&disk_lock);
    /* What is being written when the power goes is one of the writes that may be there. */
    if (!powerless)
        note(of(f), (size_t)at, from, (size_t)n);
    bool on = goes();
    if (on)
        put(&of(f)->now, (size_t)at, from, (size_t)n);
    pthread_mutex_unlock(&disk_lock);
    return on ? SQLITE_OK : SQLITE_IOERR_WRITE;
}

static int file_truncate(sqlite3_file *f, sqlite3_int64 size) {
    pthread_mutex_lock(&disk_lock);
    if (!powerless)
        note(of(f), 0, NULL, (size_t)size);
    bool on = goes();
    if (on)
        resize(&of(f)->now, (size_t)size);
    pthread_mutex_unlock(&disk_lock);
    return on ? SQLITE_OK : SQLITE_IOERR_TRUNCATE;
}

static int file_sync(sqlite3_file *f, int flags) {
    pthread_mutex_lock(&disk_lock);
    bool on = goes();
    if (on) {
        copy(&of(f)->synced, &of(f)->now);
        drop_changes(of(f));
    }
    pthread_mutex_unlock(&disk_lock);
    return on ? SQLITE_OK : SQLITE_IOERR_FSYNC;
}

static int file_size(sqlite3_file *f, sqlite3_int64 *size) {
    pthread_mutex_lock(&disk_lock);
    *size = (sqlite3_int64)of(f)->now.n;
    pthread_mutex_unlock(&disk_lock);
    return SQLITE_OK;
}

static int file_lock(sqlite3_file *f, int level) {
    return SQLITE_OK;
}

static int file_reserved(sqlite3_file *f, int *out) {
    *out = 0;
    return SQLITE_OK;
}

static int file_control(sqlite3_file *f, int op, void *arg) {
    return SQLITE_NOTFOUND;
}

static int file_sector(sqlite3_file *f) {
    return SECTOR;
}

static int file_traits(sqlite3_file *f) {
    return SQLITE_IOCAP_POWERSAFE_OVERWRITE; /* as SQLite takes every disk to be: a sector keeps what is beside a write */
}

static int shm_map(sqlite3_file *f, int page, int size, int extend, void volatile **out) {
    return SQLITE_IOERR; /* one connection has the log for itself, and its index in its own memory */
}

static int shm_lock(sqlite3_file *f, int offset, int n, int flags) {
    return SQLITE_IOERR;
}

static void shm_barrier(sqlite3_file *f) {}

static int shm_unmap(sqlite3_file *f, int remove) {
    return SQLITE_OK;
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
    .xUnlock = file_lock,
    .xCheckReservedLock = file_reserved,
    .xFileControl = file_control,
    .xSectorSize = file_sector,
    .xDeviceCharacteristics = file_traits,
    .xShmMap = shm_map,
    .xShmLock = shm_lock,
    .xShmBarrier = shm_barrier,
    .xShmUnmap = shm_unmap,
};

static struct disk_file *find_file(const char *name) {
    const char *base = name != NULL ? strrchr(name, '/') : NULL;
    for (int i = 0; i < FILES && base != NULL; i++)
        if (strcmp(base + 1, disk[i].end) == 0)
            return &disk[i];
    return NULL;
}

static int disk_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
    struct disk_file *file = find_file(name);
    if (file == NULL) /* a temporary one */
        return below->xOpen(below, name, f, flags, out);
    struct file *mine = (struct file *)(void *)f;
    mine->base.pMethods = &methods;
    mine->on_disk = file;
    pthread_mutex_lock(&disk_lock);
    file->now.there = file->synced.there = true;
    pthread_mutex_unlock(&disk_lock);
    if (out != NULL)
        *out = flags;
    return SQLITE_OK;
}

static int disk_delete(sqlite3_vfs *vfs, const char *name, int sync) {
    struct disk_file *file = find_file(name);
    if (file == NULL)
        return below->xDelete(below, name, sync);
    pthread_mutex_lock(&disk_lock);
    bool on = goes();
    if (on) {
        drop_changes(file);
        resize(&file->now, 0);
        file->now.there = false;
        copy(&file->synced, &file->now);
    }
    pthread_mutex_unlock(&disk_lock);
    return on ? SQLITE_OK : SQLITE_IOERR_DELETE;
}

static int disk_access(sqlite3_vfs *vfs, const char *name, int flags, int *out) {
    struct disk_file *file = find_file(name);
    if (file == NULL)
        return below->xAccess(below, name, flags, out);
    pthread_mutex_lock(&disk_lock);
    *out = file->now.there && (flags != SQLITE_ACCESS_EXISTS || file->now.n > 0);
    pthread_mutex_unlock(&disk_lock);
    return SQLITE_OK;
}

static void disk_insert(void) {
    static sqlite3_vfs vfs;
    below = sqlite3_vfs_find(NULL);
    vfs = *below;
    vfs.zName = "powerless";
    vfs.szOsFile = below->szOsFile > (int)sizeof(struct file) ? below->szOsFile : (int)sizeof(struct file);
    vfs.xOpen = disk_open;
    vfs.xDelete = disk_delete;
    vfs.xAccess = disk_access;
    vfs.pNext = NULL;
    assert_int_equal(sqlite3_vfs_register(&vfs, 1), SQLITE_OK);
}

/* ---- the books ---- */

static char folder[64];
static struct content fresh[FILES]; /* the disk when nothing had happened */

static struct json *ask(const char *format, ...) {
    char request[300];
    struct buf out = {0};
    struct json *answer;
    struct error e = {0};
    va_list args;
    va_start(args, format);
    vsnprintf(request, sizeof request, format, args);
    va_end(args);
    if (control_call(folder, str_from(request), &out, &e) != 0)
        fail_msg("%s: %s", request, e.text);
    assert_int_equal(json_parse(&answer, buf_view(&out), &e), 0);
    buf_free(&out);
    return answer;
}

static void make_books(void) {
    snprintf(folder, sizeof folder, "/tmp/unkai-power-XXXXXX");
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < STREAMS; i++)
        json_free(ask(
            "{\"op\":\"tenant.create\",\"name\":\"t%d\",\"currency\":\"JPY\",\"credit\":\"1000000\"}", i));
    json_free(
        ask("{\"op\":\"price.set\",\"model\":\"m\",\"currency\":\"JPY\",\"input\":\"300\",\"cached\":\"150\","
            "\"output\":\"700.000333\"}"));
    for (int i = 0; i < FILES; i++)
        copy(&fresh[i], &disk[i].now);
}

static uint64_t billed_of(int stream) {
    struct json *usage = ask("{\"op\":\"usage\",\"tenant\":\"t%d\"}", stream);
    int64_t tokens = json_as_int(json_get(usage, "completion_tokens"));
    json_free(usage);
    return (uint64_t)tokens;
}

struct stream {
    struct hold *hold;
    struct answer *answer; /* of the streams with an odd number, which have a key */
    bool settled;
};

/* What the lives of the books so far must have left. */
static struct {
    uint64_t billed[STREAMS]; /* before this life */
    struct hash key[STREAMS];
    bool keyed[STREAMS];
    int64_t kept, spent, free, lost; /* seen: keys by what stood under them; tokens sent and not billed */
} books;

static struct answer *answer_for(int stream) {
    struct answer *a = calloc(1, sizeof *a);
    assert_non_null(a);
    a->tenant = stream + 1;
    a->key = books.key[stream];
    a->body = hash_sha256(STR("body"));
    return a;
}

static struct answer *find(struct cloud *c, int stream) {
    struct answer *a = answer_for(stream), *found = NULL;
    struct error e;
    assert_int_equal(cloud_find_answer(c, a, &e), 0);
    while ((found = cloud_take_answer(c)) == NULL)
        usleep(20);
    assert_ptr_equal(found, a);
    assert_int_equal(a->rc, 0);
    return a;
}

static void check_key(struct cloud *c, int i, uint64_t billed) {
    struct answer *a = find(c, i);
    if (a->status == 200)
        assert_true(billed == EACH && a->bytes.n == sizeof a->key &&
                    memcmp(a->bytes.p, &a->key, sizeof a->key) == 0);
    else if (a->status == ANSWER_SPENT)
        assert_true(billed > 0);
    else
        assert_true(a->status == ANSWER_NONE && billed == 0);
    *(a->status == 200 ? &books.kept : a->status == ANSWER_SPENT ? &books.spent : &books.free) += 1;
    answer_free(a);
}

/* The books are open again: compare them with what was sent when the power went. */
static void check(struct cloud *c) {
    for (int i = 0; i < STREAMS; i++) {
        uint64_t now = billed_of(i), billed = now - books.billed[i];
        if (billed > sent_at_cut[i] || sent_at_cut[i] - billed > UNBILLED)
            fail_msg("stream %d: %llu tokens sent, %llu billed", i, (unsigned long long)sent_at_cut[i],
                     (unsigned long long)billed);
        books.lost += (int64_t)(sent_at_cut[i] - billed);
        if (books.keyed[i])
            check_key(c, i, billed);
        books.billed[i] = now;
        books.keyed[i] = false;
        sent_at_cut[i] = 0;
        atomic_store(&sent[i], 0);
    }
    struct json *verified = ask("{\"op\":\"ledger.verify\"}");
    struct buf text = {0};
    json_write(&text, verified);
    if (!json_as_bool(json_get(verified, "ok")))
        fail_msg("%s", text.p);
    buf_free(&text);
    json_free(verified);
}

static void begin(struct cloud *c, struct stream *s, int i, int64_t number) {
    struct identity who = {.tenant = i + 1, .key = 1, .account = (uint64_t)i + 1, .weight = 1};
    struct admission a = {
        .who = &who, .model = STR("m"), .prompt_tokens = PROMPT, .max_completion_tokens = EACH};
    struct error e;
    snprintf(a.request_id, sizeof a.request_id, "r%lld-%d", (long long)number, i);
    *s = (struct stream){0};
    if (i % 2 == 1) {
        books.key[i] = hash_sha256(str_from(a.request_id));
        books.keyed[i] = true;
        s->answer = a.answer = answer_for(i);
    }
    if (books_admit(c, &a, &s->hold, &e) == 0)
        return;
    assert_int_equal(e.code, ERR_UNAVAILABLE);
    s->hold = NULL;
    answer_free(s->answer);
}

static void end(struct stream *s, uint64_t tokens) {
    struct settlement done = {.completion_tokens = tokens,
                              .outcome = tokens == EACH ? OUTCOME_DONE : OUTCOME_FAILED};
    if (s->answer != NULL) {
        s->answer->status = tokens == EACH ? 200 : tokens > 0 ? ANSWER_SPENT : ANSWER_NONE;
        buf_append(&s->answer->bytes, &s->answer->key, sizeof s->answer->key);
    }
    cloud_settle(s->hold, &done);
    s->settled = true;
}

/* Streams that send what they may, one after the other ending, until all have or the books have stopped. */
static void live(struct cloud *c, int64_t number) {
    struct stream s[STREAMS];
    struct error e;
    int running = 0;
    for (int i = 0; i < STREAMS; i++) {
        begin(c, &s[i], i, number);
        running += s[i].hold != NULL;
    }
    while (running > 0 && !cloud_stopped(c, &e)) {
        bool moved = false;
        for (int i = 0; i < STREAMS; i++) {
            uint64_t n = atomic_load(&sent[i]);
            if (s[i].hold == NULL || s[i].settled || n >= cloud_may_send(s[i].hold))
                continue;
            atomic_store(&sent[i], ++n);
            cloud_sent(s[i].hold, n, 0);
            moved = true;
            if (n < EACH)
                continue;
            end(&s[i], n);
            running--;
        }
        if (!moved)
            usleep(20);
    }
    for (int i = 0; i < STREAMS; i++)
        if (s[i].hold != NULL && !s[i].settled)
            end(&s[i], atomic_load(&sent[i]));
}

static void plan_cut(int64_t operations) {
    pthread_mutex_lock(&disk_lock);
    until_cut = operations;
    pthread_mutex_unlock(&disk_lock);
}

static bool gone_or_going(void) {
    pthread_mutex_lock(&disk_lock);
    bool yes = powerless || until_cut >= 0;
    pthread_mutex_unlock(&disk_lock);
    return yes;
}

static void begin_anew(void) {
    pthread_mutex_lock(&disk_lock);
    for (int i = 0; i < FILES; i++)
        copy(&disk[i].synced, &fresh[i]);
    pthread_mutex_unlock(&disk_lock);
    memset(books.billed, 0, sizeof books.billed);
}

static void test_power(void **state) {
    const char *campaign = getenv("UNKAI_CAMPAIGN"), *asked = getenv("UNKAI_POWER"),
               *seed = getenv("UNKAI_SEED");
    int64_t cuts = asked != NULL ? atoll(asked) : campaign != NULL ? 10000 : 200, in_recovery = 0;
    random_state = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)clock_wall_ns();
    print_message("UNKAI_SEED=%llu\n", (unsigned long long)random_state);
    make_books();
    for (int64_t n = 0; n < cuts;) {
        struct cloud *c;
        struct error e = {0};
        power_on();
        if (chance(4) == 0)
            plan_cut((int64_t)chance(12));
        if (cloud_open(&c, folder, NULL, NULL, &e) != 0) {
            assert_true(gone_or_going());
            in_recovery++;
            n++;
            continue;
        }
        if (gone_or_going()) { /* it went while nobody looked, or will while we do: look behind it */
            cloud_close(c);
            continue;
        }
        check(c);
        plan_cut((int64_t)chance(90));
        live(c, n);
        cloud_close(c);
        if (++n % LIFE == 0) {
            power_on();
            assert_int_equal(cloud_open(&c, folder, NULL, NULL, &e), 0);
            check(c);
            cloud_close(c);
            begin_anew();
        }
    }
    print_message("the power went %lld times, %lld of them while the books recovered: nothing was billed "
                  "that was not sent, %lld tokens were lost, never more "
                  "than %d of a stream; of the keys %lld had their answer, %lld were spent, %lld free; the "
                  "ledger verified each time\n",
                  (long long)cuts, (long long)in_recovery, (long long)books.lost, UNBILLED,
                  (long long)books.kept, (long long)books.spent, (long long)books.free);
}

static int remove_books(void **state) {
    char command[100];
    snprintf(command, sizeof command, "rm -rf %s", folder);
    for (int i = 0; i < FILES; i++) {
        free(disk[i].now.p);
        free(disk[i].synced.p);
        free(fresh[i].p);
    }
    return system(command);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_power, remove_books)};
    disk_insert();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
