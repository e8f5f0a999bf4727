"""The matrix products of thirdparty/kernels, against a reference in plain C and against ggml's own products."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from kernel_processes import VARIANTS, Arrays, differing, results
from kernels_once import CASES, LARGE_BLOCKS, PAIRS

import cyllama

# Types of which ggml's own products of many rows are as fast with VNNI, unless the weights are reordered already.
KEPT_WITH_VNNI = {"q5_K", "q6_K", "iq4_xs"}

products = functools.partial(results, "kernels_once.py")


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Arrays]:
    """Return the products of the reference, by the variants that this machine runs and that have kernels."""
    folder = tmp_path_factory.mktemp("reference")
    found = {variant: products(variant, 1, "reference", folder) for variant in VARIANTS}
    with_kernels = {variant: values for variant, values in found.items() if values and values["has_kernels"]}
    assert with_kernels or "AVX2" not in cyllama.build_info()["cpu"]["features"]
    return with_kernels


def pairs_of(found: Arrays) -> list[tuple[str, str]]:
    """Return the types and cases that a variant's kernels serve."""
    return [(kind, label) for kind, label in PAIRS if kind in found["kinds"]]


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_products_have_the_bits_of_the_reference(threads: int, references: dict[str, Arrays], tmp_path: Path) -> None:
    for variant, wanted in references.items():
        found = products(variant, threads, "cyllama", tmp_path)
        assert found is not None and list(found["kinds"]) == list(wanted["kinds"])
        names = [" ".join(pair) for pair in pairs_of(found)]
        assert names and differing({name: found[name] for name in names}, wanted) == [], variant
        kept = [kind for kind in found["kinds"] if not has_same_bits(found, kind)]
        assert set(kept) <= KEPT_WITH_VNNI and (variant != "haswell" or not kept), variant


def test_products_where_the_system_refuses_tiles(references: dict[str, Arrays], tmp_path: Path) -> None:
    for variant, wanted in references.items():
        found = products(variant, 2, "cyllama", tmp_path, tiles="refused")
        assert found is not None
        names = [" ".join(pair) for pair in pairs_of(found)]
        assert names and differing({name: found[name] for name in names}, wanted) == [], variant


def test_products_are_those_of_upstream(references: dict[str, Arrays]) -> None:
    """Compare within the differences of rounding.

    With large blocks, only the order of additions differs. With others, ggml rounds the scales of activations to F16.
    """
    bounds = dict.fromkeys(LARGE_BLOCKS, 1e-5)
    for variant, reference in references.items():
        for kind, label in pairs_of(reference):
            if kind not in LARGE_BLOCKS and CASES[label].scale not in (0, 1):
                continue  # ggml's scales of activations overflow and underflow
            found, wanted = reference[f"{kind} {label}"], reference[f"{kind} {label}, upstream"]
            assert np.isfinite(wanted).all() and (wanted.any() or not CASES[label].scale)
            assert np.abs(found - wanted).max() <= bounds.get(kind, 1e-3) * np.abs(wanted).max(), (variant, kind, label)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_those_of_upstream(threads: int, references: dict[str, Arrays], tmp_path: Path) -> None:
    for variant, reference in references.items():
        found = products(variant, threads, "cyllama", tmp_path)
        assert found is not None
        kinds = [kind for kind in reference["kinds"] if f"rows of {kind}" in found]
        assert len(kinds) == 3, variant
        for kind in kinds:
            np.testing.assert_array_equal(found[f"rows of {kind}"], found[f"rows of {kind}, upstream"])


def test_leaves_other_weights_to_upstream(references: dict[str, Arrays]) -> None:
    for variant, reference in references.items():
        served, left = ("served", "experts"), ("odd rows", "another type", "experts of odd rows")
        found = {name: bool(reference[name]) for name in (*served, *left)}
        assert found == dict.fromkeys(served, True) | dict.fromkeys(left, False), variant


def test_keeps_no_copy_of_embeddings_that_upstream_does_not_keep(references: dict[str, Arrays]) -> None:
    for variant, reference in references.items():
        assert [bool(reference[f"embeddings {kind}"]) for kind in ("q4_K", "q8_0")] == [True, False], variant


def test_upstream_setting_removes_the_kernels(references: dict[str, Arrays], tmp_path: Path) -> None:
    for variant in references:
        found = products(variant, 1, "upstream", tmp_path)
        assert found is not None and not found["has_kernels"], variant


def has_same_bits(found: Arrays, kind: str) -> bool:
    """Return whether weights in ggml's format are reordered for a product with many rows."""
    return found[f"{kind} in ggml's format"].tobytes() == found[f"{kind} reordered"].tobytes()


def build_kernels(kernels: str) -> str:
    code = "import cyllama\ntry:\n    print(*cyllama.build_info()['cpu']['kernels'])\nexcept ValueError as e:\n    print(e)"
    environment = os.environ | {"CYLLAMA_KERNELS": kernels}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.strip()


def test_build_info_names_the_types_of_the_kernels(references: dict[str, Arrays]) -> None:
    cpu = cyllama.build_info()["cpu"]
    served = " ".join(cpu["kernels"])
    kinds = " ".join(references[cpu["variant"]]["kinds"]) if cpu["variant"] in references else ""
    assert served == kinds
    assert build_kernels("cyllama") == build_kernels("reference") == served
    assert build_kernels("upstream") == ""


def test_rejects_unknown_kernels() -> None:
    message = build_kernels("fast")
    assert "CYLLAMA_KERNELS" in message and "'fast'" in message and "upstream" in message
