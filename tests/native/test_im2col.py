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


@pytest.fixture(scope="module", params=[(name, threads) for name in VARIANTS for threads in (1, 3)], ids=str)
def columns(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Columns:
    """Compute all cases with one variant and number of threads."""
    variant, threads = request.param
    target = tmp_path_factory.mktemp("im2col") / "columns.npz"
    script = Path(__file__).parents[1] / "im2col_once.py"
    words = [sys.executable, str(script), str(FOLDER), variant, str(threads), str(target)]
    subprocess.run(words, check=True, env=os.environ | {"PYTHONPATH": str(Path(ggml_graphs.__file__).parent)})
    if not target.exists():
        pytest.skip(f"this machine does not run {variant}")
    return dict(np.load(target))


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
def test_has_the_bytes_of_the_definition(name: str, columns: Columns) -> None:
    wanted = expected(CASES[name])
    assert wanted.tobytes() == columns[name].tobytes()
