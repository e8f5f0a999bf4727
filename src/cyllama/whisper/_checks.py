"""Check and convert the arguments of the native handles: samples and mel spectrograms."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cyllama.media._samples import Samples, as_array, check_samples, to_mono

__all__ = ["check_mel", "convert_samples"]


def convert_samples(samples: npt.ArrayLike, max_samples: int, limit: str = "") -> Samples:
    """Return samples as a contiguous array of mono float32.

    Parameters
    ----------
    samples : array
    max_samples : int
    limit : str
        Name of what limits the number of samples, for the message.

    Raises
    ------
    TypeError
        They are not an array of audio samples.
    ValueError
        There are none or more than `max_samples`, or a sample is not finite or not scaled.
    """
    found = np.ascontiguousarray(to_mono(as_array(samples)))
    if not 0 < len(found) <= max_samples:
        reason = f" ({limit})" if limit else ""
        raise ValueError(f"samples has {len(found)} samples, expected 1 to {max_samples} of 16,000 Hz{reason}")
    check_samples(found, 0, "samples")
    return found


def check_mel(mel: npt.ArrayLike, n_mels: int, max_frames: int, *, bands_first: bool) -> Samples:
    """Return a mel spectrogram as a contiguous array of float32.

    Parameters
    ----------
    mel : array, shape (n_mels, n_frames) or, without `bands_first`, (n_frames, n_mels)
    n_mels, max_frames : int
        Bands of the model, and the largest number of frames.

    Raises
    ------
    ValueError
        The shape is wrong, or a value is not finite.
    """
    found = np.ascontiguousarray(mel, np.float32)
    bands, frames = (0, 1) if bands_first else (1, 0)
    if found.ndim != 2 or found.shape[bands] != n_mels or not 0 < found.shape[frames] <= max_frames:
        order = f"({n_mels}, 1 to {max_frames} frames)" if bands_first else f"(1 to {max_frames} frames, {n_mels})"
        raise ValueError(f"mel has the shape {found.shape}, expected {order}")
    if not np.isfinite(found).all():
        raise ValueError("mel contains values that are not finite")
    return found
