"""Multiply with the weights of test_kernels.py with one CPU variant, in a process of its own."""

from __future__ import annotations

import ctypes
import functools
import os
from typing import Any, NamedTuple

import numpy as np
from ggml_graphs import F32, Graphs
from kernel_processes import OURS, save_results

I32 = 26
TYPES = {"q4_K": 12, "q5_K": 13, "q6_K": 14, "iq4_xs": 23, "q4_0": 2, "q5_0": 6, "q8_0": 8, "q5_1": 7}
SERVED = ("q4_K", "q5_K", "q6_K", "iq4_xs", "q4_0", "q5_0", "q8_0")
LARGE_BLOCKS = ("q4_K", "q5_K", "q6_K", "iq4_xs")  # of 256 columns
Array = np.ndarray[Any, Any]


class Case(NamedTuple):
    """Rows and columns of the weights, and the rows of activations in up to three dimensions.

    With experts, the batch is the number of tokens and the experts for each.
    """

    rows: int
    columns: int
    batch: tuple[int, ...]
    layout: str = "contiguous"
    scale: float = 1.0
    experts: int = 0


CASES = {
    "one row": Case(16, 256, (1,)),
    "one row, many weights": Case(528, 1792, (1,)),
    "columns of no K type": Case(48, 864, (6,)),
    **{f"{n} rows": Case(80, 768, (n,)) for n in (2, 3, 4, 5, 6, 7, 8, 33)},
    "more rows than are kept": Case(32, 8448, (23,)),
    "three dimensions": Case(48, 512, (2, 3, 5)),
    "rows apart": Case(48, 512, (7,), "apart"),
    "transposed": Case(48, 512, (7,), "transposed"),
    "zeros": Case(32, 512, (5,), scale=0.0),
    "large": Case(32, 512, (5,), scale=1e30),
    "small": Case(32, 512, (5,), scale=1e-30),
    "largest sums": Case(16, 512, (5,), "largest"),
    "experts": Case(48, 512, (9, 2), experts=6),
    "experts, one token": Case(80, 512, (1, 3), experts=8),
    "experts with the same activations": Case(48, 512, (21, 2), "shared", experts=5),
    "rows of no panel": Case(51, 512, (5,)),
    "half a panel": Case(8, 512, (9,)),
    "rows of no panel in several tiles": Case(23, 8192, (40,)),
    "many rows": Case(80, 2304, (63,)),
    "many rows in three dimensions": Case(48, 512, (4, 3, 7)),
    "many rows apart": Case(48, 512, (41,), "apart"),
    "many rows, zeros": Case(32, 512, (32,), scale=0.0),
    "many rows, largest sums": Case(16, 512, (64,), "largest"),
    "more rows than tiles keep": Case(16, 1280, (805,)),
}
PAIRS = [
    (kind, label)
    for kind in SERVED
    for label in CASES
    if not (kind in LARGE_BLOCKS and (CASES[label].columns % 256 or CASES[label].rows % 16))
]
LOOKUP = [0, 50, 17, 17, 49, 3]  # in 51 rows
# A block with the largest values: d, dmin, scales and values of Q4_K and Q5_K; values, scales and d of Q6_K; else d
# (and the minimum or the scales) and values.
LARGEST = {
    "q4_K": b"\0\x3c\0\x3c" + b"\xff" * 140,
    "q5_K": b"\0\x3c\0\x3c" + b"\xff" * 172,
    "q6_K": b"\xff" * 192 + b"\x80" * 16 + b"\0\x3c",
    "iq4_xs": b"\0\x3c" + b"\0" * 134,
    "q4_0": b"\0\x3c" + b"\xff" * 16,
    "q5_0": b"\0\x3c" + b"\xff" * 20,
    "q8_0": b"\0\x3c" + b"\x80" * 32,
}


@functools.cache
def quantized(graphs: Graphs, kind: str, rows: int, columns: int) -> Array:
    """Return random weights; some blocks are zero."""
    random = np.random.default_rng(rows)
    values = (random.standard_normal((rows, columns)) * random.lognormal(0, 2, (rows, 1))).astype(np.float32)
    values[3, :256] = 0
    size = graphs.call("ggml_row_size", TYPES[kind], ctypes.c_int64(columns), result=ctypes.c_size_t)
    found = np.zeros(rows * size, np.uint8)
    counts = [ctypes.c_int64(n) for n in (0, rows, columns)]
    graphs.call("ggml_quantize_chunk", TYPES[kind], values.ctypes.data, found.ctypes.data, *counts, None)
    return found


def activations(graphs: Graphs, context: int, case: Case) -> tuple[int, int]:
    """Create the tensor of the activations; return what is multiplied and what is allocated."""
    if case.layout == "transposed":
        whole = graphs.tensor(context, F32, case.batch[0], case.columns)
        return graphs.call("ggml_transpose", context, whole), whole
    if case.layout == "apart":
        whole = graphs.tensor(context, F32, case.columns + 8, case.batch[0])
        counts = [ctypes.c_int64(n) for n in (case.columns, case.batch[0])]
        stride = ctypes.c_size_t(4 * (case.columns + 8))
        return graphs.call("ggml_view_2d", context, whole, *counts, stride, ctypes.c_size_t(16)), whole
    batch = (case.batch[0], 1) if case.layout == "shared" else case.batch
    whole = graphs.tensor(context, F32, case.columns, *reversed(batch))
    return whole, whole


def experts_of(case: Case) -> Array:
    """Return the experts of each token; the last expert is not used."""
    random = np.random.default_rng(2)
    n_tokens, n_used = case.batch
    return np.array([random.permutation(case.experts - 1)[:n_used] for _ in range(n_tokens)], np.int32)


def product(graphs: Graphs, kind: str, case: Case, buffer_type: int | None, threads: int) -> Array:
    """Return the product of weights in a buffer type with activations."""
    with graphs.context() as context:
        matrices = (case.experts,) if case.experts else ()
        weights = graphs.tensor(context, TYPES[kind], case.columns, case.rows, *matrices)
        source, whole = activations(graphs, context, case)
        buffers = [graphs.allocate(weights, buffer_type), graphs.allocate(whole)]
        if source != whole:
            graphs.call("ggml_backend_view_init", source, result=ctypes.c_int)
        if case.layout == "transposed" and buffer_type is None:  # ggml's own products need rows without gaps
            source = graphs.call("ggml_cont", context, source)
            buffers.append(graphs.allocate(source))
        if case.experts:
            chosen = graphs.tensor(context, I32, *reversed(case.batch))
            buffers.append(graphs.allocate(chosen))
            graphs.write(chosen, experts_of(case))
            result = graphs.call("ggml_mul_mat_id", context, weights, source, chosen)
        else:
            result = graphs.call("ggml_mul_mat", context, weights, source)
        buffers.append(graphs.allocate(result))
        assert graphs.supports(result)
        count = graphs.call("ggml_nelements", whole, result=ctypes.c_int64)
        if case.layout == "largest":
            size = graphs.call("ggml_nbytes", weights, result=ctypes.c_size_t)
            data = np.frombuffer(LARGEST[kind] * (size // len(LARGEST[kind])), np.uint8)
            values = np.ones(count)
        else:
            data = quantized(graphs, kind, case.rows * max(case.experts, 1), case.columns)
            values = np.random.default_rng(1).standard_normal(count)
        graphs.write(weights, data)
        graphs.write(whole, (values * case.scale).astype(np.float32))
        graphs.compute(graphs.graph(context, result), threads)
        found = graphs.read(result, (*case.batch, case.rows), np.float32)
        for buffer in buffers:
            graphs.free(buffer)
    return found


def lookup(graphs: Graphs, kind: str, buffer_type: int | None, threads: int) -> Array:
    """Return rows of weights in a buffer type."""
    with graphs.context() as context:
        weights = graphs.tensor(context, TYPES[kind], 512, 51)
        indices = graphs.tensor(context, 26, len(LOOKUP))
        result = graphs.call("ggml_get_rows", context, weights, indices)
        buffers = [graphs.allocate(weights, buffer_type), graphs.allocate(indices), graphs.allocate(result)]
        assert graphs.supports(result)
        graphs.write(weights, quantized(graphs, kind, 51, 512))
        graphs.write(indices, np.array(LOOKUP, np.int32))
        graphs.compute(graphs.graph(context, result), threads)
        found = graphs.read(result, (len(LOOKUP), 512), np.float32)
        for buffer in buffers:
            graphs.free(buffer)
    return found


def is_served(graphs: Graphs, buffer_type: int, kind: str, rows: int, experts: int = 0, name: str = "w") -> bool:
    """Return whether weights in the buffer type can be multiplied; `experts` is the number of matrices."""
    with graphs.context() as context:
        shape = (512, rows, experts) if experts else (512, rows)
        weights = graphs.tensor(context, TYPES[kind], *shape)
        graphs.call("ggml_set_name", weights, name.encode())
        if experts:
            source, chosen = graphs.tensor(context, F32, 512, 1, 3), graphs.tensor(context, I32, 2, 3)
            result = graphs.call("ggml_mul_mat_id", context, weights, source, chosen)
        else:
            result = graphs.call("ggml_mul_mat", context, weights, graphs.tensor(context, F32, 512, 3))
        buffer = graphs.allocate(weights, buffer_type)
        found = graphs.supports(result)
        graphs.free(buffer)
    return found


def results(graphs: Graphs, threads: int) -> dict[str, Any]:
    """Return the products of all cases."""
    buffer_type = graphs.extra_buffer_types().get(OURS)
    found: dict[str, Any] = {"has_kernels": np.array(buffer_type is not None)}
    if buffer_type is None:
        return found
    kinds = [name for name in SERVED if is_served(graphs, buffer_type, name, 32)]
    found["kinds"] = kinds
    for name in kinds:
        for label in [label for kind, label in PAIRS if kind == name]:
            case = CASES[label]
            found[f"{name} {label}"] = product(graphs, name, case, buffer_type, threads)
            if os.environ["CYLLAMA_KERNELS"] == "reference":
                found[f"{name} {label}, upstream"] = product(graphs, name, case, None, threads)
        if name not in LARGE_BLOCKS:
            found[f"rows of {name}"] = lookup(graphs, name, buffer_type, threads)
            found[f"rows of {name}, upstream"] = lookup(graphs, name, None, threads)
        many = Case(80, 768, (520,))
        found[f"{name} reordered"] = product(graphs, name, many, buffer_type, threads)
        found[f"{name} in ggml's format"] = product(graphs, name, many, None, threads)
    found["served"] = is_served(graphs, buffer_type, "q4_K", 32)
    found["odd rows"] = is_served(graphs, buffer_type, "q4_K", 40)
    found["another type"] = is_served(graphs, buffer_type, "q5_1", 32)
    for kind in ("q4_K", "q8_0"):
        found[f"embeddings {kind}"] = is_served(graphs, buffer_type, kind, 32, name="token_embd.weight")
    found["experts"] = is_served(graphs, buffer_type, "q4_K", 32, experts=4)
    found["experts of odd rows"] = is_served(graphs, buffer_type, "q4_K", 40, experts=4)
    return found


if __name__ == "__main__":
    save_results(results)
