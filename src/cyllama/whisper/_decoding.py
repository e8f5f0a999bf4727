"""Decode chunks of audio into segments: one after the other, or several in parallel."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

from cyllama._cancel import AnyCancel, Cancel
from cyllama.media.audio import SAMPLE_RATE
from cyllama.whisper._chunking import Chunk
from cyllama.whisper._group import WhisperGroup
from cyllama.whisper._parakeet_state import ParakeetState
from cyllama.whisper._segment_builder import CENTISECONDS, EngineSegment, SegmentBuilder
from cyllama.whisper._segments import Segment
from cyllama.whisper._skipped_speech import is_better, shift_segment, skipped_parts
from cyllama.whisper._state import WhisperState
from cyllama.whisper.options import TranscribeOptions
from cyllama.whisper.params import WhisperFullParams

__all__ = ["ChunkDecoder", "OnProgress", "OnSegment", "WhisperDecoder", "decode", "decode_parallel"]

# Chunks of a batch that wait for a chunk before them, in units of the batch's size: a chunk may take long.
AHEAD = 2

State = TypeVar("State", WhisperState, ParakeetState)
OnSegment = Callable[[Segment], object]
OnProgress = Callable[[float], object]


class ChunkDecoder(Protocol, Generic[State]):
    """Decodes chunks: `WhisperDecoder` for Whisper models, `ParakeetDecoder` for Parakeet models."""

    @property
    def options(self) -> TranscribeOptions:
        """The options of the transcription."""

    def new_state(self) -> State:
        """Return a new state of the model."""

    def new_batch(self, size: int) -> AbstractContextManager[Callable[[], AbstractContextManager[State]]]:
        """Return a function that lends states for a batch, at most `size` at once."""

    def next_params(self) -> dict[str, Any]:
        """Return the changed parameters for the second chunk and later ones."""

    def decode(
        self,
        state: State,
        chunk: Chunk,
        *,
        on_segment: OnSegment,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        **changes: Any,
    ) -> None:
        """Transcribe a chunk; call `on_segment` with each segment."""


@dataclass(frozen=True)
class WhisperDecoder:
    """Decodes chunks with a Whisper model.

    Attributes
    ----------
    new_state : callable
        Returns a new state of the model.
    new_group : callable
        Returns a group of the model, for a number of states.
    params : WhisperFullParams
        Parameters of the first chunk.
    options : TranscribeOptions
    language : str
        Code of the language of the text.
    first_special : int
        The first special token; all tokens of text are below it.
    """

    new_state: Callable[[], WhisperState]
    new_group: Callable[[int], WhisperGroup]
    params: WhisperFullParams
    options: TranscribeOptions
    language: str
    first_special: int

    @contextlib.contextmanager
    def new_batch(self, size: int) -> Iterator[Callable[[], AbstractContextManager[WhisperState]]]:
        """Return a function that lends states for a batch, which decode together.

        A state is used again: the memory of a new one has to be cleared.
        """
        idle: list[WhisperState] = []
        with contextlib.ExitStack() as stack:
            group = stack.enter_context(self.new_group(size))

            @contextlib.contextmanager
            def lend() -> Iterator[WhisperState]:
                try:
                    state = idle.pop()
                except IndexError:
                    state = stack.enter_context(WhisperState(group.context, group))
                yield state
                idle.append(state)

            yield lend

    def next_params(self) -> dict[str, Any]:
        """Return the changed parameters for the second chunk and later ones."""
        changes: dict[str, Any] = {"no_context": False}
        if not self.params.carry_initial_prompt:
            changes["prompt_tokens"] = None  # the context of the first chunk has the prompt
        return changes

    def decode(
        self,
        state: WhisperState,
        chunk: Chunk,
        *,
        on_segment: OnSegment,
        on_progress: OnProgress | None = None,
        cancel: Cancel | None = None,
        **changes: Any,
    ) -> None:
        """Transcribe a chunk; call `on_segment` with each segment."""
        builder = SegmentBuilder(chunk, self.options, self.language)

        def new_segments(first: int, last: int) -> None:
            window = self._complete([self._segment(state, i) for i in range(first, last)], builder, cancel)
            for segment in builder.build(window):
                on_segment(segment)

        params = replace(
            self.params,
            new_segment_callback=new_segments,
            progress_callback=on_progress,
            token_timestamps=builder.needs_words,
            max_len=None,  # the builder splits segments, as their words have better times
            split_on_word=None,
            **changes,
        )
        state.full(chunk.samples, params, cancel=cancel)

    def _complete(
        self, window: list[EngineSegment], builder: SegmentBuilder, cancel: Cancel | None
    ) -> list[EngineSegment]:
        """Return the segments of a window; those of its utterances one by one if the model skipped some of them."""
        parts = skipped_parts(window, builder.voice) if builder.needs_words else []
        if not parts:
            return window
        params = replace(self.params, prompt_tokens=None, token_timestamps=True, max_len=None, split_on_word=None)
        found: list[EngineSegment] = []
        with self.new_state() as state:
            for start, end in parts:
                first = max(0, round(start * SAMPLE_RATE))
                state.full(builder.chunk.samples[first : round(end * SAMPLE_RATE)], params, cancel=cancel)
                segments = [self._segment(state, i) for i in range(state.n_segments)]
                found += [shift_segment(segment, first / SAMPLE_RATE) for segment in segments if segment.tokens]
        return found if is_better(found, window) else window

    def _segment(self, state: WhisperState, i: int) -> EngineSegment:
        """Return segment `i` of a state."""
        return EngineSegment(
            tokens=[data for data in state.get_tokens(i) if data.id < self.first_special],
            start=state.get_segment_t0(i) / CENTISECONDS,
            end=state.get_segment_t1(i) / CENTISECONDS,
            no_speech_prob=state.get_segment_no_speech_prob(i),
            temperature=round(state.get_segment_temperature(i), 4),  # it is a float32
            speaker_turn=state.get_segment_speaker_turn_next(i),
        )


class _SegmentCounter:
    """Sets the ids of segments, in the order of the calls."""

    def __init__(self, on_segment: OnSegment) -> None:
        self.on_segment, self.count = on_segment, 0

    def __call__(self, segment: Segment) -> None:
        self.on_segment(replace(segment, id=self.count))
        self.count += 1


def decode(
    decoder: ChunkDecoder[State],
    chunks: Iterable[Chunk],
    seconds: float,
    *,
    on_segment: OnSegment,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Transcribe chunks one after the other, each with the text of the one before as its context.

    Parameters
    ----------
    seconds : float
        Duration of the audio, for the progress.
    on_segment : callable
        Called with each segment; an exception stops the transcription.
    """
    counter = _SegmentCounter(on_segment)
    with decoder.new_state() as state:
        changes: dict[str, Any] = {}
        for chunk in chunks:
            report = None if on_progress is None else _progress_of_chunk(on_progress, chunk, seconds)
            decoder.decode(state, chunk, on_segment=counter, on_progress=report, cancel=cancel, **changes)
            changes = decoder.next_params()
    if on_progress is not None:
        on_progress(1.0)


def _progress_of_chunk(on_progress: OnProgress, chunk: Chunk, seconds: float) -> OnProgress:
    """Return a callback that converts the progress in a chunk into that in the audio."""

    def report(part: float) -> object:
        return on_progress(min(1.0, (chunk.start + part * (chunk.end - chunk.start)) / max(seconds, 1e-9)))

    return report


def decode_parallel(
    decoder: ChunkDecoder[State],
    chunks: Iterable[Chunk],
    seconds: float,
    *,
    on_segment: OnSegment,
    on_progress: OnProgress | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Transcribe up to ``batch_size`` chunks in parallel, without context; `on_segment` is called in order."""
    counter = _SegmentCounter(on_segment)
    failed = threading.Event()
    any_cancel = AnyCancel(cancel, failed)

    size = decoder.options.batch_size
    with decoder.new_batch(size) as lend:

        def work(chunk: Chunk) -> list[Segment]:
            found: list[Segment] = []
            with lend() as state:
                decoder.decode(state, chunk, on_segment=found.append, cancel=any_cancel)
            return found

        workers = ThreadPoolExecutor(size, thread_name_prefix="cyllama-whisper")
        try:
            for chunk, found in _map_ordered(workers, work, chunks, AHEAD * size):
                for segment in found:
                    counter(segment)
                if on_progress is not None:
                    on_progress(min(1.0, chunk.end / max(seconds, 1e-9)))
        finally:
            failed.set()
            workers.shutdown(wait=True, cancel_futures=True)
    if on_progress is not None:
        on_progress(1.0)


def _map_ordered(
    workers: ThreadPoolExecutor, work: Callable[[Chunk], list[Segment]], chunks: Iterable[Chunk], ahead: int
) -> Iterator[tuple[Chunk, list[Segment]]]:
    """Yield results in the order of the chunks, with at most `ahead` + 1 chunks in memory."""
    running: deque[tuple[Chunk, Future[list[Segment]]]] = deque()
    for chunk in chunks:
        running.append((chunk, workers.submit(work, chunk)))
        if len(running) > ahead:
            first, future = running.popleft()
            yield first, _wait_for(future)
    for first, future in running:
        yield first, _wait_for(future)


def _wait_for(future: Future[list[Segment]]) -> list[Segment]:
    """Wait in short steps, so that Ctrl-C is handled."""
    while True:
        try:
            return future.result(timeout=0.1)
        except TimeoutError:
            if future.done():
                raise
