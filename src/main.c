/* unkai: an AI cloud in one program. Here is only the way into the table of commands (cli/cli.c). */
#include "cli/cli.h"

#include <stdio.h>
#include <string.h>

static int help(FILE *to) {
    fprintf(to, "unkai: an AI cloud in one program\n\nusage: unkai COMMAND [options]\n\n");
    for (const struct command *c = cli_commands; c->name != NULL; c++)
        fprintf(to, "  %-12s %s\n", c->name, c->summary);
    fprintf(to, "\nunkai COMMAND --help tells more.\n");
    return to == stdout ? EXIT_OK : EXIT_USAGE;
}

int main(int argc, char **argv) {
    if (argc < 2)
        return help(stderr);
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0)
        return help(stdout);
    if (strcmp(argv[1], "--version") == 0)
        return printf("unkai %s\n", UNKAI_VERSION) < 0;
    for (const struct command *c = cli_commands; c->name != NULL; c++)
        if (strcmp(argv[1], c->name) == 0)
            return c->run(argc - 1, argv + 1);
    fprintf(stderr, "unkai: there is no command '%s'\n\n", argv[1]);
    return help(stderr);
}
