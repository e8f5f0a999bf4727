"""WebSocket protocol for uvicorn with limits for clients that do not read, and for messages of many frames."""

from __future__ import annotations

import asyncio
from collections import Counter

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from cyllama.server.http.protocol import LimitedConnection
from cyllama.server.limits import Limits

__all__ = ["MAX_FRAMES", "limited_websocket"]

MAX_FRAMES = 1024
"""Frames of a message: each takes memory, also an empty one."""
CLOSE_SECONDS = 2.0
"""Time in which a client has to confirm that the connection is closed."""
POLICY_VIOLATION, SERVICE_RESTART = 1008, 1012


class _LimitedWebSocket(LimitedConnection, WebSocketsSansIOProtocol):
    """Close the connection of a client that does not read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.close_timeout = CLOSE_SECONDS
        self.count_connection(self.client)

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget_connection()
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MAX_FRAMES:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(POLICY_VIOLATION, f"a message has more than {MAX_FRAMES:,} frames")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        pong = b"".join(self.conn.data_to_send())
        if self.writable.is_set():  # a client that does not read its pongs gets no more of them
            self.transport.write(pong)

    def shutdown(self) -> None:
        """Let the application finish its work; it closes the connection."""
        if self.handshake_complete and not self.close_sent:
            self.queue.put_nowait({"type": "websocket.disconnect", "code": SERVICE_RESTART})
        else:
            super().shutdown()


def limited_websocket(limits: Limits, by_address: Counter[str]) -> type[asyncio.Protocol]:
    """Return the class for ``uvicorn.Config(ws=...)``; it counts connections in `by_address`."""
    return type("LimitedWebSocket", (_LimitedWebSocket,), {"limits": limits, "by_address": by_address})
