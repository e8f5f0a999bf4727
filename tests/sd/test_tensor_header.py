"""Headers of model files from anybody."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cyllama import sd
from cyllama.errors import ModelLoadError
from cyllama.llama import GGUFContext
from cyllama.sd import detect

HEADERS: list[Any] = [
    {"a": {"dtype": "F32", "shape": "abc", "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [["x"]], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": 5, "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 4]}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": []}},
    {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1 << 70]}},
    {"a": {"shape": [1]}},
    {"a": [1]},
    {"a": "x"},
    {"a": None},
    {"__metadata__": 5, "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
]


@pytest.mark.parametrize("header", HEADERS, ids=str)
def test_damaged_safetensors_header_is_an_error(header: Any, tmp_path: Path) -> None:
    data = json.dumps(header).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(data)) + data + bytes(64))
    with pytest.raises(ModelLoadError):
        detect(path)


def gguf(tensors: int, pairs: int, *parts: bytes) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + b"".join(parts)


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


# ggml's reader rejects them, and the engine has a second one.
DAMAGED = {
    "length of a name": gguf(1, 0, struct.pack("<Q", 1 << 33)),
    "number of dimensions": gguf(1, 0, text(b"a"), struct.pack("<I", 1 << 31)),
    "type of a tensor": gguf(1, 0, text(b"a"), struct.pack("<IQIQ", 1, 4, 9999, 0)),
    "negative dimension": gguf(1, 0, text(b"a"), struct.pack("<IqIQ", 1, -4, 0, 0)),
    "nested arrays": gguf(1, 1, (text(b"") + struct.pack("<IIQ", 9, 9, 1)) * 200_000),
    "length that goes back": gguf(1, 1 << 60, text(b"k"), struct.pack("<IQ", 8, 2**64 - 21)),
}
CONVERT = """
import sys
from cyllama.errors import EngineError
from cyllama.sd._tools import convert
try:
    convert(sys.argv[1], sys.argv[1] + ".out")
except EngineError:
    sys.exit(5)
"""


@pytest.mark.parametrize("kind", DAMAGED)
def test_engine_rejects_damaged_gguf(kind: str, tmp_path: Path) -> None:
    """In a process of its own, which ended or took minutes and gigabytes."""
    path = tmp_path / "model.gguf"
    path.write_bytes(DAMAGED[kind])
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, path], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 5, done.stderr


def test_engine_reads_five_dimensions_and_arrays(tmp_path: Path) -> None:
    name = b"model.diffusion_model.patch_embedding.weight"
    arrays = (
        text(b"a") + struct.pack("<IIQ3I", 9, 4, 3, 1, 1, 1) + text(b"t") + struct.pack("<IIQ", 9, 8, 1) + text(b"x")
    )
    path = tmp_path / "model.gguf"
    tensor = text(name) + struct.pack("<I5QIQ", 5, 2, 1, 1, 1, 2, 0, 0)
    data = gguf(1, 2, arrays, tensor)
    path.write_bytes(data + bytes(-len(data) % 32) + struct.pack("<4f", 1, 2, 3, 4))
    sd.convert(path, tmp_path / "out.gguf")
    with GGUFContext.from_file(tmp_path / "out.gguf") as file:
        (info,) = file.tensors()
        assert file.tensor_data(info.name).reshape(-1).tolist() == [1, 2, 3, 4]
