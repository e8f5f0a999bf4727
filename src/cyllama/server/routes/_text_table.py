"""The table of the text routes: their paths, fields and functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cyllama.server.config import ModelTask
from cyllama.server.fields.chat import chat_fields, chat_prompt_fields
from cyllama.server.fields.completions import completion_fields, infill_fields, native_completion_fields
from cyllama.server.fields.field import RouteFields
from cyllama.server.fields.messages import message_fields, message_prompt_fields
from cyllama.server.fields.responses import response_fields, response_input_fields
from cyllama.server.fields.vectors import (
    detokenize_fields,
    embedding_fields,
    native_embedding_fields,
    rerank_fields,
    tokenize_fields,
)
from cyllama.server.protocols.call import TextCall
from cyllama.server.protocols.chat import chat, count_chat, render
from cyllama.server.protocols.completions import complete
from cyllama.server.protocols.messages import count_message, message
from cyllama.server.protocols.native import native
from cyllama.server.protocols.responses import ResponseStore, count_input, respond
from cyllama.server.protocols.vectors import embed, embed_native, rerank

__all__ = ["TextRoute", "text_table"]


@dataclass(frozen=True)
class TextRoute:
    """A route with a JSON body.

    Attributes
    ----------
    paths : tuple of str
        Its path, then other names of it.
    fields : callable
        Returns its fields; the first call loads the engine, whose schema they contain.
    run : callable
        Responds to a request, in a thread.
    task : str
        The task of the model.
    """

    paths: tuple[str, ...]
    fields: Callable[[], RouteFields]
    run: Callable[[TextCall], None]
    task: ModelTask = "chat"


def text_table() -> list[TextRoute]:
    """Return the text routes of a server."""
    store = ResponseStore()
    return [
        TextRoute(("/v1/chat/completions", "/chat/completions"), chat_fields, chat),
        TextRoute(
            ("/v1/chat/completions/input_tokens", "/chat/completions/input_tokens"), chat_prompt_fields, count_chat
        ),
        TextRoute(("/v1/completions",), completion_fields, complete),
        TextRoute(("/completion", "/completions"), native_completion_fields, native("completion")),
        TextRoute(("/v1/responses", "/responses"), response_fields, partial(respond, store)),
        TextRoute(
            ("/v1/responses/input_tokens", "/responses/input_tokens"),
            response_input_fields,
            partial(count_input, store),
        ),
        TextRoute(("/v1/messages",), message_fields, message),
        TextRoute(("/v1/messages/count_tokens",), message_prompt_fields, count_message),
        TextRoute(("/infill",), infill_fields, native("infill")),
        TextRoute(("/apply-template",), chat_prompt_fields, render),
        TextRoute(("/tokenize",), tokenize_fields, native("tokenize")),
        TextRoute(("/detokenize",), detokenize_fields, native("detokenize")),
        TextRoute(("/v1/embeddings",), embedding_fields, embed, "embeddings"),
        TextRoute(("/embedding", "/embeddings"), native_embedding_fields, embed_native, "embeddings"),
        TextRoute(("/v1/rerank", "/v1/reranking", "/rerank", "/reranking"), rerank_fields, rerank, "rerank"),
    ]
