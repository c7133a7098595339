/* From logits to a token. The order of the steps is the one users of vLLM and llama.cpp know: bias and penalties on the logits, then temperature,
 * then top-k, top-p, min-p on the probabilities, then one draw from the request's own seeded generator. Greedy (temperature 0) takes the largest logit,
 * the lowest id among equals. */
#ifndef ENGINE_SAMPLER_H
#define ENGINE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sampling {
    float temperature;                         /* 0: greedy */
    float top_p, min_p;                        /* 1 and 0: off */
    int32_t top_k;                             /* 0 or -1: off */
    float presence_penalty, frequency_penalty; /* over the completion, as OpenAI defines them */
    float repetition_penalty;                  /* over prompt and completion, as vLLM; 1: off */
    uint64_t seed;
    const struct logit_bias {
        int32_t id;
        float bias;
    } * bias; /* ids in range and distinct */
    size_t biases;
};

struct sampler; /* one a sequence: generator and token counts */

/* What a choice works on: one for all sequences that are sampled in turn. */
struct candidate {
    float logit; /* later the probability, not yet normalised */
    int32_t id;
};

/* Copies s. NULL when there is no memory. */
struct sampler *sampler_create(const struct sampling *s, size_t vocab);
void sampler_free(struct sampler *s);
/* Tell it the tokens of the prompt (for the repetition penalty), then each token that was taken. */
void sampler_see(struct sampler *s, int32_t id, bool prompt);
/* Choose from logits[vocab], which are changed; space[vocab] is written to. */
int32_t sampler_choose(struct sampler *s, float *logits, struct candidate *space);

/* log-softmax of the raw logits: the logprob of `id` is returned, the `tops` best (<= 20) go to top_id and top_logprob, best first. */
float sampler_logprobs(const float *logits, size_t vocab, int32_t id, uint32_t tops, int32_t *top_id,
                       float *top_logprob);

#endif
