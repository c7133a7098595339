/* Internet addresses and networks; see address.h. */
#include "base/address.h"

#include <arpa/inet.h>
#include <string.h>

enum { V4_BITS = 96 }; /* in front of an IPv4 address */

static const uint8_t v4_prefix[V4_BITS / 8] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static bool is_v4(const struct address *a) {
    return memcmp(a->byte, v4_prefix, sizeof v4_prefix) == 0;
}

bool address_parse(struct str text, struct address *out) {
    char copy[ADDRESS_TEXT_BYTES];
    if (text.n >= sizeof copy || memchr(text.p, 0, text.n) != NULL)
        return false;
    memcpy(copy, text.p, text.n);
    copy[text.n] = 0;
    memcpy(out->byte, v4_prefix, sizeof v4_prefix);
    return inet_pton(AF_INET, copy, out->byte + sizeof v4_prefix) == 1 ||
           inet_pton(AF_INET6, copy, out->byte) == 1;
}

void address_write(const struct address *a, char text[ADDRESS_TEXT_BYTES]) {
    text[0] = 0;
    if (is_v4(a))
        inet_ntop(AF_INET, a->byte + sizeof v4_prefix, text, ADDRESS_TEXT_BYTES);
    else
        inet_ntop(AF_INET6, a->byte, text, ADDRESS_TEXT_BYTES);
}

bool address_known(const struct address *a) {
    static const struct address unknown;
    return memcmp(a, &unknown, sizeof unknown) != 0;
}

bool address_public(const struct address *a) {
    /* IANA's registries of special addresses, as far as no stranger is to be reached there. */
    static const char *const special[] = {
        "0.0.0.0/8",     "10.0.0.0/8",      "100.64.0.0/10",  "127.0.0.0/8",    "169.254.0.0/16",
        "172.16.0.0/12", "192.0.0.0/24",    "192.0.2.0/24",   "192.88.99.0/24", "192.168.0.0/16",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4",    "240.0.0.0/4",
        "::/96",         "64:ff9b::/96",    "64:ff9b:1::/48", "100::/64",       "2001::/23",
        "2001:db8::/32", "2002::/16",       "3fff::/20",      "5f00::/16",      "fc00::/7",
        "fe80::/10",     "fec0::/10",       "ff00::/8",
    };
    struct network n;
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        if (network_parse(str_from(special[i]), &n, NULL) == 0 && network_has(&n, a))
            return false;
    return true;
}

static int parse_bits(struct str text, unsigned most, unsigned *bits) {
    *bits = 0;
    for (size_t i = 0; i < text.n; i++) {
        if (text.p[i] < '0' || text.p[i] > '9' || i > 2)
            return -1;
        *bits = *bits * 10 + (unsigned)(text.p[i] - '0');
    }
    return text.n > 0 && *bits <= most ? 0 : -1;
}

/* What of a byte lies behind a prefix of `bits`. */
static uint8_t behind(unsigned bits, size_t byte) {
    return bits >= 8 * byte + 8 ? 0 : bits <= 8 * byte ? 0xff : (uint8_t)(0xff >> (bits - 8 * byte));
}

int network_parse(struct str text, struct network *out, struct error *e) {
    size_t slash = str_find(text, STR("/"), 0);
    struct str address = {text.p, slash < text.n ? slash : text.n};
    unsigned bits = 128;
    bool fits = address_parse(address, &out->address);
    unsigned before = fits && memchr(address.p, ':', address.n) == NULL ? V4_BITS : 0;
    if (fits && slash < text.n) {
        fits = parse_bits((struct str){text.p + slash + 1, text.n - slash - 1}, 128 - before, &bits) == 0;
        bits += before;
    }
    if (!fits)
        return error_set(e, ERR_INVALID, "'%.*s' is no network: write it like 10.0.0.0/8 or 2001:db8::/32",
                         (int)(text.n < 60 ? text.n : 60), text.p);
    for (size_t i = 0; i < sizeof out->address.byte; i++)
        if (out->address.byte[i] & behind(bits, i))
            return error_set(e, ERR_INVALID, "'%.*s' is no network: there are bits behind its prefix",
                             (int)(text.n < 60 ? text.n : 60), text.p);
    out->bits = (uint8_t)bits;
    return 0;
}

bool network_has(const struct network *n, const struct address *a) {
    for (size_t i = 0; i < sizeof a->byte; i++)
        if ((a->byte[i] ^ n->address.byte[i]) & ~behind(n->bits, i) & 0xff)
            return false;
    return true;
}

void network_write(struct buf *out, const struct network *n) {
    char text[ADDRESS_TEXT_BYTES];
    address_write(&n->address, text);
    buf_text(out, text);
    if (n->bits < 128)
        buf_printf(out, "/%d", is_v4(&n->address) && n->bits >= V4_BITS ? n->bits - V4_BITS : n->bits);
}
