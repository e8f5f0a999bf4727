"""Live transcription over a WebSocket, with OpenAI's client and with one of the tests."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from data.sounds import JFK, jfk_float32
from openai import AsyncOpenAI, OpenAI
from server.live import (
    SPEECH,
    TRANSCRIPTION,
    URL,
    LiveClient,
    as_base64,
    live_client,
    local_app,
    recording,
    words,
)
from server.running import Server, running_server
from websockets.exceptions import ConnectionClosed

from cyllama.server import ModelEntry
from cyllama.server.protocols.realtime import TurnDetection
from cyllama.server.routes import _live_turn
from cyllama.server.routes._turn_detector import TurnDetector

PAUSE = np.zeros(2 * 16_000, np.float32)
# ------------------------------------------------------------------------------- OpenAI's client


CHUNK = 4 * 3200  # characters of base64, 200 ms


@contextlib.asynccontextmanager
async def official(server: Server) -> AsyncIterator[AsyncOpenAI]:
    urls = {"base_url": f"{server.url}/v1", "websocket_base_url": f"ws://127.0.0.1:{server.port}/v1"}
    async with AsyncOpenAI(api_key="none", max_retries=0, **urls) as client:  # type: ignore[arg-type]
        yield client


async def collect(connection: Any, last: str) -> list[Any]:
    """Return the events up to the first one of the type `last`."""
    found = []
    async for event in connection:
        found.append(event)
        if event.type == last:
            return found
        assert event.type != "error", event
    raise AssertionError("the connection has ended")


async def append(connection: Any, audio: str) -> None:
    for i in range(0, len(audio), CHUNK):
        await connection.input_audio_buffer.append(audio=audio[i : i + CHUNK])


def test_official_client_gets_the_text_of_what_it_commits(low_server: Server) -> None:
    async def run() -> list[Any]:
        async with (
            official(low_server) as client,
            client.realtime.connect(model="whisper-1", extra_query={"intent": "transcription"}) as connection,
        ):
            settings: Any = {"transcription": {"model": "whisper-1", "language": "en"}, "turn_detection": None}
            await connection.session.update(session={"type": "transcription", "audio": {"input": settings}})
            await collect(connection, "session.updated")
            await append(connection, as_base64(jfk_float32(), 16_000))
            await connection.input_audio_buffer.commit()
            return await collect(connection, f"{TRANSCRIPTION}.completed")

    events = asyncio.run(run())
    names = [event.type for event in events if not event.type.endswith(".delta")]
    assert names == [
        "input_audio_buffer.committed",
        "conversation.item.added",
        "conversation.item.done",
        f"{TRANSCRIPTION}.completed",
    ]
    last = events[-1]
    assert {event.item_id for event in events if hasattr(event, "item_id")} == {last.item_id}
    assert events[1].item.id == last.item_id
    assert "".join(event.delta for event in events if event.type.endswith(".delta")) == last.transcript
    with OpenAI(base_url=f"{low_server.url}/v1", api_key="none", max_retries=0) as plain:
        text = plain.audio.transcriptions.create(model="whisper-1", file=JFK.read_bytes()).text
    assert words(last.transcript) == words(text)
    assert last.usage.type == "duration" and last.usage.seconds == pytest.approx(11.0, abs=0.01)


def test_server_vad_finds_the_turns_of_a_recording_with_a_pause(low_server: Server) -> None:
    first, second = recording("red-circle"), recording("capital-of-france")

    async def run() -> list[Any]:
        async with (
            official(low_server) as client,
            client.realtime.connect(extra_query={"intent": "transcription"}) as connection,
        ):
            settings: Any = {"turn_detection": {"type": "server_vad", "silence_duration_ms": 1000}}
            await connection.session.update(session={"type": "transcription", "audio": {"input": settings}})
            await collect(connection, "session.updated")
            await append(connection, as_base64(np.concatenate([first, PAUSE, second, PAUSE]), 16_000))
            found = await collect(connection, f"{TRANSCRIPTION}.completed")
            return found + await collect(connection, f"{TRANSCRIPTION}.completed")

    events = asyncio.run(run())
    starts = [event.audio_start_ms for event in events if event.type == "input_audio_buffer.speech_started"]
    stops = [event.audio_end_ms for event in events if event.type == "input_audio_buffer.speech_stopped"]
    n_first = len(first) / 16
    assert len(starts) == len(stops) == 2
    assert starts[0] < 700 and n_first < stops[0] <= n_first + 1100
    assert n_first + 1400 < starts[1] < n_first + 2700
    texts = [event.transcript for event in events if event.type == f"{TRANSCRIPTION}.completed"]
    assert "circle" in texts[0] and "capital of France" in texts[1]
    ids = [event.item_id for event in events if event.type == "input_audio_buffer.speech_started"]
    commits = [event for event in events if event.type == "input_audio_buffer.committed"]
    assert [(event.previous_item_id, event.item_id) for event in commits] == [(None, ids[0]), (ids[0], ids[1])]


def test_beta_form_of_the_official_client(low_server: Server) -> None:
    async def run() -> list[Any]:
        async with (
            official(low_server) as client,
            client.beta.realtime.connect(model="whisper-1", extra_query={"intent": "transcription"}) as connection,
        ):
            created = await connection.recv()
            settings: Any = {"input_audio_format": "g711_alaw", "turn_detection": None}
            await connection.transcription_session.update(session=settings)
            updated = await connection.recv()
            await append(connection, as_base64(recording("capital-of-france"), 16_000, 8_000, "ALAW"))
            await connection.input_audio_buffer.commit()
            return [created, updated, *await collect(connection, f"{TRANSCRIPTION}.completed")]

    events = asyncio.run(run())
    assert [event.type for event in events[:4]] == [
        "transcription_session.created",
        "transcription_session.updated",
        "input_audio_buffer.committed",
        "conversation.item.created",
    ]
    assert events[1].session.input_audio_format == "g711_alaw"
    assert "capital of France" in events[-1].transcript


# ------------------------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("format", "rate", "subtype"),
    [
        ({"type": "audio/pcm"}, 24_000, "PCM_16"),
        ({"type": "audio/pcm", "rate": 16_000}, 16_000, "PCM_16"),
        ({"type": "audio/pcm", "rate": 48_000}, 48_000, "PCM_16"),
        ({"type": "audio/pcmu"}, 8_000, "ULAW"),
        ({"type": "audio/pcma"}, 8_000, "ALAW"),
    ],
)
def test_reads_all_formats(low: LiveClient, format: dict[str, Any], rate: int, subtype: str) -> None:
    updated = low.update(turn_detection=None, format=format)
    assert updated["session"]["audio"]["input"]["format"] == {"type": format["type"], "rate": rate}
    low.append(as_base64(recording("capital-of-france"), 16_000, rate, subtype))
    assert "capital of france" in " ".join(words(low.transcribe()))


def test_sends_text_while_a_person_speaks(low: LiveClient) -> None:
    """With a delay, and provisional text if the client wants it; before the buffer is committed."""
    include = ["item.input_audio_transcription.provisional"]
    low.update(include, turn_detection=None, transcription={"delay": "medium"}, format={"rate": 16_000})
    for start in range(0, 5 * 16_000, 8_000):
        low.append(as_base64(jfk_float32()[start : start + 8_000], 16_000, 16_000))
    event = low.wait_for(f"{TRANSCRIPTION}.delta", "error")
    assert "fellow" in event["delta"] + event["provisional"]
    low.send("input_audio_buffer.clear")
    low.wait_for("input_audio_buffer.cleared")


REFUSED = [
    ({"noise_reduction": {"type": "near_field"}}, "session.audio.input.noise_reduction"),
    ({"turn_detection": {"type": "semantic_vad"}}, "session.audio.input.turn_detection.type"),
    ({"turn_detection": {"type": "server_vad", "threshold": 2}}, "session.audio.input.turn_detection.threshold"),
    ({"turn_detection": {"idle_timeout_ms": 5}}, "session.audio.input.turn_detection.idle_timeout_ms"),
    ({"turn_detection": {"create_response": True}}, "session.audio.input.turn_detection.create_response"),
    ({"turn_detection": {"tresh": 1}}, "session.audio.input.turn_detection.tresh"),
    ({"transcription": None}, "session.audio.input.transcription"),
    ({"transcription": {"languages": ["en"]}}, "session.audio.input.transcription.languages"),
    ({"transcription": {"language": "klingon"}}, "session.audio.input.transcription.language"),
    ({"transcription": {"model": "nothing"}}, "session.audio.input.transcription.model"),
    ({"transcription": {"delay": "none"}}, "session.audio.input.transcription.delay"),
    ({"format": {"type": "audio/mp3"}}, "session.audio.input.format.type"),
    ({"format": {"type": "audio/pcmu", "rate": 16_000}}, "session.audio.input.format.rate"),
    ({"format": {"rate": 1}}, "session.audio.input.format.rate"),
]


def test_refuses_what_it_does_not_support_by_name(low: LiveClient) -> None:
    for settings, param in REFUSED:
        event = low.update(**settings)
        assert event["type"] == "error" and event["error"]["param"] == param, settings
    event = low.update(["item.input_audio_transcription.logprobs"])
    assert event["error"]["param"] == "session.include[0]"
    for session, param in (({"type": "realtime"}, "session.type"), ({}, "session.type"), (7, "session")):
        low.send("session.update", session=session, event_id="mine")
        error = low.receive()["error"]
        assert (error["param"], error["event_id"], error["type"]) == (param, "mine", "invalid_request_error")
    for language, code in (("en-US", "en"), ("zh_CN", "zh"), ("German", "german"), ("auto", None), ("", None)):
        event = low.update(transcription={"language": language})
        assert event["session"]["audio"]["input"]["transcription"]["language"] == code
    settings = low.update()["session"]["audio"]["input"]
    assert settings["turn_detection"] == {
        "type": "server_vad", "threshold": 0.5, "prefix_padding_ms": 300, "silence_duration_ms": 500,
    }  # fmt: skip


class FakeTranscriber:
    """Records how it was made."""

    calls: list[dict[str, Any]]

    def __init__(self, whisper: object, **options: Any) -> None:
        self.calls.append(options)

    def feed(self, samples: object, cancel: object) -> list[Any]:
        return []

    def flush(self, cancel: object) -> list[Any]:
        return []


def test_fields_reach_the_transcriber(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeTranscriber.calls = []
    used = []
    monkeypatch.setattr(_live_turn, "StreamingTranscriber", FakeTranscriber)

    @contextlib.contextmanager
    def use(self: object, entry: ModelEntry, cancel: object) -> Iterator[None]:
        used.append(entry.name)
        yield

    monkeypatch.setattr("cyllama.server.state.ServerState.use_whisper", use)
    chosen = {"model": "two", "language": "en", "prompt": "Hello", "keywords": ["a", "b"], "delay": "high"}
    silence = as_base64(np.zeros(8_000, np.float32), 16_000)
    with local_app() as app, app.websocket_connect(URL) as socket:
        assert socket.receive_json()["session"]["audio"]["input"]["transcription"]["model"] == "one"
        for transcription in ({}, chosen):
            settings = {"transcription": transcription, "turn_detection": None}
            socket.send_json(
                {"type": "session.update", "session": {"type": "transcription", "audio": {"input": settings}}}
            )
            assert socket.receive_json()["type"] == "session.updated"
            socket.send_json({"type": "input_audio_buffer.append", "audio": silence})
            socket.send_json({"type": "input_audio_buffer.commit"})
            while (event := socket.receive_json())["type"] != f"{TRANSCRIPTION}.completed":
                assert event["type"] != "error", event
    assert used == ["one", "two"]
    assert FakeTranscriber.calls[0] == {"step": 28.0}
    step = FakeTranscriber.calls[1].pop("step")
    assert FakeTranscriber.calls[1] == {"language": "en", "initial_prompt": "Hello", "hotwords": "a, b"}
    assert step in (4.0, 28.0)  # 28 if the commit had arrived before the audio was fed


def turns_of(samples: npt.NDArray[np.float32], **settings: Any) -> list[tuple[str, int]]:
    detector = TurnDetector(TurnDetection(**settings))
    with contextlib.closing(detector):
        parts = [part for i in range(0, len(samples), 1000) for part in detector.feed(samples[i : i + 1000])]
    return [(part.kind, part.position) for part in parts if part.kind != "speech"]


def test_turn_detection_uses_its_settings() -> None:
    speech = recording("red-circle")
    samples = np.concatenate([PAUSE, speech, PAUSE, speech, PAUSE])
    plain = turns_of(samples)
    assert [kind for kind, _ in plain] == ["start", "stop", "start", "stop"]
    assert turns_of(samples, prefix_padding_ms=0)[0][1] - plain[0][1] == pytest.approx(300, abs=40)
    assert turns_of(samples, silence_duration_ms=900)[1][1] - plain[1][1] == pytest.approx(400, abs=40)
    assert [kind for kind, _ in turns_of(samples, silence_duration_ms=3000)] == ["start"]
    assert turns_of(0.001 * samples, threshold=0.99) == []


def test_silence_makes_no_turn(low: LiveClient) -> None:
    noise = 0.001 * np.random.default_rng(1).standard_normal(3 * 16_000).astype(np.float32)
    low.append(as_base64(noise, 16_000))
    low.send("input_audio_buffer.commit", event_id="mine")
    error = low.receive()["error"]
    assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "mine")


# ------------------------------------------------------------------------------------- shutdown


def test_shutdown_finishes_the_text_of_open_sessions(tmp_path: Path) -> None:
    file = tmp_path / "models.toml"
    file.write_text(SPEECH)
    with running_server("--config", file) as server, live_client(server) as idle, live_client(server) as client:
        client.update(turn_detection=None)
        client.append(as_base64(recording("capital-of-france"), 16_000))
        client.update()
        server.process.send_signal(signal.SIGTERM)
        assert "capital of France" in client.wait_for(f"{TRANSCRIPTION}.completed")["transcript"]
        for each in (idle, client):
            with pytest.raises(ConnectionClosed) as caught:
                each.receive()
            assert caught.value.rcvd is not None and caught.value.rcvd.code == 1012
        assert server.process.wait(timeout=60) == 0
    assert not [line for line in server.errors if "Traceback" in line], server.errors
