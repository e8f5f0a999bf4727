"""Requests to the server's application in the same process: fields have the same effect as over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp, Message

from cyllama.server.batches.requests import Reply
from cyllama.server.config import LOOPBACK_NAMES

__all__ = ["encode_body", "request_application"]

CLIENT = "batch"


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Return a JSON object in UTF-8, with lone surrogates as escapes."""
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(body).encode()


async def request_application(app: ASGIApp, url: str, body: bytes, owner: str = "") -> Reply:
    """Post a body to an application, and return the response; cancelling the task cancels the request.

    Requests of different owners are those of different clients: they share no options, jobs and limits.
    """
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    start: Message = {"status": 500, "headers": []}
    parts: list[bytes] = []

    async def receive() -> Message:
        if not pending:
            await asyncio.Event().wait()  # the client stays until the end
        return pending.pop()

    async def send(message: Message) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))

    headers = [(b"host", LOOPBACK_NAMES[0].encode()), (b"content-type", b"application/json")]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*headers, (b"content-length", str(len(body)).encode())],
        "client": (f"{CLIENT} {owner}", 0),
        "server": (LOOPBACK_NAMES[0], 80),
        "state": {},
    }
    await app(scope, receive, send)
    found = {name.lower(): value.decode("latin-1") for name, value in start["headers"]}
    retry = found.get(b"retry-after")
    return Reply(start["status"], found.get(b"content-type", ""), b"".join(parts), float(retry) if retry else None)
