"""The blocking work of requests: in threads, cancelled on disconnect, timeout and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Literal, Protocol

from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from cyllama.server.http.clients import client_name
from cyllama.server.http.current_job import JobEntry, JobList
from cyllama.server.http.errors import error_response, http_error, to_http_error
from cyllama.server.http.queues import EngineQueue
from cyllama.server.http.response_stream import MAX_PENDING, Head, ResponseStream

__all__ = ["STOPPING", "CancelReason", "Task", "TaskResponse", "TaskRunner", "Work", "join_thread"]

Work = Callable[[ResponseStream, threading.Event], None]
"""The blocking work of a request, called with (stream, cancel) in a thread."""

CancelReason = Literal["disconnect", "timeout", "shutdown", "interrupt"]
STOPPING = "the server is shutting down"


class Task(Protocol):
    """Work that runs in a thread of the server."""

    def run(self, stream: ResponseStream) -> None:
        """Do the work, in a thread."""

    def cancel(self, reason: CancelReason) -> None:
        """Cancel the work."""


class TaskRunner:
    """The threads of the server and the requests that run in them.

    Parameters
    ----------
    threads : int
        Maximum number of threads.
    timeout : float
        Seconds after which a request is cancelled.
    """

    def __init__(self, threads: int, timeout: float) -> None:
        self.timeout = timeout
        self.stopping = False
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="cyllama-server")
        self._running: set[Task] = set()

    def respond(
        self,
        queue: EngineQueue,
        work: Work,
        on_end: Callable[[], None] | None = None,
        jobs: JobList | None = None,
    ) -> TaskResponse:
        """Return a response that does the work when it is sent.

        Parameters
        ----------
        queue : EngineQueue
            Of the engine that does the work.
        work : callable
        on_end : callable, optional
            Called when the work has ended, in the event loop.
        jobs : JobList, optional
            A list that has the request until its work has ended.

        Raises
        ------
        HTTPException
            503 if the server is shutting down.
        """
        self.check()
        return TaskResponse(self, queue, work, on_end, jobs)

    def check(self) -> None:
        """Raise if the server is shutting down.

        Raises
        ------
        HTTPException
            503.
        """
        if self.stopping:
            raise http_error(503, STOPPING)

    def cancel_all(self) -> None:
        """Cancel all running requests because the server is shutting down."""
        for task in list(self._running):
            task.cancel("shutdown")

    def close(self) -> None:
        """Wait until all threads have ended."""
        self._threads.shutdown()

    def start(self, task: Task, stream: ResponseStream) -> asyncio.Future[None]:
        """Run a task in a thread."""
        self._running.add(task)
        return asyncio.get_running_loop().run_in_executor(self._threads, task.run, stream)

    def remove(self, task: Task) -> None:
        """Remove a task whose thread has ended."""
        self._running.discard(task)


class TaskResponse:
    """A response that a thread computes (an ASGI application, as Starlette's responses are)."""

    def __init__(
        self,
        runner: TaskRunner,
        queue: EngineQueue,
        work: Work,
        on_end: Callable[[], None] | None = None,
        jobs: JobList | None = None,
    ) -> None:
        self._runner, self._queue, self._work, self._on_end, self._jobs = runner, queue, work, on_end, jobs
        self._entry: JobEntry | None = None
        self._cancel = threading.Event()
        self._reason: CancelReason = "disconnect"
        self._started = self._ended = False

    def cancel(self, reason: CancelReason) -> None:
        """Cancel the work."""
        if not self._cancel.is_set():
            self._reason = reason
            self._cancel.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Do the work and send the response."""
        client = client_name(scope)
        try:
            if self._jobs is not None:
                self._entry = self._jobs.add(scope, self._cancel, partial(self.cancel, "interrupt"))
            self._queue.enter(client)
        except BaseException as error:
            self._end()
            await error_response(to_http_error(error))(scope, receive, send)
            return
        began = time.monotonic()
        stream = ResponseStream(self._cancel)
        thread = self._runner.start(self, stream)
        watch = asyncio.create_task(self._watch(receive))
        timer = asyncio.get_running_loop().call_later(self._runner.timeout, self.cancel, "timeout")

        async def finish() -> None:
            if self._ended:
                return
            self._ended = True
            self._cancel.set()
            timer.cancel()
            watch.cancel()
            await join_thread(thread)
            self._runner.remove(self)
            self._queue.leave(time.monotonic() - began, client)
            self._end()

        try:
            await self._send(stream, scope, receive, send, finish)
        finally:
            await finish()

    def _end(self) -> None:
        if self._jobs is not None and self._entry is not None:
            self._jobs.remove(self._entry)
            self._entry = None
        if self._on_end is not None:
            self._on_end()

    def run(self, stream: ResponseStream) -> None:
        """Do the work, in a thread."""
        try:
            with self._queue.slot(self._cancel):
                self._work(stream, self._cancel)
        except BaseException as error:
            rejection = self._http_error(error)
            # A traceback would keep the frames, and the request with them, until the garbage collector finds the cycle.
            rejection.__traceback__ = rejection.__context__ = rejection.__cause__ = None
            stream.finish(rejection)
        else:
            stream.finish()

    async def _watch(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            continue
        self._cancel.set()

    async def _send(
        self, stream: ResponseStream, scope: Scope, receive: Receive, send: Send, finish: Callable[[], Awaitable[None]]
    ) -> None:
        """Send the response; call `finish` before its end, so that the client's next request finds its place free."""
        while True:
            head, data, finished, error = await stream.read()
            if head is not None and head.size is not None:  # a whole response: the thread is about to end
                while not finished:
                    _, _, finished, error = await stream.read()
                if error is not None:
                    head, data = None, b""
            if finished and len(data) <= MAX_PENDING:  # a large rest counts until the client has read it
                await finish()
            if head is not None:
                self._started = True
                await send(_response_start(head))
            if error is not None and not self._started:
                await error_response(error)(scope, receive, send)
                return
            if error is not None:
                data += stream.format_error(error)
            if data or finished:
                await send({"type": "http.response.body", "body": data, "more_body": not finished})
            if finished:
                return

    def _http_error(self, error: BaseException) -> HTTPException:
        if self._cancel.is_set() and self._reason == "timeout":
            return http_error(504, f"the request did not finish within {self._runner.timeout:g} s")
        if self._cancel.is_set() and self._reason == "shutdown":
            return http_error(503, STOPPING)
        if self._cancel.is_set() and self._reason == "interrupt":
            return http_error(400, "the request was interrupted by its caller", code="interrupted")  # not tried again
        return to_http_error(error)


async def join_thread(thread: asyncio.Future[None]) -> None:
    """Wait for a thread even if this task is cancelled, because the thread still uses the model."""
    while not thread.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.shield(thread)


def _response_start(head: Head) -> Message:
    headers = [(b"content-type", head.content_type.encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in head.headers.items()]
    if head.size is not None:
        headers.append((b"content-length", str(head.size).encode()))
    return {"type": "http.response.start", "status": head.status, "headers": headers}
