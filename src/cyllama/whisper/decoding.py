"""Pieces of sound through the engine, one after the other or several at once, into segments in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

from cyllama.whisper._state import WhisperState, WhisperToken
from cyllama.whisper.options import TranscribeOptions
from cyllama.whisper.params import WhisperFullParams
from cyllama.whisper.pieces import Piece
from cyllama.whisper.results import Segment, Token, compression_ratio
from cyllama.whisper.words import words_of

__all__ = ["Cancel", "Decoder", "EitherCancel", "PieceDecoder", "decode", "decode_together"]

CENTISECONDS = 100.0


class Cancel(Protocol):
    """Such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether to stop."""


class EitherCancel:
    """Set when one of several is."""

    def __init__(self, *parts: Cancel | None) -> None:
        self._parts = [part for part in parts if part is not None]

    def is_set(self) -> bool:
        """Whether to stop."""
        return any(part.is_set() for part in self._parts)


class PieceDecoder(Protocol):
    """How a piece becomes segments: `Decoder` for Whisper models, `ParakeetDecoder` for Parakeet models."""

    @property
    def options(self) -> TranscribeOptions:
        """The options of the transcription."""

    def state(self) -> Any:
        """Return a new state of the model, a context manager."""

    def following(self) -> dict[str, Any]:
        """Return the changes to the parameters of the second piece and of those after it."""

    def run(
        self,
        state: Any,
        piece: Piece,
        *,
        emit: Callable[[Segment], None],
        progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
        **changes: Any,
    ) -> None:
        """Transcribe one piece; pass each segment to `emit`."""


@dataclass(frozen=True)
class Decoder:
    """How a piece becomes segments.

    Attributes
    ----------
    state : callable
        Makes a state of the model.
    params : WhisperFullParams
        Of the engine.
    options : TranscribeOptions
    language : str
        Code of the language that is written.
    special : int
        The first token that is no text.
    """

    state: Callable[[], WhisperState]
    params: WhisperFullParams
    options: TranscribeOptions
    language: str
    special: int

    def following(self) -> dict[str, Any]:
        """Return the changes to the parameters of the second piece and of those after it."""
        changes: dict[str, Any] = {"no_context": False}
        if not self.params.carry_initial_prompt:
            changes["prompt_tokens"] = None  # it is in the text of the first piece
        return changes

    def run(
        self,
        state: WhisperState,
        piece: Piece,
        *,
        emit: Callable[[Segment], None],
        progress: Callable[[float], object] | None = None,
        cancel: Cancel | None = None,
        **changes: Any,
    ) -> None:
        """Transcribe one piece; `emit` gets each segment as soon as the engine has it."""

        def new_segments(first: int, last: int) -> None:
            for i in range(first, last):
                segment = self.segment(state, i, piece)
                if segment.text:
                    emit(segment)

        params = replace(self.params, new_segment_callback=new_segments, progress_callback=progress, **changes)
        state.full(piece.samples, params, cancel=cancel)

    def segment(self, state: WhisperState, i: int, piece: Piece) -> Segment:
        """Return segment `i` of a state, with times in the sound."""
        timed = bool(self.params.token_timestamps)
        tokens = tuple(self.token(data, piece, timed) for data in state.get_tokens(i) if data.id < self.special)
        start = piece.start_time(state.get_segment_t0(i) / CENTISECONDS)
        end = max(start, piece.end_time(state.get_segment_t1(i) / CENTISECONDS))
        text = b"".join(token.raw for token in tokens).decode("utf-8", "replace")
        words = None
        if self.options.word_timestamps:
            words = words_of(
                tokens,
                self.language,
                start,
                end,
                prepended=self.options.prepend_punctuations,
                appended=self.options.append_punctuations,
            )
        return Segment(
            id=i,
            seek=round(piece.start * CENTISECONDS),
            start=start,
            end=end,
            text=text,
            tokens=tokens,
            words=words,
            avg_logprob=sum(token.logprob for token in tokens) / max(1, len(tokens)),
            compression_ratio=compression_ratio(text),
            no_speech_prob=state.get_segment_no_speech_prob(i),
            speaker_turn=state.get_segment_speaker_turn_next(i),
        )

    def token(self, data: WhisperToken, piece: Piece, timed: bool) -> Token:
        """Return a token with times in the sound."""
        aligned = data.t_dtw >= 0
        return Token(
            id=data.id,
            raw=data.text,
            probability=data.p,
            logprob=data.plog,
            start=piece.start_time(data.t0 / CENTISECONDS) if timed else None,
            end=piece.end_time(data.t1 / CENTISECONDS) if timed else None,
            dtw=piece.start_time(data.t_dtw / CENTISECONDS) if aligned else None,
        )


class _Numbered:
    """Gives segments their numbers, in the order in which they come."""

    def __init__(self, emit: Callable[[Segment], None]) -> None:
        self.emit, self.count = emit, 0

    def __call__(self, segment: Segment) -> None:
        self.emit(replace(segment, id=self.count))
        self.count += 1


def decode(
    decoder: PieceDecoder,
    pieces: Iterable[Piece],
    seconds: float,
    *,
    emit: Callable[[Segment], None],
    progress: Callable[[float], object] | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Transcribe pieces one after the other, each with the text of the one before as its context.

    Parameters
    ----------
    seconds : float
        Length of the whole sound, for the progress.
    emit : callable
        Gets each segment as soon as there is one; an exception stops everything.
    """
    numbered = _Numbered(emit)
    with decoder.state() as state:
        changes: dict[str, Any] = {}
        for piece in pieces:
            part = None if progress is None else _part_of(progress, piece, seconds)
            decoder.run(state, piece, emit=numbered, progress=part, cancel=cancel, **changes)
            changes = decoder.following()
    if progress is not None:
        progress(1.0)


def _part_of(progress: Callable[[float], object], piece: Piece, seconds: float) -> Callable[[float], object]:
    def report(part: float) -> object:
        return progress(min(1.0, (piece.start + part * (piece.end - piece.start)) / max(seconds, 1e-9)))

    return report


def decode_together(
    decoder: PieceDecoder,
    pieces: Iterable[Piece],
    seconds: float,
    *,
    emit: Callable[[Segment], None],
    progress: Callable[[float], object] | None = None,
    cancel: Cancel | None = None,
) -> None:
    """Transcribe up to ``batch_size`` pieces at once, without context; the segments come in order."""
    numbered = _Numbered(emit)
    failed = threading.Event()
    either = EitherCancel(cancel, failed)

    def work(piece: Piece) -> list[Segment]:
        found: list[Segment] = []
        with decoder.state() as state:
            decoder.run(state, piece, emit=found.append, cancel=either)
        return found

    workers = ThreadPoolExecutor(decoder.options.batch_size, thread_name_prefix="cyllama-whisper")
    try:
        for piece, found in _in_order(workers, work, pieces, decoder.options.batch_size):
            for segment in found:
                numbered(segment)
            if progress is not None:
                progress(min(1.0, piece.end / max(seconds, 1e-9)))
    finally:
        failed.set()
        workers.shutdown(wait=True, cancel_futures=True)
    if progress is not None:
        progress(1.0)


def _in_order(
    workers: ThreadPoolExecutor, work: Callable[[Piece], list[Segment]], pieces: Iterable[Piece], ahead: int
) -> Iterator[tuple[Piece, list[Segment]]]:
    """Results in the order of the pieces; no more pieces in memory than are worked on, and one."""
    running: deque[tuple[Piece, Future[list[Segment]]]] = deque()
    for piece in pieces:
        running.append((piece, workers.submit(work, piece)))
        if len(running) > ahead:
            first, future = running.popleft()
            yield first, _result(future)
    for first, future in running:
        yield first, _result(future)


def _result(future: Future[list[Segment]]) -> list[Segment]:
    """Wait so that Ctrl-C is answered."""
    while True:
        try:
            return future.result(timeout=0.1)
        except TimeoutError:
            if future.done():
                raise
