"""Answers that come in parts, and what upstream says when one does not come."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
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
from cyllama.llama.gathered import Gathered

__all__ = ["AnyOf", "Following", "RawAnswer", "Stream", "Whole", "error_of", "thrown"]

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
        return any([event.is_set() for event in self._events])  # a list: a generator takes longer than the events


Whole = Callable[[dict[str, Any]], Any]
Following = Callable[[dict[str, Any], AnyOf], EngineResponse | None]


class Stream(Generic[Chunk]):
    """The parts of an answer as they come. Closing or dropping it frees the slot.

    Parameters
    ----------
    response : EngineResponse
    kind : type
        Of the parts.
    cancel : object with ``is_set()``, optional
    whole : callable
        Makes the answer of what `Gathered` collects.
    following : callable, optional
        Gets that too when the answer has ended, and an event to stop it; gives the response whose parts come next, or
        None.

    Notes
    -----
    Thread safety: one thread reads it; any may close it, and it ends for the reader.
    """

    def __init__(
        self,
        response: EngineResponse,
        kind: type[Chunk],
        cancel: Any,
        *,
        whole: Whole,
        following: Following | None = None,
    ) -> None:
        self._response = response
        self._events, self._gathered = Events(), Gathered()
        self._ready: deque[dict[str, Any]] = deque()
        self._kind, self._whole, self._following = kind, whole, following
        self._complete = False
        self._stop = threading.Event()
        self._cancel = AnyOf(cancel, self._stop)
        self._ended = False

    def next(self, *, cancel: Any = None) -> Chunk | None:
        """Wait for the next part; None after the last one."""
        stop = self._cancel if cancel is None else AnyOf(self._cancel, cancel)
        try:
            while not self._ready:
                part = self._response.next(cancel=stop)
                if part is not None:
                    self._ready.extend(self._events.feed(part))
                elif not self._goes_on(stop):
                    self.close()
                    return None
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
        self._gathered.add(data)
        return self._kind(data)

    def _goes_on(self, stop: AnyOf) -> bool:
        """Whether another answer follows the one that has ended, as it does when functions were called."""
        if self._following is not None:
            response = self._following(self._gathered.whole(), stop)
            if response is not None:
                self._response.close()
                self._response, self._events, self._gathered = response, Events(), Gathered()
                return True
        self._complete = True
        return False

    def result(self) -> Any:
        """Read what is still to come, and give the whole answer: what the call without `stream` gives.

        Returns
        -------
        ChatCompletion or Completion
            With `run_tools` the last one. Without the ``logprobs`` of the token that ends it: it is in no part.

        Raises
        ------
        ClosedError
            The stream was closed before the answer ended.
        """
        while self.next() is not None:
            pass
        if not self._complete:
            raise ClosedError("the stream was closed before the answer ended")
        return self._whole(self._gathered.whole())

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
    if "does not support logits computation" in text:
        return UnsupportedError("the model was loaded for vectors, with embedding=True: it writes no text")
    if kind == "not_supported_error":
        for setting in ("embedding", "reranking"):
            if f"Start it with `--{setting}" in text:
                text = f"the model was not loaded with {setting}=True"
        return UnsupportedError(text)
    if kind == "invalid_request_error":
        return GrammarError(text) if "grammar" in text.casefold() else ValueError(text)
    return EngineError(text, engine="llama", code=data.get("code"))


def thrown(error: EngineError) -> Exception:
    """The exception for what a handler of upstream threw: about a value, it is a ValueError."""
    text = str(error)
    return ValueError(text) if "json.exception" in text or text.startswith("Unknown reasoning format") else error
