"""The pipelines, with real models: what comes out is read by programs that know nothing of how it was made."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.sounds import JFK
from data.speech import JFK as JFK_TEXT
from data.speech import word_error_rate
from data.voice import speak
from PIL import Image
from sd.reading import read

from cyllama.errors import CancelledError
from cyllama.pipelines import (
    ModelPool,
    caption,
    default_pool,
    describe_and_redraw,
    illustrate,
    speech_to_image,
    spoken_prompt,
    summarize_audio,
    voice_chat,
)
from cyllama.whisper import StreamedSegment, Whisper, load_audio

SEED = {"seed": 1}
PROMPT = "a large red circle on white"


@pytest.fixture(scope="module")
def pool() -> Iterator[ModelPool]:
    with ModelPool() as made:
        yield made


@pytest.fixture(scope="module")
def red_circle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speak("A large red circle on white.", tmp_path_factory.mktemp("spoken") / "red-circle.wav")


class Stopped:
    """Set after it was looked at so many times."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def is_set(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize(
    ("said", "prompt", "colour", "shape"),
    [
        ("A large red circle on white.", "a large red circle on white", "red", "circle"),
        ("A large green triangle on white.", "a large green triangle on white", "green", "triangle"),
        ("A large yellow ring on black.", "a large yellow ring on black", "yellow", "ring"),
    ],
)
def test_a_spoken_prompt_becomes_a_picture(
    said: str, prompt: str, colour: str, shape: str, pool: ModelPool, tmp_path: Path
) -> None:
    made = speech_to_image(speak(said, tmp_path / "said.wav"), pool=pool, sd_options=SEED)
    assert made.prompt == prompt and spoken_prompt(made.transcription.text) == prompt
    seen = read(np.asarray(made.image))
    assert seen.background == prompt.split()[-1]
    assert [(thing.colour, thing.shape) for thing in seen.things] == [(colour, shape)]
    assert made.images.parameters["prompt"] == prompt and made.images[0] is made.image


def test_steps_are_seen_and_timed(pool: ModelPool, red_circle: Path) -> None:
    heard: list[str] = []
    steps: list[int] = []
    previews: list[Any] = []
    made = speech_to_image(
        red_circle,
        pool=pool,
        sd_options={**SEED, "steps": 4, "preview": "proj"},
        on_segment=lambda segment: heard.append(segment.text),
        on_step=lambda step, total, seconds: steps.append(step),
        on_preview=lambda picture, step: previews.append(picture),
    )
    assert "".join(heard).strip() == made.transcription.text.strip() and steps[-1] == 4 and previews
    *parts, total = made.seconds.values()
    assert list(made.seconds) == ["load whisper", "transcribe", "load sd", "draw", "total"]
    assert sum(parts) <= total and all(seconds >= 0 for seconds in parts)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.prompt = "another"  # type: ignore[misc]


def test_results_as_json(pool: ModelPool, red_circle: Path) -> None:
    made = speech_to_image(red_circle, pool=pool, sd_options={**SEED, "steps": 1})
    data = json.loads(json.dumps(made.to_dict()))
    assert data["prompt"] == PROMPT and data["transcription"]["text"] == made.transcription.text
    for text in (data["image"], data["images"]["data"][0]["b64_json"]):
        assert Image.open(io.BytesIO(base64.b64decode(text))).tobytes() == made.image.tobytes()


def test_any_sound_and_loaded_models(pool: ModelPool, red_circle: Path) -> None:
    samples = load_audio(red_circle)
    with pool.use("whisper", "tiny.en") as whisper, pool.use("sd", "tiny-shapes") as sd:
        for audio in (samples, red_circle.read_bytes(), (16_000, samples)):
            made = speech_to_image(audio, whisper_model=whisper, sd_model=sd, sd_options={**SEED, "steps": 1})
            assert made.prompt == PROMPT and list(made.seconds) == ["transcribe", "draw", "total"]
        quick = speech_to_image(samples[::2].copy(), sample_rate=8_000, pool=pool, sd_options={"steps": 1})
        assert "circle" in quick.prompt


def test_a_prompt_of_your_own(pool: ModelPool, red_circle: Path) -> None:
    made = speech_to_image(
        red_circle, pool=pool, prompt_of=lambda text: "a large blue square on yellow", sd_options=SEED
    )
    seen = read(np.asarray(made.image))
    assert (seen.background, [thing.shape for thing in seen.things]) == ("yellow", ["square"])


@pytest.mark.parametrize(
    ("heard", "prompt"),
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
def test_spoken_prompts(heard: str, prompt: str) -> None:
    assert spoken_prompt(heard) == prompt


def test_silence_is_refused(pool: ModelPool) -> None:
    silence = np.zeros(8_000, np.float32)
    for pipeline in (speech_to_image, summarize_audio, voice_chat):
        with pytest.raises(ValueError, match="nothing was said"):
            pipeline(silence, pool=pool)  # type: ignore[operator]


def test_a_summary(pool: ModelPool) -> None:
    pieces: list[str] = []
    found = summarize_audio(JFK, pool=pool, on_text=pieces.append)
    assert word_error_rate(JFK_TEXT, found.transcription.text) < 0.1
    assert "".join(pieces).strip() == found.text and len(found.text.split()) > 5
    assert found.parts == () and found.finish_reason in ("stop", "length")
    assert json.loads(json.dumps(found.to_dict()))["text"] == found.text


def test_a_long_recording_is_summarized_in_parts(pool: ModelPool) -> None:
    """Text that does not fit into the context at once."""
    speech = np.concatenate([load_audio(JFK)] * 11)
    with pool.use("llm", "smollm2-135m-instruct", n_ctx=256, n_parallel=1) as llm:
        found = summarize_audio(speech, llm_model=llm, pool=pool, llm_options={"max_tokens": 40})
        assert len(llm.tokenize(found.transcription.text)) > 256 - 40
    assert len(found.parts) >= 2 and all(found.parts) and found.text
    with pytest.raises(ValueError, match="expected {text}"):
        summarize_audio(speech, instruction="Summarize.", pool=pool)


def test_a_talk(pool: ModelPool, tmp_path: Path) -> None:
    """The sound comes in blocks; what is heard is known before the last one."""
    samples = load_audio(speak("Please tell me the capital of France.", tmp_path / "question.wav"))
    samples = np.concatenate([samples, np.zeros(16_000, np.float32)])
    events: list[tuple[str, str, bool]] = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, len(samples), 4_000):
            yield samples[start : start + 4_000]
        events.append(("end", "", True))

    def heard(segment: StreamedSegment) -> None:
        events.append(("heard", segment.text, segment.final))

    turn = voice_chat(blocks(), pool=pool, on_heard=heard, on_text=lambda piece: events.append(("said", piece, True)))
    assert "capital of france" in turn.heard.casefold() and "Paris" in turn.text
    kinds = [kind for kind, _, _ in events]
    assert kinds.index("heard") < kinds.index("end") < kinds.index("said")
    assert "".join(text for kind, text, _ in events if kind == "said").strip() == turn.text
    assert "".join(segment.text for segment in turn.segments).strip() == turn.heard
    assert [message["role"] for message in turn.messages] == ["user", "assistant"]

    again = voice_chat(samples, turn.messages, pool=pool, llm_options={"max_tokens": 8})
    assert len(again.messages) == 4 and again.messages[:2] == turn.messages
    assert list(again.seconds) == ["load whisper", "hear", "load llm", "answer", "total"]


def test_sound_that_is_none(pool: ModelPool) -> None:
    for sound in (7, None):
        with pytest.raises(TypeError, match="expected a recording or an iterable"):
            voice_chat(sound, pool=pool)
    with pytest.raises(FileNotFoundError):
        voice_chat("no-such-file.wav", pool=pool)


@pytest.mark.parametrize(
    "text", ["A red ball rolled over the lawn.", "The sky was blue all day.", "The grass is green."]
)
def test_an_illustration(text: str, pool: ModelPool) -> None:
    """The small model may think what it likes, but only in words that are drawn; and that is drawn."""
    pieces: list[str] = []
    made = illustrate(text, pool=pool, on_text=pieces.append, sd_options=SEED)
    assert "".join(pieces) == made.prompt
    *_, colour, shape = made.prompt.split()
    (thing,) = read(np.asarray(made.image)).things
    assert (thing.colour, thing.shape) == (colour, shape)


def test_there_must_be_a_picture(pool: ModelPool) -> None:
    for nothing in (None, []):
        for pipeline in (caption, describe_and_redraw):
            with pytest.raises(TypeError, match="expected a picture or several"):
                pipeline(nothing, pool=pool)  # type: ignore[operator]


def test_illustrations_by_other_words(pool: ModelPool) -> None:
    made = illustrate("It rains.", grammar='root ::= "a small blue ring"', pool=pool, sd_options=SEED)
    assert made.prompt == "a small blue ring" and read(np.asarray(made.image)).things[0].shape == "ring"
    for text, error in (("", ValueError), (" ", ValueError), (7, TypeError)):
        with pytest.raises(error, match="text is"):
            illustrate(text, pool=pool)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected {text}"):
        illustrate("It rains.", instruction="Draw.", pool=pool)
    with pytest.raises(TypeError, match="stepz"):
        illustrate("It rains.", pool=pool, sd_options={"stepz": 1})


def test_cancelling(pool: ModelPool, red_circle: Path) -> None:
    """At whatever moment: the call ends with CancelledError, or with its result; and the pool is as it was."""
    before = threading.Event()
    before.set()
    for call in (
        lambda cancel: speech_to_image(red_circle, pool=pool, cancel=cancel, sd_options={"steps": 20}),
        lambda cancel: summarize_audio(JFK, pool=pool, cancel=cancel),
        lambda cancel: voice_chat(JFK, pool=pool, cancel=cancel),
        lambda cancel: illustrate("A red ball.", pool=pool, cancel=cancel),
    ):
        with pytest.raises(CancelledError):
            call(before)
        for looks in (1, 3, 10):
            with pytest.raises(CancelledError):
                call(Stopped(looks))
        assert all(model.users == 0 for model in pool.loaded)
    assert speech_to_image(red_circle, pool=pool, sd_options={"steps": 1}).prompt == PROMPT


def test_an_exception_of_a_callback_comes_out(pool: ModelPool, red_circle: Path) -> None:
    def fail(*_: object) -> None:
        raise LookupError("not any more")

    for call in (
        lambda: speech_to_image(red_circle, pool=pool, on_segment=fail),
        lambda: speech_to_image(red_circle, pool=pool, on_step=fail),
        lambda: summarize_audio(JFK, pool=pool, on_text=fail),
        lambda: voice_chat(JFK, pool=pool, on_heard=fail),
        lambda: illustrate("A red ball.", pool=pool, on_text=fail),
    ):
        with pytest.raises(LookupError, match="not any more"):
            call()
        assert all(model.users == 0 for model in pool.loaded)


def test_the_pool_that_all_share(red_circle: Path) -> None:
    try:
        assert default_pool() is default_pool()
        for _ in range(2):
            speech_to_image(red_circle, sd_options={"steps": 1})
        assert [(model.kind, model.users) for model in default_pool().loaded] == [("whisper", 0), ("sd", 0)]
        with default_pool().use("whisper", "tiny.en") as whisper:
            assert isinstance(whisper, Whisper)
    finally:
        old = default_pool()
        old.close()
    assert default_pool() is not old


def test_a_budget_for_one_model_at_a_time(red_circle: Path) -> None:
    """Each model makes room for the next."""
    with ModelPool(memory=100 << 20, wait=0) as small:
        assert speech_to_image(red_circle, pool=small, sd_options={"steps": 1}).prompt == PROMPT
        assert [model.kind for model in small.loaded] == ["sd"]
