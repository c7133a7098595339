/* What a file says of its architecture: settings that must be obeyed or refused by name, tensors that nothing would read, and biases, which llama files
 * may have. Each case is the tiny model with something added. */
#include "engine/forward.h"
#include "tiny_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <math.h>

static char path[] = "/tmp/unkai-arch-XXXXXX";

static void small_real(struct small_vocab *v, const char *key, float value) {
    small_key(v, key, GGUF_F32);
    buf_append(&v->keys, &value, sizeof value);
}

/* One more key, given by its type and first bytes. */
struct setting {
    const char *key;
    uint32_t type;
    float real;
    const char *text; /* or a text, or a whole number */
    uint32_t number;
    const char *complaint; /* NULL: it opens, with rope_scale */
    float rope_scale;
};

static int open_with(struct model **m, const struct setting *s, const char *tensor, struct error *e) {
    struct small_vocab v = {0};
    struct tiny_writer w = {.random = 1};
    tiny_model_start(&v, &w);
    if (s != NULL && s->type == GGUF_F32)
        small_real(&v, s->key, s->real);
    else if (s != NULL && s->type == GGUF_STRING)
        small_text(&v, s->key, str_from(s->text));
    else if (s != NULL)
        small_number(&v, s->key, s->number);
    if (tensor != NULL)
        tiny_tensor(&w, tensor, TINY_WIDTH, 0, 1);
    assert_true(tiny_model_end(&v, &w, path));
    return model_open(m, path, e);
}

static void test_settings(void **state) {
    static const struct setting setting[] = {
        {"llama.rope.scaling.factor", GGUF_F32, .real = 4, .rope_scale = 4}, /* no kind: linear */
        {"llama.rope.scale_linear", GGUF_F32, .real = 2, .rope_scale = 2},
        {"llama.rope.scaling.factor", GGUF_F32, .real = 0, .rope_scale = 1},
        {"llama.rope.scaling.type", GGUF_STRING, .text = "linear", .rope_scale = 1},
        {"llama.rope.scaling.type", GGUF_STRING, .text = "yarn", .complaint = "yarn"},
        {"llama.rope.scaling.type", GGUF_U32, .number = 1, .complaint = "rope.scaling.type"},
        {"llama.rope.scaling.factor", GGUF_F32, .real = -1, .complaint = "factor -1"},
        {"llama.rope.freq_base", GGUF_F32, .real = NAN, .complaint = "rope.freq_base"},
        {"llama.rope.freq_base", GGUF_STRING, .text = "10000", .complaint = "rope.freq_base"},
        {"llama.attention.layer_norm_rms_epsilon", GGUF_F32, .real = -1, .complaint = "epsilon"},
        {"llama.attention.key_length", GGUF_F32, .real = 32, .complaint = "key_length"},
        {"llama.expert_count", GGUF_U32, .number = 8, .complaint = "experts"},
        {"general.alignment", GGUF_STRING, .text = "32", .complaint = "general.alignment"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof setting / sizeof *setting; i++) {
        const struct setting *s = &setting[i];
        struct model *m;
        struct error e = {0};
        int rc = open_with(&m, s, NULL, &e);
        if (s->complaint == NULL && rc != 0)
            fail_msg("case %zu: %s", i, e.text);
        if (s->complaint != NULL && (rc == 0 || strstr(e.text, s->complaint) == NULL))
            fail_msg("case %zu: expected a word about %s, got '%s'", i, s->complaint, e.text);
        if (rc == 0)
            assert_true(m->traits.rope_scale == s->rope_scale);
        model_close(m);
    }
}

static void test_unread_tensor(void **state) {
    static const char *const name[] = {"blk.0.ffn_gate.bias", "blk.1.ffn_gate_exps.weight",
                                       "blk.2.attn_norm.weight", "cls.weight"};
    struct model *m;
    struct error e = {0};
    (void)state;
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        assert_int_equal(open_with(&m, NULL, name[i], &e), ERR_UNSUPPORTED);
        assert_non_null(strstr(e.text, name[i]));
    }
}

/* ---- biases ---- */

static void run(const struct model *m, float *logits) {
    enum { ROWS = 5 };
    struct chip *c;
    struct forward *f;
    struct error e = {0};
    struct chip_options o = {.kernels = "reference", .threads = 1};
    struct forward_row row[ROWS];
    const uint32_t page = 0;
    assert_int_equal(chip_open(&c, &o, &e), 0);
    assert_int_equal(forward_open(&f, c, m, ROWS, 1, &e), 0);
    struct chip_kv *kv = forward_kv(f);
    kv->base = chip_alloc(c, kv->page_bytes);
    for (uint32_t i = 0; i < ROWS; i++)
        row[i] = (struct forward_row){
            .token = (token_id)(40 + 3 * i), .position = i, .page = &page, .want_logits = i + 1 == ROWS};
    memcpy(logits, forward_step(f, row, ROWS), TINY_VOCAB * sizeof *logits);
    chip_release(c, kv->base, kv->page_bytes);
    forward_close(f);
    chip_close(c);
}

/* A bias of the values goes through attention unchanged, since its weights sum to one: it is the same as the bias W_o . b after it. */
static void test_biases(void **state) {
    float none[TINY_VOCAB], of_values[TINY_VOCAB], of_output[TINY_VOCAB], moved[TINY_WIDTH] = {0};
    struct model *m;
    struct error e = {0};
    (void)state;
    assert_int_equal(open_with(&m, NULL, NULL, &e), 0);
    run(m, none);
    model_close(m);

    struct small_vocab v = {0};
    struct tiny_writer w = {.random = 1};
    tiny_model_start(&v, &w);
    tiny_tensor(&w, "blk.0.attn_v.bias", TINY_KV, 0, 1);
    assert_true(tiny_model_end(&v, &w, path));
    assert_int_equal(model_open(&m, path, &e), 0);
    run(m, of_values);
    const float *bias = m->tensors.layer[0].v_bias->data, *out = m->tensors.layer[0].attn_out->data;
    for (int o = 0; o < TINY_WIDTH; o++)
        for (int i = 0; i < TINY_WIDTH; i++)
            moved[o] += out[o * TINY_WIDTH + i] * bias[i % TINY_KV]; /* two heads share the values */
    model_close(m);

    v = (struct small_vocab){0};
    w = (struct tiny_writer){.random = 1};
    tiny_model_start(&v, &w);
    tiny_tensor(&w, "blk.0.attn_output.bias", TINY_WIDTH, 0, 0);
    memcpy(w.data.p + w.data.n - sizeof moved, moved, sizeof moved);
    assert_true(tiny_model_end(&v, &w, path));
    assert_int_equal(model_open(&m, path, &e), 0);
    run(m, of_output);
    model_close(m);

    float most = 0;
    for (int i = 0; i < TINY_VOCAB; i++) {
        most = fmaxf(most, fabsf(of_values[i] - none[i]));
        assert_true(fabsf(of_values[i] - of_output[i]) < 1e-4f);
    }
    assert_true(most > 0.1f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_unread_tensor),
        cmocka_unit_test(test_biases),
    };
    int fd = mkstemp(path);
    int failures = fd < 0 || close(fd) != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failures;
}
