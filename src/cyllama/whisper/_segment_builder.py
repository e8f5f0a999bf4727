"""Make segments of what the engine found in a chunk: times that follow the words, and no pause within a segment."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from cyllama.whisper._chunking import Chunk
from cyllama.whisper._segment_times import TimedWord, place_words, trim_to_voice
from cyllama.whisper._segments import Segment, Token, Word, compression_ratio
from cyllama.whisper._state import WhisperToken
from cyllama.whisper._voice import voice_in_chunk
from cyllama.whisper._word_timestamps import group_words, join_text, make_word
from cyllama.whisper.options import TranscribeOptions

__all__ = ["CENTISECONDS", "EngineSegment", "SegmentBuilder", "make_segment"]

CENTISECONDS = 100.0
PAUSE_SECONDS = 1.0  # between words: a longer pause ends the segment
FAST_WORDS, FAST_SECONDS = 4, 0.08  # words of a segment, and the least seconds of each
SHORT_SECONDS = 0.5  # with more voice than that, a part of the words may be right
NO_SPEECH_THRESHOLD = 0.6  # of the engine
# What models write for silence, which is no text.
SILENCE = re.compile(r"\s*[\[(*]\s*(blank[_ ]audio|silence|no (audio|sound|speech))\s*[\])*]\s*", re.IGNORECASE)


@dataclass(frozen=True)
class EngineSegment:
    """A segment as the engine returns it; times in seconds of the chunk, tokens of text only."""

    tokens: Sequence[WhisperToken]
    start: float
    end: float
    no_speech_prob: float
    temperature: float
    speaker_turn: bool


def make_segment(
    tokens: Sequence[Token], chunk: Chunk, start: float, end: float, words: tuple[Word, ...] | None
) -> Segment:
    """Return a segment of `tokens`, with times in seconds of the audio."""
    text = join_text(tokens)
    return Segment(
        id=0,
        seek=round(chunk.start * CENTISECONDS),
        start=start,
        end=end,
        text=text,
        tokens=tuple(token.id for token in tokens),
        token_details=tuple(tokens),
        words=words,
        avg_logprob=sum(token.logprob for token in tokens) / max(1, len(tokens)),
        compression_ratio=compression_ratio(text),
    )


class SegmentBuilder:
    """Makes the segments of one chunk.

    Parameters
    ----------
    chunk : Chunk
    options : TranscribeOptions
    language : str
        Code of the language of the text.

    Attributes
    ----------
    chunk : Chunk
    voice : list of (float, float)
        Ranges of voice in the chunk.
    needs_words : bool
        Whether the engine has to find the times of tokens, as segments are split between words.
    """

    def __init__(self, chunk: Chunk, options: TranscribeOptions, language: str) -> None:
        self.chunk, self._options, self._language = chunk, options, language
        self.voice = voice_in_chunk(chunk)
        self._end = 0.0  # of the last word, in seconds of the chunk
        self._threshold = options.no_speech_threshold
        if self._threshold is None:
            self._threshold = NO_SPEECH_THRESHOLD
        wanted = bool(options.word_timestamps or options.max_segment_chars)
        self.needs_words = wanted or (not options.without_timestamps and self._has_pause())

    def build(self, window: Iterable[EngineSegment]) -> Iterator[Segment]:
        """Yield the segments of a window."""
        found = [part for part in window if part.tokens and not self._is_silent(part)]
        if not self.needs_words:
            for part in found:
                yield from self._without_words(part)
            return
        words = self._time_words(found)
        place_words(words, [(part.start, part.end) for part in found], self.voice, self._end)
        for i, part in enumerate(found):
            members = [word for word in words if word.segment == i]
            if _is_too_fast(members):
                continue  # the model repeats itself in a pause
            groups = list(self._split(members))
            for group in groups:
                segment = self._with_words(group, part)
                if segment.text.strip() and SILENCE.fullmatch(segment.text) is None:
                    yield replace(segment, speaker_turn=part.speaker_turn and group is groups[-1])
        if words:
            self._end = words[-1].end

    def _is_silent(self, part: EngineSegment) -> bool:
        """Return whether a segment has no text, or neither the model nor the level of the audio indicates speech."""
        text = b"".join(token.text for token in part.tokens).decode("utf-8", "replace")
        if not text.strip() or SILENCE.fullmatch(text):
            return True
        voiced = any(start < part.end and end > part.start for start, end in self.voice)
        return not voiced and part.no_speech_prob > (self._threshold or 0.0)

    def _has_pause(self) -> bool:
        chunk = self.chunk
        ends = [chunk.end_time(end) for _, end in self.voice]
        starts = [chunk.start_time(start) for start, _ in self.voice[1:]]
        return any(start - end >= PAUSE_SECONDS for end, start in zip(ends, starts, strict=False))

    def _without_words(self, part: EngineSegment) -> Iterator[Segment]:
        start, end = part.start, part.end
        if not self._options.without_timestamps:
            start, end = trim_to_voice(start, end, self.voice)
        start = self.chunk.start_time(start)
        tokens = [self._token(data) for data in part.tokens]
        segment = make_segment(tokens, self.chunk, start, max(start, self.chunk.end_time(end)), None)
        yield replace(
            segment,
            no_speech_prob=part.no_speech_prob,
            temperature=part.temperature,
            speaker_turn=part.speaker_turn,
        )

    def _token(self, data: WhisperToken, start: float | None = None, end: float | None = None) -> Token:
        """Return a token with times in the chunk."""
        dtw = self.chunk.end_time(data.t_dtw / CENTISECONDS) if data.t_dtw >= 0 else None
        return Token(data.id, data.text, data.p, data.plog, start, end, dtw)

    def _time_words(self, window: Sequence[EngineSegment]) -> list[TimedWord]:
        """Return the words of a window, with the times of the alignment or of the timestamp tokens."""
        options, words = self._options, list[TimedWord]()
        aligned_to = self._end
        for i, part in enumerate(window):
            tokens: list[Token] = []
            for data in part.tokens:
                start, end = data.t0 / CENTISECONDS, data.t1 / CENTISECONDS
                if data.t_dtw >= 0:  # the end of the token: it starts where the one before ends
                    start, end = aligned_to, data.t_dtw / CENTISECONDS
                    aligned_to = end
                tokens.append(self._token(data, start, end))
            groups = group_words(
                tokens,
                self._language,
                prepended=options.prepend_punctuations,
                appended=options.append_punctuations,
            )
            for group in groups:
                start, end = group[0].start or 0.0, group[-1].end or 0.0
                words.append(TimedWord(group, start, max(start, end), i, len(words)))
        return words

    def _split(self, words: Sequence[TimedWord]) -> Iterator[list[TimedWord]]:
        """Split the words of a segment at pauses, and where it has too many characters."""
        limit = self._options.max_segment_chars or 0
        group: list[TimedWord] = []
        n_chars = 0
        for word in words if self._options.split_on_word or not limit else _split_words(words):
            n = len(word.text)
            if group and ((limit and n_chars + n > limit) or self._is_pause(group[-1], word)):
                yield group
                group, n_chars = [], 0
            group.append(word)
            n_chars += n
        if group:
            yield group

    def _is_pause(self, before: TimedWord, after: TimedWord) -> bool:
        if self._options.without_timestamps:
            return False
        return self.chunk.start_time(after.start) - self.chunk.end_time(before.end) >= PAUSE_SECONDS

    def _with_words(self, group: Sequence[TimedWord], part: EngineSegment) -> Segment:
        """Return a segment that begins with its first word and ends with its last."""
        words: list[Word] = []
        tokens: list[Token] = []
        for _, parts in groupby(group, key=lambda word: word.number):
            pieces = list(parts)
            times = self.chunk.range_time(pieces[0].start, pieces[-1].end)
            start, end = (round(moment, 6) for moment in times)  # equal to the end before, if it is the same
            own = [token for piece in pieces for token in piece.tokens]
            words.append(make_word(own, start, end))
            tokens += [self._clamp(token, start, end) for token in own]
        has_words = self._options.word_timestamps
        segment = make_segment(tokens, self.chunk, words[0].start, words[-1].end, tuple(words) if has_words else None)
        return replace(segment, no_speech_prob=part.no_speech_prob, temperature=part.temperature)

    def _clamp(self, token: Token, start: float, end: float) -> Token:
        """Return a token with times in the audio, within its word."""
        first = min(max(self.chunk.start_time(token.start or 0.0), start), end)
        last = min(max(self.chunk.end_time(token.end or 0.0), first), end)
        return replace(token, start=first, end=last)


def _is_too_fast(words: Sequence[TimedWord]) -> bool:
    """Return whether there is no voice left for the words: speech has fewer than a dozen words per second."""
    seconds = words[-1].end - words[0].start if words else math.inf
    return len(words) >= FAST_WORDS and seconds < min(FAST_SECONDS * len(words), SHORT_SECONDS)


def _split_words(words: Iterable[TimedWord]) -> Iterator[TimedWord]:
    """Yield the parts of words that are whole characters, with times in proportion to their length."""
    for word in words:
        parts: list[list[Token]] = [[]]
        for token in word.tokens:
            parts[-1].append(token)
            if "�" not in join_text(parts[-1]):
                parts.append([])
        if not parts[-1]:
            parts.pop()
        lengths = [max(1, len(join_text(part))) for part in parts]
        seconds, start = (word.end - word.start) / sum(lengths), word.start
        for part, length in zip(parts, lengths, strict=True):
            yield TimedWord(part, start, start + length * seconds, word.segment, word.number)
            start += length * seconds
