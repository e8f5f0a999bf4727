"""im2col of the CPU backend, which every convolution of stable-diffusion and whisper starts with."""

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
from im2col_once import CASES, KINDS, Case, image

import cyllama

FOLDER = Path(cyllama.__file__).parent / "lib"
VARIANTS = sorted(path.stem.removeprefix("libggml-cpu-") for path in FOLDER.glob("libggml-cpu-*"))

Columns = Mapping[str, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Columns]:
    """Compute all cases with each variant that this machine runs, and with one and three threads."""
    folder = tmp_path_factory.mktemp("im2col")
    script = Path(__file__).parents[1] / "im2col_once.py"
    found = {}
    for variant in VARIANTS:
        for threads in (1, 3):
            target = folder / f"{variant}-{threads}.npz"
            words = [sys.executable, str(script), str(FOLDER), variant, str(threads), str(target)]
            subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": str(Path(ggml_graphs.__file__).parent)})
            if target.exists():  # this machine runs the variant
                found[variant, threads] = dict(np.load(target))
    assert (cyllama.build_info()["cpu"]["variant"], 3) in found
    return found


def expected(case: Case) -> np.ndarray[Any, Any]:
    """Return the columns by the definition: (batch, height, width) of positions, then channels and the kernel."""
    pad, (rows, cols) = case.padding, case.kernel
    padded = np.pad(image(case), ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
    with np.errstate(over="ignore"):
        padded = padded.astype(KINDS[case.result])
    span = [(size - 1) * dilation + 1 for size, dilation in zip(case.kernel, case.dilation, strict=True)]
    steps = [range(0, padded.shape[2 + i] - span[i] + 1, case.stride[i]) for i in (0, 1)]
    parts = [
        padded[:, :, y : y + span[0] : case.dilation[0], x : x + span[1] : case.dilation[1]]
        for y in steps[0]
        for x in steps[1]
    ]
    found = np.stack(parts, axis=1)
    assert found.shape[3:] == (rows, cols)
    return found.reshape(-1)


@pytest.mark.parametrize("name", CASES)
def test_has_the_bytes_of_the_definition(name: str, every: dict[tuple[str, int], Columns]) -> None:
    wanted = expected(CASES[name]).tobytes()
    assert [key for key, columns in every.items() if columns[name].tobytes() != wanted] == []
