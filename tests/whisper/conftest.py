"""Models and recordings of the tests. Each model is loaded once a session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data.sounds import jfk_float32
from data.speech import Speech, recordings
from whisper.short import SHORT_SECONDS

from cyllama import models
from cyllama.whisper import Whisper, WhisperContext


@pytest.fixture(scope="module", autouse=True)
def _fixed_team(fixed_team: None) -> None:
    """Fix the number of threads, as the tests compare texts and times."""


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
    """base, multilingual."""
    return Whisper("base")


@pytest.fixture(scope="session")
def speeches() -> dict[str, Speech]:
    """Recordings with known texts, by name."""
    return {speech.name: speech for speech in recordings()}


@pytest.fixture(scope="session")
def short() -> np.ndarray:
    """The first words of jfk.wav, for tests in which the text does not matter."""
    return jfk_float32()[: round(SHORT_SECONDS * 16_000)]
