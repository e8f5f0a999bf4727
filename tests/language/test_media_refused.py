"""Pictures and sound that `LLM` refuses, projectors that it cannot load, and that it goes on after all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.projectors import write_projector
from data.sounds import JFK
from language.media_in import CIRCLE, MODEL, SQUARE, TALK, WIDTH, encoded, picture, shown, user

from cyllama import LLM
from cyllama.errors import MediaError, ModelLoadError, UnsupportedError
from cyllama.llama import estimate_memory


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
