/* Signatures: Ed25519 (RFC 8032), from OpenSSL. */
#ifndef BASE_SIGN_H
#define BASE_SIGN_H

#include "base/buf.h"

enum { SIGN_KEY_BYTES = 32, SIGN_BYTES = 64 };

struct sign_secret {
    uint8_t byte[SIGN_KEY_BYTES]; /* any random bytes are a key */
};
struct sign_public {
    uint8_t byte[SIGN_KEY_BYTES];
};
struct signature {
    uint8_t byte[SIGN_BYTES];
};

/* False: OpenSSL has no Ed25519, or no memory. */
bool sign_public_of(const struct sign_secret *key, struct sign_public *out);
bool sign_data(const struct sign_secret *key, struct str data, struct signature *out);
/* Whether the holder of that key signed these bytes. */
bool sign_check(const struct sign_public *key, struct str data, const struct signature *s);

#endif
