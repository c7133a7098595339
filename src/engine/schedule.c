/* The scheduler; see schedule.h. On the request's journey: the queue, and every step until the last token. */
#include "engine/schedule.h"

#include "base/clock.h"

#include <math.h>
#include <stdlib.h>

/* How far an account that comes back from idleness may stay behind the least served of those that were active, in chip time: about a prompt, so that who asks now and
 * then is read before, and not in turn with, who asks without end. Service that it really had counts, so it gains this once, however often it comes back. */
#define CREDIT_NS 1e9

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
static bool model_starts(const struct pool_model *m) {
    return m->residence.state == RESIDENT && !m->residence.closing;
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
    if (a->live++ == 0)
        a->service = fmax(a->service, s->level - CREDIT_NS);
    else
        s->weights -= a->weight;
    a->weight = q->weight; /* the latest counts */
    s->weights += a->weight;
    q->account = a;
    q->model->live++;
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

/* What is left of q's prompt costs. */
static double left_ns(const struct sequence *q) {
    return (q->tokens - q->computed) * fmax(q->model->row_ns, 1);
}

/* The least served account's first; of one account's, whichever has waited longest for what is left of its prompt. So a short prompt does not wait
 * behind a long one, the long one's turn comes all the same, and under too much work all are slowed alike, not all by the whole queue. (Highest response ratio
 * next: Brinch Hansen, 1971.) */
bool schedule_before(const struct schedule *s, const struct sequence *a, const struct sequence *b) {
    if (less_served(a, b) || less_served(b, a))
        return less_served(a, b);
    double x = (double)(s->now - a->submitted) * left_ns(b), y = (double)(s->now - b->submitted) * left_ns(a);
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

/* The first in order of those that wait, whatever their model. What waits for a model to come back keeps nobody else out. */
static struct sequence *first_waiting(struct schedule *s) {
    struct sequence *best = NULL;
    if (s->hungry != NULL && !model_starts(s->hungry->model))
        s->hungry = NULL;
    for (size_t i = 0; i < s->models; i++)
        for (struct sequence *q = s->model[i].first; q != NULL && model_starts(&s->model[i]); q = q->next)
            if (!q->started && !sequence_blocked(q) && (best == NULL || schedule_before(s, q, best)))
                best = q;
    if (best != NULL && s->hungry != NULL && !sequence_blocked(s->hungry) && came_before(s->hungry, best))
        return s->hungry;
    return best;
}

static void start_waiting(struct schedule *s) {
    struct sequence *q;
    while ((q = first_waiting(s)) != NULL) {
        if (!fits(s, q)) {
            s->hungry = q;
            return;
        }
        if (s->started >= s->max_running && !free_slot(s, q->account))
            return;
        if (s->hungry == q)
            s->hungry = NULL;
        q->started = true;
        q->account->slots++;
        s->started++;
        if (!q->resumed) {
            atomic_fetch_sub(&s->waiting, 1);
            sequence_start(q);
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

static void add_rows(struct batch *b, struct sequence *q, uint32_t rows, uint64_t *context) {
    q->rows = rows;
    b->sequence[b->sequences++] = q;
    for (uint32_t i = 0; i < rows; i++) {
        bool logits = q->computed + i + 1 >= q->tokens || (q->prompt_logprobs && q->computed + i < q->prompt);
        b->logits += logits;
        b->row[b->rows++] = (struct forward_row){.token = q->token[q->computed + i],
                                                 .position = q->computed + i,
                                                 .page = q->page,
                                                 .want_logits = logits};
        *context += q->computed + i;
    }
    b->cost.rows = b->rows;
    b->cost.logits = b->logits;
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

/* As many rows of q's prompt as the turn has room for; whether there may be room for more. */
static bool add_prefill(struct schedule *s, struct batch *b, struct sequence *q) {
    if (sequence_find_pages(q, q->model->kv, q->model->row_ns * KV_PAGE_TOKENS) ||
        (!q->prompt_logprobs && comes_soon(q))) {
        q->stuck = s->steps + 1;
        return true;
    }
    uint32_t wanted = q->tokens - q->computed;
    if (q->prompt_logprobs && wanted > s->max_running - b->logits)
        wanted = s->max_running - b->logits;
    uint32_t rows = turn_rows(s, b, q, wanted);
    bool more = rows == wanted;
    if (!more && rows >= 2 * KV_PAGE_TOKENS) /* whole pages, so that others can share them */
        rows -= (q->computed + rows) % KV_PAGE_TOKENS;
    rows = rows != 0 ? make_room(s, q, rows) : 0;
    if (rows != 0)
        add_rows(b, q, rows, &b->cost.prefill_context);
    b->prefill_rows += rows;
    return more;
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
    speculation_share(&m->speculation, &m->cost, &m->turn.streams, draft, n);
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
    add_rows(b, q, rows, &b->cost.decode_context);
}

static void fill(struct schedule *s, struct batch *b) {
    struct sequence *q[BATCH_SEQUENCES];
    uint32_t n = choose(b->model, q);
    plan_drafts(s, b->model, q, n);
    for (uint32_t i = 0; i < n; i++)
        if (q[i]->started && q[i]->tokens - q[i]->computed == 1)
            add_decode(s, b, q[i]);
    for (;;) {
        struct sequence *best = NULL;
        uint32_t at = 0;
        for (uint32_t i = 0; i < n; i++)
            if (q[i] != NULL && q[i]->started && q[i]->rows == 0 && q[i]->tokens - q[i]->computed > 1 &&
                (best == NULL || schedule_before(s, q[i], best))) {
                best = q[i];
                at = i;
            }
        if (best == NULL || b->logits >= s->max_running || !add_prefill(s, b, best))
            return;
        q[at] = NULL;
    }
}

/* The next step of the model whose turn it is, or of another if that one can do nothing. */
static bool next_model(struct schedule *s, struct batch *b) {
    bool tried[ENGINE_MOST_MODELS] = {false};
    struct pool_model *m;
    while ((m = turn_next(s, tried)) != NULL) {
        tried[m - s->model] = true;
        b->model = m;
        b->sequences = b->rows = b->prefill_rows = b->drafted = b->logits = 0;
        b->cost = (struct cost_step){0};
        fill(s, b);
        if (b->rows != 0)
            return true;
    }
    return false;
}

bool schedule_next(struct schedule *s, struct batch *b, int64_t now) {
    s->now = now;
    start_waiting(s);
    turn_survey(s);
    if (next_model(s, b))
        return true;
    s->credit.limited = false; /* streams that cannot step keep no prompt waiting */
    return next_model(s, b);
}

/* Whoever waits for his clients saves up nothing: accounts that cannot go on are lifted to the least served of those that can. */
static void lift_blocked(struct schedule *s) {
    double least = INFINITY;
    for (size_t i = 0; i < s->models; i++)
        for (const struct sequence *q = s->model[i].first; q != NULL; q = q->next)
            if (s->model[i].residence.state == RESIDENT && !sequence_blocked(q)) {
                q->account->ready = s->steps;
                least = fmin(least, q->account->service);
            }
    if (least == INFINITY)
        return;
    s->level = fmax(s->level, least);
    for (size_t i = 0; i < s->models; i++)
        for (const struct sequence *q = s->model[i].first; q != NULL; q = q->next)
            if (q->account->ready != s->steps)
                q->account->service = fmax(q->account->service, least);
}

/* Whose time the step was, for the books. Streams and prompts take it in the relation of what each would cost without the other: a row of a prompt beside many streams is cheap
 * arithmetic, a stream's row reads the weights. Within both, each has its part of that cost. The parts sum to the step, to the nanosecond. */
static void share_time(struct batch *b, int64_t ns) {
    const struct cost *c = &b->model->cost;
    struct cost_step part[BATCH_SEQUENCES], all[2] = {{0}};
    const struct forward_row *row = b->row;
    double total = 0, upto = 0;
    int64_t given = 0;
    for (uint32_t i = 0; i < b->sequences; i++) {
        const struct sequence *q = b->sequence[i];
        bool reads = q->tokens - q->computed > 1;
        part[i] = (struct cost_step){.rows = q->rows};
        for (uint32_t r = 0; r < q->rows; r++, row++) {
            part[i].logits += row->want_logits;
            *(reads ? &part[i].prefill_context : &part[i].decode_context) += row->position;
        }
        all[reads].rows += part[i].rows;
        all[reads].logits += part[i].logits;
        all[reads].prefill_context += part[i].prefill_context;
        all[reads].decode_context += part[i].decode_context;
    }
    for (int i = 0; i < 2; i++)
        total += all[i].rows != 0 ? cost_part(c, &all[i], &all[i]) : 0;
    for (uint32_t i = 0; i < b->sequences; i++) {
        struct sequence *q = b->sequence[i];
        upto += cost_part(c, &all[q->tokens - q->computed > 1], &part[i]);
        int64_t end = i + 1 == b->sequences ? ns : (int64_t)((double)ns * fmin(upto / total, 1));
        q->chip_ns += end - given;
        q->prefill_ns += q->completion == 0 ? end - given : 0;
        given = end;
    }
}

void schedule_charge(struct schedule *s, struct batch *b, int64_t now, int64_t ns) {
    static const struct cost_step many = {.rows = BATCH_PREFILL};
    struct pool_model *m = b->model;
    double row_ns = (double)ns / b->rows;
    s->steps++;
    share_time(b, ns);
    for (uint32_t i = 0; i < b->sequences; i++) {
        struct sequence *q = b->sequence[i];
        q->account->service += row_ns * q->rows / q->account->weight;
        if (q->computed + q->rows >= q->tokens)
            q->waits_since = now;
    }
    m->drafted += b->drafted;
    turn_charge(s, b, (double)ns);
    cost_learn(&m->cost, &b->cost, (double)ns);
    m->row_ns = cost_predict(&m->cost, &many) / many.rows;
    lift_blocked(s);
}
