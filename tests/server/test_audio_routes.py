"""Forms of transcription requests: OpenAI's fields, names of models and languages, containers, damaged files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from data.containers import container
from data.sounds import encoded, jfk_float32
from openai import OpenAI
from server.running import Server, running_server
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from cyllama.server.routes.audio import _parse_options

SECONDS = 4


@pytest.fixture(scope="module")
def short_wav() -> bytes:
    return encoded(jfk_float32()[: SECONDS * 16_000], 16_000, "WAV", "PCM_16")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start a server with one speech model."""
    file = tmp_path_factory.mktemp("speech") / "models.toml"
    file.write_text('[models.speech]\nkind = "whisper"\nmodel = "tiny.en"\n')
    with running_server("--config", file) as found:
        yield found


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as found:
        yield found


@pytest.fixture(scope="module")
def post(server: Server, short_wav: bytes) -> Any:
    def send(fields: list[tuple[str, str]], file: bytes = short_wav) -> requests.Response:
        parts: list[Any] = [("file", ("talk", file)), *((name, (None, value)) for name, value in fields)]
        return requests.post(f"{server.url}/v1/audio/transcriptions", files=parts, timeout=120)

    return send


@pytest.mark.parametrize("name", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_names_of_openai_are_those_of_a_single_speech_model(client: OpenAI, short_wav: bytes, name: str) -> None:
    found = client.audio.transcriptions.create(model=name, file=("talk.wav", short_wav), language="en-US")
    assert "fellow Americans" in found.text


@pytest.mark.parametrize(
    "fields",
    [
        [("language", "auto")], [("language", "en-GB")], [("language", "")], [("user", "someone")],
        [("temperature", "")], [("prompt", ""), ("beam_size", "")],
        [("chunking_strategy", "auto")],
        [("chunking_strategy", json.dumps({"type": "server_vad", "threshold": 0.4, "silence_duration_ms": 300}))],
    ],
)  # fmt: skip
def test_accepts_fields_of_clients(post: Any, fields: list[tuple[str, str]]) -> None:
    response = post(fields)
    assert response.status_code == 200 and "fellow Americans" in response.json()["text"], response.text


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("language", "de-DE")], None),
        ([("model", "whisper-9")], "model"),
        ([("chunking_strategy", "manual")], "chunking_strategy"),
        ([("chunking_strategy", '{"type": "server_vad", "eagerness": 1}')], "chunking_strategy"),
        ([("include[]", "speakers")], "include"),
        ([("include[]", "logprobs"), ("response_format", "srt")], "include"),
    ],
)  # fmt: skip
def test_rejects_what_has_no_effect(post: Any, fields: list[tuple[str, str]], param: str | None) -> None:
    response = post(fields)
    assert response.status_code in (400, 404)
    assert param is None or response.json()["error"]["param"] == param


def test_logprobs(client: OpenAI, short_wav: bytes) -> None:
    found = client.audio.transcriptions.create(model="speech", file=("talk.wav", short_wav), include=["logprobs"])
    assert found.logprobs and all(entry.logprob is not None and entry.logprob <= 0 for entry in found.logprobs)
    assert "".join(entry.token or "" for entry in found.logprobs).strip() == found.text
    events = list(
        client.audio.transcriptions.create(
            model="speech", file=("talk.wav", short_wav), include=["logprobs"], stream=True
        )
    )
    assert events[-1].type == "transcript.text.done" and events[-1].logprobs


def test_temperature_0_is_automatic() -> None:
    parse = lambda value: _parse_options(FormData([("temperature", value)]), "transcribe")  # noqa: E731
    assert "temperature" not in parse("0") and "temperature" not in parse("0.0")
    assert parse("0.4")["temperature"] == 0.4
    with pytest.raises(HTTPException):
        parse("hot")


@pytest.mark.parametrize(("name", "codec", "rate"), [("talk.webm", "libopus", 48_000), ("talk.m4a", "aac", 16_000)])
def test_transcribes_recordings_of_browsers(post: Any, tmp_path: Path, name: str, codec: str, rate: int) -> None:
    samples = np.repeat(jfk_float32()[: SECONDS * 16_000], rate // 16_000)
    response = post([], container(tmp_path / name, codec, samples, rate).read_bytes())
    assert response.status_code == 200 and "fellow Americans" in response.json()["text"]


def test_says_where_a_file_is_truncated(post: Any) -> None:
    raw = encoded(jfk_float32(), 16_000, "FLAC", "PCM_16")
    for format in ("json", "verbose_json"):
        body = post([("response_format", format)], raw[: len(raw) // 2]).json()
        assert "my fellow Americans" in body["text"] and "truncated at" in body["warnings"][0]
    assert "warnings" not in post([]).json()
    assert post([], io.BytesIO(raw[:200]).read()).status_code == 400
