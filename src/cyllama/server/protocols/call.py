"""A text request while a thread computes its response."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cyllama.errors import ClosedError, ContextFullError, EngineError
from cyllama.server.config import ModelEntry
from cyllama.server.fields.field import RouteFields
from cyllama.server.http.errors import engine_request_error, error_message, http_error
from cyllama.server.http.response_stream import JSON, PING_SECONDS, ResponseStream

if TYPE_CHECKING:
    from cyllama.llama import LLM

__all__ = ["TextCall", "event_bytes"]


@dataclass(frozen=True)
class TextCall:
    """A request to a language model.

    Attributes
    ----------
    llm : LLM
    entry : ModelEntry
    fields : dict
        The fields of the request that have a value and an effect.
    stream : ResponseStream
    cancel : threading.Event
    """

    llm: LLM
    entry: ModelEntry
    fields: dict[str, Any]
    stream: ResponseStream
    cancel: threading.Event

    def expect_events(self) -> None:
        """Prepare for a streamed response: send comments while the request waits for a slot."""
        interval = self.fields.pop("sse_ping_interval", PING_SECONDS)
        self.stream.expect_events(interval if interval > 0 else None)

    def send(self, data: Mapping[str, Any] | list[Any]) -> None:
        """Send the whole response."""
        self.stream.send(200, JSON, json.dumps(data, ensure_ascii=False).encode("utf-8", "replace"))

    def named(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return a response with the listed name of the model."""
        return {**data, "model": self.entry.name} if "model" in data else data

    def write(self, data: Mapping[str, Any], event: str | None = None) -> None:
        """Send an event."""
        self.stream.write(event_bytes(data, event))

    def request(self, route: str, body: Mapping[str, Any]) -> Any:
        """Return the response of a handler of llama-server."""
        return self.llm.request_json(route, body, cancel=self.cancel)


def event_bytes(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """Return a server-sent event."""
    head = "" if event is None else f"event: {event}\n"
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode("utf-8", "replace")


@contextlib.contextmanager
def naming_fields(route: RouteFields, llm: LLM) -> Iterator[None]:
    """Convert errors about a request to HTTP errors that name the field.

    The engine's parsers throw arbitrary C++ exceptions for requests that they cannot read.
    """
    try:
        yield
    except (ClosedError, ContextFullError):
        raise
    except (TypeError, ValueError) as error:
        text = error_message(error)
        first = text.split(maxsplit=1)[0].rstrip(":,") if text else ""
        name = first.split("[")[0].split(".")[0]
        raise http_error(400, text, param=first if name in route.by_name else None) from None
    except (EngineError, IndexError) as error:
        is_request = getattr(error, "code", None) is None and llm.failure is None
        rejection = engine_request_error(error) if is_request else None
        if rejection is None:
            raise
        raise rejection from None
