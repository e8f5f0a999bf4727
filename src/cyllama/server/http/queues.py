"""Rate limits: a bounded queue for each engine, and a budget for the bytes of request bodies."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
from collections import Counter
from collections.abc import Iterator

from starlette.exceptions import HTTPException

from cyllama._cancel import POLL_SECONDS, Cancel, raise_if_cancelled
from cyllama.server.http.errors import http_error

__all__ = ["BodyBudget", "EngineQueue"]

MAX_RETRY_SECONDS = 60
SMALL_BYTES = 1 << 17
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
    client_capacity : int, optional
        Maximum number of requests of one client, both running and waiting; None: `capacity`.

    Attributes
    ----------
    size : int
        Number of requests, both running and waiting.
    rejected : int
        Number of requests that were rejected because the queue was full.
    """

    def __init__(
        self, name: str, capacity: int, concurrency: int | None = None, client_capacity: int | None = None
    ) -> None:
        self.name, self.capacity, self.concurrency = name, capacity, concurrency
        self.client_capacity = client_capacity or capacity
        self.size = self.rejected = 0
        self._clients: Counter[str] = Counter()
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
            raise self._rejection(f"too many requests for {self.name} ({self.capacity})")

    def enter(self, client: str = "") -> None:
        """Add a request of a client; errors as of `check`. Only the event loop calls this."""
        self.check()
        if self._clients[client] >= self.client_capacity:
            most = self.client_capacity
            raise self._rejection(f"too many requests of one client for {self.name} ({most}, limits.client_requests)")
        self._clients[client] += 1
        self.size += 1

    def leave(self, seconds: float, client: str = "") -> None:
        """Remove a request of a client that took `seconds`. Only the event loop calls this."""
        self.size -= 1
        self._clients[client] -= 1
        if not self._clients[client]:
            del self._clients[client]
        self._mean_seconds += SMOOTHING * (seconds - self._mean_seconds)

    def _rejection(self, message: str) -> HTTPException:
        self.rejected += 1
        wait = self._mean_seconds * self.capacity / (self.concurrency or max(1, self.capacity // 4))
        headers = {"Retry-After": str(min(MAX_RETRY_SECONDS, max(1, math.ceil(wait))))}
        return http_error(429, f"{message}; try again later", headers=headers)

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
    """A limit on the memory of all request bodies.

    Parameters
    ----------
    limit : int
        Bytes.

    Attributes
    ----------
    limit, held : int
        Bytes.
    parsing : asyncio.Lock
        One large body is parsed at a time: the parser does not release the GIL, for which the event loop would have
        to wait several times.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self.parsing = asyncio.Lock()

    def acquire(self, size: int, before: int = 0) -> None:
        """Add bytes.

        Parameters
        ----------
        size : int
        before : int
            Bytes that the same request holds. A body of up to `SMALL_BYTES` is accepted even if large ones fill the
            budget: the limits on connections and queues bound the sum of small ones.

        Raises
        ------
        HTTPException
            429 with Retry-After.
        """
        if before + size > SMALL_BYTES and self.held + size > self.limit:
            raise http_error(429, "too many large requests; try again later", headers={"Retry-After": "1"})
        self.held += size

    def release(self, size: int) -> None:
        """Remove bytes."""
        self.held -= size
