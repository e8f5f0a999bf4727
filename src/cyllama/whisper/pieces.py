"""What is given to the engine at once: a part of the sound, and where each of its moments lies in the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from cyllama.media.audio import SAMPLE_RATE, AudioStream
from cyllama.media.samples import Samples

__all__ = ["Piece", "Speech", "find_speech", "limit_pieces", "plain_pieces", "speech_pieces"]

Speech = tuple[float, float]  # start and end in seconds

# A recording of up to ten minutes is one piece, as whisper-cli would take it. Of a longer one no more than
# this is in memory, and it is cut where it is quietest in the last half minute of a piece.
PIECE_SECONDS, CUT_SECONDS = 600.0, 30.0
QUIET_SECONDS = 0.2
WINDOW_SECONDS = 30.0  # of the encoder
# Between parts of speech, as whisper.cpp has it: more of the sound, then silence.
OVERLAP_SECONDS, GAP_SECONDS = 0.1, 0.1


@dataclass(frozen=True)
class Part:
    """A part of a piece that is sound without a gap: where it begins and ends in the piece, and begins in the whole."""

    begin: float
    end: float
    time: float


@dataclass(frozen=True)
class Piece:
    """A part of the sound.

    Attributes
    ----------
    samples : ndarray of float32, shape (n,)
        Mono, 16,000 Hz.
    parts : tuple of Part
        In order; between them there is silence that is not in the whole.
    """

    samples: Samples
    parts: tuple[Part, ...]

    def start_time(self, moment: float) -> float:
        """Return the time in the sound of something that starts at a moment of the piece: never between two parts."""
        for part in self.parts:
            if moment < part.end:
                return part.time + max(0.0, moment - part.begin)
        return self.end

    def end_time(self, moment: float) -> float:
        """Return the time in the sound of something that ends at a moment of the piece: never between two parts."""
        for part in reversed(self.parts):
            if moment > part.begin:
                return part.time + min(moment, part.end) - part.begin
        return self.start

    @property
    def start(self) -> float:
        """Where it begins in the sound, in seconds."""
        return self.parts[0].time

    @property
    def end(self) -> float:
        """Where it ends in the sound, in seconds."""
        last = self.parts[-1]
        return last.time + last.end - last.begin


def plain_pieces(stream: AudioStream) -> Iterator[Piece]:
    """Cut the clips of a sound into pieces, without leaving anything out."""
    for start, end in stream.clips:
        begins = start
        parts: list[Samples] = []
        for block in stream.blocks(start, end):
            if sum(map(len, parts)) >= PIECE_SECONDS * SAMPLE_RATE:
                samples = np.concatenate(parts)
                cut = _quietest(samples)
                yield _plain(samples[:cut], begins, stream.duration)
                begins += cut / SAMPLE_RATE
                parts = [samples[cut:]]
            parts.append(block)
        if parts:
            yield _plain(np.concatenate(parts), begins, stream.duration)


def _plain(samples: Samples, start: float, duration: float) -> Piece:
    seconds = min(len(samples) / SAMPLE_RATE, duration - start)  # resampling rounds up
    return Piece(np.ascontiguousarray(samples), (Part(0.0, seconds, start),))


def limit_pieces(pieces: Iterable[Piece], seconds: float) -> Iterator[Piece]:
    """Cut pieces that are longer than `seconds` where they are quietest in the last third of what fits."""
    most = int(seconds * SAMPLE_RATE)
    for piece in pieces:
        first = 0
        while len(piece.samples) - first > most:
            last = first + _quietest(piece.samples[first : first + most], min(CUT_SECONDS, seconds / 3))
            yield from _range_of(piece, first, last)
            first = last
        yield from _range_of(piece, first, len(piece.samples)) if first else (piece,)


def _range_of(piece: Piece, first: int, last: int) -> Iterator[Piece]:
    """Yield the piece between two samples, unless all of that is a gap."""
    start, end = first / SAMPLE_RATE, last / SAMPLE_RATE
    parts = tuple(
        Part(max(part.begin, start) - start, min(part.end, end) - start, part.time + max(0.0, start - part.begin))
        for part in piece.parts
        if part.begin < end and part.end > start
    )
    if parts:
        yield Piece(np.ascontiguousarray(piece.samples[first:last]), parts)


def _quietest(samples: Samples, seconds: float = CUT_SECONDS) -> int:
    """The sample in the middle of the quietest moment in the last `seconds`."""
    size = round(QUIET_SECONDS * SAMPLE_RATE)
    first = len(samples) - round(seconds * SAMPLE_RATE)
    tail = samples[first:]
    energy = np.add.reduceat(np.square(tail, dtype=np.float64), np.arange(0, len(tail) - size + 1, size))
    return first + int(np.argmin(energy)) * size + size // 2


def find_speech(pieces: Iterable[Piece], detect: Callable[[Samples], list[Speech]]) -> list[Speech]:
    """Return where there is speech in the sound, in seconds."""
    found = []
    for piece in pieces:
        found += [(piece.start_time(start), piece.end_time(end)) for start, end in detect(piece.samples)]
    return found


def speech_pieces(stream: AudioStream, speech: list[Speech], seconds: float = PIECE_SECONDS) -> Iterator[Piece]:
    """Put parts of speech together into pieces of at most `seconds` (or one part, if that is longer).

    Parameters
    ----------
    stream : AudioStream
    speech : list of (float, float)
        Start and end in seconds, as of :func:`find_speech`.
    seconds : float
        Length of a piece; `WINDOW_SECONDS` gives pieces that the engine takes in one go.
    """
    group: list[Speech] = []
    length = 0.0
    for start, end in speech:
        more = end - start + OVERLAP_SECONDS + GAP_SECONDS
        if group and length + more > seconds:
            yield _packed(stream, group)
            group, length = [], 0.0
        group.append((start, end))
        length += more
    if group:
        yield _packed(stream, group)


def _packed(stream: AudioStream, group: list[Speech]) -> Piece:
    gap = np.zeros(round(GAP_SECONDS * SAMPLE_RATE), np.float32)
    sounds: list[Samples] = []
    parts: list[Part] = []
    n = 0
    for i, (start, end) in enumerate(group):
        is_last = i == len(group) - 1
        samples = stream.read(start, end if is_last else min(end + OVERLAP_SECONDS, stream.duration))
        begin = n / SAMPLE_RATE
        parts.append(Part(begin, begin + end - start, start))  # what overlaps counts as its end
        for sound in (samples,) if is_last else (samples, gap):
            sounds.append(sound)
            n += len(sound)
    return Piece(np.concatenate(sounds), tuple(parts))
