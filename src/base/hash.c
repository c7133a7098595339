/* Hashes and random bytes; see hash.h. */
/* The functions that OpenSSL 3 calls old: the new ones look SHA-256 up by its name each time, which takes longer than hashing a key. */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

enum { HMAC_BLOCK = 64 };

struct hash hash_sha256(struct str data) {
    struct hash h;
    SHA256((const unsigned char *)data.p, data.n, h.byte);
    return h;
}

static struct hash hash_two(const unsigned char block[HMAC_BLOCK], struct str data) {
    struct hash h;
    SHA256_CTX c;
    SHA256_Init(&c);
    SHA256_Update(&c, block, HMAC_BLOCK);
    SHA256_Update(&c, data.p, data.n);
    SHA256_Final(h.byte, &c);
    return h;
}

/* RFC 2104. */
struct hash hash_hmac(struct str secret, struct str data) {
    unsigned char inner[HMAC_BLOCK], outer[HMAC_BLOCK];
    struct hash key;
    if (secret.n > HMAC_BLOCK) {
        key = hash_sha256(secret);
        secret = (struct str){(const char *)key.byte, sizeof key.byte};
    }
    for (size_t i = 0; i < HMAC_BLOCK; i++) {
        unsigned char byte = i < secret.n ? (unsigned char)secret.p[i] : 0;
        inner[i] = byte ^ 0x36;
        outer[i] = byte ^ 0x5C;
    }
    struct hash h = hash_two(inner, data);
    return hash_two(outer, (struct str){(const char *)h.byte, sizeof h.byte});
}

int hash_file(struct hash *out, const char *path, struct error *e) {
    int rc = 0;
    char *chunk = malloc(1 << 18);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        rc = error_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO, "cannot open %s: %s", path,
                       strerror(errno));
        goto out;
    }
    if (chunk == NULL || ctx == NULL || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1) {
        rc = error_set(e, ERR_NO_MEMORY, "no memory to hash %s", path);
        goto out;
    }
    ssize_t n;
    while ((n = read(fd, chunk, 1 << 18)) > 0)
        EVP_DigestUpdate(ctx, chunk, (size_t)n);
    if (n < 0)
        rc = error_set(e, ERR_IO, "cannot read %s: %s", path, strerror(errno));
    EVP_DigestFinal_ex(ctx, out->byte, NULL);
out:
    if (fd >= 0)
        close(fd);
    EVP_MD_CTX_free(ctx);
    free(chunk);
    return rc;
}

void hash_hex(const struct hash *h, char out[HASH_HEX + 1]) {
    for (int i = 0; i < HASH_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", h->byte[i]);
}

bool hash_equal(const struct hash *a, const struct hash *b) {
    return CRYPTO_memcmp(a->byte, b->byte, HASH_BYTES) == 0;
}

void random_bytes(void *p, size_t n) {
    for (size_t done = 0; done < n;) {
        ssize_t got = getrandom((char *)p + done, n - done, 0);
        if (got < 0 && errno != EINTR)
            abort();
        done += got > 0 ? (size_t)got : 0;
    }
}
