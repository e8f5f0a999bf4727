"""The ASGI application: routes, middleware, error handlers, and the web page."""

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
from starlette.types import ASGIApp, Receive, Scope, Send

from cyllama.errors import CyllamaError
from cyllama.server.batches.jobs import BatchJobs
from cyllama.server.batches.store import BatchStore
from cyllama.server.config import ModelEntry, ServerConfig
from cyllama.server.http.auth import ApiKeys, AuthMiddleware
from cyllama.server.http.errors import error_response, http_error, to_http_error
from cyllama.server.modalities import architecture
from cyllama.server.routes._text_table import text_table
from cyllama.server.routes.audio import audio_routes
from cyllama.server.routes.automatic1111 import SDAPI_FIELDS, sdapi_routes
from cyllama.server.routes.batches import batch_routes
from cyllama.server.routes.docs import DOCS_PATHS, docs_routes
from cyllama.server.routes.images import image_routes
from cyllama.server.routes.metrics import MetricsMiddleware, metrics_route
from cyllama.server.routes.model_control import model_control_routes
from cyllama.server.routes.ollama import ollama_routes
from cyllama.server.routes.realtime import realtime_routes
from cyllama.server.routes.text import text_routes
from cyllama.server.routes.videos import video_routes
from cyllama.server.state import ServerState

__all__ = ["create_app"]

PAGE = Path(__file__).resolve().parent / "page"
PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data: blob:; media-src 'self' data: blob:; object-src 'none'; "
        "base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "permissions-policy": "camera=(self), microphone=(self), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
CREATED = 0  # the creation time of a model is unknown


class _Page(StaticFiles):
    """The files of the web page, with a policy that forbids requests to other hosts."""

    def __init__(self, routes: Iterable[Route]) -> None:
        super().__init__(directory=PAGE, html=True, check_dir=False)
        self._routes = {route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a file; a WebSocket is rejected."""
        if scope["type"] == "http":
            await super().__call__(scope, receive, send)
        else:
            await error_response(http_error(404, "there is no such WebSocket"))(scope, receive, send)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file with its headers."""
        if scope["path"] in self._routes:  # the route exists, but not with this method
            raise HTTPException(405)
        if scope["method"] not in ("GET", "HEAD"):
            raise http_error(404, f"there is no route {scope['path']!r:.200}; /docs lists the routes")
        response = await super().get_response(path, scope)
        for name, value in PAGE_HEADERS.items():
            response.headers[name] = value
        return response


def create_app(config: ServerConfig, state: ServerState | None = None) -> ASGIApp:
    """Create the application for any ASGI server.

    `cyllama.server.serve` also limits slow clients; here this is up to the ASGI server.

    Parameters
    ----------
    config : ServerConfig
    state : ServerState, optional
        A state whose models the caller has preloaded; by default a new one.

    Returns
    -------
    ASGI application
        It preloads models and runs batches when its lifespan begins, and frees all models when its lifespan ends.

    Raises
    ------
    OSError
        The folder of the batches cannot be written, or another process uses it.
    """
    preload = state is None
    state = ServerState(config) if state is None else state
    metrics = MetricsMiddleware()
    table = text_table()
    routes: list[Route] = [
        Route("/health", _health, methods=["GET"]),
        Route("/v1/health", _health, methods=["GET"]),
        Route("/v1/models", partial(_list_models, state), methods=["GET"]),
        Route("/models", partial(_list_models, state), methods=["GET"]),
        Route("/v1/models/{name:path}", partial(_retrieve_model, state), methods=["GET"]),
        metrics_route(state, metrics),
        *model_control_routes(state),
        *text_routes(state, table),
        *docs_routes(table, SDAPI_FIELDS),
        *ollama_routes(state),
        *audio_routes(state),
        *image_routes(state),
        *video_routes(state),
        *sdapi_routes(state),
    ]
    handlers = dict.fromkeys((HTTPException, CyllamaError, ValueError, TypeError, OSError), _handle_error)
    jobs = None
    if config.batch_folder is not None:
        store = BatchStore(config.batch_folder, config.limits)
        jobs = BatchJobs(state, store, Starlette(routes=routes, exception_handlers=handlers))
        routes = [*routes, *batch_routes(state, store, jobs)]
    app = Starlette(
        routes=[*routes, *realtime_routes(state), Mount("/", _Page(routes))],
        middleware=_middleware(config),
        exception_handlers=handlers,
        lifespan=partial(_lifespan, state, preload, jobs),
    )
    metrics.wrap(app, routes)
    return metrics


def _middleware(config: ServerConfig) -> list[Middleware]:
    files = [path.relative_to(PAGE).as_posix() for path in PAGE.rglob("*") if path.is_file()] if PAGE.is_dir() else []
    auth = Middleware(
        AuthMiddleware,
        keys=ApiKeys(config.api_keys),
        public_paths={"/", *DOCS_PATHS, *(f"/{name}" for name in files)},
        hosts=config.hosts,
        origins=config.cors_origins,
    )
    if not config.cors_origins:
        return [auth]
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[origin for origin in config.cors_origins if origin != "*"],
        allow_origin_regex=".*" if "*" in config.cors_origins else None,  # returns the origin, as llama-server
        allow_methods=["GET", "POST", "DELETE", "OPTIONS"],
        allow_headers=["*"],  # clients send many of their own, such as x-stainless-lang
    )
    return [cors, auth]


@contextlib.asynccontextmanager
async def _lifespan(state: ServerState, preload: bool, jobs: BatchJobs | None, app: Starlette) -> AsyncIterator[None]:
    if preload:
        await asyncio.to_thread(state.preload)
    try:
        async with contextlib.nullcontext() if jobs is None else jobs.running():
            yield
    finally:
        await state.close()


async def _handle_error(request: Request, error: Exception) -> Response:
    return error_response(to_http_error(error))


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _list_models(state: ServerState, request: Request) -> Response:
    return JSONResponse({"object": "list", "data": [_model_info(state, entry) for entry in state.entries]})


async def _retrieve_model(state: ServerState, request: Request) -> Response:
    name = request.path_params["name"]
    for entry in state.entries:
        if name in (entry.name, *entry.aliases):
            return JSONResponse(_model_info(state, entry))
    known = ", ".join(entry.name for entry in state.entries)
    raise http_error(404, f"model is {name!r:.200}, expected one of: {known}", param="model", code="model_not_found")


def _model_info(state: ServerState, entry: ModelEntry) -> dict[str, Any]:
    return {
        "id": entry.name,
        "object": "model",
        "created": CREATED,
        "owned_by": "cyllama",
        "aliases": list(entry.aliases),
        "kind": entry.kind,
        "task": entry.task,
        "architecture": architecture(entry),
        "loaded": state.is_loaded(entry),
        "status": {"value": _status(state, entry)},
        "pinned": state.lifetimes.is_pinned(entry),
        "meta": state.model_meta.get(entry.name),
    }


def _status(state: ServerState, entry: ModelEntry) -> str:
    loaded = state.find_loaded(entry)
    return "unloaded" if loaded is None else "loaded" if loaded.ready else "loading"
