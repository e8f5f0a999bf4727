"""Fields of protocols whose clients send all fields of a form, most of them with the value that changes nothing."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyllama.server.fields.field import RouteFields

__all__ = ["FormFields"]

INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
NUMBER = re.compile(r"[+-]?[0-9]{1,20}(?:\.[0-9]{0,20})?(?:[eE][+-]?[0-9]{1,3})?")
WORDS = {"true": True, "false": False}


@dataclass(frozen=True)
class FormFields(RouteFields):
    """The fields of a form.

    Attributes
    ----------
    neutral : mapping
        Values of fields that change nothing, by the name of the field: it counts as not given then.
    switches : mapping
        The name of a field by that of another one, which turns it on: `hr_scale` has no effect without `enable_hr`.
    """

    neutral: Mapping[str, Sequence[object]] = field(default_factory=dict)
    switches: Mapping[str, str] = field(default_factory=dict)

    def check(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that have a value and an effect; numbers and booleans may be given as texts.

        Raises
        ------
        HTTPException
            As of `RouteFields.check`.
        """
        known = self.by_name
        given = {}
        for name, raw in body.items():
            value = _converted(known[name].schema, raw) if name in known else raw
            is_neutral = any(_same_value(value, other) for other in self.neutral.get(name, ()))
            if not is_neutral and not (name in self.switches and self._is_off(self.switches[name], body)):
                given[name] = value
        return super().check(given)

    def _is_off(self, name: str, body: Mapping[str, Any]) -> bool:
        value = body.get(name)
        if value is None or any(_same_value(value, other) for other in self.neutral.get(name, ())):
            return True
        return name in self.by_name and _converted(self.by_name[name].schema, value) in (False, "")

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the request's body, with the values of unsupported fields that are accepted."""
        found = super().schema()
        for name, reason in self.unsupported.items():
            if name in self.neutral:
                text = f"Accepted with these values only, which change nothing: {reason}."
                found["properties"][name] = {"enum": [None, *self.neutral[name]], "description": text}
        return found


def _same_value(value: object, other: object) -> bool:
    """Return whether a value is another one, which may be a number given as a text, or a boolean given as 0 or 1."""
    if isinstance(other, bool):
        return value is other or (type(value) is int and value == int(other))
    if isinstance(value, bool):
        return False
    if isinstance(value, str) and isinstance(other, int | float) and NUMBER.fullmatch(value):
        return float(value) == other
    return value == other


def _converted(schema: Mapping[str, Any], value: Any) -> Any:
    """Return a value with the type of its schema, if it is that value in another form; else the value itself."""
    kind = schema.get("type")
    if kind == "boolean":
        if isinstance(value, str):
            return WORDS.get(value.casefold(), value)
        return bool(value) if type(value) is int and value in (0, 1) else value
    if kind == "integer":
        if isinstance(value, str) and INTEGER.fullmatch(value):
            return int(value)
        return int(value) if isinstance(value, float) and value.is_integer() else value
    if kind == "number" and isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value) if math.isfinite(float(value)) else value
    return value
