/* A model file from anybody: open it, read every key and tensor by every getter. */
#include "model/arch.h"
#include "model/gguf.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_key(const struct gguf *g, const char *key) {
    uint64_t u;
    int64_t i;
    double f;
    bool b;
    struct str s;
    struct gguf_array a;
    gguf_u64(g, key, &u);
    gguf_i64(g, key, &i);
    gguf_f64(g, key, &f);
    gguf_bool(g, key, &b);
    gguf_str(g, key, &s);
    if (!gguf_array(g, key, &a))
        return;
    for (uint64_t k = 0; k < a.count && k < 100; k++) {
        gguf_array_i64(&a, k);
        gguf_array_f64(&a, k);
        gguf_array_str(&a, k);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct gguf *g;
    struct error e;
    if (gguf_open_memory(&g, (struct str){(const char *)data, size}, &e) != 0)
        return 0;
    for (size_t i = 0; i < gguf_key_count(g); i++) {
        struct str key = gguf_key_at(g, i);
        char *name = strndup(key.p, key.n);
        read_key(g, name);
        free(name);
    }
    for (size_t i = 0; i < gguf_tensor_count(g); i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        volatile uint8_t first = ((const uint8_t *)t->data)[0],
                         last = ((const uint8_t *)t->data)[t->bytes - 1];
        (void)first;
        (void)last;
    }
    struct traits traits;
    struct model_tensors tensors;
    if (traits_read(&traits, g, &e) == 0 && traits_tensors(&tensors, &traits, g, &e) == 0)
        free(tensors.layer);
    gguf_close(g);
    return 0;
}
