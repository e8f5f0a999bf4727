"""Recognize a lack of memory: engines report it as text in their log or in the message of a C++ exception."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from cyllama.errors import EngineError, OutOfMemoryError

__all__ = ["OUT_OF_MEMORY", "failure_type"]

Error = TypeVar("Error", bound=EngineError)

OUT_OF_MEMORY = (
    "insufficient memory",  # ggml.c
    "mem_buffer != NULL",  # an assertion of ggml.c
    "failed to allocate",  # ggml.c, ggml-alloc.c, ggml-backend.cpp, ggml_extend.hpp, llama-kv-cache.cpp
    "alloc compute buffer failed",  # ggml_extend.hpp
    "alloc compute graph failed",  # ggml_extend.hpp
    "there is no memory for tensor",  # model.cpp
    "Cannot allocate memory",  # ENOMEM
    "Resource temporarily unavailable",  # EAGAIN: a thread cannot be created
    "std::bad_alloc",
    "not enough memory",  # the message for std::bad_alloc, _core.pyx
)
"""Phrases that mean a lack of memory; tests/native/test_failures.py compares them with upstream's sources."""


def failure_type(default: type[Error], message: str, log: Iterable[str]) -> type[Error] | type[OutOfMemoryError]:
    """Return the exception type for a call that failed: OutOfMemoryError if its message or log says so."""
    if any(phrase in line for line in (message, *log) for phrase in OUT_OF_MEMORY):
        return OutOfMemoryError
    return default
