/* Text of a wanted number of tokens for any tokenizer: common words, drawn by a seed. What a word costs, and what the dialogue's template adds
 * around the words, is learnt from what the server itself counts. */
#ifndef BENCH_PROMPT_H
#define BENCH_PROMPT_H

#include "base/buf.h"

struct prompt_cost {
    double word;   /* tokens a word */
    double around; /* tokens of a dialogue without words */
};

/* Append n words of the endless text of (seed, stream): of two calls with the same text the shorter is the beginning of the longer. */
void prompt_words(struct buf *out, uint64_t seed, uint64_t stream, uint32_t n);

/* From two prompts that the server counted: words and tokens of each. */
struct prompt_cost prompt_cost(uint32_t few, uint32_t few_tokens, uint32_t many, uint32_t many_tokens);

/* How many words are this many tokens: at least 1. */
uint32_t prompt_count(const struct prompt_cost *c, double tokens);

#endif
