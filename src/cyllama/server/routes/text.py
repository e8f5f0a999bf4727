"""Routes of language models."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from cyllama.server.config import ModelEntry
from cyllama.server.http.errors import http_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.protocols.call import TextCall, naming_fields
from cyllama.server.routes._text_media import decode_media
from cyllama.server.routes._text_table import TextRoute
from cyllama.server.state import ServerState

__all__ = ["text_routes"]

GETS = {"/props": "props", "/v1/props": "props", "/slots": "slots", "/lora-adapters": "lora_adapters"}


def text_routes(state: ServerState, table: Sequence[TextRoute]) -> list[Route]:
    """Return the routes of language models; `table` is that of `text_table`."""
    posts = [Route(path, partial(_post, state, route), methods=["POST"]) for route in table for path in route.paths]
    gets = [Route(path, partial(_get, state, handler), methods=["GET"]) for path, handler in GETS.items()]
    return [*posts, *gets]


async def _post(state: ServerState, route: TextRoute, request: Request) -> TaskResponse:
    state.queues["llm"].check()
    async with state.request_body() as body:
        fields = await body.json(request)
        entry = state.find_model(fields.get("model"), route.task)
        return state.respond("llm", partial(_run_post, state, entry, route, fields), body.keep())


async def _get(state: ServerState, handler: str, request: Request) -> TaskResponse:
    if handler == "slots" and not state.config.slots:
        raise http_error(501, "/slots is disabled: slots is false (--no-slots)")
    entry = state.find_model(request.query_params.get("model"), "chat")
    params = {"fail_on_no_slot": "1"} if request.query_params.get("fail_on_no_slot") else {}
    return state.respond("llm", partial(_run_get, state, entry, handler, params))


def _run_post(
    state: ServerState,
    entry: ModelEntry,
    route: TextRoute,
    body: dict[str, Any],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Check the request and respond, in a thread."""
    from cyllama.llama import check_limits

    fields = route.fields().check(body)
    check_limits(fields)
    decode_media(fields, state.config)
    with state.use_llm(entry, cancel) as llm, naming_fields(route.fields(), llm):
        route.run(TextCall(llm, entry, fields, stream, cancel))


def _run_get(
    state: ServerState,
    entry: ModelEntry,
    handler: str,
    params: Mapping[str, str],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    with state.use_llm(entry, cancel) as llm, llm.request(handler, b"", params, cancel=cancel) as response:
        stream.send(response.status, JSON, response.data)
