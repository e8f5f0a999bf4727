"""Live transcription over a WebSocket: access, limits, and hostile clients."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.sounds import jfk_float32
from server.live import (
    RATE,
    TRANSCRIPTION,
    URL,
    LiveClient,
    as_base64,
    live_client,
    local_app,
    recording,
)
from server.running import Server
from starlette.testclient import TestClient, WebSocketDenialResponse
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cyllama.server import Limits, ModelEntry, ServerConfig, create_app
from cyllama.server.http.websocket import MAX_FRAMES

# --------------------------------------------------------------------------------------- access


def denied(app: TestClient, path: str = "/v1/realtime", **options: Any) -> int:
    with pytest.raises(WebSocketDenialResponse) as caught, app.websocket_connect(f"ws://localhost{path}", **options):
        pass
    return int(caught.value.status_code)


def test_requires_a_key_in_a_header_or_a_subprotocol() -> None:
    with local_app(api_keys=["a/b (c)%"]) as app:
        assert denied(app) == denied(app, headers={"Authorization": "Bearer other"}) == 401
        assert denied(app, subprotocols=["realtime", "openai-insecure-api-key.a"]) == 401
        with app.websocket_connect(URL, headers={"Authorization": "Bearer a/b (c)%"}) as socket:
            assert socket.receive_json()["type"] == "session.created"
        names = ["realtime", "openai-insecure-api-key.a%2Fb%20%28c%29%25", "openai-beta.realtime-v1"]
        with app.websocket_connect(URL, subprotocols=names) as socket:
            assert socket.accepted_subprotocol == "realtime"
            assert socket.receive_json()["type"] == "transcription_session.created"


def test_checks_origin_host_and_query() -> None:
    with local_app() as app:
        for headers in (
            {"Origin": "https://evil.example"},
            {"Origin": "null"},
            {"Host": "evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            assert denied(app, headers=headers) == 403
        assert denied(app, "/v1/realtime?model=nothing") == 404
        assert denied(app, "/v1/realtime?call_id=1") == denied(app, "/v1/realtime?intent=conversation") == 400
        assert denied(app, "/v1/other") == 404
        assert app.get("/v1/realtime").status_code == 426
        with app.websocket_connect("ws://localhost/realtime", headers={"Origin": "http://localhost"}) as socket:
            assert socket.receive_json()["type"] == "session.created"
    with local_app(cors_origins=["https://good.example"]) as app:
        with app.websocket_connect(URL, headers={"Origin": "https://good.example"}) as socket:
            assert socket.receive_json()["type"] == "session.created"


# --------------------------------------------------------------------------------------- limits


def test_limits_sessions_of_a_client(low_server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(live_client(low_server))
        with pytest.raises(InvalidStatus) as caught:
            stack.enter_context(live_client(low_server))
        assert caught.value.response.status_code == 429 and caught.value.response.headers["Retry-After"]
        with live_client(low_server, source_address=("127.0.0.2", 0)):
            assert low_server.metric("cyllama_live_sessions") == 4
    low_server.wait_until(lambda: low_server.metric("cyllama_live_sessions") == 0)


def test_closed_sessions_are_no_connections_of_their_client(low_server: Server) -> None:
    """The limit is 8 connections of an address."""
    for _ in range(20):
        with live_client(low_server):
            pass
    with live_client(low_server):
        assert low_server.get("/health").status_code == 200


def test_idle_session_ends() -> None:
    with local_app(limits=Limits(live_idle_seconds=0.05)) as app, app.websocket_connect(URL) as socket:
        assert socket.receive_json()["type"] == "session.created"
        assert socket.receive()["code"] == 1001


def test_reads_no_more_than_it_can_keep(low_server: Server, low: LiveClient) -> None:
    """The messages are ten times the limit of those that wait; none is lost."""
    silence = as_base64(np.zeros(RATE, np.float32), RATE)
    for _ in range(50):
        low.append(silence)
    low.append(as_base64(recording("capital-of-france"), 16_000))
    event = low.wait_for("input_audio_buffer.speech_started", "error")
    assert event["audio_start_ms"] == pytest.approx(50_000, abs=700)


# ------------------------------------------------------------------------------ hostile clients

GARBAGE: dict[str, tuple[str | bytes, str | None]] = {
    "no JSON": ("{", None),
    "a list": ("[]", None),
    "a number": ("7", None),
    "NaN": ('{"type": NaN}', None),
    "no type": ("{}", "type"),
    "a type that is no text": ('{"type": {}}', "type"),
    "an unknown type": ('{"type": "a"}', "type"),
    "a type for conversations": ('{"type": "response.create"}', "type"),
    "an event_id that is no text": ('{"type": "input_audio_buffer.clear", "event_id": 1}', "event_id"),
    "an unknown field": ('{"type": "input_audio_buffer.clear", "item": 1}', "item"),
    "deep JSON": ("[" * 50_000 + "]" * 50_000, None),
    "deep fields": ('{"type": ' * 20 + "1" + "}" * 20, None),
    "many values": ('{"type": [' + "1," * 5000 + "1]}", None),
    "no audio": ('{"type": "input_audio_buffer.append"}', "audio"),
    "audio that is no text": ('{"type": "input_audio_buffer.append", "audio": [1]}', "audio"),
    "wrong base64": ('{"type": "input_audio_buffer.append", "audio": "a!b"}', "audio"),
    "empty audio": ('{"type": "input_audio_buffer.append", "audio": ""}', "audio"),
    "half a sample": ('{"type": "input_audio_buffer.append", "audio": "QQ=="}', "audio"),
    "an empty commit": ('{"type": "input_audio_buffer.commit"}', None),
    "binary": (b"\x00\x01", None),
}


def test_errors_do_not_end_a_session(low: LiveClient) -> None:
    for name, (message, param) in GARBAGE.items():
        low.connection.send(message)
        event = low.receive()
        assert event["type"] == "error" and event["error"]["param"] == param, name
        assert isinstance(event["error"]["code"], str) and event["event_id"], name
    assert low.update()["type"] == "session.updated"


def test_large_message_ends_the_session(low_server: Server, low: LiveClient) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        low.connection.send("a" * 400_000)
        low.receive()
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1009
    assert low_server.get("/health").status_code == 200


def test_message_of_many_frames_ends_the_session(low: LiveClient) -> None:
    with pytest.raises(ConnectionClosed) as caught:
        low.connection.send("" for _ in range(MAX_FRAMES + 10))
        low.receive()
    assert caught.value.rcvd is not None and caught.value.rcvd.code == 1008


UPGRADE = (
    b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.mark.parametrize("frame", [b"\x81\x81\0\0\0\0{", b"\x89\x80\0\0\0\0"], ids=["wrong messages", "pings"])
def test_client_that_does_not_read_loses_its_session(low_server: Server, frame: bytes) -> None:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", low_server.port))
    with connection:
        connection.sendall(UPGRADE + b"\r\n")
        assert connection.recv(12) == b"HTTP/1.1 101"
        low_server.wait_until(lambda: low_server.metric("cyllama_live_sessions") == 1)
        connection.settimeout(60)
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            while True:
                connection.sendall(frame * 5000)
    low_server.wait_until(lambda: low_server.metric("cyllama_live_sessions") == 0)


@pytest.mark.parametrize(
    "head",
    [
        UPGRADE.replace(b"Sec-WebSocket-Version: 13\r\n", b""),
        UPGRADE.replace(b"dGhlIHNhbXBsZSBub25jZQ==", b"a"),
        UPGRADE.replace(b"/v1/realtime", b"/v1/realtime?a=" + b"b" * 9000),
        UPGRADE + b"X-A: " + b"b" * 9000 + b"\r\n",
        UPGRADE + b"X-A: b\r\n" * 99,
        UPGRADE + b"Sec-WebSocket-Protocol: " + b"a," * 3000 + b"a\r\n",
    ],
)
def test_malformed_upgrade_gets_a_response(low_server: Server, head: bytes) -> None:
    with low_server.connect() as connection:
        connection.sendall(head + b"\r\n")
        status = int(connection.recv(4096).split()[1])
    assert status in (101, 400, 426, 431)
    low_server.wait_until(lambda: low_server.metric("cyllama_live_sessions") == 0)


def test_disconnect_gives_the_model_back(low_server: Server) -> None:
    with live_client(low_server) as client:
        client.update(turn_detection=None)
        client.append(as_base64(jfk_float32()[:16_000], 16_000))
        # the turn takes the model when the last message has been handled
        low_server.wait_until(lambda: low_server.post("/models/unload", {"model": "speech"}).status_code == 409)
        client.connection.socket.shutdown(socket.SHUT_RDWR)
    low_server.wait_until(lambda: low_server.metric("cyllama_live_sessions") == 0)
    assert low_server.post("/models/unload", {"model": "speech"}).status_code == 200


def test_failure_of_the_model_belongs_to_its_item(tmp_path: Path) -> None:
    broken = tmp_path / "broken.bin"
    broken.write_bytes(b"not a model")
    config = ServerConfig(models=[ModelEntry(name="broken", kind="whisper", model=broken)])
    silence = as_base64(np.zeros(8_000, np.float32), 16_000)
    session = {"type": "transcription", "audio": {"input": {"turn_detection": None}}}
    with (
        TestClient(create_app(config), base_url="http://localhost") as app,
        app.websocket_connect(URL) as ws,
    ):
        ws.send_json({"type": "session.update", "session": session})
        for _ in range(2):
            ws.send_json({"type": "input_audio_buffer.append", "audio": silence})
            ws.send_json({"type": "input_audio_buffer.commit"})
            events = []
            while not events or events[-1]["type"] != f"{TRANSCRIPTION}.failed":
                events.append(ws.receive_json())
            commit = next(event for event in events if event["type"] == "input_audio_buffer.committed")
            assert events[-1]["item_id"] == commit["item_id"] and str(tmp_path) not in json.dumps(events)
