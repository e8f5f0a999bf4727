"""What the tests of whisper share: real models, loaded once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from data.speech import Speech, recorded, spoken

import cyllama
from cyllama import models
from cyllama.whisper import Whisper, WhisperContext


@pytest.fixture(scope="module", autouse=True)
def _fixed_team() -> Iterator[None]:
    """The last bits, and so now and then a word, depend on the number of threads, which otherwise follows the load."""
    cyllama.set_threads(adaptive=False)
    yield
    cyllama.set_threads()


@pytest.fixture(scope="session")
def tiny_en_path() -> Path:
    return models.get("tiny.en")


@pytest.fixture(scope="session")
def tiny_en(tiny_en_path: Path) -> WhisperContext:
    return WhisperContext(tiny_en_path)


@pytest.fixture(scope="session")
def whisper() -> Whisper:
    """tiny.en, English only."""
    return Whisper("tiny.en")


@pytest.fixture(scope="session")
def base() -> Whisper:
    """base, for all languages."""
    return Whisper("base")


@pytest.fixture(scope="session")
def speeches(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Speech]:
    """Recordings with known texts, by name."""
    found = (*recorded(), *spoken(tmp_path_factory.mktemp("speech")))
    return {speech.name: speech for speech in found}
