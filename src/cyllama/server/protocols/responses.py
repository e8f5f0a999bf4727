"""OpenAI's Responses: creating them, streaming them, and keeping them for the next request."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from cyllama.server.http.errors import error_body, http_error
from cyllama.server.protocols.call import TextCall, event_bytes
from cyllama.server.protocols.chat import stream_chat
from cyllama.server.protocols.response_events import ResponseEvents, whole_chunk
from cyllama.server.protocols.response_items import chat_options, input_messages

__all__ = ["ResponseStore", "count_input", "respond"]

MAX_RESPONSES, MAX_BYTES = 256, 16 << 20


class ResponseStore:
    """The conversations of the latest responses, in memory: at most 256, and 16 MiB of text."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, tuple[list[dict[str, Any]], int]] = OrderedDict()
        self._size = 0

    def add(self, name: str, messages: list[dict[str, Any]]) -> None:
        """Keep a conversation; drop the oldest ones beyond the limits."""
        size = len(json.dumps(messages, default=lambda value: "x" * len(value)))
        with self._lock:
            self._kept[name] = messages, size
            self._size += size
            while self._kept and (len(self._kept) > MAX_RESPONSES or self._size > MAX_BYTES):
                _, (_, dropped) = self._kept.popitem(last=False)
                self._size -= dropped

    def get(self, name: str) -> list[dict[str, Any]]:
        """Return the messages of a conversation.

        Raises
        ------
        HTTPException
            404 if the response is not kept.
        """
        with self._lock:
            if name in self._kept:
                return self._kept[name][0]
        message = f"previous_response_id is {name!r:.100}, which is not kept: responses with store=false, and all but "
        message += "the latest ones, are dropped; send the whole input"
        raise http_error(404, message, param="previous_response_id", code="previous_response_not_found")


def conversation(store: ResponseStore, fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a request, without the instructions."""
    before = store.get(fields["previous_response_id"]) if "previous_response_id" in fields else []
    return [*before, *input_messages(fields["input"])]


def with_instructions(fields: Mapping[str, Any], messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the messages after the instructions."""
    text = fields.get("instructions")
    return [{"role": "system", "content": text}, *messages] if text else messages


def respond(store: ResponseStore, call: TextCall) -> None:
    """Generate a response."""
    fields = call.fields
    messages = conversation(store, fields)
    sent, options = with_instructions(fields, messages), chat_options(fields)
    events = ResponseEvents(fields, call.entry.name, lambda text: len(call.llm.tokenize(text)))
    if not fields.get("stream"):
        found = call.llm.chat(sent, cancel=call.cancel, **options)
        for _ in (*events.start(), *events.feed(whole_chunk(found.to_dict())), *events.finish()):
            pass
        _keep(store, events.response, messages)
        call.send(events.response)
        return
    call.stream.format_error = _error_event
    call.expect_events()
    begun = False
    for chunk in stream_chat(call, sent, {**options, "stream_options": {"include_usage": True}}):
        for event in (*(() if begun else events.start()), *events.feed(chunk)):
            call.write(event, event["type"])
        begun = True
    for event in events.finish():
        if event["type"] in ("response.completed", "response.incomplete"):
            _keep(store, events.response, messages)
        call.write(event, event["type"])


def _keep(store: ResponseStore, response: Mapping[str, Any], messages: list[dict[str, Any]]) -> None:
    if response["store"]:
        output = [item for item in response["output"] if item["status"] == "completed" or item["type"] == "message"]
        store.add(response["id"], [*messages, *input_messages(output)])


def _error_event(error: HTTPException) -> bytes:
    body = error_body(error)
    data = {"type": "error", "code": str(body["code"]), "message": body["message"], "param": body["param"]}
    return event_bytes({**data, "sequence_number": 0, "error": body}, "error")


def count_input(store: ResponseStore, call: TextCall) -> None:
    """Count the tokens of the input."""
    messages = with_instructions(call.fields, conversation(store, call.fields))
    count = call.llm.count_tokens(messages, **chat_options(call.fields))
    call.send({"object": "response.input_tokens", "input_tokens": count})
