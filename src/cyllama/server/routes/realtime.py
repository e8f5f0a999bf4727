"""Live transcription over a WebSocket: OpenAI's ``/v1/realtime`` for sessions of transcription."""

from __future__ import annotations

import asyncio
import contextlib
import time

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from cyllama.server.http.clients import client_name
from cyllama.server.http.errors import error_response, http_error, log
from cyllama.server.http.protocol import WEBSOCKET_PATHS
from cyllama.server.http.response_stream import ResponseStream
from cyllama.server.http.task import STOPPING, join_thread
from cyllama.server.protocols.realtime import Settings, error_line
from cyllama.server.routes._live_session import LiveSession
from cyllama.server.state import ServerState

__all__ = ["realtime_routes"]

SUBPROTOCOL, BETA_SUBPROTOCOL = "realtime", "openai-beta.realtime-v1"
BETA_HEADER = "openai-beta"
QUERY = {"model": None, "intent": "transcription"}
GOING_AWAY, INTERNAL_ERROR, SERVICE_RESTART = 1001, 1011, 1012


def realtime_routes(state: ServerState) -> list[BaseRoute]:
    """Return the routes of live transcription; a request that is no WebSocket gets the status 426."""
    found: list[BaseRoute] = [WebSocketRoute(path, _Endpoint(state)) for path in WEBSOCKET_PATHS]
    return [*found, *(Route(path, _require_upgrade, methods=["GET"]) for path in WEBSOCKET_PATHS)]


async def _require_upgrade(request: Request) -> None:
    raise http_error(426, "expected a WebSocket", headers={"Upgrade": "websocket", "Connection": "Upgrade"})


class _Endpoint:
    """The ASGI application of the route."""

    def __init__(self, state: ServerState) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the request, and run its session."""
        websocket = WebSocket(scope, receive, send)
        client = client_name(scope)
        queue = self._state.live_queue
        try:
            self._state.tasks.check()
            _check_query(websocket)
            settings = Settings(model=self._state.find_model(websocket.query_params.get("model"), "speech").name)
            queue.enter(client)
        except HTTPException as error:
            await error_response(error)(scope, receive, send)
            return
        began = time.monotonic()
        try:
            await _run(self._state, websocket, settings)
        finally:
            queue.leave(time.monotonic() - began, client)


def _check_query(websocket: WebSocket) -> None:
    for name, value in websocket.query_params.multi_items():
        if name not in QUERY:
            raise http_error(400, f"unknown query parameter {name!r:.100}, expected model or intent", param=name[:100])
        if QUERY[name] not in (None, value):
            raise http_error(400, f"{name} is {value!r:.100}, expected {QUERY[name]!r}", param=name)


async def _run(state: ServerState, websocket: WebSocket, settings: Settings) -> None:
    offered = websocket.scope["subprotocols"]
    is_beta = "realtime=v1" in websocket.headers.get(BETA_HEADER, "") or BETA_SUBPROTOCOL in offered
    session = LiveSession(state, settings, is_beta)
    stream = ResponseStream(session.cancelled)
    try:
        await websocket.accept(SUBPROTOCOL if SUBPROTOCOL in offered else None)
    except (WebSocketDisconnect, OSError):
        return
    thread = state.tasks.start(session, stream)
    reader = asyncio.create_task(_read(state, websocket, session))
    try:
        with contextlib.suppress(WebSocketDisconnect, OSError):
            await _send(websocket, session, stream)
    finally:
        session.cancel("disconnect")
        reader.cancel()
        await join_thread(thread)
        state.tasks.remove(session)


async def _read(state: ServerState, websocket: WebSocket, session: LiveSession) -> None:
    """Pass the client's messages on until it disconnects, is silent for too long, or the server ends."""
    try:
        while True:
            async with asyncio.timeout(state.config.limits.live_idle_seconds):
                message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                break
            text = message.get("text")
            await session.put(message["bytes"] if text is None else text)
    except TimeoutError:
        session.cancel("timeout")
    except Exception as error:
        log.error("cannot read from a live session", exc_info=error)
        session.cancel("disconnect")
    else:
        if state.tasks.stopping:
            session.end()
        else:
            session.cancel("disconnect")


async def _send(websocket: WebSocket, session: LiveSession, stream: ResponseStream) -> None:
    """Send the events of the session, and close the connection after the last one."""
    while True:
        _, data, finished, error = await stream.read()
        for line in data.split(b"\n"):
            if line:
                await websocket.send_text(line.decode())
        if finished:
            break
    if error is None:
        await websocket.close(SERVICE_RESTART, STOPPING)
    elif session.reason == "timeout":
        await websocket.close(GOING_AWAY, "no message arrived for too long (limits.live_idle_seconds)")
    elif session.reason == "shutdown":
        await websocket.close(SERVICE_RESTART, STOPPING)
    elif not session.cancelled.is_set():
        await websocket.send_text(error_line(error).decode())
        await websocket.close(INTERNAL_ERROR)
