"""Mel spectrograms as Whisper models take them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cyllama.media.audio import SAMPLE_RATE

__all__ = ["HOP", "log_mel", "mel_filters"]

Array = npt.NDArray[np.float32]

WINDOW, HOP = 400, 160  # samples
# Slaney's scale: linear up to 1000 Hz, then logarithmic
LINEAR_HZ, BREAK_HZ = 200.0 / 3, 1000.0
LOG_STEP = np.log(6.4) / 27


def mel_filters(n_mels: int) -> Array:
    """Return the filters of a spectrum of 201 bins, shape (n_mels, 201), of area 1 each."""
    bins = np.linspace(0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    top = BREAK_HZ / LINEAR_HZ + np.log(SAMPLE_RATE / 2 / BREAK_HZ) / LOG_STEP
    mels = np.linspace(0, top, n_mels + 2)
    edges = np.where(
        mels < BREAK_HZ / LINEAR_HZ,
        LINEAR_HZ * mels,
        BREAK_HZ * np.exp(LOG_STEP * (mels - BREAK_HZ / LINEAR_HZ)),
    )
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.maximum(0, np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)))
    return np.asarray(triangles * 2 / (high - low), np.float32)


def log_mel(samples: Array, n_mels: int) -> Array:
    """Return the mel spectrogram of samples of 16,000 Hz, shape (n_mels, samples // 160 + 1), as openai-whisper."""
    padded = np.pad(samples, WINDOW // 2, mode="reflect" if len(samples) > WINDOW // 2 else "constant")
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    power = np.abs(np.fft.rfft(frames * window)) ** 2
    spectrum = np.log10(np.maximum(mel_filters(n_mels) @ power.T, 1e-10))
    spectrum = np.maximum(spectrum, spectrum[:, :-1].max() - 8.0)
    return np.asarray((spectrum + 4.0) / 4.0, np.float32)
