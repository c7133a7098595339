/* Chat templates: an interpreter for the Jinja subset that models' templates use, with budgets (steps, bytes, depth), since templates come with model
 * files and are hostile. Output equals Python's jinja2 as Hugging Face's transformers sets it up (trim_blocks, lstrip_blocks,
 * raise_exception, strftime_now, tojson without HTML escapes, loop controls, generation tag ignored). */
#ifndef MODEL_TEMPLATE_H
#define MODEL_TEMPLATE_H

#include "base/buf.h"
#include "base/error.h"
#include "base/json.h"
#include "model/tokenizer.h"

struct template; /* parsed once, immutable, used by any number of threads */

int template_parse(struct template **out, struct str source, struct error *e);
void template_free(struct template *t);

/* What a rendering gives: the text, and for each run of it who wrote it. Strings that came from `vars` members named in the caller's data
 * (messages, tools, documents) stay the caller's through concatenation, slicing, filters and so on; all else is the template's. */
struct rendered {
    struct buf text;
    struct segment
        *segment; /* covering text in order; segment.control is true for the template's own characters */
    size_t segments;
};

/* What is said: arrays, or NULL. */
struct conversation {
    const struct json *messages, *tools;
};

/* vars: a JSON object: messages, tools, add_generation_prompt, bos_token, eos_token and any other variable. said: NULL, or what stands in for the messages and tools
 * of vars. Strings in "messages", "tools" and "documents" are the caller's, others (bos_token) the operator's. now_ns: the wall clock for strftime_now.
 * A raise_exception in the template is ERR_INVALID with its text. *out is freed with rendered_free, also after an error. */
int template_render(const struct template *t, const struct json *vars, const struct conversation *said,
                    int64_t now_ns, struct rendered *out, struct error *e);
void rendered_free(struct rendered *r);
void rendered_json(struct buf *to, const struct rendered *r); /* {"text", "segments"} and the end of a line */

#endif
