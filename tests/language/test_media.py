"""Images and audio in `LLM.chat`: forms, order, caching, cancelling, and comparison with the native server."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from data.projectors import write_projector
from data.sounds import JFK, jfk_float32
from language.conftest import CHAT_MODEL
from language.media_samples import (
    CIRCLE,
    GREEDY,
    MODEL,
    SETTINGS,
    SQUARE,
    WIDTH,
    audio_part,
    draw,
    encoded,
    image_part,
    text_part,
    user,
)
from language.native_server import NativeServer, native_server
from language.test_native import fixed, joined
from PIL import Image

from cyllama import LLM, get_threads, models
from cyllama.errors import CancelledError


def outcome(response: Any) -> Any:
    """Return what does not change from call to call, probabilities included."""
    found = fixed(response.to_dict())
    found["usage"].pop("prompt_tokens_details", None)  # how many tokens were cached
    return found


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A projector for images and audio, with random weights."""
    return write_projector(tmp_path_factory.mktemp("projector") / "both.gguf", WIDTH, audio=True)


@pytest.fixture(scope="module")
def llm(projector: Path) -> Iterator[LLM]:
    with LLM(MODEL, mmproj=projector, options={"no-cache-prompt": True}, **SETTINGS) as model:
        yield model


# ----------------------------------------------------------------------------- comparison with the native server


CHATS: dict[str, list[Any]] = {
    "an image": [user(image_part(CIRCLE), text_part("What is this?"))],
    "the text first": [user(text_part("What is this?"), image_part(CIRCLE))],
    "several images with texts between": [
        user(text_part("One:"), image_part(CIRCLE), text_part("two:"), image_part(SQUARE), text_part("Which is round?"))
    ],
    "audio": [user(audio_part(JFK.read_bytes()), text_part("What is said?"))],
    "an image and audio": [user(image_part(SQUARE), audio_part(JFK.read_bytes()), text_part("Well?"))],
    "several turns": [
        {"role": "system", "content": "Look well."},
        user(image_part(CIRCLE), text_part("What is this?")),
        {"role": "assistant", "content": "A circle."},
        user(image_part(SQUARE), text_part("And this?")),
        {"role": "assistant", "content": "A square."},
        {"role": "user", "content": "Which was first?"},
    ],
    "text that looks like a media marker": [user(text_part("<__media__> is text"), image_part(CIRCLE))],
}


@pytest.fixture(scope="module")
def server(projector: Path) -> Iterator[NativeServer]:
    options = ("--ctx-size", 2048, "--parallel", 2, "--kv-unified", "--threads", get_threads(), "--no-cache-prompt")
    with native_server("--model", models.get(MODEL), "--mmproj", projector, *options) as native:
        yield native


@pytest.mark.parametrize("name", CHATS)
def test_response_equals_native_server(llm: LLM, server: NativeServer, name: str) -> None:
    body = {"messages": CHATS[name], **GREEDY}
    status, expected = server.post("/v1/chat/completions", body)
    assert status == 200, expected
    assert fixed(llm.chat(**body).to_dict()) == fixed(expected)
    status, counted = server.post("/v1/chat/completions/input_tokens", {"messages": CHATS[name]})
    assert llm.count_tokens(CHATS[name]) == counted["input_tokens"] == expected["usage"]["prompt_tokens"]


def test_stream_equals_native_server(llm: LLM, server: NativeServer) -> None:
    body = {"messages": CHATS["several turns"], **GREEDY, "stream_options": {"include_usage": True}}
    expected = server.stream("/v1/chat/completions", body)
    ours = [part.to_dict() for part in llm.chat(**body, stream=True)]
    assert joined(ours) == joined(expected) and fixed(ours[-1]["usage"]) == fixed(expected[-1]["usage"])


# ----------------------------------------------------------------------------------------- a trained pair


@pytest.fixture(scope="module")
def trained() -> Iterator[LLM]:
    with LLM(CHAT_MODEL, mmproj="vision-dinov2s", **SETTINGS) as model:
        yield model


@pytest.mark.parametrize(("shape", "colour"), [("circle", "red"), ("square", "blue"), ("circle", "green")])
def test_names_shape_and_colour(trained: LLM, shape: str, colour: str) -> None:
    image = draw(shape, colour, 224)
    response = trained.chat("Describe the picture.", images=image, max_tokens=24, temperature=0).text
    assert shape in response and colour in response
    assert trained.supports("vision") and not trained.supports("audio")


def test_conversation_about_two_images(trained: LLM) -> None:
    talk: list[Any] = []
    for image, words in ((CIRCLE, ("circle", "red")), (SQUARE, ("square", "blue"))):
        talk.append(user({"type": "image", "image": image.resize((224, 224))}, text_part("What is in this picture?")))
        response = trained.chat(talk, max_tokens=24, temperature=0)
        assert all(word in response.text for word in words)
        talk.append(response.message.to_dict())


# --------------------------------------------------------------------------------------- forms and order


def test_response_is_equal_for_every_image_form(llm: LLM, tmp_path: Path) -> None:
    expected = outcome(llm.chat([user(image_part(CIRCLE), text_part("What is this?"))], **GREEDY))
    path, raw, pixels = tmp_path / "circle.png", encoded(CIRCLE), np.asarray(CIRCLE)
    path.write_bytes(raw)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(CIRCLE.rotate(90), "PNG", exif=exif)
    forms = [
        path, str(path), raw, bytearray(raw), io.BytesIO(raw), CIRCLE, CIRCLE.convert("RGBA"), pixels, pixels[::-1][::-1],
        pixels.transpose(2, 0, 1), pixels.astype(np.float32) / 255, pixels.astype(np.uint16) * 257, turned,
        encoded(CIRCLE.quantize(4), "PNG"), encoded(CIRCLE, "WEBP", lossless=True), encoded(CIRCLE, "TIFF"),
    ]  # fmt: skip
    for form in forms:
        assert outcome(llm.chat("What is this?", images=form, **GREEDY)) == expected
        if not isinstance(form, io.BytesIO | Path | str):
            part = {"type": "image", "image": form}
            assert outcome(llm.chat([user(part, text_part("What is this?"))], **GREEDY)) == expected
    other = outcome(llm.chat("What is this?", images=SQUARE, **GREEDY))
    assert other["choices"] != expected["choices"] and other["usage"] == expected["usage"]


def test_response_is_equal_for_every_audio_form(llm: LLM, tmp_path: Path) -> None:
    expected = outcome(llm.chat([user(audio_part(JFK.read_bytes()), text_part("Well?"))], **GREEDY))
    samples = jfk_float32()
    soundfile.write(tmp_path / "jfk.flac", samples, 16_000, subtype="PCM_16")
    both = np.stack([samples, samples], 1)
    forms = [JFK, str(JFK), JFK.read_bytes(), io.BytesIO(JFK.read_bytes()), samples, (16_000, samples), both,
             tmp_path / "jfk.flac", (samples * 32768).astype(np.int16)]  # fmt: skip
    for form in forms:
        assert outcome(llm.chat("Well?", audio=form, **GREEDY)) == expected
    assert outcome(llm.chat("Well?", audio=samples[:80_000], **GREEDY))["choices"] != expected["choices"]


def test_order_of_parts_matters(llm: LLM) -> None:
    def choices(*content: Any) -> Any:
        return outcome(llm.chat([user(*content)], **GREEDY))["choices"]

    one, two, question = image_part(CIRCLE), image_part(SQUARE), text_part("Well?")
    responses = [
        choices(one, two, question), choices(two, one, question), choices(one, question, two), choices(question, one, two),
    ]  # fmt: skip
    assert all(responses[i] != responses[j] for i in range(4) for j in range(i))
    assert outcome(llm.chat("Well?", images=[CIRCLE, SQUARE], **GREEDY))["choices"] == responses[0]
    mixed = outcome(llm.chat("Well?", images=[CIRCLE], audio=[JFK], **GREEDY))["choices"]
    assert mixed == choices(one, audio_part(JFK.read_bytes()), question)
    last = llm.chat([user(one), {"role": "assistant", "content": "Yes."}, user(question)], images=[SQUARE], **GREEDY)
    again = llm.chat([user(one), {"role": "assistant", "content": "Yes."}, user(two, question)], **GREEDY)
    assert outcome(last) == outcome(again)


def test_messages_are_not_changed(llm: LLM) -> None:
    messages = [user({"type": "image", "image": CIRCLE}, text_part("What is this?"))]
    before = [dict(message, content=list(message["content"])) for message in messages]
    assert outcome(llm.chat(messages, **GREEDY)) == outcome(llm.chat(messages, **GREEDY))
    assert messages == before and messages[0]["content"][0]["image"] is CIRCLE


def test_paths_and_urls_need_permission(llm: LLM, projector: Path, tmp_path: Path) -> None:
    path = tmp_path / "circle.png"
    path.write_bytes(encoded(CIRCLE))
    question = user({"type": "image_url", "image_url": {"url": path.as_uri()}}, text_part("What is this?"))
    closed = [question, user({"type": "image", "image": str(path)}), user({"type": "image", "path": str(path)})]
    for message in closed:
        with pytest.raises(ValueError, match=r"messages\[0\].content\[0\].* opened only with allow_paths"):
            llm.chat([message])
    with pytest.raises(ValueError, match=r"messages\[0\].content\[0\].* opened only with allow_urls"):
        llm.chat([user({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}})])
    expected = llm.chat("What is this?", images=path, **GREEDY)
    with LLM(MODEL, mmproj=projector, allow_paths=tmp_path, **SETTINGS) as opener:
        assert outcome(opener.chat([question], **GREEDY)) == outcome(expected)
        with pytest.raises(ValueError, match="not in allow_paths"):
            opener.chat([user({"type": "image", "path": "/etc/passwd"})])
    with pytest.raises(TypeError, match="options has 'media-path', which is allow_paths= here"):
        LLM(MODEL, mmproj=projector, options={"media-path": str(tmp_path)})


# -------------------------------------------------------------------------------------------- caching and concurrency


def test_later_turn_reuses_image(projector: Path) -> None:
    talk = [user({"type": "image", "image": CIRCLE}, text_part("What is this?"))]
    with LLM(MODEL, mmproj=projector, **SETTINGS) as model:
        first = model.chat(talk, **GREEDY)
        talk += [first.message.to_dict(), {"role": "user", "content": "Are you sure?"}]
        second = model.chat(talk, **GREEDY)
        assert second.timings.cache_n >= first.usage.prompt_tokens - 1
        other = [user({"type": "image", "image": SQUARE}, text_part("What is this?"))]
        assert model.chat(other, **GREEDY).timings.cache_n < 30  # the same template, but another image


def first_logprobs(response: Any) -> list[float]:
    """Return the logprobs of the first token, which batching with other requests changes in the last digits."""
    return [word.logprob for word in response.choices[0].logprobs.content[0].top_logprobs]


def nearest(words: list[float], known: list[list[float]]) -> int:
    """Return the index of the nearest logprobs."""
    return int(np.argmin([np.abs(np.subtract(words, other)).max() for other in known]))


def test_threads_get_responses_for_their_images(llm: LLM) -> None:
    fields = {**GREEDY, "max_tokens": 2, "top_logprobs": 4}
    images = [CIRCLE, SQUARE, draw("circle", "green"), draw("square", "black")]
    alone = [first_logprobs(llm.chat("What is this?", images=image, **fields)) for image in images]
    found: dict[int, list[list[float]]] = {i: [] for i in range(4)}

    def work(i: int) -> None:
        for _ in range(5):
            found[i].append(first_logprobs(llm.chat("What is this?", images=images[i], **fields)))

    threads = [threading.Thread(target=work, args=(i,)) for i in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: [nearest(words, alone) for words in several] for i, several in found.items()} == {
        i: [i] * 5 for i in range(4)
    }


def test_async_chats_get_responses_for_their_images(llm: LLM) -> None:
    async def both() -> list[Any]:
        calls = (llm.achat("What is this?", images=image, **GREEDY) for image in (CIRCLE, SQUARE))
        return list(await asyncio.gather(*calls))

    expected = [first_logprobs(llm.chat("What is this?", images=image, **GREEDY)) for image in (CIRCLE, SQUARE)]
    assert [nearest(first_logprobs(response), expected) for response in asyncio.run(both())] == [0, 1]


def test_cancel_stops_encoder(tmp_path: Path) -> None:
    """The call and the encoder stop, and the next request does not wait."""
    slow = write_projector(tmp_path / "slow.gguf", WIDTH, vision=False, audio=True, layers=40)
    clip = np.zeros(16_000 * 29, np.float32)  # one chunk
    with LLM(MODEL, mmproj=slow, n_ctx=1024, n_parallel=1) as fresh:
        expected = outcome(fresh.chat("Well?", audio=clip, **GREEDY))
    with LLM(MODEL, mmproj=slow, n_ctx=1024, n_parallel=1, options={"no-cache-prompt": True}) as model:
        begin, cpu = time.monotonic(), time.process_time()
        model.chat("Well?", audio=clip + 0.1, **GREEDY)  # another clip, because embeddings are reused
        duration, cpu = time.monotonic() - begin, time.process_time() - cpu
        for stream in (False, True):
            stop = After(duration / 2)  # after the decoding of the file
            with pytest.raises(CancelledError):
                list(model.chat("Well?", audio=clip, cancel=stop, stream=stream, **GREEDY))
            assert time.monotonic() - stop.end < max(0.5, duration / 4)
            used = time.process_time()  # unlike the clock, it hardly depends on other programs
            assert model.chat("Say yes.", max_tokens=1).usage.completion_tokens == 1
            assert time.process_time() - used < cpu / 4
        assert outcome(model.chat("Well?", audio=clip, **GREEDY)) == expected


class After:
    """A cancel object that is set after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() > self.end


def test_image_after_cancelled_text(llm: LLM) -> None:
    expected = outcome(llm.chat("What is this?", images=CIRCLE, **GREEDY))
    for _ in range(5):
        stream = llm.chat("Count.", stream=True, max_tokens=1000, ignore_eos=True)
        next(stream)
        stream.close()
        assert outcome(llm.chat("What is this?", images=CIRCLE, **GREEDY)) == expected


# ------------------------------------------------------------------------------------- requests of other clients


def test_decodes_media_of_other_interfaces(llm: LLM) -> None:
    """Media are decoded, in the form that upstream's handler reads."""
    data = base64.b64encode(encoded(CIRCLE)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    bodies: dict[str, dict[str, Any]] = {
        "chat_completions": {"messages": [user(image_part(CIRCLE), text_part("What is this?"))]},
        "messages": {"messages": [user({"type": "image", "source": source}, text_part("What is this?"))]},
        "responses": {
            "input": [
                user(
                    {"type": "input_image", "image_url": f"data:image/png;base64,{data}"},
                    {"type": "input_text", "text": "What is this?"},
                )
            ]
        },
    }
    wanted = llm.count_tokens("What is this?", images=[CIRCLE])
    for route, body in bodies.items():
        with llm.request(route, {**body, "max_tokens": 4, "max_output_tokens": 4, "temperature": 0}) as found:
            assert found.status == 200, found.data
            usage = json.loads(found.data)["usage"]
            assert usage.get("prompt_tokens", usage.get("input_tokens")) == wanted, route
    inside = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [
        {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/a.png"}}]}]}  # fmt: skip
    with pytest.raises(ValueError, match="allow_urls"):
        llm.request("messages", {"messages": [inside]})
    given = {
        "type": "function_call_output",
        "call_id": "x",
        "output": [{"type": "input_image", "image_url": "file:///a"}],
    }
    with pytest.raises(ValueError, match="allow_paths"):
        llm.request("responses", {"input": [given]})
