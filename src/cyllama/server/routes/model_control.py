"""Routes that load and unload models, and set the weights of adapters; paths and bodies are those of llama-server."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from cyllama.server.config import ModelEntry, check_idle_seconds
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.state import ServerState

__all__ = ["model_control_routes"]

LOAD_FIELDS, UNLOAD_FIELDS = ("model", "pin", "idle_seconds"), ("model",)
SUCCESS = {"success": True}


def model_control_routes(state: ServerState) -> list[Route]:
    """Return the routes ``/models/load``, ``/models/unload`` and ``POST /lora-adapters``."""
    return [
        Route("/models/load", partial(_load, state), methods=["POST"]),
        Route("/models/unload", partial(_unload, state), methods=["POST"]),
        Route("/lora-adapters", partial(_set_loras, state), methods=["POST"]),
    ]


async def _load(state: ServerState, request: Request) -> TaskResponse:
    async with state.request_body() as body:
        fields = await body.json(request)
    entry = _entry(state, fields, LOAD_FIELDS)
    pin, seconds = fields.get("pin"), fields.get("idle_seconds")
    if pin is not None and not isinstance(pin, bool):
        raise http_error(400, f"pin is {pin!r:.100}, expected true or false", param="pin")
    if seconds is not None:
        check_idle_seconds(seconds, "idle_seconds")
        if pin or (pin is None and state.lifetimes.is_pinned(entry)):
            raise http_error(400, "idle_seconds has no effect on a pinned model", param="idle_seconds")

    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        state.load(entry, cancel)
        if pin:
            state.lifetimes.pin(entry)
        elif pin is not None:
            state.lifetimes.unpin(entry)
        if "idle_seconds" in fields:
            state.lifetimes.set_idle_seconds(entry, seconds)
        stream.send(200, JSON, json.dumps(SUCCESS).encode())

    return state.respond(entry.kind, work)


async def _unload(state: ServerState, request: Request) -> TaskResponse:
    async with state.request_body() as body:
        fields = await body.json(request)
    entry = _entry(state, fields, UNLOAD_FIELDS)

    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        if not state.lifetimes.unload(entry):
            raise http_error(409, f"model {entry.name} is in use; try again later", param="model")
        stream.send(200, JSON, json.dumps(SUCCESS).encode())

    return state.tasks.respond(state.status_queue, work)


async def _set_loras(state: ServerState, request: Request) -> TaskResponse:
    entry = state.find_model(request.query_params.get("model"), "chat")
    async with state.request_body() as body:
        scales = await body.json_list(request)

        def work(stream: ResponseStream, cancel: threading.Event) -> None:
            with state.use_llm(entry, cancel) as llm:
                llm.set_loras(scales)
            stream.send(200, JSON, json.dumps(SUCCESS).encode())

        return state.respond("llm", work, body.keep())


def _entry(state: ServerState, fields: Mapping[str, Any], known: tuple[str, ...]) -> ModelEntry:
    """Return the model that a request names; reject unknown fields."""
    for field in fields:
        if field not in known:
            raise http_error(400, f"unknown field {field!r:.100}, expected {', '.join(known)}", param=field)
    name = fields.get("model")
    if not isinstance(name, str) or not name:
        raise http_error(400, f"model is {name!r:.100}, expected the name of a model", param="model")
    found = state.find_entry(name)
    if found is None:
        names = ", ".join(entry.name for entry in state.entries)
        message = f"model is {name!r:.200}, expected one of: {names}"
        raise http_error(404, message, param="model", code="model_not_found")
    return found
