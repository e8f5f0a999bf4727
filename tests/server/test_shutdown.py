"""Graceful shutdown: running requests finish, or are cancelled after the grace period."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import requests
from server.running import Server, running_server


def start_request(server: Server, tokens: int, stream: bool, running: int = 1) -> tuple[threading.Thread, list[Any]]:
    """Send a request in a thread; return the thread, and a list for the response or the exception."""
    found: list[Any] = []

    def run() -> None:
        body = {"prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
        try:
            found.append(server.post("/v1/completions", body))
        except requests.RequestException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server.wait_until(lambda: sum(slot["is_processing"] for slot in server.get("/slots").json()) == running)
    return thread, found


def test_running_requests_finish(endless: Path) -> None:
    with running_server("--config", endless) as server:
        thread, found = start_request(server, 3000, stream=False)
        assert server.stop() == 0
        thread.join()
        assert found[0].status_code == 200
        assert found[0].json()["usage"]["completion_tokens"] == 3000


def test_cancels_requests_after_the_grace_period(endless: Path) -> None:
    with running_server("--config", endless, "--max-grace-seconds", 0.5) as server:
        streamed, events = start_request(server, 10_000_000, stream=True)
        plain, responses = start_request(server, 10_000_000, stream=False, running=2)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
        streamed.join()
        plain.join()
    assert (events[0].status_code, responses[0].status_code) == (200, 503)
    last = events[0].text.rstrip().rsplit("\n\n", 1)[1]
    for body in (json.loads(last.removeprefix("data: ")), responses[0].json()):
        assert body["error"]["message"] == "the server is shutting down"
    assert not [line for line in server.errors if "Traceback" in line], server.errors


def test_clients_that_do_not_read_do_not_delay_the_end(endless: Path) -> None:
    """Their connections hold data that cannot be sent; without the shutdown they would have 300 s to read it."""
    limits = ["--max-grace-seconds", 0.5, "--max-send-seconds", 300]
    with running_server("--config", endless, *limits) as server:
        body = json.dumps({"content": "a b " * 240_000}).encode()
        head = f"POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with server.connect() as connection:
            connection.sendall(head.encode() + body)
            assert connection.recv(15, socket.MSG_PEEK).startswith(b"HTTP/1.1 200")
            assert server.stop() == 0


def test_second_signal_cancels_at_once(endless: Path) -> None:
    with running_server("--config", endless, "--max-grace-seconds", 300) as server:
        thread, responses = start_request(server, 10_000_000, stream=False)
        server.process.send_signal(signal.SIGTERM)
        server.wait_until(lambda: not accepts(server))
        assert server.process.poll() is None
        assert server.stop() == 0
        thread.join()
        assert responses[0].status_code == 503


def accepts(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionError:
        return False
    return True


def test_ctrl_c_exits_with_130() -> None:
    with running_server("-m", "tiny-random-llama") as server:
        assert server.get("/health").status_code == 200
        assert server.stop(signal.SIGINT) == 130
    assert server.errors[-1] == "cyllama: interrupted\n"
