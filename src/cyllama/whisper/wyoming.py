"""Speech recognition over the Wyoming protocol, for Home Assistant.

An event is a line of JSON, with data and a payload of bytes after it. The client sends ``transcribe``, ``audio-start``,
``audio-chunk`` and ``audio-stop``; the server answers with ``transcript``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import math
import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cyllama import __version__
from cyllama._admission import Admission
from cyllama.media._samples import Samples
from cyllama.media.audio import SAMPLE_RATE
from cyllama.whisper.transcribe import Whisper

__all__ = ["WyomingServer"]

logger = logging.getLogger("cyllama.wyoming")

MAX_LINE = MAX_DATA = 1 << 16  # bytes
MAX_PAYLOAD = 1 << 20
MAX_RATE = 48_000
IDLE_SECONDS = 300.0
POLL_SECONDS = 0.1
PARALLEL = 2  # transcriptions at the same time


class Event(NamedTuple):
    kind: str
    data: dict[str, Any]
    payload: bytes = b""


class WyomingServer:
    """Transcribes the audio of clients with one model.

    Parameters
    ----------
    whisper : Whisper
        The model; the caller closes it.
    name : str
        Name of the model.
    allow : sequence of str
        Addresses and networks that may connect, beside loopback. The protocol has no authentication.
    max_seconds : float
        The longest audio of a request.
    max_clients : int
        Connections at the same time.

    Raises
    ------
    ValueError
        `max_seconds` is not a positive number.
    """

    def __init__(
        self,
        whisper: Whisper,
        name: str,
        *,
        allow: Sequence[str] = (),
        max_seconds: float = 300.0,
        max_clients: int = 16,
    ) -> None:
        self._whisper, self._name, self._allow = whisper, name, allow
        if not 0 < max_seconds < math.inf:
            raise ValueError(f"max_seconds is {max_seconds}, expected a positive number")
        self._max_seconds, self._max_clients = max_seconds, max_clients
        self._clients: set[asyncio.Task[None]] = set()
        self._turns = asyncio.Semaphore(PARALLEL)

    @contextlib.asynccontextmanager
    async def listen(self, host: str = "127.0.0.1", port: int = 10300) -> AsyncIterator[tuple[str, int]]:
        """Serve clients in the block, and yield the address. ValueError as of `Admission`."""
        self._admission = Admission(host, port, self._allow, self._max_clients)
        server = await asyncio.start_server(self._client, host, port, limit=MAX_LINE)
        try:
            yield server.sockets[0].getsockname()[:2]
        finally:
            server.close()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")[0]
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            if not self._admission.admits(peer) or len(self._clients) > self._max_clients:
                logger.warning("refused a connection from %s", peer)
                return
            await self._converse(reader, writer)
        except (ConnectionError, TimeoutError, asyncio.IncompleteReadError, asyncio.CancelledError) as error:
            logger.debug("the connection of %s ended: %r", peer, error)
        except Exception as error:  # a client must not end the server
            logger.warning("the request of %s failed: %s", peer, error)
            with contextlib.suppress(ConnectionError):
                await _write(writer, "error", text=str(error), code=type(error).__name__)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wanted: dict[str, Any] = {}
        audio = _Audio(self._max_seconds)
        while (event := await asyncio.wait_for(_read(reader), IDLE_SECONDS)) is not None:
            if event.kind == "describe":
                await _write(writer, "info", asr=[self._description()])
            elif event.kind == "ping":
                await _write(writer, "pong", text=event.data.get("text"))
            elif event.kind == "transcribe":
                wanted = event.data
            elif event.kind == "audio-start":
                audio = _Audio(self._max_seconds)
            elif event.kind == "audio-chunk":
                audio.add(event)
            elif event.kind == "audio-stop":
                found = await self._transcribe(reader, audio, wanted)
                if found is None:
                    return
                await _write(writer, "transcript", text=found[0], language=found[1])
                wanted, audio = {}, _Audio(self._max_seconds)

    async def _transcribe(
        self, reader: asyncio.StreamReader, audio: _Audio, wanted: dict[str, Any]
    ) -> tuple[str, str] | None:
        """Return text and language; None if the client has gone."""
        terms: list[str] = []
        for name in ("transcript_names", "transcript_terms"):
            given = wanted.get(name) or []
            if not isinstance(given, list) or not all(isinstance(term, str) for term in given):
                raise ValueError(f"{name} is {given!r:.100}, expected a list of strings")
            terms += given
        options: dict[str, Any] = {"language": wanted.get("language"), "initial_prompt": ", ".join(terms) or None}
        cancel = threading.Event()
        async with self._turns:
            call = functools.partial(self._whisper, audio.samples(), sample_rate=audio.rate, vad_filter=True)
            work = asyncio.create_task(asyncio.to_thread(call, cancel=cancel, **options))
            try:
                while not work.done() and not reader.at_eof():
                    await asyncio.wait([work], timeout=POLL_SECONDS)
            finally:
                cancel.set()  # also when this task is cancelled; it changes nothing after the end
            if reader.at_eof() and not work.done():
                await asyncio.wait([work])
                return None
            result = await work
        return result.text.strip(), result.language

    def _description(self) -> dict[str, Any]:
        about = {
            "attribution": {"name": "whisper.cpp", "url": "https://github.com/ggml-org/whisper.cpp"},
            "installed": True,
            "version": __version__,
        }
        languages = sorted(self._whisper.languages)
        model = {"name": self._name, "description": self._name, "languages": languages, **about}
        return {"name": "cyllama", "description": "Whisper in cyllama", "models": [model], **about}


class _Audio:
    """The audio of a request: 16 bits for each sample, one or two channels."""

    def __init__(self, max_seconds: float) -> None:
        self.rate, self._channels, self._max_seconds = SAMPLE_RATE, 1, max_seconds
        self._blocks: list[bytes] = []
        self._size = 0

    def add(self, event: Event) -> None:
        """Add a chunk. ValueError if its format is another one or not supported, or the audio is too long."""
        rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
        if type(rate) is not int or not 8000 <= rate <= MAX_RATE or width != 2 or channels not in (1, 2):
            raise ValueError(
                f"rate, width, channels are {rate!r}, {width!r}, {channels!r}; expected 8000 to {MAX_RATE}, 2, 1 or 2"
            )
        if self._blocks and (rate, channels) != (self.rate, self._channels):
            raise ValueError(f"rate and channels change to {rate}, {channels} within the audio")
        self.rate, self._channels = rate, channels
        self._blocks.append(event.payload)
        self._size += len(event.payload)
        if self._size > 2 * channels * rate * self._max_seconds:
            raise ValueError(f"the audio is longer than {self._max_seconds:g} seconds")

    def samples(self) -> Samples:
        """Return the samples, mono, from -1 to 1."""
        data = b"".join(self._blocks)
        frames = len(data) // (2 * self._channels)
        values = np.frombuffer(data, "<i2", frames * self._channels).reshape(frames, self._channels)
        samples: Samples = values.mean(1, dtype=np.float32) / np.float32(32768)
        return samples


async def _read(reader: asyncio.StreamReader) -> Event | None:
    """Return the next event; None at the end. ValueError if it is malformed, or larger than allowed."""
    line = await reader.readline()
    if not line.strip():
        return None
    head = json.loads(line)
    if not isinstance(head, dict) or not isinstance(head.get("type"), str):
        raise ValueError(f"an event is {line[:100]!r}, expected an object with a type")
    sizes = {name: head.get(name) or 0 for name in ("data_length", "payload_length")}
    for (name, size), most in zip(sizes.items(), (MAX_DATA, MAX_PAYLOAD), strict=True):
        if type(size) is not int or not 0 <= size <= most:
            raise ValueError(f"{name} is {size!r}, expected 0 to {most:,}")
    parts = [head.get("data") or {}]
    if sizes["data_length"]:
        parts.append(json.loads(await reader.readexactly(sizes["data_length"])))
    if not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"the data of {head['type']!r:.100} is not an object")
    data = {name: value for part in parts for name, value in part.items()}
    return Event(head["type"], data, await reader.readexactly(sizes["payload_length"]))


async def _write(writer: asyncio.StreamWriter, kind: str, **data: object) -> None:
    encoded = json.dumps(data, ensure_ascii=False).encode()
    writer.write(json.dumps({"type": kind, "data_length": len(encoded)}).encode() + b"\n" + encoded)
    await asyncio.wait_for(writer.drain(), IDLE_SECONDS)
