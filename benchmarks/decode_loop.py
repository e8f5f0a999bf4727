"""One process that decodes prompts and generates through the low-level API; prints tokens per second as JSON.

It does what llama-bench does: one test at a time, in a context of the size of the test, after a warm-up, and
nothing is printed inside of the timed loop. Beside that it picks each token (greedy), as a program would.

usage: python -m benchmarks.decode_loop --prompt N --generate N [--threads N] [--model NAME or FILE.gguf] [--seconds S]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import cyllama
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaSampler

SETTLE = 0.3  # seconds of warm-up, in which the thread team adapts its size


def read_prompt(model: LlamaModel, n_prompt: int, n_threads: int | None) -> float:
    """Return tokens per second of one batch."""
    params = LlamaContextParams(n_ctx=n_prompt, n_threads=n_threads, n_threads_batch=n_threads)
    with LlamaContext(model, params) as ctx:
        batch = LlamaBatch.from_tokens([(1 + 7919 * i) % model.n_vocab for i in range(n_prompt)])
        ctx.decode(batch)
        ctx.memory.clear()
        start = time.perf_counter()
        ctx.decode(batch)
        return n_prompt / (time.perf_counter() - start)


def generate(model: LlamaModel, n_generate: int, n_threads: int | None, limit: float | None) -> float:
    """Return tokens per second of decoding and sampling, for at most `limit` seconds."""
    params = LlamaContextParams(n_ctx=n_generate, n_threads=n_threads, n_threads_batch=n_threads)
    with LlamaContext(model, params) as ctx:
        sampler = LlamaSampler()
        sampler.add_greedy()
        batch = LlamaBatch.from_tokens([1])
        ctx.decode(batch)
        if limit is not None:
            settled = time.perf_counter() + SETTLE
            while time.perf_counter() < settled:
                ctx.memory.clear()
                ctx.decode(batch)
        token = sampler.sample(ctx, -1)
        ctx.memory.clear()
        start = time.perf_counter()
        end = start + (limit or 1e9)
        done = 0
        while done < n_generate and time.perf_counter() < end:
            batch.set_batch([token], done)
            ctx.decode(batch)
            token = sampler.sample(ctx, -1)
            done += 1
        return done / (time.perf_counter() - start)


def main() -> None:
    """Print the requested figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--prompt", type=int, default=0)
    parser.add_argument("--generate", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--seconds", type=float)
    chosen = parser.parse_args()
    path = Path(chosen.model)
    model = LlamaModel(path if path.suffix == ".gguf" else cyllama.models.get(chosen.model))
    found = {}
    if chosen.prompt:
        found["prompt"] = read_prompt(model, chosen.prompt, chosen.threads)
    if chosen.generate:
        found["generation"] = generate(model, chosen.generate, chosen.threads, chosen.seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
