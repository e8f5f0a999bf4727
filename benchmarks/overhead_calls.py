"""One process that times cheap calls of the low-level API on a tiny model; prints microseconds per call as JSON.

usage: python -m benchmarks.overhead_calls SECONDS_PER_CALL REPETITIONS_OF_DECODE
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import cyllama
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaSampler

N_POSITIONS = 128
TEXT = "The quick brown fox jumps over the lazy dog, twice on Sundays."


def microseconds(call: Callable[[], object], seconds: float) -> float:
    """Return the time of one call: the median of blocks of many calls."""
    call()
    start = time.perf_counter()
    call()
    n_block = max(1, min(10_000, int(seconds / 20 / (time.perf_counter() - start))))
    blocks: list[float] = []
    end = start + seconds
    while not blocks or time.perf_counter() < end:
        start = time.perf_counter()
        for _ in range(n_block):
            call()
        blocks.append((time.perf_counter() - start) / n_block * 1e6)
    return statistics.median(blocks)


def decode_loop(ctx: LlamaContext, batch: LlamaBatch) -> Callable[[], None]:
    """Return one step of a generation that restarts when the context is full."""
    position = 0

    def step() -> None:
        nonlocal position
        if position == N_POSITIONS:
            ctx.memory.clear()
            position = 0
        batch.set_batch([500], position)
        ctx.decode(batch)
        position += 1

    ctx.memory.clear()
    return step


def microseconds_per_token(step: Callable[[], None], repetitions: int) -> float:
    """Return the time of one step: the median of fillings of the context, as llama-bench repeats them."""
    fillings = []
    for _ in range(repetitions + 1):
        start = time.perf_counter()
        for _ in range(N_POSITIONS):
            step()
        fillings.append((time.perf_counter() - start) / N_POSITIONS * 1e6)
    return statistics.median(fillings[1:])


def main(seconds: float, repetitions: int) -> None:
    """Print the times."""
    model = LlamaModel(cyllama.models.get("tiny-random-llama"))
    ctx = LlamaContext(model, LlamaContextParams(n_ctx=N_POSITIONS, n_threads=1, n_threads_batch=1))
    vocab = model.vocab
    sampler = LlamaSampler()
    sampler.add_greedy()
    batch = LlamaBatch.from_tokens([1])
    ctx.decode(batch)
    calls: dict[str, Callable[[], object]] = {
        "ctx.n_ctx()": ctx.n_ctx,
        "batch.set_batch([token], position)": lambda: batch.set_batch([500], 7),
        "vocab.token_to_bytes(token)": lambda: vocab.token_to_bytes(500),
        "vocab.tokenize(text)": lambda: vocab.tokenize(TEXT),
        "ctx.get_logits_ith(-1)": lambda: ctx.get_logits_ith(-1),
        "sampler.sample(ctx, -1)": lambda: sampler.sample(ctx, -1),
    }
    found = {name: microseconds(call, seconds) for name, call in calls.items()}
    found["decode"] = microseconds_per_token(decode_loop(ctx, batch), repetitions)
    print(json.dumps(found))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
