"""The Wyoming protocol, with its own client and with hostile ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import numpy as np
import pytest
import soundfile
from data.sounds import JFK

from cyllama.errors import CancelledError
from cyllama.whisper import Whisper
from cyllama.whisper.wyoming import WyomingServer

with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of audioop, in Python 3.11 and 3.12
    from wyoming.asr import Transcribe, Transcript
    from wyoming.audio import AudioChunk, AudioStart, AudioStop
    from wyoming.client import AsyncTcpClient
    from wyoming.event import Event
    from wyoming.info import Describe, Info
    from wyoming.ping import Ping, Pong

CHUNK = 2048  # bytes


@pytest.fixture(scope="module")
def whisper() -> Any:
    with Whisper("tiny.en") as found:
        yield found


def speech(rate: int = 16_000, channels: int = 1) -> bytes:
    """Return the recording as samples of 16 bits; other rates repeat samples."""
    samples, given = soundfile.read(JFK, dtype="int16")
    samples = np.repeat(samples, rate // given) if rate > given else samples
    return np.repeat(samples[:, None], channels, 1).tobytes()


async def send_audio(client: AsyncTcpClient, data: bytes, rate: int = 16_000, channels: int = 1) -> None:
    await client.write_event(AudioStart(rate, 2, channels).event())
    for first in range(0, len(data), CHUNK):
        await client.write_event(AudioChunk(rate, 2, channels, data[first : first + CHUNK]).event())
    await client.write_event(AudioStop().event())


def converse(whisper: Whisper, talk: Callable[[str, int], Awaitable[Any]], **options: Any) -> Any:
    """Run a server and what talks to it."""

    async def main() -> Any:
        server = WyomingServer(whisper, "tiny.en", **options)
        async with server.listen(port=0) as (host, port):
            return await asyncio.wait_for(talk(host, port), 60)

    return asyncio.run(main())


def test_describes_the_model_and_answers_pings(whisper: Whisper) -> None:
    async def talk(host: str, port: int) -> None:
        async with AsyncTcpClient(host, port) as client:
            await client.write_event(Describe().event())
            info = Info.from_event(await client.read_event())
            (program,) = info.asr
            (model,) = program.models
            assert program.name == "cyllama" and model.name == "tiny.en" and model.languages == ["en"]
            await client.write_event(Ping("hello").event())
            assert Pong.from_event(await client.read_event()).text == "hello"

    converse(whisper, talk)


@pytest.mark.parametrize(("rate", "channels"), [(16_000, 1), (48_000, 2)])
def test_transcribes_requests_of_one_connection(whisper: Whisper, rate: int, channels: int) -> None:
    async def talk(host: str, port: int) -> None:
        async with AsyncTcpClient(host, port) as client:
            for _ in range(2):
                await client.write_event(Transcribe(language="en", transcript_terms=["Americans"]).event())
                await send_audio(client, speech(rate, channels), rate, channels)
                found = Transcript.from_event(await client.read_event())
                assert "ask not what your country can do for you" in found.text and found.language == "en"

    converse(whisper, talk)


def test_transcribes_clients_at_the_same_time(whisper: Whisper) -> None:
    async def one(host: str, port: int) -> str:
        async with AsyncTcpClient(host, port) as client:
            await send_audio(client, speech())
            return Transcript.from_event(await client.read_event()).text

    async def talk(host: str, port: int) -> list[str]:
        return await asyncio.gather(*(one(host, port) for _ in range(4)))

    texts = converse(whisper, talk)
    assert len(set(texts)) == 1 and "country" in texts[0]


async def answer_to(host: str, port: int, *parts: bytes) -> dict[str, Any]:
    reader, writer = await asyncio.open_connection(host, port)
    for part in parts:
        writer.write(part)
    await writer.drain()
    line = await reader.readline()
    found = json.loads(line) if line else {}
    if found.get("data_length"):
        found |= json.loads(await reader.readexactly(found["data_length"]))
    assert not found or await reader.read() == b""  # the server closes the connection
    writer.close()
    return found


START = b'{"type": "audio-start"}\n'


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x00" * 100 + b"\n", "."),
        (b"[1]\n", "object with a type"),
        (b'{"type": 1}\n', "object with a type"),
        (b'{"type": "ping", "data": [1]}\n', "data of 'ping' is not an object"),
        (b'{"type": "ping", "data_length": 2}\n[]', "data of 'ping' is not an object"),
        (b'{"type": "transcribe", "data_length": 1000000}\n', "data_length is 1000000"),
        (b'{"type": "audio-chunk", "payload_length": 2000000000}\n', "payload_length is 2000000000"),
        (b'{"type": "audio-chunk", "payload_length": -1}\n', "payload_length is -1"),
        (b"x" * 200_000, "."),
        (b"[" * 60_000 + b"\n", "."),
        (START + b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 4, "channels": 1}}\n', "width"),
        (START + b'{"type": "audio-chunk", "data": {"rate": 1e9, "width": 2, "channels": 1}}\n', "rate"),
        (b'{"type": "transcribe", "data": {"language": "xx"}}\n' + START + b'{"type": "audio-stop"}\n', "xx"),
        (b'{"type": "transcribe", "data": {"transcript_names": 1}}\n{"type": "audio-stop"}\n', "transcript_names is 1"),
        (b'{"type": "transcribe", "data": {"transcript_terms": "ab"}}\n{"type": "audio-stop"}\n', "expected a list"),
    ],
)
def test_invalid_events_are_errors(whisper: Whisper, data: bytes, words: str) -> None:
    async def talk(host: str, port: int) -> None:
        found = await answer_to(host, port, data)
        assert found["type"] == "error" and re.search(words, found["text"]), found
        async with AsyncTcpClient(host, port) as client:  # the server goes on
            await client.write_event(Ping().event())
            assert (await client.read_event()).type == "pong"

    converse(whisper, talk)


def test_audio_is_limited(whisper: Whisper) -> None:
    async def talk(host: str, port: int) -> None:
        async with AsyncTcpClient(host, port) as client:
            for _ in range(40):
                await client.write_event(AudioChunk(16_000, 2, 1, bytes(3200)).event())
            event = await client.read_event()
            assert event.type == "error" and "longer than 2 seconds" in event.data["text"]

    converse(whisper, talk, max_seconds=2.0)


def test_format_may_not_change_within_the_audio(whisper: Whisper) -> None:
    async def talk(host: str, port: int) -> None:
        async with AsyncTcpClient(host, port) as client:
            await client.write_event(AudioChunk(16_000, 2, 1, bytes(320)).event())
            await client.write_event(AudioChunk(8_000, 2, 1, bytes(320)).event())
            assert "change" in (await client.read_event()).data["text"]

    converse(whisper, talk)


def test_silence_and_unknown_events_are_no_errors(whisper: Whisper) -> None:
    async def talk(host: str, port: int) -> None:
        async with AsyncTcpClient(host, port) as client:
            await client.write_event(Event("something-new", {"a": 1}))
            for data in (bytes(64_000), b""):
                await send_audio(client, data)
                assert Transcript.from_event(await client.read_event()).text == ""

    converse(whisper, talk)


class Endless:
    """A model whose calls end when they are cancelled."""

    languages: ClassVar[dict[str, str]] = {"en": "english"}

    def __init__(self) -> None:
        self.started, self.cancelled = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, samples: Any, *, cancel: threading.Event, **options: Any) -> Any:
        self.started.release()
        assert cancel.wait(60)
        self.cancelled.release()
        raise CancelledError("cancelled")


def test_client_that_leaves_cancels_its_transcription() -> None:
    model: Any = Endless()

    async def talk(host: str, port: int) -> None:
        client = AsyncTcpClient(host, port)
        await client.connect()
        await send_audio(client, bytes(3200))
        assert await asyncio.to_thread(model.started.acquire, timeout=60)
        await client.disconnect()
        assert await asyncio.to_thread(model.cancelled.acquire, timeout=60)

    converse(model, talk)


def test_end_of_the_server_cancels_transcriptions() -> None:
    model: Any = Endless()

    async def main() -> None:
        server = WyomingServer(model, "tiny.en")
        async with contextlib.AsyncExitStack() as clients, server.listen(port=0) as (host, port):
            client = await clients.enter_async_context(AsyncTcpClient(host, port))
            await send_audio(client, bytes(3200))
            assert await asyncio.to_thread(model.started.acquire, timeout=60)

    asyncio.run(main())
    assert model.cancelled.acquire(timeout=60)


def test_refuses_more_clients_and_other_networks(whisper: Whisper) -> None:
    async def talk(host: str, port: int) -> None:
        async with AsyncTcpClient(host, port) as first:
            await first.write_event(Ping().event())
            await first.read_event()
            assert await answer_to(host, port, b"") == {}

    converse(whisper, talk, max_clients=1)
    server = WyomingServer(whisper, "tiny.en")

    async def listen() -> None:
        async with server.listen("0.0.0.0", 0):
            pass

    with pytest.raises(ValueError, match="allow"):
        asyncio.run(listen())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_command_serves_until_a_signal(number: signal.Signals) -> None:
    words = [sys.executable, "-m", "cyllama", "wyoming", "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        port = int(line.rsplit(":", 1)[1])

        async def talk() -> None:
            async with AsyncTcpClient("127.0.0.1", port) as client:
                await send_audio(client, speech())
                assert "country" in Transcript.from_event(await client.read_event()).text
                process.send_signal(number)  # with an open connection
                process.stdout.read()  # type: ignore[union-attr]

        asyncio.run(talk())
        assert process.wait(60) == 0
