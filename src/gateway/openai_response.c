/* Answers in OpenAI's words: chunks of server-sent events and whole bodies, for chat and for completions. A request's last station but the socket. */
#include "gateway/completion.h"

#include "base/json.h"
#include "base/utf8.h"

static const char *reason_name(const struct choice *ch) {
    return ch->reason == FINISH_LENGTH ? "length" : "stop";
}

static void write_head(const struct completion *c, struct buf *out, const char *object) {
    buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", c->id, object,
               (long long)c->created);
    json_write_str(out, c->ask.model);
    buf_text(out, ",\"system_fingerprint\":\"unkai-" UNKAI_VERSION "\"");
}

static void write_usage(struct completion *c) {
    uint64_t tokens = 0, total = c->prompt_tokens;
    for (uint32_t i = 0; i < c->choices; i++)
        tokens += c->choice[i].tokens;
    total += tokens;
    buf_printf(&c->out,
               "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
               "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
               (unsigned long long)c->prompt_tokens, (unsigned long long)tokens, (unsigned long long)total,
               (unsigned long long)completion_cached(c));
}

/* Every chunk names the same answer: that is written once, and copied for each token. */
static void begin_chunk(struct completion *c) {
    if (c->head.n == 0) {
        buf_text(&c->head, "data: ");
        write_head(c, &c->head, c->ask.chat ? "chat.completion.chunk" : "text_completion");
        buf_text(&c->head, ",\"choices\":[");
        c->out.failed |= c->head.failed;
    }
    buf_str(&c->out, buf_view(&c->head));
}

/* The chunk's one choice, up to what it holds. */
static void begin_choice(struct choice *ch) {
    struct buf *out = &ch->completion->out;
    begin_chunk(ch->completion);
    buf_text(out, "{\"index\":");
    buf_number(out, ch->index);
}

static void end_chunk(struct completion *c) {
    buf_text(&c->out, c->ask.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

static void write_end(struct completion *c) {
    if (c->ask.include_usage) {
        begin_chunk(c);
        buf_text(&c->out, "],");
        write_usage(c);
        buf_text(&c->out, "}\n\n");
    }
    buf_text(&c->out, "data: [DONE]\n\n");
}

static void write_error(struct completion *c, const struct error *e) {
    buf_text(&c->out, "data: ");
    error_write_json(&c->out, e);
    buf_text(&c->out, "\n\n");
}

/* The text of a whole answer, piece by piece, so that each piece's bytes bring its own tokens. */
static void write_pieces(struct choice *ch) {
    struct completion *c = ch->completion;
    size_t from = 0;
    buf_byte(&c->out, '"');
    for (size_t i = 0; i < ch->pieces; i++) {
        struct piece p = ch->piece[i];
        json_write_inside(&c->out, (struct str){ch->text.p + from, p.end - from});
        completion_emit(c, ch, p.tokens);
        from = p.end;
    }
    buf_byte(&c->out, '"');
}

static void finish_body(struct completion *c) {
    buf_text(&c->out, "],");
    write_usage(c);
    buf_text(&c->out, "}\n");
    completion_emit(c, &c->choice[0], 0);
}

/* ---- chat --------------------------------------------------------------------------------------------------------- */

static struct str piece_of(const struct choice *ch, token_id id) {
    return tokenizer_piece(ch->completion->model->tokenizer, id, true);
}

static void write_chat_token(struct buf *out, const struct choice *ch, token_id id, float logprob) {
    struct str s = piece_of(ch, id);
    buf_text(out, "{\"token\":");
    json_write_str(out, s);
    buf_text(out, ",\"logprob\":");
    json_write_number(out, (double)logprob);
    buf_text(out, ",\"bytes\":[");
    for (size_t i = 0; i < s.n; i++)
        buf_printf(out, i ? ",%u" : "%u", (unsigned char)s.p[i]);
    buf_byte(out, ']');
}

static void see_chat(struct choice *ch, const struct token_logprob *p, uint32_t n, bool prompt) {
    struct buf *out = &ch->probs.tokens;
    for (uint32_t i = 0; i < n && !prompt; i++) {
        if (out->n > 0)
            buf_byte(out, ',');
        write_chat_token(out, ch, p[i].id, p[i].logprob);
        buf_text(out, ",\"top_logprobs\":[");
        for (uint32_t k = 0; k < p[i].tops; k++) {
            if (k > 0)
                buf_byte(out, ',');
            write_chat_token(out, ch, p[i].top[k].id, p[i].top[k].logprob);
            buf_byte(out, '}');
        }
        buf_text(out, "]}");
    }
}

static void write_chat_probs(struct choice *ch) {
    struct buf *out = &ch->completion->out;
    buf_text(out, ",\"logprobs\":");
    if (ch->completion->ask.logprobs) {
        buf_text(out, "{\"content\":[");
        buf_str(out, buf_view(&ch->probs.tokens));
        buf_text(out, "],\"refusal\":null}");
    } else {
        buf_text(out, "null");
    }
    buf_clear(&ch->probs.tokens);
}

static void chat_text(struct choice *ch) {
    struct completion *c = ch->completion;
    if (!ch->begun) {
        begin_choice(ch);
        buf_text(&c->out, ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                          "\"finish_reason\":null}");
        end_chunk(c);
        ch->begun = true;
    }
    if (ch->text.n == 0 && ch->probs.tokens.n == 0)
        return;
    begin_choice(ch);
    buf_text(&c->out, ",\"delta\":{\"content\":");
    json_write_str(&c->out, buf_view(&ch->text));
    buf_byte(&c->out, '}');
    write_chat_probs(ch);
    buf_text(&c->out, ",\"finish_reason\":null}");
    end_chunk(c);
    buf_clear(&ch->text);
}

static void chat_finish(struct choice *ch) {
    struct completion *c = ch->completion;
    chat_text(ch);
    begin_choice(ch);
    buf_printf(&c->out, ",\"delta\":{},\"logprobs\":null,\"finish_reason\":\"%s\"}", reason_name(ch));
    end_chunk(c);
}

static void chat_body(struct completion *c) {
    write_head(c, &c->out, "chat.completion");
    buf_text(&c->out, ",\"choices\":[");
    for (uint32_t i = 0; i < c->choices; i++) {
        struct choice *ch = &c->choice[i];
        buf_printf(&c->out, "%s{\"index\":%u,\"message\":{\"role\":\"assistant\",\"content\":", i ? "," : "",
                   ch->index);
        write_pieces(ch);
        buf_text(&c->out, ",\"refusal\":null}");
        write_chat_probs(ch);
        buf_printf(&c->out, ",\"finish_reason\":\"%s\"}", reason_name(ch));
        completion_emit(c, ch, ch->tokens - ch->emitted);
    }
    finish_body(c);
}

static int parse_chat(struct ask *ask, struct str body, struct error *e) {
    return openai_parse(ask, true, body, e);
}

const struct dialect openai_chat = {
    .id_prefix = "chatcmpl-",
    .parse = parse_chat,
    .write_text = chat_text,
    .write_finish = chat_finish,
    .write_end = write_end,
    .write_error = write_error,
    .write_body = chat_body,
    .see_logprobs = see_chat,
};

/* ---- completions -------------------------------------------------------------------------------------------------- */

/* A token that is no whole text by itself is told apart by its bytes, as OpenAI does. */
static void write_token_name(struct buf *out, struct str s) {
    struct buf name = {0};
    if (!utf8_valid(s)) {
        buf_text(&name, "bytes:");
        for (size_t i = 0; i < s.n; i++)
            buf_printf(&name, "\\x%02x", (unsigned char)s.p[i]);
        s = buf_view(&name);
    }
    json_write_str(out, s);
    buf_free(&name);
}

static uint64_t code_points(struct str s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

/* The alternatives, and with them the token itself, however unlikely it was: as OpenAI does. */
static void write_tops(struct buf *out, const struct choice *ch, const struct token_logprob *p) {
    bool seen = false;
    for (uint32_t k = 0; k < p->tops; k++) {
        seen = seen || p->top[k].id == p->id;
        buf_text(out, k ? "," : "{");
        write_token_name(out, piece_of(ch, p->top[k].id));
        buf_byte(out, ':');
        json_write_number(out, (double)p->top[k].logprob);
    }
    if (!seen) {
        buf_text(out, p->tops ? "," : "{");
        write_token_name(out, piece_of(ch, p->id));
        buf_byte(out, ':');
        json_write_number(out, (double)p->logprob);
    }
    buf_byte(out, '}');
}

static void see_completion(struct choice *ch, const struct token_logprob *p, uint32_t n, bool prompt) {
    struct probs *to = &ch->probs;
    for (uint32_t i = 0; i < n; i++) {
        struct str s = piece_of(ch, p[i].id);
        bool none = prompt && i == 0; /* nothing comes before the first token */
        const char *comma = to->tokens.n > 0 ? "," : "";
        buf_text(&to->tokens, comma);
        write_token_name(&to->tokens, s);
        buf_text(&to->values, comma);
        if (none)
            buf_text(&to->values, "null");
        else
            json_write_number(&to->values, (double)p[i].logprob);
        buf_printf(&to->offsets, "%s%llu", comma, (unsigned long long)to->offset);
        to->offset += code_points(s);
        buf_text(&to->tops, comma);
        if (none)
            buf_text(&to->tops, "null");
        else
            write_tops(&to->tops, ch, &p[i]);
    }
}

static void write_completion_probs(struct choice *ch) {
    struct buf *out = &ch->completion->out;
    struct probs *p = &ch->probs;
    buf_text(out, ",\"logprobs\":");
    if (!ch->completion->ask.logprobs) {
        buf_text(out, "null");
        return;
    }
    buf_text(out, "{\"tokens\":[");
    buf_str(out, buf_view(&p->tokens));
    buf_text(out, "],\"token_logprobs\":[");
    buf_str(out, buf_view(&p->values));
    buf_text(out, "],\"top_logprobs\":");
    if (ch->completion->ask.top_logprobs > 0) {
        buf_byte(out, '[');
        buf_str(out, buf_view(&p->tops));
        buf_byte(out, ']');
    } else {
        buf_text(out, "null");
    }
    buf_text(out, ",\"text_offset\":[");
    buf_str(out, buf_view(&p->offsets));
    buf_text(out, "]}");
    buf_clear(&p->tokens);
    buf_clear(&p->values);
    buf_clear(&p->tops);
    buf_clear(&p->offsets);
}

static void completion_chunk(struct choice *ch, bool last) {
    struct completion *c = ch->completion;
    begin_choice(ch);
    buf_text(&c->out, ",\"text\":");
    if (c->ask.echo && !ch->begun) {
        struct buf echo = {0};
        completion_prompt_text(ch, &echo);
        buf_str(&echo, buf_view(&ch->text));
        json_write_str(&c->out, buf_view(&echo));
        buf_free(&echo);
    } else {
        json_write_str(&c->out, buf_view(&ch->text));
    }
    ch->begun = true;
    write_completion_probs(ch);
    if (last)
        buf_printf(&c->out, ",\"finish_reason\":\"%s\"}", reason_name(ch));
    else
        buf_text(&c->out, ",\"finish_reason\":null}");
    end_chunk(c);
    buf_clear(&ch->text);
}

static void completion_text(struct choice *ch) {
    completion_chunk(ch, false);
}

static void completion_finish(struct choice *ch) {
    completion_chunk(ch, true);
}

static void whole_body(struct completion *c) {
    write_head(c, &c->out, "text_completion");
    buf_text(&c->out, ",\"choices\":[");
    for (uint32_t i = 0; i < c->choices; i++) {
        struct choice *ch = &c->choice[i];
        buf_printf(&c->out, "%s{\"index\":%u,\"text\":", i ? "," : "", ch->index);
        write_pieces(ch);
        write_completion_probs(ch);
        buf_printf(&c->out, ",\"finish_reason\":\"%s\"}", reason_name(ch));
        completion_emit(c, ch, ch->tokens - ch->emitted);
    }
    finish_body(c);
}

static int parse_completion(struct ask *ask, struct str body, struct error *e) {
    return openai_parse(ask, false, body, e);
}

const struct dialect openai_completion = {
    .id_prefix = "cmpl-",
    .parse = parse_completion,
    .write_text = completion_text,
    .write_finish = completion_finish,
    .write_end = write_end,
    .write_error = write_error,
    .write_body = whole_body,
    .see_logprobs = see_completion,
};
