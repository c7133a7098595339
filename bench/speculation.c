/* speculation MODEL [PACK_FOLDER [SEQUENCES]]: what guessed tokens (engine/speculate.h) bring. Two engines with the same model, one that guesses and one that does not, answer the
 * same requests by turns; the answers must be the same to the last byte, so the ratio of times is the ratio of speeds. Some tasks copy from their
 * prompt, some do not. */
#include "engine/engine.h"

#include "base/json.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_SEQUENCES = 16, ROUNDS = 5, MOST_TOKENS = 200, PARTS = 8 };

static const char *const story[PARTS] = {
    "The regional library opens its new reading room on Monday.",
    "Visitors find two hundred seats, a quiet corner for children, and a small cafe that serves tea and "
    "bread.",
    "The old catalogue of paper cards was scanned during the winter, so that every book can now be found "
    "from home.",
    "Whoever borrows a book on Monday may keep it for four weeks, and a reminder is sent three days before "
    "it is due.",
    "The librarians ask all readers to return what they borrowed last year.",
    "On Monday evening a local writer reads from her second novel, which tells of a bridge, a river and two "
    "families.",
    "The garden behind the house is open again, and its oldest tree was measured in Monday's rain.",
    "Admission is free, and the doors close at nine."};
static const char *const people[PARTS] = {
    "Anna Berg is 34 years old, lives in Bergen and works as a teacher.",
    "Tom Ito is 41 years old, lives in Osaka and works as a carpenter.",
    "Maria Lopez is 29 years old, lives in Seville and works as a nurse.",
    "Peter Novak is 52 years old, lives in Brno and works as an engineer.",
    "Lena Fischer is 38 years old, lives in Hamburg and works as a baker.",
    "Omar Haddad is 45 years old, lives in Tunis and works as a pilot.",
    "Julia Rossi is 27 years old, lives in Turin and works as a lawyer.",
    "Sam Clark is 60 years old, lives in Leeds and works as a gardener."};
static const char *const subject[PARTS] = {
    "a lighthouse and a letter", "a lost key",     "two old friends", "a winter journey", "the last train",
    "a village bakery",          "the first snow", "a broken clock"};
static const char *const question[PARTS] = {
    "a bicycle stays upright", "bread rises",      "a ship floats",   "a fridge keeps cold",
    "the tides come and go",   "vaccines protect", "a violin sounds", "rainbows appear"};

/* The parts of a text are turned by the sequence's number, so that no two are alike. */
static const struct task {
    const char *name, *before, *after;
    const char *const *part;
    int parts; /* that one prompt holds */
    bool chat, copies;
    float temperature;
} task[] = {
    {"edit: one word changed",
     "Text: The garden is closed on Monday. Trees are cut in March, and the gates are painted.\n"
     "With Friday instead of Monday: The garden is closed on Friday. Trees are cut in March, and the gates "
     "are painted.\nText: ",
     "\nWith Friday instead of Monday:", story, PARTS, false, true, 0},
    {"edit: correct this text",
     "Correct the spelling of this text. Answer with the whole corrected text and nothing else.\n\n", "",
     story, PARTS, true, true, 0},
    {"JSON extraction",
     "Text: Eva Holm is 31 years old, lives in Oslo and works as a cook. Jan Kos is 44 years old, lives in "
     "Gdynia and works as a sailor.\n"
     "JSON: [{\"name\": \"Eva Holm\", \"age\": 31, \"city\": \"Oslo\", \"job\": \"cook\"}, {\"name\": \"Jan "
     "Kos\", \"age\": 44, \"city\": \"Gdynia\", "
     "\"job\": \"sailor\"}]\nText: ",
     "\nJSON:", people, PARTS, false, true, 0},
    {"a story", "Write a story about ", ".", subject, 1, true, false, 0},
    {"a story, drawn", "Write a story about ", ".", subject, 1, true, false, 0.8f},
    {"an explanation, drawn", "Explain why ", ".", question, 1, true, false, 0.8f},
};
enum { TASKS = sizeof task / sizeof *task };

struct answer {
    struct buf text;
    uint32_t tokens;
    int64_t decode_ns, all_ns;
    bool failed, finished;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

static void on_event(void *context, const struct engine_event *event) {
    struct answer *a = context;
    pthread_mutex_lock(&lock);
    buf_str(&a->text, event->text);
    if (event->kind == EVENT_FINISH) {
        a->tokens = event->completion_tokens;
        a->decode_ns = event->total_ns - event->first_token_ns;
        a->all_ns = event->total_ns;
        a->failed = event->reason == FINISH_FAILED;
        a->finished = true;
        pthread_cond_signal(&changed);
    }
    pthread_mutex_unlock(&lock);
}

static int encode(const struct model *m, const struct task *t, uint32_t number, struct tokens *out,
                  struct error *e) {
    struct buf text = {0}, message = {0};
    struct json *messages = NULL;
    int rc;
    buf_text(&text, t->before);
    for (int i = 0; i < t->parts; i++)
        buf_printf(&text, "%s%s", i ? " " : "", t->part[(number + (uint32_t)i) % PARTS]);
    buf_text(&text, t->after);
    if (t->chat && m->chat != NULL) {
        buf_text(&message, "[{\"role\":\"user\",\"content\":");
        json_write_str(&message, buf_view(&text));
        buf_text(&message, "}]");
        if ((rc = json_parse(&messages, buf_view(&message), e)) == 0)
            rc = model_encode_chat(m, messages, NULL, out, e);
        json_free(messages);
    } else {
        struct segment s = {.text = buf_view(&text)};
        rc = tokenizer_encode(m->tokenizer, &s, 1, TOKENIZER_ADD_SPECIAL, out, e);
    }
    buf_free(&text);
    buf_free(&message);
    return rc;
}

/* All sequences at once, every round for another account, so that nothing is found in the prefix cache. */
static int ask(struct engine *g, const struct task *t, uint32_t sequences, uint64_t account, struct answer *a,
               struct error *e) {
    static const struct str end = {"\n", 1};
    struct sequence *s[MOST_SEQUENCES];
    uint32_t asked = 0;
    int rc = 0;
    for (; asked < sequences && rc == 0; asked += rc == 0) {
        struct tokens prompt = {0};
        a[asked] = (struct answer){0};
        rc = encode(engine_model(g, STR("m")), t, asked, &prompt, e);
        struct engine_request r = {.model = STR("m"),
                                   .account = account + asked,
                                   .prompt = prompt.id,
                                   .prompt_tokens = prompt.n,
                                   .max_tokens = MOST_TOKENS,
                                   .sampling = {.temperature = t->temperature,
                                                .top_p = 0.95f,
                                                .repetition_penalty = 1,
                                                .seed = account + asked},
                                   .stop = &end,
                                   .stops = t->chat ? 0 : 1,
                                   .on_event = on_event,
                                   .context = &a[asked]};
        if (rc == 0)
            rc = engine_submit(g, &r, &s[asked], e);
        tokens_free(&prompt);
    }
    for (uint32_t i = 0; i < asked; i++) {
        pthread_mutex_lock(&lock);
        while (!a[i].finished)
            pthread_cond_wait(&changed, &lock);
        pthread_mutex_unlock(&lock);
        engine_release(g, s[i]);
        if (a[i].failed && rc == 0)
            rc = error_set(e, ERR_INTERNAL, "the model failed");
    }
    return rc;
}

static int start(struct engine **out, const char *path, const char *packed, bool guesses, struct error *e) {
    struct engine_options o = {.chip = {.pack_folder = packed},
                               .kv_bytes = (size_t)1 << 30,
                               .max_running = MOST_SEQUENCES,
                               .speculation = guesses ? SPECULATE_WHERE_IT_PAYS : SPECULATE_NEVER};
    int rc = engine_create(out, &o, e);
    if (rc == 0 && (rc = engine_add_model(*out, "m", path, e)) == 0)
        rc = engine_start(*out, e);
    return rc;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *value) {
    qsort(value, ROUNDS, sizeof *value, by_value);
    return value[ROUNDS / 2];
}

/* Rounds of one task: first the one engine, then the other, and the next time the other first. */
static int measure(struct engine *const *g, const struct task *t, uint32_t sequences, struct error *e) {
    static struct answer a[2][MOST_SEQUENCES];
    double decode[ROUNDS], all[ROUNDS], speed[ROUNDS];
    struct engine_model_stats before, after;
    static uint64_t account;
    int rc = 0;
    usleep(20000); /* the counts come after the step */
    engine_model_stats(g[1], 0, &before);
    for (uint64_t round = 0; round < ROUNDS && rc == 0; round++) {
        double decode_ns[2] = {0}, all_ns[2] = {0}, tokens = 0;
        account += MOST_SEQUENCES;
        for (uint64_t turn = 0; turn < 2 && rc == 0; turn++) {
            uint64_t which = (round + turn) % 2;
            rc = ask(g[which], t, sequences, account, a[which], e);
        }
        for (uint32_t i = 0; i < sequences && rc == 0; i++) {
            for (int k = 0; k < 2; k++) {
                decode_ns[k] += (double)a[k][i].decode_ns;
                all_ns[k] += (double)a[k][i].all_ns;
            }
            tokens += a[1][i].tokens;
            if (!str_equal(buf_view(&a[0][i].text), buf_view(&a[1][i].text)))
                rc = error_set(e, ERR_INTERNAL, "the answers differ: %s", t->name);
        }
        decode[round] = decode_ns[0] / decode_ns[1];
        all[round] = all_ns[0] / all_ns[1];
        speed[round] = (tokens - sequences) * sequences / decode_ns[1] * 1e9;
        for (int k = 0; k < 2; k++)
            for (uint32_t i = 0; i < sequences; i++)
                buf_free(&a[k][i].text);
    }
    if (rc != 0)
        return rc;
    usleep(20000);
    engine_model_stats(g[1], 0, &after);
    uint64_t drafted = after.drafted - before.drafted, accepted = after.accepted - before.accepted;
    printf("%-24s %2u %10.0f %7.2f %7.2f %9llu %8.0f%%\n", t->name, sequences, median(speed), median(decode),
           median(all), (unsigned long long)drafted,
           drafted ? 100.0 * (double)accepted / (double)drafted : 0.0);
    fflush(stdout);
    return 0;
}

int main(int argc, char **argv) {
    struct engine *g[2] = {NULL, NULL};
    struct error e = {0};
    if (argc < 2) {
        fprintf(stderr, "usage: speculation MODEL [PACK_FOLDER [SEQUENCES]]\n");
        return 2;
    }
    int rc = start(&g[0], argv[1], argv[2], false, &e);
    if (rc == 0)
        rc = start(&g[1], argv[1], argv[2], true, &e);
    printf("%-24s %2s %10s %7s %7s %9s %9s\n", "task, sequences", "", "tokens/s", "decode", "all", "drafted",
           "accepted");
    static const uint32_t usual[] = {1, 4, 16};
    uint32_t only = argc > 3 ? (uint32_t)strtoul(argv[3], NULL, 10) : 0;
    for (int k = 0; k < 3 && rc == 0; k++)
        for (int i = 0; i < TASKS && rc == 0 && (only == 0 || only == usual[k]); i++)
            rc = measure(g, &task[i], usual[k], &e);
    engine_free(g[0]);
    engine_free(g[1]);
    if (rc != 0)
        fprintf(stderr, "speculation: %s\n", e.text);
    return rc != 0;
}
