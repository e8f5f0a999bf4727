"""Anthropic's Messages: the message and its events, made from the chunks of a chat."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["MessageEvents"]

Event = dict[str, Any]
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class MessageEvents:
    """The message, and the events that build it.

    Parameters
    ----------
    model : str

    Attributes
    ----------
    message : dict
        The message so far.
    """

    def __init__(self, model: str) -> None:
        self._arguments = ""  # of the open tool call
        self._is_open = False
        self._stop: dict[str, Any] = {"stop_reason": None, "stop_sequence": None}
        self.message: dict[str, Any] = {
            "id": f"msg_{uuid.uuid4().hex}",
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": [],
            **self._stop,
            "usage": _usage(0, 0, 0),
        }

    def start(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the first event, for the first chunk."""
        timings = chunk.get("timings")
        if timings:
            self.message["usage"] = _usage(timings["prompt_n"] + timings["cache_n"], timings["cache_n"], 1)
        yield {"type": "message_start", "message": {**self.message, "content": []}}

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the events for a chunk."""
        usage, ended = chunk.get("usage"), chunk.get("__verbose") or {}
        if usage:
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
            self.message["usage"] = _usage(usage["prompt_tokens"], cached, usage["completion_tokens"])
        if ended.get("stop_type") == "word":
            self._stop["stop_sequence"] = ended["stopping_word"]
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            if delta.get("reasoning_content"):
                yield from self._add_text("thinking", delta["reasoning_content"])
            if delta.get("content"):
                yield from self._add_text("text", delta["content"])
            for call in delta.get("tool_calls") or ():
                yield from self._add_call(call)
            if choice.get("finish_reason"):
                self._stop["stop_reason"] = STOP_REASONS.get(choice["finish_reason"], "end_turn")
            if "warning" in choice:
                self._stop["warning"] = choice["warning"]

    def finish(self) -> Iterator[Event]:
        """Yield the last events; the message is complete."""
        yield from self._close()
        if self._stop["stop_sequence"] is not None and self._stop["stop_reason"] == "end_turn":
            self._stop["stop_reason"] = "stop_sequence"
        self.message |= self._stop
        yield {"type": "message_delta", "delta": dict(self._stop), "usage": self.message["usage"]}
        yield {"type": "message_stop"}

    def _begin(self, block: dict[str, Any]) -> Iterator[Event]:
        yield from self._close()
        self.message["content"].append(block)
        self._is_open = True
        yield {"type": "content_block_start", "index": len(self.message["content"]) - 1, "content_block": dict(block)}

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": len(self.message["content"]) - 1, "delta": delta}

    def _add_text(self, kind: str, text: str) -> Iterator[Event]:
        content = self.message["content"]
        if not self._is_open or content[-1]["type"] != kind:
            yield from self._begin({"type": kind, kind: "", **({"signature": ""} if kind == "thinking" else {})})
        content[-1][kind] += text
        yield self._delta({"type": f"{kind}_delta", kind: text})

    def _add_call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if call.get("id"):
            yield from self._begin(
                {"type": "tool_use", "id": call["id"], "name": function.get("name", ""), "input": {}}
            )
        if arguments := function.get("arguments"):
            self._arguments += arguments
            yield self._delta({"type": "input_json_delta", "partial_json": arguments})

    def _close(self) -> Iterator[Event]:
        """Yield the events that end the open block."""
        if not self._is_open:
            return
        index, block = len(self.message["content"]) - 1, self.message["content"][-1]
        if block["type"] == "thinking":
            yield self._delta({"type": "signature_delta", "signature": ""})
        if block["type"] == "tool_use":
            self._set_input(block)
        self._is_open, self._arguments = False, ""
        yield {"type": "content_block_stop", "index": index}

    def _set_input(self, block: dict[str, Any]) -> None:
        """Set the arguments of a call; those that were cut off become a text."""
        try:
            block["input"] = json.loads(self._arguments or "{}")
        except ValueError:
            self.message["content"][-1] = {"type": "text", "text": f"{block['name']}({self._arguments}"}


def _usage(prompt: int, cached: int, generated: int) -> dict[str, int]:
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generated,
    }
