/* Weights on their way from the file into the order of the fast kernels: each 16 outputs become a panel whose blocks hold scales and codes side by side
 * (kernels.h lists the forms), which the table at hand may order otherwise. Packing keeps every value exactly; a format maps to the narrowest form that can say so. The reference
 * reads the file's own rows and packs nothing. */
#include "chip/cpu/kernels.h"

#include "base/log.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum form form_of(const struct format *f) {
    switch (f->id) {
    case FORMAT_Q4_0:
        return FORM_4;
    case FORMAT_Q4_1:
        return FORM_4M;
    case FORMAT_Q4_K:
        return FORM_4K;
    case FORMAT_Q8_0:
    case FORMAT_Q5_0:
    case FORMAT_IQ4_NL:
        return FORM_8;
    case FORMAT_F16:
        return FORM_F16;
    case FORMAT_BF16:
        return FORM_BF16;
    case FORMAT_F32:
        return FORM_F32;
    case FORMAT_Q5_1:
    case FORMAT_Q5_K:
        return FORM_8M;
    case FORMAT_Q3_K:
    case FORMAT_Q6_K:
    case FORMAT_IQ4_XS:
        return FORM_8S;
    case FORMAT_MXFP4:
        return FORM_4E;
    case FORMAT_Q2_K:
        return FORM_8SM;
    default:
        return FORM_F32; /* decoded: exact, though wider than the file */
    }
}

size_t form_panel_bytes(enum form f, uint32_t inputs) {
    size_t blocks = blocks_of(inputs);
    return blocks * form_block_bytes(f) + (f == FORM_4K ? blocks / 8 * SUPER_BYTES : 0);
}

static uint16_t f16_at(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static void put_16(uint8_t *out, uint32_t col, uint16_t v) {
    memcpy(out + 2 * col, &v, sizeof v);
}

static void put_f32(uint8_t *out, uint32_t col, float v) {
    memcpy(out + 4 * col, &v, sizeof v);
}

/* code[32] of one output into the 4-bit vectors: vector j holds inputs 8 j .. 8 j + 3 in low halves, the next four in high halves. */
static void put_4(uint8_t *out, uint32_t col, const uint8_t *code) {
    for (uint32_t k = 0; k < BLOCK; k++)
        out[k / 8 * 64 + col * 4 + k % 4] |= (uint8_t)(k & 4 ? code[k] << 4 : code[k]);
}

static void put_8(uint8_t *out, uint32_t col, const uint8_t *code, uint32_t n) {
    for (uint32_t k = 0; k < n; k++)
        out[k / 4 * 64 + col * 4 + k % 4] = code[k];
}

/* The 32 low, then high halves of 16 bytes, as the formats of 32 values store them. */
static void nibbles(const uint8_t *q, uint8_t *code) {
    for (int i = 0; i < 16; i++) {
        code[i] = q[i] & 15;
        code[i + 16] = q[i] >> 4;
    }
}

static void pack_4(const struct chip_matrix *m, const uint8_t *row, uint32_t col, uint8_t *out) {
    uint8_t code[BLOCK];
    bool min = m->form == FORM_4M;
    for (uint32_t b = 0; b < m->inputs / BLOCK; b++, row += min ? 20 : 18, out += min ? 320 : 288) {
        put_16(out, col, f16_at(row));
        if (min)
            put_16(out + 32, col, f16_at(row + 2));
        nibbles(row + (min ? 4 : 2), code);
        put_4(out + (min ? 64 : 32), col, code);
    }
}

static void pack_4e(const struct chip_matrix *m, const uint8_t *row, uint32_t col, uint8_t *out) {
    uint8_t code[BLOCK];
    for (uint32_t b = 0; b < m->inputs / BLOCK; b++, row += 17, out += 288) {
        struct format_split s;
        m->format->split(row, &s);
        put_16(out, col, format_f32_to_bf16(s.scale[0]));
        nibbles(row + 1, code);
        put_4(out + 32, col, code);
    }
}

static void pack_4k(const struct chip_matrix *m, const uint8_t *row, uint32_t col, uint8_t *out) {
    for (uint32_t s = 0; s < m->inputs / 256; s++, row += 144) {
        put_16(out, col, f16_at(row));
        put_16(out + 32, col, f16_at(row + 2));
        out += 64;
        const uint8_t *sc = row + 4, *q = row + 16;
        for (uint32_t j = 0; j < 8; j++, out += 288) {
            out[col] = j < 4 ? sc[j] & 63 : (uint8_t)((sc[j + 4] & 15) | (sc[j - 4] >> 6) << 4);
            out[16 + col] = j < 4 ? sc[j + 4] & 63 : (uint8_t)(sc[j + 4] >> 4 | (sc[j] >> 6) << 4);
            uint8_t code[BLOCK];
            for (int i = 0; i < 32; i++)
                code[i] = j & 1 ? q[j / 2 * 32 + i] >> 4 : q[j / 2 * 32 + i] & 15;
            put_4(out + 32, col, code);
        }
    }
}

/* Formats of one f16 scale, which comes first, and 32 integers. */
static void pack_8(const struct chip_matrix *m, const uint8_t *row, uint32_t col, uint8_t *out) {
    struct format_split s;
    uint8_t code[BLOCK];
    for (uint32_t b = 0; b < m->inputs / BLOCK; b++, row += m->format->bytes, out += 544) {
        m->format->split(row, &s);
        put_16(out, col, f16_at(row));
        for (int i = 0; i < BLOCK; i++)
            code[i] = (uint8_t)(s.code[i] + 128);
        put_8(out + 32, col, code, BLOCK);
    }
}

/* Any format of integers, with its scales (and minimums) as f32: one for each 32 inputs or, in halves, for each 16. */
static void pack_split(const struct chip_matrix *m, const uint8_t *row, uint32_t col, uint8_t *out) {
    struct format_split s;
    uint32_t group = m->form == FORM_8M ? BLOCK : BLOCK / 2, values = m->format->values;
    size_t head = m->form == FORM_8S ? 64 : 128;
    for (uint32_t k = 0; k < m->inputs; k += values, row += m->format->bytes) {
        m->format->split(row, &s);
        for (uint32_t i = 0; i < values; i += group, out += head + group * PANEL) {
            uint8_t code[BLOCK];
            put_f32(out, col, s.scale[i / 16]);
            if (head == 128)
                put_f32(out + 64, col, s.min[i / 16]);
            for (uint32_t j = 0; j < group; j++)
                code[j] = (uint8_t)(s.code[i + j] + 128);
            put_8(out + head, col, code, group);
        }
    }
}

static void pack_float(const struct chip_matrix *m, const uint8_t *row, uint32_t col, uint8_t *out) {
    if (m->form == FORM_F16 || m->form == FORM_BF16) {
        uint32_t beside = m->form == FORM_BF16 ? 2 : 1; /* inputs of one output that stand together */
        for (uint32_t k = 0; k < m->inputs; k++)
            memcpy(out + 2 * (k / beside * beside * PANEL + col * beside + k % beside), row + 2 * k, 2);
        return;
    }
    float value[256];
    uint32_t step = m->format->values;
    for (uint32_t k = 0; k < m->inputs; k += step, row += m->format->bytes) {
        m->format->decode(row, value, 1);
        for (uint32_t i = 0; i < step; i++)
            put_f32(out + (size_t)(k + i) * PANEL * 4, col, value[i]);
    }
}

int pack_panel(const struct chip_matrix *m, uint32_t panel, uint8_t *out) {
    for (uint32_t col = 0; col < PANEL && panel * PANEL + col < m->outputs; col++) {
        const uint8_t *row = m->rows + (size_t)(panel * PANEL + col) * m->row_bytes;
        switch (m->form) {
        case FORM_4:
        case FORM_4M:
            pack_4(m, row, col, out);
            break;
        case FORM_4K:
            pack_4k(m, row, col, out);
            break;
        case FORM_4E:
            pack_4e(m, row, col, out);
            break;
        case FORM_8:
            pack_8(m, row, col, out);
            break;
        case FORM_8M:
        case FORM_8S:
        case FORM_8SM:
            pack_split(m, row, col, out);
            break;
        default:
            pack_float(m, row, col, out);
        }
    }
    return 0;
}

struct packing {
    struct chip *c;
    struct chip_weights *w;
};

static void pack_work(void *context, uint32_t thread) {
    struct packing *p = context;
    for (size_t i = 0; i < p->w->n; i++) {
        const struct chip_matrix *m = &p->w->matrix[i];
        uint32_t panels = (m->outputs + PANEL - 1) / PANEL;
        for (uint32_t j = thread; m->packed && j < panels; j += p->c->threads) {
            uint8_t *panel = p->w->packed + (m->packed - p->w->packed) + j * m->panel_bytes;
            pack_panel(m, j, panel);
            if (p->c->fast->order)
                p->c->fast->order(m, panel);
        }
    }
}

static int matrix_fill(struct chip_matrix *m, const struct gguf_tensor *t, bool fast, struct error *e) {
    if (t->dims > 2 || t->dim[2] > 1 || t->dim[0] == 0 || t->dim[0] > UINT32_MAX / 2 || t->dim[1] == 0 ||
        t->dim[1] > UINT32_MAX / 2 || t->dim[0] % t->format->values)
        return error_set(e, ERR_CORRUPT, "tensor %.*s is not a matrix the chip can use", (int)t->name.n,
                         t->name.p);
    *m = (struct chip_matrix){
        .format = t->format,
        .rows = t->data,
        .row_bytes = t->dim[0] / t->format->values * t->format->bytes,
        .inputs = (uint32_t)t->dim[0],
        .outputs = (uint32_t)t->dim[1],
    };
    if (fast) {
        m->form = form_of(t->format);
        m->panel_bytes = form_panel_bytes(m->form, m->inputs);
    }
    return 0;
}

/* What the packed file must agree with: names, shapes and formats in the order asked for. */
static struct hash layout_of(const struct chip_weights *w, const struct gguf_tensor *const *tensor) {
    struct buf b = {0};
    for (size_t i = 0; i < w->n; i++) {
        buf_str(&b, tensor[i]->name);
        buf_printf(&b, " %s %u %u %d\n", w->matrix[i].format->name, w->matrix[i].inputs, w->matrix[i].outputs,
                   (int)w->matrix[i].form);
    }
    struct hash h = hash_sha256(buf_view(&b));
    buf_free(&b);
    return h;
}

static void place(struct chip_weights *w) {
    size_t at = 0;
    for (size_t i = 0; i < w->n; i++) {
        w->matrix[i].packed = w->packed + at;
        at += (w->matrix[i].outputs + PANEL - 1) / PANEL * w->matrix[i].panel_bytes;
    }
}

/* From the packed file if there is a good one; else pack in memory, write the file and use that from now on, so that the memory is the page
 * cache's. Where the folder does not allow that, the memory stays. */
static int weights_pack(struct chip_weights *w, struct chip *c, const struct gguf *g,
                        const struct gguf_tensor *const *tensor, struct error *e) {
    struct cache k;
    bool named = c->pack_folder && g && cache_name(&k, c, g, layout_of(w, tensor));
    if (named && cache_open(&k, w)) {
        place(w);
        return 0;
    }
    uint8_t *memory = w->packed = chip_alloc(c, w->packed_bytes);
    if (!memory)
        return error_set(e, ERR_NO_MEMORY, "no memory for %zu bytes of packed weights", w->packed_bytes);
    place(w);
    struct packing p = {.c = c, .w = w};
    pool_run(c->pool, pack_work, &p);
    if (g && gguf_damaged(g)) /* pages became zeros while they were packed: never keep that */
        return error_set(e, ERR_CORRUPT, "%s was truncated while its weights were packed", gguf_path(g));
    if (!named)
        return 0;
    if (!cache_write(&k, w)) {
        log_warn("packed weights could not be kept in %s; they will be packed again at the next start",
                 c->pack_folder);
    } else if (cache_open(&k, w)) {
        place(w);
        chip_release(c, memory, w->packed_bytes);
        /* Whoever steps reads it from the disk again, and as huge pages; of the model's file little is needed from now on. */
        struct str whole = gguf_bytes(g);
        struct extent packed = chip_weights_extent(w), file = gguf_extent(g, whole.p, whole.n);
        extent_drop(&packed);
        extent_drop(&file);
    }
    return 0;
}

int chip_load(struct chip_weights **out, struct chip *c, const struct gguf *g,
              const struct gguf_tensor *const *tensor, size_t n, struct error *e) {
    *out = NULL;
    struct chip_weights *w = calloc(1, sizeof *w);
    int rc = 0;
    if (!w || !(w->matrix = calloc(n ? n : 1, sizeof *w->matrix))) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory for %zu matrices", n);
        goto fail;
    }
    w->n = n;
    w->file = -1;
    for (size_t i = 0; i < n; i++) {
        struct chip_matrix *m = &w->matrix[i];
        if ((rc = matrix_fill(m, tensor[i], c->fast, e)))
            goto fail;
        size_t packed = (m->outputs + PANEL - 1) / PANEL * m->panel_bytes;
        w->packed_bytes += packed;
        w->bytes += c->fast ? packed : m->outputs * m->row_bytes;
    }
    if (c->fast && (rc = weights_pack(w, c, g, tensor, e)))
        goto fail;
    *out = w;
    return 0;
fail:
    chip_unload(c, w);
    return rc;
}

void chip_unload(struct chip *c, struct chip_weights *w) {
    if (!w)
        return;
    if (w->map)
        cache_close(w);
    else
        chip_release(c, w->packed, w->packed_bytes);
    free(w->matrix);
    free(w);
}

const struct chip_matrix *chip_weights_matrix(const struct chip_weights *w, size_t i) {
    return &w->matrix[i];
}

bool chip_weights_damaged(const struct chip_weights *w) {
    return atomic_load(&w->damaged);
}

size_t chip_weights_bytes(const struct chip_weights *w) {
    return w->bytes;
}

struct extent chip_weights_extent(const struct chip_weights *w) {
    return (struct extent){.at = w->map ? w->map : (char *)w->packed,
                           .bytes = w->map      ? w->map_bytes
                                    : w->packed ? w->packed_bytes
                                                : 0,
                           .file = w->file};
}
