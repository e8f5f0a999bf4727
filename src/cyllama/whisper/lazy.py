"""Segments as they are asked for: the engine waits in a thread of its own."""

from __future__ import annotations

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Iterator

from cyllama.errors import CancelledError
from cyllama.whisper.decoding import Cancel, EitherCancel
from cyllama.whisper.results import Segment

__all__ = ["lazily"]

POLL_SECONDS = 0.05

Emit = Callable[[Segment], None]

_running: weakref.WeakSet[_Worker] = weakref.WeakSet()


class _Worker:
    """A transcription that stops after each segment until the next is wanted."""

    def __init__(self, work: Callable[[Emit, Cancel], None], cancel: Cancel | None) -> None:
        self._work, self._cancel = work, cancel
        self._segments: queue.Queue[Segment | BaseException | None] = queue.Queue(1)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cyllama-whisper", daemon=True)

    def start(self) -> None:
        _running.add(self)
        self._thread.start()

    def take(self) -> Segment | None:
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
            self._work(self._put, EitherCancel(self._cancel, self._stop))
        except BaseException as error:  # raised where the segments are taken
            end = error
        while not self._stop.is_set():
            try:
                return self._segments.put(end, timeout=POLL_SECONDS)
            except queue.Full:
                continue

    def _put(self, segment: Segment) -> None:
        while True:
            if self._stop.is_set() or (self._cancel is not None and self._cancel.is_set()):
                raise CancelledError("cancelled")
            try:
                return self._segments.put(segment, timeout=POLL_SECONDS)
            except queue.Full:
                continue


def lazily(work: Callable[[Emit, Cancel], None], cancel: Cancel | None) -> Iterator[Segment]:
    """Yield what `work` emits; it begins with the first ``next()`` and is at most one segment ahead."""
    worker = _Worker(work, cancel)
    worker.start()
    try:
        while (segment := worker.take()) is not None:
            yield segment
    finally:
        worker.stop()


@atexit.register
def _stop_all() -> None:
    for worker in list(_running):
        worker.stop()
