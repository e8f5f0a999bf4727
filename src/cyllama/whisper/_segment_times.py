"""Times of words: from the tokens, moved out of the pauses of the audio."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from cyllama.whisper._segments import Token
from cyllama.whisper._voice import VoiceRange
from cyllama.whisper._word_timestamps import join_text

__all__ = ["TimedWord", "place_words", "trim_to_voice"]

SENTENCE_ENDS = ".。!！?？"  # noqa: RUF001
MAX_MEDIAN_SECONDS = 0.7  # of a word
MAX_LOST_WORDS = 6  # more than these are rather quiet speech than out of place
MIN_WORD_SECONDS, LEAST_WORD_SECONDS = 0.05, 0.02  # where there is room, and where there is none
TRUSTED_SECONDS = 0.5  # a timestamp token is about as exact
EDGE_SECONDS = 0.4  # an alignment is about as exact
FIRST_WORD_SECONDS = 0.1  # a word that begins a segment or follows a sentence is rather after a pause than before it
SLIVER_SECONDS = 0.15  # of voice at the edge of a segment that belongs to its neighbour


@dataclass
class TimedWord:
    """One word, with times in seconds of the chunk.

    Attributes
    ----------
    tokens : list of Token
    start, end : float
    segment : int
        Index of its segment of the engine, among those of one window.
    number : int
        Index of the word, equal for the parts of a word that is split between segments.
    """

    tokens: list[Token]
    start: float
    end: float
    segment: int
    number: int

    @property
    def text(self) -> str:
        """Text, including the space before it."""
        return join_text(self.tokens)

    @property
    def ends_sentence(self) -> bool:
        """Whether it has punctuation that ends a sentence."""
        return self.text.strip()[-1:] in tuple(SENTENCE_ENDS)


def place_words(
    words: Sequence[TimedWord], segments: Sequence[tuple[float, float]], voice: Sequence[VoiceRange], low: float
) -> None:
    """Set the times of the words of one window.

    Alignments and timestamps have no state for a pause: it is part of the word before or after it. Each word is moved
    into the range of voice that most of it is in.

    Parameters
    ----------
    words : sequence of TimedWord
        In order. Changed in place: their times increase, and none is shorter than 50 ms where there is room.
    segments : sequence of (float, float)
        Start and end of the engine's segments.
    voice : sequence of (float, float)
        Ranges of voice in the chunk.
    low : float
        End of the word before.
    """
    if not words:
        return
    _limit_lengths(words, segments)
    lowest = max(0, sum(start < low for start, _ in voice) - 1)
    ranges = _choose_ranges(words, segments, voice, lowest)
    first = 0
    for i in range(1, len(words) + 1):
        if i == len(words) or ranges[i] != ranges[first]:
            group, chosen = words[first:i], ranges[first]
            if chosen is None:
                start, end = low, words[i].start if i < len(words) else math.inf
            else:
                start, end = voice[chosen]
            _fit_words(group, max(start, low), max(end, low), snap=chosen is not None)
            low, first = group[-1].end, i


def _limit_lengths(words: Sequence[TimedWord], segments: Sequence[tuple[float, float]]) -> None:
    """Shorten long words at the start and the end of sentences and segments, which contain a pause."""
    lengths = [word.end - word.start for word in words if word.end > word.start]
    median = min(MAX_MEDIAN_SECONDS, statistics.median(lengths)) if lengths else 0.0
    for before, word in zip([None, *words], words, strict=False):
        if before is None or word.end - word.start <= 2 * median:
            continue
        if word.ends_sentence:
            word.end = word.start + 2 * median
        elif before.ends_sentence:
            word.start = word.end - 2 * median
    for i, (start, end) in enumerate(segments):
        members = [word for word in words if word.segment == i]
        if not members:
            continue
        first, last = members[0], members[-1]
        if first.end - first.start > 4 * median:
            first.start = first.end - 2 * median  # the alignment begins with the pause before it
        if first.start + TRUSTED_SECONDS < start < first.end:
            first.start = max(first.start, min(first.end - median, start))
        if last.start < end < last.end - TRUSTED_SECONDS:
            last.end = max(last.start + median, end)


def _choose_ranges(
    words: Sequence[TimedWord], segments: Sequence[tuple[float, float]], voice: Sequence[VoiceRange], first: int
) -> list[int | None]:
    """Return the index of the range of voice of each word, from `first` on; None for a word far from all."""
    found: list[int | None] = []
    lowest = first
    for i, word in enumerate(words):
        begins = i == 0 or words[i - 1].segment != word.segment or words[i - 1].ends_sentence
        best, best_score = None, 0.0
        for j in range(lowest, len(voice)):
            start, end = voice[j]
            if start > word.end + TRUSTED_SECONDS:
                break
            overlap = min(end, word.end) - max(start, word.start)  # negative: the distance
            score = overlap + (FIRST_WORD_SECONDS if begins and best is not None and overlap > 0 else 0.0)
            if overlap > -TRUSTED_SECONDS and (best is None or score > best_score):
                best, best_score = j, score
        found.append(best)
        lowest = lowest if best is None else best
    _assign_lost_words(words, segments, voice, found, first)
    return found


def _assign_lost_words(
    words: Sequence[TimedWord],
    segments: Sequence[tuple[float, float]],
    voice: Sequence[VoiceRange],
    found: list[int | None],
    first: int,
) -> None:
    """Assign a few words that are far from all voice to the range next to their place in the engine's segment."""
    lowest = first
    for chosen, run in groupby(range(len(words)), key=lambda i: found[i]):
        lost = list(run)
        if chosen is not None:
            lowest = chosen
            continue
        following = found[lost[-1] + 1] if lost[-1] + 1 < len(words) else None
        highest = len(voice) - 1 if following is None else following
        if not voice or len(lost) > MAX_LOST_WORDS:
            continue
        if words[lost[-1]].ends_sentence and _continues(words, lost[0]):
            highest = lowest
        for i in lost:
            start, end = segments[words[i].segment]
            place = min(max(words[i].start, start), end)
            distances = [
                (max(voice[j][0] - place, place - voice[j][1]), j) for j in range(lowest, max(lowest, highest) + 1)
            ]
            found[i] = lowest = min(distances)[1]


def _continues(words: Sequence[TimedWord], i: int) -> bool:
    """Return whether a word continues a sentence."""
    return words[i].text.strip()[:1].islower() or (i > 0 and not words[i - 1].ends_sentence)


def _fit_words(words: Sequence[TimedWord], low: float, high: float, *, snap: bool) -> None:
    """Move words into a range; the first and the last take what is left of its edges, if it is short."""
    high = max(high, low + LEAST_WORD_SECONDS * len(words))
    for word in words:
        word.start = min(max(word.start, low), high)
        word.end = min(max(word.end, word.start), high)
    if snap and words[0].start - low <= EDGE_SECONDS:
        words[0].start = low
    if snap and high - words[-1].end <= EDGE_SECONDS:
        words[-1].end = high
    shortest = min(MIN_WORD_SECONDS, (high - low) / len(words))
    before = low
    for word in words:
        word.start = max(word.start, before)
        word.end = before = max(word.end, word.start + shortest)
    after = max(high, low + shortest * len(words))
    for word in reversed(words):
        word.end = min(word.end, after)
        word.start = after = min(word.start, word.end - shortest)


def trim_to_voice(start: float, end: float, voice: Iterable[VoiceRange]) -> tuple[float, float]:
    """Return a segment without the silence at its start and end; unchanged if all of it is silent."""
    inside = [(max(start, first), min(end, last)) for first, last in voice if first < end and last > start]
    long = [(first, last) for first, last in inside if last - first >= SLIVER_SECONDS] or inside
    return (long[0][0], long[-1][1]) if long else (start, end)
