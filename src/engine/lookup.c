/* The index of a sequence's own tokens; see lookup.h. Places whose two preceding tokens have the same hash are chained, the latest first, as in LZ77. */
#include "engine/lookup.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_HEADS = 1 << 16,
    MOST_PLACES = 16, /* looked at in a chain */
    MOST_LENGTH = 32, /* compared */
    ENOUGH = 4,       /* agreeing tokens, with which no other place is looked for */
};
static const float LEARNING = 1.0f / 8;
/* Before anything is known: few agreeing tokens must prove themselves first. */
static const float first_chance[2][LOOKUP_LENGTHS] = {
    {0.1f, 0.1f, 0.1f, 0.15f, 0.25f, 0.4f, 0.5f, 0.6f, 0.65f, 0.7f},
    {0.1f, 0.1f, 0.1f, 0.2f, 0.35f, 0.5f, 0.6f, 0.7f, 0.75f, 0.8f},
};

int lookup_create(struct lookup *l, size_t most) {
    uint32_t heads = 64;
    while (heads < most && heads < MOST_HEADS)
        heads *= 2;
    *l = (struct lookup){.mask = heads - 1};
    memcpy(l->chance, first_chance, sizeof first_chance);
    l->head = calloc(heads, sizeof *l->head);
    l->before = malloc((most + 1) * sizeof *l->before);
    l->guessed = malloc(most + 1);
    return l->head != NULL && l->before != NULL && l->guessed != NULL ? 0 : ERR_NO_MEMORY;
}

void lookup_free(struct lookup *l) {
    free(l->head);
    free(l->before);
    free(l->guessed);
}

static uint32_t row_of(uint32_t length) {
    return length < LOOKUP_LENGTHS ? length : LOOKUP_LENGTHS - 1;
}

/* Where what is known about the token at a place stands, when `length` tokens before it agree. */
static float *chance_of(struct lookup *l, uint32_t place, uint32_t length) {
    return &l->chance[l->guessed[place]][row_of(length)];
}

/* The place with the best chance among those that the last two tokens lead to, the latest among equals, if it is better than the present one. */
static void find(struct lookup *l, const token_id *token, uint32_t n, uint32_t place) {
    float best = l->from != 0 ? *chance_of(l, l->from, l->length) : 0;
    for (int i = 0; i < MOST_PLACES && place != 0; i++, place = l->before[place]) {
        uint32_t length = 0;
        while (length < MOST_LENGTH && length < place && token[place - 1 - length] == token[n - 1 - length])
            length++;
        float chance = *chance_of(l, place, length);
        if (length >= 2 && chance > best) {
            best = chance;
            l->from = place;
            l->length = length;
        }
    }
}

void lookup_push(struct lookup *l, const token_id *token, uint32_t n) {
    bool came_true = l->from != 0 && token[l->from] == token[n - 1];
    if (l->from != 0) {
        float *chance = chance_of(l, l->from, l->length);
        *chance += ((came_true ? 1.0f : 0.0f) - *chance) * LEARNING;
        l->from++; /* also after a wrong guess: the copy may go on behind the word that was changed */
        l->length = came_true ? l->length + 1 : 0;
    }
    l->guessed[n - 1] = came_true;
    l->tokens = n;
    if (n < 2)
        return;
    uint64_t pair = (uint64_t)(uint32_t)token[n - 2] << 32 | (uint32_t)token[n - 1];
    uint32_t *head = &l->head[(pair * 0x9E3779B97F4A7C15u >> 40) & l->mask];
    if (l->length < ENOUGH)
        find(l, token, n, *head);
    l->before[n] = *head;
    *head = n;
}

double lookup_chance(const struct lookup *l, uint32_t i) {
    if (l->from == 0)
        return 0;
    uint32_t place = l->from + i % (l->tokens - l->from); /* a text that repeats itself goes on doing so */
    return (double)l->chance[l->guessed[place]][row_of(l->length + i)];
}

void lookup_draft(const struct lookup *l, token_id *token, uint32_t guesses) {
    for (uint32_t i = 0; i < guesses; i++) /* may read what it wrote, likewise */
        token[l->tokens + i] = token[l->from + i];
}
