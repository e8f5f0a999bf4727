"""uvicorn's protocol with limits for clients that are slow, silent or too many."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from cyllama.server.config import Limits
from cyllama.server.problems import problem

__all__ = ["protocol_with"]

HEAD_BYTES = 1 << 15  # of a request's first line and headers


class Guarded(H11Protocol):
    """Closes a connection whose head does not arrive, or whose client does not read, in time."""

    limits = Limits()

    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            self._refuse(503, "there are too many connections")
        else:
            self._wait_for_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait_for_head()

    def _wait_for_head(self) -> None:
        """No request is being answered: the next one has so long to begin, however often a byte comes."""
        waits = self.cycle is None or self.cycle.response_complete
        if waits and self._head_timer is None:
            self._head_timer = self.loop.call_later(self.limits.header_seconds, self._give_up)
        elif not waits and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self._refuse(408, f"no request arrived within {self.limits.header_seconds:g} s")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_timer = self.loop.call_later(self.limits.send_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head_timer, self._read_timer):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP; called while the reason is being handled."""
        error = sys.exc_info()[1]
        self._refuse(getattr(error, "error_status_hint", 400), f"this is no request: {error or msg}")

    def _refuse(self, status: int, message: str) -> None:
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        detail: Any = problem(status, message).detail
        body = json.dumps({"error": detail}).encode()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            head = h11.Response(status_code=status, headers=[*headers, ("connection", "close")])
            for event in (head, h11.Data(data=body), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def protocol_with(limits: Limits) -> type[asyncio.Protocol]:
    """The class for ``uvicorn.Config(http=...)``."""
    return type("Guarded", (Guarded,), {"limits": limits})
