"""A response on its way from the thread that computes it to the event loop that sends it, with backpressure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from cyllama._cancel import POLL_SECONDS, Cancel, raise_if_cancelled

__all__ = ["JSON", "Head", "ResponseStream", "Update"]

JSON = "application/json; charset=utf-8"
EVENTS = "text/event-stream"
MAX_PENDING = 1 << 18  # bytes that wait for the client before the working thread has to wait


@dataclass(frozen=True)
class Head:
    """Status and headers of a response.

    Attributes
    ----------
    status : int
    content_type : str
    size : int or None
        Bytes of the whole body, if known.
    headers : mapping
    """

    status: int
    content_type: str
    size: int | None
    headers: Mapping[str, str] = field(default_factory=dict)


class Update(NamedTuple):
    """What has been written since the last update.

    Attributes
    ----------
    head : Head or None
        Once, before the first data.
    data : bytes
    finished : bool
    error : BaseException or None
        What ended the working thread.
    """

    head: Head | None
    data: bytes
    finished: bool
    error: BaseException | None


class ResponseStream:
    """A response that one thread writes and one event loop reads.

    It belongs to the event loop in which it is created.
    """

    def __init__(self, cancel: Cancel) -> None:
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._finished = self._notified = False
        self._error: BaseException | None = None

    # ------------------------------------------------------------------------- working thread

    def send(self, status: int, content_type: str, data: bytes) -> None:
        """Write a whole response."""
        with self._changed:
            self._head = Head(status, content_type, len(data))
            self._parts.append(data)
            self._notify()

    def start_events(self) -> None:
        """Begin a response of server-sent events."""
        with self._changed:
            self._head = Head(200, EVENTS, None, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
            self._notify()

    def write(self, part: bytes) -> None:
        """Write a part of the body; wait while the client reads too slowly.

        Raises
        ------
        CancelledError
        """
        with self._changed:
            while self._size >= MAX_PENDING:
                raise_if_cancelled(self._cancel, "the wait for the client to read")
                self._changed.wait(POLL_SECONDS)
            self._parts.append(part)
            self._size += len(part)
            self._notify()

    def finish(self, error: BaseException | None = None) -> None:
        """End the response, with an error if there was one."""
        with self._changed:
            self._finished, self._error = True, error
            self._notify()

    def _notify(self) -> None:
        if not self._notified:
            self._notified = True
            self._loop.call_soon_threadsafe(self._ready.set)

    # ----------------------------------------------------------------------------- event loop

    async def read(self) -> Update:
        """Wait for the next update."""
        await self._ready.wait()
        with self._changed:
            self._ready.clear()
            self._notified = False
            head, self._head = self._head, None
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._changed.notify_all()
            return Update(head, data, self._finished, self._error)
