"""A disconnect cancels the request, for all engines."""

from __future__ import annotations

import http.client
import json
import threading
import uuid
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
from server.conftest import KEY
from server.running import Server


def start(server: Server, path: str, raw: bytes, content_type: str = "application/json") -> http.client.HTTPConnection:
    """Send a request without waiting for its response."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    headers = {"Content-Type": content_type, "Authorization": f"Bearer {KEY}"}
    connection.request("POST", path, raw, headers)
    return connection


def running(server: Server, key: dict[str, str], engine: str) -> int:
    for line in server.get("/metrics", headers=key).text.splitlines():
        if line.startswith(f'cyllama_engine_requests{{engine="{engine}"}}'):
            return int(line.split()[-1])
    raise AssertionError(f"no metric for {engine}")


def disconnect(connection: http.client.HTTPConnection) -> None:
    assert connection.sock is not None
    connection.sock.close()
    connection.close()


@pytest.mark.parametrize("stream", [True, False])
def test_disconnect_cancels_generation(server: Server, key: dict[str, str], stream: bool) -> None:
    body = {"model": "smol", "prompt": "Once", "max_tokens": 7000, "ignore_eos": True, "stream": stream}
    connection = start(server, "/v1/completions", json.dumps(body).encode())

    def processing() -> int:
        slots = server.get("/slots?model=smol", headers=key).json()
        return sum(slot["is_processing"] for slot in slots)

    server.wait_until(lambda: processing() == 1)
    disconnect(connection)
    server.wait_until(lambda: processing() == 0, 10)
    server.wait_until(lambda: running(server, key, "llm") == 0, 10)


def test_disconnect_cancels_transcription(server: Server, key: dict[str, str], tmp_path: Any) -> None:
    file = tmp_path / "noise.wav"
    noise = np.random.default_rng(1).normal(0, 0.1, 16_000 * 120).astype(np.float32)
    soundfile.write(file, noise, 16_000, subtype="PCM_16")
    boundary = uuid.uuid4().hex
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'.encode()
    raw = part + file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    connection = start(server, "/v1/audio/transcriptions", raw, kind)
    server.wait_until(lambda: running(server, key, "whisper") == 1)
    disconnect(connection)
    server.wait_until(lambda: running(server, key, "whisper") == 0, 10)


LONG_IMAGE = {"model": "shapes", "prompt": "a red circle", "steps": 150, "size": "512x512"}


def test_disconnect_cancels_running_and_waiting_images(server: Server, key: dict[str, str]) -> None:
    connection = start(server, "/v1/images/generations", json.dumps(LONG_IMAGE).encode())
    server.wait_until(lambda: running(server, key, "sd") == 1)
    waiting = start(server, "/v1/images/generations", json.dumps(LONG_IMAGE).encode())
    server.wait_until(lambda: running(server, key, "sd") == 2)
    disconnect(waiting)  # a request in the queue
    server.wait_until(lambda: running(server, key, "sd") == 1, 10)
    disconnect(connection)
    server.wait_until(lambda: running(server, key, "sd") == 0, 10)


def test_reports_progress_and_interrupts_images(server: Server, key: dict[str, str]) -> None:
    found: list[requests.Response] = []
    body = {"prompt": "a red circle", "steps": 150, "width": 512, "height": 512}
    thread = threading.Thread(target=lambda: found.append(server.post("/sdapi/v1/txt2img", body, headers=key)))
    thread.start()

    def progress() -> Any:
        return server.get("/sdapi/v1/progress", headers=key).json()

    server.wait_until(lambda: progress()["state"]["sampling_step"] > 1)
    now = progress()
    assert 0 < now["progress"] < 1 and now["state"]["sampling_steps"] == 150
    assert now["current_image"].startswith("iVBOR")
    assert server.post("/sdapi/v1/interrupt", {}, headers=key).json() == {}
    thread.join(60)
    assert found[0].status_code == 200
    assert json.loads(found[0].json()["info"])["interrupted"] is True
    assert len(found[0].json()["images"]) == 1
    assert progress()["state"]["job"] == ""
