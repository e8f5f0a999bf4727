"""Files that break off, are damaged, or have a wrong header: what is there is read, and a warning says where."""

from __future__ import annotations

import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from data.containers import container
from data.sounds import encoded, flac_without_length, jfk_float32, snr

from cyllama.errors import DamagedAudioWarning, MediaError
from cyllama.media.audio import AudioStream, load_audio

RATE = 16_000
FORMATS = [
    ("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("W64", "PCM_16"), ("RF64", "PCM_16"), ("CAF", "PCM_16"),
    ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("MP3", "MPEG_LAYER_III"),
]  # fmt: skip
CONTAINERS = {
    "faststart.m4a": ("aac", RATE, {"movflags": "faststart"}),
    "fragmented.mp4": ("aac", RATE, {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}),
    "talk.webm": ("libopus", 48_000, {}),
    "talk.mkv": ("flac", RATE, {}),
    "talk.aac": ("aac", RATE, {}),
}  # fmt: skip


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return jfk_float32()


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory, audio: np.ndarray) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("containers")
    found = {}
    for name, (codec, rate, options) in CONTAINERS.items():
        samples = np.repeat(audio, rate // RATE)
        found[name] = container(folder / name, codec, samples, rate, options=options).read_bytes()
    return found


def damaged(raw: bytes) -> bytes:
    """Return a file with noise in the middle."""
    noise = np.random.default_rng(1).integers(0, 256, len(raw) // 50, dtype=np.uint8).tobytes()
    start = len(raw) // 2
    return raw[:start] + noise + raw[start + len(noise) :]


def read_damaged(form: object) -> np.ndarray:
    with pytest.warns(DamagedAudioWarning, match=r"at \d+\.\d\d s: "):
        return load_audio(form)


@pytest.mark.parametrize("part", [0.9, 0.3])
@pytest.mark.parametrize(("format", "subtype"), FORMATS)
def test_reads_the_beginning_of_a_truncated_file(
    audio: np.ndarray, tmp_path: Path, format: str, subtype: str, part: float
) -> None:
    raw = encoded(audio, RATE, format, subtype)
    path = tmp_path / "cut"
    path.write_bytes(raw[: int(len(raw) * part)])
    whole = load_audio(raw)
    for form in (path, path.read_bytes()):
        found = read_damaged(form)
        assert (part - 0.25) * len(audio) < len(found) < (part + 0.2) * len(audio)
        assert snr(whole[: len(found) - 8000], found[:-8000]) > 20
        with pytest.warns(DamagedAudioWarning):
            stream = AudioStream(form)
            stream.read()
        assert stream.duration == pytest.approx(len(found) / RATE, abs=0.15)


@pytest.mark.parametrize("name", CONTAINERS)
def test_reads_the_beginning_of_a_truncated_container(containers: dict[str, bytes], name: str) -> None:
    raw = containers[name]
    found = read_damaged(raw[: len(raw) // 2])
    assert 4 * RATE < len(found) < 7 * RATE
    assert snr(load_audio(raw)[: 4 * RATE], found[: 4 * RATE]) > 20


@pytest.mark.parametrize("name", ["faststart.m4a", "talk.webm", "talk.mkv", "talk.aac", "talk.mp3", "talk.flac"])
def test_reads_what_follows_the_damage(containers: dict[str, bytes], audio: np.ndarray, name: str) -> None:
    formats = {"talk.mp3": ("MP3", "MPEG_LAYER_III"), "talk.flac": ("FLAC", "PCM_16")}
    raw = encoded(audio, RATE, *formats[name]) if name in formats else containers[name]
    found, whole = read_damaged(damaged(raw)), load_audio(raw)
    assert len(found) == pytest.approx(len(whole), abs=RATE)
    end = whole[-3 * RATE : -RATE]
    shift = int(np.argmax(np.correlate(found[-5 * RATE :], end, "valid"))) - 2 * RATE
    assert abs(shift) < RATE


@pytest.mark.parametrize(("format", "subtype"), [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_reads_up_to_the_damage_without_ffmpeg(
    audio: np.ndarray, monkeypatch: pytest.MonkeyPatch, format: str, subtype: str
) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    found = read_damaged(damaged(encoded(audio, RATE, format, subtype)))
    assert 4 * RATE < len(found) < 6.5 * RATE


def test_rejects_a_file_without_any_audio(audio: np.ndarray, tmp_path: Path) -> None:
    flac = encoded(audio, RATE, "FLAC", "PCM_16")
    m4a = container(tmp_path / "talk.m4a", "aac", audio, RATE).read_bytes()
    for raw in (flac[:200], m4a[: len(m4a) // 2]):  # the index of the m4a file is at its end
        with pytest.raises(MediaError):
            load_audio(raw)


def test_warns_once(audio: np.ndarray) -> None:
    raw = encoded(audio, RATE, "MP3", "MPEG_LAYER_III")
    stream = AudioStream(raw[: len(raw) // 2])
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        first, second = stream.read(), stream.read()
    assert len(found) == 1 and len(first) == len(second)


def test_ranges_of_whole_files_do_not_warn(audio: np.ndarray) -> None:
    for format, subtype in FORMATS:
        stream = AudioStream(encoded(audio, RATE, format, subtype))
        assert len(stream.read(1, 2)) == RATE and len(stream.read()) == pytest.approx(len(audio), abs=1700)


# ------------------------------------------------------------------------ headers without a size


def _set(raw: bytes, chunk: bytes, offset: int, value: bytes) -> bytes:
    place = raw.index(chunk) + offset
    return raw[:place] + value + raw[place + len(value) :]


def headers(audio: np.ndarray) -> dict[str, bytes]:
    """Return files of recorders that did not write the size at the end."""
    wav = encoded(audio, RATE, "WAV", "PCM_16")
    found = {}
    for size in (0, 8, 36, len(wav) - 8, 0xFFFFFFFF):
        for data in (0, 0xFFFFFFFF):
            lying = _set(_set(wav, b"RIFF", 4, struct.pack("<I", size)), b"data", 4, struct.pack("<I", data))
            found[f"wav {size:x} {data:x}"] = lying
    for codec in ("ULAW", "IMA_ADPCM", "FLOAT"):
        found[f"wav {codec}"] = _set(encoded(audio, RATE, "WAV", codec), b"data", 4, bytes(4))
    rf64 = encoded(audio, RATE, "RF64", "PCM_16")
    found["rf64 0"] = _set(rf64, b"ds64", 8, bytes(24))
    found["rf64 -1"] = _set(rf64, b"ds64", 8, b"\xff" * 24)
    aiff = _set(encoded(audio, RATE, "AIFF", "PCM_16"), b"COMM", 10, bytes(4))
    found["aiff 0"], found["aiff 8"] = (_set(aiff, b"SSND", 4, struct.pack(">I", size)) for size in (0, 8))
    found["au 0"] = _set(encoded(audio, RATE, "AU", "PCM_16"), b".snd", 8, bytes(4))
    found["w64 24"] = _set(encoded(audio, RATE, "W64", "PCM_16"), b"data", 16, struct.pack("<Q", 24))
    caf = encoded(audio, RATE, "CAF", "PCM_16")
    found["caf 0"], found["caf -1"] = (_set(caf, b"data", 4, struct.pack(">q", size)) for size in (0, -1))
    found["flac 0"] = flac_without_length(audio)
    return found


def test_reads_files_whose_header_has_no_size(audio: np.ndarray, tmp_path: Path) -> None:
    for name, raw in headers(audio).items():
        path = tmp_path / "live"
        path.write_bytes(raw)
        for form in (raw, path):
            stream = AudioStream(form)
            found = stream.read()
            assert len(found) == pytest.approx(len(audio), abs=1100), name
            assert snr(audio, found) > 20, name
            assert stream.duration == pytest.approx(11.0, abs=0.07), name
            np.testing.assert_allclose(stream.read(5, 6), found[5 * RATE : 6 * RATE], atol=1e-6, err_msg=name)


def test_an_empty_file_stays_empty(audio: np.ndarray) -> None:
    empty = encoded(audio[:0], RATE, "WAV", "PCM_16")
    for raw in (empty, empty + b"LIST\4\0\0\0INFO"):
        assert len(load_audio(raw, allow_empty=True)) == 0


# ----------------------------------------------------------------------------- files that are gone


@pytest.mark.parametrize("name", ["talk.wav", "talk.ogg", "talk.webm"])
def test_reads_a_file_that_was_removed_after_opening(
    audio: np.ndarray, containers: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    raw = {
        "talk.wav": encoded(audio, RATE, "WAV", "PCM_16"),
        "talk.ogg": encoded(audio, RATE, "OGG", "VORBIS"),
        "talk.webm": containers["talk.webm"],
    }[name]
    path = tmp_path / name
    path.write_bytes(raw)
    stream = AudioStream(path)
    path.unlink()
    path.write_bytes(b"another file")
    np.testing.assert_array_equal(stream.read(), load_audio(raw))
