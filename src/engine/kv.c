/* Pages and the prefix cache; see kv.h. The design of names follows vLLM's automatic prefix caching, with a secret in the hash. */
#include "engine/kv.h"

#include "engine/kv_file.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Bytes that one kv_copy_ahead copies, since a step waits for it; the share of the budget that is to be free, or unused and copied. */
enum { COPY_BYTES = 2 << 20, READY_SHARE = 4 };

struct page {
    uint32_t references;
    uint32_t older, newer; /* cached: in the list of unused pages; free: older is the next free one */
    uint32_t next;         /* of the same bucket */
    bool named;
    bool coming; /* it is read from the file, and the pool itself holds it */
    bool copied; /* the file has, or had, a copy */
    uint64_t used_at;
    struct hash name;
    token_id token[KV_PAGE_TOKENS];
};

struct kv {
    struct kv_budget *budget;
    struct kv *next;
    uint64_t number;
    char *base;
    size_t page_bytes;
    struct page *page;
    uint32_t pages, touched; /* all there can be; those that were ever used */
    uint32_t free,
        bare; /* lists of pages without content: those whose memory is still there, those whose was given back */
    uint32_t oldest, newest; /* named pages that nobody holds */
    uint32_t uncopied;       /* the oldest of them that is not copied */
    uint32_t *bucket, buckets;
    uint32_t held, cached, copied; /* copied: of the cached ones */
};

void kv_budget_start(struct kv_budget *b, size_t bytes) {
    *b = (struct kv_budget){.limit = bytes};
    random_bytes(b->secret, sizeof b->secret);
}

int kv_create(struct kv **out, struct kv_budget *b, struct chip_kv *layout, struct error *e) {
    size_t machine = (size_t)sysconf(_SC_PAGESIZE);
    struct kv *k = calloc(1, sizeof *k);
    *out = NULL;
    if (k == NULL)
        return error_set(e, ERR_NO_MEMORY, "no memory for KV pages");
    k->budget = b;
    k->page_bytes = (layout->page_bytes + machine - 1) / machine * machine;
    size_t pages = b->limit / k->page_bytes;
    k->pages = pages > (1u << 30) ? 1u << 30 : (uint32_t)pages;
    k->free = k->bare = k->oldest = k->newest = k->uncopied = KV_NO_PAGE;
    k->buckets = 16;
    while (k->buckets < k->pages)
        k->buckets *= 2;
    if (k->pages == 0) {
        free(k);
        return error_set(e, ERR_NO_MEMORY,
                         "%zu bytes of KV memory are less than one page of this model (%zu)", b->limit,
                         layout->page_bytes);
    }
    k->base = mmap(NULL, k->pages * k->page_bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    k->page = calloc(k->pages, sizeof *k->page);
    k->bucket = malloc(k->buckets * sizeof *k->bucket);
    if (k->base == MAP_FAILED || k->page == NULL || k->bucket == NULL) {
        if (k->base != MAP_FAILED)
            munmap(k->base, k->pages * k->page_bytes);
        free(k->page);
        free(k->bucket);
        free(k);
        return error_set(e, ERR_NO_MEMORY, "no memory for %u KV pages", (unsigned)pages);
    }
    memset(k->bucket, 0xFF, k->buckets * sizeof *k->bucket);
    k->number = b->pools++;
    k->next = b->first;
    b->first = k;
    layout->base = k->base;
    layout->page_bytes = k->page_bytes;
    *out = k;
    return 0;
}

void kv_free(struct kv *k) {
    if (k == NULL)
        return;
    if (k->budget->file != NULL)
        kv_file_forget(k->budget->file, k->number);
    for (struct kv **at = &k->budget->first; *at != NULL; at = &(*at)->next)
        if (*at == k) {
            *at = k->next;
            break;
        }
    size_t with_memory = 0;
    for (uint32_t p = k->free; p != KV_NO_PAGE; p = k->page[p].older)
        with_memory++;
    k->budget->used -= (size_t)(k->held + k->cached) * k->page_bytes;
    k->budget->resident -= (k->held + k->cached + with_memory) * k->page_bytes;
    munmap(k->base, k->pages * k->page_bytes);
    free(k->page);
    free(k->bucket);
    free(k);
}

/* ---- names ---- */

static uint32_t *bucket_of(struct kv *k, const struct hash *name) {
    uint32_t h;
    memcpy(&h, name->byte, sizeof h);
    return &k->bucket[h & (k->buckets - 1)];
}

struct hash kv_name(const struct kv *k, uint64_t account, const struct hash *previous,
                    const token_id *token) {
    struct {
        uint64_t account;
        struct hash previous;
        token_id token[KV_PAGE_TOKENS];
    } text = {.account = account};
    if (previous != NULL)
        text.previous = *previous;
    memcpy(text.token, token, sizeof text.token);
    return hash_hmac((struct str){(const char *)k->budget->secret, sizeof k->budget->secret},
                     (struct str){(const char *)&text, sizeof text});
}

static struct kv_key key_of(const struct kv *k, const struct hash *name, const token_id *token) {
    struct kv_key key = {.pool = k->number, .name = *name};
    memcpy(key.token, token, sizeof key.token);
    return key;
}

static char *memory_of(const struct kv *k, uint32_t page) {
    return k->base + page * k->page_bytes;
}

static uint32_t find(struct kv *k, const struct hash *name) {
    uint32_t p = *bucket_of(k, name);
    while (p != KV_NO_PAGE && memcmp(&k->page[p].name, name, sizeof *name) != 0)
        p = k->page[p].next;
    return p;
}

static void forget_name(struct kv *k, uint32_t page) {
    uint32_t *at = bucket_of(k, &k->page[page].name);
    while (*at != page)
        at = &k->page[*at].next;
    *at = k->page[page].next;
    k->page[page].named = false;
}

/* ---- the list of unused pages ---- */

static void list_add(struct kv *k, uint32_t page) {
    struct page *p = &k->page[page];
    p->older = k->newest;
    p->newer = KV_NO_PAGE;
    *(k->newest == KV_NO_PAGE ? &k->oldest : &k->page[k->newest].newer) = page;
    k->newest = page;
    k->cached++;
    k->copied += p->copied;
    if (!p->copied && k->uncopied == KV_NO_PAGE)
        k->uncopied = page;
}

static void skip_copied(struct kv *k) {
    while (k->uncopied != KV_NO_PAGE && k->page[k->uncopied].copied)
        k->uncopied = k->page[k->uncopied].newer;
}

static void list_remove(struct kv *k, uint32_t page) {
    struct page *p = &k->page[page];
    *(p->older == KV_NO_PAGE ? &k->oldest : &k->page[p->older].newer) = p->newer;
    *(p->newer == KV_NO_PAGE ? &k->newest : &k->page[p->newer].older) = p->older;
    k->cached--;
    k->copied -= p->copied;
    if (k->uncopied == page) {
        k->uncopied = p->newer;
        skip_copied(k);
    }
}

/* ---- pages ---- */

/* The pool with the page that has been unused longest; NULL: none is unused. */
static struct kv *oldest_unused(const struct kv_budget *b) {
    struct kv *from = NULL;
    for (struct kv *k = b->first; k != NULL; k = k->next)
        if (k->oldest != KV_NO_PAGE &&
            (from == NULL || k->page[k->oldest].used_at < from->page[from->oldest].used_at))
            from = k;
    return from;
}

/* To the file, which knows whether it has the page already. */
static void copy(struct kv *k, uint32_t page) {
    struct kv_key key = key_of(k, &k->page[page].name, k->page[page].token);
    kv_file_put(k->budget->file, &key, memory_of(k, page), k->page_bytes);
}

/* The pool's oldest unused page becomes empty; the file keeps what was in it. */
static void evict(struct kv *k) {
    uint32_t page = k->oldest;
    if (k->budget->file != NULL)
        copy(k, page);
    list_remove(k, page);
    forget_name(k, page);
    k->page[page].older = k->free;
    k->free = page;
    k->budget->used -= k->page_bytes;
}

/* The system gets the memory of an empty page back. */
static void give_back(struct kv *k) {
    uint32_t page = k->free;
    k->free = k->page[page].older;
    k->page[page].older = k->bare;
    k->bare = page;
    madvise(memory_of(k, page), k->page_bytes, MADV_DONTNEED);
    k->budget->resident -= k->page_bytes;
}

/* A page without content, one that has its memory if there is one. */
static uint32_t take_empty(struct kv *k) {
    uint32_t page = k->free;
    if (page != KV_NO_PAGE) {
        k->free = k->page[page].older;
        return page;
    }
    page = k->bare;
    if (page != KV_NO_PAGE)
        k->bare = k->page[page].older;
    else if (k->touched < k->pages)
        page = k->touched++;
    else
        return KV_NO_PAGE;
    struct kv_budget *b = k->budget;
    for (struct kv *other = b->first; other != NULL; other = other->next)
        while (other != k && other->free != KV_NO_PAGE && b->resident + k->page_bytes > b->limit)
            give_back(other);
    b->resident += k->page_bytes;
    return page;
}

uint32_t kv_acquire(struct kv *k) {
    struct kv_budget *b = k->budget;
    while (b->used + k->page_bytes > b->limit) {
        struct kv *from = oldest_unused(b);
        if (from == NULL)
            return KV_NO_PAGE;
        evict(from);
    }
    uint32_t page = take_empty(k);
    if (page == KV_NO_PAGE)
        return KV_NO_PAGE;
    b->used += k->page_bytes;
    k->page[page].references = 1;
    k->page[page].named = k->page[page].copied = false;
    k->held++;
    return page;
}

void kv_release(struct kv *k, uint32_t page) {
    struct page *p = &k->page[page];
    if (--p->references != 0)
        return;
    k->held--;
    p->used_at = ++k->budget->clock;
    if (p->named) {
        list_add(k, page);
        return;
    }
    p->older = k->free;
    k->free = page;
    k->budget->used -= k->page_bytes;
}

void kv_publish(struct kv *k, uint32_t page, const struct hash *name, const token_id *token) {
    struct page *p = &k->page[page];
    if (p->named || find(k, name) != KV_NO_PAGE)
        return;
    uint32_t *bucket = bucket_of(k, name);
    p->named = true;
    p->name = *name;
    memcpy(p->token, token, sizeof p->token);
    p->next = *bucket;
    *bucket = page;
}

uint32_t kv_find(struct kv *k, const struct hash *name, const token_id *token) {
    uint32_t page = find(k, name);
    if (page == KV_NO_PAGE || k->page[page].coming ||
        memcmp(k->page[page].token, token, sizeof k->page[page].token) != 0)
        return KV_NO_PAGE;
    if (k->page[page].references++ == 0) {
        list_remove(k, page);
        k->held++;
    }
    return page;
}

/* ---- pages in the file ---- */

bool kv_fetch(struct kv *k, const struct hash *name, const token_id *token, double worth_ns) {
    struct kv_file *file = k->budget->file;
    if (find(k, name) != KV_NO_PAGE)
        return true;
    struct kv_key key = key_of(k, name, token);
    if (file == NULL || !kv_file_has(file, &key, k->page_bytes, worth_ns))
        return false;
    uint32_t page = kv_acquire(k);
    if (page == KV_NO_PAGE)
        return false;
    /* What kv_acquire put in the file may have pushed it out. */
    if (!kv_file_get(file, &key, memory_of(k, page), k->page_bytes, page)) {
        kv_release(k, page);
        return false;
    }
    kv_publish(k, page, name, token);
    k->page[page].coming = true;
    return true;
}

bool kv_coming(struct kv *k, const struct hash *name) {
    uint32_t page = find(k, name);
    return page != KV_NO_PAGE && k->page[page].coming && !kv_file_stuck(k->budget->file);
}

void kv_collect(struct kv_budget *b) {
    struct kv_arrival a;
    while (b->file != NULL && kv_file_take(b->file, &a)) {
        struct kv *k = b->first;
        while (k != NULL && k->number != a.pool)
            k = k->next;
        if (k == NULL) /* it has been freed meanwhile */
            continue;
        k->page[a.number].coming = false;
        k->page[a.number].copied = a.whole;
        if (!a.whole)
            forget_name(k, a.number);
        kv_release(k, a.number);
    }
}

/* The pool with the page to copy next. */
static struct kv *oldest_uncopied(const struct kv_budget *b) {
    struct kv *from = NULL;
    for (struct kv *k = b->first; k != NULL; k = k->next)
        if (k->uncopied != KV_NO_PAGE &&
            (from == NULL || k->page[k->uncopied].used_at < from->page[from->uncopied].used_at))
            from = k;
    return from;
}

bool kv_copy_ahead(struct kv_budget *b) {
    size_t ready = b->limit - b->used, done = 0;
    for (const struct kv *k = b->first; k != NULL; k = k->next)
        ready += k->copied * k->page_bytes;
    while (b->file != NULL && ready < b->limit / READY_SHARE) {
        struct kv *k = oldest_uncopied(b);
        if (k == NULL)
            return false;
        if (done >= COPY_BYTES || !kv_file_takes(b->file, k->page_bytes))
            return true;
        copy(k, k->uncopied);
        k->page[k->uncopied].copied = true;
        k->copied++;
        skip_copied(k);
        ready += k->page_bytes;
        done += k->page_bytes;
    }
    return false;
}

bool kv_trim(struct kv_budget *b) {
    struct kv *k = b->file != NULL && kv_file_limit(b->file) >= b->limit ? oldest_unused(b) : NULL;
    bool room = true;
    while (k != NULL && k->page[k->oldest].used_at <= b->trimmed &&
           (room = kv_file_takes(b->file, k->page_bytes))) {
        evict(k);
        k = oldest_unused(b);
    }
    for (k = b->first; k != NULL; k = k->next)
        while (k->free != KV_NO_PAGE)
            give_back(k);
    if (b->file != NULL)
        kv_file_trim(b->file);
    if (room)
        b->trimmed = b->clock;
    return room;
}

uint32_t kv_pages(const struct kv *k) {
    return k->pages;
}

uint32_t kv_available(const struct kv *k) {
    size_t bytes = k->budget->limit - k->budget->used;
    for (const struct kv *other = k->budget->first; other != NULL; other = other->next)
        bytes += other->cached * other->page_bytes;
    size_t pages = bytes / k->page_bytes;
    return pages > k->pages - k->held ? k->pages - k->held : (uint32_t)pages;
}

void kv_count(const struct kv *k, uint64_t *held, uint64_t *cached) {
    *held += k->held;
    *cached += k->cached;
}
