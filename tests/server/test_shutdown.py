"""The end of the server: what runs may finish, and is cancelled when it takes too long."""

from __future__ import annotations

import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import requests
from server.running import Server, running_server


def ask(server: Server, tokens: int, stream: bool) -> tuple[threading.Thread, list[Any]]:
    """A request in a thread of its own; what comes back, or the exception."""
    found: list[Any] = []

    def run() -> None:
        body = {"prompt": "Once", "max_tokens": tokens, "ignore_eos": True, "stream": stream}
        try:
            found.append(server.post("/v1/completions", body))
        except requests.RequestException as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    server.wait_until(lambda: any(slot["is_processing"] for slot in server.get("/slots").json()))
    return thread, found


def test_what_runs_may_finish(endless: Path) -> None:
    with running_server("--config", endless) as server:
        thread, found = ask(server, 3000, stream=False)
        assert server.stop() == 0
        thread.join()
        assert found[0].status_code == 200
        assert found[0].json()["usage"]["completion_tokens"] == 3000


@pytest.mark.parametrize("stream", [True, False])
def test_what_takes_too_long_is_told(endless: Path, stream: bool) -> None:
    with running_server("--config", endless, "--max-grace-seconds", 0.5) as server:
        thread, found = ask(server, 10_000_000, stream)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20
        thread.join()
        answer = found[0]
        if stream:
            assert answer.status_code == 200
            last = answer.text.rstrip().rsplit("\n\n", 1)[1]
            error = json.loads(last.removeprefix("data: "))["error"]
        else:
            assert answer.status_code == 503
            error = answer.json()["error"]
        assert error["message"] == "the server stops"
    assert not [line for line in server.errors if "Traceback" in line], server.errors


def test_a_second_signal_does_not_wait(endless: Path) -> None:
    with running_server("--config", endless, "--max-grace-seconds", 300) as server:
        thread, found = ask(server, 10_000_000, stream=False)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        assert server.process.poll() is None
        assert server.stop() == 0
        thread.join()
        assert found[0].status_code == 503


def test_ctrl_c() -> None:
    with running_server("-m", "tiny-random-llama") as server:
        assert server.get("/health").status_code == 200
        assert server.stop(signal.SIGINT) == 130
    assert server.errors[-1] == "cyllama: interrupted\n"
