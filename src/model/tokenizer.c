/* Text to tokens and back: special tokens first, then pre-tokenizing and merging what lies between them; see tokenizer.h. On the request's journey:
 * between the rendered prompt and the engine, and again on every token of the answer. */
#include "model/tokenizer.h"

#include "model/merge.h"
#include "model/pretokenize.h"
#include "model/vocab.h"

#include <stdlib.h>
#include <string.h>

struct tokenizer {
    struct vocab vocab;
    const struct pretokenizer *pre; /* BPE only */
    bool space_prefix;              /* SentencePiece: a text begins with a space of its own */
    bool strip_after_control;       /* phi-3: white space after a control token belongs to it */
    bool add_bos, add_eos;
    token_id bos, eos;
    bool *ends; /* [vocab] */
};

/* ---- lists ---- */

int tokens_push(struct tokens *t, token_id id) {
    if (t->n == t->capacity) {
        size_t capacity = t->capacity ? t->capacity * 2 : 64;
        token_id *more = realloc(t->id, capacity * sizeof *more);
        if (more == NULL)
            return ERR_NO_MEMORY;
        t->id = more;
        t->capacity = capacity;
    }
    t->id[t->n++] = id;
    return 0;
}

void tokens_free(struct tokens *t) {
    free(t->id);
    *t = (struct tokens){0};
}

/* ---- creation ---- */

static token_id read_id(const struct tokenizer *t, const struct gguf *g, const char *key) {
    uint64_t id;
    return gguf_u64(g, key, &id) && id < t->vocab.n ? (token_id)id : -1;
}

static int read_model(struct tokenizer *t, const struct gguf *g, struct error *e) {
    struct str model, pre = STR("default");
    struct buf names = {0};
    if (!gguf_str(g, "tokenizer.ggml.model", &model))
        return error_param(e, ERR_CORRUPT, "tokenizer.ggml.model", "the file names no tokenizer");
    t->vocab.spm = str_is(model, "llama");
    if (t->vocab.spm)
        return 0;
    if (!str_is(model, "gpt2"))
        return error_param(e, ERR_UNSUPPORTED, "tokenizer.ggml.model",
                           "there is no tokenizer '%.*s' here; there are gpt2 and llama",
                           (int)(model.n < 40 ? model.n : 40), model.p);
    gguf_str(g, "tokenizer.ggml.pre", &pre);
    t->pre = pretokenizer_find(pre);
    if (t->pre != NULL)
        return 0;
    for (size_t i = 0; pretokenizer_at(i) != NULL && names.n < 280; i++)
        buf_printf(&names, "%s%s", i ? " " : "", pretokenizer_at(i)->name);
    error_write(e, ERR_UNSUPPORTED, "tokenizer.ggml.pre",
                "there is no pre-tokenizer '%.*s' here; there are %s", (int)(pre.n < 40 ? pre.n : 40), pre.p,
                names.p ? names.p : "none");
    buf_free(&names);
    return ERR_UNSUPPORTED;
}

/* Phi-3's files do not say that their control tokens take the white space after them. */
static bool is_phi3(const struct gguf *g) {
    struct str name;
    return gguf_str(g, "general.name", &name) &&
           (str_find(name, STR("phi-3"), 0) != SIZE_MAX || str_find(name, STR("Phi-3"), 0) != SIZE_MAX ||
            str_find(name, STR("phi3"), 0) != SIZE_MAX || str_find(name, STR("Phi3"), 0) != SIZE_MAX);
}

static void read_traits(struct tokenizer *t, const struct gguf *g) {
    t->bos = read_id(t, g, "tokenizer.ggml.bos_token_id");
    t->eos = read_id(t, g, "tokenizer.ggml.eos_token_id");
    t->add_bos = t->vocab.spm || t->pre->add_bos;
    t->space_prefix = t->vocab.spm;
    gguf_bool(g, "tokenizer.ggml.add_bos_token", &t->add_bos);
    gguf_bool(g, "tokenizer.ggml.add_eos_token", &t->add_eos);
    gguf_bool(g, "tokenizer.ggml.add_space_prefix", &t->space_prefix);
    t->add_bos = t->add_bos && t->bos >= 0;
    t->add_eos = t->add_eos && t->eos >= 0;
    t->strip_after_control = is_phi3(g);
    const token_id end[] = {t->eos, read_id(t, g, "tokenizer.ggml.eot_token_id"),
                            read_id(t, g, "tokenizer.ggml.eom_token_id")};
    for (size_t i = 0; i < sizeof end / sizeof *end; i++)
        if (end[i] >= 0)
            t->ends[end[i]] = true;
    for (size_t i = 0; i < t->vocab.n; i++)
        if (t->vocab.kind[i] == TOKEN_CONTROL && vocab_ends_turn(vocab_piece(&t->vocab, (token_id)i)))
            t->ends[i] = true;
}

int tokenizer_create(struct tokenizer **out, const struct gguf *g, struct error *e) {
    struct tokenizer *t = calloc(1, sizeof *t);
    int rc;
    *out = NULL;
    if (t == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a tokenizer");
    if ((rc = read_model(t, g, e)) == 0 && (rc = vocab_read(&t->vocab, g, e)) == 0) {
        t->ends = calloc(t->vocab.n, sizeof *t->ends);
        if (t->ends == NULL)
            rc = error_set(e, ERR_NO_MEMORY, "no memory for a tokenizer");
    }
    if (rc != 0) {
        tokenizer_free(t);
        return rc;
    }
    read_traits(t, g);
    *out = t;
    return 0;
}

void tokenizer_free(struct tokenizer *t) {
    if (t == NULL)
        return;
    vocab_free(&t->vocab);
    free(t->ends);
    free(t);
}

/* ---- encoding ---- */

/* One call of tokenizer_encode. */
struct encoding {
    const struct tokenizer *t;
    struct merger merger;
    struct buf fragment; /* SentencePiece: a fragment as its normalizer leaves it */
    struct tokens *out;
};

static int encode_bpe_piece(void *context, struct str piece) {
    struct encoding *n = context;
    token_id whole = n->t->pre->whole_pieces ? vocab_word(&n->t->vocab, piece) : -1;
    return whole >= 0 ? tokens_push(n->out, whole) : merge_piece(&n->merger, &n->t->vocab, piece, n->out);
}

/* Text between special tokens. */
static int encode_fragment(struct encoding *n, struct str text) {
    if (text.n == 0)
        return 0;
    if (!n->t->vocab.spm)
        return pretokenize(n->t->pre, text, encode_bpe_piece, n);
    buf_clear(&n->fragment);
    if (n->t->space_prefix)
        buf_byte(&n->fragment, ' ');
    for (size_t at = 0, next; at < text.n; at = next + 3) { /* U+2581 is SentencePiece's own space */
        next = str_find(text, STR("\xE2\x96\x81"), at);
        buf_append(&n->fragment, text.p + at, (next == SIZE_MAX ? text.n : next) - at);
        if (next == SIZE_MAX)
            break;
        buf_byte(&n->fragment, ' ');
    }
    if (n->fragment.failed)
        return ERR_NO_MEMORY;
    return merge_piece(&n->merger, &n->t->vocab, buf_view(&n->fragment), n->out);
}

static bool is_white(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

/* The whole text, whose first segments end at end[] and are control as control[] says (adjoining ones have been joined). */
static int encode_text(struct encoding *n, struct str text, const size_t *end, const bool *control) {
    size_t start = 0, at = 0, segment = 0;
    while (at < text.n) {
        size_t bytes = 0;
        if (!n->t->vocab.first[(unsigned char)text.p[at]]) {
            at++;
            continue;
        }
        while (end[segment] <= at)
            segment++;
        size_t control_bytes = control[segment] ? end[segment] - at : 0;
        token_id id =
            vocab_special(&n->t->vocab, (struct str){text.p + at, text.n - at}, control_bytes, &bytes);
        if (id < 0) {
            at++;
            continue;
        }
        if (encode_fragment(n, (struct str){text.p + start, at - start}) != 0 || tokens_push(n->out, id) != 0)
            return ERR_NO_MEMORY;
        at += bytes;
        if (n->t->strip_after_control && n->t->vocab.kind[id] == TOKEN_CONTROL && id != n->t->bos)
            while (at < end[segment] && is_white(text.p[at]))
                at++;
        start = at;
    }
    return encode_fragment(n, (struct str){text.p + start, at - start});
}

/* Join the segments to one text; neighbours of one kind become one segment. */
static int join(const struct segment *segments, size_t count, struct buf *text, size_t *end, bool *control) {
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (segments[i].text.n == 0)
            continue;
        buf_str(text, segments[i].text);
        if (n == 0 || control[n - 1] != segments[i].control)
            control[n++] = segments[i].control;
        end[n - 1] = text->n;
    }
    return text->failed ? ERR_NO_MEMORY : 0;
}

int tokenizer_encode(const struct tokenizer *t, const struct segment *segments, size_t count, unsigned flags,
                     struct tokens *out, struct error *e) {
    struct encoding n = {.t = t, .out = out};
    struct buf text = {.limit = INT32_MAX};
    bool special = (flags & TOKENIZER_ADD_SPECIAL) != 0;
    size_t *end = calloc(count + 1, sizeof *end);
    bool *control = calloc(count + 1, sizeof *control);
    int rc = end == NULL || control == NULL ? ERR_NO_MEMORY : join(segments, count, &text, end, control);
    if (rc == 0 && special && t->add_bos)
        rc = tokens_push(out, t->bos);
    if (rc == 0)
        rc = encode_text(&n, buf_view(&text), end, control);
    if (rc == 0 && special && t->add_eos)
        rc = tokens_push(out, t->eos);
    if (rc != 0)
        rc = error_set(e, ERR_NO_MEMORY, "no memory to tokenize the text, or more than 2 GiB of it");
    merger_free(&n.merger);
    buf_free(&n.fragment);
    buf_free(&text);
    free(end);
    free(control);
    return rc;
}

/* ---- decoding and traits ---- */

struct str tokenizer_piece(const struct tokenizer *t, token_id id, bool control) {
    if (!control && id >= 0 && (size_t)id < t->vocab.n &&
        (t->vocab.kind[id] == TOKEN_CONTROL || t->vocab.kind[id] == TOKEN_UNKNOWN))
        return (struct str){"", 0};
    return vocab_piece(&t->vocab, id);
}

void tokenizer_decode(const struct tokenizer *t, const token_id *id, size_t n, bool control,
                      struct buf *out) {
    bool first = t->space_prefix;
    for (size_t i = 0; i < n; i++) {
        struct str piece = tokenizer_piece(t, id[i], control);
        /* The space that encoding put in front of the text, which may follow a BOS. */
        if (first && piece.n > 0 && !tokenizer_is_control(t, id[i])) {
            first = false;
            if (piece.p[0] == ' ')
                piece = (struct str){piece.p + 1, piece.n - 1};
        }
        buf_str(out, piece);
    }
}

size_t tokenizer_vocab(const struct tokenizer *t) {
    return t->vocab.n;
}

token_id tokenizer_bos(const struct tokenizer *t) {
    return t->bos;
}

token_id tokenizer_eos(const struct tokenizer *t) {
    return t->eos;
}

bool tokenizer_add_bos(const struct tokenizer *t) {
    return t->add_bos;
}

bool tokenizer_ends(const struct tokenizer *t, token_id id) {
    return id >= 0 && (size_t)id < t->vocab.n && t->ends[id];
}

bool tokenizer_is_control(const struct tokenizer *t, token_id id) {
    return id >= 0 && (size_t)id < t->vocab.n && t->vocab.kind[id] == TOKEN_CONTROL;
}

const char *tokenizer_kind(const struct tokenizer *t) {
    return t->vocab.spm ? "spm" : "bpe";
}

const char *tokenizer_pre(const struct tokenizer *t) {
    return t->pre != NULL ? t->pre->name : "";
}
