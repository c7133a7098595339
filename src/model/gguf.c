/* Reading GGUF; see gguf.h. Two passes over the header: the first checks every value and counts, so that the second can fill tables of the right
 * size; the tables are hashed, so that hostile counts cost no more than the file's own length.
 * Format: the ggml project's docs/gguf.md. */
#include "model/gguf.h"

#include "base/arena.h"
#include "base/hash.h"
#include "model/guard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    MAX_KEYS = 1 << 16,
    MAX_TENSORS = 1 << 18,
    MAX_NAME = 1 << 12,
    MIN_KEY_BYTES = 8 + 4 + 1, /* an empty key, its type and the smallest value */
    MIN_TENSOR_BYTES = 8 + 4 + 8 + 4 + 8
};

struct entry { /* one metadata pair */
    struct str key;
    uint32_t type;
    uint32_t item_type; /* arrays */
    uint64_t count;     /* arrays; else 1 */
    const char *data;   /* the value, or the first item */
    struct str *string; /* the items of an array of strings, made when the file is opened */
};

struct gguf {
    char *path;
    const char *base;
    size_t size;
    bool mapped;
    int file; /* of the mapping, to see that it is written to; -1: memory */
    struct timespec written;
    atomic_bool damaged;
    struct arena arena;
    struct entry *entry;
    size_t entries;
    struct gguf_tensor *tensor;
    size_t tensors;
    uint32_t *entry_slot, *tensor_slot; /* open addressing: index + 1, 0 is free */
    size_t entry_mask, tensor_mask;
};

/* ---- a cursor over bytes that nobody vouches for ---- */

struct cursor {
    const char *p, *end;
    bool bad; /* ran over the end: everything read since is zero */
};

static const char *take(struct cursor *c, uint64_t n) {
    if (c->bad || n > (uint64_t)(c->end - c->p)) {
        c->bad = true;
        return NULL;
    }
    const char *p = c->p;
    c->p += n;
    return p;
}

static uint64_t load(const void *p, size_t bytes) {
    uint64_t x = 0;
    memcpy(&x, p, bytes); /* little-endian, as every machine this runs on */
    return x;
}

static uint64_t take_number(struct cursor *c, size_t bytes) {
    const char *p = take(c, bytes);
    return p ? load(p, bytes) : 0;
}

static struct str take_string(struct cursor *c) {
    uint64_t n = take_number(c, 8);
    const char *p = take(c, n);
    return (struct str){p ? p : "", p ? (size_t)n : 0};
}

static size_t type_bytes(uint32_t type) {
    static const uint8_t bytes[] = {
        [GGUF_U8] = 1,  [GGUF_I8] = 1,   [GGUF_U16] = 2, [GGUF_I16] = 2, [GGUF_U32] = 4, [GGUF_I32] = 4,
        [GGUF_F32] = 4, [GGUF_BOOL] = 1, [GGUF_U64] = 8, [GGUF_I64] = 8, [GGUF_F64] = 8,
    };
    return type < sizeof bytes ? bytes[type] : 0;
}

/* ---- hashed names ---- */

/* Seeded, so that nobody can write a file whose names all meet in one slot. */
static uint64_t name_seed;

static void name_seed_make(void) {
    random_bytes(&name_seed, sizeof name_seed);
}

static uint64_t name_hash(struct str s) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, name_seed_make);
    uint64_t h = name_seed ^ s.n;
    for (size_t i = 0; i < s.n; i += 8) {
        h = (h ^ load(s.p + i, s.n - i < 8 ? s.n - i : 8)) * 0x9E3779B97F4A7C15u;
        h ^= h >> 32;
    }
    return h ^ h >> 29;
}

static size_t table_size(size_t n) {
    size_t size = 16;
    while (size < 2 * n)
        size *= 2;
    return size;
}

/* The slot that holds the name, or the free one where it belongs. name_of gives the name of index i. */
static size_t find_slot(const uint32_t *slot, size_t mask, struct str name, const void *items,
                        size_t item_size) {
    size_t at = name_hash(name) & mask;
    for (; slot[at] != 0; at = (at + 1) & mask) {
        const struct str *other =
            (const void *)((const char *)items + (slot[at] - 1) * item_size); /* names come first */
        if (str_equal(*other, name))
            break;
    }
    return at;
}

/* ---- metadata ---- */

static int read_array(struct gguf *g, struct cursor *c, struct entry *v, struct error *e) {
    v->item_type = (uint32_t)take_number(c, 4);
    v->count = take_number(c, 8);
    v->data = c->p;
    if (v->item_type == GGUF_STRING) {
        if (v->count > (uint64_t)(c->end - c->p) / 8)
            return error_set(e, ERR_CORRUPT, "an array holds more strings than the file has room for");
        v->string = arena_array(&g->arena, (size_t)v->count, sizeof *v->string);
        if (v->string == NULL && v->count > 0)
            return error_set(e, ERR_NO_MEMORY, "no memory for an array of %" PRIu64 " strings", v->count);
        for (uint64_t i = 0; i < v->count; i++)
            v->string[i] = take_string(c);
        return 0;
    }
    size_t bytes = type_bytes(v->item_type);
    if (bytes == 0)
        return error_set(e, ERR_CORRUPT, "an array has items of type %u, which is unknown or nested",
                         v->item_type);
    if (v->count > (uint64_t)(c->end - c->p) / bytes)
        return error_set(e, ERR_CORRUPT, "an array is longer than the file");
    take(c, v->count * bytes);
    return 0;
}

static int read_entry(struct gguf *g, struct cursor *c, struct entry *v, struct error *e) {
    v->key = take_string(c);
    v->type = (uint32_t)take_number(c, 4);
    v->count = 1;
    if (c->bad)
        return 0; /* the caller tells */
    if (v->key.n == 0 || v->key.n > MAX_NAME)
        return error_set(e, ERR_CORRUPT, "a metadata key has %zu bytes", v->key.n);
    if (v->type == GGUF_ARRAY)
        return read_array(g, c, v, e);
    v->data = c->p;
    if (v->type == GGUF_STRING) {
        take_string(c);
        return 0;
    }
    size_t bytes = type_bytes(v->type);
    if (bytes == 0)
        return error_set(e, ERR_CORRUPT, "key %.*s has a value of unknown type %u", (int)v->key.n, v->key.p,
                         v->type);
    take(c, bytes);
    return 0;
}

static int read_metadata(struct gguf *g, struct cursor *c, uint64_t count, struct error *e) {
    if (count > MAX_KEYS || count > (uint64_t)(c->end - c->p) / MIN_KEY_BYTES)
        return error_set(e, ERR_CORRUPT, "the header claims %" PRIu64 " metadata keys", count);
    g->entry_mask = table_size((size_t)count) - 1;
    g->entry = arena_array(&g->arena, (size_t)count, sizeof *g->entry);
    g->entry_slot = arena_array(&g->arena, g->entry_mask + 1, sizeof *g->entry_slot);
    if (g->entry_slot == NULL || (g->entry == NULL && count > 0))
        return error_set(e, ERR_NO_MEMORY, "no memory for %" PRIu64 " metadata keys", count);
    for (size_t i = 0; i < count; i++) {
        struct entry *v = &g->entry[i];
        int rc = read_entry(g, c, v, e);
        if (rc != 0)
            return rc;
        if (c->bad)
            return error_set(e, ERR_CORRUPT, "the file ends inside its metadata (key %zu of %" PRIu64 ")",
                             i + 1, count);
        size_t at = find_slot(g->entry_slot, g->entry_mask, v->key, g->entry, sizeof *g->entry);
        if (g->entry_slot[at] != 0)
            return error_set(e, ERR_CORRUPT, "key %.*s occurs twice", (int)v->key.n, v->key.p);
        g->entry_slot[at] = (uint32_t)(i + 1);
        g->entries = i + 1;
    }
    return 0;
}

/* ---- tensors ---- */

static int tensor_size(struct gguf_tensor *t, struct error *e) {
    uint64_t values = 1;
    if (t->dims == 0 || t->dims > GGUF_MAX_DIMS)
        return error_set(e, ERR_CORRUPT, "tensor %.*s has %u dimensions", (int)t->name.n, t->name.p, t->dims);
    for (uint32_t d = 0; d < t->dims; d++)
        if (t->dim[d] == 0 || t->dim[d] > INT64_MAX || __builtin_mul_overflow(values, t->dim[d], &values))
            return error_set(e, ERR_CORRUPT, "tensor %.*s has an absurd shape", (int)t->name.n, t->name.p);
    if (t->dim[0] % t->format->values != 0)
        return error_set(e, ERR_CORRUPT, "tensor %.*s: rows of %" PRIu64 " values are no whole blocks of %s",
                         (int)t->name.n, t->name.p, t->dim[0], t->format->name);
    if (__builtin_mul_overflow(values / t->format->values, (uint64_t)t->format->bytes, &t->bytes))
        return error_set(e, ERR_CORRUPT, "tensor %.*s has an absurd shape", (int)t->name.n, t->name.p);
    return 0;
}

/* Leaves the offset in t->data until the data section's place is known. */
static int read_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset, struct error *e) {
    t->name = take_string(c);
    t->dims = (uint32_t)take_number(c, 4);
    if (!c->bad && t->dims > GGUF_MAX_DIMS)
        return error_set(e, ERR_CORRUPT, "tensor %.*s has %u dimensions", (int)(t->name.n & 255), t->name.p,
                         t->dims);
    for (uint32_t d = 0; d < GGUF_MAX_DIMS; d++)
        t->dim[d] = d < t->dims ? take_number(c, 8) : 1;
    uint32_t type = (uint32_t)take_number(c, 4);
    *offset = take_number(c, 8);
    if (c->bad)
        return error_set(e, ERR_CORRUPT, "the file ends inside its list of tensors");
    if (t->name.n == 0 || t->name.n > MAX_NAME)
        return error_set(e, ERR_CORRUPT, "a tensor's name has %zu bytes", t->name.n);
    t->format = format_by_id(type);
    if (t->format == NULL)
        return error_set(e, ERR_UNSUPPORTED, "tensor %.*s has number format %u, which is not known here",
                         (int)t->name.n, t->name.p, type);
    return tensor_size(t, e);
}

static int by_place(const void *a, const void *b) {
    const struct gguf_tensor *x = *(struct gguf_tensor *const *)a, *y = *(struct gguf_tensor *const *)b;
    return x->data < y->data ? -1 : x->data > y->data;
}

static int check_overlap(struct gguf *g, struct error *e) {
    int rc = 0;
    struct gguf_tensor **order = calloc(g->tensors + 1, sizeof *order);
    if (order == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to check %zu tensors", g->tensors);
    for (size_t i = 0; i < g->tensors; i++)
        order[i] = &g->tensor[i];
    qsort(order, g->tensors, sizeof *order, by_place);
    for (size_t i = 1; i < g->tensors && rc == 0; i++)
        if ((const char *)order[i - 1]->data + order[i - 1]->bytes > (const char *)order[i]->data)
            rc = error_set(e, ERR_CORRUPT, "tensors %.*s and %.*s overlap", (int)order[i - 1]->name.n,
                           order[i - 1]->name.p, (int)order[i]->name.n, order[i]->name.p);
    free(order);
    return rc;
}

static int read_tensors(struct gguf *g, struct cursor *c, uint64_t count, struct error *e) {
    uint64_t alignment = 32;
    int rc = 0;
    if (count > MAX_TENSORS || count > (uint64_t)(c->end - c->p) / MIN_TENSOR_BYTES)
        return error_set(e, ERR_CORRUPT, "the header claims %" PRIu64 " tensors", count);
    g->tensor_mask = table_size((size_t)count) - 1;
    g->tensor = arena_array(&g->arena, (size_t)count, sizeof *g->tensor);
    g->tensor_slot = arena_array(&g->arena, g->tensor_mask + 1, sizeof *g->tensor_slot);
    uint64_t *offset = calloc((size_t)count + 1, sizeof *offset);
    if (offset == NULL || g->tensor_slot == NULL || (g->tensor == NULL && count > 0)) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory for %" PRIu64 " tensors", count);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        struct gguf_tensor *t = &g->tensor[i];
        if ((rc = read_tensor(c, t, &offset[i], e)) != 0)
            goto out;
        size_t at = find_slot(g->tensor_slot, g->tensor_mask, t->name, g->tensor, sizeof *g->tensor);
        if (g->tensor_slot[at] != 0) {
            rc = error_set(e, ERR_CORRUPT, "tensor %.*s occurs twice", (int)t->name.n, t->name.p);
            goto out;
        }
        g->tensor_slot[at] = (uint32_t)(i + 1);
        g->tensors = i + 1;
    }
    if (!gguf_u64(g, "general.alignment", &alignment) && gguf_has(g, "general.alignment"))
        alignment = 0;
    if (alignment == 0 || alignment > 1 << 20 || (alignment & (alignment - 1)) != 0) {
        rc = error_set(e, ERR_CORRUPT, "general.alignment is not a power of two up to 2^20");
        goto out;
    }
    uint64_t header = (uint64_t)(c->p - g->base), start = (header + alignment - 1) / alignment * alignment;
    for (size_t i = 0; i < count; i++) {
        struct gguf_tensor *t = &g->tensor[i];
        if (offset[i] % alignment != 0 || start > g->size || offset[i] > g->size - start ||
            t->bytes > g->size - start - offset[i]) {
            rc = error_set(e, ERR_CORRUPT,
                           "tensor %.*s lies outside the file or out of alignment; is the file complete?",
                           (int)t->name.n, t->name.p);
            goto out;
        }
        t->data = g->base + start + offset[i];
    }
    rc = check_overlap(g, e);
out:
    free(offset);
    return rc;
}

static int read_all(struct gguf *g, struct error *e) {
    struct cursor c = {.p = g->base, .end = g->base + g->size};
    const char *magic = take(&c, 4);
    uint64_t version = take_number(&c, 4), tensors = take_number(&c, 8), keys = take_number(&c, 8);
    if (magic == NULL || memcmp(magic, "GGUF", 4) != 0)
        return error_set(e, ERR_CORRUPT, "this is no GGUF file");
    if (version == 2u << 24 || version == 3u << 24)
        return error_set(e, ERR_UNSUPPORTED,
                         "the file is big-endian; convert it to little-endian (gguf-convert-endian does)");
    if (version != 2 && version != 3)
        return error_set(e, ERR_UNSUPPORTED, "GGUF version %" PRIu64 " is not supported (2 and 3 are)",
                         version & 0xFFFFFFFF);
    if (c.bad)
        return error_set(e, ERR_CORRUPT, "the file ends inside its header");
    int rc = read_metadata(g, &c, keys, e);
    return rc != 0 ? rc : read_tensors(g, &c, tensors, e);
}

int gguf_open_memory(struct gguf **out, struct str bytes, struct error *e) {
    struct gguf *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to open a model");
    g->file = -1;
    g->base = bytes.p;
    g->size = bytes.n;
    int rc = read_all(g, e);
    if (rc != 0)
        gguf_close(g);
    else
        *out = g;
    return rc;
}

int gguf_open(struct gguf **out, const char *path, struct error *e) {
    int rc;
    struct stat st;
    struct gguf *g = calloc(1, sizeof *g);
    *out = NULL;
    if (g == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to open %s", path);
    g->file = open(path, O_RDONLY | O_CLOEXEC);
    if (g->file < 0 || fstat(g->file, &st) != 0) {
        rc = error_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %s: %s", path,
                       strerror(errno));
        goto out;
    }
    if ((g->path = strdup(path)) == NULL) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory to open %s", path);
        goto out;
    }
    if (!S_ISREG(st.st_mode) || st.st_size < 24) {
        rc = error_set(e, ERR_CORRUPT, "%s is no GGUF file", path);
        goto out;
    }
    void *base = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, g->file, 0);
    if (base == MAP_FAILED) {
        rc = error_set(e, ERR_IO, "cannot map %s: %s", path, strerror(errno));
        goto out;
    }
    g->base = base;
    g->size = (size_t)st.st_size;
    g->mapped = true;
    g->written = st.st_mtim;
    rc = guard_add(g->base, g->size, &g->damaged);
    if (rc != 0)
        error_set(e, rc, "too many models are open at once");
    else if ((rc = read_all(g, e)) != 0)
        error_prefix(e, "%s: ", path);
    else if (gguf_damaged(g))
        rc = error_set(e, ERR_CORRUPT, "%s was cut short or written to while it was read", path);
out:
    if (rc != 0)
        gguf_close(g);
    else
        *out = g;
    return rc;
}

void gguf_close(struct gguf *g) {
    if (g == NULL)
        return;
    if (g->mapped) {
        guard_remove(g->base);
        munmap((void *)(uintptr_t)g->base, g->size);
    }
    if (g->file >= 0)
        close(g->file);
    arena_free(&g->arena);
    free(g->path);
    free(g);
}

bool gguf_damaged(const struct gguf *g) {
    struct stat st;
    if (atomic_load_explicit(&g->damaged, memory_order_relaxed))
        return true;
    return g->mapped && gguf_stat(g, &st) &&
           ((uint64_t)st.st_size != g->size || st.st_mtim.tv_sec != g->written.tv_sec ||
            st.st_mtim.tv_nsec != g->written.tv_nsec);
}

bool gguf_stat(const struct gguf *g, struct stat *out) {
    return g->file >= 0 && fstat(g->file, out) == 0;
}

const char *gguf_path(const struct gguf *g) {
    return g->path ? g->path : "(memory)";
}

struct str gguf_bytes(const struct gguf *g) {
    return (struct str){g->base, g->size};
}

struct extent gguf_extent(const struct gguf *g, const void *data, size_t bytes) {
    return (struct extent){.at = (char *)(uintptr_t)data,
                           .bytes = bytes,
                           .file = g->file,
                           .offset = (const char *)data - g->base};
}

size_t gguf_tensor_count(const struct gguf *g) {
    return g->tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i) {
    return i < g->tensors ? &g->tensor[i] : NULL;
}

const struct gguf_tensor *gguf_tensor_find(const struct gguf *g, const char *name) {
    if (g->tensor_slot == NULL)
        return NULL;
    uint32_t i = g->tensor_slot[find_slot(g->tensor_slot, g->tensor_mask, str_from(name), g->tensor,
                                          sizeof *g->tensor)];
    return i ? &g->tensor[i - 1] : NULL;
}

/* ---- getters ---- */

static const struct entry *find_entry(const struct gguf *g, const char *key) {
    uint32_t i =
        g->entry_slot[find_slot(g->entry_slot, g->entry_mask, str_from(key), g->entry, sizeof *g->entry)];
    return i ? &g->entry[i - 1] : NULL;
}

bool gguf_has(const struct gguf *g, const char *key) {
    return find_entry(g, key) != NULL;
}

/* Any integer or bool. False for a u64 beyond int64 and for other types. */
static bool number_i64(uint32_t type, const char *p, int64_t *out) {
    switch (type) {
    case GGUF_U8:
    case GGUF_BOOL:
        *out = (int64_t)load(p, 1);
        return true;
    case GGUF_I8:
        *out = (int8_t)load(p, 1);
        return true;
    case GGUF_U16:
        *out = (int64_t)load(p, 2);
        return true;
    case GGUF_I16:
        *out = (int16_t)load(p, 2);
        return true;
    case GGUF_U32:
        *out = (int64_t)load(p, 4);
        return true;
    case GGUF_I32:
        *out = (int32_t)load(p, 4);
        return true;
    case GGUF_U64:
    case GGUF_I64:
        *out = (int64_t)load(p, 8);
        return type == GGUF_I64 || *out >= 0;
    default:
        return false;
    }
}

static bool number_f64(uint32_t type, const char *p, double *out) {
    float single;
    int64_t whole;
    if (type == GGUF_F32) {
        memcpy(&single, p, 4);
        *out = (double)single;
    } else if (type == GGUF_F64) {
        memcpy(out, p, 8);
    } else if (number_i64(type, p, &whole)) {
        *out = (double)whole;
    } else {
        return false;
    }
    return true;
}

bool gguf_i64(const struct gguf *g, const char *key, int64_t *out) {
    const struct entry *v = find_entry(g, key);
    int64_t x;
    if (v == NULL || v->type == GGUF_BOOL || !number_i64(v->type, v->data, &x))
        return false;
    *out = x;
    return true;
}

bool gguf_u64(const struct gguf *g, const char *key, uint64_t *out) {
    int64_t x;
    if (!gguf_i64(g, key, &x) || x < 0)
        return false;
    *out = (uint64_t)x;
    return true;
}

bool gguf_f64(const struct gguf *g, const char *key, double *out) {
    const struct entry *v = find_entry(g, key);
    double x;
    if (v == NULL || v->type == GGUF_BOOL || !number_f64(v->type, v->data, &x))
        return false;
    *out = x;
    return true;
}

bool gguf_bool(const struct gguf *g, const char *key, bool *out) {
    const struct entry *v = find_entry(g, key);
    if (v == NULL || v->type != GGUF_BOOL)
        return false;
    *out = v->data[0] != 0;
    return true;
}

bool gguf_str(const struct gguf *g, const char *key, struct str *out) {
    const struct entry *v = find_entry(g, key);
    if (v == NULL || v->type != GGUF_STRING)
        return false;
    struct cursor c = {.p = v->data, .end = g->base + g->size};
    *out = take_string(&c);
    return true;
}

bool gguf_array(const struct gguf *g, const char *key, struct gguf_array *out) {
    const struct entry *v = find_entry(g, key);
    if (v == NULL || v->type != GGUF_ARRAY)
        return false;
    *out = (struct gguf_array){.type = v->item_type,
                               .count = v->count,
                               .data = v->data,
                               .owner = g,
                               .index = (uint64_t)(v - g->entry)};
    return true;
}

struct str gguf_array_str(const struct gguf_array *a, uint64_t i) {
    const struct entry *v = &a->owner->entry[a->index];
    return v->string != NULL && i < v->count ? v->string[i] : (struct str){"", 0};
}

int64_t gguf_array_i64(const struct gguf_array *a, uint64_t i) {
    int64_t x = 0;
    if (i < a->count && !number_i64(a->type, (const char *)a->data + i * type_bytes(a->type), &x))
        x = 0;
    return x;
}

double gguf_array_f64(const struct gguf_array *a, uint64_t i) {
    double x = 0;
    if (i < a->count && !number_f64(a->type, (const char *)a->data + i * type_bytes(a->type), &x))
        x = 0;
    return x;
}

/* ---- walking ---- */

size_t gguf_key_count(const struct gguf *g) {
    return g->entries;
}

struct str gguf_key_at(const struct gguf *g, size_t i) {
    return i < g->entries ? g->entry[i].key : (struct str){"", 0};
}
