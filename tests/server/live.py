"""A client of /v1/realtime, and audio for it."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import soxr
from data.sounds import JFK, encoded
from server.running import Server
from starlette.testclient import TestClient
from websockets.sync.client import ClientConnection, connect

from cyllama.server import ModelEntry, ServerConfig, create_app

__all__ = [
    "RATE",
    "SPEECH",
    "TRANSCRIPTION",
    "URL",
    "LiveClient",
    "as_base64",
    "live_client",
    "local_app",
    "recording",
    "words",
]

RATE = 24_000
CHUNK = 64_000  # characters of base64, whole samples
SECONDS = 120.0  # longest wait for an event
URL = "ws://localhost/v1/realtime"
TRANSCRIPTION = "conversation.item.input_audio_transcription"

SPEECH = """
[models.speech]
kind = "whisper"
model = "tiny.en"
aliases = ["whisper-1"]
"""


def as_base64(samples: npt.NDArray[np.float32], rate: int, new_rate: int = RATE, subtype: str = "PCM_16") -> str:
    """Return samples as the ``audio`` of an event."""
    found = samples if rate == new_rate else soxr.resample(samples, rate, new_rate)
    return base64.b64encode(encoded(found, new_rate, "RAW", subtype)).decode()


def recording(name: str) -> npt.NDArray[np.float32]:
    """Return a recording as samples of 16 kHz."""
    samples, rate = soundfile.read(JFK.with_name(f"{name}.flac"), dtype="float32")
    return np.asarray(soxr.resample(samples, rate, 16_000), np.float32)


def words(text: str) -> list[str]:
    """Return the words of a text without punctuation."""
    return "".join(c for c in text.casefold() if c.isalnum() or c == " ").split()


class LiveClient:
    """A client that sends and receives events."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, type: str, **fields: Any) -> None:
        self.connection.send(json.dumps({"type": type, **fields}))

    def receive(self) -> dict[str, Any]:
        """Return the next event."""
        return dict(json.loads(self.connection.recv(timeout=SECONDS)))

    def wait_for(self, *types: str) -> dict[str, Any]:
        """Return the next event of one of the types."""
        while (event := self.receive())["type"] not in types:
            pass
        return event

    def update(self, include: list[str] | None = None, **settings: Any) -> dict[str, Any]:
        """Change the settings, and return the event that answers."""
        session = {"type": "transcription", "audio": {"input": settings}, "include": include}
        self.send("session.update", session=session)
        return self.wait_for("session.updated", "error")

    def append(self, audio: str) -> None:
        """Append audio in several messages."""
        for i in range(0, len(audio), CHUNK):
            self.send("input_audio_buffer.append", audio=audio[i : i + CHUNK])

    def transcribe(self) -> str:
        """Commit the buffer, and return its text."""
        self.send("input_audio_buffer.commit")
        event = self.wait_for(f"{TRANSCRIPTION}.completed", f"{TRANSCRIPTION}.failed", "error")
        return str(event["transcript"])


@contextlib.contextmanager
def live_client(server: Server, query: str = "", **options: Any) -> Iterator[LiveClient]:
    """Connect to a server, and read the first event."""
    url = f"ws://127.0.0.1:{server.port}/v1/realtime{query}"
    with connect(url, close_timeout=1, **options) as connection:
        client = LiveClient(connection)
        assert client.receive()["type"] in ("session.created", "transcription_session.created")
        yield client


def local_app(**settings: Any) -> TestClient:
    """Return a client of an application in this process, which loads no model."""
    entries = [ModelEntry(name=name, kind="whisper", model="tiny.en") for name in ("one", "two")]
    return TestClient(create_app(ServerConfig(models=entries, **settings)), base_url="http://localhost")
