"""JSON schemas: of Python types, their limits, and the form that upstream's grammars accept."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import re
import types
import typing
import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union

__all__ = ["as_type", "check_schema", "for_grammar", "grammar_pattern", "schema_of"]

PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
TEXTS = {datetime.datetime: "date-time", datetime.date: "date", datetime.time: "time", uuid.UUID: "uuid"}
LIMITS = {
    "gt": "exclusiveMinimum",
    "ge": "minimum",
    "lt": "exclusiveMaximum",
    "le": "maximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}  # attributes of notes in Annotated
LISTS = (list, set, frozenset, tuple, Sequence)

# Limits of a schema. The converter recurses for each level and each reference, its time grows with the cube of the
# number of optional properties of an object, and it cannot be cancelled.
MAX_DEPTH = 64
MAX_PROPERTIES = 256  # of one object
MAX_DEFINITIONS = 256
MAX_REFERENCES = 1_000
MAX_PARTS = 10_000  # objects, lists and values together
MAX_PATTERN = 1_000  # characters

# Bounds whose grammar upstream writes without comparing them.
BOUNDS = (
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
    ("minimum", "maximum"),
)
REPETITION = re.compile(r"\\.|\{(\d+),(\d+)\}", re.DOTALL)  # of a pattern
VALUES = ("const", "default", "enum", "examples")  # these contain no schemas
BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
NOT_PLAIN = r"\"\\\x00-\x1F\x7F"  # what a JSON string must escape


def schema_of(kind: Any, where: str = "the type") -> dict[str, Any]:
    """Return the JSON schema of a type; the types that it refers to are in its ``$defs``.

    Raises
    ------
    TypeError
        The type cannot be expressed in JSON.
    """
    builder = _Schemas()
    schema = builder.schema(kind, where)
    return schema | ({"$defs": builder.definitions} if builder.definitions else {})


class _Schemas:
    """Make the schemas of types that may refer to each other."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._open: dict[Any, bool] = {}  # types in progress: whether they refer to themselves

    def schema(self, kind: Any, where: str) -> dict[str, Any]:
        if kind in PLAIN:
            return {"type": PLAIN[kind]}
        if kind in TEXTS:
            return {"type": "string", "format": TEXTS[kind]}
        if kind in (Any, inspect.Parameter.empty):
            return {}
        if hasattr(kind, "model_json_schema"):
            return self._pydantic(kind)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Annotated, typing.Required, typing.NotRequired):
            return self.schema(arguments[0], where) | _described(arguments[1:])
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.schema(item, where) for item in arguments]}
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            return {"enum": [item.value for item in kind]}
        if isinstance(kind, type) and issubclass(kind, PurePath):
            return {"type": "string"}
        if (origin or kind) in LISTS:
            return self._list(origin or kind, arguments, where)
        if (origin or kind) in (dict, Mapping):
            return {"type": "object", "additionalProperties": self.schema(arguments[1], where) if arguments else {}}
        if typing.is_typeddict(kind):
            return self._object(kind, sorted(kind.__required_keys__), where)
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            needed = [field.name for field in dataclasses.fields(kind) if field.init and not _has_default(field)]
            return self._object(kind, needed, where)
        raise TypeError(f"{where} is {kind!r}, which cannot be expressed in JSON")

    def _pydantic(self, kind: Any) -> dict[str, Any]:
        found = dict(kind.model_json_schema())
        for name, definition in found.pop("$defs", {}).items():
            if self.definitions.setdefault(name, definition) != definition:
                raise TypeError(f"two different types have the name {name!r}")
        return found

    def _list(self, base: Any, arguments: tuple[Any, ...], where: str) -> dict[str, Any]:
        if base is tuple and arguments and arguments[-1] is not ...:
            items = [self.schema(item, where) for item in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        return {"type": "array", "items": self.schema(arguments[0] if arguments else Any, where)}

    def _object(self, kind: Any, required: list[str], where: str) -> dict[str, Any]:
        reference = {"$ref": f"#/$defs/{kind.__name__}"}
        if kind in self._open:
            self._open[kind] = True
            return reference
        self._open[kind] = False
        hints = _hints(kind)
        names = [f.name for f in dataclasses.fields(kind) if f.init] if dataclasses.is_dataclass(kind) else list(hints)
        properties = {name: self.schema(hints[name], where) for name in names}
        schema = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        if not self._open.pop(kind):
            return schema
        self.definitions[kind.__name__] = schema
        return reference


def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def _has_default(field: dataclasses.Field[Any]) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


def _described(notes: Sequence[Any]) -> dict[str, Any]:
    """Return the description and the limits in ``Annotated``.

    They are texts, and objects such as ``pydantic.Field`` and those of ``annotated_types``.
    """
    every = [part for note in notes for part in (note, *(getattr(note, "metadata", None) or ()))]
    found: dict[str, Any] = {}
    for note in every:
        text = note if isinstance(note, str) else getattr(note, "description", None)
        if isinstance(text, str):
            found.setdefault("description", text)
        for name, keyword in LIMITS.items():
            value = getattr(note, name, None)
            if isinstance(value, int | float | str):
                found[keyword] = value
    return found


def as_type(kind: Any, value: Any) -> Any:
    """Return a JSON value as an object of a type that `schema_of` supports.

    Raises
    ------
    ValueError, TypeError, KeyError
        The value does not have the type.
    """
    if hasattr(kind, "model_validate"):
        return kind.model_validate(value)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Annotated, typing.Required, typing.NotRequired):
        return as_type(arguments[0], value)
    if origin in (Union, types.UnionType):
        return _as_one_of(arguments, value)
    base = origin or kind
    if base in LISTS and isinstance(value, list):
        return _as_list(base, arguments, value)
    if base in (dict, Mapping) and arguments and isinstance(value, dict):
        return {name: as_type(arguments[1], item) for name, item in value.items()}
    if typing.is_typeddict(kind) or (dataclasses.is_dataclass(kind) and isinstance(kind, type)):
        hints = _hints(kind)
        return kind(**{name: as_type(hints[name], item) for name, item in value.items()})
    if kind in (datetime.datetime, datetime.date, datetime.time):
        return kind.fromisoformat(value)
    if kind is float and type(value) is int:
        return float(value)
    if isinstance(kind, type) and issubclass(kind, enum.Enum | uuid.UUID | PurePath):
        return kind(value)
    if kind in PLAIN and type(value) is not kind:
        raise TypeError(f"{value!r} is not of the type {PLAIN[kind]}")
    if origin is Literal and value not in arguments:
        raise ValueError(f"{value!r} is not one of {', '.join(map(repr, arguments))}")
    return value


def _as_one_of(kinds: Sequence[Any], value: Any) -> Any:
    for kind in kinds:
        try:
            return as_type(kind, value)
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
    raise TypeError(f"{value!r} is none of {', '.join(map(str, kinds))}")


def _as_list(base: Any, arguments: tuple[Any, ...], value: list[Any]) -> Any:
    if base is tuple and arguments and arguments[-1] is not ...:
        return tuple(as_type(kind, item) for kind, item in zip(arguments, value, strict=True))
    items = [as_type(arguments[0], item) for item in value] if arguments else value
    return items if base in (list, Sequence) else base(items)


def check_schema(schema: Any) -> None:
    """Reject a schema that exceeds a limit.

    Parameters
    ----------
    schema : dict, list or value
        A JSON schema, or an object that contains some, such as a list of tools.

    Raises
    ------
    ValueError
        The schema exceeds a limit, which the message names.
    """
    waiting, n_parts, n_references = [(schema, 1)], 0, 0
    while waiting:
        part, depth = waiting.pop()
        n_parts += 1
        if n_parts > MAX_PARTS:
            raise ValueError(f"the schema has more than {MAX_PARTS} parts")
        if depth > MAX_DEPTH:
            raise ValueError(f"the schema is nested too deeply: more than {MAX_DEPTH} levels")
        if isinstance(part, Mapping):
            _check_object(part)
            n_references += "$ref" in part
            if n_references > MAX_REFERENCES:
                raise ValueError(f"the schema has more than {MAX_REFERENCES} references")
            waiting += [(value, depth + 1) for value in part.values()]
        elif isinstance(part, list | tuple):
            waiting += [(value, depth + 1) for value in part]


def _check_object(part: Mapping[str, Any]) -> None:
    for key, most in (("properties", MAX_PROPERTIES), ("$defs", MAX_DEFINITIONS), ("definitions", MAX_DEFINITIONS)):
        value = part.get(key)
        if isinstance(value, Mapping) and len(value) > most:
            raise ValueError(f"the schema has {len(value)} {key} in one object, expected {most} at most")
    pattern = part.get("pattern")
    if isinstance(pattern, str) and len(pattern) > MAX_PATTERN:
        raise ValueError(f"the schema has a pattern of {len(pattern)} characters, expected {MAX_PATTERN} at most")
    _check_bounds(part)


def _check_bounds(part: Mapping[str, Any]) -> None:
    """Reject bounds that no value satisfies."""
    for low, high in BOUNDS:
        least, most = part.get(low), part.get(high)
        if isinstance(least, int | float) and isinstance(most, int | float) and least > most:
            raise ValueError(f"the schema has {low} {least} and {high} {most}, which no value satisfies")
    pattern = part.get("pattern")
    if isinstance(pattern, str):
        for found in REPETITION.finditer(pattern):
            if found[1] and int(found[1]) > int(found[2]):
                raise ValueError(f"the schema has the repetition {found[0]} in a pattern, which no text matches")


def for_grammar(schema: Any) -> Any:
    """Return a copy of a schema whose patterns are converted by `grammar_pattern`.

    Raises
    ------
    ValueError
        The schema exceeds a limit of :func:`check_schema`.
    """
    check_schema(schema)
    return _copy(schema)


def _copy(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return {key: value if key in VALUES else _part(key, value) for key, value in schema.items()}
    return [_copy(item) for item in schema] if isinstance(schema, list | tuple) else schema


def _part(key: str, value: Any) -> Any:
    if key in BY_NAME and isinstance(value, Mapping):
        return {name: _copy(part) for name, part in value.items()}
    return grammar_pattern(value) if key == "pattern" and isinstance(value, str) else _copy(value)


def grammar_pattern(pattern: str) -> str:
    """Return a regular expression in the form of upstream's converter: anchored, and without short classes.

    A pattern of JSON Schema matches anywhere in a text: ``a`` becomes ``^.*(a).*$``. ``\\d``, ``\\w``, ``\\s``, their
    negations, the dot and ``[^...]`` become classes of the characters that a JSON string may contain.
    """
    begins, ends = pattern.startswith("^"), pattern.endswith("$") and not pattern.endswith("\\$")
    inner = _classes(pattern[begins : len(pattern) - ends])
    if begins and ends:
        return f"^{inner}$"
    anything = f"[^{NOT_PLAIN}]*"
    return f"^{'' if begins else anything}({inner}){'' if ends else anything}$"


def _classes(pattern: str) -> str:
    found, i = [], 0
    in_class = negated = False
    while i < len(pattern):
        sign, after = pattern[i], pattern[i + 1 : i + 2]
        i += 1
        if sign == "\\" and after:
            i += 1
            found.append(_escape(after, in_class))
        elif in_class:
            if sign == "]":
                found.append(NOT_PLAIN if negated else "")
                in_class = False
            found.append(sign)
        elif sign == "[":
            in_class, negated = True, after == "^"
            found.append(sign)
        elif sign == ".":
            found.append(f"[^{NOT_PLAIN}]")
        else:
            found.append(sign)
    return "".join(found)


def _escape(sign: str, in_class: bool) -> str:
    if sign in CLASSES:
        return CLASSES[sign] if in_class else f"[{CLASSES[sign]}]"
    if sign.lower() in CLASSES and not in_class:
        return f"[^{CLASSES[sign.lower()]}{NOT_PLAIN}]"
    return f"\\{sign}"
