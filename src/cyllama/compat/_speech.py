"""Arguments that faster-whisper and openai-whisper have in common."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import cyllama
from cyllama._progress import StepProgress
from cyllama.errors import UnsupportedError

__all__ = ["reject", "show_progress", "thresholds", "use_gpu"]

# None turns a threshold off; compression_ratio_threshold is whisper.cpp's check of the entropy
OFF: dict[str, tuple[str, float]] = {
    "log_prob_threshold": ("logprob_threshold", -1e6),
    "logprob_threshold": ("logprob_threshold", -1e6),
    "no_speech_threshold": ("no_speech_threshold", 1e6),
    "compression_ratio_threshold": ("entropy_threshold", 0.0),
}


def thresholds(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options without those that are None; a threshold of None becomes the value that turns it off."""
    found = {name: value for name, value in options.items() if value is not None}
    return found | dict(OFF[name] for name, value in options.items() if value is None and name in OFF)


def reject(given: Mapping[str, Any], known: Mapping[str, tuple[Any, ...]]) -> None:
    """Check arguments that have no effect.

    Parameters
    ----------
    given : mapping
    known : mapping
        Their names, and the values that change nothing, as None does.

    Raises
    ------
    TypeError
        The name is unknown.
    UnsupportedError
        The value is another one.
    """
    for name, value in given.items():
        if name not in known:
            raise TypeError(f"unexpected argument {name!r}")
        if value is not None and value not in known[name]:
            raise UnsupportedError(f"{name}={value!r} is not supported")


def use_gpu(device: str | None) -> bool | None:
    """Return ``use_gpu`` for a device of PyTorch or CTranslate2.

    Raises
    ------
    ValueError
        The device is unknown.
    UnsupportedError
        There is no GPU.
    """
    if device in (None, "auto"):
        return None
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected auto, cpu or cuda")
    if device == "cuda" and not any(found["type"] in ("gpu", "igpu") for found in cyllama.devices()):
        raise UnsupportedError("device='cuda', but there is no GPU; use device='cpu'")
    return device == "cuda"


def show_progress() -> Callable[[float], None]:
    """Return a callback that shows a progress bar on stderr."""
    line = StepProgress(sys.stderr)

    def show(part: float) -> None:
        line(round(100 * part), 100, 0.0)
        if part >= 1:
            line.close(keep=True)

    return show
