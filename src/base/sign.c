/* Signatures; see sign.h. */
#include "base/sign.h"

#include <openssl/evp.h>

bool sign_public_of(const struct sign_secret *key, struct sign_public *out) {
    size_t n = sizeof out->byte;
    EVP_PKEY *pair = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key->byte, sizeof key->byte);
    bool ok = pair != NULL && EVP_PKEY_get_raw_public_key(pair, out->byte, &n) == 1 && n == sizeof out->byte;
    EVP_PKEY_free(pair);
    return ok;
}

bool sign_data(const struct sign_secret *key, struct str data, struct signature *out) {
    size_t n = sizeof out->byte;
    EVP_PKEY *pair = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key->byte, sizeof key->byte);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = pair != NULL && ctx != NULL && EVP_DigestSignInit(ctx, NULL, NULL, NULL, pair) == 1 &&
              EVP_DigestSign(ctx, out->byte, &n, (const unsigned char *)data.p, data.n) == 1 &&
              n == sizeof out->byte;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pair);
    return ok;
}

bool sign_check(const struct sign_public *key, struct str data, const struct signature *s) {
    EVP_PKEY *public = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key->byte, sizeof key->byte);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool ok = public != NULL && ctx != NULL && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, public) == 1 &&
              EVP_DigestVerify(ctx, s->byte, sizeof s->byte, (const unsigned char *)data.p, data.n) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(public);
    return ok;
}
