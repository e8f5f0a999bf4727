"""Limits of the fields of requests: upstream cannot be cancelled while it reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cyllama.llama import _json_schema
from cyllama.llama._json_schema import check_schema

__all__ = ["INTERNAL", "check_limits", "field_limits"]

# Fields that upstream's own code sets; it trusts their values, which are regular expressions and parsers.
INTERNAL = frozenset(
    ("chat_format", "chat_parser", "generation_prompt", "grammar_lazy", "grammar_triggers", "message_delimiters",
     "parse_tool_calls", "preserved_tokens", "prompt_probs",
     "reasoning_control")  # for a route that ends the reasoning of a running request
)  # fmt: skip
SCHEMAS = ("response_format", "json_schema", "tools", "text", "output_config", "output_format")  # fields with a schema
# The most items of a field, and the most characters of an item.
ITEMS = {
    "stop": (256, 1_000),
    "stop_sequences": (256, 1_000),
    "samplers": (64, 100),
    "dry_sequence_breakers": (32, 100),  # upstream compares each of them with the whole vocabulary
    "logit_bias": (10_000, 1_000),
    "lora": (64, 100),
}
# The most characters of a field.
TEXTS = {"grammar": 100_000}
# The largest number of a field: upstream allocates memory for all tokens that a penalty covers, and writes the texts of
# all requested probabilities before it computes the next token of any request.
NUMBERS = {
    "repeat_last_n": 2**20,
    "dry_penalty_last_n": 2**20,
    "n_probs": 256,
    "logprobs": 256,
    "top_logprobs": 256,
}


def check_limits(fields: Mapping[str, Any]) -> None:
    """Reject fields that would block the scheduler, exhaust its memory, or reach code that trusts its input.

    Parameters
    ----------
    fields : mapping
        The fields of a request on any route. Types are not checked.

    Raises
    ------
    TypeError
        A field is reserved for upstream's own code.
    ValueError
        A limit is exceeded; the message names the field and the limit.
    """
    for name in fields:
        if name in INTERNAL:
            raise TypeError(f"{name} is not a field of requests: the engine sets it itself")
    for name, (most, length) in ITEMS.items():
        value = fields.get(name)
        if not isinstance(value, str | Mapping | list | tuple):
            continue
        if isinstance(value, str) and name != "samplers":  # one item
            value = [value]
        if len(value) > most:
            raise ValueError(f"{name} has {len(value)} items, expected {most} at most")
        if any(_length(item) > length for item in value):
            raise ValueError(f"{name} has an item of more than {length} characters")
    for name, most in TEXTS.items():
        value = fields.get(name)
        if isinstance(value, str) and len(value) > most:
            raise ValueError(f"{name} has {len(value)} characters, expected {most} at most")
    for name, most in NUMBERS.items():
        value = fields.get(name)
        if isinstance(value, int | float) and value > most:
            raise ValueError(f"{name} is {value}, expected {most} at most")
    for name in SCHEMAS:
        if name in fields:
            check_schema(fields[name])


def _length(item: Any) -> int:
    """Return the characters of an item: a text, or a pair of a text and a number."""
    text = item[0] if isinstance(item, list | tuple) and item else item
    return len(text) if isinstance(text, str) else 0


def field_limits() -> dict[str, str]:
    """Return the limits in words, by the names of the fields, for the documentation."""
    found = {f"`{name}`": f"{most:,}" for name, most in NUMBERS.items()}
    for name, (most, length) in ITEMS.items():
        found[f"`{name}`"] = f"{most:,} items of {length:,} characters"
    for name, most in TEXTS.items():
        found[f"`{name}`"] = f"{most:,} characters"
    schemas = ", ".join(f"`{name}`" for name in SCHEMAS)
    found[f"schemas in {schemas}"] = (
        f"{_json_schema.MAX_DEPTH} levels, {_json_schema.MAX_PARTS:,} parts, {_json_schema.MAX_REFERENCES:,} "
        f"references, {_json_schema.MAX_PROPERTIES} properties of an object, {_json_schema.MAX_DEFINITIONS} "
        f"definitions, {_json_schema.MAX_PATTERN:,} characters of a pattern"
    )
    return found
