/* The thread that sends webhooks; see webhook.h. It takes what is due through the books' writer, speaks HTTP with whoever is named there, and has the writer note how it
 * went: however slow or hostile that one is, nobody else waits. Each is strange: its address is checked when the connection is made (whatever the name meant before), it
 * cannot send us elsewhere, it has ten seconds, and of its answer only the status counts. */
#include "cloud/webhook.h"

#include "base/clock.h"
#include "base/log.h"
#include "cloud/inner.h"
#include "cloud/refusal.h"

#include <curl/curl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const int64_t LATER = 60000000000;
enum { CONNECT_MS = 5000, TIMEOUT_MS = 10000, MOST_ANSWER = 64 << 10 };

struct sending {
    struct courier *courier;
    bool busy, ended;
    struct delivery delivery;
    struct signed_headers headers;
    struct curl_slist *list;
    CURL *easy;
    CURLcode code;
    size_t answered;
    bool refused_address;
};

struct courier {
    struct cloud *cloud;
    bool within; /* addresses that are not public, too */
    pthread_t thread;
    CURLM *multi;
    atomic_bool rung, stop;
    struct sending slot[DELIVERIES];
    int64_t next; /* when something may be due, on the wall clock */
};

/* ---- one transfer ---- */

static size_t on_answer(char *p, size_t size, size_t n, void *context) {
    struct sending *s = context;
    s->answered += n;
    return s->answered <= MOST_ANSWER ? size * n : 0;
}

/* The address that a name came to, at the last moment: no answer of a name server comes between this and the connection. */
static curl_socket_t on_open(void *context, curlsocktype purpose, struct curl_sockaddr *to) {
    struct sending *s = context;
    struct address a = {0};
    if (to->family == AF_INET) {
        a.byte[10] = a.byte[11] = 0xff;
        memcpy(a.byte + 12, &((const struct sockaddr_in *)(const void *)&to->addr)->sin_addr, 4);
    } else if (to->family == AF_INET6) {
        memcpy(a.byte, &((const struct sockaddr_in6 *)(const void *)&to->addr)->sin6_addr, sizeof a.byte);
    }
    s->refused_address = !s->courier->within && !address_public(&a);
    return s->refused_address ? CURL_SOCKET_BAD
                              : socket(to->family, to->socktype | SOCK_CLOEXEC, to->protocol);
}

/* False: it did not begin. */
static bool prepare(struct sending *s) {
    const char *line[] = {s->headers.id, s->headers.timestamp, s->headers.signature,
                          "Content-Type: application/json", "Expect:"};
    CURL *c = s->easy = curl_easy_init();
    webhook_sign(&s->delivery, clock_wall_ns(), &s->headers);
    for (size_t i = 0; i < sizeof line / sizeof *line; i++) {
        struct curl_slist *longer = curl_slist_append(s->list, line[i]);
        if (longer == NULL)
            return false;
        s->list = longer;
    }
    if (c == NULL)
        return false;
    curl_easy_setopt(c, CURLOPT_PRIVATE, s);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(c, CURLOPT_NOPROXY, "*"); /* the address that is checked is the one that is reached */
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)TIMEOUT_MS);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, on_open);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, s);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_answer);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L); /* the next one is checked again */
    curl_easy_setopt(c, CURLOPT_USERAGENT, "unkai/" UNKAI_VERSION);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, s->list);
    curl_easy_setopt(c, CURLOPT_POSTFIELDS, s->delivery.body.p);
    curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)s->delivery.body.n);
    return curl_easy_setopt(c, CURLOPT_URL, s->delivery.url) == CURLE_OK &&
           curl_multi_add_handle(s->courier->multi, c) == CURLM_OK;
}

static void finish(struct sending *s) {
    if (!s->busy)
        return;
    if (s->easy != NULL) {
        curl_multi_remove_handle(s->courier->multi, s->easy);
        curl_easy_cleanup(s->easy);
    }
    curl_slist_free_all(s->list);
    buf_free(&s->delivery.body);
    *s = (struct sending){.courier = s->courier};
}

/* ---- the loop ---- */

/* On the writer's thread: what is due, into the slots that are free. */
static int take(struct cloud *c, void *context, struct error *e) {
    struct courier *k = context;
    struct delivery due[DELIVERIES];
    size_t n = 0, room = 0;
    for (size_t i = 0; i < DELIVERIES; i++)
        room += !k->slot[i].busy;
    int rc = deliveries_take(c, due, room, &n, &k->next, e);
    for (size_t i = 0; n > 0; i++)
        if (!k->slot[i].busy)
            k->slot[i] = (struct sending){.courier = k, .busy = true, .delivery = due[--n]};
    return rc;
}

static int record_one(struct cloud *c, const struct sending *s, struct error *e) {
    char note[80] = "it could not be tried";
    long status = 0;
    if (s->easy != NULL)
        curl_easy_getinfo(s->easy, CURLINFO_RESPONSE_CODE, &status);
    if (s->refused_address)
        snprintf(note, sizeof note, "its address is not public");
    else if (status > 0)
        snprintf(note, sizeof note, "HTTP %ld", status);
    else if (s->easy != NULL)
        snprintf(note, sizeof note, "%s", curl_easy_strerror(s->code));
    return delivery_record(c, &s->delivery,
                           status >= 200 && status < 300 ? DELIVERY_TAKEN
                           : status == 410               ? DELIVERY_GONE
                                                         : DELIVERY_REFUSED,
                           note, e);
}

/* On the writer's thread: how those went that have ended. */
static int record(struct cloud *c, void *context, struct error *e) {
    struct courier *k = context;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < DELIVERIES; i++)
        if (k->slot[i].ended)
            rc = record_one(c, &k->slot[i], e);
    return rc;
}

static bool see_ended(struct courier *k) {
    bool any = false;
    int left;
    for (CURLMsg *m; (m = curl_multi_info_read(k->multi, &left)) != NULL;) {
        struct sending *s;
        if (m->msg != CURLMSG_DONE || curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, &s) != CURLE_OK)
            continue;
        s->code = m->data.result;
        s->ended = true;
    }
    for (size_t i = 0; i < DELIVERIES; i++)
        any = any || k->slot[i].ended;
    return any;
}

/* What was refused since, into the books; while these are away it waits. */
static void write_refusals(struct cloud *c) {
    struct error e = {0};
    struct refused *list = refusals_take(c);
    if (list == NULL)
        return;
    if (journal_call(c, refusals_write, list, &e) != 0)
        refusals_put_back(c, list);
    else
        refusals_free(list);
}

static void begin_due(struct courier *k) {
    struct error e = {0};
    write_refusals(k->cloud);
    k->next = clock_wall_ns() + LATER;
    if (journal_call_harmless(k->cloud, take, k, &e) != 0)
        return; /* the books have stopped, and say so themselves */
    for (size_t i = 0; i < DELIVERIES; i++)
        if (k->slot[i].busy && k->slot[i].easy == NULL && !k->slot[i].ended)
            k->slot[i].ended = !prepare(&k->slot[i]);
}

static void end_ended(struct courier *k) {
    struct error e = {0};
    journal_call_harmless(k->cloud, record, k, &e);
    for (size_t i = 0; i < DELIVERIES; i++)
        if (k->slot[i].ended)
            finish(&k->slot[i]);
    k->next = 0; /* there may be more than there were slots for */
}

static void *courier_main(void *context) {
    struct courier *k = context;
    int running;
    while (!atomic_load(&k->stop)) {
        /* A clock that was set back must not have us wait for long. */
        if (atomic_exchange(&k->rung, false) || clock_wall_ns() >= k->next ||
            k->next > clock_wall_ns() + LATER)
            begin_due(k);
        if (curl_multi_perform(k->multi, &running) != CURLM_OK)
            log_warn("webhooks cannot be sent");
        if (see_ended(k)) {
            end_ended(k);
            continue;
        }
        int64_t wait = (k->next - clock_wall_ns()) / 1000000 + 1;
        curl_multi_poll(k->multi, NULL, 0, wait < 10 ? 10 : wait > 60000 ? 60000 : (int)wait, NULL);
    }
    write_refusals(k->cloud);
    for (size_t i = 0; i < DELIVERIES; i++) /* what is under way is due again in a minute */
        finish(&k->slot[i]);
    return NULL;
}

/* ---- beginning and end ---- */

int cloud_send_webhooks(struct cloud *c, bool within, struct error *e) {
    struct courier *k = calloc(1, sizeof *k);
    if (k == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || (k->multi = curl_multi_init()) == NULL) {
        free(k);
        return error_set(e, ERR_NO_MEMORY, "no memory for webhooks");
    }
    k->cloud = c;
    k->within = within;
    if (pthread_create(&k->thread, NULL, courier_main, k) != 0) {
        curl_multi_cleanup(k->multi);
        free(k);
        return error_set(e, ERR_NO_MEMORY, "cannot start the thread that sends webhooks");
    }
    pthread_mutex_lock(&c->lock);
    c->courier = k;
    pthread_mutex_unlock(&c->lock);
    return 0;
}

void courier_ring(struct cloud *c) {
    pthread_mutex_lock(&c->lock);
    if (c->courier != NULL) {
        atomic_store(&c->courier->rung, true);
        curl_multi_wakeup(c->courier->multi);
    }
    pthread_mutex_unlock(&c->lock);
}

void courier_stop(struct cloud *c) {
    pthread_mutex_lock(&c->lock);
    struct courier *k = c->courier;
    c->courier = NULL;
    pthread_mutex_unlock(&c->lock);
    if (k == NULL) {
        refusals_free(refusals_take(c));
        return;
    }
    atomic_store(&k->stop, true);
    curl_multi_wakeup(k->multi);
    pthread_join(k->thread, NULL);
    refusals_free(refusals_take(c));
    curl_multi_cleanup(k->multi);
    curl_global_cleanup();
    free(k);
}
