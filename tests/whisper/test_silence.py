"""Silence and noise are no text: alone, after speech, and after a prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from data.sounds import jfk_float32
from data.speech import JFK as JFK_TEXT
from data.speech import words

from cyllama import models
from cyllama.whisper import Whisper, WhisperContext, WhisperFullParams, WhisperState

NOISE = np.random.default_rng(0).normal(0, 0.003, 6 * 16_000).astype(np.float32)


@pytest.mark.parametrize("model", ["tiny.en", "base"])
def test_no_speech_prob_with_a_prompt(model: str) -> None:
    """The prompt moves the token whose logits have the probability."""
    keep = WhisperFullParams(
        language="en", initial_prompt="Hello there.", max_tokens=4, temperature_inc=0.0, logprob_thold=-100.0
    )
    with WhisperContext(models.get(model)) as context, WhisperState(context) as state:
        state.full(NOISE, keep)
        noise = state.get_segment_no_speech_prob(0)
        state.full(jfk_float32()[: 4 * 16_000], keep)
        speech = state.get_segment_no_speech_prob(0)
    assert noise > 0.6 and speech < 0.3


@pytest.mark.parametrize("options", [{}, {"initial_prompt": "Hello there."}, {"beam_size": 2}])
def test_noise_is_no_text(whisper: Whisper, options: dict[str, Any]) -> None:
    assert whisper(NOISE, **options).segments == ()
    assert whisper(np.zeros(3 * 16_000, np.float32), **options).segments == ()


def test_noise_after_speech_is_no_text(whisper: Whisper) -> None:
    result = whisper(np.concatenate([jfk_float32(), np.tile(NOISE, 5)]), word_timestamps=True)
    assert words(result.text) == words(JFK_TEXT)
    assert result.segments[-1].end <= 11.1
