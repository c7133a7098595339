/* unkai run: one answer, or a chat in the terminal, from a model without a server. The same engine, template and tokenizer as the server's; no books. */
#include "cli/cli.h"
#include "engine/engine.h"

#include "base/hash.h"
#include "base/json.h"

#include <histedit.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

enum { MOST_PROMPT = 16 << 20 };

struct chat {
    struct engine *engine;
    struct buf messages; /* "[{...},{...}" without its end */
    const char *system;
    double temperature, top_p;
    int64_t max_tokens, seed;
    bool as_json;
};

/* One answer as the engine's thread brings it. */
struct answer {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct buf text;
    size_t printed;
    bool ended;
    struct engine_event end;
    struct error error;
};

static atomic_bool interrupted;

static void on_interrupt(int number) {
    atomic_store(&interrupted, true);
}

static void on_event(void *context, const struct engine_event *event) {
    struct answer *a = context;
    pthread_mutex_lock(&a->lock);
    buf_str(&a->text, event->text);
    if (event->kind == EVENT_FINISH) {
        a->end = *event;
        if (event->error != NULL)
            a->error = *event->error;
        a->ended = true;
    }
    pthread_cond_signal(&a->changed);
    pthread_mutex_unlock(&a->lock);
}

static void add_message(struct chat *c, const char *role, struct str text) {
    buf_text(&c->messages, c->messages.n ? ",{\"role\":" : "[{\"role\":");
    json_write_text(&c->messages, role);
    buf_text(&c->messages, ",\"content\":");
    json_write_str(&c->messages, text);
    buf_byte(&c->messages, '}');
}

/* The conversation as tokens; a model without a template continues the last text. */
static int encode(struct chat *c, struct str last, struct tokens *out, struct error *e) {
    const struct model *m = engine_model(c->engine, STR("model"));
    struct json *messages = NULL;
    int rc;
    if (m->chat == NULL) {
        struct segment s = {.text = last};
        return tokenizer_encode(m->tokenizer, &s, 1, TOKENIZER_ADD_SPECIAL, out, e);
    }
    buf_byte(&c->messages, ']');
    rc = json_parse(&messages, buf_view(&c->messages), e);
    c->messages.n--;
    if (rc == 0)
        rc = model_encode_chat(m, messages, NULL, out, e);
    json_free(messages);
    return rc;
}

/* Under the lock. */
static void print_new(const struct chat *c, struct answer *a) {
    if (c->as_json || a->text.n == a->printed)
        return;
    fwrite(a->text.p + a->printed, 1, a->text.n - a->printed, stdout);
    fflush(stdout);
    a->printed = a->text.n;
}

/* Print what comes, until the end or Ctrl-C. */
static void follow(struct chat *c, struct answer *a, struct sequence *s) {
    pthread_mutex_lock(&a->lock);
    while (!a->ended) {
        struct timespec soon; /* a signal does not wake the condition */
        clock_gettime(CLOCK_REALTIME, &soon);
        soon.tv_nsec += 50000000;
        soon.tv_sec += soon.tv_nsec / 1000000000;
        soon.tv_nsec %= 1000000000;
        pthread_cond_timedwait(&a->changed, &a->lock, &soon);
        print_new(c, a);
        if (atomic_load(&interrupted))
            engine_cancel(c->engine, s);
    }
    print_new(c, a);
    pthread_mutex_unlock(&a->lock);
}

static const char *const reason_name[] = {[FINISH_STOP] = "stop",
                                          [FINISH_LENGTH] = "length",
                                          [FINISH_CANCELLED] = "cancelled",
                                          [FINISH_FAILED] = "failed"};

static void print_json(const struct answer *a) {
    struct buf out = {0};
    const struct engine_event *end = &a->end;
    double seconds = (double)(end->total_ns - end->first_token_ns) / 1e9;
    buf_text(&out, "{\"text\":");
    json_write_str(&out, buf_view(&a->text));
    buf_printf(
        &out,
        ",\"prompt_tokens\":%u,\"completion_tokens\":%u,\"finish_reason\":\"%s\",\"first_token_ms\":%.1f,"
        "\"tokens_per_second\":%.1f}",
        end->prompt_tokens, end->completion_tokens, reason_name[end->reason],
        (double)end->first_token_ns / 1e6,
        end->completion_tokens > 1 && seconds > 0 ? (end->completion_tokens - 1) / seconds : 0.0);
    puts(out.p ? out.p : "");
    buf_free(&out);
}

/* Ask with the conversation so far; the answer joins it. */
static int ask(struct chat *c, struct str prompt, struct error *e) {
    struct answer a = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct tokens tokens = {0};
    struct sequence *s;
    add_message(c, "user", prompt);
    int rc = encode(c, prompt, &tokens, e);
    struct engine_request r = {.model = STR("model"),
                               .prompt = tokens.id,
                               .prompt_tokens = tokens.n,
                               .max_tokens = (uint32_t)c->max_tokens,
                               .sampling = {.temperature = (float)c->temperature,
                                            .top_p = (float)c->top_p,
                                            .repetition_penalty = 1,
                                            .seed = (uint64_t)c->seed},
                               .on_event = on_event,
                               .context = &a};
    if (c->seed == 0)
        random_bytes(&r.sampling.seed, sizeof r.sampling.seed);
    atomic_store(&interrupted, false);
    if (rc == 0)
        rc = engine_submit(c->engine, &r, &s, e);
    if (rc == 0) {
        follow(c, &a, s);
        engine_release(c->engine, s);
        if (a.end.reason == FINISH_FAILED)
            rc = error_set(e, a.error.code, "%s", a.error.text);
        else if (c->as_json)
            print_json(&a);
        else
            putchar('\n');
        add_message(c, "assistant", buf_view(&a.text));
    }
    tokens_free(&tokens);
    buf_free(&a.text);
    return rc;
}

static char *prompt_text(EditLine *line) {
    return "> ";
}

/* Before the prompt is shown, so that what is typed at once is echoed once. While a line is edited Ctrl-C is a key: as a signal it could come between two reads
 * and be lost, and it would throw away what the terminal has not shown yet. */
static void prepare_terminal(EditLine *line) {
    struct termios t;
    el_set(line, EL_PREP_TERM, 1);
    if (tcgetattr(STDIN_FILENO, &t) == 0) {
        t.c_cc[VINTR] = _POSIX_VDISABLE;
        tcsetattr(STDIN_FILENO, TCSANOW, &t);
    }
}

static unsigned char drop_line(EditLine *line, int key) {
    atomic_store(&interrupted, true);
    return CC_EOF;
}

/* A conversation with line editing and a history that is kept. */
static int converse(struct chat *c, struct error *e) {
    char path[4200];
    HistEvent event;
    History *past = history_init();
    EditLine *line = el_init("unkai", stdin, stdout, stderr);
    const char *text;
    int n, rc = 0;
    snprintf(path, sizeof path, "%s/history", cli_home());
    history(past, &event, H_SETSIZE, 1000);
    history(past, &event, H_SETUNIQUE, 1);
    history(past, &event, H_LOAD, path);
    el_set(line, EL_PROMPT, prompt_text);
    el_set(line, EL_EDITOR, "emacs");
    el_set(line, EL_ADDFN, "drop-line", "Leave this line for a new one", drop_line);
    el_set(line, EL_BIND, "^C", "drop-line", NULL);
    el_set(line, EL_HIST, history, past);
    el_source(line, NULL);
    fprintf(stderr, "An empty line or Ctrl-D ends the chat; Ctrl-C ends an answer or drops a line.\n");
    for (;;) {
        atomic_store(&interrupted, false);
        prepare_terminal(line);
        text = el_gets(line, &n);
        if (text == NULL && atomic_load(&interrupted)) {
            putchar('\n');
            continue;
        }
        if (text == NULL || n <= 1)
            break;
        history(past, &event, H_ENTER, text);
        if ((rc = ask(c, (struct str){text, (size_t)n - 1}, e)) != 0)
            break;
    }
    history(past, &event, H_SAVE, path);
    el_end(line);
    history_end(past);
    return rc;
}

static int start(struct chat *c, const char *name, struct chip_options chip, struct error *e) {
    char path[4200], packed[4200];
    chip.pack_folder = packed;
    struct engine_options o = {.chip = chip, .max_running = 1, .max_waiting = 1};
    snprintf(packed, sizeof packed, "%s/packed", cli_home());
    int rc = cli_model_path(path, sizeof path, name, e);
    if (rc == 0 && (rc = engine_create(&c->engine, &o, e)) == 0 &&
        (rc = engine_add_model(c->engine, "model", path, e)) == 0)
        rc = engine_start(c->engine, e);
    return rc;
}

static int talk(struct chat *c, int args, char **argv, struct error *e) {
    struct buf input = {0};
    int rc = 0;
    struct sigaction action = {.sa_handler = on_interrupt};
    sigaction(SIGINT, &action, NULL);
    if (c->system != NULL)
        add_message(c, "system", str_from(c->system));
    if (args > 1)
        return ask(c, str_from(argv[2]), e);
    if (isatty(STDIN_FILENO) == 1)
        return converse(c, e);
    if ((rc = cli_read(&input, "-", MOST_PROMPT, e)) == 0)
        rc = ask(c, buf_view(&input), e);
    buf_free(&input);
    return rc;
}

int cmd_run(int argc, char **argv) {
    int args;
    int64_t threads = 0;
    struct chip_options chip = {0};
    struct error e = {0};
    struct chat c = {.temperature = 0.7, .top_p = 0.95};
    const struct option options[] = {
        {"system", OPTION_TEXT, &c.system, "TEXT", "instructions that stand before the conversation"},
        {"max-tokens", OPTION_INT, &c.max_tokens, "N",
         "tokens of an answer at most (to the end of the context)", 1, 1 << 24},
        {"temperature", OPTION_REAL, &c.temperature, "X", "0: always the likeliest token (0.7)"},
        {"top-p", OPTION_REAL, &c.top_p, "X", "draw from the likeliest tokens with this share (0.95)"},
        {"seed", OPTION_INT, &c.seed, "N", "the same seed draws the same answer", 1, INT64_MAX},
        {"kernels", OPTION_TEXT, &chip.kernels, "NAME", CLI_KERNELS_HELP},
        {"kv", OPTION_TEXT, &chip.kv, "FORM", CLI_KV_HELP},
        {"threads", OPTION_INT, &threads, "N", "threads (one a core)", 1, 1024},
        {"json", OPTION_FLAG, &c.as_json, NULL, "print the answer and its figures as JSON"},
        {NULL},
    };
    int rc = cli_options(argc, argv, &args, options, "MODEL [PROMPT]",
                         "Answers PROMPT, or what comes on standard input; at a terminal without PROMPT it "
                         "is a chat. MODEL is a\n"
                         ".gguf file or a name of unkai models.");
    if (rc != 0)
        return rc > 0 ? EXIT_OK : EXIT_USAGE;
    if (args < 1 || args > 2 || c.temperature < 0 || c.top_p <= 0 || c.top_p > 1) {
        fprintf(stderr, "unkai run: wants a model, a prompt at most, and a sensible temperature and top-p; "
                        "see unkai run --help\n");
        return EXIT_USAGE;
    }
    chip.threads = (uint32_t)threads;
    rc = start(&c, argv[1], chip, &e);
    if (rc == 0)
        rc = talk(&c, args, argv, &e);
    engine_free(c.engine);
    buf_free(&c.messages);
    return rc != 0 ? cli_fail("run", &e) : atomic_load(&interrupted) ? 130 : EXIT_OK;
}
