"""Who may come in: keys, names of the host, origins, how many, how fast."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server.conftest import KEY
from server.running import Server, running_server

LONG = {"prompt": "Once", "max_tokens": 10_000_000, "ignore_eos": True, "stream": True}


def chat(server: Server, **headers: str) -> int:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1, "model": "tiny"}
    return int(server.post("/v1/chat/completions", body, headers=headers).status_code)


def test_keys(server: Server) -> None:
    assert chat(server) == 401
    assert chat(server, Authorization=f"Bearer {KEY}x") == 401
    assert chat(server, Authorization="Bearer ") == 401
    assert chat(server, Authorization=f"Bearer {KEY}") == 200
    assert chat(server, **{"x-api-key": KEY}) == 200
    answer = server.get("/v1/models")
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"
    for path in ("/metrics", "/props", "/slots", "/sdapi/v1/progress", "/nothing"):
        assert server.get(path).status_code == 401, path


def test_keys_from_a_file_and_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\none\n\ntwo\n")
    arguments = ("-m", "tiny-random-llama", "--api-key-file", file)
    with running_server(*arguments, environment={"CYLLAMA_API_KEY": "three, four"}) as server:
        for key, status in (("one", 200), ("two", 200), ("three", 200), ("four", 200), ("# ours", 401), ("", 401)):
            answer = server.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
            assert answer.status_code == status, key


def test_no_origin_is_allowed_unasked(tiny_server: Server) -> None:
    """A page of another origin can neither read answers nor start work."""
    answer = tiny_server.get("/v1/models", headers={"Origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.casefold().startswith("access-control")]
    body = json.dumps({"prompt": "x", "max_tokens": 1})
    headers = {"Origin": "https://evil.example", "Content-Type": "text/plain"}
    answer = tiny_server.post("/v1/completions", headers=headers, data=body)
    assert answer.status_code == 403 and "cors_origins" in answer.json()["error"]["message"]
    own = {"Origin": tiny_server.url}
    assert tiny_server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=own).status_code == 200


def test_a_foreign_name_of_the_host_is_refused(tiny_server: Server) -> None:
    """A name that somebody else's server of names lets point to this machine."""
    assert tiny_server.get("/v1/models", headers={"Host": "evil.example"}).status_code == 403
    assert tiny_server.get("/v1/models", headers={"Host": f"localhost:{tiny_server.port}"}).status_code == 200


def test_cors_for_those_who_are_named(tmp_path: Path) -> None:
    with running_server("-m", "tiny-random-llama", "--cors", "https://good.example") as server:
        ask = {"Origin": "https://good.example", "Access-Control-Request-Method": "POST"}
        answer = server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}, headers=ask)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "https://good.example"
        assert "access-control-allow-credentials" not in answer.headers
        evil = server.post("/v1/completions", {"prompt": "x"}, headers={"Origin": "https://evil.example"})
        assert evil.status_code == 403 and "access-control-allow-origin" not in evil.headers


def test_a_public_address_without_a_key_is_warned_of() -> None:
    with running_server("-m", "tiny-random-llama", "--host", "0.0.0.0") as server:
        server.url = f"http://127.0.0.1:{server.port}"
        assert server.get("/health").status_code == 200
    assert any("without an API key" in line for line in server.errors)


# --------------------------------------------------------------------------------- how many at once


@pytest.fixture
def three_at_work(tiny_server: Server) -> Iterator[list[socket.socket]]:
    """As many requests as are allowed, which do not end by themselves."""
    raw = json.dumps(LONG).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode()
    busy = []
    for _ in range(3):
        connection = tiny_server.connect()
        connection.sendall(head + raw)
        busy.append(connection)
    tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 3)
    yield busy
    for connection in busy:
        connection.close()
    tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 0)


def _full(server: Server) -> bool:
    return bool(server.post("/tokenize", {"content": "x"}).status_code == 429)


def test_one_too_many_is_told_when_to_come_again(tiny_server: Server, three_at_work: list[socket.socket]) -> None:
    answer = tiny_server.post("/v1/completions", {"prompt": "x", "max_tokens": 1})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    assert answer.json()["error"]["type"] == "rate_limit_error"
    assert tiny_server.get("/health").status_code == 200
    three_at_work.pop().close()
    tiny_server.wait_until(lambda: not _full(tiny_server))
    assert tiny_server.post("/v1/completions", {"prompt": "x", "max_tokens": 1}).status_code == 200


def test_too_many_connections(tiny_server: Server) -> None:
    many = [tiny_server.connect() for _ in range(60)]
    try:
        answers = []
        for connection in many:
            connection.settimeout(0.2)
            try:
                answers.append(connection.recv(100))
            except TimeoutError:
                answers.append(None)
            except ConnectionError:
                answers.append(b"")
        refused = [answer for answer in answers if answer is not None]
        assert len(refused) >= 20
        assert any(answer.startswith(b"HTTP/1.1 503") for answer in refused)
    finally:
        for connection in many:
            connection.close()
    tiny_server.wait_until(lambda: tiny_server.connect().close() is None and _healthy(tiny_server))


def _healthy(server: Server) -> bool:
    try:
        return bool(server.get("/health").status_code == 200)
    except OSError:
        return False


# ------------------------------------------------------------------------------------- slow clients


def last_of(connection: socket.socket) -> bytes:
    """All that comes until the server closes."""
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


def test_a_head_that_does_not_end(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        began = time.monotonic()
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
        for _ in range(20):
            try:
                connection.sendall(b"X-A: b\r\n")
            except OSError:
                break
            time.sleep(0.1)
        assert last_of(connection).startswith(b"HTTP/1.1 408")
        assert time.monotonic() - began < 20


def test_a_silent_connection_is_closed(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        assert b"408" in last_of(connection)[:20]


def test_a_body_that_does_not_end(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        connection.sendall(b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{")
        assert last_of(connection).startswith(b"HTTP/1.1 408")


def test_a_client_that_does_not_read(tiny_server: Server) -> None:
    """Its request is cancelled, and its place is free again."""
    raw = json.dumps(LONG | {"n_probs": 20}).encode()
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", tiny_server.port))
    with connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n"
        connection.sendall(head.encode() + raw)
        tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 1)
        tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 0, 120)


def test_many_at_once_all_get_an_answer(tiny_server: Server) -> None:
    def ask(i: int) -> int:
        return int(tiny_server.post("/v1/completions", {"prompt": f"{i}", "max_tokens": 4}).status_code)

    with ThreadPoolExecutor(16) as pool:
        statuses = list(pool.map(ask, range(64)))
    assert set(statuses) <= {200, 429} and statuses.count(200) >= 3


# -------------------------------------------------------------------------------------------- page


def test_the_page_needs_no_key_and_asks_nobody_else(server: Server) -> None:
    answer = server.get("/")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "http" not in policy and "unsafe" not in policy
    assert answer.headers["x-frame-options"] == "DENY"
    assert server.get("/api.js").status_code == 200
    assert server.get("/../app.py").status_code in (401, 404)
    assert server.get("/no-such-file").status_code == 401
