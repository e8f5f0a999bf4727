"""Exception types for failures that stable-diffusion.cpp reports as text in its log only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from cyllama.errors import EngineError, OutOfMemoryError

__all__ = ["OUT_OF_MEMORY", "failure_reason", "failure_type"]

Error = TypeVar("Error", bound=EngineError)

OUT_OF_MEMORY = (
    "failed to allocate",  # ggml.c, ggml-alloc.c, ggml_extend.hpp
    "alloc compute buffer failed",  # ggml_extend.hpp
    "alloc compute graph failed",  # ggml_extend.hpp
    "there is no memory for tensor",  # model.cpp
)
"""Phrases of log messages that mean a lack of memory; tests/sd/test_errors.py compares them with upstream's sources."""

SEPARATOR = " - "
"""Text between the source position and the message of a log line (``log_printf``, util.cpp)."""


def failure_type(default: type[Error], log: Sequence[str]) -> type[Error] | type[OutOfMemoryError]:
    """Return the exception type for a call that failed: OutOfMemoryError if the log says so, else `default`."""
    if any(phrase in line for line in log for phrase in OUT_OF_MEMORY):
        return OutOfMemoryError
    return default


def failure_reason(log: Sequence[str]) -> str:
    """Return the last message of the log without its source position; empty for an empty log."""
    return log[-1].split(SEPARATOR, 1)[-1].strip() if log else ""
