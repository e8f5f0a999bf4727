"""The body of a chat request: messages, tools, response format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cyllama._cancel import Cancel
from cyllama._json_check import check_value
from cyllama.llama._json_schema import as_type, for_grammar, schema_of
from cyllama.llama._media import MediaInput
from cyllama.llama._message_types import Messages
from cyllama.llama._special_tokens import ControlTexts
from cyllama.llama.tools import tool_dicts

__all__ = ["CHAT_FIELDS", "chat_body", "encode_body", "message_list", "parse_choices", "read_json"]

# Fields of chats that upstream reads before its schema.
CHAT_FIELDS = (
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "response_format",
    "chat_template_kwargs",
    "add_generation_prompt",
    "parse_special",
    "top_logprobs",
    "reasoning_effort",
    "model",
    "user",
    "id_slot",
)
ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def message_list(messages: Messages) -> list[dict[str, Any]]:
    """Return messages in upstream's form; a string is one message of the user.

    Raises
    ------
    TypeError, ValueError
        A message has no role, or an unknown one.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping | bytes | bytearray) or not isinstance(messages, Sequence):
        raise TypeError(f"messages is {messages!r}, expected a string or a list of messages")
    if not messages:
        raise ValueError("messages is empty, expected at least one")
    return [_message(message, i) for i, message in enumerate(messages)]


def _message(message: Any, i: int) -> dict[str, Any]:
    for method in ("model_dump", "to_dict"):  # the types of the package openai, and Record
        if hasattr(message, method):
            message = getattr(message, method)()
            break
    if not isinstance(message, Mapping):
        raise TypeError(f"messages[{i}] is {message!r}, expected a mapping with role and content")
    role = message.get("role")
    if role not in ROLES:
        raise ValueError(f"messages[{i}] has the role {role!r}, expected one of {', '.join(ROLES)}")
    found = {name: value for name, value in message.items() if value is not None or name == "content"}
    if found.get("tool_calls"):
        found["tool_calls"] = [
            _call(call, f"messages[{i}].tool_calls[{j}]") for j, call in enumerate(found["tool_calls"])
        ]
    return found


def _call(call: Any, name: str) -> dict[str, Any]:
    """Return a tool call of the history in upstream's form: it rejects nulls and empty arguments.

    Raises
    ------
    ValueError
    """
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise ValueError(f"{name} is {call!r:.200}, expected a mapping with a function that has a name")
    arguments = function.get("arguments") or {}
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    found = {name: value for name, value in call.items() if value is not None}
    return {**found, "type": "function", "function": {"name": function["name"], "arguments": text}}


def chat_body(
    messages: Messages,
    fields: Mapping[str, Any],
    control: ControlTexts,
    media: MediaInput,
    cancel: Cancel | None = None,
) -> dict[str, Any]:
    """Return the body of a chat request.

    Parameters
    ----------
    messages : str or sequence
    fields : mapping
        ``images`` and ``audio`` are for the last message; ``tools`` may contain functions; ``tool_choice`` may be one
        of them or its name; ``response_format`` may be a pydantic model, another type, a JSON schema, or OpenAI's
        form; with ``parse_special``, control tokens in messages are parsed.
    control : ControlTexts
        The model's control tokens.
    media : MediaInput
        The model's media.
    cancel : Cancel, optional
        Stops a download.
    """
    given = media.attached(message_list(messages), fields.get("images"), fields.get("audio"))
    body = {"messages": media.for_upstream(given, cancel=cancel)}
    body |= {name: value for name, value in fields.items() if name not in ("images", "audio")}
    if not body.pop("parse_special", False):
        body["messages"] = control.plain_messages(body["messages"])
    if "tools" in fields:
        body["tools"] = for_grammar(tool_dicts([_without_nulls(tool) for tool in fields["tools"]]))
    if "tool_choice" in fields:
        _choose_tool(body, fields["tool_choice"])
    if "response_format" in fields:
        _constrain(body, body.pop("response_format"))
    return body


def _constrain(body: dict[str, Any], form: Any) -> None:
    """Set the schema of the text.

    As `response_format`, upstream ignores it with the templates whose parsers have no schemas.

    Raises
    ------
    ValueError
        The format has no schema, or another field constrains the text too.
    """
    for name in ("json_schema", "grammar"):
        if body.get(name):
            raise ValueError(f"response_format and {name} exclude each other")
    schema = format_schema(form)
    if schema is not None:
        body["json_schema"] = for_grammar(schema)


def _without_nulls(tool: Any) -> Any:
    """Return a tool without the fields that clients set to null."""
    if not isinstance(tool, Mapping) or not isinstance(tool.get("function"), Mapping):
        return tool
    return {**tool, "function": {name: value for name, value in tool["function"].items() if value is not None}}


def _choose_tool(body: dict[str, Any], choice: Any) -> None:
    """Choose some of the tools, which upstream does not support: make them the only ones.

    Raises
    ------
    ValueError
        There is no such tool.
    """
    if choice == "required" and not body.get("tools"):
        raise ValueError("tool_choice is 'required', but there are no tools")
    if choice in ("auto", "none", "required"):
        return
    if isinstance(choice, Mapping) and isinstance(choice.get("allowed_tools"), Mapping):
        allowed = choice["allowed_tools"]
        body["tools"] = [_chosen(body, tool) for tool in allowed.get("tools", ())]
        body["tool_choice"] = allowed.get("mode", "auto")
    else:
        body["tools"], body["tool_choice"] = [_chosen(body, choice)], "required"


def _chosen(body: Mapping[str, Any], choice: Any) -> dict[str, Any]:
    """Return the tool that a choice names."""
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
    else:
        name = getattr(choice, "__name__", choice)
    for tool in body.get("tools", ()):
        if tool["function"]["name"] == name:
            return dict(tool)
    known = [tool["function"]["name"] for tool in body.get("tools", ())]
    raise ValueError(f"tool_choice is {choice!r}, expected 'auto', 'none', 'required' or one of {known}")


def format_schema(form: Any) -> dict[str, Any] | None:
    """Return the JSON schema of a response format; None for text.

    Parameters
    ----------
    form : type, mapping or str
        ``"text"``, ``"json_object"``, OpenAI's form, a JSON schema, or a type.

    Raises
    ------
    ValueError
        The form has no schema.
    """
    if form == "text":
        return None
    if form == "json_object":
        return {"type": "object"}
    if isinstance(form, str) or not isinstance(form, Mapping):
        return schema_of(form, "response_format")
    kind = form.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return dict(form.get("schema") or {"type": "object"})
    if kind != "json_schema":
        return dict(form)
    inner = form.get("json_schema")
    schema = inner.get("schema") if isinstance(inner, Mapping) else form.get("schema")
    if not isinstance(schema, Mapping):
        raise ValueError(f"response_format is {form!r:.200}, expected a json_schema with a schema")
    return dict(schema) or {"type": "object"}


def parse_choices(response: Mapping[str, Any], form: Any) -> list[Any]:
    """Parse the choices of a response, as `parse_text`.

    Returns
    -------
    list of object
        None for a choice that was cut off, the exception for one that does not have the format.
    """
    return [
        None if choice["finish_reason"] != "stop" else _parsed(str(choice["message"].get("content") or ""), form)
        for choice in response["choices"]
    ]


def _parsed(text: str, form: Any) -> Any:
    try:
        return parse_text(text, form)
    except (ValueError, TypeError, KeyError) as error:
        return error


def parse_text(text: str, form: Any) -> Any:
    """Return a text as an object of a response format, or as the value of its JSON; None for the format ``"text"``.

    Raises
    ------
    ValueError
        The text is not JSON, or does not match the schema.
    """
    if hasattr(form, "model_validate_json"):
        return form.model_validate_json(text)
    schema = format_schema(form)
    if schema is None:
        return None
    value = read_json(schema, text)
    return value if isinstance(form, str | Mapping) else as_type(form, value)


def read_json(schema: Mapping[str, Any], text: str) -> Any:
    """Return the value of a text for which a grammar has enforced a schema, except for some rules.

    The grammar has enforced the schema's regular expressions; they do not run in Python's engine.

    Raises
    ------
    ValueError
        The text is not JSON, or does not match the schema.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"the text is nested too deeply: {text:.100}") from None
    check_value(schema, value, "", trusted=False)
    return value


def encode_body(body: object, refer: Callable[[object], str] | None = None) -> bytes:
    """Return a body as JSON; empty for None.

    `refer` returns the text for other objects, as `Attachments.refer` does for files.

    Raises
    ------
    TypeError, ValueError
        JSON cannot express it: NaN, other objects, half of a surrogate pair.
    """
    try:
        return b"" if body is None else json.dumps(body, allow_nan=False, ensure_ascii=False, default=refer).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the request has text that is not Unicode: {error.object[error.start : error.end]!r}"
        ) from None
    except (TypeError, ValueError) as error:
        raise type(error)(f"the request cannot be written as JSON: {error}") from None
    except RecursionError:
        raise ValueError("the request cannot be written as JSON: it is nested too deeply") from None
