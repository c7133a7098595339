/* Packed weights on disk. A file in the pack folder, named after the model file's SHA-256, this packing's version and the table, holds a header page and the
 * packed matrices; it is mapped read-only, so that a second start costs milliseconds and processes share the pages. The model's hash is
 * itself remembered in a small file beside it, keyed by the model's path, size, times and inode, because hashing a large file takes longer
 * than packing it. Nothing found here is trusted until its header agrees with the model at hand. */
#include "chip/cpu/kernels.h"

#include "base/file.h"
#include "base/log.h"
#include "model/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PACKING_VERSION = 6, HEADER_BYTES = 4096 };

struct header {
    char magic[8];
    uint32_t version, unused;
    uint64_t packed_bytes;
    struct hash file, layout;
    struct hash check; /* of everything above */
};

static struct header header_of(const struct cache *k, const struct chip_weights *w) {
    struct header h;
    memset(&h, 0, sizeof h);
    memcpy(h.magic, "unkaipak", 8);
    h.version = PACKING_VERSION;
    h.packed_bytes = w->packed_bytes;
    h.file = k->file;
    h.layout = k->layout;
    h.check = hash_sha256((struct str){(const char *)&h, offsetof(struct header, check)});
    return h;
}

/* Write a small file under a temporary name and rename it, so that a reader sees all or nothing. */
static void note_write(const char *path, const char *text) {
    char temporary[4096 + 16];
    if ((size_t)snprintf(temporary, sizeof temporary, "%s.XXXXXX", path) >= sizeof temporary)
        return;
    int fd = mkstemp(temporary);
    if (fd < 0)
        return;
    bool good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    good &= close(fd) == 0;
    if (!good || rename(temporary, path))
        unlink(temporary);
}

/* The model file's hash, from the note if the file is the one the note speaks of. */
static bool model_hash(struct hash *out, const struct chip *c, const struct gguf *g) {
    struct stat s;
    char full[4096], path[4096], said[512] = "", now[512], hex[HASH_HEX + 1], key[HASH_HEX + 1];
    if (!realpath(gguf_path(g), full) || !gguf_stat(g, &s))
        return false;
    struct hash name = hash_sha256(str_from(full));
    hash_hex(&name, key);
    if ((size_t)snprintf(path, sizeof path, "%s/%.32s.sha256", c->pack_folder, key) >= sizeof path)
        return false;
    int n = snprintf(now, sizeof now, "%lld %lld.%09ld %lld.%09ld %llu:%llu ", (long long)s.st_size,
                     (long long)s.st_mtim.tv_sec, s.st_mtim.tv_nsec, (long long)s.st_ctim.tv_sec,
                     s.st_ctim.tv_nsec, (unsigned long long)s.st_dev, (unsigned long long)s.st_ino);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        ssize_t got = read(fd, said, sizeof said - 1);
        close(fd);
        said[got > 0 ? got : 0] = 0;
    }
    if (!strncmp(said, now, (size_t)n) && strlen(said) == (size_t)n + HASH_HEX) {
        bool good = true;
        for (int i = 0; i < HASH_BYTES; i++) {
            unsigned byte = 0;
            good &= sscanf(said + n + 2 * i, "%2x", &byte) == 1;
            out->byte[i] = (uint8_t)byte;
        }
        if (good)
            return true;
    }
    *out = hash_sha256(gguf_bytes(g));
    hash_hex(out, hex);
    snprintf(now + n, sizeof now - (size_t)n, "%s", hex);
    if (!gguf_damaged(g))
        note_write(path, now);
    return true;
}

static bool map_in(struct chip_weights *w, int fd) {
    size_t bytes = HEADER_BYTES + w->packed_bytes;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED)
        return false;
    if (guard_add(map, bytes, &w->damaged)) {
        munmap(map, bytes);
        return false;
    }
    madvise(map, bytes, MADV_HUGEPAGE); /* where the file system can */
    w->map = map;
    w->file = fd;
    w->map_bytes = bytes;
    w->packed = (uint8_t *)map + HEADER_BYTES;
    return true;
}

bool cache_name(struct cache *k, const struct chip *c, const struct gguf *g, struct hash layout) {
    k->layout = layout;
    char hex[HASH_HEX + 1];
    if (mkdir(c->pack_folder, 0700) && errno != EEXIST) {
        log_warn("cannot make the folder %s for packed weights (%s)", c->pack_folder, strerror(errno));
        return false;
    }
    if (!model_hash(&k->file, c, g))
        return false;
    hash_hex(&k->file, hex);
    return (size_t)snprintf(k->path, sizeof k->path, "%s/%s-%d-%s.pack", c->pack_folder, hex, PACKING_VERSION,
                            c->fast->name) < sizeof k->path;
}

bool cache_open(const struct cache *k, struct chip_weights *w) {
    int fd = open(k->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    struct stat s;
    struct header found, want = header_of(k, w);
    bool good = !fstat(fd, &s) && S_ISREG(s.st_mode) &&
                (uint64_t)s.st_size == HEADER_BYTES + w->packed_bytes &&
                read(fd, &found, sizeof found) == sizeof found && !memcmp(&found, &want, sizeof want) &&
                map_in(w, fd);
    if (!good)
        close(fd);
    return good;
}

bool cache_write(const struct cache *k, const struct chip_weights *w) {
    char temporary[sizeof k->path + 8], header[HEADER_BYTES] = {0};
    struct header h = header_of(k, w);
    memcpy(header, &h, sizeof h);
    snprintf(temporary, sizeof temporary, "%s.XXXXXX", k->path);
    int fd = mkstemp(temporary);
    if (fd < 0)
        return false;
    bool good = !file_write(fd, header, sizeof header, 0) &&
                !file_write(fd, w->packed, w->packed_bytes, HEADER_BYTES) && !fsync(fd);
    good &= close(fd) == 0;
    if (good && !rename(temporary, k->path))
        return true;
    unlink(temporary);
    return false;
}

void cache_close(struct chip_weights *w) {
    guard_remove(w->map);
    munmap(w->map, w->map_bytes);
    close(w->file);
}
