"""One process that multiplies weights with activations on the CPU backend; prints billions of products a second.

Weights are in the buffer type that a model's weights get: the first that can multiply them.

usage: python -m benchmarks.multiply_once VARIANT [--types T,...] [--shapes KxM,...] [--rows N,...] [--threads N]
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from ggml_graphs import F32, Graphs

from benchmarks.measure import library_folder

TYPES = {"f16": 1, "q4_0": 2, "q5_0": 6, "q8_0": 8, "q4_K": 12, "q5_K": 13, "q6_K": 14, "iq4_xs": 23, "q3_K": 11}
SECONDS = 0.15  # of each measurement


def speed(graphs: Graphs, kind: str, shape: tuple[int, int], n_rows: int, threads: int) -> float:
    """Return billions of multiplications a second."""
    for buffer_type in (*graphs.extra_buffer_types().values(), None):
        seconds = measure(graphs, buffer_type, kind, shape, n_rows, threads)
        if seconds is not None:
            return shape[0] * shape[1] * n_rows / seconds / 1e9
    raise ValueError(f"the CPU backend cannot multiply {kind} weights")


@functools.cache
def quantized(graphs: Graphs, kind: str, columns: int) -> np.ndarray[Any, Any]:
    """Return 64 rows of random weights."""
    values = np.random.default_rng(0).standard_normal((64, columns)).astype(np.float32)
    size = graphs.call("ggml_row_size", TYPES[kind], ctypes.c_int64(columns), result=ctypes.c_size_t)
    found = np.zeros(64 * size, np.uint8)
    counts = [ctypes.c_int64(n) for n in (0, 64, columns)]
    graphs.call("ggml_quantize_chunk", TYPES[kind], values.ctypes.data, found.ctypes.data, *counts, None)
    return found


def measure(
    graphs: Graphs, buffer_type: int | None, kind: str, shape: tuple[int, int], n_rows: int, threads: int
) -> float | None:
    """Return the seconds of a product, or None if weights in the buffer type cannot be multiplied."""
    columns, rows = shape
    random = np.random.default_rng(0)
    with graphs.context() as context:
        weights = graphs.tensor(context, TYPES[kind], columns, rows)
        source = graphs.tensor(context, F32, columns, n_rows)
        product = graphs.call("ggml_mul_mat", context, weights, source)
        buffers = [graphs.allocate(weights, buffer_type), graphs.allocate(source), graphs.allocate(product)]
        seconds = None
        if graphs.supports(product):
            size = graphs.call("ggml_nbytes", weights, result=ctypes.c_size_t)
            graphs.write(weights, np.resize(quantized(graphs, kind, columns), size))
            graphs.write(source, random.standard_normal((n_rows, columns)).astype(np.float32))
            seconds = repeat(graphs, graphs.graph(context, product), threads)
        for buffer in buffers:
            graphs.free(buffer)
    return seconds


def repeat(graphs: Graphs, graph: int, threads: int) -> float:
    """Return the median of the seconds of a graph."""
    # With one thread, time of other processes on this core does not count.
    clock = time.thread_time if threads == 1 else time.perf_counter
    graphs.compute(graph, threads)
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while time.perf_counter() < end or len(times) < 3:
        start = clock()
        graphs.compute(graph, threads)
        times.append(clock() - start)
    return float(np.median(times))


def main() -> None:
    """Print the speeds as JSON."""
    parser = argparse.ArgumentParser(usage=(__doc__ or "").rpartition("usage: ")[2])
    parser.add_argument("variant")
    parser.add_argument("--types", default="q4_K,q6_K")
    parser.add_argument("--shapes", default="2048x2048,2048x8192,8192x2048")
    parser.add_argument("--rows", default="1,4,256")
    parser.add_argument("--threads", type=int, default=1)
    chosen = parser.parse_args()
    graphs = Graphs(library_folder(), chosen.variant)
    found = {}
    for kind in chosen.types.split(","):
        for shape in chosen.shapes.split(","):
            columns, rows = map(int, shape.split("x"))
            for n in map(int, chosen.rows.split(",")):
                found[f"{kind} {shape} {n}"] = speed(graphs, kind, (columns, rows), n, chosen.threads)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
