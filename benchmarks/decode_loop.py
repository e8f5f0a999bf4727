"""One process: prompt and generation speed through the low-level API; prints JSON.

usage: python -m benchmarks.decode_loop N_PROMPT N_GENERATE [SECONDS]
"""

from __future__ import annotations

import json
import sys
import time

import cyllama
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaSampler


def main(n_prompt: int, n_generate: int) -> dict[str, float]:
    """Tokens per second, as llama-bench counts them: each part by itself, after a warm-up."""
    model = LlamaModel(cyllama.models.get("smollm2-135m-instruct"))
    ctx = LlamaContext(model, LlamaContextParams(n_ctx=max(n_prompt, n_generate) + 8, n_batch=2048))
    sampler = LlamaSampler()
    sampler.add_greedy()
    result = {}
    if n_prompt:
        batch = LlamaBatch.from_tokens([1] + [500] * (n_prompt - 1))
        ctx.decode(batch)
        ctx.memory.clear()
        start = time.perf_counter()
        ctx.decode(batch)
        result["prompt"] = n_prompt / (time.perf_counter() - start)
        ctx.memory.clear()
    batch = LlamaBatch.from_tokens([1])
    ctx.decode(batch)
    token = sampler.sample(ctx, -1)
    start = time.perf_counter()
    for position in range(1, n_generate + 1):
        batch.set_batch([token], position)
        ctx.decode(batch)
        token = sampler.sample(ctx, -1)
    result["generation"] = n_generate / (time.perf_counter() - start)
    return result


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), int(sys.argv[2]))))
