"""Utterances that the model skips."""

from __future__ import annotations

from typing import Any

import pytest
from data.timed_speech import score, timed_recordings

from cyllama.whisper import Whisper
from cyllama.whisper._segment_builder import EngineSegment
from cyllama.whisper._skipped_speech import is_better, shift_segment, skipped_parts
from cyllama.whisper._state import WhisperToken

VOICE = [(1.0, 3.0), (3.2, 5.0), (8.0, 11.0), (20.0, 21.0)]


def segment(n_tokens: int, start: float, end: float, plog: float = -0.2) -> EngineSegment:
    token = WhisperToken(1, b" a", 0.8, plog, 100, 150, -1, 0, 0.0, 0.0, 0.0)
    return EngineSegment([token] * n_tokens, start, end, 0.0, 0.0, False)


def test_finds_the_utterances_of_a_window_with_too_little_text() -> None:
    assert skipped_parts([segment(5, 0.9, 6.0), segment(4, 6.0, 12.0)], VOICE) == [
        pytest.approx((0.8, 5.2)),
        pytest.approx((7.8, 11.2)),
    ]


@pytest.mark.parametrize(
    ("window", "voice"),
    [
        ([], VOICE),
        ([segment(30, 0.9, 12.0)], VOICE),  # enough text
        ([segment(1, 0.9, 6.0)], VOICE),  # one utterance
        ([segment(1, 0.0, 30.0)], [(0.0, 30.0)]),  # no pauses: noise or music
        ([segment(1, 0.0, 30.0)], [(float(i), i + 0.5) for i in range(30)]),  # noises
        ([segment(1, 0.0, 30.0)], [(0.0, 1.0), (5.0, 6.0)]),  # short words
    ],
)
def test_leaves_other_windows_alone(window: list[EngineSegment], voice: list[tuple[float, float]]) -> None:
    assert skipped_parts(window, voice) == []


def test_takes_clearly_more_text_of_which_the_model_is_sure() -> None:
    before = [segment(10, 0.0, 9.0)]
    assert is_better([segment(8, 0.0, 4.0), segment(8, 5.0, 9.0)], before)
    assert not is_better([segment(12, 0.0, 9.0)], before)
    assert not is_better([segment(30, 0.0, 9.0, plog=-1.5)], before)
    assert not is_better([], before)


def test_shifts_segments_and_tokens() -> None:
    found = shift_segment(segment(1, 1.0, 2.0), 2.5)
    (token,) = found.tokens
    assert (found.start, found.end, token.t0, token.t1, token.t_dtw) == (3.5, 4.5, 350, 400, -1)


@pytest.mark.parametrize(
    ("name", "model", "options", "wrong"),
    [
        ("telephone", "tiny.en", {}, 3),
        ("digital silence", "tiny.en", {"vad_filter": True}, 0),
        ("German", "base", {"vad_filter": True}, 6),
    ],
)
def test_transcribes_utterances_that_the_model_skips(
    name: str, model: str, options: dict[str, Any], wrong: int
) -> None:
    """Without a second transcription, or with little of the pauses, 15 to 28 words were missing."""
    (recording,) = [item for item in timed_recordings() if item.name == name]
    with Whisper(model) as whisper:
        result = whisper(recording.samples, word_timestamps=True, language=recording.language, **options)
    found = score(recording, [(word.word, word.start, word.end) for word in result.words])
    assert len(found.starts) == len(recording.utterances) and found.wrong <= wrong
    assert max(found.starts) <= 0.25 and max(found.ends) <= 0.25
    assert [item.start for item in result.segments] == sorted(item.start for item in result.segments)
