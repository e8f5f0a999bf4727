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
from typing import Any

import pytest
import requests
from server.conftest import KEY
from server.running import ENDLESS, Server, running_server
from starlette.testclient import TestClient

from cyllama.cli import main
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


@pytest.mark.parametrize(
    ("user", "password", "status"),
    [
        ("user", KEY, 200),
        ("", KEY, 200),
        ("any: name", f"x:{KEY}", 401),
        ("user", f"{KEY}x", 401),
        ("user", KEY[:-1], 401),
        ("user", "", 401),
        (KEY, "", 401),
        (KEY, "user", 401),
    ],
)
def test_password_of_basic_authentication_is_a_key(server: Server, user: str, password: str, status: int) -> None:
    for path in ("/sdapi/v1/options", "/v1/models"):
        assert server.get(path, auth=(user, password)).status_code == status


@pytest.mark.parametrize("value", [f"Basic {KEY}", "Basic", "Basic ====", f"Basic user:{KEY}"])
def test_rejects_malformed_basic_credentials(server: Server, value: str) -> None:
    response = server.get("/sdapi/v1/options", headers={"Authorization": value})
    assert response.status_code == 401 and response.headers["www-authenticate"] == "Bearer"


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
    assert response.status_code == 403
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


def test_any_origin_may_be_allowed() -> None:
    with client_of("--cors", "*") as client:
        response = client.get("/v1/models", headers={"Origin": "https://any.example"})
        assert response.headers["access-control-allow-origin"] == "https://any.example"
        assert "access-control-allow-credentials" not in response.headers


def test_configured_origins_may_use_every_method() -> None:
    asked = {"Origin": "https://good.example", "Access-Control-Request-Headers": "authorization"}
    with client_of("--cors", "https://good.example") as client:
        for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("DELETE", "/v1/videos/x")):
            response = client.options(path, headers={**asked, "Access-Control-Request-Method": method})
            assert response.status_code == 200, method


def config_of(**settings: Any) -> ServerConfig:
    return ServerConfig(models=[ModelEntry(name="tiny", kind="llm", model="tiny-random-llama")], **settings)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "[::]", "192.168.1.5", "a-name.example", "127.0.0.1,0.0.0.0"])
def test_public_address_needs_key_or_option(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "limit_heaps", lambda: None)
    monkeypatch.setattr(run.sys, "setswitchinterval", lambda seconds: None)
    monkeypatch.setattr(run, "_listen", refuse)
    with pytest.raises(ValueError, match="allow_no_key"):
        serve(config_of(host=host))
    for settings in ({"api_keys": ["key"]}, {"allow_no_key": True}):
        with pytest.raises(OSError, match="listens"):
            serve(config_of(host=host, **settings))
    with pytest.raises(OSError, match="listens"):
        serve(config_of(host="127.0.0.1"))


def refuse(config: ServerConfig) -> socket.socket:
    raise OSError(f"listens on {config.host}")


def test_command_line_refuses_public_address(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "-m", "tiny-random-llama", "--host", "0.0.0.0", "--port", "0"]) == 1
    assert "--allow-no-key" in capfd.readouterr().err


@contextlib.contextmanager
def public_client(**settings: Any) -> Iterator[TestClient]:
    with TestClient(create_app(config_of(host="0.0.0.0", **settings)), base_url="http://localhost") as found:
        yield found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("evil.example", 403),
        ("evil.example:8080", 403),
        ("192.168.1.5.evil.example", 403),
        ("", 403),
        ("192.168.1.5", 200),
        ("192.168.1.5:8080", 200),
        ("[fd00::1]:8080", 200),
        ("localhost:8080", 200),
        (f"{socket.gethostname()}:8080", 200),
        ("proxy.example", 200),
    ],
)
def test_checks_host_names_on_public_address(host: str, status: int) -> None:
    """DNS rebinding: a page of evil.example, which resolves to this server, must not use it."""
    with public_client(allow_no_key=True, allowed_hosts=["proxy.example"]) as client:
        assert client.get("/v1/models", headers={"Host": host}).status_code == status


def test_accepts_any_host_on_request() -> None:
    with public_client(allow_no_key=True, allowed_hosts=["*"]) as client:
        assert client.get("/v1/models", headers={"Host": "any.example"}).status_code == 200


@pytest.mark.parametrize("path", ["/props", "/slots", "/lora-adapters", "/v1/models", "/metrics"])
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},  # an image or a script of another page
        {"Sec-Fetch-Site": "same-site"},  # another port of this machine
    ],
)
def test_get_of_another_origin_loads_no_model(path: str, headers: dict[str, str]) -> None:
    with client_of() as client:
        response = client.get(path, headers=headers)
        assert response.status_code == 403 and "cors_origins" in response.json()["error"]["message"]
        assert not client.get("/v1/models").json()["data"][0]["loaded"]


def test_get_of_own_page_and_of_programs_is_allowed() -> None:
    with client_of() as client:
        for headers in (
            {},
            {"Origin": "http://localhost"},
            {"Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ):
            assert client.get("/v1/models", headers=headers).status_code == 200
        page = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}  # a link to the page
        assert client.get("/health", headers=page).status_code == 200


@pytest.mark.parametrize("name", ["metrics", "slots"])
def test_disabled_route_answers_501(name: str) -> None:
    with client_of(f"--no-{name}") as client:
        response = client.get(f"/{name}")
        assert response.status_code == 501 and response.json()["error"]["type"] == "not_supported_error"
        assert f"--no-{name}" in response.json()["error"]["message"]
        assert not client.get("/v1/models").json()["data"][0]["loaded"]
        other = "slots" if name == "metrics" else "metrics"
        assert client.get(f"/{other}").status_code == 200


# --------------------------------------------------------------------------------- rate limits


@pytest.fixture
def full_queue(tiny_server: Server) -> Iterator[list[socket.socket]]:
    """Fill the queue with three requests that do not end, of different clients."""
    connections = []
    for i in range(3):
        connection = socket.create_connection(("127.0.0.1", tiny_server.port), 60, (f"127.0.0.{i + 2}", 0))
        connection.sendall(post_of(LONG))
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


def test_one_client_cannot_fill_the_queue(tiny_server: Server) -> None:
    connections = []
    for _ in range(3):
        connection = tiny_server.connect()
        connection.sendall(post_of(LONG))
        connections.append(connection)
    try:
        connections[2].settimeout(60)
        rejected = b""
        while not rejected.endswith(b"}"):
            rejected += connections[2].recv(4096)
        assert rejected.startswith(b"HTTP/1.1 429") and b"limits.client_requests" in rejected
        with socket.create_connection(("127.0.0.1", tiny_server.port), 60, ("127.0.0.2", 0)) as other:
            other.sendall(post_of({"content": "x"}, "/tokenize"))
            assert other.recv(4096).startswith(b"HTTP/1.1 200")
    finally:
        for connection in connections:
            connection.close()
    tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 0)


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


def test_streams_that_nobody_reads_give_back_their_slots(tmp_path: Path) -> None:
    """Their clients open them as any other, with the buffers of the system, and wait."""
    config = tmp_path / "models.toml"
    config.write_text(ENDLESS.replace("n_parallel = 2", "n_parallel = 20"))
    with running_server("--config", config, "--max-send-seconds", 1) as server:
        unread = []
        for _ in range(20):
            connection = server.connect()
            connection.sendall(post_of(LONG))
            unread.append(connection)
        server.wait_until(lambda: server.metric("cyllama_engine_requests", engine="llm") == 20)
        server.wait_until(lambda: server.metric("cyllama_engine_requests", engine="llm") == 0, 120)
        assert server.post("/v1/completions", {"prompt": "x", "max_tokens": 4}).status_code == 200
        for connection in unread:
            connection.close()


def post_of(body: Any, path: str = "/v1/completions") -> bytes:
    raw = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n\r\n".encode() + raw


def test_finished_response_that_nobody_reads_is_ended(tiny_server: Server) -> None:
    """A response of 2 MB is computed at once; its client then reads nothing."""
    connection = tiny_server.connect()
    with connection:
        connection.sendall(post_of({"content": "a b " * 100_000}, "/tokenize"))
        tiny_server.wait_until(lambda: open_connections(tiny_server) >= 1)
        tiny_server.wait_until(lambda: open_connections(tiny_server) == 0)
        tiny_server.wait_until(lambda: tiny_server.metric("cyllama_engine_requests", engine="llm") == 0)


def open_connections(server: Server) -> int:
    """Return the number of the server's connections, without those of this function."""
    lines = Path(f"/proc/{server.process.pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {line.split()[9] for line in lines if line.split()[3] == "01"}
    links = []
    for link in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            links.append(str(link.readlink()))
    return sum(link.removeprefix("socket:[").removesuffix("]") in inodes for link in links)


def test_slow_reader_gets_all_of_a_large_response(tiny_server: Server) -> None:
    """It takes longer than the limit of 2 s for the whole, but reads a part in each of them."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    connection.connect(("127.0.0.1", tiny_server.port))
    with connection:
        connection.sendall(post_of({"content": "a b " * 100_000}, "/tokenize"))
        head = connection.recv(4096)
        size = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        received = len(head.split(b"\r\n\r\n", 1)[1])
        pause = 5.0 * (1 << 15) / size
        while part := connection.recv(1 << 15) if received < size else b"":
            received += len(part)
            time.sleep(pause)
        assert received == size > 500_000


def test_rejects_body_of_many_small_chunks(tiny_server: Server) -> None:
    with tiny_server.connect() as connection:
        head = b"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with contextlib.suppress(ConnectionError):
            connection.sendall(head + b"1\r\n \r\n" * 300_000 + b"0\r\n\r\n")
        found = read_all(connection)
    assert not found or (found.startswith(b"HTTP/1.1 400") and b"chunks" in found)
    assert is_healthy(tiny_server)


def test_accepts_body_of_large_chunks(tiny_server: Server) -> None:
    parts = [b'{"content":"', *[b"a " * 100] * 2000, b'"}']
    response = requests.post(f"{tiny_server.url}/tokenize", data=iter(parts), timeout=60)
    assert response.status_code == 200


def test_limits_connections_of_one_address(endless: Path) -> None:
    with running_server("--config", endless, "--max-client-connections", 10) as server:
        many = [server.connect() for _ in range(20)]
        try:
            rejected = [connection for connection in many if read_now(connection)]
            assert len(rejected) == 10
            assert all(b"limits.client_connections" in read_all(connection) for connection in rejected[:1])
            with socket.create_connection(("127.0.0.1", server.port), 60, ("127.0.0.2", 0)) as other:
                other.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert read_all(other).startswith(b"HTTP/1.1 200")
        finally:
            for connection in many:
                connection.close()
        server.wait_until(lambda: is_healthy(server))


def read_now(connection: socket.socket) -> bytes:
    """Return what has arrived, which stays to be read."""
    connection.settimeout(0.2)
    try:
        return connection.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return b""


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
