/* unkai tokenize: text to token ids and back, as the server does it. */
#include "cli/cli.h"
#include "model/tokenizer.h"

#include "base/json.h"

#include <stdio.h>

enum { MOST_INPUT = 1 << 30 };

static int print_ids(const struct tokenizer *t, struct str text, bool special, struct error *e) {
    struct tokens tokens = {0};
    struct segment segment = {.text = text, .control = special};
    int rc = tokenizer_encode(t, &segment, 1, special ? TOKENIZER_ADD_SPECIAL : 0, &tokens, e);
    if (rc == 0) {
        putchar('[');
        for (size_t i = 0; i < tokens.n; i++)
            printf("%s%d", i ? ", " : "", tokens.id[i]);
        puts("]");
    }
    tokens_free(&tokens);
    return rc;
}

static int print_text(const struct tokenizer *t, struct str text, bool special, bool as_json,
                      struct error *e) {
    struct tokens tokens = {0};
    struct json *ids = NULL;
    struct buf out = {0}, quoted = {0};
    int rc = json_parse(&ids, text, e);
    if (rc == 0 && json_kind(ids) != JSON_KIND_ARRAY)
        rc = error_set(e, ERR_INVALID, "--decode wants a JSON array of token ids");
    for (size_t i = 0; rc == 0 && i < json_count(ids); i++) {
        const struct json *v = json_at(ids, i);
        if (json_kind(v) != JSON_KIND_INT || json_as_int(v) < 0 ||
            (uint64_t)json_as_int(v) >= tokenizer_vocab(t))
            rc = error_set(e, ERR_INVALID, "element %zu is no token id of this vocabulary (0 to %zu)", i,
                           tokenizer_vocab(t) - 1);
        else if (tokens_push(&tokens, (token_id)json_as_int(v)) != 0)
            rc = error_set(e, ERR_NO_MEMORY, "no memory for the tokens");
    }
    if (rc == 0) {
        tokenizer_decode(t, tokens.id, tokens.n, special, &out);
        if (as_json) {
            json_write_str(&quoted, buf_view(&out));
            buf_byte(&quoted, '\n');
        }
        const struct buf *shown = as_json ? &quoted : &out;
        fwrite(shown->p, 1, shown->n, stdout);
    }
    buf_free(&quoted);
    buf_free(&out);
    json_free(ids);
    tokens_free(&tokens);
    return rc;
}

int cmd_tokenize(int argc, char **argv) {
    int args, rc;
    bool decode = false, special = false, as_json = false;
    char path[4200];
    struct error e = {0};
    struct gguf *g = NULL;
    struct tokenizer *t = NULL;
    struct buf input = {0};
    const struct option options[] = {
        {"decode", OPTION_FLAG, &decode, NULL,
         "the other way: a JSON array of ids on standard input to text"},
        {"special", OPTION_FLAG, &special, NULL,
         "names of control tokens are those tokens; add BOS and EOS as the model does"},
        {"json", OPTION_FLAG, &as_json, NULL,
         "with --decode: the text as a JSON string (ids are JSON anyway)"},
        {NULL},
    };
    rc = cli_options(
        argc, argv, &args, options, "MODEL",
        "Reads text from standard input and prints the ids of its tokens as a JSON array. MODEL may be\n"
        "a file that holds nothing but a vocabulary.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args != 1) {
        fprintf(stderr, "unkai tokenize: wants one model; see unkai tokenize --help\n");
        return EXIT_USAGE;
    }
    if ((rc = cli_model_path(path, sizeof path, argv[1], &e)) == 0 && (rc = gguf_open(&g, path, &e)) == 0 &&
        (rc = tokenizer_create(&t, g, &e)) == 0 && (rc = cli_read(&input, "-", MOST_INPUT, &e)) == 0)
        rc = decode ? print_text(t, buf_view(&input), special, as_json, &e)
                    : print_ids(t, buf_view(&input), special, &e);
    buf_free(&input);
    tokenizer_free(t);
    if (g != NULL)
        gguf_close(g);
    return rc == 0 ? EXIT_OK : cli_fail("tokenize", &e);
}
