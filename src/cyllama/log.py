"""Engine messages as ``logging`` records of ``cyllama.{ggml,llama,llava,whisper,sd}``; off by default.

:func:`set_level` sets the level in Python and in C, so that messages below it do not take the GIL. The environment
variable ``CYLLAMA_LOG`` (``debug``, ``info``, ``warning``, ``error``) sets the level at import and adds a handler for
the terminal.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

__all__ = ["ENGINES", "logger", "on_change", "set_level"]

ENGINES = ("ggml", "llama", "llava", "whisper", "sd")
OFF = logging.CRITICAL + 10

logger = logging.getLogger("cyllama")
logger.addHandler(logging.NullHandler())
level = OFF


def set_level(new_level: int | str | None) -> None:
    """Pass engine messages of `new_level` and above to ``logging``.

    Parameters
    ----------
    new_level : int or str or None
        A level of ``logging`` (``"info"``, ``logging.DEBUG``, ...); None turns engine messages off.

    Raises
    ------
    ValueError
        The level is unknown.
    """
    global level
    if new_level is None:
        level = OFF
    elif isinstance(new_level, str):
        known = logging.getLevelName(new_level.upper())
        if not isinstance(known, int):
            raise ValueError(f"level is {new_level!r}, expected debug, info, warning, error or None")
        level = known
    else:
        level = int(new_level)
    logger.setLevel(level if level != OFF else logging.NOTSET)
    for listener in _listeners:
        listener(level)


_listeners: list[Callable[[int], object]] = []


def on_change(listener: Callable[[int], object]) -> None:
    """Call `listener` with the level now and after each change (used by the native log hook)."""
    _listeners.append(listener)
    listener(level)


if os.environ.get("CYLLAMA_LOG"):
    logging.basicConfig(format="%(name)s: %(message)s")
    set_level(os.environ["CYLLAMA_LOG"])
