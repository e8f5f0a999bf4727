"""JSON schemas as upstream's grammars take them: patterns are written so that they say the same there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_schema", "for_grammar", "grammar_pattern"]

# Limits of a schema. The converter recurses for each level and each reference, its time grows with the third power of
# the optional properties of an object, and it cannot be cancelled.
MAX_DEPTH = 64
MAX_PROPERTIES = 256  # of one object
MAX_DEFINITIONS = 256
MAX_REFERENCES = 1_000
MAX_PARTS = 10_000  # objects, lists and values together
MAX_PATTERN = 1_000  # characters

VALUES = ("const", "default", "enum", "examples")  # these hold no schemas
BY_NAME = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
CLASSES = {"d": "0-9", "w": "A-Za-z0-9_", "s": " "}
NOT_PLAIN = r"\"\\\x00-\x1F\x7F"  # what cannot stand in a JSON string as it is


def check_schema(schema: Any) -> None:
    """Refuse a schema that exceeds a limit.

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


def for_grammar(schema: Any) -> Any:
    """A copy of a schema in which every pattern is one that `grammar_pattern` gives.

    Raises
    ------
    ValueError
        It exceeds a limit of :func:`check_schema`.
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
    """A regular expression as upstream's converter takes it: for the whole text, and without short classes.

    JSON Schema looks for a pattern anywhere in a text: ``a`` becomes ``^.*(a).*$``. ``\\d``, ``\\w``, ``\\s``, their
    opposites, the point and ``[^...]`` are written as classes of what may stand in a JSON string.
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
