"""Paths of media files."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any

from cyllama._paths import expanded
from cyllama.media.encoded import shorten

__all__ = ["checked_path"]

URL = re.compile(r"(https?|ftps?|file|blob|s3|gs):/|data:", re.IGNORECASE)  # pathlib makes one slash of two


def checked_path(path: str | os.PathLike[Any], name: str, what: str) -> Path:
    """Return a path that can be opened; devices, which never end, are rejected.

    In a string, ``~`` and environment variables are replaced; a `pathlib.Path`, such as one of a message that was
    checked against ``allow_paths``, is opened as it is.

    Parameters
    ----------
    path : str or path
    name, what : str
        For messages: the name of the argument, and the expected kind of file, such as ``"audio"``.

    Raises
    ------
    FileNotFoundError, IsADirectoryError, PermissionError
    ValueError
        A null character, a URL, or a device.
    """
    text = os.fspath(path)
    if "\0" in os.fsdecode(text):
        raise ValueError(f"{name} is {text!r}, a path cannot contain a null character")
    if not text:
        raise FileNotFoundError(f"{name} is an empty path")
    found = Path(os.fsdecode(text)) if isinstance(path, Path) else expanded(os.fsdecode(text))
    if URL.match(os.fsdecode(text)) and not found.exists():
        shown = shorten(os.fsdecode(text))
        raise ValueError(f"{name} is the URL {shown}, which is not opened; expected the path of an {what} file")
    mode = os.stat(found).st_mode  # FileNotFoundError, PermissionError
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(f"{name} is {text!r}, a directory, expected an {what} file")
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise ValueError(f"{name} is {text!r}, a device, expected an {what} file")
    return found
