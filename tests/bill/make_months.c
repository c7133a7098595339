/* make_months FOLDER [owing]: the books of months.h in a folder, for tests that use the commands. */
#include "months.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
    bool owing = argc == 3 && strcmp(argv[2], "owing") == 0;
    if (argc != 2 && !owing) {
        fprintf(stderr, "usage: make_months FOLDER [owing]\n");
        return 2;
    }
    if (owing)
        months_make_owing(argv[1]);
    else
        months_make(argv[1]);
    return 0;
}
