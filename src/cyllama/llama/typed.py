"""Python types as JSON schemas, and JSON values as objects of such types."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import inspect
import types
import typing
import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Literal, Union

__all__ = ["as_type", "schema_of"]

PLAIN = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
TEXTS = {datetime.datetime: "date-time", datetime.date: "date", datetime.time: "time", uuid.UUID: "uuid"}
LISTS = (list, set, frozenset, tuple, Sequence)


def schema_of(kind: Any, where: str = "the type") -> dict[str, Any]:
    """The JSON schema of a type; what it refers to stands in its ``$defs``.

    Raises
    ------
    TypeError
        JSON cannot carry it.
    """
    builder = _Schemas()
    schema = builder.schema(kind, where)
    return schema | ({"$defs": builder.definitions} if builder.definitions else {})


class _Schemas:
    """The schemas of types that may refer to each other."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._open: dict[Any, bool] = {}  # types that are being described: whether they refer to themselves

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
        raise TypeError(f"{where} is {kind!r}, which JSON cannot carry")

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
    """What ``Annotated`` says: a text, or an object with a description such as ``pydantic.Field``."""
    texts = [note if isinstance(note, str) else getattr(note, "description", None) for note in notes]
    found = [text for text in texts if isinstance(text, str)]
    return {"description": found[0]} if found else {}


def as_type(kind: Any, value: Any) -> Any:
    """A value of JSON as an object of a type, as far as `schema_of` knows it.

    Raises
    ------
    ValueError, TypeError, KeyError
        It is no such object.
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
        raise TypeError(f"{value!r} is no {PLAIN[kind]}")
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
