"""Complete a text with the low-level API: tokens, batches and samplers under llama.cpp's names."""

import cyllama

model = cyllama.LlamaModel(cyllama.models.get("smollm2-135m-instruct"))
ctx = cyllama.LlamaContext(model=model, params=cyllama.llama.LlamaContextParams(n_ctx=256))
sampler = cyllama.LlamaSampler(cyllama.llama_sampler_chain_default_params())
sampler.add_greedy()

tokens = cyllama.common_tokenize(ctx, "The capital of France is", True)
batch = cyllama.LlamaBatch(n_tokens=len(tokens), embd=0, n_seq_max=1)
for position, token in enumerate(tokens):
    cyllama.common_batch_add(batch, token, position, [0], position == len(tokens) - 1)
text = ""
for position in range(len(tokens), len(tokens) + 8):
    ctx.decode(batch)
    token = sampler.sample(ctx, -1)
    text += cyllama.common_token_to_piece(ctx, token)
    cyllama.common_batch_clear(batch)
    cyllama.common_batch_add(batch, token, position, [0], True)
print(text)
