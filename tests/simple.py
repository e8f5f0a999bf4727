"""The original example: a greedy completion with the low-level API.

Run it as ``cd tests && python3 simple.py``; other prompts as ``python3 simple.py PROMPT N_PREDICT``.
"""

import sys

import cyllama
from cyllama import (
    CommonParams,
    LlamaBatch,
    LlamaContext,
    LlamaModel,
    LlamaSampler,
    common_batch_add,
    common_batch_clear,
    common_context_params_to_llama,
    common_model_params_to_llama,
    common_token_to_piece,
    common_tokenize,
    ggml_time_us,
    llama_backend_free,
    llama_backend_init,
    llama_numa_init,
    llama_sampler_chain_default_params,
)


def main(prompt: str = "The capital of France is", n_predict: int = 32) -> None:
    params = CommonParams()
    params.model = str(cyllama.models.get("smollm2-135m-instruct"))
    params.prompt = prompt
    params.n_predict = n_predict
    params.n_ctx = 512

    # total length of the sequence, including the prompt
    n_predict = params.n_predict

    llama_backend_init()
    llama_numa_init(params.numa)

    # the model
    model_params = common_model_params_to_llama(params)
    model = LlamaModel(path_model=params.model, params=model_params)

    # the context
    ctx_params = common_context_params_to_llama(params)
    ctx = LlamaContext(model=model, params=ctx_params)

    # the sampler
    sparams = llama_sampler_chain_default_params()
    sparams.no_perf = False
    smplr = LlamaSampler(sparams)
    smplr.add_greedy()

    # the prompt
    tokens_list = common_tokenize(ctx, params.prompt, True)
    n_ctx = ctx.n_ctx()
    n_kv_req = len(tokens_list) + n_predict
    if n_kv_req > n_ctx:
        raise SystemExit(f"n_kv_req ({n_kv_req}) > n_ctx ({n_ctx}): make n_ctx bigger")

    for token in tokens_list:
        print(common_token_to_piece(ctx, token), end="", flush=True)

    batch = LlamaBatch(n_tokens=512, embd=0, n_seq_max=1)
    for i, token in enumerate(tokens_list):
        common_batch_add(batch, token, i, [0], False)

    # decode() gives logits for the last token of the prompt only
    batch.set_last_logits_to_true()
    ctx.decode(batch)

    # the main loop
    n_cur = batch.n_tokens
    n_decode = 0
    t_main_start = ggml_time_us()

    while n_cur < n_kv_req:
        new_token_id = smplr.sample(ctx, batch.n_tokens - 1)
        smplr.accept(new_token_id)

        if model.token_is_eog(new_token_id):
            break

        print(common_token_to_piece(ctx, new_token_id), end="", flush=True)

        common_batch_clear(batch)
        common_batch_add(batch, new_token_id, n_cur, [0], True)
        n_decode += 1
        n_cur += 1
        ctx.decode(batch)

    seconds = (ggml_time_us() - t_main_start) / 1e6
    print(f"\n\ndecoded {n_decode} tokens in {seconds:.2f} s, speed: {n_decode / seconds:.2f} t/s")

    llama_backend_free()


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:3]))
