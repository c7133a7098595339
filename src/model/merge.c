/* Byte-level BPE (Sennrich et al., arXiv 1508.07909) with ranks from the list of merges, and SentencePiece's BPE (Kudo and Richardson, arXiv 1808.06226) with
 * scores of the merged tokens: one loop, two ways to judge a pair. */
#include "model/merge.h"

#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

/* ---- heap ---- */

static bool before(const struct candidate *a, const struct candidate *b) {
    return a->order < b->order;
}

static void heap_push(struct merger *m, struct candidate c) {
    size_t i = m->candidates++;
    for (size_t parent; i > 0 && before(&c, &m->heap[parent = (i - 1) / 2]); i = parent)
        m->heap[i] = m->heap[parent];
    m->heap[i] = c;
}

static struct candidate heap_pop(struct merger *m) {
    struct candidate best = m->heap[0], last = m->heap[--m->candidates];
    size_t i = 0, n = m->candidates;
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(&m->heap[child + 1], &m->heap[child]))
            child++;
        if (!before(&m->heap[child], &last))
            break;
        m->heap[i] = m->heap[child];
    }
    m->heap[i] = last;
    return best;
}

/* ---- pairs ---- */

/* Larger scores get smaller ranks. */
static uint32_t rank_of_score(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return ~bits;
}

static void consider(struct merger *m, const struct vocab *v, struct str piece, int32_t left) {
    int32_t right = left < 0 ? -1 : m->symbol[left].next;
    if (right < 0)
        return;
    const struct symbol *a = &m->symbol[left], *b = &m->symbol[right];
    struct candidate c = {.bytes = a->bytes + b->bytes};
    uint32_t rank;
    if (v->spm) {
        c.id = vocab_word(v, (struct str){piece.p + a->start, c.bytes});
        if (c.id < 0)
            return;
        rank = rank_of_score(v->score[c.id]);
    } else if (!vocab_merge(v, a->id, b->id, &rank, &c.id)) {
        return;
    }
    c.order = (uint64_t)rank << 32 | (uint32_t)left;
    heap_push(m, c);
}

/* ---- a piece ---- */

static int make_room(struct merger *m, size_t symbols) {
    if (symbols <= m->room)
        return 0;
    size_t room = symbols < 64 ? 64 : symbols + symbols / 2;
    free(m->symbol);
    free(m->heap);
    m->room = 0;
    /* Each merge takes one symbol away and brings at most two candidates. */
    m->symbol = malloc(room * sizeof *m->symbol);
    m->heap = malloc(room * 3 * sizeof *m->heap);
    if (m->symbol == NULL || m->heap == NULL)
        return ERR_NO_MEMORY;
    m->room = room;
    return 0;
}

static size_t count_symbols(const struct vocab *v, struct str piece) {
    size_t n = 0;
    if (!v->spm)
        return piece.n;
    for (size_t at = 0, length; at < piece.n; at += length, n++)
        utf8_decode((struct str){piece.p + at, piece.n - at}, &length);
    return n;
}

/* Bytes for BPE, characters for SentencePiece. */
static void split(struct merger *m, const struct vocab *v, struct str piece) {
    m->symbols = 0;
    for (size_t at = 0, length = 1; at < piece.n; at += length) {
        int32_t i = (int32_t)m->symbols++;
        if (v->spm)
            utf8_decode((struct str){piece.p + at, piece.n - at}, &length);
        m->symbol[i] = (struct symbol){.start = (uint32_t)at,
                                       .bytes = (uint32_t)length,
                                       .previous = i - 1,
                                       .next = at + length < piece.n ? i + 1 : -1,
                                       .id = v->spm ? vocab_word(v, (struct str){piece.p + at, length})
                                                    : v->byte[(unsigned char)piece.p[at]]};
    }
}

static int put(const struct vocab *v, struct str piece, const struct symbol *s, struct tokens *out) {
    if (s->id >= 0)
        return tokens_push(out, s->id);
    for (uint32_t i = 0; i < s->bytes; i++) {
        token_id byte = v->byte[(unsigned char)piece.p[s->start + i]];
        if (byte < 0) /* the vocabulary cannot say it at all: one unknown token for the character */
            return v->unknown >= 0 ? tokens_push(out, v->unknown) : 0;
        if (tokens_push(out, byte) != 0)
            return ERR_NO_MEMORY;
    }
    return 0;
}

int merge_piece(struct merger *m, const struct vocab *v, struct str piece, struct tokens *out) {
    if (make_room(m, count_symbols(v, piece)) != 0)
        return ERR_NO_MEMORY;
    split(m, v, piece);
    m->candidates = 0;
    for (size_t i = 0; i < m->symbols; i++)
        consider(m, v, piece, (int32_t)i);
    while (m->candidates > 0) {
        struct candidate c = heap_pop(m);
        int32_t left = (int32_t)(uint32_t)c.order;
        struct symbol *a = &m->symbol[left];
        if (a->bytes == 0 || a->next < 0 || a->bytes + m->symbol[a->next].bytes != c.bytes)
            continue;
        struct symbol *b = &m->symbol[a->next];
        a->bytes = c.bytes;
        a->id = c.id;
        a->next = b->next;
        b->bytes = 0;
        if (a->next >= 0)
            m->symbol[a->next].previous = left;
        consider(m, v, piece, a->previous);
        consider(m, v, piece, left);
    }
    for (int32_t i = m->symbols > 0 ? 0 : -1; i >= 0; i = m->symbol[i].next)
        if (put(v, piece, &m->symbol[i], out) != 0)
            return ERR_NO_MEMORY;
    return 0;
}

void merger_free(struct merger *m) {
    free(m->symbol);
    free(m->heap);
    *m = (struct merger){0};
}
