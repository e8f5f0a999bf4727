"""Responses that a thread computes, without HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from starlette.types import Message

from cyllama.server.http.errors import http_error
from cyllama.server.http.queues import EngineQueue
from cyllama.server.http.response_stream import JSON, MAX_PENDING, ResponseStream
from cyllama.server.http.task import TaskRunner

SCOPE = {"type": "http", "path": "/", "client": ("127.0.0.1", 1), "headers": []}


async def never() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


def respond(work: Callable[[ResponseStream, threading.Event], None]) -> list[tuple[Message, int]]:
    """Send the response of `work`; return each message with the number of requests in the queue at that time."""
    queue = EngineQueue("text", 4, client_capacity=1)
    found: list[tuple[Message, int]] = []

    async def send(message: Message) -> None:
        found.append((message, queue.size))

    async def run() -> None:
        runner = TaskRunner(1, 60.0)
        with contextlib.closing(runner):
            await runner.respond(queue, work)(SCOPE, never, send)

    asyncio.run(run())
    assert queue.size == 0
    return found


def late(write: Callable[[ResponseStream], None]) -> Callable[[ResponseStream, threading.Event], None]:
    """Return work that ends some time after it has written its response."""

    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        write(stream)
        time.sleep(0.05)

    return work


def test_client_may_send_again_after_a_whole_response() -> None:
    """The place in the queue is free before the client has the response."""
    found = respond(late(lambda stream: stream.send(200, JSON, b"{}")))
    assert [(message["type"], size) for message, size in found] == [
        ("http.response.start", 0),
        ("http.response.body", 0),
    ]


def test_large_response_counts_until_it_is_read() -> None:
    found = respond(late(lambda stream: stream.send(200, JSON, bytes(MAX_PENDING + 1))))
    assert [size for _, size in found] == [1, 1]


def test_error_after_a_whole_response_replaces_it() -> None:
    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        stream.send(200, JSON, b"{}")
        raise ValueError("no")

    found: list[Any] = respond(work)
    assert found[0][0]["status"] == 400 and b"no" in found[1][0]["body"]


@pytest.mark.parametrize("error", [ValueError("no"), None])
def test_stream_ends_after_its_thread(error: Exception | None) -> None:
    def work(stream: ResponseStream, cancel: threading.Event) -> None:
        stream.start_events()
        stream.write(b"data: 1\n\n")
        if error is not None:
            raise error

    messages = respond(work)
    assert messages[-1][0]["more_body"] is False and messages[-1][1] == 0
    body = b"".join(message.get("body", b"") for message, _ in messages)
    assert body.startswith(b"data: 1\n\n") and (b"error" in body) is (error is not None)


class _Body(dict[str, str]):
    """A request body to which weak references are possible."""


@pytest.mark.parametrize("kind", [ValueError, lambda text: http_error(400, text)])
def test_rejected_request_is_freed_at_once(kind: Callable[[str], Exception]) -> None:
    """Without the garbage collector, which runs too rarely for a few large objects."""

    def start() -> tuple[weakref.ref[_Body], list[tuple[Message, int]]]:
        body = _Body()

        def work(stream: ResponseStream, cancel: threading.Event, fields: _Body = body) -> None:
            raise kind(f"{len(fields)} fields")

        return weakref.ref(body), respond(work)

    gc.collect()
    gc.disable()
    try:
        body, messages = start()
        assert messages[0][0]["status"] == 400
        end = time.monotonic() + 30
        while body() is not None and time.monotonic() < end:  # the thread may not have ended yet
            time.sleep(0.01)
        assert body() is None
    finally:
        gc.enable()
