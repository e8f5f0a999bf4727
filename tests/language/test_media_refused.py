"""Images and audio that `LLM` rejects, and projectors that it cannot load."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.projectors import write_projector
from data.sounds import JFK
from language.media_samples import CIRCLE, MODEL, SETTINGS, SQUARE, WIDTH, draw, encoded, image_part, user

from cyllama import LLM
from cyllama.errors import ContextFullError, MediaError, ModelLoadError, UnsupportedError
from cyllama.llama import estimate_memory


@pytest.fixture(scope="module")
def projector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A projector for images and audio, with random weights."""
    return write_projector(tmp_path_factory.mktemp("projector") / "both.gguf", WIDTH, audio=True)


@pytest.fixture(scope="module")
def llm(projector: Path) -> Iterator[LLM]:
    with LLM(MODEL, mmproj=projector, options={"no-cache-prompt": True}, **SETTINGS) as model:
        yield model


@pytest.fixture(scope="module")
def text_llm() -> Iterator[LLM]:
    with LLM(MODEL, n_ctx=512) as model:
        yield model


# ------------------------------------------------------------------------------------------- media


def test_rejects_media_without_projector(text_llm: LLM) -> None:
    assert not text_llm.supports("vision") and not text_llm.supports("audio")
    for media in ({"images": [CIRCLE]}, {"audio": [JFK]}):
        with pytest.raises(UnsupportedError, match="mmproj"):
            text_llm.chat("What is this?", **media)
    with pytest.raises(UnsupportedError, match=r"messages\[0\].content\[0\]"):
        text_llm.chat([user(image_part(CIRCLE))])


@pytest.mark.parametrize("kind", ["vision", "audio"])
def test_rejects_media_of_other_projector(tmp_path: Path, kind: str) -> None:
    path = write_projector(tmp_path / "one.gguf", WIDTH, vision=kind == "vision", audio=kind == "audio")
    with LLM(MODEL, mmproj=path, n_ctx=512) as model:
        assert model.supports(kind) and not model.supports("audio" if kind == "vision" else "vision")
        if kind == "vision":
            with pytest.raises(UnsupportedError, match=r"audio\[0\]"):
                model.chat("Well?", audio=JFK)
        else:
            with pytest.raises(UnsupportedError, match=r"images\[0\]"):
                model.chat("Well?", images=CIRCLE)


def bomb() -> bytes:
    return b"P6\n40000 40000\n255\n" + bytes(100)


@pytest.mark.parametrize(
    ("media", "error", "message"),
    [
        ({"images": b"not an image"}, MediaError, r"images\[0\]"),
        ({"images": [CIRCLE, encoded(CIRCLE)[:60]]}, MediaError, r"images\[1\]"),
        ({"images": JFK}, MediaError, r"images\[0\] .*jfk.wav"),
        ({"images": bomb()}, ValueError, "1,600,000,000 pixels, more than 50,000,000"),
        ({"images": np.zeros((0, 4, 3), np.uint8)}, ValueError, r"images\[0\] has 4x0 pixels"),
        ({"images": 3}, TypeError, r"images\[0\] is int, expected a Pillow image"),
        ({"images": "none.png"}, FileNotFoundError, "none.png"),
        ({"images": encoded(CIRCLE, "GIF", save_all=True, append_images=[SQUARE])}, MediaError, r"images\[0\]"),
        ({"audio": encoded(CIRCLE)}, MediaError, "cannot read the audio of"),
        ({"audio": np.zeros(0, np.float32)}, ValueError, "no samples"),
        ({"audio": np.full(9, np.nan)}, ValueError, "is nan"),
        ({"audio": 3}, TypeError, "audio is a int"),
        ({"audio": "none.wav"}, FileNotFoundError, "none.wav"),
    ],
)
def test_rejects_bad_media(llm: LLM, media: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llm.chat("What is this?", **media)
    assert llm.chat("Say yes.", max_tokens=1).usage.completion_tokens == 1


@pytest.mark.parametrize(
    ("messages", "error", "message"),
    [
        (
            [user({"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AAAA"}})],
            UnsupportedError,
            "video",
        ),
        (
            [user({"type": "image_url"})],
            ValueError,
            r"messages\[0\].content\[0\] is .*expected a part of type image_url",
        ),
        (
            [user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})],
            MediaError,
            "content",
        ),
        (
            [user({"type": "image_url", "image_url": {"url": "javascript:1"}})],
            ValueError,
            "http",
        ),
        ([user({"type": "strange"})], ValueError, "content"),
    ],
)
def test_rejects_bad_parts(llm: LLM, messages: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        llm.chat(messages)


def test_media_belong_to_user_messages(llm: LLM) -> None:
    with pytest.raises(ValueError, match="images and audio"):
        llm.chat([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}], images=[CIRCLE])


def test_limits_apply_to_a_request(projector: Path) -> None:
    limits = {"max_pixels": 96 * 96, "max_total_pixels": 2 * 96 * 96, "max_seconds": 12.0, "max_bytes": 400_000}
    with LLM(MODEL, mmproj=projector, media_limits=limits, **SETTINGS) as model:
        model.chat("Well?", images=[CIRCLE, SQUARE], audio=[JFK], max_tokens=1)
        with pytest.raises(ValueError, match=r"images\[0\].*max_pixels"):
            model.chat("Well?", images=draw("circle", "red", 97))
        with pytest.raises(ValueError, match=r"images\[2\].*max_total_pixels"):
            model.chat("Well?", images=[CIRCLE] * 3)
        with pytest.raises(ValueError, match="max_seconds"):
            model.chat("Well?", audio=[JFK, JFK])
        with pytest.raises(ValueError, match="max_bytes"):
            model.chat([user({"type": "image_url", "image_url": {"url": "A" * 600_000}})])
    with pytest.raises(TypeError, match="max_pixel"):
        LLM(MODEL, mmproj=projector, media_limits={"max_pixel": 3})


def test_rejects_media_larger_than_context(projector: Path) -> None:
    with LLM(MODEL, mmproj=projector, n_ctx=256, n_parallel=1) as model:
        with pytest.raises(ContextFullError):
            model.chat("Well?", audio=np.zeros(16_000 * 60, np.float32), max_tokens=1)
        assert model.chat("Say yes.", max_tokens=1).usage.completion_tokens == 1


# --------------------------------------------------------------------------------------------------- loading


def test_rejects_projector_of_another_model(tmp_path: Path) -> None:
    path = write_projector(tmp_path / "other.gguf", 48)
    with pytest.raises(ModelLoadError) as caught:
        LLM(MODEL, mmproj=path, n_ctx=256)
    assert any(
        "mismatch between text model (n_embd = 32) and mmproj (n_embd = 48)" in line for line in caught.value.log
    )


def test_rejects_files_in_wrong_places(projector: Path, tiny_path: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="mmproj"):
        LLM(MODEL, mmproj=tiny_path, n_ctx=256)
    with pytest.raises(ModelLoadError):
        LLM(projector, n_ctx=256)
    with pytest.raises(FileNotFoundError, match="nothing"):
        LLM(MODEL, mmproj=tmp_path / "nothing.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(projector.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="truncated"):
        LLM(MODEL, mmproj=cut, n_ctx=256)
    cut.write_bytes(b"not a GGUF file")
    with pytest.raises(ModelLoadError):
        LLM(MODEL, mmproj=cut, n_ctx=256)


def test_memory_estimate_includes_projector(projector: Path) -> None:
    without, found = (estimate_memory(MODEL, n_ctx=512, **more) for more in ({}, {"mmproj": projector}))
    assert without.projector == 0 and found.projector > projector.stat().st_size * 0.9
    assert found.total == without.total + found.projector
