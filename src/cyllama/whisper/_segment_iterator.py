"""Iterate over segments while a background thread transcribes, at most one segment ahead."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Self

from cyllama._cancel import POLL_SECONDS, AnyCancel, Cancel
from cyllama.errors import CancelledError
from cyllama.whisper._segments import Segment

__all__ = ["SegmentIterator"]

Work = Callable[[Callable[[Segment], None], Cancel], None]

_running: weakref.WeakSet[_Worker] = weakref.WeakSet()


class SegmentIterator(Iterator[Segment]):
    """An iterator over the segments of a transcription.

    The transcription starts with the first ``next()`` and is at most one segment ahead. `close`, a ``with`` block, or
    dropping the iterator stops it.
    """

    def __init__(self, work: Work, cancel: Cancel | None) -> None:
        self._work, self._cancel = work, cancel
        self._worker: _Worker | None = None
        self._ended = False

    def __repr__(self) -> str:
        status = "closed" if self._ended else "not started" if self._worker is None else "running"
        return f"SegmentIterator({status})"

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Segment:
        if self._ended:
            raise StopIteration
        if self._worker is None:
            self._worker = _Worker(self._work, self._cancel)
            self._worker.start()
        try:
            segment = self._worker.take()
        except BaseException:
            self.close()
            raise
        if segment is None:
            self.close()
            raise StopIteration
        return segment

    def close(self) -> None:
        """Stop the transcription and wait for its thread."""
        self._ended = True
        if self._worker is not None:
            self._worker.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_ended", True):
            self.close()


class _Worker:
    """A thread that transcribes, and waits after each segment until it is taken."""

    def __init__(self, work: Work, cancel: Cancel | None) -> None:
        self._work, self._cancel = work, cancel
        self._segments: queue.Queue[Segment | BaseException | None] = queue.Queue(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cyllama-whisper", daemon=True)

    def start(self) -> None:
        _running.add(self)
        self._thread.start()

    def take(self) -> Segment | None:
        """Wait for the next segment; None at the end. Raise the exception of the transcription."""
        found = self._segments.get()
        if isinstance(found, BaseException):
            raise found
        return found

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        end: BaseException | None = None
        try:
            self._work(self._put, AnyCancel(self._cancel, self._stop))
        except BaseException as error:  # take() raises it
            end = error
        while not self._stop.is_set():
            try:
                return self._segments.put(end, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def _put(self, segment: Segment) -> None:
        while True:
            if self._stop.is_set() or (self._cancel is not None and self._cancel.is_set()):
                raise CancelledError("the transcription was cancelled")
            try:
                return self._segments.put(segment, timeout=POLL_SECONDS)
            except queue.Full:
                continue


@atexit.register
def _stop_all() -> None:
    for worker in list(_running):
        worker.stop()
