"""Audio of a transcription: limits, cancelling while it is decoded, streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from data.sounds import encoded, flac_without_length
from media.test_audio_limits import Counter

from cyllama.errors import AudioTooLongError, CancelledError
from cyllama.media.audio import AudioStream
from cyllama.whisper import Whisper
from cyllama.whisper._chunking import audio_chunks, speech_chunks


@pytest.fixture(scope="module")
def long_audio() -> bytes:
    """40 minutes of silence in a file that does not contain its length."""
    return flac_without_length(np.zeros(40 * 60 * 16_000, np.float32))


CALLS: dict[str, Callable[..., Any]] = {
    "call": lambda whisper, audio, **options: whisper(audio, **options),
    "segments": lambda whisper, audio, **options: list(whisper.transcribe(audio, **options)[0]),
    "vad": lambda whisper, audio, **options: whisper(audio, vad_filter=True, **options),
}


@pytest.mark.parametrize("name", CALLS)
def test_cancels_while_audio_is_decoded(name: str, whisper: Whisper, long_audio: bytes) -> None:
    counter = Counter(limit=20)
    with pytest.raises(CancelledError):
        CALLS[name](whisper, long_audio, cancel=counter)
    assert counter.checks < 60  # of 600 blocks


@pytest.mark.parametrize("name", CALLS)
def test_limits_the_length_of_a_stream(name: str, whisper: Whisper, long_audio: bytes) -> None:
    counter = Counter()
    with pytest.raises(AudioTooLongError, match="30 s"):
        CALLS[name](whisper, AudioStream(long_audio, max_seconds=30, cancel=counter))
    assert counter.checks < 20


def test_transcribes_a_stream(whisper: Whisper, short: np.ndarray) -> None:
    text = whisper(short).text
    stream = AudioStream(encoded(short, 16_000, "FLAC", "PCM_16"), cancel=threading.Event())
    assert whisper(stream).text == text and whisper(stream).duration == stream.duration
    assert whisper(AudioStream(short, clip=(0.0, 0.5))).segments != whisper(short).segments


def test_rejects_options_that_a_stream_has_itself(whisper: Whisper, short: np.ndarray) -> None:
    for options in ({"sample_rate": 16_000}, {"clip_timestamps": "0,1"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            whisper(AudioStream(short), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="target_rate"):
        whisper(AudioStream(short, target_rate=8000))


def test_ranges_of_speech_decode_the_audio_once(long_audio: bytes) -> None:
    whole, counter = Counter(), Counter()
    list(audio_chunks(AudioStream(long_audio, cancel=whole)))
    ranges = [(start, start + 2.0) for start in np.arange(0.0, 2380.0, 20.0)]
    chunks = list(speech_chunks(AudioStream(long_audio, cancel=counter), ranges))
    assert chunks and counter.checks <= whole.checks
