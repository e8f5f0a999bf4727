"""Invalid model files raise, and a valid file loads afterwards."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import pytest

from cyllama import models
from cyllama.errors import EngineError, ModelLoadError
from cyllama.llama import LlamaBatch, LlamaContext, LlamaContextParams, LlamaModel


def still_works(path: Path) -> None:
    with LlamaModel(path) as model, LlamaContext(model, LlamaContextParams(n_ctx=64)) as ctx:
        ctx.decode(LlamaBatch.from_tokens([1, 2, 3]))


def test_rejects_missing_file() -> None:
    with pytest.raises(FileNotFoundError):
        LlamaModel("/no/such/model.gguf")


def test_rejects_directory(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="a directory, expected a file"):
        LlamaModel(tmp_path)


@pytest.mark.parametrize("path", ["", "with\0null", 3.14, None])
def test_rejects_other_types_than_paths(path: object) -> None:
    with pytest.raises((FileNotFoundError, ValueError, TypeError)):
        LlamaModel(path)


def test_rejects_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()
    with pytest.raises(ModelLoadError, match="is empty"):
        LlamaModel(path)


def test_rejects_other_formats(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("Once upon a time")
    with pytest.raises(ModelLoadError, match=r"not a GGUF file: it begins with b'Once'"):
        LlamaModel(path)
    with pytest.raises(OSError):
        LlamaModel(path)


@pytest.mark.parametrize("kept", [4, 8, 20, 24, 100, 5000, 200_000, 0.5, 0.99])
def test_rejects_truncated_file(tiny_path: Path, tmp_path: Path, kept: float) -> None:
    data = tiny_path.read_bytes()
    path = tmp_path / "short.gguf"
    path.write_bytes(data[: int(kept if kept > 1 else kept * len(data))])
    with pytest.raises(ModelLoadError) as caught:
        LlamaModel(path)
    assert caught.value.engine == "llama"
    assert caught.value.log, "the engine's reason is missing"
    assert "engine log" in str(caught.value)


def test_rejects_random_bytes_after_the_magic(tmp_path: Path, tiny_path: Path) -> None:
    source = random.Random(7)
    path = tmp_path / "noise.gguf"
    for size in (16, 64, 300, 5000):
        for _ in range(10):
            path.write_bytes(b"GGUF" + struct.pack("<I", 3) + source.randbytes(size))
            with pytest.raises(ModelLoadError):
                LlamaModel(path)
    still_works(tiny_path)


def test_rejects_huge_counts(tmp_path: Path) -> None:
    path = tmp_path / "huge.gguf"
    for n_tensors, n_kv in ((2**63 - 1, 0), (0, 2**63 - 1), (2**40, 2**40), (2**64 - 1, 2**64 - 1)):
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, n_tensors, n_kv) + b"\0" * 100)
        with pytest.raises(ModelLoadError):
            LlamaModel(path)


def test_loads_or_rejects_damaged_metadata(tiny_path: Path, tmp_path: Path) -> None:
    """Flipped bytes in the header raise or load a usable model; they never end the process."""
    data = tiny_path.read_bytes()
    path = tmp_path / "damaged.gguf"
    source = random.Random(3)
    loaded = rejected = 0
    for _ in range(60):
        damaged = bytearray(data)
        for _ in range(source.randint(1, 4)):
            damaged[source.randrange(8, 4000)] = source.randrange(256)
        path.write_bytes(damaged)
        try:
            still_works(path)
            loaded += 1
        except (EngineError, MemoryError, ValueError, IndexError):
            rejected += 1
    assert rejected > 5
    still_works(tiny_path)


def test_rejects_model_of_another_engine() -> None:
    with pytest.raises(ModelLoadError, match="not a GGUF file"):
        LlamaModel(models.get("silero-vad"))


def test_rejects_unknown_architecture(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.gguf"
    path.write_bytes(tiny_path.read_bytes().replace(b"llama", b"lamma"))
    with pytest.raises(ModelLoadError, match="unknown model architecture"):
        LlamaModel(path)
