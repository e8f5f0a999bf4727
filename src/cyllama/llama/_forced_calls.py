"""Forced tool calls for every chat template: a grammar of calls as JSON, and the calls that the text then is.

Upstream enforces a required call with the templates whose form of calls it knows, and only after text that it does not
bound with others. Here the text is a JSON list of calls from the first token on, and becomes calls afterwards.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from cyllama.llama._common import json_schema_to_grammar

__all__ = ["CallForm", "Form", "TextForm", "force_calls"]

MAX_CALLS = 16
MAX_PREFIX = 1_000  # characters of a template's own text
JSON_START = re.compile(r'[\[{"\-\dtfn]')
DEFINITIONS = ("$defs", "definitions")


def force_calls(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a chat request with required tools as one whose text is a list of calls.

    Parameters
    ----------
    body : mapping
        With ``tools`` and ``tool_choice`` "required".
    """
    most = MAX_CALLS if body.get("parallel_tool_calls", False) else 1
    definitions: dict[str, Any] = {}
    calls = [_call_schema(i, tool["function"], definitions) for i, tool in enumerate(body["tools"])]
    schema = {"type": "array", "items": {"anyOf": calls}, "minItems": 1, "maxItems": most, "$defs": definitions}
    return {**body, "tool_choice": "none", "grammar": json_schema_to_grammar(schema)}


def _call_schema(i: int, function: Mapping[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a call; add the definitions of its parameters with names of their own."""
    parameters = dict(function.get("parameters") or {"type": "object"})
    for key in DEFINITIONS:
        for name, part in parameters.pop(key, {}).items():
            definitions[f"{i}.{name}"] = _renamed(part, i)
    properties = {"name": {"const": function["name"]}, "arguments": _renamed(parameters, i)}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _renamed(schema: Any, i: int) -> Any:
    """Return a schema whose references are to the definitions of tool `i`."""
    if isinstance(schema, Mapping):
        found = {key: _renamed(value, i) for key, value in schema.items()}
        if isinstance(found.get("$ref"), str):
            for key in DEFINITIONS:
                found["$ref"] = found["$ref"].replace(f"#/{key}/", f"#/$defs/{i}.")
        return found
    return [_renamed(item, i) for item in schema] if isinstance(schema, list | tuple) else schema


class Form(Protocol):
    """The form of a text that a grammar of ours enforces, and its place in a response."""

    def read(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return a choice whose text has the form."""
        ...

    def convert(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks for a chunk of such a choice."""
        ...


class TextForm:
    """JSON, which a template's parser may take for reasoning, after text of the template's own."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}  # of the choices of a stream

    def read(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return a choice with the text as its content."""
        message = {name: value for name, value in choice["message"].items() if name != "reasoning_content"}
        message["content"] = _json_text(_text(choice["message"]))
        return {name: value for name, value in choice.items() if name != "warning"} | {"message": message}

    def convert(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks for a chunk: what arrives as reasoning becomes content at the end."""
        found = [chunk]
        for choice in chunk.get("choices", ()):
            index, delta = choice["index"], choice.get("delta") or {}
            self._texts[index] = self._texts.get(index, "") + (delta.pop("reasoning_content", None) or "")
            choice.pop("warning", None)  # the template has no form for this text
            if choice.get("finish_reason") and self._texts[index]:
                delta = {"content": _json_text(self._texts.pop(index))}
                found = [{**chunk, "choices": [{**choice, "finish_reason": None, "delta": delta}]}, chunk]
        return [part for part in found if not _is_empty(part)]


class CallForm:
    """A text that is a list of calls."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}  # of the choices of a stream

    def read(self, choice: Mapping[str, Any]) -> dict[str, Any]:
        """Return a choice with the calls; a text that was cut off stays text."""
        found = TextForm().read(choice)
        if choice["finish_reason"] != "stop":
            return found
        calls = [_call(i, call) for i, call in enumerate(json.loads(found["message"]["content"]))]
        calls = [{name: value for name, value in call.items() if name != "index"} for call in calls]
        return {
            **found,
            "finish_reason": "tool_calls",
            "message": {**found["message"], "content": None, "tool_calls": calls},
        }

    def convert(self, chunk: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the chunks for a chunk of text: each choice gets its calls at its end."""
        found: Sequence[dict[str, Any]] = [chunk]
        for choice in chunk.get("choices", ()):
            index, delta = choice["index"], choice.get("delta") or {}
            self._texts[index] = self._texts.get(index, "") + _text(delta)
            for name in ("content", "reasoning_content"):
                delta.pop(name, None)
            if choice.get("finish_reason"):
                found = [{**chunk, "choices": [{**choice, "finish_reason": None, "delta": self._end(choice)}]}, chunk]
        return [part for part in found if not _is_empty(part)]

    def _end(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return the delta with all calls, or with the text that was cut off."""
        text = _json_text(self._texts.pop(choice["index"]))
        if choice["finish_reason"] != "stop":
            return {"content": text}
        choice["finish_reason"] = "tool_calls"
        choice.pop("warning", None)
        return {"tool_calls": [_call(i, call) for i, call in enumerate(json.loads(text))]}


def _text(message: Mapping[str, Any]) -> str:
    return (message.get("reasoning_content") or "") + (message.get("content") or "")


def _json_text(text: str) -> str:
    """Return the JSON at the end of a text; of one that was cut off, what begins with the first bracket."""
    starts = [found.start() for found in JSON_START.finditer(text, 0, MAX_PREFIX)]
    for start in starts:
        try:
            json.loads(text[start:])
        except ValueError:
            continue
        return text[start:]
    brackets = [start for start in starts if text[start] in "[{"]
    return text[brackets[0] :] if brackets else text


def _call(i: int, call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call["name"], "arguments": json.dumps(call["arguments"], ensure_ascii=False)}
    return {"index": i, "id": f"call_{uuid.uuid4().hex}", "type": "function", "function": function}


def _is_empty(chunk: Mapping[str, Any]) -> bool:
    """Return whether a chunk has nothing left."""
    choices = chunk.get("choices") or ()
    if not choices or any(name in chunk for name in ("timings", "usage", "prompt_progress")):
        return False
    return not any(c.get("delta") or c.get("finish_reason") or c.get("logprobs") for c in choices)
