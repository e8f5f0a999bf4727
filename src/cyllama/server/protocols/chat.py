"""OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cyllama.server.protocols.call import TextCall

__all__ = ["chat", "chat_options", "count_chat", "render", "stream_chat"]

# Fields of the route that are not options of `LLM.chat`.
OWN = ("messages", "modalities", "model", "stream", "sse_ping_interval")


def chat_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `LLM.chat` for the fields of a request."""
    found = {name: value for name, value in fields.items() if name not in OWN}
    if "thinking_budget_tokens" in found:
        found.setdefault("reasoning_budget_tokens", found.pop("thinking_budget_tokens"))
    if "stream_options" in found:
        found["stream_options"] = {"include_usage": bool(found["stream_options"].get("include_usage"))}
    return found


def chat(call: TextCall) -> None:
    """Generate the next message of a chat."""
    messages, options = call.fields["messages"], chat_options(call.fields)
    if not call.fields.get("stream"):
        found = call.llm.chat(messages, cancel=call.cancel, **options)
        call.send(call.named(found.to_dict()))
        return
    call.expect_events()
    for chunk in stream_chat(call, messages, options):
        call.write(call.named(chunk))
    call.stream.write(b"data: [DONE]\n\n")


def stream_chat(call: TextCall, messages: list[Any], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the chunks of a chat; the response begins with the first one."""
    with call.llm.chat(messages, stream=True, cancel=call.cancel, **options) as chunks:
        call.stream.start_events()
        for chunk in chunks:
            yield chunk.to_dict()


def render(call: TextCall) -> None:
    """Return the prompt that the chat template makes."""
    call.send({"prompt": call.llm.render(call.fields["messages"], **chat_options(call.fields))})


def count_chat(call: TextCall) -> None:
    """Count the tokens of the prompt."""
    count = call.llm.count_tokens(call.fields["messages"], **chat_options(call.fields))
    call.send({"object": "response.input_tokens", "input_tokens": count})
