"""Rate limits: a bounded queue for each engine, and a budget for the bytes of request bodies."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator

from cyllama._cancel import POLL_SECONDS, Cancel, raise_if_cancelled
from cyllama.server.http.errors import http_error

__all__ = ["BodyBudget", "EngineQueue"]

MAX_RETRY_SECONDS = 60
SMOOTHING = 0.2  # weight of the newest request in the average duration


class EngineQueue:
    """A bounded queue of the requests to one engine.

    Parameters
    ----------
    name : str
        The engine's name in error messages.
    capacity : int
        Maximum number of requests, both running and waiting.
    concurrency : int, optional
        Maximum number of running requests; None: `capacity`.

    Attributes
    ----------
    size : int
        Number of requests, both running and waiting.
    rejected : int
        Number of requests that were rejected because the queue was full.
    """

    def __init__(self, name: str, capacity: int, concurrency: int | None = None) -> None:
        self.name, self.capacity, self.concurrency = name, capacity, concurrency
        self.size = self.rejected = 0
        self._mean_seconds = 1.0  # of a request
        self._slots = None if concurrency is None else threading.BoundedSemaphore(concurrency)

    def check(self) -> None:
        """Raise if the queue is full; routes call this before they read a body.

        Raises
        ------
        HTTPException
            429 with Retry-After.
        """
        if self.size >= self.capacity:
            self.rejected += 1
            wait = self._mean_seconds * self.capacity / (self.concurrency or max(1, self.capacity // 4))
            headers = {"Retry-After": str(min(MAX_RETRY_SECONDS, max(1, math.ceil(wait))))}
            raise http_error(
                429, f"too many requests for {self.name} ({self.capacity}); try again later", headers=headers
            )

    def enter(self) -> None:
        """Add a request; errors as of `check`. Only the event loop calls this."""
        self.check()
        self.size += 1

    def leave(self, seconds: float) -> None:
        """Remove a request that took `seconds`. Only the event loop calls this."""
        self.size -= 1
        self._mean_seconds += SMOOTHING * (seconds - self._mean_seconds)

    @contextlib.contextmanager
    def slot(self, cancel: Cancel) -> Iterator[None]:
        """Wait in a working thread until the request may run, and hold its slot for the length of the block.

        Raises
        ------
        CancelledError
        """
        if self._slots is None:
            yield
            return
        while not self._slots.acquire(timeout=POLL_SECONDS):
            raise_if_cancelled(cancel, "the wait in the queue")
        try:
            yield
        finally:
            self._slots.release()


class BodyBudget:
    """A limit on the bytes of all request bodies in memory.

    Attributes
    ----------
    limit, held : int
        Bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def acquire(self, size: int) -> None:
        """Add bytes.

        Raises
        ------
        HTTPException
            429 with Retry-After.
        """
        if self.held + size > self.limit:
            raise http_error(429, "too many large requests; try again later", headers={"Retry-After": "1"})
        self.held += size

    def release(self, size: int) -> None:
        """Remove bytes."""
        self.held -= size
