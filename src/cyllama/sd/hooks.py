"""What a caller hears while a picture is made, and how it stops it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

import numpy as np

from cyllama.media.image import to_pil
from cyllama.sd.options import HOOKS

__all__ = ["Cancel", "Hooks", "ProgressLine", "split_hooks"]

WIDTH = 24  # characters of the bar

# Other names: those of other bindings.
ALIASES = {"progress_callback": "on_step", "step_callback": "on_step", "preview_callback": "on_preview"}


class Cancel(Protocol):
    """What stops a call, such as ``threading.Event``."""

    def is_set(self) -> bool:
        """Whether to stop."""


class ProgressLine:
    """A line on a terminal that shows how far it is, over and over."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._shown = 0

    def __call__(self, step: int, total: int, seconds: float) -> None:
        """Show a step."""
        done = WIDTH * step // total if total else WIDTH
        text = f"{'#' * done}{'.' * (WIDTH - done)} {step}/{total}"
        if seconds > 0:
            text += f"  {seconds:.2f} s/step"
        self._out.write(f"\r{text:<{self._shown}}")
        self._out.flush()
        self._shown = len(text)

    def close(self) -> None:
        """End the line."""
        if self._shown:
            self._out.write("\r" + " " * self._shown + "\r")
            self._out.flush()


class _Pipe:
    """What diffusers' callbacks get as the pipeline: ``_interrupt = True`` stops it."""

    _interrupt = False


class Hooks:
    """The callbacks of one call, as the engine takes them.

    Parameters
    ----------
    on_step : callable, optional
        Called with (step, total, seconds for each step).
    on_preview : callable, optional
        Called with (picture, step); for videos, with (list of pictures, step).
    cancel : object with ``is_set()``, optional
    progress : bool, optional
        A line on stderr; by default if that is a terminal and nothing else listens.
    callback_on_step_end : callable, optional
        diffusers' form of `on_step`: called with (pipe, step, step, {}); ``pipe._interrupt = True`` stops it.
    """

    def __init__(
        self,
        on_step: Callable[[int, int, float], object] | None = None,
        on_preview: Callable[[Any, int], object] | None = None,
        cancel: Cancel | None = None,
        progress: bool | None = None,
        callback_on_step_end: Callable[..., object] | None = None,
    ) -> None:
        callables = {"on_step": on_step, "on_preview": on_preview, "callback_on_step_end": callback_on_step_end}
        for name, value in callables.items():
            if value is not None and not callable(value):
                raise TypeError(f"{name} is {value!r}, expected a callable")
        if cancel is not None and not callable(getattr(cancel, "is_set", None)):
            raise TypeError(f"cancel is {cancel!r}, expected an object with is_set(), such as threading.Event")
        self.cancel = cancel
        self._on_step = on_step
        self._on_preview = on_preview
        self._on_step_end = callback_on_step_end
        listens = any(value is not None for value in callables.values())
        quiet = not sys.stderr.isatty() or listens if progress is None else not progress
        self._line = None if quiet else ProgressLine(sys.stderr)
        self._pipe = _Pipe()

    def arguments(self, mode: str | int | None, interval: int | None, *, video: bool = False) -> dict[str, Any]:
        """Keyword arguments of ``SDContext.generate_image`` and ``generate_video``.

        Raises
        ------
        ValueError
            Previews are described, but nobody sees them.
        """
        if self._on_preview is None:
            for name, value in (("preview", mode), ("preview_interval", interval)):
                if value is not None:
                    raise ValueError(f"{name} is {value!r}, but there is no on_preview to show it")
            return {"progress": self.step, "cancel": self.cancel}
        return {
            "progress": self.step,
            "cancel": self.cancel,
            "preview": self._video_preview if video else self._image_preview,
            "preview_mode": "proj" if mode is None else mode,
            "preview_interval": 1 if interval is None else interval,
        }

    def step(self, step: int, total: int, seconds: float) -> bool:
        """A step is done; whether to go on."""
        if self._line is not None:
            self._line(step, total, seconds)
        if self._on_step is not None and self._on_step(step, total, seconds) is False:
            return False
        if self._on_step_end is not None and step > 0:
            self._on_step_end(self._pipe, step - 1, step - 1, {})
        return not self._pipe._interrupt

    def close(self) -> None:
        """The call is over."""
        if self._line is not None:
            self._line.close()

    def _image_preview(self, step: int, frames: list[np.ndarray[Any, Any]], is_noisy: bool) -> object:
        assert self._on_preview is not None
        return self._on_preview(to_pil(frames[0]), step)

    def _video_preview(self, step: int, frames: list[np.ndarray[Any, Any]], is_noisy: bool) -> object:
        assert self._on_preview is not None
        return self._on_preview([to_pil(frame) for frame in frames], step)


def split_hooks(given: Mapping[str, Any]) -> tuple[Hooks, dict[str, Any]]:
    """Callbacks out of keyword arguments, and the rest.

    Raises
    ------
    TypeError
        One is no callback, or was given under two names.
    """
    hooks: dict[str, Any] = {}
    rest = {}
    for name, value in given.items():
        target = ALIASES.get(name, name)
        if target not in HOOKS:
            rest[name] = value
        elif value is not None:
            if target in hooks:
                raise TypeError(f"{target} was given twice, once as {name}")
            hooks[target] = value
    return Hooks(**hooks), rest
