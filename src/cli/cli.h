/* The commands: one file each, one row each in cli.c. A command parses its own arguments with cli_options, prints data on standard
 * output (as JSON with --json) and everything else on standard error. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "base/buf.h"
#include "base/error.h"

/* Exit codes of every command. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct command {
    const char *name;
    const char *summary;               /* one line for `unkai help` */
    int (*run)(int argc, char **argv); /* argv[0] is the command's name; returns an exit code */
};

extern const struct command cli_commands[]; /* ends with a row whose name is NULL */

/* One row an option. Values land where `to` points. */
enum option_kind {
    OPTION_FLAG /* bool */,
    OPTION_TEXT /* const char * */,
    OPTION_INT /* int64_t, min..max */,
    OPTION_REAL /* double */,
    OPTION_LIST /* struct option_list */
};
struct option {
    const char *name; /* "json" for --json */
    enum option_kind kind;
    void *to;
    const char *value; /* what the value is called in --help ("N", "PATH"), NULL for a flag */
    const char *help;
    int64_t min, max; /* OPTION_INT */
};
struct option_list {
    const char *item[64];
    size_t n;
};

/* Parse argv[1..]: options (--name value, --name=value) land in their places, the others are moved to argv[1..] and counted in *args. `--` ends options.
 * Prints help and returns 1 for --help (exit with EXIT_OK); prints what is wrong and returns -1 for a mistake (exit with EXIT_USAGE);
 * 0 otherwise. usage: "MODEL [PROMPT]"; about: a paragraph. Options end with a row whose name is NULL. */
int cli_options(int argc, char **argv, int *args, const struct option *options, const char *usage,
                const char *about);

/* --kernels and --kv, wherever they are. */
#define CLI_KERNELS_HELP "reference, avx2, avx512, neon or i8mm (the best there is)"
#define CLI_KV_HELP "keys and values in memory: f16, or q8 in half of it (f16)"

/* Print "unkai COMMAND: text" and return EXIT_FAILED. */
int cli_fail(const char *command, const struct error *e);

/* The data folder ($UNKAI_HOME, else $XDG_DATA_HOME/unkai, else ~/.local/share/unkai), made when absent, without a slash at its end.
 * Static memory. */
const char *cli_home(void);

/* A model named on the command line: a path to a .gguf file, or a name in the data folder's models/. Writes the path. */
int cli_model_path(char *out, size_t size, const char *name, struct error *e);

/* Read a whole stream or file ("-" is standard input), at most `most` bytes. */
int cli_read(struct buf *out, const char *path, size_t most, struct error *e);

int cmd_admin(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_close(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_invoice(int argc, char **argv);
int cmd_db(int argc, char **argv);
int cmd_key(int argc, char **argv);
int cmd_node(int argc, char **argv);
int cmd_ledger(int argc, char **argv);
int cmd_limit(int argc, char **argv);
int cmd_models(int argc, char **argv);
int cmd_owner(int argc, char **argv);
int cmd_perplexity(int argc, char **argv);
int cmd_price(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_template(int argc, char **argv);
int cmd_tenant(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_usage(int argc, char **argv);
int cmd_webhook(int argc, char **argv);

#endif
