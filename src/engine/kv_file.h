/* The second tier of KV memory: a file that takes the pages memory had no room for, under the names they had, and gives them back. The file is a log that goes round: a page
 * is written after the last one, over the oldest. A thread of its own does all reading and writing; no call here waits for the disk, and what the disk is too slow for is
 * dropped. The file never has a name (or loses it at once), and what lies in it is sealed (base/seal.h), so nobody else reads it, then or later. Whatever
 * goes wrong with it costs cached pages, never a request. */
#ifndef ENGINE_KV_FILE_H
#define ENGINE_KV_FILE_H

#include "base/error.h"
#include "base/hash.h"
#include "chip/chip.h"
#include "model/tokenizer.h"

struct kv_file; /* used by the engine's thread, but for its own */

/* Open a file of `bytes` at most in the folder (made when absent); 0 bytes: a quarter of what is free there, at most 4 GiB. `wake` is called from the file's thread when a
 * page has come; it must not block. ERR_IO, ERR_NO_MEMORY. */
int kv_file_open(struct kv_file **out, const char *folder, uint64_t bytes, void (*wake)(void *context),
                 void *context, struct error *e);
/* Ends the thread; pages that are not written yet are lost. */
void kv_file_close(struct kv_file *f);
uint64_t kv_file_limit(const struct kv_file *f); /* bytes that it may hold */

/* What a page is known by: the pool it belongs to (a number never used again), its name, its tokens. */
struct kv_key {
    uint64_t pool;
    struct hash name;
    token_id token[KV_PAGE_TOKENS];
};

/* Keep a copy of the page. Dropped when too much waits to be written. */
void kv_file_put(struct kv_file *f, const struct kv_key *key, const void *page, size_t bytes);
/* Would kv_file_put keep a page of so many bytes now? */
bool kv_file_takes(struct kv_file *f, size_t bytes);

/* Give memory back that was needed for a while. */
void kv_file_trim(struct kv_file *f);

/* Is the page in the file, and would it be here in less than worth_ns, as long as reads take lately? */
bool kv_file_has(struct kv_file *f, const struct kv_key *key, size_t bytes, double worth_ns);
/* Begin to read the page into `to`, which must stay until kv_file_take has told of it under `number`. False: it is not in the file, or too many are under way. */
bool kv_file_get(struct kv_file *f, const struct kv_key *key, void *to, size_t bytes, uint32_t number);

struct kv_arrival {
    uint64_t pool;
    uint32_t number;
    bool whole; /* false: it could not be read, and the content is undefined */
};
/* The next page that has come; false: none. */
bool kv_file_take(struct kv_file *f, struct kv_arrival *out);

bool kv_file_reading(struct kv_file *f); /* pages are still to come */
bool kv_file_stuck(struct kv_file *f);   /* and have been for so long that nobody should wait */

/* A pool ends: forget its pages. Waits until none is being read any more. */
void kv_file_forget(struct kv_file *f, uint64_t pool);

struct kv_file_stats {
    uint64_t spilled, dropped; /* pages written; pages that were not, for want of speed or by an error */
    uint64_t restored, failed; /* pages read back; pages that could not be */
    uint64_t bytes;            /* of the pages that lie in the file now */
};
void kv_file_count(struct kv_file *f, struct kv_file_stats *out);

#endif
