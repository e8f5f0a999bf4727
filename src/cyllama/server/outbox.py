"""The way of an answer from the thread that computes it to the event loop that sends it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from cyllama.errors import CancelledError

__all__ = ["JSON", "Head", "Outbox"]

JSON = "application/json; charset=utf-8"
EVENTS = "text/event-stream"
MOST_WAITING = 1 << 18  # bytes that may wait for a slow reader before the computing thread waits too
LOOK = 0.05


@dataclass(frozen=True)
class Head:
    """How an answer begins."""

    status: int
    content_type: str
    size: int | None  # of the whole answer, if it is known
    headers: Mapping[str, str] = field(default_factory=dict)


class Outbox:
    """Filled by one thread, emptied by the event loop in which it was made."""

    def __init__(self, cancel: threading.Event) -> None:
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._ended = self._woken = False
        self._error: BaseException | None = None

    # ------------------------------------------------------------------------- the working thread

    def answer(self, status: int, content_type: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """The whole answer at once."""
        with self._changed:
            self._head = Head(status, content_type, len(data), headers or {})
            self._parts.append(data)
            self._wake()

    def start_events(self) -> None:
        """Server-sent events follow."""
        with self._changed:
            self._head = Head(200, EVENTS, None, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
            self._wake()

    def write(self, part: bytes) -> None:
        """A part; waits while the client is too slow.

        Raises
        ------
        CancelledError
        """
        with self._changed:
            while self._size >= MOST_WAITING:
                if self._cancel.is_set():
                    raise CancelledError("cancelled while the client did not read")
                self._changed.wait(LOOK)
            self._parts.append(part)
            self._size += len(part)
            self._wake()

    def end(self, error: BaseException | None = None) -> None:
        """Nothing follows, or what went wrong does."""
        with self._changed:
            self._ended, self._error = True, error
            self._wake()

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self._loop.call_soon_threadsafe(self._ready.set)

    # ----------------------------------------------------------------------------- the event loop

    async def take(self) -> tuple[Head | None, bytes, bool, BaseException | None]:
        """Wait for news: the head (once), what there is to send, whether it is the end, and an error."""
        await self._ready.wait()
        with self._changed:
            self._ready.clear()
            self._woken = False
            head, self._head = self._head, None
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._changed.notify_all()
            return head, data, self._ended, self._error
