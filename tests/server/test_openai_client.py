"""OpenAI's client with the server: all its requests and its types."""

from __future__ import annotations

import base64
import io
import json
import math
from typing import Any

import numpy as np
import openai
import pytest
import requests
from openai import OpenAI
from PIL import Image
from pydantic import BaseModel
from server.conftest import png
from server.running import Server

QUESTION = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}


class Sum(BaseModel):
    answer: int


def colour_of(b64: str) -> tuple[int, int, int]:
    """Return the mean colour of the middle of an image."""
    with Image.open(io.BytesIO(base64.b64decode(b64))) as image:
        side = image.width // 8
        middle = image.convert("RGB").crop((4 * side - side, 4 * side - side, 4 * side + side, 4 * side + side))
        red, green, blue = np.asarray(middle).reshape(-1, 3).mean(0)
    return round(red), round(green), round(blue)


# ------------------------------------------------------------------------------------------- text


def test_lists_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["smol", "tools", "apart", "tiny", "minilm", "reranker", "speech", "shapes"]
    assert client.models.retrieve("gpt-4o-mini").id == "smol"
    with pytest.raises(openai.NotFoundError, match="gpt-9"):
        client.models.retrieve("gpt-9")


def test_creates_chat_completions(client: OpenAI) -> None:
    response = client.chat.completions.create(model="smol", messages=QUESTION, temperature=0, max_tokens=32)
    assert response.choices[0].message.content == "The capital of France is Paris."
    assert response.choices[0].finish_reason == "stop"
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.prompt_tokens + response.usage.completion_tokens


def test_streams_chat_completions(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model="gpt-4o-mini",
        messages=QUESTION,
        temperature=0,
        max_tokens=32,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "The capital of France is Paris."
    assert len(chunks) > 5
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 5


def check_calls(calls: Any) -> None:
    """Check calls against the schema; a small model may make several."""
    assert calls
    for call in calls:
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_calls_tools(client: OpenAI) -> None:
    response = client.chat.completions.create(
        model="tools",
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        max_tokens=200,
    )
    assert response.choices[0].finish_reason == "tool_calls"
    check_calls(response.choices[0].message.tool_calls)


def test_streams_tools(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model="tools",
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[TOOL],
        tool_choice="required",
        temperature=0,
        max_tokens=200,
    ) as stream:
        final = stream.get_final_completion()
    check_calls(final.choices[0].message.tool_calls)


def test_rejects_tools_without_template_support(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="does not support tool calling"):
        client.chat.completions.create(model="smol", messages=QUESTION, tools=[TOOL], max_tokens=4)


def test_parses_structured_output(client: OpenAI) -> None:
    response = client.chat.completions.parse(
        model="smol",
        messages=[{"role": "user", "content": "What is 2 + 3?"}],
        response_format=Sum,
        temperature=0,
        max_tokens=64,
    )
    found = response.choices[0].message.parsed
    assert isinstance(found, Sum) and isinstance(found.answer, int)


def test_creates_and_streams_completions(client: OpenAI) -> None:
    response = client.completions.create(model="smol", prompt="Once upon a", max_tokens=4, temperature=0)
    assert response.choices[0].text.startswith(" time")
    parts = client.completions.create(model="smol", prompt="Once upon a", max_tokens=4, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts if part.choices) == response.choices[0].text


def test_creates_and_streams_responses(client: OpenAI) -> None:
    response = client.responses.create(
        model="smol",
        instructions="You are a helpful assistant.",
        input="What is the capital of France?",
        temperature=0,
        max_output_tokens=32,
    )
    assert response.output_text == "The capital of France is Paris."
    events = client.responses.create(
        model="smol",
        instructions="You are a helpful assistant.",
        input="What is the capital of France?",
        temperature=0,
        max_output_tokens=32,
        stream=True,
    )
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "The capital of France is Paris."


def test_creates_embeddings(client: OpenAI) -> None:
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    rows = [np.array(row.embedding) for row in client.embeddings.create(model="minilm", input=texts).data]
    # similarities of the model card, for 8-bit weights
    for row, expected in zip(rows[1:], (0.696, 0.942, 0.261), strict=True):
        assert math.isclose(float(rows[0] @ row), expected, abs_tol=0.01)


def test_rejects_models_of_other_names_and_tasks(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"model is 'gpt-9', expected one of the models for chat: smol"):
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    with pytest.raises(openai.NotFoundError, match="model is 'speech'"):
        client.chat.completions.create(model="speech", messages=QUESTION)


def test_rejects_a_long_prompt(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tools", messages=[{"role": "user", "content": "word " * 9000}])
    assert caught.value.type == "exceed_context_size_error"


# ------------------------------------------------------------------------------------------ speech


def test_creates_transcriptions(client: OpenAI, speech: bytes) -> None:
    found = client.audio.transcriptions.create(model="whisper-1", file=("jfk.wav", speech), language="en")
    assert "ask not what your country can do for you" in found.text
    assert found.usage is not None and found.usage.type == "duration" and 10.9 < found.usage.seconds < 11.1


def test_transcribes_in_all_formats(client: OpenAI, speech: bytes) -> None:
    for format in ("text", "srt", "vtt"):
        text = client.audio.transcriptions.create(
            model="speech", file=("jfk.wav", speech), response_format=format, temperature=0
        )
        assert isinstance(text, str) and "fellow Americans" in text
        assert ("-->" in text) == (format != "text")
    whole = client.audio.transcriptions.create(
        model="speech",
        file=("jfk.wav", speech),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert whole.language == "english" and whole.duration == pytest.approx(11, abs=0.1)
    assert whole.segments and whole.words
    assert whole.segments[0].start < whole.segments[-1].end <= 11.1
    assert "".join(f" {word.word.strip()}" for word in whole.words).strip().startswith("And so")


def test_streams_a_transcription(client: OpenAI, speech: bytes) -> None:
    events = list(client.audio.transcriptions.create(model="speech", file=("jfk.wav", speech), stream=True))
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert events[-1].type == "transcript.text.done" and events[-1].text == deltas.strip()


def test_rejects_translation_by_an_english_model(server: Server, key: dict[str, str], speech: bytes) -> None:
    """Without the client, whose method is deprecated."""
    form = {"model": (None, "speech"), "file": ("jfk.wav", speech)}
    response = requests.post(f"{server.url}/v1/audio/translations", files=form, headers=key, timeout=60)
    assert response.status_code == 400 and "English only" in response.json()["error"]["message"]


# ---------------------------------------------------------------------------------------- images


def test_generates_images(client: OpenAI) -> None:
    found = client.images.generate(
        model="shapes", prompt="a red circle", size="128x128", n=2, extra_body={"seed": 3, "steps": 8}
    )
    assert found.data is not None and len(found.data) == 2 and found.size == "128x128"
    for image in found.data:
        assert image.b64_json is not None
        red, green, blue = colour_of(image.b64_json)
        assert red > green + 80 and red > blue + 80
    again = client.images.generate(
        model="shapes", prompt="a red circle", size="128x128", extra_body={"seed": 3, "steps": 8}
    )
    assert again.data is not None and again.data[0].b64_json == found.data[0].b64_json


def test_streams_partial_images(client: OpenAI) -> None:
    events = list(
        client.images.generate(
            model="shapes",
            prompt="a blue square",
            size="128x128",
            stream=True,
            partial_images=3,
            extra_body={"seed": 1, "steps": 8},
        )
    )
    assert [event.type for event in events] == ["image_generation.partial_image"] * (len(events) - 1) + [
        "image_generation.completed"
    ]
    assert 1 <= len(events) - 1 <= 3
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    red, green, blue = colour_of(events[-1].b64_json)
    assert blue > red + 60 and blue > green + 40
    with Image.open(io.BytesIO(base64.b64decode(events[0].b64_json))) as preview:
        assert preview.format == "PNG"


def test_edits_images(client: OpenAI) -> None:
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 64, 128))  # edit the left half
    file = io.BytesIO()
    mask.save(file, "PNG")
    found = client.images.edit(
        model="shapes",
        image=("white.png", png("white"), "image/png"),
        mask=("mask.png", file.getvalue(), "image/png"),
        prompt="a red circle",
        extra_body={"seed": 1, "steps": 4, "strength": 1.0},
    )
    assert found.data is not None and found.data[0].b64_json is not None
    with Image.open(io.BytesIO(base64.b64decode(found.data[0].b64_json))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[:, 64:] == 255).all()
    assert (pixels[:, :64] < 250).any()
    whole = client.images.edit(
        model="shapes", image=png("white"), prompt="a green circle", extra_body={"seed": 1, "strength": 0.9, "steps": 3}
    )
    assert whole.data is not None and len(whole.data) == 1


def test_rejects_unsupported_image_fields(client: OpenAI) -> None:
    for fields, words in (
        ({"background": "transparent"}, "background is 'transparent'"),
        ({"response_format": "url"}, "response_format is 'url'"),
        ({"size": "9999x9999"}, "expected at most"),
        ({"n": 99}, "batch_size is 99, expected 1 to 4"),
        ({"extra_body": {"model_path": "/etc/passwd"}}, "unknown field 'model_path'"),
        ({"extra_body": {"steps": 10_000}}, "steps is 10000, expected 1 to 150"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            client.images.generate(model="shapes", prompt="a red circle", **fields)
