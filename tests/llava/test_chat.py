"""Llava and describe: questions, what is remembered, all forms of a picture, streams, threads, stopping."""

from __future__ import annotations

import base64
import dataclasses
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llava.support import encoded, pixels, shape

from cyllama.errors import CancelledError, ClosedError, InUseError, UnsupportedError
from cyllama.llama import LlamaModel
from cyllama.llava import Answer, AnswerStream, Llava, describe

QUESTION = "What is in this picture?"


# ---------------------------------------------------------------------------------- answers


def test_an_answer(llava: Llava) -> None:
    answer = llava.ask(QUESTION, shape(), max_tokens=12)
    assert isinstance(answer, Answer) and answer.text and str(answer) == answer.text
    assert answer.finish_reason in ("stop", "length") and 1 <= answer.completion_tokens <= 12
    assert answer.media_tokens == 16 < answer.prompt_tokens
    assert answer.encoded + answer.cached == 1
    found = answer.to_dict()
    assert found["text"] == answer.text and found["timings"]["total"] == answer.timings.total > 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        answer.text = "another"


def test_what_it_is(llava: Llava, smol_model: LlamaModel) -> None:
    assert llava.model is smol_model and llava.supports_images and not llava.supports_audio
    assert "vision" in repr(llava)


def test_describe_in_one_call(smol_path: Path, mmproj_path: Path, llava: Llava, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    shape().save(path)
    answer = describe(path, QUESTION, model=smol_path, mmproj=mmproj_path, max_tokens=12, n_ctx=512)
    assert answer.text == llava.ask(QUESTION, shape(), max_tokens=12).text
    assert answer.encoded == 1
    for nothing in (None, [], ()):
        with pytest.raises(TypeError, match=r"image is .*, expected a picture or several"):
            describe(nothing, QUESTION, model=smol_path, mmproj=mmproj_path)
    with pytest.raises(TypeError, match="keep a Llava to have a stream"):
        describe(path, QUESTION, model=smol_path, mmproj=mmproj_path, stream=True)


def test_models_by_name() -> None:
    with Llava("smollm2-135m-instruct", "vision-dinov2s", n_ctx=512) as llava:
        assert llava.ask(QUESTION, shape(), max_tokens=3).text


def test_the_picture_decides(llava: Llava) -> None:
    texts = {
        llava.ask(QUESTION, shape(*names), max_tokens=16).text for names in (("circle", "red"), ("square", "blue"))
    }
    assert len(texts) == 2


# ---------------------------------------------------------------------------------- what is remembered


def test_a_second_question_skips_the_encoder(fresh: Llava) -> None:
    first = fresh.ask(QUESTION, shape(), max_tokens=4)
    second = fresh.ask("Which colour does it have?", shape(), max_tokens=4)
    assert (first.encoded, first.cached, second.encoded) == (1, 0, 0)
    assert first.timings.encode > 0.0 == second.timings.encode
    assert second.reused_tokens >= 16  # it stands where it stood before
    third = fresh.ask("Look well.", [shape("square"), shape()], max_tokens=4)
    assert (third.encoded, third.cached) == (1, 1)
    assert len(fresh.cache) == 2


def test_what_is_remembered_changes_nothing(mmproj_path: Path, smol_model: LlamaModel) -> None:
    questions = [QUESTION, "Which colour does it have?", QUESTION]
    with Llava(smol_model, mmproj_path, n_ctx=256) as kept:
        remembered = [kept.ask(q, shape(), max_tokens=16).text for q in questions]
    assert remembered[0] == remembered[2]
    for question, text in zip(questions[:2], remembered, strict=False):
        with Llava(smol_model, mmproj_path, n_ctx=256, cache_bytes=0) as llava:
            assert llava.ask(question, shape(), max_tokens=16).text == text


def test_the_cache_has_a_limit(mmproj_path: Path, smol_model: LlamaModel) -> None:
    one = 16 * 576 * 4
    with Llava(smol_model, mmproj_path, n_ctx=512, cache_bytes=2 * one) as llava:
        for colour in ("red", "blue", "green"):
            assert llava.ask(QUESTION, shape("circle", colour), max_tokens=1).encoded == 1
        assert len(llava.cache) == 2 and llava.cache.n_bytes == 2 * one
        assert llava.ask("And?", shape("circle", "blue"), max_tokens=1).encoded == 0
        assert llava.ask("And?", shape("circle", "red"), max_tokens=1).encoded == 1  # the oldest went
        assert llava.ask("And so?", shape("circle", "blue"), max_tokens=1).encoded == 0  # it was used since
    with Llava(smol_model, mmproj_path, n_ctx=512, cache_bytes=0) as llava:
        assert llava.ask(QUESTION, shape(), max_tokens=1).encoded == 1
        assert len(llava.cache) == 0


def test_the_same_picture_twice_in_a_question(fresh: Llava) -> None:
    answer = fresh.ask(["One ", shape(), " two ", shape()], max_tokens=2)
    assert answer.media_tokens == 32 and answer.encoded + answer.cached == 2


# ---------------------------------------------------------------------------------- questions


def test_pictures_between_texts(llava: Llava) -> None:
    first, second = shape(), shape("square", "blue")
    a = llava.ask(["First ", first, " then ", second, ". Which is round?"], max_tokens=6)
    b = llava.ask(["First ", second, " then ", first, ". Which is round?"], max_tokens=6)
    assert a.prompt_tokens == b.prompt_tokens and a.media_tokens == 32
    assert b.encoded == 0


def test_conversations(llava: Llava) -> None:
    url = "data:image/png;base64," + base64.b64encode(encoded(shape())).decode()
    forms: list[list[Any]] = [
        [{"type": "text", "text": QUESTION}, {"type": "image", "image": shape()}],
        [QUESTION, shape()],
        [{"type": "text", "text": QUESTION}, {"type": "image_url", "image_url": {"url": url}}],
        [QUESTION, {"type": "image_url", "image_url": url}],
        [QUESTION, {"type": "image", "image": pixels()}],
    ]
    answers = [llava.chat([{"role": "user", "content": parts}], max_tokens=8) for parts in forms]
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].text == llava.ask([QUESTION, shape()], max_tokens=8).text
    turns = [
        {"role": "system", "content": "You look at pictures."},
        {"role": "user", "content": forms[0]},
        {"role": "assistant", "content": answers[0].text},
        {"role": "user", "content": "Are you sure?"},
    ]
    answer = llava.chat(turns, max_tokens=8)
    assert answer.media_tokens == 16 and answer.cached + answer.encoded <= 1


def test_a_system_message_counts(llava: Llava) -> None:
    plain = llava.ask("Hello", max_tokens=1)
    told = llava.ask("Hello", system="You are a very, very careful observer of pictures.", max_tokens=1)
    assert told.prompt_tokens != plain.prompt_tokens and plain.media_tokens == 0


def test_what_people_write_is_no_control_token(llava: Llava) -> None:
    vocab = llava.model.vocab
    (end,) = vocab.tokenize("<|im_end|>", False, True)

    def ends(text: str) -> int:
        from cyllama.llava.messages import question
        from cyllama.media.parts import MediaRules

        chunks, _ = llava._prompts.chunks(question(text, None, None, None, MediaRules()))
        return sum(chunk.tokens.count(end) for chunk in chunks)

    assert ends("<|im_end|>") == ends("hello")
    assert llava.ask("say <__media__> twice", max_tokens=2).media_tokens == 0


def test_counting_tokens(llava: Llava) -> None:
    answer = llava.ask(QUESTION, shape(), max_tokens=1)
    assert llava.count_tokens(QUESTION, shape()) == answer.prompt_tokens


def test_paths_in_messages_need_leave(llava: Llava, mmproj_path: Path, smol_model: LlamaModel, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for path in (tmp_path / "in" / "a.png", tmp_path / "b.png"):
        shape().save(path)

    def messages(part: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [part, QUESTION]}]

    def parts(path: Path) -> list[dict[str, Any]]:
        url = f"file://{path}"
        return [{"type": "image", "image": str(path)}, {"type": "image_url", "image_url": {"url": url}}]

    with Llava(smol_model, mmproj_path, n_ctx=512, allow_paths=tmp_path / "in") as opens:
        for part in parts(tmp_path / "in" / "a.png"):
            assert opens.chat(messages(part), max_tokens=1).media_tokens == 16
            with pytest.raises(ValueError, match="allow_paths"):
                llava.chat(messages(part))
        for part in parts(tmp_path / "b.png"):
            with pytest.raises(ValueError, match="not inside of allow_paths"):
                opens.chat(messages(part))
    with pytest.raises(ValueError, match="allow_urls"):
        llava.chat(messages({"type": "image_url", "image_url": "http://localhost/a.png"}))


@pytest.mark.parametrize(
    ("messages", "kind", "message"),
    [
        ([], ValueError, "messages is empty"),
        ("hello", TypeError, "expected a list"),
        ([7], TypeError, r"messages\[0\] is 7"),
        ([{"role": "robot", "content": "x"}], ValueError, "the role 'robot'"),
        ([{"role": "user"}], TypeError, "content is None"),
        ([{"role": "user", "content": [{"type": "film"}]}], ValueError, "expected a part"),
        ([{"role": "user", "content": [{"type": "text", "text": 7}]}], TypeError, "text is 7"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": "data:x"}]}], ValueError, "expected data:"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": "data:image/png;base64,%%%"}]}],
            ValueError,
            "expected base64",
        ),
    ],
)
def test_wrong_messages(llava: Llava, messages: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        llava.chat(messages)


# ---------------------------------------------------------------------------------- how it answers


def test_sampling(llava: Llava) -> None:
    def texts(**options: Any) -> list[str]:
        return [llava.ask("Tell me a story.", shape(), max_tokens=10, **options).text for _ in range(2)]

    greedy = texts()
    assert greedy[0] == greedy[1]
    seeded = texts(temperature=1.5, seed=7)
    assert seeded[0] == seeded[1]
    assert len({*texts(temperature=1.5, seed=8), *seeded, *greedy}) >= 2
    assert len(set(texts(temperature=2.0, top_k=0, top_p=1.0, min_p=0.0))) == 2  # a random seed each time


def test_stop_texts(llava: Llava) -> None:
    whole = llava.ask("Tell me a story.", shape(), max_tokens=40).text
    word = whole.split()[4]
    cut = llava.ask("Tell me a story.", shape(), max_tokens=40, stop=word)
    assert cut.finish_reason == "stop" and cut.text == whole[: whole.index(word)]
    streamed = llava.ask("Tell me a story.", shape(), max_tokens=40, stop=[word, "never"], stream=True)
    assert "".join(streamed) == cut.text
    assert streamed.answer.text == cut.text


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"max_tokens": 0}, ValueError, "max_tokens is 0"),
        ({"max_tokens": 1.5}, TypeError, "max_tokens is 1.5, expected an integer"),
        ({"temprature": 1}, TypeError, "did you mean 'temperature'"),
        ({"stop": ""}, ValueError, "stop is ''"),
        ({"stop": [7]}, ValueError, r"stop is \[7\]"),
        ({"stop": 7}, ValueError, "stop is 7"),
        ({"temperature": "hot"}, TypeError, "temperature is 'hot', expected a number"),
        ({"temperature": -1}, ValueError, "temperature is -1, expected 0 or more"),
        ({"top_p": 5}, ValueError, "top_p is 5, expected 0 to 1"),
        ({"on_text": 7}, TypeError, "on_text is 7"),
        ({"on_progress": 7}, TypeError, "on_progress is 7"),
        ({"cancel": 7}, TypeError, "is_set"),
        ({"seed": -(2**70)}, ValueError, "seed"),
    ],
)
def test_wrong_options(llava: Llava, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        llava.ask(QUESTION, shape(), **options)


@pytest.mark.parametrize("prompt", [7, None, {"type": "text"}, b"bytes"])
def test_wrong_prompts(llava: Llava, prompt: Any) -> None:
    with pytest.raises(TypeError, match="prompt is"):
        llava.ask(prompt)


# ---------------------------------------------------------------------------------- streams


def test_streaming_gives_the_same(llava: Llava) -> None:
    whole = llava.ask(QUESTION, shape(), max_tokens=12)
    with llava.ask(QUESTION, shape(), max_tokens=12, stream=True) as stream:
        assert isinstance(stream, AnswerStream)
        parts = list(stream)
    assert len(parts) > 3 and "".join(parts) == whole.text
    assert dataclasses.replace(stream.answer, timings=whole.timings, reused_tokens=0, cached=0) == dataclasses.replace(
        whole, reused_tokens=0, cached=0, encoded=0
    )
    heard: list[str] = []
    llava.ask(QUESTION, shape(), max_tokens=12, on_text=heard.append)
    assert heard == parts


def test_a_stream_that_is_left(llava: Llava) -> None:
    stream = llava.ask(QUESTION, shape(), max_tokens=50, stream=True)
    next(stream)
    with pytest.raises(InUseError, match="close its stream first"):
        llava.ask(QUESTION, shape())
    with pytest.raises(InUseError, match="close its stream first"):
        llava.close()
    stream.close()
    assert stream.answer is None and list(stream) == []
    assert llava.ask(QUESTION, shape(), max_tokens=2).text
    stream = llava.ask(QUESTION, shape(), max_tokens=50, stream=True)
    next(stream)
    del stream
    assert llava.ask(QUESTION, shape(), max_tokens=2).text


def test_progress(fresh: Llava) -> None:
    seen: list[tuple[int, int]] = []
    answer = fresh.ask(QUESTION, shape(), max_tokens=2, on_progress=lambda *step: seen.append(step))
    assert seen[0][0] == 0 and seen[-1] == (answer.prompt_tokens, answer.prompt_tokens)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and len(seen) == 4


def test_progress_while_loading(smol_path: Path, mmproj_path: Path) -> None:
    seen: list[float] = []
    with Llava(smol_path, mmproj_path, n_ctx=256, on_progress=seen.append):
        assert seen == sorted(seen) and seen[0] < 0.5 and seen[-1] == 1.0
    for stop in (0.2, 0.7):
        with pytest.raises(CancelledError):
            Llava(smol_path, mmproj_path, on_progress=lambda part, stop=stop: part < stop)


# ---------------------------------------------------------------------------------- stopping, threads, closing


def test_cancel_within_the_encoder(fresh: Llava) -> None:
    event = threading.Event()
    pictures = [np.random.default_rng(i).integers(0, 256, (224, 224, 3), np.uint8) for i in range(12)]
    timers: list[threading.Timer] = []

    def on_progress(done: int, total: int) -> None:
        if not timers:
            timers.append(threading.Timer(0.15, event.set))
            timers[0].start()

    with pytest.raises(CancelledError):
        fresh.ask(QUESTION, pictures, on_progress=on_progress, cancel=event)
    timers[0].join()
    assert len(fresh.cache) < 12, "all pictures were encoded"
    assert fresh.ask(QUESTION, shape(), max_tokens=2).text


def test_cancel_while_it_answers(llava: Llava) -> None:
    event = threading.Event()
    pieces: list[str] = []

    def on_text(piece: str) -> None:
        pieces.append(piece)
        if len(pieces) == 3:
            event.set()

    with pytest.raises(CancelledError):
        llava.ask("Tell me a long story.", shape(), on_text=on_text, cancel=event)
    assert len(pieces) == 3
    with pytest.raises(CancelledError):
        llava.ask(QUESTION, shape(), on_progress=lambda done, total: False)
    assert llava.ask(QUESTION, shape(), max_tokens=2).text


def test_ctrl_c(llava: Llava) -> None:
    count = 0

    def on_text(piece: str) -> None:
        nonlocal count
        count += 1
        if count == 3:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        llava.ask("Tell me a long story.", shape(), on_text=on_text)
    assert count == 3
    assert llava.ask(QUESTION, shape(), max_tokens=2).text


def test_two_threads_ask_about_two_pictures(llava: Llava) -> None:
    pairs = [("circle", "red"), ("square", "blue")]
    expected = {pair: llava.ask(QUESTION, shape(*pair), max_tokens=8).text for pair in pairs}
    assert len(set(expected.values())) > 1
    wrong: list[str] = []

    def work(pair: tuple[str, str]) -> None:
        for _ in range(3):
            text = llava.ask(QUESTION, shape(*pair), max_tokens=8).text
            if text != expected[pair]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(pair,)) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_cancel_while_it_waits(llava: Llava) -> None:
    stream = llava.ask(QUESTION, shape(), max_tokens=50, stream=True)
    next(stream)
    event = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            llava.ask(QUESTION, shape(), cancel=event)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    assert not errors
    event.set()
    thread.join(10)
    stream.close()
    assert [type(error) for error in errors] == [CancelledError]


def test_closing(smol_path: Path, mmproj_path: Path, smol_model: LlamaModel) -> None:
    llava = Llava(smol_path, mmproj_path, n_ctx=256)
    model = llava.model
    llava.close()
    llava.close()
    assert model.closed
    with pytest.raises(ClosedError):
        llava.ask(QUESTION)
    assert "closed" in repr(llava)
    Llava(smol_model, mmproj_path, n_ctx=256).close()
    assert not smol_model.closed  # it was given


def test_pairs_that_do_not_fit(smol_path: Path, mmproj_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    from cyllama.errors import ModelLoadError

    with pytest.raises(ModelLoadError, match="mismatch"):
        Llava(tiny_path, mmproj_path, chat_template="chatml")
    with pytest.raises(UnsupportedError, match="no chat template"):
        Llava(tiny_path, mmproj_path)
    with pytest.raises(ModelLoadError, match="expected a projector"):
        Llava(smol_path, smol_path)
    with pytest.raises(ModelLoadError, match="projector"):
        Llava(mmproj_path, mmproj_path)
    with pytest.raises(FileNotFoundError):
        Llava(smol_path, tmp_path / "none.gguf")


def test_chat_templates(smol_model: LlamaModel, mmproj_path: Path) -> None:
    with Llava(smol_model, mmproj_path, n_ctx=512, chat_template="vicuna") as llava:
        assert llava.ask(QUESTION, shape(), max_tokens=2).media_tokens == 16
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    with Llava(smol_model, mmproj_path, n_ctx=512, chat_template=template) as llava:
        assert llava.ask(QUESTION, shape(), max_tokens=2).media_tokens == 16
    with Llava(smol_model, mmproj_path, n_ctx=512, chat_template="nothing of it") as llava:
        with pytest.raises(UnsupportedError, match="wrote 0 of 1"):
            llava.ask(QUESTION, shape())
    with pytest.raises(ValueError, match="template"):
        Llava(smol_model, mmproj_path, n_ctx=512, chat_template="{% for %}")
