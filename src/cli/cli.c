/* What the commands share: the table, options, help, the data folder. */
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct command cli_commands[] = {
    /* COMMANDS: one row each, in the order a newcomer meets them */
    {"run", "ask a model, or chat with it", cmd_run},
    {"serve", "serve models over the OpenAI API", cmd_serve},
    {"models", "list, show, pull and remove models", cmd_models},
    {"tenant", "who may use the cloud, and their credit", cmd_tenant},
    {"key", "the keys of tenants", cmd_key},
    {"limit", "what tenants and keys may use", cmd_limit},
    {"webhook", "who is told when limits come near", cmd_webhook},
    {"price", "the price book", cmd_price},
    {"usage", "what tenants used and were charged", cmd_usage},
    {"owner", "what the machines and a token cost, and when they are paid back", cmd_owner},
    {"ledger", "the transfers, and the proof that they add up", cmd_ledger},
    {"admin", "who may administer the cloud, and what was changed", cmd_admin},
    {"close", "end a month, and sign what it came to", cmd_close},
    {"invoice", "invoices, their parties and tax rules", cmd_invoice},
    {"db", "where the books are, copies of them", cmd_db},
    {"node", "the nodes that share the books", cmd_node},
    {"export", "usage and cost for other programs", cmd_export},
    {"bench", "how fast a model runs here, beside the limits of the machine", cmd_bench},
    {"template", "render a chat template and show who wrote what", cmd_template},
    {"tokenize", "text to token ids and back", cmd_tokenize},
    {"perplexity", "how well a model predicts a text", cmd_perplexity},
    {NULL, NULL, NULL},
};

static void print_help(const char *command, const struct option *options, const char *usage,
                       const char *about) {
    printf("usage: unkai %s [options] %s\n\n%s\n\noptions:\n", command, usage, about);
    for (const struct option *o = options; o->name != NULL; o++) {
        char left[64];
        snprintf(left, sizeof left, "--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");
        printf("  %-26s %s\n", left, o->help);
    }
    printf("  %-26s %s\n", "--help, -h", "show this and exit");
}

static const struct option *find_option(const struct option *options, const char *name, size_t n) {
    for (const struct option *o = options; o->name != NULL; o++)
        if (strlen(o->name) == n && memcmp(o->name, name, n) == 0)
            return o;
    return NULL;
}

static int store_value(const struct option *o, const char *value) {
    char *end;
    errno = 0;
    switch (o->kind) {
    case OPTION_FLAG:
        *(bool *)o->to = true;
        return 0;
    case OPTION_TEXT:
        *(const char **)o->to = value;
        return 0;
    case OPTION_INT: {
        long long x = strtoll(value, &end, 10);
        *(int64_t *)o->to = x;
        return end == value || *end != 0 || errno != 0 || x < o->min || x > o->max ? -1 : 0;
    }
    case OPTION_REAL:
        *(double *)o->to = strtod(value, &end);
        return end == value || *end != 0 || !isfinite(*(double *)o->to) ? -1 : 0;
    case OPTION_LIST: {
        struct option_list *list = o->to;
        if (list->n == sizeof list->item / sizeof *list->item)
            return -1;
        list->item[list->n++] = value;
        return 0;
    }
    }
    return -1;
}

int cli_options(int argc, char **argv, int *args, const struct option *options, const char *usage,
                const char *about) {
    int kept = 1;
    bool literal = false;
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        if (!literal && (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)) {
            print_help(argv[0], options, usage, about);
            return 1;
        }
        if (literal || strncmp(a, "--", 2) != 0) {
            argv[kept++] = a;
            continue;
        }
        if (a[2] == 0) {
            literal = true;
            continue;
        }
        size_t n = strcspn(a + 2, "=");
        const struct option *o = find_option(options, a + 2, n);
        const char *value = a[2 + n] == '=' ? a + 3 + n : NULL;
        if (o == NULL) {
            fprintf(stderr, "unkai %s: there is no option %s; see unkai %s --help\n", argv[0], a, argv[0]);
            return -1;
        }
        if (o->kind != OPTION_FLAG && value == NULL && ++i < argc)
            value = argv[i];
        if ((o->kind == OPTION_FLAG) != (value == NULL) || store_value(o, value) != 0) {
            fprintf(stderr, "unkai %s: --%s wants %s", argv[0], o->name, o->value ? o->value : "no value");
            if (o->kind == OPTION_INT)
                fprintf(stderr, " from %lld to %lld", (long long)o->min, (long long)o->max);
            fprintf(stderr, "; see unkai %s --help\n", argv[0]);
            return -1;
        }
    }
    *args = kept - 1;
    return 0;
}

int cli_fail(const char *command, const struct error *e) {
    fprintf(stderr, "unkai %s: %s\n", command, e->text);
    return EXIT_FAILED;
}

static void make_folders(char *path) {
    for (char *p = path + 1; *p != 0; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(path, 0700);
            *p = '/';
        }
    mkdir(path, 0700);
}

/* Services often have no $HOME. */
static const char *user_home(void) {
    const char *home = getenv("HOME");
    const struct passwd *user = home != NULL && home[0] != 0 ? NULL : getpwuid(getuid());
    return user != NULL ? user->pw_dir : home != NULL && home[0] != 0 ? home : ".";
}

const char *cli_home(void) {
    static char home[3000];
    if (home[0] != 0)
        return home;
    const char *own = getenv("UNKAI_HOME"), *xdg = getenv("XDG_DATA_HOME");
    if (own != NULL && own[0] != 0)
        snprintf(home, sizeof home, "%s", own);
    else if (xdg != NULL && xdg[0] == '/')
        snprintf(home, sizeof home, "%s/unkai", xdg);
    else
        snprintf(home, sizeof home, "%s/.local/share/unkai", user_home());
    make_folders(home);
    return home;
}

int cli_model_path(char *out, size_t size, const char *name, struct error *e) {
    size_t n = strlen(name);
    if (strchr(name, '/') != NULL ||
        (n > 5 && strcmp(name + n - 5, ".gguf") == 0 && access(name, F_OK) == 0)) {
        if ((size_t)snprintf(out, size, "%s", name) >= size)
            return error_set(e, ERR_INVALID, "the model's path is too long");
        return 0;
    }
    /* A name, not a path: it may not climb out of the folder. */
    if (n == 0 || name[0] == '.')
        return error_set(e, ERR_INVALID, "'%s' is no model name", name);
    const char *tail = n > 5 && strcmp(name + n - 5, ".gguf") == 0 ? "" : ".gguf";
    if ((size_t)snprintf(out, size, "%s/models/%s%s", cli_home(), name, tail) >= size)
        return error_set(e, ERR_INVALID, "the model's name is too long");
    if (access(out, R_OK) != 0)
        return error_set(e, ERR_NOT_FOUND,
                         "there is no model '%.100s' in %.200s/models; give a path, or see unkai models",
                         name, cli_home());
    return 0;
}

int cli_read(struct buf *out, const char *path, size_t most, struct error *e) {
    int rc = 0;
    bool standard = strcmp(path, "-") == 0;
    int fd = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    const char *called = standard ? "standard input" : path;
    if (fd < 0)
        return error_set(e, ERR_NOT_FOUND, "cannot open %.200s: %s", path, strerror(errno));
    for (;;) {
        char *to = buf_reserve(out, 65536);
        ssize_t n = to == NULL ? 0 : read(fd, to, 65536);
        if (n > 0)
            out->n += (size_t)n;
        if (n < 0)
            rc = error_set(e, ERR_IO, "cannot read %.200s: %s", called, strerror(errno));
        else if (to == NULL || out->n > most)
            rc = error_set(e, ERR_TOO_LARGE, "%.200s is larger than %zu bytes", called, most);
        if (n <= 0 || rc != 0)
            break;
    }
    if (out->p != NULL)
        out->p[out->n] = 0;
    if (!standard)
        close(fd);
    return rc;
}
