"""Run the server with uvicorn, with graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

from cyllama.server.app import create_app
from cyllama.server.config import ServerConfig
from cyllama.server.http.errors import log
from cyllama.server.http.protocol import HEAD_BYTES, limited_protocol
from cyllama.server.state import ServerState

__all__ = ["serve"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 2048
M_ARENA_MAX, ARENAS = -8, 2  # malloc.h
M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 1 << 20
SWITCH_SECONDS = 0.0005  # how long a thread may hold the GIL while the event loop waits for it


class _Server(uvicorn.Server):
    """Let running requests finish within the grace period, then cancel them."""

    def __init__(self, config: uvicorn.Config, state: ServerState, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._state, self._on_start = state, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        tasks = self._state.tasks
        tasks.stopping = True
        timer = asyncio.get_running_loop().call_later(self._state.config.limits.grace_seconds, tasks.cancel_all)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:  # the second signal ends the grace period
            self._state.tasks.cancel_all()
        super().handle_exit(signal.SIGTERM, frame)  # a second SIGINT would abandon running requests
        self._captured_signals[-1] = sig

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals as uvicorn does, but do not raise SIGTERM again after shutdown."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in SIGNALS}
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
        if signal.SIGINT in self._captured_signals:
            raise KeyboardInterrupt


def serve(config: ServerConfig, *, on_start: Callable[[str], object] | None = None) -> None:
    """Run the server until the process receives SIGINT or SIGTERM.

    Parameters
    ----------
    config : ServerConfig
    on_start : callable, optional
        Called with the address, such as ``"http://127.0.0.1:8080"``, when the server listens.

    Raises
    ------
    OSError
        The address is not available.
    FileNotFoundError
        A model does not exist.
    KeyboardInterrupt
        SIGINT has ended the server.
    Exception
        A model with ``preload`` cannot be loaded, as of its class.

    Notes
    -----
    At shutdown the server accepts no new connections. Running requests have ``limits.grace_seconds`` to finish,
    then they are cancelled. A second signal cancels them at once.
    """
    if not config.is_local and not config.api_keys:
        log.warning("listening on %s without an API key: anyone who can reach it can use it", config.host)
    sys.setswitchinterval(SWITCH_SECONDS)
    _limit_heaps()
    listener = _listen(config)
    state = ServerState(config)
    try:
        state.preload()
        for name in ("uvicorn.error", "python_multipart"):  # errors of clients are reported in responses
            logging.getLogger(name).setLevel(logging.ERROR)
        settings = uvicorn.Config(
            create_app(config, state),
            http=limited_protocol(config.limits),
            ws="none",
            loop="asyncio",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=HEAD_BYTES,
        )

        def started() -> None:
            if on_start is not None:
                on_start(_url(listener))

        _Server(settings, state, started).run([listener])
    finally:
        listener.close()
        state.tasks.close()
        if not state.pool.closed:
            state.pool.close()


def _limit_heaps() -> None:
    """Let all threads share a few malloc heaps, and return large blocks to the system when they are freed.

    By default glibc uses a heap for each thread, so the memory of one transcription remains in many heaps. It also
    raises its threshold for mmap up to 32 MiB, so heaps grow by hundreds of MiB of holes.
    """
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, ARENAS)
        libc.mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)


def _listen(config: ServerConfig) -> socket.socket:
    host = config.host.strip("[]")
    family = socket.getaddrinfo(host, config.port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, config.port), family=family, backlog=BACKLOG)


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
