"""A response on its way from the thread that computes it to the event loop that sends it, with backpressure."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple

from starlette.exceptions import HTTPException

from cyllama._cancel import POLL_SECONDS, Cancel, raise_if_cancelled
from cyllama.server.http.errors import OLLAMA_PREFIX, error_body, error_value, without_folders

__all__ = ["JSON", "LINES", "MAX_PENDING", "PING_SECONDS", "Head", "ResponseStream", "Update"]

JSON = "application/json; charset=utf-8"
EVENTS = "text/event-stream"
LINES = "application/x-ndjson"
PING = b":\n\n"  # a comment
PING_SECONDS = 15.0  # the default of sse_ping_interval
ERROR_EVENT = re.compile(rb'(?:event: error\n)?(?:data|error): ?\{"(?:error"|type": ?"error")')
MAX_PENDING = 1 << 16  # bytes that wait for the client before the working thread has to wait


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
    error : HTTPException or None
        What ended the working thread.
    """

    head: Head | None
    data: bytes
    finished: bool
    error: HTTPException | None


def error_event(error: HTTPException) -> bytes:
    """Return the event for an error after the response has started, in OpenAI's form."""
    return b"data: " + json.dumps({"error": error_body(error)}).encode() + b"\n\n"


def error_line(error: HTTPException) -> bytes:
    """Return the line for an error after the response has started, in Ollama's form."""
    return json.dumps({"error": error_value(error, OLLAMA_PREFIX)}).encode() + b"\n"


class ResponseStream:
    """A response that one thread writes and one event loop reads.

    It belongs to the event loop in which it is created.

    Attributes
    ----------
    format_error : callable
        Returns the event for an error after the response has started.
    """

    format_error: Callable[[HTTPException], bytes]

    def __init__(self, cancel: Cancel) -> None:
        self._cancel = cancel
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._changed = threading.Condition()
        self._head: Head | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._finished = self._notified = False
        self._error: HTTPException | None = None
        self._begun = False
        self._ping_seconds: float | None = None
        self.format_error = error_event

    # ------------------------------------------------------------------------- working thread

    def send(
        self, status: int, content_type: str, data: bytes, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Write a whole response; an error without the folders in its message."""
        if status >= 400:
            data = _without_folders(data)
        with self._changed:
            self._head = Head(status, content_type, len(data), headers)
            self._parts.append(data)
            self._notify()

    def expect_events(self, ping_seconds: float | None) -> None:
        """Send a comment whenever nothing is written for this time, also before the response has begun.

        The first comment begins the response: an error after it is an event.

        Parameters
        ----------
        ping_seconds : float or None
            None: send no comments.
        """
        with self._changed:
            self._ping_seconds = ping_seconds
            if ping_seconds not in (None, PING_SECONDS):  # the event loop waits for so long anyway
                self._notify()

    def start_events(self) -> None:
        """Begin a response of server-sent events."""
        self._start(EVENTS)

    def start_lines(self) -> None:
        """Begin a response of JSON objects, one per line."""
        self.format_error = error_line
        self._start(LINES)

    def _start(self, content_type: str) -> None:
        with self._changed:
            if not self._begun:
                self._head = self._begin(content_type)
                self._notify()

    def _begin(self, content_type: str) -> Head:
        self._begun = True
        return Head(200, content_type, None, {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})

    def write(self, part: bytes) -> None:
        """Write a part of the body; wait while the client reads too slowly. Errors are written as by `send`.

        Raises
        ------
        CancelledError
        """
        if ERROR_EVENT.match(part):
            part = _without_folders(part)
        with self._changed:
            while self._size >= MAX_PENDING:
                raise_if_cancelled(self._cancel, "the wait for the client to read")
                self._changed.wait(POLL_SECONDS)
            self._parts.append(part)
            self._size += len(part)
            self._notify()

    def finish(self, error: HTTPException | None = None) -> None:
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
        try:
            async with asyncio.timeout(PING_SECONDS if self._ping_seconds is None else self._ping_seconds):
                await self._ready.wait()
        except TimeoutError:
            with self._changed:
                if not self._notified and self._ping_seconds is None:
                    return Update(None, b"", False, None)
                if not self._notified:
                    return Update(None if self._begun else self._begin(EVENTS), PING, False, None)
        with self._changed:
            self._ready.clear()
            self._notified = False
            head, self._head = self._head, None
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._size = 0
            self._changed.notify_all()
            return Update(head, data, self._finished, self._error)


def _without_folders(data: bytes) -> bytes:
    return without_folders(data.decode("utf-8", "replace")).encode()
