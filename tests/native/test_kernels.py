"""The matrix products of thirdparty/kernels, against a reference in plain C and against ggml's own products."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ggml_graphs
import numpy as np
import pytest
from kernels_once import CASES, PAIRS

import cyllama

FOLDER = Path(cyllama.__file__).parent / "lib"
VARIANTS = sorted(path.stem.removeprefix("libggml-cpu-") for path in FOLDER.glob("libggml-cpu-*"))
# ggml's scales of activations overflow and underflow with types that are no K types.
COMPARABLE = [(kind, label) for kind, label in PAIRS if kind.endswith("K") or CASES[label].scale in (0, 1)]
Arrays = Mapping[str, np.ndarray[Any, Any]]


def products(variant: str, threads: int, kernels: str, folder: Path) -> Arrays:
    """Return the products of all cases; skip the test if this machine or variant cannot compute them."""
    target = folder / f"{kernels}.npz"
    script = Path(__file__).parents[1] / "kernels_once.py"
    environment = {"PYTHONPATH": str(Path(ggml_graphs.__file__).parent), "CYLLAMA_KERNELS": kernels}
    words = [sys.executable, str(script), str(FOLDER), variant, str(threads), str(target)]
    subprocess.run(words, check=True, env=os.environ | environment)
    if not target.exists():
        pytest.skip(f"this machine does not run {variant}")
    found = dict(np.load(target))
    if not found["has_kernels"] and kernels != "upstream":
        pytest.skip(f"{variant} has no kernels")
    return found


def skip_kind_of_ggml(kind: str, found: Arrays) -> None:
    """Skip the test of a type that the variant leaves to ggml."""
    if kind not in found["kinds"]:
        pytest.skip(f"{kind} is ggml's with this variant")


@pytest.fixture(scope="module", params=VARIANTS)
def reference(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Arrays]:
    """Return a variant and the products of the reference."""
    return request.param, products(request.param, 1, "reference", tmp_path_factory.mktemp("reference"))


@pytest.fixture(scope="module", params=[1, 2, 3, 4])
def computed(
    request: pytest.FixtureRequest, reference: tuple[str, Arrays], tmp_path_factory: pytest.TempPathFactory
) -> Arrays:
    """Return the products of the kernels with one number of threads."""
    return products(reference[0], request.param, "cyllama", tmp_path_factory.mktemp("computed"))


@pytest.mark.parametrize(("kind", "label"), PAIRS)
def test_product_has_the_bits_of_the_reference(
    kind: str, label: str, reference: tuple[str, Arrays], computed: Arrays
) -> None:
    skip_kind_of_ggml(kind, computed)
    assert computed[f"{kind} {label}"].tobytes() == reference[1][f"{kind} {label}"].tobytes()


@pytest.mark.parametrize(("kind", "label"), COMPARABLE)
def test_product_is_that_of_upstream(kind: str, label: str, reference: tuple[str, Arrays]) -> None:
    """With K types, only the order of additions differs; with others, ggml rounds the activations' scales to F16."""
    skip_kind_of_ggml(kind, reference[1])
    found, wanted = reference[1][f"{kind} {label}"], reference[1][f"{kind} {label}, upstream"]
    assert np.isfinite(wanted).all() and (wanted.any() or not CASES[label].scale)
    bound = 1e-5 if kind.endswith("K") else 1e-3
    assert np.abs(found - wanted).max() <= bound * np.abs(wanted).max()


def test_leaves_other_weights_to_upstream(reference: tuple[str, Arrays]) -> None:
    found = {name: bool(reference[1][name]) for name in ("served", "odd rows", "another type", "experts")}
    assert found == {"served": True, "odd rows": False, "another type": False, "experts": False}


def test_keeps_no_copy_of_embeddings_that_upstream_does_not_keep(reference: tuple[str, Arrays]) -> None:
    assert [bool(reference[1][f"embeddings {kind}"]) for kind in ("q4_K", "q8_0")] == [True, False]


def test_upstream_setting_removes_the_kernels(reference: tuple[str, Arrays], tmp_path: Path) -> None:
    assert not products(reference[0], 1, "upstream", tmp_path)["has_kernels"]


def build_kernels(kernels: str) -> str:
    code = "import cyllama\ntry:\n    print(*cyllama.build_info()['cpu']['kernels'])\nexcept ValueError as e:\n    print(e)"
    environment = os.environ | {"CYLLAMA_KERNELS": kernels}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout.strip()


def test_build_info_names_the_types_of_the_kernels(tmp_path: Path) -> None:
    cpu = cyllama.build_info()["cpu"]
    served = " ".join(cpu["kernels"])
    found = products(cpu["variant"], 1, "cyllama", tmp_path)
    assert served in ("q5_0", " ".join(found["kinds"]))  # with AMX, ggml's products of the other types are preferred
    assert build_kernels("cyllama") == build_kernels("reference") == served
    assert build_kernels("upstream") == ""


def test_rejects_unknown_kernels() -> None:
    message = build_kernels("fast")
    assert "CYLLAMA_KERNELS" in message and "'fast'" in message and "upstream" in message
