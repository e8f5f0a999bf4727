"""Speakers by the channels of a recording."""

from __future__ import annotations

import io

import numpy as np
import pytest
from data.sounds import encoded, tone

from cyllama.media.audio import AudioStream
from cyllama.whisper import Segment, channel_speakers

RATE = 16_000


@pytest.fixture(scope="module")
def call() -> np.ndarray:
    """Left, right, then both."""
    sound, silence = tone(1.0, RATE), np.zeros(RATE, np.float32)
    left, right = np.concatenate([sound, silence, sound]), np.concatenate([silence, sound, sound])
    return np.stack([left, right], axis=1)


def segment(start: float, end: float) -> Segment:
    return Segment(0, 0, start, end, "")


def test_finds_the_louder_channel(call: np.ndarray) -> None:
    segments = [segment(0.1, 0.9), segment(1.0, 1.9), segment(2.1, 2.9), segment(9.0, 9.5)]
    for form in (encoded(call, RATE, "WAV", "PCM_16"), encoded(call, RATE, "OGG", "VORBIS"), call):
        assert channel_speakers(form, segments) == [0, 1, None, None]


def test_reads_one_channel(call: np.ndarray) -> None:
    for form in (call, encoded(call, RATE, "WAV", "FLOAT")):
        for channel in (0, 1):
            np.testing.assert_array_equal(AudioStream(form, channel=channel).read(), call[:, channel])
        with pytest.raises(ValueError, match="channel is 2"):
            AudioStream(form, channel=2)


def test_rejects_one_channel(call: np.ndarray) -> None:
    with pytest.raises(ValueError, match="one channel"):
        channel_speakers(call[:, 0], [])
    with pytest.raises(TypeError, match="BytesIO"):
        channel_speakers(io.BytesIO(), [])
