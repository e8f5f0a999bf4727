"""Hostile requests: each gets the right status, the server stays up, and the next request is answered right."""

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
from server.hostile import FORMS, JSONS, RAW, multipart
from server.running import Server

import cyllama

BOUNDARY = "a-boundary-of-the-tests"
PACKAGE = Path(cyllama.__file__).parent


def check(server: Server, key: dict[str, str], status: int, text: str, wanted: tuple[int, ...]) -> None:
    assert status in wanted, text[:500]
    assert "Traceback" not in text and str(PACKAGE) not in text and 'File "' not in text
    if status >= 400 and text:
        error = json.loads(text)["error"]
        assert error["message"] and error["type"], error
    well(server, key)


def well(server: Server, key: dict[str, str]) -> None:
    """The next request is answered right."""
    assert server.process.poll() is None, "".join(server.errors)
    body = {
        "model": "smol",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "What is the capital of France?"},
        ],
        "max_tokens": 12,
        "temperature": 0,
    }
    answer = server.post("/v1/chat/completions", body, headers=key)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "The capital of France is Paris."


@pytest.mark.parametrize("name", JSONS)
def test_json(server: Server, key: dict[str, str], name: str) -> None:
    case = JSONS[name]
    raw = case.body if isinstance(case.body, bytes) else json.dumps(case.body).encode()
    status, text = sent(server, case.method, case.path, raw, "application/json")
    check(server, key, status, text, case.statuses)


@pytest.mark.parametrize("name", FORMS)
def test_forms(server: Server, key: dict[str, str], name: str) -> None:
    case = FORMS[name]
    raw = multipart(case.parts, BOUNDARY)
    status, text = sent(server, "POST", case.path, raw, f"multipart/form-data; boundary={BOUNDARY}")
    check(server, key, status, text, case.statuses)


def sent(server: Server, method: str, path: str, raw: bytes, kind: str) -> tuple[int, str]:
    """The answer, read while the body may still be on its way; the path is sent as it is written."""
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\nContent-Type: {kind}\r\n"
    head += f"Content-Length: {len(raw)}\r\nConnection: close\r\n\r\n"
    with server.connect() as connection:
        with contextlib.suppress(ConnectionError):  # refused before it was read
            connection.sendall(head.encode() + raw)
        return answer_of(connection)


def answer_of(connection: socket.socket) -> tuple[int, str]:
    """Status and body until the server closes; 0 if it said nothing."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while part := connection.recv(65536):
            found += part
    if not found:
        return 0, ""
    head, _, body = found.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode()


@pytest.mark.parametrize("name", RAW)
def test_raw(server: Server, key: dict[str, str], name: str) -> None:
    case = RAW[name]
    data = case.data.replace(b"Bearer KEY", f"Bearer {KEY}".encode())
    connection = server.connect()
    with connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        if case.leave_after is None:
            status, text = answer_of(connection)
            if not (case.may_close and status == 0):
                check(server, key, status, text, case.statuses)
        else:
            time.sleep(case.leave_after)
    well(server, key)


def test_nothing_stays_behind(server: Server, key: dict[str, str]) -> None:
    """After all that: no request hangs, no body is held, nothing was fetched from this machine."""

    def inside() -> float:
        lines = server.get("/metrics", headers=key).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("cyllama_engine_requests{"))

    server.wait_until(lambda: inside() == 0)


def test_there_are_enough() -> None:
    assert len(JSONS) + len(FORMS) + len(RAW) >= 60


@pytest.fixture
def trap() -> Any:
    """A port of this machine that tells whether anybody came."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        found.settimeout(0.5)
        yield found


def test_nothing_is_fetched(server: Server, key: dict[str, str], trap: socket.socket) -> None:
    url = f"http://127.0.0.1:{trap.getsockname()[1]}/a.png"
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
        trap.accept()
