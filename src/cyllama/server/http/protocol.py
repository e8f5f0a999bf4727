"""HTTP protocol for uvicorn with limits for slow, idle and too many connections."""

from __future__ import annotations

import asyncio
import json
import sys

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cyllama.server.config import Limits
from cyllama.server.http.errors import error_body, http_error

__all__ = ["HEAD_BYTES", "limited_protocol"]

HEAD_BYTES = 1 << 15
"""Maximum size of a request's first line and headers."""


class _LimitedProtocol(H11Protocol):
    """Close a connection that does not send a request, or does not read its response, in time."""

    limits = Limits()

    _head_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._reject(503, "too many connections")
        else:
            self._update_head_timer()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._update_head_timer()

    def _update_head_timer(self) -> None:
        """Run a timer while no response is pending; single bytes of a head do not restart it."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_seconds, self._head_timeout)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timeout(self) -> None:
        if not self.transport.is_closing():
            self._reject(408, f"no request arrived within {self.limits.header_seconds:g} s")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
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


def limited_protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return the class for ``uvicorn.Config(http=...)``."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits})
