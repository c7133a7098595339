/* Pages and the prefix cache; see kv.h. The design of names follows vLLM's automatic prefix caching, with a secret in the hash. */
#include "engine/kv.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct page {
    uint32_t references;
    uint32_t older, newer; /* cached: in the list of unused pages; free: older is the next free one */
    uint32_t next;         /* of the same bucket */
    bool named;
    uint64_t used_at;
    struct hash name;
    token_id token[KV_PAGE_TOKENS];
};

struct kv {
    struct kv_budget *budget;
    struct kv *next;
    char *base;
    size_t page_bytes;
    struct page *page;
    uint32_t pages, touched; /* all there can be; those that were ever used */
    uint32_t free,
        bare; /* lists of pages without content: those whose memory is still there, those whose was given back */
    uint32_t oldest, newest; /* named pages that nobody holds */
    uint32_t *bucket, buckets;
    uint32_t held, cached;
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
    k->free = k->bare = k->oldest = k->newest = KV_NO_PAGE;
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
}

static void list_remove(struct kv *k, uint32_t page) {
    struct page *p = &k->page[page];
    *(p->older == KV_NO_PAGE ? &k->oldest : &k->page[p->older].newer) = p->newer;
    *(p->newer == KV_NO_PAGE ? &k->newest : &k->page[p->newer].older) = p->older;
    k->cached--;
}

/* ---- pages ---- */

/* Take the memory of the page that has been unused longest, of whatever model; false: none is unused. */
static bool evict(struct kv_budget *b) {
    struct kv *from = NULL;
    for (struct kv *k = b->first; k != NULL; k = k->next)
        if (k->oldest != KV_NO_PAGE &&
            (from == NULL || k->page[k->oldest].used_at < from->page[from->oldest].used_at))
            from = k;
    if (from == NULL)
        return false;
    uint32_t page = from->oldest;
    list_remove(from, page);
    forget_name(from, page);
    from->page[page].older = from->free;
    from->free = page;
    b->used -= from->page_bytes;
    return true;
}

/* Give memory of other models' empty pages back until one page more of k stays inside the budget. */
static void give_back(struct kv_budget *b, const struct kv *k) {
    for (struct kv *o = b->first; o != NULL; o = o->next)
        while (o != k && o->free != KV_NO_PAGE && b->resident + k->page_bytes > b->limit) {
            uint32_t page = o->free;
            o->free = o->page[page].older;
            o->page[page].older = o->bare;
            o->bare = page;
            madvise(o->base + page * o->page_bytes, o->page_bytes, MADV_DONTNEED);
            b->resident -= o->page_bytes;
        }
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
    give_back(k->budget, k);
    k->budget->resident += k->page_bytes;
    return page;
}

uint32_t kv_acquire(struct kv *k) {
    struct kv_budget *b = k->budget;
    while (b->used + k->page_bytes > b->limit)
        if (!evict(b))
            return KV_NO_PAGE;
    uint32_t page = take_empty(k);
    if (page == KV_NO_PAGE)
        return KV_NO_PAGE;
    b->used += k->page_bytes;
    k->page[page].references = 1;
    k->page[page].named = false;
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
    if (page == KV_NO_PAGE || memcmp(k->page[page].token, token, sizeof k->page[page].token) != 0)
        return KV_NO_PAGE;
    if (k->page[page].references++ == 0) {
        list_remove(k, page);
        k->held++;
    }
    return page;
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
