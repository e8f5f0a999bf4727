"""Sound out of what libsndfile cannot read, through PyAV."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soxr
from data.sounds import JFK, jfk_float32

from cyllama.errors import MediaError
from cyllama.media.audio import AudioStream, load_audio


@pytest.fixture(scope="module")
def sound() -> np.ndarray:
    return jfk_float32()


def container(path: Path, codec: str, samples: np.ndarray, rate: int, video: bool = False) -> Path:
    """A file that FFmpeg makes: `samples` on both channels, perhaps with pictures."""
    with av.open(str(path), "w") as out:
        picture = out.add_stream("mpeg4", rate=10) if video else None
        stream = out.add_stream(codec, rate=rate, layout="stereo") if codec else None
        if picture is not None:
            picture.width = picture.height = 64
            frames = [av.VideoFrame.from_ndarray(np.full((64, 64, 3), i * 20, np.uint8)) for i in range(10)]
            for picture_frame in [*frames, None]:
                out.mux(picture.encode(picture_frame))
        if stream is not None:
            resampler = av.AudioResampler(stream.codec_context.format, "stereo", rate, frame_size=1024)
            frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]), format="fltp", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                out.mux(stream.encode(piece))
    return path


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
def test_containers(tmp_path: Path, sound: np.ndarray, ending: str, codec: str, rate: int) -> None:
    given = soxr.resample(sound, 16_000, rate) if rate != 16_000 else sound
    path = container(tmp_path / f"talk.{ending}", codec, given, rate, video=ending == "mp4")
    for form in (path, path.read_bytes()):
        stream = AudioStream(form)
        found = stream.read()
        assert stream.duration == pytest.approx(11.0, abs=0.15) and stream.channels == 2
        shift = int(np.argmax(np.correlate(found[16_000:80_000], sound[17_000:79_000], "valid"))) - 1000
        assert abs(shift) <= (2100 if ending == "aac" else 10)  # raw AAC does not say what the encoder put before
        part = stream.read(2, 4)
        np.testing.assert_allclose(part, found[32_000:64_000], atol=1e-6)


def test_a_container_without_sound(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"silent.mp4' has no sound track"):
        load_audio(container(tmp_path / "silent.mp4", "", np.zeros(0), 0, video=True))


def test_a_truncated_container(tmp_path: Path, sound: np.ndarray) -> None:
    raw = container(tmp_path / "talk.m4a", "aac", sound, 16_000).read_bytes()
    with pytest.raises(MediaError, match="cannot read the audio of"):  # its index is at the end
        load_audio(raw[: len(raw) // 2])
    raw = container(tmp_path / "talk.mkv", "flac", sound, 16_000).read_bytes()
    with pytest.raises(MediaError, match="truncated"):
        load_audio(raw[: len(raw) // 2])


def test_the_extra_is_named(tmp_path: Path, sound: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    path = container(tmp_path / "talk.m4a", "aac", sound, 16_000)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MediaError, match=r"talk.m4a' as sound: .*need PyAV: pip install av"):
        load_audio(path)


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:11\n#EXTINF:11,\n{JFK}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.ffconcat").write_text(f"ffconcat version 1.0\nfile {JFK}\n")
    for name in ("list.m3u8", "list.ffconcat"):
        with pytest.raises(MediaError, match="cannot read"):
            load_audio(tmp_path / name)
