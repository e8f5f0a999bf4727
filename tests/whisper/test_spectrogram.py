"""The mel spectrogram, and the attention that the encoder makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.sounds import jfk_float32
from whisper.short import transcribe_short

from cyllama.whisper import WhisperContext, WhisperContextParams, WhisperState

N_FFT, HOP, RATE = 400, 160, 16_000
HEADER_BYTES = 4 + 11 * 4

Array = np.ndarray[Any, Any]


@pytest.fixture
def state(tiny_en: WhisperContext) -> Iterator[WhisperState]:
    with WhisperState(tiny_en) as state:
        yield state


def filters(path: Path) -> Array:
    """Return the mel filters of a model file."""
    data = path.read_bytes()
    n_mels, n_bins = np.frombuffer(data, "<i4", 2, HEADER_BYTES)
    return np.frombuffer(data, "<f4", n_mels * n_bins, HEADER_BYTES + 8).reshape(n_mels, n_bins)


def spectrogram(samples: Array, filters: Array) -> Array:
    """Return the spectrogram by its definition in openai-whisper, in double precision."""
    padded = np.pad(samples.astype(np.float64), (0, 30 * RATE))
    padded = np.concatenate([padded[N_FFT // 2 : 0 : -1], padded, np.zeros(N_FFT // 2)])
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[:-1:HOP]
    window = 0.5 * (1 - np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT))
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    values = np.log10(np.maximum(filters.astype(np.float64) @ power.T, 1e-10))
    return (np.maximum(values, values.max() - 8) + 4) / 4


def logits(state: WhisperState, tokens: list[int] | None = None) -> Array:
    state.encode(0)
    state.decode(tokens or [state.context.token_sot])
    return state.get_logits()


@pytest.mark.parametrize("n_samples", [11 * RATE, 3 * RATE + 7, 1600, 2800])
def test_is_that_of_the_definition(state: WhisperState, tiny_en_path: Path, n_samples: int) -> None:
    samples = jfk_float32()[RATE // 2 :][:n_samples]
    state.pcm_to_mel(samples)
    found = logits(state)
    state.set_mel(spectrogram(samples, filters(tiny_en_path)).astype(np.float32))
    np.testing.assert_allclose(found, logits(state), atol=0.05)
    state.pcm_to_mel(np.roll(samples, HOP))
    assert np.abs(found - logits(state)).max() > 0.1  # one frame later


def test_does_not_depend_on_the_threads(state: WhisperState, short: Array) -> None:
    found = []
    for n_threads in (1, 2):
        state.pcm_to_mel(short, n_threads)
        found.append(logits(state))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("n_tokens", [1, 64, 77, 130])
def test_flash_attention_has_the_values_of_attention(tiny_en_path: Path, short: Array, n_tokens: int) -> None:
    """The encoder has whole tiles of keys; the text ends in the middle of one."""
    found = []
    for flash_attn in (True, False):
        with WhisperContext(tiny_en_path, WhisperContextParams(flash_attn=flash_attn)) as context:
            with WhisperState(context) as state:
                transcribe_short(state, short)  # sets an encoder context without padding
                prev, words = context.token_prev, context.tokenize(" And so my fellow Americans asked" * 30)
                state.pcm_to_mel(short)
                found.append(logits(state, [prev, *words[: n_tokens - 1]] if n_tokens > 1 else None))
    np.testing.assert_allclose(*found, atol=0.1)
