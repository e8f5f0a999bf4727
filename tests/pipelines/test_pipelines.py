"""Tests of the pipelines with real models; independent programs read the results."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.sounds import JFK
from data.speech import JFK as JFK_TEXT
from data.speech import word_error_rate
from data.voice import speak
from PIL import Image, ImageDraw
from sd.reading import read

from cyllama.errors import CancelledError
from cyllama.pipelines import (
    Caption,
    Illustration,
    ModelPool,
    VoiceChatTurn,
    caption,
    create_variation,
    default_pool,
    illustrate,
    prompt_from_speech,
    speech_to_image,
    summarize_audio,
    voice_chat,
)
from cyllama.sd import GeneratedImage, ImageResult
from cyllama.whisper import StreamedSegment, Whisper, load_audio

SEED = {"seed": 1}
PROMPT = "a large red circle on white"
LLM = "smollm2-135m-instruct"
TO_IMAGE: dict[str, Any] = {"whisper_model": "tiny.en", "sd_model": "tiny-shapes"}
TO_TEXT: dict[str, Any] = {"whisper_model": "tiny.en", "llm_model": LLM}
TEXT_TO_IMAGE: dict[str, Any] = {"llm_model": LLM, "sd_model": "tiny-shapes"}
VISION: dict[str, Any] = {"llm_model": LLM, "mmproj": "vision-dinov2s"}


@pytest.fixture(scope="module")
def pool() -> Iterator[ModelPool]:
    with ModelPool() as made:
        yield made


@pytest.fixture(scope="module")
def red_circle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speak("A large red circle on white.", tmp_path_factory.mktemp("spoken") / "red-circle.wav")


class CancelAfter:
    """An event that is set after a number of checks."""

    def __init__(self, checks: int) -> None:
        self.left = checks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("text", "prompt", "colour", "shape"),
    [
        ("A large red circle on white.", "a large red circle on white", "red", "circle"),
        ("A large green triangle on white.", "a large green triangle on white", "green", "triangle"),
        ("A large yellow ring on black.", "a large yellow ring on black", "yellow", "ring"),
    ],
)
def test_speech_to_image_generates_the_spoken_prompt(
    text: str, prompt: str, colour: str, shape: str, pool: ModelPool, tmp_path: Path
) -> None:
    made = speech_to_image(speak(text, tmp_path / "spoken.wav"), **TO_IMAGE, pool=pool, sd_options=SEED)
    assert made.prompt == prompt and prompt_from_speech(made.transcription.text) == prompt
    seen = read(np.asarray(made.image))
    assert seen.background == prompt.split()[-1]
    assert [(thing.colour, thing.shape) for thing in seen.things] == [(colour, shape)]
    assert made.images.parameters["prompt"] == prompt and made.images[0] is made.image


def test_callbacks_and_seconds_cover_all_steps(pool: ModelPool, red_circle: Path) -> None:
    segments: list[str] = []
    steps: list[int] = []
    previews: list[Any] = []
    made = speech_to_image(
        red_circle,
        **TO_IMAGE,
        pool=pool,
        sd_options={**SEED, "steps": 4, "preview": "proj"},
        on_segment=lambda segment: segments.append(segment.text),
        on_step=lambda step, total, seconds: steps.append(step),
        on_preview=lambda image, step: previews.append(image),
    )
    assert "".join(segments).strip() == made.transcription.text.strip() and steps[-1] == 4 and previews
    *parts, total = made.seconds.values()
    assert list(made.seconds) == ["load whisper", "transcribe", "load sd", "generate", "total"]
    assert sum(parts) <= total and all(seconds >= 0 for seconds in parts)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.prompt = "another"  # type: ignore[misc]


def test_to_dict_is_json_with_images_in_base64(pool: ModelPool, red_circle: Path) -> None:
    made = speech_to_image(red_circle, **TO_IMAGE, pool=pool, sd_options={**SEED, "steps": 1})
    data = json.loads(json.dumps(made.to_dict()))
    assert data["prompt"] == PROMPT and data["transcription"]["text"] == made.transcription.text
    for text in (data["image"], data["images"]["data"][0]["b64_json"]):
        assert Image.open(io.BytesIO(base64.b64decode(text))).tobytes() == made.image.tobytes()


def test_accepts_arrays_bytes_and_loaded_models(pool: ModelPool, red_circle: Path) -> None:
    samples = load_audio(red_circle)
    with pool.use("whisper", "tiny.en") as whisper, pool.use("sd", "tiny-shapes") as sd:
        for audio in (samples, red_circle.read_bytes(), (16_000, samples)):
            made = speech_to_image(audio, whisper_model=whisper, sd_model=sd, sd_options={**SEED, "steps": 1})
            assert made.prompt == PROMPT and list(made.seconds) == ["transcribe", "generate", "total"]
        quick = speech_to_image(
            samples[::2].copy(), whisper_model=whisper, sd_model=sd, sample_rate=8_000, sd_options={"steps": 1}
        )
        assert "circle" in quick.prompt


def test_make_prompt_replaces_the_prompt(pool: ModelPool, red_circle: Path) -> None:
    made = speech_to_image(
        red_circle, **TO_IMAGE, pool=pool, make_prompt=lambda text: "a large blue square on yellow", sd_options=SEED
    )
    seen = read(np.asarray(made.image))
    assert (seen.background, [thing.shape for thing in seen.things]) == ("yellow", ["square"])


@pytest.mark.parametrize(
    ("text", "prompt"),
    [
        (" A red circle.", "a red circle"),
        (" A red\n  circle!?", "a red circle"),
        (" [BLANK_AUDIO]", ""),
        (" (upbeat music) *sighs* A house. ♪", "a house"),
        ("", ""),
        ('"An old lighthouse, at night."', "an old lighthouse, at night"),
        (" NASA on the moon.", "NASA on the moon"),
        (" I see. Paris!", "I see. Paris"),
        (" McDonald had a farm.", "McDonald had a farm"),
        (" The U.S. flag.", "the U.S. flag"),
    ],
)
def test_prompt_from_speech_removes_annotations_and_punctuation(text: str, prompt: str) -> None:
    assert prompt_from_speech(text) == prompt


def test_rejects_silence(pool: ModelPool) -> None:
    silence = np.zeros(8_000, np.float32)
    for call in (
        lambda: speech_to_image(silence, **TO_IMAGE, pool=pool),
        lambda: summarize_audio(silence, **TO_TEXT, pool=pool),
        lambda: voice_chat(silence, **TO_TEXT, pool=pool),
    ):
        with pytest.raises(ValueError, match="transcription"):
            call()


@pytest.mark.parametrize(
    ("call", "missing"),
    [
        (lambda: speech_to_image(JFK), "'whisper_model' and 'sd_model'"),
        (lambda: summarize_audio(JFK), "'whisper_model' and 'llm_model'"),
        (lambda: voice_chat(JFK), "'whisper_model' and 'llm_model'"),
        (lambda: illustrate("a ball"), "'llm_model' and 'sd_model'"),
        (lambda: caption(Image.new("RGB", (8, 8))), "'llm_model'"),
        (lambda: create_variation(Image.new("RGB", (8, 8)), llm_model=LLM), "'sd_model'"),
        (lambda: caption(Image.new("RGB", (8, 8)), llm_model=LLM), "mmproj is None"),
        (lambda: caption(Image.new("RGB", (8, 8)), llm_model=object(), mmproj="x"), "mmproj is 'x'"),  # type: ignore[arg-type]
    ],
)
def test_models_are_required(call: Callable[[], object], missing: str) -> None:
    with pytest.raises(TypeError, match=missing):
        call()


def test_summarizes_a_recording(pool: ModelPool) -> None:
    texts: list[str] = []
    found = summarize_audio(JFK, **TO_TEXT, pool=pool, on_text=texts.append)
    assert word_error_rate(JFK_TEXT, found.transcription.text) < 0.1
    assert "".join(texts).strip() == found.text == str(found) and len(found.text.split()) > 5
    assert found.parts == () and found.finish_reason in ("stop", "length")
    assert json.loads(json.dumps(found.to_dict()))["text"] == found.text


def test_summarizes_a_text_longer_than_the_context_in_parts(pool: ModelPool) -> None:
    speech = np.concatenate([load_audio(JFK)] * 11)
    with pool.use("llm", "smollm2-135m-instruct", n_ctx=256, n_parallel=1) as llm:
        found = summarize_audio(
            speech, whisper_model="tiny.en", llm_model=llm, pool=pool, llm_options={"max_tokens": 40}
        )
        assert len(llm.tokenize(found.transcription.text)) > 256 - 40
    assert len(found.parts) >= 2 and all(found.parts) and found.text
    with pytest.raises(ValueError, match="expected {text}"):
        summarize_audio(speech, **TO_TEXT, instruction="Summarize.", pool=pool)


def test_voice_chat_transcribes_while_blocks_arrive(pool: ModelPool, tmp_path: Path) -> None:
    samples = load_audio(speak("Please tell me the capital of France.", tmp_path / "question.wav"))
    samples = np.concatenate([samples, np.zeros(16_000, np.float32)])
    events: list[tuple[str, str, bool]] = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(samples), 4_000):
            yield samples[start : start + 4_000]
        events.append(("end", "", True))

    def on_segment(segment: StreamedSegment) -> None:
        events.append(("segment", segment.text, segment.final))

    turn = voice_chat(
        blocks(),
        **TO_TEXT,
        pool=pool,
        on_segment=on_segment,
        on_text=lambda text: events.append(("text", text, True)),
    )
    assert "capital of france" in turn.transcript.casefold() and "Paris" in turn.text
    kinds = [kind for kind, _, _ in events]
    assert kinds.index("segment") < kinds.index("end") < kinds.index("text")
    assert "".join(text for kind, text, _ in events if kind == "text").strip() == turn.text
    assert "".join(segment.text for segment in turn.segments).strip() == turn.transcript
    assert [message["role"] for message in turn.messages] == ["user", "assistant"]

    again = voice_chat(samples, turn.messages, **TO_TEXT, pool=pool, llm_options={"max_tokens": 8})
    assert len(again.messages) == 4 and again.messages[:2] == turn.messages
    assert list(again.seconds) == ["load whisper", "transcribe", "load llm", "reply", "total"]


def test_voice_chat_rejects_other_types(pool: ModelPool) -> None:
    for audio in (7, None):
        with pytest.raises(TypeError, match="audio is"):
            voice_chat(audio, **TO_TEXT, pool=pool)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        voice_chat("no-such-file.wav", **TO_TEXT, pool=pool)


@pytest.mark.parametrize(
    "text", ["A red ball rolled over the lawn.", "The sky was blue all day.", "The grass is green."]
)
def test_illustrate_generates_the_prompt_that_the_model_wrote(text: str, pool: ModelPool) -> None:
    """The grammar limits the prompt to the vocabulary of tiny-shapes."""
    texts: list[str] = []
    made = illustrate(text, **TEXT_TO_IMAGE, pool=pool, on_text=texts.append, sd_options=SEED)
    assert "".join(texts) == made.prompt
    *_, colour, shape = made.prompt.split()
    (thing,) = read(np.asarray(made.image)).things
    assert (thing.colour, thing.shape) == (colour, shape)


def test_an_image_is_required(pool: ModelPool) -> None:
    nothing: Any
    for nothing in (None, []):
        with pytest.raises(TypeError, match="image is"):
            caption(nothing, **VISION, pool=pool)
        with pytest.raises(TypeError, match="image is"):
            create_variation(nothing, **VISION, sd_model="tiny-shapes", pool=pool)


def test_create_variation_generates_the_caption(pool: ModelPool) -> None:
    image = Image.new("RGB", (224, 224), "white")
    ImageDraw.Draw(image).ellipse((45, 45, 180, 180), "red")
    made = create_variation(image, **VISION, sd_model="tiny-shapes", pool=pool, sd_options=SEED)
    assert "red circle" in made.caption and made.prompt == PROMPT
    assert [(thing.colour, thing.shape) for thing in read(np.asarray(made.image)).things] == [("red", "circle")]
    assert list(made.seconds) == ["load llava", "caption", "load sd", "generate", "total"]
    close = create_variation(
        image, **VISION, sd_model="tiny-shapes", pool=pool, strength=0.1, make_prompt=lambda _: "a blue square",
        sd_options=SEED,
    )  # fmt: skip
    assert read(np.asarray(close.image)).things[0].colour == "red"  # the initial image stays with a low strength


def test_representations_of_results() -> None:
    parameters = {"prompt": "a <b> & c", "seed": 7}
    image = GeneratedImage.from_pixels(np.zeros((8, 8, 3), np.uint8))
    images = ImageResult([image], [7], parameters, [""])
    seconds = {"generate": 1.0, "total": 1.234}
    made = Illustration(image=image, prompt="a <b> & c", images=images, seconds=seconds)
    assert repr(made) == "Illustration(prompt='a <b> & c', seconds=1.23)"
    shown = made._repr_html_()
    assert "a &lt;b&gt; &amp; c" in shown and "<b>" not in shown and "seed 7" in shown and "generate 1.00" in shown
    assert shown.count("data:image/png;base64,") == 1
    text = Caption(text="x" * 100, seconds=seconds)
    assert len(repr(text)) < 100 and str(text) == text._repr_markdown_() == "x" * 100
    turn = VoiceChatTurn(
        text="Paris", finish_reason="stop", transcript="Where?", segments=(), messages=(), seconds=seconds
    )
    assert turn._repr_markdown_() == "**user:** Where?\n\n**assistant:** Paris"


def test_illustrate_with_grammar_and_invalid_arguments(pool: ModelPool) -> None:
    made = illustrate("It rains.", grammar='root ::= "a small blue ring"', **TEXT_TO_IMAGE, pool=pool, sd_options=SEED)
    assert made.prompt == "a small blue ring" and read(np.asarray(made.image)).things[0].shape == "ring"
    for text, error in (("", ValueError), (" ", ValueError), (7, TypeError)):
        with pytest.raises(error, match="text is"):
            illustrate(text, **TEXT_TO_IMAGE, pool=pool)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected {text}"):
        illustrate("It rains.", **TEXT_TO_IMAGE, instruction="Generate.", pool=pool)
    with pytest.raises(TypeError, match="stepz"):
        illustrate("It rains.", **TEXT_TO_IMAGE, pool=pool, sd_options={"stepz": 1})


def test_cancel_at_any_step(pool: ModelPool, red_circle: Path) -> None:
    before = threading.Event()
    before.set()
    for call in (
        lambda cancel: speech_to_image(red_circle, **TO_IMAGE, pool=pool, cancel=cancel, sd_options={"steps": 20}),
        lambda cancel: summarize_audio(JFK, **TO_TEXT, pool=pool, cancel=cancel),
        lambda cancel: voice_chat(JFK, **TO_TEXT, pool=pool, cancel=cancel),
        lambda cancel: illustrate("A red ball.", **TEXT_TO_IMAGE, pool=pool, cancel=cancel),
    ):
        with pytest.raises(CancelledError):
            call(before)
        for checks in (1, 3, 10):
            with pytest.raises(CancelledError):
                call(CancelAfter(checks))
        assert all(model.users == 0 for model in pool.loaded)
    assert speech_to_image(red_circle, **TO_IMAGE, pool=pool, sd_options={"steps": 1}).prompt == PROMPT


def test_exceptions_of_callbacks_propagate(pool: ModelPool, red_circle: Path) -> None:
    def fail(*_: object) -> None:
        raise LookupError("not any more")

    for call in (
        lambda: speech_to_image(red_circle, **TO_IMAGE, pool=pool, on_segment=fail),
        lambda: speech_to_image(red_circle, **TO_IMAGE, pool=pool, on_step=fail),
        lambda: summarize_audio(JFK, **TO_TEXT, pool=pool, on_text=fail),
        lambda: voice_chat(JFK, **TO_TEXT, pool=pool, on_segment=fail),
        lambda: illustrate("A red ball.", **TEXT_TO_IMAGE, pool=pool, on_text=fail),
    ):
        with pytest.raises(LookupError, match="not any more"):
            call()
        assert all(model.users == 0 for model in pool.loaded)


def test_default_pool_is_shared_and_recreated_after_close(red_circle: Path) -> None:
    try:
        assert default_pool() is default_pool()
        for _ in range(2):
            speech_to_image(red_circle, **TO_IMAGE, sd_options={"steps": 1})
        assert [(model.kind, model.users) for model in default_pool().loaded] == [("whisper", 0), ("sd", 0)]
        with default_pool().use("whisper", "tiny.en") as whisper:
            assert isinstance(whisper, Whisper)
    finally:
        old = default_pool()
        old.close()
    assert default_pool() is not old


def test_a_pool_for_one_model_closes_it_for_the_next(red_circle: Path) -> None:
    with ModelPool(memory=100 << 20, wait=0) as small:
        assert speech_to_image(red_circle, **TO_IMAGE, pool=small, sd_options={"steps": 1}).prompt == PROMPT
        assert [model.kind for model in small.loaded] == ["sd"]
