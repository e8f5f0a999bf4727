"""``cyllama serve`` in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import requests

__all__ = ["ENDLESS", "START_SECONDS", "Server", "running_server"]

START_SECONDS = 120.0
ROOT = Path(__file__).resolve().parents[2]


# a small model that can generate without end, because its context shifts
ENDLESS = """
[models.tiny]
model = "tiny-random-llama"
n_ctx = 4096
n_parallel = 2
ctx_shift = true
preload = true
"""


class Server:
    """A running server and its client."""

    def __init__(self, process: subprocess.Popen[str], address: str, errors: list[str]) -> None:
        self.process, self.url, self.errors = process, address, errors
        self.port = int(address.rsplit(":", 1)[1])

    def get(self, path: str, **more: Any) -> requests.Response:
        return requests.get(self.url + path, timeout=300, **more)

    def post(self, path: str, body: Any = None, **more: Any) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=300, **more)

    def events(self, path: str, body: Any, **more: Any) -> list[Any]:
        """Return the events of a streamed response."""
        with requests.post(self.url + path, json=body, timeout=300, stream=True, **more) as response:
            assert response.status_code == 200, response.text
            lines = [line for line in response.iter_lines() if line.startswith(b"data: ")]
        return [json.loads(line[6:]) for line in lines if line != b"data: [DONE]"]

    def metric(self, name: str, **labels: str) -> float:
        """Return a value of /metrics, or 0."""
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        for line in self.get("/metrics").text.splitlines():
            if line.startswith(name) and all(label in line for label in wanted):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    def connect(self) -> socket.socket:
        """Open a TCP connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("the server does not run")

    def stop(self, sig: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait, and return the exit code."""
        self.process.send_signal(sig)
        return self.process.wait(timeout=60)

    def wait_until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Wait until a condition is true."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "the condition did not become true"
            time.sleep(0.02)


@contextlib.contextmanager
def running_server(
    *arguments: object, environment: dict[str, str] | None = None, open_files: int | None = None
) -> Iterator[Server]:
    """Run ``cyllama serve`` on a free port for the length of the block; it may open `open_files` files."""
    words = [sys.executable, "-m", "cyllama", "serve", "--port", "0", *map(str, arguments)]
    if open_files is not None:
        words = ["prlimit", f"--nofile={open_files}", *words]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, **(environment or {})}
    )
    errors: list[str] = []
    addresses: queue.Queue[str | None] = queue.Queue()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            errors.append(line)
            if line.startswith("http://"):
                addresses.put(line.split()[0])
        addresses.put(None)

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        address = addresses.get(timeout=START_SECONDS)
        assert address is not None, "".join(errors)
        yield Server(process, address, errors)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        reader.join()
        if process.stderr is not None:
            process.stderr.close()
