"""The official client against the server: what it sends is understood, what comes back fits its types."""

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
    """The mean colour of the middle of a picture."""
    with Image.open(io.BytesIO(base64.b64decode(b64))) as image:
        side = image.width // 8
        middle = image.convert("RGB").crop((4 * side - side, 4 * side - side, 4 * side + side, 4 * side + side))
        red, green, blue = np.asarray(middle).reshape(-1, 3).mean(0)
    return round(red), round(green), round(blue)


# ------------------------------------------------------------------------------------------- text


def test_lists_models(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["smol", "tools", "apart", "tiny", "minilm", "reranker", "hearing", "shapes"]
    assert client.models.retrieve("gpt-4o-mini").id == "smol"
    with pytest.raises(openai.NotFoundError, match="no model"):
        client.models.retrieve("gpt-9")


def test_chats(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="smol", messages=QUESTION, temperature=0, max_tokens=32)
    assert answer.choices[0].message.content == "The capital of France is Paris."
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streams(client: OpenAI) -> None:
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
    """A small model may call it more than once, but never with other arguments than the schema allows."""
    assert calls
    for call in calls:
        assert call.function.name == "weather"
        assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")


def test_calls_tools(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tools",
        messages=[{"role": "user", "content": "How is the weather in Rome?"}],
        tools=[TOOL],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        temperature=0,
        max_tokens=200,
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    check_calls(answer.choices[0].message.tool_calls)


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


def test_tools_need_a_template(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="knows no tools"):
        client.chat.completions.create(model="smol", messages=QUESTION, tools=[TOOL], max_tokens=4)


def test_parses(client: OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="smol",
        messages=[{"role": "user", "content": "What is 2 + 3?"}],
        response_format=Sum,
        temperature=0,
        max_tokens=64,
    )
    found = answer.choices[0].message.parsed
    assert isinstance(found, Sum) and isinstance(found.answer, int)


def test_completes(client: OpenAI) -> None:
    answer = client.completions.create(model="smol", prompt="Once upon a", max_tokens=4, temperature=0)
    assert answer.choices[0].text.startswith(" time")
    parts = client.completions.create(model="smol", prompt="Once upon a", max_tokens=4, temperature=0, stream=True)
    assert "".join(part.choices[0].text for part in parts if part.choices) == answer.choices[0].text


def test_responses(client: OpenAI) -> None:
    answer = client.responses.create(
        model="smol",
        instructions="You are a helpful assistant.",
        input="What is the capital of France?",
        temperature=0,
        max_output_tokens=32,
    )
    assert answer.output_text == "The capital of France is Paris."
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


def test_embeds(client: OpenAI) -> None:
    texts = ["That is a happy person", "That is a happy dog", "That is a very happy person", "Today is a sunny day"]
    rows = [np.array(row.embedding) for row in client.embeddings.create(model="minilm", input=texts).data]
    # what the model's card says, for its weights in 8 bits
    for row, expected in zip(rows[1:], (0.696, 0.942, 0.261), strict=True):
        assert math.isclose(float(rows[0] @ row), expected, abs_tol=0.01)


def test_one_name_means_one_model(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"no model 'gpt-9' for chat; there are smol"):
        client.chat.completions.create(model="gpt-9", messages=QUESTION)
    with pytest.raises(openai.NotFoundError, match="no model 'hearing' for chat"):
        client.chat.completions.create(model="hearing", messages=QUESTION)


def test_a_long_prompt_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tools", messages=[{"role": "user", "content": "word " * 9000}])
    assert caught.value.type == "exceed_context_size_error"


# ------------------------------------------------------------------------------------------ speech


def test_transcribes(client: OpenAI, speech: bytes) -> None:
    found = client.audio.transcriptions.create(model="whisper-1", file=("jfk.wav", speech), language="en")
    assert "ask not what your country can do for you" in found.text
    assert found.usage is not None and found.usage.type == "duration" and 10.9 < found.usage.seconds < 11.1


def test_transcribes_in_every_form(client: OpenAI, speech: bytes) -> None:
    for format in ("text", "srt", "vtt"):
        text = client.audio.transcriptions.create(
            model="hearing", file=("jfk.wav", speech), response_format=format, temperature=0
        )
        assert isinstance(text, str) and "fellow Americans" in text
        assert ("-->" in text) == (format != "text")
    whole = client.audio.transcriptions.create(
        model="hearing",
        file=("jfk.wav", speech),
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    assert whole.language == "english" and whole.duration == pytest.approx(11, abs=0.1)
    assert whole.segments and whole.words
    assert whole.segments[0].start < whole.segments[-1].end <= 11.1
    assert "".join(f" {word.word.strip()}" for word in whole.words).strip().startswith("And so")


def test_streams_a_transcription(client: OpenAI, speech: bytes) -> None:
    events = list(client.audio.transcriptions.create(model="hearing", file=("jfk.wav", speech), stream=True))
    deltas = "".join(event.delta for event in events if event.type == "transcript.text.delta")
    assert events[-1].type == "transcript.text.done" and events[-1].text == deltas.strip()


def test_translation_needs_a_multilingual_model(server: Server, key: dict[str, str], speech: bytes) -> None:
    """As the client sends it, which warns that it is deprecated."""
    form = {"model": (None, "hearing"), "file": ("jfk.wav", speech)}
    answer = requests.post(f"{server.url}/v1/audio/translations", files=form, headers=key, timeout=60)
    assert answer.status_code == 400 and "English only" in answer.json()["error"]["message"]


# ---------------------------------------------------------------------------------------- pictures


def test_draws(client: OpenAI) -> None:
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


def test_a_picture_grows(client: OpenAI) -> None:
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


def test_edits(client: OpenAI) -> None:
    mask = Image.new("RGBA", (128, 128), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 64, 128))  # the left half is to be painted
    file = io.BytesIO()
    mask.save(file, "PNG")
    found = client.images.edit(
        model="shapes",
        image=("white.png", png("white"), "image/png"),
        mask=("mask.png", file.getvalue(), "image/png"),
        prompt="a red circle",
        extra_body={"seed": 1, "steps": 8, "strength": 1.0},
    )
    assert found.data is not None and found.data[0].b64_json is not None
    with Image.open(io.BytesIO(base64.b64decode(found.data[0].b64_json))) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert (pixels[:, 64:] == 255).all()
    assert (pixels[:, :64] < 250).any()
    whole = client.images.edit(
        model="shapes", image=png("white"), prompt="a green circle", extra_body={"seed": 1, "strength": 0.9, "steps": 8}
    )
    assert whole.data is not None and len(whole.data) == 1


def test_what_pictures_cannot_be_told(client: OpenAI) -> None:
    for fields, words in (
        ({"quality": "high"}, "quality is 'high'"),
        ({"response_format": "url"}, "response_format is 'url'"),
        ({"size": "9999x9999"}, "pixels are allowed"),
        ({"n": 99}, "batch_size is 99, expected 1 to 4"),
        ({"extra_body": {"model_path": "/etc/passwd"}}, "no field 'model_path'"),
        ({"extra_body": {"steps": 10_000}}, "steps is 10000, expected 1 to 150"),
    ):
        with pytest.raises(openai.BadRequestError, match=words):
            client.images.generate(model="shapes", prompt="a red circle", **fields)
