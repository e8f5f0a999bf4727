// Sampling without the array of candidates, where the chain needs none.
#pragma once

#include "llama.h"

#include <algorithm>

namespace cyllama {

// True for a chain of the greedy sampler alone, if the backend has not sampled already.
inline bool is_greedy(llama_sampler * chain, llama_context * ctx, int32_t idx) {
    static const llama_sampler_i * greedy = [] {
        llama_sampler * sampler = llama_sampler_init_greedy();
        const auto *    iface   = sampler->iface;
        llama_sampler_free(sampler);
        return iface;
    }();
    return llama_sampler_chain_n(chain) == 1 && llama_sampler_chain_get(chain, 0)->iface == greedy &&
           llama_get_sampled_token_ith(ctx, idx) == LLAMA_TOKEN_NULL && !llama_get_sampled_probs_ith(ctx, idx) &&
           !llama_get_sampled_logits_ith(ctx, idx);
}

// The first of the largest logits.
inline llama_token first_largest(const float * logits, int32_t n_vocab) {
    constexpr int n_lanes = 16; // independent, so that no comparison waits for the one before
    float         best[n_lanes];
    std::fill_n(best, n_lanes, logits[0]);
    int32_t i = 0;
    for (; i + n_lanes <= n_vocab; i += n_lanes) {
        for (int j = 0; j < n_lanes; ++j) {
            best[j] = logits[i + j] > best[j] ? logits[i + j] : best[j];
        }
    }
    for (; i < n_vocab; ++i) {
        best[0] = logits[i] > best[0] ? logits[i] : best[0];
    }
    const float   largest = *std::max_element(best, best + n_lanes);
    const float * found   = std::find(logits, logits + n_vocab, largest);
    return found == logits + n_vocab ? 0 : found - logits; // nothing is larger than a first logit that is NaN
}

// As llama_sampler_sample, which copies all logits into an array of 12 bytes per token first.
inline llama_token sample_token(llama_sampler * chain, llama_context * ctx, int32_t idx) {
    if (!is_greedy(chain, ctx, idx)) {
        return llama_sampler_sample(chain, ctx, idx);
    }
    const llama_vocab * vocab = llama_model_get_vocab(llama_get_model(ctx));
    const llama_token   token = first_largest(llama_get_logits_ith(ctx, idx), llama_vocab_n_tokens(vocab));
    llama_sampler_accept(chain, token);
    return token;
}

} // namespace cyllama
