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
from language.native_server import NativeServer, native_server
from language.test_native import fixed, joined
from PIL import Image, ImageDraw

from cyllama import LLM, get_threads, models
from cyllama.errors import CancelledError, MediaError, ModelLoadError, UnsupportedError
from cyllama.llama import estimate_memory

MODEL, WIDTH = "tiny-random-llama", 32  # and the width of its vectors
ASK = {"max_tokens": 8, "temperature": 0, "logprobs": True, "top_logprobs": 2}
TALK = {"n_ctx": 2048, "n_parallel": 2}


def picture(shape: str, colour: str, size: int = 96) -> Image.Image:
    image = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(image)
    (draw.ellipse if shape == "circle" else draw.rectangle)(
        (size // 5, size // 5, size * 4 // 5, size * 4 // 5), colour
    )
    return image


CIRCLE, SQUARE = picture("circle", "red"), picture("square", "blue")


def encoded(image: Image.Image, kind: str = "PNG", **more: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **more)
    return out.getvalue()


def shown(image: Image.Image) -> dict[str, Any]:
    """As OpenAI has it."""
    return {
        "type": "image_url",
        "image_url": {"url": f"data:image/png;base64,{base64.b64encode(encoded(image)).decode()}"},
    }


def heard(data: bytes) -> dict[str, Any]:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(data).decode(), "format": "wav"}}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


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


@pytest.fixture(scope="module")
def text_llm() -> Iterator[LLM]:
    with LLM(MODEL, n_ctx=512) as model:
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
    slow = write_projector(tmp_path / "slow.gguf", WIDTH, vision=False, audio=True, layers=24)
    with LLM(MODEL, mmproj=slow, n_ctx=8192, n_parallel=1) as model:
        long = np.zeros(16_000 * 60 * 10, np.float32)
        for stream in (False, True):
            stop = threading.Event()
            timer = threading.Timer(0.5, stop.set)
            begin = time.monotonic()
            timer.start()
            with pytest.raises(CancelledError):
                answer = model.chat("Well?", audio=long, max_tokens=1, cancel=stop, stream=stream)
                list(answer)
            assert time.monotonic() - begin < 0.5 + 0.5 + 2.0  # the sound is prepared before it is encoded
        assert model.chat("Say yes.", max_tokens=2).usage.completion_tokens == 2


# ------------------------------------------------------------------------------------------- what is refused


def test_without_a_projector(text_llm: LLM) -> None:
    assert not text_llm.supports("vision") and not text_llm.supports("audio")
    for media in ({"images": [CIRCLE]}, {"audio": [JFK]}):
        with pytest.raises(UnsupportedError, match="loaded without a projector: give LLM its mmproj"):
            text_llm.chat("What is this?", **media)
    with pytest.raises(UnsupportedError, match=r"messages\[0\].content\[0\] is a picture"):
        text_llm.chat([user(shown(CIRCLE))])


@pytest.mark.parametrize("kind", ["vision", "audio"])
def test_a_projector_of_one_kind(tmp_path: Path, kind: str) -> None:
    path = write_projector(tmp_path / "one.gguf", WIDTH, vision=kind == "vision", audio=kind == "audio")
    with LLM(MODEL, mmproj=path, n_ctx=512) as model:
        assert model.supports(kind) and not model.supports("audio" if kind == "vision" else "vision")
        if kind == "vision":
            with pytest.raises(UnsupportedError, match=r"audio\[0\] is a sound, but the projector .* pictures alone"):
                model.chat("Well?", audio=JFK)
        else:
            with pytest.raises(UnsupportedError, match=r"images\[0\] is a picture, but the projector .* sound alone"):
                model.chat("Well?", images=CIRCLE)


def bomb() -> bytes:
    return b"P6\n40000 40000\n255\n" + bytes(100)


@pytest.mark.parametrize(
    ("media", "error", "message"),
    [
        ({"images": b"no picture"}, MediaError, r"images\[0\] is no picture that can be read"),
        ({"images": [CIRCLE, encoded(CIRCLE)[:60]]}, MediaError, r"images\[1\] is no picture that can be read"),
        ({"images": JFK}, MediaError, r"images\[0\] .*jfk.wav.* is no picture"),
        ({"images": bomb()}, ValueError, "1,600,000,000 pixels, more than 50,000,000"),
        ({"images": np.zeros((0, 4, 3), np.uint8)}, ValueError, r"images\[0\] has 4x0 pixels"),
        ({"images": 3}, TypeError, r"images\[0\] is int, expected a Pillow image"),
        ({"images": "none.png"}, FileNotFoundError, "none.png"),
        ({"images": encoded(CIRCLE, "GIF", save_all=True, append_images=[SQUARE])}, MediaError, "has 2 pictures"),
        ({"audio": encoded(CIRCLE)}, MediaError, "cannot read the audio of"),
        ({"audio": np.zeros(0, np.float32)}, ValueError, "no samples"),
        ({"audio": np.full(9, np.nan)}, ValueError, "is nan"),
        ({"audio": 3}, TypeError, "audio is a int"),
        ({"audio": "none.wav"}, FileNotFoundError, "none.wav"),
        ({"audio": JFK.read_bytes()[:5000]}, MediaError, "truncated"),
    ],
)
def test_bad_media(llm: LLM, media: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llm.chat("What is this?", **media)
    assert llm.chat("Say yes.", max_tokens=1).usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        (
            [user({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}})],
            UnsupportedError,
            "is a video",
        ),
        (
            [user({"type": "image_url"})],
            ValueError,
            r"messages\[0\].content\[0\] is .*expected a part of type image_url",
        ),
        (
            [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})],
            MediaError,
            "is no picture",
        ),
        (
            [user({"type": "image_url", "image_url": {"url": "javascript:1"}})],
            ValueError,
            "expected one of http or https",
        ),
        ([user({"type": "strange"})], ValueError, "content"),
    ],
)
def test_bad_parts(llm: LLM, messages: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llm.chat(messages)


def test_media_belong_to_the_user(llm: LLM) -> None:
    with pytest.raises(
        ValueError, match="images and audio belong to a message of the user, but the last is of 'assist"
    ):
        llm.chat([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], images=[CIRCLE])


def test_limits_of_a_request(projector: Path) -> None:
    limits = {"max_pixels": 96 * 96, "max_total_pixels": 2 * 96 * 96, "max_seconds": 12.0, "max_bytes": 400_000}
    with LLM(MODEL, mmproj=projector, media_limits=limits, **TALK) as model:
        model.chat("Well?", images=[CIRCLE, SQUARE], audio=[JFK], max_tokens=1)
        with pytest.raises(ValueError, match=r"images\[0\] has 97x97 = 9,409 pixels, more than 9,216"):
            model.chat("Well?", images=picture("circle", "red", 97))
        with pytest.raises(ValueError, match=r"up to images\[2\] have 27,648 pixels, more than 18,432"):
            model.chat("Well?", images=[CIRCLE] * 3)
        with pytest.raises(ValueError, match="is longer than the 1 s that are taken"):
            model.chat("Well?", audio=[JFK, JFK])
        with pytest.raises(ValueError, match="more than 400,000 bytes"):
            model.chat([user({"type": "image_url", "image_url": {"url": "A" * 600_000}})])
    with pytest.raises(TypeError, match="max_pixel"):
        LLM(MODEL, mmproj=projector, media_limits={"max_pixel": 3})


def test_a_picture_longer_than_the_context(projector: Path) -> None:
    with LLM(MODEL, mmproj=projector, n_ctx=256, n_parallel=1) as model:
        with pytest.raises(Exception, match="context"):
            model.chat("Well?", audio=np.zeros(16_000 * 60, np.float32), max_tokens=1)
        assert model.chat("Say yes.", max_tokens=1).usage.completion_tokens == 1


# --------------------------------------------------------------------------------------------------- loading


def test_a_projector_for_another_model(tmp_path: Path) -> None:
    path = write_projector(tmp_path / "other.gguf", 48)
    with pytest.raises(ModelLoadError) as caught:
        LLM(MODEL, mmproj=path, n_ctx=256)
    assert any(
        "mismatch between text model (n_embd = 32) and mmproj (n_embd = 48)" in line for line in caught.value.log
    )


def test_files_that_are_mixed_up(projector: Path, tiny_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="expected a projector"):
        LLM(MODEL, mmproj=tiny_path, n_ctx=256)
    with pytest.raises(ModelLoadError):
        LLM(projector, n_ctx=256)
    with pytest.raises(FileNotFoundError, match="nothing"):
        LLM(MODEL, mmproj=tmp_path / "nothing.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(projector.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="truncated"):
        LLM(MODEL, mmproj=cut, n_ctx=256)
    cut.write_bytes(b"no file of the kind")
    with pytest.raises(ModelLoadError):
        LLM(MODEL, mmproj=cut, n_ctx=256)


def test_memory_counts_the_projector(projector: Path) -> None:
    without, found = (estimate_memory(MODEL, n_ctx=512, **more) for more in ({}, {"mmproj": projector}))
    assert without.projector == 0 and found.projector > projector.stat().st_size * 0.9
    assert found.total == without.total + found.projector


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
