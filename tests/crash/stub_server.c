/* A server for the campaigns: the gateway and the books as they are, in front of an engine that costs nothing (bench/gateway/stub_engine.c), so that hundreds of ends and
 * a hundred thousand streams take minutes. Each of its tokens is a blank and eight digits, so a client can count what arrived.
 *
 * usage: stub_server FOLDER MODEL. Its port goes to standard output, as a line. */
#include "bench/gateway/server.h"

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>

static void *tell_port(void *from) {
    uint16_t port;
    if (read(*(int *)from, &port, sizeof port) == (ssize_t)sizeof port) {
        printf("%u\n", port);
        fflush(stdout);
    }
    return NULL;
}

int main(int argc, char **argv) {
    struct error e = {0};
    pthread_t teller;
    int tell[2];
    if (argc != 3 || pipe(tell) != 0 || pthread_create(&teller, NULL, tell_port, &tell[0]) != 0)
        return 2;
    int rc = server_run(argv[1], argv[2], tell[1], &e);
    close(tell[1]);
    pthread_join(teller, NULL);
    if (rc != 0)
        fprintf(stderr, "%s\n", e.text);
    return rc == 0 ? 0 : 1;
}
