"""The native ``llama-server`` for comparison."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["NativeServer", "native_server"]

PROGRAM = Path(__file__).resolve().parents[2] / "bin" / "llama-server"
START_SECONDS = 60.0


class NativeServer:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Return the status and the JSON of a response."""
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def stream(self, path: str, body: Any) -> list[Any]:
        """Return the events of a streamed response."""
        request = urllib.request.Request(
            self.url + path, json.dumps({**body, "stream": True}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=300) as response:
            lines = [line.strip() for line in response]
        return [json.loads(line[6:]) for line in lines if line.startswith(b"data: ") and line != b"data: [DONE]"]


@contextlib.contextmanager
def native_server(*options: object) -> Iterator[NativeServer]:
    """Start ``bin/llama-server`` on a free port, and stop it at the end."""
    assert PROGRAM.exists(), f"make tools builds {PROGRAM.name}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(PROGRAM), "--host", "127.0.0.1", "--port", str(port), "--no-webui", *map(str, options)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = NativeServer(port)
        end = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{server.url}/health", timeout=5) as response:
                if response.status == 200:
                    break
            assert process.poll() is None and time.monotonic() < end, "llama-server did not start"
            time.sleep(0.05)
        yield server
    finally:
        process.terminate()
        process.wait()
