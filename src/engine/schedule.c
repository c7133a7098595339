/* The scheduler; see schedule.h. On the request's journey: the queue, and every step until the last token. */
#include "engine/schedule.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>

/* How far an account that comes back from idleness may stay behind the least served of those that were active, in chip time: about a prompt, so that who asks now and
 * then is read before, and not in turn with, who asks without end. Service that it really had counts, so it gains this once, however often it comes back. */
#define CREDIT_NS 1e9

/* A step with streams may take this long for the sake of prompts: 20 tokens a second. */
#define STEP_NS 50e6

/* ---- accounts ---- */

static struct account *find_account(struct schedule *s, uint64_t number) {
    struct account **at = &s->account[(number * 0x9E3779B97F4A7C15u) >> 54];
    for (; *at != NULL; at = &(*at)->next)
        if ((*at)->number == number)
            return *at;
    *at = calloc(1, sizeof **at);
    if (*at != NULL)
        (*at)->number = number;
    return *at;
}

/* Its weights are in memory, and for more than what runs already. */
static bool model_steps(const struct pool_model *m) {
    return m->residence.state == RESIDENT;
}

static bool model_starts(const struct pool_model *m) {
    return model_steps(m) && !m->residence.closing;
}

/* The least service among models that have work. */
static double least_model_service(const struct schedule *s) {
    double least = -1;
    for (size_t i = 0; i < s->models; i++)
        if (s->model[i].live != 0 && (least < 0 || s->model[i].service < least))
            least = s->model[i].service;
    return least;
}

void schedule_free(struct schedule *s) {
    for (size_t i = 0; i < sizeof s->account / sizeof *s->account; i++)
        for (struct account *a = s->account[i], *next; a != NULL; a = next) {
            next = a->next;
            free(a);
        }
}

int schedule_add(struct schedule *s, struct sequence *q) {
    struct account *a = find_account(s, q->account_number);
    if (a == NULL)
        return ERR_NO_MEMORY;
    double least_model = least_model_service(s);
    if (a->live++ == 0)
        a->service = fmax(a->service, s->level - CREDIT_NS);
    else
        s->weights -= a->weight;
    a->weight = q->weight; /* the latest counts */
    s->weights += a->weight;
    q->account = a;
    q->since = s->busy_ns;
    if (q->model->live++ == 0 && q->model->service < least_model)
        q->model->service = least_model;
    struct sequence **at = &q->model->first;
    while (*at != NULL)
        at = &(*at)->next;
    q->next = NULL;
    *at = q;
    return 0;
}

static void stop(struct schedule *s, struct sequence *q) {
    if (!q->started)
        return;
    s->started--;
    q->account->slots--;
    sequence_drop_pages(q, q->model->kv);
}

void schedule_remove(struct schedule *s, struct sequence *q) {
    struct sequence **at = &q->model->first;
    if (!q->started && !q->resumed)
        atomic_fetch_sub(&s->waiting, 1);
    stop(s, q);
    if (s->hungry == q)
        s->hungry = NULL;
    while (*at != q)
        at = &(*at)->next;
    *at = q->next;
    q->model->live--;
    if (--q->account->live == 0)
        s->weights -= q->account->weight;
}

/* ---- slots ---- */

static void preempt(struct schedule *s, struct sequence *q) {
    stop(s, q);
    q->model->preempted++;
}

/* Free memory for q: of those that are blocked or younger, the one that loses least. */
static bool preempt_for(struct schedule *s, const struct sequence *q) {
    struct sequence *victim = NULL;
    bool blocked = false;
    for (size_t i = 0; i < s->models; i++)
        for (struct sequence *v = s->model[i].first; v != NULL; v = v->next) {
            bool waits = sequence_blocked(v);
            if (v == q || !v->started || v->rows != 0 || (!waits && v->number < q->number))
                continue;
            if (victim == NULL || (waits && !blocked) || (waits == blocked && v->number > victim->number)) {
                victim = v;
                blocked = waits;
            }
        }
    if (victim != NULL)
        preempt(s, victim);
    return victim != NULL;
}

/* The slots that are a's by right. */
static uint32_t share(const struct schedule *s, const struct account *a) {
    uint64_t n = (uint64_t)s->max_running * a->weight / s->weights;
    return n ? (uint32_t)n : 1;
}

/* Should v rather than `best` give its slot to account a? One that waits for its client first, then the youngest of the account that holds most beyond its
 * share, when a has not its own. */
static bool gives_slot(const struct schedule *s, const struct account *a, const struct sequence *v,
                       const struct sequence *best) {
    bool waits = sequence_blocked(v), best_waits = best != NULL && sequence_blocked(best);
    if (!waits && (best_waits || a->slots >= share(s, a) || v->account == a ||
                   v->account->slots <= share(s, v->account)))
        return false;
    if (best == NULL || waits != best_waits)
        return true;
    return v->account->slots != best->account->slots ? v->account->slots > best->account->slots
                                                     : v->number > best->number;
}

/* Every slot is taken: somebody gives one up for account a, or not. */
static bool free_slot(struct schedule *s, const struct account *a) {
    struct sequence *victim = NULL;
    for (size_t i = 0; i < s->models; i++)
        for (struct sequence *v = s->model[i].first; v != NULL; v = v->next)
            if (v->started && gives_slot(s, a, v, victim))
                victim = v;
    if (victim != NULL)
        preempt(s, victim);
    return victim != NULL;
}

static bool less_served(const struct sequence *a, const struct sequence *b) {
    return a->account->service < b->account->service;
}

/* The least served account's first; of one account's, whichever has waited longest for what is left of its prompt. So a short prompt does not wait
 * behind a long one, the long one's turn comes all the same, and under too much work all are slowed alike, not all by the whole queue. (Highest response ratio
 * next: Brinch Hansen, 1971.) */
static bool goes_before(const struct schedule *s, const struct sequence *a, const struct sequence *b) {
    if (less_served(a, b) || less_served(b, a))
        return less_served(a, b);
    double x = (s->busy_ns - a->since) * (b->tokens - b->computed),
           y = (s->busy_ns - b->since) * (a->tokens - a->computed);
    return x != y ? x > y : a->number < b->number;
}

/* The same, and within an account strictly by age: what memory keeps out is not to be overtaken. */
static bool came_before(const struct sequence *a, const struct sequence *b) {
    return less_served(a, b) || (!less_served(b, a) && a->number < b->number);
}

/* The youngest that holds pages while it waits for its client. */
static struct sequence *youngest_blocked(const struct schedule *s) {
    struct sequence *youngest = NULL;
    for (size_t i = 0; i < s->models; i++)
        for (struct sequence *v = s->model[i].first; v != NULL; v = v->next)
            if (v->started && sequence_blocked(v) && (youngest == NULL || v->number > youngest->number))
                youngest = v;
    return youngest;
}

/* Is there memory for q without taking it from those that run? One page for each of them is left, for what they write next. Those that wait for their
 * clients give way: a client that does not read must not keep others out. */
static bool fits(struct schedule *s, const struct sequence *q) {
    uint32_t pages = q->tokens / KV_PAGE_TOKENS + 1;
    while (s->started != 0 && kv_available(q->model->kv) < pages + s->started) {
        struct sequence *blocked = youngest_blocked(s);
        if (blocked == NULL)
            return false;
        preempt(s, blocked);
    }
    return true;
}

/* Start what waits for m, the least served account first. What waits for a model to come back keeps nobody else out. */
static void start_waiting(struct schedule *s, struct pool_model *m) {
    if (s->hungry != NULL && !model_starts(s->hungry->model))
        s->hungry = NULL;
    while (model_starts(m)) {
        struct sequence *best = NULL;
        for (struct sequence *q = m->first; q != NULL; q = q->next)
            if (!q->started && !sequence_blocked(q) && (best == NULL || goes_before(s, q, best)))
                best = q;
        if (best != NULL && s->hungry != NULL && came_before(s->hungry, best))
            best = s->hungry->model == m && !sequence_blocked(s->hungry) ? s->hungry : NULL;
        if (best == NULL)
            return;
        if (!fits(s, best)) {
            s->hungry = best;
            return;
        }
        if (s->started >= s->max_running && !free_slot(s, best->account))
            return;
        if (s->hungry == best)
            s->hungry = NULL;
        best->started = true;
        best->account->slots++;
        s->started++;
        if (!best->resumed) {
            atomic_fetch_sub(&s->waiting, 1);
            sequence_start(best);
        }
    }
}

/* ---- rows ---- */

/* Pages for `rows` more tokens of q, fewer where memory is short, younger ones give way; how many tokens fit. */
static uint32_t make_room(struct schedule *s, struct sequence *q, uint32_t rows) {
    while (q->pages * KV_PAGE_TOKENS < q->computed + rows) {
        uint32_t page = kv_acquire(q->model->kv);
        if (page != KV_NO_PAGE)
            q->page[q->pages++] = page;
        else if (q->pages * KV_PAGE_TOKENS > q->computed)
            return q->pages * KV_PAGE_TOKENS - q->computed;
        else if (!preempt_for(s, q))
            return 0;
    }
    return rows;
}

static void add_rows(struct batch *b, struct sequence *q, uint32_t rows) {
    q->rows = rows;
    b->sequence[b->sequences++] = q;
    for (uint32_t i = 0; i < rows; i++) {
        bool logits = q->computed + i + 1 >= q->tokens || (q->prompt_logprobs && q->computed + i < q->prompt);
        b->logits += logits;
        b->row[b->rows++] = (struct forward_row){.token = q->token[q->computed + i],
                                                 .position = q->computed + i,
                                                 .page = q->page,
                                                 .want_logits = logits};
    }
}

/* Somebody computes the very page that q needs next, in this step: q will find it after that. One that stands still is not waited for. */
static bool comes_soon(const struct sequence *q) {
    for (const struct sequence *o = q->model->first; q->named && o != NULL; o = o->next)
        if (o != q && o->account == q->account && o->named && o->rows != 0 &&
            o->computed / KV_PAGE_TOKENS == q->computed / KV_PAGE_TOKENS &&
            hash_equal(&o->next_name, &q->next_name))
            return true;
    return false;
}

static bool add_prefill(struct schedule *s, struct batch *b, struct sequence *q, uint32_t budget) {
    if (sequence_find_pages(q, q->model->kv, q->model->prefill_row_ns * KV_PAGE_TOKENS) ||
        (!q->prompt_logprobs && comes_soon(q)))
        return false;
    uint32_t rows = q->tokens - q->computed;
    if (q->prompt_logprobs && rows > s->max_running - b->logits)
        rows = s->max_running - b->logits;
    if (rows > budget) { /* whole pages, so that others can share them */
        uint32_t past = (q->computed + budget) % KV_PAGE_TOKENS;
        rows = budget > past ? budget - past : budget;
    }
    rows = make_room(s, q, rows);
    if (rows != 0)
        add_rows(b, q, rows);
    return rows != 0;
}

/* Rows of prompts beside decoding ones: as many as make the step no more than three times as long, or STEP_NS, which no reader notices. */
static uint32_t prefill_budget(const struct batch *b) {
    const struct pool_model *m = b->model;
    if (b->rows == 0 || m->decode_ns == 0 || m->prefill_row_ns == 0)
        return b->rows == 0 ? BATCH_PREFILL : KV_PAGE_TOKENS;
    double rows = fmax(2 * m->decode_ns, STEP_NS - m->decode_ns) / m->prefill_row_ns;
    return rows < KV_PAGE_TOKENS ? KV_PAGE_TOKENS : rows > BATCH_PREFILL ? BATCH_PREFILL : (uint32_t)rows;
}

/* The sequences of m that may step, in order of age: there are no more than slots. */
static uint32_t choose(const struct pool_model *m, struct sequence *out[BATCH_SEQUENCES]) {
    uint32_t n = 0;
    for (struct sequence *q = m->first; q != NULL; q = q->next) {
        q->rows = q->drafted = 0;
        if (q->started && !sequence_blocked(q) && n < BATCH_SEQUENCES)
            out[n++] = q;
    }
    return n;
}

/* Guesses for sequences that decode: none beside prompts, whose rows keep the chip busy. */
static void plan_drafts(const struct schedule *s, struct pool_model *m, struct sequence *const *q,
                        uint32_t n) {
    struct draft draft[SPECULATE_ROWS];
    bool spare = kv_available(m->kv) > s->started; /* what the sequences write next comes first */
    if (!s->speculates || n > SPECULATE_ROWS)
        return;
    for (uint32_t i = 0; i < n; i++) {
        if (q[i]->tokens - q[i]->computed > 1)
            return;
        draft[i] = (struct draft){.lookup = &q[i]->lookup, .most = sequence_draft_room(q[i], spare)};
    }
    speculation_share(&m->speculation, draft, n);
    for (uint32_t i = 0; i < n; i++)
        q[i]->drafted = draft[i].tokens;
}

static void add_decode(struct schedule *s, struct batch *b, struct sequence *q) {
    uint32_t rows = make_room(s, q, 1 + q->drafted);
    if (rows == 0)
        return;
    q->drafted = rows - 1;
    b->drafted += q->drafted;
    lookup_draft(&q->lookup, q->token, q->drafted);
    add_rows(b, q, rows);
}

static void fill(struct schedule *s, struct batch *b) {
    struct sequence *q[BATCH_SEQUENCES];
    uint32_t n = choose(b->model, q);
    plan_drafts(s, b->model, q, n);
    for (uint32_t i = 0; i < n; i++)
        if (q[i]->started && q[i]->tokens - q[i]->computed == 1)
            add_decode(s, b, q[i]);
    uint32_t budget = prefill_budget(b);
    while (budget >= KV_PAGE_TOKENS || b->rows == 0) {
        struct sequence *best = NULL;
        uint32_t at = 0;
        for (uint32_t i = 0; i < n; i++)
            if (q[i] != NULL && q[i]->started && q[i]->rows == 0 && q[i]->tokens - q[i]->computed > 1 &&
                (best == NULL || goes_before(s, q[i], best))) {
                best = q[i];
                at = i;
            }
        if (best == NULL || b->logits >= s->max_running)
            return;
        q[at] = NULL;
        if (add_prefill(s, b, best, budget)) {
            b->prefill_rows += best->rows;
            budget -= best->rows < budget ? best->rows : budget;
        }
    }
}

bool schedule_next(struct schedule *s, struct batch *b) {
    bool tried[64] = {false};
    for (size_t round = 0; round < s->models; round++) {
        struct pool_model *m = NULL;
        size_t at = 0;
        for (size_t i = 0; i < s->models; i++)
            if (!tried[i] && s->model[i].live != 0 && model_steps(&s->model[i]) &&
                (m == NULL || s->model[i].service < m->service)) {
                m = &s->model[i];
                at = i;
            }
        if (m == NULL)
            return false;
        tried[at] = true;
        b->model = m;
        b->sequences = b->rows = b->prefill_rows = b->drafted = b->logits = 0;
        start_waiting(s, m);
        fill(s, b);
        if (b->rows != 0)
            return true;
    }
    return false;
}

/* Whoever waits for his clients saves up nothing: accounts and models that cannot go on are lifted to the least served of those that can. */
static void lift_blocked(struct schedule *s) {
    double account = INFINITY, model = INFINITY;
    for (size_t i = 0; i < s->models; i++) {
        struct pool_model *m = &s->model[i];
        for (const struct sequence *q = m->first; q != NULL; q = q->next)
            if (model_steps(m) && !sequence_blocked(q)) {
                m->ready = q->account->ready = s->steps;
                account = fmin(account, q->account->service);
            }
        if (m->ready == s->steps)
            model = fmin(model, m->service);
    }
    if (account < INFINITY)
        s->level = fmax(s->level, account);
    for (size_t i = 0; i < s->models; i++) {
        struct pool_model *m = &s->model[i];
        if (m->ready != s->steps && model < INFINITY)
            m->service = fmax(m->service, model);
        for (const struct sequence *q = m->first; q != NULL; q = q->next)
            if (q->account->ready != s->steps && account < INFINITY)
                q->account->service = fmax(q->account->service, account);
    }
}

void schedule_charge(struct schedule *s, struct batch *b, int64_t ns) {
    struct pool_model *m = b->model;
    double row_ns = (double)ns / b->rows;
    s->steps++;
    s->busy_ns += (double)ns;
    m->service += (double)ns;
    for (uint32_t i = 0; i < b->sequences; i++) {
        struct sequence *q = b->sequence[i];
        q->chip_ns += (int64_t)(row_ns * q->rows);
        q->account->service += row_ns * q->rows / q->account->weight;
    }
    if (b->prefill_rows == 0)
        speculation_see(&m->speculation, b->rows, b->drafted, (double)ns);
    m->drafted += b->drafted;
    if (b->prefill_rows == 0 && b->drafted == 0)
        m->decode_ns += ((double)ns - m->decode_ns) * (m->decode_ns == 0 ? 1 : 0.1);
    if (b->prefill_rows >= KV_PAGE_TOKENS) {
        double prefill = b->prefill_rows == b->rows ? (double)ns : (double)ns - m->decode_ns;
        double each = prefill > 0 ? prefill / b->prefill_rows : 0;
        m->prefill_row_ns += (each - m->prefill_row_ns) * (m->prefill_row_ns == 0 ? 1 : 0.1);
    }
    lift_blocked(s);
}
