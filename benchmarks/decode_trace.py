"""One process that generates for some seconds; prints the time and the team size of each token.

usage: python -m benchmarks.decode_trace SECONDS
It prints "ready" when the model is loaded, and at the end JSON: [seconds of the monotonic clock, threads] for
each token.
"""

from __future__ import annotations

import json
import sys
import time

import cyllama
from cyllama._native import threads_available
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaSampler

N_POSITIONS = 128  # then restart, so that the speed does not fall with the length


def main(seconds: float) -> None:
    """Generate and record the times."""
    model = LlamaModel(cyllama.models.get("smollm2-135m-instruct"))
    ctx = LlamaContext(model, LlamaContextParams(n_ctx=N_POSITIONS))
    sampler = LlamaSampler()
    sampler.add_greedy()
    batch = LlamaBatch.from_tokens([1])
    ctx.decode(batch)
    print("ready", flush=True)
    trace: list[tuple[float, int]] = []
    position, end = 1, time.monotonic() + seconds
    while time.monotonic() < end:
        if position == N_POSITIONS:
            ctx.memory.clear()
            position = 0
        batch.set_batch([sampler.sample(ctx, -1)], position)
        ctx.decode(batch)
        position += 1
        trace.append((time.monotonic(), threads_available()))
    print(json.dumps(trace))


if __name__ == "__main__":
    main(float(sys.argv[1]))
