/* Checking of OpenAI's request bodies; see ask.h. Everything here comes from strangers: each number has a range in the one table, each list a
 * length, and what is understood but not offered is refused by name rather than ignored. */
#include "gateway/ask.h"

#include <stdio.h>
#include <string.h>

/* ---- numbers and switches ---------------------------------------------------------------------------------------- */

struct number_field {
    const char *name;
    double least, most, otherwise;
    bool whole, above; /* above: the least itself is too little */
};

enum number {
    TEMPERATURE,
    TOP_P,
    TOP_K,
    MIN_P,
    PRESENCE_PENALTY,
    FREQUENCY_PENALTY,
    REPETITION_PENALTY,
    N,
    BEST_OF,
    MAX_TOKENS,
    MAX_COMPLETION_TOKENS,
    TOP_LOGPROBS,
    NUMBERS
};

enum { NOT_GIVEN = -1 };

static const struct number_field number_field[NUMBERS] = {
    [TEMPERATURE] = {"temperature", 0, 2, 1, false},
    [TOP_P] = {"top_p", 0, 1, 1, false, true},
    [TOP_K] = {"top_k", -1, 1000000, 0, true},
    [MIN_P] = {"min_p", 0, 1, 0, false},
    [PRESENCE_PENALTY] = {"presence_penalty", -2, 2, 0, false},
    [FREQUENCY_PENALTY] = {"frequency_penalty", -2, 2, 0, false},
    [REPETITION_PENALTY] = {"repetition_penalty", 0.01, 10, 1, false},
    [N] = {"n", 1, ASK_MAX_CHOICES, 1, true},
    [BEST_OF] = {"best_of", 1, ASK_MAX_CHOICES, 0, true},
    [MAX_TOKENS] = {"max_tokens", 0, 1 << 30, NOT_GIVEN, true},
    [MAX_COMPLETION_TOKENS] = {"max_completion_tokens", 0, 1 << 30, NOT_GIVEN, true},
    [TOP_LOGPROBS] = {"top_logprobs", 0, ASK_MAX_LOGPROBS, 0, true},
};

static bool is_null(const struct json *v) {
    return json_kind(v) == JSON_KIND_NULL;
}

static int read_number(const struct json *root, const struct number_field *f, double *out, struct error *e) {
    const struct json *v = json_get(root, f->name);
    *out = f->otherwise;
    if (is_null(v))
        return 0;
    if (f->whole ? json_kind(v) != JSON_KIND_INT : !json_numeric(v))
        return error_param(e, ERR_INVALID, f->name, "'%s' must be %s", f->name,
                           f->whole ? "an integer" : "a number");
    double x = json_as_number(v);
    if (f->above && x <= f->least)
        return error_param(e, ERR_INVALID, f->name, "'%s' must be greater than %.10g", f->name, f->least);
    if (!(x >= f->least && x <= f->most))
        return error_param(e, ERR_INVALID, f->name, "'%s' must be from %.10g to %.10g", f->name, f->least,
                           f->most);
    *out = x;
    return 0;
}

static int check_bool(const struct json *v, const char *name, bool *out, struct error *e) {
    *out = json_as_bool(v);
    if (is_null(v) || json_kind(v) == JSON_KIND_TRUE || json_kind(v) == JSON_KIND_FALSE)
        return 0;
    return error_param(e, ERR_INVALID, name, "'%s' must be true or false", name);
}

static int read_bool(const struct json *object, const char *name, bool *out, struct error *e) {
    return check_bool(json_get(object, name), name, out, e);
}

/* Either name. An answer of no tokens makes sense where the prompt comes back, with its logprobs: so do evaluations ask. */
static int set_max_tokens(struct ask *r, double plain, double completion, struct error *e) {
    double given = completion >= 0 ? completion : plain;
    if (plain >= 0 && completion >= 0 && plain != completion)
        return error_param(e, ERR_INVALID, "max_tokens",
                           "give 'max_tokens' or 'max_completion_tokens', not both");
    r->max_tokens_name = number_field[completion >= 0 ? MAX_COMPLETION_TOKENS : MAX_TOKENS].name;
    if (given == 0 && !r->echo)
        return error_param(e, ERR_INVALID, r->max_tokens_name, "'%s' must be at least 1", r->max_tokens_name);
    if (given >= 0)
        r->max_tokens = (uint32_t)given;
    else
        r->max_tokens = r->chat ? 0 : 16; /* as OpenAI's older endpoint */
    return 0;
}

static int read_numbers(struct ask *r, struct error *e) {
    double x[NUMBERS];
    for (int i = 0; i < NUMBERS; i++) {
        int rc = read_number(r->root, &number_field[i], &x[i], e);
        if (rc != 0)
            return rc;
    }
    r->sampling.temperature = (float)x[TEMPERATURE];
    r->sampling.top_p = (float)x[TOP_P];
    r->sampling.top_k = (int32_t)x[TOP_K];
    r->sampling.min_p = (float)x[MIN_P];
    r->sampling.presence_penalty = (float)x[PRESENCE_PENALTY];
    r->sampling.frequency_penalty = (float)x[FREQUENCY_PENALTY];
    r->sampling.repetition_penalty = (float)x[REPETITION_PENALTY];
    r->n = (uint32_t)x[N];
    if (x[BEST_OF] != 0 && x[BEST_OF] != x[N])
        return error_param(e, ERR_UNSUPPORTED, "best_of", "'best_of' other than 'n' is not supported");
    r->top_logprobs = (uint32_t)x[TOP_LOGPROBS];
    const struct json *seed = json_get(r->root, "seed");
    if (!is_null(seed) && json_kind(seed) != JSON_KIND_INT)
        return error_param(e, ERR_INVALID, "seed", "'seed' must be an integer");
    r->seeded = !is_null(seed);
    r->sampling.seed = (uint64_t)json_as_int(seed);
    return set_max_tokens(r, x[MAX_TOKENS], x[MAX_COMPLETION_TOKENS], e);
}

static const struct number_field logprobs_field = {"logprobs", 0, ASK_MAX_LOGPROBS, NOT_GIVEN, true};

static int read_logprobs(struct ask *r, struct error *e) {
    if (r->chat) {
        int rc = read_bool(r->root, "logprobs", &r->logprobs, e);
        if (rc == 0 && r->top_logprobs > 0 && !r->logprobs)
            rc = error_param(e, ERR_INVALID, "top_logprobs", "'top_logprobs' needs 'logprobs' to be true");
        return rc;
    }
    double n = 0;
    int rc = read_number(r->root, &logprobs_field, &n, e);
    r->logprobs = n >= 0;
    r->top_logprobs = r->logprobs ? (uint32_t)n : 0;
    return rc;
}

static int read_switches(struct ask *r, struct error *e) {
    const struct json *options = json_get(r->root, "stream_options");
    int rc = read_bool(r->root, "stream", &r->stream, e);
    if (rc == 0)
        rc = read_bool(r->root, "ignore_eos", &r->ignore_eos, e);
    if (rc == 0 && !r->chat)
        rc = read_bool(r->root, "echo", &r->echo, e);
    if (rc != 0 || is_null(options))
        return rc;
    if (json_kind(options) != JSON_KIND_OBJECT)
        return error_param(e, ERR_INVALID, "stream_options", "'stream_options' must be an object");
    if (!r->stream)
        return error_param(e, ERR_INVALID, "stream_options", "'stream_options' needs 'stream' to be true");
    return check_bool(json_get(options, "include_usage"), "stream_options.include_usage", &r->include_usage,
                      e);
}

/* ---- lists -------------------------------------------------------------------------------------------------------- */

static int read_stop_one(struct ask *r, const struct json *v, struct error *e) {
    struct str s = json_as_str(v);
    if (json_kind(v) != JSON_KIND_STRING || s.n == 0 || s.n > ASK_MAX_STOP_BYTES)
        return error_param(e, ERR_INVALID, "stop",
                           "'stop' must be a string, or a list of strings, of 1 to %d bytes",
                           ASK_MAX_STOP_BYTES);
    r->stop[r->stops++] = s;
    return 0;
}

static int read_stop(struct ask *r, struct error *e) {
    const struct json *v = json_get(r->root, "stop");
    if (is_null(v))
        return 0;
    if (json_kind(v) != JSON_KIND_ARRAY)
        return read_stop_one(r, v, e);
    if (json_count(v) > ASK_MAX_STOPS)
        return error_param(e, ERR_INVALID, "stop", "'stop' may hold %d strings at most", ASK_MAX_STOPS);
    int rc = 0;
    for (size_t i = 0; i < json_count(v) && rc == 0; i++)
        rc = read_stop_one(r, json_at(v, i), e);
    return rc;
}

/* A token id as a decimal number without leading zeros, so that no id can be named twice. */
static bool read_id(struct str key, int32_t *out) {
    int64_t x = 0;
    if (key.n == 0 || key.n > 9 || (key.p[0] == '0' && key.n > 1))
        return false;
    for (size_t i = 0; i < key.n; i++) {
        if (key.p[i] < '0' || key.p[i] > '9')
            return false;
        x = 10 * x + (key.p[i] - '0');
    }
    *out = (int32_t)x;
    return true;
}

static int read_biases(struct ask *r, struct error *e) {
    const struct json *v = json_get(r->root, "logit_bias");
    if (is_null(v))
        return 0;
    if (json_kind(v) != JSON_KIND_OBJECT)
        return error_param(e, ERR_INVALID, "logit_bias", "'logit_bias' must be an object");
    if (json_count(v) > ASK_MAX_BIASES)
        return error_param(e, ERR_INVALID, "logit_bias", "'logit_bias' may hold %d tokens at most",
                           ASK_MAX_BIASES);
    struct logit_bias *bias = arena_array(&r->arena, json_count(v) + 1, sizeof *bias);
    if (bias == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the request");
    for (void *it = json_first(v); it != NULL; it = json_next(v, it)) {
        const struct json *x = json_value(it);
        if (!read_id(json_key(it), &bias[r->sampling.biases].id))
            return error_param(e, ERR_INVALID, "logit_bias", "'logit_bias' wants token ids as its keys");
        if (!json_numeric(x) || !(json_as_number(x) >= -100 && json_as_number(x) <= 100))
            return error_param(e, ERR_INVALID, "logit_bias", "'logit_bias' wants numbers from -100 to 100");
        bias[r->sampling.biases++].bias = (float)json_as_number(x);
    }
    r->sampling.bias = bias;
    return 0;
}

/* ---- what is asked ------------------------------------------------------------------------------------------------ */

/* `field`: of message i, or "" for all of it. */
static int bad_message(struct error *e, enum err code, size_t i, const char *field, const char *why) {
    char where[64];
    snprintf(where, sizeof where, "messages[%zu]%s", i, field);
    return error_param(e, code, where, "'%s' %s", where, why);
}

static int check_parts(const struct json *parts, size_t message, struct error *e) {
    if (json_count(parts) == 0)
        return bad_message(e, ERR_INVALID, message, ".content", "has no parts");
    for (size_t i = 0; i < json_count(parts); i++) {
        const struct json *part = json_at(parts, i), *kind = json_get(part, "type");
        if (json_kind(kind) != JSON_KIND_STRING)
            return bad_message(e, ERR_INVALID, message, ".content",
                               "must be a string or a list of parts with a 'type'");
        if (!str_is(json_as_str(kind), "text"))
            return bad_message(e, ERR_UNSUPPORTED, message, ".content",
                               "holds a part that is not text; only text is supported");
        if (json_kind(json_get(part, "text")) != JSON_KIND_STRING)
            return bad_message(e, ERR_INVALID, message, ".content", "holds a text part without 'text'");
    }
    return 0;
}

static int check_message(const struct json *m, size_t i, struct error *e) {
    static const char *const known[] = {"system", "developer", "user", "assistant"};
    if (json_kind(m) != JSON_KIND_OBJECT)
        return bad_message(e, ERR_INVALID, i, "", "must be an object");
    const struct json *content = json_get(m, "content");
    struct str role = json_as_str(json_get(m, "role"));
    bool right = false;
    for (size_t k = 0; k < sizeof known / sizeof *known; k++)
        right = right || str_is(role, known[k]);
    if (str_is(role, "tool") || str_is(role, "function"))
        return bad_message(e, ERR_UNSUPPORTED, i, ".role", "means tools, which are not supported yet");
    if (json_count(json_get(m, "tool_calls")) > 0)
        return bad_message(e, ERR_UNSUPPORTED, i, ".tool_calls", "means tools, which are not supported yet");
    if (!right)
        return bad_message(e, ERR_INVALID, i, ".role", "must be system, developer, user or assistant");
    if (json_kind(content) == JSON_KIND_STRING)
        return 0;
    if (json_kind(content) == JSON_KIND_ARRAY)
        return check_parts(content, i, e);
    return bad_message(e, ERR_INVALID, i, ".content", "must be a string or a list of parts");
}

static int read_messages(struct ask *r, struct error *e) {
    r->messages = json_get(r->root, "messages");
    r->prompts = 1;
    if (json_kind(r->messages) != JSON_KIND_ARRAY || json_count(r->messages) == 0)
        return error_param(e, ERR_INVALID, "messages", "'messages' must be a list with at least one message");
    if (json_count(r->messages) > ASK_MAX_MESSAGES)
        return error_param(e, ERR_INVALID, "messages", "'messages' may hold %d messages at most",
                           ASK_MAX_MESSAGES);
    int rc = 0;
    for (size_t i = 0; i < json_count(r->messages) && rc == 0; i++)
        rc = check_message(json_at(r->messages, i), i, e);
    return rc;
}

static bool ids_ok(const struct json *v) {
    for (size_t i = 0; i < json_count(v); i++) {
        const struct json *id = json_at(v, i);
        if (json_kind(id) != JSON_KIND_INT || json_as_int(id) < 0 || json_as_int(id) > INT32_MAX)
            return false;
    }
    return json_count(v) > 0;
}

static bool prompt_ok(const struct json *v, struct ask_prompt *out) {
    if (json_kind(v) == JSON_KIND_STRING) {
        *out = (struct ask_prompt){.text = json_as_str(v)};
        return true;
    }
    *out = (struct ask_prompt){.ids = v};
    return json_kind(v) == JSON_KIND_ARRAY && ids_ok(v);
}

/* A string, a list of strings, a list of ids, or a list of lists of ids. */
static int read_prompt(struct ask *r, struct error *e) {
    const struct json *v = json_get(r->root, "prompt");
    bool many = json_kind(v) == JSON_KIND_ARRAY && json_kind(json_at(v, 0)) != JSON_KIND_INT;
    r->prompts = many ? json_count(v) : 1;
    if (r->prompts > ASK_MAX_PROMPTS)
        return error_param(e, ERR_INVALID, "prompt", "'prompt' may hold %d prompts at most", ASK_MAX_PROMPTS);
    r->prompt = arena_array(&r->arena, r->prompts + 1, sizeof *r->prompt);
    if (r->prompt == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the request");
    bool right = r->prompts > 0;
    for (size_t i = 0; i < r->prompts && right; i++)
        right = prompt_ok(many ? json_at(v, i) : v, &r->prompt[i]);
    if (!right)
        return error_param(
            e, ERR_INVALID, "prompt",
            "'prompt' must be a string, a list of strings, a list of token ids or a list of lists of "
            "token ids");
    return 0;
}

/* Understood, but not offered: ignoring these would answer another question than was asked. */
static int check_unsupported(const struct ask *r, struct error *e) {
    const struct json *format = json_get(r->root, "response_format"), *user = json_get(r->root, "user");
    static const char *const lists[] = {"tools", "functions", "suffix"};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
        const struct json *v = json_get(r->root, lists[i]);
        bool empty = is_null(v) || (json_kind(v) == JSON_KIND_ARRAY && json_count(v) == 0) ||
                     (json_kind(v) == JSON_KIND_STRING && json_as_str(v).n == 0);
        if (!empty)
            return error_param(e, ERR_UNSUPPORTED, lists[i], "'%s' is not supported yet", lists[i]);
    }
    if (!is_null(format) && !str_is(json_as_str(json_get(format, "type")), "text"))
        return error_param(e, ERR_UNSUPPORTED, "response_format",
                           "'response_format' other than {\"type\": \"text\"} is not supported yet");
    if (!is_null(user) && json_kind(user) != JSON_KIND_STRING)
        return error_param(e, ERR_INVALID, "user", "'user' must be a string");
    return 0;
}

int openai_parse(struct ask *r, bool chat, struct str body, struct error *e) {
    *r = (struct ask){.chat = chat};
    int rc = json_parse(&r->root, body, e);
    if (rc != 0)
        return rc;
    if (json_kind(r->root) != JSON_KIND_OBJECT)
        return error_set(e, ERR_INVALID, "the body must be a JSON object");
    r->model = json_as_str(json_get(r->root, "model"));
    if (r->model.n == 0 || r->model.n > 256)
        return error_param(e, ERR_INVALID, "model", "'model' must name a model");
    rc = chat ? read_messages(r, e) : read_prompt(r, e);
    if (rc == 0)
        rc = read_switches(r, e);
    if (rc == 0)
        rc = read_numbers(r, e);
    if (rc == 0)
        rc = read_logprobs(r, e);
    if (rc == 0)
        rc = read_stop(r, e);
    if (rc == 0)
        rc = read_biases(r, e);
    if (rc == 0)
        rc = check_unsupported(r, e);
    return rc;
}

void ask_free(struct ask *r) {
    json_free(r->root);
    arena_free(&r->arena);
    r->root = NULL;
}

/* ---- the description ---------------------------------------------------------------------------------------------- */

static void write_number(struct buf *out, const struct number_field *f, double least) {
    buf_printf(out, ",\"%s\":{\"type\":[\"%s\",\"null\"],\"%s\":", f->name, f->whole ? "integer" : "number",
               f->above ? "exclusiveMinimum" : "minimum");
    json_write_number(out, least);
    buf_text(out, ",\"maximum\":");
    json_write_number(out, f->most);
    if (f->otherwise >= f->least) {
        buf_text(out, ",\"default\":");
        json_write_number(out, f->otherwise);
    }
    buf_byte(out, '}');
}

static void write_switch(struct buf *out, const char *name) {
    buf_printf(out, ",\"%s\":{\"type\":[\"boolean\",\"null\"],\"default\":false}", name);
}

/* What is asked: messages, or a prompt. */
static void write_asked(struct buf *out, bool chat) {
    if (chat) {
        buf_printf(out,
                   ",\"messages\":{\"type\":\"array\",\"minItems\":1,\"maxItems\":%d,\"items\":{\"$ref\":"
                   "\"#/components/schemas/ChatMessage\"}}",
                   ASK_MAX_MESSAGES);
        return;
    }
    const char *ids = "{\"type\":\"array\",\"minItems\":1,\"items\":{\"type\":\"integer\",\"minimum\":0}}",
               *list = "{\"type\":\"array\",\"minItems\":1,\"maxItems\":%d,\"items\":";
    buf_printf(out, ",\"prompt\":{\"anyOf\":[{\"type\":\"string\",\"minLength\":1},%s,", ids);
    buf_printf(out, list, ASK_MAX_PROMPTS);
    buf_text(out, "{\"type\":\"string\",\"minLength\":1}},");
    buf_printf(out, list, ASK_MAX_PROMPTS);
    buf_printf(out, "%s}]}", ids);
}

static void write_lists(struct buf *out) {
    buf_printf(
        out,
        ",\"stop\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"string\",\"minLength\":1,\"maxLength\":%d},"
        "{\"type\":\"array\",\"maxItems\":%d,\"items\":{\"type\":\"string\",\"minLength\":1,"
        "\"maxLength\":%d}}]}",
        ASK_MAX_STOP_BYTES, ASK_MAX_STOPS, ASK_MAX_STOP_BYTES);
    buf_printf(
        out,
        ",\"logit_bias\":{\"type\":[\"object\",\"null\"],\"maxProperties\":%d,\"additionalProperties\":false,"
        "\"patternProperties\":{\"^(0|[1-9][0-9]{0,8})$\":{\"type\":\"number\",\"minimum\":-100,"
        "\"maximum\":100}}}",
        ASK_MAX_BIASES);
}

/* Fields that are not here are ignored; those of check_unsupported stand in docs/api.md. */
static void write_schema(struct buf *out, bool chat) {
    buf_printf(out,
               ",\"%sCompletionRequest\":{\"type\":\"object\",\"properties\":{\"model\":{\"type\":\"string\","
               "\"minLength\":1,\"maxLength\":256}",
               chat ? "Chat" : "");
    write_asked(out, chat);
    for (int i = 0; i < NUMBERS; i++) { /* no tokens: with an echo alone, which a chat has not */
        bool echoes = i == MAX_TOKENS || i == MAX_COMPLETION_TOKENS;
        write_number(out, &number_field[i], chat && echoes ? 1 : number_field[i].least);
    }
    write_lists(out);
    if (chat)
        write_switch(out, "logprobs");
    else
        write_number(out, &logprobs_field, logprobs_field.least);
    write_switch(out, "stream");
    write_switch(out, "ignore_eos");
    if (!chat)
        write_switch(out, "echo");
    buf_printf(
        out,
        ",\"seed\":{\"type\":[\"integer\",\"null\"],\"minimum\":-9223372036854775808,\"maximum\":"
        "9223372036854775807},\"user\":{\"type\":[\"string\",\"null\"]},"
        "\"stream_options\":{\"type\":[\"object\",\"null\"],\"properties\":{\"include_usage\":{\"type\":["
        "\"boolean\",\"null\"]}}}},\"required\":[\"model\",\"%s\"]}",
        chat ? "messages" : "prompt");
}

void openai_write_schemas(struct buf *out) {
    write_schema(out, true);
    write_schema(out, false);
}
