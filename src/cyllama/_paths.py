"""Paths that a user writes, with ``~`` and environment variables, and the user's folders."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

__all__ = ["expanded", "similar_file", "unset_variables", "user_folder"]

# Of each kind: variable and folder on Windows, folder on macOS, variable and folder elsewhere.
FOLDERS = {
    "cache": ("LOCALAPPDATA", "Local", "Caches", "XDG_CACHE_HOME", ".cache"),
    "config": ("APPDATA", "Roaming", "Application Support", "XDG_CONFIG_HOME", ".config"),
}
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


def user_folder(kind: str) -> Path:
    """Return the package's folder for files of the user, which may not exist: ``"cache"`` or ``"config"``."""
    variable, windows, mac, xdg, other = FOLDERS[kind]
    if sys.platform == "win32":
        base = Path(os.environ.get(variable) or Path.home() / "AppData" / windows)
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / mac
    else:
        given = os.environ.get(xdg, "")
        base = Path(given) if os.path.isabs(given) else Path.home() / other
    return base / "cyllama"


def unset_variables(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the environment variables in a path that are not set."""
    found = VARIABLE.findall(os.fspath(path))
    return [name for pair in found for name in pair if name and name not in os.environ]


def similar_file(path: Path, suffixes: tuple[str, ...] = ("",)) -> Path | None:
    """Return the file in the folder of a missing one whose name without its suffix is most similar.

    Parameters
    ----------
    path : Path
        The missing file.
    suffixes : tuple of str
        Only files with one of these endings.
    """
    import difflib

    try:
        found = [Path(entry.name) for entry in os.scandir(path.parent) if entry.name.endswith(suffixes)]
    except OSError:
        return None
    names = {file.stem: file.name for file in found}
    near = difflib.get_close_matches(path.stem, names, n=1)
    return path.parent / names[near[0]] if near else None
