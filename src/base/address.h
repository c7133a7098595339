/* Internet addresses and networks. Both families are one: an IPv4 address is kept as the IPv6 address that stands for it (::ffff:a.b.c.d, RFC 4291, 2.5.5.2). */
#ifndef BASE_ADDRESS_H
#define BASE_ADDRESS_H

#include "base/buf.h"
#include "base/error.h"

enum { ADDRESS_TEXT_BYTES = 46 };

struct address {
    uint8_t byte[16]; /* all 0: not known */
};

struct network {
    struct address address; /* 0 behind the prefix */
    uint8_t bits;           /* of the prefix, of 128 */
};

/* "192.0.2.7", "2001:db8::7"; no brackets, no port, no zone. */
bool address_parse(struct str text, struct address *out);
void address_write(const struct address *a, char text[ADDRESS_TEXT_BYTES]);
bool address_known(const struct address *a);
/* Somebody's on the internet: not this machine's, a private network's, a link's or a group's, and none that stands for another one (NAT64, 6to4, Teredo). */
bool address_public(const struct address *a);

/* "10.0.0.0/8", "2001:db8::/32", or one address. ERR_INVALID, also when there are bits behind the prefix. */
int network_parse(struct str text, struct network *out, struct error *e);
bool network_has(const struct network *n, const struct address *a);
void network_write(struct buf *out, const struct network *n);

#endif
