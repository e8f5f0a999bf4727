"""Routes of language models: straight to upstream's handlers in this process."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from cyllama.errors import EngineError, OutOfMemoryError
from cyllama.server.bodies import Body
from cyllama.server.config import ModelEntry
from cyllama.server.hub import Hub
from cyllama.server.outbox import JSON, Outbox
from cyllama.server.problems import first_line, problem
from cyllama.server.text_media import checked_media
from cyllama.server.work import Work

__all__ = ["ask", "text_routes"]

# path: (upstream's handler, what the model is for)
POSTS = {
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
CHATS = ("chat_completions", "chat_tokens", "responses", "messages", "messages_tokens", "apply_template")
SERVER_ERROR, TOO_LARGE = 500, b"is too large to process"  # what upstream calls its own failure is the caller's
GETS = {"/props": "props", "/slots": "slots", "/lora-adapters": "lora_adapters"}


def text_routes(hub: Hub) -> list[Route]:
    """The routes."""
    posts = [
        Route(path, partial(_post, hub, handler, task), methods=["POST"]) for path, (handler, task) in POSTS.items()
    ]
    gets = [Route(path, partial(_get, hub, handler), methods=["GET"]) for path, handler in GETS.items()]
    return [*posts, *gets]


async def _post(hub: Hub, handler: str, task: str, request: Request) -> Work:
    hub.gates["llm"].check()
    async with Body(hub) as body:
        fields = await body.json(request)
        entry = hub.entry(fields.get("model"), task)
        return hub.work("llm", partial(_answer, hub, entry, handler, fields), body.keep())


async def _get(hub: Hub, handler: str, request: Request) -> Work:
    entry = hub.entry(request.query_params.get("model"), "chat")
    params = {"fail_on_no_slot": "1"} if request.query_params.get("fail_on_no_slot") else {}
    return hub.work("llm", partial(_ask_only, hub, entry, handler, params))


def _answer(
    hub: Hub, entry: ModelEntry, handler: str, body: dict[str, Any], out: Outbox, cancel: threading.Event
) -> None:
    """In a thread: the handler's answer, byte by byte."""
    from cyllama.llama.fields import check_limits

    check_limits(body)
    checked_media(body, hub.config)
    with hub.use(entry, cancel) as llm:
        if handler in CHATS:
            body = llm.prepared(body)
            if handler == "chat_completions" and body.get("tools") and not llm.supports("tools"):
                message = f"the chat template of {entry.name} knows no tools"
                raise problem(400, message, kind="not_supported_error", param="tools")
        raw = json.dumps(body).encode()  # what was checked is what is passed on
        ask(llm, handler, raw, {}, out, cancel)


def _ask_only(
    hub: Hub, entry: ModelEntry, handler: str, params: Mapping[str, str], out: Outbox, cancel: threading.Event
) -> None:
    with hub.use(entry, cancel) as llm:
        ask(llm, handler, b"", params, out, cancel)


def ask(llm: Any, handler: str, raw: bytes, params: Mapping[str, str], out: Outbox, cancel: threading.Event) -> None:
    """Pass a request on, and what comes back."""
    try:
        found = llm.request(handler, raw, params, cancel=cancel)
    except OutOfMemoryError:
        raise
    except (EngineError, IndexError) as error:
        if getattr(error, "aborted", False) or llm.failure is not None:
            raise
        raise problem(400, first_line(error)) from None  # upstream's readers of requests throw whatever is wrong
    with found:
        if found.status == SERVER_ERROR and TOO_LARGE in found.data:
            message = json.loads(found.data)["error"]["message"]
            raise problem(400, message, kind="exceed_context_size_error")
        if not found.is_stream or found.status != 200:
            out.answer(found.status, JSON, found.data)
            return
        out.start_events()
        while (part := found.next()) is not None:
            if part:
                out.write(part)
