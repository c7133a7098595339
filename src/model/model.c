/* One model as data: file, traits, tensors, tokenizer and chat template. On the request's journey this is where
 * messages become tokens. */
#include "model/model.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

static void write_token(struct buf *b, const struct model *m, const char *name, token_id id) {
    buf_printf(b, ",\"%s\":", name);
    json_write_str(b, id < 0 ? STR("") : tokenizer_piece(m->tokenizer, id, true));
}

static int make_vars(struct model *m, struct error *e) {
    struct buf text = {0};
    buf_text(&text, "{\"add_generation_prompt\":true");
    write_token(&text, m, "bos_token", tokenizer_bos(m->tokenizer));
    write_token(&text, m, "eos_token", tokenizer_eos(m->tokenizer));
    buf_byte(&text, '}');
    int rc = text.failed ? error_set(e, ERR_NO_MEMORY, "no memory for a model")
                         : json_parse(&m->chat_vars, buf_view(&text), e);
    buf_free(&text);
    return rc;
}

/* A template that cannot be parsed does not keep a model from serving completions; model_encode_chat tells what is wrong with it. */
static int open_template(struct model *m, struct error *e) {
    struct str source;
    if (!gguf_str(m->gguf, "tokenizer.chat_template", &source))
        error_set(&m->chat_error, ERR_UNSUPPORTED,
                  "the model's file holds no chat template; use completions instead");
    else if (template_parse(&m->chat, source, &m->chat_error) != 0)
        error_prefix(&m->chat_error, "the model's chat template: ");
    return make_vars(m, e);
}

int model_open(struct model **out, const char *path, struct error *e) {
    int rc;
    struct model *m = calloc(1, sizeof *m);
    *out = NULL;
    if (m == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a model");
    if ((rc = gguf_open(&m->gguf, path, e)) != 0)
        goto out;
    rc = traits_read(&m->traits, m->gguf, e);
    if (rc == 0)
        rc = traits_tensors(&m->tensors, &m->traits, m->gguf, e);
    if (rc == 0)
        rc = tokenizer_create(&m->tokenizer, m->gguf, e);
    if (rc != 0) {
        error_prefix(e, "%s: ", path);
        goto out;
    }
    if (tokenizer_vocab(m->tokenizer) > m->traits.vocab) {
        rc = error_set(e, ERR_CORRUPT, "%s: the tokenizer has %zu tokens, the embedding only %u", path,
                       tokenizer_vocab(m->tokenizer), m->traits.vocab);
        goto out;
    }
    if ((rc = open_template(m, e)) != 0)
        goto out;
    *out = m;
    m = NULL;
out:
    model_close(m);
    return rc;
}

void model_close(struct model *m) {
    if (m == NULL)
        return;
    template_free(m->chat);
    json_free(m->chat_vars);
    tokenizer_free(m->tokenizer);
    free(m->tensors.layer);
    gguf_close(m->gguf);
    free(m);
}

/* ---- chat ---- */

/* Content given as a list of text parts, as one string: what templates that know only strings need. Other parts are refused by the callers. */
static void write_content(struct buf *b, const struct json *content) {
    struct buf text = {0};
    for (size_t i = 0; i < json_count(content); i++) {
        if (i > 0)
            buf_byte(&text, '\n');
        buf_str(&text, json_as_str(json_get(json_at(content, i), "text")));
    }
    json_write_str(b, buf_view(&text));
    b->failed |= text.failed;
    buf_free(&text);
}

static void write_message(struct buf *b, const struct json *message) {
    buf_byte(b, '{');
    for (void *it = json_first(message); it != NULL; it = json_next(message, it)) {
        if (it != json_first(message))
            buf_byte(b, ',');
        json_write_str(b, json_key(it));
        buf_byte(b, ':');
        if (str_is(json_key(it), "content") && json_kind(json_value(it)) == JSON_KIND_ARRAY)
            write_content(b, json_value(it));
        else
            json_write(b, json_value(it));
    }
    buf_byte(b, '}');
}

static void write_messages(struct buf *b, const struct json *messages) {
    buf_byte(b, '[');
    for (size_t i = 0; i < json_count(messages); i++) {
        if (i > 0)
            buf_byte(b, ',');
        write_message(b, json_at(messages, i));
    }
    buf_byte(b, ']');
}

static bool has_parts(const struct json *messages) {
    for (size_t i = 0; i < json_count(messages); i++)
        if (json_kind(json_get(json_at(messages, i), "content")) == JSON_KIND_ARRAY)
            return true;
    return false;
}

/* The messages with every content a string. *own: NULL, or what the caller frees. */
static int flatten(const struct json **messages, struct json **own, struct error *e) {
    struct buf text = {0};
    *own = NULL;
    if (!has_parts(*messages))
        return 0;
    write_messages(&text, *messages);
    int rc = text.failed ? error_set(e, ERR_NO_MEMORY, "no memory for the messages")
                         : json_parse(own, buf_view(&text), e);
    buf_free(&text);
    *messages = *own;
    return rc;
}

int model_encode_chat(const struct model *m, const struct json *messages, const struct json *tools,
                      struct tokens *out, struct error *e) {
    struct json *own;
    struct rendered r = {0};
    struct conversation said = {.messages = messages, .tools = json_count(tools) > 0 ? tools : NULL};
    if (m->chat == NULL)
        return error_set(e, m->chat_error.code, "%s", m->chat_error.text);
    int rc = flatten(&said.messages, &own, e);
    if (rc == 0)
        rc = template_render(m->chat, m->chat_vars, &said, clock_wall_ns(), &r, e);
    if (rc != 0)
        goto out;
    /* The template may write the BOS itself; a second one would put the model off. */
    struct str bos = tokenizer_piece(m->tokenizer, tokenizer_bos(m->tokenizer), true);
    bool written = bos.n > 0 && r.segments > 0 && r.segment[0].control && str_starts(r.segment[0].text, bos);
    if (tokenizer_add_bos(m->tokenizer) && bos.n > 0 && !written &&
        tokens_push(out, tokenizer_bos(m->tokenizer)) != 0)
        rc = error_set(e, ERR_NO_MEMORY, "no memory for the tokens");
    else
        rc = tokenizer_encode(m->tokenizer, r.segment, r.segments, 0, out, e);
out:
    rendered_free(&r);
    json_free(own);
    return rc;
}
