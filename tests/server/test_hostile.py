"""Hostile requests get the right status, and the server still responds correctly to the next request."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from server.conftest import KEY
from server.hostile_requests import FORMS, JSONS, RAW, multipart
from server.running import Server

import cyllama

BOUNDARY = "a-boundary-of-the-tests"
PACKAGE = Path(cyllama.__file__).parent


def check(server: Server, key: dict[str, str], status: int, text: str, expected: tuple[int, ...]) -> None:
    assert status in expected, text[:500]
    assert "Traceback" not in text and str(PACKAGE) not in text and 'File "' not in text
    if status >= 400 and text:
        error = json.loads(text)["error"]
        assert error["message"] and error["type"], error
    check_healthy(server, key)


def check_healthy(server: Server, key: dict[str, str]) -> None:
    """Check the response to a valid request."""
    assert server.process.poll() is None, "".join(server.errors)
    body = {
        "model": "smol",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "max_tokens": 3,
        "temperature": 0,
    }
    response = server.post("/v1/chat/completions", body, headers=key)
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == "The capital of"


@pytest.mark.parametrize("name", JSONS)
def test_rejects_hostile_json(server: Server, key: dict[str, str], name: str) -> None:
    case = JSONS[name]
    raw = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    status, text = send(server, case.method, case.path, raw, "application/json")
    check(server, key, status, text, case.statuses)


@pytest.mark.parametrize("name", FORMS)
def test_rejects_hostile_forms(server: Server, key: dict[str, str], name: str) -> None:
    case = FORMS[name]
    raw = multipart(case.parts, BOUNDARY)
    status, text = send(server, "POST", case.path, raw, f"multipart/form-data; boundary={BOUNDARY}")
    check(server, key, status, text, case.statuses)


def send(server: Server, method: str, path: str, raw: bytes, kind: str) -> tuple[int, str]:
    """Send a request with an unchanged path, and return status and text; the server may respond before the body's end."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):  # rejected before the end of the body
            connection.sendall(head.encode() + raw)
        return read_response(connection)


def read_response(connection: socket.socket) -> tuple[int, str]:
    """Read until the server closes, and return status and body; 0 without a response."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    if not found:
        return 0, ""
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@pytest.mark.parametrize("name", RAW)
def test_survives_hostile_connections(server: Server, key: dict[str, str], name: str) -> None:
    case = RAW[name]
    data = case.data.replace(b"Bearer KEY", f"Bearer {KEY}".encode())
    connection = server.connect()
    with connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        if case.disconnect_after is None:
            status, text = read_response(connection)
            if not (case.may_close and status == 0):
                check(server, key, status, text, case.statuses)
        else:
            time.sleep(case.disconnect_after)
    check_healthy(server, key)


def test_no_request_remains(server: Server, key: dict[str, str]) -> None:

    def requests_of_engines() -> float:
        lines = server.get("/metrics", headers=key).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("cyllama_engine_requests{"))

    server.wait_until(lambda: requests_of_engines() == 0)


@pytest.fixture
def listener() -> Any:
    """Listen on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.settimeout(0.5)
        yield found


def test_fetches_no_urls(server: Server, key: dict[str, str], listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.png"
    part = {"type": "image_url", "image_url": {"url": url}}
    messages = [{"role": "user", "content": [part]}]
    image = {"type": "image", "source": {"type": "url", "url": url}}
    for path, body in (
        ("/v1/chat/completions", {"model": "smol", "messages": messages}),
        ("/apply-template", {"model": "smol", "messages": messages}),
        ("/v1/messages", {"model": "smol", "max_tokens": 2, "messages": [{"role": "user", "content": [image]}]}),
        (
            "/v1/responses",
            {"model": "smol", "input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]},
        ),
        ("/v1/embeddings", {"model": "minilm", "input": {"content": [part]}}),
        ("/sdapi/v1/img2img", {"prompt": "x", "init_images": [url]}),
    ):
        assert requests.post(server.url + path, json=body, headers=key, timeout=60).status_code == 400, path
    with pytest.raises(TimeoutError):
        listener.accept()
