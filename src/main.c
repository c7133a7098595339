/* unkai: an AI cloud in one program. Here is only the way into the table of commands (cli/cli.c). */
#include "cli/cli.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static int help(FILE *to) {
    fprintf(to, "unkai: an AI cloud in one program\n\nusage: unkai COMMAND [options]\n\n");
    for (const struct command *c = cli_commands; c->name != NULL; c++)
        fprintf(to, "  %-12s %s\n", c->name, c->summary);
    fprintf(to, "\nunkai COMMAND --help tells more.\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

/* A standard stream that the caller closed is a number that the next file or connection would get, and what we say to people would
 * land in it. It is taken, and fails whoever uses it. */
static void take_standard_streams(void) {
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0)
            open("/dev/null", fd == 0 ? O_WRONLY : O_RDONLY);
}

/* What did not reach its reader is a failure, whatever the command thought of it. */
static int check_output(int code) {
    if (fflush(stdout) == 0 && ferror(stdout) == 0)
        return code;
    fprintf(stderr, "unkai: the output could not be written; is the disk full?\n");
    return code == EXIT_OK ? EXIT_FAILED : code;
}

static int run(int argc, char **argv) {
    if (argc < 2)
        return help(stderr);
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help(stdout);
    if (strcmp(argv[1], "--version") == 0)
        return printf("unkai %s\n", UNKAI_VERSION) < 0 ? EXIT_FAILED : EXIT_OK;
    for (const struct command *c = cli_commands; c->name != NULL; c++)
        if (strcmp(argv[1], c->name) == 0)
            return c->run(argc - 1, argv + 1);
    fprintf(stderr, "unkai: there is no command '%s'\n\n", argv[1]);
    return help(stderr);
}

int main(int argc, char **argv) {
    take_standard_streams();
    return check_output(run(argc, argv));
}
