"""Transcribe live audio in blocks."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import soxr

from cyllama._cancel import Cancel
from cyllama.errors import ClosedError
from cyllama.media._samples import Samples, as_array, check_rate, check_samples, to_mono
from cyllama.media.audio import SAMPLE_RATE
from cyllama.whisper.results import Segment, Token
from cyllama.whisper.transcribe import Whisper

__all__ = ["StreamedSegment", "StreamingTranscriber"]

MAX_SECONDS = 28.0  # of audio without final text; the engine's window is 30 s
FINAL_SECONDS = 2.0  # a segment is final when it ended this long ago
SENTENCE_ENDS = (*".!?…", "\u3002")
PROMPT_NAMES = ("initial_prompt", "prompt")
CONTEXT_TOKENS = 64  # of final text, part of the prompt of the next step


@dataclass(frozen=True)
class StreamedSegment:
    """A segment of live audio.

    Attributes
    ----------
    segment : Segment
        Times are from the beginning of the stream.
    final : bool
        False if later results may replace the segment.
    """

    segment: Segment
    final: bool

    def __repr__(self) -> str:
        return f"StreamedSegment({self.segment!r}, {'final' if self.final else 'provisional'})"

    @property
    def text(self) -> str:
        """Text of the segment."""
        return self.segment.text


class StreamingTranscriber:
    """Transcribes live audio.

    Parameters
    ----------
    whisper : Whisper
        The model.
    sample_rate : int
        Sample rate of the audio in Hz.
    step : float
        Seconds of new audio after which the text is updated.
    **options
        As of :func:`cyllama.whisper.transcribe`, except ``clip_timestamps`` and ``batch_size``.

    Raises
    ------
    TypeError
        An option is unknown or not available for live audio.
    ValueError
        A value is out of range.

    Notes
    -----
    Each step transcribes all audio without final text again. A segment is final when it ended two seconds ago and ends
    a sentence or is before a pause of two seconds, or when 28 s are pending. The prompt of a step is ``initial_prompt``
    and the end of the final text; without ``condition_on_previous_text``, ``initial_prompt`` alone.
    Thread safety: one thread at a time.
    """

    def __init__(self, whisper: Whisper, *, sample_rate: int = SAMPLE_RATE, step: float = 1.0, **options: Any) -> None:
        for name in ("clip_timestamps", "batch_size"):
            if name in options:
                raise TypeError(f"{name} is {options[name]!r}, but StreamingTranscriber does not support it")
        if not 0.1 <= step <= MAX_SECONDS:
            raise ValueError(f"step is {step!r}, expected 0.1 to {MAX_SECONDS:g} seconds")
        chosen = whisper.check_options(options)
        self._initial_prompt, self._conditioned = chosen.initial_prompt, chosen.condition_on_previous_text
        options = {name: value for name, value in options.items() if name not in PROMPT_NAMES}
        rate = check_rate(sample_rate)
        self._whisper, self._options, self._step = whisper, options, step
        self._resampler = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
        self._context: tuple[int, ...] = ()  # the last tokens of final text
        self._pending: Samples = np.zeros(0, np.float32)
        self._pending_start = 0.0  # of the pending audio, in seconds of the stream
        self._queue: Samples = np.zeros(0, np.float32)  # audio that is not pending yet
        self._resampled = False  # whether the resampler has returned its last samples
        self._n_new = 0  # samples since the last update
        self._n_fed = 0
        self._count = 0
        self._unread: deque[StreamedSegment] = deque()
        self._closed = False

    def __repr__(self) -> str:
        return f"StreamingTranscriber({self._whisper!r}, {self.duration:.2f} s{', flushed' if self._closed else ''})"

    @property
    def duration(self) -> float:
        """Seconds of audio so far."""
        return self._pending_start + (len(self._pending) + len(self._queue)) / SAMPLE_RATE

    def feed(self, samples: npt.ArrayLike, *, cancel: Cancel | None = None) -> list[StreamedSegment]:
        """Add audio.

        Parameters
        ----------
        samples : array
            Of any length, type and number of channels; see `cyllama.whisper.AudioStream`.
        cancel : Cancel, optional
            Stops the update. The audio is kept and transcribed with the next one.

        Returns
        -------
        list of StreamedSegment
            New final segments, then provisional segments. Empty until a step is complete.

        Raises
        ------
        ClosedError
            :meth:`flush` has been called.
        """
        self._check_open()
        block = to_mono(as_array(samples))
        check_samples(block, self._n_fed, "the stream")
        self._n_fed += len(block)
        return self._add(block if self._resampler is None else self._resampler.resample_chunk(block), cancel)

    def flush(self, *, cancel: Cancel | None = None) -> list[StreamedSegment]:
        """End the audio, and return its last segments, which are final."""
        self._check_open()
        if self._resampler is not None and not self._resampled:
            rest = self._resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            self._queue, self._resampled = np.concatenate([self._queue, rest]), True
        found = self._add(np.zeros(0, np.float32), cancel)
        found += self._update(cancel, final=True) if len(self._pending) else []
        self._closed = True
        return found

    def __iter__(self) -> Iterator[StreamedSegment]:
        """Iterate over the segments that :meth:`feed` and :meth:`flush` returned since the last iteration."""
        while self._unread:
            yield self._unread.popleft()

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("this StreamingTranscriber has been flushed")

    def _add(self, samples: Samples, cancel: Cancel | None) -> list[StreamedSegment]:
        self._queue = np.concatenate([self._queue, samples])  # kept if an update is cancelled
        found: list[StreamedSegment] = []
        step, most = round(self._step * SAMPLE_RATE), round(MAX_SECONDS * SAMPLE_RATE)
        while len(self._queue):
            room = max(0, min(most - len(self._pending), step - self._n_new))
            self._pending = np.concatenate([self._pending, self._queue[:room]])
            self._n_new += len(self._queue[:room])
            self._queue = self._queue[room:]
            if self._n_new >= step or len(self._pending) >= most:
                found += self._update(cancel, final=False)
            if len(self._pending) >= most:  # no segment is final
                self._drop_until(self._pending_end - FINAL_SECONDS)
        return found

    def _update(self, cancel: Cancel | None, *, final: bool) -> list[StreamedSegment]:
        text = self._whisper(self._pending, cancel=cancel, **self._options | self._prompt())
        self._n_new = 0
        segments = [self._shift_times(segment) for segment in text.segments]
        n_final = len(segments) if final else self._count_final(segments)
        found = []
        for i, segment in enumerate(segments):
            found.append(StreamedSegment(replace(segment, id=self._count + i), i < n_final))
            if i < n_final:
                self._context = (*self._context, *segment.tokens)[-CONTEXT_TOKENS:]
        if n_final:
            self._drop_until(segments[n_final - 1].end)
        elif not segments and len(self._pending) >= MAX_SECONDS * SAMPLE_RATE / 2:
            self._drop_until(self._pending_end - FINAL_SECONDS)  # no speech
        self._count += n_final
        self._unread.extend(found)
        return found

    def _prompt(self) -> dict[str, Any]:
        """Return the prompt of the next step: the initial prompt, then the final text if it is the context."""
        initial = self._initial_prompt
        if not self._context or not self._conditioned or self._whisper.architecture != "whisper":
            return {"initial_prompt": initial}  # Parakeet models have no prompt
        if isinstance(initial, str):
            initial = self._whisper.prompt_tokens(initial)
        return {"initial_prompt": [*(initial or ()), *self._context]}

    @property
    def _pending_end(self) -> float:
        """End of the pending audio, in seconds of the stream."""
        return self._pending_start + len(self._pending) / SAMPLE_RATE

    def _count_final(self, segments: list[Segment]) -> int:
        """Return the number of final segments."""
        n_final = 0
        for i, segment in enumerate(segments):
            if segment.end > self._pending_end - FINAL_SECONDS:
                break
            pause = segments[i + 1].start - segment.end if i + 1 < len(segments) else FINAL_SECONDS
            if pause >= FINAL_SECONDS or segment.text.rstrip()[-1:] in SENTENCE_ENDS:
                n_final = i + 1  # without the start of its sentence, the rest would be transcribed differently
        if segments and not n_final and len(self._pending) >= round(MAX_SECONDS * SAMPLE_RATE):
            return max(1, len(segments) - 1)
        return n_final

    def _drop_until(self, until: float) -> None:
        n = min(len(self._pending), max(0, round((until - self._pending_start) * SAMPLE_RATE)))
        self._pending = self._pending[n:].copy()
        self._pending_start += n / SAMPLE_RATE

    def _shift_times(self, segment: Segment) -> Segment:
        """Return a segment with times of the stream."""
        shift = self._pending_start
        words = segment.words
        if words is not None:
            words = tuple(replace(word, start=word.start + shift, end=word.end + shift) for word in words)
        tokens = tuple(_shift_token(token, shift) for token in segment.token_details)
        start, end = segment.start + shift, segment.end + shift
        return replace(segment, start=start, end=end, words=words, token_details=tokens)


def _shift_token(token: Token, seconds: float) -> Token:
    names = ("start", "end", "dtw")
    times = {name: token[name] + seconds for name in names if token[name] is not None}
    return replace(token, **times)
