"""Audio for the tests: a recording, tones, encoding, and a comparison."""

from __future__ import annotations

import io
import wave
from pathlib import Path

import numpy as np
import soundfile

JFK = Path(__file__).resolve().parent / "recordings" / "jfk.wav"
MP3 = JFK.with_suffix(".mp3")


def jfk_int16() -> np.ndarray:
    """Return the 176,000 samples of jfk.wav, read by the standard library."""
    with wave.open(str(JFK)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2")


def jfk_float32() -> np.ndarray:
    """Return the samples of jfk.wav from -1 to 1."""
    return jfk_int16().astype(np.float32) / 32768


def encoded(samples: np.ndarray, rate: int, format: str, subtype: str, **options: object) -> bytes:
    """Return samples as the content of an audio file."""
    out = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(out, "w", rate, channels, subtype, format=format, **options) as file:
        for start in range(0, len(samples), rate):  # libsndfile overflows the stack on large blocks of Vorbis
            file.write(samples[start : start + rate])
    return out.getvalue()


def flac_without_length(samples: np.ndarray) -> bytes:
    """Return samples of 16,000 Hz as a FLAC file whose header does not contain their number."""
    raw = bytearray(encoded(samples, 16_000, "FLAC", "PCM_16"))
    raw[21] &= 0xF0  # the number has 36 bits
    raw[22:26] = bytes(4)
    return bytes(raw)


def tone(seconds: float, rate: int) -> np.ndarray:
    """Return a tone of 440 Hz with half the full scale."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def snr(wanted: np.ndarray, found: np.ndarray) -> float:
    """Return the signal-to-noise ratio of audio against its reference, in dB."""
    n = min(len(wanted), len(found))
    difference = wanted[:n].astype(np.float64) - found[:n]
    return float(10 * np.log10((wanted[:n].astype(np.float64) ** 2).sum() / max((difference**2).sum(), 1e-30)))
