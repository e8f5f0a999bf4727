"""Answers that come in parts, and what upstream says when one does not come."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from cyllama.errors import (
    CancelledError,
    ClosedError,
    ContextFullError,
    EngineError,
    GrammarError,
    InUseError,
    UnsupportedError,
)
from cyllama.llama._engine import EngineResponse
from cyllama.llama.answers import Events, Record

__all__ = ["AnyOf", "RawAnswer", "Stream", "error_of", "thrown"]

Chunk = TypeVar("Chunk", bound=Record)


class AnyOf:
    """Set when one of several events is.

    Raises
    ------
    TypeError
        One is no event; None stands for one that is never set.
    """

    def __init__(self, *events: Any) -> None:
        for event in events:
            if event is not None and not callable(getattr(event, "is_set", None)):
                raise TypeError(f"cancel is {event!r}, expected an object with is_set(), such as threading.Event")
        self._events = [event for event in events if event is not None]

    def is_set(self) -> bool:
        """Whether one is."""
        return any(event.is_set() for event in self._events)


class Stream(Generic[Chunk]):
    """The parts of an answer as they come. Closing or dropping it frees the slot.

    Thread safety: one thread reads it; any may close it, and it ends for the reader.
    """

    def __init__(self, response: EngineResponse, kind: type[Chunk], cancel: Any) -> None:
        self._response = response
        self._events = Events()
        self._ready: deque[dict[str, Any]] = deque()
        self._kind = kind
        self._stop = threading.Event()
        self._cancel = AnyOf(cancel, self._stop)
        self._ended = False

    def next(self, *, cancel: Any = None) -> Chunk | None:
        """Wait for the next part; None after the last one."""
        try:
            while not self._ready:
                part = self._response.next(cancel=AnyOf(self._cancel, cancel))
                if part is None:
                    self.close()
                    return None
                self._ready.extend(self._events.feed(part))
        except ClosedError:
            if self._ended:
                return None
            raise ClosedError("the model was closed before the answer ended") from None
        except InUseError:  # it is another thread's
            raise
        except BaseException as error:
            ended = self._ended
            self.close()
            if ended and isinstance(error, CancelledError):
                return None
            raise
        data = self._ready.popleft()
        if "error" in data:
            self.close()
            raise error_of(data["error"])
        return self._kind(data)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        part = self.next()
        if part is None:
            raise StopIteration
        return part

    def close(self) -> None:
        """End the request."""
        self._ended = True
        self._stop.set()
        with contextlib.suppress(InUseError):  # the reader closes it
            self.cut()

    def cut(self) -> None:
        """End the request for a reason that its reader is to know."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class RawAnswer:
    """What a handler of upstream gave to a request, byte by byte. Closing or dropping it frees the slot."""

    def __init__(self, response: EngineResponse, cancel: Any) -> None:
        self._response = response
        self._cancel = cancel

    @property
    def status(self) -> int:
        """As of HTTP: 200, or what kind of error it is."""
        return int(self._response.status)

    @property
    def is_stream(self) -> bool:
        """Whether it comes in parts (server-sent events)."""
        return bool(self._response.is_stream)

    @property
    def data(self) -> bytes:
        """The whole answer, if it does not come in parts."""
        return bytes(self._response.data)

    def next(self) -> bytes | None:
        """Wait for the next part, which may be empty; None after the last one.

        Raises
        ------
        ClosedError
            The model was closed before the answer ended.
        EngineError, CancelledError
        """
        part: bytes | None = self._response.next(cancel=self._cancel)
        return part

    def close(self) -> None:
        """End the request."""
        self._response.close()

    cut = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def error_of(data: Mapping[str, Any]) -> Exception:
    """The exception for an error of upstream."""
    text, kind = str(data.get("message", data)), data.get("type")
    if kind == "exceed_context_size_error" or "is too large to process" in text:
        return ContextFullError(text, engine="llama", code=data.get("code"))
    if kind == "not_supported_error":
        return UnsupportedError(text)
    if kind == "invalid_request_error":
        return GrammarError(text) if "grammar" in text.casefold() else ValueError(text)
    return EngineError(text, engine="llama", code=data.get("code"))


def thrown(error: EngineError) -> Exception:
    """The exception for what a handler of upstream threw: about a value, it is a ValueError."""
    text = str(error)
    return ValueError(text) if "json.exception" in text or text.startswith("Unknown reasoning format") else error
