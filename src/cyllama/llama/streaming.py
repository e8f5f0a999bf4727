"""Streamed responses."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

from cyllama._cancel import AnyCancel, Cancel
from cyllama.errors import CancelledError, ClosedError, InUseError
from cyllama.llama._chat_request import read_json
from cyllama.llama._engine import EngineResponse
from cyllama.llama._errors import response_error
from cyllama.llama._forced_calls import Form
from cyllama.llama._slots import name_slot
from cyllama.llama.responses import Record

__all__ = [
    "ChatChunks",
    "ChunkJoiner",
    "ChunkMaker",
    "EventParser",
    "NextRequest",
    "RawResponse",
    "Stream",
    "add_warning",
    "drop_alternatives",
]

Chunk = TypeVar("Chunk", bound=Record)
Result = TypeVar("Result", bound=Record)

log = logging.getLogger("cyllama.llama")

NextRequest = Callable[[dict[str, Any], AnyCancel], EngineResponse | None]


class ChunkMaker(Protocol):
    """Makes the chunks of a response from the events of upstream's stream."""

    def feed(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks for an event."""
        ...

    def end(self) -> tuple[dict[str, Any] | None, bool]:
        """Return the chunk with the usage, and whether the client asked for it."""
        ...


class ChatChunks:
    """The chunks of a streamed chat.

    Upstream ends each choice with a usage of its own, and begins a message with a content of null.

    Parameters
    ----------
    fields : mapping
        The fields of the request.
    form : Form, optional
        Converts chunks of text.
    """

    def __init__(self, fields: Mapping[str, Any], form: Form | None = None) -> None:
        self._include_usage = bool((fields.get("stream_options") or {}).get("include_usage"))
        self._usages: list[dict[str, Any]] = []
        self._no_alternatives = fields.get("top_logprobs") == 0
        self._form, self._schema = form, fields.get("json_schema")
        self._texts: dict[int, str] = {}  # of each choice, for the schema

    def feed(self, event: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks for an event; usages are kept for the end."""
        if not event.get("choices") and "usage" in event:
            self._usages.append(event)
            return []
        if self._no_alternatives:
            drop_alternatives(event.get("choices", ()))
        for choice in event.get("choices", ()):
            delta = choice.get("delta") or {}
            if delta.get("content", "") is None:
                delta["content"] = ""
        chunks = [event] if self._form is None else self._form.convert(event)
        for choice in (choice for chunk in chunks for choice in chunk.get("choices", ())):
            index = choice["index"]
            if self._schema is not None:
                self._texts[index] = self._texts.get(index, "") + ((choice.get("delta") or {}).get("content") or "")
            if choice.get("finish_reason"):
                add_warning(choice, self._texts.get(index, ""), self._schema)
        return chunks

    def end(self) -> tuple[dict[str, Any] | None, bool]:
        """Return the chunk with the usage of all choices, and whether the client asked for it."""
        if not self._usages:
            return None, False
        usages = [chunk["usage"] for chunk in self._usages]
        return {**self._usages[-1], "usage": joint_usage(usages)}, self._include_usage


def add_warning(choice: dict[str, Any], text: str, schema: Mapping[str, Any] | None) -> None:
    """Add the warning to a choice whose text does not satisfy the schema of the request, and log it."""
    if schema is not None and "warning" not in choice and choice["finish_reason"] == "stop":
        try:
            read_json(schema, text)
        except ValueError as error:
            choice["warning"] = str(error)
    if "warning" in choice:
        log.warning(choice["warning"])


def drop_alternatives(choices: Iterable[Mapping[str, Any]]) -> None:
    """Empty the alternatives of the tokens of choices."""
    for choice in choices:
        for row in (choice.get("logprobs") or {}).get("content") or ():
            for name in {"top_logprobs", "top_probs"} & row.keys():
                row[name] = []


def joint_usage(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the usage of several choices for one prompt."""
    generated = sum(usage["completion_tokens"] for usage in usages)
    prompt = usages[0]["prompt_tokens"]
    return {**usages[0], "completion_tokens": generated, "total_tokens": prompt + generated}


class Stream(Generic[Chunk, Result]):
    """An iterator over the chunks of a response. Closing or dropping it frees the slot.

    Parameters
    ----------
    response : EngineResponse
    chunk_type : type
        The class of the chunks.
    cancel : Cancel, optional
    make_result : callable
        Makes the result of the joined chunks.
    make_chunks : callable
        Returns a new `ChunkMaker` for a response.
    next_request : callable, optional
        Called with the joined chunks when a response has ended, and with an event that stops it. Returns the response
        whose chunks follow, or None.
    hide_details : bool
        Remove the details of verbose chunks, except for the slot.

    Notes
    -----
    Thread safety: one thread reads it. Any thread may close it, which ends the iteration.
    """

    def __init__(
        self,
        response: EngineResponse,
        chunk_type: type[Chunk],
        cancel: Cancel | None,
        *,
        make_result: Callable[[dict[str, Any]], Result],
        make_chunks: Callable[[], ChunkMaker],
        next_request: NextRequest | None = None,
        hide_details: bool = False,
    ) -> None:
        self._make_chunks = make_chunks
        self._begin(response)
        self._ready: deque[dict[str, Any]] = deque()
        self._chunk_type, self._make_result, self._next_request = chunk_type, make_result, next_request
        self._hide_details = hide_details
        self._complete = False
        self._stop = threading.Event()
        self._cancel = AnyCancel(cancel, self._stop)
        self._ended = False

    def _begin(self, response: EngineResponse) -> None:
        """Read another response."""
        self._response, self._chunks = response, self._make_chunks()
        self._events, self._joiner = EventParser(), ChunkJoiner()
        self._flushed = False

    def next(self, *, cancel: Cancel | None = None) -> Chunk | None:
        """Wait for the next chunk; return None after the last one. Releases the GIL."""
        stop = self._cancel if cancel is None else AnyCancel(self._cancel, cancel)
        try:
            while not self._ready:
                data = self._response.next(cancel=stop)
                if data is not None:
                    for event in self._events.feed(data):
                        self._ready.extend(self._chunks.feed(event))
                elif not self._flush() and not self._continue(stop):
                    self.close()
                    return None
        except ClosedError:
            if self._ended:
                return None
            raise ClosedError("the model was closed before the response ended") from None
        except InUseError:  # another thread reads
            raise
        except BaseException as error:
            ended = self._ended
            self.close()
            if ended and isinstance(error, CancelledError):
                return None
            raise
        chunk = self._ready.popleft()
        if "error" in chunk:
            self.close()
            raise response_error(chunk["error"])
        name_slot(chunk, hide=self._hide_details)
        self._joiner.add(chunk)
        return self._chunk_type(chunk)

    def _flush(self) -> bool:
        """Add the chunk with the usage, once; return whether the client gets it."""
        if self._flushed:
            return False
        self._flushed = True
        chunk, shown = self._chunks.end()
        if chunk is not None:
            self._joiner.add(chunk)
            self._ready.extend([chunk] if shown else [])
        return shown

    def _continue(self, stop: AnyCancel) -> bool:
        """Start the request that follows the response, as after tool calls; return whether there is one."""
        if self._next_request is not None:
            response = self._next_request(self._joiner.joined(), stop)
            if response is not None:
                self._response.close()
                self._begin(response)
                return True
        self._complete = True
        return False

    def result(self) -> Result:
        """Read the remaining chunks and return what the call without `stream` returns.

        Returns
        -------
        ChatCompletion or Completion
            The last response, with `run_tools`. It lacks the ``logprobs`` of the token that ends the text.

        Raises
        ------
        ClosedError
            The stream was closed before the response ended.
        """
        while self.next() is not None:
            pass
        if not self._complete:
            raise ClosedError("the stream was closed before the response ended")
        return self._make_result(self._joiner.joined())

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        chunk = self.next()
        if chunk is None:
            raise StopIteration
        return chunk

    def close(self) -> None:
        """Stop the request."""
        self._ended = True
        self._stop.set()
        with contextlib.suppress(InUseError):  # the reading thread closes the response
            self.abort()

    def abort(self) -> None:
        """Stop the request; the reading thread gets ClosedError."""
        self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "complete" if self._complete else "closed" if self._ended else "open"
        return f"<Stream of {self._chunk_type.__name__}, {state}>"


class RawResponse:
    """The bytes of a response of upstream's handlers. Closing or dropping it frees the slot."""

    def __init__(self, response: EngineResponse, cancel: Cancel | None) -> None:
        self._response = response
        self._cancel = cancel

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self._response.status

    @property
    def is_stream(self) -> bool:
        """Whether the response consists of server-sent events."""
        return self._response.is_stream

    @property
    def data(self) -> bytes:
        """The whole response, unless it is a stream."""
        return self._response.data

    def raise_for_status(self) -> None:
        """Raise the exception for an error in the response."""
        if self.status != 200:
            raise response_error(json.loads(self.data)["error"])

    def next(self) -> bytes | None:
        """Wait for the next bytes of a stream, which may be empty; return None after the last ones.

        Raises
        ------
        ClosedError
            The model was closed before the response ended.
        EngineError, CancelledError
        """
        return self._response.next(cancel=self._cancel)

    def close(self) -> None:
        """Stop the request."""
        self._response.close()

    abort = close

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ChunkJoiner:
    """Join the chunks of a streamed response to the response that the call without a stream returns."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, chunk: Mapping[str, Any]) -> None:
        """Add the next chunk."""
        for choice in chunk["choices"]:
            self._add_choice(choice)
        self._head.update(chunk)

    def joined(self) -> dict[str, Any]:
        """Return the chunks so far as one response.

        ``usage`` is computed from ``timings`` if the request did not set ``include_usage``.
        """
        head = {**self._head, "object": self._head.get("object", "").removesuffix(".chunk")}
        timings = head.get("timings")
        if timings and "usage" not in head:
            prompt, generated = timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]
            head["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": generated,
                "total_tokens": prompt + generated,
                "prompt_tokens_details": {"cached_tokens": timings["cache_n"]},
            }
        return {**head, "choices": [choice for _, choice in sorted(self._choices.items())]}

    def _add_choice(self, chunk: Mapping[str, Any]) -> None:
        index = chunk["index"]
        choice = self._choices.setdefault(index, {"index": index, "finish_reason": None})
        choice["finish_reason"] = chunk.get("finish_reason") or choice["finish_reason"]
        if "warning" in chunk:
            choice["warning"] = chunk["warning"]
        if chunk.get("logprobs"):
            rows = (choice.get("logprobs") or {"content": []})["content"]
            choice["logprobs"] = {"content": [*rows, *chunk["logprobs"]["content"]]}
        if "text" in chunk:
            choice["text"] = choice.get("text", "") + chunk["text"]
            choice.setdefault("logprobs", None)
        if "tokens" in chunk:
            choice["tokens"] = [*choice.get("tokens", ()), *chunk["tokens"]]
        if "delta" in chunk:
            _add_delta(choice.setdefault("message", {"role": "assistant", "content": ""}), chunk["delta"])


def _add_delta(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
    for name in ("content", "reasoning_content"):
        if delta.get(name):
            message[name] = message.get(name, "") + delta[name]
    for part in delta.get("tool_calls") or ():
        calls = message.setdefault("tool_calls", [])
        if part["index"] == len(calls):
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}, "id": ""})
        call, function = calls[part["index"]], part.get("function", {})
        call["id"] = part.get("id") or call["id"]
        call["function"]["name"] += function.get("name") or ""
        call["function"]["arguments"] += function.get("arguments") or ""


NO_EVENTS = (b"data: [DONE]", b"data: null")  # the latter when another choice begins


class EventParser:
    """Parse server-sent events from data that is split anywhere."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """Return the JSON of the events that are now complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ") and line not in NO_EVENTS]
