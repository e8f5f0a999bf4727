"""Chunks of audio for the engine, with the position of each sample in the whole audio."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cyllama._cancel import Cancel
from cyllama.media._samples import Samples
from cyllama.media.audio import SAMPLE_RATE, AudioStream, Clips, RangeReader

__all__ = [
    "WINDOW_SECONDS",
    "Chunk",
    "SpeechRange",
    "audio_chunks",
    "find_speech",
    "limit_chunks",
    "open_stream",
    "speech_chunks",
]

SpeechRange = tuple[float, float]  # start and end in seconds

# Audio of up to ten minutes is one chunk, as in whisper-cli. Longer audio is cut at the quietest moment in the last
# half minute of a chunk, so that no more than one chunk is in memory.
CHUNK_SECONDS, CUT_SECONDS = 600.0, 30.0
QUIET_SECONDS = 0.2
WINDOW_SECONDS = 30.0  # of the encoder


@dataclass(frozen=True)
class Span:
    """A range of a chunk that is continuous in the audio: its range in the chunk, and its start in the audio."""

    begin: float
    end: float
    time: float


@dataclass(frozen=True)
class Chunk:
    """A chunk of audio.

    Attributes
    ----------
    samples : ndarray of float32, shape (n,)
        Mono, 16,000 Hz.
    spans : tuple of Span
        In order.
    """

    samples: Samples
    spans: tuple[Span, ...]

    def __repr__(self) -> str:
        return f"Chunk({self.start:.2f}-{self.end:.2f} s, {len(self.samples)} samples)"

    def start_time(self, moment: float) -> float:
        """Return the time in the audio for a start in the chunk."""
        for span in self.spans:
            if moment < span.end:
                return span.time + max(0.0, moment - span.begin)
        return self.end

    def end_time(self, moment: float) -> float:
        """Return the time in the audio for an end in the chunk."""
        for span in reversed(self.spans):
            if moment > span.begin:
                return span.time + min(moment, span.end) - span.begin
        return self.start

    def range_time(self, begin: float, end: float) -> tuple[float, float]:
        """Return start and end in the audio of a word in the chunk, both in the span that has its middle."""
        middle = (begin + end) / 2
        span = min(self.spans, key=lambda span: max(span.begin - middle, middle - span.end))
        times = (span.time + min(max(moment, span.begin), span.end) - span.begin for moment in (begin, end))
        return next(times), next(times)

    @property
    def start(self) -> float:
        """Start in the audio, in seconds."""
        return self.spans[0].time

    @property
    def end(self) -> float:
        """End in the audio, in seconds."""
        last = self.spans[-1]
        return last.time + last.end - last.begin


def open_stream(
    audio: object,
    sample_rate: int | None,
    clip: Clips | None,
    cancel: Cancel | None,
    *,
    allow_empty: bool = True,
) -> AudioStream:
    """Return the stream of an `audio` argument, which `cancel` stops.

    Raises
    ------
    ValueError
        An `AudioStream` has another rate, or was given with an option that it has itself.
    """
    if not isinstance(audio, AudioStream):
        return AudioStream(audio, sample_rate=sample_rate, clip=clip, allow_empty=allow_empty, cancel=cancel)
    if audio.target_rate != SAMPLE_RATE:
        raise ValueError(f"audio is an AudioStream of {audio.target_rate} Hz, expected target_rate={SAMPLE_RATE}")
    for name, value in (("sample_rate", sample_rate), ("clip_timestamps", clip)):
        if value is not None:
            raise ValueError(f"{name} is {value!r}, but audio is an AudioStream, which has its own")
    return audio.with_cancel(cancel)


def audio_chunks(stream: AudioStream) -> Iterator[Chunk]:
    """Split the clips of a stream into chunks that together have all of their samples."""
    reader = RangeReader(stream)
    for start, end in stream.clips:
        chunk_start = start
        blocks: list[Samples] = []
        for block in reader.blocks(start, end):
            if sum(map(len, blocks)) >= CHUNK_SECONDS * SAMPLE_RATE:
                samples = np.concatenate(blocks)
                cut = _find_quietest(samples)
                yield _continuous_chunk(samples[:cut], chunk_start, stream.duration)
                chunk_start += cut / SAMPLE_RATE
                blocks = [samples[cut:]]
            blocks.append(block)
        if blocks:
            yield _continuous_chunk(np.concatenate(blocks), chunk_start, stream.duration)


def _continuous_chunk(samples: Samples, start: float, duration: float) -> Chunk:
    seconds = min(len(samples) / SAMPLE_RATE, duration - start)  # resampling rounds up
    return Chunk(np.ascontiguousarray(samples), (Span(0.0, seconds, start),))


def limit_chunks(chunks: Iterable[Chunk], seconds: float) -> Iterator[Chunk]:
    """Split chunks longer than `seconds` at the quietest moment in the last third of what fits."""
    most = int(seconds * SAMPLE_RATE)
    for chunk in chunks:
        first = 0
        while len(chunk.samples) - first > most:
            last = first + _find_quietest(chunk.samples[first : first + most], min(CUT_SECONDS, seconds / 3))
            yield from _slice_chunk(chunk, first, last)
            first = last
        yield from _slice_chunk(chunk, first, len(chunk.samples)) if first else (chunk,)


def _slice_chunk(chunk: Chunk, first: int, last: int) -> Iterator[Chunk]:
    """Yield the chunk between two samples."""
    start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
    spans = tuple(
        Span(max(span.begin, start) - start, min(span.end, end) - start, span.time + max(0.0, start - span.begin))
        for span in chunk.spans
        if span.begin < end and span.end > start
    )
    if spans:
        yield Chunk(np.ascontiguousarray(chunk.samples[first:last]), spans)


def _find_quietest(samples: Samples, seconds: float = CUT_SECONDS) -> int:
    """Return the index of the middle of the quietest moment in the last `seconds`."""
    size = round(QUIET_SECONDS * SAMPLE_RATE)
    first = len(samples) - round(seconds * SAMPLE_RATE)
    tail = samples[first:]
    energy = np.add.reduceat(np.square(tail, dtype=np.float64), np.arange(0, len(tail) - size + 1, size))
    return first + int(np.argmin(energy)) * size + size // 2


def find_speech(chunks: Iterable[Chunk], detect: Callable[[Samples], list[SpeechRange]]) -> list[SpeechRange]:
    """Return the ranges of speech in the audio, in seconds."""
    found = []
    for chunk in chunks:
        found += [(chunk.start_time(start), chunk.end_time(end)) for start, end in detect(chunk.samples)]
    return found


def speech_chunks(stream: AudioStream, speech: list[SpeechRange], seconds: float = CHUNK_SECONDS) -> Iterator[Chunk]:
    """Join ranges of speech into chunks of at most `seconds`; a longer range is a chunk of its own.

    Ranges of different clips of the stream are not joined.

    Parameters
    ----------
    stream : AudioStream
    speech : list of (float, float)
        Start and end in seconds, as from :func:`find_speech`.
    seconds : float
        Maximum length of a chunk; `WINDOW_SECONDS` for one window of the encoder.
    """
    reader = RangeReader(stream)
    group: list[SpeechRange] = []
    length = 0.0
    ends = [math.inf if end is None else end for _, end in stream.clips]
    for start, end in speech:
        more = end - start
        if group and (length + more > seconds or bisect_right(ends, start) != bisect_right(ends, group[-1][0])):
            yield _join_ranges(reader, group)
            group, length = [], 0.0
        group.append((start, end))
        length += more
    if group:
        yield _join_ranges(reader, group)


def _join_ranges(reader: RangeReader, ranges: list[SpeechRange]) -> Chunk:
    blocks: list[Samples] = []
    spans: list[Span] = []
    n = 0
    for start, end in ranges:
        blocks.append(reader.read(start, end))
        begin = n / SAMPLE_RATE
        n += len(blocks[-1])
        spans.append(Span(begin, n / SAMPLE_RATE, start))
    return Chunk(np.concatenate(blocks), tuple(spans))
