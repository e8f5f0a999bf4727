"""Every family of projectors of mtmd loads and encodes, with tiny files of random weights."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from llava.projectors import Family, projector_file, text_model
from llava.projectors_audio import AUDIO, NOT_MADE, SECONDS
from llava.projectors_images import IMAGES

from cyllama.errors import ModelLoadError
from cyllama.llama import LlamaModel
from cyllama.llava import Bitmap, MtmdContext

UPSTREAM = Path(__file__).resolve().parents[2] / "thirdparty/llama.cpp/tools/mtmd/clip-impl.h"
SPEAK = {"pockettts_gen"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("projectors")


@pytest.fixture(scope="module")
def language() -> Iterator[dict[Path, LlamaModel]]:
    """The language models by their files."""
    models: dict[Path, LlamaModel] = {}
    yield models
    for model in models.values():
        model.close()


def loaded(name: str, family: Family, folder: Path, language: dict[Path, LlamaModel]) -> MtmdContext:
    path = text_model(family, folder)
    if path not in language:
        language[path] = LlamaModel(path)
    return MtmdContext(projector_file(name, family, folder), language[path])


def check(mtmd: MtmdContext, media: list[Bitmap], family: Family) -> None:
    """Encode twice what differs, and the first again."""
    rows = []
    for bitmap in (media[0], media[1], media[0]):
        chunks = mtmd.tokenize("a <__media__> b", [bitmap])
        parts = [chunk for chunk in chunks if chunk.type.name != "TEXT"]
        assert sum(chunk.n_tokens for chunk in parts) == family.tokens
        rows.append(np.concatenate([mtmd.encode(chunk).copy() for chunk in parts]))
    first, other, again = rows
    assert first.shape == (family.tokens, family.text) and first.dtype == np.float32
    assert np.isfinite(first).all() and first.std() > 0
    assert first.tobytes() == again.tobytes()
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", IMAGES)
def test_encodes_images(name: str, folder: Path, language: dict[Path, LlamaModel]) -> None:
    random = np.random.default_rng(1)
    images = [random.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(2)]
    with loaded(name, IMAGES[name], folder, language) as mtmd:
        assert mtmd.support_vision and not mtmd.support_audio
        check(mtmd, [Bitmap.from_pixels(image) for image in images], IMAGES[name])


@pytest.mark.parametrize("name", AUDIO)
def test_encodes_audio(name: str, folder: Path, language: dict[Path, LlamaModel]) -> None:
    with loaded(name, AUDIO[name], folder, language) as mtmd:
        assert mtmd.support_audio and mtmd.support_vision == (name == "qwen2.5o")
        times = np.arange(SECONDS * mtmd.audio_sample_rate) / mtmd.audio_sample_rate
        tones = [(0.3 * np.sin(2 * np.pi * pitch * times)).astype(np.float32) for pitch in (440, 1300)]
        check(mtmd, [Bitmap.from_audio(tone) for tone in tones], AUDIO[name])
        assert bool(mtmd.gen_audio_info["type"]) == (name in SPEAK)


def test_covers_every_family() -> None:
    names = set(re.findall(r'\{ PROJECTOR_TYPE_\w+,\s*"([^"]+)"', UPSTREAM.read_text()))
    assert len(names) > 50
    assert names == ({*IMAGES, *AUDIO, *NOT_MADE} - {"mlp_norm"})  # which is a kind of mlp


def test_rejects_family_without_a_graph(folder: Path, language: dict[Path, LlamaModel]) -> None:
    family = Family(AUDIO["gemma4ua"].fill, 50, prefix="a")
    with pytest.raises(ModelLoadError, match="gemma3na"):
        loaded("gemma3na", family, folder, language)
