"""The application: routes, the doors before them, the page."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Scope

from cyllama.errors import CyllamaError
from cyllama.server.audio import audio_routes
from cyllama.server.automatic1111 import sdapi_routes
from cyllama.server.config import ModelEntry, ServerConfig
from cyllama.server.guard import Guard, Keys
from cyllama.server.hub import Hub
from cyllama.server.images import image_routes
from cyllama.server.metrics import Observer, metrics_route
from cyllama.server.problems import answer, problem, problem_of
from cyllama.server.text import text_routes

__all__ = ["create_app"]

PAGE = Path(__file__).resolve().parent / "page"
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
CREATED = 0  # when a model was made is not known


class Page(StaticFiles):
    """The files of the page, which may ask nobody else for anything."""

    def __init__(self, routes: Iterable[Route]) -> None:
        super().__init__(directory=PAGE, html=True, check_dir=False)
        self._others = {route.path for route in routes}

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file with its headers."""
        if scope["path"] in self._others:  # a route that knows no such method
            raise HTTPException(405)
        found = await super().get_response(path, scope)
        for name, value in PAGE_HEADERS.items():
            found.headers[name] = value
        return found


def create_app(config: ServerConfig, hub: Hub | None = None) -> ASGIApp:
    """Make the application, for any ASGI server; `cyllama.server.serve` runs it with limits for slow clients as well.

    Parameters
    ----------
    config : ServerConfig
    hub : Hub, optional
        The state, if the caller made it (and loaded what is to be there from the beginning).

    Returns
    -------
    ASGI application
        Models are freed when its lifespan ends.
    """
    preload = hub is None
    hub = Hub(config) if hub is None else hub
    observer = Observer()
    routes: list[Route] = [
        Route("/health", partial(_health), methods=["GET"]),
        Route("/v1/health", partial(_health), methods=["GET"]),
        Route("/v1/models", partial(_models, hub), methods=["GET"]),
        Route("/models", partial(_models, hub), methods=["GET"]),
        Route("/v1/models/{name:path}", partial(_model, hub), methods=["GET"]),
        metrics_route(hub, observer),
        *text_routes(hub),
        *audio_routes(hub),
        *image_routes(hub),
        *sdapi_routes(hub),
    ]
    handlers: dict[Any, Any] = {kind: _failed for kind in (HTTPException, CyllamaError, ValueError, TypeError, OSError)}
    app = Starlette(
        routes=[*routes, Mount("/", Page(routes))],
        middleware=_middleware(config),
        exception_handlers=handlers,
        lifespan=partial(_lifespan, hub, preload),
    )
    observer.watch(app, app.router)
    return observer


def _middleware(config: ServerConfig) -> list[Middleware]:
    files = [path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()] if PAGE.is_dir() else []
    guard = Middleware(
        Guard,
        keys=Keys(config.api_keys),
        open_paths={"/", *(f"/{name}" for name in files)},
        hosts=config.hosts,
        origins=config.cors_origins,
    )
    if not config.cors_origins:
        return [guard]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(config.cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["Authorization", "Content-Type", "X-Api-Key"],
    )
    return [cors, guard]


@contextlib.asynccontextmanager
async def _lifespan(hub: Hub, preload: bool, app: Starlette) -> AsyncIterator[None]:
    if preload:
        await asyncio.to_thread(hub.preload)
    try:
        yield
    finally:
        await hub.close()


async def _failed(request: Request, error: Exception) -> Response:
    return answer(problem_of(error))


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _models(hub: Hub, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_described(hub, entry) for entry in hub.config.models]})


async def _model(hub: Hub, request: Request) -> Response:
    name = request.path_params["name"]
    for entry in hub.config.models:
        if name in (entry.name, *entry.aliases):
            return JSONResponse(_described(hub, entry))
    raise problem(404, f"there is no model {name!r:.200}", param="model", code="model_not_found")


def _described(hub: Hub, entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "model",
        "created": CREATED,
        "owned_by": "cyllama",
        "aliases": list(entry.aliases),
        "kind": entry.kind,
        "task": entry.task,
        "loaded": hub.is_loaded(entry),
    }
