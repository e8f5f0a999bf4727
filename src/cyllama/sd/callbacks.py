"""Progress, previews and cancelling of image and video generation."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from cyllama._cancel import Cancel, check_cancel
from cyllama._params import enum_value
from cyllama._progress import StepProgress
from cyllama.media.image import Pixels, to_pil
from cyllama.sd._enums import PreviewMode
from cyllama.sd.options import HOOKS

__all__ = ["Hooks", "split_hooks"]

# Names that other bindings use.
ALIASES = {"progress_callback": "on_step", "step_callback": "on_step", "preview_callback": "on_preview"}


class _Pipe:
    """The pipeline argument of diffusers' callbacks: ``_interrupt = True`` stops the call.

    Other attributes cannot be set, because the engine would not notice.
    """

    __slots__ = ("_interrupt", "num_timesteps")

    def __init__(self) -> None:
        self._interrupt = False
        self.num_timesteps = 0


class Hooks:
    """The callbacks of one call.

    Parameters
    ----------
    on_step : callable, optional
        Called with (step, total, seconds for each step); False cancels.
    on_preview : callable, optional
        Called with (image, step); for videos, with (list of images, step). False cancels.
    cancel : object with ``is_set()``, optional
    progress : bool, optional
        Show a progress line on stderr; by default if stderr is a terminal and there is no callback.
    callback_on_step_end : callable, optional
        diffusers' form of `on_step`: called with (pipe, step, step, {}); ``pipe._interrupt = True`` cancels. The pipe
        has ``num_timesteps``; tensors are neither passed nor taken back.

    Raises
    ------
    TypeError
        An argument is not a callable, or `cancel` has no ``is_set()``.
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
        check_cancel(cancel)
        self.cancel = cancel
        self._on_step = on_step
        self._on_preview = on_preview
        self._on_step_end = callback_on_step_end
        has_callback = any(value is not None for value in callables.values())
        quiet = not sys.stderr.isatty() or has_callback if progress is None else not progress
        self._line = None if quiet else StepProgress(sys.stderr)
        self._pipe = _Pipe()

    def arguments(self, mode: str | int | None, interval: int | None, *, video: bool = False) -> dict[str, Any]:
        """Return the keyword arguments for ``SDContext.generate_image`` or ``generate_video``.

        Raises
        ------
        ValueError
            A preview option is given without `on_preview`.
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
            "preview_mode": enum_value(PreviewMode, "proj" if mode is None else mode, "preview"),
            "preview_interval": 1 if interval is None else interval,
        }

    def step(self, step: int, total: int, seconds: float) -> bool:
        """Report a step; return False if the call has to stop."""
        if self._line is not None:
            self._line(step, total, seconds)
        if self._on_step is not None and self._on_step(step, total, seconds) is False:
            return False
        if self._on_step_end is not None and step > 0:
            self._pipe.num_timesteps = total
            found = self._on_step_end(self._pipe, step - 1, step - 1, {})
            if isinstance(found, Mapping) and found:
                names = ", ".join(map(repr, found))
                raise TypeError(f"callback_on_step_end returned {names}, which the engine does not take back")
        return not self._pipe._interrupt

    def close(self) -> None:
        """Erase the progress line."""
        if self._line is not None:
            self._line.close()

    def _image_preview(self, step: int, frames: list[Pixels], is_noisy: bool) -> object:
        assert self._on_preview is not None
        return self._on_preview(to_pil(frames[0]), step)

    def _video_preview(self, step: int, frames: list[Pixels], is_noisy: bool) -> object:
        assert self._on_preview is not None
        return self._on_preview([to_pil(frame) for frame in frames], step)


def split_hooks(given: Mapping[str, Any]) -> tuple[Hooks, dict[str, Any]]:
    """Separate the callbacks from other keyword arguments.

    Raises
    ------
    TypeError
        A callback has the wrong type, or was given under two names.
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
