"""Routes of language models, which call llama-server's handlers in this process."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.routing import Route

from cyllama.errors import EngineError
from cyllama.server.config import ModelEntry, ModelTask
from cyllama.server.http.errors import engine_request_error, http_error, oversized_input_error
from cyllama.server.http.response_stream import JSON, ResponseStream
from cyllama.server.http.task import TaskResponse
from cyllama.server.routes._text_media import decode_media
from cyllama.server.state import ServerState

if TYPE_CHECKING:
    from cyllama.llama import LLM

__all__ = ["text_routes"]

# path: (llama-server's handler, task of the model)
POSTS: dict[str, tuple[str, ModelTask]] = {
    "/v1/chat/completions": ("chat_completions", "chat"),
    "/chat/completions": ("chat_completions", "chat"),
    "/v1/chat/completions/input_tokens": ("chat_tokens", "chat"),
    "/chat/completions/input_tokens": ("chat_tokens", "chat"),
    "/v1/completions": ("completions", "chat"),
    "/completion": ("completion", "chat"),
    "/completions": ("completion", "chat"),
    "/v1/responses": ("responses", "chat"),
    "/responses": ("responses", "chat"),
    "/v1/messages": ("messages", "chat"),
    "/v1/messages/count_tokens": ("messages_tokens", "chat"),
    "/infill": ("infill", "chat"),
    "/apply-template": ("apply_template", "chat"),
    "/tokenize": ("tokenize", "chat"),
    "/detokenize": ("detokenize", "chat"),
    "/v1/embeddings": ("embeddings", "embeddings"),
    "/embeddings": ("embedding", "embeddings"),
    "/embedding": ("embedding", "embeddings"),
    "/v1/rerank": ("rerank", "rerank"),
    "/v1/reranking": ("rerank", "rerank"),
    "/rerank": ("rerank", "rerank"),
    "/reranking": ("rerank", "rerank"),
}
GETS = {"/props": "props", "/slots": "slots", "/lora-adapters": "lora_adapters"}
CHAT_HANDLERS = ("chat_completions", "chat_tokens", "responses", "messages", "messages_tokens", "apply_template")


def text_routes(state: ServerState) -> list[Route]:
    """Return the routes of language models."""
    posts = [
        Route(path, partial(_post, state, handler, task), methods=["POST"]) for path, (handler, task) in POSTS.items()
    ]
    gets = [Route(path, partial(_get, state, handler), methods=["GET"]) for path, handler in GETS.items()]
    return [*posts, *gets]


async def _post(state: ServerState, handler: str, task: ModelTask, request: Request) -> TaskResponse:
    state.queues["llm"].check()
    async with state.request_body() as body:
        fields = await body.json(request)
        entry = state.find_model(fields.get("model"), task)
        return state.respond("llm", partial(_run_post, state, entry, handler, fields), body.keep())


async def _get(state: ServerState, handler: str, request: Request) -> TaskResponse:
    entry = state.find_model(request.query_params.get("model"), "chat")
    params = {"fail_on_no_slot": "1"} if request.query_params.get("fail_on_no_slot") else {}
    return state.respond("llm", partial(_run_get, state, entry, handler, params))


def _run_post(
    state: ServerState,
    entry: ModelEntry,
    handler: str,
    body: dict[str, Any],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Check the request and call the handler, in a thread."""
    from cyllama.llama import check_limits

    check_limits(body)
    decode_media(body, state.config)
    with state.use_llm(entry, cancel) as llm:
        body = llm.prepared(body, chat=handler in CHAT_HANDLERS)
        if handler == "chat_completions" and body.get("tools") and not llm.supports("tools"):
            message = f"tools: the chat template of {entry.name} does not support tool calling"
            raise http_error(400, message, type="not_supported_error", param="tools")
        _call_handler(llm, handler, body, {}, stream, cancel)


def _run_get(
    state: ServerState,
    entry: ModelEntry,
    handler: str,
    params: Mapping[str, str],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    with state.use_llm(entry, cancel) as llm:
        _call_handler(llm, handler, b"", params, stream, cancel)


def _call_handler(
    llm: LLM,
    handler: str,
    body: bytes | Mapping[str, Any],
    params: Mapping[str, str],
    stream: ResponseStream,
    cancel: threading.Event,
) -> None:
    """Call a handler of llama-server, and copy its response."""
    try:
        response = llm.request(handler, body, params, cancel=cancel)
    except (EngineError, IndexError) as error:
        rejection = None if llm.failure is not None else engine_request_error(error)
        if rejection is None:
            raise
        raise rejection from None
    with response:
        oversized = oversized_input_error(response.status, response.data)
        if oversized is not None:
            raise oversized
        if not response.is_stream or response.status != 200:
            stream.send(response.status, JSON, response.data)
            return
        stream.start_events()
        while (part := response.next()) is not None:
            if part:
                stream.write(part)
