"""Split and merge models: the parts equal the native program's, and merging restores the model."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from cyllama import models
from cyllama.llama import GGUFContext, gguf_merge, gguf_split, simple

MODEL = "smollm2-135m-instruct"
TINY = "tiny-random-llama"


def contents(path: Path) -> tuple[dict[str, object], dict[str, tuple[object, bytes]]]:
    with GGUFContext.from_file(path) as file:
        values = {key: np.asarray(file[key]).tolist() for key in file}
        return values, {t.name: ((t.type, t.shape), file.tensor_data(t.name).tobytes()) for t in file.tensors()}


@pytest.mark.parametrize(
    ("model", "limit", "native"),
    [
        (TINY, {"max_tensors": 5}, ("--split-max-tensors", "5")),
        (MODEL, {"max_size": 40_000_000}, ("--split-max-size", "40M")),
    ],
)
def test_parts_equal_the_native_programs(
    tmp_path: Path, native_program: str, model: str, limit: dict[str, int], native: tuple[str, ...]
) -> None:
    source = models.get(model)
    ours = gguf_split(source, tmp_path / "ours", **limit)
    assert len(ours) > 1
    subprocess.run([native_program, "--split", *native, source, tmp_path / "native"], check=True, capture_output=True)
    for path in ours:
        assert contents(path) == contents(tmp_path / path.name.replace("ours", "native"))


@pytest.fixture(scope="session")
def native_program() -> str:
    path = Path(__file__).resolve().parents[2] / "bin" / "llama-gguf-split"
    assert path.exists(), "make tools builds bin/llama-gguf-split"
    return str(path)


def test_loads_a_split_model(tmp_path: Path) -> None:
    source = models.get(MODEL)
    parts = gguf_split(source, tmp_path / "part", max_size=40_000_000)
    assert len(parts) == 3 and parts[0].name == "part-00001-of-00003.gguf"
    assert (
        simple(str(parts[0]), "The capital of France is", 4).text
        == simple(str(source), "The capital of France is", 4).text
    )
    merged = gguf_merge(parts[0], tmp_path / "merged.gguf")
    assert contents(merged) == contents(source)


def test_rejects_invalid_input(tmp_path: Path) -> None:
    source = models.get(TINY)
    parts = gguf_split(source, tmp_path / "part", max_tensors=8)
    with pytest.raises(ValueError, match=parts[0].name):
        gguf_split(parts[0], tmp_path / "again")
    with pytest.raises(ValueError, match=parts[1].name):
        gguf_merge(parts[1], tmp_path / "x.gguf")
    with pytest.raises(ValueError, match=source.name):
        gguf_merge(source, tmp_path / "x.gguf")
    with pytest.raises(ValueError, match="max_tensors is 0"):
        gguf_split(source, tmp_path / "y", max_tensors=0)
    with pytest.raises(ValueError, match="max_tensors is 1 and max_size 1"):
        gguf_split(source, tmp_path / "y", max_tensors=1, max_size=1)
    parts[1].unlink()
    with pytest.raises(FileNotFoundError):
        gguf_merge(parts[0], tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()
