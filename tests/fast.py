"""Which tests are fast: those that load no model and start no process. `conftest.py` marks them, ``pytest -m fast`` runs them.

The code decides: a test is fast unless it uses a shared fixture of the tests that is not listed here, or its function, a
fixture or a helper that it calls uses one of the names in `SLOW`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

import pytest

TESTS = Path(__file__).resolve().parent
# They load a model, start a process, or work for seconds.
SLOW = {
    *("subprocess", "Popen", "fork", "system", "popen", "create_app", "serve", "sync_playwright", "Repository", "main"),
    *("models", "resolve", "download", "bin_dir"),
    *("LLM", "Llama", "Llava", "Whisper", "StableDiffusion", "ModelPool", "default_pool", "ChatCyllama"),
    *("LlamaModel", "MtmdContext", "WhisperContext", "WhisperVad", "ParakeetContext", "SDContext", "Upscaler"),
    *("simple", "describe", "transcribe", "txt2img", "img2img", "inpaint", "edit", "txt2vid", "img2vid", "upscale"),
    *("caption", "illustrate", "speech_to_image", "voice_chat", "summarize_audio", "create_variation"),
    *("speak", "bench_memcpy", "bench_ggml_mul_mat", "sleep"),
}
# Shared fixtures that only set something.
HARMLESS = {"_interruptible", "_fixed_team", "fixed_team", "key"}


def names_in(code: CodeType) -> Iterator[str]:
    """Yield the names that a function's code uses, and those of the functions in it."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from names_in(constant)


def uses_slow_names(function: object, seen: set[object]) -> bool:
    """Return whether a function, or one of the tests' own functions that it refers to, uses a slow name."""
    function = getattr(function, "__wrapped__", function)
    if not isinstance(function, FunctionType) or function in seen:
        return False
    seen.add(function)
    names = set(names_in(function.__code__))
    if names & SLOW:
        return True
    used = [function.__globals__.get(name) for name in names]
    return any(uses_slow_names(value, seen) for value in used if is_ours(value))


def is_ours(value: object) -> bool:
    """Return whether a value is a function of the tests."""
    value = getattr(value, "__wrapped__", value)
    return isinstance(value, FunctionType) and Path(value.__code__.co_filename).is_relative_to(TESTS)


def is_fast(item: pytest.Item) -> bool:
    """Return whether a test loads no model and starts no process."""
    if item.get_closest_marker("heavy"):
        return False
    seen: set[object] = set()
    for name, definitions in item._fixtureinfo.name2fixturedefs.items():  # type: ignore[attr-defined]
        definition = definitions[-1]
        if name in HARMLESS or not is_ours(definition.func):
            continue
        if definition.scope != "function" or uses_slow_names(definition.func, seen):
            return False
    return not uses_slow_names(getattr(item, "function", None), seen)
