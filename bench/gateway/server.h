/* The server of the bench: books, gateway, and the engine that costs nothing. */
#ifndef BENCH_SERVER_H
#define BENCH_SERVER_H

#include "base/error.h"

enum { SERVER_MOST_CONNECTIONS = 16384 };

/* Serve the model until SIGTERM; the port is written to the descriptor `tell` when it is open. */
int server_run(const char *folder, const char *model, int tell, struct error *e);

#endif
