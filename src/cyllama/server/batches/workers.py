"""Workers that run requests: the server's application in this process or in another one."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import itertools
import json
import os
import pickle
import sys
from typing import Any, Protocol

from cyllama.errors import CyllamaError
from cyllama.server.app import create_app
from cyllama.server.batches.application import request_application
from cyllama.server.batches.requests import Reply
from cyllama.server.config import ServerConfig
from cyllama.server.state import ServerState

__all__ = ["LocalWorker", "ProcessWorker", "Worker", "worker_config"]

ATTEMPTS = 5  # of a request that the server rejects for lack of resources
MAX_WAIT = 5.0  # seconds between two of them
MAX_LINE = 1 << 30  # bytes of a response
MODULE = "cyllama.server.batches.worker"


class Worker(Protocol):
    """Something that runs requests."""

    async def request(self, url: str, body: bytes) -> Reply:
        """Return the response to a request.

        Raises
        ------
        ConnectionError
            The worker has ended; the next request starts it again.
        """

    async def close(self) -> None:
        """Cancel the running requests, and free the models."""


def worker_config(config: ServerConfig, parallel: int) -> ServerConfig:
    """Return the configuration of an application for `parallel` requests of one client, without keys."""
    limits = config.limits
    room = 2 * parallel + 1
    limits = dataclasses.replace(
        limits,
        client_requests=max(limits.client_requests, parallel),
        text_queue=max(limits.text_queue, room),
        audio_queue=max(limits.audio_queue, room),
        image_queue=max(limits.image_queue, room),
    )
    return dataclasses.replace(config, limits=limits, api_keys=(), batch_folder=None)


class LocalWorker:
    """The server's application with its models, for the requests of one program.

    Parameters
    ----------
    config : ServerConfig
    parallel : int
        Requests that run at the same time.

    Raises
    ------
    FileNotFoundError, ModelLoadError, ...
        A model does not exist, or one with ``preload`` cannot be loaded.
    """

    def __init__(self, config: ServerConfig, parallel: int) -> None:
        config = worker_config(config, parallel)
        self._state = ServerState(config)
        try:
            self._state.preload()
        except BaseException:
            self._state.free()
            raise
        self._app = create_app(config, self._state)

    async def request(self, url: str, body: bytes) -> Reply:
        """Return the response to a request; try again while the server has too little memory or too many requests."""
        for attempt in range(ATTEMPTS):
            reply = await request_application(self._app, url, body)
            if reply.retry_after is None or attempt == ATTEMPTS - 1:
                break
            await asyncio.sleep(min(reply.retry_after, MAX_WAIT))
        return reply

    async def close(self) -> None:
        """Cancel the running requests, and free the models."""
        await self._state.close()


class ProcessWorker:
    """A process with the server's application; it is started by the first request, and again after its end.

    Parameters
    ----------
    config, parallel
        As of `LocalWorker`.
    """

    def __init__(self, config: ServerConfig, parallel: int) -> None:
        self._settings = base64.b64encode(pickle.dumps((config, parallel))) + b"\n"
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Reply]] = {}
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """The process, if it runs."""
        return None if self._process is None else self._process.pid

    async def request(self, url: str, body: bytes) -> Reply:
        """Return the response to a request.

        Raises
        ------
        ConnectionError
            The process has ended.
        CyllamaError
            The process does not start.
        """
        async with self._starting:
            if self._process is None:
                await self._start()
        process, number = self._process, next(self._numbers)
        if process is None or process.stdin is None:
            raise ConnectionResetError("the worker has ended")
        found = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            process.stdin.write(json.dumps({"n": number, "url": url, "body": body.decode()}).encode() + b"\n")
            await process.stdin.drain()
            reply: Reply = await found
            return reply
        finally:
            self._waiting.pop(number, None)

    async def _start(self) -> None:
        pipe = asyncio.subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            stdin=pipe,
            stdout=pipe,
            limit=MAX_LINE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the program, which then closes its workers
        )
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(self._settings)
        first: dict[str, Any] = json.loads(await process.stdout.readline() or b'{"failure": "it ended at once"}')
        if "failure" in first:
            await process.wait()
            raise CyllamaError(f"a worker does not start: {first['failure']}")
        self._process = process
        self._reader = asyncio.create_task(self._read(process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(ConnectionError):
            while line := await process.stdout.readline():
                found = json.loads(line)
                waiting = self._waiting.get(found["n"])
                if waiting is not None and not waiting.done():
                    waiting.set_result(Reply(found["status"], found["content_type"], found["body"].encode()))
        if self._process is process:
            self._process = None
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(ConnectionResetError("the worker has ended"))
        await process.wait()

    async def close(self) -> None:
        """End the process, which cancels its requests."""
        process, reader = self._process, self._reader
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if reader is not None:
            await reader
