/* unkai template: renders a chat template as a request would be, to see what a model is really told. A Jinja file, or a model file's own
 * template; the conversation comes as JSON on standard input. */
#include "cli/cli.h"

#include "base/clock.h"
#include "base/json.h"
#include "model/gguf.h"
#include "model/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TEMPLATE = 1 << 24, MOST_VARIABLES = 1 << 28 };

/* "bos_token": "<s>", from the vocabulary, unless the caller says what it is. */
static void add_token(struct buf *to, const struct json *vars, const struct gguf *g, const char *name,
                      const char *key) {
    uint64_t id;
    struct gguf_array tokens;
    if (json_get(vars, name) != NULL || !gguf_u64(g, key, &id) ||
        !gguf_array(g, "tokenizer.ggml.tokens", &tokens) || id >= tokens.count)
        return;
    json_write_text(to, name);
    buf_byte(to, ':');
    json_write_str(to, gguf_array_str(&tokens, id));
    buf_byte(to, ',');
}

/* The variables with what the model file knows besides them. */
static int with_tokens(struct json **vars, const struct gguf *g, struct error *e) {
    struct buf text = {0}, own = {0};
    struct json *both = NULL;
    buf_byte(&text, '{');
    add_token(&text, *vars, g, "bos_token", "tokenizer.ggml.bos_token_id");
    add_token(&text, *vars, g, "eos_token", "tokenizer.ggml.eos_token_id");
    json_write(&own, *vars);
    if (own.n > 2)
        buf_append(&text, own.p + 1, own.n - 1);
    else if (text.n > 1)
        text.p[text.n - 1] = '}';
    else
        buf_byte(&text, '}');
    int rc = text.failed || own.failed ? error_set(e, ERR_NO_MEMORY, "no memory for the variables")
                                       : json_parse(&both, buf_view(&text), e);
    buf_free(&text);
    buf_free(&own);
    if (rc == 0) {
        json_free(*vars);
        *vars = both;
    }
    return rc;
}

/* A file that does not begin as a model does is a Jinja file; what is no file may be the name of a model. */
static int read_template(struct buf *source, struct gguf **g, const char *path, struct error *e) {
    char model[4096], magic[4] = "";
    struct str text;
    FILE *f = fopen(path, "rb");
    if (f != NULL) {
        bool is_model = fread(magic, 1, sizeof magic, f) == sizeof magic && memcmp(magic, "GGUF", 4) == 0;
        fclose(f);
        if (!is_model)
            return cli_read(source, path, MOST_TEMPLATE, e);
    }
    int rc = f != NULL ? 0 : cli_model_path(model, sizeof model, path, e);
    if (rc == 0)
        rc = gguf_open(g, f != NULL ? path : model, e);
    if (rc == 0 && !gguf_str(*g, "tokenizer.chat_template", &text))
        rc = error_set(e, ERR_NOT_FOUND, "%.200s has no chat template", path);
    if (rc == 0)
        buf_str(source, text);
    return rc;
}

int cmd_template(int argc, char **argv) {
    bool json = false;
    int args;
    const struct option options[] = {{"json", OPTION_FLAG, &json, NULL,
                                      "print {\"text\", \"segments\"}: which characters are the template's"},
                                     {NULL, OPTION_FLAG, NULL, NULL, NULL}};
    int rc = cli_options(
        argc, argv, &args, options, "FILE",
        "Renders the chat template FILE (a Jinja file, or a GGUF model with one inside) with the JSON\n"
        "object on standard input: messages, tools, add_generation_prompt and any other variable.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args != 1) {
        fprintf(stderr, "unkai template: give one file; see unkai template --help\n");
        return EXIT_USAGE;
    }
    struct buf source = {0}, input = {0};
    struct gguf *g = NULL;
    struct json *vars = NULL;
    struct template *t = NULL;
    struct rendered r = {0};
    struct buf out = {0};
    struct error e;
    if ((rc = read_template(&source, &g, argv[1], &e)) != 0 ||
        (rc = template_parse(&t, buf_view(&source), &e)) != 0 ||
        (rc = cli_read(&input, "-", MOST_VARIABLES, &e)) != 0 ||
        (rc = json_parse(&vars, buf_view(&input), &e)) != 0)
        goto out;
    if (json_kind(vars) != JSON_KIND_OBJECT) {
        rc = error_set(&e, ERR_INVALID, "standard input must hold a JSON object with messages");
        goto out;
    }
    if (g != NULL && (rc = with_tokens(&vars, g, &e)) != 0)
        goto out;
    if ((rc = template_render(t, vars, NULL, clock_wall_ns(), &r, &e)) != 0)
        goto out;
    if (json)
        rendered_json(&out, &r);
    fwrite(json ? out.p : r.text.p, 1, json ? out.n : r.text.n, stdout);
out:
    buf_free(&out);
    rendered_free(&r);
    template_free(t);
    json_free(vars);
    buf_free(&input);
    buf_free(&source);
    gguf_close(g);
    return rc == 0 ? EXIT_OK : cli_fail(argv[0], &e);
}
