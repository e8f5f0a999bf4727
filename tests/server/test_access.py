"""API keys, host names, origins, rate limits, slow clients."""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server.conftest import KEY
from server.running import Server
from starlette.testclient import TestClient

from cyllama.cli.serve import add_arguments, build_config
from cyllama.server import ModelEntry, ServerConfig, create_app, run, serve

LONG = {"prompt": "Once", "max_tokens": 10_000_000, "ignore_eos": True, "stream": True}


def chat(server: Server, **headers: str) -> int:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "model": "tiny"}
    return int(server.post("/v1/chat/completions", body, headers=headers).status_code)


def test_requires_an_api_key(server: Server) -> None:
    assert chat(server) == 401
    assert chat(server, Authorization=f"Bearer {KEY}x") == 401
    assert chat(server, Authorization="Bearer ") == 401
    assert chat(server, Authorization=f"Bearer {KEY}") == 200
    assert chat(server, **{"x-api-key": KEY}) == 200
    response = server.get("/v1/models")
    assert response.status_code == 401
    assert response.json()["error"]["type"] == "authentication_error"
    assert response.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/props", "/slots", "/sdapi/v1/progress", "/nothing"):
        assert server.get(path).status_code == 401, path


@contextlib.contextmanager
def client_of(*words: object) -> Iterator[TestClient]:
    """Run the application of a command line in this process; no model is loaded."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    config = build_config(parser.parse_args(["-m", "tiny-random-llama", *map(str, words)]))
    with TestClient(create_app(config), base_url="http://localhost") as found:
        yield found


def test_reads_keys_from_file_and_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\none\n\ntwo\n")
    monkeypatch.setenv("CYLLAMA_API_KEY", "three, four")
    with client_of("--api-key-file", file) as client:
        for key, status in (("one", 200), ("two", 200), ("three", 200), ("four", 200), ("# ours", 401), ("", 401)):
            response = client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
            assert response.status_code == status, key


def test_rejects_other_origins(tiny_server: Server) -> None:
    response = tiny_server.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert not [name for name in response.headers if name.casefold().startswith("access-control")]
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    response = tiny_server.post("/v1/completions", headers=headers, data=body)
    assert response.status_code == 403 and "cors_origins" in response.json()["error"]["message"]
    own = {"Origin": tiny_server.url}
    assert tiny_server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=own).status_code == 200


def test_rejects_other_host_names(tiny_server: Server) -> None:
    """DNS rebinding."""
    assert tiny_server.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert tiny_server.get("/v1/models", headers={"Host": f"localhost:{tiny_server.port}"}).status_code == 200


def test_allows_configured_origins() -> None:
    with client_of("--cors", "https://good.example") as client:
        response = client.post("/v1/completions", content=b"{", headers={"Origin": "https://good.example"})
        assert response.status_code == 400  # of the route
        assert response.headers["access-control-allow-origin"] == "https://good.example"
        assert "access-control-allow-credentials" not in response.headers
        evil = client.post("/v1/completions", content=b"{", headers={"Origin": "https://evil.example"})
        assert evil.status_code == 403 and "access-control-allow-origin" not in evil.headers


def test_warns_of_public_address_without_key(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    models = [ModelEntry(name="tiny", kind="llm", model="tiny-random-llama")]
    monkeypatch.setattr(run, "_limit_heaps", lambda: None)
    monkeypatch.setattr(run.sys, "setswitchinterval", lambda seconds: None)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        for key, warnings in (([], 1), (["key"], 0)):
            caplog.clear()
            with pytest.raises(OSError, match="in use"):
                serve(ServerConfig(models=models, host="0.0.0.0", port=port, api_keys=key))
            assert sum("without an API key" in record.message for record in caplog.records) == warnings


# --------------------------------------------------------------------------------- rate limits


@pytest.fixture
def full_queue(tiny_server: Server) -> Iterator[list[socket.socket]]:
    """Fill the queue with three requests that do not end."""
    raw = json.dumps(LONG).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
    connections = []
    for _ in range(3):
        connection = tiny_server.connect()
        connection.sendall(head + raw)
        connections.append(connection)
    tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 3)
    yield connections
    for connection in connections:
        connection.close()
    tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 0)


def is_full(server: Server) -> bool:
    return bool(server.post("/tokenize", {"content": "x"}).status_code == 429)


def test_full_queue_responds_429_with_retry_after(tiny_server: Server, full_queue: list[socket.socket]) -> None:
    response = tiny_server.post("/v1/completions", {"prompt": "x", "max_tokens": 1})
    assert response.status_code == 429
    assert 1 <= int(response.headers["retry-after"]) <= 60
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert tiny_server.get("/health").status_code == 200
    full_queue.pop().close()
    full_queue.pop().close()  # one of two slots is free
    tiny_server.wait_until(lambda: not is_full(tiny_server))
    assert tiny_server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).status_code == 200


def test_rejects_too_many_connections(tiny_server: Server) -> None:
    many = [tiny_server.connect() for _ in range(60)]
    try:
        responses = []
        for connection in many:
            connection.settimeout(0.2)
            try:
                responses.append(connection.recv(100))
            except TimeoutError:
                responses.append(None)
            except ConnectionError:
                responses.append(b"")
        rejected = [response for response in responses if response is not None]
        assert len(rejected) >= 20
        assert any(response.startswith(b"HTTP/1.1 503") for response in rejected)
    finally:
        for connection in many:
            connection.close()
    tiny_server.wait_until(lambda: tiny_server.connect().close() is None and is_healthy(tiny_server))


def is_healthy(server: Server) -> bool:
    try:
        return bool(server.get("/health").status_code == 200)
    except OSError:
        return False


# ------------------------------------------------------------------------------------- slow clients


def read_all(connection: socket.socket) -> bytes:
    """Read until the server closes."""
    connection.settimeout(30)
    found = b""
    while True:
        try:
            part = connection.recv(65536)
        except ConnectionError:
            return found
        if not part:
            return found
        found += part


def test_closes_connection_with_slow_headers(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        began = time.monotonic()
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(20):
            try:
                connection.sendall(b"X-A: b\r\n")
            except OSError:
                break
            time.sleep(0.1)
        assert read_all(connection).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 20


def test_closes_idle_connection(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        assert b"408" in read_all(connection)[:20]


def test_rejects_slow_body(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        assert read_all(connection).startswith(b"HTTP/1.1 408")


def test_cancels_request_of_client_that_does_not_read(tiny_server: Server) -> None:
    raw = json.dumps(LONG | {"n_probs": 20}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", tiny_server.port))
    with connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        connection.sendall(head.encode() + raw)
        tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 1)
        tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 0, 120)


def test_responds_to_all_of_many_requests(tiny_server: Server) -> None:
    def post(i: int) -> int:
        return int(tiny_server.post("/v1/completions", {"prompt": f"{i}", "max_tokens": 4}).status_code)

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(post, range(64)))
    assert set(statuses) <= {200, 429} and statuses.count(200) >= 3


# -------------------------------------------------------------------------------------------- page


def test_page_is_public_with_strict_policy(server: Server) -> None:
    response = server.get("/")
    assert response.status_code == 200 and response.headers["content-type"].startswith("text/html")
    policy = response.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "unsafe" not in policy
    assert response.headers["x-frame-options"] == "DENY"
    assert server.get("/api.js").status_code == 200
    assert server.get("/../app.py").status_code in (401, 404)
    assert server.get("/no-such-file").status_code == 401
