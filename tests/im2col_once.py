"""Compute im2col for the cases of test_im2col.py with one CPU variant, in a process of its own."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ggml_graphs import F16, F32, Graphs

KINDS: dict[int, Any] = {F32: np.float32, F16: np.float16}


class Case(NamedTuple):
    """Sizes of an image and of a kernel; pairs are in the order height, width."""

    batch: int
    channels: int
    image: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    source: int = F32
    result: int = F16
    two_dimensions: bool = True


CASES = {
    "1x1": Case(1, 40, (7, 9), (1, 1)),
    "1x1 stride": Case(1, 5, (8, 9), (1, 1), (2, 3)),
    "3x3": Case(1, 33, (13, 101), (3, 3), padding=(1, 1)),
    "3x3 wide": Case(1, 70, (3, 515), (3, 3), padding=(1, 1)),
    "3x3 stride": Case(2, 3, (17, 18), (3, 3), (2, 2), (1, 1)),
    "3x3 dilation": Case(1, 9, (15, 16), (3, 3), (1, 2), (2, 3), (2, 3)),
    "padding above the kernel": Case(1, 2, (3, 2), (3, 3), padding=(4, 5)),
    "one pixel": Case(1, 65, (1, 1), (3, 3), padding=(1, 1)),
    "5x2": Case(3, 4, (9, 11), (5, 2), (1, 3), (2, 0)),
    "patches": Case(1, 3, (28, 42), (14, 14), (14, 14)),
    "one dimension": Case(2, 80, (1, 301), (1, 3), (1, 2), (0, 1), two_dimensions=False),
    "span above a tile": Case(1, 2, (1, 9100), (1, 3), dilation=(1, 4500)),
    "f16": Case(1, 33, (13, 21), (3, 3), padding=(1, 1), source=F16),
    "f32": Case(1, 33, (13, 301), (3, 3), padding=(1, 1), result=F32),
    "f32 1x1": Case(2, 33, (5, 6), (1, 1), result=F32),
    "f32 one dimension": Case(1, 7, (1, 50), (1, 4), (1, 3), (0, 2), (1, 2), result=F32, two_dimensions=False),
}


def image(case: Case) -> np.ndarray[Any, Any]:
    """Return an image with values that round, overflow, underflow and are subnormal in half precision."""
    random = np.random.default_rng(0)
    shape = (case.batch, case.channels, *case.image)
    values = random.standard_normal(shape) * 2.0 ** random.integers(-27, 17, shape)
    with np.errstate(over="ignore"):
        return values.astype(KINDS[case.source])


def compute(graphs: Graphs, case: Case, threads: int) -> np.ndarray[Any, Any]:
    """Return the columns of a case."""
    (height, width), (kernel_height, kernel_width) = case.image, case.kernel
    with graphs.context() as context:
        if case.two_dimensions:
            kernel = graphs.tensor(context, F16, kernel_width, kernel_height, case.channels, 1)
            source = graphs.tensor(context, case.source, width, height, case.channels, case.batch)
        else:
            kernel = graphs.tensor(context, F16, kernel_width, case.channels, 1)
            source = graphs.tensor(context, case.source, width, case.channels, case.batch)
        pairs = (case.stride, case.padding, case.dilation)
        options = [value for pair in pairs for value in (pair[1], pair[0] if case.two_dimensions else 0)]
        result = graphs.call(
            "ggml_im2col", context, kernel, source, *options, case.two_dimensions, case.result
        )  # fmt: skip
        buffers = [graphs.allocate(tensor) for tensor in (kernel, source, result)]
        graphs.write(source, image(case))
        graphs.compute(graphs.graph(context, result), threads)
        count = graphs.call("ggml_nelements", result, result=ctypes.c_int64)
        found = graphs.read(result, (count,), KINDS[case.result])
        for buffer in buffers:
            graphs.free(buffer)
    return found


def main(folder: str, variant: str, threads: str, target: str) -> None:
    """Write the columns of all cases to a file; write nothing if this machine does not run the variant."""
    graphs = Graphs.load(Path(folder), variant)
    if graphs:
        found: dict[str, Any] = {name: compute(graphs, case, int(threads)) for name, case in CASES.items()}
        np.savez(target, **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
