/* The forward pass, written once for every architecture that model/arch.h can describe: a batch of rows goes in, logits of the rows that asked come
 * out. On the request's journey this is the step itself; the scheduler fills the batch, the chip does the arithmetic.
 *
 * A batch mixes rows freely: single tokens of sequences that decode, pieces of prompts, of any number of sequences. Rows of one sequence stand together
 * in the order of their positions. Nothing is allocated by a step. */
#ifndef ENGINE_FORWARD_H
#define ENGINE_FORWARD_H

#include "chip/chip.h"
#include "model/model.h"

struct forward; /* one model on one chip, with its activations; used by one thread */

struct forward_row {
    token_id token;       /* in range of the vocabulary */
    uint32_t position;    /* in its sequence */
    const uint32_t *page; /* the sequence's KV pages, shared by its rows */
    bool want_logits;
};

/* Load m's weights for the chip (m stays borrowed and must outlive *out) and make room for `max_rows` rows, `max_logits` of which want logits. */
int forward_open(struct forward **out, struct chip *c, const struct model *m, uint32_t max_rows,
                 uint32_t max_logits, struct error *e);
void forward_close(struct forward *f);

/* KV memory the pages of this model lie in; base is set by the caller (page_bytes and the geometry by forward_open). */
struct chip_kv *forward_kv(struct forward *f);

/* One step. Row r's K and V land in its pages. logits: one row of `vocab` floats for each row that wants them, in order; it belongs to f
 * until the next step. */
float *forward_step(struct forward *f, const struct forward_row *row, uint32_t rows);

/* Memory that a step needs and that can be taken away between two: what is mapped of the files, in the order of the layers, and the activations. Returns how many parts. */
enum { FORWARD_EXTENTS = 3 };
uint32_t forward_extents(const struct forward *f, struct extent out[FORWARD_EXTENTS]);
/* Bytes of weights that lie in memory of the chip's own, since nothing keeps them on disk. */
size_t forward_own_bytes(const struct forward *f);

/* Bytes of weights that one step reads. */
size_t forward_weight_bytes(const struct forward *f);
/* A mapped page of the model's file or of its packed weights has gone: what was computed since is worthless. */
bool forward_damaged(const struct forward *f);

#endif
