/* Data that leaves the process's memory for a while and comes back: encrypted and authenticated by AES-256-GCM (NIST SP 800-38D, from OpenSSL) under a key that
 * is drawn when the seal is made and never leaves it. What was changed outside does not open; what is left outside after the process has ended, nobody
 * reads. */
#ifndef BASE_SEAL_H
#define BASE_SEAL_H

#include "base/buf.h"

enum { SEAL_TAG_BYTES = 16 };

struct seal; /* used by one thread at a time */

struct seal *seal_create(void); /* NULL: no memory */
void seal_free(struct seal *s);

/* Encrypt n bytes in place. `number` is used once in a seal's life. `bound` is not kept, but the data opens only together with it. False: not done, and
 * the data is undefined. */
bool seal_lock(struct seal *s, uint64_t number, struct str bound, void *data, size_t n,
               uint8_t tag[SEAL_TAG_BYTES]);
/* Decrypt in place what seal_lock made. False: it is not that, and the data is undefined. */
bool seal_open(struct seal *s, uint64_t number, struct str bound, void *data, size_t n,
               const uint8_t tag[SEAL_TAG_BYTES]);

#endif
