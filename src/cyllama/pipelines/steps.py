"""What all pipelines share: which models they use, how long each step takes, and stopping between steps."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from cyllama.errors import CancelledError
from cyllama.pipelines.pool import ModelPool

__all__ = ["LLM_MODEL", "MMPROJ", "SD_MODEL", "WHISPER_MODEL", "Said", "Steps", "ask_llm", "default_pool"]

LLM_MODEL = "smollm2-135m-instruct"
MMPROJ = "vision-dinov2s"
SD_MODEL = "tiny-shapes"
WHISPER_MODEL = "tiny.en"

_lock = threading.Lock()
_pool: ModelPool | None = None


def default_pool() -> ModelPool:
    """Return the pool that pipelines use unless they are given another; made when it is first asked for.

    Its models stay loaded: ``default_pool().unload()`` frees those that nobody uses. When it is closed, the next call
    makes another.
    """
    global _pool
    with _lock:
        if _pool is None or _pool.closed:
            _pool = ModelPool()
        return _pool


class Steps:
    """The steps of one call: their seconds by name, in their order."""

    def __init__(self, pool: ModelPool | None, cancel: Any) -> None:
        self._pool, self._cancel = pool, cancel
        self._began = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a step, which does not begin when the call is cancelled."""
        if self._cancel is not None and self._cancel.is_set():
            raise CancelledError(f"cancelled before the step {name!r}")
        began = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - began

    @contextlib.contextmanager
    def model(self, kind: str, model: Any, **settings: Any) -> Iterator[Any]:
        """Use a model: by name or path from the pool, or one that is loaded already."""
        if not isinstance(model, str | os.PathLike):
            yield model
            return
        with contextlib.ExitStack() as stack:
            with self(f"load {kind}"):
                pool = default_pool() if self._pool is None else self._pool
                loaded = stack.enter_context(pool.use(kind, model, cancel=self._cancel, **settings))
            yield loaded

    def seconds(self) -> dict[str, float]:
        """The seconds of each step, and of all in ``total``."""
        return {**self._seconds, "total": time.perf_counter() - self._began}


class Said(NamedTuple):
    """What a language model said, without white space around it, and why it ended."""

    text: str
    finish_reason: str


def ask_llm(
    llm: Any, messages: Any, fields: Mapping[str, Any], on_text: Callable[[str], object] | None, cancel: Any
) -> Said:
    """Ask a language model; pieces of the answer go to `on_text` as they come."""
    pieces: list[str] = []
    reason = ""
    with llm.chat(messages, stream=True, cancel=cancel, **fields) as stream:
        for part in stream:
            reason = part.finish_reason or reason
            if part.text:
                pieces.append(part.text)
                if on_text is not None:
                    on_text(part.text)
    return Said("".join(pieces).strip(), reason)
