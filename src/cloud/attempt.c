/* Failed authentications; see attempt.h. */
#include "cloud/attempt.h"

#include <string.h>

struct address attempt_source(const struct address *from) {
    static const uint8_t v4[12] = {[10] = 0xff, [11] = 0xff};
    struct address source = *from;
    if (memcmp(from, v4, sizeof v4) != 0)
        memset(source.byte + 8, 0, 8);
    return source;
}

static struct attempt *set_of(struct attempts *a, const struct address *source) {
    uint64_t half[2];
    memcpy(half, source, sizeof half);
    uint64_t h = (half[0] ^ a->secret[0]) * 0x9e3779b97f4a7c15u;
    h = (h ^ h >> 29 ^ half[1] ^ a->secret[1]) * 0xbf58476d1ce4e5b9u;
    return a->slot[(h ^ h >> 32) % ATTEMPT_SETS];
}

static struct attempt *find(struct attempts *a, const struct address *source) {
    struct attempt *set = set_of(a, source);
    for (int i = 0; i < ATTEMPT_WAYS; i++)
        if (memcmp(&set[i].from, source, sizeof *source) == 0)
            return &set[i];
    return NULL;
}

int64_t attempts_wait(struct attempts *a, const struct address *from, int64_t now) {
    struct address source = attempt_source(from);
    struct attempt *found = find(a, &source);
    return found != NULL && address_known(from) ? bucket_wait(&found->bucket, ATTEMPTS_MINUTE, 1, now) : 0;
}

/* A new address takes the place of the one of its set that has failed the least. */
void attempts_failed(struct attempts *a, const struct address *from, int64_t now) {
    struct address source = attempt_source(from);
    struct attempt *slot = find(a, &source);
    if (!address_known(from))
        return;
    if (slot == NULL) {
        struct attempt *set = set_of(a, &source);
        slot = set;
        for (int i = 1; i < ATTEMPT_WAYS; i++)
            if (set[i].bucket.full < slot->bucket.full)
                slot = &set[i];
        *slot = (struct attempt){.from = source};
    }
    bucket_take(&slot->bucket, ATTEMPTS_MINUTE, 1, now);
}
