"""Steps of a pipeline: models from a pool, timing, cancelling."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cyllama._cancel import Cancel, raise_if_cancelled
from cyllama.pipelines.model_pool import ModelPool

if TYPE_CHECKING:
    from cyllama.pipelines._types import OnPreview, OnStep, OnText, Options
    from cyllama.sd import ImageResult, StableDiffusion

__all__ = ["Reply", "Steps", "default_pool", "generate_images", "stream_reply"]

_lock = threading.Lock()
_pool: ModelPool | None = None


def default_pool() -> ModelPool:
    """Return the pool that pipelines use by default; it is created on the first call.

    Its models stay loaded: ``default_pool().unload()`` closes the unused ones. After it was closed, the next call
    creates another.
    """
    global _pool
    with _lock:
        if _pool is None or _pool.closed:
            _pool = ModelPool()
        return _pool


class Steps:
    """The steps of one call, with the seconds of each.

    Parameters
    ----------
    pool : ModelPool, optional
    cancel : object with ``is_set()``, optional
        Checked before each step.
    """

    def __init__(self, pool: ModelPool | None, cancel: Cancel | None) -> None:
        self._pool, self._cancel = pool, cancel
        self._start = time.perf_counter()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a step."""
        raise_if_cancelled(self._cancel, f"the call (before the step {name!r})")
        start = time.perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start

    @contextlib.contextmanager
    def model(self, kind: str, model: object, **settings: Any) -> Iterator[Any]:
        """Use a model of the pool by name or path, or a loaded model."""
        if not isinstance(model, str | os.PathLike):
            yield model
            return
        with contextlib.ExitStack() as stack:
            with self(f"load {kind}"):
                pool = default_pool() if self._pool is None else self._pool
                loaded = stack.enter_context(pool.use(kind, model, cancel=self._cancel, **settings))
            yield loaded

    def seconds(self) -> dict[str, float]:
        """Return the seconds of each step, and of all in ``total``."""
        return {**self._seconds, "total": time.perf_counter() - self._start}


class Reply(NamedTuple):
    """The text of a chat response, without surrounding white space, and its finish reason."""

    text: str
    finish_reason: str


def stream_reply(
    llm: Any,
    messages: str | Sequence[Mapping[str, Any]],
    options: Options,
    on_text: OnText | None,
    cancel: Cancel | None,
) -> Reply:
    """Send messages to a language model and pass the parts of its reply to `on_text`."""
    texts: list[str] = []
    reason = ""
    with llm.chat(messages, stream=True, cancel=cancel, **options) as stream:
        for part in stream:
            reason = part.finish_reason or reason
            if part.text:
                texts.append(part.text)
                if on_text is not None:
                    on_text(part.text)
    return Reply("".join(texts).strip(), reason)


def generate_images(
    sd: StableDiffusion,
    prompt: str,
    options: Options | None,
    on_step: OnStep | None,
    on_preview: OnPreview | None,
    cancel: Cancel | None,
    **image: Any,
) -> ImageResult:
    """Generate images of a prompt; with `image` and `strength`, from an initial image."""
    run: Any = sd.img2img if image else sd.txt2img
    hooks = {"on_step": on_step, "on_preview": on_preview, "cancel": cancel, "progress": False}
    result: ImageResult = run(prompt, **{**hooks, **image, **(options or {})})
    return result
