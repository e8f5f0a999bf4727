"""The OpenAPI description of the routes with fields, and its page: both are made from the fields of the routes."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cyllama.server.fields.field import RouteFields

__all__ = ["describe", "docs_page"]

ERROR = {
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "integer"]},
            },
        }
    },
}
ERRORS = {
    "400": "A field is unknown, unsupported, missing or has a wrong value; `param` names it.",
    "401": "The API key is missing or invalid.",
    "404": "The model does not exist.",
    "429": "Too many requests.",
}


def describe(routes: Iterable[tuple[tuple[str, ...], RouteFields]], version: str) -> dict[str, Any]:
    """Return the OpenAPI document.

    Parameters
    ----------
    routes : iterable of (paths, RouteFields)
        The first path of a route is its name, the others are equivalent.
    version : str
        Version of the package.
    """
    paths: dict[str, Any] = {}
    schemas: dict[str, Any] = {"error": ERROR}
    for (path, *others), fields in routes:
        schemas |= {name: _rebase(schema) for name, schema in fields.definitions.items()}
        note = f" Other paths: {', '.join(others)}." if others else ""
        paths[path] = {"post": _operation(fields, fields.summary + note)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "cyllama",
            "version": version,
            "description": "The routes of `cyllama serve` for text, and for images in AUTOMATIC1111's form.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(fields: RouteFields, summary: str) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": {"description": "The response, or with `stream` its events."}}
    for status, text in ERRORS.items():
        content = {"application/json": {"schema": {"$ref": "#/components/schemas/error"}}}
        responses[status] = {"description": text, "content": content}
    refused = "; ".join(f"`{name}` ({reason})" for name, reason in fields.unsupported.items())
    return {
        "summary": summary,
        "description": f"Refused: {refused}." if refused else "",
        "requestBody": {"required": True, "content": {"application/json": {"schema": _rebase(fields.schema())}}},
        "responses": responses,
    }


def _rebase(schema: Any) -> Any:
    """Return a schema whose references point into the document."""
    if isinstance(schema, Mapping):
        found = {key: _rebase(value) for key, value in schema.items()}
        if isinstance(found.get("$ref"), str):
            found["$ref"] = found["$ref"].replace("#/$defs/", "#/components/schemas/")
        return found
    return [_rebase(item) for item in schema] if isinstance(schema, list | tuple) else schema


def docs_page(document: Mapping[str, Any]) -> str:
    """Return the page for an OpenAPI document; it needs no script."""
    parts = []
    for path, operations in document["paths"].items():
        operation = operations["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        rows = "".join(_row(name, field, name in schema["required"]) for name, field in schema["properties"].items())
        head = "<tr><th>field</th><th>value</th><th>effect</th></tr>"
        parts.append(
            f"<details><summary><code>POST {html.escape(path)}</code> {html.escape(operation['summary'])}</summary>"
            f"<p>{html.escape(operation['description'])}</p><table>{head}{rows}</table></details>"
        )
    title = f"{document['info']['title']} {document['info']['version']}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        '<link rel="stylesheet" href="/style.css"></head><body><main>'
        f"<h1>{html.escape(title)}</h1><p>Fields of the routes for text, and for images in AUTOMATIC1111's form. "
        'Other fields are errors. The same as <a href="/openapi.json">OpenAPI</a>.</p>'
        f"{''.join(parts)}</main></body></html>"
    )


def _row(name: str, field: Mapping[str, Any], required: bool) -> str:
    value = {key: item for key, item in field.items() if key != "description"}
    if "anyOf" in value and value["anyOf"][-1] == {"type": "null"}:
        value = value["anyOf"][0]
    shown = html.escape(json.dumps(value, ensure_ascii=False)) if value else "any"
    needed = " (required)" if required else ""
    return (
        f"<tr><td><code>{html.escape(name)}</code>{needed}</td><td><code>{shown}</code></td>"
        f"<td>{html.escape(field['description'])}</td></tr>"
    )
