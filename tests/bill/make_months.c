/* make_months FOLDER: the books of months.h in a folder, for tests that use the commands. */
#include "months.h"

#include <stdio.h>

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: make_months FOLDER\n");
        return 2;
    }
    months_make(argv[1]);
    return 0;
}
