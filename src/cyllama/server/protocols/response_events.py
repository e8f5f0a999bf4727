"""OpenAI's Responses: the response object and its events, made from the chunks of a chat."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

__all__ = ["ResponseEvents", "whole_chunk"]

Event = dict[str, Any]


def whole_chunk(response: Mapping[str, Any]) -> dict[str, Any]:
    """Return a whole chat response as one chunk of a stream."""
    choice = response["choices"][0]
    message = choice["message"]
    calls = [{**call, "index": i} for i, call in enumerate(message.get("tool_calls") or ())]
    delta = {**message, "tool_calls": calls}
    return {**response, "choices": [{**choice, "delta": delta}]}


class ResponseEvents:
    """The response, and the events that build it.

    Parameters
    ----------
    fields : mapping
        The fields of the request that the response repeats.
    model : str
    count : callable
        Returns the number of tokens of a text.

    Attributes
    ----------
    response : dict
        The response so far.
    """

    def __init__(self, fields: Mapping[str, Any], model: str, count: Callable[[str], int]) -> None:
        self._number, self._count = 0, count
        self._open: dict[str, Any] | None = None
        self._reason: str | None = None
        self._rows: list[Mapping[str, Any]] = []  # of tokens whose text has not arrived
        self._timings: dict[str, Any] = {}  # of the latest chunk
        text = dict(fields.get("text") or {})
        self.response: dict[str, Any] = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": fields.get("instructions"),
            "max_output_tokens": fields.get("max_output_tokens"),
            "metadata": fields.get("metadata") or {},
            "model": model,
            "output": [],
            "parallel_tool_calls": fields.get("parallel_tool_calls", True),
            "previous_response_id": fields.get("previous_response_id"),
            "reasoning": {"effort": None, "summary": None} | dict(fields.get("reasoning") or {}),
            "store": fields.get("store", True),
            "temperature": fields.get("temperature"),
            "text": {**text, "format": text.get("format") or {"type": "text"}},
            "tool_choice": fields.get("tool_choice", "auto"),
            "tools": fields.get("tools") or [],
            "top_logprobs": fields.get("top_logprobs", 0),
            "top_p": fields.get("top_p"),
            "truncation": "disabled",
            "usage": None,
        }

    def start(self) -> Iterator[Event]:
        """Yield the first events."""
        for kind in ("response.created", "response.in_progress"):
            yield self._event(kind, response=self._copy())

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Yield the events for a chunk."""
        if chunk.get("usage"):
            self._set_usage(chunk["usage"])
        if "prompt_progress" in chunk:
            yield self._event("response.in_progress", response=self._copy(), prompt_progress=chunk["prompt_progress"])
        self._timings = {"timings": chunk["timings"]} if chunk.get("timings") else self._timings
        for choice in chunk["choices"]:
            delta = choice.get("delta") or {}
            self._rows += (choice.get("logprobs") or {}).get("content") or ()
            if delta.get("reasoning_content"):
                yield from self._add_text("reasoning", "reasoning_text", delta["reasoning_content"], [])
            if delta.get("content"):
                yield from self._add_text("message", "output_text", delta["content"], self._rows)
            for call in delta.get("tool_calls") or ():
                yield from self._add_call(call)
            if any(delta.values()):
                self._rows = []
            self._reason = choice.get("finish_reason") or self._reason
            if "warning" in choice:
                self.response["warning"] = choice["warning"]

    def finish(self) -> Iterator[Event]:
        """Yield the last events; the response is complete."""
        cut = self._reason == "length"
        yield from self._close("incomplete" if cut else "completed")
        response = self.response
        response["status"] = "incomplete" if cut else "completed"
        response["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        response["completed_at"] = int(time.time())
        texts = [part["text"] for item in response["output"] if item["type"] == "reasoning" for part in item["content"]]
        if response["usage"] is not None and texts:
            details = response["usage"]["output_tokens_details"]
            details["reasoning_tokens"] = min(sum(map(self._count, texts)), response["usage"]["output_tokens"])
        yield self._event(f"response.{response['status']}", response=self._copy(), **self._timings)

    def _event(self, kind: str, **data: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **data}
        self._number += 1
        return event

    def _copy(self) -> dict[str, Any]:
        return {**self.response, "output": [dict(item) for item in self.response["output"]]}

    def _place(self) -> dict[str, Any]:
        assert self._open is not None
        return {"item_id": self._open["id"], "output_index": len(self.response["output"]) - 1}

    def _begin(self, item: dict[str, Any]) -> Iterator[Event]:
        yield from self._close("completed")
        self.response["output"].append(item)
        self._open = item
        yield self._event("response.output_item.added", output_index=len(self.response["output"]) - 1, item=dict(item))

    def _add_text(self, kind: str, part_kind: str, text: str, rows: list[Mapping[str, Any]]) -> Iterator[Event]:
        is_message = kind == "message"
        if self._open is None or self._open["type"] != kind:
            yield from self._begin(_new_item(kind))
            part: dict[str, Any] = {"type": part_kind, "text": ""}
            part |= {"annotations": [], "logprobs": []} if is_message else {}
            self._open["content"].append(part)  # type: ignore[index]
            yield self._event("response.content_part.added", **self._place(), content_index=0, part=dict(part))
        assert self._open is not None
        part = self._open["content"][0]
        part["text"] += text
        more: dict[str, Any] = dict(self._timings)
        if is_message:
            more["logprobs"] = [_logprob(row) for row in rows]
            part["logprobs"] = part["logprobs"] + more["logprobs"]
        yield self._event(f"response.{part_kind}.delta", **self._place(), content_index=0, delta=text, **more)

    def _add_call(self, call: Mapping[str, Any]) -> Iterator[Event]:
        function = call.get("function") or {}
        if call.get("id") or self._open is None or self._open["type"] != "function_call":
            item = {"type": "function_call", "id": f"fc_{uuid.uuid4().hex}", "status": "in_progress", "arguments": ""}
            yield from self._begin({**item, "call_id": call.get("id"), "name": function.get("name", "")})
        assert self._open is not None
        if arguments := function.get("arguments"):
            self._open["arguments"] += arguments
            yield self._event("response.function_call_arguments.delta", **self._place(), delta=arguments)

    def _close(self, status: str) -> Iterator[Event]:
        """Yield the events that end the open item."""
        item = self._open
        if item is None:
            return
        item["status"] = status
        place = self._place()
        if item["type"] == "function_call":
            done = {"arguments": item["arguments"], "name": item["name"]}
            yield self._event("response.function_call_arguments.done", **place, **done)
        else:
            part = item["content"][0]
            more = {"logprobs": part["logprobs"]} if item["type"] == "message" else {}
            yield self._event(f"response.{part['type']}.done", **place, content_index=0, text=part["text"], **more)
            yield self._event("response.content_part.done", **place, content_index=0, part=dict(part))
        yield self._event("response.output_item.done", output_index=place["output_index"], item=dict(item))
        self._open = None

    def _set_usage(self, usage: Mapping[str, Any]) -> None:
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        self.response["usage"] = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": cached},
            "output_tokens": usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["total_tokens"],
        }


def _new_item(kind: str) -> dict[str, Any]:
    if kind == "reasoning":
        return {"type": kind, "id": f"rs_{uuid.uuid4().hex}", "status": "in_progress", "summary": [], "content": []}
    return {"type": kind, "id": f"msg_{uuid.uuid4().hex}", "status": "in_progress", "role": "assistant", "content": []}


def _logprob(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("token", "bytes", "logprob")
    tops = [{name: top[name] for name in names} for top in row.get("top_logprobs", ())]
    return {**{name: row.get(name) for name in names}, "top_logprobs": tops}
