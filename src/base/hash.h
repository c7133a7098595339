/* Hashes and random bytes, from OpenSSL. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include "base/buf.h"
#include "base/error.h"

enum { HASH_BYTES = 32, HASH_HEX = 64 };

struct hash {
    uint8_t byte[HASH_BYTES];
};

struct hash hash_sha256(struct str data);
struct hash hash_hmac(struct str secret, struct str data); /* HMAC-SHA-256 */
int hash_file(struct hash *out, const char *path, struct error *e);
void hash_hex(const struct hash *h, char out[HASH_HEX + 1]);
bool hash_equal(const struct hash *a, const struct hash *b); /* in constant time */

/* n bytes from the operating system's generator; aborts the program when there are none. */
void random_bytes(void *p, size_t n);

#endif
