"""Python functions as tools: what a model is told about them, and calling them as it asks."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import json
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Union

__all__ = ["Tool", "call_tool", "schema_of", "tool_dicts"]

Tool = Callable[..., Any] | Mapping[str, Any]

PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}


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
    found = [dict(tool) if isinstance(tool, Mapping) else _described(tool) for tool in tools]
    names = [tool.get("function", {}).get("name") for tool in found]
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
            raise ValueError(f"a tool has the name {name!r}, expected 1 to 64 letters, digits, _ or -")
        if names.count(name) > 1:
            raise ValueError(f"two tools have the name {name!r}")
    return found


def _described(function: Callable[..., Any]) -> dict[str, Any]:
    if not callable(function):
        raise TypeError(f"a tool is {function!r}, expected a function or a mapping")
    name = getattr(function, "__name__", type(function).__name__)
    hints = typing.get_type_hints(function)
    text, meanings = _documented(inspect.getdoc(function) or "")
    properties, required = {}, []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"{name}() has the parameter {parameter}, which a model cannot give by name")
        schema = schema_of(hints.get(parameter.name, str), f"{name}({parameter.name})")
        if parameter.name in meanings:
            schema["description"] = meanings[parameter.name]
        if parameter.default is parameter.empty:
            required.append(parameter.name)
        properties[parameter.name] = schema
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": text, "parameters": parameters}}


def schema_of(kind: Any, where: str = "the type") -> dict[str, Any]:
    """The JSON schema of a type.

    Raises
    ------
    TypeError
        JSON cannot carry it.
    """
    if kind in PLAIN:
        return {"type": PLAIN[kind]}
    if kind in (Any, inspect.Parameter.empty):
        return {}
    if hasattr(kind, "model_json_schema"):  # pydantic
        return dict(kind.model_json_schema())
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        notes = [note for note in arguments[1:] if isinstance(note, str)]
        return schema_of(arguments[0], where) | ({"description": notes[0]} if notes else {})
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [schema_of(item, where) for item in arguments]}
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return {"enum": [item.value for item in kind]}
    base = origin or kind
    if base in (list, set, frozenset, tuple, Sequence) or base is getattr(types, "GenericAlias", None):
        item = arguments[0] if arguments else Any
        return {"type": "array", "items": schema_of(item, where)}
    if base in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1], where) if arguments else {}}
    if typing.is_typeddict(kind):
        hints = typing.get_type_hints(kind)
        return _object({name: schema_of(hint, where) for name, hint in hints.items()}, sorted(kind.__required_keys__))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        fields = dataclasses.fields(kind)
        needed = [
            f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        return _object({f.name: schema_of(hints[f.name], where) for f in fields}, needed)
    raise TypeError(f"{where} is {kind!r}, which JSON cannot carry")


def _object(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


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
    functions = {getattr(tool, "__name__", type(tool).__name__): tool for tool in tools if callable(tool)}
    if name not in functions:
        return json.dumps({"error": f"there is no tool {name!r}; there are {sorted(functions)}"})
    try:
        given = json.loads(arguments or "{}")
        bound = inspect.signature(functions[name]).bind(**given)
        result = functions[name](*bound.args, **bound.kwargs)
    except Exception as error:  # the model is told, and may do better
        return json.dumps({"error": f"{type(error).__name__}: {error}"})
    return result if isinstance(result, str) else json.dumps(result, default=str)
