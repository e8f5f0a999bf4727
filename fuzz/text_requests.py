"""Requests to language models: the JSON of the server, and messages of the Python API."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from cyllama.errors import MediaError, UnsupportedError
from cyllama.llama._chat_request import message_list
from cyllama.llama._media import MediaInput
from cyllama.media.message_parts import MediaRules
from cyllama.server import ServerConfig, create_app
from cyllama.server.config import ModelEntry
from cyllama.server.limits import Limits
from fuzz.target import Target, documented
from fuzz.tiny_model import tiny_model_path

__all__ = ["TARGETS"]

ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/completion",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/infill",
    "/apply-template",
    "/tokenize",
    "/detokenize",
    "/v1/embeddings",
    "/v1/rerank",
)
USER = {"role": "user", "content": "hi"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}}}
BODIES: dict[str, list[dict[str, Any]]] = {
    "/v1/chat/completions": [
        {"messages": [{"role": "system", "content": "x"}, USER], "max_tokens": 2, "temperature": 0.5, "seed": 1},
        {"messages": [USER], "max_tokens": 2, "stream": True, "stream_options": {"include_usage": True}, "n": 2},
        {"messages": [USER], "max_tokens": 2, "tools": [TOOL], "tool_choice": "auto", "logprobs": True},
        {"messages": [USER], "max_tokens": 2, "response_format": {"type": "json_object"}, "stop": ["a"]},
        {"messages": [USER], "max_tokens": 2, "logit_bias": {"5": 1}, "samplers": ["top_k"], "grammar": 'root ::= "a"'},
    ],
    "/v1/completions": [
        {"prompt": "hi", "max_tokens": 2, "logprobs": 2, "echo": True},
        {"prompt": ["a", [1, 5]], "max_tokens": 1, "stop": "a", "n_probs": 3},
    ],
    "/completion": [{"prompt": ["hi", 1], "n_predict": 2, "cache_prompt": False, "id_slot": 0, "repeat_penalty": 1.1}],
    "/v1/responses": [
        {"input": [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}], "max_output_tokens": 2}
    ],
    "/v1/messages": [
        {"messages": [USER], "max_tokens": 2, "system": "x", "tools": [{"name": "f", "input_schema": {}}]}
    ],
    "/v1/messages/count_tokens": [{"messages": [USER]}],
    "/infill": [{"input_prefix": "a", "input_suffix": "b", "input_extra": [{"text": "a"}], "n_predict": 2}],
    "/apply-template": [{"messages": [USER], "chat_template_kwargs": {"a": 1}}],
    "/tokenize": [{"content": "hi", "add_special": True, "with_pieces": True}],
    "/detokenize": [{"tokens": [1, 5, 260]}],
    "/v1/embeddings": [{"input": ["a", [1, 5]], "encoding_format": "base64"}],
    "/v1/rerank": [{"query": "a", "documents": ["b"], "top_n": 1}],
}  # fmt: skip
STATUSES = (200, 400, 404, 413, 429, 501)


def request_seeds() -> Iterator[bytes]:
    """Yield requests for each route, each after a byte that names the route."""
    for number, route in enumerate(ROUTES):
        for body in BODIES[route]:
            yield bytes([number]) + json.dumps(body).encode()


def prepare_request() -> Callable[[bytes], None]:
    """Return a function that sends a request to the server's application, without a socket."""
    limits = Limits(body=1 << 20, request_seconds=10.0)
    settings = {"n_ctx": 128, "n_parallel": 2, "chat_template": None, "options": {"cache-ram": 1}}
    entry = ModelEntry(name="tiny", kind="llm", model=tiny_model_path(), settings=settings)
    app = create_app(ServerConfig(models=[entry], limits=limits))
    loop = asyncio.new_event_loop()

    def post(data: bytes) -> None:
        route = ROUTES[data[0] % len(ROUTES)] if data else ROUTES[0]
        status, body = loop.run_until_complete(_post(app, route, data[1:]))
        assert status in STATUSES, f"{route} responded with {status}: {body[:500]!r}"
        if status != 200:
            error = json.loads(body)["error"]
            assert {"message", "type", "code"} <= error.keys(), f"{route}: {error}"
            assert error["message"], f"{route}: {error}"

    return post


async def _post(app: Any, path: str, data: bytes) -> tuple[int, bytes]:
    """Return the status and the body of a response."""
    parts, status = [], 0
    incoming = [{"type": "http.request", "body": data, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop()
        await asyncio.Event().wait()  # the client stays connected
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return status, b"".join(parts)


def message_seeds() -> Iterator[bytes]:
    """Yield messages with each form of images and audio."""
    file = io.BytesIO()
    Image.new("RGB", (2, 2)).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    file = io.BytesIO()
    soundfile.write(file, np.zeros(20), 8_000, format="WAV")
    audio = base64.b64encode(file.getvalue()).decode()
    for part in (
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{image}", "detail": "low"}},
        {"type": "input_image", "image_url": image},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": image}},
        {"type": "input_audio", "input_audio": {"data": audio, "format": "wav"}},
        {"type": "image", "image": "/etc/passwd"},
        {"type": "audio_url", "audio_url": {"url": "file:///etc/passwd"}},
        {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "y"}]},
        {"type": "video_url", "video_url": {"url": "x"}},
    ):
        yield json.dumps([{"role": "user", "content": [{"type": "text", "text": "a"}, part]}]).encode()
    yield b'[{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "function": {"name": "f"}}]}]'


def prepare_messages() -> Callable[[bytes], None]:
    """Return a function that decodes the media of messages, of the Python API and of another client."""
    media = MediaInput(MediaRules(max_bytes=1 << 16, max_pixels=1 << 16, max_seconds=5), vision=True, audio=True)

    def decode(data: bytes) -> None:
        try:
            messages = json.loads(data)
        except (ValueError, RecursionError):
            return
        with documented(ValueError, UnsupportedError, MediaError):
            media.decode_body({"messages": messages, "input": messages})
        with documented(TypeError, ValueError, UnsupportedError, MediaError):
            media.for_upstream(message_list(messages))

    return decode


TARGETS = {
    "request": Target(prepare_request, request_seeds, seconds=60),
    "message": Target(prepare_messages, message_seeds),
}
