"""Times of words: alignment, pauses, and recordings with known times."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.sounds import JFK
from data.timed_speech import Recording, join, score

from cyllama.whisper import Whisper
from cyllama.whisper._segment_times import TimedWord, place_words, trim_to_voice
from cyllama.whisper._voice import find_voice
from cyllama.whisper.results import Token

VOICE = [(0.3, 2.0), (18.0, 20.0)]


def timed(text: str, start: float, end: float, segment: int = 0) -> TimedWord:
    return TimedWord([Token(0, text.encode(), 0.5, -0.7)], start, end, segment, 0)


def places(words: list[TimedWord], segments: list[tuple[float, float]]) -> list[tuple[float, float]]:
    place_words(words, segments, VOICE, 0.0)
    return [(round(word.start, 3), round(word.end, 3)) for word in words]


@pytest.fixture(scope="module")
def recording() -> Recording:
    return join("pauses", [1, "americans", 6, "hold", 15, "country", 3])


def test_words_are_moved_out_of_pauses() -> None:
    late = places([timed(" a", 0.0, 1.0), timed(" b.", 1.0, 17.0), timed(" c", 17.0, 19.0)], [(0.0, 20.0)])
    assert late == [(0.3, 1.0), (1.0, 2.0), (18.0, 19.0)]
    early = places([timed(" a", 0.0, 1.0), timed(" b.", 1.0, 1.9), timed(" c", 1.9, 18.5)], [(0.0, 20.0)])
    assert early == [(0.3, 1.0), (1.0, 2.0), (18.0, 18.5)]


def test_words_in_silence_are_moved_to_their_segment() -> None:
    """The alignment may find the last words of a segment anywhere in the pause that follows."""
    words = [timed(" a", 0.3, 1.0), timed(" b", 1.0, 12.0), timed(" c.", 12.0, 12.5), timed(" d", 12.5, 19.0, 1)]
    found = places(words, [(0.0, 2.2), (17.5, 20.0)])
    assert found[1][0] == 1.0 and found[2][1] == 2.0 and found[3] == (18.0, 19.0)


def test_no_word_is_without_length() -> None:
    found = places([timed(" a", 0.5, 0.5), timed(" b", 0.5, 0.5), timed(" c", 2.0, 2.0)], [(0.0, 2.0)])
    assert all(end >= start + 0.05 - 1e-9 for start, end in found)
    assert [time for pair in found for time in pair] == sorted(time for pair in found for time in pair)


def test_segments_begin_and_end_with_voice() -> None:
    assert trim_to_voice(0.0, 10.0, VOICE) == (0.3, 2.0)
    assert trim_to_voice(1.9, 30.0, VOICE) == (18.0, 20.0)
    assert trim_to_voice(5.0, 9.0, VOICE) == (5.0, 9.0)


def test_finds_voice_in_silence_and_in_noise() -> None:
    tone = 0.3 * np.sin(np.arange(16_000))
    for noise in (0.0, 0.001, 0.03):
        samples = np.concatenate([np.zeros(32_000), tone, np.zeros(48_000)])
        samples += np.random.default_rng(0).normal(0, noise, len(samples)) if noise else 0.0
        ((start, end),) = find_voice(samples.astype(np.float32))
        assert start == pytest.approx(2.0, abs=0.05) and end == pytest.approx(3.0, abs=0.05)
    assert find_voice(np.zeros(16_000, np.float32)) == [(0.0, 1.0)]
    assert find_voice(np.zeros(0, np.float32)) == []


def test_aligns_beside_flash_attention() -> None:
    with Whisper("tiny.en", dtw=True, flash_attn=True) as aligned:
        result = aligned(JFK, word_timestamps=True)
    assert all(token.dtw is not None for segment in result.segments for token in segment.token_details)
    assert result.words[0].start == pytest.approx(0.3, abs=0.1)
    ask = [word.start for word in result.words if word.word.strip(" ,.").lower() == "ask"]
    assert ask == pytest.approx([3.3, 8.2], abs=0.25)


def test_words_without_alignment_are_near_their_voice(recording: Recording) -> None:
    with Whisper("tiny.en", dtw=False) as whisper:
        result = whisper(recording.samples, word_timestamps=True)
    assert all(token.dtw is None for segment in result.segments for token in segment.token_details)
    for word in result.words:
        assert any(part.start - 0.6 < word.start < word.end < part.end + 0.6 for part in recording.utterances), word


@pytest.mark.parametrize("options", [{}, {"vad_filter": True}])
def test_times_of_utterances(whisper: Whisper, recording: Recording, options: dict[str, Any]) -> None:
    result = whisper(recording.samples, word_timestamps=True, **options)
    found = score(recording, [(word.word, word.start, word.end) for word in result.words])
    assert len(found.starts) == len(found.ends) == 3
    assert np.mean(found.starts) <= 0.25 and max(found.starts) <= 0.6 and max(found.ends) <= 0.6
    assert found.invented == 0 and found.wrong <= 3
    for segment in result.segments:
        assert segment.words is not None
        assert (segment.start, segment.end) == (segment.words[0].start, segment.words[-1].end)
    assert all(word.end > word.start for word in result.words)
