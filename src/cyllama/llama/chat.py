"""What goes into a chat request: messages, tools, the form of the answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cyllama.llama.media_in import MediaInput
from cyllama.llama.plain_text import ControlTexts
from cyllama.llama.schemas import for_grammar
from cyllama.llama.tools import tool_dicts
from cyllama.llama.typed import as_type, schema_of

__all__ = ["CHAT_FIELDS", "Messages", "chat_body", "encoded", "for_upstream", "message_list", "parsed"]

Messages = str | Sequence[Mapping[str, Any] | Any]

# Fields of requests that upstream reads before its schema.
CHAT_FIELDS = (
    "messages",
    "images",
    "audio",
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
    """Messages as upstream takes them; a text is one of the user.

    Raises
    ------
    TypeError, ValueError
        A message has no role, or one that there is not.
    """
    if isinstance(messages, str):
        return [{"role": "user", "content": messages}]
    if isinstance(messages, Mapping | bytes | bytearray) or not isinstance(messages, Sequence):
        raise TypeError(f"messages is {messages!r}, expected a text or a list of messages")
    if not messages:
        raise ValueError("messages is empty, expected at least one")
    return [_message(message, i) for i, message in enumerate(messages)]


def _message(message: Any, i: int) -> dict[str, Any]:
    for method in ("model_dump", "to_dict"):  # the openai package's types, and our own answers
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
    cancel: Any = None,
) -> dict[str, Any]:
    """The body of a request.

    Parameters
    ----------
    messages : str or sequence
    fields : mapping
        ``images`` and ``audio`` are for the last message; ``tools`` may hold functions; ``tool_choice`` may name one
        of them, or be it; ``response_format`` may be a pydantic model, another type, a JSON schema, or what OpenAI
        takes; with ``parse_special`` what looks like a control token in a message is one.
    control : ControlTexts
        Of the model.
    media : MediaInput
        What the model takes beside text.
    cancel : object with ``is_set()``, optional
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


def for_upstream(body: Mapping[str, Any], control: ControlTexts, media: MediaInput) -> dict[str, Any]:
    """A chat request in the form of OpenAI or Anthropic that came from elsewhere, as upstream takes it.

    Schemas and the choice of one tool are written as upstream reads them; what looks like a control token in a
    message is none; pictures and sounds are decoded.

    Raises
    ------
    ValueError
        Messages or tools are not what they have to be, or the tool that is chosen is not among them; a picture or a
        sound is not allowed or above a limit.
    UnsupportedError, MediaError
        The model takes no pictures or no sound, or one is damaged.
    """
    found = dict(body)
    for name in ("messages", "input"):
        if isinstance(found.get(name), list):
            found[name] = media.for_upstream(found[name], name=name, own_form=True)
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
    """One item of the input of ``/v1/responses``: a message, or what a tool gave."""
    if not isinstance(item, dict):
        return item
    if isinstance(item.get("role"), str):
        return control.plain_messages([item, {"role": "user"}])[0]
    return {k: control.plain(v) if k in ("output", "arguments") and isinstance(v, str) else v for k, v in item.items()}


def _choose_tool(body: dict[str, Any], choice: Any) -> None:
    """Upstream knows no choice of one tool: it is the only one that the model is told of then, and required."""
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
    """The form of an answer as OpenAI describes it."""
    if value in ("text", "json_object"):
        return {"type": value}
    if isinstance(value, Mapping):
        if value.get("type") in ("text", "json_object", "json_schema"):
            return dict(value)
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(value)}}
    name = getattr(value, "__name__", "answer")
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema_of(value, "response_format")}}


def parsed(answer: Mapping[str, Any], wanted: Any) -> list[Any]:
    """The choices of an answer as what was asked for, as `parsed_text`; None for those that were cut off."""
    return [
        None if choice["finish_reason"] != "stop" else parsed_text(str(choice["message"].get("content") or ""), wanted)
        for choice in answer["choices"]
    ]


def parsed_text(text: str, wanted: Any) -> Any:
    """An answer as what was asked for: an object of a type, or what its JSON holds; None if that was a text.

    Raises
    ------
    ValueError
        It is cut off, or does not fit.
    """
    if hasattr(wanted, "model_validate_json"):
        return wanted.model_validate_json(text)
    if wanted == "text" or (isinstance(wanted, Mapping) and wanted.get("type") == "text"):
        return None
    value = json.loads(text)
    return value if isinstance(wanted, str | Mapping) else as_type(wanted, value)


def encoded(body: Any) -> bytes:
    """A request as JSON; nothing for None.

    Raises
    ------
    TypeError, ValueError
        JSON cannot carry it: NaN, other objects, half of a surrogate pair.
    """
    try:
        return b"" if body is None else json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the request has text that is no Unicode: {error.object[error.start : error.end]!r}"
        ) from None
    except (TypeError, ValueError) as error:
        raise type(error)(f"the request cannot be written as JSON: {error}") from None
    except RecursionError:
        raise ValueError("the request cannot be written as JSON: it is nested too deeply") from None
