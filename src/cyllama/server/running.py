"""Running the server: uvicorn, with an orderly end."""

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
from cyllama.server.hub import Hub
from cyllama.server.problems import log
from cyllama.server.protocol import HEAD_BYTES, protocol_with

__all__ = ["serve"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 2048
M_ARENA_MAX, ARENAS = -8, 2  # malloc.h
M_MMAP_THRESHOLD, LARGE = -3, 1 << 20
SWITCH_SECONDS = 0.0005  # that a thread keeps the interpreter while the event loop waits for it


class _Server(uvicorn.Server):
    """Lets running requests end within the grace time, then cancels them."""

    def __init__(self, config: uvicorn.Config, hub: Hub, on_start: Callable[[], object]) -> None:
        super().__init__(config)
        self._hub, self._on_start = hub, on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._hub.stopping = True
        timer = asyncio.get_running_loop().call_later(self._hub.config.limits.grace_seconds, self._hub.stop_works)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:  # told twice: no grace
            self._hub.stop_works()
        super().handle_exit(signal.SIGTERM, frame)  # never leaves requests behind, as it would for a second SIGINT
        self._captured_signals[-1] = sig

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but the end that SIGTERM asked for is no failure."""
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
    """Serve until the process is told to end (SIGINT or SIGTERM).

    Parameters
    ----------
    config : ServerConfig
    on_start : callable, optional
        Called with the address as soon as it listens.

    Raises
    ------
    OSError
        The address cannot be had.
    KeyboardInterrupt
        SIGINT ended it.
    Exception
        A model is not there (FileNotFoundError), or cannot be loaded at the start, as of its class.

    Notes
    -----
    At the end no new connection is taken; what runs has ``limits.grace_seconds`` to finish and is cancelled then.
    A second signal cancels it at once.
    """
    if not config.is_local and not config.api_keys:
        log.warning("it listens on %s without an API key: whoever reaches it can use it", config.host)
    sys.setswitchinterval(SWITCH_SECONDS)
    _tame_heaps()
    listener = _listener(config)
    hub = Hub(config)
    try:
        hub.preload()
        for name in ("uvicorn.error", "python_multipart"):  # what clients do wrong is their answer's business
            logging.getLogger(name).setLevel(logging.ERROR)
        settings = uvicorn.Config(
            create_app(config, hub),
            http=protocol_with(config.limits),
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
                on_start(_address(listener))

        _Server(settings, hub, started).run([listener])
    finally:
        listener.close()
        hub.threads.shutdown()
        if not hub.pool.closed:
            hub.pool.close()


def _tame_heaps() -> None:
    """Let all threads share the heaps of the C library, and large blocks go back to the system when they are freed.

    With a heap for each thread, what a recording took stays in many; and left to itself, the C library moves its limit
    for blocks of their own as high as 32 MiB, and its heaps grow by hundreds of MiB of holes.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has no such thing
        libc = ctypes.CDLL(None)
        libc.mallopt(M_ARENA_MAX, ARENAS)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)


def _listener(config: ServerConfig) -> socket.socket:
    host = config.host.strip("[]")
    family = socket.getaddrinfo(host, config.port, type=socket.SOCK_STREAM)[0][0]
    return socket.create_server((host, config.port), family=family, backlog=BACKLOG)


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
