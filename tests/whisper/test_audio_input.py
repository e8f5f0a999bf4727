"""Audio of a transcription: limits, cancelling while it is decoded, streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.sounds import JFK, encoded, flac_without_length, jfk_float32
from media.test_audio_limits import Counter
from whisper.short import SHORT_CTX

from cyllama.errors import AudioTooLongError, CancelledError, DamagedAudioWarning
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


@pytest.mark.parametrize("options", [{}, {"vad_filter": True}, {"batch_size": 2}])
def test_transcribes_a_truncated_file_up_to_its_end(whisper: Whisper, options: dict[str, Any]) -> None:
    raw = encoded(jfk_float32(), 16_000, "FLAC", "PCM_16")
    with pytest.warns(DamagedAudioWarning, match="truncated at"):
        found = whisper(raw[: len(raw) // 2], audio_ctx=SHORT_CTX, **options)
    assert "my fellow Americans" in found.text and found.duration == pytest.approx(5.5, abs=0.6)


def test_transcribes_a_recording_without_a_size(whisper: Whisper) -> None:
    raw = bytearray(JFK.read_bytes())
    place = raw.index(b"data") + 4
    raw[4:8] = raw[place : place + 4] = bytes(4)
    found = whisper(bytes(raw))
    assert "ask what you can do for your country" in found.text and found.duration == 11.0


def test_opens_the_file_at_the_call(whisper: Whisper, tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(JFK.read_bytes())
    segments, _ = whisper.transcribe(path)
    path.unlink()
    assert "fellow Americans" in next(segments).text
    segments.close()
    with pytest.raises(FileNotFoundError):
        whisper.transcribe(path)
