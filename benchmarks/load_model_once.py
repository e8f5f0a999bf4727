"""One process that loads a model and computes one token; prints seconds and MiB as JSON.

usage: python -m benchmarks.load_model_once FILE.gguf --load-mode none|mmap
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel, LlamaModelParams


def resident(name: str) -> float:
    """Return a line of /proc/self/status, in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(f"{name}:"))) / 1024


def main() -> None:
    """Load the model and print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--load-mode", default="mmap")
    chosen = parser.parse_args()
    start, cpu = time.perf_counter(), time.process_time()
    model = LlamaModel(chosen.model, LlamaModelParams(load_mode=chosen.load_mode))
    found = {"load": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    with LlamaContext(model, LlamaContextParams(n_ctx=256)) as context:
        context.decode(LlamaBatch.from_tokens([1]))
    found |= {
        "first": time.perf_counter() - start,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "own": resident("RssAnon"),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
