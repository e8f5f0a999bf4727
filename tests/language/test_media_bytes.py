"""Media beside the JSON of a request, embeddings that are reused, and media in prompts of completions."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.projectors import write_projector
from data.sounds import JFK, jfk_float32
from language.media_samples import CIRCLE, GREEDY, MODEL, SETTINGS, SQUARE, WIDTH, encoded, image_part, text_part, user
from PIL import Image

from cyllama import LLM
from cyllama.errors import MediaError, UnsupportedError
from cyllama.llama._chat_request import encode_body
from cyllama.llama._media import Attachments


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_projector(tmp_path_factory.mktemp("projector") / "both.gguf", WIDTH, audio=True)


@pytest.fixture(scope="module")
def llm(projector: Path) -> Iterator[LLM]:
    with LLM(MODEL, mmproj=projector, **SETTINGS) as model:
        yield model


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def prompt_body(llm: LLM, *files: Any) -> dict[str, Any]:
    """Return the body of a completion with files."""
    markers = llm.properties.media_marker * len(files)
    return {"prompt": {"prompt_string": f"{markers} What is this?", "multimodal_data": list(files)}, "n_predict": 2}


def complete(llm: LLM, body: Any) -> tuple[int, Any]:
    with llm.request("completion", body) as found:
        return found.status, json.loads(found.data)


# ----------------------------------------------------------------------------- bytes beside the JSON


def test_media_are_not_in_the_json(llm: LLM) -> None:
    image = Image.new("RGB", (1000, 1000), "red")
    body = llm._chat_body([user(image_part(image), text_part("What is this?"))], {"max_tokens": 1}, None, None)
    attached = Attachments()
    assert len(encode_body(body, attached.refer)) < 1000
    ((header, pixels),) = attached.files
    assert header == b"P6\n1000 1000\n255\n"
    np.testing.assert_array_equal(np.frombuffer(pixels, np.uint8).reshape(1000, 1000, 3), np.asarray(image))


def test_rejects_reference_without_file(llm: LLM) -> None:
    part = {"type": "image_url", "image_url": {"url": "attachment:0"}}
    with pytest.raises(ValueError, match="attachment:0"):
        llm.request("chat_completions", json.dumps({"messages": [user(part)]}).encode())


@pytest.mark.parametrize("url", ["attachment:0", "attachment:1"])
def test_clients_cannot_refer_to_attachments(llm: LLM, url: str) -> None:
    part = {"type": "image_url", "image_url": {"url": url}}
    with pytest.raises(ValueError, match=r"messages\[0\]\.content\[1\]"):
        llm.chat([user(image_part(CIRCLE), part)])
    with pytest.raises(ValueError, match="multimodal_data"):
        llm.request_json("completion", prompt_body(llm, url))


def test_rejects_other_objects_in_body(llm: LLM) -> None:
    with pytest.raises(TypeError, match="bytes"):
        llm.request("completion", {"prompt": b"text"})


# ----------------------------------------------------------------------------- embeddings are reused


def test_reuses_embeddings_after_another_text(tmp_path: Path) -> None:
    slow = write_projector(tmp_path / "slow.gguf", WIDTH, vision=False, audio=True, layers=40)
    audio = {"type": "audio", "audio": jfk_float32()}
    with LLM(MODEL, mmproj=slow, n_ctx=1024, n_parallel=1) as model:
        first = model.chat([user(audio, text_part("Well?"))], max_tokens=1)
        second = model.chat([user(text_part("Some text before it."), audio, text_part("Well?"))], max_tokens=1)
        assert second.timings.prompt_n > 150  # the prompt cache does not have the audio
        assert second.timings.prompt_ms < first.timings.prompt_ms / 3


def test_reused_embeddings_give_the_same_response(llm: LLM, projector: Path) -> None:
    image = {"type": "image", "image": CIRCLE}
    messages = [user(text_part("Before:"), image, text_part("between:"), {"type": "image", "image": SQUARE}, image)]
    with LLM(MODEL, mmproj=projector, **SETTINGS) as fresh:
        expected = fresh.chat(messages, **GREEDY)
    llm.chat([user({"type": "image", "image": SQUARE}, image)], **GREEDY)
    response = llm.chat(messages, **GREEDY)
    assert response.text == expected.text
    pairs = zip(response.choices[0].logprobs.content, expected.choices[0].logprobs.content, strict=True)
    assert all(abs(ours.logprob - theirs.logprob) < 1e-3 for ours, theirs in pairs)


# ----------------------------------------------------------------------------- media in prompts


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_completion_prompt_accepts_images(llm: LLM, kind: str) -> None:
    status, found = complete(llm, prompt_body(llm, base64_of(encoded(CIRCLE, kind))))
    assert status == 200, found
    assert found["tokens_evaluated"] > 4


def test_completion_prompt_accepts_audio(llm: LLM) -> None:
    status, found = complete(llm, prompt_body(llm, base64_of(JFK.read_bytes())))
    assert status == 200, found
    assert found["tokens_evaluated"] > 50


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (base64_of(b"\x1a\x45\xdf\xa3" + bytes(100)), MediaError),  # a video for upstream
        (base64_of(b"P6\n40000 40000\n255\n" + bytes(100)), ValueError),
        ("file:///etc/passwd", ValueError),
        ("http://127.0.0.1:1/a.png", ValueError),
        (7, ValueError),
    ],
)
def test_completion_prompt_rejects_bad_media(llm: LLM, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        llm.request_json("completion", prompt_body(llm, value))


def test_completion_prompt_without_projector() -> None:
    with LLM(MODEL, n_ctx=256) as model, pytest.raises(UnsupportedError):
        data = base64_of(encoded(CIRCLE))
        model.request_json("completion", {"prompt": [{"prompt_string": "x", "multimodal_data": [data]}]})
