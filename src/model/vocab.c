/* Reading a vocabulary. Everything here comes from a model file: counts are compared, ids checked, and the hash tables seeded so that a file
 * cannot choose its collisions. */
#include "model/vocab.h"

#include "base/hash.h"
#include "base/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 1 << 24, MOST_TRIE = 1 << 26 };

/* ---- hashing ---- */

static uint64_t mix(uint64_t x) {
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    x ^= x >> 32;
    x *= 0xD6E8FEB86659FD93u;
    return x ^ x >> 32;
}

static uint64_t hash_text(const struct vocab *v, struct str s) {
    uint64_t h = v->seed ^ s.n, word;
    for (; s.n >= 8; s.p += 8, s.n -= 8) {
        memcpy(&word, s.p, 8);
        h = mix(h ^ word);
    }
    word = 0;
    memcpy(&word, s.p, s.n);
    return mix(h ^ word);
}

static size_t table_size(size_t n) {
    size_t size = 16;
    while (size < n * 2)
        size *= 2;
    return size;
}

struct str vocab_piece(const struct vocab *v, token_id id) {
    if (id < 0 || (size_t)id >= v->n)
        return (struct str){"", 0};
    return (struct str){v->bytes + v->start[id], v->start[id + 1] - v->start[id]};
}

token_id vocab_word(const struct vocab *v, struct str text) {
    if (text.n > v->longest)
        return -1;
    for (size_t i = hash_text(v, text);; i++) {
        token_id id = v->word[i & (v->words - 1)];
        if (id < 0 || str_equal(vocab_piece(v, id), text))
            return id;
    }
}

bool vocab_merge(const struct vocab *v, token_id a, token_id b, uint32_t *rank, token_id *id) {
    if (a < 0 || b < 0)
        return false;
    uint64_t pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    for (size_t i = mix(pair ^ v->seed);; i++) {
        const struct merge *m = &v->merge[i & (v->merges - 1)];
        if (m->id >= 0 && m->pair != pair)
            continue;
        *rank = m->rank;
        *id = m->id;
        return m->id >= 0;
    }
}

/* ---- special tokens ---- */

static struct edge *find_edge(const struct vocab *v, uint32_t node, unsigned char byte) {
    uint64_t key = (uint64_t)node << 8 | byte;
    for (size_t i = mix(key ^ v->seed);; i++) {
        struct edge *e = &v->edge[i & (v->edges - 1)];
        if (e->to == 0 || e->key == key) {
            e->key = e->to == 0 ? key : e->key;
            return e;
        }
    }
}

token_id vocab_special(const struct vocab *v, struct str text, size_t control, size_t *bytes) {
    token_id found = -1;
    uint32_t node = 0;
    for (size_t i = 0; i < text.n; i++) {
        uint64_t key = (uint64_t)node << 8 | (unsigned char)text.p[i];
        size_t at = mix(key ^ v->seed);
        while (v->edge[at & (v->edges - 1)].to != 0 && v->edge[at & (v->edges - 1)].key != key)
            at++;
        node = v->edge[at & (v->edges - 1)].to;
        if (node == 0)
            break;
        token_id id = v->end[node];
        if (id >= 0 && (v->kind[id] == TOKEN_USER || i + 1 <= control)) {
            found = id;
            *bytes = i + 1;
        }
    }
    return found;
}

static bool is_special(const struct vocab *v, size_t id) {
    struct str s = vocab_piece(v, (token_id)id);
    return (v->kind[id] == TOKEN_CONTROL || v->kind[id] == TOKEN_USER) && s.n > 0 && s.n <= MOST_SPECIAL;
}

static int build_trie(struct vocab *v, struct error *e) {
    size_t most = 1;
    for (size_t i = 0; i < v->n; i++)
        most += is_special(v, i) ? vocab_piece(v, (token_id)i).n : 0;
    if (most > MOST_TRIE)
        return error_set(e, ERR_TOO_LARGE, "the special tokens take %zu bytes, more than %d", most,
                         MOST_TRIE);
    v->edges = table_size(most);
    v->edge = calloc(v->edges, sizeof *v->edge);
    v->end = malloc(most * sizeof *v->end);
    if (v->edge == NULL || v->end == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the special tokens");
    v->nodes = 1;
    v->end[0] = -1;
    for (size_t i = 0; i < v->n; i++) {
        struct str s = is_special(v, i) ? vocab_piece(v, (token_id)i) : (struct str){"", 0};
        uint32_t node = 0;
        for (size_t k = 0; k < s.n; k++) {
            struct edge *edge = find_edge(v, node, (unsigned char)s.p[k]);
            if (edge->to == 0) {
                v->end[v->nodes] = -1;
                edge->to = v->nodes++;
            }
            node = edge->to;
        }
        if (node != 0) {
            v->end[node] = (token_id)i;
            v->first[(unsigned char)s.p[0]] = true;
        }
    }
    return 0;
}

/* ---- words and merges ---- */

static bool is_word(const struct vocab *v, size_t id) {
    return (v->kind[id] == TOKEN_NORMAL || v->kind[id] == TOKEN_USER) && v->start[id + 1] > v->start[id];
}

static int build_words(struct vocab *v, struct error *e) {
    v->words = table_size(v->n);
    v->word = malloc(v->words * sizeof *v->word);
    if (v->word == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a vocabulary of %zu tokens", v->n);
    memset(v->word, 0xFF, v->words * sizeof *v->word);
    for (size_t id = 0; id < v->n; id++) {
        struct str s = vocab_piece(v, (token_id)id);
        if (!is_word(v, id))
            continue;
        v->longest = s.n > v->longest ? s.n : v->longest;
        size_t i = hash_text(v, s) & (v->words - 1);
        while (v->word[i] >= 0 && !str_equal(vocab_piece(v, v->word[i]), s))
            i = (i + 1) & (v->words - 1);
        if (v->word[i] < 0) /* of equal tokens the first is the one */
            v->word[i] = (token_id)id;
    }
    return 0;
}

/* GPT-2's printable alphabet for bytes: code point c stands for a byte, or for none (-1). */
static int byte_of(int32_t c) {
    if ((c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 255))
        return c;
    if (c >= 256 && c < 256 + 33)
        return c - 256;
    if (c >= 256 + 33 && c < 256 + 33 + 34)
        return c - 256 - 33 + 127;
    return c == 256 + 67 ? 173 : -1;
}

/* Text in that alphabet as bytes; characters outside of it stay as they are, and *foreign is set. Writes at most s.n bytes. */
static size_t unmap(struct str s, char *out, bool *foreign) {
    size_t n = 0;
    for (size_t at = 0, length; at < s.n; at += length) {
        int32_t c = utf8_decode((struct str){s.p + at, s.n - at}, &length);
        int byte = byte_of(c);
        if (byte >= 0) {
            out[n++] = (char)byte;
            continue;
        }
        *foreign = true;
        memcpy(out + n, s.p + at, length);
        n += length;
    }
    return n;
}

static void add_merge(struct vocab *v, token_id a, token_id b, uint32_t rank, token_id id) {
    uint64_t pair = (uint64_t)(uint32_t)a << 32 | (uint32_t)b;
    size_t i = mix(pair ^ v->seed) & (v->merges - 1);
    while (v->merge[i].id >= 0 && v->merge[i].pair != pair)
        i = (i + 1) & (v->merges - 1);
    if (v->merge[i].id < 0)
        v->merge[i] = (struct merge){pair, rank, id};
}

static int read_merges(struct vocab *v, const struct gguf *g, struct error *e) {
    struct gguf_array list;
    int rc = 0;
    if (!gguf_array(g, "tokenizer.ggml.merges", &list) || list.type != GGUF_STRING)
        return error_param(e, ERR_CORRUPT, "tokenizer.ggml.merges", "the vocabulary has no merges");
    if (list.count > MOST_TOKENS)
        return error_param(e, ERR_TOO_LARGE, "tokenizer.ggml.merges",
                           "the vocabulary has more than %d merges", MOST_TOKENS);
    struct buf text = {0};
    v->merges = table_size(list.count);
    v->merge = malloc(v->merges * sizeof *v->merge);
    if (v->merge == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the merges");
    for (size_t i = 0; i < v->merges; i++)
        v->merge[i].id = -1;
    for (uint64_t rank = 0; rank < list.count; rank++) {
        struct str s = gguf_array_str(&list, rank);
        size_t space = str_find(s, STR(" "), 1);
        if (space == SIZE_MAX || space + 1 >= s.n)
            continue;
        buf_clear(&text);
        char *to = buf_reserve(&text, s.n);
        if (to == NULL) {
            rc = error_set(e, ERR_NO_MEMORY, "no memory for the merges");
            break;
        }
        bool foreign = false;
        size_t left = unmap((struct str){s.p, space}, to, &foreign),
               right = unmap((struct str){s.p + space + 1, s.n - space - 1}, to + left, &foreign);
        if (foreign) /* of tokens that no text becomes */
            continue;
        token_id a = vocab_word(v, (struct str){to, left}), b = vocab_word(v, (struct str){to + left, right}),
                 both = vocab_word(v, (struct str){to, left + right});
        if (a >= 0 && b >= 0 && both >= 0)
            add_merge(v, a, b, (uint32_t)rank, both);
    }
    buf_free(&text);
    return rc;
}

/* ---- tokens ---- */

static bool is_among(struct str name, const struct str *list, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (str_equal(name, list[i]))
            return true;
    return false;
}

bool vocab_ends_turn(struct str name) {
    static const struct str list[] = {
        STR("<|eot_id|>"),      STR("<|eom_id|>"),
        STR("<|im_end|>"),      STR("<|end|>"),
        STR("<|endoftext|>"),   STR("<|end_of_text|>"),
        STR("<|end_of_turn|>"), STR("<end_of_turn>"),
        STR("<turn|>"),         STR("<end_of_utterance>"),
        STR("<|return|>"),      STR("<|call|>"),
        STR("_<EOT>"),          STR("< EOT >"),
        STR("<|eos|>"),         STR("<\uFF5Cend\u2581of\u2581sentence\uFF5C>"),
    };
    return is_among(name, list, sizeof list / sizeof *list);
}

bool vocab_is_turn(struct str name) {
    static const struct str list[] = {
        STR("<|im_start|>"),  STR("<|start_header_id|>"), STR("<|end_header_id|>"), STR("<start_of_turn>"),
        STR("<|turn>"),       STR("<|start|>"),           STR("<|system|>"),        STR("<|user|>"),
        STR("<|assistant|>"), STR("<|start_of_role|>"),   STR("<|end_of_role|>"),   STR("[INST]"),
        STR("[/INST]"),
    };
    return vocab_ends_turn(name) || is_among(name, list, sizeof list / sizeof *list);
}

/* SentencePiece writes U+2581 for a space. */
static size_t unescape(struct str s, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < s.n;) {
        bool space = s.n - i >= 3 && memcmp(s.p + i, "\xE2\x96\x81", 3) == 0;
        out[n++] = space ? ' ' : s.p[i];
        i += space ? 3 : 1;
    }
    return n;
}

/* "<0x0A>" */
static int byte_name(struct str s) {
    static const char digits[16] = {'0', '1', '2', '3', '4', '5', '6', '7',
                                    '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'};
    if (s.n != 6 || memcmp(s.p, "<0x", 3) != 0 || s.p[5] != '>')
        return -1;
    const char *high = memchr(digits, s.p[3], 16), *low = memchr(digits, s.p[4], 16);
    return high == NULL || low == NULL ? -1 : (int)((high - digits) * 16 + (low - digits));
}

static size_t read_token(struct vocab *v, size_t id, struct str s, char *to) {
    int byte = v->spm ? byte_name(s) : -1;
    if (byte >= 0) {
        v->kind[id] = TOKEN_BYTE;
        if (v->byte[byte] < 0)
            v->byte[byte] = (token_id)id;
        *to = (char)byte;
        return 1;
    }
    if (v->spm && (v->kind[id] == TOKEN_NORMAL || v->kind[id] == TOKEN_UNUSED || v->kind[id] == TOKEN_USER))
        return unescape(s, to);
    if (v->kind[id] == TOKEN_NORMAL || v->kind[id] == TOKEN_UNUSED) {
        bool foreign = false;
        size_t n = unmap(s, to, &foreign);
        /* Text is looked up in the alphabet, so such a token is never found, though its bytes may be those of another (Command R's bare U+200D). */
        if (foreign)
            v->kind[id] = TOKEN_UNUSED;
        return n;
    }
    if (s.n > 0)
        memcpy(to, s.p, s.n);
    return s.n;
}

/* Tokens that a file may have forgotten to call control tokens: the ones it names itself, and those that end turns under well-known names. */
static void read_kinds(struct vocab *v, const struct gguf *g, const struct gguf_array *tokens) {
    static const char *const key[] = {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
                                      "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id",
                                      "tokenizer.ggml.padding_token_id"};
    struct gguf_array kinds;
    bool given = gguf_array(g, "tokenizer.ggml.token_type", &kinds) && kinds.count == v->n;
    for (size_t i = 0; i < v->n; i++) {
        int64_t kind = given ? gguf_array_i64(&kinds, i) : TOKEN_NORMAL;
        v->kind[i] = kind >= TOKEN_NORMAL && kind <= TOKEN_BYTE ? (uint8_t)kind : TOKEN_NORMAL;
        if (v->kind[i] != TOKEN_BYTE && vocab_is_turn(gguf_array_str(tokens, i)))
            v->kind[i] = TOKEN_CONTROL;
    }
    for (size_t i = 0; i < sizeof key / sizeof *key; i++) {
        uint64_t id;
        if (gguf_u64(g, key[i], &id) && id < v->n &&
            (v->kind[id] == TOKEN_NORMAL || v->kind[id] == TOKEN_USER))
            v->kind[id] = TOKEN_CONTROL;
    }
}

static int read_tokens(struct vocab *v, const struct gguf *g, struct error *e) {
    struct gguf_array tokens, scores;
    size_t bytes = 0;
    if (!gguf_array(g, "tokenizer.ggml.tokens", &tokens) || tokens.type != GGUF_STRING || tokens.count == 0)
        return error_param(e, ERR_CORRUPT, "tokenizer.ggml.tokens", "the file holds no vocabulary");
    if (tokens.count > MOST_TOKENS)
        return error_param(e, ERR_TOO_LARGE, "tokenizer.ggml.tokens",
                           "the vocabulary has more than %d tokens", MOST_TOKENS);
    v->n = tokens.count;
    for (size_t i = 0; i < v->n; i++)
        bytes += gguf_array_str(&tokens, i).n;
    v->bytes = malloc(bytes + 1);
    v->start = malloc((v->n + 1) * sizeof *v->start);
    v->kind = malloc(v->n);
    v->score = v->spm ? calloc(v->n, sizeof *v->score) : NULL;
    if (v->bytes == NULL || v->start == NULL || v->kind == NULL || (v->spm && v->score == NULL))
        return error_set(e, ERR_NO_MEMORY, "no memory for a vocabulary of %zu tokens", v->n);
    read_kinds(v, g, &tokens);
    v->start[0] = 0;
    for (size_t i = 0; i < v->n; i++)
        v->start[i + 1] = v->start[i] + read_token(v, i, gguf_array_str(&tokens, i), v->bytes + v->start[i]);
    if (v->spm && gguf_array(g, "tokenizer.ggml.scores", &scores))
        for (size_t i = 0; i < v->n; i++)
            v->score[i] = (float)gguf_array_f64(&scores, i);
    return 0;
}

int vocab_read(struct vocab *v, const struct gguf *g, struct error *e) {
    uint64_t unknown;
    int rc;
    memset(v->byte, 0xFF, sizeof v->byte);
    random_bytes(&v->seed, sizeof v->seed);
    if ((rc = read_tokens(v, g, e)) != 0 || (rc = build_words(v, e)) != 0 || (rc = build_trie(v, e)) != 0 ||
        (!v->spm && (rc = read_merges(v, g, e)) != 0)) {
        vocab_free(v);
        return rc;
    }
    if (!v->spm)
        for (int byte = 0; byte < 256; byte++) {
            char c = (char)byte;
            v->byte[byte] = vocab_word(v, (struct str){&c, 1});
        }
    /* Many files call a control token their unknown one (SmolLM: <|endoftext|>). A byte without a token must not become that: callers send bytes. */
    v->unknown = gguf_u64(g, "tokenizer.ggml.unknown_token_id", &unknown) && unknown < v->n &&
                         v->kind[unknown] != TOKEN_CONTROL
                     ? (token_id)unknown
                     : -1;
    return 0;
}

void vocab_free(struct vocab *v) {
    free(v->bytes);
    free(v->start);
    free(v->kind);
    free(v->score);
    free(v->word);
    free(v->merge);
    free(v->edge);
    free(v->end);
    *v = (struct vocab){0};
}
