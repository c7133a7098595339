/* KV pages in a file; see kv_file.h. The index of what lies in the file stays in memory: a ring of entries in the order of the log, and buckets by name. One lock guards
 * everything but the bytes of the page being copied, read or written, which belong to one thread at a time. */
#include "engine/kv_file.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    STAGE = 64 << 20, /* bytes of pages that wait to be written */
    WRITES = 1024,    /* such pages */
    READS = 64,       /* pages asked for and not taken */
    DEPTH = 8,        /* of them, that the disk may work on at once */
    /* The index has an entry for so many bytes of the file, within these bounds; smaller pages do not fill a large one. */
    ENTRY_BYTES = 16 << 10,
    LEAST_ENTRIES = 1 << 12,
    MOST_ENTRIES = 1 << 20
};
static const uint64_t MOST_BYTES = (uint64_t)4 << 30; /* of a file whose size nobody said */
static const int64_t STUCK_NS = 2000000000;

struct entry { /* a page in the log */
    struct hash name;
    uint64_t pool, offset;
    size_t bytes;
    uint32_t next;    /* of the same bucket: entry + 1, 0 at the end */
    uint32_t readers; /* reads of it that are not done: it must stay */
    enum { STAGED, WRITTEN, LOST } state;
    uint64_t stage; /* where its bytes are while it is staged */
    uint8_t tag[SEAL_TAG_BYTES];
};

struct write {
    uint64_t serial; /* of its entry, which may have been overwritten since */
    uint64_t offset, stage;
    size_t bytes;
    struct kv_key key;
};

struct read {
    uint64_t serial;
    void *to;
    uint32_t number;
    bool whole;
    int64_t asked;
    struct kv_key key;
};

struct kv_file {
    int fd;
    uint64_t limit, head; /* bytes; where the next page goes */
    struct seal *seal;    /* of the file's thread */
    char *stage;          /* a ring, like all that follow: positions only grow */
    uint64_t stage_first, stage_end;
    struct entry *entry;
    uint32_t *bucket, entries, buckets;
    uint64_t entry_first, entry_end; /* serial numbers of the log */
    struct write write[WRITES];
    uint64_t write_first, write_end;
    struct read read[READS];
    uint64_t read_first, read_done, read_end; /* to be taken; to be read */
    uint64_t read_told;                       /* the next that the system has not been told of */
    uint64_t reading_bytes;                   /* not read yet */
    double ns_per_byte;                       /* of reads, smoothed; 0: none was made */
    int64_t last_done;
    struct kv_file_stats stats;
    bool stopping, complained; /* of an error, once */
    void (*wake)(void *context);
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    pthread_t thread;
};

/* ---- the index ---- */

static struct entry *entry_at(struct kv_file *f, uint64_t serial) {
    return &f->entry[serial % f->entries];
}

static uint32_t *bucket_of(struct kv_file *f, const struct hash *name) {
    uint32_t h;
    memcpy(&h, name->byte, sizeof h);
    return &f->bucket[h & (f->buckets - 1)];
}

static struct entry *find(struct kv_file *f, const struct kv_key *key) {
    for (uint32_t i = *bucket_of(f, &key->name); i != 0; i = f->entry[i - 1].next) {
        struct entry *e = &f->entry[i - 1];
        if (e->pool == key->pool && e->state != LOST && hash_equal(&e->name, &key->name))
            return e;
    }
    return NULL;
}

static uint64_t serial_of(const struct kv_file *f, const struct entry *e) {
    uint64_t slot = (uint64_t)(e - f->entry), first = f->entry_first % f->entries;
    return f->entry_first + (slot + f->entries - first) % f->entries;
}

static void drop_oldest(struct kv_file *f) {
    struct entry *e = entry_at(f, f->entry_first++);
    uint32_t *at = bucket_of(f, &e->name), number = (uint32_t)(e - f->entry) + 1;
    while (*at != number)
        at = &f->entry[*at - 1].next;
    *at = e->next;
    f->stats.bytes -= e->state == LOST ? 0 : e->bytes;
}

static void lose(struct kv_file *f, struct entry *e) {
    f->stats.bytes -= e->state == LOST ? 0 : e->bytes;
    e->state = LOST; /* its place in the log stays its own until the log comes round */
}

/* ---- the log ---- */

/* Take the oldest out of the log while they begin in [from, to); false: one of them is being read. */
static bool clear(struct kv_file *f, uint64_t from, uint64_t to) {
    while (f->entry_first != f->entry_end) {
        const struct entry *e = entry_at(f, f->entry_first);
        if (e->offset < from || e->offset >= to)
            break;
        if (e->readers != 0)
            return false;
        drop_oldest(f);
    }
    return true;
}

/* Room for so many bytes at the head of the log, and for their entry. */
static bool make_room(struct kv_file *f, size_t bytes) {
    if (f->head + bytes > f->limit) {
        if (!clear(f, f->head, UINT64_MAX))
            return false;
        f->head = 0;
    }
    if (!clear(f, f->head, f->head + bytes))
        return false;
    if (f->entry_end - f->entry_first == f->entries) {
        if (entry_at(f, f->entry_first)->readers != 0)
            return false;
        drop_oldest(f);
    }
    return true;
}

/* Room in the stage, in one piece; *at is its position. */
static bool stage_room(struct kv_file *f, size_t bytes, uint64_t *at) {
    if (f->write_first == f->write_end) /* the same memory again, so that little of it is ever touched */
        f->stage_first = f->stage_end = 0;
    *at = f->stage_end;
    if (*at % STAGE + bytes > STAGE)
        *at += STAGE - *at % STAGE;
    return bytes <= STAGE && *at + bytes - f->stage_first <= STAGE && f->write_end - f->write_first < WRITES;
}

/* Its copy in the file has a way to go before it is overwritten. */
static bool lies_well(const struct kv_file *f, const struct entry *e) {
    uint64_t behind = f->head - e->offset + (e->offset < f->head ? 0 : f->limit);
    return e->readers != 0 || behind <= f->limit / 2;
}

static void append(struct kv_file *f, const struct kv_key *key, size_t bytes, uint64_t stage) {
    uint64_t serial = f->entry_end++;
    struct entry *e = entry_at(f, serial);
    uint32_t *bucket = bucket_of(f, &key->name);
    *e = (struct entry){.name = key->name,
                        .pool = key->pool,
                        .offset = f->head,
                        .bytes = bytes,
                        .next = *bucket,
                        .state = STAGED,
                        .stage = stage};
    *bucket = (uint32_t)(e - f->entry) + 1;
    f->write[f->write_end % WRITES] =
        (struct write){.serial = serial, .offset = f->head, .stage = stage, .bytes = bytes, .key = *key};
    f->write_end++;
    f->head += bytes;
    f->stats.bytes += bytes;
}

void kv_file_put(struct kv_file *f, const struct kv_key *key, const void *page, size_t bytes) {
    uint64_t stage;
    pthread_mutex_lock(&f->lock);
    struct entry *known = find(f, key);
    bool lies = known != NULL && lies_well(f, known);
    bool room = !lies && bytes <= f->limit && stage_room(f, bytes, &stage) && make_room(f, bytes);
    if (room)
        f->stage_end = stage + bytes;
    f->stats.dropped += !lies && !room;
    pthread_mutex_unlock(&f->lock);
    if (!room)
        return;
    memcpy(f->stage + stage % STAGE, page, bytes);
    pthread_mutex_lock(&f->lock);
    known = find(f, key);
    if (known != NULL)
        lose(f, known);
    append(f, key, bytes, stage);
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
}

bool kv_file_takes(struct kv_file *f, size_t bytes) {
    uint64_t stage;
    pthread_mutex_lock(&f->lock);
    bool takes = bytes <= f->limit && stage_room(f, bytes, &stage);
    pthread_mutex_unlock(&f->lock);
    return takes;
}

void kv_file_trim(struct kv_file *f) {
    pthread_mutex_lock(&f->lock);
    if (f->write_first == f->write_end)
        madvise(f->stage, STAGE, MADV_DONTNEED);
    pthread_mutex_unlock(&f->lock);
}

/* ---- reading back ---- */

static struct entry *find_readable(struct kv_file *f, const struct kv_key *key, size_t bytes) {
    struct entry *e = f->read_end - f->read_first < READS ? find(f, key) : NULL;
    return e != NULL && e->bytes == bytes ? e : NULL;
}

bool kv_file_has(struct kv_file *f, const struct kv_key *key, size_t bytes, double worth_ns) {
    pthread_mutex_lock(&f->lock);
    bool has = find_readable(f, key, bytes) != NULL;
    bool worth = (double)(f->reading_bytes + bytes) * f->ns_per_byte <= worth_ns;
    if (has && !worth) /* doubt the measurement a little more each time, so that it is made again some day */
        f->ns_per_byte *= 0.99;
    pthread_mutex_unlock(&f->lock);
    return has && worth;
}

bool kv_file_get(struct kv_file *f, const struct kv_key *key, void *to, size_t bytes, uint32_t number) {
    pthread_mutex_lock(&f->lock);
    struct entry *e = find_readable(f, key, bytes);
    if (e != NULL) {
        e->readers++;
        f->reading_bytes += bytes;
        f->read[f->read_end++ % READS] = (struct read){
            .serial = serial_of(f, e), .to = to, .number = number, .asked = clock_mono_ns(), .key = *key};
        pthread_cond_signal(&f->work);
    }
    pthread_mutex_unlock(&f->lock);
    return e != NULL;
}

bool kv_file_take(struct kv_file *f, struct kv_arrival *out) {
    pthread_mutex_lock(&f->lock);
    bool any = f->read_first != f->read_done;
    if (any) {
        const struct read *r = &f->read[f->read_first++ % READS];
        *out = (struct kv_arrival){.pool = r->key.pool, .number = r->number, .whole = r->whole};
    }
    pthread_mutex_unlock(&f->lock);
    return any;
}

bool kv_file_reading(struct kv_file *f) {
    pthread_mutex_lock(&f->lock);
    bool reading = f->read_first != f->read_end;
    pthread_mutex_unlock(&f->lock);
    return reading;
}

bool kv_file_stuck(struct kv_file *f) {
    pthread_mutex_lock(&f->lock);
    bool stuck =
        f->read_done != f->read_end && clock_mono_ns() - f->read[f->read_done % READS].asked > STUCK_NS;
    pthread_mutex_unlock(&f->lock);
    return stuck;
}

void kv_file_forget(struct kv_file *f, uint64_t pool) {
    pthread_mutex_lock(&f->lock);
    for (uint64_t i = f->read_done; i != f->read_end;) {
        if (i < f->read_done)
            i = f->read_done;
        else if (f->read[i % READS].key.pool != pool)
            i++;
        else
            pthread_cond_wait(&f->done, &f->lock);
    }
    for (uint64_t i = f->entry_first; i != f->entry_end; i++)
        if (entry_at(f, i)->pool == pool)
            lose(f, entry_at(f, i));
    pthread_mutex_unlock(&f->lock);
}

void kv_file_count(struct kv_file *f, struct kv_file_stats *out) {
    pthread_mutex_lock(&f->lock);
    *out = f->stats;
    pthread_mutex_unlock(&f->lock);
}

/* ---- the file's thread ---- */

static struct str bound_to(const struct kv_key *key) {
    return (struct str){(const char *)key, sizeof *key};
}

/* An error is told once; the numbers tell of the others. Under the lock. */
static void complain(struct kv_file *f, const char *what, int number) {
    if (!f->complained)
        log_warn("the file for KV pages cannot be %s: %s; pages are computed anew instead", what,
                 number != 0 ? strerror(number) : "it is not as it was written");
    f->complained = true;
}

/* The oldest staged page goes to the file. Called and left with the lock. */
static void write_one(struct kv_file *f) {
    struct write w = f->write[f->write_first % WRITES];
    uint8_t tag[SEAL_TAG_BYTES];
    char *bytes = f->stage + w.stage % STAGE;
    pthread_mutex_unlock(&f->lock);
    int error = seal_lock(f->seal, w.serial, bound_to(&w.key), bytes, w.bytes, tag)
                    ? file_write(f->fd, bytes, w.bytes, w.offset)
                    : ENOMEM;
    pthread_mutex_lock(&f->lock);
    f->write_first++;
    f->stage_first = w.stage + w.bytes;
    if (error != 0) {
        f->stats.dropped++;
        complain(f, "written", error);
    } else
        f->stats.spilled++;
    if (w.serial < f->entry_first || entry_at(f, w.serial)->state == LOST)
        return;
    struct entry *e = entry_at(f, w.serial);
    memcpy(e->tag, tag, sizeof tag);
    if (error != 0)
        lose(f, e);
    else
        e->state = WRITTEN;
}

static void learn_speed(struct kv_file *f, int64_t asked, size_t bytes) {
    int64_t now = clock_mono_ns(), since = f->last_done > asked ? f->last_done : asked;
    double each = (double)(now - since) / (double)bytes;
    f->ns_per_byte += (each - f->ns_per_byte) * (f->ns_per_byte == 0 ? 1 : 0.1);
    f->last_done = now;
}

/* Tell the system which pages will be read next, so that it fetches them side by side. Called and left with the lock. */
static void tell_reads(struct kv_file *f) {
    uint64_t from = f->read_told < f->read_done ? f->read_done : f->read_told, offset[DEPTH];
    size_t bytes[DEPTH], n = 0;
    for (; from != f->read_end && from - f->read_done < DEPTH; from++) {
        const struct entry *e = entry_at(f, f->read[from % READS].serial);
        if (e->state == WRITTEN) {
            offset[n] = e->offset;
            bytes[n++] = e->bytes;
        }
    }
    f->read_told = from;
    pthread_mutex_unlock(&f->lock);
    for (size_t i = 0; i < n; i++)
        posix_fadvise(f->fd, (off_t)offset[i], (off_t)bytes[i], POSIX_FADV_WILLNEED);
    pthread_mutex_lock(&f->lock);
}

/* The page that was asked for first comes back: from the file, or from the stage if it has not been written yet. Called and left with the lock. */
static void read_one(struct kv_file *f) {
    struct read *r = &f->read[f->read_done % READS];
    struct entry *e = entry_at(f, r->serial); /* it has a reader, so it stays */
    const struct entry was = *e;
    int error = 0;
    bool whole = was.state != LOST;
    pthread_mutex_unlock(&f->lock);
    if (was.state == STAGED)
        memcpy(r->to, f->stage + was.stage % STAGE, was.bytes);
    else if (whole) {
        error = file_read(f->fd, r->to, was.bytes, was.offset);
        whole = error == 0 && seal_open(f->seal, r->serial, bound_to(&r->key), r->to, was.bytes, was.tag);
    }
    pthread_mutex_lock(&f->lock);
    e->readers--;
    f->reading_bytes -= was.bytes;
    if (whole && was.state == WRITTEN)
        learn_speed(f, r->asked, was.bytes);
    if (!whole && was.state != LOST) {
        lose(f, e);
        complain(f, "read", error);
    }
    r->whole = whole;
    f->stats.restored += whole;
    f->stats.failed += !whole;
    bool first = f->read_first == f->read_done++;
    pthread_cond_broadcast(&f->done);
    if (first) {
        pthread_mutex_unlock(&f->lock);
        f->wake(f->context);
        pthread_mutex_lock(&f->lock);
    }
}

/* Reads come before writes: somebody waits for them. */
static void *file_main(void *context) {
    struct kv_file *f = context;
    pthread_mutex_lock(&f->lock);
    while (!f->stopping) {
        if (f->read_done != f->read_end) {
            tell_reads(f);
            read_one(f);
        } else if (f->write_first != f->write_end)
            write_one(f);
        else
            pthread_cond_wait(&f->work, &f->lock);
    }
    pthread_mutex_unlock(&f->lock);
    return NULL;
}

/* ---- opening and closing ---- */

/* A file without a name where the file system can make one, else one that loses it at once. */
static int open_nameless(const char *folder) {
    char path[4096];
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0 || (size_t)snprintf(path, sizeof path, "%s/kv-XXXXXX", folder) >= sizeof path)
        return fd;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0)
        unlink(path);
    return fd;
}

static int open_file(struct kv_file *f, const char *folder, uint64_t bytes, struct error *e) {
    struct statvfs disk;
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return error_set(e, ERR_IO, "cannot make the folder %.200s: %s", folder, strerror(errno));
    f->fd = open_nameless(folder);
    if (f->fd < 0 || fstatvfs(f->fd, &disk) != 0)
        return error_set(e, ERR_IO, "cannot make a file in %.200s: %s", folder, strerror(errno));
    uint64_t quarter = (uint64_t)disk.f_bavail * disk.f_frsize / 4;
    f->limit = bytes != 0 ? bytes : quarter < MOST_BYTES ? quarter : MOST_BYTES;
    return 0;
}

static int allocate(struct kv_file *f, struct error *e) {
    uint64_t entries = f->limit / ENTRY_BYTES;
    entries = entries < LEAST_ENTRIES ? LEAST_ENTRIES : entries;
    f->entries = entries > MOST_ENTRIES ? MOST_ENTRIES : (uint32_t)entries;
    f->buckets = 16;
    while (f->buckets < f->entries)
        f->buckets *= 2;
    f->entry = calloc(f->entries, sizeof *f->entry);
    f->bucket = calloc(f->buckets, sizeof *f->bucket);
    f->seal = seal_create();
    f->stage = mmap(NULL, STAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f->entry == NULL || f->bucket == NULL || f->seal == NULL || f->stage == MAP_FAILED)
        return error_set(e, ERR_NO_MEMORY, "no memory for the index of a file of KV pages");
    return 0;
}

/* All but the thread. */
static void free_file(struct kv_file *f) {
    if (f->fd >= 0)
        close(f->fd);
    if (f->stage != MAP_FAILED)
        munmap(f->stage, STAGE);
    seal_free(f->seal);
    free(f->entry);
    free(f->bucket);
    pthread_cond_destroy(&f->work);
    pthread_cond_destroy(&f->done);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

int kv_file_open(struct kv_file **out, const char *folder, uint64_t bytes, void (*wake)(void *context),
                 void *context, struct error *e) {
    struct kv_file *f = calloc(1, sizeof *f);
    *out = NULL;
    if (f == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a file of KV pages");
    f->fd = -1;
    f->stage = MAP_FAILED;
    f->wake = wake;
    f->context = context;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->work, NULL);
    pthread_cond_init(&f->done, NULL);
    int rc = open_file(f, folder, bytes, e);
    if (rc == 0)
        rc = allocate(f, e);
    if (rc == 0 && pthread_create(&f->thread, NULL, file_main, f) != 0)
        rc = error_set(e, ERR_NO_MEMORY, "cannot start the thread of the file of KV pages");
    if (rc != 0) {
        free_file(f);
        return rc;
    }
    *out = f;
    return 0;
}

void kv_file_close(struct kv_file *f) {
    if (f == NULL)
        return;
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_signal(&f->work);
    pthread_mutex_unlock(&f->lock);
    pthread_join(f->thread, NULL);
    free_file(f);
}

uint64_t kv_file_limit(const struct kv_file *f) {
    return f->limit;
}
