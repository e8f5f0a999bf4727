"""A declaration of the fields of a route: the check of requests, the documentation and OpenAPI come from it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cyllama._json_check import check_value
from cyllama.errors import SchemaError
from cyllama.server.http.errors import http_error

__all__ = ["Field", "RouteFields"]


@dataclass(frozen=True)
class Field:
    """A field of a request.

    Attributes
    ----------
    name : str
    schema : mapping
        JSON schema of its value. Null is always accepted and means that the field is not given.
    help : str
        Its effect.
    required : bool
    ignored : bool
        The field is accepted and changes nothing.
    """

    name: str
    schema: Mapping[str, Any]
    help: str
    required: bool = False
    ignored: bool = False

    def openapi(self) -> dict[str, Any]:
        """Return the schema with the description, for OpenAPI."""
        note = "Accepted and ignored. " if self.ignored else ""
        nullable = self.schema if self.required or not self.schema else {"anyOf": [self.schema, {"type": "null"}]}
        return {**nullable, "description": note + self.help}


@dataclass(frozen=True)
class RouteFields:
    """The fields of a route.

    Attributes
    ----------
    summary : str
        What the route does, for the documentation.
    fields : sequence of Field
    unsupported : mapping
        Fields of the protocol that are refused, with the reason.
    definitions : mapping
        Schemas that those of the fields refer to, as ``#/$defs/NAME``.
    """

    summary: str
    fields: Sequence[Field]
    unsupported: Mapping[str, str] = field(default_factory=dict)
    definitions: Mapping[str, Any] = field(default_factory=dict)

    @property
    def by_name(self) -> dict[str, Field]:
        """The fields by their names."""
        return {item.name: item for item in self.fields}

    def check(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields that have a value and an effect.

        Raises
        ------
        HTTPException
            400 if a field is unknown, unsupported or missing, or has another value than expected; `param` names it.
        """
        known = self.by_name
        given = {name: value for name, value in body.items() if value is not None}
        for name in given:
            if name in self.unsupported:
                raise http_error(400, f"{name} is not supported: {self.unsupported[name]}", param=name)
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else "; see /docs for the fields of this route"
                raise http_error(400, f"{name!r:.100} is not a field of this route{hint}", param=name[:100])
        for item in self.fields:
            if item.name in given:
                self._check_field(item, given[item.name])
            elif item.required:
                raise http_error(400, f"{item.name} is missing: {item.help}", param=item.name)
        return {name: value for name, value in given.items() if not known[name].ignored}

    def _check_field(self, item: Field, value: Any) -> None:
        try:
            check_value({**item.schema, "$defs": self.definitions}, value, item.name)
        except SchemaError as error:
            raise http_error(400, str(error), param=error.path) from None

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the request's body."""
        return {
            "type": "object",
            "properties": {item.name: item.openapi() for item in self.fields},
            "required": [item.name for item in self.fields if item.required],
            "additionalProperties": False,
        }
