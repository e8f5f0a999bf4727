"""Python functions as tools: their descriptions for the model, and calling them."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import inspect
import json
import re
import threading
import typing
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from cyllama.llama._json_schema import as_type, for_grammar, schema_of
from cyllama.llama._message_types import Tool
from cyllama.llama._special_tokens import ControlTexts
from cyllama.llama.responses import ChatCompletion

__all__ = ["ToolRounds", "call_tool", "next_request", "tool_dicts", "tool_loop"]

tool_loop: contextvars.ContextVar[asyncio.AbstractEventLoop | None] = contextvars.ContextVar("tool_loop", default=None)
"""The event loop, of another thread, that runs the coroutines of tools; None for a loop of their own."""


def tool_dicts(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Return tools in OpenAI's form.

    Parameters
    ----------
    tools : sequence of mappings and functions
        The parameters of a function come from its signature, their descriptions from its docstring (numpydoc, Google,
        reST).

    Raises
    ------
    TypeError
        The type of a parameter cannot be expressed in JSON.
    """
    if callable(tools) or isinstance(tools, Mapping | str) or not isinstance(tools, Sequence):
        raise TypeError(f"tools is {tools!r}, expected a list of functions and mappings")
    found = [dict(tool) if isinstance(tool, Mapping) else _described(tool) for tool in tools]
    seen = set()
    for name in map(_name, tools):
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
            raise ValueError(f"a tool has the name {name!r}, expected 1 to 64 letters, digits, _ or -")
        if name in seen:
            raise ValueError(f"two tools have the name {name!r}")
        seen.add(name)
    return found


def _name(tool: Tool) -> Any:
    if isinstance(tool, Mapping):
        function = tool.get("function")
        return function.get("name") if isinstance(function, Mapping) else None
    return getattr(_unwrapped(tool), "__name__", type(tool).__name__)


def _unwrapped(function: Callable[..., Any]) -> Any:
    return function.func if isinstance(function, functools.partial) else function


def _hints(function: Callable[..., object]) -> dict[str, Any]:
    """Return the types of the parameters, also of partial functions and callable objects."""
    inner: Any = _unwrapped(function)
    if not inspect.isroutine(inner):
        inner = getattr(inner, "__init__", None) if isinstance(inner, type) else type(inner).__call__
    return typing.get_type_hints(inner, include_extras=True)


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    if not callable(function):
        raise TypeError(f"a tool is {function!r}, expected a function or a mapping")
    name, hints = _name(function), _hints(function)
    text, descriptions = _parse_docstring(inspect.getdoc(_unwrapped(function)) or "")
    properties: dict[str, Any] = {}
    definitions: dict[str, Any] = {}
    required = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{name}() has the parameter {parameter}, which cannot be passed by name")
        schema = schema_of(hints.get(parameter.name, str), f"{name}({parameter.name})")
        definitions |= schema.pop("$defs", {})
        if parameter.name in descriptions:
            schema["description"] = descriptions[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        properties[parameter.name] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    parameters |= {"$defs": definitions} if definitions else {}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def _parse_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Return the description of a function, and those of its parameters."""
    head = re.split(r"\n\s*(?:Parameters\n\s*-+|Args:|Arguments:|:param |Returns|Raises)", text, maxsplit=1)[0].strip()
    descriptions: dict[str, str] = {}
    for name, description in re.findall(r":param (?:[\w\[\], ]+ )?(\w+):\s*(.+)", text):
        descriptions[name] = description.strip()
    google = re.search(r"^(?:Args|Arguments):\n((?:[ \t]+.*\n?|\n)+)", text, re.MULTILINE)
    if google:
        for name, description in re.findall(r"^\s+(\w+)(?:\s*\([^)]*\))?:\s*(.+)", google[1], re.MULTILINE):
            descriptions[name] = description.strip()
    numpy = re.search(r"^Parameters\n-+\n(.*?)(?=^\w[^\n]*\n-+\n|\Z)", text, re.MULTILINE | re.DOTALL)
    if numpy:
        for names, description in re.findall(r"^([\w, ]+?)\s*(?::[^\n]*)?\n[ \t]+([^\n]+)", numpy[1], re.MULTILINE):
            for name in names.split(","):
                descriptions[name.strip()] = description.strip()
    return head, descriptions


def call_tool(tools: Sequence[Tool], name: str, arguments: str, loop: asyncio.AbstractEventLoop | None = None) -> str:
    """Call a function with a model's arguments; return its result or its error as a text for the model.

    Parameters
    ----------
    tools : sequence
        The tools of `tool_dicts`.
    name : str
    arguments : str
        JSON.
    loop : event loop, optional
        The loop, of another thread, that runs a coroutine. By default a loop of its own.

    Returns
    -------
    str
        A string as it is, anything else as JSON; ``{"error": ...}`` for an unknown name, invalid arguments, or an
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
        if inspect.isawaitable(result):
            result = _wait_for(result, loop)
    except Exception as error:  # the model gets the error and may correct its call
        return json.dumps({"error": f"{type(error).__name__}: {error}"}, ensure_ascii=False)
    return result if isinstance(result, str) else json.dumps(result, default=_plain, ensure_ascii=False)


def _wait_for(result: Awaitable[Any], loop: asyncio.AbstractEventLoop | None) -> Any:
    """Return the result of an awaitable, which runs in `loop`, or in an event loop of its own.

    A thread has one loop. If one is running already, as in a notebook, another thread runs the new one.
    """

    async def wait() -> Any:
        return await result

    if loop is not None:
        return asyncio.run_coroutine_threadsafe(wait(), loop).result()
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    outcome: Future[Any] = Future()

    def target() -> None:
        try:
            outcome.set_result(asyncio.run(wait()))
        except BaseException as error:  # raised in the calling thread
            outcome.set_exception(error)

    threading.Thread(target=contextvars.copy_context().run, args=(target,), name="cyllama-tool", daemon=True).start()
    return outcome.result()


def _plain(value: Any) -> Any:
    """Convert an object for JSON: to a mapping or a list if it has such a form, else to a string."""
    for method in ("model_dump", "to_dict", "tolist", "_asdict"):
        if callable(getattr(value, method, None)):
            return getattr(value, method)()
    if isinstance(value, enum.Enum):
        return value.value
    if hasattr(value, "__dataclass_fields__"):
        return vars(value)
    return list(value) if isinstance(value, set | frozenset) else str(value)


def next_request(
    body: Mapping[str, Any],
    response: ChatCompletion,
    tools: Sequence[Tool],
    control: ControlTexts,
    loop: asyncio.AbstractEventLoop | None = None,
) -> dict[str, Any] | None:
    """Call the functions that a response calls, and return the request with their results.

    Returns
    -------
    dict or None
        None if the response calls no tool, is cut off, or calls a tool that is not a function. ``tool_choice`` becomes
        ``"auto"``: a required tool would never end the rounds.
    """
    not_functions = [_name(tool) for tool in tools if not callable(tool)]
    calls = response.tool_calls
    if response.finish_reason != "tool_calls" or any(call.function.name in not_functions for call in calls):
        return None
    replies: list[dict[str, Any]] = [response.to_dict()["choices"][0]["message"]]
    for call in calls:
        content = call_tool(tools, call.function.name, call.function.arguments, loop)
        replies.append({"role": "tool", "tool_call_id": call.id, "content": content})
    messages = [*body["messages"], *control.plain_messages(replies)]
    return {**body, "messages": messages, "tools": for_grammar(tool_dicts(tools)), "tool_choice": "auto"}


class ToolRounds:
    """The requests of a chat whose functions are called.

    Parameters
    ----------
    body : mapping
        The first request.
    tools : sequence
    control : ControlTexts
        The model's control tokens.
    rounds : int
        The most requests.
    """

    def __init__(self, body: Mapping[str, Any], tools: Sequence[Tool], control: ControlTexts, rounds: int) -> None:
        self._body, self._tools, self._control, self._left = body, tools, control, rounds
        self._loop = tool_loop.get()  # later rounds of a stream run in other threads

    def after(self, response: ChatCompletion) -> dict[str, Any] | None:
        """Return the request that follows a response, as of `next_request`; None after the last one."""
        self._left -= 1
        more = next_request(self._body, response, self._tools, self._control, self._loop) if self._left else None
        self._body = more or self._body
        return more
