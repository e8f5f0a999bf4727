"""Conversion of arrays of samples to mono float32."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "MAX_CHANNELS",
    "MAX_RATE",
    "Array",
    "Samples",
    "as_array",
    "channels_last",
    "check_rate",
    "check_samples",
    "to_mono",
]

Samples = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

MAX_CHANNELS = 64
MAX_RATE = 10_000_000  # Hz; limits the size of the resampler's filters
FULL_SCALE = 64.0  # floats are expected from -1 to 1; far larger ones were not scaled
WIDTHS = (1, 2, 4)  # bytes of integer samples


def check_rate(rate: object, what: str = "sample_rate") -> int:
    """Return a sampling rate in Hz as an int.

    Raises
    ------
    TypeError
        `rate` is not a number.
    ValueError
        `rate` is not a whole number from 1 to 10,000,000.
    """
    if isinstance(rate, (bool, np.bool_)) or not isinstance(rate, (int, float, np.integer, np.floating)):
        raise TypeError(f"{what} is {rate!r}, expected a whole number of Hz")
    if not 1 <= rate <= MAX_RATE or rate != int(rate):
        raise ValueError(f"{what} is {rate!r}, expected a whole number of Hz from 1 to {MAX_RATE:,}")
    return int(rate)


def as_array(audio: object) -> Array:
    """Return samples as an array without copying them.

    Parameters
    ----------
    audio : ndarray, or anything with the buffer protocol or ``__array__``
        Shape (n,), or two dimensions of which one is the channels. Integers of 8, 16 or 32 bits (unsigned: offset by
        half the range) or floats, of any byte order.

    Raises
    ------
    TypeError
        `audio` is not an array, or its numbers have another type.
    ValueError
        The array has no samples, no or too many dimensions, or too many channels.
    """
    if not (hasattr(audio, "__array__") or hasattr(audio, "__array_interface__") or _is_buffer(audio)):
        raise TypeError(
            f"audio is a {type(audio).__name__}, expected a path, bytes, a binary file object, an array of samples, "
            "or (sample_rate, array)"
        )
    array = np.asarray(audio)
    kind, width = array.dtype.kind, array.dtype.itemsize
    if not (kind == "f" or (kind in "iu" and width in WIDTHS)):
        hint = ""
        if kind in "iu":
            hint = "; convert to the width that the values were made for, such as int16"
        raise TypeError(f"audio is an array of {array.dtype}, expected floats or integers of 8, 16 or 32 bits{hint}")
    if array.ndim not in (1, 2):
        raise ValueError(f"audio has the shape {array.shape}, expected (n,), (n, channels) or (channels, n)")
    array = channels_last(array)
    if array.shape[1] > MAX_CHANNELS:
        raise ValueError(f"audio has the shape {array.shape}, {array.shape[1]} channels; at most {MAX_CHANNELS}")
    return array


def channels_last(array: Array) -> Array:
    """Return a view of shape (n, channels).

    Of two dimensions the shorter is the channels; of a square array the last is. An array without any samples
    has one channel.
    """
    if array.size == 0:
        return array.reshape(0, 1)
    if array.ndim == 1:
        return array[:, np.newaxis]
    return array.T if array.shape[0] < array.shape[1] else array


def to_mono(block: Array) -> Samples:
    """Return the average of the channels, scaled by the type of the numbers.

    Parameters
    ----------
    block : ndarray
        Shape (n, channels), of a type that :func:`as_array` accepts.

    Returns
    -------
    ndarray of float32
        Shape (n,). Integers become -1 to just under 1; floats stay as they are.
    """
    kind, half = block.dtype.kind, 2.0 ** (8 * block.dtype.itemsize - 1)
    with np.errstate(over="ignore", invalid="ignore"):  # check_samples rejects values that are not finite
        if kind == "f":
            scaled = block.astype(np.float32, copy=False)
        elif kind == "i":
            scaled = block.astype(np.float32) * np.float32(1 / half)
        else:
            scaled = ((block.astype(np.float64) - half) / half).astype(np.float32)
        return scaled[:, 0] if scaled.shape[1] == 1 else scaled.mean(axis=1, dtype=np.float32)


def check_samples(block: Samples, first: int, what: str) -> None:
    """Raise if a sample is not finite or not scaled.

    Parameters
    ----------
    block : ndarray of float32
        Shape (n,).
    first : int
        The index of the first sample, for the message.
    what : str
        The source of the samples, for the message.

    Raises
    ------
    ValueError
        A sample is NaN, infinite, or so large that it cannot have been scaled to -1 to 1.
    """
    with np.errstate(invalid="ignore"):
        good = np.abs(block) <= FULL_SCALE
    if good.all():
        return
    wrong = int(np.argmin(good))
    value = float(block[wrong])
    if np.isfinite(value):
        hint = "; divide integers by their range, such as 32768, or pass them as they are"
        raise ValueError(f"sample {first + wrong} of {what} is {value:g}, expected -1 to 1{hint}")
    raise ValueError(f"sample {first + wrong} of {what} is {value}, expected finite numbers")


def _is_buffer(audio: object) -> bool:
    try:
        memoryview(audio).release()  # type: ignore[arg-type]
    except TypeError:
        return False
    return True
