/* The forward pass; see forward.h. The order of operations is that of the models' published descriptions; what differs between
 * architectures stands in struct traits. */
#include "engine/forward.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The vectors and matrices of one layer, ready for the chip. */
struct layer {
    const float *attn_norm, *q_bias, *k_bias, *v_bias, *q_norm, *k_norm, *attn_out_bias, *attn_post_norm,
        *ffn_norm, *ffn_post_norm;
    const struct chip_matrix *q, *k, *v, *attn_out, *gate, *up, *down;
    bool slides;
};

struct forward {
    struct chip *chip;
    const struct model *model;
    struct chip_weights *weights;
    struct chip_kv kv;
    struct layer *layer;
    const struct chip_matrix *output;
    const float *output_norm;
    float *vectors; /* all norms and biases, decoded */
    float *frequency, *frequency_local;
    uint32_t max_rows, max_logits;
    size_t bytes; /* of the activations below, which are one allocation */
    float *x, *q, *k, *v, *attn, *ffn, *sub, *rope, *rope_local, *logits;
    uint32_t *position;
    token_id *token;
    struct chip_attend_row *attend;
};

/* ---- loading ---- */

enum { MATRICES = 7 }; /* a layer's */

static const struct gguf_tensor *layer_matrix(const struct layer_tensors *t, int i) {
    const struct gguf_tensor *const all[MATRICES] = {t->q, t->k, t->v, t->attn_out, t->gate, t->up, t->down};
    return all[i];
}

static int load_matrices(struct forward *f, struct error *e) {
    const struct traits *t = &f->model->traits;
    size_t n = (size_t)t->layers * MATRICES + 1;
    const struct gguf_tensor **tensor = calloc(n, sizeof *tensor);
    if (tensor == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for %zu matrices", n);
    for (uint32_t l = 0; l < t->layers; l++)
        for (int i = 0; i < MATRICES; i++)
            tensor[l * MATRICES + (size_t)i] = layer_matrix(&f->model->tensors.layer[l], i);
    tensor[n - 1] = f->model->tensors.output;
    int rc = chip_load(&f->weights, f->chip, f->model->gguf, tensor, n, e);
    free(tensor);
    if (rc != 0)
        return rc;
    for (uint32_t l = 0; l < t->layers; l++) {
        struct layer *y = &f->layer[l];
        const struct chip_matrix **to[MATRICES] = {&y->q,    &y->k,  &y->v,   &y->attn_out,
                                                   &y->gate, &y->up, &y->down};
        for (int i = 0; i < MATRICES; i++)
            *to[i] = chip_weights_matrix(f->weights, l * MATRICES + (size_t)i);
    }
    f->output = chip_weights_matrix(f->weights, n - 1);
    return 0;
}

/* Decode one vector to *next; NULL stays NULL. */
static const float *decode_vector(const struct gguf_tensor *t, float **next) {
    if (t == NULL)
        return NULL;
    float *to = *next;
    t->format->decode(t->data, to, t->dim[0] / t->format->values);
    *next += t->dim[0];
    return to;
}

static size_t vector_values(const struct gguf_tensor *t) {
    return t ? t->dim[0] : 0;
}

static int load_vectors(struct forward *f, struct error *e) {
    const struct model_tensors *m = &f->model->tensors;
    size_t values = vector_values(m->output_norm);
    for (uint32_t l = 0; l < f->model->traits.layers; l++) {
        const struct layer_tensors *t = &m->layer[l];
        const struct gguf_tensor *const all[] = {
            t->attn_norm, t->q_bias,        t->k_bias,         t->v_bias,   t->q_norm,
            t->k_norm,    t->attn_out_bias, t->attn_post_norm, t->ffn_norm, t->ffn_post_norm};
        for (size_t i = 0; i < sizeof all / sizeof *all; i++)
            values += vector_values(all[i]);
    }
    float *next = f->vectors = calloc(values, sizeof(float));
    if (next == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the norms of the model");
    f->output_norm = decode_vector(m->output_norm, &next);
    for (uint32_t l = 0; l < f->model->traits.layers; l++) {
        const struct layer_tensors *t = &m->layer[l];
        struct layer *y = &f->layer[l];
        y->attn_norm = decode_vector(t->attn_norm, &next);
        y->q_bias = decode_vector(t->q_bias, &next);
        y->k_bias = decode_vector(t->k_bias, &next);
        y->v_bias = decode_vector(t->v_bias, &next);
        y->q_norm = decode_vector(t->q_norm, &next);
        y->k_norm = decode_vector(t->k_norm, &next);
        y->attn_out_bias = decode_vector(t->attn_out_bias, &next);
        y->attn_post_norm = decode_vector(t->attn_post_norm, &next);
        y->ffn_norm = decode_vector(t->ffn_norm, &next);
        y->ffn_post_norm = decode_vector(t->ffn_post_norm, &next);
        y->slides = traits_layer_slides(&f->model->traits, l);
    }
    return 0;
}

/* Rotary frequencies (Su et al., arXiv 2104.09864): base^(-2i/dims), divided by the scale and, where the file brings them, by its divisors
 * (llama 3). */
static int load_frequencies(struct forward *f, struct error *e) {
    const struct traits *t = &f->model->traits;
    const struct gguf_tensor *divisors = f->model->tensors.rope_freqs;
    uint32_t half = t->rope_dims / 2;
    f->frequency = calloc(half, sizeof(float));
    f->frequency_local = calloc(half, sizeof(float));
    float *divisor = calloc(half, sizeof(float));
    int rc = 0;
    if (f->frequency == NULL || f->frequency_local == NULL || divisor == NULL) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory for the rotary frequencies");
        goto out;
    }
    if (divisors != NULL)
        divisors->format->decode(divisors->data, divisor, half / divisors->format->values);
    for (uint32_t i = 0; i < half; i++) {
        double power = -2.0 * i / t->rope_dims,
               d = divisors != NULL && divisor[i] > 0 ? (double)divisor[i] : 1;
        f->frequency[i] = (float)(pow((double)t->rope_base, power) / (double)t->rope_scale / d);
        f->frequency_local[i] = (float)(pow((double)t->rope_base_local, power) / (double)t->rope_scale_local);
    }
out:
    free(divisor);
    return rc;
}

/* One allocation for all activations; each part begins on a cache line. */
static int make_room(struct forward *f, struct error *e) {
    const struct traits *t = &f->model->traits;
    size_t rows = f->max_rows, q = (size_t)t->heads * t->head_dim, kv = (size_t)t->kv_heads * t->head_dim;
    const struct {
        float **to;
        size_t values;
    } part[] = {
        {&f->x, rows * t->width},
        {&f->q, rows * q},
        {&f->k, rows * kv},
        {&f->v, rows * kv},
        {&f->attn, rows * q},
        {&f->ffn, rows * t->ffn_width},
        {&f->sub, rows * t->width},
        {&f->rope, rows * t->rope_dims},
        {&f->rope_local, rows * t->rope_dims},
        {&f->logits, (size_t)f->max_logits * t->vocab},
    };
    for (int pass = 0; pass < 2; pass++) {
        size_t at = 0;
        for (size_t i = 0; i < sizeof part / sizeof *part; i++) {
            if (pass == 1)
                *part[i].to = f->x + at;
            at += (part[i].values + 15) / 16 * 16;
        }
        if (pass == 0) {
            f->bytes = at * sizeof(float);
            f->x = chip_alloc(f->chip, f->bytes);
            if (f->x == NULL)
                return error_set(e, ERR_NO_MEMORY, "no memory for the activations of %u rows (%zu MiB)",
                                 f->max_rows, f->bytes >> 20);
        }
    }
    f->position = calloc(rows, sizeof *f->position);
    f->token = calloc(rows, sizeof *f->token);
    f->attend = calloc(rows, sizeof *f->attend);
    if (f->position == NULL || f->token == NULL || f->attend == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a batch of %u rows", f->max_rows);
    return 0;
}

int forward_open(struct forward **out, struct chip *c, const struct model *m, uint32_t max_rows,
                 uint32_t max_logits, struct error *e) {
    int rc;
    struct forward *f = calloc(1, sizeof *f);
    *out = NULL;
    if (f == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory to load a model");
    f->chip = c;
    f->model = m;
    f->max_rows = max_rows;
    f->max_logits = max_logits;
    f->kv = (struct chip_kv){
        .page_bytes = chip_kv_page_bytes(c, m->traits.layers, m->traits.kv_heads, m->traits.head_dim),
        .layers = m->traits.layers,
        .kv_heads = m->traits.kv_heads,
        .head_dim = m->traits.head_dim};
    f->layer = calloc(m->traits.layers, sizeof *f->layer);
    if (f->layer == NULL)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for %u layers", m->traits.layers);
    else if ((rc = load_vectors(f, e)) == 0 && (rc = load_frequencies(f, e)) == 0 &&
             (rc = load_matrices(f, e)) == 0)
        rc = make_room(f, e);
    if (rc != 0) {
        forward_close(f);
        return rc;
    }
    *out = f;
    return 0;
}

void forward_close(struct forward *f) {
    if (f == NULL)
        return;
    if (f->weights != NULL)
        chip_unload(f->chip, f->weights);
    if (f->bytes != 0 && f->x != NULL)
        chip_release(f->chip, f->x, f->bytes);
    free(f->layer);
    free(f->vectors);
    free(f->frequency);
    free(f->frequency_local);
    free(f->position);
    free(f->token);
    free(f->attend);
    free(f);
}

struct chip_kv *forward_kv(struct forward *f) {
    return &f->kv;
}

/* Of the model's file the embedding alone, where the matrices are packed; else all tensors. */
static struct extent file_extent(const struct forward *f, bool packed) {
    const struct gguf *g = f->model->gguf;
    const struct gguf_tensor *embed = f->model->tensors.embed;
    if (packed)
        return gguf_extent(g, embed->data, embed->bytes);
    struct str whole = gguf_bytes(g);
    const char *first = embed->data;
    for (size_t i = 0; i < gguf_tensor_count(g); i++)
        if ((const char *)gguf_tensor_at(g, i)->data < first)
            first = gguf_tensor_at(g, i)->data;
    return gguf_extent(g, first, (size_t)(whole.p + whole.n - first));
}

uint32_t forward_extents(const struct forward *f, struct extent out[FORWARD_EXTENTS]) {
    struct extent packed = chip_weights_extent(f->weights), file = file_extent(f, packed.bytes != 0);
    uint32_t n = 0;
    if (file.file >= 0)
        out[n++] = file;
    if (packed.file >= 0)
        out[n++] = packed;
    out[n++] = (struct extent){.at = (char *)f->x, .bytes = f->bytes, .file = -1};
    return n;
}

size_t forward_own_bytes(const struct forward *f) {
    struct extent packed = chip_weights_extent(f->weights);
    return packed.file < 0 ? packed.bytes : 0;
}

size_t forward_weight_bytes(const struct forward *f) {
    return chip_weights_bytes(f->weights);
}

bool forward_damaged(const struct forward *f) {
    return gguf_damaged(f->model->gguf) || chip_weights_damaged(f->weights);
}

/* ---- a step ---- */

/* x += W . in + bias, or with a norm after the sublayer: x += norm(W . in + bias) */
static void add_product(struct forward *f, uint32_t rows, const float *in, size_t in_stride,
                        const struct chip_matrix *w, const float *bias, const float *post_norm) {
    const struct traits *t = &f->model->traits;
    struct chip_linear l = {.rows = rows, .in = in, .in_stride = in_stride, .outputs = 1};
    l.out[0].w = w;
    l.out[0].bias = bias;
    l.out[0].out = post_norm ? f->sub : f->x;
    l.out[0].out_stride = t->width;
    l.out[0].add = post_norm == NULL;
    chip_linear(f->chip, &l);
    if (post_norm != NULL)
        chip_norm_add(f->chip, rows, t->width, f->sub, t->width, post_norm, t->norm_eps, f->x, t->width);
}

static void step_attention(struct forward *f, const struct layer *y, uint32_t number, uint32_t rows) {
    const struct traits *t = &f->model->traits;
    size_t q = (size_t)t->heads * t->head_dim, kv = (size_t)t->kv_heads * t->head_dim;
    struct chip_linear l = {.rows = rows,
                            .in = f->x,
                            .in_stride = t->width,
                            .norm = y->attn_norm,
                            .norm_eps = t->norm_eps,
                            .outputs = 3};
    const struct chip_matrix *const w[3] = {y->q, y->k, y->v};
    const float *const bias[3] = {y->q_bias, y->k_bias, y->v_bias};
    float *const out[3] = {f->q, f->k, f->v};
    for (int i = 0; i < 3; i++) {
        l.out[i].w = w[i];
        l.out[i].bias = bias[i];
        l.out[i].out = out[i];
        l.out[i].out_stride = i == 0 ? q : kv;
    }
    chip_linear(f->chip, &l);
    struct chip_attend a = {.rows = rows,
                            .row = f->attend,
                            .kv = &f->kv,
                            .layer = number,
                            .heads = t->heads,
                            .q = f->q,
                            .k = f->k,
                            .v = f->v,
                            .q_stride = q,
                            .k_stride = kv,
                            .v_stride = kv,
                            .q_norm = y->q_norm,
                            .k_norm = y->k_norm,
                            .norm_eps = t->norm_eps,
                            .rope = y->slides ? f->rope_local : f->rope,
                            .rope_dims = t->rope_dims,
                            .rope_neox = t->rope_neox,
                            .scale = t->attn_scale,
                            .softcap = t->attn_softcap,
                            .window = y->slides ? t->window : 0,
                            .out = f->attn,
                            .out_stride = q};
    chip_attend(f->chip, &a);
    add_product(f, rows, f->attn, q, y->attn_out, y->attn_out_bias, y->attn_post_norm);
}

static void step_feed_forward(struct forward *f, const struct layer *y, uint32_t rows) {
    const struct traits *t = &f->model->traits;
    struct chip_gated g = {.rows = rows,
                           .in = f->x,
                           .in_stride = t->width,
                           .norm = y->ffn_norm,
                           .norm_eps = t->norm_eps,
                           .gate = y->gate,
                           .up = y->up,
                           .activation = t->activation,
                           .out = f->ffn,
                           .out_stride = t->ffn_width};
    chip_gated(f->chip, &g);
    add_product(f, rows, f->ffn, t->ffn_width, y->down, NULL, y->ffn_post_norm);
}

/* The rows that want logits, moved to the front of sub, then through the output head. */
static void step_logits(struct forward *f, const struct forward_row *row, uint32_t rows) {
    const struct traits *t = &f->model->traits;
    uint32_t n = 0;
    for (uint32_t r = 0; r < rows && n < f->max_logits; r++)
        if (row[r].want_logits)
            memcpy(f->sub + (size_t)n++ * t->width, f->x + (size_t)r * t->width, t->width * sizeof(float));
    if (n == 0)
        return;
    struct chip_linear l = {.rows = n,
                            .in = f->sub,
                            .in_stride = t->width,
                            .norm = f->output_norm,
                            .norm_eps = t->norm_eps,
                            .outputs = 1};
    l.out[0].w = f->output;
    l.out[0].out = f->logits;
    l.out[0].out_stride = t->vocab;
    chip_linear(f->chip, &l);
    if (t->logit_softcap > 0)
        for (size_t i = 0; i < (size_t)n * t->vocab; i++)
            f->logits[i] = t->logit_softcap * tanhf(f->logits[i] / t->logit_softcap);
}

float *forward_step(struct forward *f, const struct forward_row *row, uint32_t rows) {
    const struct traits *t = &f->model->traits;
    for (uint32_t r = 0; r < rows; r++) {
        f->token[r] = row[r].token;
        f->position[r] = row[r].position;
        f->attend[r] = (struct chip_attend_row){.page = row[r].page, .position = row[r].position};
    }
    chip_embed(f->chip, f->model->tensors.embed, f->token, rows, t->embed_scale, f->x, t->width);
    chip_rope_table(f->chip, rows, f->position, t->rope_dims, f->frequency, f->rope);
    if (t->window > 0)
        chip_rope_table(f->chip, rows, f->position, t->rope_dims, f->frequency_local, f->rope_local);
    for (uint32_t l = 0; l < t->layers; l++) {
        step_attention(f, &f->layer[l], l, rows);
        step_feed_forward(f, &f->layer[l], rows);
    }
    step_logits(f, row, rows);
    return f->logits;
}
