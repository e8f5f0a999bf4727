"""Random JSON schemas."""

from __future__ import annotations

import random
import string
from typing import Any

__all__ = ["random_schema"]

PATTERNS = (
    "^[a-z]{2,5}$",
    "^[A-Z][0-9]{3}$",
    "^(red|green|blue)$",
    "^[0-9a-f]{4}-[0-9a-f]{4}$",
    "^x+y?$",
    r"^a\d\w$",
    r"^z\.$",
    r"^[^a-z\d].$",
    r"^\S\s\D$",
)
FORMATS = ("date", "time", "date-time", "uuid")


def random_schema(seed: int) -> dict[str, Any]:
    """Return a schema of an object with two to four properties, some nested; every text that matches is short."""
    chance = random.Random(seed)
    schema = _object(chance, 2)
    if chance.random() < 0.3:
        schema["$defs"] = {"part": _leaf(chance)}
        schema["properties"]["shared"] = {"$ref": "#/$defs/part"}
        schema["required"].append("shared")
    return schema


def _object(chance: random.Random, depth: int) -> dict[str, Any]:
    names = chance.sample(
        ["name", "age", "größe", "is_open", "tags", "x", "last-seen", "child", "日本"], chance.randint(2, 4)
    )
    properties = {name: _any(chance, depth - 1) for name in names}
    required = [name for name in names if chance.random() < 0.8] or names[:1]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _any(chance: random.Random, depth: int) -> dict[str, Any]:
    if depth > 0 and chance.random() < 0.5:
        kind = chance.choice(["object", "array", "anyOf", "tuple"])
        if kind == "object":
            return _object(chance, depth)
        if kind == "array":
            low = chance.randint(0, 2)
            return {"type": "array", "items": _leaf(chance), "minItems": low, "maxItems": low + chance.randint(1, 2)}
        if kind == "tuple":
            items = [_leaf(chance), _leaf(chance)]
            return {"type": "array", "prefixItems": items, "minItems": 2, "maxItems": 2}
        return {chance.choice(["anyOf", "oneOf"]): [{"type": "null"}, {"type": "string", "enum": ["a", "b c"]}]}
    return _leaf(chance)


def _leaf(chance: random.Random) -> dict[str, Any]:
    kind = chance.choice(["enum", "const", "text", "pattern", "format", "integer", "boolean", "null", "several"])
    if kind == "enum":
        words = ["".join(chance.choices(string.ascii_letters + ' "\\/é', k=chance.randint(1, 6))) for _ in range(3)]
        return {"enum": [*words, chance.randint(-9, 9), None]}
    if kind == "const":
        return {"const": chance.choice(["yes", 7, True, None, -3])}
    if kind == "text":
        low = chance.randint(0, 4)
        return {"type": "string", "minLength": low, "maxLength": low + chance.randint(1, 8)}
    if kind == "pattern":
        pattern = chance.choice(PATTERNS)
        return {"type": "string", "pattern": "^x{1,4}y?$" if pattern == "^x+y?$" else pattern}
    if kind == "format":
        return {"type": "string", "format": chance.choice(FORMATS)}
    if kind == "integer":
        low = chance.randint(-200, 200)
        return {"type": "integer", "minimum": low, "maximum": low + chance.randint(0, 3000)}
    if kind == "several":
        return {"type": ["boolean", "null"]}
    return {"type": kind}
