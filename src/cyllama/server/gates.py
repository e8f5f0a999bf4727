"""How many requests an engine has at the same time: those over the limit are told when to come again."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterator
from typing import Any

from cyllama.errors import CancelledError
from cyllama.server.problems import problem

__all__ = ["BodyBudget", "Gate"]

LOOK = 0.05  # seconds between two looks at `cancel`
LONGEST_RETRY = 60
SMOOTHING = 0.2  # weight of the newest request in the mean time


class Gate:
    """The door to one engine.

    Parameters
    ----------
    name : str
    places : int
        Requests inside at the same time, those that wait for their turn included.
    running : int, optional
        Of them at work; None: as many as are inside.
    """

    def __init__(self, name: str, places: int, running: int | None = None) -> None:
        self.name, self.places, self.running = name, places, running
        self.inside = self.refused = 0
        self._seconds = 1.0  # of a request, on average
        self._turns = None if running is None else threading.BoundedSemaphore(running)
        self._lock = threading.Lock()

    def check(self) -> None:
        """Refuse early, before a body is read.

        Raises
        ------
        HTTPException
            429 with Retry-After.
        """
        if self.inside >= self.places:
            self.refused += 1
            wait = self._seconds * self.places / (self.running or max(1, self.places // 4))
            headers = {"Retry-After": str(min(LONGEST_RETRY, max(1, math.ceil(wait))))}
            raise problem(429, f"too many requests for {self.name} ({self.places}); try again later", headers=headers)

    def enter(self) -> None:
        """Take a place; errors as of `check`. Called by the event loop alone."""
        self.check()
        self.inside += 1

    def leave(self, seconds: float) -> None:
        """Give the place back after so many seconds."""
        self.inside -= 1
        self._seconds += SMOOTHING * (seconds - self._seconds)

    @contextlib.contextmanager
    def turn(self, cancel: Any) -> Iterator[None]:
        """Wait, in a working thread, until it is this request's turn.

        Raises
        ------
        CancelledError
        """
        if self._turns is None:
            yield
            return
        while not self._turns.acquire(timeout=LOOK):
            if cancel.is_set():
                raise CancelledError("cancelled while waiting for its turn")
        try:
            yield
        finally:
            self._turns.release()


class BodyBudget:
    """Bytes of all bodies that are in memory."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0

    def take(self, size: int) -> None:
        """Count bytes in.

        Raises
        ------
        HTTPException
            429 with Retry-After.
        """
        if self.held + size > self.limit:
            headers = {"Retry-After": "1"}
            raise problem(429, "too many large requests at the same time; try again later", headers=headers)
        self.held += size

    def give_back(self, size: int) -> None:
        """Count them out."""
        self.held -= size
