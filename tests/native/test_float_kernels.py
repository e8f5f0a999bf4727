"""Products and convolutions with weights of 16-bit floats, against plain C and against NumPy."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from float_kernels_once import (
    CONVOLUTIONS,
    OPERATIONS,
    PRODUCTS,
    Convolution,
    convolution_inputs,
    operation_inputs,
    product_inputs,
)
from kernel_processes import VARIANTS, Arrays, differing, results

EMPTY = "rows that leave most of a panel empty"
computed = functools.partial(results, "float_kernels_once.py")


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    """Return the results by variant."""
    folder = tmp_path_factory.mktemp("found")
    every = {variant: computed(variant, 2, "cyllama", folder) for variant in VARIANTS}
    runs = {variant: values for variant, values in every.items() if values is not None}
    assert runs
    return runs


def convolved(case: Convolution) -> np.ndarray[Any, Any]:
    """Return a convolution by NumPy."""
    weights, image = (array.astype(np.float64) for array in convolution_inputs(case))
    border = (case.padding, case.padding)
    padded = np.pad(image, ((0, 0), (0, 0), border, border))
    reach = case.dilation * (case.side - 1) + 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (reach, reach), (2, 3))
    chosen = windows[:, :, :: case.stride, :: case.stride, :: case.dilation, :: case.dilation]
    return np.einsum("nchwij,ocij->nohw", chosen, weights)


def assert_near(found: Arrays, name: str, expected: np.ndarray[Any, Any], label: str) -> None:
    """Compare within the rounding of sums, and of images to 17 bits; upstream rounds images, and some sums, to 16-bit
    floats."""
    values, bound = found[name], 5e-6 if found["has_kernels"] else 2e-3
    assert values.shape == expected.shape and np.isfinite(values).all(), label
    assert np.abs(values - expected).max() <= bound * np.abs(expected).max(), label


def test_products_are_those_of_numpy(found: dict[str, Arrays]) -> None:
    for variant, values in found.items():
        for label, case in PRODUCTS.items():
            # the engine rounds the second matrix to 16 bits, as upstream does
            first, second = (array.astype(np.float16).astype(np.float64) for array in product_inputs(case))
            assert_near(values, f"product, {label}", second @ first.T, f"{variant} {label}")


@pytest.mark.parametrize("label", CONVOLUTIONS)
def test_convolutions_are_those_of_numpy(label: str, found: dict[str, Arrays]) -> None:
    expected = convolved(CONVOLUTIONS[label])
    for variant, values in found.items():
        assert_near(values, f"convolution, {label}", expected, variant)


def test_operations_with_one_value_for_a_row(found: dict[str, Arrays]) -> None:
    values, rows = operation_inputs()
    expected = dict(zip(OPERATIONS, (values + rows, values - rows, values * rows, values / rows), strict=True))
    for variant, results_of_variant in found.items():
        for name in OPERATIONS:
            np.testing.assert_allclose(results_of_variant[name], expected[name], rtol=3e-7, err_msg=variant)


@pytest.mark.parametrize("threads", [1, 3])
def test_results_have_the_bits_of_plain_c(threads: int, found: dict[str, Arrays], tmp_path: Path) -> None:
    for variant, values in found.items():
        plain, upstream = (computed(variant, threads, kernels, tmp_path) for kernels in ("reference", "upstream"))
        assert plain is not None and upstream is not None
        assert differing(values, plain) == [], variant
        if values["has_kernels"]:
            served = [f"convolution, {label}" for label in CONVOLUTIONS]
            served += [f"product, {label}" for label in PRODUCTS if label not in ("few rows", EMPTY)]
            assert set(differing(values, upstream)) == {"has_kernels", *served}, variant


def test_results_where_the_system_refuses_tiles(found: dict[str, Arrays], tmp_path: Path) -> None:
    """The variant for AMX computes with AVX-512 then; the others do not use tiles."""
    for variant, values in found.items():
        refused = computed(variant, 2, "cyllama", tmp_path, tiles="refused")
        plain = computed(variant, 2, "reference", tmp_path, tiles="refused")
        assert refused is not None and plain is not None
        assert differing(refused, plain) == []
        assert variant == "sapphirerapids" or differing(refused, values) == []
        for label, case in CONVOLUTIONS.items():
            assert_near(refused, f"convolution, {label}", convolved(case), label)
