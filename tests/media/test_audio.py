"""Conversion of audio to mono float32 at 16,000 Hz: every form, complete and in blocks."""

from __future__ import annotations

import array
import io
import os
import re
import resource
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile
import soxr
from data.sounds import JFK, encoded, jfk_float32, jfk_int16, snr, tone
from hypothesis import settings
from hypothesis import strategies as st

from cyllama.media.audio import SAMPLE_RATE, AudioStream, load_audio, parse_clips


@pytest.fixture(scope="module")
def jfk() -> np.ndarray:
    return jfk_int16()


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return jfk_float32()


# --------------------------------------------------------------------------------- forms of input


def test_accepts_files_in_every_form(audio: np.ndarray, tmp_path: Path) -> None:
    raw = JFK.read_bytes()
    with open(JFK, "rb") as file:
        forms = [str(JFK), JFK, raw, bytearray(raw), memoryview(raw), io.BytesIO(raw), file, os.fsencode(JFK)[:0] + raw]
        for form in forms:
            found = load_audio(form)
            assert found.dtype == np.float32 and found.shape == (176_000,) and found.flags.c_contiguous
            np.testing.assert_array_equal(found, audio)
        assert not file.closed
    (tmp_path / "talk.raw").write_bytes(raw)  # the extension does not decide the format
    np.testing.assert_array_equal(load_audio(tmp_path / "talk.raw"), audio)


def test_reads_file_objects_from_their_position(audio: np.ndarray) -> None:
    file = io.BytesIO(b"some header" + JFK.read_bytes())
    file.seek(len(b"some header"))
    np.testing.assert_array_equal(load_audio(file), audio)


def test_reads_sockets_and_pipes(audio: np.ndarray, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, theirs.makefile("rb") as file:
        writer = threading.Thread(target=lambda: (ours.sendall(JFK.read_bytes()), ours.shutdown(socket.SHUT_WR)))
        writer.start()
        np.testing.assert_array_equal(load_audio(file), audio)
        writer.join()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(JFK.read_bytes()))
    writer.start()
    np.testing.assert_array_equal(load_audio(pipe), audio)
    writer.join()


def test_temporary_copies_have_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    stream = AudioStream(io.BytesIO(JFK.read_bytes()))
    assert not list(tmp_path.iterdir())
    blocks = stream.blocks()
    del stream
    assert sum(map(len, blocks)) == 176_000


def test_errors_of_file_objects_propagate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise ConnectionResetError("the other side went away")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(ConnectionResetError, match="went away"):
        load_audio(Broken())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dtype", "full"),
    [
        ("i1", 128),
        ("u1", 128),
        ("<i2", 32768),
        (">i2", 32768),
        ("<u2", 32768),
        ("<i4", 2**31),
        (">i4", 2**31),
        ("u4", 2**31),
    ],
)
def test_integers_are_scaled_by_their_width(jfk: np.ndarray, dtype: str, full: int) -> None:
    kind = np.dtype(dtype)
    wide = jfk.astype(np.int64) * full // 32768
    offset = full if kind.kind == "u" else 0
    found = load_audio((wide + offset).astype(kind))
    np.testing.assert_array_equal(found, (wide / full).astype(np.float32))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8", "longdouble"])
def test_floats_are_not_scaled(audio: np.ndarray, dtype: str) -> None:
    floats = audio.astype(dtype)
    np.testing.assert_array_equal(load_audio(floats), floats.astype(np.float32))


def test_float32_arrays_are_not_copied(audio: np.ndarray) -> None:
    assert np.shares_memory(load_audio(audio[:1000]), audio)


def test_accepts_strided_arrays(jfk: np.ndarray, audio: np.ndarray) -> None:
    spread = np.zeros((len(jfk), 3), np.int16)
    spread[:, 1] = jfk
    np.testing.assert_array_equal(load_audio(spread[:, 1]), audio)
    np.testing.assert_array_equal(load_audio(jfk[::-1]), audio[::-1])
    np.testing.assert_array_equal(load_audio(np.asfortranarray(np.stack([jfk, jfk], 1))), audio)
    np.testing.assert_array_equal(load_audio(jfk[::2], sample_rate=16_000), audio[::2])


def test_channels_are_averaged(audio: np.ndarray) -> None:
    left, right = audio, np.roll(audio, 100)
    expected = (left + right) / 2
    for form in (np.stack([left, right]), np.stack([left, right], 1), np.stack([left, right]).T):
        np.testing.assert_allclose(load_audio(form), expected, atol=1e-7)
    assert load_audio(audio[np.newaxis]).shape == load_audio(audio[:, np.newaxis]).shape == (176_000,)
    six = np.stack([audio * i for i in range(6)])
    np.testing.assert_allclose(load_audio(six), audio * 2.5, atol=1e-6)
    square = np.array([[0.5, 0.25], [0.0, 0.5]], np.float32)  # (n, channels)
    np.testing.assert_array_equal(load_audio(square), [0.375, 0.25])
    assert AudioStream(six).channels == 6


def test_accepts_buffers_and_array_interfaces(jfk: np.ndarray, audio: np.ndarray) -> None:
    class Tensor:
        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            return jfk

    for form in (array.array("h", jfk.tobytes()), memoryview(jfk), Tensor()):
        np.testing.assert_array_equal(load_audio(form), audio)
    np.testing.assert_array_equal(load_audio(memoryview(audio)), audio)


def test_accepts_rate_and_array(audio: np.ndarray) -> None:
    np.testing.assert_array_equal(load_audio((16_000, audio)), audio)
    for rate in (8000, np.int64(8000), 8000.0):
        half = load_audio((rate, audio))
        assert len(half) == 352_000
        np.testing.assert_array_equal(half, load_audio(audio, sample_rate=rate))


# ------------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize(
    ("format", "subtype", "least"),
    [
        ("WAV", "PCM_U8", 25), ("WAV", "PCM_16", 90), ("WAV", "PCM_24", 130), ("WAV", "PCM_32", 130),
        ("WAV", "FLOAT", 300), ("WAV", "DOUBLE", 300), ("WAV", "ULAW", 25), ("WAV", "ALAW", 25),
        ("WAVEX", "PCM_16", 90), ("RF64", "PCM_16", 90), ("W64", "PCM_24", 130), ("AIFF", "PCM_16", 90),
        ("AU", "PCM_16", 90), ("CAF", "PCM_16", 90), ("FLAC", "PCM_16", 90), ("FLAC", "PCM_24", 130),
        ("OGG", "VORBIS", 10), ("OGG", "OPUS", 5), ("MP3", "MPEG_LAYER_III", 10),
    ],
)  # fmt: skip
def test_reads_every_format(audio: np.ndarray, format: str, subtype: str, least: float) -> None:
    raw = encoded(audio, 16_000, format, subtype)
    stream = AudioStream(raw)
    found = stream.read()
    assert len(found) == 176_000 and stream.duration == 11.0 and stream.sample_rate == 16_000
    assert snr(audio, found) > least


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 32_000, 44_100, 48_000, 96_000, 192_000, 44_101, 7_999])
def test_resamples_every_rate(rate: int) -> None:
    given = tone(3, rate)
    found = load_audio(given, sample_rate=rate)
    assert len(found) == 48_000
    wanted = tone(3, SAMPLE_RATE)
    assert snr(wanted[800:-800], found[800:-800]) > 60
    np.testing.assert_array_equal(load_audio(encoded(given, rate, "WAV", "FLOAT")), found)
    np.testing.assert_allclose(found, soxr.resample(given, rate, SAMPLE_RATE, quality="HQ"), atol=1e-6)


def test_resamples_smallest_and_largest_rate() -> None:
    assert len(load_audio(np.zeros(3, np.float32), sample_rate=1)) == 48_000
    assert len(load_audio(np.zeros(10_000_000, np.int8), sample_rate=10_000_000)) == 16_000


@pytest.mark.parametrize("target", [8000, 24_000, 44_100])
def test_target_rate(audio: np.ndarray, target: int) -> None:
    found = load_audio(JFK, target_rate=target)
    np.testing.assert_allclose(found, soxr.resample(audio, 16_000, target, quality="HQ"), atol=1e-6)
    np.testing.assert_array_equal(load_audio(found, target_rate=target), found)  # its rate is the target rate
    stream = AudioStream(JFK, target_rate=target)
    assert (stream.sample_rate, stream.target_rate, stream.duration) == (16_000, target, 11.0)
    np.testing.assert_allclose(stream.read(2, 3.5), found[2 * target : target * 7 // 2], atol=1e-6)
    assert {len(block) for block in stream.blocks(seconds=0.5)} == {target // 2}
    np.testing.assert_allclose(load_audio(JFK, target_rate=target, clip="1,2"), found[target : 2 * target], atol=1e-6)
    for wrong in (0, -1, 0.5, 1e9):
        with pytest.raises(ValueError, match="target_rate is"):
            AudioStream(JFK, target_rate=wrong)


def test_max_seconds_limits_the_audio(audio: np.ndarray) -> None:
    for form in (JFK, audio, JFK.with_suffix(".mp3")):
        with pytest.raises(ValueError, match=r"10\.5 s.*max_seconds"):
            load_audio(form, max_seconds=10.5)
        assert len(load_audio(form, max_seconds=11.1)) >= 176_000
        assert len(load_audio(form, max_seconds=2, clip="3,5")) == 32_000


def test_resamples_stereo_files(audio: np.ndarray) -> None:
    both = np.stack([audio, np.zeros_like(audio)], 1)
    raw = encoded(soxr.resample(both, 16_000, 44_100), 44_100, "FLAC", "PCM_24")
    stream = AudioStream(raw)
    assert (stream.channels, stream.sample_rate) == (2, 44_100)
    assert snr(audio / 2, stream.read()) > 40


def test_reads_wav_of_unknown_size(audio: np.ndarray) -> None:
    raw = encoded(audio, 16_000, "WAV", "PCM_16")
    at = raw.index(b"data") + 4
    for size in (0xFFFF_FFFF, 0x7FFF_FFFF, 0x7FFF_F000):
        stream = AudioStream(raw[:at] + struct.pack("<I", size) + raw[at + 4 :])
        assert len(stream.read()) == 176_000 and stream.duration == 11.0


def test_estimates_duration_of_mp3_without_header(audio: np.ndarray) -> None:
    raw = encoded(np.concatenate([audio * 0, audio]), 16_000, "MP3", "MPEG_LAYER_III", bitrate_mode="VARIABLE")
    assert AudioStream(raw).duration == 22.0
    stripped = raw[raw.index(raw[:2], 10) :]  # without the first frame, which has the length
    tagged = b"ID3\x04\0\0" + bytes([0, 0, 2, 0]) + bytes(256) + stripped
    for form in (stripped, tagged):
        stream = AudioStream(form)
        assert stream.duration == pytest.approx(22.0, abs=0.15)
        assert len(stream.read()) == pytest.approx(352_000, abs=2400)


# -------------------------------------------------------------------------------------- windows, clips


@settings(max_examples=30, deadline=None)
@hypothesis.given(
    rate=st.sampled_from([8000, 16_000, 22_050, 44_100, 48_000]),
    seconds=st.floats(0.01, 4),
    start=st.floats(0, 12),
    length=st.floats(0, 12),
)
def test_windows_equal_parts_of_the_whole(rate: int, seconds: float, start: float, length: float) -> None:
    noise = np.random.default_rng(rate).normal(0, 0.1, 10 * rate).astype(np.float32)
    stream = AudioStream(noise, sample_rate=rate)
    whole = stream.read()
    assert len(whole) == 160_000
    blocks = list(stream.blocks(seconds=seconds))
    assert {len(block) for block in blocks[:-1]} <= {round(seconds * 16_000)}
    np.testing.assert_allclose(np.concatenate(blocks), whole, atol=1e-6)
    first, last = round(start * 16_000), round((start + length) * 16_000)
    np.testing.assert_allclose(stream.read(start, start + length), whole[first:last], atol=1e-6)


@pytest.mark.parametrize(
    ("format", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("MP3", "MPEG_LAYER_III"),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("WAV", "GSM610"),
    ],
)
@pytest.mark.parametrize("rate", [8000, 48_000])
def test_seeking_in_files(audio: np.ndarray, format: str, subtype: str, rate: int) -> None:
    if subtype == "GSM610":
        rate = 8000
    raw = encoded(soxr.resample(np.tile(audio, 4), 16_000, rate), rate, format, subtype)
    stream = AudioStream(raw)
    whole = stream.read()
    for start, end in ((0.5, 1.0), (11.01, 20.5), (43.9, None), (30, 30)):
        last = None if end is None else round(end * 16_000)
        np.testing.assert_allclose(stream.read(start, end), whole[round(start * 16_000) : last], atol=2e-6)


def test_stream_has_independent_iterators(audio: np.ndarray) -> None:
    stream = AudioStream(io.BytesIO(JFK.read_bytes()))
    pairs = list(zip(stream.blocks(seconds=1), stream.blocks(seconds=1), strict=True))
    assert len(pairs) == 11
    for one, other in pairs:
        np.testing.assert_array_equal(one, other)


def test_clips(audio: np.ndarray) -> None:
    stream = AudioStream(JFK, clip=[(1, 3.5), (8, None)])
    assert stream.clips == ((1.0, 3.5), (8.0, None))
    found = list(stream)
    assert [start for start, _ in found] == [1.0, 8.0]
    np.testing.assert_array_equal(found[0][1], audio[16_000:56_000])
    np.testing.assert_array_equal(found[1][1], audio[128_000:])
    np.testing.assert_array_equal(load_audio(JFK, clip="1,3.5,8"), np.concatenate([s for _, s in found]))
    starts = [start for start, _ in AudioStream(np.zeros(70 * 16_000, np.int16), clip=2)]
    assert starts == [2.0, 32.0, 62.0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0", ((0.0, None),)), ("0,10.5,60", ((0.0, 10.5), (60.0, None))), (5, ((5.0, None),)), ([1, 2], ((1.0, 2.0),)),
        ([(0, 1), (1, 2)], ((0.0, 1.0), (1.0, 2.0))), (np.array([1.0, 2.0]), ((1.0, 2.0),)), ([0, 500], ((0.0, 500.0),)),
    ],
)  # fmt: skip
def test_parses_clips(given: object, expected: object) -> None:
    assert parse_clips(given, 100.0) == expected


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ("", TypeError, "clip is ''"), ("1;2", TypeError, "clip is '1;2'"), ([(1, 2, 3)], TypeError, "expected seconds"),
        (None, TypeError, "clip is None"), ([], ValueError, "at least one range"), ("3,1", ValueError, "increase"),
        ([(5, 9), (8, 10)], ValueError, "increase"), ([-1, 2], ValueError, "increase"), ([1, 1], ValueError, "increase"),
        ([(0, None), (5, 6)], ValueError, "increase"), ([np.nan], ValueError, "increase"),
        ([(100, 101)], ValueError, "ends after 100.00 s"),
    ],
)  # fmt: skip
def test_rejects_invalid_clips(given: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        parse_clips(given, 100.0)


def test_rejects_invalid_ranges() -> None:
    stream = AudioStream(JFK)
    for arguments in ((-1,), (np.nan,), (2, 1), (0, np.nan)):
        with pytest.raises(ValueError, match=r"(start|end) is .*expected seconds"):
            stream.read(*arguments)
    with pytest.raises(ValueError, match="seconds is 0"):
        list(stream.blocks(seconds=0))
    assert not len(stream.read(50, 60))


LONG = """
import resource, sys
sys.path[:0] = {path!r}
from cyllama.media.audio import AudioStream
stream = AudioStream({file!r})
n = sum(len(block) for block in stream.blocks(0, 60))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
n = sum(len(samples) for _, samples in stream)
print(n, stream.duration, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_is_independent_of_length(tmp_path: Path) -> None:
    path, rate, minutes = tmp_path / "long.wav", 44_100, 20
    block = (tone(10, rate) * 32767).astype(np.int16)
    with soundfile.SoundFile(path, "w", rate, 2, "PCM_16") as out:
        for _ in range(minutes * 6):
            out.write(np.stack([block, block], 1))
    code = LONG.format(path=[entry for entry in sys.path if entry], file=str(path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    n, duration, grown = done.stdout.split()
    assert float(duration) == minutes * 60
    assert int(n) == minutes * 60 * 16_000  # 77 MB as floats, 212 MB in the file
    assert int(grown) * (1 if sys.platform != "darwin" else 1 / 1024) < 8000, f"{grown} kB more for 19 minutes more"
    assert resource.getpagesize()


def test_releases_the_gil(tmp_path: Path, audio: np.ndarray) -> None:
    raw = encoded(soxr.resample(np.tile(audio, 60), 16_000, 48_000), 48_000, "FLAC", "PCM_16")
    gaps, stop = [0.0], threading.Event()

    def beat() -> None:
        last = time.perf_counter()
        while not stop.is_set():
            time.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        assert len(load_audio(raw)) == 660 * 16_000
    finally:
        stop.set()
        thread.join()
    assert len(gaps) > 20 and sorted(gaps)[-3] < 0.1
