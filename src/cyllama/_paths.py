"""Paths that a user writes: ``~`` and environment variables."""

from __future__ import annotations

import os
import re
from pathlib import Path

__all__ = ["expanded", "unset_variables"]

VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with ``~`` and environment variables replaced.

    Parameters
    ----------
    path : str or path
        A file or folder with exactly this name is used as it is. Variables that are not set stay in the path.
    """
    text = os.fspath(path)
    if ("~" not in text and "$" not in text and "%" not in text) or os.path.lexists(text):
        return Path(text)
    return Path(os.path.expanduser(os.path.expandvars(text)))


def unset_variables(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the environment variables in a path that are not set."""
    found = VARIABLE.findall(os.fspath(path))
    return [name for pair in found for name in pair if name and name not in os.environ]
