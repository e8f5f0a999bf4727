"""Segments: integer tokens, temperatures, lengths, and pauses that split them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from data.sounds import JFK, jfk_float32
from data.timed_speech import Recording, join
from whisper.short import SHORT_CTX, SHORT_SECONDS

from cyllama.whisper import Transcription, Whisper

SHORT: dict[str, Any] = {"clip_timestamps": f"0,{SHORT_SECONDS}", "audio_ctx": SHORT_CTX}


@pytest.fixture(scope="module")
def pauses() -> Recording:
    return join("pauses", [1, "americans", 6, "hold", 4, "country", 2])


def check_pauses(result: Transcription, recording: Recording) -> None:
    """Check that no segment goes from one utterance into the next."""
    for before, after in pairwise(recording.utterances):
        middle = (before.end + after.start) / 2
        assert not any(segment.start < middle < segment.end for segment in result.segments)


def test_tokens_are_integers(whisper: Whisper) -> None:
    segment = whisper(JFK, **SHORT).segments[0]
    assert segment.tokens and all(type(token) is int for token in segment.tokens)
    assert segment.tokens == tuple(token.id for token in segment.token_details)
    assert segment.to_dict()["tokens"] == list(segment.tokens)


def test_segments_have_the_temperature(whisper: Whisper) -> None:
    assert whisper(JFK, **SHORT).segments[0].temperature == 0.0
    assert whisper(JFK, temperature=0.4).segments[0].temperature == 0.4
    failing = whisper(JFK, temperature=(0.2, 0.6, 1.0), logprob_threshold=0.0, no_speech_threshold=1.0)
    assert failing.segments[0].temperature == 1.0  # no temperature has a log probability of 0


@pytest.mark.parametrize("split_on_word", [True, False])
def test_limited_segments_have_a_length(whisper: Whisper, split_on_word: bool) -> None:
    result = whisper(JFK, **SHORT, max_segment_chars=12, split_on_word=split_on_word)
    assert len(result.segments) > 2
    for segment in result.segments:
        assert segment.end > segment.start and len(segment.text) <= 12
    assert all(before.end <= after.start for before, after in pairwise(result.segments))


@pytest.mark.parametrize("options", [{}, {"vad_filter": True}, {"word_timestamps": True}])
def test_pauses_split_segments(whisper: Whisper, pauses: Recording, options: dict[str, Any]) -> None:
    result = whisper(pauses.samples, **options)
    check_pauses(result, pauses)
    for segment in result.segments:
        assert (segment.words is not None) == ("word_timestamps" in options)


def test_batches_do_not_join_clips(whisper: Whisper) -> None:
    result = whisper(jfk_float32(), clip_timestamps=[(0, 4), (7, 11)], batch_size=2)
    assert result.segments
    assert not any(segment.start < 4.0 and segment.end > 7.0 for segment in result.segments)
    quiet = whisper(np.zeros(16_000, np.float32), clip_timestamps=[(0, 0.4), (0.6, 1)], batch_size=2)
    assert quiet.segments == ()
