"""quantize(): files equal to those of whisper-quantize, damaged models, and cancelling."""

from __future__ import annotations

import os
import re
import struct
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from data.sounds import JFK

from cyllama import models
from cyllama.errors import CancelledError, ModelLoadError
from cyllama.whisper._quantize import block_size, quantize_rows
from cyllama.whisper.quantize import QUANTIZE_TYPES, quantize

TEXT = "And so my fellow Americans ask not what your country can do for you, ask what you can do for your country."


@pytest.fixture(scope="module")
def tiny() -> bytes:
    return models.get("tiny.en").read_bytes()


def tensors_offset(data: bytes) -> int:
    """Return the offset of the weights."""
    position = 4 + 11 * 4
    n_mel, n_fft = struct.unpack_from("<2i", data, position)
    position += 8 + 4 * n_mel * n_fft
    (n_vocab,) = struct.unpack_from("<i", data, position)
    position += 4
    for _ in range(n_vocab):
        position += 4 + struct.unpack_from("<i", data, position)[0]
    return position


@pytest.mark.parametrize("type", QUANTIZE_TYPES)
def test_file_equals_whisper_quantize(bin_dir: Path, tmp_path: Path, type: str) -> None:
    ours, theirs = tmp_path / "ours.bin", tmp_path / "theirs.bin"
    done: list[float] = []
    assert quantize("tiny.en", ours, type, on_progress=done.append) == ours
    command = [bin_dir / "whisper-quantize", models.get("tiny.en"), theirs, type]
    subprocess.run(command, check=True, capture_output=True)
    assert ours.read_bytes() == theirs.read_bytes()
    assert done == sorted(done) and done[-1] == 1 and len(done) > 100
    assert sorted(os.listdir(tmp_path)) == ["ours.bin", "theirs.bin"]


def test_multilingual_model_equals_whisper_quantize(bin_dir: Path, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.bin", tmp_path / "theirs.bin"
    quantize("base", ours, "Q5_1")
    subprocess.run([bin_dir / "whisper-quantize", models.get("base"), theirs, "q5_1"], check=True, capture_output=True)
    assert ours.read_bytes() == theirs.read_bytes()


def test_quantized_model_has_the_same_text(bin_dir: Path, tmp_path: Path) -> None:
    path = quantize(models.get("tiny.en"), tmp_path / "tiny.en-q8_0.bin")
    assert path.stat().st_size < 0.57 * models.get("tiny.en").stat().st_size
    command = [bin_dir / "whisper-cli", "-m", path, "-f", JFK, "-t", "2", "-bs", "1", "-bo", "1", "-nt", "-np"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == TEXT


def test_quantized_rows_are_close() -> None:
    rows = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    raw = np.frombuffer(quantize_rows(rows, "q8_0"), np.uint8).reshape(12, 34)
    scales = raw[:, :2].copy().view(np.float16).astype(np.float32)
    values = scales * raw[:, 2:].copy().view(np.int8)
    np.testing.assert_allclose(values.reshape(6, 64), rows, atol=0.02)
    assert {block_size(name) for name in QUANTIZE_TYPES} == {32}
    assert quantize_rows(np.zeros((0, 32), np.float32), "q4_0") == b""


def test_rejects_rows_of_wrong_width() -> None:
    for width in (0, 31, 33):
        with pytest.raises(ValueError, match=f"width is {width}"):
            quantize_rows(np.zeros((2, width), np.float32), "q4_0")
    for wrong in (np.zeros((2, 32)), np.zeros(32, np.float32), np.zeros((2, 64), np.float32)[:, ::2]):
        with pytest.raises((ValueError, TypeError)):
            quantize_rows(wrong, "q4_0")


# ------------------------------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("type", "error", "message"),
    [
        ("q8_1", ValueError, "type is 'q8_1'; did you mean 'q8_0'?"),
        ("f16", ValueError, "type is 'f16'; expected one of q4_0, q4_1, q5_0, q5_1, q8_0"),
        (8, TypeError, "type is 8, expected one of q4_0"),
    ],
)
def test_rejects_unknown_type(tmp_path: Path, type: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        quantize("tiny.en", tmp_path / "out.bin", type)  # type: ignore[arg-type]


def test_rejects_other_files(tmp_path: Path, tiny_path: Path) -> None:
    junk = tmp_path / "junk.bin"
    for data, message in (
        (b"", "not a model of whisper.cpp"),
        (os.urandom(4000), "not a model of whisper.cpp"),
        (struct.pack("<I11i", 0x67676D6C, *[-5] * 11), "its sizes are"),
        (struct.pack("<I13i", 0x67676D6C, *[1] * 11, -1, 7), "mel filters are -1 x 7"),
        (tiny_path.read_bytes(), "not a model of whisper.cpp"),
        (models.get("silero-vad").read_bytes(), "not a model of whisper.cpp|truncated|damaged"),
    ):
        junk.write_bytes(data)
        with pytest.raises(ModelLoadError, match=message):
            quantize(junk, tmp_path / "out.bin")
    with pytest.raises(ModelLoadError, match="has 0 of 167 weights"):
        quantize("vocab-whisper-en", tmp_path / "out.bin")
    with pytest.raises(FileNotFoundError, match=r"none\.bin"):
        quantize(tmp_path / "none.bin", tmp_path / "out.bin")
    with pytest.raises(FileNotFoundError, match="did you mean"):
        quantize("tinyen", tmp_path / "out.bin")
    with pytest.raises(IsADirectoryError, match="a directory, expected a model file"):
        quantize(tmp_path, tmp_path / "out.bin")
    assert os.listdir(tmp_path) == ["junk.bin"]


def test_rejects_quantized_model(tmp_path: Path, tiny: bytes) -> None:
    path = quantize("tiny.en", tmp_path / "small.bin", "q5_0")
    with pytest.raises(ModelLoadError, match=r"small.bin' is already quantized \(q5_0\)"):
        quantize(path, tmp_path / "out.bin", "q4_0")
    data = bytearray(path.read_bytes())
    data[44:48] = struct.pack("<i", 1)  # the header has the type of 16-bit floats
    path.write_bytes(data)
    with pytest.raises(ModelLoadError, match="is already quantized: .* has the type 6"):
        quantize(path, tmp_path / "out.bin", "q4_0")
    assert os.listdir(tmp_path) == ["small.bin"]


def test_rejects_truncated_model(tmp_path: Path, tiny: bytes) -> None:
    path, start = tmp_path / "cut.bin", tensors_offset(tiny)
    n_dims, length, _ = struct.unpack_from("<3i", tiny, start)
    second = start + 12 + 4 * n_dims + length
    for size in (3, 4, 20, 47, 50, 1000, start - 1, start + 5, start + 14, second, second + 100, len(tiny) - 1):
        path.write_bytes(tiny[:size])
        with pytest.raises(ModelLoadError, match=r"cut.bin' is (truncated|not a model)"):
            quantize(path, tmp_path / "out.bin")
    path.write_bytes(tiny + b"more")
    with pytest.raises(ModelLoadError, match="truncated"):
        quantize(path, tmp_path / "out.bin")
    assert os.listdir(tmp_path) == ["cut.bin"]


def test_rejects_damaged_tensor(tmp_path: Path, tiny: bytes) -> None:
    start = tensors_offset(tiny)
    path = tmp_path / "bad.bin"
    for at, value, message in (
        (start, 9, "has 9 dimensions"),
        (start, 0, "has 0 dimensions"),
        (start + 4, -1, "a length .* is -1"),
        (start + 4, 2**31 - 1, "truncated"),
        (start + 8, 17, "has the type 17"),
        (start + 12, -3, "has the shape"),
        (start + 12, 2**31 - 1, "truncated|shape"),
    ):
        data = bytearray(tiny)
        data[at : at + 4] = struct.pack("<i", value)
        path.write_bytes(data)
        with pytest.raises(ModelLoadError, match=message):
            quantize(path, tmp_path / "out.bin")
    assert os.listdir(tmp_path) == ["bad.bin"]


def test_rejects_invalid_destination(tmp_path: Path, tiny: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(tiny)
    with pytest.raises(ValueError, match="the same file as source"):
        quantize(path, tmp_path / "." / "model.bin")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        quantize(path, tmp_path / "none" / "out.bin")
    assert path.read_bytes() == tiny


# ------------------------------------------------------------------------------------------ cancelling


def test_cancel_keeps_the_old_file(tmp_path: Path) -> None:
    out, cancel = tmp_path / "out.bin", threading.Event()
    out.write_bytes(b"old")

    def stop_halfway(part: float) -> None:
        if part > 0.5:
            cancel.set()

    with pytest.raises(CancelledError):
        quantize("tiny.en", out, on_progress=stop_halfway, cancel=cancel)
    with pytest.raises(CancelledError):
        quantize("tiny.en", out, cancel=cancel)
    with pytest.raises(CancelledError):
        quantize("tiny.en", out, on_progress=lambda part: part < 0.3)
    with pytest.raises(TypeError, match=r"cancel is 3, expected an object with is_set\(\)"):
        quantize("tiny.en", out, cancel=3)
    assert out.read_bytes() == b"old" and os.listdir(tmp_path) == ["out.bin"]


def test_exception_in_the_callback_is_raised(tmp_path: Path) -> None:
    def fail(part: float) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        quantize("tiny.en", tmp_path / "out.bin", on_progress=fail)
    assert not os.listdir(tmp_path)
