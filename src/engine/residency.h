/* Which models' weights are in memory. All models of the pool are open, and their weights mapped; those in use are in memory, and of the others those that were used
 * last, as far as one limit for weights and KV pages together allows. A request for a model that is not there waits in its queue while a thread (loader.h) reads the
 * weights, and others step. Used by the engine's thread only; what it decides costs a look at each model, once a step. */
#ifndef ENGINE_RESIDENCY_H
#define ENGINE_RESIDENCY_H

#include "engine/forward.h"
#include "engine/loader.h"

struct pool_model;
struct kv_budget;

struct residence { /* of one model; all 0: its weights are in memory, and stay */
    enum residence_state { RESIDENT, COLD, LOADING, LEAVING } state; /* only a RESIDENT one may step */
    bool closing; /* nothing more starts on it: when what runs has ended, it makes room for another */
    bool busy;    /* it has a sequence that would step */
    bool tried;   /* it has been in memory before */
    struct extent extent[FORWARD_EXTENTS];
    uint32_t extents;
    size_t bytes; /* of all of them */
    int64_t wanted, loaded,
        used; /* when somebody asked for it in vain (0: nobody waits); when it came; when somebody last used it */
    uint64_t loads;
    int64_t load_ns; /* of all loads */
};

struct residency {
    size_t limit, used;         /* bytes; used: of models that are not COLD, and weights that no file has */
    const struct kv_budget *kv; /* pages take from the same limit */
    struct pool_model *model;
    size_t models;
    struct loader *loader;
    struct pool_model *moving; /* being read or dropped */
    int64_t moving_since;
    uint64_t evictions;
};

/* m, which is open, is the next of r->model. */
void residency_add(struct residency *r, struct pool_model *m);
/* Before the first residency_tend. The models come in, in their order, as far as there is room. The limit is raised where the largest model would not fit beside all KV pages; `strict`:
 * ERR_NO_MEMORY instead. */
int residency_start(struct residency *r, bool strict, struct error *e);
/* Between two steps: take note of who is used, of what the loader has done, and give it the next thing to do. Returns when to come again at the latest, though nothing has
 * happened; INT64_MAX: no need. */
int64_t residency_tend(struct residency *r, int64_t now);

#endif
