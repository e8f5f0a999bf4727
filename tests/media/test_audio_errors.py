"""Errors for files that are not audio, damaged or truncated."""

from __future__ import annotations

import io
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from data.sounds import JFK, MP3, encoded, jfk_float32

from cyllama.errors import DamagedAudioWarning, MediaError
from cyllama.media.audio import AudioStream, load_audio


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return jfk_float32()


def bad_arrays() -> list[tuple[object, type[Exception], str]]:
    z = np.zeros
    return [
        (np.array([0, np.nan], "f4"), ValueError, "sample 1 of the array is nan, expected finite numbers"),
        (np.array([0, 0, -np.inf], "f8"), ValueError, "sample 2 of the array is -inf"),
        (np.array([1e300]), ValueError, "expected finite numbers"),
        (np.array([[0, 0], [np.inf, -np.inf], [0, 0]], "f4"), ValueError, "sample 1 of the array is nan"),
        (np.full(9, 20_000.0), ValueError, "sample 0 of the array is 20000, expected -1 to 1; divide integers"),
        (z(0, "f4"), ValueError, "the array has no samples"),
        (z((0, 2), "i2"), ValueError, "the array has no samples"),
        (z(3, "c8"), TypeError, "array of complex64, expected floats or integers of 8, 16 or 32 bits"),
        (z(3, "i8"), TypeError, "array of int64"),
        (z(3, bool), TypeError, "array of bool"),
        (z(3, object), TypeError, "array of object"),
        (np.array(["a"]), TypeError, "array of <U1"),
        (z(3, "M8[s]"), TypeError, "array of datetime64"),
        (z(3, [("a", "i2")]), TypeError, "array of [('a', '<i2')]"),
        (np.float32(1), ValueError, "shape ()"),
        (z((2, 2, 2), "f4"), ValueError, "shape (2, 2, 2), expected (n,), (n, channels) or (channels, n)"),
        (z((100, 100), "f4"), ValueError, "100 channels; at most 64"),
        ([0.0, 1.0], TypeError, "audio is a list, expected a path, bytes"),
        (None, TypeError, "audio is a NoneType"),
        (17, TypeError, "audio is a int"),
        ((z(3, "f4"), 16_000), TypeError, "(ndarray, int), expected (sample_rate, array)"),
        ((1, 2, 3), TypeError, "expected (sample_rate, array)"),
        ((0, z(3, "f4")), ValueError, "sample_rate is 0, expected a whole number of Hz from 1 to 10,000,000"),
        ((-16_000, z(3, "f4")), ValueError, "sample_rate is -16000"),
        ((22_050.5, z(3, "f4")), ValueError, "sample_rate is 22050.5"),
        ((float("nan"), z(3, "f4")), ValueError, "sample_rate is nan"),
        ((2**40, z(3, "f4")), ValueError, "sample_rate is 1099511627776"),
        ((True, z(3, "f4")), TypeError, "sample_rate is True"),
        (("16000", z(3, "f4")), TypeError, "expected (sample_rate, array)"),
    ]


@pytest.mark.parametrize(("audio", "error", "message"), bad_arrays())
def test_rejects_invalid_arrays(audio: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        load_audio(audio)


def test_reports_position_of_nan(audio: np.ndarray) -> None:
    broken = np.tile(audio, 3)
    broken[500_123] = np.nan
    with pytest.raises(ValueError, match="sample 500123 of the array is nan"):
        load_audio(broken)
    with pytest.raises(ValueError, match="sample 500123 of the audio of 2,112,0.. bytes is nan"):
        load_audio(encoded(broken, 16_000, "WAV", "FLOAT"))
    assert len(AudioStream(broken).read(0, 20)) == 320_000  # the audio before it is readable


def test_rejects_sample_rate_of_files() -> None:
    with pytest.raises(ValueError, match="sample_rate is 8000, but only an array needs one"):
        load_audio(JFK, sample_rate=8000)
    with pytest.raises(ValueError, match=r"but audio is \(sample_rate, array\)"):
        load_audio((8000, np.zeros(3, np.int16)), sample_rate=8000)


def test_allow_empty() -> None:
    empty = encoded(np.zeros(0, np.float32), 16_000, "WAV", "PCM_16")
    with pytest.raises(ValueError, match="has no samples"):
        load_audio(empty)
    for form in (empty, np.zeros(0, np.int16), np.zeros((2, 0))):
        found = load_audio(form, allow_empty=True)
        assert found.shape == (0,) and found.dtype == np.float32
        stream = AudioStream(form, allow_empty=True)
        assert stream.duration == 0 and not list(stream)
    assert load_audio(np.zeros(1, np.int16), sample_rate=48_000).shape == (0,)


def test_rejects_invalid_paths(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.wav"):
        load_audio(tmp_path / "none.wav")
    with pytest.raises(FileNotFoundError, match="empty path"):
        load_audio("")
    with pytest.raises(IsADirectoryError, match=r"a directory, expected an audio file"):
        load_audio(tmp_path)
    with pytest.raises(ValueError, match="null character"):
        load_audio("a\0.wav")
    with pytest.raises(ValueError, match="'/dev/zero', a device"):
        load_audio("/dev/zero")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(MediaError, match=r"empty.wav"):
        load_audio(tmp_path / "empty.wav")
    with pytest.raises(MediaError, match="the audio of 0 bytes is empty"):
        load_audio(b"")


@pytest.mark.parametrize("data", [b"hello world" * 100, bytes(5000), b"RIFF", b"RIFF\0\0\0\0WAVE", os.urandom(5000)])
def test_rejects_files_without_audio(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "talk.mp3"
    path.write_bytes(data)
    for form in (data, path, io.BytesIO(data)):
        with pytest.raises(MediaError, match=r"(cannot read|no audio|truncated|damaged)"):
            load_audio(form)


def test_rejects_text_mode(tmp_path: Path) -> None:
    with (
        open(JFK, encoding="latin-1") as file,
        pytest.raises(TypeError, match="gave str, expected bytes; open it in binary"),
    ):
        load_audio(file)


def test_damaged_files_raise_or_read() -> None:
    random = np.random.default_rng(3)
    for original in (JFK.read_bytes()[:20_000], MP3.read_bytes()[:20_000]):
        for _ in range(40):
            data = bytearray(original)
            for at in random.integers(0, 600, 8):
                data[at] = random.integers(256)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DamagedAudioWarning)
                try:
                    assert np.isfinite(load_audio(bytes(data), allow_empty=True)).all()
                except (MediaError, ValueError) as error:
                    assert str(error)


def test_rejects_too_many_channels() -> None:
    raw = encoded(np.zeros((10, 65), np.int16), 16_000, "WAV", "PCM_16")
    with pytest.raises(MediaError, match="has 65 channels of 16000 Hz, expected at most 64"):
        load_audio(raw)


@pytest.mark.parametrize("make", [lambda: JFK, lambda: MP3, lambda: JFK.read_bytes()])
def test_does_not_leak_file_descriptors(make: Callable[[], object]) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0

    before = descriptors()
    for _ in range(20):
        next(AudioStream(make()).blocks(seconds=0.5))
        load_audio(make())
    for _ in range(20):
        with pytest.raises(MediaError):
            load_audio(b"not audio at all")
    assert descriptors() == before
