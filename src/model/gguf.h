/* A GGUF v3 file (v2 too), mapped and checked: metadata by key, tensors by name. Nothing read from the file is trusted: counts, lengths,
 * offsets, shapes, alignment and overlap are checked before use, and every getter is typed.
 * The struct gguf owns the mapping; all strings, arrays and tensor data point into it and live until gguf_close.
 *
 * A mapped page can vanish while it is read (the file was truncated). gguf_open registers the mapping with the
 * process-wide SIGBUS guard (model/guard.h): the page is replaced by zeros and gguf_damaged turns true, so that
 * one model fails with a named error and the others go on. A file that is written to in place loses no page: gguf_damaged sees that by its size
 * and time. One that another was renamed over stays as it was, and whole, until it is closed. */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include "base/buf.h"
#include "base/error.h"
#include "base/extent.h"
#include "model/format.h"

#include <sys/stat.h>

enum { GGUF_MAX_DIMS = 4 };

struct gguf;

struct gguf_tensor {
    struct str name;
    const struct format *format;
    uint32_t dims;
    uint64_t dim
        [GGUF_MAX_DIMS]; /* dim[0] runs fastest: a weight is dim[0] = inputs, dim[1] = outputs; unused ones are 1 */
    const void *data;
    uint64_t bytes;
};

/* Value types as the file stores them. */
enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
};

int gguf_open(struct gguf **out, const char *path, struct error *e);
/* The same from memory that outlives the gguf (fuzzing, tests). */
int gguf_open_memory(struct gguf **out, struct str bytes, struct error *e);
void gguf_close(struct gguf *g);
bool gguf_damaged(const struct gguf *g); /* one system call: for each step, not for each token */
/* Of the file that is mapped, which its path need not name any more; false: there is none. */
bool gguf_stat(const struct gguf *g, struct stat *out);
const char *gguf_path(const struct gguf *g);
struct str gguf_bytes(const struct gguf *g); /* the whole file */
/* The mapped memory of `bytes` at `data`, which lie in the file. */
struct extent gguf_extent(const struct gguf *g, const void *data, size_t bytes);

size_t gguf_tensor_count(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t i);
const struct gguf_tensor *gguf_tensor_find(const struct gguf *g,
                                           const char *name); /* NULL when absent; hashed */

/* Metadata. Getters return false when the key is absent or of another type (any integer type that holds the value serves
 * for u64 and i64; any number for f64). */
bool gguf_has(const struct gguf *g, const char *key); /* of whatever type */
bool gguf_u64(const struct gguf *g, const char *key, uint64_t *out);
bool gguf_i64(const struct gguf *g, const char *key, int64_t *out);
bool gguf_f64(const struct gguf *g, const char *key, double *out);
bool gguf_bool(const struct gguf *g, const char *key, bool *out);
bool gguf_str(const struct gguf *g, const char *key, struct str *out);

/* Arrays (flat ones; nested arrays are refused at open). */
struct gguf_array {
    enum gguf_type type;
    uint64_t count;
    const void *data; /* numbers: packed little-endian, any alignment; strings: use gguf_array_str */
    const struct gguf *owner;
    uint64_t index; /* of the string table inside the gguf */
};
bool gguf_array(const struct gguf *g, const char *key, struct gguf_array *out);
struct str gguf_array_str(const struct gguf_array *a, uint64_t i); /* empty when out of range or no strings */
int64_t gguf_array_i64(const struct gguf_array *a, uint64_t i);    /* integers and bool, else 0 */
double gguf_array_f64(const struct gguf_array *a, uint64_t i);     /* any number, else 0 */

/* Walk the keys of all metadata, in the file's order; at the end or beyond it an empty one. */
size_t gguf_key_count(const struct gguf *g);
struct str gguf_key_at(const struct gguf *g, size_t i);

#endif
