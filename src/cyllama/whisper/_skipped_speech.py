"""Find the windows in which the model skipped utterances: their text is too short for their voice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cyllama.whisper._segment_builder import CENTISECONDS, EngineSegment
from cyllama.whisper._voice import VoiceRange

__all__ = ["is_better", "shift_segment", "skipped_parts"]

TOKENS_PER_SECOND = 2.0  # of voice: speech has three to six, slow speech two and a half
LEAST_SECONDS = 3.0
MOST_PARTS = 8  # more are rather noises; each takes the time of a whole window
PAUSE_SECONDS = 0.4
MARGIN_SECONDS = 0.2
MORE = 1.4  # times the tokens
MIN_LOGPROB = -1.0  # mean of the tokens, as the engine's threshold for another temperature


def skipped_parts(window: Sequence[EngineSegment], voice: Sequence[VoiceRange]) -> list[VoiceRange]:
    """Return the utterances of a window whose text is too short for them; nothing for other windows.

    Parameters
    ----------
    window : sequence of EngineSegment
    voice : sequence of (float, float)
        Ranges of voice in the chunk.
    """
    if not window:
        return []
    first, last = window[0].start - MARGIN_SECONDS, window[-1].end + MARGIN_SECONDS
    parts: list[VoiceRange] = []
    seconds = 0.0
    for start, end in ((max(start, first), min(end, last)) for start, end in voice if start < last and end > first):
        seconds += end - start
        if parts and start - parts[-1][1] < PAUSE_SECONDS:
            parts[-1] = (parts[-1][0], end)
        else:
            parts.append((start, end))
    is_short = count_tokens(window) < TOKENS_PER_SECOND * seconds
    if not 2 <= len(parts) <= MOST_PARTS or seconds < LEAST_SECONDS or not is_short:
        return []
    return [(start - MARGIN_SECONDS, end + MARGIN_SECONDS) for start, end in parts]


def is_better(found: Sequence[EngineSegment], before: Sequence[EngineSegment]) -> bool:
    """Return whether a second transcription has clearly more text, and text of which the model is as sure."""
    tokens = [token for segment in found for token in segment.tokens]
    mean = sum(token.plog for token in tokens) / max(1, len(tokens))
    return len(tokens) > MORE * count_tokens(before) and mean > MIN_LOGPROB


def count_tokens(window: Sequence[EngineSegment]) -> int:
    """Return the number of tokens of text."""
    return sum(len(segment.tokens) for segment in window)


def shift_segment(segment: EngineSegment, seconds: float) -> EngineSegment:
    """Return a segment whose times are later."""
    more = round(seconds * CENTISECONDS)
    tokens = [
        token._replace(
            t0=token.t0 + more, t1=token.t1 + more, t_dtw=token.t_dtw + more if token.t_dtw >= 0 else token.t_dtw
        )
        for token in segment.tokens
    ]
    return replace(segment, tokens=tokens, start=segment.start + seconds, end=segment.end + seconds)
