/* AES-256-GCM with the call's number as its nonce; see seal.h. */
#include "base/seal.h"

#include "base/hash.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = 32, NONCE_BYTES = 12 };

struct seal {
    EVP_CIPHER_CTX *lock, *open; /* each keeps the expanded key */
};

struct seal *seal_create(void) {
    unsigned char key[KEY_BYTES];
    struct seal *s = calloc(1, sizeof *s);
    if (s == NULL)
        return NULL;
    s->lock = EVP_CIPHER_CTX_new();
    s->open = EVP_CIPHER_CTX_new();
    random_bytes(key, sizeof key);
    bool made = s->lock != NULL && s->open != NULL &&
                EVP_EncryptInit_ex(s->lock, EVP_aes_256_gcm(), NULL, key, NULL) == 1 &&
                EVP_DecryptInit_ex(s->open, EVP_aes_256_gcm(), NULL, key, NULL) == 1;
    OPENSSL_cleanse(key, sizeof key);
    if (!made) {
        seal_free(s);
        return NULL;
    }
    return s;
}

void seal_free(struct seal *s) {
    if (s == NULL)
        return;
    EVP_CIPHER_CTX_free(s->lock);
    EVP_CIPHER_CTX_free(s->open);
    free(s);
}

static void write_nonce(unsigned char nonce[NONCE_BYTES], uint64_t number) {
    memset(nonce, 0, NONCE_BYTES);
    memcpy(nonce, &number, sizeof number);
}

bool seal_lock(struct seal *s, uint64_t number, struct str bound, void *data, size_t n,
               uint8_t tag[SEAL_TAG_BYTES]) {
    unsigned char nonce[NONCE_BYTES], rest[16];
    int done;
    write_nonce(nonce, number);
    return n <= INT_MAX && bound.n <= INT_MAX && EVP_EncryptInit_ex(s->lock, NULL, NULL, NULL, nonce) == 1 &&
           EVP_EncryptUpdate(s->lock, NULL, &done, (const unsigned char *)bound.p, (int)bound.n) == 1 &&
           EVP_EncryptUpdate(s->lock, data, &done, data, (int)n) == 1 &&
           EVP_EncryptFinal_ex(s->lock, rest, &done) == 1 &&
           EVP_CIPHER_CTX_ctrl(s->lock, EVP_CTRL_GCM_GET_TAG, SEAL_TAG_BYTES, tag) == 1;
}

bool seal_open(struct seal *s, uint64_t number, struct str bound, void *data, size_t n,
               const uint8_t tag[SEAL_TAG_BYTES]) {
    unsigned char nonce[NONCE_BYTES], rest[16];
    int done;
    write_nonce(nonce, number);
    return n <= INT_MAX && bound.n <= INT_MAX && EVP_DecryptInit_ex(s->open, NULL, NULL, NULL, nonce) == 1 &&
           EVP_DecryptUpdate(s->open, NULL, &done, (const unsigned char *)bound.p, (int)bound.n) == 1 &&
           EVP_DecryptUpdate(s->open, data, &done, data, (int)n) == 1 &&
           EVP_CIPHER_CTX_ctrl(s->open, EVP_CTRL_GCM_SET_TAG, SEAL_TAG_BYTES, (void *)tag) == 1 &&
           EVP_DecryptFinal_ex(s->open, rest, &done) == 1;
}
