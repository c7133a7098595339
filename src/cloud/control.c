/* The control socket; see control.h. */
#include "cloud/control.h"

#include "base/clock.h"
#include "base/log.h"
#include "cloud/inner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOST_LINE = 1 << 20, MOST_ANSWER = 64 << 20, CALLER_S = 10, SERVER_S = 600, TELL_NS = 200000000 };

struct teller {
    int fd, stop;
    int64_t next; /* when to tell again */
    bool gone;
};

struct control {
    struct cloud *cloud;
    int folder, socket, stop[2];
    pthread_t thread;
    bool running;
};

/* A socket's path may have 107 bytes; through the folder's descriptor every folder is near. */
static void address_of(struct sockaddr_un *a, int folder) {
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(a->sun_path, sizeof a->sun_path, "/proc/self/fd/%d/control.sock", folder);
}

/* One end of a connection: how long the other one may take in all, and a descriptor that ends it at once (-1: none). */
struct end {
    int fd, stop;
    int64_t until;
};

static bool wait_for(const struct end *end, short events) {
    struct pollfd p[2] = {{.fd = end->fd, .events = events}, {.fd = end->stop, .events = POLLIN}};
    for (;;) {
        int64_t left = (end->until - clock_mono_ns()) / 1000000;
        int n = left > 0 ? poll(p, 2, (int)left) : 0;
        if (n >= 0 || errno != EINTR)
            return n > 0 && p[1].revents == 0;
    }
}

static int read_line(const struct end *end, struct buf *line, size_t most) {
    for (;;) {
        char *to = buf_reserve(line, 4096);
        if (to == NULL || line->n > most || !wait_for(end, POLLIN))
            return -1;
        ssize_t n = recv(end->fd, to, 4096, MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return -1;
        line->n += (size_t)n;
        if (line->p[line->n - 1] == '\n') {
            line->n--;
            return 0;
        }
    }
}

static int write_all(const struct end *end, struct str s) {
    while (s.n > 0) {
        if (!wait_for(end, POLLOUT))
            return -1;
        ssize_t n = send(end->fd, s.p, s.n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && (errno == EINTR || errno == EAGAIN))
            continue;
        if (n <= 0)
            return -1;
        s.p += n;
        s.n -= (size_t)n;
    }
    return 0;
}

static struct end end_of(int fd, int stop, int seconds) {
    return (struct end){fd, stop, clock_mono_ns() + (int64_t)seconds * 1000000000};
}

/* Who is told how far the operation is that this thread runs. */
static _Thread_local const struct progress *listener;

void control_tell(void *context, int64_t done, int64_t total) {
    if (listener != NULL)
        listener->tell(listener->context, done, total);
}

/* A caller that is gone, or slow, is told no more; the operation goes on. */
static void tell_caller(void *context, int64_t done, int64_t total) {
    struct teller *t = context;
    char line[80];
    int64_t now = clock_mono_ns();
    if (t->gone || now < t->next)
        return;
    t->next = now + TELL_NS;
    struct end end = end_of(t->fd, t->stop, CALLER_S);
    int n =
        snprintf(line, sizeof line, "{\"done\":%lld,\"total\":%lld}\n", (long long)done, (long long)total);
    t->gone = write_all(&end, (struct str){line, (size_t)n}) != 0;
}

/* One caller at a time: one that stands still keeps the others waiting for CALLER_S at most, and the end of the server not at all. */
static void serve(struct control *k, int fd) {
    struct buf line = {0}, out = {0};
    struct json *request = NULL;
    struct error e = {0};
    struct end end = end_of(fd, k->stop[0], CALLER_S);
    struct teller teller = {.fd = fd, .stop = k->stop[0]};
    struct progress progress = {tell_caller, &teller};
    listener = &progress;
    if (read_line(&end, &line, MOST_LINE) == 0) {
        buf_text(&out, "{\"result\":");
        if (json_parse(&request, buf_view(&line), &e) != 0 || admin_run(k->cloud, request, &out, &e) != 0) {
            buf_clear(&out);
            buf_printf(&out, "{\"error\":{\"code\":%d,\"text\":", e.code);
            json_write_text(&out, e.text);
            buf_byte(&out, '}');
        }
        buf_text(&out, "}\n");
        end = end_of(fd, k->stop[0], CALLER_S);
        write_all(&end, buf_view(&out));
    }
    listener = NULL;
    json_free(request);
    buf_free(&line);
    buf_free(&out);
    close(fd);
}

static void *control_main(void *context) {
    struct control *k = context;
    for (;;) {
        struct pollfd p[2] = {{.fd = k->socket, .events = POLLIN}, {.fd = k->stop[0], .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return NULL;
        if (p[1].revents != 0)
            return NULL;
        int fd = p[0].revents & POLLIN ? accept4(k->socket, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0)
            serve(k, fd);
    }
}

int control_start(struct cloud *c, struct error *e) {
    struct control *k = c->control = calloc(1, sizeof *k);
    struct sockaddr_un address;
    if (k == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for the control socket");
    k->cloud = c;
    k->stop[0] = k->stop[1] = -1;
    k->folder = open(c->folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    k->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address_of(&address, k->folder);
    if (k->folder >= 0)
        unlinkat(k->folder, "control.sock", 0); /* of a server that was killed: we have the lock */
    if (k->folder < 0 || k->socket < 0 || pipe2(k->stop, O_CLOEXEC) != 0 || fchmod(k->socket, 0600) != 0 ||
        bind(k->socket, (struct sockaddr *)&address, sizeof address) != 0 ||
        fchmodat(k->folder, "control.sock", 0600, 0) != 0 || listen(k->socket, 16) != 0)
        return error_set(e, ERR_IO, "cannot make the control socket in %.300s: %s", c->folder,
                         strerror(errno));
    if (pthread_create(&k->thread, NULL, control_main, k) != 0)
        return error_set(e, ERR_NO_MEMORY, "cannot start the control socket's thread");
    k->running = true;
    return 0;
}

void control_stop(struct cloud *c) {
    struct control *k = c->control;
    if (k == NULL)
        return;
    if (k->running) {
        if (write(k->stop[1], "", 1) != 1)
            log_warn("the control socket's thread could not be told to stop");
        pthread_join(k->thread, NULL);
    }
    if (k->folder >= 0) {
        unlinkat(k->folder, "control.sock", 0);
        close(k->folder);
    }
    for (int i = 0; i < 2; i++)
        if (k->stop[i] >= 0)
            close(k->stop[i]);
    if (k->socket >= 0)
        close(k->socket);
    free(k);
    c->control = NULL;
}

/* ---- the command's side ---- */

static int unwrap(struct str line, struct buf *answer, struct error *e) {
    struct json *reply = NULL;
    int rc = json_parse(&reply, line, e);
    const struct json *error = json_get(reply, "error");
    if (rc == 0 && error != NULL) {
        struct str text = json_as_str(json_get(error, "text"));
        int64_t code = json_as_int(json_get(error, "code"));
        rc = code < 0 && code >= ERR_INTERNAL ? (int)code : ERR_INTERNAL;
        error_write(e, (enum err)rc, "", "%.*s", (int)(text.n < 390 ? text.n : 390), text.p);
    } else if (rc == 0) {
        json_write(answer, json_get(reply, "result"));
    }
    json_free(reply);
    return rc;
}

static void tell(const struct progress *progress, struct str line) {
    struct json *told = NULL;
    if (progress != NULL && json_parse(&told, line, NULL) == 0)
        progress->tell(progress->context, json_as_int(json_get(told, "done")),
                       json_as_int(json_get(told, "total")));
    json_free(told);
}

/* The answer, where `line` is left to begin; lines before it say how far the operation is. */
static int read_reply(struct end *end, struct buf *text, struct str *line, const struct progress *progress) {
    for (;;) {
        buf_clear(text);
        end->until = clock_mono_ns() + (int64_t)SERVER_S * 1000000000;
        if (read_line(end, text, MOST_ANSWER) != 0)
            return -1;
        *line = buf_view(text);
        while (str_starts(*line, STR("{\"done\":"))) {
            size_t n = str_find(*line, STR("\n"), 0);
            tell(progress, (struct str){line->p, n < line->n ? n : line->n});
            n = n < line->n ? n + 1 : line->n;
            *line = (struct str){line->p + n, line->n - n};
        }
        if (line->n > 0)
            return 0;
    }
}

static int call_server(const char *folder, struct str request, const struct progress *progress,
                       struct buf *answer, struct error *e) {
    struct sockaddr_un address;
    struct buf text = {0};
    struct str line;
    int rc, dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC),
            fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address_of(&address, dir);
    if (dir < 0 || fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        rc = error_set(e, ERR_UNAVAILABLE,
                       "another unkai has the books in %.200s open and does not answer: %s", folder,
                       strerror(errno));
    } else {
        struct end end = end_of(fd, -1, SERVER_S);
        rc = write_all(&end, request) != 0 || write_all(&end, STR("\n")) != 0 ||
                     read_reply(&end, &text, &line, progress) != 0
                 ? error_set(e, ERR_IO, "the server gave no answer through its control socket")
                 : unwrap(line, answer, e);
    }
    if (fd >= 0)
        close(fd);
    if (dir >= 0)
        close(dir);
    buf_free(&text);
    return rc;
}

int control_call(const char *folder, struct str request, struct buf *answer, struct error *e) {
    return control_call_telling(folder, request, NULL, answer, e);
}

int control_call_telling(const char *folder, struct str request, const struct progress *progress,
                         struct buf *answer, struct error *e) {
    struct cloud *c;
    struct json *parsed = NULL;
    int rc = 0;
    /* A server that is just starting or ending has the lock and no socket for a moment. */
    for (int attempt = 0; attempt < 20; attempt++) {
        rc = cloud_open(&c, folder, NULL, NULL, e);
        if (rc == 0) {
            rc = json_parse(&parsed, request, e);
            listener = progress;
            if (rc == 0)
                rc = admin_run(c, parsed, answer, e);
            listener = NULL;
            json_free(parsed);
            cloud_close(c);
            return rc;
        }
        if (rc != ERR_CONFLICT)
            return rc;
        rc = call_server(folder, request, progress, answer, e);
        if (rc != ERR_UNAVAILABLE)
            return rc;
        usleep(100000);
    }
    return rc;
}
