"""Anthropic's Messages: the content blocks of a request as the messages of a chat."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from cyllama.server.http.errors import http_error

__all__ = ["chat_messages", "chat_options"]

DEFAULT_MAX_TOKENS = 4096
OWN = ("max_tokens", "messages", "model", "output_config", "output_format", "stop_sequences", "stream", "system",
       "thinking", "tool_choice", "tools", "sse_ping_interval")  # fmt: skip
CHOICES = {"auto": "auto", "any": "required", "none": "none"}
# A header of a client that changes with each request and would make the prompt cache useless.
BILLING = re.compile(r"^(x-anthropic-billing-header:[^\n]*?cch=)[0-9a-f]{5};")


def chat_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `LLM.chat` for the fields of a request."""
    found = {name: value for name, value in fields.items() if name not in OWN}
    found["max_tokens"] = fields.get("max_tokens", DEFAULT_MAX_TOKENS)
    if "stop_sequences" in fields:
        found |= {"stop": fields["stop_sequences"], "verbose": True}  # it tells which one ended the text
    if "tools" in fields:
        found["tools"] = [_tool(tool) for tool in fields["tools"]]
    choice = fields.get("tool_choice")
    if choice:
        found["tool_choice"] = CHOICES.get(choice["type"]) or _named(choice)
        if "disable_parallel_tool_use" in choice:
            found["parallel_tool_calls"] = not choice["disable_parallel_tool_use"]
    output = fields.get("output_config") or {}
    form = output.get("format") or fields.get("output_format")
    if form:
        found["response_format"] = {"type": "json_schema", "schema": form["schema"]}
    if output.get("effort"):
        found["reasoning_effort"] = output["effort"]
    _set_thinking(found, fields.get("thinking"))
    return found


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": tool["name"], "parameters": tool["input_schema"]}
    if tool.get("description"):
        function["description"] = tool["description"]
    return {"type": "function", "function": function}


def _named(choice: Mapping[str, Any]) -> dict[str, Any]:
    if not choice.get("name"):
        raise http_error(400, "tool_choice.name is missing", param="tool_choice.name")
    return {"type": "function", "function": {"name": choice["name"]}}


def _set_thinking(options: dict[str, Any], thinking: Mapping[str, Any] | None) -> None:
    if thinking is None or thinking["type"] == "adaptive":
        return
    enabled = thinking["type"] == "enabled"
    options["chat_template_kwargs"] = {"enable_thinking": enabled} | options.get("chat_template_kwargs", {})
    if enabled and "budget_tokens" in thinking:
        options["reasoning_budget_tokens"] = thinking["budget_tokens"]


def chat_messages(fields: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a chat for a request.

    Raises
    ------
    HTTPException
        400 if a block is of an unknown or unsupported type; `param` names it.
    """
    found: list[dict[str, Any]] = []
    system = fields.get("system")
    if system:
        blocks = [{"type": "text", "text": system}] if isinstance(system, str) else system
        texts = [_text(block, f"system[{i}]") for i, block in enumerate(blocks)]
        found.append({"role": "system", "content": "".join(BILLING.sub(r"\g<1>fffff;", text) for text in texts)})
    for i, message in enumerate(fields["messages"]):
        content = message["content"]
        if isinstance(content, str):
            found.append({"role": message["role"], "content": content})
        elif message["role"] == "assistant":
            found.append(_assistant(content, f"messages[{i}].content"))
        else:
            found += _user(message["role"], content, f"messages[{i}].content")
    return found


def _text(block: Mapping[str, Any], place: str) -> str:
    if block.get("type") != "text" or not isinstance(block.get("text"), str):
        raise _wrong(place, block, "a block of the type text")
    return str(block["text"])


def _assistant(blocks: list[Mapping[str, Any]], place: str) -> dict[str, Any]:
    text, reasoning, calls = "", "", []
    for i, block in enumerate(blocks):
        kind = block["type"]
        if kind == "text":
            text += _text(block, f"{place}[{i}]")
        elif kind == "thinking":
            reasoning += str(block.get("thinking") or "")
        elif kind == "tool_use":
            function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind != "redacted_thinking":  # its content is unknown
            raise _wrong(f"{place}[{i}]", block, "a block of the types text, thinking or tool_use")
    found: dict[str, Any] = {"role": "assistant", "content": text}
    found |= {"reasoning_content": reasoning} if reasoning else {}
    return found | ({"tool_calls": calls} if calls else {})


def _user(role: str, blocks: list[Mapping[str, Any]], place: str) -> list[dict[str, Any]]:
    """Return the messages for a user's blocks: the results of tools come first."""
    results, parts = [], []
    for i, block in enumerate(blocks):
        where = f"{place}[{i}]"
        if block["type"] == "tool_result":
            results.append(_result(block, where))
        else:
            parts.append(_part(block, where))
    if not parts:
        return results
    texts = [part["text"] for part in parts if part["type"] == "text"]
    return [*results, {"role": role, "content": "\n".join(texts) if len(texts) == len(parts) else parts}]


def _part(block: Any, place: str) -> dict[str, Any]:
    kind = block.get("type") if isinstance(block, Mapping) else None
    if kind == "text":
        return {"type": "text", "text": _text(block, place)}
    if kind == "image" and isinstance(block.get("source"), Mapping):
        return {"type": "image", "source": block["source"]}
    raise _wrong(place, block, "a block of the types text, image or tool_result")


def _result(block: Mapping[str, Any], place: str) -> dict[str, Any]:
    content = block.get("content") or ""
    if isinstance(content, list):
        parts = [_part(part, f"{place}.content[{i}]") for i, part in enumerate(content)]
        is_text = all(part["type"] == "text" for part in parts)
        content = "".join(part["text"] for part in parts) if is_text else parts
    if not isinstance(block.get("tool_use_id"), str):
        raise _wrong(f"{place}.tool_use_id", block.get("tool_use_id"), "a string")
    if block.get("is_error") and isinstance(content, str):
        content = f"Error: {content}"
    return {"role": "tool", "tool_call_id": block["tool_use_id"], "content": content}


def _wrong(place: str, value: object, expected: str) -> Exception:
    return http_error(400, f"{place} is {value!r:.200}, expected {expected}", param=place)
