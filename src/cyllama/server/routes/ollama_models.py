"""Routes of Ollama's protocol about models: list, show, pull, delete, version."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

import cyllama
from cyllama import models
from cyllama._cancel import raise_if_cancelled
from cyllama._native import has_gpu
from cyllama.errors import DownloadError
from cyllama.server.config import ModelEntry, ModelTask
from cyllama.server.http.errors import error_message, http_error, log
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.routes._ollama_model_info import describe, show
from cyllama.server.routes._ollama_requests import check_fields, read_field
from cyllama.server.state import ServerState

__all__ = ["find_ollama_model", "ollama_model_routes"]

LATEST = ":latest"
NEVER = "9999-12-31T23:59:59Z"
PROGRESS_SECONDS = 0.1  # between two lines
KIND_OF_ENGINE = {"llama": "llm", "whisper": "whisper", "sd": "sd"}


def ollama_model_routes(state: ServerState) -> list[Route]:
    """Return the routes below ``/api/`` about models."""
    return [
        Route("/api/version", _version, methods=["GET"]),
        Route("/api/tags", partial(_tags, state), methods=["GET"]),
        Route("/api/ps", partial(_ps, state), methods=["GET"]),
        Route("/api/show", partial(_show, state), methods=["POST"]),
        Route("/api/pull", partial(_pull, state), methods=["POST"]),
        Route("/api/delete", partial(_delete, state), methods=["DELETE"]),
    ]


def find_ollama_model(state: ServerState, fields: Mapping[str, Any], task: ModelTask) -> ModelEntry:
    """Return the model for a request; its name may end with ``:latest``.

    Raises
    ------
    HTTPException
        400 if the request names no model, 404 if there is no such model.
    """
    return state.find_model(_known_name(state, _requested_name(fields)), task)


def _requested_name(fields: Mapping[str, Any]) -> str:
    name: str = read_field(fields, "model", str, "") or read_field(fields, "name", str, "")
    if not name:
        raise http_error(400, "model is missing, expected the name of a model", param="model")
    return name


def _known_name(state: ServerState, name: str) -> str:
    return name if state.find_entry(name) is not None else name.removesuffix(LATEST)


async def _version(request: Request) -> Response:
    return JSONResponse({"version": cyllama.__version__})


async def _tags(state: ServerState, request: Request) -> TaskResponse:
    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        found = [{"name": entry.name, "model": entry.name, **describe(entry)} for entry in _language_models(state)]
        stream.send(200, JSON, json.dumps({"models": found}).encode())

    return state.tasks.respond(state.status_queue, work)


async def _ps(state: ServerState, request: Request) -> TaskResponse:
    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        found = []
        for entry in _language_models(state):
            loaded = state.find_loaded(entry)
            if loaded is not None and loaded.ready:
                with state.use_llm(entry, cancel, is_request=False) as llm:
                    n_ctx = llm.properties.default_generation_settings.n_ctx
                where = {} if has_gpu() else {"size_vram": 0}
                ends = {"expires_at": _expires_at(state, entry), "context_length": n_ctx}
                names = {"name": entry.name, "model": entry.name}
                found.append(names | describe(entry) | {"size": loaded.size} | where | ends)
        stream.send(200, JSON, json.dumps({"models": found}).encode())

    return state.tasks.respond(state.status_queue, work)


def _language_models(state: ServerState) -> list[ModelEntry]:
    return [entry for entry in state.entries if entry.kind == "llm"]


def _expires_at(state: ServerState, entry: ModelEntry) -> str:
    seconds = state.lifetimes.expires_in(entry)
    return NEVER if seconds is None else (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def _show(state: ServerState, request: Request) -> TaskResponse:
    async with state.request_body() as body:
        fields = await body.json(request)
    check_fields(fields, ("model", "name", "verbose"))
    verbose = read_field(fields, "verbose", bool, False)
    entry = state.find_entry(_known_name(state, _requested_name(fields)))
    if entry is None or entry.kind != "llm":
        entry = find_ollama_model(state, {"model": _requested_name(fields)}, "chat")

    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        stream.send(200, JSON, json.dumps(show(entry, verbose)).encode())

    return state.tasks.respond(state.status_queue, work)


# ----------------------------------------------------------------------------------- pull and delete


async def _pull(state: ServerState, request: Request) -> TaskResponse:
    """Download a model; one that is not in the configuration is then added to the models of the server."""
    async with state.request_body() as body:
        fields = await body.json(request)
    check_fields(fields, ("model", "name", "stream", "insecure"))
    if read_field(fields, "insecure", bool):
        raise http_error(400, "insecure is not supported", param="insecure")
    streams = read_field(fields, "stream", bool, True)
    name = _known_name(state, _requested_name(fields))
    known = state.find_entry(name)
    if known is None and not state.config.allow_pull:
        message = f"model is {name!r:.200}, which is not in the configuration; the server needs allow_pull = true"
        raise http_error(403, message, param="model")
    entry = known or _new_entry(name)
    source = entry.model
    if source is None:
        raise http_error(400, f"{name} consists of several files, which are not downloaded", param="model")

    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        progress = _Progress(stream, streams, str(source), cancel)
        progress.line(status="pulling manifest")
        try:
            found = models.check(source)
            if isinstance(found, str):
                models.get(found, progress=progress)
        except DownloadError as error:
            log.error("cannot pull %s: %s", name, error)
            raise http_error(502, error_message(error), param="model") from None
        if state.find_entry(entry.name) is None:
            state.entries.append(entry)
        progress.end()

    return state.tasks.respond(state.status_queue, work)


def _new_entry(name: str) -> ModelEntry:
    """Return the entry of a model of the registry, or of the Hugging Face hub."""
    if name.startswith(models.HUB_PREFIX):
        if not name.endswith(".gguf"):
            raise http_error(
                400, f"model is {name!r:.200}, expected hf:organisation/repository/file.gguf", param="model"
            )
        return ModelEntry(name=name, kind="llm", model=name)
    try:
        found = models.find(name)
    except ValueError as error:
        raise http_error(404, error_message(error), param="model", code="model_not_found") from None
    kind = KIND_OF_ENGINE.get(found.engine)
    if kind is None:
        raise http_error(400, f"{name} is a part of a model, not a model", param="model")
    return ModelEntry(name=found.name, kind=kind, model=found.name, aliases=found.aliases)  # type: ignore[arg-type]


class _Progress:
    """Lines about a download; without a stream only the last one is sent."""

    def __init__(self, stream: ResponseStream, streams: bool, source: str, cancel: threading.Event) -> None:
        self._stream, self._streams, self._source, self._cancel = stream, streams, source, cancel
        self._started = False
        self._last = 0.0

    def __call__(self, done: int, total: int) -> None:
        """Write a line, at most ten in a second.

        Raises
        ------
        CancelledError
        """
        raise_if_cancelled(self._cancel, "the download")
        now = time.monotonic()
        if done == total or now - self._last >= PROGRESS_SECONDS:
            self._last = now
            self.line(status=f"pulling {self._source}", digest=self._source, total=total, completed=done)

    def line(self, **values: str | int) -> None:
        """Write a line."""
        if self._streams:
            if not self._started:
                self._stream.start_lines()
                self._started = True
            self._stream.write(json.dumps(values).encode() + b"\n")

    def end(self) -> None:
        """Write the last line."""
        if self._streams:
            self.line(status="success")
        else:
            self._stream.send(200, JSON, json.dumps({"status": "success"}).encode())


async def _delete(state: ServerState, request: Request) -> TaskResponse:
    """Remove a pulled model from the server and from the cache."""
    async with state.request_body() as body:
        fields = await body.json(request)
    check_fields(fields, ("model", "name"))
    name = _known_name(state, _requested_name(fields))
    entry = state.find_entry(name)
    if entry is None:
        raise http_error(404, f"model {name!r:.200} not found", param="model", code="model_not_found")
    if entry in state.config.models:
        raise http_error(403, f"{entry.name} is in the server's configuration and cannot be deleted", param="model")
    source = str(entry.model)
    if source.startswith(models.HUB_PREFIX):
        raise http_error(403, f"{entry.name} is in the cache of huggingface_hub, which has a command to delete it")

    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        if not state.lifetimes.unload(entry):
            raise http_error(409, f"model {entry.name} is in use; try again later", param="model")
        state.entries.remove(entry)
        models.remove(source)
        stream.send(200, JSON, b"{}")

    return state.tasks.respond(state.status_queue, work)
