/* A model as data: the file, its traits, tensors, tokenizer and chat template together. Immutable; reference-counted, because requests outlive
 * an unload. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "model/arch.h"
#include "model/gguf.h"
#include "model/template.h"
#include "model/tokenizer.h"

struct model {
    struct gguf *gguf;
    struct traits traits;
    struct model_tensors tensors;
    struct tokenizer *tokenizer;
    struct template *chat; /* NULL: the file has none that can be used, for the reason chat_error tells */
    struct error chat_error;
    struct json *chat_vars; /* the template's variables that are the same in every chat */
};

int model_open(struct model **out, const char *path, struct error *e);
void model_close(struct model *m);

/* Render a chat with the generation prompt and encode it, appending to *out. messages: an array of objects, as OpenAI's API has them (content a string or a list of
 * text parts); tools: an array or NULL. The caller's strings never become control tokens. A BOS that the template writes itself is not doubled.
 * Without a usable template: ERR_UNSUPPORTED or what the parser found; a template's own raise_exception: ERR_INVALID. */
int model_encode_chat(const struct model *m, const struct json *messages, const struct json *tools,
                      struct tokens *out, struct error *e);

#endif
