"""The description of the routes: ``/openapi.json``, and ``/docs`` as a page."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

import cyllama
from cyllama.server.fields.field import RouteFields
from cyllama.server.fields.openapi import describe, docs_page
from cyllama.server.routes._text_table import TextRoute

__all__ = ["DOCS_PATHS", "docs_routes"]

DOCS_PATHS = ("/docs", "/openapi.json")
POLICY = "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"


def docs_routes(table: Sequence[TextRoute], others: Mapping[str, RouteFields]) -> list[Route]:
    """Return the routes that describe the routes of `table`, and others by their paths."""

    @functools.cache
    def document() -> dict[str, Any]:
        routes = [(route.paths, route.fields()) for route in table]
        return describe([*routes, *(((path,), fields) for path, fields in others.items())], cyllama.__version__)

    page, file = DOCS_PATHS
    return [
        Route(page, partial(_page, document), methods=["GET"]),
        Route(file, partial(_file, document), methods=["GET"]),
    ]


async def _page(document: Any, request: Request) -> Response:
    text = docs_page(await asyncio.to_thread(document))  # the first call loads the engine
    return HTMLResponse(text, headers={"content-security-policy": POLICY})


async def _file(document: Any, request: Request) -> Response:
    return JSONResponse(await asyncio.to_thread(document))
