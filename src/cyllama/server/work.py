"""A request's blocking part: in a thread, cancelled when the client goes, the time is over, or the server stops."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send

from cyllama.server.gates import Gate
from cyllama.server.outbox import Head, Outbox
from cyllama.server.problems import answer, problem, problem_of

if TYPE_CHECKING:
    from cyllama.server.hub import Hub

__all__ = ["Task", "Work"]

Task = Callable[[Outbox, threading.Event], None]


class Work:
    """The answer to a request that a thread computes (an ASGI application, as starlette's responses are).

    Parameters
    ----------
    hub : Hub
    gate : Gate
        Of the engine.
    task : callable
        Called with (outbox, cancel) in a thread.
    on_end : callable, optional
        Called when the thread has ended.
    """

    def __init__(self, hub: Hub, gate: Gate, task: Task, on_end: Callable[[], None] | None = None) -> None:
        self._hub, self._gate, self._task, self._on_end = hub, gate, task, on_end
        self._cancel = threading.Event()
        self._why = "disconnect"
        self._started = False

    def stop(self, why: str) -> None:
        """Cancel it because of ``"timeout"`` or ``"shutdown"``."""
        if not self._cancel.is_set():
            self._why = why
            self._cancel.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Compute and send."""
        try:
            self._gate.enter()
        except BaseException as error:
            if self._on_end is not None:
                self._on_end()
            await answer(problem_of(error))(scope, receive, send)
            return
        began = time.monotonic()
        loop = asyncio.get_running_loop()
        outbox = Outbox(self._cancel)
        self._hub.works.add(self)
        thread = loop.run_in_executor(self._hub.threads, self._run, outbox)
        watch = asyncio.create_task(self._watch(receive))
        timer = loop.call_later(self._hub.config.limits.request_seconds, self.stop, "timeout")
        try:
            await self._send(outbox, scope, receive, send)
        finally:
            self._cancel.set()
            timer.cancel()
            watch.cancel()
            await _ended(thread)
            self._hub.works.discard(self)
            self._gate.leave(time.monotonic() - began)
            if self._on_end is not None:
                self._on_end()

    def _run(self, outbox: Outbox) -> None:
        try:
            with self._gate.turn(self._cancel):
                self._task(outbox, self._cancel)
        except BaseException as error:  # becomes the answer
            outbox.end(error)
        else:
            outbox.end()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        self._cancel.set()

    async def _send(self, outbox: Outbox, scope: Scope, receive: Receive, send: Send) -> None:
        while True:
            head, data, ended, error = await outbox.take()
            if head is not None:
                self._started = True
                await send(_start(head))
            if error is not None and not self._started:
                await answer(self._problem(error))(scope, receive, send)
                return
            if error is not None:
                data += _event(self._problem(error).detail)
            if data or ended:
                await send({"type": "http.response.body", "body": data, "more_body": not ended})
            if ended:
                return

    def _problem(self, error: BaseException) -> Any:
        if self._cancel.is_set() and self._why == "timeout":
            return problem(504, f"there was no answer within {self._hub.config.limits.request_seconds:g} s")
        if self._cancel.is_set() and self._why == "shutdown":
            return problem(503, "the server stops")
        return problem_of(error)


async def _ended(thread: asyncio.Future[None]) -> None:
    """Wait for a thread, whatever happens to the task meanwhile: it uses the model still."""
    while not thread.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(thread)


def _start(head: Head) -> dict[str, Any]:
    headers = [(b"content-type", head.content_type.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in head.headers.items()]
    if head.size is not None:
        headers.append((b"content-length", str(head.size).encode()))
    return {"type": "http.response.start", "status": head.status, "headers": headers}


def _event(detail: Any) -> bytes:
    """An error behind parts that were sent already."""
    return b"data: " + json.dumps({"error": detail}).encode() + b"\n\n"
