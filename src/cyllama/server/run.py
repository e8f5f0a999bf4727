"""Run the server with uvicorn, with graceful shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import logging
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

from cyllama._native.memory import limit_heaps
from cyllama.server.app import create_app
from cyllama.server.config import ServerConfig
from cyllama.server.http.errors import log
from cyllama.server.http.protocol import HEAD_BYTES, limited_protocol
from cyllama.server.http.websocket import limited_websocket
from cyllama.server.state import ServerState

__all__ = ["serve"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BACKLOG = 2048
CLOSE_SECONDS = 2.0  # in which clients can read how their cancelled requests ended
OWN_FILES = 48  # open files of the process beside connections: libraries, models while they load, forms
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
        grace = self._state.config.limits.grace_seconds
        timer = asyncio.get_running_loop().call_later(max(grace - CLOSE_SECONDS, 0.9 * grace), self._cancel)
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def _cancel(self) -> None:
        """Cancel the running requests, and close the connections of clients that do not read how they ended."""
        self._state.tasks.cancel_all()
        asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._close_connections)

    def _close_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:  # the second signal ends the grace period
            asyncio.get_running_loop().call_soon_threadsafe(self._cancel)
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
        Called with the first address, such as ``"http://127.0.0.1:8080"``, when the server listens.

    Raises
    ------
    ValueError
        The server would listen on a public address without an API key.
    OSError
        The address is not available, or the process may open too few files.
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
    config.check_access()
    config = _fit_open_files(config)
    sys.setswitchinterval(SWITCH_SECONDS)
    limit_heaps()
    listeners = _listen(config)
    state = ServerState(config)
    try:
        state.preload()
        for name in ("uvicorn.error", "python_multipart"):  # errors of clients are reported in responses
            logging.getLogger(name).setLevel(logging.ERROR)
        by_address: Counter[str] = Counter()
        settings = uvicorn.Config(
            create_app(config, state),
            http=limited_protocol(config.limits, by_address),
            ws=limited_websocket(config.limits, by_address),
            ws_max_size=config.limits.live_bytes,
            ws_per_message_deflate=False,  # a small message could become a large one
            ws_ping_interval=None,  # sessions without messages end by themselves
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
                on_start(_url(listeners[0]))

        _Server(settings, state, started).run(listeners)
    finally:
        _close(listeners)
        state.tasks.close()
        state.free()


def _fit_open_files(config: ServerConfig) -> ServerConfig:
    """Raise the limit on open files as far as all connections need, or else reduce the limit on connections.

    Raises
    ------
    OSError
        The process may open too few files to load a model and to answer anyone.
    """
    if resource is None:
        return config
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = config.limits
    wanted = limits.connections + OWN_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return config
    if soft <= OWN_FILES:
        raise OSError(errno.EMFILE, f"the process may open {soft} files, expected more than {OWN_FILES} (ulimit -n)")
    connections = soft - OWN_FILES
    log.warning("the process may open %d files (ulimit -n): at most %d connections are accepted", soft, connections)
    return dataclasses.replace(config, limits=dataclasses.replace(limits, connections=connections))


def _listen(config: ServerConfig) -> list[socket.socket]:
    found: list[socket.socket] = []
    port = config.port
    try:
        for address in config.addresses:
            family = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0][0]
            found.append(socket.create_server((address, port), family=family, backlog=BACKLOG))
            # Connections inherit it. asyncio sets it only for sockets that name their protocol; without it, each
            # response on a connection that is used again comes 40 ms late.
            found[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            port = found[0].getsockname()[1]  # all addresses have the same port, also if it is any free one
    except OSError:
        _close(found)
        raise
    return found


def _close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
