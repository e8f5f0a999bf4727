"""Limits of the length of audio, and cancelling while it is decoded, for each decoder."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from data.sounds import encoded, flac_without_length

from cyllama.errors import AudioTooLongError, CancelledError
from cyllama.media.audio import AudioStream, RangeReader, load_audio

SECONDS, RATE = 60, 16_000


class Counter:
    """A cancel object that counts how often it is checked, and is set after `limit` times."""

    def __init__(self, limit: int = 1 << 60) -> None:
        self.checks, self.limit = 0, limit

    def is_set(self) -> bool:
        self.checks += 1
        return self.checks > self.limit


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(1).uniform(-0.1, 0.1, SECONDS * RATE).astype(np.float32)


def with_ffmpeg(samples: np.ndarray, ending: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=ending) as out:
        stream = out.add_stream(codec, rate=RATE, layout="mono")
        resampler = av.AudioResampler(stream.codec_context.format, "mono", RATE, frame_size=1024)
        frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, 0, Fraction(1, RATE)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            out.mux(stream.encode(part))
    return file.getvalue()


DECODERS: dict[str, Callable[[np.ndarray], object]] = {
    "array": lambda samples: samples,
    "wav": lambda samples: encoded(samples, RATE, "WAV", "PCM_16"),
    "flac": lambda samples: encoded(samples, RATE, "FLAC", "PCM_16"),
    "flac without length": flac_without_length,
    "ogg": lambda samples: encoded(samples, RATE, "OGG", "VORBIS"),
    "opus": lambda samples: encoded(samples, RATE, "OGG", "OPUS"),
    "mp3": lambda samples: encoded(samples, RATE, "MP3", "MPEG_LAYER_III"),
    "aac": lambda samples: with_ffmpeg(samples, "adts", "aac"),
    "mkv": lambda samples: with_ffmpeg(samples, "matroska", "flac"),
    "mp4": lambda samples: with_ffmpeg(samples, "mp4", "aac"),
}
UNKNOWN_LENGTH = ("flac without length", "aac")


@pytest.fixture(scope="module", params=DECODERS)
def audio(request: pytest.FixtureRequest, noise: np.ndarray) -> object:
    return DECODERS[request.param](noise)


def checks_of_whole(audio: object) -> int:
    counter = Counter()
    AudioStream(audio, cancel=counter).read()
    return counter.checks


def test_stops_decoding_at_the_limit(audio: object) -> None:
    whole = checks_of_whole(audio)
    for read in (
        lambda **options: AudioStream(audio, **options).read(),
        lambda **options: load_audio(audio, **options),
    ):
        counter = Counter()
        with pytest.raises(AudioTooLongError, match=r"longer than 4\.5 s"):
            read(max_seconds=4.5, cancel=counter)
        assert counter.checks < whole / 4
        assert len(read(max_seconds=SECONDS + 1.0)) >= SECONDS * RATE


def test_duration_stops_at_the_limit(audio: object) -> None:
    with pytest.raises(AudioTooLongError):
        AudioStream(audio, max_seconds=SECONDS - 1).duration  # noqa: B018
    assert AudioStream(audio, max_seconds=SECONDS + 1).duration == pytest.approx(SECONDS, abs=0.2)


@pytest.mark.parametrize("name", UNKNOWN_LENGTH)
def test_counts_unknown_length_only_up_to_the_limit(name: str, noise: np.ndarray) -> None:
    audio, whole, counter = DECODERS[name](noise), Counter(), Counter()
    assert AudioStream(audio, cancel=whole).duration == pytest.approx(SECONDS, abs=0.2)
    with pytest.raises(AudioTooLongError):
        AudioStream(audio, max_seconds=4, cancel=counter).duration  # noqa: B018
    assert counter.checks < whole.checks / 4
    stop = Counter(limit=2)
    with pytest.raises(CancelledError):
        AudioStream(audio, cancel=stop).duration  # noqa: B018
    assert stop.checks == 3


def test_cancels_while_decoding(audio: object) -> None:
    counter = Counter(limit=3)
    with pytest.raises(CancelledError):
        AudioStream(audio, cancel=counter).read()
    assert counter.checks == 4  # nothing is decoded afterwards
    event = threading.Event()
    stream = AudioStream(audio, max_seconds=SECONDS + 1).with_cancel(event)
    blocks = stream.blocks(seconds=1.0)
    next(blocks)
    event.set()
    with pytest.raises(CancelledError):
        list(blocks)


@pytest.mark.parametrize("name", ["ogg", "aac", "mkv"])
def test_checks_cancel_in_what_is_skipped(name: str, noise: np.ndarray) -> None:
    stream, counter = AudioStream(DECODERS[name](noise)), Counter()
    next(stream.with_cancel(counter).blocks(SECONDS - 2.0))
    assert counter.checks > SECONDS / 8


def test_cancels_reading_of_a_file_object(noise: np.ndarray) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    with pytest.raises(CancelledError):
        AudioStream(Endless(), cancel=Counter(limit=5))


def test_reads_ranges_in_one_pass(audio: object) -> None:
    counter = Counter()
    reader = RangeReader(AudioStream(audio, cancel=counter))
    stream = AudioStream(audio)
    ranges = [(start, start + 1.5) for start in np.arange(0, SECONDS, 1.0)] + [(SECONDS + 5.0, SECONDS + 6.0)]
    whole = stream.read()
    for start, end in ranges:
        expected = whole[round(start * RATE) : round(end * RATE)]
        np.testing.assert_allclose(reader.read(float(start), float(end)), expected, atol=1e-6)
    assert counter.checks <= checks_of_whole(audio) + 1
    np.testing.assert_allclose(reader.read(3.0, 4.0), whole[3 * RATE : 4 * RATE], atol=1e-6)  # again from the start


def test_reads_clips_in_one_pass(audio: object) -> None:
    clips = [(start, start + 0.5) for start in np.arange(0, SECONDS - 1, 1.0)]
    counter = Counter()
    stream = AudioStream(audio, clip=clips, cancel=counter)
    whole = AudioStream(audio).read()
    expected = [whole[round(start * RATE) : round(end * RATE)] for start, end in clips]
    for (start, samples), (first, _), wanted in zip(stream, clips, expected, strict=True):
        assert start == first
        np.testing.assert_allclose(samples, wanted, atol=1e-6)
    np.testing.assert_allclose(load_audio(audio, clip=clips, cancel=counter), np.concatenate(expected), atol=1e-6)
    passes = 2 if AudioStream(audio)._source.frames is not None else 4  # with one for the length
    assert counter.checks <= passes * checks_of_whole(audio) + 4


@pytest.mark.parametrize("name", ["wav", "flac"])
def test_seeks_across_long_gaps_between_clips(name: str) -> None:
    samples = np.zeros(RATE * 600, np.int16)
    counter = Counter()
    audio = encoded(samples, RATE, name.upper(), "PCM_16")
    parts = list(AudioStream(audio, clip=[(0, 1), (300, 301), (598, 599)], cancel=counter))
    assert [len(part) for _, part in parts] == [RATE] * 3
    assert counter.checks < 20


def test_blocks_are_bounded_for_many_channels(tmp_path: Path) -> None:
    samples = np.zeros((200_000, 64), np.int16)
    counter = Counter()
    AudioStream(encoded(samples, 192_000, "WAV", "PCM_16"), cancel=counter).read()
    assert counter.checks > samples.size >> 20


@pytest.mark.parametrize(
    ("value", "error"), [("4", TypeError), (True, TypeError), (-1, ValueError), (np.nan, ValueError)]
)
def test_rejects_invalid_limits(value: object, error: type[Exception], noise: np.ndarray) -> None:
    with pytest.raises(error, match="max_seconds"):
        AudioStream(noise, max_seconds=value)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="cancel"):
        AudioStream(noise, cancel=value)  # type: ignore[arg-type]
