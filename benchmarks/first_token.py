"""One process that loads a model and decodes a prompt; prints the milliseconds of each part as JSON.

usage: python -m benchmarks.first_token PROMPT
"""

from __future__ import annotations

import json
import sys
import time


def main(prompt: str) -> None:
    """Print the times."""
    start = time.perf_counter()
    import cyllama
    from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaSampler

    imported = time.perf_counter()
    model = LlamaModel(cyllama.models.get("smollm2-135m-instruct"))
    loaded = time.perf_counter()
    tokens = model.vocab.tokenize(prompt)
    ctx = LlamaContext(model, LlamaContextParams(n_ctx=len(tokens), n_batch=len(tokens)))
    sampler = LlamaSampler()
    sampler.add_greedy()
    ctx.decode(LlamaBatch.from_tokens(tokens))
    piece = model.vocab.token_to_bytes(sampler.sample(ctx, -1))
    end = time.perf_counter()
    assert piece
    times = {"import": imported - start, "model": loaded - imported, "first token": end - loaded}
    print(json.dumps({name: 1000 * value for name, value in times.items()} | {"load": 1000 * ctx.perf()["load"]}))


if __name__ == "__main__":
    main(sys.argv[1])
