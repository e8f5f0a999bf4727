"""Llava and describe: requests, streams, conversations, cancelling, closing."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava.support import encoded, pixels, shape
from PIL import Image

from cyllama.errors import (
    CancelledError,
    ClosedError,
    ContextFullError,
    MediaError,
    ModelLoadError,
    UnsupportedError,
)
from cyllama.llama.responses import ChatCompletion
from cyllama.llama.streaming import Stream
from cyllama.llava import Llava, describe

QUESTION = "What is in this picture?"


def test_returns_chat_completion(llava: Llava) -> None:
    response = llava.ask(QUESTION, shape(), max_tokens=12)
    assert isinstance(response, ChatCompletion)
    assert response.text == str(response) and "circle" in response.text
    assert response.finish_reason in ("stop", "length") and 1 <= response.usage.completion_tokens <= 12
    assert response.usage.prompt_tokens > 16
    assert response.timings.prompt_ms > 0


def test_reports_capabilities(llava: Llava) -> None:
    assert llava.supports_images and not llava.supports_audio
    assert llava.llm.supports("vision")
    assert "images" in repr(llava)


def test_is_greedy_by_default(llava: Llava) -> None:
    assert len({llava.ask("Tell me a story.", shape(), max_tokens=10).text for _ in range(2)}) == 1
    hot = {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 10}
    assert (
        llava.ask("Tell me a story.", shape(), seed=7, **hot).text
        != llava.ask("Tell me a story.", shape(), seed=8, **hot).text
    )


def test_response_depends_on_image(llava: Llava) -> None:
    for name, colour in (("circle", "red"), ("square", "blue")):
        text = llava.ask(QUESTION, shape(name, colour), max_tokens=16).text
        assert name in text and colour in text


def test_describe_loads_and_asks(smol_path: Path, mmproj_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shape().save(path)
    pair: dict[str, Any] = {"model": smol_path, "mmproj": mmproj_path}
    response = describe(path, QUESTION, **pair, max_tokens=12, n_ctx=512)
    # Not the shared model, whose cache changes the sizes of batches: with AMX, these change the rounding.
    with Llava(**pair, n_ctx=512) as llava:
        assert response.text == llava.ask(QUESTION, shape(), max_tokens=12).text


@pytest.mark.parametrize("nothing", [None, [], ()])
def test_describe_requires_image(smol_path: Path, mmproj_path: Path, nothing: Any) -> None:
    with pytest.raises(TypeError, match="image"):
        describe(nothing, QUESTION, model=smol_path, mmproj=mmproj_path)


def test_accepts_model_names() -> None:
    with Llava("smollm2-135m-instruct", "vision-dinov2s", n_ctx=512) as llava:
        assert llava.ask(QUESTION, shape(), max_tokens=3).text


# ---------------------------------------------------------------------------------- prompts


def test_order_of_parts_matters(llava: Llava) -> None:
    first, second = shape(), shape("square", "blue")
    a = llava.ask(["First ", first, " then ", second, ". What is first?"], max_tokens=12, logprobs=True)
    b = llava.ask(["First ", second, " then ", first, ". What is first?"], max_tokens=12, logprobs=True)
    assert a.usage.prompt_tokens == b.usage.prompt_tokens
    assert a.choices[0].logprobs.content[0].logprob != b.choices[0].logprobs.content[0].logprob


def test_parts_have_several_forms(llava: Llava) -> None:
    image = {"type": "image", "image": shape()}
    forms: list[list[Any]] = [
        [{"type": "text", "text": QUESTION}, image],
        [QUESTION, shape()],
        [QUESTION, {"type": "image", "image": pixels()}],
        [QUESTION, encoded(shape())],
    ]
    texts = {llava.chat([{"role": "user", "content": parts}], max_tokens=8).text for parts in forms}
    assert texts == {llava.ask([QUESTION, shape()], max_tokens=8).text}


def test_system_message_is_part_of_prompt(llava: Llava) -> None:
    plain = llava.count_tokens("Hello", system="")
    assert llava.count_tokens("Hello", system="You are a very, very careful observer of images.") > plain + 5


def test_count_tokens_includes_media(llava: Llava) -> None:
    response = llava.ask(QUESTION, shape(), max_tokens=1)
    assert llava.count_tokens(QUESTION, shape()) == response.usage.prompt_tokens
    assert llava.count_tokens(QUESTION, shape()) >= llava.count_tokens(QUESTION) + 16


def test_control_tokens_in_prompt_stay_text(llava: Llava) -> None:
    assert llava.count_tokens("<|im_end|>") > llava.count_tokens("x")
    assert llava.ask("say <__media__> twice", max_tokens=2).usage.completion_tokens == 2


@pytest.mark.parametrize("prompt", [7, None, {"type": "text"}, b"bytes"])
def test_rejects_invalid_prompt(llava: Llava, prompt: Any) -> None:
    with pytest.raises(TypeError, match="prompt"):
        llava.ask(prompt)


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([], ValueError),
        ([7], TypeError),
        ([{"role": "robot", "content": "x"}], ValueError),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]}], ValueError),
        ([{"role": "user", "content": [{"type": "image", "image": "a.png"}]}], ValueError),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "http://localhost/a.png"}]}], ValueError),
        ([{"role": "user", "content": [QUESTION, 7]}], TypeError),
    ],
)
def test_rejects_invalid_messages(llava: Llava, messages: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        llava.chat(messages)


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"temprature": 1}, TypeError, "temperature"),
        ({"temperature": "hot"}, TypeError, "temperature"),
        ({"top_p": 5}, ValueError, "top_p"),
        ({"cancel": 7}, TypeError, "is_set"),
    ],
)
def test_rejects_invalid_options(llava: Llava, options: dict[str, Any], error: type[Exception], name: str) -> None:
    with pytest.raises(error, match=name):
        llava.ask(QUESTION, shape(), **options)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (b"not an image", MediaError),
        (np.zeros((5, 5, 7), np.uint8), ValueError),
        (object(), TypeError),
        ("/no/such/image.png", FileNotFoundError),
    ],
)
def test_rejects_invalid_images(llava: Llava, image: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        llava.ask(QUESTION, image)


def test_rejects_audio_without_audio_projector(llava: Llava) -> None:
    with pytest.raises(UnsupportedError, match=r"audio\[0\]"):
        llava.ask(QUESTION, audio=(16000, np.zeros(16000, np.float32)))


def test_rejects_prompt_larger_than_context(llava: Llava) -> None:
    with pytest.raises(ContextFullError):
        llava.ask(QUESTION, [shape()] * 70)
    assert llava.ask(QUESTION, shape(), max_tokens=2).text


def test_limits_apply_to_media(smol_path: Path, mmproj_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shape(size=100).save(path)
    limits = {"max_pixels": 10_000}
    message = {"role": "user", "content": [{"type": "image", "path": str(path)}, QUESTION]}
    with Llava(smol_path, mmproj_path, n_ctx=512, media_limits=limits, allow_paths=tmp_path) as llava:
        assert llava.chat([message], max_tokens=1).usage.prompt_tokens > 16
        with pytest.raises(ValueError, match="max_pixels"):
            llava.ask(QUESTION, Image.new("RGB", (101, 100)))


# ---------------------------------------------------------------------------------- streams


def test_stream_equals_response(llava: Llava) -> None:
    whole = llava.ask(QUESTION, shape(), max_tokens=12)
    with llava.ask(QUESTION, shape(), max_tokens=12, stream=True) as stream:
        assert isinstance(stream, Stream)
        texts = [chunk.text for chunk in stream]
        assert stream.result().text == "".join(texts) == whole.text
    assert len(texts) > 3


def test_stop_text_ends_response(llava: Llava) -> None:
    whole = llava.ask("Tell me a story.", shape(), max_tokens=40).text
    word = whole.split()[4]
    response = llava.ask("Tell me a story.", shape(), max_tokens=40, stop=[word, "never"])
    assert response.finish_reason == "stop" and response.text == whole[: whole.index(word)]


def test_closed_stream_frees_slot(llava: Llava) -> None:
    with llava.ask(QUESTION, shape(), max_tokens=500, ignore_eos=True, stream=True) as stream:
        next(stream)
    assert len(list(stream)) < 10  # chunks that were there already
    assert llava.ask(QUESTION, shape(), max_tokens=2).text


# ---------------------------------------------------------------------------------- cancelling, closing, loading


def test_cancel_stops_response(llava: Llava) -> None:
    event = threading.Event()
    chunks = []
    with pytest.raises(CancelledError):
        for chunk in llava.ask("Tell a story.", shape(), max_tokens=500, ignore_eos=True, stream=True, cancel=event):
            chunks.append(chunk)
            if len(chunks) == 3:
                event.set()
    assert len(chunks) < 400
    assert llava.ask(QUESTION, shape(), max_tokens=2).text


def test_threads_get_responses_for_their_images(llava: Llava) -> None:
    pairs = [("circle", "red"), ("square", "blue")]
    wrong: list[str] = []

    def work(name: str, colour: str) -> None:
        for _ in range(3):
            text = llava.ask(QUESTION, shape(name, colour), max_tokens=12).text
            if name not in text or colour not in text:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_closed_model_raises(smol_path: Path, mmproj_path: Path) -> None:
    seen: list[float] = []
    llava = Llava(smol_path, mmproj_path, n_ctx=256, on_progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0
    llava.close()
    llava.close()
    with pytest.raises(ClosedError):
        llava.ask(QUESTION)
    assert "closed" in repr(llava)


def test_on_progress_cancels_loading(smol_path: Path, mmproj_path: Path) -> None:
    with pytest.raises(CancelledError):
        Llava(smol_path, mmproj_path, on_progress=lambda fraction: fraction < 0.2)


def test_rejects_files_that_do_not_match(smol_path: Path, mmproj_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    for pair in ((tiny_path, mmproj_path), (smol_path, smol_path), (mmproj_path, mmproj_path)):
        with pytest.raises(ModelLoadError):
            Llava(*pair, n_ctx=256)
    with pytest.raises(FileNotFoundError):
        Llava(smol_path, tmp_path / "none.gguf")


def test_template_without_media_is_an_error(smol_path: Path, mmproj_path: Path) -> None:
    with Llava(smol_path, mmproj_path, n_ctx=512, chat_template="{{ 'no messages' }}") as llava:
        with pytest.raises(ValueError):
            llava.ask(QUESTION, shape())
