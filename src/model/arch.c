/* Architectures as data; see arch.h. On the request's journey: read once when a model is opened.
 * The keys and tensor names are those of the GGUF convention (the ggml project's docs/gguf.md). */
#include "model/arch.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an architecture's name alone decides; everything else stands in the file. */
struct arch_row {
    const char *name;
    enum arch_activation activation;
    bool qk_norm, qkv_bias, post_norms, neox, scaled_embed;
    uint32_t window_pattern; /* of a sliding-window model: every n-th layer sees everything */
    float rope_base_local;   /* for its sliding layers, when the file does not say */
};

static const struct arch_row rows[] = {
    {.name = "llama", .activation = ARCH_SILU},
    {.name = "qwen2", .activation = ARCH_SILU, .qkv_bias = true, .neox = true},
    {.name = "qwen3", .activation = ARCH_SILU, .qk_norm = true, .neox = true},
    {.name = "gemma3",
     .activation = ARCH_GELU_TANH,
     .qk_norm = true,
     .post_norms = true,
     .neox = true,
     .scaled_embed = true,
     .window_pattern = 6,
     .rope_base_local = 10000},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* Caps: beyond the largest model anybody publishes, and small enough that sizes multiply without overflow. */
enum {
    MAX_LAYERS = 1024,
    MAX_WIDTH = 1 << 17,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_FFN = 1 << 20,
    MAX_VOCAB = 1 << 22,
    MAX_CONTEXT = 1 << 24
};

/* Reads PREFIX.key; remembers the first thing that was wrong. */
struct reader {
    const struct gguf *g;
    const char *arch;
    struct error *e;
    int rc;
};

static const char *full_key(const struct reader *r, const char *key, char out[128]) {
    snprintf(out, 128, "%s.%s", r->arch, key);
    return out;
}

/* A whole number from 1 to most; `missing` when absent (0: it must be there). Some files give one a layer, all equal. */
static uint32_t read_count(struct reader *r, const char *key, uint32_t missing, uint32_t most) {
    char full[128];
    uint64_t x = missing;
    struct gguf_array a;
    full_key(r, key, full);
    if (gguf_array(r->g, full, &a) && a.count > 0) {
        x = (uint64_t)gguf_array_i64(&a, 0);
        for (uint64_t i = 1; i < a.count && r->rc == 0; i++)
            if ((uint64_t)gguf_array_i64(&a, i) != x)
                r->rc = error_param(r->e, ERR_UNSUPPORTED, full,
                                    "%s differs from layer to layer, which is not supported", full);
    } else if (!gguf_u64(r->g, full, &x) && gguf_has(r->g, full) && r->rc == 0) {
        r->rc = error_param(r->e, ERR_CORRUPT, full, "%s is not a whole number", full);
    }
    if ((x == 0 || x > most) && r->rc == 0)
        r->rc = error_param(r->e, ERR_CORRUPT, full, "%s is %" PRIu64 "; expected 1 to %u", full, x, most);
    return r->rc == 0 ? (uint32_t)x : 1; /* after a mistake anything that may be divided by */
}

static float read_real(struct reader *r, const char *key, double missing) {
    char full[128];
    double x = missing;
    bool good = gguf_f64(r->g, full_key(r, key, full), &x) || !gguf_has(r->g, full);
    if ((!good || !isfinite((float)x)) && r->rc == 0)
        r->rc = error_param(r->e, ERR_CORRUPT, full, "%s is not a finite number", full);
    return (float)x;
}

static const struct arch_row *find_row(const struct gguf *g, struct error *e) {
    struct str name;
    char known[128] = "";
    if (!gguf_str(g, "general.architecture", &name)) {
        error_set(e, ERR_CORRUPT, "the file does not say its architecture (general.architecture)");
        return NULL;
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (str_is(name, rows[i].name))
            return &rows[i];
        snprintf(known + strlen(known), sizeof known - strlen(known), "%s%s", i ? ", " : "", rows[i].name);
    }
    error_set(e, ERR_UNSUPPORTED, "architecture '%.*s' is not supported; these are: %s",
              (int)(name.n < 60 ? name.n : 60), name.p, known);
    return NULL;
}

/* How far positions are divided. A factor without a kind is a linear one (older files call it scale_linear); 0 says that there is none. */
static float read_rope_scale(struct reader *r) {
    char full[128];
    struct str kind = STR("linear");
    float factor = read_real(r, "rope.scaling.factor", (double)read_real(r, "rope.scale_linear", 0));
    if (!gguf_str(r->g, full_key(r, "rope.scaling.type", full), &kind) && gguf_has(r->g, full) && r->rc == 0)
        r->rc = error_param(r->e, ERR_CORRUPT, full, "%s is not a text", full);
    if (str_is(kind, "none"))
        return 1;
    if (!str_is(kind, "linear") && r->rc == 0)
        r->rc =
            error_set(r->e, ERR_UNSUPPORTED, "rotary scaling '%.*s' is not supported (linear and none are)",
                      (int)(kind.n < 40 ? kind.n : 40), kind.p);
    return factor == 0 ? 1 : factor;
}

static void read_rope(struct reader *r, const struct arch_row *row, struct traits *t) {
    t->rope_dims = read_count(r, "rope.dimension_count", t->head_dim, MAX_HEAD_DIM);
    t->rope_base = read_real(r, "rope.freq_base", 10000);
    t->rope_scale = read_rope_scale(r);
    t->rope_base_local =
        read_real(r, "rope.freq_base_swa",
                  row->rope_base_local > 0 ? (double)row->rope_base_local : (double)t->rope_base);
    t->rope_scale_local = 1;
    if (r->rc == 0 && (t->rope_dims % 2 != 0 || t->rope_dims > t->head_dim || !(t->rope_base > 1) ||
                       !(t->rope_base_local > 1) || !(t->rope_scale > 0)))
        r->rc = error_set(r->e, ERR_CORRUPT,
                          "the rotary settings are absurd (%u of %u dimensions, base %g, factor %g)",
                          t->rope_dims, t->head_dim, (double)t->rope_base, (double)t->rope_scale);
}

static void read_window(struct reader *r, const struct arch_row *row, struct traits *t) {
    char full[128];
    uint64_t window = 0;
    if (row->window_pattern == 0)
        return; /* what the file says of a window is of no use to its architecture */
    if (!gguf_u64(r->g, full_key(r, "attention.sliding_window", full), &window) && gguf_has(r->g, full) &&
        r->rc == 0)
        r->rc = error_param(r->e, ERR_CORRUPT, full, "%s is not a whole number", full);
    if (window > 0) {
        t->window = window > MAX_CONTEXT ? MAX_CONTEXT : (uint32_t)window;
        t->window_pattern =
            read_count(r, "attention.sliding_window_pattern", row->window_pattern, MAX_LAYERS);
    }
}

static void read_experts(struct reader *r) {
    char full[128];
    uint64_t experts = 0;
    if (gguf_u64(r->g, full_key(r, "expert_count", full), &experts) && experts > 0 && r->rc == 0)
        r->rc = error_param(r->e, ERR_UNSUPPORTED, full,
                            "a mixture of %" PRIu64 " experts is not supported (%s)", experts, full);
}

static uint32_t read_vocab(struct reader *r) {
    const struct gguf_tensor *embed = gguf_tensor_find(r->g, "token_embd.weight");
    if (embed != NULL && embed->dims == 2 && embed->dim[1] > 0 && embed->dim[1] <= MAX_VOCAB)
        return (uint32_t)embed->dim[1];
    if (r->rc == 0)
        r->rc = error_set(r->e, ERR_CORRUPT,
                          "the file has no usable token_embd.weight; is it only a vocabulary?");
    return 0;
}

int traits_read(struct traits *t, const struct gguf *g, struct error *e) {
    const struct arch_row *row = find_row(g, e);
    struct error scratch;
    if (row == NULL)
        return e ? (int)e->code : ERR_UNSUPPORTED;
    struct reader r = {.g = g, .arch = row->name, .e = e ? e : &scratch};
    *t = (struct traits){.arch = row->name,
                         .activation = row->activation,
                         .qk_norm = row->qk_norm,
                         .qkv_bias = row->qkv_bias,
                         .post_norms = row->post_norms,
                         .rope_neox = row->neox,
                         .embed_scale = 1};
    read_experts(&r);
    t->layers = read_count(&r, "block_count", 0, MAX_LAYERS);
    t->width = read_count(&r, "embedding_length", 0, MAX_WIDTH);
    t->heads = read_count(&r, "attention.head_count", 0, MAX_HEADS);
    t->kv_heads = read_count(&r, "attention.head_count_kv", t->heads, MAX_HEADS);
    t->ffn_width = read_count(&r, "feed_forward_length", 0, MAX_FFN);
    t->context = read_count(&r, "context_length", 2048, MAX_CONTEXT);
    if (r.rc != 0)
        return r.rc;
    t->head_dim = read_count(&r, "attention.key_length", t->width / t->heads, MAX_HEAD_DIM);
    uint32_t value_dim = read_count(&r, "attention.value_length", t->head_dim, MAX_HEAD_DIM);
    t->norm_eps = read_real(&r, "attention.layer_norm_rms_epsilon", 1e-5);
    t->logit_softcap = read_real(&r, "final_logit_softcapping", 0);
    t->attn_softcap = read_real(&r, "attn_logit_softcapping", 0);
    t->vocab = read_vocab(&r);
    read_rope(&r, row, t);
    read_window(&r, row, t);
    if (r.rc == 0 && !(t->norm_eps >= 0))
        r.rc = error_set(e, ERR_CORRUPT, "the norms' epsilon is %g", (double)t->norm_eps);
    if (r.rc != 0)
        return r.rc;
    if (t->heads % t->kv_heads != 0 || value_dim != t->head_dim || t->head_dim % 2 != 0)
        return error_set(e, ERR_UNSUPPORTED,
                         "%u heads of %u values, %u key/value heads of %u do not fit together", t->heads,
                         t->head_dim, t->kv_heads, value_dim);
    t->attn_scale = 1 / sqrtf((float)t->head_dim);
    if (row->scaled_embed) {
        t->embed_scale = sqrtf((float)t->width);
        /* Gemma 3's 27B model (62 layers) alone scales by the width a head has, not by the head's own. */
        if (t->layers == 62)
            t->attn_scale = sqrtf((float)t->heads / (float)t->width);
    }
    t->tied_output = gguf_tensor_find(g, "output.weight") == NULL;
    return 0;
}

bool traits_layer_slides(const struct traits *t, uint32_t layer) {
    return t->window > 0 && (layer + 1) % t->window_pattern != 0;
}

/* One tensor a row: where it goes in struct layer_tensors, its name, its shape, and whether this model must have it. */
enum wanted { UNKNOWN, OPTIONAL, NEEDED };
struct need {
    size_t place;
    const char *name;
    uint64_t inputs, outputs; /* outputs 0: a vector of `inputs` */
    enum wanted wanted;
};

static int find_tensor(const struct gguf_tensor **out, const struct gguf *g, const char *name,
                       uint64_t inputs, uint64_t outputs, struct error *e) {
    const struct gguf_tensor *t = gguf_tensor_find(g, name);
    *out = t;
    if (t == NULL)
        return error_param(e, ERR_CORRUPT, name, "tensor %s is missing", name);
    if (t->dim[0] != inputs || t->dim[1] != (outputs ? outputs : 1) || t->dim[2] != 1 || t->dim[3] != 1)
        return error_param(e, ERR_CORRUPT, name,
                           "tensor %s is %" PRIu64 " x %" PRIu64 ", expected %" PRIu64 " x %" PRIu64, name,
                           t->dim[0], t->dim[1], inputs, outputs ? outputs : 1);
    return 0;
}

static int find_layer(struct layer_tensors *l, uint32_t layer, const struct traits *t, const struct gguf *g,
                      struct error *e) {
    uint64_t w = t->width, q = (uint64_t)t->heads * t->head_dim, kv = (uint64_t)t->kv_heads * t->head_dim,
             f = t->ffn_width;
    enum wanted bias = t->qkv_bias ? NEEDED : OPTIONAL, head_norm = t->qk_norm ? NEEDED : UNKNOWN,
                post = t->post_norms ? NEEDED : UNKNOWN;
#define PLACE(member) offsetof(struct layer_tensors, member)
    const struct need needs[] = {
        {PLACE(attn_norm), "attn_norm.weight", w, 0, NEEDED},
        {PLACE(q), "attn_q.weight", w, q, NEEDED},
        {PLACE(k), "attn_k.weight", w, kv, NEEDED},
        {PLACE(v), "attn_v.weight", w, kv, NEEDED},
        {PLACE(q_bias), "attn_q.bias", q, 0, bias},
        {PLACE(k_bias), "attn_k.bias", kv, 0, bias},
        {PLACE(v_bias), "attn_v.bias", kv, 0, bias},
        {PLACE(q_norm), "attn_q_norm.weight", t->head_dim, 0, head_norm},
        {PLACE(k_norm), "attn_k_norm.weight", t->head_dim, 0, head_norm},
        {PLACE(attn_out), "attn_output.weight", q, w, NEEDED},
        {PLACE(attn_out_bias), "attn_output.bias", w, 0, OPTIONAL},
        {PLACE(attn_post_norm), "post_attention_norm.weight", w, 0, post},
        {PLACE(ffn_norm), "ffn_norm.weight", w, 0, NEEDED},
        {PLACE(gate), "ffn_gate.weight", w, f, NEEDED},
        {PLACE(up), "ffn_up.weight", w, f, NEEDED},
        {PLACE(down), "ffn_down.weight", f, w, NEEDED},
        {PLACE(ffn_post_norm), "post_ffw_norm.weight", w, 0, post},
    };
#undef PLACE
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++) {
        char name[64];
        const struct gguf_tensor *found;
        snprintf(name, sizeof name, "blk.%u.%s", layer, needs[i].name);
        if (needs[i].wanted == UNKNOWN || (needs[i].wanted == OPTIONAL && gguf_tensor_find(g, name) == NULL))
            continue;
        int rc = find_tensor(&found, g, name, needs[i].inputs, needs[i].outputs, e);
        if (rc != 0)
            return rc;
        *(const struct gguf_tensor **)((char *)l + needs[i].place) = found;
    }
    return 0;
}

/* A tensor that nothing here reads would be missing from every answer: experts, biases or adapters of a variant that is not known. */
static int check_all_used(const struct model_tensors *m, const struct traits *t, const struct gguf *g,
                          struct error *e) {
    const struct gguf_tensor *const all[] = {m->embed, m->output_norm, m->output, m->rope_freqs};
    enum { EACH = sizeof *m->layer / sizeof(const struct gguf_tensor *) };
    const struct gguf_tensor *const *in_layers = (const struct gguf_tensor *const *)m->layer;
    const struct gguf_tensor *first = gguf_tensor_at(g, 0);
    size_t n = gguf_tensor_count(g), i = 0;
    bool *used = calloc(n, sizeof *used);
    if (used == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to check %zu tensors", n);
    for (i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] != NULL)
            used[all[i] - first] = true;
    for (i = 0; i < (size_t)t->layers * EACH; i++)
        if (in_layers[i] != NULL)
            used[in_layers[i] - first] = true;
    for (i = 0; i < n && used[i]; i++)
        ;
    free(used);
    if (i == n)
        return 0;
    const struct str name = first[i].name;
    return error_set(e, ERR_UNSUPPORTED,
                     "tensor %.*s is not known in architecture %s; without it the answers would be wrong",
                     (int)(name.n < 64 ? name.n : 64), name.p, t->arch);
}

int traits_tensors(struct model_tensors *out, const struct traits *t, const struct gguf *g, struct error *e) {
    int rc;
    *out = (struct model_tensors){0};
    if ((rc = find_tensor(&out->embed, g, "token_embd.weight", t->width, t->vocab, e)) != 0 ||
        (rc = find_tensor(&out->output_norm, g, "output_norm.weight", t->width, 0, e)) != 0)
        return rc;
    out->output = out->embed;
    if (!t->tied_output && (rc = find_tensor(&out->output, g, "output.weight", t->width, t->vocab, e)) != 0)
        return rc;
    if (gguf_tensor_find(g, "rope_freqs.weight") != NULL &&
        (rc = find_tensor(&out->rope_freqs, g, "rope_freqs.weight", t->rope_dims / 2, 0, e)) != 0)
        return rc;
    out->layer = calloc(t->layers, sizeof *out->layer);
    if (out->layer == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for %u layers", t->layers);
    for (uint32_t i = 0; i < t->layers && rc == 0; i++)
        rc = find_layer(&out->layer[i], i, t, g, e);
    if (rc == 0)
        rc = check_all_used(out, t, g, e);
    if (rc != 0) {
        free(out->layer);
        out->layer = NULL;
    }
    return rc;
}
