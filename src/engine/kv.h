/* KV memory: pages of KV_PAGE_TOKENS tokens, counted references, and the prefix cache. A full page is named by a keyed hash of its account, its predecessor's
 * name and its tokens; whoever comes with the same beginning finds it under that name. Pages that nobody holds keep their name and content until the
 * memory is wanted, the longest unused first; then a file keeps them, where there is one (kv_file.h), and gives them back. All models' pools draw on one
 * budget. Used by the engine's thread only. */
#ifndef ENGINE_KV_H
#define ENGINE_KV_H

#include "base/error.h"
#include "base/hash.h"
#include "chip/chip.h"
#include "model/tokenizer.h"

enum { KV_NO_PAGE = UINT32_MAX };

struct kv; /* the pages of one model */
struct kv_file;

/* What all pools share. */
struct kv_budget {
    size_t limit, used;               /* bytes; cached pages count as used */
    size_t resident;                  /* bytes that were touched and not given back to the system */
    unsigned char secret[HASH_BYTES]; /* of the names: a caller cannot make two prefixes meet */
    uint64_t clock;
    uint64_t trimmed; /* the clock at the last kv_trim */
    uint64_t pools;   /* there have been; a pool's number is the count before it */
    struct kv *first;
    struct kv_file *file; /* for pages that memory has no room for; borrowed; NULL: none */
};

void kv_budget_start(struct kv_budget *b, size_t bytes);

/* Reserve address space for as many pages as the budget allows; memory is taken when a page is first used. layout->page_bytes is rounded up to whole pages of the
 * machine, and layout->base set. */
int kv_create(struct kv **out, struct kv_budget *b, struct chip_kv *layout, struct error *e);
void kv_free(struct kv *k);

/* A page with one reference, its content undefined; KV_NO_PAGE when every page of the budget is held. */
uint32_t kv_acquire(struct kv *k);
/* Give one reference back. A named page stays findable until its memory is wanted. */
void kv_release(struct kv *k, uint32_t page);

/* The name of a page that holds `token` (KV_PAGE_TOKENS of them) after the page named `previous` (NULL: at the beginning). */
struct hash kv_name(const struct kv *k, uint64_t account, const struct hash *previous, const token_id *token);
/* The page is full and may be shared under its name. Another page of that name stays the known one. */
void kv_publish(struct kv *k, uint32_t page, const struct hash *name, const token_id *token);
/* Find a page by name and take a reference; its tokens are compared as well. */
uint32_t kv_find(struct kv *k, const struct hash *name, const token_id *token);

/* Is the page of that name in memory, or on its way there now from the file? It is sent for when that takes less than worth_ns. */
bool kv_fetch(struct kv *k, const struct hash *name, const token_id *token, double worth_ns);
/* It is on its way, and will be there, or not, after some kv_collect; not when reading is stuck. */
bool kv_coming(struct kv *k, const struct hash *name);
/* Pages that have come since the last call can be found. */
void kv_collect(struct kv_budget *b);
/* Copy some of the pages that would be evicted next to the file, so that evicting them costs nothing when many go at once. True: more are to be copied, but not all at
 * once. */
bool kv_copy_ahead(struct kv_budget *b);
/* Give memory that nobody needs back to the system: of pages without content, and, where a file takes all that memory holds, of pages unused since the last call but one
 * that returned true. False: the file takes no more at the moment. */
bool kv_trim(struct kv_budget *b);

uint32_t kv_pages(const struct kv *k);     /* at most */
uint32_t kv_available(const struct kv *k); /* that kv_acquire would give, one after the other */
void kv_count(const struct kv *k, uint64_t *held, uint64_t *cached);

#endif
