"""Chunks of audio: complete, cut at quiet moments, with times of the audio."""

from __future__ import annotations

import numpy as np
import pytest

from cyllama.media.audio import SAMPLE_RATE, AudioStream
from cyllama.whisper import _chunking
from cyllama.whisper._chunking import audio_chunks, find_speech, speech_chunks


def test_short_audio_is_one_chunk() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE).astype(np.float32)
    (chunk,) = audio_chunks(AudioStream(samples))
    assert np.array_equal(chunk.samples, samples)
    assert (chunk.start, chunk.end, chunk.start_time(2.5), chunk.end_time(99)) == (0.0, 5.0, 2.5, 5.0)


@pytest.mark.parametrize("seconds", [60, 75, 130])
def test_long_audio_is_cut_at_quiet_moments(monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    monkeypatch.setattr(_chunking, "CHUNK_SECONDS", 60.0)
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, seconds * SAMPLE_RATE).astype(np.float32)
    quiet = slice(round(41.0 * SAMPLE_RATE), round(41.5 * SAMPLE_RATE))
    samples[quiet] = 0
    found = list(audio_chunks(AudioStream(samples)))
    assert len(found) == {60: 1, 75: 2, 130: 3}[seconds]
    assert np.array_equal(np.concatenate([chunk.samples for chunk in found]), samples)
    assert [chunk.end for chunk in found[:-1]] == [chunk.start for chunk in found[1:]]
    if len(found) > 1:
        assert 41.0 <= found[0].end <= 41.5
    assert found[-1].end == seconds


def test_clips_are_chunks() -> None:
    samples = np.arange(4 * SAMPLE_RATE, dtype=np.float32) / (4 * SAMPLE_RATE)
    first, second = audio_chunks(AudioStream(samples, clip="1,1.5,3"))
    assert np.array_equal(first.samples, samples[SAMPLE_RATE : SAMPLE_RATE * 3 // 2])
    assert (first.start, first.end, second.start, second.end) == (1.0, 1.5, 3.0, 4.0)


def test_finds_speech_in_each_chunk() -> None:
    stream = AudioStream(np.zeros(4 * SAMPLE_RATE, np.float32), clip="1,2,3,4")
    assert find_speech(audio_chunks(stream), lambda samples: [(0.25, 0.5)]) == [(1.25, 1.5), (3.25, 3.5)]


def test_joins_ranges_of_speech() -> None:
    samples = np.random.default_rng(0).uniform(0.1, 0.5, 6 * SAMPLE_RATE).astype(np.float32)
    stream = AudioStream(samples)
    (chunk,) = speech_chunks(stream, [(1.0, 1.5), (3.0, 3.5)])
    parts = [samples[SAMPLE_RATE : round(1.5 * SAMPLE_RATE)], samples[3 * SAMPLE_RATE : round(3.5 * SAMPLE_RATE)]]
    np.testing.assert_array_equal(chunk.samples, np.concatenate(parts))
    moments = (-1.0, 0.0, 0.25, 0.5, 0.75, 1.0, 9.0)
    assert [chunk.start_time(m) for m in moments] == pytest.approx([1.0, 1.0, 1.25, 3.0, 3.25, 3.5, 3.5])
    assert [chunk.end_time(m) for m in moments] == pytest.approx([1.0, 1.0, 1.25, 1.5, 3.25, 3.5, 3.5])


@pytest.mark.parametrize(
    ("word", "time"),
    [
        ((0.1, 0.3), (1.1, 1.3)),
        ((0.3, 0.6), (1.3, 1.5)),  # most of it is before the pause
        ((0.4, 0.9), (3.0, 3.4)),
        ((0.5, 0.5), (1.5, 1.5)),
        ((0.9, 1.4), (3.4, 3.5)),
    ],
)
def test_both_times_of_a_word_are_in_one_range(word: tuple[float, float], time: tuple[float, float]) -> None:
    samples = np.zeros(6 * SAMPLE_RATE, np.float32)
    (chunk,) = speech_chunks(AudioStream(samples), [(1.0, 1.5), (3.0, 3.5)])
    assert chunk.range_time(*word) == pytest.approx(time)


def test_limits_the_length_of_speech_chunks() -> None:
    stream = AudioStream(np.zeros(90 * SAMPLE_RATE, np.float32))
    speech = [(float(i), i + 0.8) for i in range(0, 88, 4)] + [(88.0, 90.0)]
    found = list(speech_chunks(stream, speech, 5.0))
    assert all(len(chunk.samples) <= 5 * SAMPLE_RATE for chunk in found)
    assert found[0].start == 0.0 and found[-1].end == 90.0
    assert list(speech_chunks(stream, [])) == []
