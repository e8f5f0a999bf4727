"""Fields of text generation that all routes share: those of the engine's own schema, and those that change nothing."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from typing import Any

from cyllama.server.fields.field import Field

__all__ = [
    "BOOLEAN",
    "COUNT",
    "MODEL",
    "STREAM",
    "TEXT",
    "TEXTS",
    "engine_fields",
    "ignored",
    "list_of",
    "one_of",
]

BOOLEAN = {"type": "boolean"}
TEXT = {"type": "string"}
COUNT = {"type": "integer", "minimum": 0}
OBJECT = {"type": "object"}
TEXTS = {"anyOf": [TEXT, {"type": "array", "items": TEXT}]}
KINDS = {"integer": {"type": "integer"}, "number": {"type": "number"}, "flag": BOOLEAN}
LARGE = 1e6  # larger limits are those of the number's type

# The schemas of the engine's fields that have no kind.
SCHEMAS: dict[str, Mapping[str, Any]] = {
    "continue_final_message": {"anyOf": [BOOLEAN, TEXT]},
    "dry_sequence_breakers": {"type": "array", "items": TEXT, "minItems": 1},
    "echo": BOOLEAN,
    "grammar": TEXT,
    "json_schema": OBJECT,
    "logit_bias": {
        "anyOf": [OBJECT, {"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}}],
    },
    "lora": {"type": "array", "items": {"type": "object", "required": ["id", "scale"]}},
    "reasoning_budget_end_tag": TEXT,
    "reasoning_budget_end_tags": {"type": "array", "items": TEXT},
    "reasoning_budget_message": TEXT,
    "reasoning_budget_start_tag": TEXT,
    "reasoning_format": TEXT,
    "response_fields": {"type": "array", "items": TEXT},
    "samplers": TEXTS,
    "stop": TEXTS,
    "stream_options": OBJECT,
}
# Fields that a client may send and that change nothing, of all protocols.
IGNORED = {
    "user": "An identifier of the client's user.",
    "metadata": "Notes of the client.",
    "safety_identifier": "An identifier of the client's user.",
    "prompt_cache_key": "The prompt cache finds common beginnings by itself.",
    "prompt_cache_retention": "The prompt cache is limited by its size.",
    "service_tier": "There is one tier.",
    "store": "Only responses are stored.",
}
MODEL = Field("model", TEXT, "Name or alias of a model of the server; default: the first one for the task.")
STREAM = Field("stream", BOOLEAN, "Send the response as server-sent events while it is generated.")


def list_of(schema: Mapping[str, Any], least: int = 0) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, "minItems": least}


def one_of(*values: object) -> dict[str, Any]:
    """Return the schema of one of several values."""
    return {"enum": list(values)}


def ignored(*names: str, **more: str) -> list[Field]:
    """Return fields that are accepted and change nothing: those of `IGNORED` with these names, and others."""
    found = {name: IGNORED[name] for name in names} | more
    return [Field(name, {}, text, ignored=True) for name, text in found.items()]


@functools.cache
def _engine_fields() -> dict[str, Field]:
    from cyllama.llama import request_fields

    found = {}
    for name, info in request_fields().items():
        schema = dict(SCHEMAS.get(name) or KINDS[info["kind"]])
        for key, limit in zip(("minimum", "maximum"), info["limits"] or (), strict=False):
            if abs(limit) < LARGE:
                schema[key] = int(limit) if info["kind"] == "integer" else limit
        first = info["names"][0]
        alias = "" if first == name else f"Alias of `{first}`. "
        found[name] = Field(name, schema, alias + str(info["help"]).strip().rstrip(".") + ".")
    return found


def engine_fields(*without: str, own: Iterable[Field] = ()) -> list[Field]:
    """Return the fields of the engine's schema of completions, except some.

    Parameters
    ----------
    *without : str
        Fields that have no effect on the route.
    own : iterable of Field
        Fields of the route, which replace those of the same name.
    """
    replaced = {item.name: item for item in own}
    return [*replaced.values(), *(f for name, f in _engine_fields().items() if name not in {*without, *replaced})]
