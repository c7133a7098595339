/* What a sequence will say next, guessed from what it has said: prompt lookup (Saxena, 2023). A place in its tokens that was preceded by the same
 * ones is looked for, and what followed there is the guess. How often such guesses come true is learned at every token, whether anybody asked for one or not, for
 * each number of agreeing tokens apart (the expected acceptance of SuffixDecoding, Oliaro et al., arXiv 2411.04975), so that nothing has to be tried out
 * to know whether guessing pays. One a sequence; nothing is allocated after its creation. */
#ifndef ENGINE_LOOKUP_H
#define ENGINE_LOOKUP_H

#include "model/tokenizer.h"

#include <stdbool.h>

enum { LOOKUP_LENGTHS = 10 }; /* 0 to 8 agreeing tokens, and more */

struct lookup {
    uint32_t *head;   /* by the hash of two tokens: the place after their last occurrence; 0: none */
    uint32_t *before; /* [tokens] by place: the one before it with the same hash */
    bool *guessed;    /* [tokens] by place: the token there was guessed when it came */
    uint32_t mask;    /* number of heads, less one */
    uint32_t tokens;  /* so far */
    uint32_t from;    /* the place of the token that is guessed to come next; 0: no guess */
    uint32_t
        length; /* tokens before it that agree with the end of the sequence; 0: it only follows a wrong guess */
    /* That a guess comes true, by length. A token that was guessed before, like what stands between the values of a record, is guessed better than one
     * that was new. */
    float chance[2][LOOKUP_LENGTHS];
};

/* For a sequence of at most `most` tokens. ERR_NO_MEMORY. */
int lookup_create(struct lookup *l, size_t most);
void lookup_free(struct lookup *l);

/* token[n - 1] has come; from the first of the prompt on, one by one. */
void lookup_push(struct lookup *l, const token_id *token, uint32_t n);

/* The chance of guess i (from 0), given that those before it came true; 0 without a guess. */
double lookup_chance(const struct lookup *l, uint32_t i);
/* Write the next `guesses` tokens behind those that have come. */
void lookup_draft(const struct lookup *l, token_id *token, uint32_t guesses);

#endif
