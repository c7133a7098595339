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
    struct template *chat; /* NULL: the file has none */
};

int model_open(struct model **out, const char *path, struct error *e);
struct model *model_ref(struct model *m);
void model_unref(struct model *m);

/* Render a chat (vars as for template_render, bos_token and eos_token are added here) and encode it. A BOS that the template writes itself is not
 * doubled. Without a template: ERR_UNSUPPORTED. */
int model_encode_chat(const struct model *m, const struct json *messages, const struct json *tools,
                      struct tokens *out, struct error *e);

#endif
