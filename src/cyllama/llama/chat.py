"""What goes into a chat request: messages, tools, the form of the answer."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

from cyllama.llama.schemas import for_grammar
from cyllama.llama.tools import schema_of, tool_dicts

__all__ = ["Messages", "chat_body", "message_list", "parsed", "token_list"]

Messages = str | Sequence[Mapping[str, Any] | Any]

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
    if isinstance(messages, Mapping) or not isinstance(messages, Sequence):
        raise TypeError(f"messages is {messages!r}, expected a text or a list of messages")
    if not messages:
        raise ValueError("messages is empty, expected at least one")
    return [_message(message, i) for i, message in enumerate(messages)]


def token_list(tokens: Sequence[int], name: str) -> list[int]:
    """Tokens as a list of int.

    Raises
    ------
    TypeError
    """
    if isinstance(tokens, bytes | bytearray | str | Mapping):
        raise TypeError(f"{name} is {tokens!r}, expected a text or a sequence of tokens")
    try:
        return [operator.index(token) for token in tokens]
    except TypeError:
        raise TypeError(f"{name} is {tokens!r}, expected a text or a sequence of tokens") from None


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


def chat_body(messages: Messages, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The body of a request.

    Parameters
    ----------
    messages : str or sequence
    fields : mapping
        ``tools`` may hold functions; ``tool_choice`` may name one of them, or be it; ``response_format`` may be a
        pydantic model, another type, a JSON schema, or what OpenAI takes.
    """
    body = {"messages": message_list(messages), **fields}
    if "tools" in fields:
        body["tools"] = for_grammar(tool_dicts(fields["tools"]))
    if "tool_choice" in fields:
        _choose_tool(body, fields["tool_choice"])
    if "response_format" in fields:
        body["response_format"] = for_grammar(response_format(fields["response_format"]))
    return body


def _choose_tool(body: dict[str, Any], choice: Any) -> None:
    """Upstream knows no choice of one tool: it is the only one that the model is told of then, and required."""
    if choice in ("auto", "none", "required"):
        return
    if isinstance(choice, Mapping):
        name = choice.get("function", choice).get("name")
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


def parsed(text: str, wanted: Any) -> Any:
    """An answer as what was asked for: an object of a pydantic model, or what its JSON holds.

    Raises
    ------
    ValueError
        It is cut off, or does not fit.
    """
    if hasattr(wanted, "model_validate_json"):
        return wanted.model_validate_json(text)
    value = json.loads(text)
    if isinstance(wanted, type) and hasattr(wanted, "__dataclass_fields__"):
        return wanted(**value)
    return value
