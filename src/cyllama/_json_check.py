"""Check a JSON value against a JSON schema: requests of the server, and what a grammar cannot enforce."""

from __future__ import annotations

import datetime
import ipaddress
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from cyllama.errors import SchemaError

__all__ = ["check_value"]

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
NOUNS = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "boolean": "true or false",
    "integer": "an integer",
    "number": "a number",
    "null": "null",
}
MAX_STEPS = 100_000  # alternatives that refer to alternatives take exponential time
MAX_SHOWN = 100  # characters of a value in a message
MAX_REFERENCES = 64  # references that lead to each other without a value between them
ROUNDING = 1e-9  # of multipleOf, relative to the quotient


def check_value(schema: Mapping[str, Any] | bool, value: Any, path: str = "", *, trusted: bool = True) -> None:
    """Check a value against a schema.

    Parameters
    ----------
    schema : mapping or bool
        A JSON schema of draft 2020-12. References are local; unknown keywords and formats have no effect.
    value : object
        The value of `json.loads`.
    path : str
        Place of the value, for messages.
    trusted : bool
        False for schemas of callers, which could take exponential time: their regular expressions do not run, and the
        check ends after `MAX_STEPS` steps.

    Raises
    ------
    SchemaError
        The message names the value and what was expected.
    """
    try:
        _Check(schema, trusted).check(schema, value, path)
    except RecursionError:
        raise SchemaError(path, "is nested too deeply") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        if trusted:
            raise
        raise SchemaError(path, f"cannot be checked: the schema has an invalid part ({error})") from None


class _Check:
    """A check against one schema, which contains the definitions."""

    def __init__(self, root: Mapping[str, Any] | bool, trusted: bool) -> None:
        self._root, self._trusted = root, trusted
        self._n_steps = 0

    def check(self, schema: Any, value: Any, path: str, depth: int = 0) -> None:
        self._n_steps += 1
        if self._is_over():
            raise SchemaError(path, f"cannot be checked: the schema needs more than {MAX_STEPS} steps")
        if schema is True or schema is None:
            return
        if schema is False:
            raise SchemaError(path, "is not allowed")
        if "$ref" in schema:
            if depth > MAX_REFERENCES:
                raise SchemaError(path, "has a schema that refers to itself")
            self.check(self._resolve(schema["$ref"]), value, path, depth + 1)
        _check_type(schema, value, path)
        if isinstance(value, dict):
            self._object(schema, value, path)
        elif isinstance(value, list):
            self._array(schema, value, path)
        elif isinstance(value, str):
            _check_string(schema, value, path)
            if self._trusted and "pattern" in schema and not re.search(schema["pattern"], value):
                raise SchemaError(path, f"is {_show(value)}, expected a text that matches {schema['pattern']!r}")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            _check_number(schema, value, path)
        self._combined(schema, value, path, depth)

    def _is_over(self) -> bool:
        return self._n_steps > MAX_STEPS and not self._trusted

    def _resolve(self, reference: str) -> Any:
        found: Any = self._root
        for name in reference.lstrip("#").split("/")[1:]:
            name = name.replace("~1", "/").replace("~0", "~")
            found = found[int(name)] if isinstance(found, list) else found[name]
        return found

    def _object(self, schema: Mapping[str, Any], value: Mapping[str, Any], path: str) -> None:
        _check_size(schema, len(value), "Properties", "properties", path)
        if "propertyNames" in schema:
            for name in value:
                self.check(schema["propertyNames"], name, f"the name {name!r:.{MAX_SHOWN}} in {path or 'the value'}")
        known = schema.get("properties", {})
        patterns = schema.get("patternProperties", {})
        rest = schema.get("additionalProperties", True)
        for name, item in value.items():
            found = [known[name]] if name in known else []
            if self._trusted:
                found += [part for pattern, part in patterns.items() if re.search(pattern, name)]
            elif not found and patterns:
                continue
            if not found and rest is False:
                raise SchemaError(_join(path, name), f"is unknown, expected one of {', '.join(known) or 'none'}")
            for part in found or [rest]:
                self.check(part, item, _join(path, name))
        for name in schema.get("required", ()):
            if name not in value:
                raise SchemaError(_join(path, name), "is missing")

    def _array(self, schema: Mapping[str, Any], value: Sequence[Any], path: str) -> None:
        _check_size(schema, len(value), "Items", "items", path)
        if schema.get("uniqueItems") and len({_identity(item) for item in value}) < len(value):
            raise SchemaError(path, "has equal items, expected different ones")
        first, rest = schema.get("prefixItems", ()), schema.get("items", True)
        if isinstance(rest, list):  # the form of older drafts
            first, rest = rest, schema.get("additionalItems", True)
        for i, item in enumerate(value):
            self.check(first[i] if i < len(first) else rest, item, f"{path}[{i}]")

    def _combined(self, schema: Mapping[str, Any], value: Any, path: str, depth: int) -> None:
        for part in schema.get("allOf", ()):
            self.check(part, value, path, depth)
        for key in ("anyOf", "oneOf"):
            if key in schema:
                errors = list(self._errors(schema[key], value, path, depth))
                if len(errors) == len(schema[key]):
                    raise _nearest(errors, value, path)
                if key == "oneOf" and len(errors) < len(schema[key]) - 1:
                    raise SchemaError(path, f"is {_show(value)}, which matches several alternatives of the schema")
        if "not" in schema and not list(self._errors([schema["not"]], value, path, depth)):
            raise SchemaError(path, f"is {_show(value)}, which the schema excludes")

    def _errors(self, parts: Sequence[Any], value: Any, path: str, depth: int) -> Iterator[SchemaError]:
        for part in parts:
            try:
                self.check(part, value, path, depth)
            except SchemaError as error:
                if self._is_over():  # or the other alternatives go on
                    raise
                yield error


def _nearest(errors: Sequence[SchemaError], value: Any, path: str) -> SchemaError:
    """Return the error of the alternative that fits best: the one that fails at the deepest place."""
    deepest = max(errors, key=lambda error: len(error.path))
    if deepest.path != path:
        return deepest
    expected = [str(error).rpartition(", expected ")[2] for error in errors]
    return SchemaError(path, f"is {_show(value)}, expected {' or '.join(dict.fromkeys(expected))}")


def _check_type(schema: Mapping[str, Any], value: Any, path: str) -> None:
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_is_kind(kind, value) for kind in kinds):
        raise SchemaError(path, f"is {_show(value)}, expected {' or '.join(NOUNS.get(kind, kind) for kind in kinds)}")
    if "const" in schema and not _equal(schema["const"], value):
        raise SchemaError(path, f"is {_show(value)}, expected {_show(schema['const'])}")
    if "enum" in schema and not any(_equal(item, value) for item in schema["enum"]):
        raise SchemaError(path, f"is {_show(value)}, expected one of {', '.join(map(_show, schema['enum']))}")


def _is_kind(kind: str, value: Any) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES.get(kind, (object,)))


def _identity(value: Any) -> Any:
    """Return a key that equal JSON values share."""
    if isinstance(value, list):
        return ("array", *map(_identity, value))
    if isinstance(value, dict):
        return ("object", frozenset((name, _identity(item)) for name, item in value.items()))
    return isinstance(value, bool), value


def _equal(expected: Any, value: Any) -> bool:
    return bool(expected == value) and isinstance(expected, bool) == isinstance(value, bool)


def _check_size(schema: Mapping[str, Any], size: int, suffix: str, noun: str, path: str) -> None:
    least, most = schema.get(f"min{suffix}", 0), schema.get(f"max{suffix}", size)
    if not least <= size <= most:
        limit = f"at least {least}" if size < least else f"at most {most}"
        raise SchemaError(path, f"has {size} {noun}, expected {limit}")


def _check_string(schema: Mapping[str, Any], value: str, path: str) -> None:
    _check_size(schema, len(value), "Length", "characters", path)
    reads = FORMATS.get(schema.get("format", ""))
    if reads is not None:
        try:
            fits = reads(value)
        except ValueError:
            fits = False
        if fits is False:
            raise SchemaError(path, f"is {_show(value)}, expected the format {schema['format']!r}")


def _check_number(schema: Mapping[str, Any], value: float, path: str) -> None:
    tests: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
        ("minimum", "{} or more", lambda limit: value >= limit),
        ("maximum", "{} or less", lambda limit: value <= limit),
        ("exclusiveMinimum", "more than {}", lambda limit: value > limit),
        ("exclusiveMaximum", "less than {}", lambda limit: value < limit),
        ("multipleOf", "a multiple of {}", lambda step: _is_multiple(value, step)),
    )
    for key, words, fits in tests:
        limit = schema.get(key)
        if isinstance(limit, int | float) and not isinstance(limit, bool) and not fits(limit):
            low, high = schema.get("minimum"), schema.get("maximum")
            both = key in ("minimum", "maximum") and low is not None and high is not None
            expected = f"{low} to {high}" if both else words.format(limit)
            raise SchemaError(path, f"is {_show(value)}, expected {expected}")


def _is_multiple(value: float, step: float) -> bool:
    quotient = value / step
    return abs(quotient - round(quotient)) <= ROUNDING * max(1.0, abs(quotient))


def _is_email(text: str) -> bool:
    return re.fullmatch(r"[^@\s]+@[^@\s]+", text) is not None


def _is_hostname(text: str) -> bool:
    label = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    return len(text) <= 253 and re.fullmatch(rf"{label}(?:\.{label})*", text) is not None


def _is_duration(text: str) -> bool:
    date, time = r"(?:\d+Y)?(?:\d+M)?(?:\d+W)?(?:\d+D)?", r"(?:T(?:\d+H)?(?:\d+M)?(?:\d+(?:\.\d+)?S)?)?"
    return re.fullmatch(f"P{date}{time}", text) is not None and text[-1] not in "PT"


def _is_uuid(text: str) -> bool:
    return len(text) == 36 and bool(uuid.UUID(text))


# A function that raises ValueError, or returns False, for a text of another format.
FORMATS: dict[str, Callable[[str], object]] = {
    "date-time": lambda text: "T" in text.upper() and datetime.datetime.fromisoformat(text),
    "date": datetime.date.fromisoformat,
    "time": datetime.time.fromisoformat,
    "duration": _is_duration,
    "email": _is_email,
    "hostname": _is_hostname,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "uri": lambda text: bool(urlsplit(text).scheme),
    "uuid": _is_uuid,
}


def _join(path: str, name: str) -> str:
    return f"{path}.{name:.{MAX_SHOWN}}" if path else f"{name:.{MAX_SHOWN}}"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
