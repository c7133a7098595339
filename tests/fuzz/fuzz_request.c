/* A request body from anybody, through both parsers. The first byte chooses the endpoint, so that both keep one corpus. */
#include "gateway/ask.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct ask ask;
    struct error e;
    if (size == 0)
        return 0;
    int rc = openai_parse(&ask, data[0] & 1, (struct str){(const char *)data + 1, size - 1}, &e);
    if (rc == 0) {
        /* What is accepted is within the bounds that the rest relies on. */
        bool right = ask.n >= 1 && ask.n <= ASK_MAX_CHOICES && ask.prompts >= 1 &&
                     ask.prompts <= ASK_MAX_PROMPTS && ask.stops <= ASK_MAX_STOPS &&
                     ask.sampling.biases <= ASK_MAX_BIASES && ask.top_logprobs <= ASK_MAX_LOGPROBS &&
                     ask.model.n > 0 && ask.sampling.temperature >= 0 && ask.sampling.top_p > 0 &&
                     (ask.chat || ask.max_tokens > 0 || ask.echo);
        for (size_t i = 0; i < ask.sampling.biases; i++)
            right = right && ask.sampling.bias[i].id >= 0;
        if (!right)
            __builtin_trap();
    }
    ask_free(&ask);
    return 0;
}
