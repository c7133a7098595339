/* Chat templates: the public face of the interpreter in model/template/, and the one place its errors unwind to. It lies between the
 * gateway, which has a conversation as JSON, and the tokenizer, which wants segments of text that say who wrote them. */
#include "model/template.h"

#include "model/template/inner.h"

#include <stdlib.h>
#include <string.h>

/* setjmp keeps to functions without locals that change after it. */
static int build(struct work *w, struct template *t, struct str source) {
    if (setjmp(w->stop) != 0)
        return w->code;
    template_build(w, t, template_lex(w, source));
    return 0;
}

int template_parse(struct template **out, struct str source, struct error *e) {
    struct template *t = calloc(1, sizeof *t);
    *out = NULL;
    if (t == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for a chat template");
    t->arena.limit = TEMPLATE_MOST_MEMORY;
    struct work w = {
        .arena = &t->arena, .e = e, .steps = TEMPLATE_MOST_STEPS, .most_depth = TEMPLATE_MOST_NESTING};
    int rc = build(&w, t, source);
    if (rc != 0) {
        template_free(t);
        return rc;
    }
    *out = t;
    return 0;
}

void template_free(struct template *t) {
    if (t == NULL)
        return;
    arena_free(&t->arena);
    free(t);
}

/* Segments of equal authorship, in order, pointing into out->text. */
static int cut(struct rendered *out, const struct writer *o, struct error *e) {
    size_t runs = 0;
    for (size_t i = 0; i < o->n; i++)
        runs += i == 0 || (o->mask != NULL && o->mask[i] != o->mask[i - 1]);
    buf_append(&out->text, o->p, o->n);
    out->segment = calloc(runs + 1, sizeof *out->segment);
    if (out->segment == NULL || out->text.failed)
        return error_set(e, ERR_NO_MEMORY, "no memory for the rendered text");
    for (size_t i = 0; i < o->n; i++) {
        if (i == 0 || (o->mask != NULL && o->mask[i] != o->mask[i - 1]))
            out->segment[out->segments++] = (struct segment){.text = {out->text.p + i, 0},
                                                             .control = !(o->mask ? o->mask[i] : o->caller)};
        out->segment[out->segments - 1].text.n++;
    }
    return 0;
}

static int render(struct render *r) {
    if (setjmp(r->w.stop) != 0)
        return r->w.code;
    r->global = work_alloc(&r->w, r->t->symbols, sizeof *r->global);
    for (size_t i = 0; i < r->t->symbols; i++)
        r->global[i].kind = UNSET;
    render_body(r, work_alloc(&r->w, 1, sizeof(struct scope)), r->t->body);
    return 0;
}

int template_render(const struct template *t, const struct json *vars, const struct conversation *said,
                    int64_t now_ns, struct rendered *out, struct error *e) {
    struct arena arena = {.limit = TEMPLATE_MOST_MEMORY};
    struct writer o = {.limit = TEMPLATE_MOST_OUTPUT};
    struct render r = {
        .w = {.arena = &arena, .e = e, .steps = TEMPLATE_MOST_STEPS, .most_depth = TEMPLATE_MOST_DEPTH},
        .t = t,
        .vars = vars,
        .said = said,
        .now_ns = now_ns,
        .out = &o,
    };
    o.w = &r.w;
    *out = (struct rendered){0};
    int rc = render(&r);
    if (rc == 0)
        rc = cut(out, &o, e);
    arena_free(&arena);
    return rc;
}

void rendered_json(struct buf *to, const struct rendered *r) {
    buf_text(to, "{\"text\":");
    json_write_str(to, buf_view(&r->text));
    buf_text(to, ",\"segments\":[");
    for (size_t i = 0; i < r->segments; i++) {
        buf_printf(to, "%s{\"control\":%s,\"text\":", i ? "," : "", r->segment[i].control ? "true" : "false");
        json_write_str(to, r->segment[i].text);
        buf_byte(to, '}');
    }
    buf_text(to, "]}\n");
}

void rendered_free(struct rendered *r) {
    buf_free(&r->text);
    free(r->segment);
    *r = (struct rendered){0};
}
