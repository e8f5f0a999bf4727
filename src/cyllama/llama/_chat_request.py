"""The body of a chat request: messages, tools, response format."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cyllama._cancel import Cancel
from cyllama.llama._json_schema import as_type, for_grammar, schema_of
from cyllama.llama._media import MediaInput
from cyllama.llama._message_types import Messages
from cyllama.llama._special_tokens import ControlTexts
from cyllama.llama.tools import tool_dicts

__all__ = ["CHAT_FIELDS", "chat_body", "encode_body", "message_list", "parse_choices", "prepare_body"]

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
    return {name: value for name, value in message.items() if value is not None or name == "content"}


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
        body["tools"] = for_grammar(tool_dicts(fields["tools"]))
    if "tool_choice" in fields:
        _choose_tool(body, fields["tool_choice"])
    if "response_format" in fields:
        body["response_format"] = for_grammar(response_format(fields["response_format"]))
    return body


def prepare_body(body: Mapping[str, Any], control: ControlTexts, media: MediaInput) -> dict[str, Any]:
    """Return a chat request of another client, in the form of OpenAI or Anthropic, in upstream's form.

    Schemas and the choice of one tool are converted, control tokens in messages stay text, and images and audio are
    decoded.

    Raises
    ------
    ValueError
        Messages or tools are invalid, the chosen tool does not exist, or a file is not allowed or above a limit.
    UnsupportedError, MediaError
        The model does not accept images or audio, or a file is damaged.
    """
    found = media.decode_body(body)
    if "messages" in found:
        found["messages"] = control.plain_messages(_checked_messages(found["messages"]))
    elif isinstance(found.get("input"), str):
        found["input"] = control.plain(found["input"])
    elif isinstance(found.get("input"), list):
        found["input"] = [_plain_item(item, control) for item in found["input"]]
    if isinstance(found.get("response_format"), Mapping):
        found["response_format"] = for_grammar(found["response_format"])
    if "messages" in found and isinstance(found.get("tools"), list):
        found["tools"] = for_grammar(found["tools"])
    if isinstance(found.get("tool_choice"), Mapping) and "function" in found["tool_choice"]:
        for i, tool in enumerate(found.get("tools") or ()):
            function = tool.get("function") if isinstance(tool, Mapping) else None
            if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
                raise ValueError(f"tools[{i}] is {tool!r:.200}, expected a function with a name")
        _choose_tool(found, found["tool_choice"])
    return found


def _checked_messages(messages: Any) -> list[dict[str, Any]]:
    if not isinstance(messages, list):
        raise ValueError(f"messages is {messages!r:.200}, expected a list")
    for i, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"messages[{i}] is {message!r:.200}, expected an object with role and content")
    return messages


def _plain_item(item: Any, control: ControlTexts) -> Any:
    """Escape control tokens in an item of the input of ``/v1/responses``: a message, or the result of a tool."""
    if not isinstance(item, dict):
        return item
    if isinstance(item.get("role"), str):
        return control.plain_messages([item, {"role": "user"}])[0]
    return {k: control.plain(v) if k in ("output", "arguments") and isinstance(v, str) else v for k, v in item.items()}


def _choose_tool(body: dict[str, Any], choice: Any) -> None:
    """Choose one tool, which upstream does not support: make it the only one, and required."""
    if choice in ("auto", "none", "required"):
        return
    if isinstance(choice, Mapping):
        function = choice.get("function", choice)
        name = function.get("name") if isinstance(function, Mapping) else None
    else:
        name = getattr(choice, "__name__", choice)
    tools = [tool for tool in body.get("tools", ()) if tool["function"]["name"] == name]
    if not tools:
        known = [tool["function"]["name"] for tool in body.get("tools", ())]
        raise ValueError(f"tool_choice is {choice!r}, expected 'auto', 'none', 'required' or one of {known}")
    body["tools"], body["tool_choice"] = tools, "required"


def response_format(value: Any) -> dict[str, Any]:
    """Return a response format in OpenAI's form."""
    if value in ("text", "json_object"):
        return {"type": value}
    if isinstance(value, Mapping):
        if value.get("type") in ("text", "json_object", "json_schema"):
            return dict(value)
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(value)}}
    name = getattr(value, "__name__", "answer")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema_of(value, "response_format")}}


def parse_choices(response: Mapping[str, Any], form: Any) -> list[Any]:
    """Parse the choices of a response, as `parse_text`; None for those that were cut off."""
    return [
        None if choice["finish_reason"] != "stop" else parse_text(str(choice["message"].get("content") or ""), form)
        for choice in response["choices"]
    ]


def parse_text(text: str, form: Any) -> Any:
    """Return a text as an object of a response format, or as the value of its JSON; None for the format ``"text"``.

    Raises
    ------
    ValueError
        The text is cut off or does not have the format.
    """
    if hasattr(form, "model_validate_json"):
        return form.model_validate_json(text)
    if form == "text" or (isinstance(form, Mapping) and form.get("type") == "text"):
        return None
    value = json.loads(text)
    return value if isinstance(form, str | Mapping) else as_type(form, value)


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
