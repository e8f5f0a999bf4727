"""Compute the products and convolutions of test_float_kernels.py with one CPU variant, in a process of its own."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from ggml_graphs import F32, Graphs
from kernel_processes import OURS, save_results

F16 = 1
TYPES = {np.dtype(np.float32): F32, np.dtype(np.float16): F16}
Array = np.ndarray[Any, Any]


class Product(NamedTuple):
    """The rows of both matrices, their columns, and the type of the second one."""

    first: int
    second: int
    columns: int
    kind: Any = np.float32


class Convolution(NamedTuple):
    """Width, height, channels, channels of the result, side of the weights, and the engine's four numbers."""

    width: int
    height: int
    channels: int
    results: int
    side: int = 3
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    images: int = 1


PRODUCTS = {
    "fewest": Product(32, 32, 32),
    "odd rows": Product(125, 131, 264),
    "odd rows of halves": Product(131, 125, 264, np.float16),
    "more rows in the second": Product(60, 700, 72, np.float16),
    "more rows in the first": Product(700, 60, 72),
    "several blocks of columns": Product(113, 63, 1096),
    "few rows": Product(64, 3, 64),
    "rows that leave most of a panel empty": Product(33, 64, 64),
}
CONVOLUTIONS = {
    "odd sizes": Convolution(17, 9, 5, 7),
    "whole panels": Convolution(64, 64, 16, 130),
    "many channels": Convolution(32, 8, 40, 401),
    "stride": Convolution(33, 20, 8, 12, stride=2),
    "no padding": Convolution(34, 11, 3, 20, padding=0),
    "single weights": Convolution(24, 24, 48, 33, side=1, padding=0),
    "dilation": Convolution(40, 24, 6, 16, padding=2, dilation=2),
    "wide padding": Convolution(6, 3, 4, 9, side=5, padding=4),
    "several images": Convolution(16, 12, 9, 10, images=3),
    "one line": Convolution(200, 1, 6, 8),
}
OPERATIONS = ("ggml_add", "ggml_sub", "ggml_mul", "ggml_div")


def product_inputs(case: Product) -> tuple[Array, Array]:
    random = np.random.default_rng(case.columns)
    first = random.standard_normal((case.first, case.columns)).astype(np.float16)
    return first, random.standard_normal((case.second, case.columns)).astype(case.kind)


def convolution_inputs(case: Convolution) -> tuple[Array, Array]:
    random = np.random.default_rng(case.width)
    weights = random.standard_normal((case.results, case.channels, case.side, case.side)).astype(np.float16)
    image = random.standard_normal((case.images, case.channels, case.height, case.width)).astype(np.float32)
    return weights, image


def operation_inputs() -> tuple[Array, Array]:
    random = np.random.default_rng(0)
    return random.standard_normal((5, 3, 70)).astype(np.float32), random.uniform(1, 2, (5, 1, 1)).astype(np.float32)


def computed(graphs: Graphs, name: str, inputs: tuple[Array, Array], shape: tuple[int, ...], threads: int,
             *numbers: int) -> Array:  # fmt: skip
    """Return the result of an operation of two tensors."""
    with graphs.context() as context:
        tensors = [graphs.tensor(context, TYPES[array.dtype], *reversed(array.shape)) for array in inputs]
        result = graphs.call(name, context, *tensors, *numbers)
        buffers = [graphs.allocate(tensor) for tensor in (*tensors, result)]
        for tensor, array in zip(tensors, inputs, strict=True):
            graphs.write(tensor, array)
        graphs.compute(graphs.graph(context, result), threads)
        found = graphs.read(result, shape, np.float32)
        for buffer in buffers:
            graphs.free(buffer)
    return found


def results(graphs: Graphs, threads: int) -> dict[str, Any]:
    """Return the results of all cases."""
    found: dict[str, Any] = {"has_kernels": np.array(OURS in graphs.extra_buffer_types())}
    for label, case in PRODUCTS.items():
        shape = (case.second, case.first)
        found[f"product, {label}"] = computed(graphs, "ggml_mul_mat", product_inputs(case), shape, threads)
    for label, one in CONVOLUTIONS.items():
        inputs = convolution_inputs(one)
        sides = [(size + 2 * one.padding - one.dilation * (one.side - 1) - 1) // one.stride + 1
                 for size in (one.height, one.width)]  # fmt: skip
        numbers = (one.stride, one.stride, one.padding, one.padding, one.dilation, one.dilation)
        found[f"convolution, {label}"] = computed(
            graphs, "ggml_conv_2d_direct", inputs, (one.images, one.results, *sides), threads, *numbers
        )
    for name in OPERATIONS:
        inputs = operation_inputs()
        found[name] = computed(graphs, name, inputs, inputs[0].shape, threads)
    return found


if __name__ == "__main__":
    save_results(results)
