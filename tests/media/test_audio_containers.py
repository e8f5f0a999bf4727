"""Containers that PyAV reads."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soxr
from data.containers import container
from data.sounds import JFK, jfk_float32

from cyllama.errors import MediaError
from cyllama.media.audio import AudioStream, load_audio


@pytest.fixture(scope="module")
def audio() -> np.ndarray:
    return jfk_float32()


@pytest.mark.parametrize(
    ("ending", "codec", "rate"),
    [
        ("m4a", "aac", 44_100),
        ("mp4", "aac", 48_000),
        ("webm", "libopus", 48_000),
        ("mkv", "flac", 16_000),
        ("aac", "aac", 16_000),
    ],
)
def test_reads_containers(tmp_path: Path, audio: np.ndarray, ending: str, codec: str, rate: int) -> None:
    given = soxr.resample(audio, 16_000, rate) if rate != 16_000 else audio
    path = container(tmp_path / f"talk.{ending}", codec, given, rate, video=ending == "mp4")
    for form in (path, path.read_bytes()):
        stream = AudioStream(form)
        found = stream.read()
        assert stream.duration == pytest.approx(11.0, abs=0.15) and stream.channels == 2
        shift = int(np.argmax(np.correlate(found[16_000:80_000], audio[17_000:79_000], "valid"))) - 1000
        assert abs(shift) <= (2100 if ending == "aac" else 10)  # raw AAC does not record the encoder's delay
        part = stream.read(2, 4)
        np.testing.assert_allclose(part, found[32_000:64_000], atol=1e-6)


def test_rejects_container_without_audio(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"silent.mp4' has no audio track"):
        load_audio(container(tmp_path / "silent.mp4", "", np.zeros(0), 0, video=True))


def test_error_names_the_missing_package(tmp_path: Path, audio: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = container(tmp_path / "talk.m4a", "aac", audio, 16_000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"talk.m4a' as audio: .*need PyAV: pip install av"):
        load_audio(path)


def test_rejects_playlists(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:11\n#EXTINF:11,\n{JFK}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {JFK}\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(MediaError, match="cannot read"):
            load_audio(tmp_path / name)
