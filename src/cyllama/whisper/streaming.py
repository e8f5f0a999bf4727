"""Live speech to text: sound comes in pieces, text comes out while it is spoken."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import soxr

from cyllama.errors import ClosedError
from cyllama.media.audio import SAMPLE_RATE
from cyllama.media.samples import Samples, as_array, check_rate, check_samples, to_mono
from cyllama.whisper.decoding import Cancel
from cyllama.whisper.results import Segment
from cyllama.whisper.transcribe import Whisper

__all__ = ["StreamedSegment", "StreamingTranscriber"]

MAX_SECONDS = 28.0  # of sound that is not final; the engine's window has 30
SETTLED_SECONDS = 2.0  # text that ended so long ago does not change any more
PROMPT_CHARS = 200  # of final text, given to the engine as what came before


@dataclass(frozen=True)
class StreamedSegment:
    """Text as it is known now.

    Attributes
    ----------
    segment : Segment
        Times count from the beginning of the stream.
    final : bool
        False: the next text may replace this.
    """

    segment: Segment
    final: bool

    @property
    def text(self) -> str:
        """The text of the segment."""
        return self.segment.text


class StreamingTranscriber:
    """Transcribes sound that is still coming.

    Parameters
    ----------
    whisper : Whisper
        The model.
    sample_rate : int
        Of what is fed, in Hz.
    step : float
        Seconds of new sound after which the text is brought up to date.
    **options
        Those of :func:`cyllama.whisper.transcribe`, apart from ``clip_timestamps`` and ``batch_size``.

    Notes
    -----
    After each step all sound that is not final is transcribed anew; a segment is final when it ended two seconds ago
    or when 28 s are waiting. Thread safety: one thread at a time.
    """

    def __init__(self, whisper: Whisper, *, sample_rate: int = SAMPLE_RATE, step: float = 1.0, **options: Any) -> None:
        for name in ("clip_timestamps", "batch_size"):
            if name in options:
                raise TypeError(f"{name} cannot be given: the sound has no end yet")
        if not 0.1 <= step <= MAX_SECONDS:
            raise ValueError(f"step is {step!r}, expected 0.1 to {MAX_SECONDS:g} seconds")
        whisper.check_options(options)
        rate = check_rate(sample_rate)
        self._whisper, self._options, self._step = whisper, options, step
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        self._prompt = str(options.pop("initial_prompt", None) or "")
        self._waiting: Samples = np.zeros(0, np.float32)
        self._begins = 0.0  # of what is waiting, in seconds of the stream
        self._fresh = 0  # samples that came after the text was brought up to date
        self._fed = 0
        self._count = 0
        self._events: deque[StreamedSegment] = deque()
        self._closed = False

    @property
    def duration(self) -> float:
        """Seconds of sound so far."""
        return self._begins + len(self._waiting) / SAMPLE_RATE

    def feed(self, samples: object, *, cancel: Cancel | None = None) -> list[StreamedSegment]:
        """Take more sound.

        Parameters
        ----------
        samples : array
            Of any length, type and number of channels; see `cyllama.whisper.AudioStream`.
        cancel : object with ``is_set()``, optional
            The sound is kept, and transcribed with what comes next.

        Returns
        -------
        list of StreamedSegment
            What is known anew: final segments, then provisional ones. Empty until a step is complete.

        Raises
        ------
        ClosedError
            After :meth:`flush`.
        """
        self._check()
        block = to_mono(as_array(samples))
        check_samples(block, self._fed, "the stream")
        self._fed += len(block)
        return self._add(block if self._resampler is None else self._resampler.resample_chunk(block), cancel)

    def flush(self, *, cancel: Cancel | None = None) -> list[StreamedSegment]:
        """Take what has come for the end; all segments are final now."""
        self._check()
        if self._resampler is not None:
            self._waiting = np.concatenate(
                [self._waiting, self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)]
            )
        found = self._update(cancel, final=True) if len(self._waiting) else []
        self._closed = True
        return found

    def __iter__(self) -> Iterator[StreamedSegment]:
        """Take what :meth:`feed` and :meth:`flush` returned and was not taken yet."""
        while self._events:
            yield self._events.popleft()

    def _check(self) -> None:
        if self._closed:
            raise ClosedError("this stream has been flushed; make another StreamingTranscriber")

    def _add(self, samples: Samples, cancel: Cancel | None) -> list[StreamedSegment]:
        found: list[StreamedSegment] = []
        most = round(MAX_SECONDS * SAMPLE_RATE)
        while len(samples):
            room = max(1, min(most - len(self._waiting), round(self._step * SAMPLE_RATE) - self._fresh))
            self._waiting = np.concatenate([self._waiting, samples[:room]])
            self._fresh += len(samples[:room])
            samples = samples[room:]
            if self._fresh >= self._step * SAMPLE_RATE or len(self._waiting) >= most:
                found += self._update(cancel, final=False)
        return found

    def _update(self, cancel: Cancel | None, *, final: bool) -> list[StreamedSegment]:
        options = self._options
        if self._whisper.architecture == "whisper":  # the others take no prompt
            options = options | {"initial_prompt": self._prompt[-PROMPT_CHARS:] or None}
        text = self._whisper(self._waiting, cancel=cancel, **options)
        self._fresh = 0
        segments = [self._placed(segment) for segment in text.segments]
        settled = len(segments) if final else self._settled(segments)
        found = []
        for i, segment in enumerate(segments):
            found.append(StreamedSegment(replace(segment, id=self._count + i), i < settled))
            if i < settled:
                self._prompt += segment.text
        if settled:
            self._drop(segments[settled - 1].end)
        elif not segments and len(self._waiting) >= MAX_SECONDS * SAMPLE_RATE / 2:
            self._drop(self.duration - SETTLED_SECONDS)  # nothing was said
        self._count += settled
        self._events.extend(found)
        return found

    def _settled(self, segments: list[Segment]) -> int:
        """How many do not change any more."""
        settled = sum(segment.end <= self.duration - SETTLED_SECONDS for segment in segments)
        if not settled and len(self._waiting) >= MAX_SECONDS * SAMPLE_RATE:
            return max(1, len(segments) - 1)
        return min(settled, len(segments))

    def _drop(self, until: float) -> None:
        n = min(len(self._waiting), max(0, round((until - self._begins) * SAMPLE_RATE)))
        self._waiting = self._waiting[n:].copy()
        self._begins += n / SAMPLE_RATE

    def _placed(self, segment: Segment) -> Segment:
        shift = self._begins
        words = segment.words
        if words is not None:
            words = tuple(replace(word, start=word.start + shift, end=word.end + shift) for word in words)
        return replace(segment, start=segment.start + shift, end=segment.end + shift, words=words)
