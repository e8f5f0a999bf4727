"""Python functions as tools: what a model is told about them, and calling them as it asks."""

from __future__ import annotations

import asyncio
import enum
import functools
import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cyllama.llama.answers import ChatCompletion
from cyllama.llama.plain_text import ControlTexts
from cyllama.llama.schemas import for_grammar
from cyllama.llama.typed import as_type, schema_of

__all__ = ["Tool", "ToolRounds", "call_tool", "next_request", "tool_dicts"]

Tool = Callable[..., Any] | Mapping[str, Any]


def tool_dicts(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as OpenAI describes them.

    Parameters
    ----------
    tools : sequence of mappings and functions
        A function's parameters come from its signature, what they mean from its docstring (numpydoc, Google, reST).

    Raises
    ------
    TypeError
        A parameter has no type that JSON can carry.
    """
    if callable(tools) or isinstance(tools, Mapping | str) or not isinstance(tools, Sequence):
        raise TypeError(f"tools is {tools!r}, expected a list of functions and mappings")
    found = [dict(tool) if isinstance(tool, Mapping) else _described(tool) for tool in tools]
    names = [_name(tool) for tool in tools]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
            raise ValueError(f"a tool has the name {name!r}, expected 1 to 64 letters, digits, _ or -")
        if names.count(name) > 1:
            raise ValueError(f"two tools have the name {name!r}")
    return found


def _name(tool: Tool) -> Any:
    if isinstance(tool, Mapping):
        function = tool.get("function")
        return function.get("name") if isinstance(function, Mapping) else None
    return getattr(_unwrapped(tool), "__name__", type(tool).__name__)


def _unwrapped(function: Callable[..., Any]) -> Any:
    return function.func if isinstance(function, functools.partial) else function


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters, also of partial functions and of objects that can be called."""
    inner: Any = _unwrapped(function)
    if not inspect.isroutine(inner):
        inner = getattr(inner, "__init__", None) if isinstance(inner, type) else type(inner).__call__
    return typing.get_type_hints(inner, include_extras=True)


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    if not callable(function):
        raise TypeError(f"a tool is {function!r}, expected a function or a mapping")
    name, hints = _name(function), _hints(function)
    text, meanings = _documented(inspect.getdoc(_unwrapped(function)) or "")
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{name}() has the parameter {parameter}, which a model cannot give by name")
        schema = schema_of(hints.get(parameter.name, str), f"{name}({parameter.name})")
        definitions |= schema.pop("$defs", {})
        if parameter.name in meanings:
            schema["description"] = meanings[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        properties[parameter.name] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    parameters |= {"$defs": definitions} if definitions else {}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def _documented(text: str) -> tuple[str, dict[str, str]]:
    """The description, and what is said of each parameter."""
    head = re.split(r"\n\s*(?:Parameters\n\s*-+|Args:|Arguments:|:param |Returns|Raises)", text, maxsplit=1)[0].strip()
    meanings: dict[str, str] = {}
    for name, meaning in re.findall(r":param (?:[\w\[\], ]+ )?(\w+):\s*(.+)", text):
        meanings[name] = meaning.strip()
    google = re.search(r"^(?:Args|Arguments):\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    if google:
        for name, meaning in re.findall(r"^\s+(\w+)(?:\s*\([^)]*\))?:\s*(.+)", google[1], re.MULTILINE):
            meanings[name] = meaning.strip()
    numpy = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if numpy:
        for names, meaning in re.findall(r"^([\w, ]+?)\s*(?::[^\n]*)?\n[ \t]+([^\n]+)", numpy[1], re.MULTILINE):
            for name in names.split(","):
                meanings[name.strip()] = meaning.strip()
    return head, meanings


def call_tool(tools: Sequence[Tool], name: str, arguments: str) -> str:
    """Call a function as the model asks; what it gives, or how it failed, as a text for the model.

    Parameters
    ----------
    tools : sequence
        Those that `tool_dicts` described.
    name : str
    arguments : str
        JSON.

    Returns
    -------
    str
        A text as it is, anything else as JSON; ``{"error": ...}`` for an unknown name, arguments that do not fit, or an
        exception of the function.
    """
    functions = {_name(tool): tool for tool in tools if callable(tool)}
    if name not in functions:
        return json.dumps({"error": f"there is no tool {name!r}; there are {sorted(functions)}"})
    function = functions[name]
    try:
        given = json.loads(arguments or "{}")
        bound = inspect.signature(function).bind(**given)
        hints = _hints(function)
        for parameter, value in bound.arguments.items():
            bound.arguments[parameter] = as_type(hints.get(parameter, Any), value)
        result = function(*bound.args, **bound.kwargs)
        if inspect.iscoroutine(result):
            result = asyncio.run(result)
    except Exception as error:  # the model is told, and may do better
        return json.dumps({"error": f"{type(error).__name__}: {error}"}, ensure_ascii=False)
    return result if isinstance(result, str) else json.dumps(result, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    """What JSON does not know: as a mapping or a list if it is like one, else as a text."""
    for method in ("model_dump", "to_dict", "tolist", "_asdict"):
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return vars(value)
    return list(value) if isinstance(value, set | frozenset) else str(value)


def next_request(
    body: Mapping[str, Any], answer: ChatCompletion, tools: Sequence[Tool], control: ControlTexts
) -> dict[str, Any] | None:
    """Do what an answer asks for, and make the request that tells the model what came of it.

    Returns
    -------
    dict or None
        None if it asks for nothing, is cut off, or asks for a tool that is no function: then it is the caller's turn. A
        tool that was required is so no longer, else there would never be an answer.
    """
    described = [_name(tool) for tool in tools if not callable(tool)]
    calls = answer.tool_calls
    if answer.finish_reason != "tool_calls" or any(call.function.name in described for call in calls):
        return None
    said: list[dict[str, Any]] = [answer.to_dict()["choices"][0]["message"]]
    for call in calls:
        content = call_tool(tools, call.function.name, call.function.arguments)
        said.append({"role": "tool", "tool_call_id": call.id, "content": content})
    messages = [*body["messages"], *control.plain_messages(said)]
    return {**body, "messages": messages, "tools": for_grammar(tool_dicts(tools)), "tool_choice": "auto"}


class ToolRounds:
    """The requests of a talk in which functions are called as the model asks.

    Parameters
    ----------
    body : mapping
        The first request.
    tools : sequence
    control : ControlTexts
        Of the model.
    rounds : int
        How many requests at most.
    """

    def __init__(self, body: Mapping[str, Any], tools: Sequence[Tool], control: ControlTexts, rounds: int) -> None:
        self._body, self._tools, self._control, self._left = body, tools, control, rounds

    def after(self, answer: ChatCompletion) -> dict[str, Any] | None:
        """The request that follows an answer, as of `next_request`; None after the last one."""
        self._left -= 1
        more = next_request(self._body, answer, self._tools, self._control) if self._left else None
        self._body = more or self._body
        return more
