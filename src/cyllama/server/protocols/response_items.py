"""OpenAI's Responses: the input items of a request as the messages of a chat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cyllama.server.http.errors import http_error

__all__ = ["chat_options", "input_messages"]

ROLES = ("user", "assistant", "system", "developer")
TEXT_PARTS = ("input_text", "output_text", "text", "reasoning_text", "summary_text")
MEDIA_PARTS = ("input_image", "input_audio", "image_url")
OWN = ("background", "include", "input", "instructions", "max_output_tokens", "metadata", "model",
       "previous_response_id", "reasoning", "sse_ping_interval", "store", "stream", "stream_options", "text",
       "tool_choice", "tools", "top_logprobs", "truncation")  # fmt: skip


def chat_options(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `LLM.chat` for the fields of a request."""
    found = {name: value for name, value in fields.items() if name not in OWN}
    if "max_output_tokens" in fields:
        found["max_tokens"] = fields["max_output_tokens"]
    if fields.get("tools"):
        names = ("name", "description", "parameters", "strict")
        functions = [{name: tool[name] for name in names if tool.get(name) is not None} for tool in fields["tools"]]
        found["tools"] = [{"type": "function", "function": function} for function in functions]
    if "tool_choice" in fields:
        found["tool_choice"] = _tool_choice(fields["tool_choice"])
    form = (fields.get("text") or {}).get("format")
    if form:
        if form["type"] == "json_schema" and "schema" not in form:
            raise http_error(400, "text.format.schema is missing", param="text.format.schema")
        found["response_format"] = {key: form[key] for key in ("type", "schema") if key in form}
    effort = (fields.get("reasoning") or {}).get("effort")
    if effort:
        found["reasoning_effort"] = effort
    if "top_logprobs" in fields or "message.output_text.logprobs" in fields.get("include", ()):
        found |= {"logprobs": True, "top_logprobs": fields.get("top_logprobs", 1)}
    return found


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if choice["type"] == "function":
        return {"type": "function", "function": {"name": choice["name"]}}
    tools = [{"type": "function", "function": {"name": tool["name"]}} for tool in choice["tools"]]
    return {"type": "allowed_tools", "allowed_tools": {"mode": choice["mode"], "tools": tools}}


def input_messages(given: str | Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the input of a request as messages of a chat.

    Reasoning, text and calls that follow each other become one message of the assistant.

    Raises
    ------
    HTTPException
        400 if an item is of an unknown or unsupported type; `param` names it.
    """
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    found: list[dict[str, Any]] = []
    for i, item in enumerate(given):
        place = f"input[{i}]"
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind not in ITEMS:
            expected = ", ".join(sorted(ITEMS))
            raise http_error(400, f"{place}.type is {kind!r:.100}, expected one of {expected}", param=f"{place}.type")
        ITEMS[kind](found, item, place)
    return found


def _message(found: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    role = item.get("role")
    if role not in ROLES:
        raise _wrong(f"{place}.role", role, f"one of {', '.join(ROLES)}")
    content = _content(item.get("content"), f"{place}.content")
    if role != "assistant":
        found.append({"role": role, "content": content})
        return
    message = _assistant(found, "content", "tool_calls")
    message["content"] = content


def _content(content: Any, place: str) -> Any:
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise _wrong(place, content, "a string or a list of parts")
    parts = [_part(part, f"{place}[{i}]") for i, part in enumerate(content)]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Any, place: str) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in TEXT_PARTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return {"type": "text", "text": part["refusal"]}
    if kind in MEDIA_PARTS and part.get("file_id") is None:
        return dict(part)
    raise _wrong(place, part, f"a part of the types {', '.join((*TEXT_PARTS[:2], 'refusal', *MEDIA_PARTS[:2]))}")


def _reasoning(found: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    parts = [*(item.get("content") or ()), *(item.get("summary") or ())] if not item.get("content") else item["content"]
    texts = [_part(part, place)["text"] for part in parts]
    if texts:
        _assistant(found, "content", "tool_calls", "reasoning_content")["reasoning_content"] = "\n".join(texts)


def _call(found: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    name, identifier = item.get("name"), item.get("call_id") or item.get("id")
    if not isinstance(name, str) or not isinstance(identifier, str):
        raise _wrong(place, item, "a function_call with name and call_id")
    function = {"name": name, "arguments": item.get("arguments") or "{}"}
    calls = _assistant(found).setdefault("tool_calls", [])
    calls.append({"type": "function", "id": identifier, "function": function})


def _output(found: list[dict[str, Any]], item: Mapping[str, Any], place: str) -> None:
    if not isinstance(item.get("call_id"), str):
        raise _wrong(f"{place}.call_id", item.get("call_id"), "a string")
    content = _content(item.get("output"), f"{place}.output")
    found.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})


def _assistant(found: list[dict[str, Any]], *without: str) -> dict[str, Any]:
    """Return the last message if it is the assistant's and has none of these fields, else a new one."""
    last = found[-1] if found else {}
    if last.get("role") != "assistant" or any(last.get(name) for name in without):
        found.append({"role": "assistant", "content": ""})
    return found[-1]


ITEMS = {
    "message": _message,
    "reasoning": _reasoning,
    "function_call": _call,
    "function_call_output": _output,
}


def _wrong(place: str, value: object, expected: str) -> Exception:
    return http_error(400, f"{place} is {value!r:.200}, expected {expected}", param=place)
