"""The whole of an answer that came in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Gathered"]


class Gathered:
    """Takes the parts of a streamed answer, and makes of them what the call without a stream would have given."""

    def __init__(self) -> None:
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def add(self, part: Mapping[str, Any]) -> None:
        """Take the next part."""
        for choice in part["choices"]:
            self._add_choice(choice)
        self._head.update(part)

    def whole(self) -> dict[str, Any]:
        """What came until now, as one answer.

        ``usage`` is counted from ``timings`` where the request did not ask for it.
        """
        head = {**self._head, "object": self._head.get("object", "").removesuffix(".chunk")}
        timings = head.get("timings")
        if timings and "usage" not in head:
            read, made = timings["cache_n"] + timings["prompt_n"], timings["predicted_n"]
            head["usage"] = {"prompt_tokens": read, "completion_tokens": made, "total_tokens": read + made}
            head["usage"]["prompt_tokens_details"] = {"cached_tokens": timings["cache_n"]}
        return {**head, "choices": [choice for _, choice in sorted(self._choices.items())]}

    def _add_choice(self, part: Mapping[str, Any]) -> None:
        index = part["index"]
        choice = self._choices.setdefault(index, {"index": index, "finish_reason": None})
        choice["finish_reason"] = part.get("finish_reason") or choice["finish_reason"]
        if part.get("logprobs"):
            choice.setdefault("logprobs", {"content": []})["content"] += part["logprobs"]["content"]
        if "text" in part:
            choice["text"] = choice.get("text", "") + part["text"]
        if "delta" in part:
            _add_message(choice.setdefault("message", {"role": "assistant", "content": ""}), part["delta"])


def _add_message(message: dict[str, Any], delta: Mapping[str, Any]) -> None:
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
