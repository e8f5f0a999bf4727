"""HTTP protocol for uvicorn with limits for slow, idle and too many connections."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections import Counter

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cyllama.server.http.clients import client_address
from cyllama.server.http.errors import error_body, http_error
from cyllama.server.limits import Limits

__all__ = [
    "HEAD_BYTES",
    "MAX_SMALL_CHUNKS",
    "SMALL_CHUNK",
    "WEBSOCKET_PATHS",
    "LimitedConnection",
    "limited_protocol",
]

WEBSOCKET_PATHS = ("/v1/realtime", "/realtime")
"""Paths where a connection may become a WebSocket."""
MAX_SOCKET_LINE, MAX_SOCKET_LINES = 8000, 100
"""Bytes of a header, and headers, of a request for a WebSocket: below the limits of the library that reads it."""

MAX_SMALL_CHUNKS, SMALL_CHUNK = 256, 64
"""How many chunks a body may have while their mean size is below 64 bytes: each chunk costs the event loop time."""
MIN_READ = 1 << 14
"""Bytes of a waiting response that a client must read in `Limits.send_seconds`."""
SEND_BUFFER = 1 << 16
"""Size of the socket's send buffer; the system's own limit of megabytes would hide that a client does not read."""

HEAD_BYTES = 1 << 15
"""Maximum size of a request's first line and headers."""


class _Connection(h11.Connection):
    """A connection that rejects a body of many small chunks."""

    def __init__(self) -> None:
        super().__init__(h11.SERVER, HEAD_BYTES)
        self._n_chunks = self._n_bytes = 0

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        event = super().next_event()
        if isinstance(event, h11.Request):
            self._n_chunks = self._n_bytes = 0
        elif isinstance(event, h11.Data):
            self._n_chunks += 1
            self._n_bytes += len(event.data)
            if self._n_chunks > MAX_SMALL_CHUNKS and self._n_bytes < SMALL_CHUNK * self._n_chunks:
                raise h11.RemoteProtocolError(f"the body has many chunks of less than {SMALL_CHUNK} bytes")
        return event


class LimitedConnection(asyncio.Protocol):
    """Limits of HTTP and WebSockets: the connections of an address, and the time in which a client must read.

    Attributes
    ----------
    limits : Limits
    by_address : Counter
        Number of connections of each address, of all protocols of a server.
    """

    limits = Limits()
    by_address: Counter[str]
    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop

    _address: str | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def count_connection(self, client: tuple[str, int] | None) -> int:
        """Count the connection and return the number of those of its address."""
        self._address = client_address(client)
        self.by_address[self._address] += 1
        return self.by_address[self._address]

    def forget_connection(self) -> None:
        """Stop counting the connection; a second call does nothing."""
        self._stop_write_timer()
        if self._address is not None:
            self.by_address[self._address] -= 1
            if not self.by_address[self._address]:
                del self.by_address[self._address]
            self._address = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_write_timer()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_write_timer()

    def _start_write_timer(self) -> None:
        """Start the time in which the client has to read a part of what waits for it."""
        unsent = self.transport.get_write_buffer_size()
        self._write_timer = self.loop.call_later(self.limits.send_seconds, self._write_timeout, unsent)

    def _stop_write_timer(self) -> None:
        """Stop the timer: the client has read all, or the connection has ended."""
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _write_timeout(self, before: int) -> None:
        """Close the connection unless the client has read a part of the response since the timer was started."""
        if before - self.transport.get_write_buffer_size() < MIN_READ:
            self.transport.abort()
        else:
            self._start_write_timer()


class _LimitedProtocol(LimitedConnection, H11Protocol):
    """Close a connection that does not send a request, or does not read its response, in time."""

    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.conn = _Connection()
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        transport.set_write_buffer_limits(0)  # pause as soon as the client's and the socket's buffers are full
        n_of_address = self.count_connection(self.client)
        if len(self.connections) > self.limits.connections:
            self._reject(503, f"too many connections, at most {self.limits.connections} (limits.connections)")
        elif n_of_address > self.limits.client_connections:
            most = self.limits.client_connections
            self._reject(503, f"too many connections of one address, at most {most} (limits.client_connections)")
        else:
            self._update_head_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._address is not None:  # otherwise the connection is a WebSocket now
            self._update_head_timer()

    def _should_upgrade(self) -> bool:
        """Return whether the request begins a WebSocket; on other paths it is a request as any other."""
        lines = [(b"", self.scope["raw_path"] + self.scope["query_string"]), *self.headers]
        is_small = len(lines) <= MAX_SOCKET_LINES and all(len(a) + len(b) < MAX_SOCKET_LINE for a, b in lines)
        return self.scope["path"] in WEBSOCKET_PATHS and is_small and super()._should_upgrade()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._stop_head_timer()
        self.forget_connection()
        super().handle_websocket_upgrade(event)

    def _update_head_timer(self) -> None:
        """Run a timer while no response is pending; single bytes of a head do not restart it."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_timeout)
        elif not waits:
            self._stop_head_timer()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timeout(self) -> None:
        if not self.transport.is_closing():
            self._reject(408, f"no request arrived within {self.limits.header_seconds:g} s")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self.forget_connection()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Reject invalid HTTP; uvicorn calls this while it handles h11's exception."""
        error = sys.exc_info()[1]
        self._reject(getattr(error, "error_status_hint", 400), f"invalid HTTP request: {error or msg}")

    def _reject(self, status: int, message: str) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        body = json.dumps({"error": error_body(http_error(status, message))}).encode()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            head = h11.Response(status_code=status, headers=[*headers, ("connection", "close")])
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def limited_protocol(limits: Limits, by_address: Counter[str]) -> type[asyncio.Protocol]:
    """Return the class for ``uvicorn.Config(http=...)``; it counts connections in `by_address`."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "by_address": by_address})
