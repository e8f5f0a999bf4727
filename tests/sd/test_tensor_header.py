"""Headers of model files from anybody."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from cyllama.errors import ModelLoadError
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
