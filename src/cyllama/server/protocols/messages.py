"""Anthropic's Messages."""

from __future__ import annotations

from starlette.exceptions import HTTPException

from cyllama.server.http.errors import error_body
from cyllama.server.protocols.call import TextCall, event_bytes
from cyllama.server.protocols.chat import stream_chat
from cyllama.server.protocols.message_blocks import chat_messages, chat_options
from cyllama.server.protocols.message_events import MessageEvents
from cyllama.server.protocols.response_events import whole_chunk

__all__ = ["count_message", "message"]

# Anthropic's types of errors, by OpenAI's.
ERROR_TYPES = {"server_error": "api_error", "unavailable_error": "overloaded_error"}


def message(call: TextCall) -> None:
    """Generate the next message."""
    messages, options = chat_messages(call.fields), chat_options(call.fields)
    events = MessageEvents(call.entry.name)
    if not call.fields.get("stream"):
        found = call.llm.chat(messages, cancel=call.cancel, **options).to_dict()
        for _ in (*events.feed(whole_chunk(found)), *events.finish()):
            pass
        call.send(events.message)
        return
    call.stream.format_error = _error_event
    call.expect_events()
    options |= {"stream_options": {"include_usage": True}, "timings_per_token": True}
    begun = False
    for chunk in stream_chat(call, messages, options):
        if not begun and chunk["choices"] and "timings" not in chunk:
            continue  # the role, which precedes the number of tokens
        for event in (*(() if begun else events.start(chunk)), *events.feed(chunk)):
            call.write(event, event["type"])
        begun = True
    for event in events.finish():
        call.write(event, event["type"])


def _error_event(error: HTTPException) -> bytes:
    body = error_body(error)
    data = {"type": ERROR_TYPES.get(body["type"], body["type"]), "message": body["message"]}
    return event_bytes({"type": "error", "error": data}, "error")


def count_message(call: TextCall) -> None:
    """Count the tokens of the prompt."""
    options = chat_options(call.fields)
    call.send({"input_tokens": call.llm.count_tokens(chat_messages(call.fields), **options)})
