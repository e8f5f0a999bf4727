"""Answers that come in parts, and what upstream says when one does not come."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Generic, Self, TypeVar

from cyllama.errors import ClosedError, ContextFullError, EngineError, GrammarError, UnsupportedError
from cyllama.llama._engine import EngineResponse
from cyllama.llama.answers import Events, Record

__all__ = ["AnyOf", "Stream", "error_of"]

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
    """The parts of an answer as they come. Closing or dropping it frees the slot."""

    def __init__(self, response: EngineResponse, kind: type[Chunk], cancel: Any) -> None:
        self._response = response
        self._events = Events()
        self._ready: deque[dict[str, Any]] = deque()
        self._kind = kind
        self._cancel = cancel
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
        except BaseException:
            self.close()
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
        self.cut()

    def cut(self) -> None:
        """End the request for a reason that its reader is to know."""
        self._response.close()

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
