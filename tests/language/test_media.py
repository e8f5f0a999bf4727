"""Pictures and sound in `LLM.chat`: every form, every order, what is refused; and what the native server answers."""

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
from language.media_in import ASK, CIRCLE, MODEL, SQUARE, TALK, WIDTH, encoded, heard, picture, shown, text, user
from language.native_server import NativeServer, native_server
from language.test_native import fixed, joined
from PIL import Image

from cyllama import LLM, get_threads, models
from cyllama.errors import CancelledError


def outcome(answer: Any) -> Any:
    """All of an answer that does not change from call to call, probabilities too."""
    found = fixed(answer.to_dict())
    found["usage"].pop("prompt_tokens_details", None)  # how much of it was known already
    return found


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For pictures and sound, with random weights."""
    return write_projector(tmp_path_factory.mktemp("projector") / "both.gguf", WIDTH, audio=True)


@pytest.fixture(scope="module")
def llm(projector: Path) -> Iterator[LLM]:
    with LLM(MODEL, mmproj=projector, options={"no-cache-prompt": True}, **TALK) as model:
        yield model


# ----------------------------------------------------------------------------- the native server's answers


CHATS: dict[str, list[Any]] = {
    "a picture": [user(shown(CIRCLE), text("What is this?"))],
    "the text first": [user(text("What is this?"), shown(CIRCLE))],
    "several, and texts between": [
        user(text("One:"), shown(CIRCLE), text("two:"), shown(SQUARE), text("Which is round?"))
    ],
    "a sound": [user(heard(JFK.read_bytes()), text("What is said?"))],
    "a picture and a sound": [user(shown(SQUARE), heard(JFK.read_bytes()), text("Well?"))],
    "several turns": [
        {"role": "system", "content": "Look well."},
        user(shown(CIRCLE), text("What is this?")),
        {"role": "assistant", "content": "A circle."},
        user(shown(SQUARE), text("And this?")),
        {"role": "assistant", "content": "A square."},
        {"role": "user", "content": "Which was first?"},
    ],
    "what looks like the mark of a picture": [user(text("<__media__> is no picture"), shown(CIRCLE))],
}


@pytest.fixture(scope="module")
def server(projector: Path) -> Iterator[NativeServer]:
    options = ("--ctx-size", 2048, "--parallel", 2, "--kv-unified", "--threads", get_threads(), "--no-cache-prompt")
    with native_server("--model", models.get(MODEL), "--mmproj", projector, *options) as native:
        yield native


@pytest.mark.parametrize("name", CHATS)
def test_as_the_native_server_answers(llm: LLM, server: NativeServer, name: str) -> None:
    body = {"messages": CHATS[name], **ASK}
    status, expected = server.post("/v1/chat/completions", body)
    assert status == 200, expected
    assert fixed(llm.chat(**body).to_dict()) == fixed(expected)
    status, counted = server.post("/v1/chat/completions/input_tokens", {"messages": CHATS[name]})
    assert llm.count_tokens(CHATS[name]) == counted["input_tokens"] == expected["usage"]["prompt_tokens"]


def test_streams_as_the_native_server(llm: LLM, server: NativeServer) -> None:
    body = {"messages": CHATS["several turns"], **ASK, "stream_options": {"include_usage": True}}
    expected = server.stream("/v1/chat/completions", body)
    ours = [part.to_dict() for part in llm.chat(**body, stream=True)]
    assert joined(ours) == joined(expected) and fixed(ours[-1]["usage"]) == fixed(expected[-1]["usage"])


# ----------------------------------------------------------------------------------------- a pair that sees


@pytest.fixture(scope="module")
def seeing() -> Iterator[LLM]:
    with LLM(CHAT_MODEL, mmproj="vision-dinov2s", **TALK) as model:
        yield model


@pytest.mark.parametrize(("shape", "colour"), [("circle", "red"), ("square", "blue"), ("circle", "green")])
def test_what_is_seen_is_named(seeing: LLM, shape: str, colour: str) -> None:
    image = picture(shape, colour, 224)
    answer = seeing.chat("What is in this picture?", images=image, max_tokens=24, temperature=0).text
    assert shape in answer and colour in answer
    assert seeing.supports("vision") and not seeing.supports("audio")


def test_a_talk_about_two_pictures(seeing: LLM) -> None:
    talk: list[Any] = []
    for image, words in ((CIRCLE, ("circle", "red")), (SQUARE, ("square", "blue"))):
        talk.append(user({"type": "image", "image": image.resize((224, 224))}, text("What is in this picture?")))
        answer = seeing.chat(talk, max_tokens=24, temperature=0)
        assert all(word in answer.text for word in words)
        talk.append(answer.message.to_dict())


# --------------------------------------------------------------------------------------- forms and orders


def test_a_picture_in_every_form(llm: LLM, tmp_path: Path) -> None:
    expected = outcome(llm.chat([user(shown(CIRCLE), text("What is this?"))], **ASK))
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
        assert outcome(llm.chat("What is this?", images=form, **ASK)) == expected
        if not isinstance(form, io.BytesIO | Path | str):
            part = {"type": "image", "image": form}
            assert outcome(llm.chat([user(part, text("What is this?"))], **ASK)) == expected
    other = outcome(llm.chat("What is this?", images=SQUARE, **ASK))
    assert other["choices"] != expected["choices"] and other["usage"] == expected["usage"]


def test_a_sound_in_every_form(llm: LLM, tmp_path: Path) -> None:
    expected = outcome(llm.chat([user(heard(JFK.read_bytes()), text("Well?"))], **ASK))
    samples = jfk_float32()
    soundfile.write(tmp_path / "jfk.flac", samples, 16_000, subtype="PCM_16")
    both = np.stack([samples, samples], 1)
    forms = [JFK, str(JFK), JFK.read_bytes(), io.BytesIO(JFK.read_bytes()), samples, (16_000, samples), both,
             tmp_path / "jfk.flac", (samples * 32768).astype(np.int16)]  # fmt: skip
    for form in forms:
        assert outcome(llm.chat("Well?", audio=form, **ASK)) == expected
    assert outcome(llm.chat("Well?", audio=samples[:80_000], **ASK))["choices"] != expected["choices"]


def test_the_order(llm: LLM) -> None:
    def ask(*content: Any) -> Any:
        return outcome(llm.chat([user(*content)], **ASK))["choices"]

    one, two, question = shown(CIRCLE), shown(SQUARE), text("Well?")
    answers = [ask(one, two, question), ask(two, one, question), ask(one, question, two), ask(question, one, two)]
    assert all(answers[i] != answers[j] for i in range(4) for j in range(i))
    assert outcome(llm.chat("Well?", images=[CIRCLE, SQUARE], **ASK))["choices"] == answers[0]
    mixed = outcome(llm.chat("Well?", images=[CIRCLE], audio=[JFK], **ASK))["choices"]
    assert mixed == ask(one, heard(JFK.read_bytes()), question)
    last = llm.chat([user(one), {"role": "assistant", "content": "Yes."}, user(question)], images=[SQUARE], **ASK)
    again = llm.chat([user(one), {"role": "assistant", "content": "Yes."}, user(two, question)], **ASK)
    assert outcome(last) == outcome(again)


def test_what_is_given_stays_as_it_is(llm: LLM) -> None:
    messages = [user({"type": "image", "image": CIRCLE}, text("What is this?"))]
    before = [dict(message, content=list(message["content"])) for message in messages]
    assert outcome(llm.chat(messages, **ASK)) == outcome(llm.chat(messages, **ASK))
    assert messages == before and messages[0]["content"][0]["image"] is CIRCLE


def test_paths_and_addresses_in_messages(llm: LLM, projector: Path, tmp_path: Path) -> None:
    path = tmp_path / "circle.png"
    path.write_bytes(encoded(CIRCLE))
    question = user({"type": "image_url", "image_url": {"url": path.as_uri()}}, text("What is this?"))
    closed = [question, user({"type": "image", "image": str(path)}), user({"type": "image", "path": str(path)})]
    for message in closed:
        with pytest.raises(ValueError, match=r"messages\[0\].content\[0\].* opened only with allow_paths"):
            llm.chat([message])
    with pytest.raises(ValueError, match=r"messages\[0\].content\[0\].* opened only with allow_urls"):
        llm.chat([user({"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a.png"}})])
    expected = llm.chat("What is this?", images=path, **ASK)
    with LLM(MODEL, mmproj=projector, allow_paths=tmp_path, **TALK) as opener:
        assert outcome(opener.chat([question], **ASK)) == outcome(expected)
        with pytest.raises(ValueError, match="not inside of allow_paths"):
            opener.chat([user({"type": "image", "path": "/etc/passwd"})])
    with pytest.raises(TypeError, match="options has 'media-path', which is allow_paths= here"):
        LLM(MODEL, mmproj=projector, options={"media-path": str(tmp_path)})


# -------------------------------------------------------------------------------------------- many at once


def test_a_later_turn_computes_no_picture_again(projector: Path) -> None:
    talk = [user({"type": "image", "image": CIRCLE}, text("What is this?"))]
    with LLM(MODEL, mmproj=projector, **TALK) as model:
        first = model.chat(talk, **ASK)
        talk += [first.message.to_dict(), {"role": "user", "content": "Are you sure?"}]
        second = model.chat(talk, **ASK)
        assert second.timings.cache_n >= first.usage.prompt_tokens - 1
        other = [user({"type": "image", "image": SQUARE}, text("What is this?"))]
        assert model.chat(other, **ASK).timings.cache_n < 30  # the same template, but another picture


def first_words(answer: Any) -> list[float]:
    """How likely the first words are, which a batch of several requests changes in the last digits."""
    return [word.logprob for word in answer.choices[0].logprobs.content[0].top_logprobs]


def nearest(words: list[float], known: list[list[float]]) -> int:
    """Whose words these are."""
    return int(np.argmin([np.abs(np.subtract(words, other)).max() for other in known]))


def test_threads_with_pictures_of_their_own(llm: LLM) -> None:
    ask = {**ASK, "max_tokens": 2, "top_logprobs": 4}
    pictures = [CIRCLE, SQUARE, picture("circle", "green"), picture("square", "black")]
    alone = [first_words(llm.chat("What is this?", images=image, **ask)) for image in pictures]
    found: dict[int, list[list[float]]] = {i: [] for i in range(4)}

    def work(i: int) -> None:
        for _ in range(5):
            found[i].append(first_words(llm.chat("What is this?", images=pictures[i], **ask)))

    threads = [threading.Thread(target=work, args=(i,)) for i in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: [nearest(words, alone) for words in several] for i, several in found.items()} == {
        i: [i] * 5 for i in range(4)
    }


def test_asyncio(llm: LLM) -> None:
    async def both() -> list[Any]:
        calls = (llm.achat("What is this?", images=image, **ASK) for image in (CIRCLE, SQUARE))
        return list(await asyncio.gather(*calls))

    expected = [first_words(llm.chat("What is this?", images=image, **ASK)) for image in (CIRCLE, SQUARE)]
    assert [nearest(first_words(answer), expected) for answer in asyncio.run(both())] == [0, 1]


def test_cancelling_while_it_encodes(tmp_path: Path) -> None:
    """The call ends at once, and so does the encoder: the next request does not wait for it."""
    slow = write_projector(tmp_path / "slow.gguf", WIDTH, vision=False, audio=True, layers=40)
    sound = np.zeros(16_000 * 29, np.float32)  # is encoded at once
    with LLM(MODEL, mmproj=slow, n_ctx=1024, n_parallel=1, options={"no-cache-prompt": True}) as model:
        begin = time.monotonic()
        whole = model.chat("Well?", audio=sound, **ASK)
        all_of_it = time.monotonic() - begin
        for stream in (False, True):
            stop = After(all_of_it / 2)  # before is the preparation of the sound
            with pytest.raises(CancelledError):
                list(model.chat("Well?", audio=sound, cancel=stop, stream=stream, **ASK))
            assert time.monotonic() - stop.end < 0.5
            begin = time.monotonic()
            assert model.chat("Say yes.", max_tokens=1).usage.completion_tokens == 1
            assert time.monotonic() - begin < max(0.5, all_of_it / 4)
        assert outcome(model.chat("Well?", audio=sound, **ASK)) == outcome(whole)


class After:
    """Is set after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.end = time.monotonic() + seconds

    def is_set(self) -> bool:
        return time.monotonic() > self.end


def test_a_picture_after_a_text_that_was_cancelled(llm: LLM) -> None:
    expected = outcome(llm.chat("What is this?", images=CIRCLE, **ASK))
    for _ in range(5):
        stream = llm.chat("Count.", stream=True, max_tokens=1000, ignore_eos=True)
        next(stream)
        stream.close()
        assert outcome(llm.chat("What is this?", images=CIRCLE, **ASK)) == expected


# ------------------------------------------------------------------------------------- requests from elsewhere


def test_other_interfaces(llm: LLM) -> None:
    """What a server passes on: decoded here, in the form that upstream's handler reads."""
    data = base64.b64encode(encoded(CIRCLE)).decode()
    source = {"type": "base64", "media_type": "image/png", "data": data}
    bodies: dict[str, dict[str, Any]] = {
        "chat_completions": {"messages": [user(shown(CIRCLE), text("What is this?"))]},
        "messages": {"messages": [user({"type": "image", "source": source}, text("What is this?"))]},
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
        prepared = llm.prepared({**body, "max_tokens": 4, "max_output_tokens": 4, "temperature": 0})
        assert data not in json.dumps(prepared)
        with llm.request(route, json.dumps(prepared).encode()) as found:
            assert found.status == 200, found.data
            usage = json.loads(found.data)["usage"]
            assert usage.get("prompt_tokens", usage.get("input_tokens")) == wanted, route
    inside = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": [
        {"type": "image", "source": {"type": "url", "url": "http://127.0.0.1:1/a.png"}}]}]}  # fmt: skip
    with pytest.raises(ValueError, match="allow_urls"):
        llm.prepared({"messages": [inside]})
    given = {
        "type": "function_call_output",
        "call_id": "x",
        "output": [{"type": "input_image", "image_url": "file:///a"}],
    }
    with pytest.raises(ValueError, match="allow_paths"):
        llm.prepared({"input": [given]})
