/* Runs a fuzz target over the files named on the command line: for regression inputs and for AFL++. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        FILE *f = fopen(argv[i], "rb");
        if (f == NULL)
            return perror(argv[i]), 1;
        uint8_t *data = malloc(1 << 24);
        size_t n = data ? fread(data, 1, 1 << 24, f) : 0;
        LLVMFuzzerTestOneInput(data, n);
        free(data);
        fclose(f);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
