"""What the tests of whisper share: real models, loaded once."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.speech import Speech, recordings

from cyllama import models
from cyllama.whisper import Whisper, WhisperContext


@pytest.fixture(scope="module", autouse=True)
def _fixed_team(fixed_team: None) -> None:
    """All tests of whisper compare texts and times."""


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
def speeches() -> dict[str, Speech]:
    """Recordings with known texts, by name."""
    return {speech.name: speech for speech in recordings()}
